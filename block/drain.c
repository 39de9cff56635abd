/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drain: no request is in flight in a node, and none begins until the drain ends.
 *
 * A drain covers every port that can reach the node; what arrives there meanwhile is
 * parked (P3).  Waiting is bounded by the I/O in flight: disk operations end or fail.
 */
#include "block/graph-private.h"

static void coroutine_fn quiesce_below(BlockNode *node)
{
    if (node->drv->co_quiesce) {
        node->drv->co_quiesce(node);
    }
    list_foreach(it, &node->children) {
        quiesce_below(container_of(it, BlockEdge, in_parent)->child);
    }
}

void coroutine_fn graph_co_drain_begin(BlockNode *node)
{
    Graph *graph = node->graph;

    node->quiesce++;
    list_foreach(it, &graph->ports) {
        BlockPort *port = container_of(it, BlockPort, in_graph);
        if (node_reaches(port->root, node)) {
            port->quiesce++;
        }
    }
    list_foreach(it, &graph->ports) {
        BlockPort *port = container_of(it, BlockPort, in_graph);
        if (node_reaches(port->root, node)) {
            while (port->in_flight) {
                co_queue_wait(&port->idle);
            }
        }
    }
    quiesce_below(node);
}

void graph_drain_end(BlockNode *node)
{
    Graph *graph = node->graph;

    node->quiesce--;
    list_foreach_safe(it, next, &graph->ports) {
        BlockPort *port = container_of(it, BlockPort, in_graph);
        if (node_reaches(port->root, node)) {
            g_assert(port->quiesce > 0);
            if (--port->quiesce == 0) {
                port_resume(port);
            }
        }
    }
}
