/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The simulated host: its clock, the operations in flight, which of them fail; what the
 * disks hold is sim-disk.c's affair. */
#include <errno.h>

#include "block/base/iov.h"
#include "tests/sim/sim-private.h"
#include "tests/sim/tag.h"

/* Each opened file; which of the two programs it belongs to. */
typedef struct SimFile {
    SimDisk *disk;
    bool foreign;
} SimFile;

/* ---- operations end ---- */

static bool strikes(SimHost *h, double odds)
{
    return odds > 0 && g_rand_double(h->rand) < odds;
}

static int end_read(SimDisk *d, DiskOp *op)
{
    if (strikes(d->host, d->host->faults.read_odds)) {
        d->host->nb_failed++;
        return -EIO;
    }
    uint64_t n = op->offset < d->now_size ? MIN(op->len, d->now_size - op->offset) : 0;
    iov_from_buf(op->iov, op->niov, 0, d->now + op->offset, n);
    iov_memset(op->iov, op->niov, n, 0, op->len - n);
    return 0;
}

static int end_sync(SimDisk *d, const Pending *p)
{
    if (strikes(d->host, d->host->faults.sync_odds)) {
        d->host->nb_failed++;
        if (!d->host->traits.direct) {
            sim_lose_dirty_pages(d);
        }
        return -EIO;
    }
    sim_make_durable(d, p->sync_point);
    return 0;
}

static int end_change(SimDisk *d, Pending *p)
{
    bool eio = strikes(d->host, d->host->faults.write_odds);
    bool full = p->op->type != DISK_TRUNCATE && !sim_take_room(d, p->op);
    if (eio || full) {
        d->host->nb_failed++;
        sim_fail_change(d, p->change);
        if ((p->op->flags & DISK_FUA) && !d->host->traits.direct) {
            sim_lose_dirty_pages(d); /* it was a sync as well */
        }
        return full || g_rand_boolean(d->host->rand) ? -ENOSPC : -EIO;
    }
    p->change->sure = p->op->type == DISK_WRITE && (p->op->flags & DISK_FUA);
    sim_complete_change(d, p->change);
    return 0;
}

static void end_operation(Pending *p)
{
    DiskOp *op = p->op;
    int ret;
    if (op->type == DISK_READ) {
        ret = end_read(p->disk, op);
    } else if (op->type == DISK_SYNC) {
        ret = end_sync(p->disk, p);
    } else {
        ret = end_change(p->disk, p);
    }
    disk_op_complete(op, ret);
}

static void step(LoopWork *work)
{
    SimHost *h = container_of(work, SimHost, work);
    Pending *p = list_first(&h->pending, Pending, link);
    h->steps++;
    if (h->step) {
        h->step(h->step_opaque);
    }
    list_remove(&p->link);
    h->now = p->due;
    if (p->op) {
        end_operation(p);
    } else {
        coroutine_wake_later(h->loop, p->sleeper);
    }
    g_free(p);
    if (!list_empty(&h->pending)) {
        loop_work_schedule(h->loop, &h->work);
    }
}

static void add_pending(SimHost *h, Pending *p, uint64_t ticks)
{
    ListLink *at = &h->pending;
    p->due = h->now + ticks;
    while (at->prev != &h->pending && container_of(at->prev, Pending, link)->due > p->due) {
        at = at->prev;
    }
    list_append(at, &p->link); /* before @at */
    loop_work_schedule(h->loop, &h->work);
}

void coroutine_fn sim_co_sleep(SimHost *h, uint64_t ticks)
{
    Pending *p = g_new0(Pending, 1);
    p->sleeper = coroutine_self();
    add_pending(h, p, ticks);
    coroutine_yield();
}

/* ---- operations begin ---- */

static bool is_guest_data(const DiskOp *op, const Change *c)
{
    const uint32_t *words = c ? (const uint32_t *)c->data : NULL;
    uint32_t stamp;
    return words && op->len >= 512 && tag_read(words, words[1], &stamp) && stamp;
}

