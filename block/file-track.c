/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tracked files: overlap of writes on one file, bounce buffers and read-modify-write.
 * Main path first: aligned I/O goes straight to the disk; everything else is below it.
 */
#include "block/file-track.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "block/base/iov.h"
#include "block/base/math.h"

/* A bounce buffer never exceeds this; longer unaligned I/O goes in pieces. */
#define BOUNCE_MAX (1 * MiB)
#define TO_INFINITY ((uint64_t)INT64_MAX)

void tracked_file_init(TrackedFile *file, DiskFile *disk)
{
    file->disk = disk;
    file->info = *disk_file_info(disk);
    int64_t size = disk_file_size(disk);
    file->known_size = size < 0 ? 0 : (uint64_t)size;
    file->nb_exclusive = 0;
    file->nb_syncs = 0;
    file->sync_failed = false;
    list_init(&file->writes);
    list_init(&file->exclusives);
    co_queue_init(&file->changed, disk_file_loop(disk));
}

static bool overlaps_any(const ListLink *head, const TrackedWrite *self, uint64_t offset,
                         uint64_t len)
{
    list_foreach(it, head) {
        const TrackedWrite *other = container_of(it, TrackedWrite, link);
        if (other != self && ranges_overlap(offset, len, other->offset, other->len)) {
            return true;
        }
    }
    return false;
}

void coroutine_fn tracked_co_write_begin(TrackedFile *file, TrackedWrite *write,
                                         uint64_t offset, uint64_t len)
{
    while (overlaps_any(&file->exclusives, NULL, offset, len)) {
        co_queue_wait(&file->changed);
    }
    tracked_write_begin(file, write, offset, len);
}

void coroutine_fn tracked_co_exclusive_begin(TrackedFile *file, TrackedWrite *write,
                                             uint64_t offset, uint64_t len)
{
    while (overlaps_any(&file->exclusives, NULL, offset, len)) {
        co_queue_wait(&file->changed);
    }
    write->offset = offset;
    write->len = len;
    /* order: register first, so that no new write can slip in while we wait (F2) */
    list_append(&file->exclusives, &write->link);
    file->nb_exclusive++;
    while (overlaps_any(&file->writes, NULL, offset, len)) {
        co_queue_wait(&file->changed);
    }
}

void tracked_exclusive_end(TrackedFile *file, TrackedWrite *write)
{
    list_remove(&write->link);
    file->nb_exclusive--;
    co_queue_wake_all(&file->changed);
}

static bool is_aligned(const TrackedFile *file, uint64_t offset, uint64_t len,
                       const struct iovec *iov, int niov)
{
    uint32_t align = file->info.offset_align;
    return !((offset | len) & (align - 1)) && niov <= IOV_MAX &&
           (file->info.mem_align <= 1 || iov_is_aligned(iov, niov, file->info.mem_align));
}

static void *bounce_alloc(const TrackedFile *file, uint64_t len)
{
    return disk_buffer_try_alloc(max_u64(file->info.mem_align, 512), len);
}

static int coroutine_fn disk_co_buf(TrackedFile *file, DiskOpType type, uint64_t offset,
                                    uint64_t len, void *buf)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    return disk_co_run(file->disk, type, offset, len, &iov, 1, 0);
}

int coroutine_fn tracked_co_read(TrackedFile *file, uint64_t offset, uint64_t len,
                                 const struct iovec *iov, int niov)
{
    if (is_aligned(file, offset, len, iov, niov)) {
        return disk_co_run(file->disk, DISK_READ, offset, len, iov, niov, 0);
    }
    uint32_t align = file->info.offset_align;
    uint64_t start = round_down(offset, align);
    uint64_t end = round_up(offset + len, align);
    uint64_t piece_max = min_u64(end - start, BOUNCE_MAX);
    uint8_t *bounce = bounce_alloc(file, piece_max);
    if (!bounce) {
        return -ENOMEM;
    }
    int ret = 0;
    for (uint64_t pos = start; pos < end && ret == 0; pos += piece_max) {
        uint64_t piece = min_u64(piece_max, end - pos);
        ret = disk_co_buf(file, DISK_READ, pos, piece, bounce);
        if (ret == 0) {
            uint64_t from = max_u64(pos, offset);
            uint64_t to = min_u64(pos + piece, offset + len);
            iov_from_buf(iov, niov, from - offset, bounce + (from - pos), to - from);
        }
    }
    disk_buffer_free(bounce);
    return ret;
}

static void note_size(TrackedFile *file, uint64_t end)
{
    if (end > file->known_size) {
        file->known_size = end;
    }
}

