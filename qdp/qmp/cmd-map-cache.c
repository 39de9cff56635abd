/* SPDX-License-Identifier: GPL-2.0-or-later */
/* x-qdp-query-map-cache: what format nodes count of their maps (block/qcow2/l2-cache.h). */
#include <string.h>

#include "block/base/error.h"
#include "block/graph.h"
#include "block/node.h"
#include "qapi/qapi-commands.h"
#include "qdp/qmp/monitor.h"

typedef struct Describe {
    MapCacheInfo *info;
    bool any; /* it has such counters */
} Describe;

static void take_counter(void *opaque, const char *name, uint64_t value)
{
    Describe *d = opaque;
    MapCacheInfo *info = d->info;
    const struct {
        const char *name;
        int64_t *place;
    } places[] = {
        {"l2-budget", &info->budget},         {"l2-bytes", &info->bytes},
        {"l2-page-bytes", &info->page_bytes}, {"l2-dirty-bytes", &info->dirty_bytes},
        {"l2-hits", &info->hits},             {"l2-misses", &info->misses},
        {"l2-loads", &info->loads},           {"l2-prefetches", &info->prefetches},
        {"l2-evictions", &info->evictions},   {"l2-empty", &info->empty},
        {"l2-run", &info->run},               {"l2-sparse", &info->sparse},
        {"l2-array32", &info->array32},       {"l2-full64", &info->full64},
        {"flat-bytes", &info->flat_bytes},    {"flat-hits", &info->flat_hits},
        {"epochs", &info->epochs},            {"syncs", &info->syncs},
        {"early-syncs", &info->early_syncs},  {"frees", &info->frees},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(places); i++) {
        if (!strcmp(name, places[i].name)) {
            *places[i].place = (int64_t)value;
            d->any = true;
        }
    }
}

/* NULL: it has no map cache. */
static MapCacheInfo *describe(BlockNode *node)
{
    MapCacheInfo *info = g_new0(MapCacheInfo, 1);
    Describe d = {.info = info};
    node_counters_foreach(node, take_counter, &d);
    if (!d.any) {
        g_free(info);
        return NULL;
    }
    info->node_name = g_strdup(node_name(node));
    return info;
}

static void collect_node(void *opaque, BlockNode *node)
{
    MapCacheInfoList ***tail = opaque;
    MapCacheInfo *info = describe(node);
    if (info) {
        **tail = g_new0(MapCacheInfoList, 1);
        (**tail)->value = info;
        *tail = &(**tail)->next;
    }
}

MapCacheInfoList *coroutine_fn
qmp_x_qdp_query_map_cache(const XQdpQueryMapCacheArgs *args, GError **errp)
{
    Graph *graph = monitor_host()->graph;
    MapCacheInfoList *list = NULL, **tail = &list;

    if (!args->node_name) {
        graph_foreach(graph, collect_node, &tail);
        return list;
    }
    BlockNode *node = graph_lookup_node(graph, args->node_name, errp);
    if (!node) {
        return NULL;
    }
    collect_node(&tail, node);
    if (!list) {
        error_set(errp, "Node '%s' has no map cache", args->node_name);
    }
    return list;
}
