/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The threads engine: a pool of helper threads that make blocking system calls.  Made when
 * first used; a thread without work for IDLE_SECONDS ends.
 *
 * T1 the queue and the counts are under the mutex; everything else belongs to the loop.
 * T2 what one round of the loop starts is handed over at once, by threads_flush(): one
 *    lock, and as many wake-ups as there are tasks.
 * T3 where the system gives no thread at all, the loop's own makes the calls: slow, and
 *    better than to end.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "block/aio/coroutine-private.h"
#include "block/aio/disk-private.h"

#define MAX_THREADS  64
#define THREAD_STACK (128 * 1024)
#define IDLE_SECONDS 10

typedef struct ThreadTask {
    ListLink link;
    LoopWork done;
    void (*fn)(void *opaque);
    void *opaque;
    DiskOp *op; /* instead of fn */
} ThreadTask;

struct ThreadPool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_cond_t ended;
    ListLink queue; /* ThreadTask.link */
    int nb_queued;
    int nb_threads, nb_idle;
    bool stop;
    Loop *loop;
    /* the loop's own */
    ThreadTask *free; /* linked by link.next */
    ListLink fresh;   /* ThreadTask.link: not handed over yet */
    int nb_fresh;
};

static void run_disk_op(DiskOp *op)
{
    while (!disk_op_progress(op, disk_op_attempt(op, 0))) {
    }
}

static void run_task(ThreadPool *pool, ThreadTask *task)
{
    if (task->op) {
        run_disk_op(task->op);
    } else {
        task->fn(task->opaque);
    }
    loop_post(pool->loop, &task->done);
}

static void *thread_main(void *opaque)
{
    ThreadPool *pool = opaque;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct timespec until;
        int ret = 0;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += IDLE_SECONDS;
        while (list_empty(&pool->queue) && !pool->stop && ret != ETIMEDOUT) {
            ret = pthread_cond_timedwait(&pool->wake, &pool->lock, &until);
        }
        pool->nb_idle--;
        if (list_empty(&pool->queue)) {
            break;
        }
        ThreadTask *task = list_first(&pool->queue, ThreadTask, link);
        list_remove(&task->link);
        pool->nb_queued--;
        pthread_mutex_unlock(&pool->lock);
        run_task(pool, task);
        pthread_mutex_lock(&pool->lock);
        pool->nb_idle++;
    }
    pool->nb_threads--;
    pthread_cond_signal(&pool->ended);
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Called with the lock held. False when the system gives no thread. */
static bool spawn(ThreadPool *pool)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;

    sigfillset(&all);
    sigdelset(&all, SIGSYS); /* the sandbox answers it, in any thread */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int ret = pthread_create(&thread, &attr, thread_main, pool);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (ret == 0) {
        pool->nb_threads++;
        pool->nb_idle++; /* at once, so that the next round does not start another */
    }
    return ret == 0;
}

static ThreadPool *pool_get(Loop *loop)
{
    if (!loop->threads) {
        ThreadPool *pool = g_new0(ThreadPool, 1);
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_mutex_init(&pool->lock, NULL);
        pthread_cond_init(&pool->wake, &attr);
        pthread_condattr_destroy(&attr);
        pthread_cond_init(&pool->ended, NULL);
        list_init(&pool->queue);
        list_init(&pool->fresh);
        pool->loop = loop;
        loop->threads = pool;
    }
    return loop->threads;
}

static ThreadTask *task_get(ThreadPool *pool)
{
    ThreadTask *task = pool->free;
    if (task) {
        pool->free = (ThreadTask *)task->link.next;
    } else {
        task = g_new0(ThreadTask, 1);
    }
    list_init(&task->link);
    return task;
}

static void task_put(ThreadPool *pool, ThreadTask *task)
{
    task->link.next = (ListLink *)pool->free;
    pool->free = task;
}

static void enqueue(ThreadPool *pool, ThreadTask *task)
{
    list_append(&pool->fresh, &task->link);
    pool->nb_fresh++;
}

/* T3. Called with the lock held; drops it meanwhile. */
static void run_here(ThreadPool *pool)
{
    ListLink tasks;

    list_init(&tasks);
    list_splice(&tasks, &pool->queue);
    pool->nb_queued = 0;
    pthread_mutex_unlock(&pool->lock);
    while (!list_empty(&tasks)) {
        ThreadTask *task = list_first(&tasks, ThreadTask, link);
        list_remove(&task->link);
        run_task(pool, task);
    }
    pthread_mutex_lock(&pool->lock);
}

void threads_flush(Loop *loop)
{
    ThreadPool *pool = loop->threads;
    int wake;

    if (!pool || !pool->nb_fresh) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    list_splice(&pool->queue, &pool->fresh);
    pool->nb_queued += pool->nb_fresh;
    wake = MIN(pool->nb_fresh, pool->nb_idle);
    /* A thread that was woken or started but does not run yet still counts as idle:
     * compare with all that is queued, not with zero. */
    for (int n = pool->nb_queued - pool->nb_idle; n > 0; n--) {
        if (pool->nb_threads >= MAX_THREADS || !spawn(pool)) {
            break;
        }
    }
    pool->nb_fresh = 0;
    if (pool->nb_threads == 0) {
        run_here(pool);
    }
    pthread_mutex_unlock(&pool->lock);
    while (wake-- > 0) {
        loop->stats.system_calls++;
        pthread_cond_signal(&pool->wake);
    }
}

static void disk_op_done(LoopWork *work)
{
    ThreadTask *task = container_of(work, ThreadTask, done);
    DiskOp *op = task->op;
    task_put(op->file->loop->threads, task);
    op->file->loop->stats.completions++;
    op->file->loop->stats.system_calls++; /* the thread's */
    op->done(op, op->result);
}

void threads_start(Loop *loop, DiskOp *op)
{
    ThreadPool *pool = pool_get(loop);
    ThreadTask *task = task_get(pool);
    task->op = op;
    loop_work_init(&task->done, disk_op_done);
    enqueue(pool, task);
}

/* ---- blocking functions for coroutines ---- */

typedef struct CoThreadCall {
    LoopThreadFn *fn;
    void *opaque;
    int ret;
    Coroutine *co;
} CoThreadCall;

static void call_in_thread(void *opaque)
{
    CoThreadCall *call = opaque;
    call->ret = call->fn(call->opaque);
}

static void call_done(LoopWork *work)
{
    ThreadTask *task = container_of(work, ThreadTask, done);
    CoThreadCall *call = task->opaque;
    coroutine_enter(call->co);
}

int coroutine_fn loop_co_run_in_thread(Loop *loop, LoopThreadFn *fn, void *opaque)
{
    ThreadPool *pool = pool_get(loop);
    CoThreadCall call = {.fn = fn, .opaque = opaque, .co = coroutine_self()};
    ThreadTask *task = task_get(pool);
    task->op = NULL;
    task->fn = call_in_thread;
    task->opaque = &call;
    loop_work_init(&task->done, call_done);
    enqueue(pool, task);
    coroutine_yield();
    task_put(pool, task);
    return call.ret;
}

void threads_free(Loop *loop)
{
    ThreadPool *pool = loop->threads;
    if (!pool) {
        return;
    }
    threads_flush(loop);
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->wake);
    while (pool->nb_threads > 0) {
        pthread_cond_wait(&pool->ended, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    while (pool->free) {
        ThreadTask *task = task_get(pool);
        g_free(task);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->ended);
    pthread_mutex_destroy(&pool->lock);
    g_free(pool);
    loop->threads = NULL;
}
