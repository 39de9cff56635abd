/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a node remembers of the layers below it: for each unit of the disk (a cluster, or a
 * few) a byte, the number of the first layer that has anything there. A look-up that the
 * node itself cannot answer goes on with that layer and does not ask those between, whose
 * answers are known: a read through sixty layers asks three maps.
 *
 * Nothing else is remembered, no host offset and no "zero": the layer is asked as ever, so
 * what it gains, loses, moves or evicts need not be told here. Wrong is only what says
 * "nothing" of a layer between that has gained something, or that is not there any more.
 *
 * N1 a number k says: the layers 1 .. k-1 say "go on below, at the same place" for the whole
 *    unit. A smaller number than the true one is as right. 0: not known;
 * N2 it holds while graph_ways() is what it was: the edges and lengths of all nodes, and the
 *    entries of nodes that others stand on (l2_set), change that;
 * N3 it belongs to the L2 budget: at most a quarter of it, and the last slice goes before it.
 */
#ifndef BLOCK_QCOW2_MAP_FLAT_H
#define BLOCK_QCOW2_MAP_FLAT_H

#include "block/driver.h"

#define FLAT_PAGE_BITS  11
#define FLAT_PAGE_UNITS (1u << FLAT_PAGE_BITS)
#define FLAT_MAX_LAYERS 254u /* below the node; what lies deeper is found from there */

typedef struct FlatPage {
    ListLink link; /* FlatMap.clock */
    uint32_t number;
    bool used; /* since the hand passed */
    bool idle; /* not looked at since the last idle cleaning */
    uint8_t layer[FLAT_PAGE_UNITS];
} FlatPage;

typedef struct FlatLayer {
    BlockNode *node;
    uint64_t end; /* while learning: how far the layers above say nothing */
} FlatLayer;

typedef struct FlatMap {
    uint64_t ways; /* graph_ways() for which the pages and layers hold */
    FlatPage **pages;
    uint32_t nb_pages;
    uint8_t unit_bits;
    uint8_t nb_layers; /* 1 .. are below the node; 0: to be found */
    uint8_t wait;      /* so many reads before learning, because the ways changed */
    FlatLayer *layers;
    ListLink clock; /* FlatPage.link */
    uint64_t page_bytes, bytes, hits;
} FlatMap;

/*
 * Where a look-up at @offset goes on that finds nothing in the node itself: the layer, and
 * in *@len, which is shortened if need be, for how many bytes. NULL: not known.
 */
static inline BlockNode *flat_look_up(FlatMap *f, uint64_t ways, uint64_t offset, uint64_t *len)
{
    if (f->ways != ways) {
        return NULL;
    }
    uint64_t unit = offset >> f->unit_bits;
    uint64_t number = unit >> FLAT_PAGE_BITS;
    FlatPage *page = number < f->nb_pages ? f->pages[number] : NULL;
    uint32_t i = unit % FLAT_PAGE_UNITS;
    if (!page || page->layer[i] < 2) {
        return NULL;
    }
    uint8_t layer = page->layer[i];
    uint64_t left = ((unit + 1) << f->unit_bits) - offset;
    while (left < *len && ++i < FLAT_PAGE_UNITS && page->layer[i] == layer) {
        left += UINT64_C(1) << f->unit_bits;
    }
    *len = left < *len ? left : *len;
    page->used = true;
    f->hits++;
    return f->layers[layer].node;
}

typedef struct Qcow2 Qcow2;

/* BlockDriver.learn_below. */
void qcow2_learn_below(BlockNode *node, uint64_t offset);
/* Let a page go; false: there is none. */
bool flat_evict(Qcow2 *q);
/* Let go of pages that nobody looked at since the last time. */
void flat_clean_idle(Qcow2 *q);
void flat_free(Qcow2 *q);

#endif
