/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Giving every guest cluster of a new image its place: `preallocation` of create.
 *
 * The entries are published over clusters that read as zeros, so the disk stays all zeros
 * at every moment; what differs between the modes is whether the storage has the space.
 */
#include "block/base/error.h"
#include "block/create.h"
#include "block/qcow2/qcow2.h"

#define EPOCH_CLUSTERS (UINT64_C(1) << 20) /* so much metadata is held dirty at most */

/* The space of host clusters, as @mode wants it; @zero: they read as zeros already. */
static int coroutine_fn co_fill(Qcow2 *q, uint64_t offset, uint64_t len, PreallocMode mode,
                                bool zero)
{
    if (mode == PREALLOC_MODE_FULL) {
        return node_co_write_zero_data(q->file, offset, len);
    }
    return mode == PREALLOC_MODE_METADATA && zero
               ? 0
               : node_co_write_zeroes(q->file, offset, len, 0);
}

/* Clusters for as many of [first, first + count) as one run has; *ret_done of them. */
static int coroutine_fn co_place(Qcow2 *q, uint64_t first, uint64_t count, PreallocMode mode,
                                 uint64_t *ret_done)
{
    uint64_t left = l2_slice_entries(q) - (first & (l2_slice_entries(q) - 1));
    uint64_t offset = 0, got = 0;
    bool zero = false;

    int ret = alloc_co_clusters(q, min_u64(count, left), &offset, &got, &zero);
    if (ret < 0) {
        return ret;
    }
    ret = co_fill(q, offset, got << q->cluster_bits, mode, zero);
    if (ret == 0) {
        ret = qcow2_co_get_slice(q, first);
    }
    if (ret < 0) {
        alloc_co_unused(q, offset, got);
        return ret;
    }
    q->copied_since_sync = true; /* order: Q2, the zeros before the entries */
    for (uint64_t i = 0; i < got; i++) {
        uint64_t entry = (offset + (i << q->cluster_bits)) | QCOW2_COPIED;
        if (!l2_set(q, first + i, entry)) {
            return -ENOMEM;
        }
    }
    *ret_done = got;
    return 0;
}

bool coroutine_fn qcow2_co_preallocate(BlockNode *node, PreallocMode mode, ImageStopFn *stop,
                                       void *opaque, GError **errp)
{
    Qcow2 *q = node->state;
    uint64_t end = clusters_for(q, node->length), epoch_at = EPOCH_CLUSTERS, done;

    for (uint64_t cluster = 0; cluster < end; cluster += done) {
        if (stop && stop(opaque)) {
            error_set(errp, "Operation canceled");
            return false;
        }
        int ret = co_place(q, cluster, end - cluster, mode, &done);
        if (ret == 0 && cluster >= epoch_at) {
            ret = qcow2_co_flush(node);
            epoch_at += EPOCH_CLUSTERS;
        }
        if (ret < 0) {
            error_set_errno(errp, ret, "Could not preallocate metadata");
            return false;
        }
    }
    int ret = qcow2_co_flush(node);
    if (ret < 0) {
        error_set_errno(errp, ret, "Could not preallocate metadata");
    }
    return ret == 0;
}
