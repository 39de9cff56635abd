/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk operations: the stage of the turn in which they start and end, and the choice of
 * the engine.  Operations on files that are synchronous by nature (tmpfs) are executed
 * right here, within a byte budget per round, so that sockets are not starved; buffered
 * reads are tried here with RWF_NOWAIT first. A coroutine's reads and writes on such files
 * do not even wait for the stage while the budget lasts: what one has read is still in the
 * processor's cache when it writes it.
 *
 * A file system may refuse RWF_NOWAIT and yet be slow (NFS does): inline I/O that takes
 * much longer than copying memory, several rounds in a row, makes the file an ordinary
 * one for good.
 */
#include "block/aio/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/aio/coroutine-private.h"
#include "block/aio/disk-private.h"
#include "block/base/ablate.h"
#include "block/base/error.h"
#include "block/base/iov.h"

#define INLINE_BUDGET (1u << 20) /* bytes of inline I/O per round of stage 3 */
#define SLOW_OP_NS    INT64_C(500000)
#define SLOW_BYTE_NS  4
#define SLOW_ROUNDS   8

static void kernel_submit(DiskFile *file, DiskOp *op)
{
    if (file->info.direct && (op->type == DISK_READ || op->type == DISK_WRITE)) {
        uint64_t align = file->info.offset_align;
        g_assert(!((op->offset | op->len) & (align - 1))); /* D4 */
        g_assert(iov_is_aligned(op->iov, op->niov, file->info.mem_align));
    }
    list_append(&file->loop->disk_pending, &op->link);
}

static int64_t kernel_size(DiskFile *file)
{
    return disk_fd_size(file->fd);
}

static void kernel_close(DiskFile *file)
{
    if (file->ring_slot) {
        file->loop->backend->disk_forget(file->loop, file);
    }
    close(file->fd);
}

static const DiskFileOps kernel_ops = {
    .name = "kernel",
    .submit = kernel_submit,
    .size = kernel_size,
    .close = kernel_close,
};

/* ---- files ---- */

/* Environment QDP_DISK=engine: never inline, so that tests reach the engines on tmpfs. */
static bool force_engine(void)
{
    const char *value = getenv("QDP_DISK");
    return value && strcmp(value, "engine") == 0;
}

static DiskEngine choose_engine(Loop *loop, const DiskFileInfo *info, DiskAio aio)
{
    bool ring = loop->backend->disk_start != NULL;
    switch (aio) {
    case DISK_AIO_THREADS:
        return DISK_ENGINE_THREADS;
    case DISK_AIO_NATIVE:
        return DISK_ENGINE_LAIO;
    default:
        if (ring) {
            return DISK_ENGINE_RING;
        }
        return info->direct && laio_open(loop, NULL) ? DISK_ENGINE_LAIO
                                                     : DISK_ENGINE_THREADS;
    }
}

DiskFile *disk_file_new(Loop *loop, int fd, const char *name, DiskAio aio, GError **errp)
{
    g_autofree DiskFile *file = g_new0(DiskFile, 1);
    file->ops = &kernel_ops;
    file->loop = loop;
    file->fd = fd;
    if (!disk_probe(file, name, errp)) {
        return NULL;
    }
    if (aio == DISK_AIO_NATIVE) {
        if (!file->info.direct) {
            error_set(errp, "aio=native was specified, but it requires cache.direct=on, "
                            "which was not specified.");
            return NULL;
        }
        if (!laio_open(loop, errp)) {
            return NULL;
        }
    }
    if (aio == DISK_AIO_URING && !loop->backend->disk_start) {
        error_set(errp, "aio=io_uring was specified, but io_uring is not available on "
                        "this host");
        return NULL;
    }
    file->engine = choose_engine(loop, &file->info, aio);
    bool forced = force_engine() || ablated(ABLATE_INLINE_IO);
    file->inline_all = file->info.sync_by_nature && !forced;
    file->inline_reads = !file->info.sync_by_nature && !file->info.direct && !forced;
    return g_steal_pointer(&file);
}

DiskFile *disk_file_new_custom(Loop *loop, const DiskFileOps *ops, void *opaque,
                               const DiskFileInfo *info)
{
    DiskFile *file = g_new0(DiskFile, 1);
    file->ops = ops;
    file->loop = loop;
    file->opaque = opaque;
    file->info = *info;
    file->fd = -1;
    return file;
}

void disk_file_free(DiskFile *file)
{
    if (file) {
        if (file->loop->judged == file) {
            file->loop->judged = NULL;
        }
        file->ops->close(file);
        g_free(file);
    }
}

const DiskFileInfo *disk_file_info(const DiskFile *file)
{
    return &file->info;
}

int disk_file_fd(const DiskFile *file)
{
    return file->fd;
}

void *disk_file_opaque(const DiskFile *file)
{
    return file->opaque;
}

Loop *disk_file_loop(const DiskFile *file)
{
    return file->loop;
}

int64_t disk_file_size(DiskFile *file)
{
    return file->ops->size(file);
}

/* ---- operations ---- */

void disk_submit(DiskOp *op)
{
    op->done_bytes = 0;
    op->result = 0;
    op->nb_stalls = 0;
    op->file->ops->submit(op->file, op);
}

void disk_op_complete(DiskOp *op, int ret)
{
    op->result = ret;
    list_append(&op->file->loop->disk_finished, &op->link);
}

