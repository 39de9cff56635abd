/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Look-ups through long chains, some of which skip layers (map-flat.h), against plain
 * arrays: after each of thousands of changes to entries, links and lengths, of any
 * layer.
 */
#include <string.h>

#include "block/base/ablate.h"
#include "tests/unit/map-rig.h"

#define MAX_LAYERS 40
#define MIN_LAYERS 4

typedef struct World {
    Graph *graph;
    GRand *rand;
    MapImage *layer[MAX_LAYERS]; /* 0: the top */
    unsigned nb;
    unsigned cluster_bits; /* of new layers, and up to 2 more */
    uint64_t budget;
    uint64_t max_bytes;       /* of a layer */
    uint64_t looked, skipped; /* look-ups; of them from remembered layers */
    unsigned settled;
} World;

static uint32_t below(World *w, uint32_t n)
{
    return (uint32_t)g_rand_int_range(w->rand, 0, (gint32)n);
}

static uint64_t new_host(MapImage *im)
{
    return (im->next_host += 1 + g_rand_int_range(im->rand, 0, 2))
           << im->q->cluster_bits;
}

/* ---- changes ---- */

static MapImage *make_layer(World *w)
{
    unsigned bits = w->cluster_bits + below(w, 3);
    L2Options options = {.budget = w->budget};
    uint64_t table = UINT64_C(1) << (2 * bits - 3);
    uint32_t tables = (uint32_t)div_round_up(w->max_bytes, table);
    MapImage *im = map_image_new(w->graph, w->rand, bits, tables, tables, &options);
    im->node->length = w->max_bytes - below(w, 3) * 4096;
    if (w->budget < 64 * KiB) {
        im->q->cache.budget = w->budget;
    }
    return im;
}

/* Some clusters, in one run as often as not. */
static void coroutine_fn fill(World *w, MapImage *im, unsigned nb)
{
    uint64_t clusters = im->node->length >> im->q->cluster_bits;
    while (nb--) {
        uint64_t at = below(w, (uint32_t)clusters);
        uint64_t n = below(w, 2) ? 1 : 1 + below(w, 60);
        for (uint64_t i = at; i < MIN(at + n, clusters); i++) {
            uint64_t entry = below(w, 8)   ? new_host(im) | QCOW2_COPIED
                             : below(w, 2) ? QCOW2_ZERO
                                           : 0;
            g_assert_cmpint(map_image_set(im, i, entry), ==, 0);
        }
    }
    if (l2_dirty_full(im->q) || below(w, 4) == 0) {
        map_image_flush(im, UINT32_MAX, false, false);
    }
}

static void coroutine_fn add_top(World *w)
{
    MapImage *top = make_layer(w);
    if (w->nb) {
        edge_new(top->node, NULL, w->layer[0]->node, "backing");
    }
    memmove(w->layer + 1, w->layer, w->nb * sizeof(w->layer[0]));
    w->layer[0] = top;
    w->nb++;
    fill(w, top, below(w, 6));
}

static void coroutine_fn remove_layer(World *w, unsigned i)
{
    MapImage *gone = w->layer[i];
    BlockEdge *above = i ? node_edge(w->layer[i - 1]->node, "backing") : NULL;
    BlockEdge *under = node_edge(gone->node, "backing");
    if (above && i + 1 < w->nb) {
        edge_set_child(above, w->layer[i + 1]->node);
    } else if (above) {
        edge_unlink(above);
    }
    if (under) {
        edge_unlink(under);
    }
    map_image_free(gone);
    w->nb--;
    memmove(w->layer + i, w->layer + i + 1, (w->nb - i) * sizeof(w->layer[0]));
}

/* Layers @i and @i + 1 change places: links alone. */
static void swap_layers(World *w, unsigned i)
{
    MapImage *high = w->layer[i], *low = w->layer[i + 1];
    BlockEdge *above = i ? node_edge(w->layer[i - 1]->node, "backing") : NULL;
    BlockEdge *between = node_edge(high->node, "backing");
    BlockEdge *under = node_edge(low->node, "backing");
    if (above) {
        edge_set_child(above, low->node);
    }
    edge_unlink(between);
    if (under) {
        edge_set_child(under, under->child); /* a change that is none */
        edge_new(high->node, NULL, under->child, "backing");
        edge_unlink(under);
    }
    edge_new(low->node, NULL, high->node, "backing");
    w->layer[i] = low;
    w->layer[i + 1] = high;
}

