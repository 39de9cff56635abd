/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sockets from QAPI's SocketAddress: one place for all who listen (exports, the monitor)
 * or connect. All calls may block in look-ups of names: off the loop's thread for inet
 * addresses once the loop serves anybody. Texts of errors are QEMU 7.2's.
 */
#ifndef BLOCK_SOCK_ADDRESS_H
#define BLOCK_SOCK_ADDRESS_H

#include <glib.h>
#include "qapi/qapi-types.h"

/*
 * A non-blocking listening socket; unix ones have mode 0600 from the first moment, and an
 * old socket at the path is replaced (any other file is somebody's). An "fd" address is
 * taken over: listening already, or bound. -1 and *errp on failure. Changes the umask for
 * a moment: unix addresses on the main thread only.
 */
int sock_address_listen(const SocketAddress *addr, GError **errp);

/* A connected, non-blocking socket; -1 and *errp on failure. */
int sock_address_connect(const SocketAddress *addr, GError **errp);

#endif
