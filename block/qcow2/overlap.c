/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Does a range of the file hold metadata?  Whoever is about to put something there that the
 * refcounts call free asks first: an image whose counts are wrong must not lose its header
 * or tables to a guest's write (safety.md, Q8).
 *
 * Entries of L2 tables are looked at when they are read: one that refers to metadata would
 * let a guest write there in place. For that there is a set of all L2 tables and refcount
 * blocks, by open addressing, and before it a filter of bits for these and for what has its
 * place in the header. The set forgets none that is not a table any more: a hit is looked up
 * in the tables themselves.
 *
 * O1 whoever gives a table of the header another place calls overlap_forget(), because the
 *    filter says where there is nothing.
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
#define FILTER_BITS   4          /* times as many bits as slots: 16 for each table */

/* Where @cluster is, or the empty slot where it would be. */
static uint64_t *slot_of(const TableSet *set, uint64_t cluster)
{
    uint32_t i = (uint32_t)((cluster * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & set->mask;
    while (set->slots[i] && set->slots[i] != cluster) {
        i = (i + 1) & set->mask;
    }
    return set->slots + i;
}

static void filter_add(TableSet *set, uint64_t first, uint64_t clusters)
{
    uint64_t end = div_round_up(first + clusters, UINT64_C(1) << OVERLAP_SHIFT);
    for (uint64_t n = first >> OVERLAP_SHIFT; clusters && n < end; n++) {
        uint64_t bit = n & set->filter_mask;
        set->filter[bit / 64] |= UINT64_C(1) << (bit % 64);
    }
}

static void insert(TableSet *set, uint64_t cluster)
{
    uint64_t *slot = slot_of(set, cluster);

    set->count += !*slot;
    *slot = cluster;
    filter_add(set, cluster, 1);
}

void overlap_forget(Qcow2 *q)
{
    g_clear_pointer(&q->table_set.slots, g_free);
    g_clear_pointer(&q->table_set.filter, g_free);
    q->table_set.tried = false;
}

static uint64_t nb_tables(const uint64_t *entries, uint32_t n, uint64_t mask)
{
    uint64_t tables = 0;
    for (uint32_t i = 0; i < n; i++) {
        tables += (entries[i] & mask) != 0;
    }
    return tables;
}

static void insert_all(Qcow2 *q, const uint64_t *entries, uint32_t n, uint64_t mask)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t cluster = (entries[i] & mask) >> q->cluster_bits;
        if (cluster) {
            insert(&q->table_set, cluster);
        }
    }
}

void overlap_prepare(Qcow2 *q)
{
    TableSet *set = &q->table_set;
    uint64_t slots = SET_MIN_SLOTS;

    if (set->tried) {
        return;
    }
    set->tried = true;
    uint64_t tables = nb_tables(q->l1, q->l1_size, QCOW2_L1_OFFSET_MASK) +
                      nb_tables(q->rt, q->rt_entries, QCOW2_RT_OFFSET_MASK);
    while (slots < 4 * tables) { /* a quarter full; made again when it is half full */
        slots *= 2;
    }
    if (slots > SET_MAX_SLOTS) {
        return;
    }
    set->slots = g_try_new0(uint64_t, slots);
    set->filter = g_try_new0(uint64_t, slots * FILTER_BITS / 64);
    if (!set->slots || !set->filter) {
        overlap_forget(q);
        set->tried = true;
        return;
    }
    set->mask = (uint32_t)(slots - 1);
    set->filter_mask = (uint32_t)(slots * FILTER_BITS - 1);
    set->count = 0;
    insert_all(q, q->l1, q->l1_size, QCOW2_L1_OFFSET_MASK);
    insert_all(q, q->rt, q->rt_entries, QCOW2_RT_OFFSET_MASK);
    filter_add(set, 0, 1);
    filter_add(set, q->l1_offset >> q->cluster_bits, clusters_for(q, q->l1_size * 8ULL + 1));
    filter_add(set, q->rt_offset >> q->cluster_bits, q->rt_clusters);
    filter_add(set, q->snapshots_offset >> q->cluster_bits, 1);
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

    return set->slots && overlap_maybe(q, offset) && *slot_of(set, cluster) &&
           overlap_any(q, offset, q->cluster_size);
}
