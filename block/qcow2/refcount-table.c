/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * New refcount blocks, and larger refcount tables: each is durable before anything names it
 * (Q4), and counts itself. alloc_lock is held.
 *
 * spec: qcow2, "Refcount table", "Refcount blocks".
 */
#include <errno.h>
#include <string.h>

#include "block/break.h"
#include "block/qcow2/qcow2.h"

/* ---- new blocks ---- */

/* Block @i, of zeros, at @cluster, which it counts itself or a block that exists; durable
 * before anyone refers to it. */
static int coroutine_fn make_block(Qcow2 *q, uint64_t i, uint64_t cluster)
{
    uint64_t offset = cluster << q->cluster_bits;
    /* Written out even where zeros are read: a full disk shows now, not at the flush. */
    node_co_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_WRITE);
    int ret = node_co_write_zero_data(q->file, offset, q->cluster_size);
    if (ret == 0) {
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
            refcount_forget_block(q, offset);
            return ret;
        }
        be64 entry = be64_make(offset);
        node_co_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_HOOKUP);
        ret = root_co_write(q, q->rt_offset + i * 8, &entry, sizeof(entry), false);
        if (ret < 0 && !q->unsettled.len) {
            q->rt[i] = 0;
            refcount_forget_block(q, offset);
        }
    }
    return ret;
}

/* How many of the blocks that count these clusters do not exist yet. */
static uint64_t missing_blocks(const Qcow2 *q, uint64_t cluster, uint64_t count)
{
    uint64_t per_block = refcount_counts_per_block(q), missing = 0;
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
    uint64_t per_block = refcount_counts_per_block(q);
    for (uint64_t i = t->first / per_block; ret == 0 && next < end; i++) {
        if (!t->rt[i]) {
            t->rt[i] = next++ << q->cluster_bits;
            overlap_note(q, t->rt[i]);
            node_co_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS);
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
    node_co_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_WRITE_TABLE);
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
        refcount_forget_block(q, (t->first + t->clusters + b) << q->cluster_bits);
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

    node_co_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE);
    int ret = root_co_write(q, offsetof(Qcow2DiskHeader, refcount_table_offset), &field,
                            sizeof(field), true);
    if (ret < 0 && !q->unsettled.len) { /* BREAK_ROOT */
        abandon_table(q, t, false);
        return ret;
    }
    g_free(t->old_rt);
    q->rt_offset = t->first << q->cluster_bits;
    q->rt_clusters = (uint32_t)t->clusters;
    overlap_forget(q);
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
    *ret_used = t.clusters + t.blocks; /* from here on they hold something, come what may */
    node_co_event(q->file, BLKDEBUG_EVENT_REFTABLE_GROW);
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
    return put_in_force(q, &t);
}

int coroutine_fn refcount_co_make_block(Qcow2 *q, uint64_t cluster, uint64_t *ret_used)
{
    return refcount_co_make_block_at(q, cluster, cluster, ret_used);
}

int coroutine_fn refcount_co_make_block_at(Qcow2 *q, uint64_t cluster, uint64_t place,
                                           uint64_t *ret_used)
{
    uint64_t i = cluster / refcount_counts_per_block(q);

    *ret_used = 0;
    if (i >= q->rt_entries) {
        return refcount_co_grow_table(q, place, i + 1, ret_used);
    }
    if (BROKEN(BREAK_Q12_TABLE) && q->rt_clusters < 4) {
        return refcount_co_grow_table(q, place, q->rt_entries + 1, ret_used);
    }
    if (q->rt[i] & QCOW2_RT_OFFSET_MASK) {
        return 0;
    }
    node_co_event(q->file, BLKDEBUG_EVENT_REFBLOCK_ALLOC);
    int ret = make_block(q, i, place);
    *ret_used = q->rt[i] & QCOW2_RT_OFFSET_MASK ? 1 : 0;
    return ret;
}
