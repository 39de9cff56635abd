/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The io_uring backend: disks, sockets and other fds in one ring, one system call a turn.
 *
 * The ring is made with the best flags the kernel takes: SINGLE_ISSUER|DEFER_TASKRUN
 * (6.1), else COOP_TASKRUN (5.19), else plain (5.10 and later).  Under DEFER_TASKRUN
 * completions appear only inside io_uring_enter.
 *
 * U1 user_data is a pointer whose two low bits tell its type; 0 is "nobody waits";
 * U2 a watch that was stopped leaves an orphaned Poll behind, which frees itself when its
 *    completion comes: the watch's own memory may be gone by then;
 * U3 a full submission queue is handed to the kernel at once; when the kernel refuses
 *    because completions wait (EBUSY), they are set aside and dispatched in their turn;
 * U4 a ring takes only what is used here: it is restricted before it is enabled, because
 *    a seccomp filter does not see what is asked through it (qdp/sandbox.h);
 * U5 a file in the ring's table is held by it: it leaves the table before it is closed,
 *    because its locks last as long as somebody holds it.
 */
#include <errno.h>
#include <limits.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "block/aio/disk-private.h"
#include "block/base/ablate.h"
#include "block/base/error.h"

#define SQ_ENTRIES 128
#define CQ_ENTRIES 1024
#define MAX_ONE    (1u << 30) /* an SQE's length has 32 bits */
#define MAX_FILES  64         /* in the ring's table; others go by their descriptors */

enum { TAG_SOCK = 1, TAG_DISK = 2, TAG_POLL = 3, TAG_MASK = 3 };

#ifndef IORING_CQE_F_SOCK_NONEMPTY
#define IORING_CQE_F_SOCK_NONEMPTY (1U << 2)
#endif
#ifndef IORING_RECVSEND_POLL_FIRST
#define IORING_RECVSEND_POLL_FIRST (1U << 0)
#endif

typedef struct Poll {
    LoopFd *watch; /* NULL: orphaned */
    ListLink link; /* UringState.polls */
} Poll;

/* SockOp.engine of a receive: what its last completion told. */
static char sock_drained, sock_no_socket;

typedef struct Aside {
    uint64_t data;
    int res;
    unsigned flags;
} Aside;

typedef struct UringState {
    struct io_uring ring;
    ListLink polls;  /* Poll.link: all that wait in the kernel */
    GArray *aside;   /* Aside: U3; NULL until needed */
    /* The kernel is 5.19 or later: it knows IORING_RECVSEND_POLL_FIRST, and the ring shows
     * what is pending (IORING_SETUP_TASKRUN_FLAG). */
    bool is_519;
    bool table_tried; /* the table of files was made, or there is none */
    uint64_t free_slots; /* bits: places of the table */
} UringState;

/* liburing 2.3 has its functions for these two, but does not export them. */
static int ring_register(const struct io_uring *ring, unsigned what, void *arg, unsigned n)
{
    return syscall(SYS_io_uring_register, ring->ring_fd, what, arg, n) < 0 ? -errno : 0;
}

/* U4. The calls of this list, and of an entry's flags that it means a file of the table;
 * registering is for the ring's own descriptor and that table. -EINVAL: the kernel has no restrictions (before 5.10). */
