/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stream socket operations: what both backends share.
 *
 * S1 a send is tried once, without waiting, at the end of the turn: a reply nearly always
 *    fits into the socket, and an operation that ends here costs neither a completion nor
 *    another turn.  What does not fit is the backend's, as every receive is.
 *    A receive is the backend's at the end of the turn too: until then the loop may look for
 *    it itself (sock_last_look()).
 * S2 fn is called by the loop only, never from inside sock_*() (loop.h, L1).
 * S3 descriptors that are no sockets (standard input) work by readv and writev.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "block/aio/loop-private.h"
#include "block/base/ablate.h"

#define IOV_PER_CALL 1024 /* the kernel's UIO_MAXIOV */

void sock_op_init(SockOp *op, Loop *loop, int fd, SockOpFn *fn)
{
    memset(op, 0, sizeof(*op));
    op->loop = loop;
    op->fd = fd;
    op->fn = fn;
    list_init(&op->link);
    if (loop->backend->fd_fresh) {
        loop->backend->fd_fresh(loop, fd);
    }
}

static void start(SockOp *op, struct iovec *iov, int niov, bool is_send)
{
    g_assert(!op->active);
    op->active = true;
    op->is_send = is_send;
    op->done_bytes = 0;
    op->msg.msg_iov = iov;
    op->msg.msg_iovlen = niov;
    if (is_send) {
        list_append(&op->loop->sends, &op->link);
    } else {
        list_append(&op->loop->receives, &op->link);
    }
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
    if (!op->active) {
        return;
    }
    if (!list_linked(&op->link)) {
        if (!op->loop->backend->sock_cancel(op)) {
            return; /* it ends by itself */
        }
    }
    list_remove(&op->link);
    list_append(&op->loop->cancelled, &op->link);
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

void sock_last_look(SockOp *op)
{
    if (op->active && !ablated(ABLATE_LAST_LOOK)) {
        op->loop->look.op = op;
    }
}

void sock_op_end(SockOp *op, ssize_t result)
{
    op->active = false;
    if (op->loop->look.op == op) {
        op->loop->look.op = NULL;
    }
    op->fn(op, result);
}

ssize_t sock_op_attempt(SockOp *op)
{
    struct msghdr part = op->msg;
    ssize_t n;

    part.msg_iovlen = MIN(part.msg_iovlen, IOV_PER_CALL);
    do {
        op->loop->stats.system_calls++;
        if (op->is_send) {
            n = sendmsg(op->fd, &part, MSG_NOSIGNAL | MSG_DONTWAIT);
        } else {
            n = recvmsg(op->fd, &part, MSG_DONTWAIT);
        }
        if (n < 0 && errno == ENOTSOCK) { /* S3 */
            n = op->is_send ? writev(op->fd, part.msg_iov, (int)part.msg_iovlen)
                            : readv(op->fd, part.msg_iov, (int)part.msg_iovlen);
        }
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

bool sock_op_try_send(SockOp *op)
{
    ssize_t n;

    while ((n = sock_op_attempt(op)) >= 0) {
        if (sock_op_advance(op, n)) {
            sock_op_end(op, op->done_bytes);
            return true;
        }
    }
    if (n == -EAGAIN) {
        return false;
    }
    sock_op_end(op, n);
    return true;
}

bool sock_op_try_receive(SockOp *op)
{
    ssize_t n;

    op->loop->stats.system_calls++;
    if (op->msg.msg_iovlen == 1) { /* less to look at for each vain attempt */
        n = recv(op->fd, op->msg.msg_iov->iov_base, op->msg.msg_iov->iov_len, MSG_DONTWAIT);
    } else {
        n = recvmsg(op->fd, &op->msg, MSG_DONTWAIT);
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOTSOCK)) {
        return false; /* S3: reading from what is no socket would wait */
    }
    list_remove(&op->link);
    loop_clock_update(op->loop);
    sock_op_end(op, n < 0 ? -errno : n);
    return true;
}

void sock_stage_receives(Loop *loop, const SockOp *held)
{
    list_foreach_safe(it, next, &loop->receives) {
        SockOp *op = container_of(it, SockOp, link);
        if (op != held) {
            list_remove(it);
            loop->backend->sock_start(op);
        }
    }
}

bool sock_stage(Loop *loop)
{
    ListLink batch;
    bool progress = false;

    list_init(&batch);
    list_splice(&batch, &loop->sends);
    while (!list_empty(&batch)) {
        SockOp *op = list_first(&batch, SockOp, link);
        list_remove(&op->link);
        progress = true;
        if (!sock_op_try_send(op)) {
            op->loop->backend->sock_start(op);
        }
    }
    list_splice(&batch, &loop->cancelled);
    while (!list_empty(&batch)) {
        SockOp *op = list_first(&batch, SockOp, link);
        list_remove(&op->link);
        progress = true;
        sock_op_end(op, -ECANCELED);
    }
    return progress;
}

/* ---- coroutine forms ---- */

typedef struct CoSockOp {
    SockOp op;
    Coroutine *co;
    ssize_t result;
} CoSockOp;

static void co_sock_done(SockOp *op, ssize_t result)
{
    CoSockOp *wait = container_of(op, CoSockOp, op);
    wait->result = result;
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
