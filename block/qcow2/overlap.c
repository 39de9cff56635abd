/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Does a range of the file hold metadata?  Whoever is about to put something there that the
 * refcounts call free asks first: an image whose counts are wrong must not lose its header
 * or tables to a guest's write (safety.md, Q8).
 */
#include "block/qcow2/qcow2.h"

const char *overlap_fixed(const Qcow2 *q, uint64_t offset, uint64_t bytes)
{
    if (offset < q->cluster_size) {
        return "qcow2_header";
    }
    if (ranges_overlap(offset, bytes, q->l1_offset, (uint64_t)q->l1_size * 8)) {
        return "active L1 table";
    }
    if (ranges_overlap(offset, bytes, q->rt_offset,
                       (uint64_t)q->rt_clusters << q->cluster_bits)) {
        return "refcount table";
    }
    /* its length is not known here: the first cluster stands for it */
    if (q->nb_snapshots &&
        ranges_overlap(offset, bytes, q->snapshots_offset, q->cluster_size)) {
        return "snapshot table";
    }
    return NULL;
}

const char *overlap_any(const Qcow2 *q, uint64_t offset, uint64_t bytes)
{
    const char *what = overlap_fixed(q, offset, bytes);

    for (uint32_t i = 0; !what && i < q->l1_size; i++) {
        uint64_t table = q->l1[i] & QCOW2_L1_OFFSET_MASK;
        if (table && ranges_overlap(offset, bytes, table, q->cluster_size)) {
            what = "active L2 table";
        }
    }
    for (uint32_t i = 0; !what && i < q->rt_entries; i++) {
        uint64_t block = q->rt[i] & QCOW2_RT_OFFSET_MASK;
        if (block && ranges_overlap(offset, bytes, block, q->cluster_size)) {
            what = "refcount block";
        }
    }
    return what;
}
