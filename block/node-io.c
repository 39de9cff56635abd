/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The coroutine path: the same walk by map as resolve.c, with loads between, one extent
 * after the other.  It is iterative: a chain of thirty backing files is a loop of thirty
 * look-ups, and a driver's own co_read/co_write never goes down a chain.
 */
#include <errno.h>

#include "block/base/error.h"
#include "block/base/iov.h"
#include "block/graph-private.h"

/* Pieces of a vector that one step may consist of; more are taken in several steps. */
#define STEP_IOV 64

/* Where the walk stands: the part of the request that starts at @skip. */
typedef struct Step {
    BlockNode *node;
    MapResult map;
    uint64_t offset, len; /* in node */
} Step;

/* Data is read or written through @node's map. */
static void coroutine_fn tell_data(BlockNode *node, const BlockNode *child, MapOp op)
{
    if (node->drv->debug || op == MAP_OP_STATUS) {
        return;
    }
    node_co_event(node->file_child, op == MAP_OP_WRITE ? BLKDEBUG_EVENT_WRITE_AIO
                                    : child == node->backing_child
                                        ? BLKDEBUG_EVENT_READ_BACKING_AIO
                                        : BLKDEBUG_EVENT_READ_AIO);
}

/* Walk to the end of the first extent, loading what is missing. 0 or -errno. */
static int coroutine_fn co_walk(Step *step, BlockNode *node, MapOp op, uint64_t offset,
                                uint64_t len, unsigned flags)
{
    for (;;) {
        node->drv->map(node, op, offset, len, &step->map);
        switch (step->map.kind) {
        case MAP_CHILD:
            if (G_UNLIKELY(node->watched)) {
                tell_data(node, step->map.child, op);
            }
            node = step->map.child;
            offset = step->map.offset;
            len = step->map.len;
            if (op == MAP_OP_WRITE && node->detect_zeroes) { /* it looks at the data first */
                step->node = node;
                step->offset = offset;
                step->len = len;
                return 0;
            }
            continue;
        case MAP_MISS: {
            int ret = node->drv->co_load(node, offset, len, flags);
            if (ret < 0) {
                return ret;
            }
            continue;
        }
        case MAP_ERROR:
            return -EIO;
        default:
            step->node = node;
            step->offset = offset;
            step->len = step->map.len;
            return 0;
        }
    }
}

static int coroutine_fn co_read_step(const Step *step, const struct iovec *iov, int niov,
                                     unsigned flags)
{
    switch (step->map.kind) {
    case MAP_FILE:
        return tracked_co_read(step->map.file, step->map.offset, step->len, iov, niov);
    case MAP_ZERO:
        iov_memset(iov, niov, 0, 0, step->len);
        return 0;
    case MAP_DONE:
        return 0;
    default:
        return step->node->drv->co_read(step->node, step->offset, step->len, iov, niov,
                                        flags);
    }
}

static int coroutine_fn co_write_step(const Step *step, const struct iovec *iov, int niov,
                                      unsigned flags)
{
    switch (step->map.kind) {
    case MAP_FILE:
        return tracked_co_write(step->map.file, step->map.offset, step->len, iov, niov);
    case MAP_DONE:
        return 0;
    case MAP_CHILD:
        return node_co_write(step->node, step->offset, step->len, iov, niov, flags);
    default:
        return step->node->drv->co_write(step->node, step->offset, step->len, iov, niov,
                                         flags);
    }
}

/* The vector's part for this step; shortens the step when it has too many pieces. */
static int step_iov(Step *step, const struct iovec *iov, int niov, uint64_t skip,
                    uint64_t total, struct iovec *slice, const struct iovec **ret_iov)
{
    if (skip == 0 && step->len == total &&
        (niov <= STEP_IOV || step->map.kind == MAP_FILE)) {
        *ret_iov = iov;
        return niov;
    }
    int n;
    while ((n = iov_slice(iov, niov, skip, step->len, slice, STEP_IOV)) < 0) {
        step->len = max_u64(step->len / 2, 1);
    }
    *ret_iov = slice;
    return n;
}

static int coroutine_fn co_rw(BlockNode *node, MapOp op, uint64_t offset, uint64_t len,
                              const struct iovec *iov, int niov, unsigned flags)
{
    struct iovec slice[STEP_IOV];
    uint64_t done = 0;

    while (done < len) {
        Step step;
        int ret = co_walk(&step, node, op, offset + done, len - done, flags);
        if (ret < 0) {
            return ret;
        }
        const struct iovec *part;
        int n = step_iov(&step, iov, niov, done, len, slice, &part);
        ret = op == MAP_OP_WRITE ? co_write_step(&step, part, n, flags)
                                 : co_read_step(&step, part, n, flags);
        if (ret == MAP_AGAIN) {
            continue;
        }
        if (ret < 0) {
            return ret;
        }
        done += step.len;
    }
    return 0;
}

