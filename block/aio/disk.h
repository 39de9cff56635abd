/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk operations: the one narrow interface between the block layer and whatever does the
 * I/O (io_uring, libaio, threads, inline calls, the crash simulator).
 *
 * Rules:
 *  D1 done is never called from inside disk_submit() (loop.h, L1);
 *  D2 short reads and writes, EINTR and EAGAIN are continued below this interface; a read
 *     that ends at the file's size as fstat tells it *then* is filled with zeros; one that
 *     ends before it goes on, for the file has grown; only if that leads nowhere, many
 *     times in a row, it is -EIO; a short write that makes no progress is -ENOSPC;
 *  D3 the DiskOp, its iovec and the buffers stay valid and untouched until done;
 *  D4 alignment (mem_align, offset_align) is the caller's duty; it is asserted;
 *  D5 operations may complete in any order. A DISK_SYNC covers exactly the writes whose
 *     done was called before the sync was submitted.
 */
#ifndef BLOCK_AIO_DISK_H
#define BLOCK_AIO_DISK_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include "block/aio/loop.h"

typedef struct DiskFile DiskFile;
typedef struct DiskOp DiskOp;

typedef enum DiskOpType {
    DISK_READ,
    DISK_WRITE,
    DISK_SYNC,     /* fdatasync */
    DISK_ZERO,     /* the range reads as zeros afterwards; may keep it allocated
                      (FALLOC_FL_ZERO_RANGE, BLKZEROOUT) */
    DISK_PUNCH,    /* the range reads as zeros afterwards and is deallocated
                      (FALLOC_FL_PUNCH_HOLE); -ENOTSUP where that is not guaranteed */
    DISK_DISCARD,  /* advisory; contents undefined afterwards (BLKDISCARD; punch) */
    DISK_TRUNCATE, /* set the size to @offset by ftruncate */
} DiskOpType;

enum {
    DISK_FUA = 1, /* with DISK_WRITE: durable when done (RWF_DSYNC) */
};

struct DiskOp {
    /* set by the caller */
    DiskFile *file;
    void (*done)(DiskOp *op, int ret); /* 0 or -errno */
    uint64_t offset;
    uint64_t len;
    const struct iovec *iov;
    int niov;
    uint8_t type;
    uint8_t flags;
    /* the engine's */
    uint8_t nb_stalls; /* of a read, at what was the end of the file */
    uint64_t done_bytes;
    int result;
    ListLink link;
    void *engine; /* retry vector, iocb, ... */
};

typedef enum DiskAio {
    DISK_AIO_AUTO,    /* as `native` when direct, else io_uring or threads as allowed */
    DISK_AIO_THREADS,
    DISK_AIO_NATIVE,  /* Linux AIO; needs O_DIRECT */
    DISK_AIO_URING,
} DiskAio;

typedef struct DiskFileInfo {
    bool block_device;
    bool direct;           /* O_DIRECT in effect */
    bool writable;
    bool sync_by_nature;   /* RWF_NOWAIT refused: operations run inline in stage 3 */
    uint32_t mem_align;    /* of buffers; 1 when buffered */
    uint32_t offset_align; /* of offsets and lengths; 1 when buffered */
    uint64_t max_transfer; /* bytes in one operation */
    uint64_t dev, inode;
} DiskFileInfo;

/*
 * Take over @fd (an opened regular file or block device) for I/O on @loop.
 * Probes alignment (statx DIOALIGN, then trial reads) and RWF_NOWAIT. On failure
 * NULL, *errp set naming @name, and the fd stays the caller's.
 */
DiskFile *disk_file_new(Loop *loop, int fd, const char *name, DiskAio aio, GError **errp);

/* Free; closes the fd. All operations must have completed. */
void disk_file_free(DiskFile *file);

const DiskFileInfo *disk_file_info(const DiskFile *file);
int disk_file_fd(const DiskFile *file); /* -1 for simulated files */

/* The size now (fstat, BLKGETSIZE64), in bytes, or -errno. Never cached. */
int64_t disk_file_size(DiskFile *file);

/* Queue one operation. Cheap; the kernel sees it in stage 3 or 6 of the turn. */
void disk_submit(DiskOp *op);

/* The same, waiting in the running coroutine; 0 or -errno. It need not yield: reads and
 * writes of a file that is synchronous by nature are done at once while a round may. */
int coroutine_fn disk_co_run(DiskFile *file, DiskOpType type, uint64_t offset,
                             uint64_t len, const struct iovec *iov, int niov,
                             unsigned flags);

/*
 * The seam: an implementation of files.  The kernel engines are one; tests/sim has
 * another, made with disk_file_new_custom().
 */
typedef struct DiskFileOps {
    const char *name;
    void (*submit)(DiskFile *file, DiskOp *op); /* calls disk_op_complete() later */
    int64_t (*size)(DiskFile *file);
    void (*close)(DiskFile *file); /* frees what opaque points to */
} DiskFileOps;
DiskFile *disk_file_new_custom(Loop *loop, const DiskFileOps *ops, void *opaque,
                               const DiskFileInfo *info);
void *disk_file_opaque(const DiskFile *file);
Loop *disk_file_loop(const DiskFile *file);

/* For implementations: deliver @ret from stage 3 of this or the next turn. */
void disk_op_complete(DiskOp *op, int ret);

/* Aligned memory for I/O buffers: NULL when there is none. Free with disk_buffer_free(). */
void *disk_buffer_try_alloc(size_t align, size_t len);
void disk_buffer_free(void *buf);

#endif
