/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The graph: all nodes of one process, their names and who owns them.
 *
 * Lookup never allocates nor yields.  Everything that changes the graph yields, runs under
 * the graph lock of its caller (one command at a time) and drains what it touches.
 */
#ifndef BLOCK_GRAPH_H
#define BLOCK_GRAPH_H

#include <glib.h>
#include <stdbool.h>
#include "block/aio/coroutine.h"
#include "block/aio/disk.h"
#include "block/base/json.h"
#include "block/base/list.h"
#include "block/port.h"

/* What the block layer tells the outside world; every member may be NULL. */
typedef struct GraphEvents {
    /* BLOCK_IO_ERROR: a guest request failed. */
    void (*io_error)(void *opaque, const BlockPort *port, const BlockRequest *req,
                     int ret);
    /* BLOCK_IMAGE_CORRUPTED: metadata contradicts itself; offset/size -1 = unknown. */
    void (*image_corrupted)(void *opaque, const BlockNode *node, const char *msg,
                            int64_t offset, int64_t size, bool fatal);
    /* A node lost its last writer and could not write all of its metadata; there is no
     * request and no command to tell it to. */
    void (*release_failed)(void *opaque, const BlockNode *node, const char *msg);
} GraphEvents;

typedef DiskFile *GraphOpenFile(void *opaque, Loop *loop, const char *filename,
                                int oflags, DiskAio aio, GError **errp);

Graph *graph_new(Loop *loop);
void graph_free(Graph *graph); /* all nodes must be gone */
Loop *graph_loop(const Graph *graph);
void graph_set_events(Graph *graph, const GraphEvents *events, void *opaque);
/* The simulator's seam: who opens the files named by the `file` driver. */
void graph_set_open_file(Graph *graph, GraphOpenFile *fn, void *opaque);

/* Daemons lock the files they open (client-contract.md, 0.6: locking=auto); tools do not,
 * so that they can look at images a daemon holds. Off until told. */
void graph_set_locking(Graph *graph, bool lock_files);

/* Find a node by node name; NULL if there is none. Borrowed. */
BlockNode *graph_lookup(Graph *graph, const char *node_name);
/* The same with QEMU's error: "Cannot find device='' nor node-name='X'" style texts. */
BlockNode *graph_lookup_node(Graph *graph, const char *node_name, GError **errp);

/* All nodes in order of creation: @fn must not change the graph. */
void graph_foreach(Graph *graph, void (*fn)(void *opaque, BlockNode *node), void *opaque);
/* All ports in order of creation. */
void graph_foreach_port(Graph *graph, void (*fn)(void *opaque, BlockPort *port),
                        void *opaque);

/* Nodes that a user made with blockdev-add are owned by the monitor: one reference. */
void graph_monitor_own(BlockNode *node);
bool graph_monitor_owns(const BlockNode *node);
/* blockdev-del; QEMU's error texts ("Node 'X' is in use: ...", ...). */
bool coroutine_fn graph_co_delete(Graph *graph, const char *node_name, GError **errp);

/* Flush every node that is open for writing; the first error, after trying all. */
int coroutine_fn graph_co_flush_all(Graph *graph);
/* quit: drain, flush and close everything the monitor owns. Ports are closed by their
 * owners before. */
void coroutine_fn graph_co_close_all(Graph *graph);

/*
 * Drain: afterwards no request is in flight in @node, its own I/O has ended, and requests
 * that arrive at ports above it are parked until _end. Nests. The token is the caller's
 * and remembers which ports were stopped: the graph may change in between.
 */
typedef struct GraphDrain {
    Graph *graph;
    ListLink link;
    BlockPort **ports;
    unsigned nb_ports;
} GraphDrain;
void coroutine_fn graph_co_drain_begin(GraphDrain *drain, BlockNode *node);
void graph_drain_end(GraphDrain *drain);

/*
 * blockdev-snapshot: @overlay becomes the parent of @node: every user of @node (but the
 * overlay itself) now uses @overlay. With @move_name the overlay takes over the node name
 * and the old node gets a generated #block name. All that Q11 asks happened on return.
 */
bool coroutine_fn graph_co_snapshot(Graph *graph, BlockNode *node, BlockNode *overlay,
                                    bool move_name, GError **errp);

/* relink-chain (client-contract.md, section 3). @base may be NULL: the deepest. */
bool coroutine_fn graph_co_relink_chain(Graph *graph, const char *device,
                                        const char *top, const char *base,
                                        GError **errp);

/* block_resize: @size in bytes. Drained; users are told through their ports. It comes and goes
 * as a writer does: what others do not share is refused, and where nobody else writes all is
 * written on return. */
bool coroutine_fn graph_co_resize(BlockNode *node, uint64_t size, GError **errp);

/* x-blockdev-suspend/-resume come later (docs: client-contract, PAUSE). */

#endif
