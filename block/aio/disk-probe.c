/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What kind of file is this?  Size, alignment of O_DIRECT, and whether I/O on it can be
 * asynchronous at all.
 *
 * Alignment comes from statx(STATX_DIOALIGN) (kernel 6.1), else from trial reads: the
 * smallest power of two that works.  tmpfs answers neither zero nor an error to statx but
 * nothing at all, and takes any alignment.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "block/aio/disk-private.h"
#include "block/base/error.h"

#define PROBE_MAX 4096u

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x00002000U
#endif

/* spec: statx(2); glibc 2.36 has the syscall but not these two members by name. */
typedef struct StatxDio {
    uint8_t before[0x98];
    uint32_t mem_align;
    uint32_t offset_align;
    uint8_t after[0x100 - 0xa0];
} StatxDio;
_Static_assert(sizeof(StatxDio) == sizeof(struct statx), "struct statx is 256 bytes");

int64_t disk_fd_size(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    if (S_ISBLK(st.st_mode)) {
        uint64_t bytes;
        return ioctl(fd, BLKGETSIZE64, &bytes) < 0 ? -errno : (int64_t)bytes;
    }
    return st.st_size;
}

static bool statx_align(int fd, uint32_t *ret_mem, uint32_t *ret_offset)
{
    union {
        struct statx stx;
        StatxDio dio;
    } buf;
    memset(&buf, 0, sizeof(buf));
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &buf.stx) < 0 ||
        !(buf.stx.stx_mask & STATX_DIOALIGN) || !buf.dio.offset_align) {
        return false;
    }
    *ret_mem = buf.dio.mem_align;
    *ret_offset = buf.dio.offset_align;
    return true;
}

/* Does a read of @len bytes at 0 into @buf satisfy O_DIRECT?  An empty file says yes. */
static bool trial_read(int fd, void *buf, size_t len)
{
    ssize_t n;
    do {
        n = pread(fd, buf, len, 0);
    } while (n < 0 && errno == EINTR);
    return n >= 0;
}

static bool trial_align(int fd, uint32_t *ret_mem, uint32_t *ret_offset)
{
    uint8_t *buf = disk_buffer_try_alloc(PROBE_MAX, 2 * PROBE_MAX);
    bool found = false;
    if (!buf) {
        return false;
    }
    memset(buf, 0, 2 * PROBE_MAX); /* contract: zero-filled probe buffers */
    for (uint32_t align = 512; align <= PROBE_MAX && !found; align *= 2) {
        if (trial_read(fd, buf, align)) {
            *ret_offset = align;
            found = true;
        }
    }
    *ret_mem = PROBE_MAX;
    for (uint32_t align = 512; found && align <= PROBE_MAX; align *= 2) {
        if (trial_read(fd, buf + align, PROBE_MAX)) {
            *ret_mem = align;
            break;
        }
    }
    disk_buffer_free(buf);
    return found;
}

/* RWF_NOWAIT refused means: this file's I/O is synchronous by nature. */
static bool probe_sync(int fd)
{
    struct iovec iov;
    uint8_t *buf = disk_buffer_try_alloc(PROBE_MAX, PROBE_MAX);
    if (!buf) {
        return false;
    }
    iov.iov_base = buf;
    iov.iov_len = PROBE_MAX;
    ssize_t n = preadv2(fd, &iov, 1, 0, RWF_NOWAIT);
    bool sync = n < 0 && errno == EOPNOTSUPP;
    disk_buffer_free(buf);
    return sync;
}

bool disk_probe(DiskFile *file, const char *name, GError **errp)
{
    DiskFileInfo *info = &file->info;
    struct stat st;
    int flags = fcntl(file->fd, F_GETFL);

    if (flags < 0 || fstat(file->fd, &st) < 0) {
        error_set_errno(errp, errno, "Could not stat '%s'", name);
        return false;
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        error_set(errp, "'%s' is neither a regular file nor a block device", name);
        return false;
    }
    info->block_device = S_ISBLK(st.st_mode);
    info->direct = flags & O_DIRECT;
    info->writable = (flags & O_ACCMODE) != O_RDONLY;
    info->dev = st.st_dev;
    info->inode = st.st_ino;
    info->max_transfer = UINT64_C(1) << 30;
    info->mem_align = info->offset_align = 1;
    if (info->direct && !statx_align(file->fd, &info->mem_align, &info->offset_align) &&
        !trial_align(file->fd, &info->mem_align, &info->offset_align)) {
        error_set(errp, "Could not find working O_DIRECT alignment for '%s'", name);
        return false;
    }
    if (info->direct && info->offset_align < 512) {
        info->offset_align = 512;
    }
    info->sync_by_nature = probe_sync(file->fd);
    return true;
}
