/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A BlockRequest: one guest request on its way through the graph.
 *
 * It is embedded in its owner's slot (an NBD request slot, a job's copy buffer), submitted
 * by port_submit() and ended by exactly one call of its done, never from inside
 * port_submit().  Nothing on the way allocates.
 */
#ifndef BLOCK_REQUEST_H
#define BLOCK_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include "block/base/list.h"

typedef struct BlockPort BlockPort;
typedef struct BlockRequest BlockRequest;

typedef enum BlockOp {
    BLOCK_READ,
    BLOCK_WRITE,
    BLOCK_WRITE_ZEROES,
    BLOCK_DISCARD,
    BLOCK_FLUSH,
} BlockOp;
#define BLOCK_NB_OPS 5

enum {
    BLOCK_FUA = 1,         /* write, write-zeroes: durable when done */
    BLOCK_MAY_UNMAP = 2,   /* write-zeroes: may deallocate */
    BLOCK_NO_FALLBACK = 4, /* write-zeroes: -ENOTSUP rather than writing zeros out */
    BLOCK_NO_PROMOTE = 8,  /* jobs: do not warm the metadata cache */
    BLOCK_UNCHANGED = 16,  /* write of what is there already (populate): no dirty bits */
};

struct BlockRequest {
    /* the owner's, set before port_submit() and constant until done */
    void (*done)(BlockRequest *req, int ret); /* ret: 0 or -errno */
    const struct iovec *iov; /* READ, WRITE: sums up to len; NULL otherwise */
    uint64_t offset;         /* bytes */
    uint64_t len;            /* bytes; 0 for FLUSH */
    uint16_t niov;
    uint8_t op; /* BlockOp */
    uint8_t flags;
    /* results, valid in done */
    bool was_zero; /* READ: everything was known to be zero without reading */
    /* the port's */
    uint8_t epoch;
    uint16_t nb_pending; /* disk operations not yet complete */
    int result;
    BlockPort *port;
    int64_t start_ns;
    ListLink link; /* in the port's in-flight or parked list */
};

_Static_assert(sizeof(BlockRequest) <= 128, "a request fits two cache lines");

#endif
