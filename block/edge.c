/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Edges: parent to child.  An edge holds one reference on its child; its permissions are
 * perm.c's.
 */
#include <string.h>

#include "block/graph-private.h"

static void refresh_shorthand(BlockNode *parent)
{
    const char *role = parent->drv->child_role;
    BlockEdge *file = node_edge(parent, role ? role : "file");
    BlockEdge *backing = node_edge(parent, "backing");
    parent->file_child = file ? file->child : NULL;
    parent->backing_child = backing ? backing->child : NULL;
    parent->watched = parent->drv->debug || (file && file->child->watched);
    graph_ways_changed(parent->graph);
}

BlockEdge *edge_new(BlockNode *parent_node, BlockPort *parent_port, BlockNode *child,
                    const char *role)
{
    BlockEdge *edge = g_new0(BlockEdge, 1);
    g_strlcpy(edge->role, role, sizeof(edge->role));
    edge->child = child;
    edge->parent_node = parent_node;
    edge->parent_port = parent_port;
    edge->plan_shared = edge->shared = PERM_ALL;
    list_init(&edge->in_parent);
    list_init(&edge->in_child);
    list_append(&child->parents, &edge->in_child);
    if (parent_node) {
        parent_node->graph->shape++;
        list_append(&parent_node->children, &edge->in_parent);
        refresh_shorthand(parent_node);
    }
    return edge;
}

void edge_set_child(BlockEdge *edge, BlockNode *child)
{
    list_remove(&edge->in_child);
    edge->child = child;
    list_append(&child->parents, &edge->in_child);
    if (edge->parent_node) {
        child->graph->shape++;
        refresh_shorthand(edge->parent_node);
    } else if (edge->parent_port) {
        edge->parent_port->root = child;
    }
}

void edge_unlink(BlockEdge *edge)
{
    BlockNode *parent = edge->parent_node;
    list_remove(&edge->in_child);
    list_remove(&edge->in_parent);
    g_free(edge);
    if (parent) {
        parent->graph->shape++;
        refresh_shorthand(parent);
    }
}

BlockEdge *edge_attach(BlockNode *parent, BlockNode *child, const char *role)
{
    node_ref(child);
    return edge_new(parent, NULL, child, role);
}

void coroutine_fn edge_co_detach(BlockEdge *edge)
{
    BlockNode *child = edge->child;
    edge_unlink(edge);
    /* Fewer wishes never conflict; a failure to give a lock back changes nothing. */
    perm_co_update(child, NULL);
    node_co_unref(child);
}

BlockEdge *node_edge(const BlockNode *node, const char *role)
{
    list_foreach(it, &node->children) {
        BlockEdge *edge = container_of(it, BlockEdge, in_parent);
        if (strcmp(edge->role, role) == 0) {
            return edge;
        }
    }
    return NULL;
}
