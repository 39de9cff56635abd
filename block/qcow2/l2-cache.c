/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The L2 cache: slices of L2 tables, decoded and validated once, found by radix.
 *
 * Invariants:
 *  L1 a slice in a page is in the clock list, and the other way round;
 *  L2 a dirty or writing or loading slice is not evicted;
 *  L3 an entry that contradicts the format is ENTRY_INVALID in memory; a slice that has
 *     one is never changed and never written.
 */
#include <errno.h>
#include <string.h>

#include "block/qcow2/qcow2.h"

unsigned l2_slice_entries(const Qcow2 *q)
{
    return 1u << q->slice_bits;
}

static size_t entries_bytes(const Qcow2 *q)
{
    return l2_slice_entries(q) * sizeof(uint64_t);
}

static uint32_t nb_pages_for(const Qcow2 *q)
{
    uint64_t clusters = (uint64_t)q->l1_size << q->l2_bits;
    uint64_t slices = div_round_up(clusters, l2_slice_entries(q));
    return (uint32_t)div_round_up(slices, L2_PAGE_SLICES);
}

void l2_cache_init(Qcow2 *q, uint64_t budget)
{
    L2Cache *c = &q->cache;
    c->nb_pages = nb_pages_for(q);
    c->pages = g_new0(L2Page *, MAX(c->nb_pages, 1));
    c->budget = budget;
    list_init(&c->clock);
    list_init(&c->dirty);
    co_queue_init(&c->loaded, graph_loop(q->node->graph));
}

bool l2_cache_resize(Qcow2 *q)
{
    L2Cache *c = &q->cache;
    uint32_t n = nb_pages_for(q);
    if (n > c->nb_pages) {
        L2Page **pages = g_try_renew(L2Page *, c->pages, n);
        if (!pages) {
            return false;
        }
        memset(pages + c->nb_pages, 0, (n - c->nb_pages) * sizeof(*pages));
        c->pages = pages;
        c->nb_pages = n;
    }
    return true;
}

static L2Slice **place_of(Qcow2 *q, uint32_t index)
{
    L2Page **page = &q->cache.pages[index / L2_PAGE_SLICES];
    if (!*page) {
        *page = g_try_new0(L2Page, 1);
    }
    return *page ? &(*page)->slice[index % L2_PAGE_SLICES] : NULL;
}

static void slice_free(Qcow2 *q, L2Slice *slice)
{
    *place_of(q, slice->index) = NULL;
    list_remove(&slice->in_cache);
    list_remove(&slice->in_dirty);
    q->cache.bytes -= sizeof(*slice) + (slice->entries ? entries_bytes(q) : 0);
    g_free(slice->entries);
    g_free(slice);
}

void l2_cache_clear(Qcow2 *q)
{
    while (!list_empty(&q->cache.clock)) {
        L2Slice *slice = list_first(&q->cache.clock, L2Slice, in_cache);
        g_assert(!slice->loading);
        slice_free(q, slice);
    }
}

void l2_cache_fini(Qcow2 *q)
{
    l2_cache_clear(q);
    for (uint32_t i = 0; i < q->cache.nb_pages; i++) {
        g_free(q->cache.pages[i]);
    }
    g_free(q->cache.pages);
}

/* CLOCK: clean slices nobody looked at since the hand passed go first. */
static void make_room(Qcow2 *q)
{
    L2Cache *c = &q->cache;
    unsigned steps = 0;
    while (c->bytes > c->budget && !list_empty(&c->clock) && steps++ < 4096) {
        L2Slice *slice = list_first(&c->clock, L2Slice, in_cache);
        list_remove(&slice->in_cache);
        list_append(&c->clock, &slice->in_cache);
        if (slice->loading || slice->writing || list_linked(&slice->in_dirty)) {
            continue;
        }
        if (slice->referenced) {
            slice->referenced = false;
            continue;
        }
        slice_free(q, slice);
        c->evictions++;
    }
}

uint64_t l2_slice_disk_offset(const Qcow2 *q, const L2Slice *slice)
{
    uint64_t cluster = (uint64_t)slice->index << q->slice_bits;
    uint64_t in_table = cluster & ((UINT64_C(1) << q->l2_bits) - 1);
    return (q->l1[cluster >> q->l2_bits] & QCOW2_L1_OFFSET_MASK) + in_table * 8;
}

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

