/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How slices come into the L2 cache: read, validated, brought into their form.
 *
 * A miss reads its slice; while the budget is free it reads the whole table, at most 64 KiB
 * of it, in the same request. Who needs a slice that is being read waits for that one. A
 * sequential reader's next tables are read by a coroutine of the node's own, which a drain
 * waits for (l2_co_settle); so is the whole map after opening, when asked to warm up.
 *
 * D1 an entry that contradicts the format is QCOW2_ENTRY_INVALID in memory; it is told when
 *    somebody asks for its slice, not when it comes along with another;
 * D2 what was read counts only if the L1 entry still names the table that was read: a
 *    background load is no request, no grace period covers it;
 * D3 a slot that is marked belongs to the window whose mark it has: a slice that was in
 *    memory when one window began to read may be changed, written, evicted and read by
 *    another before the first one ends, with what was there before.
 */
#include <errno.h>

#include "block/qcow2/qcow2.h"
#include "block/request.h"

#define WINDOW_BYTES (64 * KiB)
#define SLICE_BUFFER 4096u
#define MAX_KEPT 32       /* buffers of that size */
#define MAX_WIDE_LOADS 4  /* at once: their buffers are not counted in the budget */
#define MAX_READ_AHEAD 8u /* windows */

static CoQueue *queue_of(Qcow2 *q, uint32_t index)
{
    return &q->cache.loaded[index % L2_LOAD_QUEUES];
}

/* ---- validating ---- */

/* @table: the L2 table that the entry is in. */
static bool entry_is_valid(const Qcow2 *q, uint64_t entry, uint64_t file_end,
                           uint64_t table)
{
    bool may_write = !q->node->read_only;

    if (entry & QCOW2_COMPRESSED) {
        uint64_t offset, len;
        compressed_location(q, entry, &offset, &len);
        return !(entry & QCOW2_COPIED) && offset >= q->cluster_size && offset < file_end;
    }
    uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;
    if (entry & QCOW2_L2_RESERVED) {
        return false;
    }
    if ((entry & QCOW2_ZERO) && q->version < 3) {
        return false;
    }
    if (!offset) {
        return !(entry & QCOW2_COPIED);
    }
    return !(offset & (q->cluster_size - 1)) && offset < file_end &&
           offset != table && !overlap_fixed(q, offset, q->cluster_size) &&
           !(may_write && overlap_table(q, offset));
}

/* To host order, in place. True: all 0. *ret_bad: an invalid entry, or 0. */
static bool decode(Qcow2 *q, uint32_t index, void *buf, uint64_t *ret_bad)
{
    const be64 *disk = buf;
    uint64_t *entries = buf;
    uint64_t file_end = round_up(node_length(q->file), q->cluster_size);
    uint64_t table = round_down(l2_slice_disk_offset(q, index), q->cluster_size);
    uint64_t any = 0;
    /* what an entry has that is not simply data in a cluster of its own */
    uint64_t odd = QCOW2_COMPRESSED | QCOW2_L2_RESERVED |
                   (QCOW2_L2_OFFSET_MASK & (q->cluster_size - 1)) |
                   (q->version < 3 ? QCOW2_ZERO : 0);

    *ret_bad = 0;
    overlap_prepare(q);
    if (!q->table_set.filter) {
        odd = UINT64_MAX; /* no memory, or too many tables: look at each */
    }
    for (uint32_t i = 0; i < l2_slice_entries(q); i++) {
        uint64_t entry = be64_get(disk[i]);
        uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;
        if (entry && ((entry & odd) || offset >= file_end || overlap_maybe(q, offset)) &&
            !entry_is_valid(q, entry, file_end, table)) {
            *ret_bad = *ret_bad ? *ret_bad : entry;
            entry = QCOW2_ENTRY_INVALID;
        }
        entries[i] = entry;
        any |= entry;
    }
    return any == 0;
}

static void tell_invalid(Qcow2 *q, uint32_t index, uint64_t bad)
{
    node_image_corrupted(q->node, false, (int64_t)(bad & QCOW2_L2_OFFSET_MASK),
                         (int64_t)q->cluster_size,
                         "L2 entry %#" G_GINT64_MODIFIER
                         "x is invalid (guest clusters from %" G_GUINT64_FORMAT ")",
                         bad, (uint64_t)index << q->slice_bits);
}

