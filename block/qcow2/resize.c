/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changing the virtual size.  Drained.  Growing may need a larger L1 table, which is
 * written whole at a new place before the header refers to it.  Shrinking lets go of the
 * clusters behind the new end when that end is durable, and not before: a resize that fails,
 * or a crash, must find all of the disk as it was.  What is left behind the end, then or by
 * another program, goes when the disk grows over it.
 */
#include <errno.h>
#include <string.h>

#include "block/base/error.h"
#include "block/break.h"
#include "block/qcow2/qcow2.h"

/* The L1 table of @l1_size entries at a new place; then the header; then let go. */
static int coroutine_fn co_move_l1(Qcow2 *q, uint32_t l1_size)
{
    uint64_t bytes = round_up((uint64_t)l1_size * 8, 512);
    uint64_t clusters = clusters_for(q, bytes);
    uint64_t offset;
    uint64_t *l1 = g_try_new0(uint64_t, l1_size);
    be64 *disk = disk_buffer_try_alloc(4096, round_up(bytes, 4096));
    uint8_t *dirty = g_try_malloc0(div_round_up(bytes, 512) / 8 + 1);
    int ret = l1 && disk && dirty ? 0 : -ENOMEM;
    bool named = false; /* by the header, as far as we know (root.c) */

    if (ret == 0) {
        node_co_event(q->file, BLKDEBUG_EVENT_L1_GROW_ALLOC_TABLE);
        ret = alloc_co_run(q, clusters, &offset);
    }
    if (ret == 0) {
        memcpy(l1, q->l1, MIN(l1_size, q->l1_size) * sizeof(*l1));
        memset(disk, 0, bytes);
        for (uint32_t i = 0; i < l1_size; i++) {
            disk[i] = be64_make(l1[i]);
        }
        node_co_event(q->file, BLKDEBUG_EVENT_L1_GROW_WRITE_TABLE);
        ret = node_co_write_buf(q->file, offset, bytes, disk, 0);
        if (ret == 0) {
            q->reserved_since_sync = true;
            ret = qcow2_co_flush(q->node); /* refcounts of the table, and all before it */
        }
        if (ret == 0) {
            ret = node_co_flush(q->file);
        }
        struct {
            be32 l1_size;
            be64 l1_offset;
        } field = {be32_make(l1_size), be64_make(offset)};
        if (ret == 0) {
            co_mutex_lock(&q->alloc_lock);
            node_co_event(q->file, BLKDEBUG_EVENT_L1_GROW_ACTIVATE_TABLE);
            ret = root_co_write(q, offsetof(Qcow2DiskHeader, l1_size), &field, sizeof(field),
                                true);
            co_mutex_unlock(&q->alloc_lock);
            named = ret == 0 || q->unsettled.len;
        }
        if (!named) {
            alloc_co_unused(q, offset, clusters);
        }
    }
    disk_buffer_free(disk);
    if (!named) {
        g_free(l1);
        g_free(dirty);
        return ret;
    }
    uint64_t old_offset = q->l1_offset;
    uint64_t old_bytes = (uint64_t)q->l1_size * 8;
    g_free(q->l1);
    g_free(q->l1_dirty);
    q->l1 = l1;
    q->l1_dirty = dirty;
    q->l1_offset = offset;
    q->l1_size = l1_size;
    overlap_forget(q);
    if (old_offset && old_bytes) {
        alloc_drop(q, old_offset, old_bytes);
    }
    return l2_cache_resize(q) ? ret : -ENOMEM;
}

static int coroutine_fn co_grow(Qcow2 *q, uint64_t size)
{
    uint64_t need = div_round_up(size, q->cluster_size << q->l2_bits);
    if (need > QCOW2_MAX_L1_BYTES / 8 || need > l2_max_l1_size(q)) {
        return -EFBIG;
    }
    if (need <= q->l1_size) { /* perhaps since an attempt that failed halfway */
        return l2_cache_resize(q) ? 0 : -ENOMEM;
    }
    return co_move_l1(q, (uint32_t)need);
}

/* What appears between the old end and @size must read as zeros: not what an earlier, larger
 * size has left there, and not what a longer backing file has. Sets the new length. */
