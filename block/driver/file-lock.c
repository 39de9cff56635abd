/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks on image files (client-contract.md, 0.6).
 *
 *  locking=off   none;
 *  locking=auto  one byte of our own, far outside of every image, that stock programs do
 *                not look at: two daemons never write one image, external tools pass;
 *  locking=on    the bytes that stock QEMU locks, so that its programs respect us too:
 *                byte 100+n is locked (shared) by who has permission n, byte 200+n by who
 *                does not share it.
 *
 * All are open file description locks: they go with the fd.
 */
#include <errno.h>
#include <fcntl.h>

#include "block/base/error.h"
#include "block/driver/file.h"
#include "block/graph-private.h"

#define OWN_BYTE      INT64_C(0x71656d7564700000)
#define HAS_BASE      100
#define UNSHARED_BASE 200

static bool set_lock(int fd, short type, off_t start, off_t len)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start,
                         .l_len = len};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

/* Could somebody else's lock stand against a write lock here? */
static bool is_locked(int fd, off_t start)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start,
                         .l_len = 1};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static const char *const perm_words[] = {"consistent read", "write", "write unchanged",
                                         "resize"};

static bool lock_like_stock(int fd, bool writer, GError **errp)
{
    unsigned has = writer ? PERM_CONSISTENT_READ | PERM_WRITE | PERM_RESIZE
                          : PERM_CONSISTENT_READ;
    unsigned unshared = PERM_WRITE | PERM_RESIZE;

    for (int i = 0; i < 4; i++) {
        if (((has >> i) & 1 && !set_lock(fd, F_RDLCK, HAS_BASE + i, 1)) ||
            ((unshared >> i) & 1 && !set_lock(fd, F_RDLCK, UNSHARED_BASE + i, 1))) {
            error_set(errp, "Failed to lock byte %d", HAS_BASE + i);
            return false;
        }
    }
    for (int i = 0; i < 4; i++) {
        if ((has >> i) & 1 && is_locked(fd, UNSHARED_BASE + i)) {
            error_set(errp, "Failed to get \"%s\" lock", perm_words[i]);
            return false;
        }
        if ((unshared >> i) & 1 && is_locked(fd, HAS_BASE + i)) {
            error_set(errp, "Failed to get shared \"%s\" lock", perm_words[i]);
            return false;
        }
    }
    return true;
}

static bool wants_lock(const BlockNode *node, const FileState *s)
{
    return !node->force_share && s->locking != ON_OFF_AUTO_OFF &&
           (s->locking == ON_OFF_AUTO_ON || node->graph->lock_files);
}

bool file_lock(const BlockNode *node, const FileState *s, int fd, bool writer,
               GError **errp)
{
    if (!wants_lock(node, s)) {
        return true;
    }
    if (s->locking == ON_OFF_AUTO_ON) {
        return lock_like_stock(fd, writer, errp);
    }
    if (set_lock(fd, writer ? F_WRLCK : F_RDLCK, OWN_BYTE, 1)) {
        return true;
    }
    if (errno != EAGAIN && errno != EACCES) {
        return true; /* a file system without locks: stock goes on as well */
    }
    error_set(errp, "Failed to get \"%s\" lock: another qemu-dp holds the image",
              writer ? "write" : "consistent read");
    return false;
}

void file_lock_weaken(const BlockNode *node, const FileState *s, int fd,
                      bool keep_reader)
{
    if (fd < 0 || !wants_lock(node, s)) {
        return;
    }
    if (s->locking == ON_OFF_AUTO_ON) {
        set_lock(fd, F_UNLCK, HAS_BASE, 200);
    } else {
        set_lock(fd, keep_reader ? F_RDLCK : F_UNLCK, OWN_BYTE, 1);
    }
}
