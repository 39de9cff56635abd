/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The simulated machine; see sim-disk.h for what it promises. */
#include "tests/sim/sim-disk.h"

#include <errno.h>
#include <string.h>

#include "block/base/iov.h"
#include "tests/sim/tag.h"

#define BLOCK 512u /* the unit in which space is used */

struct SimHost {
    Loop *loop;
    GRand *rand;
    SimTraits traits;
    SimFaults faults;
    ListLink pending; /* Pending.link, the next one due first */
    LoopWork work;
    uint64_t now, steps, nb_failed;
    uint64_t clock; /* counts completions of changes */
    void (*step)(void *opaque);
    void *step_opaque;
};

/* A change that no sync has covered yet. Completed ones stand in order of completion,
 * then those in flight. */
typedef struct Change {
    ListLink link;
    bool truncate;
    bool lost;          /* a buffered sync failed: no later one covers it (Q13) */
    uint64_t completed; /* the host's clock then; 0: in flight */
    uint64_t offset;    /* or the new size */
    uint64_t len;
    uint8_t *data; /* NULL: zeros */
} Change;

typedef struct Pending {
    ListLink link;
    uint64_t due;
    SimDisk *disk;
    DiskOp *op;
    Change *change;
    uint64_t sync_point; /* of a sync: the clock when it was submitted */
    Coroutine *sleeper;
} Pending;

struct SimDisk {
    SimHost *host;
    char *name;
    uint8_t *now, *durable;
    uint64_t max_size, now_size, durable_size;
    uint8_t *used; /* a byte per block: takes space */
    uint64_t nb_used;
    ListLink changes;
    void (*frozen)(void *opaque, const char *what);
    void *frozen_opaque;
    unsigned nb_open;
};

/* Each opened file; which of the two programs it belongs to. */
typedef struct SimFile {
    SimDisk *disk;
    bool foreign;
} SimFile;

/* ---- changes ---- */

static void apply_range(const Change *c, uint64_t pos, uint64_t n, uint8_t *image)
{
    if (c->data) {
        memcpy(image + c->offset + pos, c->data + pos, n);
    } else {
        memset(image + c->offset + pos, 0, n);
    }
}

/* @odds: of each granule to be there; 1: all of it. */
static void apply(const SimDisk *d, const Change *c, uint8_t *image, uint64_t *size,
                  GRand *rand, double odds)
{
    if (!image) { /* nobody asks what is durable here */
        return;
    }
    if (c->truncate) {
        if (c->offset < *size) {
            memset(image + c->offset, 0, *size - c->offset);
        }
        *size = c->offset;
        return;
    }
    uint32_t granule = d->host->traits.granule;
    for (uint64_t pos = 0; pos < c->len;) {
        uint64_t n = MIN(granule - (c->offset + pos) % granule, c->len - pos);
        if (odds >= 1 || g_rand_double(rand) < odds) {
            apply_range(c, pos, n, image);
            *size = MAX(*size, c->data ? c->offset + pos + n : 0);
        }
        pos += n;
    }
}

static void change_free(Change *c)
{
    list_remove(&c->link);
    g_free(c->data);
    g_free(c);
}

static void make_durable(SimDisk *d, uint64_t sync_point)
{
    list_foreach_safe(it, next, &d->changes) {
        Change *c = container_of(it, Change, link);
        if (c->completed && c->completed <= sync_point && !c->lost) {
            apply(d, c, d->durable, &d->durable_size, NULL, 1);
            change_free(c);
        }
    }
}

/* Linux marks the pages clean: whether they reached the disk nobody will know. */
static void lose_dirty_pages(SimDisk *d)
{
    list_foreach(it, &d->changes) {
        Change *c = container_of(it, Change, link);
        c->lost |= c->completed && !c->truncate;
    }
}

/* Opened anew: what a failed sync lost is read from the disk again, old or new. */
static void forget_lost_pages(SimDisk *d)
{
    bool any = false;
    g_assert(d->durable || list_empty(&d->changes) || !d->host->faults.sync_odds);
    list_foreach(it, &d->changes) {
        any |= container_of(it, Change, link)->lost;
    }
    if (!any) {
        return;
    }
    list_foreach_safe(it, next, &d->changes) {
        Change *c = container_of(it, Change, link);
        apply(d, c, d->durable, &d->durable_size, d->host->rand, c->lost ? 0.5 : 1);
        change_free(c);
    }
    memcpy(d->now, d->durable, d->max_size);
    d->now_size = d->durable_size;
}

static void complete_change(SimDisk *d, Change *c)
{
    c->completed = ++d->host->clock;
    list_remove(&c->link); /* behind those completed before, before those in flight */
    ListLink *at = d->changes.next;
    while (at != &d->changes && container_of(at, Change, link)->completed) {
        at = at->next;
    }
    list_append(at, &c->link);
    apply(d, c, d->now, &d->now_size, NULL, 1);
}

/* It failed, and some of it happened: that is a change of its own, complete. */
static void fail_change(SimDisk *d, Change *c)
{
    uint32_t granule = d->host->traits.granule;
    uint64_t keep = c->len / granule ? g_rand_int_range(d->host->rand, 0,
                                                        (gint32)(c->len / granule) + 1)
                                     : 0;
    c->len = MIN(c->len, keep * granule);
    if (c->truncate || !c->len) {
        change_free(c);
        return;
    }
    complete_change(d, c);
}

