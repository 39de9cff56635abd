/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening nodes from typed options: what is common to all drivers, and how children
 * inherit.  File names and probing are in open-image.c.
 *
 * O1 options a user wrote win; what he did not write is inherited from the parent node;
 *    a referenced node inherits nothing, it is what it is.
 */
#include <string.h>

#include "block/base/error.h"
#include "block/graph-private.h"
#include "block/open-private.h"

static bool set_common(BlockNode *node, const BlockdevOptions *o,
                       const OpenInherit *inherit, GError **errp)
{
    const BlockdevCacheOptions *cache = o->cache;

    node->cache_direct = cache && cache->has_direct ? cache->direct
                                                    : inherit->has_direct && inherit->direct;
    node->cache_no_flush = cache && cache->has_no_flush
                               ? cache->no_flush
                               : inherit->has_no_flush && inherit->no_flush;
    node->read_only = o->has_read_only ? o->read_only
                                       : inherit->has_read_only && inherit->read_only;
    node->auto_read_only = o->has_auto_read_only
                               ? o->auto_read_only
                               : inherit->has_auto_read_only && inherit->auto_read_only;
    node->discard_unmap = o->has_discard ? o->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP
                                         : inherit->has_discard && inherit->discard_unmap;
    node->force_share = o->has_force_share ? o->force_share : inherit->force_share;
    node->detect_zeroes = o->has_detect_zeroes ? o->detect_zeroes
                                               : BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF;
    if (node->force_share && !node->read_only) {
        error_set(errp, "force-share=on can only be used with read-only images");
        return false;
    }
    if (node->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP &&
        !node->discard_unmap) {
        error_set(errp, "setting detect-zeroes to unmap is not allowed without setting "
                        "discard operation to unmap");
        return false;
    }
    return true;
}

static void coroutine_fn detach_all(BlockNode *node)
{
    while (!list_empty(&node->children)) {
        edge_co_detach(list_first(&node->children, BlockEdge, in_parent));
    }
}

BlockNode *coroutine_fn open_co_node(Graph *graph, const BlockdevOptions *options,
                                     const OpenInherit *inherit, GError **errp)
{
    const BlockDriver *drv = driver_lookup(options->driver);
    if (!drv) {
        error_set(errp, "Unknown driver '%s'", BlockdevDriver_str(options->driver));
        return NULL;
    }
    BlockNode *node = node_new(graph, options->node_name, errp);
    if (!node) {
        return NULL;
    }
    node->drv = drv;
    if (!set_common(node, options, inherit, errp)) {
        node_discard(node);
        return NULL;
    }
    if (!drv->co_open(node, options, inherit, errp)) {
        detach_all(node);
        node_discard(node);
        return NULL;
    }
    if (!perm_co_update(node, errp)) {
        drv->co_close(node);
        detach_all(node);
        node_discard(node);
        return NULL;
    }
    node->ready = true;
    if (drv->drain_ended && !node_is_draining(node)) {
        drv->drain_ended(node);
    }
    return node;
}

BlockNode *coroutine_fn node_co_open(Graph *graph, const BlockdevOptions *options,
                                     GError **errp)
{
    static const OpenInherit nothing;
    return open_co_node(graph, options, &nothing, errp);
}

/* What a child of @parent in this role inherits. */
static OpenInherit inherit_from(const BlockNode *parent, const char *role,
                                const OpenInherit *above)
{
    bool backing = strcmp(role, "backing") == 0;
    return (OpenInherit){
        .has_direct = true,
        .direct = parent->cache_direct,
        .has_no_flush = true,
        .no_flush = parent->cache_no_flush,
        .has_read_only = true,
        .read_only = backing || parent->read_only,
        .has_auto_read_only = true,
        .auto_read_only = backing || parent->auto_read_only,
        .has_discard = true,
        /* the file child passes discards on: the format above has decided already */
        .discard_unmap = !backing || parent->discard_unmap,
        .force_share = parent->force_share,
        .aio = above->aio,
        .depth = above->depth + backing,
        .no_backing = above->no_backing,
    };
}

OpenInherit open_inherit(const BlockNode *parent, const char *role,
                         const OpenInherit *above)
{
    return inherit_from(parent, role, above);
}

/* The node that @ref names or describes, with a reference; @below is inherited. */
static BlockNode *coroutine_fn co_open_ref(BlockNode *parent, const BlockdevRef *ref,
                                           const char *role, const OpenInherit *below,
                                           GError **errp)
{
    bool backing = strcmp(role, "backing") == 0;
    GError *error = NULL;
    BlockNode *child;

    if (ref->type != JSON_STRING) {
        child = open_co_node(parent->graph, ref->u.definition, below, &error);
    } else if (backing && strcmp(ref->u.reference, parent->name) == 0) {
        child = parent; /* compat: here it is found, and the cycle refused */
        node_ref(child);
    } else {
        child = graph_lookup_node(parent->graph, ref->u.reference, &error);
        if (child) {
            node_ref(child);
        }
    }
    if (!child) {
        g_propagate_prefixed_error(errp, error, "%s",
                                   backing ? "Could not open backing file: " : "");
    }
    return child;
}

BlockEdge *coroutine_fn node_co_open_child(BlockNode *parent, const BlockdevRef *ref,
                                           const char *role, const OpenInherit *inherit,
                                           GError **errp)
{
    OpenInherit down = inherit_from(parent, role, inherit);
    BlockNode *child = co_open_ref(parent, ref, role, &down, errp);
    BlockEdge *edge = NULL;

    if (child && node_reaches(child, parent)) {
        error_set(errp, "Making '%s' a %s child of '%s' would create a cycle", child->name,
                  role, parent->name);
    } else if (child) {
        edge = edge_attach(parent, child, role);
    }
    node_co_unref(child); /* the edge holds it now */
    return edge;
}
