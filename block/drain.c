/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drain: no request is in flight in a node, and none begins until the drain ends.
 *
 * A drain covers every port that can reach the node; what arrives there meanwhile is
 * parked (P3).  Waiting is bounded by the I/O in flight: disk operations end or fail.  What
 * nodes do of their own accord (read-ahead) pauses in the whole graph while a drain lasts, and
 * is over in all nodes above and below before anything of theirs is replaced.
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

void coroutine_fn graph_co_drain_begin(GraphDrain *drain, BlockNode *node)
{
    Graph *graph = node->graph;
    unsigned count = 0;

    list_foreach(it, &graph->ports) {
        count++;
    }
    drain->graph = graph;
    drain->nb_ports = 0;
    drain->ports = g_new(BlockPort *, MAX(count, 1));
    list_foreach(it, &graph->ports) {
        BlockPort *port = container_of(it, BlockPort, in_graph);
        if (node_reaches(port->root, node)) {
            port->quiesce++;
            drain->ports[drain->nb_ports++] = port;
        }
    }
    list_append(&graph->drains, &drain->link);
    /* Waiting yields: a port may go away meanwhile and leave the array (then look again
     * from the start; those already idle cost nothing). */
    for (unsigned i = 0; i < drain->nb_ports;) {
        if (drain->ports[i]->in_flight) {
            co_queue_wait(&drain->ports[i]->idle);
            i = 0;
        } else {
            i++;
        }
    }
    /* The caller has the graph's lock: nodes stay. */
    list_foreach(it, &graph->nodes) {
        BlockNode *above = container_of(it, BlockNode, in_graph);
        if (above != node && above->ready && above->drv->co_quiesce &&
            node_reaches(above, node)) {
            above->drv->co_quiesce(above);
        }
    }
    quiesce_below(node);
}

bool node_is_draining(const BlockNode *node)
{
    return !list_empty(&node->graph->drains);
}

void drain_forget_port(BlockPort *port)
{
    list_foreach(it, &port->graph->drains) {
        GraphDrain *drain = container_of(it, GraphDrain, link);
        for (unsigned i = 0; i < drain->nb_ports; i++) {
            if (drain->ports[i] == port) {
                drain->ports[i] = drain->ports[--drain->nb_ports];
                break;
            }
        }
    }
}

void graph_drain_end(GraphDrain *drain)
{
    list_remove(&drain->link);
    for (unsigned i = 0; i < drain->nb_ports; i++) {
        BlockPort *port = drain->ports[i];
        g_assert(port->quiesce > 0);
        if (--port->quiesce == 0) {
            port_resume(port);
        }
    }
    g_free(drain->ports);
    list_foreach(it, &drain->graph->nodes) {
        BlockNode *node = container_of(it, BlockNode, in_graph);
        if (node->ready && node->drv->drain_ended && !node_is_draining(node)) {
            node->drv->drain_ended(node);
        }
    }
}
