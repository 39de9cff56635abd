/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loop's turn, ready coroutines, work, posts and signals.  How it waits is the
 * backend's (loop-uring.c, loop-epoll.c); when disk operations start is disk.c's.
 *
 * Invariants:
 *  - now_ns is read once a turn, after the wait;
 *  - stages 2 and 3 repeat at most READY_ROUNDS times before the kernel is asked again.
 */
#include "block/aio/loop.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "block/aio/coroutine-private.h"
#include "block/aio/loop-private.h"
#include "block/base/ablate.h"
#include "block/base/error.h"

#define READY_ROUNDS 16
/* Stacks go back to the system after a second with fewer turns than this. */
#define TRIM_NS    INT64_C(1000000000)
#define TRIM_TURNS 100
#define POLL_FIRST_NS 4000 /* the first step when polling grows */
#define LOOK_NS 15000
#define LOOKS_ONLY 8 /* at a socket, for one at the backend */
#define LOOK_VAIN_MAX 6

static void trim_fired(LoopTimer *timer);

int64_t loop_clock_read(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* ---- posts from other threads ---- */

static void run_posted(LoopFd *watch, unsigned revents)
{
    Loop *loop = watch->loop;
    uint64_t count;
    while (read(watch->fd, &count, sizeof(count)) < 0 && errno == EINTR) {
    }
    loop->stats.system_calls++;
    LoopWork *stack = atomic_exchange(&loop->posted, NULL);
    LoopWork *fifo = NULL;
    while (stack) { /* the stack is last-in first-out; turn it round */
        LoopWork *next = (LoopWork *)stack->link.next;
        stack->link.next = (ListLink *)fifo;
        fifo = stack;
        stack = next;
    }
    while (fifo) {
        LoopWork *next = (LoopWork *)fifo->link.next;
        list_init(&fifo->link);
        loop_work_schedule(loop, fifo);
        fifo = next;
    }
}

void loop_post(Loop *loop, LoopWork *work)
{
    LoopWork *head = atomic_load(&loop->posted);
    do {
        work->link.next = (ListLink *)head;
    } while (!atomic_compare_exchange_weak(&loop->posted, &head, work));
    if (!head) { /* the first wakes the loop; the others ride along */
        uint64_t one = 1;
        while (write(loop->post_fd.fd, &one, sizeof(one)) < 0 && errno == EINTR) {
        }
    }
}

/* ---- life ---- */

static bool start_backend(Loop *loop, LoopKind kind, GError **errp)
{
    const char *forced = getenv("QDP_LOOP");
    if (kind == LOOP_AUTO && forced) {
        kind = strcmp(forced, "epoll") == 0 ? LOOP_EPOLL : LOOP_URING;
    }
#ifdef HAVE_URING
    if (kind != LOOP_EPOLL) {
        loop->backend = &loop_backend_uring;
        if (loop->backend->init(loop, kind == LOOP_URING ? errp : NULL)) {
            return true;
        }
        if (kind == LOOP_URING) {
            return false;
        }
    }
#else
    if (kind == LOOP_URING) {
        error_set(errp, "io_uring is not supported by this build");
        return false;
    }
#endif
    loop->backend = &loop_backend_epoll;
    return loop->backend->init(loop, errp);
}

Loop *loop_new(LoopKind kind, GError **errp)
{
    Loop *loop = g_new0(Loop, 1);
    list_init(&loop->ready);
    list_init(&loop->work);
    list_init(&loop->hooks);
    list_init(&loop->sends);
    list_init(&loop->receives);
    list_init(&loop->cancelled);
    list_init(&loop->disk_pending);
    list_init(&loop->disk_finished);
    loop->signal_fd.fd = -1;
    loop->now_ns = loop_clock_read();
    loop_timer_init(&loop->trim, loop, trim_fired);
    if (!start_backend(loop, kind, errp)) {
        g_free(loop);
        return NULL;
    }
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        error_set_errno(errp, errno, "Could not create an eventfd");
        loop->backend->fini(loop);
        g_free(loop);
        return NULL;
    }
    loop_fd_init(&loop->post_fd, loop, fd, run_posted);
    loop_fd_watch(&loop->post_fd, POLLIN);
    return loop;
}

