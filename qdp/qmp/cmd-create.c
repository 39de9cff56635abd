/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blockdev-create: a job around image_co_create().
 *
 * The job does not hold the graph lock: what it opens by an inline definition is its
 * own, and preallocation may take minutes. Where it works on a node that the user
 * named, be it below nodes of its own, it holds the lock, because that node must not be
 * deleted or snapshotted meanwhile.
 */
#include "block/base/error.h"
#include "block/node.h"
#include "qapi/qapi-commands.h"
#include "qapi/qapi-visit.h"
#include "qdp/qmp/monitor.h"

static bool names_node(const BlockdevRef *ref);

static bool definition_names_node(const BlockdevOptions *o)
{
    const BlockdevRefOrNull *backing;

    switch (o->driver) {
    case BLOCKDEV_DRIVER_BLKDEBUG:
        return names_node(o->u.blkdebug.image);
    case BLOCKDEV_DRIVER_QCOW2:
        backing = o->u.qcow2.backing;
        return names_node(o->u.qcow2.file) || names_node(o->u.qcow2.data_file) ||
               (backing && (backing->type == JSON_STRING ||
                            (backing->type == JSON_OBJECT &&
                             definition_names_node(backing->u.definition))));
    case BLOCKDEV_DRIVER_RAW:
        return names_node(o->u.raw.file);
    case BLOCKDEV_DRIVER_FILE:
    case BLOCKDEV_DRIVER_HOST_DEVICE:
    case BLOCKDEV_DRIVER_NULL_AIO:
    case BLOCKDEV_DRIVER_NULL_CO:
    case BLOCKDEV_DRIVER__MAX:
        break;
    }
    return false;
}

/* The depth is the request's, which the parser limits. */
static bool names_node(const BlockdevRef *ref)
{
    return ref && (ref->type == JSON_STRING || definition_names_node(ref->u.definition));
}

static bool uses_named_node(const BlockdevCreateOptions *options)
{
    switch (options->driver) {
    case BLOCKDEV_DRIVER_QCOW2:
        return names_node(options->u.qcow2.file) || names_node(options->u.qcow2.data_file);
    case BLOCKDEV_DRIVER_RAW:
        return names_node(options->u.raw.file);
    default:
        return false;
    }
}

static bool is_cancelled(void *job)
{
    return job_cancelled(job);
}

static bool coroutine_fn co_create(Job *job, void *opaque, GError **errp)
{
    const BlockdevCreateOptions *options = opaque;
    bool lock = uses_named_node(options);
    bool ok;

    if (lock) {
        monitor_co_lock(monitor_host()->monitor);
    }
    ok = image_co_create(monitor_host()->graph, options, is_cancelled, job, errp);
    if (lock) {
        monitor_unlock(monitor_host()->monitor);
    }
    job_set_progress(job, 1, 1); /* compat: failed or not */
    return ok;
}

static void free_options(void *opaque)
{
    qapi_free_BlockdevCreateOptions(opaque);
}

static const JobDriver create_job = {
    .type = JOB_TYPE_CREATE,
    .co_run = co_create,
    .free = free_options,
};

static bool driver_creates(BlockdevDriver driver)
{
    return driver == BLOCKDEV_DRIVER_FILE || driver == BLOCKDEV_DRIVER_QCOW2 ||
           driver == BLOCKDEV_DRIVER_RAW;
}

bool coroutine_fn qmp_blockdev_create(const BlockdevCreateArgs *args, GError **errp)
{
    g_autoptr(BlockdevCreateOptions) options = NULL;
    Job *job;

    if (!driver_creates(args->options->driver)) {
        error_set(errp, "Driver does not support blockdev-create");
        return false;
    }
    options = qapi_BlockdevCreateOptions_copy(args->options);
    job = job_new(monitor_host()->jobs, args->job_id, &create_job, options, errp);
    if (!job) {
        return false;
    }
    options = NULL; /* the job's now */
    job_start(job);
    return true;
}
