/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qemu-dp: start, run, end.
 *
 * Start:  parse -> (fork) -> loop -> graph, exports, jobs, monitor -> options, in a
 *         coroutine while the loop runs, so that clients are greeted meanwhile.
 * End:    a signal or quit -> SHUTDOWN -> jobs end, exports close, all is flushed and
 *         closed under the graph lock -> sessions close -> the loop stops.
 *
 * Invariants:
 *  A1 --daemonize forks before any ring, thread or signalfd exists;
 *  A2 the parent of --daemonize exits with 0 only when all options succeeded;
 *  A3 the end begins once; a second signal changes nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "block/base/ablate.h"
#include "block/base/error.h"
#include "qapi/qapi-events.h"
#include "qdp/chardev-bridge.h"
#include "qdp/chardev-open.h"
#include "qdp/log.h"
#include "qdp/trace.h"
#include "qdp/pidfile.h"
#include "qdp/qmp/block-events.h"

typedef struct Daemon {
    MonitorHost host;
    Cmdline *cmdline;
    int ready_fd; /* of --daemonize: one byte when the start succeeded; -1 = none */
    bool ending;
    ShutdownCause cause;
    int exit_code;
    Pidfile *pidfile;
    LoopWork end_work;
} Daemon;

static Daemon the_daemon = {.ready_fd = -1};

/* ---- the end ---- */

/* Take the graph lock when all jobs have ended. A job may need the lock to end, so it
 * is not held while we wait; a command that had it meanwhile may have started another.
 */
static void coroutine_fn lock_without_jobs(const MonitorHost *host)
{
    for (;;) {
        job_registry_co_shutdown(host->jobs);
        monitor_co_lock(host->monitor);
        if (job_registry_empty(host->jobs)) {
            return;
        }
        monitor_unlock(host->monitor);
    }
}

static void coroutine_fn co_end(void *opaque)
{
    Daemon *d = opaque;
    const MonitorHost *host = &d->host;
    int ret;

    qapi_event_send_shutdown(false, d->cause);
    lock_without_jobs(host);
    export_co_shutdown(host->exports);
    ret = graph_co_flush_all(host->graph);
    if (ret < 0) {
        log_error("flush at the end failed: %s", g_strerror(-ret));
        d->exit_code = 1;
    }
    graph_co_close_all(host->graph);
    monitor_end(host->monitor); /* order: before those that wait for the lock have it */
    monitor_unlock(host->monitor);
    monitor_co_close(host->monitor);
    loop_stop(host->loop);
}

static void begin_end(LoopWork *work)
{
    Daemon *d = &the_daemon;
    Coroutine *co = coroutine_try_new(co_end, d, CO_STACK_CONTROL);

    if (!co) { /* unwritten data is worth the wait for somebody's stack */
        usleep(10000);
        loop_work_schedule(d->host.loop, &d->end_work);
        return;
    }
    coroutine_enter(co);
}

/* A3. Later in this turn, so that the reply of quit is queued before. */
static void request_end(ShutdownCause cause)
{
    Daemon *d = &the_daemon;

    if (!d->ending) {
        d->ending = true;
        chardev_cancel_wait();
        d->cause = cause;
        loop_work_schedule(d->host.loop, &d->end_work);
    }
}

static void on_signal(void *opaque, int signo)
{
    request_end(SHUTDOWN_CAUSE_HOST_SIGNAL);
}

/* ---- the start ---- */

/* Tell the waiting parent that all went well; its terminal is not ours any more. */
static bool detach(Daemon *d, int null_fd, GError **errp)
{
    if (chdir("/") < 0 || dup2(null_fd, STDIN_FILENO) < 0 ||
        dup2(null_fd, STDOUT_FILENO) < 0 || dup2(null_fd, STDERR_FILENO) < 0) {
        error_set_errno(errp, errno, "Could not detach");
        return false;
    }
    if (write(d->ready_fd, "", 1) != 1) {
        error_set_errno(errp, errno, "Could not tell the parent process");
        return false;
    }
    close(d->ready_fd);
    d->ready_fd = -1;
    return true;
}

/* The walls, then detaching: what fails is still told to the one who started us. */
static bool settle(Daemon *d, GError **errp)
{
    bool ok;
    int null_fd = -1; /* under another root there may be none */

    if (d->ready_fd >= 0) {
        null_fd = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY);
        if (null_fd < 0) {
            error_set_errno(errp, errno, "Could not open '/dev/null'");
            return false;
        }
    }
    ok = walls_raise(&d->cmdline->walls, d->host.loop, errp) &&
         (null_fd < 0 || detach(d, null_fd, errp));
    if (null_fd >= 0) {
        close(null_fd);
    }
    return ok;
}

static void coroutine_fn co_start(void *opaque)
{
    Daemon *d = opaque;
    g_autoptr(GError) error = NULL;
    bool ok = cmdline_co_run(d->cmdline, &d->host, &error);

    if (ok && d->cmdline->pidfile) {
        d->pidfile = pidfile_new(d->cmdline->pidfile, &error);
        ok = d->pidfile != NULL;
    }
    if (ok && !d->ending) {
        ok = settle(d, &error);
    }
    if (!ok) {
        log_error("%s", error->message);
        d->exit_code = 1;
        request_end(SHUTDOWN_CAUSE_HOST_ERROR);
    } else if (d->cmdline->form != FORM_OPTIONS) {
        log_open(LOG_TO_SYSLOG);
    }
}

