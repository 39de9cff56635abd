/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A monitor on what is no socket (terminal, pipe, file): two threads carry the bytes
 * between it and one end of a socket pair; the monitor has the other.
 *
 * B1 threads, because these descriptors may block whatever O_NONBLOCK says (files,
 *    terminals shared with others), and a monitor on them is a rarity.
 */
#ifndef QDP_CHARDEV_BRIDGE_H
#define QDP_CHARDEV_BRIDGE_H

#include <glib.h>

/* The monitor's end, -1 and *errp on failure. @in_fd may be -1 (nothing is ever read) and
 * may be @out_fd. Both are the bridge's from now on, also on failure. Starts threads:
 * --daemonize must have forked before. */
int chardev_bridge(int in_fd, int out_fd, GError **errp);

/* At the end, when the monitor has closed its ends: what it said last goes out. Waits a
 * second at most for a reader that does not read. */
void chardev_bridges_finish(void);

#endif