static int restrict_ring(struct io_uring *ring)
{
    static const uint8_t ops[] = {
        IORING_OP_NOP,       IORING_OP_READ,        IORING_OP_READV,
        IORING_OP_WRITE,     IORING_OP_WRITEV,      IORING_OP_FSYNC,
        IORING_OP_FALLOCATE, IORING_OP_POLL_ADD,    IORING_OP_POLL_REMOVE,
        IORING_OP_SEND,      IORING_OP_SENDMSG,     IORING_OP_RECV,
        IORING_OP_RECVMSG,   IORING_OP_ASYNC_CANCEL, IORING_OP_TIMEOUT,
        IORING_OP_TIMEOUT_REMOVE,
    };
    static const uint8_t registers[] = {IORING_REGISTER_ENABLE_RINGS,
                                        IORING_REGISTER_RING_FDS,
                                        IORING_UNREGISTER_RING_FDS,
                                        IORING_REGISTER_FILES,
                                        IORING_REGISTER_FILES_UPDATE};
    struct io_uring_restriction res[G_N_ELEMENTS(ops) + G_N_ELEMENTS(registers) + 1];
    unsigned n = 0;

    memset(res, 0, sizeof(res));
    for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++, n++) {
        res[n].opcode = IORING_RESTRICTION_SQE_OP;
        res[n].sqe_op = ops[i];
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(registers); i++, n++) {
        res[n].opcode = IORING_RESTRICTION_REGISTER_OP;
        res[n].register_op = registers[i];
    }
    res[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    res[n++].sqe_flags = IOSQE_FIXED_FILE;
    int ret = ring_register(ring, IORING_REGISTER_RESTRICTIONS, res, n);
    return ret < 0 ? ret : ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

/* One ring; restricted where the kernel can. */
static int make_ring(struct io_uring *ring, unsigned flags, struct io_uring_params *params)
{
    int ret = -EINVAL;

    for (int disabled = 1; disabled >= 0 && ret == -EINVAL; disabled--) {
        memset(params, 0, sizeof(*params));
        params->flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
                        (disabled ? IORING_SETUP_R_DISABLED : 0);
        params->cq_entries = CQ_ENTRIES;
        ret = io_uring_queue_init_params(SQ_ENTRIES, ring, params);
        if (ret == 0 && disabled && (ret = restrict_ring(ring)) < 0) {
            io_uring_queue_exit(ring);
        }
    }
    return ret;
}

static int setup_ring(struct io_uring *ring, bool *ret_is_519)
{
    static const unsigned ladder[] = {
#if defined(IORING_SETUP_SINGLE_ISSUER) && defined(IORING_SETUP_DEFER_TASKRUN)
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
            IORING_SETUP_TASKRUN_FLAG,
#endif
#ifdef IORING_SETUP_COOP_TASKRUN
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
#endif
        0,
    };
    int ret = -EINVAL;
    for (unsigned i = 0; i < G_N_ELEMENTS(ladder) && ret == -EINVAL; i++) {
        struct io_uring_params params;
        ret = make_ring(ring, ladder[i], &params);
        *ret_is_519 = ladder[i] != 0; /* or later: COOP_TASKRUN came then */
        if (ret == 0 && !(params.features & IORING_FEAT_NODROP)) {
            io_uring_queue_exit(ring); /* completions could be lost */
            return -ENOSYS;
        }
    }
    return ret;
}

static bool uring_init(Loop *loop, GError **errp)
{
    UringState *be = g_new0(UringState, 1);
    int ret = setup_ring(&be->ring, &be->is_519);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Could not create an io_uring");
        g_free(be);
        return false;
    }
    io_uring_ring_dontfork(&be->ring);
    io_uring_register_ring_fd(&be->ring); /* an optimisation; may fail */
    list_init(&be->polls);
    loop->be = be;
    return true;
}

static void poll_free(Poll *poll)
{
    list_remove(&poll->link);
    g_free(poll);
}

static void uring_fini(Loop *loop)
{
    UringState *be = loop->be;
    io_uring_queue_exit(&be->ring);
    list_foreach_safe(it, next, &be->polls) {
        poll_free(container_of(it, Poll, link));
    }
    if (be->aside) {
        g_array_free(be->aside, TRUE);
    }
    g_free(be);
}

static bool next_completion(UringState *be, Aside *ret_done)
{
    struct io_uring_cqe *cqe;

    if (!io_uring_cq_ready(&be->ring) || io_uring_peek_cqe(&be->ring, &cqe) < 0) {
        return false;
    }
    *ret_done = (Aside){cqe->user_data, cqe->res, cqe->flags};
    io_uring_cqe_seen(&be->ring, cqe);
    return true;
}

