/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See sock-address.h. */
#include "block/sock-address.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/base/error.h"

#define BACKLOG 64

/* ---- unix ---- */

static int new_unix(const char *path, struct sockaddr_un *ret, GError **errp)
{
    int fd;

    memset(ret, 0, sizeof(*ret));
    ret->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(ret->sun_path)) {
        error_set(errp, "UNIX socket path '%s' is too long", path);
        return -1;
    }
    memcpy(ret->sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        error_set_errno(errp, errno, "Failed to create Unix socket");
    }
    return fd;
}

/* An old socket is in the way; anything else at the path is somebody's file. */
static void remove_stale(const char *path)
{
    struct stat st;

    if (!lstat(path, &st) && S_ISSOCK(st.st_mode)) {
        unlink(path);
    }
}

static int listen_unix(const char *path, GError **errp)
{
    struct sockaddr_un address;
    mode_t old_mask;
    int ret, fd = new_unix(path, &address, errp);

    if (fd < 0) {
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
    int fd = new_unix(path, &address, errp);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        error_set_errno(errp, errno, "Failed to connect to '%s'", path);
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- inet ---- */

static int try_inet(const struct addrinfo *info, bool server)
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

static int family_of(const InetSocketAddress *a)
{
    bool v4 = a->has_ipv4 && a->ipv4, v6 = a->has_ipv6 && a->ipv6;

    if (v4 != v6) {
        return v4 ? AF_INET : AF_INET6;
    }
    return a->has_ipv4 && !v4 && !a->has_ipv6   ? AF_INET6
           : a->has_ipv6 && !v6 && !a->has_ipv4 ? AF_INET
                                                : AF_UNSPEC;
}

static int open_inet(const InetSocketAddress *a, bool server, GError **errp)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    int fd = -1, ret;

    hints.ai_family = family_of(a);
    hints.ai_flags = server ? AI_PASSIVE : 0;
    ret = getaddrinfo(a->host[0] ? a->host : NULL, a->port, &hints, &list);
    if (ret) {
        error_set(errp, "address resolution failed for %s:%s: %s", a->host, a->port,
                  gai_strerror(ret));
        return -1;
    }
    for (const struct addrinfo *it = list; it && fd < 0; it = it->ai_next) {
        fd = try_inet(it, server);
    }
    if (fd < 0 && server) {
        error_set_errno(errp, errno,
                        errno == EADDRINUSE ? "Failed to find an available port"
                                            : "Failed to bind socket");
    } else if (fd < 0) {
        error_set_errno(errp, errno, "Failed to connect to '%s:%s'", a->host, a->port);
    }
    freeaddrinfo(list);
    return fd;
}

/* ---- somebody else's ---- */

static int take_fd(const char *text, bool server, GError **errp)
{
    int listening = 0, fd;
    socklen_t len = sizeof(listening);
    uint64_t number;

    if (!g_ascii_string_to_unsigned(text, 10, 0, G_MAXINT32, &number, NULL)) {
        error_set(errp, "Unable to parse FD number %s", text);
        return -1;
    }
    fd = (int)number;
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

static int open_address(const SocketAddress *addr, bool server, GError **errp)
{
    int fd = -1;

    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_UNIX:
        fd = server ? listen_unix(addr->u.q_unix.path, errp)
                    : connect_unix(addr->u.q_unix.path, errp);
        break;
    case SOCKET_ADDRESS_TYPE_INET:
        fd = open_inet(&addr->u.inet, server, errp);
        break;
    case SOCKET_ADDRESS_TYPE_FD:
        fd = take_fd(addr->u.fd.str, server, errp);
        break;
    default:
        error_set(errp, "Socket address type '%s' is not supported",
                  SocketAddressType_str(addr->type));
    }
    if (fd >= 0 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        error_set_errno(errp, errno, "Failed to set up socket");
        close(fd);
        return -1;
    }
    return fd;
}

int sock_address_listen(const SocketAddress *addr, GError **errp)
{
    return open_address(addr, true, errp);
}

int sock_address_connect(const SocketAddress *addr, GError **errp)
{
    return open_address(addr, false, errp);
}
