/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For the crash simulation alone: rules that can be switched off, to prove that it notices,
 * and limits that can be made small, so that rare turns become common ones.
 *
 * tests/sim builds the block layer once more with QDP_BREAKS. Everywhere else BROKEN() is
 * the constant false and KNOB() its default: the product has none of this.
 */
#ifndef BLOCK_BREAK_H
#define BLOCK_BREAK_H

#include <stdint.h>

typedef enum BlockBreak {
    BREAK_NONE,
    /* the rules of order, by their numbers (block/qcow2/README.md) */
    BREAK_Q1,        /* entries go to the disk before the counts that they need */
    BREAK_Q2,        /* copied data and its entry share one sync */
    BREAK_Q2_ZERO,   /* a cluster that was used before passes for zero */
    BREAK_Q3,        /* a cluster is free while an entry on the disk refers to it */
    BREAK_Q4_TABLE,  /* a copied L2 table and its L1 entry share one sync */
    BREAK_Q4_BLOCK,  /* a refcount block and its table entry share one sync */
    BREAK_Q4_REUSED, /* a new L2 table in a used cluster and its L1 entry share one sync */
    BREAK_Q5,        /* the allocator does not wait for its lock */
    BREAK_Q6,        /* no grace period */
    BREAK_SPACE,     /* a full disk: what was let go of is taken while others still read it */
    BREAK_Q7,        /* a failed write frees the published cluster it went to */
    BREAK_Q8,        /* autoclear bits stay */
    BREAK_Q9,        /* a header field takes its whole sector along, as it was at open */
    BREAK_Q10,       /* counts without a file that covers them */
    BREAK_Q11,       /* the last writer leaves its window to the close */
    BREAK_Q11_STALE, /* writing again without reading again */
    BREAK_Q12,       /* the dirty bit is set while writing */
    BREAK_Q12_BITMAP, /* bitmaps pass for current */
    BREAK_Q12_TABLE, /* the refcount table moves whenever it must */
    BREAK_Q13,       /* what a failed epoch had captured counts as written */
    BREAK_FUA,       /* data written with FUA is taken for durable whatever leads to it */
    BREAK_ROOT,      /* after a failure the old table is taken for the one in force */
    BREAK_Q13_SYNC,  /* a sync after a failed one is believed, buffered or not */
    /* mistakes that others made */
    BREAK_COW_OVERLAP,   /* writers do not wait for the copy of their cluster */
    BREAK_COW_OFFSET,    /* the tail of a copy comes from the wrong cluster */
    BREAK_COW_WIDE,      /* a copy covers one cluster more than it keeps others from */
    BREAK_DISCARD_RACE,  /* discard does not wait for a copy */
    BREAK_LATE_PUNCH,    /* the hole is punched when the cluster is free already */
    BREAK_BLOCK_ON_DATA, /* a new refcount block lies on the first cluster of the window */
    BREAK_L1_ENOSPC,     /* an L1 entry stays although its table could not be written */
    BREAK_TABLE_FREED,   /* a new L2 table is given back while it is in use */
    BREAK_NO_COPIED,     /* the copied flag is forgotten */
    BREAK_REST_WAITS,    /* the last writer leaves what other disks' requests hold back */
    BREAK_REPAIR_WINDOW, /* repair frees what is reserved */
    BREAK_SHRINK_EARLY,  /* what lies behind a new end goes before that is durable */
    BREAK_STALE_END,  /* a disk that grows shows what a larger size has left */
    BREAK_STALE_TAIL,    /* growing shows what an earlier, larger disk had there */
    BREAK_FLAT_WAYS,     /* what is known of the layers below outlives their change */
    BREAK_NB,
} BlockBreak;

#ifdef QDP_BREAKS
typedef struct BlockKnobs {
    uint64_t window_clusters; /* of one reservation */
    uint64_t dropped_bytes;   /* before an internal epoch */
    uint64_t capture_bytes;   /* of one round of an epoch */
    uint64_t copy_piece;
    uint64_t grow_step;
    uint64_t l2_budget; /* whatever the option says */
    uint64_t flat_hops;   /* so many layers are not worth remembering */
    uint64_t flat_settle; /* reads without a change before learning */
} BlockKnobs;
extern BlockBreak block_break; /* the one that is off */
extern BlockKnobs block_knobs; /* 0: the default */
#define BROKEN(name) (block_break == (name))
#define KNOB(name, otherwise) (block_knobs.name ? block_knobs.name : (uint64_t)(otherwise))
#else
#define BROKEN(name) false
#define KNOB(name, otherwise) (otherwise)
#endif

#endif
