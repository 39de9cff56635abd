/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands about exports: the older nbd-server-* are translated to the newer ones here,
 * so that exports know one form only.
 */
#include "block/base/error.h"
#include "block/node.h"
#include "qapi/qapi-commands.h"
#include "qapi/qapi-visit.h"
#include "qdp/qmp/monitor.h"

static bool refuse_tls(const char *tls_creds, const char *tls_authz, GError **errp)
{
    if (tls_creds) {
        /* compat: credentials are objects, and there are none */
        error_set(errp, "No TLS credentials with id '%s'", tls_creds);
        return true;
    }
    if (tls_authz) {
        error_set(errp, "TLS authorization '%s' is not supported", tls_authz);
        return true;
    }
    return false;
}

/* The same address in the newer form. */
static SocketAddress *modern_address(const SocketAddressLegacy *old)
{
    g_autoptr(JsonValue) json = qapi_SocketAddressLegacy_to_json(old);
    g_autoptr(JsonValue) data = json_object_take(json, "data");

    json_object_set_string(data, "type", SocketAddressType_str(old->type));
    return qapi_SocketAddress_from_json(data, "addr", NULL);
}

bool coroutine_fn qmp_nbd_server_start(const NbdServerStartArgs *args, GError **errp)
{
    ExportRegistry *exports = monitor_host()->exports;
    g_autoptr(SocketAddress) address = NULL;

    if (export_nbd_running(exports)) {
        error_set(errp, "NBD server already running");
        return false;
    }
    if (refuse_tls(args->tls_creds, args->tls_authz, errp)) {
        return false;
    }
    address = modern_address(args->addr);
    return export_co_nbd_start(
        exports, address, args->has_max_connections ? args->max_connections : 0, errp);
}

bool coroutine_fn qmp_nbd_server_stop(GError **errp)
{
    return export_co_nbd_stop(monitor_host()->exports, errp);
}

bool coroutine_fn qmp_nbd_server_add(const NbdServerAddOptions *args, GError **errp)
{
    const MonitorHost *host = monitor_host();
    BlockNode *node = graph_lookup(host->graph, args->device);
    BlockExportOptions options = {.type = BLOCK_EXPORT_TYPE_NBD};

    if (!node) {
        error_set(errp, "Cannot find device='%s' nor node-name='%s'", args->device,
                  args->device);
        return false;
    }
    if (args->bitmap) {
        error_set(errp, "Bitmap '%s' is not found", args->bitmap);
        return false;
    }
    /* borrowed: options lives as long as args */
    options.id = args->name ? args->name : args->device;
    options.node_name = (char *)node_name(node);
    options.has_writable = true;
    /* compat: this command quietly exports a read-only node read-only */
    options.writable = args->has_writable && args->writable && !node_read_only(node);
    options.u.nbd.name = options.id;
    options.u.nbd.description = args->description;
    return export_co_add(host->exports, &options, errp);
}

bool coroutine_fn qmp_block_export_add(const BlockExportOptions *args, GError **errp)
{
    if (!graph_lookup(monitor_host()->graph, args->node_name)) {
        error_set(errp, "Cannot find device='' nor node-name='%s'", args->node_name);
        return false;
    }
    if (args->u.nbd.has_allocation_depth && args->u.nbd.allocation_depth) {
        error_set(errp, "The context 'qemu:allocation-depth' is not supported");
        return false;
    }
    return export_co_add(monitor_host()->exports, args, errp);
}

static bool coroutine_fn co_remove(const char *id, bool has_mode,
                                   BlockExportRemoveMode mode, GError **errp)
{
    ExportRegistry *exports = monitor_host()->exports;

    if (!export_exists(exports, id)) {
        error_set(errp, "Export '%s' is not found", id);
        return false;
    }
    return export_co_del(exports, id, has_mode ? mode : BLOCK_EXPORT_REMOVE_MODE_SAFE,
                         errp);
}

bool coroutine_fn qmp_nbd_server_remove(const NbdServerRemoveArgs *args, GError **errp)
{
    return co_remove(args->name, args->has_mode, args->mode, errp);
}

bool coroutine_fn qmp_block_export_del(const BlockExportDelArgs *args, GError **errp)
{
    return co_remove(args->id, args->has_mode, args->mode, errp);
}

BlockExportInfoList *coroutine_fn qmp_query_block_exports(GError **errp)
{
    return export_query(monitor_host()->exports);
}
