/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See image-info.h. */
#include "block/image-info.h"

#include <string.h>

#include "block/driver.h"
#include "qapi/qapi-visit.h"

char *node_full_backing_name(const BlockNode *node, const char *name)
{
    const char *image = node_plain_path(node);
    const char *slash = image ? strrchr(image, '/') : NULL;
    size_t n = strcspn(name, ":/");

    /* "nbd:..." and "json:..." are no paths; "./a:b" is one */
    if (name[0] == '/' || name[n] == ':' || !slash) {
        return g_strdup(name);
    }
    return g_strdup_printf("%.*s%s", (int)(slash - image + 1), image, name);
}

/* Who knows clusters and flags: filters say what stands below them says. */
static BlockNode *below_filters(BlockNode *node)
{
    while (node->drv->is_filter && node->file_child) {
        node = node->file_child;
    }
    return node;
}

/* Formats and files have facts about themselves; where nothing is stored there are none. */
static bool has_facts(const BlockNode *node)
{
    return !g_str_has_prefix(node->drv->name, "null-");
}

static void copy_snapshots(const SnapshotInfoList *list, SnapshotInfoList **ret)
{
    for (; list; list = list->next) {
        *ret = g_new0(SnapshotInfoList, 1);
        (*ret)->value = qapi_SnapshotInfo_copy(list->value);
        ret = &(*ret)->next;
    }
}

ImageInfo *node_image_info(BlockNode *node)
{
    ImageInfo *info = g_new0(ImageInfo, 1);
    const char *backing = node_header_backing_file(node);
    int64_t allocated = node_allocated_size(node);

    info->filename = g_strdup(node_filename(node));
    info->format = g_strdup(node_driver_name(node));
    info->virtual_size = (int64_t)node_length(node);
    info->has_dirty_flag = has_facts(below_filters(node));
    info->has_actual_size = allocated >= 0;
    info->actual_size = allocated;
    info->cluster_size = node_cluster_size(below_filters(node));
    info->has_cluster_size = info->cluster_size != 0;
    if (backing && backing[0]) {
        info->backing_filename = g_strdup(backing);
        info->full_backing_filename = node_full_backing_name(node, backing);
        info->backing_filename_format = g_strdup(node_header_backing_format(node));
    }
    if (node->drv->snapshots) {
        copy_snapshots(node->drv->snapshots(node), &info->snapshots);
    }
    info->format_specific = node_image_info_specific(node);
    return info;
}
