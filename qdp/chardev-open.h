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

/* The first client of a listening socket; -1 and *errp when the program ends before.
 * @what names the address in the log. */
int coroutine_fn chardev_co_wait(Loop *loop, int listener, const char *what,
                                 GError **errp);
/* The program ends: whoever waits for a client wakes up. */
void chardev_cancel_wait(void);

#endif
