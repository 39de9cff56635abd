/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exports: the data door.  The control door (qdp/qmp) and main reach every kind of
 * export through this header alone.
 */
#ifndef QDP_EXPORT_EXPORT_H
#define QDP_EXPORT_EXPORT_H

#include <glib.h>
#include <stdbool.h>
#include "block/graph.h"
#include "qapi/qapi-types.h"

typedef struct ExportRegistry ExportRegistry;

/* BLOCK_EXPORT_DELETED is told through this. */
typedef struct ExportEvents {
    void (*deleted)(void *opaque, const char *id);
} ExportEvents;

ExportRegistry *export_registry_new(Graph *graph, const ExportEvents *events,
                                    void *opaque);
/* All exports and servers must be gone (export_co_shutdown). */
void export_registry_free(ExportRegistry *registry);

/* The NBD server: QEMU's texts ("NBD server already running", "NBD server not
 * running"). Several listeners are not offered: as in QEMU there is one server with
 * many exports.
 * @max_connections 0 = no limit. A stale unix socket is replaced. */
bool coroutine_fn export_co_nbd_start(ExportRegistry *registry,
                                      const SocketAddress *addr,
                                      uint32_t max_connections, GError **errp);
bool export_nbd_running(const ExportRegistry *registry);
/* Close listener and connections, remove all NBD exports; succeeds with clients
 * connected (their requests are drained first). */
bool coroutine_fn export_co_nbd_stop(ExportRegistry *registry, GError **errp);

/* block-export-add (and nbd-server-add, translated by its handler). */
bool coroutine_fn export_co_add(ExportRegistry *registry,
                                const BlockExportOptions *options, GError **errp);
/* block-export-del. @mode as in QAPI (safe fails while clients are connected). */
bool coroutine_fn export_co_del(ExportRegistry *registry, const char *id,
                                BlockExportRemoveMode mode, GError **errp);
/* query-block-exports. The caller frees. */
BlockExportInfoList *export_query(ExportRegistry *registry);
/* Does an export with this id exist? */
bool export_exists(ExportRegistry *registry, const char *id);
/* object-add and object-del of iothread objects; exports use them by name. */
bool export_iothread_add(ExportRegistry *registry, const char *id,
                         const IothreadProperties *properties, GError **errp);
bool export_iothread_del(ExportRegistry *registry, const char *id, GError **errp);
/* At quit: stop everything, wait for everything. */
void coroutine_fn export_co_shutdown(ExportRegistry *registry);

#endif