/* ---- room ---- */

/* Blocks from @first on, @end not included, that take no space yet. */
static uint64_t count_unused(const SimDisk *d, uint64_t first, uint64_t end)
{
    uint64_t n = 0;
    for (uint64_t i = first; i < end; i++) {
        n += !d->used[i];
    }
    return n;
}

static bool take_room(SimDisk *d, const DiskOp *op)
{
    uint64_t first = op->offset / BLOCK, end = (op->offset + op->len + BLOCK - 1) / BLOCK;
    if (op->type == DISK_PUNCH || op->type == DISK_DISCARD) {
        first = (op->offset + BLOCK - 1) / BLOCK;
        end = MAX((op->offset + op->len) / BLOCK, first);
        d->nb_used -= end - first - count_unused(d, first, end);
        memset(d->used + first, 0, end - first);
        return true;
    }
    uint64_t more = count_unused(d, first, end);
    if (more && d->host->faults.capacity &&
        (d->nb_used + more) * BLOCK > d->host->faults.capacity) {
        return false;
    }
    d->nb_used += more;
    memset(d->used + first, 1, end - first);
    return true;
}

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
            lose_dirty_pages(d);
        }
        return -EIO;
    }
    make_durable(d, p->sync_point);
    return 0;
}

static int end_change(SimDisk *d, Pending *p)
{
    bool eio = strikes(d->host, d->host->faults.write_odds);
    bool full = p->op->type != DISK_TRUNCATE && !take_room(d, p->op);
    if (eio || full) {
        d->host->nb_failed++;
        fail_change(d, p->change);
        return full || g_rand_boolean(d->host->rand) ? -ENOSPC : -EIO;
    }
    if (p->op->type == DISK_WRITE && (p->op->flags & DISK_FUA)) {
        apply(d, p->change, d->durable, &d->durable_size, NULL, 1);
    }
    complete_change(d, p->change);
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
    p->change = changes ? record(d, op) : NULL;
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
        forget_lost_pages(d);
    }
    f->disk = d;
    f->foreign = foreign;
    return disk_file_new_custom(d->host->loop, &sim_ops, f, &info);
}

/* ---- hosts and disks ---- */

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

SimDisk *sim_disk_new(SimHost *h, const char *name, uint64_t max_size)
{
    SimDisk *d = g_new0(SimDisk, 1);
    d->host = h;
    d->name = g_strdup(name);
    d->max_size = max_size;
    d->now = g_malloc0(max_size);
    d->durable = g_malloc0(max_size);
    d->used = g_malloc0(max_size / BLOCK + 1);
    list_init(&d->changes);
    if (h->traits.block_device) { /* another tenant's bytes */
        memset(d->now, 0xa5, max_size);
        memset(d->durable, 0xa5, max_size);
        d->now_size = d->durable_size = max_size;
    }
    return d;
}

const char *sim_disk_name(const SimDisk *d)
{
    return d->name;
}

void sim_disk_load(SimDisk *d, const void *data, uint64_t len)
{
    memcpy(d->now, data, len);
    memcpy(d->durable, data, len);
    d->now_size = d->durable_size = len;
}

void sim_disk_adopt(SimDisk *d, uint8_t *image, uint64_t len)
{
    g_free(d->now);
    g_free(d->durable);
    d->now = image;
    d->durable = NULL;
    d->now_size = len;
}

const uint8_t *sim_disk_contents(const SimDisk *d, uint64_t *ret_len)
{
    *ret_len = d->now_size;
    return d->now;
}

void sim_disk_foreign_write(SimDisk *d, uint64_t offset, const void *data, uint64_t len)
{
    make_durable(d, UINT64_MAX);
    memcpy(d->now + offset, data, len);
    if (d->durable) {
        memcpy(d->durable + offset, data, len);
    }
    d->now_size = MAX(d->now_size, offset + len);
    d->durable_size = MAX(d->durable_size, offset + len);
}

void sim_disk_freeze(SimDisk *d, void (*fn)(void *opaque, const char *what), void *opaque)
{
    d->frozen = fn;
    d->frozen_opaque = opaque;
}

uint8_t *sim_disk_survivors(SimDisk *d, GRand *rand, bool power_loss, uint64_t *ret_len)
{
    uint64_t size = d->durable_size;
    uint8_t *image = g_malloc0(d->max_size);
    /* Now and then all is there, or nothing: both are likely in life. */
    double odds = (double[]){0.5, 0.5, 0.9, 0.1, 0.02, 0.98}[g_rand_int_range(rand, 0, 6)];
    /* now and then no size that is not synced */
    bool sizes = !power_loss || g_rand_int_range(rand, 0, 4) != 0;

    memcpy(image, d->durable, d->durable_size);
    list_foreach(it, &d->changes) {
        const Change *c = container_of(it, Change, link);
        bool sure = c->completed && !power_loss;
        if (c->truncate) {
            sizes &= sure || g_rand_double(rand) < odds;
            if (sizes) {
                apply(d, c, image, &size, NULL, 1);
            }
        } else {
            apply(d, c, image, &size, rand, sure ? 1 : odds);
        }
    }
    *ret_len = size;
    return image;
}
