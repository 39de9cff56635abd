/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * file and host_device: regular files and block devices, I/O part.
 *
 * Everything that moves data goes by map to the tracked file (resolve.c, node-io.c); here
 * is what has no data: flush, zero, discard, truncate, status.
 */
#include "block/break.h"
#include "block/driver/file.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/base/ablate.h"
#include "block/base/error.h"

static void coroutine_fn file_co_close(BlockNode *node)
{
    FileState *s = node->state;
    file_unlock(disk_file_fd(s->tracked.disk));
    disk_file_free(s->tracked.disk);
    g_free(s->path);
    g_free(s);
}

static void file_map(BlockNode *node, MapOp op, uint64_t offset, uint64_t len,
                     MapResult *ret)
{
    FileState *s = node->state;
    ret->kind = MAP_FILE;
    ret->file = &s->tracked;
    ret->offset = offset;
    ret->len = len;
    ret->extent_flags = 0;
}

static int coroutine_fn sync_run(void *opaque)
{
    FileState *s = opaque;

    if (s->tracked.sync_failed && !BROKEN(BREAK_Q13_SYNC)) {
        return -EIO;
    }
    s->tracked.nb_syncs++;
    int ret = disk_co_run(s->tracked.disk, DISK_SYNC, 0, 0, NULL, 0, 0);
    return tracked_sync_ended(&s->tracked, ret);
}

static int coroutine_fn file_co_flush(BlockNode *node)
{
    FileState *s = node->state;
    if (node->cache_no_flush || !s->opened_rw) {
        return 0;
    }
    return ablated(ABLATE_GROUP_COMMIT) ? co_group_alone(&s->syncs, sync_run, s)
                                        : co_group_join(&s->syncs, sync_run, s);
}

static bool range_is_aligned(const FileState *s, uint64_t offset, uint64_t len)
{
    uint32_t align = s->tracked.info.block_device
                         ? MAX(s->tracked.info.offset_align, 512)
                         : 1;
    return !((offset | len) & (align - 1));
}

static int coroutine_fn file_co_write_zeroes(BlockNode *node, uint64_t offset,
                                             uint64_t len, unsigned flags)
{
    FileState *s = node->state;
    if (!range_is_aligned(s, offset, len)) {
        return -ENOTSUP;
    }
    if (flags & BLOCK_MAY_UNMAP) {
        int ret = tracked_co_range(&s->tracked, DISK_PUNCH, offset, len);
        if (ret != -ENOTSUP) {
            return ret;
        }
    }
    return tracked_co_range(&s->tracked, DISK_ZERO, offset, len);
}

static int coroutine_fn file_co_discard(BlockNode *node, uint64_t offset, uint64_t len)
{
    FileState *s = node->state;
    if (s->tracked.info.block_device) { /* only whole blocks; a hint may shrink */
        uint32_t align = MAX(s->tracked.info.offset_align, 512);
        uint64_t end = round_down(offset + len, align);
        offset = round_up(offset, align);
        if (end <= offset) {
            return 0;
        }
        len = end - offset;
    }
    return tracked_co_range(&s->tracked, DISK_DISCARD, offset, len);
}

static bool coroutine_fn file_co_truncate(BlockNode *node, uint64_t size, GError **errp)
{
    FileState *s = node->state;
    if (s->tracked.info.block_device) {
        int64_t now = disk_file_size(s->tracked.disk);
        if (now < 0 || size > (uint64_t)now) {
            error_set(errp, "Cannot grow device files");
            return false;
        }
        return true;
    }
    int ret = tracked_co_truncate(&s->tracked, size);
    if (ret < 0) {
        error_set_errno(errp, ret, "Could not resize file");
        return false;
    }
    node_set_length(node, round_up(size, 512));
    return true;
}

static int64_t file_refresh_length(BlockNode *node)
{
    FileState *s = node->state;
    int64_t size = disk_file_size(s->tracked.disk);
    if (size < 0) {
        return size;
    }
    s->tracked.known_size = (uint64_t)size;
    return (int64_t)round_up((uint64_t)size, 512);
}

/* lseek(2) SEEK_DATA and SEEK_HOLE: holes read as zeros. Everything is data where the
 * file cannot tell. */
static void seek_extent(int fd, uint64_t offset, uint64_t len, BlockExtent *ret)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno != ENXIO) {
        return;
    }
    if (data < 0 || (uint64_t)data > offset) { /* in a hole; ENXIO: up to the end */
        ret->flags = (ret->flags & ~EXTENT_DATA) | EXTENT_ZERO;
        ret->len = data < 0 ? len : min_u64(len, (uint64_t)data - offset);
        return;
    }
    off_t hole = lseek(fd, (off_t)offset, SEEK_HOLE);
    if (hole > (off_t)offset) {
        ret->len = min_u64(len, (uint64_t)hole - offset);
        /* The last sector of an unaligned file counts as data. */
        uint64_t rounded = round_up(offset + ret->len, 512) - offset;
        ret->len = min_u64(len, rounded);
    }
}

static int coroutine_fn file_co_status(BlockNode *node, uint64_t offset, uint64_t len,
                                       BlockExtent *ret)
{
    FileState *s = node->state;
    int fd = disk_file_fd(s->tracked.disk);
    *ret = (BlockExtent){
        .len = len,
        .host_offset = offset,
        .file = node,
        .node = node,
        .flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET,
    };
    if (fd >= 0 && !s->tracked.info.block_device) {
        seek_extent(fd, offset, len, ret);
    }
    return 0;
}

static bool file_grows_with_zeros(const BlockNode *node)
{
    const FileState *s = node->state;
    return !s->tracked.info.block_device;
}

static int64_t file_allocated_size(BlockNode *node)
{
    FileState *s = node->state;
    struct stat st;
    int fd = disk_file_fd(s->tracked.disk);
    if (fd < 0) {
        return disk_file_size(s->tracked.disk);
    }
    return fstat(fd, &st) < 0 ? -errno : st.st_blocks * INT64_C(512);
}

/* A plain name says it, but inside of a json: name it has to stand. */
static bool file_name_options(const BlockNode *node, JsonValue *options)
{
    json_object_set_string(options, "filename", node->filename);
    return false;
}

#define FILE_DRIVER(var, text, id)                                                     \
    const BlockDriver var = {                                                          \
        .name = text,                                                                  \
        .qapi_id = id,                                                                 \
        .needs_filename = true,                                                        \
        .co_open = file_co_open,                                                       \
        .co_close = file_co_close,                                                     \
        .map = file_map,                                                               \
        .co_write_zeroes = file_co_write_zeroes,                                       \
        .co_discard = file_co_discard,                                                 \
        .co_flush = file_co_flush,                                                     \
        .co_status = file_co_status,                                                   \
        .co_truncate = file_co_truncate,                                               \
        .co_set_writing = file_co_set_writing,                                         \
        .grows_with_zeros = file_grows_with_zeros,                                     \
        .allocated_size = file_allocated_size,                                         \
        .refresh_length = file_refresh_length,                                         \
        .name_options = file_name_options,                                             \
        .child_perm = filter_child_perm,                                               \
    }

FILE_DRIVER(driver_file, "file", BLOCKDEV_DRIVER_FILE);
FILE_DRIVER(driver_host_device, "host_device", BLOCKDEV_DRIVER_HOST_DEVICE);