/* ---- buffers: kept, for each would leave a hole in the heap among the slices ---- */

static void *take_buffer(Qcow2 *q, uint64_t bytes)
{
    L2Cache *c = &q->cache;
    void **kept = bytes == WINDOW_BYTES ? &c->wide_buffers : &c->slice_buffers;
    void *buf = bytes == WINDOW_BYTES || bytes == SLICE_BUFFER ? *kept : NULL;
    if (buf) {
        *kept = *(void **)buf;
        c->nb_kept -= bytes == SLICE_BUFFER;
        return buf;
    }
    return disk_buffer_try_alloc(4096, MAX(bytes, SLICE_BUFFER));
}

static void give_buffer(Qcow2 *q, void *buf, uint64_t bytes)
{
    L2Cache *c = &q->cache;
    if (!buf) {
        return;
    }
    if (bytes == WINDOW_BYTES) { /* at most MAX_WIDE_LOADS of them */
        *(void **)buf = c->wide_buffers;
        c->wide_buffers = buf;
    } else if (bytes == SLICE_BUFFER && c->nb_kept < MAX_KEPT) {
        *(void **)buf = c->slice_buffers;
        c->slice_buffers = buf;
        c->nb_kept++;
    } else {
        disk_buffer_free(buf);
    }
}

static void free_list(void **kept)
{
    while (*kept) {
        void *buf = *kept;
        *kept = *(void **)buf;
        disk_buffer_free(buf);
    }
}

void l2_free_buffers(Qcow2 *q)
{
    free_list(&q->cache.wide_buffers);
    free_list(&q->cache.slice_buffers);
    q->cache.nb_kept = 0;
}

/* ---- a window: slices that one request reads ---- */

typedef struct Window {
    uint64_t mark; /* of the slots that it reads */
    uint32_t first, count;
    uint32_t asked; /* the slice that somebody waits for; UINT32_MAX: none */
    bool cold, recent; /* of the one asked for: read once; seen not long ago */
} Window;

/* Decide what happens to a slot whose slice lies in @buf. */
static int take_slice(Qcow2 *q, const Window *w, uint32_t index, void *buf)
{
    uint64_t bad;
    bool empty = decode(q, index, buf, &bad);

    if (bad && index != w->asked) {
        l2_slot_set(q, index, 0); /* D1 */
        return 0;
    }
    if (empty && q->cache.compact) {
        l2_slot_set(q, index, L2_SLOT_EMPTY);
        return 0;
    }
    L2Slice *s = l2_form_new(buf, q->cluster_bits, q->slice_bits, q->cache.compact);
    if (!s) {
        l2_slot_set(q, index, 0);
        return -ENOMEM;
    }
    s->index = index;
    s->invalid = bad != 0;
    bool main = q->cache.one_queue || (index == w->asked && w->recent);
    s->queue = main ? L2_MAIN : L2_YOUNG;
    s->cold = w->cold && !main;
    s->used = index == w->asked && q->cache.one_queue;
    l2_slice_add(q, s);
    l2_queue_add(q, s);
    l2_age(q);
    if (bad) {
        tell_invalid(q, index, bad);
    }
    return 0;
}

static void mark_window(Qcow2 *q, Window *w)
{
    w->mark = ++q->cache.window_seq << 2 | L2_SLOT_LOADING;
    for (uint32_t i = w->first; i < w->first + w->count; i++) {
        uint64_t slot = *l2_slot_of(q, i);
        if (slot == 0 || (slot & 3) == L2_SLOT_GHOST) {
            l2_slot_set(q, i, w->mark);
        }
    }
}

/* D3: those of the window that it has marked get what was read, or nothing (@ret < 0). */
static int finish_window(Qcow2 *q, const Window *w, uint8_t *buf, int ret)
{
    int asked = ret;
    for (uint32_t i = w->first; i < w->first + w->count; i++) {
        if (*l2_slot_of(q, i) != w->mark) {
            continue;
        }
        if (ret < 0) {
            l2_slot_set(q, i, 0);
        } else {
            int taken = take_slice(q, w, i, buf + (i - w->first) * l2_slice_entries(q) * 8);
            asked = i == w->asked ? taken : asked;
        }
    }
    /* order: who wakes may evict; the page is not looked at any more */
    for (uint32_t i = 0; i < w->count && i < L2_LOAD_QUEUES; i++) {
        co_queue_wake_all(queue_of(q, w->first + i));
    }
    return asked;
}

