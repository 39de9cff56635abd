/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The life of a job; see job.h. compat: the texts are those of QEMU 7.2. */
#include "block/job/job.h"

#include <errno.h>
#include <string.h>

#include "block/aio/loop.h"
#include "block/base/error.h"
#include "block/base/identifier.h"

struct JobRegistry {
    Loop *loop;
    const JobEvents *events;
    void *opaque;
    ListLink jobs; /* Job.link, the youngest first, as query-jobs shows them */
    CoQueue ended; /* a job concluded */
};

struct Job {
    JobRegistry *registry;
    const JobDriver *driver;
    void *opaque;
    char *id;
    JobStatus status;
    uint64_t current, total;
    bool cancelled;
    GError *error;
    LoopWork told; /* then @start: the reply of the command is out */
    LoopWork start;
    ListLink link;
};

static void set_status(Job *job, JobStatus status)
{
    const JobRegistry *registry = job->registry;

    job->status = status;
    if (registry->events && registry->events->status_changed) {
        registry->events->status_changed(registry->opaque, job->id, status);
    }
}

JobRegistry *job_registry_new(Loop *loop, const JobEvents *events, void *opaque)
{
    JobRegistry *registry = g_new0(JobRegistry, 1);

    registry->loop = loop;
    registry->events = events;
    registry->opaque = opaque;
    list_init(&registry->jobs);
    co_queue_init(&registry->ended, loop);
    return registry;
}

void job_registry_free(JobRegistry *registry)
{
    if (registry) {
        g_assert(list_empty(&registry->jobs));
        g_free(registry);
    }
}

static Job *find(JobRegistry *registry, const char *id)
{
    list_foreach(it, &registry->jobs) {
        Job *job = container_of(it, Job, link);
        if (!strcmp(job->id, id)) {
            return job;
        }
    }
    return NULL;
}

/* The end of the work: running -> (waiting, pending | aborting) -> concluded. */
static void conclude(Job *job, bool ok)
{
    if (ok && !job->cancelled) {
        job->current = job->total;
        set_status(job, JOB_STATUS_WAITING);
        set_status(job, JOB_STATUS_PENDING);
    } else {
        if (!job->error) {
            error_set(&job->error, "Operation canceled");
        }
        set_status(job, JOB_STATUS_ABORTING);
    }
    set_status(job, JOB_STATUS_CONCLUDED);
    co_queue_wake_all(&job->registry->ended);
}

static void coroutine_fn co_job(void *opaque)
{
    Job *job = opaque;
    bool ok = job->driver->co_run(job, job->opaque, &job->error);

    conclude(job, ok);
}

static void start_work(LoopWork *work)
{
    Job *job = container_of(work, Job, start);

    Coroutine *co = coroutine_try_new(co_job, job, CO_STACK_CONTROL);
    if (!co) {
        error_set_errno(&job->error, ENOMEM, "Could not start the job");
        conclude(job, false);
        return;
    }
    coroutine_enter(co);
}

/* order: hooks run before what is to be sent in this turn is sent, work runs after it (R3) */
static void schedule_start(LoopWork *hook)
{
    Job *job = container_of(hook, Job, told);

    loop_work_schedule(job->registry->loop, &job->start);
}

Job *job_new(JobRegistry *registry, const char *id, const JobDriver *driver,
             void *opaque, GError **errp)
{
    Job *job;

    if (!is_identifier(id)) {
        error_set(errp, "Invalid job ID '%s'", id);
        return NULL;
    }
    if (find(registry, id)) {
        error_set(errp, "Job ID '%s' already in use", id);
        return NULL;
    }
    job = g_new0(Job, 1);
    job->registry = registry;
    job->driver = driver;
    job->opaque = opaque;
    job->id = g_strdup(id);
    job->total = 1;
    loop_work_init(&job->told, schedule_start);
    loop_work_init(&job->start, start_work);
    list_prepend(&registry->jobs, &job->link);
    set_status(job, JOB_STATUS_CREATED);
    return job;
}

void job_start(Job *job)
{
    g_assert(job->status == JOB_STATUS_CREATED);
    set_status(job, JOB_STATUS_RUNNING);
    loop_flush_schedule(job->registry->loop, &job->told);
}

Job *job_lookup(JobRegistry *registry, const char *id, GError **errp)
{
    Job *job = find(registry, id);

    if (!job) {
        error_set(errp, "Job not found");
    }
    return job;
}

static bool refuse_verb(const Job *job, const char *verb, GError **errp)
{
    error_set(errp, "Job '%s' in state '%s' cannot accept command verb '%s'", job->id,
              JobStatus_str(job->status), verb);
    return false;
}

static void job_free(Job *job)
{
    list_remove(&job->link);
    set_status(job, JOB_STATUS_NULL);
    if (job->driver->free) {
        job->driver->free(job->opaque);
    }
    g_clear_error(&job->error);
    g_free(job->id);
    g_free(job);
}

bool job_dismiss(Job *job, GError **errp)
{
    if (job->status != JOB_STATUS_CONCLUDED) {
        return refuse_verb(job, "dismiss", errp);
    }
    job_free(job);
    return true;
}

bool job_cancel(Job *job, GError **errp)
{
    if (job->status == JOB_STATUS_CONCLUDED || job->status == JOB_STATUS_ABORTING) {
        return refuse_verb(job, "cancel", errp);
    }
    job->cancelled = true;
    return true;
}

bool job_cancelled(const Job *job)
{
    return job->cancelled;
}

void job_set_progress(Job *job, uint64_t current, uint64_t total)
{
    job->current = current;
    job->total = total;
}

JobInfoList *job_query(JobRegistry *registry)
{
    JobInfoList *list = NULL, **tail = &list;

    list_foreach(it, &registry->jobs) {
        const Job *job = container_of(it, Job, link);
        JobInfo *info = g_new0(JobInfo, 1);

        info->id = g_strdup(job->id);
        info->type = job->driver->type;
        info->status = job->status;
        info->current_progress = (int64_t)job->current;
        info->total_progress = (int64_t)job->total;
        info->error = job->error ? g_strdup(job->error->message) : NULL;
        *tail = g_new0(JobInfoList, 1);
        (*tail)->value = info;
        tail = &(*tail)->next;
    }
    return list;
}

static void cancel_all(JobRegistry *registry)
{
    list_foreach(it, &registry->jobs) {
        container_of(it, Job, link)->cancelled = true;
    }
}

void coroutine_fn job_registry_co_shutdown(JobRegistry *registry)
{
    while (!list_empty(&registry->jobs)) {
        /* looked up anew each time: while we wait a client may dismiss or start jobs */
        Job *job = list_first(&registry->jobs, Job, link);

        if (job->status == JOB_STATUS_CONCLUDED || job->status == JOB_STATUS_CREATED) {
            job_free(job);
        } else {
            cancel_all(registry);
            co_queue_wait(&registry->ended);
        }
    }
}

bool job_registry_empty(const JobRegistry *registry)
{
    return list_empty(&registry->jobs);
}
