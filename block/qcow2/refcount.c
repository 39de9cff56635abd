/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Refcounts: a cache of slices of refcount blocks in their on-disk form. New blocks and
 * larger tables are refcount-table.c's.
 *
 * Everything here runs with alloc_lock held, so slices do not change while a function
 * yields, but for those of the flush (which only writes them).
 *
 * spec: qcow2, "Refcount table", "Refcount blocks": counts are 2^refcount_order bits wide,
 * big-endian; for widths below a byte the first count is in the lowest bits.
 */
#include <errno.h>
#include <string.h>

#include "block/break.h"
#include "block/qcow2/qcow2.h"

#define SLICE_BYTES 512u /* divides every block; small, for blocks are sparse in use */

static uint64_t counts_per_block(const Qcow2 *q)
{
    return q->cluster_size * 8 >> q->refcount_order;
}

static uint64_t counts_per_slice(const Qcow2 *q)
{
    return (uint64_t)SLICE_BYTES * 8 >> q->refcount_order;
}

void refcount_init(Qcow2 *q, unsigned max_slices)
{
    q->refs.slices = g_hash_table_new(g_int64_hash, g_int64_equal);
    q->refs.max = MAX(max_slices, 16);
    list_init(&q->refs.lru);
    list_init(&q->refs.dirty);
}

static void slice_free(Qcow2 *q, RefSlice *slice)
{
    g_hash_table_remove(q->refs.slices, &slice->index);
    list_remove(&slice->in_cache);
    list_remove(&slice->in_dirty);
    disk_buffer_free(slice->data);
    g_free(slice);
    q->refs.count--;
}

void refcount_clear(Qcow2 *q)
{
    while (!list_empty(&q->refs.lru)) {
        slice_free(q, list_first(&q->refs.lru, RefSlice, in_cache));
    }
}

void refcount_fini(Qcow2 *q)
{
    if (q->refs.slices) {
        refcount_clear(q);
        g_hash_table_destroy(q->refs.slices);
        q->refs.slices = NULL;
    }
}

bool refcount_any_dirty(const Qcow2 *q)
{
    return !list_empty(&q->refs.dirty) || q->refs.writing;
}

static void evict(Qcow2 *q)
{
    list_foreach_safe(it, next, &q->refs.lru) {
        RefSlice *slice = container_of(it, RefSlice, in_cache);
        if (q->refs.count <= q->refs.max) {
            return;
        }
        if (!slice->writing && !list_linked(&slice->in_dirty)) {
            slice_free(q, slice);
        }
    }
}

static RefSlice *slice_new(Qcow2 *q, uint64_t index, uint64_t disk_offset)
{
    evict(q);
    RefSlice *slice = g_try_new0(RefSlice, 1);
    uint8_t *data = slice ? disk_buffer_try_alloc(512, SLICE_BYTES) : NULL;
    if (!data) {
        g_free(slice);
        return NULL;
    }
    slice->index = index;
    slice->disk_offset = disk_offset;
    slice->data = data;
    list_init(&slice->in_dirty);
    list_append(&q->refs.lru, &slice->in_cache);
    g_hash_table_insert(q->refs.slices, &slice->index, slice);
    q->refs.count++;
    return slice;
}

/* Host offset of the block that holds @cluster's count; 0 when there is none. */
static uint64_t block_offset(const Qcow2 *q, uint64_t cluster)
{
    uint64_t i = cluster / counts_per_block(q);
    return i < q->rt_entries ? q->rt[i] & QCOW2_RT_OFFSET_MASK : 0;
}

static uint64_t slice_disk_offset(const Qcow2 *q, uint64_t cluster)
{
    uint64_t in_block = cluster % counts_per_block(q);
    return block_offset(q, cluster) + in_block / counts_per_slice(q) * SLICE_BYTES;
}

