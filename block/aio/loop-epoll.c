/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The epoll backend: for kernels without io_uring (4.19 in dom0) or that forbid it.
 *
 * A receive waits for EPOLLIN and only then calls recvmsg; a send comes here after EAGAIN
 * and waits for EPOLLOUT.
 *
 * E1 interest in a socket stays registered between two receives; it is taken back lazily,
 *    when an event comes that nobody waits for;
 * E2 so a number whose file was closed may look registered: whoever begins with a number
 *    says so (fd_fresh), and the next registration asks the kernel;
 * E3 events carry the generation of their number: those of a closed file are ignored;
 * E4 files that cannot be waited for (EPERM: regular files) count as always ready.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "block/aio/loop-private.h"
#include "block/base/error.h"

#define EVENTS_PER_WAIT 64

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441 /* the same number on every architecture */
#endif

typedef struct FdState {
    LoopFd *watch;
    SockOp *recv, *send;
    uint32_t registered; /* EPOLL* as the kernel has them; 0 = not at all */
    uint32_t generation;
    bool verify; /* E2 */
    bool always; /* E4 */
} FdState;

typedef struct EpollState {
    int epfd;
    FdState *fds; /* indexed by fd */
    int nb_fds;
    int nb_always;
    bool no_pwait2; /* the kernel (< 5.11) has only milliseconds */
} EpollState;

static FdState *fd_state(EpollState *be, int fd)
{
    if (fd >= be->nb_fds) {
        int n = MAX(fd + 1, 2 * be->nb_fds);
        be->fds = g_renew(FdState, be->fds, n);
        memset(be->fds + be->nb_fds, 0, (n - be->nb_fds) * sizeof(FdState));
        be->nb_fds = n;
    }
    return &be->fds[fd];
}

static void set_always(EpollState *be, FdState *state, bool always)
{
    be->nb_always += always - state->always;
    state->always = always;
}

static void epoll_fd_fresh(Loop *loop, int fd)
{
    if (fd < 0) {
        return;
    }
    FdState *state = fd_state(loop->be, fd);
    if (!state->watch && !state->recv && !state->send) {
        state->generation++;
        state->verify = true;
        set_always(loop->be, state, false);
    }
}

static uint32_t wanted(const FdState *state)
{
    uint32_t events = 0;
    if (state->watch) {
        /* EPOLL* and POLL* agree in value for these */
        events |= state->watch->events & (POLLIN | POLLOUT | POLLPRI | POLLRDHUP |
                                          LOOP_FD_EDGE);
    }
    return events | (state->recv ? EPOLLIN : 0) | (state->send ? EPOLLOUT : 0);
}

static void update(Loop *loop, int fd, uint32_t events)
{
    EpollState *be = loop->be;
    FdState *state = fd_state(be, fd);
    struct epoll_event ev = {
        .events = events,
        .data.u64 = (uint64_t)state->generation << 32 | (uint32_t)fd,
    };

    if (events == state->registered && !state->verify) {
        return;
    }
    loop->stats.system_calls++;
    if (events == 0) {
        epoll_ctl(be->epfd, EPOLL_CTL_DEL, fd, NULL); /* fails when fd was closed: fine */
        set_always(be, state, false);
    } else {
        bool known = state->registered || state->verify;
        if ((!known || epoll_ctl(be->epfd, EPOLL_CTL_MOD, fd, &ev) < 0) &&
            epoll_ctl(be->epfd, EPOLL_CTL_ADD, fd, &ev) < 0) {
            /* E4. With EBADF the attempt that follows at once tells the owner. */
            set_always(be, state, true);
        }
    }
    state->registered = events;
    state->verify = false;
}

static bool epoll_init(Loop *loop, GError **errp)
{
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd < 0) {
        error_set_errno(errp, errno, "Could not create an epoll descriptor");
        return false;
    }
    EpollState *be = g_new0(EpollState, 1);
    be->epfd = epfd;
    loop->be = be;
    return true;
}

static void epoll_fini(Loop *loop)
{
    EpollState *be = loop->be;
    close(be->epfd);
    g_free(be->fds);
    g_free(be);
}

static void epoll_fd_watch(LoopFd *watch)
{
    FdState *state = fd_state(watch->loop->be, watch->fd);
    state->watch = watch->events ? watch : NULL;
    update(watch->loop, watch->fd, wanted(state));
}

