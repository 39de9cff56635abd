/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Write-zeroes and discard: whole clusters change their entry, parts of clusters are
 * written out unless they read as zeros already.
 *
 * What an entry let go of is freed only after an epoch made the change durable and after
 * its grace period (safety.md, Q3, Q6).
 */
#include <errno.h>
#include <string.h>

#include "block/break.h"
#include "block/qcow2/qcow2.h"

/* Zeros into a part of one cluster. */
static int coroutine_fn co_zero_part(BlockNode *node, uint64_t offset, uint64_t len)
{
    uint64_t done = 0;
    int ret = node_co_known_zero(node, offset, len, &done);

    if (ret < 0 || done == len) { /* nothing to do where zeros are read anyway */
        return ret;
    }
    uint64_t left = len - done;
    uint64_t piece_max = min_u64(left, 128 * KiB);
    uint8_t *zeros = disk_buffer_try_alloc(4096, round_up(piece_max, 4096));
    if (!zeros) {
        return -ENOMEM;
    }
    memset(zeros, 0, piece_max);
    while (ret == 0 && done < len) {
        uint64_t piece = min_u64(piece_max, len - done);
        struct iovec iov = {zeros, piece};
        /* Not node_co_write(): detect-zeroes would send it back here. */
        ret = node_co_write_data(node, offset + done, piece, &iov, 1, 0);
        done += piece;
    }
    disk_buffer_free(zeros);
    return ret;
}

/* The entry that makes a cluster read as zeros; false: not possible in this version. */
static bool zero_entry(const Qcow2 *q, uint64_t old, bool unmap, uint64_t *ret)
{
    bool under = q->node->backing_child != NULL;
    if (q->version >= 3) {
        bool keep = !unmap && !(old & QCOW2_COMPRESSED) && (old & QCOW2_COPIED);
        /* Also where nothing lies below: a later rebase must not show through. */
        if (keep) {
            *ret = old | QCOW2_ZERO;
        } else {
            *ret = QCOW2_ZERO;
        }
        return true;
    }
    *ret = 0;
    return !under && (old == 0 || unmap);
}

/* Replace one entry and let go of what it stood for. W1: does not yield. */
static int replace_entry(Qcow2 *q, uint64_t cluster, uint64_t entry)
{
    uint64_t old = l2_get(q, cluster);
    if (old == entry) {
        return 0;
    }
    if (!l2_set(q, cluster, entry)) {
        return -EIO;
    }
    if ((old & QCOW2_COMPRESSED) || !(entry & QCOW2_L2_OFFSET_MASK)) {
        qcow2_drop_entry(q, old);
    }
    return 0;
}

/* Zero whole clusters of one slice; *ret_done of them. */
static int coroutine_fn co_zero_clusters(Qcow2 *q, uint64_t first, uint64_t count,
                                         bool unmap, uint64_t *ret_done)
{
    uint64_t table = UINT64_C(1) << q->l2_bits;

    *ret_done = 0;
    if (q->version < 3 && !(q->l1[first >> q->l2_bits] & QCOW2_L1_OFFSET_MASK) &&
        !q->node->backing_child) {
        *ret_done = min_u64(count, table - (first & (table - 1)));
        return 0;
    }
    /* no further than this step goes: else copies behind it could hold it up for ever */
    count = min_u64(count, l2_slice_entries(q) - (first & (l2_slice_entries(q) - 1)));
    do {
        int ret = qcow2_co_get_slice(q, first);
        if (ret < 0) {
            return ret;
        }
    } while (!BROKEN(BREAK_DISCARD_RACE) && qcow2_co_wait_cow(q, first, count));
    for (uint64_t i = 0; i < count; i++) {
        uint64_t entry;
        uint64_t old = l2_get(q, first + i);
        if (old == QCOW2_ENTRY_INVALID) {
            return -EIO;
        }
        if (!zero_entry(q, old, unmap, &entry)) {
            return -ENOTSUP;
        }
        int ret = replace_entry(q, first + i, entry);
        if (ret < 0) {
            return ret;
        }
        (*ret_done)++;
    }
    return 0;
}

