/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The inside of a DiskFile, for the engines. */
#ifndef BLOCK_AIO_DISK_PRIVATE_H
#define BLOCK_AIO_DISK_PRIVATE_H

#include "block/aio/loop-private.h"

typedef enum DiskEngine {
    DISK_ENGINE_THREADS,
    DISK_ENGINE_LAIO,
    DISK_ENGINE_RING,
} DiskEngine;

struct DiskFile {
    const DiskFileOps *ops;
    Loop *loop;
    void *opaque;
    int fd;
    DiskEngine engine;
    bool inline_all;   /* synchronous by nature: executed in stage 3, or in the coroutine */
    bool inline_reads; /* reads are tried with RWF_NOWAIT first */
    uint8_t slow_rounds; /* in a row: inline I/O that held the loop up */
    uint8_t ring_slot;   /* 1 + the place in the ring's table; 0: not there (loop-uring.c) */
    DiskFileInfo info;
};

/* disk-probe.c: fill file->info from file->fd. */
bool disk_probe(DiskFile *file, const char *name, GError **errp);
int64_t disk_fd_size(int fd); /* bytes or -errno */

#endif
