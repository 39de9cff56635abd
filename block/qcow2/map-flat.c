/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Learning which layer of a backing chain has something, and forgetting it (map-flat.h).
 *
 * Learned is when a read has passed many layers, for the units around it, by asking the
 * layers' maps once more: what they say of more than one cluster at a time costs little. The
 * lowest layer is never asked, for whatever the others do not have is its own. A layer whose
 * slice is not in memory leaves the unit unknown.
 */
#include <string.h>

#include "block/base/ablate.h"
#include "block/break.h"
#include "block/qcow2/qcow2.h"

#define LEARN_UNITS 64u /* a cache line; divides a page */
#define SETTLE      32u /* reads without a change before learning (again) */
#define MAX_STEPS   64

static void count_bytes(Qcow2 *q, int64_t bytes)
{
    q->flat->bytes += (uint64_t)bytes;
    q->cache.bytes += (uint64_t)bytes;
}

static void drop_page(Qcow2 *q, FlatPage *page)
{
    FlatMap *f = q->flat;
    list_remove(&page->link);
    f->pages[page->number] = NULL;
    f->page_bytes -= l2_malloc_bytes(sizeof(*page));
    count_bytes(q, -(int64_t)l2_malloc_bytes(sizeof(*page)));
    g_free(page);
}

bool flat_evict(Qcow2 *q)
{
    FlatMap *f = q->flat;
    if (!f || list_empty(&f->clock)) {
        return false;
    }
    for (unsigned steps = 0; steps < MAX_STEPS; steps++) {
        FlatPage *page = list_first(&f->clock, FlatPage, link);
        if (!page->used) {
            break;
        }
        page->used = false;
        list_remove(&page->link);
        list_append(&f->clock, &page->link);
    }
    drop_page(q, list_first(&f->clock, FlatPage, link));
    return true;
}

void flat_clean_idle(Qcow2 *q)
{
    FlatMap *f = q->flat;
    if (!f) {
        return;
    }
    list_foreach_safe(it, next, &f->clock) {
        FlatPage *page = container_of(it, FlatPage, link);
        if (page->idle && !page->used) {
            drop_page(q, page);
        } else {
            page->idle = true;
            page->used = false;
        }
    }
    if (list_empty(&f->clock)) {
        flat_free(q);
    }
}

static void drop_pages(Qcow2 *q)
{
    FlatMap *f = q->flat;
    while (!list_empty(&f->clock)) {
        drop_page(q, list_first(&f->clock, FlatPage, link));
    }
    if (f->pages) {
        count_bytes(q, -(int64_t)l2_malloc_bytes(f->nb_pages * sizeof(*f->pages)));
    }
    g_free(f->pages);
    f->pages = NULL;
    f->nb_pages = 0;
}

static void drop_layers(Qcow2 *q)
{
    FlatMap *f = q->flat;
    if (f->layers) {
        count_bytes(q, -(int64_t)l2_malloc_bytes(f->nb_layers * sizeof(*f->layers)));
    }
    g_free(f->layers);
    f->layers = NULL;
    f->nb_layers = 0;
}

void flat_free(Qcow2 *q)
{
    if (q->flat) {
        drop_pages(q);
        drop_layers(q);
        q->cache.bytes -= l2_malloc_bytes(sizeof(*q->flat));
        g_free(q->flat);
        q->flat = NULL;
    }
}

/* ---- beginning to learn ---- */

/* Room for @bytes that are no slice? Slices make it. */
static bool make_room(Qcow2 *q, uint64_t bytes)
{
    if (q->flat->bytes + bytes > q->cache.budget / 4) {
        return false;
    }
    l2_make_room(q, bytes);
    return q->cache.bytes + bytes <= q->cache.budget;
}

static FlatMap *get_flat(Qcow2 *q)
{
    if (!q->flat) {
        q->flat = g_try_new0(FlatMap, 1);
        if (q->flat) {
            list_init(&q->flat->clock);
            q->flat->wait = (uint8_t)KNOB(flat_settle, SETTLE);
            q->flat->ways = *q->ways;
            count_bytes(q, (int64_t)l2_malloc_bytes(sizeof(*q->flat)));
            l2_start_cleaning(q);
        }
    }
    return q->flat;
}

static bool find_layers(Qcow2 *q)
{
    FlatMap *f = q->flat;
    uint32_t n = 1;
    /* a watched layer is asked each time: its file's driver counts that (blkdebug) */
    for (BlockNode *at = q->node; at->backing_child && !at->watched && n <= FLAT_MAX_LAYERS;
         n++) {
        at = at->backing_child;
    }
    size_t bytes = l2_malloc_bytes(n * sizeof(*f->layers));
    if (n < 3 || !make_room(q, bytes)) {
        return false;
    }
    f->layers = g_try_new0(FlatLayer, n);
    if (!f->layers) {
        return false;
    }
    count_bytes(q, (int64_t)bytes);
    f->nb_layers = (uint8_t)n;
    BlockNode *at = q->node;
    for (uint32_t i = 0; i < n; i++, at = at->backing_child) {
        f->layers[i].node = at;
    }
    return true;
}

