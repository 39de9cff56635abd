/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes: birth, names, references, death, and what queries read of them.
 *
 * Invariants:
 *  N1 a node is in its graph's list and name table from node_new() to its end;
 *  N2 every edge to a node and the monitor's ownership hold one reference each;
 *  N3 a node is closed by its last reference, in a coroutine, after a flush.
 */
#include "block/node.h"

#include <errno.h>
#include <string.h>

#include "block/base/error.h"
#include "block/base/identifier.h"
#include "block/graph-private.h"

/* By a node that nobody may see yet, or any more, as well. */
static bool name_is_taken(Graph *graph, const char *name)
{
    return g_hash_table_contains(graph->by_name, name);
}

static void generate_name(Graph *graph, char *ret_name)
{
    do {
        g_snprintf(ret_name, NODE_NAME_MAX + 1, "#block%03u", graph->next_name++);
    } while (name_is_taken(graph, ret_name));
}

BlockNode *node_new(Graph *graph, const char *name, GError **errp)
{
    if (name) {
        if (!is_identifier(name)) {
            error_set(errp, "Invalid node-name: '%s'", name);
            return NULL;
        }
        if (strlen(name) > NODE_NAME_MAX) {
            error_set(errp, "Node name too long");
            return NULL;
        }
        if (name_is_taken(graph, name)) {
            error_set(errp, "Duplicate nodes with node-name='%s'", name);
            return NULL;
        }
    }
    BlockNode *node = g_new0(BlockNode, 1);
    node->graph = graph;
    node->refcount = 1;
    node->request_align = 1;
    node->mem_align = 1;
    list_init(&node->children);
    list_init(&node->parents);
    list_init(&node->in_graph);
    if (name) {
        g_strlcpy(node->name, name, sizeof(node->name));
    } else {
        generate_name(graph, node->name);
    }
    g_hash_table_insert(graph->by_name, node->name, node);
    list_append(&graph->nodes, &node->in_graph);
    return node;
}

bool node_rename(BlockNode *node, const char *name)
{
    Graph *graph = node->graph;
    if (name && name_is_taken(graph, name)) {
        return false;
    }
    g_hash_table_remove(graph->by_name, node->name);
    if (name) {
        g_strlcpy(node->name, name, sizeof(node->name));
    } else {
        generate_name(graph, node->name);
    }
    g_hash_table_insert(graph->by_name, node->name, node);
    return true;
}

void node_discard(BlockNode *node)
{
    g_assert(list_empty(&node->parents) && list_empty(&node->children));
    g_hash_table_remove(node->graph->by_name, node->name);
    list_remove(&node->in_graph);
    g_free(node->filename);
    g_free(node->backing_file);
    g_free(node->backing_format);
    g_free(node->opened_backing);
    g_free(node->shown_name);
    g_free(node);
}

void node_ref(BlockNode *node)
{
    node->refcount++;
}

static void coroutine_fn node_co_close(BlockNode *node)
{
    node->ready = false; /* order: closing yields, and queries take no lock */
    if (node->drv->co_quiesce) {
        node->drv->co_quiesce(node);
    }
    node->drv->co_close(node);
    while (!list_empty(&node->children)) {
        edge_co_detach(list_first(&node->children, BlockEdge, in_parent));
    }
    node_discard(node);
}

void coroutine_fn node_co_unref(BlockNode *node)
{
    if (node && --node->refcount == 0) {
        node_co_close(node);
    }
}

bool node_reaches(const BlockNode *node, const BlockNode *below)
{
    if (node == below) {
        return true;
    }
    list_foreach(it, &node->children) {
        if (node_reaches(container_of(it, BlockEdge, in_parent)->child, below)) {
            return true;
        }
    }
    return false;
}

/* ---- what users read ---- */

const char *node_name(const BlockNode *node)
{
    return node->name;
}

const char *node_driver_name(const BlockNode *node)
{
    return node->drv->name;
}

uint64_t node_length(const BlockNode *node)
{
    return node->length;
}

bool node_read_only(const BlockNode *node)
{
    return node->read_only;
}

bool node_is_guessed_raw(const BlockNode *node)
{
    return node->probed_raw;
}

bool node_is_filter(const BlockNode *node)
{
    return node->drv->is_filter;
}

Graph *node_graph(const BlockNode *node)
{
    return node->graph;
}

BlockNode *node_child(const BlockNode *node, const char *role)
{
    BlockEdge *edge = node_edge(node, role);
    return edge ? edge->child : NULL;
}

const char *node_header_backing_file(const BlockNode *node)
{
    return node->backing_file;
}

const char *node_header_backing_format(const BlockNode *node)
{
    return node->backing_format;
}

int64_t node_allocated_size(BlockNode *node)
{
    if (node->drv->allocated_size) {
        return node->drv->allocated_size(node);
    }
    return node->file_child ? node_allocated_size(node->file_child) : -ENOTSUP;
}

void node_set_length(BlockNode *node, uint64_t length)
{
    node->length = length;
    graph_ways_changed(node->graph);
}

int64_t node_refresh_length(BlockNode *node)
{
    if (node->drv->refresh_length) {
        int64_t length = node->drv->refresh_length(node);
        if (length >= 0) {
            node_set_length(node, length);
        }
        return length;
    }
    return node->length;
}

bool node_cache_direct(const BlockNode *node)
{
    return node->cache_direct;
}

bool node_cache_no_flush(const BlockNode *node)
{
    return node->cache_no_flush;
}

BlockdevDetectZeroesOptions node_detect_zeroes(const BlockNode *node)
{
    return node->detect_zeroes;
}

ImageInfoSpecific *node_image_info_specific(BlockNode *node)
{
    return node->drv->info_specific ? node->drv->info_specific(node) : NULL;
}

uint32_t node_cluster_size(const BlockNode *node)
{
    return node->drv->cluster_size ? node->drv->cluster_size((BlockNode *)node) : 0;
}

void node_counters_foreach(BlockNode *node,
                           void (*visit)(void *opaque, const char *name, uint64_t value),
                           void *opaque)
{
    if (node->drv->counters) {
        node->drv->counters(node, visit, opaque);
    }
}

int coroutine_fn node_co_make_empty(BlockNode *node)
{
    return node->drv->co_make_empty ? node->drv->co_make_empty(node) : -ENOTSUP;
}

int coroutine_fn node_co_check(BlockNode *node, unsigned fix,
                               void (*message)(void *opaque, bool is_error,
                                               const char *text),
                               void *opaque, CheckResult *ret)
{
    if (!node->drv->co_check) {
        return -ENOTSUP;
    }
    if (!fix) {
        return node->drv->co_check(node, 0, message, opaque, ret);
    }
    GraphDrain drain;
    graph_co_drain_begin(&drain, node);
    int r = node->drv->co_check(node, fix, message, opaque, ret);
    graph_drain_end(&drain);
    return r;
}

void node_image_corrupted(BlockNode *node, bool fatal, int64_t offset, int64_t size,
                          const char *fmt, ...)
{
    const GraphEvents *events = node->graph->events;
    if (!events || !events->image_corrupted) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *msg = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    events->image_corrupted(node->graph->events_opaque, node, msg, offset, size, fatal);
}
