/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blockdev-snapshot: slide an overlay in between a node and everybody who uses it.
 *
 * All of it happens drained.  When it returns, the old node has no writer left, so its
 * metadata is on disk and external programs may work on its file (safety.md, Q11).
 */
#include <string.h>

#include "block/base/error.h"
#include "block/graph-private.h"

static bool check_overlay(const BlockNode *node, const BlockNode *overlay, GError **errp)
{
    if (node_reaches(node, overlay) && node != overlay) {
        error_set(errp, "Making '%s' a backing child of '%s' would create a cycle",
                  node->name, overlay->name);
        return false;
    }
    if (!list_empty(&overlay->parents)) {
        error_set(errp, "The overlay is already in use");
        return false;
    }
    if (!overlay->drv->supports_backing) {
        error_set(errp, "The overlay does not support backing images");
        return false;
    }
    if (overlay->backing_child) {
        error_set(errp, "The overlay already has a backing image");
        return false;
    }
    list_foreach(it, &node->parents) {
        const BlockEdge *edge = container_of(it, BlockEdge, in_child);
        if (edge->parent_node && strcmp(edge->role, "backing") == 0) {
            /* Another overlay relies on its contents: it must not slide up. */
            error_set(errp, "Node '%s' is busy: it is the backing file of node '%s'",
                      node->name, edge->parent_node->name);
            return false;
        }
    }
    if (node_reaches(overlay, node)) {
        error_set(errp, "Making '%s' a backing child of '%s' would create a cycle",
                  node->name, overlay->name);
        return false;
    }
    return true;
}

/* Move every edge that leads to @from, but @except, to @to. */
void edges_move(BlockNode *from, BlockNode *to, const BlockEdge *except)
{
    list_foreach_safe(it, next, &from->parents) {
        BlockEdge *edge = container_of(it, BlockEdge, in_child);
        if (edge != except) {
            node_ref(to);
            edge_set_child(edge, to);
            from->refcount--; /* @except or the caller holds another */
        }
    }
    g_assert(from->refcount > 0);
}

static void swap_names(BlockNode *node, BlockNode *overlay)
{
    g_autofree char *name = g_strdup(node->name);
    node_rename(node, NULL);
    node_rename(overlay, name);
}

static void tell_users(const BlockNode *root)
{
    list_foreach_safe(it, next, &root->parents) {
        BlockEdge *edge = container_of(it, BlockEdge, in_child);
        BlockPort *port = edge->parent_port;
        if (port && port->user && port->user->root_changed) {
            port->user->root_changed(port->opaque);
        }
    }
}

bool coroutine_fn graph_co_snapshot(Graph *graph, BlockNode *node, BlockNode *overlay,
                                    bool move_name, GError **errp)
{
    if (!check_overlay(node, overlay, errp)) {
        return false;
    }
    GraphDrain drain;
    graph_co_drain_begin(&drain, node);
    BlockEdge *backing = edge_attach(overlay, node, "backing");
    edges_move(node, overlay, backing);
    bool was_demoted = node->demoted;
    node->demoted = true;
    bool ok = perm_co_update(overlay, errp);
    if (!ok) {
        node->demoted = was_demoted;
        node_ref(node);
        edges_move(overlay, node, NULL);
        edge_co_detach(backing);
        node_co_unref(node);
        perm_co_update(node, NULL);
        graph_drain_end(&drain);
        return false;
    }
    if (move_name) {
        swap_names(node, overlay);
        if (node->monitor_owned) { /* it lives and dies with its overlay now */
            node->monitor_owned = false;
            node_co_unref(node);
        }
    }
    graph_drain_end(&drain);
    tell_users(overlay);
    return true;
}
