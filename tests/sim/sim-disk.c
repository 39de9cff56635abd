/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The contents of simulated disks: what is there now, what is durable, and what is in
 * between.  When things happen is sim-host.c's affair. */
#include "tests/sim/sim-private.h"

#include <string.h>

#include "block/base/iov.h"

#define BLOCK 512u /* the unit in which space is used */

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
void sim_apply(const SimDisk *d, const Change *c, uint8_t *image, uint64_t *size,
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

/* Is an older change of the same place kept still?  It must not come out on top. */
static bool is_behind_another(const SimDisk *d, const Change *c)
{
    list_foreach(it, &d->changes) {
        const Change *older = container_of(it, Change, link);
        if (older == c) {
            return false;
        }
        if (older->truncate || c->truncate ||
            (older->offset < c->offset + c->len && c->offset < older->offset + older->len)) {
            return true;
        }
    }
    return false;
}

void sim_make_durable(SimDisk *d, uint64_t sync_point)
{
    list_foreach_safe(it, next, &d->changes) {
        Change *c = container_of(it, Change, link);
        if (!c->completed || c->completed > sync_point || c->lost) {
            continue;
        }
        if (is_behind_another(d, c)) {
            c->sure = true;
        } else {
            sim_apply(d, c, d->durable, &d->durable_size, NULL, 1);
            change_free(c);
        }
    }
}

/* Linux marks the pages clean: whether they reached the disk nobody will know. */
void sim_lose_dirty_pages(SimDisk *d)
{
    list_foreach(it, &d->changes) {
        Change *c = container_of(it, Change, link);
        c->lost |= c->completed && !c->truncate && !c->sure;
    }
}

/* Opened anew: what a failed sync lost is read from the disk again, old or new. */
void sim_forget_lost_pages(SimDisk *d)
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
        sim_apply(d, c, d->durable, &d->durable_size, d->host->rand, c->lost ? 0.5 : 1);
        change_free(c);
    }
    memcpy(d->now, d->durable, d->max_size);
    d->now_size = d->durable_size;
}

void sim_complete_change(SimDisk *d, Change *c)
{
    c->completed = ++d->host->clock;
    list_remove(&c->link); /* behind those completed before, before those in flight */
    ListLink *at = d->changes.next;
    while (at != &d->changes && container_of(at, Change, link)->completed) {
        at = at->next;
    }
    list_append(at, &c->link);
    sim_apply(d, c, d->now, &d->now_size, NULL, 1);
}

/* It failed, and some of it happened: that is a change of its own, complete. */
void sim_fail_change(SimDisk *d, Change *c)
{
    uint32_t granule = d->host->traits.granule;
    uint64_t granules = (c->len + granule - 1) / granule; /* a small one: all or nothing */
    uint64_t keep = granules ? g_rand_int_range(d->host->rand, 0, (gint32)granules + 1) : 0;
    c->len = MIN(c->len, keep * granule);
    if (c->truncate || !c->len) {
        change_free(c);
        return;
    }
    sim_complete_change(d, c);
}

Change *sim_record(SimDisk *d, const DiskOp *op)
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

bool sim_take_room(SimDisk *d, const DiskOp *op)
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

/* ---- disks ---- */

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
    sim_make_durable(d, UINT64_MAX);
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
        bool sure = c->completed && (!power_loss || c->sure);
        if (c->truncate) {
            sizes &= sure || g_rand_double(rand) < odds;
            if (sizes) {
                sim_apply(d, c, image, &size, NULL, 1);
            }
        } else {
            sim_apply(d, c, image, &size, rand, sure ? 1 : odds);
        }
    }
    *ret_len = size;
    return image;
}