/* Decode what was read; NULL entries when all are 0. */
static void decode(Qcow2 *q, L2Slice *slice, const be64 *disk)
{
    unsigned n = l2_slice_entries(q);
    uint64_t any = 0;
    uint64_t file_end = round_up(node_length(q->file), q->cluster_size);
    uint64_t bad = 0;
    overlap_prepare(q);
    uint64_t table = round_down(l2_slice_disk_offset(q, slice), q->cluster_size);

    for (unsigned i = 0; i < n; i++) {
        uint64_t entry = be64_get(disk[i]);
        if (entry && !entry_is_valid(q, entry, file_end, table)) {
            bad = bad ? bad : entry;
            slice->has_invalid = true;
            entry = QCOW2_ENTRY_INVALID;
        }
        slice->entries[i] = entry;
        any |= entry;
    }
    if (!any) {
        g_free(slice->entries);
        slice->entries = NULL;
        q->cache.bytes -= entries_bytes(q);
    }
    if (bad) {
        uint64_t cluster = (uint64_t)slice->index << q->slice_bits;
        node_image_corrupted(q->node, false, (int64_t)(bad & QCOW2_L2_OFFSET_MASK),
                             (int64_t)q->cluster_size,
                             "L2 entry %#" G_GINT64_MODIFIER
                             "x is invalid (guest clusters from %" G_GUINT64_FORMAT ")",
                             bad, cluster);
    }
}

static int coroutine_fn read_slice(Qcow2 *q, L2Slice *slice)
{
    size_t bytes = entries_bytes(q);
    uint64_t at = l2_slice_disk_offset(q, slice);
    if ((at & (bytes - 1)) || at >= node_length(q->file)) {
        return -EIO; /* the L1 entry was reported when it was read */
    }
    be64 *disk = disk_buffer_try_alloc(4096, MAX(bytes, 4096));
    if (!disk) {
        return -ENOMEM;
    }
    int ret = node_co_read_buf(q->file, at, bytes, disk);
    if (ret == 0) {
        decode(q, slice, disk);
    }
    disk_buffer_free(disk);
    return ret;
}

static L2Slice *slice_new(Qcow2 *q, uint32_t index)
{
    L2Slice **place = place_of(q, index);
    L2Slice *slice = place ? g_try_new0(L2Slice, 1) : NULL;
    if (!slice) {
        return NULL;
    }
    slice->entries = g_try_malloc0(entries_bytes(q));
    if (!slice->entries) {
        g_free(slice);
        return NULL;
    }
    slice->index = index;
    slice->referenced = true;
    list_init(&slice->in_dirty);
    list_append(&q->cache.clock, &slice->in_cache);
    q->cache.bytes += sizeof(*slice) + entries_bytes(q);
    *place = slice;
    return slice;
}

int coroutine_fn l2_co_load(Qcow2 *q, uint64_t guest_cluster)
{
    L2Cache *c = &q->cache;
    L2Slice *slice = l2_lookup(q, guest_cluster);

    if (slice) { /* somebody else is at it: wait, and let the caller look again */
        if (slice->loading) {
            co_queue_wait(&c->loaded);
        }
        return 0;
    }
    c->misses++;
    make_room(q);
    slice = slice_new(q, (uint32_t)(guest_cluster >> q->slice_bits));
    if (!slice) {
        return -ENOMEM;
    }
    slice->loading = true;
    c->loads++;
    int ret = read_slice(q, slice);
    slice->loading = false;
    if (ret < 0) {
        slice_free(q, slice);
    }
    co_queue_wake_all(&c->loaded);
    return ret;
}

bool l2_set(Qcow2 *q, L2Slice *slice, uint64_t guest_cluster, uint64_t entry)
{
    if (slice->has_invalid) {
        return false;
    }
    if (!slice->entries) {
        slice->entries = g_try_malloc0(entries_bytes(q));
        if (!slice->entries) {
            return false;
        }
        q->cache.bytes += entries_bytes(q);
    }
    slice->entries[guest_cluster & (l2_slice_entries(q) - 1)] = entry;
    slice->referenced = true;
    if (!list_linked(&slice->in_dirty)) {
        list_append(&q->cache.dirty, &slice->in_dirty);
    }
    return true;
}
