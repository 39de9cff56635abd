/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A BlockPort: a user's door onto a root node.  Exports, jobs, tools and commands hold
 * ports, not nodes, so that a snapshot can slide a new root under a live export.
 *
 * Rules:
 *  P1 every guest byte enters and leaves through a port: range, permission and
 *     read-only state are checked here and nowhere below;
 *  P2 done is never called from inside port_submit();
 *  P3 while a port is quiesced (drained) new requests are parked and started, in order,
 *     when the drain ends; their owners see only the delay.
 */
#ifndef BLOCK_PORT_H
#define BLOCK_PORT_H

#include <glib.h>
#include "block/aio/loop.h"
#include "block/request.h"

typedef struct BlockNode BlockNode;
typedef struct Graph Graph;

/* spec: the permission names are those of QEMU's BlockPermission. */
enum {
    PERM_CONSISTENT_READ = 1,
    PERM_WRITE = 2,
    PERM_WRITE_UNCHANGED = 4,
    PERM_RESIZE = 8,
    PERM_ALL = 15,
};

typedef struct PortUser {
    const char *kind; /* "export", "job", "device", ..; in permission errors */
    void (*resized)(void *opaque);      /* the root's length changed; may be NULL */
    void (*root_changed)(void *opaque); /* a new root slid in; may be NULL */
} PortUser;

typedef struct PortOpStats {
    uint64_t bytes, ops, failed, invalid;
    uint64_t total_ns;
} PortOpStats;

typedef struct PortStats {
    PortOpStats op[BLOCK_NB_OPS];
    int64_t last_access_ns;
    uint64_t wr_highest_offset;
} PortStats;

/*
 * Open a door named @name (a device, export or job id; shown in errors and queries) on
 * @root. @perm is what the user needs, @shared what others may have at the same time.
 * NULL and *errp on a permission conflict. Takes a reference on the root.
 */
BlockPort *coroutine_fn port_co_new(BlockNode *root, unsigned perm, unsigned shared,
                                    const char *name, const PortUser *user,
                                    void *opaque, GError **errp);

/* Wait for what is in flight, let the root go, free. Yields. NULL is legal. */
void coroutine_fn port_co_free(BlockPort *port);

BlockNode *port_root(const BlockPort *port); /* borrowed */
const char *port_name(const BlockPort *port);
const PortStats *port_stats(const BlockPort *port);
Loop *port_loop(const BlockPort *port);
uint64_t port_length(const BlockPort *port); /* bytes, now */
bool port_read_only(const BlockPort *port);  /* no PERM_WRITE */
/* Requests aligned to this (offset and length) take the fast way. 1..4096 */
uint32_t port_request_align(const BlockPort *port);
/* Buffers aligned to this need no bounce. */
uint32_t port_mem_align(const BlockPort *port);
/* Change what is held and shared; false and *errp on conflict, nothing changed then. */
bool coroutine_fn port_co_set_perm(BlockPort *port, unsigned perm, unsigned shared,
                                   GError **errp);

/* Start a request; req->done follows. -EINVAL/-EIO/-EPERM/-ENOSPC come through done too.
 * A write beyond the end is -ENOSPC, a read beyond the end -EINVAL. */
void port_submit(BlockPort *port, BlockRequest *req);

/* The same, waiting in the running coroutine; 0 or -errno. */
int coroutine_fn port_co_read(BlockPort *port, uint64_t offset, uint64_t len, void *buf,
                              unsigned flags);
int coroutine_fn port_co_write(BlockPort *port, uint64_t offset, uint64_t len,
                               const void *buf, unsigned flags);
int coroutine_fn port_co_rwv(BlockPort *port, BlockOp op, uint64_t offset, uint64_t len,
                             const struct iovec *iov, int niov, unsigned flags);
int coroutine_fn port_co_write_zeroes(BlockPort *port, uint64_t offset, uint64_t len,
                                      unsigned flags);
int coroutine_fn port_co_discard(BlockPort *port, uint64_t offset, uint64_t len);
int coroutine_fn port_co_flush(BlockPort *port);

/* Wait until none of this port's requests is in flight. New ones are let in meanwhile. */
void coroutine_fn port_co_wait_idle(BlockPort *port);
unsigned port_in_flight(const BlockPort *port);

/*
 * What the range is made of, from metadata alone where the format has metadata.
 * One extent that starts at @offset; ret->len is at least 1 and at most @len.
 */
enum {
    EXTENT_DATA = 1,       /* reads come from storage */
    EXTENT_ZERO = 2,       /* reads as zeros */
    EXTENT_ALLOCATED = 4,  /* this layer decides the contents */
    EXTENT_OFFSET = 8,     /* host_offset in file is valid */
    EXTENT_COMPRESSED = 16,
    EXTENT_EOF = 32,       /* the extent ends at the end of the node */
};
typedef struct BlockExtent {
    uint64_t len;
    uint64_t host_offset;
    BlockNode *file; /* where host_offset is; borrowed, valid while the graph is */
    BlockNode *node; /* the layer that decided; borrowed */
    unsigned flags;
    int depth; /* layers below the root: 0 = the root itself */
} BlockExtent;
/* Through the whole backing chain. 0 or -errno. Yields. */
int coroutine_fn port_co_status(BlockPort *port, uint64_t offset, uint64_t len,
                                BlockExtent *ret);

#endif
