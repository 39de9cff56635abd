/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The forms that a slice of an L2 table has in memory. Pure: no cache, no I/O.
 *
 *     extents   up to 64 runs of entries that count upwards; one of them is a RUN, more are
 *               SPARSE; everything between them is 0
 *     array32   a u32 per entry: copied flag, zero flag, 30 bits of host cluster number. It
 *               reaches 2^30 - 1 clusters: 512 GiB of file at 512-byte clusters, 64 TiB at
 *               64 KiB, 2 PiB at 2 MiB
 *     full64    the entries as they are: beyond that reach, or many compressed clusters
 *
 * A slice whose entries are all 0 has no memory at all (l2-cache.h, EMPTY).
 *
 * F1 forms are widened by l2_form_set() when an entry does not fit, and made narrow again by
 *    l2_form_compact() only;
 * F2 both may move the slice: they return its new address and repair the list it is in.
 */
#ifndef BLOCK_QCOW2_L2_FORM_H
#define BLOCK_QCOW2_L2_FORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/base/list.h"
#include "block/qcow2/format.h"

#define QCOW2_ENTRY_INVALID UINT64_MAX /* refused on load; reads and writes give -EIO */
#define L2_MAX_EXTENTS 64u

typedef enum L2FormKind { L2_EXTENTS, L2_ARRAY32, L2_FULL64 } L2FormKind;

typedef struct L2Extent {
    uint64_t entry; /* of the first */
    uint32_t first, count;
} L2Extent;
_Static_assert(sizeof(L2Extent) == 16, "a RUN is 16 bytes");

typedef struct L2Slice {
    ListLink link;  /* of the cache: a queue, or dirty */
    uint32_t index; /* guest cluster >> slice_bits */
    uint8_t form;   /* L2FormKind */
    uint8_t nb, cap; /* of extents */
    uint8_t queue : 2;  /* of l2-evict.c: which it is in, or goes back to */
    bool used : 1;      /* looked up since it came into the queue, or the hand passed */
    bool dirty : 1;     /* in cache.dirty */
    bool writing : 1;   /* captured by the running epoch */
    bool invalid : 1;   /* never written: what the disk says is kept as evidence */
    bool idle : 1;      /* not looked up since the last idle cleaning */
    bool cold : 1;      /* brought in by somebody who reads once */
} L2Slice;
_Static_assert(sizeof(void *) != 8 || sizeof(L2Slice) == 24, "no padding");

static inline L2Extent *l2_extents(const L2Slice *s)
{
    return (L2Extent *)(s + 1);
}
static inline uint32_t *l2_array32(const L2Slice *s)
{
    return (uint32_t *)(s + 1);
}
static inline uint64_t *l2_full64(const L2Slice *s)
{
    return (uint64_t *)(s + 1);
}

/* Do the entries behind this one count upwards, or repeat it? */
static inline uint64_t l2_entry_step(uint64_t entry, unsigned cluster_bits)
{
    return (entry & QCOW2_L2_OFFSET_MASK) && !(entry & QCOW2_COMPRESSED)
               ? UINT64_C(1) << cluster_bits
               : 0;
}

#define L2_32_COPIED (UINT32_C(1) << 31)
#define L2_32_ZERO   (UINT32_C(1) << 30)
#define L2_32_REACH  (L2_32_ZERO - 1)

static inline uint64_t l2_unpack32(uint32_t packed, unsigned cluster_bits)
{
    if (packed == UINT32_MAX) {
        return QCOW2_ENTRY_INVALID;
    }
    return ((uint64_t)(packed & L2_32_REACH) << cluster_bits) |
           (packed & L2_32_COPIED ? QCOW2_COPIED : 0) | (packed & L2_32_ZERO ? QCOW2_ZERO : 0);
}

/* The last extent that begins at or before @i; -1: none. */
static inline int l2_extent_find(const L2Slice *s, uint32_t i)
{
    const L2Extent *e = l2_extents(s);
    int low = 0, high = s->nb; /* e[low - 1].first <= i < e[high].first */
    while (low < high) {
        int middle = (low + high) / 2;
        if (e[middle].first <= i) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low - 1;
}

static inline uint64_t l2_extent_at(const L2Extent *e, unsigned cluster_bits, uint32_t i)
{
    return e->entry + (i - e->first) * l2_entry_step(e->entry, cluster_bits);
}

static inline uint64_t l2_form_get(const L2Slice *s, unsigned cluster_bits, uint32_t i)
{
    switch (s->form) {
    case L2_EXTENTS: {
        int at = l2_extent_find(s, i);
        const L2Extent *e = l2_extents(s) + at;
        return at >= 0 && i - e->first < e->count ? l2_extent_at(e, cluster_bits, i) : 0;
    }
    case L2_ARRAY32:
        return l2_unpack32(l2_array32(s)[i], cluster_bits);
    default:
        return l2_full64(s)[i];
    }
}

/*
 * Entry @i in *ret_entry, and how many entries from it on, at most @max (>= 1), go on as it
 * begins: counting upwards by a cluster where it has a host cluster, the same otherwise. At
 * once for extents; a scan of what is counted for arrays.
 */
uint32_t l2_form_run(const L2Slice *s, unsigned cluster_bits, unsigned slice_bits, uint32_t i,
                     uint32_t max, uint64_t *ret_entry);

/* A new slice, unlinked, in the narrowest form (@compact), or as full64; at least one of
 * the 1 << @slice_bits entries is not 0. NULL: no memory. */
L2Slice *l2_form_new(const uint64_t *entries, unsigned cluster_bits, unsigned slice_bits,
                     bool compact);
/* A new slice of zeros that l2_form_set() will fill. NULL: no memory. */
L2Slice *l2_form_new_empty(unsigned slice_bits, bool compact);
/* Change an entry. The slice, perhaps at another place; NULL: no memory, @s is as it was. */
L2Slice *l2_form_set(L2Slice *s, unsigned cluster_bits, unsigned slice_bits, uint32_t i,
                     uint64_t entry);
/* The narrowest form. Keeps @s when there is no memory. NULL: all entries are 0, and the
 * slice was freed. */
L2Slice *l2_form_compact(L2Slice *s, unsigned cluster_bits, unsigned slice_bits);
/* All entries, in host order. */
void l2_form_decode(const L2Slice *s, unsigned cluster_bits, unsigned slice_bits,
                    uint64_t *entries);
void l2_form_free(L2Slice *s);
/* What malloc takes for @bytes, its own words included. */
static inline size_t l2_malloc_bytes(size_t bytes)
{
    size_t chunk = (bytes + sizeof(size_t) + 15) & ~(size_t)15;
    return chunk < 32 ? 32 : chunk;
}
/* The memory that the slice takes. */
size_t l2_form_bytes(const L2Slice *s, unsigned slice_bits);
/* The most that a slice can take. */
size_t l2_form_max_bytes(unsigned slice_bits);

#endif
