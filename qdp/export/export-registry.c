/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The registry of exports, of every kind, by id.  compat: error texts are QEMU 7.2's.
 *
 * The caller holds the graph lock: one command at a time changes what is here.
 */
#include <errno.h>
#include <string.h>

#include "block/base/error.h"
#include "block/base/identifier.h"
#include "block/node.h"
#include "qdp/export/export.h"
#include "qdp/export/iothread.h"
#include "qdp/export/nbd.h"
#include "qdp/trace.h"

typedef struct Export {
    ListLink link;
    char *id;
    char *node_name;
    bool shutting_down;
    NbdExport *nbd;
    IoThread *iothread; /* NULL: none was named */
} Export;

struct ExportRegistry {
    Graph *graph;
    const ExportEvents *events;
    void *opaque;
    NbdServer *nbd;
    ListLink exports;
    IoThreadTable iothreads;
};

ExportRegistry *export_registry_new(Graph *graph, const ExportEvents *events,
                                    void *opaque)
{
    ExportRegistry *registry = g_new0(ExportRegistry, 1);
    registry->graph = graph;
    registry->events = events;
    registry->opaque = opaque;
    list_init(&registry->exports);
    iothread_table_init(&registry->iothreads, graph_loop(graph));
    return registry;
}

void export_registry_free(ExportRegistry *registry)
{
    if (registry) {
        g_assert(list_empty(&registry->exports) && !registry->nbd);
        iothread_table_fini(&registry->iothreads);
        g_free(registry);
    }
}

static Export *find(ExportRegistry *registry, const char *id)
{
    list_foreach(it, &registry->exports) {
        Export *export = container_of(it, Export, link);
        if (strcmp(export->id, id) == 0) {
            return export;
        }
    }
    return NULL;
}

bool export_exists(ExportRegistry *registry, const char *id)
{
    return find(registry, id) != NULL;
}

bool export_nbd_running(const ExportRegistry *registry)
{
    return registry->nbd != NULL;
}

bool export_iothread_add(ExportRegistry *registry, const char *id,
                         const IothreadProperties *properties, GError **errp)
{
    return iothread_add(&registry->iothreads, id, properties, errp);
}

bool export_iothread_del(ExportRegistry *registry, const char *id, GError **errp)
{
    return iothread_del(&registry->iothreads, id, errp);
}

bool coroutine_fn export_co_nbd_start(ExportRegistry *registry,
                                      const SocketAddress *addr,
                                      uint32_t max_connections, GError **errp)
{
    if (registry->nbd) {
        error_set(errp, "NBD server already running");
        return false;
    }
    registry->nbd = nbd_server_co_start(registry->graph, addr, max_connections, errp);
    return registry->nbd != NULL;
}

static NbdExport *coroutine_fn add_nbd(ExportRegistry *registry,
                                       const BlockExportOptions *options,
                                       BlockNode *node, GError **errp)
{
    const BlockExportOptionsNbd *o = &options->u.nbd;
    const char *name = o->name ? o->name : options->node_name;
    bool writable = options->has_writable && options->writable;

    if (!registry->nbd) {
        error_set(errp, "NBD server not running");
        return NULL;
    }
    if (strlen(name) > NBD_MAX_NAME) {
        error_set(errp, "export name '%s' too long", name);
        return NULL;
    }
    if (o->description && strlen(o->description) > NBD_MAX_NAME) {
        error_set(errp, "description '%s' too long", o->description);
        return NULL;
    }
    if (nbd_export_find(registry->nbd, name)) {
        error_set(errp, "NBD server already has export named '%s'", name);
        return NULL;
    }
    return nbd_export_co_new(registry->nbd, node, name, o->description, writable,
                             options->has_writethrough && options->writethrough, errp);
}

