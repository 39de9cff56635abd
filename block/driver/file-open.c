/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening files and block devices, and reopening them when writers come and go.
 *
 * A read-only file is opened buffered whatever cache.direct says: backing files are shared
 * by many disks, and the page cache is where they meet (client-contract.md, section 4).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/base/error.h"
#include "block/driver/file.h"
#include "block/graph-private.h"

static DiskAio aio_from_options(const BlockdevOptionsFile *o)
{
    if (!o->has_aio) {
        return DISK_AIO_AUTO;
    }
    switch (o->aio) {
    case BLOCKDEV_AIO_OPTIONS_NATIVE:
        return DISK_AIO_NATIVE;
    case BLOCKDEV_AIO_OPTIONS_IO_URING:
        return DISK_AIO_URING;
    default:
        return DISK_AIO_THREADS;
    }
}

static int open_flags(const BlockNode *node, bool rw)
{
    return (rw ? O_RDWR : O_RDONLY) | (rw && node->cache_direct ? O_DIRECT : 0) |
           O_CLOEXEC | O_NOCTTY;
}

/* A file opened read-only is buffered, and native AIO would only be a slow detour. */
static DiskAio effective_aio(const FileState *s, const BlockNode *node, bool rw)
{
    return s->aio == DISK_AIO_NATIVE && !rw ? DISK_AIO_AUTO : s->aio;
}

static DiskFile *open_kernel_file(BlockNode *node, const FileState *s, bool rw,
                                  GError **errp)
{
    int flags = open_flags(node, rw);
    int fd = open(s->path, flags);
    if (fd < 0) {
        if (errno == EINVAL && (flags & O_DIRECT)) {
            error_set(errp, "Could not open '%s': filesystem does not support O_DIRECT",
                      s->path);
        } else {
            int err = errno;
            error_set_errno(errp, err, "Could not open '%s'", s->path);
            errno = err;
        }
        return NULL;
    }
    int read_only = 0;
    if (rw && ioctl(fd, BLKROGET, &read_only) == 0 && read_only) {
        /* the kernel lets root open such a device, and fails the writes */
        error_set_errno(errp, EACCES, "The device is not writable");
        close(fd);
        errno = EACCES;
        return NULL;
    }
    if (!file_lock(node, s, fd, rw, errp)) {
        close(fd);
        errno = EAGAIN;
        return NULL;
    }
    DiskFile *disk = disk_file_new(graph_loop(node->graph), fd, s->path,
                                   effective_aio(s, node, rw), errp);
    if (!disk) {
        close(fd);
        errno = EINVAL;
    }
    return disk;
}

static DiskFile *open_disk(BlockNode *node, const FileState *s, bool rw, GError **errp)
{
    Graph *graph = node->graph;
    if (graph->open_file) {
        return graph->open_file(graph->open_file_opaque, graph->loop, s->path,
                                open_flags(node, rw), effective_aio(s, node, rw), errp);
    }
    return open_kernel_file(node, s, rw, errp);
}

/* With auto-read-only a file that may not be written is opened for reading instead. */
static DiskFile *open_first(BlockNode *node, const FileState *s, GError **errp)
{
    GError *error = NULL;
    DiskFile *disk = open_disk(node, s, !node->read_only, &error);
    if (!disk && !node->read_only && node->auto_read_only &&
        (errno == EACCES || errno == EROFS || errno == EPERM)) {
        g_clear_error(&error);
        node->read_only = true;
        disk = open_disk(node, s, false, &error);
    }
    if (error) {
        g_propagate_error(errp, error);
    }
    return disk;
}

static bool check_kind(const BlockNode *node, const char *path, GError **errp)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        error_set_errno(errp, errno, "Could not open '%s'", path);
        return false;
    }
    if (S_ISDIR(st.st_mode) && !node->read_only) {
        error_set_errno(errp, EISDIR, "Could not open '%s'", path);
        return false;
    }
    if (node->drv->qapi_id == BLOCKDEV_DRIVER_HOST_DEVICE && !S_ISBLK(st.st_mode)) {
        error_set(errp, "'host_device' driver requires '%s' to be either a character or "
                        "block device",
                  path);
        return false;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) { /* before a FIFO blocks open(2) */
        error_set(errp, "'%s' driver requires '%s' to be a regular file", node->drv->name,
                  path);
        return false;
    }
    return true;
}