/* U3 */
static void set_completions_aside(UringState *be)
{
    Aside done;

    io_uring_get_events(&be->ring);
    if (!be->aside) {
        be->aside = g_array_new(FALSE, FALSE, sizeof(Aside));
    }
    while (next_completion(be, &done)) {
        g_array_append_val(be->aside, done);
    }
}

static struct io_uring_sqe *get_sqe(Loop *loop)
{
    UringState *be = loop->be;
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&be->ring))) {
        loop->stats.system_calls++;
        int ret = io_uring_submit(&be->ring);
        if (ret == -EBUSY || ret == -EAGAIN) {
            set_completions_aside(be);
        }
    }
    return sqe;
}

static void set_data(struct io_uring_sqe *sqe, void *ptr, unsigned tag)
{
    io_uring_sqe_set_data64(sqe, (uintptr_t)ptr | tag);
}

/* ---- fds ---- */

static void arm_poll(Poll *poll)
{
    LoopFd *watch = poll->watch;
    struct io_uring_sqe *sqe = get_sqe(watch->loop);
    io_uring_prep_poll_add(sqe, watch->fd, watch->events);
    set_data(sqe, poll, TAG_POLL);
}

static void uring_fd_watch(LoopFd *watch)
{
    Poll *poll = watch->engine;
    if (poll) { /* stop what runs; it ends as an orphan (U2) */
        struct io_uring_sqe *sqe = get_sqe(watch->loop);
        io_uring_prep_poll_remove(sqe, (uintptr_t)poll | TAG_POLL);
        io_uring_sqe_set_data64(sqe, 0);
        poll->watch = NULL;
        watch->engine = NULL;
        UringState *be = watch->loop->be;
        watch->loop->stats.system_calls++;
        io_uring_submit(&be->ring); /* the fd may be closed next */
    }
    if (watch->events) {
        poll = g_new(Poll, 1);
        poll->watch = watch;
        list_append(&((UringState *)watch->loop->be)->polls, &poll->link);
        watch->engine = poll;
        arm_poll(poll);
    }
}

static void poll_completed(Poll *poll, int res)
{
    LoopFd *watch = poll->watch;
    if (!watch) {
        poll_free(poll);
        return;
    }
    watch->fn(watch, res < 0 ? POLLERR : (unsigned)res);
    if (poll->watch) {
        arm_poll(poll);
    } else {
        poll_free(poll); /* stopped inside its callback; its own completion was this one */
    }
}

/* ---- sockets ---- */

static void uring_sock_start(SockOp *op)
{
    UringState *be = op->loop->be;
    struct io_uring_sqe *sqe = get_sqe(op->loop);
    struct msghdr *msg = &op->msg;
    int niov = (int)MIN(msg->msg_iovlen, IOV_MAX);

    if (op->engine == &sock_no_socket) {
        if (op->is_send) {
            io_uring_prep_writev(sqe, op->fd, msg->msg_iov, niov, -1);
        } else {
            io_uring_prep_readv(sqe, op->fd, msg->msg_iov, niov, -1);
        }
    } else if (op->is_send) {
        io_uring_prep_send(sqe, op->fd, msg->msg_iov->iov_base, msg->msg_iov->iov_len,
                           MSG_NOSIGNAL); /* the rest of the vector follows */
    } else {
        if (niov == 1) {
            io_uring_prep_recv(sqe, op->fd, msg->msg_iov->iov_base,
                               msg->msg_iov->iov_len, 0);
        } else {
            msg->msg_iovlen = niov; /* receiving less is allowed */
            io_uring_prep_recvmsg(sqe, op->fd, msg, 0);
        }
        if (op->engine == &sock_drained && be->is_519) {
            sqe->ioprio |= IORING_RECVSEND_POLL_FIRST; /* save the vain attempt */
        }
    }
    set_data(sqe, op, TAG_SOCK);
}

static bool uring_sock_cancel(SockOp *op)
{
    struct io_uring_sqe *sqe = get_sqe(op->loop);
    io_uring_prep_cancel64(sqe, (uintptr_t)op | TAG_SOCK, 0);
    io_uring_sqe_set_data64(sqe, 0);
    return false;
}