bool coroutine_fn export_co_add(ExportRegistry *registry,
                                const BlockExportOptions *options, GError **errp)
{
    if (!is_identifier(options->id)) {
        error_set(errp, "Invalid block export id");
        return false;
    }
    if (find(registry, options->id)) {
        error_set(errp, "Block export id '%s' is already in use", options->id);
        return false;
    }
    BlockNode *node = graph_lookup_node(registry->graph, options->node_name, errp);
    if (!node) {
        return false;
    }
    if (options->has_writable && options->writable && node_read_only(node)) {
        error_set(errp, "Cannot export read-only node as writable");
        return false;
    }
    IoThread *iothread = NULL;
    if (options->iothread &&
        !(iothread = iothread_get(&registry->iothreads, options->iothread, errp))) {
        return false;
    }
    NbdExport *nbd = add_nbd(registry, options, node, errp);
    if (!nbd) {
        iothread_put(&registry->iothreads, iothread);
        return false;
    }
    Export *export = g_new0(Export, 1);
    export->id = g_strdup(options->id);
    export->node_name = g_strdup(options->node_name);
    export->nbd = nbd;
    export->iothread = iothread;
    TRACE(TRACE_EXPORT_ADD, "id=%s node=%s", export->id, export->node_name);
    list_prepend(&registry->exports,
                 &export->link); /* compat: the newest is listed first */
    return true;
}

static void coroutine_fn remove_export(ExportRegistry *registry, Export *export)
{
    export->shutting_down = true;
    nbd_export_co_free(registry->nbd, export->nbd);
    TRACE(TRACE_EXPORT_DEL, "id=%s node=%s", export->id, export->node_name);
    iothread_put(&registry->iothreads, export->iothread);
    list_remove(&export->link);
    if (registry->events && registry->events->deleted) {
        registry->events->deleted(registry->opaque, export->id);
    }
    g_free(export->id);
    g_free(export->node_name);
    g_free(export);
}

bool coroutine_fn export_co_del(ExportRegistry *registry, const char *id,
                                BlockExportRemoveMode mode, GError **errp)
{
    Export *export = find(registry, id);
    if (!export) {
        error_set(errp, "Export '%s' is not found", id);
        return false;
    }
    if (export->shutting_down) {
        error_set(errp, "Export '%s' is already shutting down", id);
        return false;
    }
    if (mode == BLOCK_EXPORT_REMOVE_MODE_SAFE && export->nbd->users) {
        error_set(errp, "export '%s' still in use", id);
        return false;
    }
    remove_export(registry, export);
    return true;
}

bool coroutine_fn export_co_nbd_stop(ExportRegistry *registry, GError **errp)
{
    if (!registry->nbd) {
        error_set(errp, "NBD server not running");
        return false;
    }
    /* First all clients at once, then the exports one by one: nobody may come back to
     * an export while another is being removed. */
    nbd_server_cut(registry->nbd);
    while (!list_empty(&registry->exports)) {
        /* compat: the oldest goes, and is told, first */
        remove_export(registry, container_of(registry->exports.prev, Export, link));
    }
    NbdServer *server = registry->nbd;
    registry->nbd = NULL;
    nbd_server_co_stop(server);
    return true;
}

BlockExportInfoList *export_query(ExportRegistry *registry)
{
    BlockExportInfoList *head = NULL, **tail = &head;
    list_foreach(it, &registry->exports) {
        const Export *export = container_of(it, Export, link);
        BlockExportInfo *info = g_new0(BlockExportInfo, 1);
        info->id = g_strdup(export->id);
        info->type = BLOCK_EXPORT_TYPE_NBD;
        info->node_name = g_strdup(node_name(port_root(export->nbd->port)));
        info->shutting_down = export->shutting_down;
        *tail = g_new0(BlockExportInfoList, 1);
        (*tail)->value = info;
        tail = &(*tail)->next;
    }
    return head;
}

void coroutine_fn export_co_shutdown(ExportRegistry *registry)
{
    if (registry->nbd) {
        export_co_nbd_stop(registry, NULL);
    }
}
