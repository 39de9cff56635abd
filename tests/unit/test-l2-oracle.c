/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The L2 cache against a plain array of all entries: random changes, look-ups, epochs,
 * evictions, idle cleaning, growth and background loads, by several coroutines at once,
 * on a file that fails now and then; for all forms, sizes of slices and small budgets.
 * What it counts is compared with what it has, all the time.
 */
#include <errno.h>
#include <string.h>

#include "block/base/ablate.h"
#include "tests/unit/map-rig.h"

#define WORKERS 5
#define TOO_FAR (UINT64_C(1) << 31) /* clusters that array32 does not reach */

typedef struct Setup {
    unsigned cluster_bits;
    uint32_t entry_size;
    uint64_t budget;
    uint32_t tables, max_tables;
    unsigned rounds;
} Setup;

typedef struct World {
    const Setup *setup;
    GRand *rand;
    Graph *graph;
    MapImage *im;
    unsigned running;
    CoQueue ended;
    bool flushing;
    bool settled; /* nobody but one may run: growth, clearing */
    uint64_t failed, looked, refused, evicted;
    uint32_t seen[L2_COUNT_NB];
} World;

static uint32_t below(World *w, uint64_t n)
{
    return (uint32_t)g_rand_int_range(w->rand, 0, (gint32)n);
}

/* ---- entries ---- */

static uint64_t draw_entry(World *w, uint64_t cluster)
{
    MapImage *im = w->im;
    unsigned bits = im->q->cluster_bits;
    unsigned kind = below(w, 100);
    /* areas of the disk lean to a form each */
    unsigned area = (unsigned)(cluster >> im->q->slice_bits) % 4;

    if (kind < 10) {
        return kind < 4 ? QCOW2_ZERO : 0;
    }
    if (area == 3 && kind < 20) {
        uint64_t sectors_shift = 62 - (bits - 8);
        return QCOW2_COMPRESSED | ((im->data_at << bits) + below(w, 1u << 30)) |
               (UINT64_C(1) << sectors_shift);
    }
    uint64_t host = im->data_at + (area == 0   ? cluster
                                   : area == 1 ? im->next_host++
                                               : below(w, 1u << 24));
    if (area == 3 && kind < 30 && bits < 24) {
        host += TOO_FAR;
    }
    return (host << bits) | (kind < 90 ? QCOW2_COPIED : 0) |
           (kind > 96 ? QCOW2_ZERO : 0);
}

/* ---- what a worker does ---- */

static uint64_t draw_cluster(World *w)
{
    uint64_t clusters = map_image_clusters(w->im);
    return below(w, 2) ? below(w, clusters) : below(w, MAX(clusters / 8, 1));
}

static void check_run(World *w, uint64_t cluster, uint32_t max)
{
    const Qcow2 *q = w->im->q;
    const uint64_t *truth = w->im->entry + cluster;
    uint64_t entry;
    uint32_t n = l2_get_run(q, cluster, max, &entry);

    g_assert_cmpuint(n, >=, 1);
    g_assert_cmpuint(n, <=, max);
    uint64_t step = l2_entry_step(entry, q->cluster_bits);
    for (uint32_t i = 0; i < n; i++) {
        g_assert_cmphex(truth[i], ==, entry + i * step);
    }
}

static void coroutine_fn look(World *w, uint64_t cluster, unsigned flags)
{
    MapImage *im = w->im;
    if (!map_image_has(im, cluster)) {
        return;
    }
    int ret = map_image_load(im, cluster, flags);
    if (ret < 0) {
        g_assert_cmpint(ret, ==, -EIO);
        g_assert_cmpuint(im->fail_one_in, !=, 0);
        w->failed++;
        return;
    }
    g_assert_cmphex(l2_get(im->q, cluster), ==, im->entry[cluster]);
    uint64_t slot = l2_slot(im->q, cluster);
    if (!(flags & BLOCK_NO_PROMOTE) && l2_slot_is_slice(slot)) {
        l2_touch(&im->q->cache, l2_slot_slice(slot));
    }
    uint64_t left = l2_slice_entries(im->q) - cluster % l2_slice_entries(im->q);
    check_run(w, cluster, 1 + below(w, left));
    w->looked++;
}