void loop_free(Loop *loop)
{
    if (!loop) {
        return;
    }
    threads_free(loop);
    laio_free(loop);
    loop_fd_watch(&loop->post_fd, 0);
    if (loop->signal_fd.fd >= 0) {
        loop_fd_watch(&loop->signal_fd, 0);
        close(loop->signal_fd.fd);
    }
    loop->backend->fini(loop);
    close(loop->post_fd.fd);
    g_free(loop->timers);
    g_free(loop);
    coroutine_pool_trim();
}

const char *loop_kind_name(const Loop *loop)
{
    return loop->backend->name;
}

int64_t loop_now_ns(Loop *loop)
{
    return loop->now_ns;
}

/* ---- the turn ---- */

static bool run_ready(Loop *loop)
{
    ListLink batch;
    bool progress = false;

    list_init(&batch);
    list_splice(&batch, &loop->work);
    while (!list_empty(&batch)) {
        LoopWork *work = list_first(&batch, LoopWork, link);
        list_remove(&work->link);
        work->fn(work);
        progress = true;
    }
    list_splice(&batch, &loop->ready);
    while (!list_empty(&batch)) {
        Coroutine *co = list_first(&batch, Coroutine, link);
        list_remove(&co->link);
        coroutine_enter(co);
        progress = true;
    }
    return progress;
}

static void run_hooks(Loop *loop)
{
    ListLink batch;

    list_init(&batch);
    list_splice(&batch, &loop->hooks);
    while (!list_empty(&batch)) {
        LoopWork *hook = list_first(&batch, LoopWork, link);
        list_remove(&hook->link);
        hook->fn(hook);
    }
}

static bool has_ready(const Loop *loop)
{
    return !list_empty(&loop->work) || !list_empty(&loop->ready) ||
           !list_empty(&loop->disk_pending) || !list_empty(&loop->disk_finished) ||
           !list_empty(&loop->hooks) || !list_empty(&loop->sends) ||
           !list_empty(&loop->cancelled);
}

static void trim_fired(LoopTimer *timer)
{
    Loop *loop = timer->loop;

    if (loop->stats.turns - loop->trim_turns < TRIM_TURNS) {
        coroutine_pool_trim();
    } /* else busy: the end of this turn arms it again */
}

static void trim_arm(Loop *loop)
{
    if (coroutine_pool_excess() && !loop_timer_armed(&loop->trim)) {
        loop->trim_turns = loop->stats.turns;
        loop_timer_arm(&loop->trim, loop->now_ns + TRIM_NS);
    }
}

/* What was worth waiting for came after @waited_ns: look longer next time, or give up on
 * looking when it was in vain. */
static void adapt_poll(Loop *loop, int64_t waited_ns)
{
    if (waited_ns <= loop->poll.now_ns) {
        return;
    }
    if (waited_ns > loop->poll.max_ns) {
        loop->poll.now_ns = loop->poll.shrink ? loop->poll.now_ns / loop->poll.shrink : 0;
    } else {
        int64_t grow = loop->poll.grow ? loop->poll.grow : 2, longer;
        if (__builtin_mul_overflow(loop->poll.now_ns, grow, &longer)) {
            longer = loop->poll.max_ns;
        }
        loop->poll.now_ns = CLAMP(longer, MIN(POLL_FIRST_NS, loop->poll.max_ns),
                                  loop->poll.max_ns);
    }
}

/* Look once, without waiting: for whatever the backend has, and for @held (may be NULL), a
 * receive that it does not have yet. True: something came. */
static bool look_once(Loop *loop, SockOp *held)
{
    const LoopBackend *backend = loop->backend;
    bool due = backend->pending ? backend->pending(loop)
                                : !held || loop->look.only++ % LOOKS_ONLY == 0;

    loop->stats.polls++;
    if (due && (backend->turn(loop, 0) || has_ready(loop))) {
        return true;
    }
    return held && sock_op_try_receive(held);
}

