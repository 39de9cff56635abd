/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The operations of a seed, executed by several workers: the guest's requests overlap as
 * they will, the client's commands come one at a time (house.md, graph lock).
 *
 * A request may fail only when the storage did, or had no room.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/base/error.h"
#include "tests/sim/sim.h"
#include "tests/sim/tag.h"

static void forbid_failure(World *w, const SimOp *op, int ret)
{
    bool full = w->cfg.tight && ret == -ENOSPC;
    if (ret < 0 && !full && !sim_host_nb_failed(w->host)) {
        g_autofree char *text = op_describe(op);
        world_fail(w, "%s: %s, though the storage is well", text, strerror(-ret));
    }
}

/* ---- requests ---- */

static void coroutine_fn do_write(World *w, const SimOp *op)
{
    bool zero = op->kind == OP_ZERO;
    uint32_t stamp = zero ? 0 : model_new_stamp(w->model);
    uint64_t offset = op->first * UINT64_C(512), len = op->count * UINT64_C(512);
    unsigned flags = op->fua ? BLOCK_FUA : 0;
    int ret;

    uint32_t serial = model_begin(w->model, op->first, op->count, stamp, true);
    if (zero) {
        flags |= op->unmap ? BLOCK_MAY_UNMAP : 0;
        ret = port_co_write_zeroes(w->port, offset, len, flags);
    } else {
        g_autofree uint8_t *buf = g_malloc(len);
        tag_fill(buf, op->first, op->count, stamp);
        ret = port_co_write(w->port, offset, len, buf, flags);
    }
    model_end(w->model, op->first, op->count, serial, ret == 0, op->fua);
    forbid_failure(w, op, ret);
}

static void coroutine_fn do_discard(World *w, const SimOp *op)
{
    uint32_t serial = model_begin(w->model, op->first, op->count, 0, false);
    int ret = port_co_discard(w->port, op->first * UINT64_C(512), op->count * UINT64_C(512));
    model_end(w->model, op->first, op->count, serial, ret == 0, false);
    forbid_failure(w, op, ret);
}

static void coroutine_fn do_read(World *w, const SimOp *op)
{
    g_autofree uint8_t *buf = g_malloc((gsize)op->count * 512);
    uint64_t began = model_read_begin(w->model);
    int ret = port_co_read(w->port, op->first * UINT64_C(512), op->count * UINT64_C(512),
                           buf, 0);
    forbid_failure(w, op, ret);
    for (uint32_t i = 0; ret == 0 && i < op->count; i++) {
        uint32_t sector = op->first + i, stamp;
        if (!tag_read(buf + i * 512, sector, &stamp)) {
            world_fail(w, "sector %u reads what was never written there", sector);
        }
        if (!model_read_ok(w->model, sector, stamp, began)) {
            g_autofree char *history = model_describe(w->model, sector);
            world_fail(w, "sector %u reads %u, %s", sector, stamp, history);
        }
    }
}

static void coroutine_fn do_flush(World *w, const SimOp *op)
{
    uint64_t token = model_flush_begin(w->model);
    int ret = port_co_flush(w->port);
    forbid_failure(w, op, ret);
    if (ret == 0) {
        model_flush_end(w->model, token);
    }
}

/* ---- commands ---- */

/* No guest request is in flight until the matching release. */
static void coroutine_fn hold_guest(World *w)
{
    w->hold = true;
    while (w->running > 1) { /* the caller counts as one */
        co_queue_wait(&w->changed);
    }
}

static void release_guest(World *w)
{
    w->hold = false;
    co_queue_wake_all(&w->changed);
}

static void no_faults(World *w)
{
    static const SimFaults none;
    sim_host_set_faults(w->host, &none);
}

static void report_frozen_write(void *opaque, const char *name)
{
    world_fail(opaque, "%s is written to after its last writer was gone (Q11)", name);
}

static void coroutine_fn do_snapshot(World *w, const SimOp *op)
{
    g_autoptr(GError) error = NULL;
    unsigned below = w->chain[w->depth - 1], file;

    if (w->nb_files == MAX_FILES || !world_co_create(w, &file, &error)) {
        return;
    }
    JsonValue *options = world_image_options(w, file, false);
    json_object_set(options, "backing", json_null());
    BlockNode *overlay = world_co_open_node(w->graph, options, &error);
    if (!overlay) {
        return;
    }
    /* An empty overlay over the chain reads as the chain: after a cut either will do. */
    w->chain[w->depth++] = file;
    if (!graph_co_snapshot(w->graph, port_root(w->port), overlay, false, &error)) {
        if (!sim_host_nb_failed(w->host)) {
            world_fail(w, "snapshot: %s", error->message);
        }
        if (port_root(w->port) != overlay) {
            w->depth--;
        }
        node_co_unref(overlay);
        return;
    }
    node_co_unref(overlay); /* the port holds it now */
    sim_disk_freeze(w->files[below], report_frozen_write, w);
    w->frozen[below] = sim_host_nb_failed(w->host) == 0;
    if (w->frozen[below]) {
        verify_in_child(w, VERIFY_BELOW, false);
    }
}