static int coroutine_fn co_read_window(Qcow2 *q, const Window *w)
{
    uint64_t bytes = (uint64_t)w->count * l2_slice_entries(q) * 8;
    uint64_t at = l2_slice_disk_offset(q, w->first);

    if ((at & (bytes - 1)) || at >= node_length(q->file)) {
        return finish_window(q, w, NULL, -EIO); /* told when the L1 table was read */
    }
    uint8_t *buf = take_buffer(q, bytes);
    uint64_t room = w->count * l2_form_max_bytes(q->slice_bits);
    node_co_event(q->file, BLKDEBUG_EVENT_L2_LOAD);
    q->cache.loading_bytes += room;
    int ret = buf ? node_co_read_buf(q->file, at, bytes, buf) : -ENOMEM;
    q->cache.loading_bytes -= room;
    if (ret == 0 && l2_slice_disk_offset(q, w->first) != at) {
        ret = -EAGAIN; /* D2 */
    }
    ret = finish_window(q, w, buf, ret);
    give_buffer(q, buf, bytes);
    return ret == -EAGAIN ? 0 : ret;
}

/* The slices around @index that one wide request reads. */
static uint32_t window_slices(const Qcow2 *q)
{
    uint64_t table = (UINT64_C(1) << q->l2_bits) * 8;
    uint64_t slice = (uint64_t)l2_slice_entries(q) * 8;
    uint64_t n = min_u64(table, WINDOW_BYTES) / slice; /* a power of two; within a page */
    return (uint32_t)MIN(MAX(n, 1), L2_PAGE_SLICES);
}

/* Is there room for as many slices, however they look? */
static bool budget_is_free(const Qcow2 *q, uint32_t slices)
{
    return q->cache.bytes + q->cache.loading_bytes + slices * l2_form_max_bytes(q->slice_bits) +
               sizeof(L2Page) <=
           q->cache.budget;
}

static bool may_read_wide(const Qcow2 *q, uint32_t index)
{
    uint32_t n = window_slices(q);
    uint64_t end = l2_slice_disk_offset(q, index / n * n) +
                   (uint64_t)n * l2_slice_entries(q) * 8;
    return q->cache.wide && n > 1 && q->cache.wide_loads < MAX_WIDE_LOADS &&
           end <= node_length(q->file) && budget_is_free(q, n);
}

static int coroutine_fn co_load_wide(Qcow2 *q, Window w)
{
    uint32_t n = window_slices(q);
    w.first = w.first / n * n;
    w.count = n;
    mark_window(q, &w);
    q->cache.wide_loads++;
    q->cache.loads++;
    int ret = co_read_window(q, &w);
    q->cache.wide_loads--;
    return ret;
}

/* ---- in the background ---- */

static bool has_table(const Qcow2 *q, uint32_t index)
{
    uint64_t l1_index = ((uint64_t)index << q->slice_bits) >> q->l2_bits;
    return l1_index < q->l1_size && (q->l1[l1_index] & QCOW2_L1_OFFSET_MASK);
}

/* The window at @index, if it can be had for nothing. False: stop. */
static bool coroutine_fn co_load_ahead(Qcow2 *q, uint32_t index)
{
    if (node_is_draining(q->node) || !budget_is_free(q, window_slices(q))) {
        return false;
    }
    if (!has_table(q, index) || l2_is_loaded(q, (uint64_t)index << q->slice_bits) ||
        !l2_slot_make(q, index) || l2_slot_is_loading(*l2_slot_of(q, index))) {
        return true;
    }
    Window w = {.first = index, .count = 1, .asked = UINT32_MAX};
    q->cache.prefetches++;
    if (may_read_wide(q, index)) {
        return co_load_wide(q, w) == 0;
    }
    mark_window(q, &w);
    q->cache.loads++;
    return co_read_window(q, &w) == 0;
}

