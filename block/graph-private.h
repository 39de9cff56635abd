/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of Graph and BlockPort, for the files of block/ itself.
 */
#ifndef BLOCK_GRAPH_PRIVATE_H
#define BLOCK_GRAPH_PRIVATE_H

#include "block/aio/buffer-pool.h"
#include "block/driver.h"

#define NB_EXTENTS_DIRECT 8 /* extents of one request on the direct path */
#define NB_IOV_DIRECT     8 /* pieces of its vector per extent */

/* One disk operation of a request on the direct path; from the graph's pool. */
typedef struct DirectOp DirectOp;
struct DirectOp {
    DiskOp op;
    TrackedWrite write;
    TrackedFile *file;
    BlockRequest *req;
    struct iovec iov[NB_IOV_DIRECT];
    DirectOp *next_free;
};

struct Graph {
    Loop *loop;
    ListLink nodes; /* BlockNode.in_graph */
    ListLink ports;  /* BlockPort.in_graph */
    ListLink drains; /* GraphDrain.link: those that have begun */
    GHashTable *by_name;
    unsigned next_name;
    uint64_t shape; /* counts what may change a node's shown name */
    uint64_t ways;  /* counts what may change where a walk down the layers leads */
    const GraphEvents *events;
    void *events_opaque;
    GraphOpenFile *open_file;
    void *open_file_opaque;
    bool lock_files;
    /* grace periods (epoch.c) */
    uint64_t epoch;
    unsigned epoch_requests[2];
    /* requests that ended without I/O: their done is called from work */
    ListLink finished;
    LoopWork finish_work;
    DirectOp *free_ops;
    unsigned nb_ops;
    /* buffers of copies, bounded; NULL until needed */
    BufferPool *copies;
    CoQueue copies_freed;
};

struct BlockPort {
    BlockEdge *edge;
    BlockNode *root; /* edge->child, for the hot path */
    Graph *graph;
    unsigned in_flight;
    int quiesce;
    ListLink parked; /* BlockRequest.link */
    CoQueue idle;    /* waiters for in_flight == 0 */
    CoQueue resumed; /* waiters for quiesce == 0 */
    PortStats stats;
    const PortUser *user;
    void *opaque;
    char *name;
    ListLink in_graph;
};

static inline Graph *graph_of(const BlockNode *node)
{
    return node->graph;
}

/* drain.c: @port goes away; no drain may remember it. */
void drain_forget_port(BlockPort *port);

/* epoch.c */
uint8_t epoch_enter(Graph *graph);
void epoch_leave(Graph *graph, uint8_t epoch);

/* resolve.c: start a read or write of mapped extents without a coroutine. False: the
 * coroutine path has to do it, nothing was started. */
bool resolve_and_submit(BlockRequest *req);
/* Deliver done from work later in this turn (P2). */
void request_finish_later(BlockRequest *req, int ret);
/* The one end of every request (port.c). */
void request_finish(BlockRequest *req, int ret);
void graph_finish_requests(LoopWork *work);
/* Start what was parked, in order, after a drain. */
void port_resume(BlockPort *port);

/* perm.c */
/* Bring the permissions below @node in line with what its parents hold now. */
bool coroutine_fn perm_co_update(BlockNode *node, GError **errp);
/* The same after @edge's own wishes changed to @perm, @shared. */
bool coroutine_fn perm_co_change(BlockEdge *edge, unsigned perm, unsigned shared,
                                 GError **errp);

/* edge.c */
BlockEdge *edge_new(BlockNode *parent_node, BlockPort *parent_port, BlockNode *child,
                    const char *role);
void edge_set_child(BlockEdge *edge, BlockNode *child);
void edge_unlink(BlockEdge *edge); /* the reference is the caller's then */

/* snapshot.c: move every edge that leads to @from, but @except, to @to. */
void edges_move(BlockNode *from, BlockNode *to, const BlockEdge *except);

/* node.c */
BlockNode *node_new(Graph *graph, const char *name, GError **errp);
/* Unlink a node that failed to open; no flush. */
void node_discard(BlockNode *node);
bool node_rename(BlockNode *node, const char *name); /* NULL: a generated name */
/* Is @below reachable from @node through children? */
bool node_reaches(const BlockNode *node, const BlockNode *below);

#endif