static void coroutine_fn do_relink(World *w)
{
    g_autoptr(GError) error = NULL;
    if (w->depth < 3) {
        return;
    }
    unsigned level = w->depth - 2; /* the one below the top, into the one below it */
    const char *top = sim_disk_name(w->files[w->chain[level]]);
    const char *base = sim_disk_name(w->files[w->chain[level - 1]]);
    no_faults(w);
    g_clear_pointer(&w->internal_bytes, g_free); /* what lies under it may change */
    if (foreign_co_commit(w, level)) {
        memmove(&w->chain[level], &w->chain[level + 1],
                (w->depth - level - 1) * sizeof(w->chain[0]));
        w->depth--;
        if (!graph_co_relink_chain(w->graph, w->prefix, top, base, &error)) {
            world_fail(w, "relink: %s", error->message);
        }
    }
    sim_host_set_faults(w->host, &w->cfg.faults);
}

static void coroutine_fn do_reopen(World *w)
{
    g_autoptr(GError) error = NULL;
    hold_guest(w);
    world_co_close(w);
    verify_in_child(w, sim_host_nb_failed(w->host) ? VERIFY_CUT : VERIFY_CLOSED, false);
    if (sim_host_nb_failed(w->host)) { /* the close may have failed as well */
        model_doubt(w->model);
    }
    no_faults(w);
    if (!world_co_open(w, false, &error)) {
        world_fail(w, "cannot open again: %s", error->message);
    }
    w->size = (uint32_t)(port_length(w->port) / 512); /* of those it may have */
    sim_host_set_faults(w->host, &w->cfg.faults);
    release_guest(w);
}

static void coroutine_fn do_resize(World *w, const SimOp *op)
{
    g_autoptr(GError) error = NULL;
    hold_guest(w);
    uint32_t old = w->size;
    uint32_t new = MAX(op->arg % (2 * w->cfg.nb_sectors), 1); /* it may be the second disk */
    uint32_t serial = 0;
    if (new > old) {
        serial = model_begin(w->model, old, new - old, 0, true);
    }
    g_array_append_val(w->sizes, new);
    bool ok = graph_co_resize(port_root(w->port), new * UINT64_C(512), &error);
    if (!ok && !sim_host_nb_failed(w->host)) {
        world_fail(w, "resize to %u sectors: %s", new, error->message);
    }
    if (new > old) {
        model_end(w->model, old, new - old, serial, ok, ok);
    }
    if (new < old && port_length(w->port) == new * UINT64_C(512)) {
        /* else all is as it was: a shrink that fails has destroyed nothing */
        serial = model_begin(w->model, new, old - new, STAMP_ANY, false);
        model_end(w->model, new, old - new, serial, true, false);
    }
    if (ok) {
        w->size = new;
        g_array_set_size(w->sizes, 0);
        g_array_append_val(w->sizes, new);
    } else {
        /* the last sync may have failed with the new size in place: who asks is told */
        w->size = (uint32_t)(port_length(w->port) / 512);
        if (new > old) { /* a later attempt starts over; what it left is nobody's */
            serial = model_begin(w->model, old, new - old, STAMP_ANY, false);
            model_end(w->model, old, new - old, serial, true, false);
        }
    }
    release_guest(w);
}

/* The top file is finished, another program works on it, and we write again. */
static void coroutine_fn lend_to_others(World *w, const SimOp *op)
{
    SimDisk *top = w->files[w->chain[w->depth - 1]];
    GRand *rand = g_rand_new_with_seed(op->arg);

    sim_disk_freeze(top, report_frozen_write, w);
    verify_in_child(w, sim_host_nb_failed(w->host) ? VERIFY_CUT : VERIFY_CLOSED, false);
    if (op->arg % 3 == 0 && !w->scenario->snapshots_only) {
        foreign_co_write(w, rand);
    } else if (op->arg % 3 == 1 && !w->scenario->snapshots_only) {
        foreign_co_rewrite_header(w);
    } else {
        uint8_t *bytes = foreign_co_read_all(w);
        if (bytes && internal_snapshot(top, &w->internal)) {
            g_free(w->internal_bytes);
            w->internal_bytes = bytes;
            w->internal_file = w->chain[w->depth - 1];
            w->internal_sectors = w->size;
        } else {
            g_free(bytes);
        }
    }
    sim_disk_freeze(top, NULL, NULL);
    g_rand_free(rand);
}

static void coroutine_fn do_lend(World *w, const SimOp *op)
{
    g_autoptr(GError) error = NULL;
    hold_guest(w);
    no_faults(w);
    if (port_co_set_perm(w->port, PERM_CONSISTENT_READ, PERM_ALL, &error)) {
        lend_to_others(w, op);
    } else if (!sim_host_nb_failed(w->host)) {
        world_fail(w, "cannot stop writing: %s", error->message);
    }
    g_clear_error(&error);
    if (!port_co_set_perm(w->port, PERM_CONSISTENT_READ | PERM_WRITE, PERM_ALL, &error)) {
        world_fail(w, "cannot write again: %s", error->message);
    }
    sim_host_set_faults(w->host, &w->cfg.faults);
    release_guest(w);
}