/* The slice of @cluster, read if need be. *ret NULL and 0: there is no block. */
static int coroutine_fn co_slice(Qcow2 *q, uint64_t cluster, RefSlice **ret)
{
    uint64_t index = cluster / counts_per_slice(q);

    *ret = NULL;
    if (!block_offset(q, cluster)) {
        return 0;
    }
    RefSlice *slice = g_hash_table_lookup(q->refs.slices, &index);
    if (!slice) {
        uint64_t disk_offset = slice_disk_offset(q, cluster);
        slice = slice_new(q, index, disk_offset);
        if (!slice) {
            return -ENOMEM;
        }
        node_co_event(q->file, BLKDEBUG_EVENT_REFBLOCK_LOAD);
        int r = node_co_read_buf(q->file, disk_offset, SLICE_BYTES, slice->data);
        if (r < 0) {
            slice_free(q, slice);
            return r;
        }
    }
    *ret = slice;
    return 0;
}

static uint64_t get_count(const Qcow2 *q, const RefSlice *slice, uint64_t cluster)
{
    uint64_t i = cluster % counts_per_slice(q);
    const uint8_t *data = slice->data;
    switch (q->refcount_order) {
    case 0:
        return (data[i / 8] >> (i % 8)) & 1;
    case 1:
        return (data[i / 4] >> (2 * (i % 4))) & 3;
    case 2:
        return (data[i / 2] >> (4 * (i % 2))) & 15;
    case 3:
        return data[i];
    case 4:
        return be16_get(((const be16 *)data)[i]);
    case 5:
        return be32_get(((const be32 *)data)[i]);
    default:
        return be64_get(((const be64 *)data)[i]);
    }
}

static void set_count(Qcow2 *q, RefSlice *slice, uint64_t cluster, uint64_t count)
{
    uint64_t i = cluster % counts_per_slice(q);
    uint8_t *data = slice->data;
    switch (q->refcount_order) {
    case 0:
        data[i / 8] = (uint8_t)((data[i / 8] & ~(1 << (i % 8))) | count << (i % 8));
        break;
    case 1:
        data[i / 4] =
            (uint8_t)((data[i / 4] & ~(3 << (2 * (i % 4)))) | count << (2 * (i % 4)));
        break;
    case 2:
        data[i / 2] =
            (uint8_t)((data[i / 2] & ~(15 << (4 * (i % 2)))) | count << (4 * (i % 2)));
        break;
    case 3:
        data[i] = (uint8_t)count;
        break;
    case 4:
        ((be16 *)data)[i] = be16_make((uint16_t)count);
        break;
    case 5:
        ((be32 *)data)[i] = be32_make((uint32_t)count);
        break;
    default:
        ((be64 *)data)[i] = be64_make(count);
        break;
    }
    if (!list_linked(&slice->in_dirty)) {
        list_append(&q->refs.dirty, &slice->in_dirty);
    }
}

static uint64_t max_count(const Qcow2 *q)
{
    return q->refcount_order == 6 ? UINT64_MAX
                                  : (UINT64_C(1) << (1u << q->refcount_order)) - 1;
}

int coroutine_fn refcount_co_get(Qcow2 *q, uint64_t cluster, uint64_t *ret_count)
{
    RefSlice *slice;
    int ret = co_slice(q, cluster, &slice);
    if (ret == 0) {
        *ret_count = slice ? get_count(q, slice, cluster) : 0;
    }
    return ret;
}

int coroutine_fn refcount_co_change(Qcow2 *q, uint64_t cluster, uint64_t count, int delta)
{
    uint64_t max = max_count(q);
    for (uint64_t i = cluster; i < cluster + count; i++) {
        RefSlice *slice;
        int ret = co_slice(q, i, &slice);
        uint64_t now = ret == 0 && slice ? get_count(q, slice, i) : 0;
        if (ret == 0 && (!slice || (delta < 0 ? now == 0 : now == max))) {
            ret = -EINVAL;
        }
        if (ret < 0) { /* as if nothing had happened */
            if (i > cluster) {
                refcount_co_change(q, cluster, i - cluster, -delta);
            }
            return ret;
        }
        set_count(q, slice, i, now + delta);
    }
    return 0;
}

int coroutine_fn refcount_co_set(Qcow2 *q, uint64_t cluster, uint64_t count)
{
    RefSlice *slice;
    int ret = co_slice(q, cluster, &slice);
    if (ret == 0 && (!slice || count > max_count(q))) {
        ret = -EINVAL;
    }
    if (ret == 0) {
        set_count(q, slice, cluster, count);
    }
    return ret;
}

typedef struct RefWriter {
    Qcow2 *q;
    int ret;
} RefWriter;

