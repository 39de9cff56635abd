/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See pidfile.h. compat: the storage daemon's texts. */
#include "qdp/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/base/error.h"
#include "block/base/path.h"

struct Pidfile {
    char *path; /* absolute: --daemonize changes the folder */
    int fd;
};

static bool write_pid(int fd, const char *path, GError **errp)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char text[32];
    int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

    if (fcntl(fd, F_SETLK, &lock) < 0) {
        error_set_errno(errp, errno, "cannot create PID file: Cannot lock '%s'", path);
        return false;
    }
    if (ftruncate(fd, 0) < 0 || write(fd, text, (size_t)len) != len) {
        error_set_errno(errp, errno, "cannot create PID file: Failed to write '%s'",
                        path);
        return false;
    }
    return true;
}

Pidfile *pidfile_new(const char *path, GError **errp)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    Pidfile *pidfile;

    if (fd < 0) {
        error_set_errno(errp, errno, "cannot create PID file: Could not create '%s'",
                        path);
        return NULL;
    }
    if (!write_pid(fd, path, errp)) {
        close(fd);
        return NULL;
    }
    pidfile = g_new0(Pidfile, 1);
    pidfile->fd = fd;
    pidfile->path = path_absolute(path);
    return pidfile;
}

void pidfile_free(Pidfile *pidfile)
{
    if (pidfile) {
        unlink(pidfile->path);
        close(pidfile->fd);
        g_free(pidfile->path);
        g_free(pidfile);
    }
}
