/* SPDX-License-Identifier: GPL-2.0-or-later */
/* blockdev-create and `qemu-img create`: files, raw and qcow2 images. */
#include "block/create.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/base/error.h"
#include "block/graph-private.h"
#include "block/open-private.h"

/* full and falloc reserve the blocks; 0 or -errno. */
static int preallocate(int fd, uint64_t size, PreallocMode mode)
{
    if (size == 0 || mode == PREALLOC_MODE_OFF) {
        return 0;
    }
    if (mode == PREALLOC_MODE_FALLOC) {
        return -posix_fallocate(fd, 0, (off_t)size);
    }
    static uint8_t zeros[65536]; /* not const: they would be a seventh of the program */
    for (uint64_t pos = 0; pos < size;) {
        ssize_t n = pwrite(fd, zeros, min_u64(sizeof(zeros), size - pos), (off_t)pos);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        pos += n > 0 ? (uint64_t)n : 0;
    }
    return fdatasync(fd) < 0 ? -errno : 0;
}

/* An empty file of @size; a device has the length that it has. 0, or -errno and *errp. */
static int set_file_size(int fd, uint64_t size, GError **errp)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISBLK(st.st_mode)) {
        off_t end = lseek(fd, 0, SEEK_END);
        if (end < 0 || (uint64_t)end < size) {
            error_set(errp, "Cannot grow device files");
            return -ENOSPC;
        }
        return 0;
    }
    int ret = ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
    if (ret < 0) {
        error_set_errno(errp, ret, "Could not resize file");
    }
    return ret;
}

static bool create_file(const Graph *graph, const BlockdevCreateOptionsFile *o, GError **errp)
{
    PreallocMode mode = o->has_preallocation ? o->preallocation : PREALLOC_MODE_OFF;
    if (mode == PREALLOC_MODE_METADATA) {
        error_set(errp, "Unsupported preallocation mode: %s", PreallocMode_str(mode));
        return false;
    }
    if (o->size > INT64_MAX) {
        error_set(errp, "Image size is too large");
        return false;
    }
    int fd = open(o->filename, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
    if (fd < 0) {
        error_set_errno(errp, errno, "Could not create '%s'", o->filename);
        return false;
    }
    if (!file_may_create(graph, fd, errp)) {
        close(fd);
        return false;
    }
    int ret = set_file_size(fd, o->size, errp);
    if (ret == 0) {
        ret = preallocate(fd, o->size, mode);
        if (ret < 0) {
            /* what was reserved is given back: the file system is full, perhaps; nothing is
             * to be done about a device, or a failure of this */
            (void)!ftruncate(fd, 0);
            error_set_errno(errp, ret, "Could not preallocate data for the new file");
        }
    }
    close(fd);
    return ret == 0;
}

/* Open what @ref says, for writing; the caller owns the reference. */
static BlockNode *coroutine_fn open_target(Graph *graph, const BlockdevRef *ref,
                                           GError **errp)
{
    if (ref->type == JSON_STRING) {
        BlockNode *node = graph_lookup_node(graph, ref->u.reference, errp);
        if (node) {
            node_ref(node);
        }
        return node;
    }
    return node_co_open(graph, ref->u.definition, errp);
}

#define PREALLOCATE_PIECE (64 * MiB)
/* Space for [0, size) of @node, which reads as zeros there. 0 or -errno. */
static int coroutine_fn co_reserve_space(BlockNode *node, uint64_t size, PreallocMode mode)
{
    int ret = 0;
    for (uint64_t pos = 0; ret == 0 && pos < size; pos += PREALLOCATE_PIECE) {
        uint64_t len = min_u64(size - pos, PREALLOCATE_PIECE);
        ret = mode == PREALLOC_MODE_FULL ? node_co_write_zero_data(node, pos, len)
                                         : node_co_write_zeroes(node, pos, len, 0);
    }
    return ret < 0 ? ret : node_co_flush(node);
}

static bool coroutine_fn create_raw(BlockNode *file, const BlockdevCreateOptionsRaw *o,
                                    GError **errp)
{
    PreallocMode mode = o->has_preallocation ? o->preallocation : PREALLOC_MODE_OFF;
    if (mode == PREALLOC_MODE_METADATA) {
        error_set(errp, "Unsupported preallocation mode: %s", PreallocMode_str(mode));
        return false;
    }
    /* order: emptied first, for the old contents must not be the new disk's */
    if (node_grows_with_zeros(file) && !node_co_truncate(file, 0, errp)) {
        return false;
    }
    if (!node_co_truncate(file, o->size, errp)) {
        return false;
    }
    int ret = mode == PREALLOC_MODE_OFF ? 0 : co_reserve_space(file, o->size, mode);
    if (ret < 0) {
        error_set_errno(errp, ret, "Could not preallocate data for the new file");
    }
    return ret == 0;
}

/* The second part of creating a qcow2 image: through the driver, as any writer. */
static bool coroutine_fn preallocate_qcow2(BlockNode *file,
                                           const BlockdevCreateOptionsQcow2 *o, GError **errp)
{
    if (!o->has_preallocation || o->preallocation == PREALLOC_MODE_OFF) {
        return true;
    }
    BlockdevRef ref = {.type = JSON_STRING, .u.reference = file->name};
    BlockdevOptions options = {.driver = BLOCKDEV_DRIVER_QCOW2, .u.qcow2.file = &ref};
    BlockNode *image = node_co_open(file->graph, &options, errp);
    BlockPort *port = image ? port_co_new(image, PERM_WRITE | PERM_RESIZE, PERM_ALL, "create",
                                          NULL, NULL, errp)
                            : NULL;
    bool ok = port && qcow2_co_preallocate(image, o->preallocation, errp);
    port_co_free(port);
    node_co_unref(image);
    return ok;
}

bool coroutine_fn image_co_create(Graph *graph, const BlockdevCreateOptions *options,
                                  GError **errp)
{
    const BlockdevRef *ref;
    switch (options->driver) {
    case BLOCKDEV_DRIVER_FILE:
        return create_file(graph, &options->u.file, errp);
    case BLOCKDEV_DRIVER_RAW:
        ref = options->u.raw.file;
        break;
    case BLOCKDEV_DRIVER_QCOW2:
        ref = options->u.qcow2.file;
        break;
    default:
        error_set(errp, "Driver does not support blockdev-create");
        return false;
    }
    BlockNode *file = open_target(graph, ref, errp);
    if (!file) {
        return false;
    }
    BlockPort *port = port_co_new(file, PERM_WRITE | PERM_RESIZE, PERM_ALL, "create", NULL,
                                  NULL, errp);
    bool ok = port != NULL;
    if (ok && options->driver == BLOCKDEV_DRIVER_RAW) {
        ok = create_raw(file, &options->u.raw, errp);
    } else if (ok) {
        ok = qcow2_co_create_on(file, &options->u.qcow2, errp);
    }
    port_co_free(port);
    if (ok && options->driver == BLOCKDEV_DRIVER_QCOW2) {
        ok = preallocate_qcow2(file, &options->u.qcow2, errp);
    }
    node_co_unref(file);
    return ok;
}
