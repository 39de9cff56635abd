/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --chardev, --monitor and --qmp: from words to sockets that the monitor serves.
 *
 * A chardev's socket is bound when the option is met, so that a client may connect from
 * then on; it is greeted as soon as --monitor gives it to the monitor. What kinds there
 * are and how they are opened is chardev-open.c's.
 */
#include <string.h>
#include <unistd.h>

#include "block/base/error.h"
#include "qdp/chardev-open.h"

typedef struct Chardev {
    char *id;
    ChardevFds fds; /* fd -1: a monitor took it */
} Chardev;

struct ChardevTable {
    GPtrArray *devices; /* Chardev */
};

static void chardev_free(gpointer data)
{
    Chardev *chardev = data;

    chardev_fds_close(&chardev->fds);
    g_free(chardev->id);
    g_free(chardev);
}

ChardevTable *chardev_table_new(void)
{
    ChardevTable *table = g_new0(ChardevTable, 1);

    table->devices = g_ptr_array_new_with_free_func(chardev_free);
    return table;
}

void chardev_table_free(ChardevTable *table)
{
    g_ptr_array_free(table->devices, TRUE);
    g_free(table);
}

static Chardev *find(const ChardevTable *table, const char *id)
{
    for (guint i = 0; i < table->devices->len; i++) {
        Chardev *chardev = g_ptr_array_index(table->devices, i);
        if (!strcmp(chardev->id, id)) {
            return chardev;
        }
    }
    return NULL;
}

const char *cmdline_get(const JsonValue *opts, const char *key)
{
    const JsonValue *value = json_object_lookup(opts, key);

    return value ? json_get_string(value) : NULL;
}

bool cmdline_get_bool(const JsonValue *opts, const char *key, bool *ret, GError **errp)
{
    const char *text = cmdline_get(opts, key);

    if (!text) {
        return true;
    }
    if (!strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true")) {
        *ret = true;
    } else if (!strcmp(text, "off") || !strcmp(text, "no") || !strcmp(text, "false")) {
        *ret = false;
    } else {
        error_set(errp, "Parameter '%s' expects 'on' or 'off'", key);
        return false;
    }
    return true;
}

bool cmdline_known_keys(const JsonValue *opts, const char *const *known,
                        const char *before, const char *after, GError **errp)
{
    for (size_t i = 0; i < json_object_size(opts); i++) {
        const char *key = json_object_key_at(opts, i);
        if (!g_strv_contains(known, key)) {
            error_set(errp, "%s '%s'%s", before, key, after);
            return false;
        }
    }
    return true;
}

bool coroutine_fn chardev_co_add(ChardevTable *table, Loop *loop, const char *arg,
                                 GError **errp)
{
    g_autoptr(JsonValue) opts = cmdline_parse_flags(arg, "backend", errp);
    const char *id, *backend;
    Chardev *chardev;
    bool ok;

    if (!opts) {
        return false;
    }
    id = cmdline_get(opts, "id");
    backend = cmdline_get(opts, "backend");
    if (!id) {
        error_set(errp, "chardev: no id specified");
        return false;
    }
    if (find(table, id)) {
        error_set(errp, "Chardev with id '%s' already exists", id);
        return false;
    }
    chardev = g_new0(Chardev, 1);
    ok = chardev_co_open(loop, backend ? backend : "", opts, &chardev->fds, errp);
    if (!ok) {
        chardev_free(chardev);
        return false;
    }
    chardev->id = g_strdup(id);
    g_ptr_array_add(table->devices, chardev);
    return true;
}

/* The listener, and the client that was waited for. */
static void give_to_monitor(Monitor *monitor, ChardevFds *fds, bool pretty)
{
    MonitorDoor door = {.server = fds->server, .pretty = pretty};

    monitor_serve(monitor, fds->fd, &door, fds->unlink_path);
    if (fds->first >= 0) {
        door.server = false;
        monitor_serve(monitor, fds->first, &door, NULL);
    }
    fds->fd = fds->first = -1; /* the monitor's now */
    chardev_fds_close(fds);
}

static const char *const monitor_keys[] = {"chardev", "mode", "pretty", "id", NULL};

