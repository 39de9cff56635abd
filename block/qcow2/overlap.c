/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Does a range of the file hold metadata?  Whoever is about to put something there that the
 * refcounts call free asks first: an image whose counts are wrong must not lose its header
 * or tables to a guest's write (safety.md, Q8).
 *
 * Entries of L2 tables are looked at when they are read: one that refers to a table or a
 * refcount block would let a guest write there in place. For that there is a set of those
 * clusters, by open addressing. It forgets none that is not a table any more: a hit is
 * looked up in the tables themselves.
 */
#include <string.h>

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

/* ---- the set ---- */

#define SET_MIN_SLOTS 64u
#define SET_MAX_SLOTS (4u << 20) /* 32 MiB: a million tables; beyond, there is no set */

static uint32_t slot_of(const TableSet *set, uint64_t cluster)
{
    return (uint32_t)((cluster * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & set->mask;
}

static void insert(TableSet *set, uint64_t cluster)
{
    uint32_t i = slot_of(set, cluster);
    while (set->slots[i] && set->slots[i] != cluster) {
        i = (i + 1) & set->mask;
    }
    set->count += !set->slots[i];
    set->slots[i] = cluster;
}

void overlap_forget(Qcow2 *q)
{
    g_clear_pointer(&q->table_set.slots, g_free);
    q->table_set.tried = false;
}

void overlap_prepare(Qcow2 *q)
{
    TableSet *set = &q->table_set;
    uint64_t slots = SET_MIN_SLOTS, tables = 0;

    if (set->tried) {
        return;
    }
    set->tried = true;
    for (uint32_t i = 0; i < q->l1_size; i++) {
        tables += (q->l1[i] & QCOW2_L1_OFFSET_MASK) != 0;
    }
    for (uint32_t i = 0; i < q->rt_entries; i++) {
        tables += (q->rt[i] & QCOW2_RT_OFFSET_MASK) != 0;
    }
    while (slots < 4 * tables) { /* a quarter full; made again when it is half full */
        slots *= 2;
    }
    set->slots = slots <= SET_MAX_SLOTS ? g_try_new0(uint64_t, slots) : NULL;
    set->mask = (uint32_t)(slots - 1);
    set->count = 0;
    for (uint32_t i = 0; set->slots && i < q->l1_size; i++) {
        uint64_t cluster = (q->l1[i] & QCOW2_L1_OFFSET_MASK) >> q->cluster_bits;
        if (cluster) {
            insert(set, cluster);
        }
    }
    for (uint32_t i = 0; set->slots && i < q->rt_entries; i++) {
        uint64_t cluster = (q->rt[i] & QCOW2_RT_OFFSET_MASK) >> q->cluster_bits;
        if (cluster) {
            insert(set, cluster);
        }
    }
}

void overlap_note(Qcow2 *q, uint64_t offset)
{
    TableSet *set = &q->table_set;
    if (set->slots) {
        insert(set, offset >> q->cluster_bits);
        if (set->count > set->mask / 2) {
            overlap_forget(q);
        }
    }
}

bool overlap_table(const Qcow2 *q, uint64_t offset)
{
    const TableSet *set = &q->table_set;
    uint64_t cluster = offset >> q->cluster_bits;

    if (!set->slots) {
        return false;
    }
    uint32_t i = slot_of(set, cluster);
    while (set->slots[i] && set->slots[i] != cluster) {
        i = (i + 1) & set->mask;
    }
    return set->slots[i] && overlap_any(q, offset, q->cluster_size);
}
