/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The listening socket of the NBD server. compat: QEMU's texts for what goes wrong. */
#include "qdp/export/nbd-listen.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/base/error.h"

#define BACKLOG 64

static int listen_unix(const UnixSocketAddress *addr, GError **errp)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct stat st;

    if (strlen(addr->path) >= sizeof(sun.sun_path)) {
        error_set(errp, "UNIX socket path '%s' is too long", addr->path);
        return -1;
    }
    strcpy(sun.sun_path, addr->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        error_set_errno(errp, errno, "Failed to create Unix socket");
        return -1;
    }
    if (lstat(addr->path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        unlink(addr->path); /* a stale one; anything else is somebody's file */
    }
    mode_t old = umask(0177);
    int ret = bind(fd, (struct sockaddr *)&sun, sizeof(sun));
    umask(old);
    if (ret < 0 || listen(fd, BACKLOG) < 0) {
        error_set_errno(errp, errno, "Failed to bind socket to %s", addr->path);
        close(fd);
        return -1;
    }
    return fd;
}

static int listen_one(const struct addrinfo *ai)
{
    int one = 1;
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        int err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    return fd;
}

typedef struct Resolve {
    const InetSocketAddress *addr;
    struct addrinfo *list;
} Resolve;

static int resolve(void *opaque)
{
    Resolve *r = opaque;
    const InetSocketAddress *addr = r->addr;
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};

    if (addr->has_ipv4 && addr->ipv4 && !(addr->has_ipv6 && addr->ipv6)) {
        hints.ai_family = AF_INET;
    } else if (addr->has_ipv6 && addr->ipv6 && !(addr->has_ipv4 && addr->ipv4)) {
        hints.ai_family = AF_INET6;
    }
    return getaddrinfo(addr->host && addr->host[0] ? addr->host : NULL, addr->port,
                       &hints, &r->list);
}

/* getaddrinfo() may wait for a name server: not in the loop's thread. */
static int coroutine_fn listen_inet(Loop *loop, const InetSocketAddress *addr,
                                    GError **errp)
{
    Resolve r = {.addr = addr};
    int fd = -1;

    int ret = loop_co_run_in_thread(loop, resolve, &r);
    if (ret != 0) {
        error_set(errp, "address resolution failed for %s:%s: %s", addr->host,
                  addr->port, gai_strerror(ret));
        return -1;
    }
    for (const struct addrinfo *ai = r.list; ai && fd < 0; ai = ai->ai_next) {
        fd = listen_one(ai);
    }
    if (fd < 0) {
        error_set_errno(errp, errno,
                        errno == EADDRINUSE ? "Failed to find an available port"
                                            : "Failed to bind socket");
    }
    freeaddrinfo(r.list);
    return fd;
}

int coroutine_fn nbd_co_listen(Loop *loop, const SocketAddress *addr, GError **errp)
{
    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_UNIX:
        return listen_unix(&addr->u.q_unix, errp);
    case SOCKET_ADDRESS_TYPE_INET:
        return listen_inet(loop, &addr->u.inet, errp);
    case SOCKET_ADDRESS_TYPE_FD:
        /* compat: the storage daemon's words */
        error_set(errp, "only QEMU supports file descriptor passing");
        return -1;
    default:
        error_set(errp, "Socket address type '%s' is not supported for the NBD server",
                  SocketAddressType_str(addr->type));
        return -1;
    }
}