int coroutine_fn node_co_read(BlockNode *node, uint64_t offset, uint64_t len,
                              const struct iovec *iov, int niov, unsigned flags)
{
    MapOp op = flags & BLOCK_NO_PROMOTE ? MAP_OP_SCAN : MAP_OP_READ;
    return co_rw(node, op, offset, len, iov, niov, flags);
}

int coroutine_fn node_co_write_data(BlockNode *node, uint64_t offset, uint64_t len,
                                    const struct iovec *iov, int niov, unsigned flags)
{
    return co_rw(node, MAP_OP_WRITE, offset, len, iov, niov, flags);
}

static bool iov_all_zero(const struct iovec *iov, int niov)
{
    for (int i = 0; i < niov; i++) {
        if (!buffer_is_zero(iov[i].iov_base, iov[i].iov_len)) {
            return false;
        }
    }
    return true;
}

int coroutine_fn node_co_write(BlockNode *node, uint64_t offset, uint64_t len,
                               const struct iovec *iov, int niov, unsigned flags)
{
    if (node->detect_zeroes != BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF &&
        iov_all_zero(iov, niov)) {
        bool unmap = node->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP;
        return node_co_write_zeroes(node, offset, len,
                                    flags | (unmap ? BLOCK_MAY_UNMAP : 0));
    }
    /* What RWF_DSYNC alone would make durable went the direct path (resolve.c). */
    int ret = co_rw(node, MAP_OP_WRITE, offset, len, iov, niov, flags & ~BLOCK_FUA);
    if (ret == 0 && (flags & BLOCK_FUA)) {
        ret = node_co_flush(node);
    }
    return ret;
}

int coroutine_fn node_co_read_buf(BlockNode *node, uint64_t offset, uint64_t len,
                                  void *buf)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    return node_co_read(node, offset, len, &iov, 1, 0);
}

int coroutine_fn node_co_write_buf(BlockNode *node, uint64_t offset, uint64_t len,
                                   const void *buf, unsigned flags)
{
    struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};
    return node_co_write(node, offset, len, &iov, 1, flags);
}

/* Zeros written out, for storage that has no better way. */
#define ZERO_PIECE (128 * KiB)

int coroutine_fn node_co_write_zero_data(BlockNode *node, uint64_t offset, uint64_t len)
{
    uint64_t piece_max = min_u64(len, ZERO_PIECE);
    void *zeros = disk_buffer_try_alloc(4096, round_up(piece_max, 4096));
    if (!zeros) {
        return -ENOMEM;
    }
    memset(zeros, 0, piece_max);
    int ret = 0;
    for (uint64_t done = 0; done < len && ret == 0;) {
        uint64_t piece = min_u64(piece_max, len - done);
        struct iovec iov = {.iov_base = zeros, .iov_len = piece};
        ret = co_rw(node, MAP_OP_WRITE, offset + done, piece, &iov, 1, 0);
        done += piece;
    }
    disk_buffer_free(zeros);
    return ret;
}

int coroutine_fn node_co_write_zeroes(BlockNode *node, uint64_t offset, uint64_t len,
                                      unsigned flags)
{
    if (len == 0) {
        return 0;
    }
    if (!node->discard_unmap) {
        flags &= ~BLOCK_MAY_UNMAP;
    }
    int ret = -ENOTSUP;
    if (node->drv->co_write_zeroes) {
        ret = node->drv->co_write_zeroes(node, offset, len, flags);
    }
    if (ret == -ENOTSUP && !(flags & BLOCK_NO_FALLBACK)) {
        ret = node_co_write_zero_data(node, offset, len);
    }
    if (ret == 0 && (flags & BLOCK_FUA)) {
        ret = node_co_flush(node);
    }
    return ret;
}

int coroutine_fn node_co_discard(BlockNode *node, uint64_t offset, uint64_t len)
{
    if (len == 0 || !node->discard_unmap || !node->drv->co_discard) {
        return 0; /* a hint */
    }
    int ret = node->drv->co_discard(node, offset, len);
    return ret == -ENOTSUP ? 0 : ret;
}

int coroutine_fn node_co_flush(BlockNode *node)
{
    node_co_event(node, node->drv->debug ? BLKDEBUG_EVENT_FLUSH_TO_DISK
                                         : BLKDEBUG_EVENT_FLUSH_TO_OS);
    return node->drv->co_flush ? node->drv->co_flush(node) : 0;
}

bool coroutine_fn node_co_truncate(BlockNode *node, uint64_t size, GError **errp)
{
    if (!node->drv->co_truncate) {
        error_set(errp, "Image format driver does not support resize");
        return false;
    }
    return node->drv->co_truncate(node, size, errp);
}

/* ---- status ---- */

