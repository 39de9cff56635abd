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
#include "block/sock-address.h"
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
static bool cancelled;  /* for good: the program ends */

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

static int coroutine_fn co_wait(Loop *loop, int listener, const char *what, GError **errp)
{
    Waiter w = {.client = -1};

    if (cancelled) {
        error_set_errno(errp, ECANCELED, "No client connected");
        return -1;
    }
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
    cancelled = true;
    if (waiting && !waiting->err) {
        waiting->err = ECANCELED;
        co_queue_wake_all(&waiting->queue);
    }
}

/* ---- backends ---- */

/* Where a socket chardev is: path, host and port, or fd. The strings are @opts'. */
static bool socket_address(const JsonValue *opts, SocketAddress *ret, GError **errp)
{
    const char *path = cmdline_get(opts, "path"), *fd = cmdline_get(opts, "fd");
    const char *host = cmdline_get(opts, "host"), *port = cmdline_get(opts, "port");
    InetSocketAddress *inet = &ret->u.inet;

    if (!!path + !!port + !!fd != 1) {
        error_set(errp, "chardev: socket: exactly one of 'path', 'port' and 'fd' is "
                        "needed");
        return false;
    }
    if (path) {
        ret->type = SOCKET_ADDRESS_TYPE_UNIX;
        ret->u.q_unix.path = (char *)path;
    } else if (fd) {
        ret->type = SOCKET_ADDRESS_TYPE_FD;
        ret->u.fd.str = (char *)fd;
    } else {
        ret->type = SOCKET_ADDRESS_TYPE_INET;
        inet->host = (char *)(host ? host : "");
        inet->port = (char *)port;
        inet->has_ipv4 = cmdline_get(opts, "ipv4") != NULL;
        inet->has_ipv6 = cmdline_get(opts, "ipv6") != NULL;
        return cmdline_get_bool(opts, "ipv4", &inet->ipv4, errp) &&
               cmdline_get_bool(opts, "ipv6", &inet->ipv6, errp);
    }
    return true;
}

bool coroutine_fn chardev_co_open_socket(Loop *loop, const SocketAddress *addr,
                                         bool server, bool wait, ChardevFds *ret,
                                         GError **errp)
{
    bool is_unix = addr->type == SOCKET_ADDRESS_TYPE_UNIX;

    *ret = (ChardevFds){.fd = -1, .first = -1, .server = server};
    if (wait && !server) {
        error_set(errp, "'wait' option is incompatible with socket in client connect "
                        "mode");
        return false;
    }
    ret->fd = server ? sock_address_listen(addr, errp) : sock_address_connect(addr, errp);
    if (ret->fd < 0) {
        return false;
    }
    ret->unlink_path = server && is_unix ? g_strdup(addr->u.q_unix.path) : NULL;
    if (wait) {
        ret->first = co_wait(loop, ret->fd, is_unix ? addr->u.q_unix.path : "socket", errp);
    }
    return !wait || ret->first >= 0;
}

static bool coroutine_fn co_open_socket(Loop *loop, const JsonValue *opts,
                                        ChardevFds *ret, GError **errp)
{
    SocketAddress addr = {0};
    bool server = false, wait = false;

    return socket_address(opts, &addr, errp) &&
           cmdline_get_bool(opts, "server", &server, errp) &&
           cmdline_get_bool(opts, "wait", &wait, errp) &&
           chardev_co_open_socket(loop, &addr, server, wait, ret, errp);
}

void chardev_fds_close(ChardevFds *fds)
{
    if (fds->first >= 0) {
        close(fds->first);
    }
    if (fds->fd >= 0) {
        close(fds->fd);
        if (fds->unlink_path) {
            unlink(fds->unlink_path);
        }
    }
    g_free(fds->unlink_path);
    *fds = (ChardevFds){.fd = -1, .first = -1};
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
    static const char *const backends[] = {"socket", "stdio", "pipe", "file", "null", NULL};
    bool is_socket = !strcmp(backend, "socket");

    *ret = (ChardevFds){.fd = -1, .first = -1};
    if (!g_strv_contains(backends, backend)) {
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
