/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands about jobs, and their event. */
#include "block/job/job.h"
#include "qapi/qapi-commands.h"
#include "qdp/qmp/monitor.h"

bool coroutine_fn qmp_job_dismiss(const JobDismissArgs *args, GError **errp)
{
    Job *job = job_lookup(monitor_host()->jobs, args->id, errp);

    return job && job_dismiss(job, errp);
}

/* Without the graph lock: the job may hold it until it ends. */
bool coroutine_fn qmp_job_cancel(const JobCancelArgs *args, GError **errp)
{
    Job *job = job_lookup(monitor_host()->jobs, args->id, errp);

    return job && job_cancel(job, errp);
}

JobInfoList *coroutine_fn qmp_query_jobs(GError **errp)
{
    return job_query(monitor_host()->jobs);
}
