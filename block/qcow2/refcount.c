/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Refcounts: a cache of 4 KiB slices of refcount blocks in their on-disk form, and the
 * making of new blocks and of a larger refcount table.
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

/* order: the list is walked again from its start after each write, for a slice may become
 * dirty (again) while one is written. */
int coroutine_fn refcount_co_write_dirty(Qcow2 *q)
{
    uint8_t *copy = disk_buffer_try_alloc(4096, SLICE_BYTES);
    int ret = copy ? 0 : -ENOMEM;
    while (ret == 0 && !list_empty(&q->refs.dirty)) {
        RefSlice *slice = list_first(&q->refs.dirty, RefSlice, in_dirty);
        list_remove(&slice->in_dirty);
        slice->writing = true;
        q->refs.writing++;
        memcpy(copy, slice->data, SLICE_BYTES);
        ret = node_co_write_buf(q->file, slice->disk_offset, SLICE_BYTES, copy, 0);
        slice->writing = false;
        q->refs.writing--;
        if (ret < 0 && !list_linked(&slice->in_dirty)) {
            list_append(&q->refs.dirty, &slice->in_dirty);
        }
    }
    disk_buffer_free(copy);
    return ret;
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

/* ---- new blocks ---- */

/* A block that did not come to be: its slices must not be written. */
static void forget_block(Qcow2 *q, uint64_t offset)
{
    list_foreach_safe(it, next, &q->refs.lru) {
        RefSlice *slice = container_of(it, RefSlice, in_cache);
        if (slice->disk_offset >= offset && slice->disk_offset < offset + q->cluster_size) {
            slice_free(q, slice);
        }
    }
}

/* A block of zeros at @cluster that counts itself, durable before anyone refers to it. */
static int coroutine_fn make_block(Qcow2 *q, uint64_t cluster)
{
    uint64_t offset = cluster << q->cluster_bits;
    /* Written out even where zeros are read: a full disk shows now, not at the flush. */
    int ret = node_co_write_zero_data(q->file, offset, q->cluster_size);
    if (ret == 0) {
        uint64_t i = cluster / counts_per_block(q);
        q->rt[i] = offset;
        overlap_note(q, offset);
        ret = refcount_co_change(q, cluster, 1, 1);
        if (ret == 0) {
            ret = refcount_co_write_dirty(q);
        }
        if (ret == 0 && !BROKEN(BREAK_Q4_BLOCK)) {
            ret = node_co_flush(q->file); /* order: Q4, the block before its entry */
        }
        if (ret < 0) {
            q->rt[i] = 0;
            forget_block(q, offset);
            return ret;
        }
        be64 entry = be64_make(offset);
        ret = root_co_write(q, q->rt_offset + i * 8, &entry, sizeof(entry), false);
        if (ret < 0 && !q->unsettled.len) {
            q->rt[i] = 0;
            forget_block(q, offset);
        }
    }
    return ret;
}

/* How many of the blocks that count these clusters do not exist yet. */
static uint64_t missing_blocks(const Qcow2 *q, uint64_t cluster, uint64_t count)
{
    uint64_t per_block = counts_per_block(q), missing = 0;
    for (uint64_t i = cluster / per_block; i <= (cluster + count - 1) / per_block; i++) {
        missing += i >= q->rt_entries || !(q->rt[i] & QCOW2_RT_OFFSET_MASK);
    }
    return missing;
}

/* A larger refcount table on its way: @clusters of its own from @first on, then @blocks. */
typedef struct NewTable {
    uint64_t first, clusters, blocks;
    uint64_t *rt;
    uint64_t *old_rt;
    uint32_t old_entries;
} NewTable;

static uint64_t table_entries(const Qcow2 *q, const NewTable *t)
{
    return (t->clusters << q->cluster_bits) / 8;
}

/* The file covers it all; the new blocks are zeros and have their entries. */
static int coroutine_fn lay_out_blocks(Qcow2 *q, NewTable *t)
{
    uint64_t next = t->first + t->clusters;
    uint64_t end = next + t->blocks;
    int ret = 0;

    if (node_length(q->file) < end << q->cluster_bits &&
        !node_co_truncate(q->file, end << q->cluster_bits, NULL)) {
        return -ENOSPC;
    }
    for (uint64_t i = t->first / counts_per_block(q); ret == 0 && next < end; i++) {
        if (!t->rt[i]) {
            t->rt[i] = next++ << q->cluster_bits;
            overlap_note(q, t->rt[i]);
            ret = node_co_write_zero_data(q->file, t->rt[i], q->cluster_size);
        }
    }
    return ret;
}

static int coroutine_fn write_new_table(Qcow2 *q, const NewTable *t)
{
    uint64_t entries = table_entries(q, t);
    be64 *disk = disk_buffer_try_alloc(4096, entries * 8);
    if (!disk) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < entries; i++) {
        disk[i] = be64_make(t->rt[i]);
    }
    int ret = node_co_write_buf(q->file, t->first << q->cluster_bits, entries * 8, disk, 0);
    disk_buffer_free(disk);
    return ret;
}

