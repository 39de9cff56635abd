/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The listening socket of the NBD server. compat: QEMU's texts for what goes wrong. */
#include "qdp/export/nbd-listen.h"

#include "block/base/error.h"
#include "block/sock-address.h"

typedef struct Listen {
    const SocketAddress *addr;
    GError *error;
} Listen;

static int listen_entry(void *opaque)
{
    Listen *l = opaque;

    return sock_address_listen(l->addr, &l->error);
}

int coroutine_fn nbd_co_listen(Loop *loop, const SocketAddress *addr, GError **errp)
{
    Listen l = {.addr = addr};
    int fd;

    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_UNIX:
        return sock_address_listen(addr, errp);
    case SOCKET_ADDRESS_TYPE_INET:
        /* getaddrinfo() may wait for a name server: not in the loop's thread */
        fd = loop_co_run_in_thread(loop, listen_entry, &l);
        if (l.error) {
            g_propagate_error(errp, l.error);
        }
        return fd;
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
