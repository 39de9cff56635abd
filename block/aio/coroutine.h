/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stackful coroutines: pooled, guarded stacks and a switch of a few instructions.
 *
 * Invariants:
 *  C1 a coroutine runs on the thread of the loop that entered it, from entry to end;
 *  C2 a suspended coroutine is woken, with an error if need be, never destroyed;
 *  C3 a running coroutine is never entered; entering one that waits elsewhere is a bug
 *     that the debug build asserts;
 *  C4 no function that may yield is called between a check and the use of what it checked
 *     unless the check is repeated.
 *
 * Functions that may yield are marked coroutine_fn on declaration and definition, and
 * carry _co_ in their names.
 */
#ifndef BLOCK_AIO_COROUTINE_H
#define BLOCK_AIO_COROUTINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "block/base/list.h"

#define coroutine_fn

typedef struct Coroutine Coroutine;
typedef struct Loop Loop;
typedef void CoroutineEntry(void *opaque);

typedef enum CoroutineStack {
    CO_STACK_DATA,    /*  64 KiB: the data path */
    CO_STACK_CONTROL, /* 256 KiB: QMP handlers, open, tools */
} CoroutineStack;

/* Make a coroutine; it runs at the first coroutine_enter() and frees itself when @entry
 * returns. NULL when no stack can be had; 256 data stacks that were used stay pooled
 * until coroutine_pool_trim(). */
Coroutine *coroutine_try_new(CoroutineEntry *entry, void *opaque, CoroutineStack kind);

/* The same for tests, which cannot go on without: aborts. */
Coroutine *coroutine_new(CoroutineEntry *entry, void *opaque, CoroutineStack kind);

/* Run @co until it yields or ends. May be called from inside another coroutine. */
void coroutine_enter(Coroutine *co);

/* Suspend the running coroutine; returns when somebody enters it again. */
void coroutine_fn coroutine_yield(void);

/* The running coroutine, or NULL on the thread's own stack. */
Coroutine *coroutine_self(void);

static inline bool in_coroutine(void)
{
    return coroutine_self() != NULL;
}

/* Make @co run soon: at once when called outside of any coroutine, else from the loop's
 * ready list in this same turn. Same thread only. */
void coroutine_wake(Loop *loop, Coroutine *co);

/* The same, but always from the ready list. */
void coroutine_wake_later(Loop *loop, Coroutine *co);

/* Free pooled stacks above a small reserve (called by the loop when idle). */
void coroutine_pool_trim(void);

/* A FIFO mutex between coroutines of one loop. Zero-initialise with _init. */
typedef struct CoMutex {
    Loop *loop;
    Coroutine *holder;
    ListLink waiters;
} CoMutex;
void co_mutex_init(CoMutex *mutex, Loop *loop);
void coroutine_fn co_mutex_lock(CoMutex *mutex);
bool co_mutex_trylock(CoMutex *mutex);
void co_mutex_unlock(CoMutex *mutex); /* hands over to the first waiter */

/* A queue of waiting coroutines. wake_* never yields. */
typedef struct CoQueue {
    Loop *loop;
    ListLink waiters;
} CoQueue;
void co_queue_init(CoQueue *queue, Loop *loop);
void coroutine_fn co_queue_wait(CoQueue *queue);
bool co_queue_wake_one(CoQueue *queue); /* false if nobody waited */
void co_queue_wake_all(CoQueue *queue);
bool co_queue_empty(const CoQueue *queue);

/*
 * Group commit: everybody who joins before a run begins shares that run and its result.
 * One run at a time; who joins while one runs waits for the next. Who comes in the same
 * round of the loop comes in time.
 */
typedef int coroutine_fn CoGroupRun(void *opaque);
typedef struct CoGroup {
    CoQueue ended;    /* a run is over */
    ListLink members; /* of the next run */
    bool running;
} CoGroup;
void co_group_init(CoGroup *group, Loop *loop);
/* The result of a run that began after this was called. All callers give the same @run and
 * @opaque; it is called by the first of them. */
int coroutine_fn co_group_join(CoGroup *group, CoGroupRun *run, void *opaque);
/* A run for the caller alone. */
int coroutine_fn co_group_alone(CoGroup *group, CoGroupRun *run, void *opaque);
/* Nobody runs nor waits. */
bool co_group_idle(const CoGroup *group);
/* Until nobody runs. */
void coroutine_fn co_group_wait_idle(CoGroup *group);

/*
 * Do together what can be done in any order: @worker, which takes one thing after the other
 * from what @opaque has left and returns when there is nothing (or an error), runs in up to
 * @n coroutines, the caller among them. Returns when all have: 0, or the first error, of
 * which it is theirs to tell each other. Fewer run where there is no memory for stacks, or
 * when one comes to the end before the next has begun.
 */
typedef int coroutine_fn CoWorker(void *opaque);
int coroutine_fn co_together(Loop *loop, unsigned n, CoWorker *worker, void *opaque);

/* A fair reader/writer lock between coroutines of one loop. */
typedef struct CoRwlock {
    Loop *loop;
    int readers; /* -1: one writer */
    ListLink waiters;
} CoRwlock;
void co_rwlock_init(CoRwlock *lock, Loop *loop);
void coroutine_fn co_rwlock_rdlock(CoRwlock *lock);
void coroutine_fn co_rwlock_wrlock(CoRwlock *lock);
void co_rwlock_unlock(CoRwlock *lock);

/* Sleep on the loop's clock. */
void coroutine_fn co_sleep_ns(Loop *loop, int64_t duration_ns);

#endif
