/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BLOCK_BASE_PATH_H
#define BLOCK_BASE_PATH_H

#include <glib.h>

/* A path that is still right after --daemonize has changed the folder; the caller's to free.
 * NULL for NULL. */
static inline char *path_absolute(const char *path)
{
    g_autofree char *cwd = NULL;

    if (!path || path[0] == '/') {
        return g_strdup(path);
    }
    cwd = g_get_current_dir();
    return g_build_filename(cwd, path, NULL);
}

#endif