/* Hundreds of disks need hundreds of descriptors, and old kernels count rings as locked
 * memory. Failure leaves a limit as it is. */
static void raise_limits(void)
{
    static const int kinds[] = {RLIMIT_NOFILE, RLIMIT_MEMLOCK};
    struct rlimit limit;

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (!getrlimit(kinds[i], &limit) && limit.rlim_cur < limit.rlim_max) {
            limit.rlim_cur = limit.rlim_max;
            setrlimit(kinds[i], &limit);
        }
    }
}

/* client-contract, section 1: the clients leak descriptors, some of them locked. */
static void close_inherited_fds(void)
{
    struct rlimit limit;

#ifdef SYS_close_range
    if (!syscall(SYS_close_range, 3u, ~0u, 0u)) {
        return;
    }
#endif
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur > 65536) {
        limit.rlim_cur = 65536;
    }
    for (int fd = 3; fd < (int)limit.rlim_cur; fd++) {
        close(fd);
    }
}

/* A1. Returns in the child; the parent waits for its byte and exits. */
static bool fork_to_background(Daemon *d, GError **errp)
{
    int fds[2];
    char byte;
    ssize_t got;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
        error_set_errno(errp, errno, "Could not fork");
        return false;
    }
    if (!pid) {
        close(fds[0]);
        d->ready_fd = fds[1];
        setsid();
        return true;
    }
    close(fds[1]);
    do {
        got = read(fds[0], &byte, 1);
    } while (got < 0 && errno == EINTR);
    _exit(got == 1 ? 0 : 1);
}

static bool make_host(Daemon *d, GError **errp)
{
    static const int signos[] = {SIGTERM, SIGINT, SIGHUP};
    MonitorHost *host = &d->host;

    host->loop = loop_new(LOOP_AUTO, errp);
    if (!host->loop ||
        !loop_signals(host->loop, signos, G_N_ELEMENTS(signos), on_signal, d, errp)) {
        return false;
    }
    host->snapshot_moves_name = d->cmdline->snapshot_moves_name;
    host->client_rules = d->cmdline->client_rules;
    host->quit = request_end;
    host->graph = graph_new(host->loop);
    graph_set_locking(host->graph, true);
    graph_set_events(host->graph, &qmp_graph_events, d);
    host->exports = export_registry_new(host->graph, &qmp_export_events, d);
    host->jobs = job_registry_new(host->loop, &qmp_job_events, d);
    host->monitor = monitor_new(host);
    loop_work_init(&d->end_work, begin_end);
    return true;
}

static void free_host(MonitorHost *host)
{
    monitor_free(host->monitor);
    job_registry_free(host->jobs);
    export_registry_free(host->exports);
    graph_free(host->graph);
    loop_free(host->loop);
}

static int run(Daemon *d)
{
    g_autoptr(GError) error = NULL;

    if ((d->cmdline->daemonize && !fork_to_background(d, &error)) ||
        !make_host(d, &error)) {
        log_error("%s", error->message);
        return 1;
    }
    Coroutine *co = coroutine_try_new(co_start, d, CO_STACK_CONTROL);
    if (!co) {
        log_error("Could not start: %s", g_strerror(ENOMEM));
        return 1;
    }
    coroutine_enter(co);
    loop_run(d->host.loop);
    pidfile_free(d->pidfile);
    free_host(&d->host);
    chardev_bridges_finish();
    return d->exit_code;
}

/* --help and --version win over everything but a word that makes no sense. */
static bool answered(const Cmdline *cmdline)
{
    for (guint i = 0; i < cmdline->options->len; i++) {
        const Option *option = g_ptr_array_index(cmdline->options, i);
        if (option->kind == OPTION_HELP) {
            cmdline_print_help();
            return true;
        }
        if (option->kind == OPTION_VERSION) {
            cmdline_print_version();
            return true;
        }
        if (option->kind == OPTION_TRACE && !g_strcmp0(option->arg, "help")) {
            trace_print_names();
            return true;
        }
        if (option->kind == OPTION_ABLATE && !g_strcmp0(option->arg, "help")) {
            g_autofree char *names = ablate_names();
            fputs(names, stdout);
            return true;
        }
        if (option->kind == OPTION_OBJECT && !g_strcmp0(option->arg, "help")) {
            puts("List of user creatable objects:\n  iothread");
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    Daemon *d = &the_daemon;
    int ret;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error of the write: EFBIG */
    ablate_from_environment();
    d->cmdline = cmdline_parse(argc, argv, &error);
    if (!d->cmdline) {
        log_error("%s", error->message);
        return 1;
    }
    if (answered(d->cmdline)) {
        cmdline_free(d->cmdline);
        return fflush(stdout) ? 1 : 0;
    }
    if (d->cmdline->form != FORM_OPTIONS) {
        log_open(LOG_TO_BOTH);
        close_inherited_fds();
    }
    raise_limits();
    ret = run(d);
    cmdline_free(d->cmdline);
    return ret;
}
