/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The L2 map's memory: slices of L2 tables by radix. What is known of a slice stands in its
 * slot, a word:
 *
 *     0                  not known
 *     L2_SLOT_EMPTY      all entries are 0; no further memory
 *     ..LOADING | number the window of that number reads it, and nobody else decides
 *     ..GHOST | number   evicted as the number-th from the queue of old ones
 *     else               a pointer to its L2Slice
 *
 * Nobody keeps a slice's address across a yield: what is kept is its index (or the guest's
 * cluster), and the slot is looked at again. So eviction needs no grace period, and forms
 * may move.
 *
 * L1 a clean slice is linked in young, old or main, a dirty one in dirty; one that is
 *    captured and not dirty again is in none;
 * L2 what is in young, old or main can be evicted, nothing else can;
 * L3 a page without slices and loads is linked in idle_pages, no other is;
 * L4 bytes is what malloc takes for pages, slices and what map-flat.h remembers.
 */
#ifndef BLOCK_QCOW2_L2_CACHE_H
#define BLOCK_QCOW2_L2_CACHE_H

#include "block/aio/coroutine.h"
#include "block/aio/loop.h"
#include "block/qcow2/l2-form.h"

#define L2_PAGE_BITS 6
#define L2_PAGE_SLICES (1u << L2_PAGE_BITS)
#define L2_SLOT_EMPTY   UINT64_C(1)
#define L2_SLOT_LOADING UINT64_C(2) /* of the two low bits, as */
#define L2_SLOT_GHOST   UINT64_C(3)

typedef struct L2Page {
    ListLink in_idle;
    uint32_t number;
    uint8_t nb_slices, nb_loading;
    bool used; /* an EMPTY slot was looked up since the hand passed */
    uint64_t slot[L2_PAGE_SLICES];
} L2Page;

typedef enum L2Queue { L2_YOUNG, L2_OLD, L2_MAIN } L2Queue; /* L2Slice.queue */

typedef enum L2Count { /* what forms there are */
    L2_COUNT_EMPTY,
    L2_COUNT_RUN,
    L2_COUNT_SPARSE,
    L2_COUNT_ARRAY32,
    L2_COUNT_FULL64,
    L2_COUNT_NB,
} L2Count;

#define L2_LOAD_QUEUES 8

typedef struct L2Cache {
    /* hot */
    L2Page **pages;
    uint64_t hits;
    uint32_t nb_pages;
    bool compact; /* forms other than full64 */
    bool one_queue; /* CLOCK: all slices are in main from the start */
    bool wide;    /* whole tables are read while the budget is free */
    ListLink young, old, main, dirty; /* L2Slice.link */
    ListLink idle_pages;         /* L2Page.in_idle */
    uint64_t budget;
    uint64_t loading_bytes; /* that slices being read may take: kept free for them */
    uint64_t bytes, young_bytes, old_bytes, dirty_bytes, page_bytes, idle_bytes;
    uint64_t ghost_seq; /* slices evicted from old */
    uint64_t window_seq; /* windows read, l2-load.c */
    uint32_t nb_main;
    uint32_t count[L2_COUNT_NB];
    CoQueue loaded[L2_LOAD_QUEUES]; /* by slice: it finished loading */
    uint64_t misses, loads, evictions, prefetches;
    /* l2-load.c */
    uint32_t next_in_order; /* the slice that a sequential reader misses next */
    uint32_t read_ahead;    /* windows */
    uint32_t ahead_from, ahead_to; /* slices to load in the background; to 0: none */
    uint32_t warm_next; /* the L1 entry to warm up next; UINT32_MAX: done */
    uint8_t wide_loads; /* running */
    uint8_t nb_kept;    /* slice_buffers */
    void *wide_buffers, *slice_buffers; /* unused; each begins with the next's address */
    bool background;
    CoQueue settled; /* the background coroutine ended */
    uint32_t entry_size; /* the option: bytes of a slice on disk; 0: the default */
    /* idle cleaning */
    LoopTimer clean_timer;
    int64_t clean_interval_ns;
} L2Cache;

static inline bool l2_slot_is_slice(uint64_t slot)
{
    return !(slot & 3) && slot;
}
static inline bool l2_slot_is_loading(uint64_t slot)
{
    return (slot & 3) == L2_SLOT_LOADING;
}
static inline L2Slice *l2_slot_slice(uint64_t slot)
{
    return (L2Slice *)(uintptr_t)slot;
}

#endif
