/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's walls against itself: what a program that somebody took over through a
 * hostile image or client could still ask of the system.
 *
 *  --sandbox on          only the system calls that serving disks needs. Another one fails
 *                        with EPERM and is named once in the log: a disk must not die of a
 *                        call nobody thought of.
 *  --chroot, --user, --group   the usual ones, taken on when all sockets are open.
 *
 * W1 seccomp does not see what is asked through io_uring, so rings are restricted when they
 *    are made (block/aio/loop-uring.c), and after the sandbox is closed none can be made.
 */
#ifndef QDP_SANDBOX_H
#define QDP_SANDBOX_H

#include <glib.h>
#include <stdbool.h>
#include "block/aio/loop.h"

typedef struct Walls {
    const char *chroot; /* NULL: none; the strings are the command line's */
    const char *user;
    const char *group;
    bool sandbox;
    const char *try_call; /* for tests: make this call when the walls stand; or NULL */
} Walls;

/* Raise them. When it fails the program must end: some may stand already. */
bool walls_raise(const Walls *walls, Loop *loop, GError **errp);

#endif