static int coroutine_fn write_dirty_slices(void *opaque)
{
    RefWriter *w = opaque;
    Qcow2 *q = w->q;

    while (w->ret == 0 && !list_empty(&q->refs.dirty)) {
        RefSlice *slice = list_first(&q->refs.dirty, RefSlice, in_dirty);
        list_remove(&slice->in_dirty);
        /* order: counts change under alloc_lock, which the caller holds: what is being
         * written stays as it is */
        g_assert(!slice->writing);
        slice->writing = true;
        q->refs.writing++;
        node_co_event(q->file, BLKDEBUG_EVENT_REFBLOCK_UPDATE);
        int ret = node_co_write_buf(q->file, slice->disk_offset, SLICE_BYTES, slice->data, 0);
        slice->writing = false;
        q->refs.writing--;
        if (ret < 0) {
            list_append(&q->refs.dirty, &slice->in_dirty);
            w->ret = ret;
        }
    }
    return w->ret;
}

int coroutine_fn refcount_co_write_dirty(Qcow2 *q)
{
    RefWriter w = {.q = q};
    bool several = q->refs.dirty.next->next != &q->refs.dirty;
    return co_together(graph_loop(q->node->graph), several ? qcow2_metadata_writers() : 1,
                       write_dirty_slices, &w);
}

/* ---- free clusters ---- */

#define SCAN_BYTES 65536u

static bool slice_count_is_zero(const Qcow2 *q, const uint8_t *data, uint64_t cluster)
{
    RefSlice view = {.data = (uint8_t *)data};
    return get_count(q, &view, cluster) == 0;
}

/* What is in memory is newer than what was read. */
static const uint8_t *newest(Qcow2 *q, const uint8_t *chunk, uint64_t chunk_first,
                             uint64_t cluster)
{
    uint64_t index = cluster / counts_per_slice(q);
    const RefSlice *slice = g_hash_table_lookup(q->refs.slices, &index);
    uint64_t first_index = chunk_first / counts_per_slice(q);
    return slice ? slice->data : chunk + (index - first_index) * SLICE_BYTES;
}

int coroutine_fn refcount_co_find_free(Qcow2 *q, uint64_t from, uint64_t end,
                                       uint64_t max_count, uint64_t *ret_first,
                                       uint64_t *ret_count)
{
    uint32_t chunk_bytes = (uint32_t)min_u64(q->cluster_size, SCAN_BYTES);
    uint64_t chunk_counts = (uint64_t)chunk_bytes * 8 >> q->refcount_order;
    uint8_t *chunk = disk_buffer_try_alloc(4096, MAX(chunk_bytes, 4096));
    uint64_t cluster = from;
    int ret = chunk ? 0 : -ENOMEM;

    *ret_count = 0;
    while (ret == 0 && cluster < end) {
        uint64_t first = round_down(cluster, chunk_counts);
        uint64_t stop = min_u64(first + chunk_counts, end);
        bool no_block = !block_offset(q, cluster);
        if (!no_block) {
            ret = node_co_read_buf(q->file, slice_disk_offset(q, first), chunk_bytes, chunk);
        }
        for (; ret == 0 && cluster < stop; cluster++) {
            if (no_block ||
                slice_count_is_zero(q, newest(q, chunk, first, cluster), cluster)) {
                if ((*ret_count)++ == 0) {
                    *ret_first = cluster;
                }
                if (*ret_count == max_count) {
                    break;
                }
            } else if (*ret_count) {
                break;
            }
        }
        if (cluster < stop || (*ret_count && cluster % counts_per_block(q) == 0)) {
            break; /* a run never crosses from one block's range into another's */
        }
    }
    disk_buffer_free(chunk);
    return ret;
}

void refcount_forget_block(Qcow2 *q, uint64_t offset)
{
    list_foreach_safe(it, next, &q->refs.lru) {
        RefSlice *slice = container_of(it, RefSlice, in_cache);
        if (slice->disk_offset >= offset && slice->disk_offset < offset + q->cluster_size) {
            slice_free(q, slice);
        }
    }
}

uint64_t refcount_block_end(const Qcow2 *q, uint64_t cluster)
{
    return (cluster / counts_per_block(q) + 1) * counts_per_block(q);
}

uint64_t refcount_counts_per_block(const Qcow2 *q)
{
    return counts_per_block(q);
}