static uint64_t duration(SimHost *h, const Pending *p)
{
    uint64_t ticks = (uint64_t)g_rand_int_range(h->rand, 1, 17);
    if (h->traits.slow_data && !is_guest_data(p->op, p->change)) {
        return ticks;
    }
    if (h->traits.slow_one_in &&
        g_rand_int_range(h->rand, 0, (gint32)h->traits.slow_one_in) == 0) {
        ticks *= (uint64_t)g_rand_int_range(h->rand, 2, (gint32)h->traits.slow_factor + 2);
    }
    return ticks;
}

/* What the storage refuses at once. */
static int refusal(const SimDisk *d, const DiskOp *op)
{
    bool zeroing = op->type == DISK_PUNCH || op->type == DISK_ZERO;
    if ((zeroing || op->type == DISK_DISCARD) && d->host->traits.no_punch) {
        return -ENOTSUP;
    }
    if (op->type == DISK_TRUNCATE ? op->offset > d->max_size
                                  : op->offset + op->len > d->max_size) {
        return op->type == DISK_READ ? -EIO : -ENOSPC;
    }
    return 0;
}

static void sim_submit(DiskFile *file, DiskOp *op)
{
    SimFile *f = disk_file_opaque(file);
    SimDisk *d = f->disk;
    bool changes = op->type != DISK_READ && op->type != DISK_SYNC;

    g_assert(!((op->offset | op->len) & (d->host->traits.align - 1)) ||
             (op->type != DISK_READ && op->type != DISK_WRITE));
    if (changes && d->frozen && !f->foreign) {
        d->frozen(d->frozen_opaque, d->name);
    }
    int ret = refusal(d, op);
    if (ret < 0) {
        disk_op_complete(op, ret);
        return;
    }
    Pending *p = g_new0(Pending, 1);
    p->disk = d;
    p->op = op;
    p->sync_point = d->host->clock;
    p->change = changes ? sim_record(d, op) : NULL;
    add_pending(d->host, p, duration(d->host, p));
}

static int64_t sim_size(DiskFile *file)
{
    SimFile *f = disk_file_opaque(file);
    return (int64_t)f->disk->now_size;
}

static void sim_close(DiskFile *file)
{
    SimFile *f = disk_file_opaque(file);
    f->disk->nb_open--;
    g_free(f);
}

static const DiskFileOps sim_ops = {"sim", sim_submit, sim_size, sim_close};

DiskFile *sim_disk_open(SimDisk *d, bool writable, bool foreign)
{
    const SimTraits *t = &d->host->traits;
    DiskFileInfo info = {.writable = writable, .direct = t->direct,
                         .block_device = t->block_device, .mem_align = 1,
                         .offset_align = t->align, .max_transfer = 1 << 30};
    SimFile *f = g_new0(SimFile, 1);
    if (d->nb_open++ == 0) {
        sim_forget_lost_pages(d);
    }
    f->disk = d;
    f->foreign = foreign;
    return disk_file_new_custom(d->host->loop, &sim_ops, f, &info);
}

/* ---- hosts ---- */

SimHost *sim_host_new(Loop *loop, uint32_t seed, const SimTraits *traits)
{
    SimHost *h = g_new0(SimHost, 1);
    h->loop = loop;
    h->rand = g_rand_new_with_seed(seed);
    h->traits = *traits;
    list_init(&h->pending);
    loop_work_init(&h->work, step);
    return h;
}

void sim_host_set_step(SimHost *h, void (*fn)(void *opaque), void *opaque)
{
    h->step = fn;
    h->step_opaque = opaque;
}

uint64_t sim_host_steps(const SimHost *h)
{
    return h->steps;
}

void sim_host_set_faults(SimHost *h, const SimFaults *faults)
{
    h->faults = *faults;
}

uint64_t sim_host_nb_failed(const SimHost *h)
{
    return h->nb_failed;
}
