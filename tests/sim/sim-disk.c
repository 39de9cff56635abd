/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The simulated disk; see sim-disk.h for what it promises. */
#include "tests/sim/sim-disk.h"

#include <errno.h>
#include <string.h>

#include "block/base/iov.h"

#define SECTOR 512u

/* A change that no sync has covered yet. */
typedef struct Change {
    ListLink link;
    bool truncate;
    uint64_t completed; /* the clock's reading then; 0: in flight */
    uint64_t offset; /* or the new size */
    uint64_t len;
    uint8_t *data; /* NULL: zeros */
} Change;

typedef struct Pending {
    ListLink link;
    DiskOp *op;
    Change *change;
    uint64_t sync_point; /* of a sync: the clock when it was submitted */
} Pending;

struct SimDisk {
    Loop *loop;
    GRand *rand;
    uint8_t *now, *durable;
    uint64_t max_size, now_size, durable_size;
    ListLink changes; /* in order of submission */
    ListLink pending;
    LoopWork work;
    bool cut;
    double fault_odds;
    uint64_t nb_ops;
    uint64_t clock; /* counts completions */
};

static void apply(const Change *c, uint8_t *image, uint64_t *size, uint64_t max_size,
                  GRand *torn)
{
    if (c->truncate) {
        if (c->offset < *size) {
            memset(image + c->offset, 0, *size - c->offset);
        }
        *size = c->offset;
        return;
    }
    for (uint64_t pos = 0; pos < c->len; pos += SECTOR) {
        uint64_t n = MIN(SECTOR, c->len - pos);
        if (torn && g_rand_boolean(torn)) {
            continue;
        }
        g_assert(c->offset + pos + n <= max_size);
        if (c->data) {
            memcpy(image + c->offset + pos, c->data + pos, n);
        } else {
            memset(image + c->offset + pos, 0, n);
        }
        *size = MAX(*size, c->data ? c->offset + pos + n : *size);
    }
}

static void change_free(Change *c)
{
    list_remove(&c->link);
    g_free(c->data);
    g_free(c);
}

/* A sync is done: it covers what had completed when it was submitted (D5). */
static void make_durable(SimDisk *d, const Pending *sync)
{
    list_foreach_safe(it, next, &d->changes) {
        Change *c = container_of(it, Change, link);
        if (c->completed && c->completed <= sync->sync_point) {
            apply(c, d->durable, &d->durable_size, d->max_size, NULL);
            change_free(c);
        }
    }
}

static int perform(SimDisk *d, Pending *p)
{
    DiskOp *op = p->op;
    switch (op->type) {
    case DISK_READ: {
        uint64_t n = op->offset < d->now_size ? MIN(op->len, d->now_size - op->offset) : 0;
        iov_from_buf(op->iov, op->niov, 0, d->now + op->offset, n);
        iov_memset(op->iov, op->niov, n, 0, op->len - n);
        return 0;
    }
    case DISK_SYNC:
        make_durable(d, p);
        return 0;
    default:
        p->change->completed = ++d->clock;
        apply(p->change, d->now, &d->now_size, d->max_size, NULL);
        return 0;
    }
}

static void run_some(LoopWork *work)
{
    SimDisk *d = container_of(work, SimDisk, work);
    unsigned waiting = 0, pick;

    if (d->cut) {
        return;
    }
    list_foreach(it, &d->pending) {
        waiting++;
    }
    if (waiting) {
        pick = (unsigned)g_rand_int_range(d->rand, 0, (gint32)waiting);
        ListLink *it = d->pending.next;
        while (pick--) {
            it = it->next;
        }
        Pending *p = container_of(it, Pending, link);
        DiskOp *op = p->op;
        list_remove(&p->link);
        int ret = perform(d, p);
        g_free(p);
        disk_op_complete(op, ret);
    }
    if (!list_empty(&d->pending)) {
        loop_work_schedule(d->loop, &d->work);
    }
}

static Change *record(SimDisk *d, const DiskOp *op)
{
    Change *c = g_new0(Change, 1);
    c->offset = op->offset;
    c->len = op->len;
    c->truncate = op->type == DISK_TRUNCATE;
    if (op->type == DISK_WRITE) {
        c->data = g_malloc(op->len);
        iov_to_buf(op->iov, op->niov, 0, c->data, op->len);
    }
    list_append(&d->changes, &c->link);
    return c;
}

static void sim_submit(DiskFile *file, DiskOp *op)
{
    SimDisk *d = disk_file_opaque(file);
    d->nb_ops++;
    if (op->type != DISK_READ && d->fault_odds > 0 &&
        g_rand_double(d->rand) < d->fault_odds) {
        disk_op_complete(op, g_rand_boolean(d->rand) ? -EIO : -ENOSPC);
        return;
    }
    if (op->type == DISK_TRUNCATE && op->offset > d->max_size) {
        disk_op_complete(op, -ENOSPC);
        return;
    }
    Pending *p = g_new0(Pending, 1);
    p->op = op;
    if (op->type == DISK_SYNC) {
        p->sync_point = d->clock;
    } else if (op->type != DISK_READ) {
        p->change = record(d, op);
    }
    list_append(&d->pending, &p->link);
    loop_work_schedule(d->loop, &d->work);
}

static int64_t sim_size(DiskFile *file)
{
    SimDisk *d = disk_file_opaque(file);
    return (int64_t)d->now_size;
}

static void sim_close(DiskFile *file)
{
}

static const DiskFileOps sim_ops = {"sim", sim_submit, sim_size, sim_close};

SimDisk *sim_disk_new(Loop *loop, uint64_t max_size, GRand *rand)
{
    SimDisk *d = g_new0(SimDisk, 1);
    d->loop = loop;
    d->rand = rand;
    d->max_size = max_size;
    d->now = g_malloc0(max_size);
    d->durable = g_malloc0(max_size);
    list_init(&d->changes);
    list_init(&d->pending);
    loop_work_init(&d->work, run_some);
    return d;
}

DiskFile *sim_disk_open(SimDisk *d, bool writable)
{
    DiskFileInfo info = {.writable = writable, .direct = true, .mem_align = 1,
                         .offset_align = 1, .max_transfer = 1 << 30};
    return disk_file_new_custom(d->loop, &sim_ops, d, &info);
}

void sim_disk_load(SimDisk *d, const void *data, uint64_t len)
{
    memcpy(d->now, data, len);
    memcpy(d->durable, data, len);
    d->now_size = d->durable_size = len;
}

void sim_disk_set_faults(SimDisk *d, double odds)
{
    d->fault_odds = odds;
}

void sim_disk_cut_power(SimDisk *d)
{
    d->cut = true;
}

uint64_t sim_disk_nb_ops(const SimDisk *d)
{
    return d->nb_ops;
}

uint8_t *sim_disk_survivors(SimDisk *d, bool power_loss, uint64_t *ret_len)
{
    uint64_t size = d->durable_size;
    uint8_t *image = g_malloc0(d->max_size);
    memcpy(image, d->durable, d->durable_size);
    list_foreach(it, &d->changes) {
        const Change *c = container_of(it, Change, link);
        if (power_loss ? g_rand_boolean(d->rand) : c->completed) {
            apply(c, image, &size, d->max_size, power_loss && !c->truncate ? d->rand : NULL);
        }
    }
    *ret_len = size;
    return image;
}
