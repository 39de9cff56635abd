/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The graph: registry of nodes and ports, the monitor's nodes, the end of everything. */
#include "block/graph.h"

#include <string.h>

#include "block/base/error.h"
#include "block/graph-private.h"

#define COPY_BYTES      (8 * MiB) /* of buffers of copies in use at once */
#define MAX_SIZE        ((uint64_t)INT64_MAX & ~(GiB - 1)) /* compat: of a resize */
#define COPY_KEEP_BYTES (4 * MiB) /* and unused, for a second */

Graph *graph_new(Loop *loop)
{
    Graph *graph = g_new0(Graph, 1);
    graph->loop = loop;
    graph->epoch = 1;
    list_init(&graph->nodes);
    list_init(&graph->ports);
    list_init(&graph->drains);
    list_init(&graph->finished);
    loop_work_init(&graph->finish_work, graph_finish_requests);
    co_queue_init(&graph->copies_freed, loop);
    graph->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    return graph;
}

void graph_free(Graph *graph)
{
    if (!graph) {
        return;
    }
    g_assert(list_empty(&graph->nodes) && list_empty(&graph->ports));
    loop_work_cancel(&graph->finish_work);
    if (graph->copies) {
        buffer_pool_free(graph->copies);
    }
    while (graph->free_ops) {
        DirectOp *op = graph->free_ops;
        graph->free_ops = op->next_free;
        g_free(op);
    }
    g_hash_table_destroy(graph->by_name);
    g_free(graph);
}

Loop *graph_loop(const Graph *graph)
{
    return graph->loop;
}

const uint64_t *graph_ways(const Graph *graph)
{
    return &graph->ways;
}

void graph_ways_changed(Graph *graph)
{
    graph->ways++;
}

void graph_set_events(Graph *graph, const GraphEvents *events, void *opaque)
{
    graph->events = events;
    graph->events_opaque = opaque;
}

void graph_set_open_file(Graph *graph, GraphOpenFile *fn, void *opaque)
{
    graph->open_file = fn;
    graph->open_file_opaque = opaque;
}

void graph_set_locking(Graph *graph, bool lock_files)
{
    graph->lock_files = lock_files;
}

BlockNode *graph_lookup(Graph *graph, const char *node_name)
{
    BlockNode *node = g_hash_table_lookup(graph->by_name, node_name);
    return node && node->ready ? node : NULL;
}

BlockNode *graph_lookup_node(Graph *graph, const char *node_name, GError **errp)
{
    BlockNode *node = graph_lookup(graph, node_name);
    if (!node) {
        error_set(errp, "Cannot find device='%s' nor node-name='%s'", node_name,
                  node_name);
    }
    return node;
}

void graph_foreach(Graph *graph, void (*fn)(void *opaque, BlockNode *node), void *opaque)
{
    list_foreach_safe(it, next, &graph->nodes) {
        BlockNode *node = container_of(it, BlockNode, in_graph);
        if (node->ready) {
            fn(opaque, node);
        }
    }
}

void graph_foreach_port(Graph *graph, void (*fn)(void *opaque, BlockPort *port),
                        void *opaque)
{
    list_foreach_safe(it, next, &graph->ports) {
        fn(opaque, container_of(it, BlockPort, in_graph));
    }
}

void graph_monitor_own(BlockNode *node)
{
    g_assert(!node->monitor_owned);
    node->monitor_owned = true;
    node_ref(node);
}

bool graph_monitor_owns(const BlockNode *node)
{
    return node->monitor_owned;
}

bool coroutine_fn graph_co_delete(Graph *graph, const char *node_name, GError **errp)
{
    BlockNode *node = graph_lookup(graph, node_name);
    if (!node) {
        error_set(errp, "Failed to find node with node-name='%s'", node_name);
        return false;
    }
    list_foreach(it, &node->parents) {
        if (container_of(it, BlockEdge, in_child)->parent_port) {
            error_set(errp, "Node %s is in use", node_name);
            return false;
        }
    }
    if (!list_empty(&node->parents)) {
        error_set(errp, "Block device %s is in use", node_name);
        return false;
    }
    if (!node->monitor_owned) {
        error_set(errp, "Node %s is not owned by the monitor", node_name);
        return false;
    }
    node->monitor_owned = false;
    node_co_unref(node);
    return true;
}

int coroutine_fn graph_co_flush_all(Graph *graph)
{
    int result = 0;
    list_foreach_safe(it, next, &graph->nodes) {
        BlockNode *node = container_of(it, BlockNode, in_graph);
        if (node->writing) {
            int ret = node_co_flush(node);
            result = result ? result : ret;
        }
    }
    return result;
}

void coroutine_fn graph_co_close_all(Graph *graph)
{
    graph_co_flush_all(graph);
    for (;;) {
        BlockNode *next = NULL;
        list_foreach(it, &graph->nodes) {
            BlockNode *node = container_of(it, BlockNode, in_graph);
            /* Overlays first: a node goes when nobody stands on it. */
            if (node->monitor_owned && (!next || list_empty(&node->parents))) {
                next = node;
            }
        }
        if (!next) {
            return;
        }
        next->monitor_owned = false;
        node_co_unref(next);
    }
}

static void tell_resized(const BlockNode *node)
{
    list_foreach_safe(it, next, &graph_of(node)->ports) {
        BlockPort *port = container_of(it, BlockPort, in_graph);
        if (node_reaches(port->root, node) && port->user && port->user->resized) {
            port->user->resized(port->opaque);
        }
    }
}

bool coroutine_fn graph_co_resize(BlockNode *node, uint64_t size, GError **errp)
{
    if (node->read_only) {
        error_set(errp, "Image is read-only");
        return false;
    }
    /* nobody else need be writing: so we come and go as a writer does (R7, R8) */
    BlockPort *port = port_co_new(node, PERM_RESIZE, PERM_ALL, NULL, NULL, NULL, errp);
    if (!port) {
        return false;
    }
    bool ok = size <= MAX_SIZE;
    if (ok) {
        GraphDrain drain;
        graph_co_drain_begin(&drain, node);
        ok = node_co_truncate(node, size, errp);
        graph_drain_end(&drain);
    } else { /* compat: its words */
        error_set(errp, "offset(%" G_GUINT64_FORMAT ") exceeds maximum(%" G_GUINT64_FORMAT ")",
                  size, MAX_SIZE);
    }
    if (ok) {
        tell_resized(node);
    }
    port_co_free(port);
    return ok;
}

/* ---- buffers of copies ---- */

void *coroutine_fn node_co_copy_buffer_get(BlockNode *node, uint32_t len)
{
    Graph *graph = node->graph;

    if (!graph->copies) {
        graph->copies = buffer_pool_new(graph->loop, COPY_KEEP_BYTES);
    }
    while (buffer_pool_in_use(graph->copies) &&
           buffer_pool_in_use(graph->copies) + len > COPY_BYTES) {
        co_queue_wait(&graph->copies_freed);
    }
    return buffer_pool_get(graph->copies, len);
}

void node_copy_buffer_put(BlockNode *node, void *buf, uint32_t len)
{
    Graph *graph = node->graph;

    buffer_pool_put(graph->copies, buf, len);
    co_queue_wake_all(&graph->copies_freed);
}