int coroutine_fn qcow2_co_write_zeroes(BlockNode *node, uint64_t offset, uint64_t len,
                                       unsigned flags)
{
    Qcow2 *q = node->state;
    uint64_t end = offset + len;
    uint64_t first = round_up(offset, q->cluster_size);
    uint64_t last = end == node->length ? round_up(end, q->cluster_size)
                                        : round_down(end, q->cluster_size);

    if (q->corrupt) {
        return -EIO;
    }
    if (first >= last || first >= end) { /* inside one or two clusters */
        if (flags & BLOCK_NO_FALLBACK) {
            return -ENOTSUP;
        }
        return co_zero_part(node, offset, len);
    }
    if (offset < first) {
        int ret = co_zero_part(node, offset, first - offset);
        if (ret < 0) {
            return ret;
        }
    }
    uint64_t cluster = first >> q->cluster_bits;
    uint64_t stop = last >> q->cluster_bits;
    while (cluster < stop) {
        uint64_t done;
        int ret = co_zero_clusters(q, cluster, stop - cluster, flags & BLOCK_MAY_UNMAP,
                                   &done);
        if (ret == -ENOTSUP && !(flags & BLOCK_NO_FALLBACK)) {
            uint64_t at = cluster << q->cluster_bits;
            ret = co_zero_part(node, at, min_u64(q->cluster_size, node->length - at));
            done = 1;
        }
        if (ret < 0) {
            return ret;
        }
        cluster += done;
    }
    if (alloc_quarantine_full(q)) {
        qcow2_co_epoch(q);
    }
    return end > last ? co_zero_part(node, last, end - last) : 0;
}

/* ---- discard ---- */

static int coroutine_fn co_discard_clusters(Qcow2 *q, uint64_t first, uint64_t count,
                                            bool under, uint64_t *ret_done)
{
    uint64_t table = UINT64_C(1) << q->l2_bits;

    *ret_done = 0;
    if (!(q->l1[first >> q->l2_bits] & QCOW2_L1_OFFSET_MASK)) {
        *ret_done = min_u64(count, table - (first & (table - 1)));
        return 0;
    }
    /* no further than this step goes: else copies behind it could hold it up for ever */
    count = min_u64(count, l2_slice_entries(q) - (first & (l2_slice_entries(q) - 1)));
    do {
        int ret = qcow2_co_get_slice(q, first);
        if (ret < 0) {
            return ret;
        }
    } while (!BROKEN(BREAK_DISCARD_RACE) && qcow2_co_wait_cow(q, first, count));
    for (uint64_t i = 0; i < count; i++, (*ret_done)++) {
        uint64_t old = l2_get(q, first + i);
        if (old == 0 || (under && old == QCOW2_ZERO) || old == QCOW2_ENTRY_INVALID) {
            continue;
        }
        if (under && q->version < 3) {
            continue; /* without a zero flag the backing file would show through */
        }
        int ret = replace_entry(q, first + i, under ? QCOW2_ZERO : 0);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int coroutine_fn qcow2_co_discard(BlockNode *node, uint64_t offset, uint64_t len)
{
    Qcow2 *q = node->state;
    uint64_t end = offset + len;
    uint64_t cluster = round_up(offset, q->cluster_size) >> q->cluster_bits;
    uint64_t stop = (end == node->length ? round_up(end, q->cluster_size) : end) >>
                    q->cluster_bits;

    if (q->corrupt) {
        return -EIO;
    }
    while (cluster < stop) {
        uint64_t done;
        /* Version 3 says "zero" even where nothing lies below: as with write-zeroes, a
         * backing file that comes later must not show through. */
        int ret = co_discard_clusters(q, cluster, stop - cluster,
                                      q->version >= 3 || node->backing_child, &done);
        if (ret < 0) {
            return ret;
        }
        cluster += done;
    }
    if (alloc_quarantine_full(q)) {
        qcow2_co_epoch(q);
    }
    return 0;
}

int coroutine_fn qcow2_co_discard_all(Qcow2 *q, uint64_t offset, uint64_t len)
{
    uint64_t cluster = offset >> q->cluster_bits;
    uint64_t stop = clusters_for(q, offset + len);
    while (cluster < stop) {
        uint64_t done;
        int ret = co_discard_clusters(q, cluster, stop - cluster, false, &done);
        if (ret < 0) {
            return ret;
        }
        cluster += done;
        if (alloc_quarantine_full(q)) {
            qcow2_co_epoch(q);
        }
    }
    return 0;
}

int coroutine_fn qcow2_co_make_empty(BlockNode *node)
{
    Qcow2 *q = node->state;
    if (q->corrupt) {
        return -EIO;
    }
    node_co_event(q->file, BLKDEBUG_EVENT_EMPTY_IMAGE_PREPARE);
    int ret = qcow2_co_discard_all(q, 0, node->length);
    if (ret == 0) {
        qcow2_co_epoch(q);
    }
    return ret;
}
