/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One disk operation in system calls, and what becomes of short results (disk.h, D2).
 * Runs on the loop's thread and on helper threads: it touches nothing but the operation.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "block/aio/disk-private.h"
#include "block/base/iov.h"
#include "block/base/math.h"

/* In a row, of a read in a file that grows; then something else is wrong. */
#define MAX_STALLS 32

int disk_op_fd(const DiskOp *op)
{
    return op->file->fd;
}

static int range_to_errno(int ret)
{
    return ret < 0 ? -errno : 0;
}

/* On a block device too: the kernel punches only if zeros are read afterwards, which
 * BLKDISCARD does not promise. */
static int punch(const DiskOp *op)
{
    return fallocate(op->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, op->offset,
                     op->len);
}

static int zero_range(const DiskOp *op)
{
    int fd = op->file->fd;
    int ret = fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, op->offset,
                        op->len);
    if (ret < 0 && errno == EOPNOTSUPP && !op->file->info.block_device) {
        /* tmpfs: a hole reads as zeros as well, but who did not ask for a hole gets the
         * blocks back, so that a full file system shows here */
        ret = punch(op);
        if (ret == 0) {
            ret = fallocate(fd, FALLOC_FL_KEEP_SIZE, op->offset, op->len);
        }
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

void disk_op_piece(const DiskOp *op, DiskPiece *piece)
{
    uint64_t skip = op->done_bytes;
    int i = 0;

    while (skip && skip >= op->iov[i].iov_len) {
        skip -= op->iov[i++].iov_len;
    }
    piece->offset = (off_t)(op->offset + op->done_bytes);
    if (skip) {
        piece->one.iov_base = (char *)op->iov[i].iov_base + skip;
        piece->one.iov_len = op->iov[i].iov_len - skip;
        piece->iov = &piece->one;
        piece->niov = 1;
    } else {
        piece->iov = op->iov + i;
        piece->niov = MIN(op->niov - i, IOV_MAX);
    }
}

static ssize_t attempt_read(DiskOp *op, const DiskPiece *p, int rwf_flags)
{
    int fd = op->file->fd;

    if (rwf_flags) {
        return preadv2(fd, p->iov, p->niov, p->offset, rwf_flags);
    }
    return p->niov == 1 ? pread(fd, p->iov->iov_base, p->iov->iov_len, p->offset)
                        : preadv(fd, p->iov, p->niov, p->offset);
}

static ssize_t attempt_write(DiskOp *op, const DiskPiece *p)
{
    int fd = op->file->fd;
    ssize_t n;

    if (!(op->flags & DISK_FUA)) {
        return p->niov == 1 ? pwrite(fd, p->iov->iov_base, p->iov->iov_len, p->offset)
                            : pwritev(fd, p->iov, p->niov, p->offset);
    }
    n = pwritev2(fd, p->iov, p->niov, p->offset, RWF_DSYNC);
    if (n < 0 && (errno == ENOSYS || errno == EOPNOTSUPP)) {
        n = pwritev(fd, p->iov, p->niov, p->offset);
        if (n >= 0 && fdatasync(fd) < 0) {
            n = -1;
        }
    }
    return n;
}

static ssize_t attempt_rw(DiskOp *op, int rwf_flags)
{
    DiskPiece piece;
    ssize_t n;

    disk_op_piece(op, &piece);
    n = op->type == DISK_READ ? attempt_read(op, &piece, rwf_flags)
                              : attempt_write(op, &piece);
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

/* A read came back short, after @before bytes that had been read already. At the end of the
 * file as it is now the rest reads as zeros. Where the file goes on, it has grown since:
 * the read goes on as well, from the last place whence one may read. */
static bool read_ended_short(DiskOp *op, uint64_t before)
{
    int64_t size = disk_fd_size(op->file->fd);
    if (size < 0) {
        op->result = (int)size;
        return true;
    }
    if (op->offset + op->done_bytes >= (uint64_t)size) {
        iov_memset(op->iov, op->niov, op->done_bytes, 0, op->len - op->done_bytes);
        op->result = 0;
        return true;
    }
    op->done_bytes = round_down(op->done_bytes, op->file->info.offset_align);
    if (op->done_bytes > before) {
        op->nb_stalls = 0;
    } else if (++op->nb_stalls > MAX_STALLS) {
        op->result = -EIO; /* its size is one thing, and what can be read another */
        return true;
    }
    return false;
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
    uint64_t before = op->done_bytes;
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
        return read_ended_short(op, before);
    }
    op->nb_stalls = 0;
    return false;
}
