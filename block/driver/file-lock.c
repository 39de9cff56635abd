/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks on image files (client-contract.md, 0.6).
 *
 *  locking=off   none;
 *  locking=auto  bytes of our own, far outside of every image, that stock programs do not
 *                look at: two daemons never write one image, external tools pass;
 *  locking=on    the bytes that stock QEMU locks, so that its programs respect us too:
 *                byte 100+n is locked (shared) by who has permission n, byte 200+n by who
 *                does not share it.
 *
 * All are shared open file description locks: they go with the fd, and whoever may not
 * share the image finds out by looking for the bytes of others after locking its own. Of
 * two who come at once both may lose, never both win.
 *
 * A byte of our own stands at a place made of the process id, which names the holder, and
 * of a random number, which tells processes of one id (in two containers) apart. There is
 * one area for readers and one for writers; the bytes of our own process do not count:
 * there a second node may have the file, but only one may write it (file_may_write).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/base/error.h"
#include "block/driver/file.h"
#include "block/graph-private.h"

#define READER_AREA   (INT64_C(1) << 61)
#define WRITER_AREA   (INT64_C(1) << 62)
#define PID_BITS      23
#define AREA_LEN      (INT64_C(1) << (PID_BITS + 30))
#define HAS_BASE      100
#define UNSHARED_BASE 200
#define GONE_MS       2000 /* a killed daemon's ring is taken apart by then */

static bool set_lock(int fd, short type, off_t start, off_t len)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start,
                         .l_len = len};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

void file_unlock(int fd)
{
    set_lock(fd, F_UNLCK, 0, 0); /* to the end: all of them */
}

/* Could somebody else's lock stand against a write lock here? */
static bool is_locked(int fd, off_t start)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start,
                         .l_len = 1};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* Our place in an area. */
static int64_t own_place(void)
{
    static int64_t number = -1;
    if (number < 0) {
        number = g_random_int() & ((1 << 30) - 1);
    }
    return (number << PID_BITS) + getpid();
}

/* The id of another process that has a byte in @area; 0: there is none. */
static int64_t other_holder(int fd, int64_t area)
{
    int64_t start = area, end = area + AREA_LEN;
    while (start < end) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start,
                             .l_len = end - start};
        if (fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK) {
            break;
        }
        if (lock.l_start != area + own_place()) {
            return (lock.l_start - area) & ((INT64_C(1) << PID_BITS) - 1);
        }
        start = lock.l_start + 1;
    }
    return 0;
}

/* Who stands against us, 0: nobody.  The file of a killed daemon is its ring's for a moment
 * longer than the process lives, its lock with it: we wait, for the kernel and not long. */
static int64_t adversary(int fd, bool writer)
{
    for (int ms = 0;; ms++) {
        int64_t holder = other_holder(fd, WRITER_AREA);
        if (!holder && writer) {
            holder = other_holder(fd, READER_AREA);
        }
        bool gone = holder && kill((pid_t)holder, 0) < 0 && errno == ESRCH;
        if (!gone || ms == GONE_MS) {
            return holder;
        }
        g_usleep(1000);
    }
}

static bool lock_our_way(const FileState *s, int fd, bool writer, GError **errp)
{
    int64_t area = writer ? WRITER_AREA : READER_AREA;
    if (!set_lock(fd, F_RDLCK, area + own_place(), 1)) {
        return true; /* a file system without locks: stock goes on as well */
    }
    int64_t holder = adversary(fd, writer);
    if (holder) {
        set_lock(fd, F_UNLCK, area + own_place(), 1);
        error_set(errp, "Failed to get \"%s\" lock: '%s' is held by the qemu-dp with process "
                        "id %" PRId64, writer ? "write" : "consistent read", s->path, holder);
    }
    return !holder;
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

/* Does another node of this process write the file of @fd? */
static bool has_writing_twin(const BlockNode *node, int fd)
{
    struct stat mine, st;

    if (fstat(fd, &mine) < 0) {
        return false;
    }
    list_foreach(it, &node->graph->nodes) {
        const BlockNode *other = container_of(it, BlockNode, in_graph);
        const FileState *s = other->state;
        if (other != node && s && other->drv && other->drv->co_open == file_co_open &&
            other->writing && fstat(disk_file_fd(s->tracked.disk), &st) == 0 &&
            st.st_dev == mine.st_dev && st.st_ino == mine.st_ino) {
            return true;
        }
    }
    return false;
}

bool file_may_write(const BlockNode *node, const FileState *s, GError **errp)
{
    int fd = disk_file_fd(s->tracked.disk);

    if (fd >= 0 && wants_lock(node, s) && has_writing_twin(node, fd)) {
        error_set(errp, "Failed to get \"write\" lock");
        return false;
    }
    return true;
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
    return lock_our_way(s, fd, writer, errp);
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
        if (keep_reader) {
            set_lock(fd, F_RDLCK, READER_AREA + own_place(), 1);
        } else {
            set_lock(fd, F_UNLCK, READER_AREA + own_place(), 1);
        }
        set_lock(fd, F_UNLCK, WRITER_AREA + own_place(), 1);
    }
}

static bool is_open_here(const Graph *graph, int fd)
{
    struct stat mine, st;

    if (fstat(fd, &mine) < 0) {
        return false;
    }
    list_foreach(it, &graph->nodes) {
        const BlockNode *node = container_of(it, BlockNode, in_graph);
        const FileState *s = node->state;
        if (s && node->drv && node->drv->co_open == file_co_open &&
            fstat(disk_file_fd(s->tracked.disk), &st) == 0 && st.st_dev == mine.st_dev &&
            st.st_ino == mine.st_ino) {
            return true;
        }
    }
    return false;
}

bool file_may_create(const Graph *graph, int fd, GError **errp)
{
    /* who unshares writing (1) or resizing (3), or may resize */
    if (is_open_here(graph, fd) || is_locked(fd, UNSHARED_BASE + 1) ||
        is_locked(fd, UNSHARED_BASE + 3) || is_locked(fd, HAS_BASE + 3) ||
        other_holder(fd, WRITER_AREA) || other_holder(fd, READER_AREA)) {
        error_set(errp, "Failed to get \"write\" lock");
        return false;
    }
    return true;
}