/* Turn a map answer of one layer into an extent. */
static void extent_from_map(BlockNode *node, const MapResult *map, BlockExtent *ret)
{
    ret->len = map->len;
    ret->flags = map->extent_flags;
    ret->node = node;
    switch (map->kind) {
    case MAP_ZERO:
        ret->flags |= EXTENT_ZERO;
        if (ret->flags & EXTENT_OFFSET) { /* zeros with a place reserved for data */
            ret->host_offset = map->offset;
            ret->file = node->file_child ? node->file_child : node;
        }
        break;
    case MAP_CHILD:
        if (map->child == node->file_child) {
            ret->flags |= EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET;
            ret->host_offset = map->offset;
            ret->file = map->child;
        }
        break;
    case MAP_FILE:
        ret->flags |= EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET;
        ret->host_offset = map->offset;
        ret->file = node;
        break;
    default: /* compressed: data, but at no plain offset */
        ret->flags |= EXTENT_DATA | EXTENT_ALLOCATED;
        break;
    }
}

int coroutine_fn node_co_status(BlockNode *node, uint64_t offset, uint64_t len,
                                BlockExtent *ret)
{
    MapResult map;

    *ret = (BlockExtent){.len = len, .node = node};
    if (offset >= node->length) {
        ret->flags = EXTENT_EOF | EXTENT_ZERO;
        return 0;
    }
    len = min_u64(len, node->length - offset);
    if (node->drv->co_status) {
        int status = node->drv->co_status(node, offset, len, ret);
        if (status == 0 && offset + ret->len == node->length) {
            ret->flags |= EXTENT_EOF;
        }
        return status;
    }
    for (;;) {
        map.extent_flags = 0;
        node->drv->map(node, MAP_OP_STATUS, offset, len, &map);
        if (map.kind == MAP_ERROR) {
            return -EIO;
        }
        if (map.kind != MAP_MISS) {
            break;
        }
        int loaded = node->drv->co_load(node, offset, len, BLOCK_NO_PROMOTE);
        if (loaded < 0) {
            return loaded;
        }
    }
    extent_from_map(node, &map, ret);
    if (offset + ret->len == node->length) {
        ret->flags |= EXTENT_EOF;
    }
    return 0;
}

int coroutine_fn node_co_status_above(BlockNode *node, uint64_t offset, uint64_t len,
                                      BlockExtent *ret)
{
    int depth = 0;
    for (;;) {
        int status = node_co_status(node, offset, len, ret);
        if (status < 0) {
            return status;
        }
        ret->depth = depth;
        if (ret->flags & (EXTENT_ALLOCATED | EXTENT_DATA)) {
            return 0;
        }
        BlockNode *backing = node->backing_child;
        if (!backing) {
            ret->flags |= EXTENT_ZERO;
            return 0;
        }
        len = ret->len;
        if (offset >= backing->length) {
            /* Past the end of a shorter backing file: zero, and this layer says so. */
            ret->flags = EXTENT_ZERO | (ret->flags & EXTENT_EOF);
            return 0;
        }
        len = min_u64(len, backing->length - offset);
        node = backing;
        depth++;
    }
}

/* The end of the walk down the layers for the bytes at @offset: MAP_ZERO or where data may
 * be, for map->len bytes. */
static int coroutine_fn walk_for_status(BlockNode *node, uint64_t offset, uint64_t len,
                                        MapResult *map)
{
    while (offset < node->length) {
        len = min_u64(len, node->length - offset);
        map->extent_flags = 0;
        node->drv->map(node, MAP_OP_STATUS, offset, len, map);
        if (map->kind == MAP_MISS) {
            int ret = node->drv->co_load(node, offset, len, BLOCK_NO_PROMOTE);
            if (ret < 0) {
                return ret;
            }
        } else if (map->kind == MAP_CHILD && map->child != node->file_child) {
            node = map->child; /* a layer below */
            offset = map->offset;
            len = map->len;
        } else {
            return map->kind == MAP_ERROR ? -EIO : 0;
        }
    }
    map->kind = MAP_ZERO; /* behind the end of a shorter layer */
    map->len = len;
    return 0;
}

int coroutine_fn node_co_known_zero(BlockNode *node, uint64_t offset, uint64_t len,
                                    uint64_t *ret_len)
{
    uint64_t done = 0;
    int ret = 0;

    while (done < len) {
        MapResult map;
        ret = walk_for_status(node, offset + done, len - done, &map);
        if (ret < 0 || map.kind != MAP_ZERO) {
            break;
        }
        done += map.len;
    }
    *ret_len = done;
    return ret;
}

bool node_grows_with_zeros(const BlockNode *node)
{
    while (node->drv->is_filter && node->file_child) {
        node = node->file_child;
    }
    return node->drv->grows_with_zeros && node->drv->grows_with_zeros(node);
}

bool node_new_image_is_zero(const BlockNode *node)
{
    if (node->drv->is_format && node->drv->supports_backing) {
        return node->backing_child == NULL;
    }
    return node_grows_with_zeros(node);
}
