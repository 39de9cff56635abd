/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets for the monitor: bind and listen, or connect. compat: QEMU 7.2's texts. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/base/error.h"
#include "qdp/qmp/monitor.h"

#define BACKLOG 64

static bool unix_address(const char *path, struct sockaddr_un *ret, GError **errp)
{
    memset(ret, 0, sizeof(*ret));
    ret->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(ret->sun_path)) {
        error_set(errp, "UNIX socket path '%s' is too long", path);
        return false;
    }
    strcpy(ret->sun_path, path);
    return true;
}

/* An old socket is in the way; anything else at the path is somebody's file. */
static void remove_stale(const char *path)
{
    struct stat st;

    if (!lstat(path, &st) && S_ISSOCK(st.st_mode)) {
        unlink(path);
    }
}

static int bind_unix(const char *path, GError **errp)
{
    struct sockaddr_un address;
    mode_t old_mask;
    int fd, ret;

    if (!unix_address(path, &address, errp)) {
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        error_set_errno(errp, errno, "Failed to create Unix socket");
        return -1;
    }
    remove_stale(path);
    old_mask = umask(0177); /* 0600 from the first moment on */
    ret = bind(fd, (struct sockaddr *)&address, sizeof(address));
    umask(old_mask);
    if (ret < 0) {
        error_set_errno(errp, errno, "Failed to bind socket to %s", path);
        close(fd);
        return -1;
    }
    if (listen(fd, BACKLOG) < 0) {
        error_set_errno(errp, errno, "Failed to listen on socket");
        unlink(path);
        close(fd);
        return -1;
    }
    return fd;
}

static int connect_unix(const char *path, GError **errp)
{
    struct sockaddr_un address;
    int fd;

    if (!unix_address(path, &address, errp)) {
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        error_set_errno(errp, errno, "Failed to create Unix socket");
        return -1;
    }
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        error_set_errno(errp, errno, "Failed to connect to '%s'", path);
        close(fd);
        return -1;
    }
    return fd;
}

static int try_tcp(const struct addrinfo *info, bool server)
{
    int on = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -1;
    }
    if (server) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (!bind(fd, info->ai_addr, info->ai_addrlen) && !listen(fd, BACKLOG)) {
            return fd;
        }
    } else if (!connect(fd, info->ai_addr, info->ai_addrlen)) {
        return fd;
    }
    on = errno;
    close(fd);
    errno = on;
    return -1;
}

static int open_tcp(const MonitorAddress *a, GError **errp)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    const char *host = a->tcp_host[0] ? a->tcp_host : NULL;
    int fd = -1, ret;

    hints.ai_flags = a->server ? AI_PASSIVE : 0;
    ret = getaddrinfo(host, a->tcp_port, &hints, &list);
    if (ret) {
        error_set(errp, "address resolution failed for %s:%s: %s", a->tcp_host,
                  a->tcp_port, gai_strerror(ret));
        return -1;
    }
    for (const struct addrinfo *it = list; it && fd < 0; it = it->ai_next) {
        fd = try_tcp(it, a->server);
    }
    if (fd < 0) {
        error_set_errno(errp, errno,
                        a->server ? "Failed to find an available port for %s:%s"
                                  : "Failed to connect to '%s:%s'",
                        a->tcp_host, a->tcp_port);
    }
    freeaddrinfo(list);
    return fd;
}

static int made_nonblocking(int fd, GError **errp)
{
    if (fd >= 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        error_set_errno(errp, errno, "Failed to set up socket");
        close(fd);
        return -1;
    }
    return fd;
}

static int take_fd(int fd, bool server, GError **errp)
{
    int listening = 0;
    socklen_t len = sizeof(listening);

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0) {
        error_set_errno(errp, errno, "File descriptor '%d' is not a socket", fd);
        return -1;
    }
    if (server && !listening && listen(fd, BACKLOG) < 0) {
        error_set_errno(errp, errno, "Failed to listen on fd socket");
        return -1;
    }
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

static int open_socket(const MonitorAddress *a, GError **errp)
{
    int fd;

    if (a->fd >= 0) {
        fd = take_fd(a->fd, a->server, errp);
    } else if (a->unix_path) {
        fd = a->server ? bind_unix(a->unix_path, errp)
                       : connect_unix(a->unix_path, errp);
    } else {
        fd = open_tcp(a, errp);
    }
    return made_nonblocking(fd, errp);
}

int monitor_bind(const MonitorAddress *address, GError **errp)
{
    g_assert(address->server);
    return open_socket(address, errp);
}

int monitor_connect(const MonitorAddress *address, GError **errp)
{
    g_assert(!address->server);
    return open_socket(address, errp);
}