static void wait_at_last(Loop *loop, int64_t timeout_ns)
{
    sock_stage_receives(loop, NULL);
    loop->backend->turn(loop, timeout_ns);
}

/* Wait without sleeping for a while: waking a thread costs more than most requests. */
static void poll_and_wait(Loop *loop, int64_t timeout_ns, SockOp *held)
{
    int64_t start = loop_clock_read();
    int64_t budget = loop->poll.now_ns;

    if (timeout_ns >= 0) {
        budget = MIN(budget, timeout_ns);
    }
    for (int64_t now = start; now - start < budget; now = loop_clock_read()) {
        if (look_once(loop, held)) {
            return;
        }
    }
    if (timeout_ns >= 0) {
        timeout_ns = MAX(timeout_ns - (loop_clock_read() - start), 0);
    }
    sock_stage_receives(loop, NULL);
    if (loop->backend->turn(loop, timeout_ns)) {
        adapt_poll(loop, loop->now_ns - start);
    }
}

/* Sleeping and being woken costs both sides more than a peer that is quick needs to come
 * back. Where it is not quick the looks become rare: one in 64. */
static void look_and_wait(Loop *loop, int64_t timeout_ns, SockOp *held)
{
    if (loop->look.skip) {
        loop->look.skip--;
        wait_at_last(loop, timeout_ns);
        return;
    }
    int64_t start = loop_clock_read(), looked = 0;
    loop->stats.looks++;
    int64_t budget = timeout_ns < 0 ? LOOK_NS : MIN(timeout_ns, LOOK_NS);
    while (looked < budget) {
        if (look_once(loop, held)) {
            loop->look.vain = 0;
            return;
        }
        looked = loop_clock_read() - start;
    }
    loop->look.vain = MIN(loop->look.vain + 1, LOOK_VAIN_MAX);
    loop->look.skip = (1u << loop->look.vain) - 1;
    wait_at_last(loop, timeout_ns < 0 ? -1 : MAX(timeout_ns - looked, 0));
}

static void turn(Loop *loop)
{
    loop->stats.turns++;
    loop_timers_run(loop);
    for (int round = 0; round < READY_ROUNDS; round++) {
        bool progress = run_ready(loop);
        progress |= loop_disk_stage(loop);
        if (progress && !loop->flush_soon) {
            continue;
        }
        /* Nothing is left to do, or enough is done: what was produced goes out. */
        loop->flush_soon = false;
        run_hooks(loop);
        sock_stage(loop);
        laio_flush(loop);
        if (!has_ready(loop) && !laio_reap(loop)) {
            break;
        }
    }
    run_hooks(loop); /* after the last round too, however busy it was */
    sock_stage(loop);
    laio_flush(loop);
    threads_flush(loop);
    trim_arm(loop);

    int64_t timeout = -1;
    if (has_ready(loop) || loop->stop) {
        timeout = 0;
    } else if (loop->nb_timers) {
        /* one reading of the clock: MAX() evaluates twice, and below 0 is for ever */
        timeout = loop_timers_next(loop) - loop_clock_read();
        timeout = MAX(timeout, 0);
    }
    SockOp *look = timeout ? loop->look.op : NULL;
    loop->look.op = NULL;
    SockOp *held = look && list_linked(&look->link) ? look : NULL;
    sock_stage_receives(loop, held);
    if (timeout && loop->poll.max_ns) {
        poll_and_wait(loop, timeout, held);
    } else if (look) {
        look_and_wait(loop, timeout, held);
    } else {
        loop->backend->turn(loop, timeout);
    }
}

void loop_set_polling(Loop *loop, int64_t max_ns, unsigned grow, unsigned shrink)
{
    loop->poll.max_ns = max_ns;
    loop->poll.now_ns = MIN(loop->poll.now_ns, max_ns);
    loop->poll.grow = grow;
    loop->poll.shrink = shrink;
}

void loop_clock_update(Loop *loop)
{
    loop->now_ns = loop_clock_read();
}

void loop_run(Loop *loop)
{
    loop->stop = false;
    while (!loop->stop) {
        turn(loop);
    }
}

void loop_stop(Loop *loop)
{
    loop->stop = true;
}