/* map's answer for a read, by its entries. */
static void coroutine_fn look_by_map(World *w, uint64_t cluster)
{
    MapImage *im = w->im;
    Qcow2 *q = im->q;
    uint64_t offset =
        (cluster << q->cluster_bits) + below(w, q->cluster_size / 512) * 512;
    uint64_t len = MIN((1 + below(w, 40)) * q->cluster_size, im->node->length - offset);
    MapOp op = below(w, 2) ? MAP_OP_READ : MAP_OP_SCAN;
    MapResult map;

    qcow2_map(im->node, op, offset, len, &map);
    g_assert_cmpuint(map.len, >=, 1);
    g_assert_cmpuint(map.len, <=, len);
    uint64_t end = (offset + map.len - 1) >> q->cluster_bits;
    for (uint64_t i = cluster; i <= end && map.kind != MAP_MISS; i++) {
        uint64_t entry = im->entry[i];
        if (entry == QCOW2_ENTRY_INVALID) {
            g_assert_cmpint(map.kind, ==, MAP_ERROR);
        } else if (entry & QCOW2_COMPRESSED) {
            g_assert_cmpint(map.kind, ==, MAP_SLOW);
        } else if (!entry || (entry & QCOW2_ZERO)) {
            g_assert_cmpint(map.kind, ==, MAP_ZERO);
        } else {
            uint64_t in_cluster = i == cluster ? offset & (q->cluster_size - 1) : 0;
            uint64_t at = (i << q->cluster_bits) + in_cluster - offset;
            g_assert_cmpint(map.kind, ==, MAP_CHILD);
            g_assert_cmphex(map.offset + at, ==,
                            (entry & QCOW2_L2_OFFSET_MASK) + in_cluster);
        }
    }
}

static void coroutine_fn scan(World *w)
{
    uint64_t clusters = map_image_clusters(w->im);
    uint64_t from = below(w, clusters), step = 1 + below(w, l2_slice_entries(w->im->q));
    unsigned flags = below(w, 2) ? BLOCK_NO_PROMOTE : 0;
    for (unsigned i = 0; i < 60 && from < clusters && !w->settled; i++, from += step) {
        look(w, from, flags);
    }
}

static void coroutine_fn flush(World *w, unsigned max)
{
    if (!w->flushing) {
        w->flushing = true;
        map_image_flush(w->im, max, !w->settled && below(w, 2), below(w, 8) == 0);
        w->flushing = false;
    }
}

static void coroutine_fn set(World *w, uint64_t cluster)
{
    uint64_t entry = draw_entry(w, cluster);
    uint64_t n = below(w, 4) ? 1 : 1 + below(w, 100);
    for (uint64_t i = 0; i < n && cluster + i < map_image_clusters(w->im); i++) {
        if (w->settled) {
            return;
        }
        uint64_t step = l2_entry_step(entry, w->im->q->cluster_bits);
        int ret = map_image_set(w->im, cluster + i, entry + i * step);
        w->failed += ret == -EIO;
        if (l2_dirty_full(w->im->q)) { /* as write.c does (M3) */
            flush(w, UINT32_MAX);
        }
    }
}

/* ---- invariants ---- */

static void check_all(World *w)
{
    const L2Cache *c = &w->im->q->cache;
    map_image_check(w->im);
    /* what is dirty cannot go, nor can the pages that find it */
    uint64_t held = (uint64_t)c->nb_pages * sizeof(L2Page *) + c->dirty_bytes +
                    c->page_bytes - c->idle_bytes;
    uint64_t allowed = MAX(c->budget, held);
    /* where nothing can go, each request that runs has its slice all the same */
    uint64_t tolerated =
        WORKERS * (l2_form_max_bytes(w->im->q->slice_bits) + sizeof(L2Page) + 16);
    g_assert_cmpuint(c->bytes, <=, allowed + tolerated);
    for (unsigned i = 0; i < L2_COUNT_NB; i++) {
        w->seen[i] |= c->count[i];
    }
}

