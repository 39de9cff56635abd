/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The Linux AIO engine (aio=native): one small context per loop, one io_submit per turn,
 * completions read from the ring in user space.
 *
 * A1 a context takes 128 events: the system-wide limit (fs.aio-max-nr, 65536) is shared
 *    by hundreds of disks; what does not fit waits in a queue, the guest never sees
 *    EAGAIN;
 * A2 the ring is looked at in every round of the turn (two loads); the eventfd only ends
 *    the wait. Where the backend can watch for edges, its counter is never read: each
 *    completion is a new edge;
 * A3 what the kernel refuses for good (fdsync before 4.18) is done by a thread, which
 *    knows the fall-backs and the right error;
 * A4 io_submit of a write to a regular file waits while its file system is suspended
 *    (fsfreeze), RWF_NOWAIT or not, and the loop with it; the other engines do not.
 */
#include <errno.h>
#include <libaio.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "block/aio/disk-private.h"
#include "block/base/error.h"

#define MAX_EVENTS 128

struct LaioContext {
    io_context_t ctx;
    Loop *loop;
    LoopFd event;
    ListLink queue;   /* DiskOp.link: not yet submitted */
    unsigned in_flight;
    bool no_sync; /* A3 */
    struct iocb iocbs[MAX_EVENTS];
    struct iocb *free[MAX_EVENTS];
    unsigned nb_free;
};

/* The kernel's completion ring, mapped at the context's address. */
typedef struct AioRing {
    unsigned id, nr;
    _Atomic unsigned head, tail;
    unsigned magic, compat_features, incompat_features, header_length;
    struct io_event events[];
} AioRing;
#define AIO_RING_MAGIC 0xa10a10a1u

static void completed(LaioContext *laio, struct io_event *event)
{
    struct iocb *iocb = event->obj;
    DiskOp *op = event->data;
    ssize_t res = (ssize_t)event->res;

    laio->free[laio->nb_free++] = iocb;
    laio->in_flight--;
    laio->loop->stats.completions++;
    if (res == -EOPNOTSUPP && (op->flags & DISK_FUA)) {
        threads_start(laio->loop, op); /* has the fall-back */
    } else if (res != -EAGAIN && disk_op_progress(op, res)) {
        op->done(op, op->result);
    } else { /* again, or short: the rest */
        list_append(&laio->queue, &op->link);
    }
}

static void reap_by_syscall(LaioContext *laio)
{
    struct io_event events[32];
    struct timespec zero = {0, 0};
    int n;
    do {
        laio->loop->stats.system_calls++;
        n = io_getevents(laio->ctx, 0, G_N_ELEMENTS(events), events, &zero);
        for (int i = 0; i < n; i++) {
            completed(laio, &events[i]);
        }
    } while (n == G_N_ELEMENTS(events));
}

static void reap(LaioContext *laio)
{
    AioRing *ring = (AioRing *)laio->ctx;
    if (ring->magic != AIO_RING_MAGIC || ring->incompat_features) {
        reap_by_syscall(laio);
        return;
    }
    unsigned head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    while (head != atomic_load_explicit(&ring->tail, memory_order_acquire)) {
        struct io_event event = ring->events[head];
        head = (head + 1) % ring->nr;
        atomic_store_explicit(&ring->head, head, memory_order_release);
        completed(laio, &event);
    }
}

bool laio_reap(Loop *loop)
{
    LaioContext *laio = loop->laio;
    uint64_t before = loop->stats.completions;

    if (!laio || !laio->in_flight) {
        return false;
    }
    reap(laio);
    return loop->stats.completions != before;
}

static void event_ready(LoopFd *watch, unsigned revents)
{
    LaioContext *laio = container_of(watch, LaioContext, event);
    uint64_t count;

    if (!laio->loop->backend->edges) {
        laio->loop->stats.system_calls++;
        while (read(watch->fd, &count, sizeof(count)) < 0 && errno == EINTR) {
        }
    }
    laio_reap(laio->loop);
}

