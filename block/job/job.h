/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs: long work in the background with a name, a status and an end that somebody
 * acknowledges.
 *
 *                 +----------> aborting ---------+
 *                 |  (failed or cancelled)       v
 *   created -> running -> waiting -> pending -> concluded -> null
 *
 * Rules:
 *  J1 a status changes in job.c only, and each change is told once through JobEvents;
 *  J2 a job that ended stays concluded until job_dismiss();
 *  J3 co_run runs once, in a control coroutine of the registry's loop, never from inside
 *     job_start() and not before the reply of the command that started it is sent; it looks
 *     at job_cancelled() where it can stop.
 */
#ifndef BLOCK_JOB_JOB_H
#define BLOCK_JOB_JOB_H

#include <glib.h>
#include <stdbool.h>
#include "block/aio/coroutine.h"
#include "qapi/qapi-types.h"

typedef struct Job Job;
typedef struct JobRegistry JobRegistry;

typedef struct JobEvents {
    void (*status_changed)(void *opaque, const char *id, JobStatus status);
} JobEvents;

typedef struct JobDriver {
    JobType type;
    /* The work. False and *errp when it failed. */
    bool coroutine_fn (*co_run)(Job *job, void *opaque, GError **errp);
    void (*free)(void *opaque);
} JobDriver;

JobRegistry *job_registry_new(Loop *loop, const JobEvents *events, void *opaque);
/* All jobs must be gone (job_registry_co_shutdown). */
void job_registry_free(JobRegistry *registry);
/* Cancel all jobs, wait for their ends, dismiss them. */
void coroutine_fn job_registry_co_shutdown(JobRegistry *registry);
bool job_registry_empty(const JobRegistry *registry);

/*
 * Make a job in status created. NULL and *errp for an ill-formed id or one in use;
 * @opaque is the job's afterwards (freed by driver->free), and the caller's on failure.
 */
Job *job_new(JobRegistry *registry, const char *id, const JobDriver *driver,
             void *opaque, GError **errp);
/* created -> running; the work begins when what this turn has to send is sent. */
void job_start(Job *job);

/* NULL and *errp "Job not found". */
Job *job_lookup(JobRegistry *registry, const char *id, GError **errp);
/* Forget a concluded job; its memory is gone afterwards. */
bool job_dismiss(Job *job, GError **errp);
/* Ask for an early end. */
bool job_cancel(Job *job, GError **errp);
bool job_cancelled(const Job *job);
void job_set_progress(Job *job, uint64_t current, uint64_t total);

/* For query-jobs: the caller frees. */
JobInfoList *job_query(JobRegistry *registry);

#endif