/* ---- jobs ---- */

typedef struct CreateJob {
    World *w;
    unsigned file;
} CreateJob;

static bool coroutine_fn co_create_job(Job *job, void *opaque, GError **errp)
{
    CreateJob *c = opaque;
    if (world_co_create_alone(c->w, &c->file, errp)) {
        c->w->created = c->file;
        return true;
    }
    return false;
}

static void end_create_job(Job *job, const char *error, CreateJob *c)
{
    if (error && !sim_host_nb_failed(c->w->host)) {
        world_fail(c->w, "job: %s", error);
    }
    job_dismiss(job, NULL);
    g_free(c);
}

/* As blockdev-create: the command starts the job, the guests go on beside it. */
static void coroutine_fn do_create(World *w)
{
    static const JobDriver driver = {.type = JOB_TYPE_CREATE, .co_run = co_create_job};
    if (w->nb_files == MAX_FILES) {
        return;
    }
    CreateJob *c = g_new0(CreateJob, 1);
    c->w = w;
    Job *job = job_new(w->jobs, "create", &driver, c, NULL);
    job_start(job);
    for (;;) {
        JobInfoList *list = job_query(w->jobs);
        bool ended = list->value->status == JOB_STATUS_CONCLUDED;
        g_autofree char *error = ended ? g_strdup(list->value->error) : NULL;
        qapi_free_JobInfoList(list);
        if (ended) {
            end_create_job(job, error, c);
            return;
        }
        sim_co_sleep(w->host, 5);
    }
}

static void coroutine_fn do_room(World *w)
{
    if (w->cfg.faults.capacity) {
        w->cfg.faults.capacity = 0;
        sim_host_set_faults(w->host, &w->cfg.faults);
    }
}

static bool is_command(OpKind kind)
{
    return kind >= OP_SNAPSHOT;
}

static void coroutine_fn do_command(World *w, const SimOp *op)
{
    co_mutex_lock(w->control);
    bool quiet = op->quiet && op->kind == OP_SNAPSHOT;
    if (quiet) {
        hold_guest(w);
    }
    switch (op->kind) {
    case OP_SNAPSHOT:
        do_snapshot(w, op);
        break;
    case OP_RELINK:
        do_relink(w);
        break;
    case OP_REOPEN:
        do_reopen(w);
        break;
    case OP_RESIZE:
        do_resize(w, op);
        break;
    case OP_REBASE:
        if (w->scenario->stock_rebase && sim_options.stock) {
            foreign_co_stock_rebase(w);
        } else {
            foreign_co_rewrite_header(w);
        }
        break;
    case OP_LEND:
        do_lend(w, op);
        break;
    case OP_CREATE:
        do_create(w);
        break;
    default:
        do_room(w);
        break;
    }
    if (quiet) {
        release_guest(w);
    }
    co_mutex_unlock(w->control);
}

/* ---- workers ---- */

/* The disk may be smaller than it was when the operation was drawn. */
static void fit(const World *w, SimOp *op)
{
    uint32_t size = w->size;
    op->first %= size;
    op->count = MIN(op->count, size - op->first);
}

static void coroutine_fn execute(World *w, SimOp *op)
{
    fit(w, op);
    if (sim_options.verbose) {
        g_autofree char *text = op_describe(op);
        printf("step %" G_GUINT64_FORMAT ": %s%s\n", sim_host_steps(w->host), text,
               op->second ? ", second disk" : "");
    }
    switch (op->kind) {
    case OP_WRITE:
    case OP_ZERO:
        do_write(w, op);
        break;
    case OP_DISCARD:
        do_discard(w, op);
        break;
    case OP_READ:
        do_read(w, op);
        break;
    case OP_FLUSH:
        do_flush(w, op);
        break;
    default:
        do_command(w, op);
        break;
    }
}

/* Others may hold the guest, but for who commands himself. */
static void coroutine_fn run_worker(World *w)
{
    while (w->next_op < w->ops->len) {
        SimOp op = g_array_index(w->ops, SimOp, w->next_op);
        World *disk = op.second && w->second ? w->second : w;
        if (disk->hold) {
            co_queue_wait(&disk->changed);
            continue;
        }
        w->next_op++;
        if (is_command(op.kind) && w->control->holder) {
            continue; /* one is at it: this one would only wait, and be counted as running */
        }
        disk->running++;
        execute(disk, &op);
        disk->running--;
        co_queue_wake_all(&disk->changed);
    }
}

static void coroutine_fn end_disk(World *w)
{
    world_co_close(w);
    verify_in_child(w, sim_host_nb_failed(w->host) ? VERIFY_CUT : VERIFY_CLOSED, false);
}

void coroutine_fn workload_worker(void *opaque)
{
    World *w = opaque;
    run_worker(w);
    if (--w->nb_workers == 0) {
        if (w->second) {
            end_disk(w->second);
        }
        end_disk(w);
        loop_stop(w->loop);
    }
}