static void sock_completed(SockOp *op, int res, unsigned flags)
{
    if (res == -ENOTSOCK && op->engine != &sock_no_socket) {
        op->engine = &sock_no_socket;
        uring_sock_start(op);
        return;
    }
    if (res == -EINTR || res == -EAGAIN) {
        uring_sock_start(op);
        return;
    }
    if (op->is_send) {
        if (res < 0) {
            sock_op_end(op, res);
        } else if (sock_op_advance(op, res)) {
            sock_op_end(op, op->done_bytes);
        } else if (op->engine == &sock_no_socket || !sock_op_try_send(op)) {
            uring_sock_start(op);
        }
        return;
    }
    if (op->engine != &sock_no_socket) {
        op->engine = flags & IORING_CQE_F_SOCK_NONEMPTY ? NULL : &sock_drained;
    }
    sock_op_end(op, res);
}

/* ---- disks ---- */

/* The table, at the first file; nothing is lost where there is none. */
static void make_table(UringState *be)
{
    int none[MAX_FILES];

    be->table_tried = true;
    if (!ablated(ABLATE_REGISTERED_FILES)) {
        memset(none, -1, sizeof(none)); /* all free */
        if (io_uring_register_files(&be->ring, none, MAX_FILES) == 0) {
            be->free_slots = UINT64_MAX;
        }
    }
}

/* Put the file into the table, which spares the kernel a look-up for each operation. */
static void enter_table(UringState *be, DiskFile *file)
{
    if (!be->table_tried) {
        make_table(be);
    }
    if (be->free_slots) {
        int slot = __builtin_ctzll(be->free_slots);
        if (io_uring_register_files_update(&be->ring, slot, &file->fd, 1) == 1) {
            be->free_slots &= ~(UINT64_C(1) << slot);
            file->ring_slot = slot + 1;
        } else {
            be->free_slots = 0;
        }
    }
}

/* U5 */
static void uring_disk_forget(Loop *loop, DiskFile *file)
{
    UringState *be = loop->be;
    int slot = file->ring_slot - 1, none = -1;

    if (slot >= 0) {
        io_uring_register_files_update(&be->ring, slot, &none, 1);
        be->free_slots |= UINT64_C(1) << slot;
        file->ring_slot = 0;
    }
}

static void prep_read(struct io_uring_sqe *sqe, const DiskOp *op, int fd)
{
    DiskPiece p;

    disk_op_piece(op, &p);
    if (p.niov == 1) {
        io_uring_prep_read(sqe, fd, p.iov->iov_base, MIN(p.iov->iov_len, MAX_ONE), p.offset);
    } else {
        io_uring_prep_readv(sqe, fd, p.iov, p.niov, p.offset);
    }
}

static void prep_write(struct io_uring_sqe *sqe, const DiskOp *op, int fd)
{
    DiskPiece p;

    disk_op_piece(op, &p);
    if (p.niov == 1) {
        io_uring_prep_write(sqe, fd, p.iov->iov_base, MIN(p.iov->iov_len, MAX_ONE), p.offset);
    } else {
        io_uring_prep_writev(sqe, fd, p.iov, p.niov, p.offset);
    }
    if (op->flags & DISK_FUA) {
        sqe->rw_flags |= RWF_DSYNC;
    }
}