static void coroutine_fn work(void *opaque)
{
    World *w = opaque;
    for (unsigned i = 0; i < w->setup->rounds && !w->settled; i++) {
        unsigned kind = below(w, 100);
        if (kind < 35) {
            set(w, draw_cluster(w));
        } else if (kind < 70) {
            look(w, draw_cluster(w), below(w, 3) ? 0 : BLOCK_NO_PROMOTE);
        } else if (kind < 85) {
            look_by_map(w, draw_cluster(w));
        } else if (kind < 89) {
            scan(w);
        } else if (kind < 95) {
            flush(w, below(w, 2) ? 1 + below(w, 4) : UINT32_MAX);
        } else if (kind < 97) {
            l2_clean_idle(w->im->q);
        } else if (kind < 98) {
            l2_make_room(w->im->q, below(w, w->im->q->cache.budget));
        } else if (kind < 99) {
            w->im->fail_one_in = below(w, 2) ? 2 + below(w, 10) : 0;
        } else {
            coroutine_wake_later(graph_loop(w->graph), coroutine_self());
            coroutine_yield();
        }
        if (i % 8 == 0) {
            check_all(w);
        }
    }
    w->running--;
    co_queue_wake_all(&w->ended);
}

/* ---- alone ---- */

static void coroutine_fn grow(World *w)
{
    MapImage *im = w->im;
    if (im->q->l1_size < im->max_tables) {
        im->q->l1_size += 1 + below(w, im->max_tables - im->q->l1_size);
        g_assert_true(l2_cache_resize(im->q));
        node_set_length(im->node, map_image_clusters(im) << im->q->cluster_bits);
    }
}

/* Entries that contradict the format, on the disk of a slice that is not in memory. */
static void spoil(World *w)
{
    MapImage *im = w->im;
    uint64_t cluster = draw_cluster(w);
    if (!map_image_has(im, cluster) || l2_slot(im->q, cluster) != 0) {
        return;
    }
    const uint64_t bits = im->q->cluster_bits;
    const uint64_t bad[] = {2, /* reserved */
                            UINT64_C(1) << 62 | QCOW2_COPIED | (8 << bits), /* both */
                            im->tables_at << bits,      /* a table */
                            QCOW2_COPIED,               /* no cluster */
                            UINT64_C(3) << (bits - 1)}; /* half a one */
    im->disk[cluster] = be64_make(bad[below(w, G_N_ELEMENTS(bad))]);
    im->entry[cluster] = QCOW2_ENTRY_INVALID;
    w->refused++;
}

static void coroutine_fn rest(World *w)
{
    l2_co_settle(w->im->q);
    g_assert_cmpuint(w->im->q->cache.loading_bytes, ==, 0);
    w->im->fail_one_in = 0;
    while (w->im->q->cache.dirty_bytes) {
        map_image_flush(w->im, UINT32_MAX, false, false);
    }
    check_all(w);
    if (below(w, 2)) {
        l2_cache_clear(w->im->q);
        check_all(w);
        spoil(w);
    }
    grow(w);
    if (below(w, 3) == 0) {
        w->im->q->cache.warm_next = 0;
        l2_warm_up(w->im->q);
    }
}