static void epoll_sock_start(SockOp *op)
{
    FdState *state = fd_state(op->loop->be, op->fd);
    SockOp **place = op->is_send ? &state->send : &state->recv;
    g_assert(!*place);
    *place = op;
    /* E1: what is registered beyond need stays, but never EPOLLOUT: it would spin */
    update(op->loop, op->fd, wanted(state) | (state->registered & EPOLLIN));
}

static bool epoll_sock_cancel(SockOp *op)
{
    FdState *state = fd_state(op->loop->be, op->fd);
    if (state->recv == op) {
        state->recv = NULL;
    } else if (state->send == op) {
        state->send = NULL;
    }
    update(op->loop, op->fd, wanted(state));
    return true;
}

static void send_ready(Loop *loop, int fd)
{
    SockOp *op = fd_state(loop->be, fd)->send;
    fd_state(loop->be, fd)->send = NULL; /* its fn may start the next one */
    if (!sock_op_try_send(op)) {
        fd_state(loop->be, fd)->send = op;
        return;
    }
    update(loop, fd, wanted(fd_state(loop->be, fd)));
}

static void recv_ready(Loop *loop, int fd)
{
    SockOp *op = fd_state(loop->be, fd)->recv;
    ssize_t n = sock_op_attempt(op);
    if (n != -EAGAIN) {
        fd_state(loop->be, fd)->recv = NULL; /* E1 */
        sock_op_end(op, n);
    }
}

static void dispatch(Loop *loop, int fd, uint32_t generation, uint32_t events)
{
    EpollState *be = loop->be;
    const uint32_t in = EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLRDHUP;
    const uint32_t out = EPOLLOUT | EPOLLERR | EPOLLHUP;

    /* be->fds may move and everything may change in every callback: look again. */
    FdState *now = fd_state(be, fd);
    if (now->generation != generation) { /* E3 */
        if (now->verify && !wanted(now)) {
            update(loop, fd, 0); /* or it would come in every turn */
        }
        return;
    }
    LoopFd *watch = fd_state(be, fd)->watch;
    if (watch) {
        watch->fn(watch, events);
        return;
    }
    bool receiving = fd_state(be, fd)->recv != NULL;
    if (fd_state(be, fd)->send && (events & out)) {
        send_ready(loop, fd);
    }
    if (fd_state(be, fd)->generation != generation) {
        return;
    }
    if (!receiving) {
        update(loop, fd, wanted(fd_state(be, fd))); /* E1: nobody waits for this */
    } else if (fd_state(be, fd)->recv && (events & in)) {
        recv_ready(loop, fd);
    }
}

static int wait_events(Loop *loop, struct epoll_event *events, int64_t timeout_ns)
{
    EpollState *be = loop->be;
    int timeout_ms = -1;

    loop->stats.system_calls++;
    if (timeout_ns > 0 && !be->no_pwait2) {
        struct timespec ts = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        int n = (int)syscall(SYS_epoll_pwait2, be->epfd, events, EVENTS_PER_WAIT, &ts,
                             NULL, (size_t)0);
        if (n >= 0 || errno != ENOSYS) {
            return n;
        }
        be->no_pwait2 = true;
    }
    if (timeout_ns >= 0) {
        timeout_ms = (int)MIN((timeout_ns + 999999) / 1000000, 3600 * 1000);
    }
    return epoll_wait(be->epfd, events, EVENTS_PER_WAIT, timeout_ms);
}

static bool epoll_turn(Loop *loop, int64_t timeout_ns)
{
    EpollState *be = loop->be;
    struct epoll_event events[EVENTS_PER_WAIT];
    int n = wait_events(loop, events, be->nb_always ? 0 : timeout_ns);

    loop_clock_update(loop);
    for (int i = 0; i < n; i++) {
        dispatch(loop, (int)(uint32_t)events[i].data.u64, events[i].data.u64 >> 32,
                 events[i].events);
    }
    for (int fd = 0; be->nb_always && fd < be->nb_fds; fd++) {
        FdState *state = &be->fds[fd];
        if (state->always) {
            dispatch(loop, fd, state->generation, wanted(state));
        }
    }
    return n > 0 || be->nb_always;
}

const LoopBackend loop_backend_epoll = {
    .name = "epoll",
    .edges = true,
    .init = epoll_init,
    .fini = epoll_fini,
    .fd_watch = epoll_fd_watch,
    .fd_fresh = epoll_fd_fresh,
    .sock_start = epoll_sock_start,
    .sock_cancel = epoll_sock_cancel,
    .turn = epoll_turn,
};