static void start_on_engine(Loop *loop, DiskOp *op)
{
    loop->stats.submitted_ops++;
    switch (op->file->engine) {
    case DISK_ENGINE_RING:
        loop->backend->disk_start(loop, op);
        return;
    case DISK_ENGINE_LAIO:
        if (laio_start(loop, op)) {
            if (ablated(ABLATE_SUBMIT_BATCH)) {
                laio_flush(loop);
            }
            return;
        }
        break;
    case DISK_ENGINE_THREADS:
        break;
    }
    threads_start(loop, op);
}

/* Execute @op here and now. True when it ended (result set), false on EAGAIN. */
static bool run_inline(Loop *loop, DiskOp *op, int rwf_flags)
{
    for (;;) {
        loop->stats.system_calls++;
        ssize_t res = disk_op_attempt(op, rwf_flags);
        if (rwf_flags && (res == -EAGAIN || res == -EOPNOTSUPP)) {
            return false;
        }
        if (disk_op_progress(op, res)) {
            loop->stats.inline_ops++;
            return true;
        }
    }
}

/* What one round of the stage did inline. */
typedef struct Round {
    uint64_t nb_ops, bytes;
    bool mixed; /* by more than one file that is synchronous by nature */
    int64_t begin_ns;
} Round;

static void spend(Loop *loop, const DiskOp *op)
{
    loop->inline_left -= MIN(loop->inline_left, op->len + 512);
}

/* How to start one operation; true when it ended inline. */
static bool start(Loop *loop, DiskOp *op, Round *round)
{
    DiskFile *file = op->file;
    if (file->inline_all) {
        if (!round->nb_ops) {
            round->begin_ns = loop_clock_read();
            loop->judged = file;
        }
        round->mixed |= loop->judged != file;
        round->nb_ops++;
        round->bytes += op->len;
        spend(loop, op);
        return run_inline(loop, op, 0);
    }
    if (file->inline_reads && op->type == DISK_READ) {
        spend(loop, op);
        if (run_inline(loop, op, RWF_NOWAIT)) {
            return true;
        }
    }
    start_on_engine(loop, op);
    return false;
}

/* The callbacks' own time counts as well: the bound is far above it. */
static void judge(DiskFile *file, const Round *round)
{
    int64_t spent = loop_clock_read() - round->begin_ns;
    int64_t fair = (int64_t)(round->nb_ops * SLOW_OP_NS + round->bytes * SLOW_BYTE_NS);

    if (spent <= fair) {
        file->slow_rounds = 0;
    } else if (++file->slow_rounds >= SLOW_ROUNDS) {
        file->inline_all = false;
    }
}

bool loop_disk_stage(Loop *loop)
{
    Round round = {0};
    bool progress = laio_reap(loop);
    ListLink batch;

    loop->inline_left = INLINE_BUDGET;
    list_init(&batch);
    list_splice(&batch, &loop->disk_finished);
    while (!list_empty(&batch)) {
        DiskOp *op = list_first(&batch, DiskOp, link);
        list_remove(&op->link);
        progress = true;
        op->done(op, op->result);
    }
    while (loop->inline_left > 0 && !loop->flush_soon && !list_empty(&loop->disk_pending)) {
        DiskOp *op = list_first(&loop->disk_pending, DiskOp, link);
        list_remove(&op->link);
        progress = true;
        if (start(loop, op, &round)) {
            op->done(op, op->result);
        }
    }
    if (loop->judged && !round.mixed) {
        judge(loop->judged, &round);
    }
    loop->judged = NULL;
    return progress;
}

/* ---- waiting in a coroutine ---- */

typedef struct CoDiskOp {
    DiskOp op;
    Coroutine *co;
    int ret;
} CoDiskOp;

static void co_disk_done(DiskOp *op, int ret)
{
    CoDiskOp *wait = container_of(op, CoDiskOp, op);
    wait->ret = ret;
    coroutine_enter(wait->co);
}

/* Do it in the caller's own time? The budget and the verdict on slow files hold here too. */
static bool co_run_now(DiskOp *op)
{
    DiskFile *file = op->file;
    Loop *loop = file->loop;

    if (!file->inline_all || loop->inline_left == 0 || loop->flush_soon ||
        (op->type != DISK_READ && op->type != DISK_WRITE)) {
        return false;
    }
    Round round = {.nb_ops = 1, .bytes = op->len, .begin_ns = loop_clock_read()};
    spend(loop, op);
    run_inline(loop, op, 0);
    judge(file, &round);
    return true;
}

int coroutine_fn disk_co_run(DiskFile *file, DiskOpType type, uint64_t offset,
                             uint64_t len, const struct iovec *iov, int niov,
                             unsigned flags)
{
    CoDiskOp wait = {
        .op = {.file = file, .done = co_disk_done, .offset = offset, .len = len,
               .iov = iov, .niov = niov, .type = type, .flags = flags},
        .co = coroutine_self(),
    };
    if (co_run_now(&wait.op)) {
        return wait.op.result;
    }
    disk_submit(&wait.op);
    coroutine_yield();
    return wait.ret;
}

/* Guests' data stays out of core dumps where that costs nothing: small buffers share their
 * pages with the heap, and a mapping for each would cost more than it hides. */
#define DUMP_LIMIT (128u << 10)

void *disk_buffer_try_alloc(size_t align, size_t len)
{
    size_t page = 4096;
    void *buf;

    if (len >= DUMP_LIMIT) {
        align = MAX(align, page);
    }
    if (posix_memalign(&buf, MAX(align, sizeof(void *)), MAX(len, 1))) {
        return NULL;
    }
    if (len >= DUMP_LIMIT) {
        madvise(buf, len & ~(page - 1), MADV_DONTDUMP); /* larger pages: refused, fine */
    }
    return buf;
}

void disk_buffer_free(void *buf)
{
    free(buf);
}