/* One piece of an unaligned write; the caller holds its range exclusively. */
static int coroutine_fn rmw_piece(TrackedFile *file, uint8_t *bounce, uint64_t start,
                                  uint64_t end, uint64_t offset, uint64_t len,
                                  const struct iovec *iov, int niov)
{
    uint32_t align = file->info.offset_align;
    uint64_t from = max_u64(start, offset);
    uint64_t to = min_u64(end, offset + len);
    int ret = 0;

    if (from > start) {
        ret = disk_co_buf(file, DISK_READ, start, align, bounce);
    }
    uint64_t last = end - align;
    if (ret == 0 && to < end && (from == start || last > start)) {
        ret = disk_co_buf(file, DISK_READ, last, align, bounce + (last - start));
    }
    if (ret < 0) {
        return ret;
    }
    iov_to_buf(iov, niov, from - offset, bounce + (from - start), to - from);
    return disk_co_buf(file, DISK_WRITE, start, end - start, bounce);
}

/* Make [@start, @end) exclusive, and everything behind it when @end lies behind the end of
 * the file (F3). True in that case. */
static bool coroutine_fn co_begin_unaligned(TrackedFile *file, TrackedWrite *range,
                                            uint64_t start, uint64_t end)
{
    bool past_end = end > file->known_size;

    tracked_co_exclusive_begin(file, range, start,
                               (past_end ? TO_INFINITY : end) - start);
    if (!past_end && end > file->known_size) { /* cut while we waited */
        tracked_exclusive_end(file, range);
        past_end = true;
        tracked_co_exclusive_begin(file, range, start, TO_INFINITY - start);
    }
    return past_end && !file->info.block_device;
}

/* Where the file ends when [@offset, @end) has been written. Exclusive up to infinity, so
 * that no write of ours that is not yet in known_size runs; another program's growth is
 * seen by looking. */
static uint64_t end_with(const TrackedFile *file, uint64_t end)
{
    int64_t size = disk_file_size(file->disk);

    return max_u64(max_u64(file->known_size, size < 0 ? 0 : (uint64_t)size), end);
}

static int coroutine_fn write_unaligned(TrackedFile *file, uint64_t offset, uint64_t len,
                                        const struct iovec *iov, int niov)
{
    uint32_t align = file->info.offset_align;
    uint64_t start = round_down(offset, align);
    uint64_t end = round_up(offset + len, align);
    uint64_t piece_max = min_u64(end - start, BOUNCE_MAX);
    uint8_t *bounce = bounce_alloc(file, piece_max);
    if (!bounce) {
        return -ENOMEM;
    }
    TrackedWrite range;
    bool past_end = co_begin_unaligned(file, &range, start, end);
    uint64_t true_end = past_end ? end_with(file, offset + len) : end;
    int ret = 0;
    for (uint64_t pos = start; pos < end && ret == 0; pos += piece_max) {
        ret = rmw_piece(file, bounce, pos, min_u64(pos + piece_max, end), offset, len,
                        iov, niov);
    }
    if (ret == 0 && end > true_end) {
        /* The block-sized write went past the end of the file: put the end back. */
        ret = disk_co_run(file->disk, DISK_TRUNCATE, true_end, 0, NULL, 0, 0);
    }
    if (ret == 0) { /* before the next may look */
        note_size(file, offset + len);
    }
    tracked_exclusive_end(file, &range);
    disk_buffer_free(bounce);
    return ret;
}

int coroutine_fn tracked_co_write(TrackedFile *file, uint64_t offset, uint64_t len,
                                  const struct iovec *iov, int niov)
{
    int ret;
    if (is_aligned(file, offset, len, iov, niov)) {
        TrackedWrite write;
        tracked_co_write_begin(file, &write, offset, len);
        ret = disk_co_run(file->disk, DISK_WRITE, offset, len, iov, niov, 0);
        if (ret == 0) {
            note_size(file, offset + len);
        }
        tracked_write_end(file, &write);
    } else {
        ret = write_unaligned(file, offset, len, iov, niov);
    }
    return ret;
}

int coroutine_fn tracked_co_range(TrackedFile *file, DiskOpType type, uint64_t offset,
                                  uint64_t len)
{
    TrackedWrite write;
    tracked_co_write_begin(file, &write, offset, len);
    int ret = disk_co_run(file->disk, type, offset, len, NULL, 0, 0);
    tracked_write_end(file, &write);
    return ret;
}

int coroutine_fn tracked_co_truncate(TrackedFile *file, uint64_t size)
{
    TrackedWrite write;
    uint64_t start = min_u64(size, file->known_size);
    tracked_co_write_begin(file, &write, start, TO_INFINITY - start);
    int ret = disk_co_run(file->disk, DISK_TRUNCATE, size, 0, NULL, 0, 0);
    if (ret == 0) {
        file->known_size = size;
    }
    tracked_write_end(file, &write);
    return ret;
}
