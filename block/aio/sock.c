/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stream socket operations: what both backends share.  A backend starts the operation
 * described by op->msg and reports progress here.
 */
#include <errno.h>
#include <string.h>

#include "block/aio/loop-private.h"

void sock_op_init(SockOp *op, Loop *loop, int fd, SockOpFn *fn)
{
    memset(op, 0, sizeof(*op));
    op->loop = loop;
    op->fd = fd;
    op->fn = fn;
    list_init(&op->link);
}

static void start(SockOp *op, struct iovec *iov, int niov, bool is_send)
{
    g_assert(!op->active);
    op->active = true;
    op->is_send = is_send;
    op->done_bytes = 0;
    op->msg.msg_iov = iov;
    op->msg.msg_iovlen = niov;
    op->loop->backend->sock_start(op);
}

void sock_recv(SockOp *op, void *buf, size_t len)
{
    op->one.iov_base = buf;
    op->one.iov_len = len;
    start(op, &op->one, 1, false);
}

void sock_recvv(SockOp *op, struct iovec *iov, int niov)
{
    start(op, iov, niov, false);
}

void sock_sendv(SockOp *op, struct iovec *iov, int niov)
{
    start(op, iov, niov, true);
}

void sock_cancel(SockOp *op)
{
    if (op->active) {
        op->loop->backend->sock_cancel(op);
    }
}

bool sock_op_advance(SockOp *op, size_t bytes)
{
    struct msghdr *msg = &op->msg;
    op->done_bytes += bytes;
    while (msg->msg_iovlen > 0 && bytes >= msg->msg_iov->iov_len) {
        bytes -= msg->msg_iov->iov_len;
        msg->msg_iov++;
        msg->msg_iovlen--;
    }
    if (msg->msg_iovlen == 0) {
        return true;
    }
    msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + bytes;
    msg->msg_iov->iov_len -= bytes;
    return false;
}

void sock_op_end(SockOp *op, ssize_t result)
{
    op->active = false;
    op->fn(op, result);
}

/* ---- coroutine forms ---- */

typedef struct CoSockOp {
    SockOp op;
    Coroutine *co;
    ssize_t result;
    bool ended;
} CoSockOp;

static void co_sock_done(SockOp *op, ssize_t result)
{
    CoSockOp *wait = container_of(op, CoSockOp, op);
    wait->result = result;
    wait->ended = true;
    coroutine_enter(wait->co);
}

ssize_t coroutine_fn sock_co_recv(Loop *loop, int fd, void *buf, size_t len)
{
    CoSockOp wait = {.co = coroutine_self()};
    sock_op_init(&wait.op, loop, fd, co_sock_done);
    sock_recv(&wait.op, buf, len);
    coroutine_yield();
    return wait.result;
}

ssize_t coroutine_fn sock_co_send_all(Loop *loop, int fd, const void *buf, size_t len)
{
    CoSockOp wait = {.co = coroutine_self()};
    struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};
    if (len == 0) {
        return 0;
    }
    sock_op_init(&wait.op, loop, fd, co_sock_done);
    sock_sendv(&wait.op, &iov, 1);
    coroutine_yield();
    return wait.result;
}
