/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One disk operation in system calls, and what becomes of short results (disk.h, D2).
 * Runs on the loop's thread and on helper threads: it touches nothing but the operation.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "block/aio/disk-private.h"
#include "block/base/iov.h"

#define REST_IOV 64 /* pieces of a continued vector per system call */

int disk_op_fd(const DiskOp *op)
{
    return op->file->fd;
}

static int range_to_errno(int ret)
{
    return ret < 0 ? -errno : 0;
}

static int punch(const DiskOp *op)
{
    if (op->file->info.block_device) {
        /* BLKDISCARD promises nothing about what is read afterwards. */
        return fallocate(op->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         op->offset, op->len);
    }
    return fallocate(op->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, op->offset,
                     op->len);
}

static int zero_range(const DiskOp *op)
{
    int fd = op->file->fd;
    int ret = fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, op->offset,
                        op->len);
    if (ret < 0 && errno == EOPNOTSUPP && !op->file->info.block_device) {
        /* tmpfs: a hole reads as zeros as well */
        ret = punch(op);
    }
    return ret;
}

static int discard(const DiskOp *op)
{
    if (op->file->info.block_device) {
        uint64_t range[2] = {op->offset, op->len};
        return ioctl(op->file->fd, BLKDISCARD, range);
    }
    return punch(op);
}

static ssize_t attempt_rw(DiskOp *op, int rwf_flags)
{
    struct iovec rest[REST_IOV];
    const struct iovec *iov = op->iov;
    int niov = op->niov;
    off_t offset = (off_t)(op->offset + op->done_bytes);
    ssize_t n;

    if (op->done_bytes) {
        size_t left = op->len - op->done_bytes;
        while ((niov = iov_slice(op->iov, op->niov, op->done_bytes, left, rest,
                                 REST_IOV)) < 0) {
            left /= 2;
        }
        iov = rest;
    }
    if (op->type == DISK_READ) {
        if (rwf_flags) {
            n = preadv2(op->file->fd, iov, niov, offset, rwf_flags);
        } else if (niov == 1) {
            n = pread(op->file->fd, iov->iov_base, iov->iov_len, offset);
        } else {
            n = preadv(op->file->fd, iov, niov, offset);
        }
    } else if (rwf_flags || (op->flags & DISK_FUA)) {
        n = pwritev2(op->file->fd, iov, niov, offset,
                     rwf_flags | (op->flags & DISK_FUA ? RWF_DSYNC : 0));
        if (n < 0 && (errno == ENOSYS || errno == EOPNOTSUPP) && !rwf_flags) {
            n = pwritev(op->file->fd, iov, niov, offset);
            if (n >= 0 && fdatasync(op->file->fd) < 0) {
                n = -1;
            }
        }
    } else if (niov == 1) {
        n = pwrite(op->file->fd, iov->iov_base, iov->iov_len, offset);
    } else {
        n = pwritev(op->file->fd, iov, niov, offset);
    }
    return n < 0 ? -errno : n;
}

ssize_t disk_op_attempt(DiskOp *op, int rwf_flags)
{
    switch (op->type) {
    case DISK_READ:
    case DISK_WRITE:
        return attempt_rw(op, rwf_flags);
    case DISK_SYNC:
        return range_to_errno(fdatasync(op->file->fd));
    case DISK_ZERO:
        return range_to_errno(zero_range(op));
    case DISK_PUNCH:
        return range_to_errno(punch(op));
    case DISK_DISCARD:
        return range_to_errno(discard(op));
    case DISK_TRUNCATE:
        return range_to_errno(ftruncate(op->file->fd, (off_t)op->offset));
    }
    return -EINVAL;
}

/* A read came back short. At the end of the file as it is now the rest reads as zeros;
 * anywhere else something is wrong. */
static bool read_ended_short(DiskOp *op)
{
    int64_t size = disk_fd_size(op->file->fd);
    if (size >= 0 && op->offset + op->done_bytes >= (uint64_t)size) {
        iov_memset(op->iov, op->niov, op->done_bytes, 0, op->len - op->done_bytes);
        op->result = 0;
    } else {
        op->result = size < 0 ? (int)size : -EIO;
    }
    return true;
}

bool disk_op_progress(DiskOp *op, ssize_t res)
{
    if (res == -EINTR) {
        return false;
    }
    if (res < 0) {
        op->result = (int)(res == -EOPNOTSUPP ? -ENOTSUP : res);
        return true;
    }
    if (op->type != DISK_READ && op->type != DISK_WRITE) {
        op->result = 0;
        return true;
    }
    op->done_bytes += res;
    if (op->done_bytes >= op->len) {
        op->result = 0;
        return true;
    }
    if (op->type == DISK_WRITE) {
        if (res == 0) {
            op->result = -ENOSPC;
            return true;
        }
        return false;
    }
    uint32_t align = op->file->info.offset_align;
    if (res == 0 || (op->done_bytes & (align - 1))) {
        return read_ended_short(op);
    }
    return false;
}

int disk_op_rest(DiskOp *op, const struct iovec **ret_iov)
{
    *ret_iov = op->iov;
    return op->niov;
}
