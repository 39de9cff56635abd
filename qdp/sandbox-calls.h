/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parts of the walls: the list of system calls, and who the process is. */
#ifndef QDP_SANDBOX_CALLS_H
#define QDP_SANDBOX_CALLS_H

#include "qdp/sandbox.h"

/* Names of what serving disks needs, without arguments looked at; NULL-terminated. */
const char *const *sandbox_calls(void);

/* --chroot, --user and --group. */
bool walls_drop_privileges(const Walls *walls, GError **errp);

#endif
