/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef QDP_EXPORT_NBD_LISTEN_H
#define QDP_EXPORT_NBD_LISTEN_H

#include <glib.h>
#include "qapi/qapi-types.h"

/* A non-blocking listening socket, unix ones with mode 0600; -1 and *errp on failure. */
int nbd_listen(const SocketAddress *addr, GError **errp);

#endif
