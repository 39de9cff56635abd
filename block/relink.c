/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * relink-chain: after external programs merged files of the chain below a running disk,
 * put a fresh instance of what is left in place of the nodes that stood for them
 * (client-contract.md, section 3).
 */
#include <stdlib.h>
#include <string.h>

#include "block/base/error.h"
#include "block/graph-private.h"
#include "block/open-private.h"

/* A node, or the root of the port (export, device) of this name. */
static BlockNode *find_device(Graph *graph, const char *device)
{
    BlockNode *node = graph_lookup(graph, device);
    if (node) {
        return node;
    }
    list_foreach(it, &graph->ports) {
        BlockPort *port = container_of(it, BlockPort, in_graph);
        if (strcmp(port->name, device) == 0) {
            return port->root;
        }
    }
    return NULL;
}

static bool same_file(const BlockNode *node, const char *name)
{
    if (!node->filename) {
        return false;
    }
    if (strcmp(node->filename, name) == 0) {
        return true;
    }
    char *a = realpath(node->filename, NULL);
    char *b = realpath(name, NULL);
    bool same = a && b && strcmp(a, b) == 0;
    free(a);
    free(b);
    return same;
}

static BlockNode *find_below(BlockNode *node, const char *name)
{
    for (node = node->backing_child; node; node = node->backing_child) {
        if (same_file(node, name)) {
            return node;
        }
    }
    return NULL;
}

static BlockNode *deepest(BlockNode *node)
{
    while (node->backing_child) {
        node = node->backing_child;
    }
    return node;
}

static BlockNode *overlay_of(BlockNode *active, const BlockNode *top)
{
    while (active->backing_child != top) {
        active = active->backing_child;
    }
    return active;
}

static BlockNode *coroutine_fn open_fresh(const BlockNode *base, GError **errp)
{
    OpenInherit inherit = {
        .has_direct = true,
        .direct = base->cache_direct,
        .has_no_flush = true,
        .no_flush = base->cache_no_flush,
        .has_read_only = true,
        .read_only = true,
        .has_discard = true,
        .discard_unmap = base->discard_unmap,
    };
    /* What the node was told to be (a window of a file, say: its plain name would open
     * other data), but its backing file as the header names it now: that is what external
     * programs have changed. */
    g_autoptr(JsonValue) options = node_name_options(base);
    json_free(json_object_take(options, "backing"));
    return open_co_options(base->graph, options, &inherit, errp);
}

/* Drained. Put @fresh under @overlay; what stood there goes with its last reference. */
static bool coroutine_fn replace_backing(BlockNode *overlay, BlockNode *fresh,
                                         GError **errp)
{
    BlockEdge *edge = node_edge(overlay, "backing");
    BlockNode *old = edge->child;

    node_ref(fresh);
    edge_set_child(edge, fresh);
    if (!perm_co_update(overlay, errp)) {
        edge_set_child(edge, old);
        perm_co_update(overlay, NULL);
        node_co_unref(fresh);
        return false;
    }
    node_set_header_backing(overlay, node_filename(fresh));
    node_co_unref(old);
    return true;
}

bool coroutine_fn graph_co_relink_chain(Graph *graph, const char *device,
                                        const char *top_name, const char *base_name,
                                        GError **errp)
{
    BlockNode *active = find_device(graph, device);
    if (!active) {
        error_set_class(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "Device '%s' not found",
                        device);
        return false;
    }
    BlockNode *top = find_below(active, top_name);
    if (!top) {
        error_set(errp, "Top image file '%s' not found in image chain for device '%s'",
                  top_name, device);
        return false;
    }
    BlockNode *base = base_name ? find_below(top, base_name) : deepest(top);
    if (!base || base == top) {
        error_set(errp, "Base image file '%s' not found in image chain for top '%s'",
                  base_name ? base_name : "", top_name);
        return false;
    }
    BlockNode *overlay = overlay_of(active, top);
    GraphDrain drain;
    graph_co_drain_begin(&drain, active);
    BlockNode *fresh = open_fresh(base, errp);
    bool ok = fresh && replace_backing(overlay, fresh, errp);
    node_co_unref(fresh);
    graph_drain_end(&drain);
    return ok;
}