/* The old table is in force again; the disk was never told of the new one. */
static void coroutine_fn abandon_table(Qcow2 *q, NewTable *t, bool counted)
{
    if (counted) { /* those that blocks of the old table count as well */
        refcount_co_change(q, t->first, t->clusters + t->blocks, -1);
    }
    for (uint64_t b = 0; b < t->blocks; b++) {
        forget_block(q, (t->first + t->clusters + b) << q->cluster_bits);
    }
    q->rt = t->old_rt;
    q->rt_entries = t->old_entries;
    g_free(t->rt);
}

/* Table and blocks are durable: the header names them. */
static int coroutine_fn put_in_force(Qcow2 *q, NewTable *t)
{
    struct {
        be64 offset;
        be32 clusters;
    } field = {be64_make(t->first << q->cluster_bits), be32_make((uint32_t)t->clusters)};
    uint64_t old_offset = q->rt_offset;
    uint64_t old_bytes = (uint64_t)q->rt_clusters << q->cluster_bits;

    int ret = root_co_write(q, offsetof(Qcow2DiskHeader, refcount_table_offset), &field,
                            sizeof(field), true);
    if (ret < 0 && !q->unsettled.len) { /* BREAK_ROOT */
        abandon_table(q, t, false);
        return ret;
    }
    g_free(t->old_rt);
    q->rt_offset = t->first << q->cluster_bits;
    q->rt_clusters = (uint32_t)t->clusters;
    alloc_drop(q, old_offset, old_bytes); /* order: free when an epoch says so (R2) */
    return ret;
}

/*
 * A larger refcount table at the start of the free range from @cluster on, which it takes
 * with it.  The blocks that count the new table and themselves come right behind it.
 */
int coroutine_fn refcount_co_grow_table(Qcow2 *q, uint64_t cluster, uint64_t need_entries,
                                        uint64_t *ret_used)
{
    uint64_t per_cluster = q->cluster_size / 8, missing;
    NewTable t = {.first = cluster, .old_rt = q->rt, .old_entries = q->rt_entries};
    bool counted = false;

    *ret_used = 0;
    t.clusters = div_round_up(need_entries + need_entries / 2 + 1, per_cluster);
    while ((missing = missing_blocks(q, cluster, t.clusters + t.blocks)) > t.blocks) {
        t.blocks = missing;
    }
    uint64_t entries = table_entries(q, &t);
    if (entries * 8 > QCOW2_MAX_RT_BYTES) {
        return -EFBIG;
    }
    if (overlap_any(q, cluster << q->cluster_bits,
                    (t.clusters + t.blocks) << q->cluster_bits)) {
        return -EIO; /* counts that call metadata free are wrong */
    }
    t.rt = g_try_malloc0(entries * 8);
    if (!t.rt) {
        return -ENOMEM;
    }
    memcpy(t.rt, q->rt, q->rt_entries * sizeof(*t.rt));
    int ret = lay_out_blocks(q, &t);
    q->rt = t.rt;
    q->rt_entries = (uint32_t)entries;
    if (ret == 0) {
        ret = refcount_co_change(q, cluster, t.clusters + t.blocks, 1);
        counted = ret == 0;
    }
    if (ret == 0) {
        ret = refcount_co_write_dirty(q);
    }
    if (ret == 0) {
        ret = write_new_table(q, &t);
    }
    if (ret == 0) {
        ret = node_co_flush(q->file); /* order: table and blocks before the header */
    }
    if (ret < 0) {
        abandon_table(q, &t, counted);
        return ret;
    }
    *ret_used = t.clusters + t.blocks;
    return put_in_force(q, &t);
}

int coroutine_fn refcount_co_make_block(Qcow2 *q, uint64_t cluster, uint64_t *ret_used)
{
    uint64_t i = cluster / counts_per_block(q);

    *ret_used = 0;
    if (i >= q->rt_entries) {
        return refcount_co_grow_table(q, cluster, i + 1, ret_used);
    }
    if (BROKEN(BREAK_Q12_TABLE) && q->rt_clusters < 4) {
        return refcount_co_grow_table(q, cluster, q->rt_entries + 1, ret_used);
    }
    if (block_offset(q, cluster)) {
        return 0;
    }
    int ret = make_block(q, cluster);
    *ret_used = block_offset(q, cluster) ? 1 : 0;
    return ret;
}

uint64_t refcount_block_end(const Qcow2 *q, uint64_t cluster)
{
    return (cluster / counts_per_block(q) + 1) * counts_per_block(q);
}

uint64_t refcount_counts_per_block(const Qcow2 *q)
{
    return counts_per_block(q);
}
