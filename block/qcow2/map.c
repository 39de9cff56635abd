/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HOT. The qcow2 map: guest offset to host extent, from memory alone. */
#include "block/qcow2/qcow2.h"

typedef enum ClusterKind {
    CLUSTER_UNALLOCATED,
    CLUSTER_ZERO, /* with or without a host cluster */
    CLUSTER_NORMAL,
    CLUSTER_COMPRESSED,
    CLUSTER_INVALID,
} ClusterKind;

static inline ClusterKind classify(uint64_t entry)
{
    if (entry == 0) {
        return CLUSTER_UNALLOCATED;
    }
    if (G_UNLIKELY(entry == QCOW2_ENTRY_INVALID)) {
        return CLUSTER_INVALID;
    }
    if (entry & QCOW2_COMPRESSED) {
        return CLUSTER_COMPRESSED;
    }
    return entry & QCOW2_ZERO ? CLUSTER_ZERO : CLUSTER_NORMAL;
}

static inline void map_unallocated(const BlockNode *node, MapOp op, uint64_t offset,
                                   uint64_t len, MapResult *ret)
{
    const BlockNode *backing = node->backing_child;

    ret->len = len;
    if (op == MAP_OP_WRITE) {
        ret->kind = MAP_SLOW;
    } else if (!backing || offset >= backing->length) {
        ret->kind = MAP_ZERO;
    } else {
        const Qcow2 *q = node->state;
        ret->kind = MAP_CHILD;
        ret->child = node->backing_child;
        ret->offset = offset;
        ret->len = min_u64(len, backing->length - offset);
        if (q->flat && op != MAP_OP_STATUS) { /* who asks for status asks each layer */
            BlockNode *layer = flat_look_up(q->flat, *q->ways, offset, &ret->len);
            ret->child = layer ? layer : ret->child;
        }
    }
}

/* A host cluster that this write may go to as it is? */
static inline bool writable_in_place(uint64_t entry)
{
    return (entry & (QCOW2_COPIED | QCOW2_COMPRESSED | QCOW2_ZERO)) == QCOW2_COPIED &&
           entry != QCOW2_ENTRY_INVALID;
}

/* Do clusters with entry @next, @nb clusters behind @first, belong to what @first began? */
static bool goes_on(const Qcow2 *q, MapOp op, ClusterKind kind, uint64_t first,
                    uint64_t next, uint32_t nb)
{
    if (op == MAP_OP_WRITE && kind != CLUSTER_NORMAL) {
        return !writable_in_place(next); /* the run of clusters that need work */
    }
    if (kind == CLUSTER_NORMAL) {
        return next == first + ((uint64_t)nb << q->cluster_bits);
    }
    if (classify(next) != kind || kind == CLUSTER_COMPRESSED) {
        return false;
    }
    uint64_t host = first & QCOW2_L2_OFFSET_MASK;
    uint64_t expect = host ? host + ((uint64_t)nb << q->cluster_bits) : 0;
    return kind != CLUSTER_ZERO || op != MAP_OP_STATUS ||
           (next & QCOW2_L2_OFFSET_MASK) == expect;
}

/* Bytes from @in_cluster of @cluster on that the entries describe in the same way as the
 * first of them. */
static uint64_t run_length(const Qcow2 *q, uint64_t cluster, MapOp op, uint64_t first,
                           ClusterKind kind, uint64_t in_cluster, uint64_t len)
{
    uint32_t left = l2_slice_entries(q) - (uint32_t)(cluster & (l2_slice_entries(q) - 1));
    uint32_t want = (uint32_t)min_u64(left, clusters_for(q, in_cluster + len));
    uint32_t n = 0;
    uint64_t entry;

    if (want <= 1) {
        return min_u64(q->cluster_size - in_cluster, len);
    }
    while (n < want) {
        uint32_t more = l2_get_run(q, cluster + n, want - n, &entry);
        if (n > 0 && !goes_on(q, op, kind, first, entry, n)) {
            break;
        }
        n += more;
    }
    return min_u64(((uint64_t)n << q->cluster_bits) - in_cluster, len);
}

void qcow2_map(BlockNode *node, MapOp op, uint64_t offset, uint64_t len, MapResult *ret)
{
    Qcow2 *q = node->state;
    uint64_t cluster = offset >> q->cluster_bits;
    uint64_t in_cluster = offset & (q->cluster_size - 1);
    uint64_t l1_index = cluster >> q->l2_bits;

    ret->extent_flags = 0;
    if (G_UNLIKELY(q->corrupt) && op == MAP_OP_WRITE) {
        ret->kind = MAP_ERROR;
        ret->len = len;
        return;
    }
    if (!(q->l1[l1_index] & QCOW2_L1_OFFSET_MASK)) {
        uint64_t table_bytes = q->cluster_size << q->l2_bits;
        uint64_t left = table_bytes - (offset & (table_bytes - 1));
        map_unallocated(node, op, offset, min_u64(len, left), ret);
        return;
    }
    L2Page *page = q->cache.pages[cluster >> q->slice_bits >> L2_PAGE_BITS];
    uint64_t slot = page ? page->slot[(cluster >> q->slice_bits) % L2_PAGE_SLICES] : 0;
    uint64_t entry = 0;
    if (G_LIKELY(l2_slot_is_slice(slot))) {
        L2Slice *slice = l2_slot_slice(slot);
        entry = l2_form_get(slice, q->cluster_bits, cluster & (l2_slice_entries(q) - 1));
        if (op <= MAP_OP_WRITE) {
            l2_touch(&q->cache, slice);
        }
    } else if (slot == L2_SLOT_EMPTY) {
        page->used |= op <= MAP_OP_WRITE;
        q->cache.hits++;
    } else {
        ret->kind = MAP_MISS;
        ret->len = len;
        return;
    }
    ClusterKind kind = classify(entry);

    if (op == MAP_OP_WRITE && !writable_in_place(entry)) {
        ret->kind = kind == CLUSTER_INVALID ? MAP_ERROR : MAP_SLOW;
        ret->len = run_length(q, cluster, op, entry,
                              kind == CLUSTER_NORMAL ? CLUSTER_ZERO : kind, in_cluster,
                              len);
        return;
    }
    len = run_length(q, cluster, op, entry, kind, in_cluster, len);
    ret->len = len;
    switch (kind) {
    case CLUSTER_UNALLOCATED:
        map_unallocated(node, op, offset, len, ret);
        break;
    case CLUSTER_ZERO:
        ret->kind = MAP_ZERO;
        ret->extent_flags = EXTENT_ALLOCATED;
        if (entry & QCOW2_L2_OFFSET_MASK) {
            ret->extent_flags |= EXTENT_OFFSET;
            ret->offset = (entry & QCOW2_L2_OFFSET_MASK) + in_cluster;
        }
        break;
    case CLUSTER_NORMAL:
        ret->kind = MAP_CHILD;
        ret->child = node->file_child;
        ret->offset = (entry & QCOW2_L2_OFFSET_MASK) + in_cluster;
        break;
    case CLUSTER_COMPRESSED:
        ret->kind = MAP_SLOW;
        ret->extent_flags = EXTENT_COMPRESSED;
        break;
    default:
        ret->kind = MAP_ERROR;
        break;
    }
}

int coroutine_fn qcow2_co_load(BlockNode *node, uint64_t offset, uint64_t len,
                               unsigned flags)
{
    Qcow2 *q = node->state;
    return l2_co_load(q, offset >> q->cluster_bits, flags);
}