static void resize_layer(World *w, MapImage *im)
{
    uint64_t length = round_up(1 + below(w, (uint32_t)w->max_bytes), 512);
    if (below(w, 2)) {
        length = w->max_bytes;
    }
    node_set_length(im->node, MIN(length, w->max_bytes));
}

/* Everything is on the disk and forgotten: another program may have written to it. */
static void coroutine_fn read_again(World *w, MapImage *im)
{
    map_image_flush(im, UINT32_MAX, false, false);
    l2_co_settle(im->q);
    l2_cache_clear(im->q);
    if (below(w, 2) && map_image_has(im, 0)) {
        uint64_t entry = new_host(im) | QCOW2_COPIED;
        im->disk[0] = be64_make(entry);
        im->entry[0] = entry;
    }
    l2_cache_resize(im->q);
}

static void coroutine_fn change(World *w)
{
    MapImage *im = w->layer[below(w, w->nb)];
    unsigned kind = below(w, 100);
    if (kind < 55) {
        fill(w, w->layer[0], 1); /* the guest writes */
    } else if (kind < 70) {
        fill(w, im, 1);
    } else if (kind < 76) {
        map_image_flush(im, UINT32_MAX, false, false);
        l2_make_room(im->q, im->q->cache.budget); /* everything goes that can */
    } else if (kind < 80 && w->nb < MAX_LAYERS) {
        add_top(w);
    } else if (kind < 84 && w->nb > MIN_LAYERS) {
        remove_layer(w, below(w, w->nb));
    } else if (kind < 88) {
        resize_layer(w, im);
    } else if (kind < 91) {
        read_again(w, im);
    } else if (kind < 94) {
        swap_layers(w, below(w, w->nb - 1));
    } else if (kind < 96) {
        l2_clean_idle(im->q);
    }
}

/* ---- look-ups ---- */

/* What the chain has at @offset, by the arrays: the layer in *ret_layer (w->nb: none).
 */
static uint64_t truth(const World *w, uint64_t offset, unsigned *ret_layer)
{
    for (unsigned i = 0; i < w->nb; i++) {
        const MapImage *im = w->layer[i];
        if (offset >= im->node->length) {
            break; /* shorter than the layer above: zeros */
        }
        uint64_t entry = im->entry[offset >> im->q->cluster_bits];
        if (entry) {
            *ret_layer = i;
            return entry;
        }
    }
    *ret_layer = w->nb;
    return 0;
}

static void compare(World *w, uint64_t from, uint64_t offset, const BlockNode *node,
                    const MapResult *map)
{
    uint64_t step = UINT64_C(1) << w->cluster_bits;
    g_assert_cmpuint(map->len, >, 0);
    for (uint64_t at = 0; at < map->len;
         at = round_down(from + at, step) + step - from) {
        unsigned i;
        uint64_t entry = truth(w, from + at, &i);
        if (!entry || (entry & QCOW2_ZERO)) {
            g_assert_cmpint(map->kind, ==, MAP_ZERO);
            continue;
        }
        const MapImage *im = w->layer[i];
        g_assert_cmpint(map->kind, ==, MAP_CHILD);
        g_assert(node == im->file);
        uint64_t in_cluster = (from + at) & (im->q->cluster_size - 1);
        g_assert_cmphex(offset + at, ==, (entry & QCOW2_L2_OFFSET_MASK) + in_cluster);
    }
}