bool laio_open(Loop *loop, GError **errp)
{
    if (loop->laio) {
        return true;
    }
    LaioContext *laio = g_new0(LaioContext, 1);
    int ret = io_setup(MAX_EVENTS, &laio->ctx);
    if (ret < 0) {
        error_set_errno(errp, -ret, "Unable to use native AIO: io_setup failed");
        g_free(laio);
        return false;
    }
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        error_set_errno(errp, errno, "Could not create an eventfd");
        io_destroy(laio->ctx);
        g_free(laio);
        return false;
    }
    laio->loop = loop;
    list_init(&laio->queue);
    for (int i = 0; i < MAX_EVENTS; i++) {
        laio->free[laio->nb_free++] = &laio->iocbs[i];
    }
    loop_fd_init(&laio->event, loop, fd, event_ready);
    loop_fd_watch(&laio->event, POLLIN | (loop->backend->edges ? LOOP_FD_EDGE : 0));
    loop->laio = laio;
    return true;
}

void laio_free(Loop *loop)
{
    LaioContext *laio = loop->laio;
    if (!laio) {
        return;
    }
    loop_fd_watch(&laio->event, 0);
    io_destroy(laio->ctx);
    close(laio->event.fd);
    g_free(laio);
    loop->laio = NULL;
}

bool laio_start(Loop *loop, DiskOp *op)
{
    LaioContext *laio = loop->laio;

    if (op->type != DISK_READ && op->type != DISK_WRITE &&
        (op->type != DISK_SYNC || laio->no_sync)) {
        return false;
    }
    list_append(&laio->queue, &op->link);
    return true;
}

static void prepare_rw(struct iocb *iocb, const DiskOp *op)
{
    int fd = disk_op_fd(op);
    DiskPiece p;

    disk_op_piece(op, &p);
    if (op->type == DISK_READ && p.niov == 1) {
        io_prep_pread(iocb, fd, p.iov->iov_base, p.iov->iov_len, p.offset);
    } else if (op->type == DISK_READ) {
        io_prep_preadv(iocb, fd, p.iov, p.niov, p.offset);
    } else if (p.niov == 1) {
        io_prep_pwrite(iocb, fd, p.iov->iov_base, p.iov->iov_len, p.offset);
    } else {
        io_prep_pwritev(iocb, fd, p.iov, p.niov, p.offset);
    }
    if (op->type == DISK_WRITE && (op->flags & DISK_FUA)) {
        iocb->aio_rw_flags = RWF_DSYNC;
    }
}

static struct iocb *prepare(LaioContext *laio, DiskOp *op)
{
    struct iocb *iocb = laio->free[--laio->nb_free];

    if (op->type == DISK_SYNC) {
        io_prep_fdsync(iocb, disk_op_fd(op));
    } else {
        prepare_rw(iocb, op);
    }
    iocb->data = op;
    io_set_eventfd(iocb, laio->event.fd);
    return iocb;
}

/* The kernel refuses this one for good: end it through a thread, which reports why. */
static void refused(LaioContext *laio, struct iocb *iocb)
{
    DiskOp *op = iocb->data;
    laio->no_sync |= op->type == DISK_SYNC;
    laio->free[laio->nb_free++] = iocb;
    threads_start(laio->loop, op);
}

void laio_flush(Loop *loop)
{
    LaioContext *laio = loop->laio;
    struct iocb *batch[MAX_EVENTS];

    while (laio && !list_empty(&laio->queue) && laio->nb_free > 0) {
        int n = 0;
        while (!list_empty(&laio->queue) && laio->nb_free > 0) {
            DiskOp *op = list_first(&laio->queue, DiskOp, link);
            list_remove(&op->link);
            batch[n++] = prepare(laio, op);
        }
        loop->stats.system_calls++;
        int ret = io_submit(laio->ctx, n, batch);
        int taken = MAX(ret, 0);
        laio->in_flight += taken;
        /* What was not taken goes back to the head of the queue, in order. */
        for (int i = n - 1; i >= taken; i--) {
            if (i == taken && ret < 0 && ret != -EAGAIN) {
                refused(laio, batch[i]);
                continue;
            }
            DiskOp *op = batch[i]->data;
            laio->free[laio->nb_free++] = batch[i];
            list_prepend(&laio->queue, &op->link);
        }
        if (ret == -EAGAIN || (ret >= 0 && taken < n && laio->in_flight > 0)) {
            if (laio->in_flight == 0) {
                /* Nothing of ours will complete and make room: let a thread do one. */
                DiskOp *op = list_first(&laio->queue, DiskOp, link);
                list_remove(&op->link);
                threads_start(loop, op);
                continue;
            }
            return; /* a completion makes room */
        }
    }
}
