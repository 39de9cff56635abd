/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shrinking: delete operations from a failing seed's list, in chunks and then one by one,
 * as long as what is left still fails under a power cut at some step. The survivors, and
 * the way to replay them, are printed.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/sim/sim.h"

#define BUDGET_SECONDS 40

static bool still_fails(const Scenario *scenario, uint32_t seed, const GArray *keep)
{
    sim_options.keep = keep;
    return !seed_passes(scenario, seed);
}

/* @from without the chunk at @start. */
static GArray *without(const GArray *from, guint start, guint len)
{
    GArray *out = g_array_new(FALSE, FALSE, sizeof(guint));
    for (guint i = 0; i < from->len; i++) {
        if (i < start || i >= start + len) {
            g_array_append_val(out, g_array_index(from, guint, i));
        }
    }
    return out;
}

static GArray *shrink_list(const Scenario *scenario, uint32_t seed, GArray *keep)
{
    time_t stop = time(NULL) + BUDGET_SECONDS;
    for (guint chunk = MAX(keep->len / 2, 1);; chunk = MAX(chunk / 2, 1)) {
        bool any = false;
        for (guint start = 0; start < keep->len && time(NULL) < stop;) {
            GArray *candidate = without(keep, start, chunk);
            if (still_fails(scenario, seed, candidate)) {
                g_array_free(keep, TRUE);
                keep = candidate;
                any = true;
            } else {
                g_array_free(candidate, TRUE);
                start += chunk;
            }
        }
        if ((chunk == 1 && !any) || time(NULL) >= stop) {
            return keep;
        }
    }
}

static void print_list(const Scenario *scenario, uint32_t seed, const GArray *keep)
{
    World *w = world_new(scenario, seed);
    GString *numbers = g_string_new(NULL);
    printf("shrunk to %u of %u operations, on %u workers:\n", keep->len, w->ops->len,
           w->cfg.workers);
    for (guint i = 0; i < keep->len; i++) {
        guint index = g_array_index(keep, guint, i);
        g_autofree char *text = op_describe(&g_array_index(w->ops, SimOp, index));
        printf("  %s\n", text);
        g_string_append_printf(numbers, "%s%u", i ? "," : "", index);
    }
    printf("replay: crash --scenario %s --seed %u --ops %s\n", scenario->name, seed,
           numbers->str);
    g_string_free(numbers, TRUE);
}

void shrink_seed(const Scenario *scenario, uint32_t seed)
{
    SimOptions saved = sim_options;
    World *w = world_new(scenario, seed);
    GArray *keep = g_array_new(FALSE, FALSE, sizeof(guint));
    for (guint i = 0; i < w->ops->len; i++) {
        g_array_append_val(keep, i);
    }
    sim_options.silent = true;
    sim_options.verbose = false;
    sim_options.stock = false;
    sim_options.every_cut = true;
    if (still_fails(scenario, seed, keep)) {
        keep = shrink_list(scenario, seed, keep);
        print_list(scenario, seed, keep);
        sim_options.silent = false;
        still_fails(scenario, seed, keep); /* says why */
    } else {
        printf("it does not fail with a cut at every step, and is left as it is\n");
    }
    g_array_free(keep, TRUE);
    sim_options = saved;
}
