/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop: one thread, one system call a turn.
 *
 * A turn:
 *   1. reap what the kernel completed; run its callbacks (parse requests, submit disk
 *      operations, enter coroutines);
 *   2. run timers that are due, posted work, ready coroutines;
 *   3. run the disk stage: operations on files that complete inline are executed here and
 *      their done callbacks called; the others become kernel submissions;
 *   4. repeat 2 and 3 until nothing is ready (bounded, so sockets are not starved);
 *   5. run the one-shot flush hooks (an NBD connection sends all replies of the turn);
 *   6. submit everything and wait, in one call.
 *
 * Rules:
 *  L1 no callback is ever called from inside the function that submitted its operation;
 *  L2 all functions are for the loop's own thread, but for loop_post();
 *  L3 an embedded object (timer, work, fd watch, socket op) must be idle or cancelled
 *     before its memory goes away.
 */
#ifndef BLOCK_AIO_LOOP_H
#define BLOCK_AIO_LOOP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "block/base/list.h"
#include "block/aio/coroutine.h"

typedef enum LoopKind {
    LOOP_AUTO,  /* io_uring when the kernel allows it, else epoll */
    LOOP_URING,
    LOOP_EPOLL,
} LoopKind;

/* NULL and *errp when @kind is forced and refused by the kernel. */
Loop *loop_new(LoopKind kind, GError **errp);
void loop_free(Loop *loop);
const char *loop_kind_name(const Loop *loop); /* "io_uring" or "epoll" */

/* Run turns until loop_stop(). */
void loop_run(Loop *loop);
void loop_stop(Loop *loop);

/* Start @entry as a control coroutine and run turns until it has returned (programs'
 * main and tests; not from inside a coroutine). */
void loop_run_coroutine(Loop *loop, CoroutineEntry *entry, void *opaque);

/* CLOCK_MONOTONIC as of the current turn, in ns (the simulator's clock under it). */
int64_t loop_now_ns(Loop *loop);

/* ---- timers (embedded) ---- */
typedef struct LoopTimer LoopTimer;
typedef void LoopTimerFn(LoopTimer *timer);
struct LoopTimer {
    Loop *loop;
    LoopTimerFn *fn;
    int64_t deadline_ns;
    int heap_index; /* -1 = not armed */
};
void loop_timer_init(LoopTimer *timer, Loop *loop, LoopTimerFn *fn);
void loop_timer_arm(LoopTimer *timer, int64_t deadline_ns); /* re-arms if armed */
void loop_timer_cancel(LoopTimer *timer);
static inline bool loop_timer_armed(const LoopTimer *timer)
{
    return timer->heap_index >= 0;
}

/* ---- work: a callback later in this turn (embedded) ---- */
typedef struct LoopWork LoopWork;
typedef void LoopWorkFn(LoopWork *work);
struct LoopWork {
    ListLink link;
    LoopWorkFn *fn;
};
void loop_work_init(LoopWork *work, LoopWorkFn *fn);
void loop_work_schedule(Loop *loop, LoopWork *work); /* nothing if already scheduled */
void loop_work_cancel(LoopWork *work);
/* One-shot hook run just before the loop submits and waits (stage 5). */
void loop_flush_schedule(Loop *loop, LoopWork *hook);
/* Enough has been produced to be worth a system call of its own: run the hooks and send as
 * soon as the running callback is back, so that the peer works while we do. */
void loop_flush_soon(Loop *loop);
/* Thread-safe: run @work on @loop's thread. @work must not be scheduled already. */
void loop_post(Loop *loop, LoopWork *work);

/* ---- fd watches (embedded): signals, eventfds, listening sockets ---- */
typedef struct LoopFd LoopFd;
typedef void LoopFdFn(LoopFd *watch, unsigned revents); /* POLLIN, POLLOUT, POLLHUP.. */
struct LoopFd {
    Loop *loop;
    LoopFdFn *fn;
    int fd;
    unsigned events; /* 0 = not watched */
    void *engine;    /* the loop's own */
};
void loop_fd_init(LoopFd *watch, Loop *loop, int fd, LoopFdFn *fn);
/* Level-triggered: @fn is called while the condition holds. events == 0 stops, and no
 * callback comes afterwards; the fd may then be closed. */
void loop_fd_watch(LoopFd *watch, unsigned events);

/* Signals by signalfd; blocks them in the thread. @fn runs in stage 1. */
typedef void LoopSignalFn(void *opaque, int signo);
bool loop_signals(Loop *loop, const int *signos, int nb_signos, LoopSignalFn *fn,
                  void *opaque, GError **errp);

/* ---- stream sockets: one receive and one send may be in flight per socket ---- */
typedef struct SockOp SockOp;
typedef void SockOpFn(SockOp *op, ssize_t result); /* bytes (0 = EOF) or -errno */
struct SockOp {
    /* the owner's */
    SockOpFn *fn;
    /* the loop's */
    Loop *loop;
    int fd;
    bool active;
    bool is_send;
    struct msghdr msg;
    struct iovec one;
    size_t done_bytes;
    ListLink link;
    void *engine;
};
void sock_op_init(SockOp *op, Loop *loop, int fd, SockOpFn *fn);
/* Receive at least one byte into the buffer. @iov form may be read partially. */
void sock_recv(SockOp *op, void *buf, size_t len);
void sock_recvv(SockOp *op, struct iovec *iov, int niov);
/* Send everything (short sends are continued by the loop); result = total or -errno.
 * @iov is consumed (altered) and must stay valid until @fn. */
void sock_sendv(SockOp *op, struct iovec *iov, int niov);
/* The peer of @op, a receive that is pending, has got the one answer that it was waiting for:
 * it may come back at once. Look for some microseconds before this turn ends in sleep; given up
 * by and by where it is in vain. */
void sock_last_look(SockOp *op);
/* Ask for a pending op to end early; its fn is called later with -ECANCELED or its
 * true result. (shutdown(2) on the socket works as well.) */
void sock_cancel(SockOp *op);

/* Coroutine forms, for the slow protocols (QMP, handshakes). */
ssize_t coroutine_fn sock_co_recv(Loop *loop, int fd, void *buf, size_t len);
ssize_t coroutine_fn sock_co_send_all(Loop *loop, int fd, const void *buf, size_t len);

/* ---- blocking work on a helper thread (open(2) on slow media, getaddrinfo, ...) ---- */
typedef int LoopThreadFn(void *opaque);
int coroutine_fn loop_co_run_in_thread(Loop *loop, LoopThreadFn *fn, void *opaque);

/* Poll for at most @max_ns before sleeping (0, the default: never); the time adapts: it grows
 * by @grow when a little longer would have helped (0: by 2), is divided by @shrink when it
 * was in vain (0: none at once). */
void loop_set_polling(Loop *loop, int64_t max_ns, unsigned grow, unsigned shrink);

/* Counters of the loop, for QMP and tests: turns, system calls, inline operations,
 * submissions.  Appends "name value" pairs by calling @visit. */
void loop_stats_foreach(Loop *loop,
                        void (*visit)(void *opaque, const char *name, uint64_t value),
                        void *opaque);

#endif
