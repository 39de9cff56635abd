/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A TrackedFile: a DiskFile together with the writes that are in flight on it.
 *
 * An unaligned write on a file with an alignment is a read-modify-write.  It must not
 * lose a byte that another write puts next to it meanwhile, so it is *exclusive*: it
 * registers its aligned range first, after which overlapping new writes answer SLOW and
 * wait, then waits for overlapping writes already in flight.  Overlap is tracked here, in
 * host offsets, and not in guest offsets at the port, because two guest clusters smaller
 * than the file's alignment share a block, and because metadata lives here as well.
 *
 * Invariants:
 *  F1 every write, zero, punch, discard and truncate of the file is linked in writes while
 *     it runs;
 *  F2 an exclusive range never overlaps another exclusive range or a running write that
 *     started after it was registered;
 *  F3 who may have to put the end of the file back is exclusive from its first block to
 *     infinity: so nobody makes the file longer between the look at its end and that.
 */
#ifndef BLOCK_FILE_TRACK_H
#define BLOCK_FILE_TRACK_H

#include <errno.h>

#include "block/aio/coroutine.h"
#include "block/aio/disk.h"
#include "block/break.h"

typedef struct TrackedFile {
    DiskFile *disk;
    DiskFileInfo info;
    uint64_t known_size; /* what this process knows the size to be; grows by our writes */
    unsigned nb_exclusive;
    unsigned nb_syncs; /* running: syncs of the file, and writes with DISK_FUA */
    bool sync_failed;  /* Q13: no flush succeeds before a reopen */
    ListLink writes;     /* TrackedWrite.link */
    ListLink exclusives; /* TrackedWrite.link */
    CoQueue changed;     /* something left one of the lists */
} TrackedFile;

typedef struct TrackedWrite {
    ListLink link;
    uint64_t offset, len;
} TrackedWrite;

void tracked_file_init(TrackedFile *file, DiskFile *disk);

static inline void tracked_write_begin(TrackedFile *file, TrackedWrite *write,
                                       uint64_t offset, uint64_t len)
{
    write->offset = offset;
    write->len = len;
    list_append(&file->writes, &write->link);
}

static inline void tracked_write_end(TrackedFile *file, TrackedWrite *write)
{
    list_remove(&write->link);
    if (__builtin_expect(!co_queue_empty(&file->changed), 0)) {
        co_queue_wake_all(&file->changed);
    }
}

/* Would a plain write to this range have to wait?  (The direct path asks.) */
static inline bool tracked_must_wait(const TrackedFile *file)
{
    return __builtin_expect(file->nb_exclusive != 0, 0);
}

/* Wait until no exclusive range overlaps, then register a plain write. */
void coroutine_fn tracked_co_write_begin(TrackedFile *file, TrackedWrite *write,
                                         uint64_t offset, uint64_t len);
/* Register an exclusive range and wait for everything that overlaps it. */
void coroutine_fn tracked_co_exclusive_begin(TrackedFile *file, TrackedWrite *write,
                                             uint64_t offset, uint64_t len);
void tracked_exclusive_end(TrackedFile *file, TrackedWrite *write);

/* A sync, or a write with DISK_FUA, ended with @ret; what to believe of it. */
static inline int tracked_sync_ended(TrackedFile *file, int ret)
{
    file->nb_syncs--;
    if (ret < 0 && !file->info.direct) {
        /* order: Linux has marked the pages clean, and tells one caller of each error; a
         * success, now or later, would be a lie (Q13) */
        file->sync_failed = true;
    }
    return ret == 0 && file->sync_failed && !BROKEN(BREAK_Q13_SYNC) ? -EIO : ret;
}

/* I/O in coroutines; any alignment. 0 or -errno. */
int coroutine_fn tracked_co_read(TrackedFile *file, uint64_t offset, uint64_t len,
                                 const struct iovec *iov, int niov);
int coroutine_fn tracked_co_write(TrackedFile *file, uint64_t offset, uint64_t len,
                                  const struct iovec *iov, int niov);
/* DISK_ZERO, DISK_PUNCH, DISK_DISCARD on whole aligned ranges. */
int coroutine_fn tracked_co_range(TrackedFile *file, DiskOpType type, uint64_t offset,
                                  uint64_t len);
/* Set the size, which known_size then is. To cut off what somebody writes is the caller's
 * own fault. */
int coroutine_fn tracked_co_truncate(TrackedFile *file, uint64_t size);

#endif
