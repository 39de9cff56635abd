/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query-named-block-nodes and query-block. They neither yield nor change anything.
 * compat: which members are there, and the order of nodes (the youngest first), are
 * stock's.
 */
#include <string.h>

#include "block/node.h"
#include "qapi/qapi-commands.h"
#include "qdp/qmp/monitor.h"

/* A header's backing name as seen from here: relative ones start at the image. */
static char *full_backing_filename(const BlockNode *node, const char *name)
{
    const char *image = node_filename(node);
    const char *slash = strrchr(image, '/');
    const char *colon = strchr(name, ':');
    bool has_protocol = colon && (!strchr(name, '/') || colon < strchr(name, '/'));

    if (name[0] == '/' || has_protocol || !slash || g_str_has_prefix(image, "json:")) {
        return g_strdup(name);
    }
    return g_strdup_printf("%.*s%s", (int)(slash - image + 1), image, name);
}

static bool is_null_driver(const BlockNode *node)
{
    return g_str_has_prefix(node_driver_name(node), "null-");
}

static ImageInfo *one_image(BlockNode *node)
{
    ImageInfo *info = g_new0(ImageInfo, 1);
    const char *backing = node_header_backing_file(node);
    int64_t allocated = node_allocated_size(node);

    info->filename = g_strdup(node_filename(node));
    info->format = g_strdup(node_driver_name(node));
    info->virtual_size = (int64_t)node_length(node);
    info->has_dirty_flag = !is_null_driver(node);
    info->has_actual_size = allocated >= 0;
    info->actual_size = allocated;
    info->has_cluster_size = node_cluster_size(node) != 0;
    info->cluster_size = node_cluster_size(node);
    if (backing && *backing) {
        info->backing_filename = g_strdup(backing);
        info->full_backing_filename = full_backing_filename(node, backing);
        info->backing_filename_format = g_strdup(node_header_backing_format(node));
    }
    info->format_specific = node_image_info_specific(node);
    return info;
}

static ImageInfo *image_chain(BlockNode *node, bool flat)
{
    ImageInfo *top = one_image(node);
    ImageInfo *info = top;

    while (!flat && (node = node_backing(node))) {
        info->backing_image = one_image(node);
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
