/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The listening socket of the NBD server. */
#ifndef QDP_EXPORT_NBD_LISTEN_H
#define QDP_EXPORT_NBD_LISTEN_H

#include <glib.h>
#include "block/aio/loop.h"
#include "qapi/qapi-types.h"

/* A non-blocking listening socket, unix ones with mode 0600; -1 and *errp on failure.
 * A stale unix socket is replaced; any other file at the path is an error. */
int coroutine_fn nbd_co_listen(Loop *loop, const SocketAddress *addr, GError **errp);

#endif
