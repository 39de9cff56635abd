/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The backends of --chardev: socket, stdio, pipe, file, null. What is no socket gets a
 * bridge. compat: stock's keys and texts; not its default of wait=on, because whoever
 * starts a daemon for a client that connects later would wait for ever.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/base/error.h"
#include "qdp/chardev-bridge.h"
#include "qdp/chardev-open.h"
#include "qdp/log.h"

/* ---- the first client ---- */

typedef struct Waiter {
    LoopFd watch;
    CoQueue queue;
    int client;
    int err;
} Waiter;

static Waiter *waiting; /* options are carried out one at a time */

static void look_for_client(LoopFd *watch, unsigned revents)
{
    Waiter *w = container_of(watch, Waiter, watch);

    w->client = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (w->client < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        w->err = errno;
    }
    if (w->client >= 0 || w->err) {
        loop_fd_watch(watch, 0);
        co_queue_wake_all(&w->queue);
    }
}

int coroutine_fn chardev_co_wait(Loop *loop, int listener, const char *what,
                                 GError **errp)
{
    Waiter w = {.client = -1};

    log_info("waiting for connection on: %s", what);
    co_queue_init(&w.queue, loop);
    loop_fd_init(&w.watch, loop, listener, look_for_client);
    loop_fd_watch(&w.watch, POLLIN);
    waiting = &w;
    co_queue_wait(&w.queue);
    waiting = NULL;
    loop_fd_watch(&w.watch, 0);
    if (w.client < 0) {
        error_set_errno(errp, w.err, "No client connected");
    }
    return w.client;
}

void chardev_cancel_wait(void)
{
    if (waiting && !waiting->err) {
        waiting->err = ECANCELED;
        co_queue_wake_all(&waiting->queue);
    }
}

/* ---- backends ---- */

/* Where a socket chardev is: path, host and port, or fd. */
static bool socket_address(const JsonValue *opts, MonitorAddress *ret, GError **errp)
{
    const char *fd = cmdline_get(opts, "fd");
    uint64_t number;

    ret->fd = -1;
    ret->unix_path = cmdline_get(opts, "path");
    ret->tcp_host = cmdline_get(opts, "port") ? cmdline_get(opts, "host") : NULL;
    ret->tcp_port = cmdline_get(opts, "port");
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
    return cmdline_get_bool(opts, "server", &ret->server, errp);
}

static bool coroutine_fn co_open_socket(Loop *loop, const JsonValue *opts,
                                        ChardevFds *ret, GError **errp)
{
    MonitorAddress address = {0};
    bool wait = false;

    if (!socket_address(opts, &address, errp) ||
        !cmdline_get_bool(opts, "wait", &wait, errp)) {
        return false;
    }
    if (wait && !address.server) {
        error_set(errp, "'wait' option is incompatible with socket in client connect "
                        "mode");
        return false;
    }
    ret->server = address.server;
    ret->fd = address.server ? monitor_bind(&address, errp)
                             : monitor_connect(&address, errp);
    if (ret->fd < 0) {
        return false;
    }
    ret->unlink_path = address.server ? g_strdup(address.unix_path) : NULL;
    if (wait) {
        ret->first = chardev_co_wait(
            loop, ret->fd, address.unix_path ? address.unix_path : "socket", errp);
    }
    return !wait || ret->first >= 0;
}

static bool bridge(int in_fd, int out_fd, ChardevFds *ret, GError **errp)
{
    ret->fd = chardev_bridge(in_fd, out_fd, errp);
    return ret->fd >= 0;
}

static bool open_stdio(const JsonValue *opts, ChardevFds *ret, GError **errp)
{
    static bool taken;
    int in_fd, out_fd;

    if (taken) {
        error_set(errp, "cannot use stdio by multiple character devices");
        return false;
    }
    taken = true;
    in_fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    out_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    if (in_fd < 0 || out_fd < 0) {
        error_set_errno(errp, errno, "Could not use stdio");
        return false;
    }
    return bridge(in_fd, out_fd, ret, errp);
}

static int open_path(const char *path, int flags)
{
    return open(path, flags | O_CLOEXEC | O_NOCTTY, 0666);
}

/* PATH.in and PATH.out, or PATH for both. Both ways, so that a client may go and another
 * one come without an end of file between them. */
static bool open_pipe(const JsonValue *opts, ChardevFds *ret, GError **errp)
{
    const char *path = cmdline_get(opts, "path");
    int in_fd, out_fd;

    if (!path) {
        error_set(errp, "chardev: pipe: no device path given");
        return false;
    }
    g_autofree char *in = g_strconcat(path, ".in", NULL);
    g_autofree char *out = g_strconcat(path, ".out", NULL);
    in_fd = open_path(in, O_RDWR);
    out_fd = open_path(out, O_RDWR);
    if (in_fd >= 0 && out_fd >= 0) {
        return bridge(in_fd, out_fd, ret, errp);
    }
    if (in_fd >= 0) {
        close(in_fd);
    }
    if (out_fd >= 0) {
        close(out_fd);
    }
    in_fd = open_path(path, O_RDWR);
    if (in_fd < 0) {
        error_set_errno(errp, errno, "Could not open '%s'", path);
        return false;
    }
    return bridge(in_fd, in_fd, ret, errp);
}

static bool open_file(const JsonValue *opts, ChardevFds *ret, GError **errp)
{
    const char *path = cmdline_get(opts, "path");
    bool append = false;
    int fd;

    if (!path) {
        error_set(errp, "chardev: file: no filename given");
        return false;
    }
    if (!cmdline_get_bool(opts, "append", &append, errp)) {
        return false;
    }
    fd = open_path(path, O_WRONLY | O_CREAT | (append ? O_APPEND : O_TRUNC));
    if (fd < 0) {
        error_set_errno(errp, errno, "Could not open '%s'", path);
        return false;
    }
    return bridge(-1, fd, ret, errp);
}

static bool open_null(ChardevFds *ret, GError **errp)
{
    int fd = open_path("/dev/null", O_WRONLY);

    if (fd < 0) {
        error_set_errno(errp, errno, "Could not open '/dev/null'");
        return false;
    }
    return bridge(-1, fd, ret, errp);
}

static const char *const socket_keys[] = {"backend", "id",   "path",   "host",
                                          "port",    "fd",   "server", "wait",
                                          "delay",   "ipv4", "ipv6",   NULL};
static const char *const other_keys[] = {"backend", "id", "path", "append", "signal", NULL};

bool coroutine_fn chardev_co_open(Loop *loop, const char *backend, const JsonValue *opts,
                                  ChardevFds *ret, GError **errp)
{
    bool is_socket = !strcmp(backend, "socket");

    *ret = (ChardevFds){.fd = -1, .first = -1};
    if (!is_socket && strcmp(backend, "stdio") && strcmp(backend, "pipe") &&
        strcmp(backend, "file") && strcmp(backend, "null")) {
        error_set(errp, "'%s' is not a valid char driver name", backend);
        return false;
    }
    if (!cmdline_known_keys(opts, is_socket ? socket_keys : other_keys,
                            "Invalid parameter", "", errp)) {
        return false;
    }
    return is_socket                   ? co_open_socket(loop, opts, ret, errp)
           : !strcmp(backend, "stdio") ? open_stdio(opts, ret, errp)
           : !strcmp(backend, "pipe")  ? open_pipe(opts, ret, errp)
           : !strcmp(backend, "file")  ? open_file(opts, ret, errp)
                                       : open_null(ret, errp);
}
