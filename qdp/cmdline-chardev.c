/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --chardev, --monitor and --qmp: from words to sockets that the monitor serves.
 *
 * A chardev's socket is bound when the option is met, so that a client may connect from
 * then on; it is greeted as soon as --monitor gives it to the monitor. Only sockets are
 * offered, and none of them is waited for: "wait" is accepted as off only.
 */
#include <string.h>
#include <unistd.h>

#include "block/base/error.h"
#include "qdp/cmdline.h"

typedef struct Chardev {
    char *id;
    char *unlink_path; /* of a listening unix socket */
    int fd;            /* -1: a monitor took it */
    bool server;
} Chardev;

struct ChardevTable {
    GPtrArray *devices; /* Chardev */
};

static void chardev_free(gpointer data)
{
    Chardev *chardev = data;

    if (chardev->fd >= 0) {
        close(chardev->fd);
        if (chardev->unlink_path) {
            unlink(chardev->unlink_path);
        }
    }
    g_free(chardev->unlink_path);
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

static const char *get(const JsonValue *opts, const char *key)
{
    const JsonValue *value = json_object_lookup(opts, key);

    return value ? json_get_string(value) : NULL;
}

static bool get_bool(const JsonValue *opts, const char *key, bool *ret, GError **errp)
{
    const char *text = get(opts, key);

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

static bool known_keys(const JsonValue *opts, const char *const *known,
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

static const char *const socket_keys[] = {"backend", "id",   "path",   "host",
                                          "port",    "fd",   "server", "wait",
                                          "delay",   "ipv4", "ipv6",   NULL};

/* Where a socket chardev is: path, host and port, or fd. */
static bool socket_address(const JsonValue *opts, MonitorAddress *ret, GError **errp)
{
    const char *fd = get(opts, "fd");
    bool wait = false;
    uint64_t number;

    ret->fd = -1;
    ret->unix_path = get(opts, "path");
    ret->tcp_host = get(opts, "port") ? get(opts, "host") : NULL;
    ret->tcp_port = get(opts, "port");
    if (ret->tcp_port && !ret->tcp_host) {
        ret->tcp_host = "";
    }
    if (fd) {
        if (!g_ascii_string_to_unsigned(fd, 10, 0, G_MAXINT32, &number, NULL)) {
            error_set(errp, "Unable to parse FD number %s", fd);
            return false;
        }
        ret->fd = (int)number;
    }
    if (!!ret->unix_path + !!ret->tcp_port + !!fd != 1) {
        error_set(errp, "chardev: socket: exactly one of 'path', 'port' and 'fd' is "
                        "needed");
        return false;
    }
    if (!get_bool(opts, "server", &ret->server, errp) ||
        !get_bool(opts, "wait", &wait, errp)) {
        return false;
    }
    if (wait) {
        error_set(errp, "chardev: socket: 'wait=on' is not supported");
        return false;
    }
    return true;
}

static int open_address(const MonitorAddress *address, GError **errp)
{
    return address->server ? monitor_bind(address, errp)
                           : monitor_connect(address, errp);
}

bool chardev_add(ChardevTable *table, const char *arg, GError **errp)
{
    g_autoptr(JsonValue) opts = cmdline_parse_flags(arg, "backend", errp);
    MonitorAddress address = {0};
    const char *id, *backend;
    Chardev *chardev;
    int fd;

    if (!opts) {
        return false;
    }
    id = get(opts, "id");
    backend = get(opts, "backend");
    if (!id) {
        error_set(errp, "chardev: no id specified");
        return false;
    }
    if (!backend || strcmp(backend, "socket")) {
        error_set(errp, "'%s' is not a valid char driver name", backend ? backend : "");
        return false;
    }
    if (find(table, id)) {
        error_set(errp, "Chardev with id '%s' already exists", id);
        return false;
    }
    if (!known_keys(opts, socket_keys, "Invalid parameter", "", errp) ||
        !socket_address(opts, &address, errp)) {
        return false;
    }
    fd = open_address(&address, errp);
    if (fd < 0) {
        return false;
    }
    chardev = g_new0(Chardev, 1);
    chardev->id = g_strdup(id);
    chardev->fd = fd;
    chardev->server = address.server;
    chardev->unlink_path = address.server ? g_strdup(address.unix_path) : NULL;
    g_ptr_array_add(table->devices, chardev);
    return true;
}

static const char *const monitor_keys[] = {"chardev", "mode", "pretty", "id", NULL};

bool chardev_monitor(ChardevTable *table, Monitor *monitor, const char *arg,
                     GError **errp)
{
    g_autoptr(JsonValue) opts = cmdline_parse_flags(arg, "chardev", errp);
    MonitorAddress address = {.fd = -1};
    const char *id, *mode;
    Chardev *chardev;

    if (!opts || !known_keys(opts, monitor_keys, "Parameter", " is unexpected", errp) ||
        !get_bool(opts, "pretty", &address.pretty, errp)) {
        return false;
    }
    id = get(opts, "chardev");
    mode = get(opts, "mode");
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
    if (chardev->fd < 0) {
        error_set(errp, "Device '%s' is in use", id);
        return false;
    }
    address.server = chardev->server;
    monitor_serve(monitor, chardev->fd, &address, chardev->unlink_path);
    chardev->fd = -1;
    return true;
}

/* ---- --qmp and the forms of one word ---- */

static bool serve(Monitor *monitor, const MonitorAddress *address, GError **errp)
{
    int fd = open_address(address, errp);

    if (fd < 0) {
        return false;
    }
    monitor_serve(monitor, fd, address, address->unix_path);
    return true;
}

bool qmp_listen_unix(Monitor *monitor, const char *path, GError **errp)
{
    MonitorAddress address = {.unix_path = path, .fd = -1, .server = true};

    return serve(monitor, &address, errp);
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

bool qmp_option(Monitor *monitor, const char *arg, GError **errp)
{
    g_autoptr(JsonValue) opts = cmdline_parse_flags(arg, "address", errp);
    MonitorAddress address = {.fd = -1, .server = true};
    g_autofree char *text = NULL;

    if (!opts || !known_keys(opts, qmp_keys, "Invalid parameter", "", errp)) {
        return false;
    }
    text = g_strdup(get(opts, "address") ? get(opts, "address") : "");
    /* compat: the clients' wrappers and docs name --qmp unix:PATH without "server" and
     * mean a listening socket; "server=off" connects */
    if (!qmp_address(text, &address, errp) ||
        !get_bool(opts, "server", &address.server, errp) ||
        !get_bool(opts, "pretty", &address.pretty, errp)) {
        return false;
    }
    return serve(monitor, &address, errp);
}
