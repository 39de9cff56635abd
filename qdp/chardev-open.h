/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the words of --chardev to descriptors that the monitor can serve. */
#ifndef QDP_CHARDEV_OPEN_H
#define QDP_CHARDEV_OPEN_H

#include "qdp/cmdline.h"

typedef struct ChardevFds {
    int fd;            /* a socket: listening (server) or connected */
    int first;         /* the client that wait=on waited for; -1 = none */
    bool server;
    char *unlink_path; /* of a listening unix socket; the caller's */
} ChardevFds;

/* False and *errp on failure; what is in *@ret then is the caller's as well (fd may be
 * open). Yields until a client comes when wait=on. */
bool coroutine_fn chardev_co_open(Loop *loop, const char *backend, const JsonValue *opts,
                                  ChardevFds *ret, GError **errp);

/* The same for a socket alone. @wait: for the first client; an error when the program ends
 * before. */
bool coroutine_fn chardev_co_open_socket(Loop *loop, const SocketAddress *addr,
                                         bool server, bool wait, ChardevFds *ret,
                                         GError **errp);
/* Close what is open, and remove the socket. */
void chardev_fds_close(ChardevFds *fds);
/* The program ends: whoever waits for a client wakes up. */
void chardev_cancel_wait(void);

#endif
