/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The life of a job: the order of its statuses, its refusals, its end at shutdown. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/mman.h>

#include "block/aio/loop.h"
#include "block/base/error.h"
#include "block/job/job.h"

static GString *told;
static Loop *loop;
static JobRegistry *registry;

static void status_changed(void *opaque, const char *id, JobStatus status)
{
    g_string_append_printf(told, "%s:%s ", id, JobStatus_str(status));
}

static const JobEvents events = {.status_changed = status_changed};

static bool coroutine_fn co_succeed(Job *job, void *opaque, GError **errp)
{
    co_sleep_ns(loop, 1000000);
    return true;
}

static bool coroutine_fn co_fail(Job *job, void *opaque, GError **errp)
{
    error_set(errp, "no luck");
    return false;
}

static bool coroutine_fn co_until_cancelled(Job *job, void *opaque, GError **errp)
{
    while (!job_cancelled(job)) {
        co_sleep_ns(loop, 1000000);
    }
    return true;
}

/* What goes out at the end of a turn, as a reply does. */
static bool reply_sent, reply_sent_first;

static void send_reply(LoopWork *hook)
{
    reply_sent = true;
}

static bool coroutine_fn co_look(Job *job, void *opaque, GError **errp)
{
    reply_sent_first = reply_sent;
    return true;
}

static const JobDriver looking = {.type = JOB_TYPE_CREATE, .co_run = co_look};
static const JobDriver succeed = {.type = JOB_TYPE_CREATE, .co_run = co_succeed};
static const JobDriver failing = {.type = JOB_TYPE_CREATE, .co_run = co_fail};
static const JobDriver endless = {.type = JOB_TYPE_CREATE,
                                  .co_run = co_until_cancelled};

/* The linker sends calls of mmap() here, whatever it is called where files are large. */
static bool no_stacks;
#define WRAP(name)                                                                       \
    void *__real_##name(void *addr, size_t len, int prot, int flags, int fd, off_t at);  \
    void *__wrap_##name(void *addr, size_t len, int prot, int flags, int fd, off_t at);  \
    void *__wrap_##name(void *addr, size_t len, int prot, int flags, int fd, off_t at)   \
    {                                                                                    \
        if (no_stacks && (flags & MAP_STACK)) {                                          \
            errno = ENOMEM;                                                              \
            return MAP_FAILED;                                                           \
        }                                                                                \
        return __real_##name(addr, len, prot, flags, fd, at);                            \
    }
WRAP(mmap)
WRAP(mmap64)

static void run(CoroutineEntry *entry)
{
    told = g_string_new(NULL);
    loop = loop_new(LOOP_AUTO, NULL);
    registry = job_registry_new(loop, &events, NULL);
    loop_run_coroutine(loop, entry, NULL);
    job_registry_free(registry);
    loop_free(loop);
    g_string_free(told, TRUE);
}

static void coroutine_fn co_test_success(void *opaque)
{
    g_autoptr(GError) error = NULL;
    Job *job = job_new(registry, "j", &succeed, NULL, NULL);

    g_assert_nonnull(job);
    job_start(job);
    g_assert_cmpstr(told->str, ==, "j:created j:running ");
    g_assert_false(job_dismiss(job, &error));
    g_assert_cmpstr(error->message, ==,
                    "Job 'j' in state 'running' cannot accept command verb 'dismiss'");
    co_sleep_ns(loop, 20000000);
    g_assert_cmpstr(told->str, ==,
                    "j:created j:running j:waiting j:pending j:concluded ");
    g_assert_true(job_dismiss(job, NULL));
    g_assert_true(g_str_has_suffix(told->str, "j:null "));
}

/* J3, with a reply that is made when the job has been started. */
static void coroutine_fn co_test_reply_first(void *opaque)
{
    Job *job = job_new(registry, "j", &looking, NULL, NULL);
    LoopWork reply;

    job_start(job);
    loop_work_init(&reply, send_reply);
    loop_flush_schedule(loop, &reply);
    while (!strstr(told->str, "concluded")) {
        co_sleep_ns(loop, 1000000);
    }
    g_assert_true(reply_sent_first);
    g_assert_true(job_dismiss(job, NULL));
}

/* No stack is a failed job, not the end of the daemon. */
static void coroutine_fn co_test_no_stack(void *opaque)
{
    Job *job = job_new(registry, "j", &succeed, NULL, NULL);

    coroutine_pool_trim();
    no_stacks = true;
    job_start(job);
    for (int i = 0; i < 60000 && !strstr(told->str, "concluded"); i++) {
        co_sleep_ns(loop, 1000000);
    }
    no_stacks = false;
    g_assert_cmpstr(told->str, ==, "j:created j:running j:aborting j:concluded ");
    g_autoptr(JobInfoList) list = job_query(registry);
    g_assert_cmpstr(list->value->error, ==,
                    "Could not start the job: Cannot allocate memory");
    g_assert_true(job_dismiss(job, NULL));
}

static void coroutine_fn co_test_failure(void *opaque)
{
    Job *job = job_new(registry, "j", &failing, NULL, NULL);

    job_start(job);
    co_sleep_ns(loop, 1000000);
    g_autoptr(JobInfoList) list = job_query(registry);
    g_assert_cmpint(list->value->status, ==, JOB_STATUS_CONCLUDED);
    g_assert_cmpstr(list->value->error, ==, "no luck");
    g_assert_cmpstr(told->str, ==, "j:created j:running j:aborting j:concluded ");
    g_assert_true(job_dismiss(job, NULL));
}

static void coroutine_fn co_test_refusals(void *opaque)
{
    g_autoptr(GError) error = NULL;
    Job *job;

    g_assert_null(job_new(registry, "j 1", &succeed, NULL, &error));
    g_assert_cmpstr(error->message, ==, "Invalid job ID 'j 1'");
    g_clear_error(&error);
    job = job_new(registry, "j", &succeed, NULL, NULL);
    g_assert_null(job_new(registry, "j", &succeed, NULL, &error));
    g_assert_cmpstr(error->message, ==, "Job ID 'j' already in use");
    g_clear_error(&error);
    g_assert_null(job_lookup(registry, "k", &error));
    g_assert_cmpstr(error->message, ==, "Job not found");
    g_assert_true(job_lookup(registry, "j", NULL) == job);
    job_registry_co_shutdown(registry);
}

static void coroutine_fn co_test_shutdown(void *opaque)
{
    job_start(job_new(registry, "a", &endless, NULL, NULL));
    job_start(job_new(registry, "b", &succeed, NULL, NULL));
    job_registry_co_shutdown(registry);
    g_autoptr(JobInfoList) list = job_query(registry);
    g_assert_null(list);
    g_assert_nonnull(strstr(told->str, "a:aborting a:concluded"));
    g_assert_nonnull(strstr(told->str, "a:null"));
    g_assert_nonnull(strstr(told->str, "b:null"));
}

#define TEST_IN_LOOP(name)                                                             \
    static void test_##name(void)                                                      \
    {                                                                                  \
        run(co_test_##name);                                                           \
    }
TEST_IN_LOOP(success)
TEST_IN_LOOP(reply_first)
TEST_IN_LOOP(no_stack)
TEST_IN_LOOP(failure)
TEST_IN_LOOP(refusals)
TEST_IN_LOOP(shutdown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/job/success", test_success);
    g_test_add_func("/job/reply-first", test_reply_first);
    g_test_add_func("/job/no-stack", test_no_stack);
    g_test_add_func("/job/failure", test_failure);
    g_test_add_func("/job/refusals", test_refusals);
    g_test_add_func("/job/shutdown", test_shutdown);
    return g_test_run();
}
