/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The epoll backend: for kernels without io_uring (4.19 in dom0) or that forbid it.
 *
 * A receive waits for EPOLLIN and only then calls recvmsg; a send is tried at the end of
 * the turn and waits for EPOLLOUT only after EAGAIN.  Interest in a socket stays
 * registered between two receives: removing it is done lazily, when an event comes that
 * nobody waits for.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "block/aio/loop-private.h"
#include "block/base/error.h"

#define EVENTS_PER_WAIT 64

typedef struct FdState {
    LoopFd *watch;
    SockOp *recv, *send;
    uint32_t registered; /* EPOLL* as the kernel has them; 0 = not at all */
} FdState;

typedef struct EpollState {
    int epfd;
    FdState *fds; /* indexed by fd */
    int nb_fds;
    ListLink sends;     /* SockOp.link: to be tried at the end of this turn */
    ListLink cancelled; /* SockOp.link: to be ended with -ECANCELED */
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

static uint32_t wanted(const FdState *state)
{
    uint32_t events = 0;
    if (state->watch) {
        /* EPOLL* and POLL* agree in value for these */
        events |= state->watch->events & (POLLIN | POLLOUT | POLLPRI | POLLRDHUP);
    }
    return events | (state->recv ? EPOLLIN : 0) | (state->send ? EPOLLOUT : 0);
}

static void update(Loop *loop, int fd, uint32_t events)
{
    EpollState *be = loop->be;
    FdState *state = fd_state(be, fd);
    struct epoll_event ev = {.events = events, .data.fd = fd};

    if (events == state->registered) {
        return;
    }
    loop->stats.system_calls++;
    if (events == 0) {
        epoll_ctl(be->epfd, EPOLL_CTL_DEL, fd, NULL); /* fails when fd was closed: fine */
    } else {
        int op = state->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
        if (epoll_ctl(be->epfd, op, fd, &ev) < 0) {
            /* The number was closed and used again behind a lazy registration. */
            op = errno == ENOENT ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
            int ret = epoll_ctl(be->epfd, op, fd, &ev);
            g_assert(ret == 0);
        }
    }
    state->registered = events;
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
    list_init(&be->sends);
    list_init(&be->cancelled);
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
    EpollState *be = op->loop->be;
    if (op->is_send) {
        list_append(&be->sends, &op->link);
        return;
    }
    FdState *state = fd_state(be, op->fd);
    g_assert(!state->recv);
    state->recv = op;
    update(op->loop, op->fd, state->registered | EPOLLIN);
}

static void forget(SockOp *op)
{
    FdState *state = fd_state(op->loop->be, op->fd);
    if (state->recv == op) {
        state->recv = NULL;
    } else if (state->send == op) {
        state->send = NULL;
    }
    update(op->loop, op->fd, wanted(state));
    list_remove(&op->link);
}

static void epoll_sock_cancel(SockOp *op)
{
    EpollState *be = op->loop->be;
    forget(op);
    list_append(&be->cancelled, &op->link);
}

/* True when the operation ended (its fn was called). */
static bool try_send(SockOp *op)
{
    for (;;) {
        op->loop->stats.system_calls++;
        ssize_t n = sendmsg(op->fd, &op->msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            if (sock_op_advance(op, n)) {
                sock_op_end(op, op->done_bytes);
                return true;
            }
        } else if (errno == EAGAIN) {
            return false;
        } else if (errno != EINTR) {
            sock_op_end(op, -errno);
            return true;
        }
    }
}

static void try_recv(SockOp *op)
{
    FdState *state = fd_state(op->loop->be, op->fd);
    ssize_t n;
    do {
        op->loop->stats.system_calls++;
        n = recvmsg(op->fd, &op->msg, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    state->recv = NULL; /* EPOLLIN stays registered: the next receive is near */
    sock_op_end(op, n < 0 ? -errno : n);
}

static void run_sends(Loop *loop)
{
    EpollState *be = loop->be;
    ListLink batch;

    list_init(&batch);
    list_splice(&batch, &be->sends);
    while (!list_empty(&batch)) {
        SockOp *op = list_first(&batch, SockOp, link);
        list_remove(&op->link);
        int fd = op->fd;
        if (!try_send(op)) {
            FdState *state = fd_state(be, fd);
            state->send = op;
            update(loop, fd, wanted(state));
        }
    }
    while (!list_empty(&be->cancelled)) {
        SockOp *op = list_first(&be->cancelled, SockOp, link);
        list_remove(&op->link);
        sock_op_end(op, -ECANCELED);
    }
}

static void dispatch(Loop *loop, int fd, uint32_t events)
{
    EpollState *be = loop->be;
    const uint32_t in = EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLRDHUP;
    const uint32_t out = EPOLLOUT | EPOLLERR | EPOLLHUP;

    /* be->fds may move and the operations may change in every callback: look again. */
    SockOp *send = fd_state(be, fd)->send;
    if (send && (events & out) && try_send(send)) {
        FdState *state = fd_state(be, fd);
        if (state->send == send) {
            state->send = NULL;
            update(loop, fd, wanted(state));
        }
    }
    SockOp *recv = fd_state(be, fd)->recv;
    if (recv && (events & in)) {
        try_recv(recv);
        return;
    }
    LoopFd *watch = fd_state(be, fd)->watch;
    if (watch) {
        watch->fn(watch, events);
    } else if (!recv && !send) {
        update(loop, fd, wanted(fd_state(be, fd)));
    }
}

static void epoll_turn(Loop *loop, int64_t timeout_ns)
{
    EpollState *be = loop->be;
    struct epoll_event events[EVENTS_PER_WAIT];

    run_sends(loop);
    int timeout_ms = -1;
    if (loop->stop || !list_empty(&be->sends) || !list_empty(&loop->work) || !list_empty(&loop->ready) ||
        !list_empty(&loop->disk_pending) || !list_empty(&loop->hooks)) {
        timeout_ms = 0; /* callbacks of the sends made new work */
    } else if (timeout_ns >= 0) {
        timeout_ms = (int)MIN((timeout_ns + 999999) / 1000000, 3600 * 1000);
    }
    loop->stats.system_calls++;
    int n = epoll_wait(be->epfd, events, EVENTS_PER_WAIT, timeout_ms);
    loop_clock_update(loop);
    for (int i = 0; i < n; i++) {
        dispatch(loop, events[i].data.fd, events[i].events);
    }
}

const LoopBackend loop_backend_epoll = {
    .name = "epoll",
    .init = epoll_init,
    .fini = epoll_fini,
    .fd_watch = epoll_fd_watch,
    .sock_start = epoll_sock_start,
    .sock_cancel = epoll_sock_cancel,
    .turn = epoll_turn,
};