/* The directory is at most a sixteenth of the budget: on large disks units are larger. */
static bool make_directory(Qcow2 *q)
{
    FlatMap *f = q->flat;
    uint64_t n, bytes;
    for (f->unit_bits = q->cluster_bits;; f->unit_bits++) {
        n = (q->node->length >> (f->unit_bits + FLAT_PAGE_BITS)) + 1;
        bytes = l2_malloc_bytes(n * sizeof(*f->pages));
        if (bytes <= MAX(q->cache.budget / 16, 32) && n <= UINT32_MAX) {
            break;
        }
    }
    if (!make_room(q, bytes)) {
        return false;
    }
    f->pages = g_try_new0(FlatPage *, n);
    if (f->pages) {
        f->nb_pages = (uint32_t)n;
        count_bytes(q, (int64_t)bytes);
    }
    return f->pages != NULL;
}

/* Is what is known of now, and is it time to learn? */
static bool ready(Qcow2 *q)
{
    FlatMap *f = q->flat;
    if (f->ways != *q->ways) {
        if (!BROKEN(BREAK_FLAT_WAYS)) {
            drop_pages(q);
        }
        drop_layers(q);
        f->ways = *q->ways;
        f->wait = (uint8_t)KNOB(flat_settle, SETTLE);
    }
    if (f->wait) {
        f->wait--;
        return false;
    }
    /* what does not fit now is tried again after as many reads */
    f->wait = (f->layers || find_layers(q)) && (f->pages || make_directory(q)) ? 0 : SETTLE;
    return f->wait == 0;
}

static FlatPage *get_page(Qcow2 *q, uint64_t number)
{
    FlatMap *f = q->flat;
    const size_t bytes = l2_malloc_bytes(sizeof(FlatPage));
    if (number >= f->nb_pages) {
        return NULL;
    }
    if (f->pages[number]) {
        return f->pages[number];
    }
    while (f->bytes + bytes > q->cache.budget / 4 && flat_evict(q)) {
    }
    FlatPage *page = make_room(q, bytes) ? g_try_new0(FlatPage, 1) : NULL;
    if (page) {
        page->number = (uint32_t)number;
        page->used = true;
        list_append(&f->clock, &page->link);
        f->pages[number] = page;
        f->page_bytes += bytes;
        count_bytes(q, (int64_t)bytes);
    }
    return page;
}

/* ---- learning ---- */

/* Does @layer say "below, at the same place" for [@from, *@ret_to)? *ret_to is how far its
 * answer goes, at most to @end. */
static bool passes_below(const FlatLayer *layer, uint64_t from, uint64_t end,
                         uint64_t *ret_to, bool *ret_miss)
{
    BlockNode *node = layer->node;
    MapResult map;
    node->drv->map(node, MAP_OP_STATUS, from, end - from, &map);
    *ret_to = from + map.len;
    *ret_miss = map.kind == MAP_MISS;
    return map.kind == MAP_CHILD && map.child == node->backing_child && map.offset == from;
}

/* The units of [@from, @end), both at unit borders but for the disk's end; j is the layer
 * that is asked next, layers[j].end how far those above it say nothing. */
static void learn(FlatMap *f, FlatPage *page, uint64_t from, uint64_t end)
{
    const uint64_t unit = UINT64_C(1) << f->unit_bits;
    const uint32_t last = f->nb_layers - 1u;
    uint32_t j = 1;

    f->layers[1].end = end;
    while (from < end) {
        bool miss = false;
        while (from == f->layers[j].end) {
            j--;
        }
        uint64_t limit = f->layers[j].end, to = limit;
        if (j < last && passes_below(&f->layers[j], from, limit, &to, &miss)) {
            uint64_t whole = to == limit ? to : round_down(to, unit);
            if (whole > from) {
                f->layers[++j].end = whole;
                continue;
            }
        }
        to = min_u64(round_up(to, unit), limit);
        for (uint64_t at = from; at < to && !miss; at += unit) {
            page->layer[(at >> f->unit_bits) % FLAT_PAGE_UNITS] = (uint8_t)j;
        }
        from = to;
    }
}

void qcow2_learn_below(BlockNode *node, uint64_t offset)
{
    Qcow2 *q = node->state;
    if (!q->learns || !get_flat(q) || !ready(q)) {
        return;
    }
    FlatMap *f = q->flat;
    const uint64_t unit = UINT64_C(1) << f->unit_bits, line = unit * LEARN_UNITS;
    uint64_t from = round_down(offset, line);
    uint64_t end = min_u64(from + line, node->length);
    uint64_t below = f->layers[1].node->length;
    if (below < end) {
        end = round_down(below, unit);
    }
    FlatPage *page = get_page(q, from >> (f->unit_bits + FLAT_PAGE_BITS));
    if (page && from < end) {
        learn(f, page, from, end);
    }
}