typedef struct RunCoroutine {
    Loop *loop;
    CoroutineEntry *entry;
    void *opaque;
} RunCoroutine;

static void coroutine_fn run_and_stop(void *opaque)
{
    RunCoroutine *run = opaque;
    run->entry(run->opaque);
    loop_stop(run->loop);
}

void loop_run_coroutine(Loop *loop, CoroutineEntry *entry, void *opaque)
{
    RunCoroutine run = {loop, entry, opaque};
    loop->stop = false;
    loop_ready(loop, coroutine_new(run_and_stop, &run, CO_STACK_CONTROL));
    while (!loop->stop) {
        turn(loop);
    }
}

/* ---- work ---- */

void loop_ready(Loop *loop, Coroutine *co)
{
    list_append(&loop->ready, &co->link);
}

void loop_work_init(LoopWork *work, LoopWorkFn *fn)
{
    list_init(&work->link);
    work->fn = fn;
}

void loop_work_schedule(Loop *loop, LoopWork *work)
{
    if (!list_linked(&work->link)) {
        list_append(&loop->work, &work->link);
    }
}

void loop_work_cancel(LoopWork *work)
{
    list_remove(&work->link);
}

void loop_flush_schedule(Loop *loop, LoopWork *hook)
{
    if (!list_linked(&hook->link)) {
        list_append(&loop->hooks, &hook->link);
    }
}

void loop_flush_soon(Loop *loop)
{
    loop->flush_soon = true;
}

typedef struct Sleeper {
    LoopTimer timer;
    Coroutine *co;
} Sleeper;

static void sleep_over(LoopTimer *timer)
{
    coroutine_enter(container_of(timer, Sleeper, timer)->co);
}

void coroutine_fn co_sleep_ns(Loop *loop, int64_t duration_ns)
{
    Sleeper sleeper = {.co = coroutine_self()};
    loop_timer_init(&sleeper.timer, loop, sleep_over);
    loop_timer_arm(&sleeper.timer, loop_clock_read() + duration_ns);
    coroutine_yield();
}

/* ---- fds and signals ---- */

void loop_fd_init(LoopFd *watch, Loop *loop, int fd, LoopFdFn *fn)
{
    watch->loop = loop;
    watch->fn = fn;
    watch->fd = fd;
    watch->events = 0;
    watch->engine = NULL;
    if (loop->backend->fd_fresh) {
        loop->backend->fd_fresh(loop, fd);
    }
}

void loop_fd_watch(LoopFd *watch, unsigned events)
{
    if (watch->events != events) {
        watch->events = events;
        watch->loop->backend->fd_watch(watch);
    }
}

static void signal_ready(LoopFd *watch, unsigned revents)
{
    Loop *loop = watch->loop;
    struct signalfd_siginfo info;
    while (read(watch->fd, &info, sizeof(info)) == sizeof(info)) {
        loop->signal_fn(loop->signal_opaque, (int)info.ssi_signo);
    }
}

bool loop_signals(Loop *loop, const int *signos, int nb_signos, LoopSignalFn *fn,
                  void *opaque, GError **errp)
{
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < nb_signos; i++) {
        sigaddset(&set, signos[i]);
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) {
        error_set_errno(errp, errno, "Could not create a signalfd");
        return false;
    }
    loop->signal_fn = fn;
    loop->signal_opaque = opaque;
    loop_fd_init(&loop->signal_fd, loop, fd, signal_ready);
    loop_fd_watch(&loop->signal_fd, POLLIN);
    return true;
}

void loop_stats_foreach(Loop *loop,
                        void (*visit)(void *opaque, const char *name, uint64_t value),
                        void *opaque)
{
    visit(opaque, "turns", loop->stats.turns);
    visit(opaque, "system-calls", loop->stats.system_calls);
    visit(opaque, "inline-ops", loop->stats.inline_ops);
    visit(opaque, "submitted-ops", loop->stats.submitted_ops);
    visit(opaque, "completions", loop->stats.completions);
    visit(opaque, "polls", loop->stats.polls);
    visit(opaque, "looks", loop->stats.looks);
}
