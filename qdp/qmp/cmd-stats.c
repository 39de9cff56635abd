/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query-blockstats. A node's numbers are those of the ports on it, summed: where stock
 * shows zeros for the nodes of exports, these are true.
 */
#include <string.h>

#include "block/node.h"
#include "qapi/qapi-commands.h"
#include "qdp/qmp/monitor.h"

typedef struct PortSum {
    const BlockNode *node;
    BlockDeviceStats *stats;
    int64_t last_access_ns;
} PortSum;

static void add_port(void *opaque, BlockPort *port)
{
    PortSum *sum = opaque;
    const PortStats *p = port_stats(port);
    const PortOpStats *rd = &p->op[BLOCK_READ], *wr = &p->op[BLOCK_WRITE];
    const PortOpStats *zero = &p->op[BLOCK_WRITE_ZEROES];
    const PortOpStats *unmap = &p->op[BLOCK_DISCARD], *flush = &p->op[BLOCK_FLUSH];
    BlockDeviceStats *s = sum->stats;

    if (port_root(port) != sum->node) {
        return;
    }
    s->rd_bytes += (int64_t)rd->bytes;
    s->rd_operations += (int64_t)rd->ops;
    s->rd_total_time_ns += (int64_t)rd->total_ns;
    s->failed_rd_operations += (int64_t)rd->failed;
    s->invalid_rd_operations += (int64_t)rd->invalid;
    s->wr_bytes += (int64_t)(wr->bytes + zero->bytes);
    s->wr_operations += (int64_t)(wr->ops + zero->ops);
    s->wr_total_time_ns += (int64_t)(wr->total_ns + zero->total_ns);
    s->failed_wr_operations += (int64_t)(wr->failed + zero->failed);
    s->invalid_wr_operations += (int64_t)(wr->invalid + zero->invalid);
    s->unmap_bytes += (int64_t)unmap->bytes;
    s->unmap_operations += (int64_t)unmap->ops;
    s->unmap_total_time_ns += (int64_t)unmap->total_ns;
    s->failed_unmap_operations += (int64_t)unmap->failed;
    s->invalid_unmap_operations += (int64_t)unmap->invalid;
    s->flush_operations += (int64_t)flush->ops;
    s->flush_total_time_ns += (int64_t)flush->total_ns;
    s->failed_flush_operations += (int64_t)flush->failed;
    s->invalid_flush_operations += (int64_t)flush->invalid;
    s->wr_highest_offset = MAX(s->wr_highest_offset, (int64_t)p->wr_highest_offset);
    sum->last_access_ns = MAX(sum->last_access_ns, p->last_access_ns);
}

static BlockDeviceStats *sum_ports(BlockNode *node)
{
    const MonitorHost *host = monitor_host();
    BlockDeviceStats *stats = g_new0(BlockDeviceStats, 1);
    PortSum sum = {.node = node, .stats = stats};

    graph_foreach_port(host->graph, add_port, &sum);
    if (sum.last_access_ns) {
        stats->has_idle_time_ns = true;
        stats->idle_time_ns = loop_now_ns(host->loop) - sum.last_access_ns;
    }
    return stats;
}

static void take_counter(void *opaque, const char *name, uint64_t value)
{
    BlockStatsSpecificFile *file = opaque;

    if (!strcmp(name, "discard-nb-ok")) {
        file->discard_nb_ok = value;
    } else if (!strcmp(name, "discard-nb-failed")) {
        file->discard_nb_failed = value;
    } else if (!strcmp(name, "discard-bytes-ok")) {
        file->discard_bytes_ok = value;
    }
}

static BlockStatsSpecific *driver_specific(BlockNode *node)
{
    BlockStatsSpecific *specific;
    BlockdevDriver driver;

    if (!BlockdevDriver_parse(node_driver_name(node), &driver) ||
        (driver != BLOCKDEV_DRIVER_FILE && driver != BLOCKDEV_DRIVER_HOST_DEVICE)) {
        return NULL;
    }
    specific = g_new0(BlockStatsSpecific, 1);
    specific->driver = driver;
    node_counters_foreach(node, take_counter, &specific->u.file);
    return specific;
}

static BlockStats *describe(BlockNode *node)
{
    BlockStats *stats = g_new0(BlockStats, 1);
    BlockNode *file = node_child(node, "file");

    stats->node_name = g_strdup(node_name(node));
    stats->stats = sum_ports(node);
    stats->driver_specific = driver_specific(node);
    if (file) {
        stats->parent = describe(file);
    }
    return stats;
}

typedef struct Collect {
    BlockStatsList **tail;
    bool owned_only;
} Collect;

static void collect_node(void *opaque, BlockNode *node)
{
    Collect *collect = opaque;

    if (collect->owned_only && !graph_monitor_owns(node)) {
        return;
    }
    *collect->tail = g_new0(BlockStatsList, 1);
    (*collect->tail)->value = describe(node);
    collect->tail = &(*collect->tail)->next;
}

BlockStatsList *coroutine_fn qmp_query_blockstats(const QueryBlockstatsArgs *args,
                                                  GError **errp)
{
    const MonitorHost *host = monitor_host();
    bool nodes = args->has_query_nodes && args->query_nodes;
    BlockStatsList *list = NULL;
    Collect collect = {.tail = &list, .owned_only = !nodes};

    /* compat: under stock's rules the answer without query-nodes is devices only, of
     * which there are none */
    if (nodes || host->client_rules) {
        graph_foreach(host->graph, collect_node, &collect);
    }
    return list;
}
