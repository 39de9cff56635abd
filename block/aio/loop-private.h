/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of a loop, for the files of block/aio: what the backends (io_uring, epoll)
 * implement, and where disk operations wait for their stage.
 */
#ifndef BLOCK_AIO_LOOP_PRIVATE_H
#define BLOCK_AIO_LOOP_PRIVATE_H

#include <stdatomic.h>
#include "block/aio/disk.h"
#include "block/aio/loop.h"

/* With loop_fd_watch(), of a backend that has edges: tell each event once. */
#define LOOP_FD_EDGE (1u << 31) /* EPOLLET */

typedef struct LoopBackend {
    const char *name;
    bool edges; /* knows LOOP_FD_EDGE */
    bool (*init)(Loop *loop, GError **errp);
    void (*fini)(Loop *loop);
    void (*fd_watch)(LoopFd *watch);  /* watch->events changed */
    /* A receive, or a send that would have waited; op->msg is set. */
    void (*sock_start)(SockOp *op);
    /* True: taken back, the caller ends it. False: it ends by a completion. */
    bool (*sock_cancel)(SockOp *op);
    /* @fd may be another file than the one known under this number. NULL: no matter. */
    void (*fd_fresh)(Loop *loop, int fd);
    /* NULL: this backend has no disk operations of its own. */
    void (*disk_start)(Loop *loop, DiskOp *op);
    /* @file, which it has started operations of, is about to be closed. */
    void (*disk_forget)(Loop *loop, DiskFile *file);
    /* Submit everything, wait up to timeout_ns (-1: for ever, 0: do not wait) and run
     * the callbacks of what completed. False: nothing had. */
    bool (*turn)(Loop *loop, int64_t timeout_ns);
    /* Has turn() something to do now? Told without a system call. NULL: unknown. */
    bool (*pending)(Loop *loop);
} LoopBackend;

extern const LoopBackend loop_backend_uring;
extern const LoopBackend loop_backend_epoll;

typedef struct ThreadPool ThreadPool;
typedef struct LaioContext LaioContext;

struct Loop {
    const LoopBackend *backend;
    void *be;
    int64_t now_ns;
    bool stop;
    bool flush_soon; /* end the round: hooks and sends are next */
    ListLink ready; /* Coroutine.link */
    ListLink work;  /* LoopWork.link */
    ListLink hooks; /* LoopWork.link */
    ListLink sends;         /* SockOp.link: to be tried at the end of the turn */
    ListLink receives;      /* SockOp.link: the backend's at the end of the turn */
    ListLink cancelled;     /* SockOp.link: to be ended with -ECANCELED */
    ListLink disk_pending;  /* DiskOp.link: to be started in stage 3 */
    ListLink disk_finished; /* DiskOp.link: done to be called in stage 3 */
    uint64_t inline_left;   /* bytes of inline I/O that this round may still do (disk.c) */
    DiskFile *judged; /* did inline I/O in this round (disk.c); NULL when it is freed */
    LoopTimer **timers;     /* a binary heap */
    int nb_timers, max_timers;
    struct {
        int64_t max_ns, now_ns; /* look so long before sleeping; now_ns adapts */
        unsigned grow, shrink;
    } poll;
    struct {
        SockOp *op;    /* before the next sleep: sock_last_look() */
        unsigned only; /* looks at the socket alone, where pending is unknown */
        unsigned vain; /* in a row */
        unsigned skip; /* so many chances are not taken */
    } look;
    LoopTimer trim;         /* armed while there are stacks to give back */
    uint64_t trim_turns;    /* stats.turns when it was armed */
    /* loop_post() */
    _Atomic(LoopWork *) posted; /* a stack, linked by link.next */
    LoopFd post_fd;
    /* signals */
    LoopFd signal_fd;
    LoopSignalFn *signal_fn;
    void *signal_opaque;
    /* made when first used */
    ThreadPool *threads;
    LaioContext *laio;
    struct {
        uint64_t turns, system_calls, inline_ops, submitted_ops, completions, polls,
            looks;
    } stats;
};

/* Put a coroutine on the ready list: it runs in stage 2. */
void loop_ready(Loop *loop, Coroutine *co);

int64_t loop_clock_read(void); /* CLOCK_MONOTONIC now, ns */
/* Backends call this after the wait, before the first callback. */
void loop_clock_update(Loop *loop);

/* timers (loop-timer.c) */
void loop_timers_run(Loop *loop);
int64_t loop_timers_next(const Loop *loop); /* deadline, or INT64_MAX */

/* disk stage (disk.c): false when nothing was there to do */
bool loop_disk_stage(Loop *loop);

/* sock.c: try all sends, end what was cancelled; false when there was nothing. */
bool sock_stage(Loop *loop);
/* Give the backend the receives that were started, but for @held (NULL: all of them). */
void sock_stage_receives(Loop *loop, const SockOp *held);
/* A receive that is held: true when it ended and fn was called. */
bool sock_op_try_receive(SockOp *op);
/* Now, without waiting. attempt: bytes or -errno. try_send: true when it ended and fn
 * was called. */
ssize_t sock_op_attempt(SockOp *op);
bool sock_op_try_send(SockOp *op);
/* The socket operation ended (backends): bytes, 0 or -errno. Calls fn. */
void sock_op_end(SockOp *op, ssize_t result);
/* @bytes of a send went out: true when all is sent, else msg points at the rest. */
bool sock_op_advance(SockOp *op, size_t bytes);

/* engines */
void threads_start(Loop *loop, DiskOp *op);
void threads_run(Loop *loop, LoopWork *done, void (*fn)(void *opaque), void *opaque);
void threads_flush(Loop *loop); /* hand over what was started */
void threads_free(Loop *loop);
bool laio_open(Loop *loop, GError **errp);
bool laio_start(Loop *loop, DiskOp *op); /* false: not an operation for it */
bool laio_reap(Loop *loop); /* run what has completed; false when nothing had */
void laio_flush(Loop *loop); /* one io_submit for all that was started */
void laio_free(Loop *loop);

/* One synchronous attempt at the rest of @op by preadv2/pwritev2 and friends with
 * @rwf_flags: bytes moved, or -errno. */
ssize_t disk_op_attempt(DiskOp *op, int rwf_flags);
/* An engine moved @res bytes (or -errno): true when the operation has ended, with
 * op->result set; false when it is to be started again for the rest. */
bool disk_op_progress(DiskOp *op, ssize_t res);
/*
 * What one system call shall move next: the whole vector, or after a short transfer the
 * rest of the element that was reached, then the elements behind it.  So a continuation
 * needs no memory; with niov == 1 only base and length may be kept, not the pointer.
 */
typedef struct DiskPiece {
    const struct iovec *iov;
    int niov;
    off_t offset;
    struct iovec one;
} DiskPiece;
void disk_op_piece(const DiskOp *op, DiskPiece *piece);
int disk_op_fd(const DiskOp *op);

#endif
