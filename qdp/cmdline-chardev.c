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

    if (chardev->fds.first >= 0) {
        close(chardev->fds.first);
    }
    if (chardev->fds.fd >= 0) {
        close(chardev->fds.fd);
        if (chardev->fds.unlink_path) {
            unlink(chardev->fds.unlink_path);
        }
    }
    g_free(chardev->fds.unlink_path);
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
static void give_to_monitor(Monitor *monitor, ChardevFds *fds, MonitorAddress *address)
{
    address->server = fds->server;
    monitor_serve(monitor, fds->fd, address, fds->unlink_path);
    fds->fd = -1;
    if (fds->first >= 0) {
        address->server = false;
        monitor_serve(monitor, fds->first, address, NULL);
        fds->first = -1;
    }
}

static const char *const monitor_keys[] = {"chardev", "mode", "pretty", "id", NULL};

bool chardev_monitor(ChardevTable *table, Monitor *monitor, const char *arg,
                     GError **errp)
{
    g_autoptr(JsonValue) opts = cmdline_parse_flags(arg, "chardev", errp);
    MonitorAddress address = {.fd = -1};
    const char *id, *mode;
    Chardev *chardev;

    if (!opts || !cmdline_known_keys(opts, monitor_keys, "Parameter", " is unexpected", errp) ||
        !cmdline_get_bool(opts, "pretty", &address.pretty, errp)) {
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
    give_to_monitor(monitor, &chardev->fds, &address);
    return true;
}

/* ---- --qmp and the forms of one word ---- */

bool qmp_listen_unix(Monitor *monitor, const char *path, GError **errp)
{
    MonitorAddress address = {.unix_path = path, .fd = -1, .server = true};
    ChardevFds fds = {.first = -1, .server = true};

    fds.fd = monitor_bind(&address, errp);
    if (fds.fd < 0) {
        return false;
    }
    monitor_serve(monitor, fds.fd, &address, path);
    return true;
}

static const char *const qmp_keys[] = {"address", "server", "wait",
                                       "pretty",  "delay",  NULL};

/* "unix:PATH" or "tcp:HOST:PORT"; @text is cut up. */
static bool qmp_address(char *text, MonitorAddress *ret, GError **errp)
{
    char *colon;

    if (g_str_has_prefix(text, "unix:") && text[5]) {
        ret->unix_path = text + 5;
        return true;
    }
    colon = strrchr(text, ':');
    if (g_str_has_prefix(text, "tcp:") && colon > text + 3 && colon[1]) {
        *colon = '\0';
        ret->tcp_host = text + 4;
        ret->tcp_port = colon + 1;
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
    MonitorAddress address = {.fd = -1, .server = true};
    ChardevFds fds = {.first = -1};
    g_autofree char *text = NULL;
    bool wait = false;

    if (!opts || !cmdline_known_keys(opts, qmp_keys, "Invalid parameter", "", errp)) {
        return false;
    }
    text = g_strdup(cmdline_get(opts, "address") ? cmdline_get(opts, "address") : "");
    /* compat: the clients' wrappers and docs name --qmp unix:PATH without "server" and
     * mean a listening socket; "server=off" connects */
    if (!qmp_address(text, &address, errp) ||
        !cmdline_get_bool(opts, "server", &address.server, errp) ||
        !cmdline_get_bool(opts, "wait", &wait, errp) ||
        !cmdline_get_bool(opts, "pretty", &address.pretty, errp)) {
        return false;
    }
    fds.server = address.server;
    fds.fd = address.server ? monitor_bind(&address, errp)
                            : monitor_connect(&address, errp);
    if (fds.fd < 0) {
        return false;
    }
    if (wait && fds.server) {
        fds.first = chardev_co_wait(loop, fds.fd, cmdline_get(opts, "address"), errp);
    }
    fds.unlink_path = fds.server ? (char *)address.unix_path : NULL;
    /* also when nobody came: the monitor closes and removes what was made */
    give_to_monitor(monitor, &fds, &address);
    return !(errp && *errp);
}