static int coroutine_fn co_zero_behind(Qcow2 *q, uint64_t size)
{
    BlockNode *node = q->node;
    uint64_t old = node->length, whole = round_up(old, q->cluster_size);
    uint64_t end = min_u64(size, whole);
    int ret = 0;

    if (size > whole && !BROKEN(BREAK_STALE_END)) {
        ret = qcow2_co_discard_all(q, whole, size - whole);
    }
    if (node->backing_child) {
        end = max_u64(end, min_u64(size, node->backing_child->length));
    }
    node_set_length(node, size);
    if (ret == 0 && end > old && !BROKEN(BREAK_STALE_TAIL)) {
        ret = qcow2_co_write_zeroes(node, old, end - old, 0);
    }
    if (ret < 0) {
        node_set_length(node, old);
    }
    return ret;
}

/* To the header. *ret_named: it is there, as far as we know (root.c). */
static int coroutine_fn co_write_size(Qcow2 *q, uint64_t size, bool *ret_named)
{
    be64 field = be64_make(size);

    co_mutex_lock(&q->alloc_lock);
    int ret = root_co_settle(q);
    if (ret == 0) {
        ret = root_co_write(q, offsetof(Qcow2DiskHeader, size), &field, sizeof(field), true);
        *ret_named = ret == 0 || q->unsettled.len; /* after a failure it is written again */
    }
    co_mutex_unlock(&q->alloc_lock);
    return ret;
}

static int coroutine_fn co_resize_up(Qcow2 *q, uint64_t size)
{
    int ret = co_grow(q, size);
    if (ret == -ENOSPC) { /* what the guest has discarded is room */
        qcow2_co_epoch(q);
        co_mutex_lock(&q->alloc_lock);
        alloc_co_reclaim_all(q);
        co_mutex_unlock(&q->alloc_lock);
        ret = co_grow(q, size);
    }
    if (ret == 0) {
        ret = co_zero_behind(q, size);
    }
    return ret == 0 ? qcow2_co_flush(q->node) : ret;
}

/* Nothing that fails here changes what the disk shows: it is let go of another time. */
static void coroutine_fn co_let_go_behind(Qcow2 *q, uint64_t size, uint64_t old)
{
    uint64_t from = round_up(size, q->cluster_size);

    if (from < old && qcow2_co_discard_all(q, from, old - from) == 0) {
        qcow2_co_flush(q->node);
    }
}

bool coroutine_fn qcow2_co_truncate(BlockNode *node, uint64_t size, GError **errp)
{
    Qcow2 *q = node->state;
    int ret = 0;

    if (size % 512) {
        error_set(errp, "The new size must be a multiple of 512");
        return false;
    }
    if (q->nb_snapshots && q->version < 3) {
        error_set(errp, "Can't resize a v2 image which has snapshots");
        return false;
    }
    if (q->nb_bitmaps) { /* compat: stock's words for bitmaps that are out of date */
        error_set(errp, "Bitmap '%s' is inconsistent and cannot be used\n"
                        "Try block-dirty-bitmap-remove to delete this bitmap from disk",
                  q->bitmaps[0].name);
        return false;
    }
    bool named = false; /* the size, by the header, as far as we know (root.c) */
    bool was_writing = node->writing;
    if (!was_writing && !node->drv->co_set_writing(node, true, errp)) {
        return false;
    }
    const uint64_t old = node->length;
    if (size > old) {
        ret = co_resize_up(q, size);
    }
    if (size < old && BROKEN(BREAK_SHRINK_EARLY)) {
        co_let_go_behind(q, size, old);
    }
    if (ret == 0) {
        ret = co_write_size(q, size, &named);
    }
    /* order: nothing may be written, and called durable, behind the end that the disk knows */
    node_set_length(node, named ? size : old);
    if (ret == 0 && size < old) {
        co_let_go_behind(q, size, old);
    }
    if (!was_writing && !node->drv->co_set_writing(node, false, ret ? NULL : errp)) {
        return false;
    }
    if (ret < 0) {
        error_set_errno(errp, ret, "Failed to resize the image");
        return false;
    }
    return true;
}
