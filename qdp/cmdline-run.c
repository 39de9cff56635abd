/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Carry out the options in order of appearance. Sockets are bound and clients greeted
 * on the way, but their commands wait for the graph lock until all options are done.
 */
#include <stdio.h>

#include "block/base/error.h"
#include "qapi/keyval.h"
#include "qapi/qapi-commands.h"
#include "qapi/qapi-visit.h"
#include "qdp/cmdline.h"
#include "qdp/log.h"
#include "qdp/trace.h"

#define SLICE_FOLDER "/run/qemu-datapath"

/* keyval_parse(), with stock's refusal of "help". */
static JsonValue *parse_arg(const char *arg, const char *implied_key, GError **errp)
{
    bool help = false;
    g_autoptr(JsonValue) json = keyval_parse(arg, implied_key, &help, errp);

    if (json && help) {
        error_set(errp, "Help is not available for this option");
        return NULL;
    }
    return g_steal_pointer(&json);
}

/* An option that is a command with its arguments as one union: @implied is the key of a first
 * word without one. */
#define UNION_OPTION(name, Type, implied, command)                                         \
    static bool coroutine_fn name(const char *arg, GError **errp)                          \
    {                                                                                      \
        g_autoptr(JsonValue) json = parse_arg(arg, implied, errp);                         \
        g_autoptr(Type) options = NULL;                                                    \
                                                                                           \
        if (!json) {                                                                       \
            return false;                                                                  \
        }                                                                                  \
        options = arg[0] == '{' ? qapi_##Type##_from_json(json, NULL, errp)                \
                                : qapi_##Type##_from_keyval(json, NULL, errp);             \
        return options && command(options, errp);                                          \
    }

UNION_OPTION(co_blockdev, BlockdevOptions, "driver", qmp_blockdev_add)
UNION_OPTION(co_export, BlockExportOptions, "type", qmp_block_export_add)
UNION_OPTION(co_object, ObjectOptions, "qom-type", qmp_object_add)

static bool coroutine_fn co_nbd_server(const MonitorHost *host, const char *arg,
                                       GError **errp)
{
    g_autoptr(JsonValue) json = parse_arg(arg, NULL, errp);
    g_autoptr(NbdServerOptions) options = NULL;

    if (!json) {
        return false;
    }
    options = arg[0] == '{' ? qapi_NbdServerOptions_from_json(json, NULL, errp)
                            : qapi_NbdServerOptions_from_keyval(json, NULL, errp);
    if (!options) {
        return false;
    }
    if (options->tls_creds) {
        error_set(errp, "No TLS credentials with id '%s'", options->tls_creds);
        return false;
    }
    if (options->tls_authz) {
        error_set(errp, "TLS authorization '%s' is not supported", options->tls_authz);
        return false;
    }
    return export_co_nbd_start(
        host->exports, options->addr,
        options->has_max_connections ? options->max_connections : 0, errp);
}

static bool coroutine_fn co_listen_slice(const MonitorHost *host, const char *slice,
                                         GError **errp)
{
    g_autofree char *qmp = g_strdup_printf(SLICE_FOLDER "/%s/qmp", slice);
    g_autofree char *gc = g_strdup_printf(SLICE_FOLDER "/%s/qmpgc", slice);

    return qmp_co_listen_unix(host->monitor, host->loop, qmp, errp) &&
           qmp_co_listen_unix(host->monitor, host->loop, gc, errp);
}

/* compat: the wrappers of production name an events file that need not be there. */
static bool trace(const MonitorHost *host, const char *arg, GError **errp)
{
    GError *error = NULL;

    if (trace_option(arg, &error)) {
        return true;
    }
    if (host->client_rules) {
        log_warning("--trace %s: %s", arg, error->message);
        g_error_free(error);
        return true;
    }
    g_propagate_error(errp, error);
    return false;
}

static bool coroutine_fn co_option(const MonitorHost *host, ChardevTable *chardevs,
                                   const Option *option, GError **errp)
{
    switch (option->kind) {
    case OPTION_BLOCKDEV:
        return co_blockdev(option->arg, errp);
    case OPTION_CHARDEV:
        return chardev_co_add(chardevs, host->loop, option->arg, errp);
    case OPTION_MONITOR:
        return chardev_monitor(chardevs, host->monitor, option->arg, errp);
    case OPTION_EXPORT:
        return co_export(option->arg, errp);
    case OPTION_NBD_SERVER:
        return co_nbd_server(host, option->arg, errp);
    case OPTION_OBJECT:
        return co_object(option->arg, errp);
    case OPTION_QMP:
        return qmp_co_option(host->monitor, host->loop, option->arg, errp);
    case OPTION_TRACE:
        return trace(host, option->arg, errp);
    case OPTION_MACHINE:
    case OPTION_XEN_ATTACH:
    case OPTION_XEN_DOMID:
        /* accepted: the wrappers of production pass them; there is nothing to do */
    default:
        return true;
    }
}

static bool coroutine_fn co_options(const Cmdline *cmdline, const MonitorHost *host,
                                    GError **errp)
{
    ChardevTable *chardevs = chardev_table_new();
    bool ok = true;

    for (guint i = 0; ok && i < cmdline->options->len; i++) {
        const Option *option = g_ptr_array_index(cmdline->options, i);
        g_autoptr(GError) error = NULL;
        if (!co_option(host, chardevs, option, &error)) {
            error_set_class(errp, ERROR_CLASS_GENERIC_ERROR, "%s %s: %s", option->word,
                            option->arg, error->message);
            ok = false;
        }
    }
    chardev_table_free(chardevs);
    return ok;
}

bool coroutine_fn cmdline_co_run(const Cmdline *cmdline, const MonitorHost *host,
                                 GError **errp)
{
    const Option *first;
    bool ok;

    monitor_co_start_begin(host->monitor);
    if (cmdline->form == FORM_OPTIONS) {
        ok = co_options(cmdline, host, errp);
    } else {
        first = g_ptr_array_index(cmdline->options, 0);
        ok = cmdline->form == FORM_PATH
                 ? qmp_co_listen_unix(host->monitor, host->loop, first->arg, errp)
                 : co_listen_slice(host, first->arg, errp);
    }
    monitor_start_end(host->monitor);
    return ok;
}