/* As resolve.c walks; returns how far the answer goes. */
static uint64_t coroutine_fn walk(World *w, MapOp op, uint64_t from, uint64_t len)
{
    for (;;) {
        BlockNode *node = w->layer[0]->node;
        uint64_t offset = from, rest = len;
        unsigned layers = 0;
        MapResult map;
        for (;;) {
            node->drv->map(node, op, offset, rest, &map);
            if (map.kind != MAP_CHILD || map.child->drv != node->drv) {
                break;
            }
            g_assert_cmpuint(map.offset, ==, offset);
            w->skipped += map.child != node->backing_child;
            node = map.child;
            rest = map.len;
            layers++;
        }
        if (map.kind == MAP_MISS) {
            g_assert_cmpint(l2_co_load(node->state,
                                       offset >> ((Qcow2 *)node->state)->cluster_bits,
                                       0),
                            ==, 0);
            continue;
        }
        w->looked++;
        compare(w, from, map.offset, map.kind == MAP_CHILD ? map.child : NULL, &map);
        if (layers > 2 && op == MAP_OP_READ) {
            w->layer[0]->node->drv->learn_below(w->layer[0]->node, from);
        }
        return map.len;
    }
}

static void coroutine_fn look(World *w)
{
    uint64_t length = w->layer[0]->node->length;
    MapOp op = below(w, 5) ? MAP_OP_READ : below(w, 2) ? MAP_OP_SCAN : MAP_OP_STATUS;
    uint64_t from = below(w, (uint32_t)(length / 512)) * UINT64_C(512);
    uint64_t len = below(w, 3) ? 4096 : (1 + below(w, 64)) << (w->cluster_bits + 1);
    uint64_t end = MIN(from + len, length);
    while (from < end) {
        from += walk(w, op, from, end - from);
    }
}

static void coroutine_fn run_world(void *opaque)
{
    World *w = opaque;
    while (w->nb < 2 + below(w, MAX_LAYERS - 4)) {
        add_top(w);
    }
    for (unsigned round = 0; round < 400; round++) {
        change(w);
        /* long enough to learn again, now and then */
        for (unsigned n = below(w, 4) ? below(w, 30) : 300; n; n--) {
            look(w);
        }
        for (unsigned i = 0; i < w->nb; i++) {
            map_image_check(w->layer[i]);
            const L2Cache *c = &w->layer[i]->q->cache;
            const FlatMap *f = w->layer[i]->q->flat;
            g_assert(!f || f->bytes <= c->budget / 4 + l2_malloc_bytes(sizeof(*f)));
        }
    }
    while (w->nb) {
        remove_layer(w, 0);
    }
}

static uint64_t one_world(Loop *loop, uint32_t seed, uint64_t budget)
{
    World w = {
        .graph = graph_new(loop), .rand = g_rand_new_with_seed(seed), .budget = budget};
    w.cluster_bits = 9 + below(&w, 4);
    /* not a whole number of the largest clusters */
    w.max_bytes =
        (UINT64_C(300) << (w.cluster_bits + below(&w, 4))) + below(&w, 3) * 8192 + 512;
    loop_run_coroutine(loop, run_world, &w);
    g_assert_cmpuint(w.looked, >, 1000);
    graph_free(w.graph);
    g_rand_free(w.rand);
    return w.skipped;
}

static void run_worlds(gconstpointer opaque)
{
    uint64_t budget = GPOINTER_TO_UINT(opaque);
    Loop *loop = loop_new(LOOP_EPOLL, NULL);
    uint64_t skipped = 0;
    for (uint32_t seed = 1; seed <= 12; seed++) {
        skipped += one_world(loop, seed, budget);
    }
    g_test_message("%" G_GUINT64_FORMAT " look-ups skipped layers", skipped);
    g_assert_cmpuint(skipped, >, 5000); /* else it is not what is tested */
    loop_free(loop);
}

/* Off: nothing is remembered. */
static void test_off(void)
{
    Loop *loop = loop_new(LOOP_EPOLL, NULL);
    g_assert_true(ablate_set("map-flat", NULL));
    g_assert_cmpuint(one_world(loop, 1, MiB), ==, 0);
    loop_free(loop);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/map-flat/roomy", GUINT_TO_POINTER(4 * MiB), run_worlds);
    g_test_add_data_func("/map-flat/tight", GUINT_TO_POINTER(14 * KiB), run_worlds);
    g_test_add_func("/map-flat/off", test_off); /* last: a switch stays off */
    return g_test_run();
}
