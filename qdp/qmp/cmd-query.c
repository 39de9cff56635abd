/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query-named-block-nodes and query-block. They neither yield nor change anything.
 * compat: which members are there, and the order of nodes (the youngest first), are
 * stock's.
 */
#include "block/image-info.h"
#include "block/node.h"
#include "qapi/qapi-commands.h"
#include "qdp/qmp/monitor.h"

static ImageInfo *image_chain(BlockNode *node, bool flat)
{
    ImageInfo *top = node_image_info(node);
    ImageInfo *info = top;

    while (!flat && (node = node_backing(node))) {
        info->backing_image = node_image_info(node);
        info = info->backing_image;
    }
    return top;
}

static void set_backing(BlockDeviceInfo *info, BlockNode *node, bool flat)
{
    BlockNode *backing = node_backing(node);

    info->backing_file = backing ? g_strdup(node_filename(backing)) : NULL;
    /* compat: with flat the depth is 0 */
    for (; backing && !flat; backing = node_backing(backing)) {
        info->backing_file_depth++;
    }
}

static BlockDeviceInfo *describe(BlockNode *node, bool flat)
{
    BlockDeviceInfo *info = g_new0(BlockDeviceInfo, 1);

    info->file = g_strdup(node_filename(node));
    info->node_name = g_strdup(node_name(node));
    info->ro = node_read_only(node);
    info->drv = g_strdup(node_driver_name(node));
    set_backing(info, node, flat);
    info->detect_zeroes = node_detect_zeroes(node);
    info->image = image_chain(node, flat);
    info->cache = g_new0(BlockdevCacheInfo, 1);
    info->cache->writeback = true;
    info->cache->direct = node_cache_direct(node);
    info->cache->no_flush = node_cache_no_flush(node);
    return info;
}

typedef struct Collect {
    BlockDeviceInfoList *list;
    bool flat;
} Collect;

static void collect_node(void *opaque, BlockNode *node)
{
    Collect *collect = opaque;
    BlockDeviceInfoList *element = g_new0(BlockDeviceInfoList, 1);

    element->value = describe(node, collect->flat);
    element->next = collect->list;
    collect->list = element;
}

BlockDeviceInfoList *coroutine_fn
qmp_query_named_block_nodes(const QueryNamedBlockNodesArgs *args, GError **errp)
{
    Collect collect = {.flat = args->has_flat && args->flat};

    graph_foreach(monitor_host()->graph, collect_node, &collect);
    return collect.list;
}

BlockInfoList *coroutine_fn qmp_query_block(GError **errp)
{
    /* compat: only devices are listed, and an export's or job's port is none */
    return NULL;
}
