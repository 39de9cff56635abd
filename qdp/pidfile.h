/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --pidfile: a file with our process id, locked while we live. */
#ifndef QDP_PIDFILE_H
#define QDP_PIDFILE_H

#include <glib.h>

typedef struct Pidfile Pidfile;

/* NULL and *errp when it cannot be written or another living process holds it. */
Pidfile *pidfile_new(const char *path, GError **errp);
/* Remove the file. NULL is legal. */
void pidfile_free(Pidfile *pidfile);

#endif