bool coroutine_fn file_co_open(BlockNode *node, const BlockdevOptions *options,
                               const OpenInherit *inherit, GError **errp)
{
    const BlockdevOptionsFile *o = options->driver == BLOCKDEV_DRIVER_FILE
                                       ? &options->u.file
                                       : &options->u.host_device;
    if (o->pr_manager) {
        /* none can be made here */
        error_set(errp, "No persistent reservation manager with id '%s'", o->pr_manager);
        return false;
    }
    if (!o->filename[0]) {
        error_set(errp, "The '%s' block driver requires a file name", node->drv->name);
        return false;
    }
    if (!node->graph->open_file && !check_kind(node, o->filename, errp)) {
        return false;
    }
    FileState *s = g_new0(FileState, 1);
    s->path = g_strdup(o->filename);
    co_group_init(&s->syncs, graph_loop(node->graph));
    s->aio = aio_from_options(o);
    s->locking = o->has_locking ? o->locking : ON_OFF_AUTO_AUTO;
    if (s->aio == DISK_AIO_NATIVE && !node->cache_direct) {
        error_set(errp, "aio=native was specified, but it requires cache.direct=on, "
                        "which was not specified.");
        g_free(s->path);
        g_free(s);
        return false;
    }
    DiskFile *disk = open_first(node, s, errp);
    if (!disk) {
        g_free(s->path);
        g_free(s);
        return false;
    }
    tracked_file_init(&s->tracked, disk);
    s->opened_rw = !node->read_only;
    node->state = s;
    node->filename = g_strdup(s->path);
    node->length = round_up(s->tracked.known_size, 512);
    node->request_align = s->tracked.info.offset_align;
    node->mem_align = s->tracked.info.mem_align;
    return true;
}

/* Do both mean one file, or one device? */
static bool is_same_file(int a, int b)
{
    struct stat x, y;
    if (fstat(a, &x) < 0 || fstat(b, &y) < 0) {
        return false;
    }
    if (S_ISBLK(x.st_mode) && S_ISBLK(y.st_mode)) {
        return x.st_rdev == y.st_rdev;
    }
    return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The node's file once more, for writing or for reading. */
static DiskFile *open_again(BlockNode *node, const FileState *s, bool writing, GError **errp)
{
    int old_fd = disk_file_fd(s->tracked.disk);
    DiskFile *disk = open_disk(node, s, writing, errp);
    if (disk && old_fd >= 0 && !is_same_file(old_fd, disk_file_fd(disk))) {
        disk_file_free(disk);
        error_set(errp, "Could not open '%s': the name means another file now", s->path);
        return NULL;
    }
    return disk;
}

bool coroutine_fn file_co_set_writing(BlockNode *node, bool writing, GError **errp)
{
    FileState *s = node->state;
    int old_fd = disk_file_fd(s->tracked.disk);
    if (writing && !file_may_write(node, s, errp)) {
        return false;
    }
    if (writing && s->lock_weakened) {
        s->lock_weakened = !file_lock(node, s, old_fd, true, errp);
        return !s->lock_weakened;
    }
    if (writing == s->opened_rw) {
        return true;
    }
    GraphDrain drain;
    graph_co_drain_begin(&drain, node);
    if (!writing && !node->cache_no_flush) {
        disk_co_run(s->tracked.disk, DISK_SYNC, 0, 0, NULL, 0, 0);
    }
    /* order: our own old lock must not stand in the way of the new one */
    file_lock_weaken(node, s, old_fd, !writing);
    DiskFile *disk = open_again(node, s, writing, writing ? errp : NULL);
    if (disk) {
        bool sync_failed = s->tracked.sync_failed; /* the pages that it is about stay (Q13) */
        file_unlock(old_fd);
        disk_file_free(s->tracked.disk);
        tracked_file_init(&s->tracked, disk);
        s->tracked.sync_failed = sync_failed;
        s->lock_weakened = false;
        s->opened_rw = writing;
        node->request_align = s->tracked.info.offset_align;
        node->mem_align = s->tracked.info.mem_align;
        node_set_length(node, round_up(s->tracked.known_size, 512));
    } else if (old_fd >= 0) { /* out of reach by its name: renamed, or behind a wall */
        file_lock(node, s, old_fd, false, NULL);
        s->lock_weakened = s->opened_rw;
    }
    graph_drain_end(&drain);
    return disk != NULL || !writing;
}
