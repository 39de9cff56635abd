/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file driver's state, shared by file.c (I/O), file-open.c and file-lock.c. */
#ifndef BLOCK_DRIVER_FILE_H
#define BLOCK_DRIVER_FILE_H

#include "block/driver/table.h"

typedef struct FileState {
    TrackedFile tracked; /* its disk is swapped on reopen, under a drain */
    char *path;
    DiskAio aio;
    OnOffAuto locking;
    bool opened_rw;
    bool lock_weakened; /* opened read-write still, though nobody writes */
    CoGroup syncs; /* of flushes that come together */
} FileState;

bool coroutine_fn file_co_open(BlockNode *node, const BlockdevOptions *options,
                               const OpenInherit *inherit, GError **errp);
/* Swap between read-write (direct as configured) and read-only (buffered). Drained. The
 * file stays the one that it was, whatever its name means by now: who may write again is
 * refused then; who stops keeps the descriptor that there is. */
bool coroutine_fn file_co_set_writing(BlockNode *node, bool writing, GError **errp);

/* Lock @fd as the node's `locking` asks; false and *errp when somebody else holds it. */
bool file_lock(const BlockNode *node, const FileState *s, int fd, bool writer,
               GError **errp);
/* A second node of this process may have the file open (idle nodes hurt nobody), but only
 * one may write it. */
bool file_may_write(const BlockNode *node, const FileState *s, GError **errp);
/* Before @fd is closed: its locks end now, and not when the kernel lets go of the last
 * reference (a ring's, which may take a moment). */
void file_unlock(int fd);
/* Weaken (to a reader's) or drop the lock of an fd that is about to be replaced. */
void file_lock_weaken(const BlockNode *node, const FileState *s, int fd,
                      bool keep_reader);

#endif