static void coroutine_fn co_warm_up(Qcow2 *q)
{
    L2Cache *c = &q->cache;
    const unsigned shift = q->l2_bits - q->slice_bits; /* slices of a table */
    while (c->warm_next < q->l1_size) {
        uint32_t first = c->warm_next << shift;
        for (uint32_t i = 0; i >> shift == 0; i += window_slices(q)) {
            if (!co_load_ahead(q, first + i)) {
                c->warm_next = node_is_draining(q->node) ? c->warm_next : UINT32_MAX;
                return;
            }
        }
        c->warm_next++;
    }
    c->warm_next = UINT32_MAX;
}

static void coroutine_fn co_background(void *opaque)
{
    Qcow2 *q = opaque;
    L2Cache *c = &q->cache;

    while (c->ahead_from < c->ahead_to) {
        uint32_t index = c->ahead_from;
        c->ahead_from += window_slices(q);
        if (!co_load_ahead(q, index)) {
            c->ahead_to = 0;
        }
    }
    if (c->warm_next != UINT32_MAX) {
        co_warm_up(q);
    }
    c->background = false;
    co_queue_wake_all(&c->settled);
}

static void start_background(Qcow2 *q)
{
    L2Cache *c = &q->cache;
    if (c->background || node_is_draining(q->node)) {
        return;
    }
    Coroutine *co = coroutine_try_new(co_background, q, CO_STACK_DATA);
    if (co) { /* else: it is but a hint */
        c->background = true;
        coroutine_wake_later(graph_loop(q->node->graph), co);
    }
}

void l2_warm_up(Qcow2 *q)
{
    if (q->cache.warm_next != UINT32_MAX) {
        start_background(q);
    }
}

void coroutine_fn l2_co_settle(Qcow2 *q)
{
    while (q->cache.background) {
        co_queue_wait(&q->cache.settled);
    }
}

/* Two misses in order make a sequential reader: read ahead of it, more each time. */
static void note_miss(Qcow2 *q, uint32_t index)
{
    L2Cache *c = &q->cache;
    uint32_t n = window_slices(q), window = index / n * n;

    if (!c->wide) {
        return;
    }
    if (window == c->next_in_order) {
        c->read_ahead = MIN(MAX(c->read_ahead * 2, 1), MAX_READ_AHEAD);
        if (c->ahead_from >= c->ahead_to) {
            c->ahead_from = window + n;
            c->ahead_to = MIN(window + n + c->read_ahead * n,
                              (uint32_t)(q->l1_size << (q->l2_bits - q->slice_bits)));
            start_background(q);
        }
    } else {
        c->read_ahead = 0;
    }
    c->next_in_order = window + n + c->read_ahead * n;
}

/* ---- on demand ---- */

int coroutine_fn l2_co_load(Qcow2 *q, uint64_t guest_cluster, unsigned flags)
{
    uint32_t index = (uint32_t)(guest_cluster >> q->slice_bits);
    uint64_t slot = l2_slot(q, guest_cluster);
    Window w = {.first = index, .count = 1, .asked = index, .cold = flags & BLOCK_NO_PROMOTE};

    if (l2_slot_is_loading(slot)) { /* the caller looks again */
        co_queue_wait(queue_of(q, index));
        return 0;
    }
    if (l2_is_loaded(q, guest_cluster)) {
        return 0;
    }
    q->cache.misses++;
    w.recent = !w.cold && l2_ghost_is_recent(q, slot);
    bool wide = may_read_wide(q, index);
    if (!wide) {
        l2_make_room(q, l2_form_max_bytes(q->slice_bits) + sizeof(L2Page) + 16);
    }
    if (!l2_slot_make(q, index)) {
        return -ENOMEM;
    }
    note_miss(q, index);
    l2_warm_up(q);
    if (wide && co_load_wide(q, w) == 0) {
        return 0;
    }
    slot = l2_slot(q, guest_cluster);
    if (wide && (l2_slot_is_loading(slot) || l2_is_loaded(q, guest_cluster))) {
        return 0; /* the wide read failed, and somebody else was quicker */
    }
    if (!l2_slot_make(q, index)) {
        return -ENOMEM;
    }
    mark_window(q, &w);
    q->cache.loads++;
    return co_read_window(q, &w);
}
