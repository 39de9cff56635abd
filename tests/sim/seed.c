/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One seed: one world lives from its first image to its clean close. On its way, before
 * operations that chance chooses among all (those of flushes and of the close as well), the
 * process forks: in the child the power is cut at this very moment and the rest verified.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/sim.h"

/* What is drawn at a step depends on nothing but seed and step: --cut STEP repeats it. */
static void before_step(void *opaque)
{
    World *w = opaque;
    gint64 step = (gint64)sim_host_steps(w->host);
    uint32_t seeds[3] = {w->seed, (uint32_t)step, 0x9e3779b9};
    GRand *rand = g_rand_new_with_seed_array(seeds, 3);
    bool chosen = g_rand_int_range(rand, 0, (gint32)w->cfg.cut_one_in) == 0 || sim_options.every_cut;
    bool process = w->cfg.no_flush || g_rand_int_range(rand, 0, 5) == 0;

    g_rand_free(rand);
    if (sim_options.only_cut >= 0) {
        chosen = step == sim_options.only_cut;
    }
    if (chosen && w->depth) { /* before that there is no image */
        verify_in_child(w, VERIFY_CUT, !process);
    }
}

static void coroutine_fn begin(void *opaque)
{
    world_co_begin(opaque);
}

static void keep_some(World *w)
{
    GArray *all = w->ops;
    if (!sim_options.keep) {
        return;
    }
    w->ops = g_array_new(FALSE, TRUE, sizeof(SimOp));
    for (guint i = 0; i < sim_options.keep->len; i++) {
        guint index = g_array_index(sim_options.keep, guint, i);
        if (index < all->len) {
            g_array_append_val(w->ops, g_array_index(all, SimOp, index));
        }
    }
    g_array_free(all, TRUE);
}

static void describe(const World *w)
{
    const Config *c = &w->cfg;
    printf("clusters of %u, %u sectors, v%d, refcount bits %u, base %d, no-flush %d, "
           "%u workers, direct %d, device %d, no-punch %d, align %u, granule %u, window %u, "
           "slices %u; faults of writes %.3f, syncs %.3f, reads %.3f, room for %u\n",
           1u << c->cluster_bits, c->nb_sectors, c->v2 ? 2 : 3, 1u << c->refcount_order,
           c->base, c->no_flush, c->workers, c->traits.direct, c->traits.block_device,
           c->traits.no_punch, c->traits.align, c->traits.granule,
           (unsigned)c->knobs.window_clusters, c->l2_slices, c->faults.write_odds,
           c->faults.sync_odds, c->faults.read_odds, (unsigned)c->faults.capacity);
}

static void run(const Scenario *scenario, uint32_t seed)
{
    World *w = world_new(scenario, seed);
    keep_some(w);
    if (sim_options.verbose) {
        describe(w);
    }
    loop_run_coroutine(w->loop, begin, w);
    sim_host_set_faults(w->host, &w->cfg.faults);
    sim_host_set_step(w->host, before_step, w);
    w->nb_workers = w->cfg.workers;
    for (unsigned i = w->nb_workers; i > 0; i--) {
        coroutine_enter(coroutine_new(workload_worker, w, CO_STACK_CONTROL));
    }
    loop_run(w->loop);
}

bool seed_passes(const Scenario *scenario, uint32_t seed)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(sim_options.cut_more ? 100 : 240);
        run(scenario, seed);
        fflush(stdout);
        _exit(0);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) < 0) {
        perror("fork");
        return false;
    }
    if (WIFSIGNALED(status) && !sim_options.silent) {
        printf("%s, seed %u: killed by signal %d\n", scenario->name, seed,
               WTERMSIG(status));
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
