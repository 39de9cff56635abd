/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands that change the graph. They hold the graph lock (monitor.h, M1). */
#include "block/base/error.h"
#include "block/node.h"
#include "qapi/qapi-commands.h"
#include "qdp/qmp/monitor.h"

/*
 * The node that @device or @node_name names. compat: users of the production clients
 * give node names as device; a name that is neither is told as stock tells it.
 */
static BlockNode *find_node(const char *device, const char *node_name, GError **errp)
{
    Graph *graph = monitor_host()->graph;
    BlockNode *node = NULL;

    if (node_name) {
        node = graph_lookup(graph, node_name);
    }
    if (!node && device) {
        node = graph_lookup(graph, device);
    }
    if (!node) {
        error_set(errp, "Cannot find device='%s' nor node-name='%s'",
                  device ? device : "", node_name ? node_name : "");
    }
    return node;
}

typedef struct BackingUser {
    const BlockNode *node;
    const BlockNode *user;
} BackingUser;

static void find_backing_user(void *opaque, BlockNode *node)
{
    BackingUser *search = opaque;

    if (node_backing(node) == search->node) {
        search->user = node;
    }
}

/* A node that is somebody's backing file stays where it is: it is neither deleted nor
 * does a snapshot slide between it and its overlay. compat: stock's operation blocker.
 */
static bool is_backing(BlockNode *node, GError **errp)
{
    BackingUser search = {.node = node};

    graph_foreach(monitor_host()->graph, find_backing_user, &search);
    if (search.user) {
        error_set(errp, "Node '%s' is busy: node is used as backing hd of '%s'",
                  node_name(node), node_name(search.user));
    }
    return search.user != NULL;
}

bool coroutine_fn qmp_blockdev_add(const BlockdevOptions *args, GError **errp)
{
    BlockNode *node;

    if (!args->node_name) {
        error_set(errp, "'node-name' must be specified for the root node");
        return false;
    }
    node = node_co_open(monitor_host()->graph, args, errp);
    if (!node) {
        return false;
    }
    graph_monitor_own(node);
    node_co_unref(node); /* the graph holds it now */
    return true;
}

bool coroutine_fn qmp_blockdev_del(const BlockdevDelArgs *args, GError **errp)
{
    const MonitorHost *host = monitor_host();
    BlockNode *node = graph_lookup(host->graph, args->node_name);

    if (!node && host->client_rules) {
        error_set(errp, "Cannot find node %s", args->node_name);
        return false;
    }
    if (node && is_backing(node, errp)) {
        return false;
    }
    return graph_co_delete(host->graph, args->node_name, errp);
}

bool coroutine_fn qmp_block_resize(const BlockResizeArgs *args, GError **errp)
{
    BlockNode *node = find_node(args->device, args->node_name, errp);

    if (!node) {
        return false;
    }
    /* compat: stock refuses it as well, in words that name no device */
    if (is_backing(node, errp)) {
        return false;
    }
    if (args->size < 0) {
        error_set(errp, "Parameter 'size' expects a >0 size");
        return false;
    }
    return graph_co_resize(node, (uint64_t)args->size, errp);
}

bool coroutine_fn qmp_blockdev_snapshot(const BlockdevSnapshot *args, GError **errp)
{
    const MonitorHost *host = monitor_host();
    BlockNode *node = find_node(args->node, args->node, errp);
    BlockNode *overlay;

    if (!node || is_backing(node, errp)) {
        return false;
    }
    overlay = find_node(args->overlay, args->overlay, errp);
    if (!overlay) {
        return false;
    }
    return graph_co_snapshot(host->graph, node, overlay, host->snapshot_moves_name,
                             errp);
}

bool coroutine_fn qmp_relink_chain(const RelinkChainArgs *args, GError **errp)
{
    return graph_co_relink_chain(monitor_host()->graph, args->device, args->top,
                                 args->base, errp);
}