bool chardev_monitor(ChardevTable *table, Monitor *monitor, const char *arg,
                     GError **errp)
{
    g_autoptr(JsonValue) opts = cmdline_parse_flags(arg, "chardev", errp);
    bool pretty = false;
    const char *id, *mode;
    Chardev *chardev;

    if (!opts || !cmdline_known_keys(opts, monitor_keys, "Parameter", " is unexpected", errp) ||
        !cmdline_get_bool(opts, "pretty", &pretty, errp)) {
        return false;
    }
    id = cmdline_get(opts, "chardev");
    mode = cmdline_get(opts, "mode");
    if (!id) {
        error_set(errp, "Parameter 'chardev' is missing");
        return false;
    }
    if (mode && strcmp(mode, "control")) {
        error_set(errp, "Parameter 'mode' does not accept value '%s'", mode);
        return false;
    }
    chardev = find(table, id);
    if (!chardev) {
        error_set(errp, "chardev \"%s\" not found", id);
        return false;
    }
    if (chardev->fds.fd < 0) {
        error_set(errp, "Device '%s' is in use", id);
        return false;
    }
    give_to_monitor(monitor, &chardev->fds, pretty);
    return true;
}

/* ---- --qmp and the forms of one word ---- */

static bool coroutine_fn co_serve(Monitor *monitor, Loop *loop, const SocketAddress *addr,
                                  bool server, bool wait, bool pretty, GError **errp)
{
    ChardevFds fds;

    if (!chardev_co_open_socket(loop, addr, server, wait, &fds, errp)) {
        chardev_fds_close(&fds);
        return false;
    }
    give_to_monitor(monitor, &fds, pretty);
    return true;
}

bool coroutine_fn qmp_co_listen_unix(Monitor *monitor, Loop *loop, const char *path,
                                     GError **errp)
{
    SocketAddress addr = {.type = SOCKET_ADDRESS_TYPE_UNIX,
                          .u.q_unix.path = (char *)path};

    return co_serve(monitor, loop, &addr, true, false, false, errp);
}

static const char *const qmp_keys[] = {"address", "server", "wait",
                                       "pretty",  "delay",  NULL};

/* "unix:PATH" or "tcp:HOST:PORT"; @text is cut up, and its pieces are in *@ret. */
static bool qmp_address(char *text, SocketAddress *ret, GError **errp)
{
    char *colon;

    if (g_str_has_prefix(text, "unix:") && text[5]) {
        ret->type = SOCKET_ADDRESS_TYPE_UNIX;
        ret->u.q_unix.path = text + 5;
        return true;
    }
    colon = strrchr(text, ':');
    if (g_str_has_prefix(text, "tcp:") && colon > text + 3 && colon[1]) {
        *colon = '\0';
        ret->type = SOCKET_ADDRESS_TYPE_INET;
        ret->u.inet.host = text + 4;
        ret->u.inet.port = colon + 1;
        return true;
    }
    error_set(errp, "'%s' is not an address: unix:PATH or tcp:HOST:PORT was expected",
              text);
    return false;
}

bool coroutine_fn qmp_co_option(Monitor *monitor, Loop *loop, const char *arg,
                                GError **errp)
{
    g_autoptr(JsonValue) opts = cmdline_parse_flags(arg, "address", errp);
    SocketAddress addr = {0};
    g_autofree char *text = NULL;
    bool server = true, wait = false, pretty = false;

    if (!opts || !cmdline_known_keys(opts, qmp_keys, "Invalid parameter", "", errp)) {
        return false;
    }
    text = g_strdup(cmdline_get(opts, "address") ? cmdline_get(opts, "address") : "");
    /* compat: the clients' wrappers and docs name --qmp unix:PATH without "server" and
     * mean a listening socket; "server=off" connects */
    return qmp_address(text, &addr, errp) &&
           cmdline_get_bool(opts, "server", &server, errp) &&
           cmdline_get_bool(opts, "wait", &wait, errp) &&
           cmdline_get_bool(opts, "pretty", &pretty, errp) &&
           co_serve(monitor, loop, &addr, server, wait, pretty, errp);
}