static void uring_disk_start(Loop *loop, DiskOp *op)
{
    UringState *be = loop->be;
    DiskFile *file = op->file;
    int mode = FALLOC_FL_KEEP_SIZE;

    if (op->type >= DISK_DISCARD) { /* no ring operation for these */
        threads_start(loop, op);
        return;
    }
    if (!file->ring_slot && (be->free_slots || !be->table_tried)) {
        enter_table(be, file);
    }
    struct io_uring_sqe *sqe = get_sqe(loop);
    int fd = file->ring_slot ? file->ring_slot - 1 : file->fd;
    switch (op->type) {
    case DISK_READ:
        prep_read(sqe, op, fd);
        break;
    case DISK_WRITE:
        prep_write(sqe, op, fd);
        break;
    case DISK_SYNC:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    default:
        mode |= op->type == DISK_ZERO ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE;
        io_uring_prep_fallocate(sqe, fd, mode, op->offset, op->len);
        break;
    }
    if (file->ring_slot) {
        sqe->flags |= IOSQE_FIXED_FILE;
    }
    set_data(sqe, op, TAG_DISK);
    if (ablated(ABLATE_SUBMIT_BATCH)) {
        loop->stats.system_calls++;
        io_uring_submit(&be->ring); /* what it refuses goes with the turn */
    }
}

static void disk_completed(Loop *loop, DiskOp *op, int res)
{
    loop->stats.completions++;
    if (res == -EAGAIN || (res == -EOPNOTSUPP &&
                           (op->type == DISK_ZERO || (op->flags & DISK_FUA)))) {
        threads_start(loop, op); /* has the fall-backs, and waits */
    } else if (disk_op_progress(op, res)) {
        op->done(op, op->result);
    } else {
        uring_disk_start(loop, op); /* short: the rest */
    }
}

/* ---- the turn ---- */

static void dispatch(Loop *loop, const Aside *done)
{
    void *ptr = (void *)(uintptr_t)(done->data & ~(uint64_t)TAG_MASK);
    switch (done->data & TAG_MASK) {
    case TAG_SOCK:
        sock_completed(ptr, done->res, done->flags);
        break;
    case TAG_DISK:
        disk_completed(loop, ptr, done->res);
        break;
    case TAG_POLL:
        poll_completed(ptr, done->res);
        break;
    default:
        break;
    }
}

static void submit_and_wait(struct io_uring *ring, int64_t timeout_ns)
{
    struct io_uring_cqe *cqe;
    if (timeout_ns == 0) {
        io_uring_submit_and_get_events(ring);
    } else if (timeout_ns < 0) {
        io_uring_submit_and_wait(ring, 1);
    } else {
        struct __kernel_timespec ts = {.tv_sec = timeout_ns / 1000000000,
                                       .tv_nsec = timeout_ns % 1000000000};
        io_uring_submit_and_wait_timeout(ring, &cqe, 1, &ts, NULL);
    }
}

static bool uring_pending(Loop *loop)
{
    UringState *be = loop->be;
    const unsigned told = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;

    return !be->is_519 || (be->aside && be->aside->len) || io_uring_sq_ready(&be->ring) ||
           io_uring_cq_ready(&be->ring) ||
           (__atomic_load_n(be->ring.sq.kflags, __ATOMIC_ACQUIRE) & told);
}

static bool uring_turn(Loop *loop, int64_t timeout_ns)
{
    UringState *be = loop->be;
    bool progress = false;
    Aside done;

    loop->stats.system_calls++;
    submit_and_wait(&be->ring, be->aside && be->aside->len ? 0 : timeout_ns);
    loop_clock_update(loop);
    for (unsigned i = 0; be->aside && i < be->aside->len; i++) {
        done = g_array_index(be->aside, Aside, i); /* callbacks may add to it */
        dispatch(loop, &done);
        progress = true;
    }
    if (be->aside) {
        g_array_set_size(be->aside, 0);
    }
    /* As many as there are now: callbacks may add more, which is the next turn's. */
    for (unsigned n = io_uring_cq_ready(&be->ring); n > 0; n--) {
        if (!next_completion(be, &done)) {
            break;
        }
        dispatch(loop, &done);
        progress = true;
    }
    return progress;
}

const LoopBackend loop_backend_uring = {
    .name = "io_uring",
    .init = uring_init,
    .fini = uring_fini,
    .fd_watch = uring_fd_watch,
    .sock_start = uring_sock_start,
    .sock_cancel = uring_sock_cancel,
    .disk_start = uring_disk_start,
    .disk_forget = uring_disk_forget,
    .turn = uring_turn,
    .pending = uring_pending,
};