static void coroutine_fn run_world(void *opaque)
{
    World *w = opaque;
    const Setup *s = w->setup;
    L2Options options = {.entry_size = s->entry_size, .budget = 64 * KiB};

    w->im = map_image_new(w->graph, w->rand, s->cluster_bits, s->tables, s->max_tables,
                          &options);
    uint64_t least = w->im->q->cache.nb_pages * sizeof(L2Page *) +
                     2 * l2_form_max_bytes(w->im->q->slice_bits);
    w->im->q->cache.budget = least + s->budget;
    for (unsigned turn = 0; turn < 8; turn++) {
        w->im->slow = below(w, 4) != 0;
        for (unsigned i = below(w, WORKERS) + 1; i; i--) {
            w->running++;
            coroutine_enter(coroutine_new(work, w, CO_STACK_DATA));
        }
        while (w->running) {
            co_queue_wait(&w->ended);
        }
        w->settled = true;
        rest(w);
        w->settled = false;
    }
    w->settled = true;
    rest(w);
    for (uint64_t i = 0; i < map_image_clusters(w->im); i++) {
        look(w, i, BLOCK_NO_PROMOTE);
    }
    check_all(w);
    w->evicted = w->im->q->cache.evictions;
    map_image_free(w->im);
}

static void one_world(Loop *loop, const Setup *s, uint32_t seed, World *ret)
{
    *ret = (World){
        .setup = s, .graph = graph_new(loop), .rand = g_rand_new_with_seed(seed)};
    co_queue_init(&ret->ended, loop);
    loop_run_coroutine(loop, run_world, ret);
    graph_free(ret->graph);
    g_rand_free(ret->rand);
}

static void run_all(void)
{
    static const Setup setups[] = {
        /* clusters, slice, budget beyond the least, tables, at most, rounds */
        {9, 0, 0, 200, 400, 400},          {9, 512, 4 * KiB, 100, 400, 400},
        {10, 512, 0, 100, 200, 400},       {10, 0, 64 * KiB, 60, 300, 400},
        {12, 512, 8 * KiB, 20, 60, 400},   {12, 0, 16 * KiB, 20, 60, 400},
        {16, 512, 16 * KiB, 2, 6, 300},    {16, 4096, 0, 2, 6, 300},
        {16, 4096, 32 * KiB, 2, 6, 300},   {16, 16384, 64 * KiB, 1, 6, 300},
        {16, 65536, 0, 2, 6, 200},         {16, 0, 16 * MiB, 1, 6, 300},
        {16, 1024, 72 * KiB, 8, 12, 500}, /* room for one whole table */
        {12, 512, 6 * KiB, 200, 300, 500}, {12, 512, 40 * KiB, 100, 100, 1500},
        {16, 1024, 600 * KiB, 6, 6, 500},
    };
    Loop *loop = loop_new(LOOP_EPOLL, NULL);
    uint64_t failed = 0, refused = 0, evicted = 0;
    uint32_t seen[L2_COUNT_NB] = {0};

    for (unsigned i = 0; i < G_N_ELEMENTS(setups); i++) {
        World w;
        for (uint32_t seed = 1; seed <= 4; seed++) {
            one_world(loop, &setups[i], seed, &w);
            failed += w.failed;
            refused += w.refused;
            evicted += w.evicted;
            for (unsigned f = 0; f < L2_COUNT_NB; f++) {
                seen[f] |= w.seen[f];
            }
        }
    }
    g_assert_cmpuint(failed, >, 100);
    g_assert_cmpuint(refused, >, 10);
    g_assert_cmpuint(evicted, >, 10000);
    for (unsigned f = 0; f < L2_COUNT_NB && !ablated(ABLATE_MAP_FORMS); f++) {
        g_assert_cmpuint(seen[f], !=, 0);
    }
    loop_free(loop);
}

/* With a switch off; each in its own process, for a switch stays off. */
static void run_ablated(gconstpointer name)
{
    if (g_test_subprocess()) {
        g_assert_true(ablate_set(name, NULL));
        run_all();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/l2-oracle/on", run_all);
    g_test_add_data_func("/l2-oracle/map-forms", "map-forms", run_ablated);
    g_test_add_data_func("/l2-oracle/map-scan-resistant", "map-scan-resistant",
                         run_ablated);
    g_test_add_data_func("/l2-oracle/map-table-read", "map-table-read", run_ablated);
    return g_test_run();
}
