/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2 maps without images: a node with an L1 table and an L2 cache over a file that
 * is an array in memory, and beside it a plain array of all entries, which is the
 * truth. For tests of look-ups; there are no refcounts, and no data.
 *
 * Reads of the file may yield, and fail. map_image_check() compares what the cache
 * counts with what it has.
 */
#ifndef TESTS_UNIT_MAP_RIG_H
#define TESTS_UNIT_MAP_RIG_H

#include "block/graph-private.h"
#include "block/qcow2/qcow2.h"

typedef struct MapImage {
    BlockNode *node, *file;
    Qcow2 *q;
    uint64_t *entry;             /* the truth, by guest cluster; of tables that exist */
    uint32_t max_tables;         /* l1_size grows up to it */
    uint64_t tables_at, data_at; /* host clusters */
    be64 *disk; /* the L2 tables, one behind the other; a table has its own place */
    GRand *rand;
    unsigned fail_one_in; /* reads; 0: none */
    bool slow;            /* reads yield */
    uint64_t reads;
    uint64_t next_host;
} MapImage;

/* Without tables. @entry_size as the option. */
MapImage *map_image_new(Graph *graph, GRand *rand, unsigned cluster_bits,
                        uint32_t tables, uint32_t max_tables, const L2Options *options);
void coroutine_fn map_image_free(MapImage *im); /* no edges lead to its node any more */
/* Make table @i, of zeros; nothing if it exists. */
void map_image_make_table(MapImage *im, uint32_t i);
static inline bool map_image_has(const MapImage *im, uint64_t cluster)
{
    return im->q->l1[cluster >> im->q->l2_bits] != 0;
}
static inline uint64_t map_image_clusters(const MapImage *im)
{
    return (uint64_t)im->q->l1_size << im->q->l2_bits;
}
/* Load the slice of a cluster, whose table exists, and stay with it: 0 or -errno. */
int coroutine_fn map_image_load(MapImage *im, uint64_t cluster, unsigned flags);
/* Change an entry and the truth. 0, or -errno of the load; nothing changed then. */
int coroutine_fn map_image_set(MapImage *im, uint64_t cluster, uint64_t entry);
/* Write out up to @max dirty slices. Yields between capture and end when @yield. */
void coroutine_fn map_image_flush(MapImage *im, unsigned max, bool yield, bool fail);
/* Counters against contents. */
void map_image_check(const MapImage *im);

#endif
