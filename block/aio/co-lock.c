/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks between coroutines of one loop.  All are FIFO: who waited longest goes first, and
 * an unlock hands the lock over rather than letting a newcomer overtake.
 */
#include "block/aio/coroutine-private.h"
#include "block/aio/loop-private.h"

static Coroutine *first_waiter(ListLink *waiters)
{
    return list_first(waiters, Coroutine, link);
}

static void coroutine_fn wait_in(ListLink *waiters)
{
    Coroutine *self = coroutine_self();
    list_append(waiters, &self->link);
    coroutine_yield();
}

void co_mutex_init(CoMutex *mutex, Loop *loop)
{
    mutex->loop = loop;
    mutex->holder = NULL;
    list_init(&mutex->waiters);
}

bool co_mutex_trylock(CoMutex *mutex)
{
    if (mutex->holder) {
        return false;
    }
    mutex->holder = coroutine_self();
    return true;
}

void coroutine_fn co_mutex_lock(CoMutex *mutex)
{
    g_assert(mutex->holder != coroutine_self());
    if (!co_mutex_trylock(mutex)) {
        wait_in(&mutex->waiters); /* woken as the holder */
    }
}

void co_mutex_unlock(CoMutex *mutex)
{
    g_assert(mutex->holder == coroutine_self());
    if (list_empty(&mutex->waiters)) {
        mutex->holder = NULL;
        return;
    }
    Coroutine *next = first_waiter(&mutex->waiters);
    list_remove(&next->link);
    mutex->holder = next;
    loop_ready(mutex->loop, next);
}

void co_queue_init(CoQueue *queue, Loop *loop)
{
    queue->loop = loop;
    list_init(&queue->waiters);
}

void coroutine_fn co_queue_wait(CoQueue *queue)
{
    wait_in(&queue->waiters);
}

bool co_queue_wake_one(CoQueue *queue)
{
    if (list_empty(&queue->waiters)) {
        return false;
    }
    Coroutine *co = first_waiter(&queue->waiters);
    list_remove(&co->link);
    loop_ready(queue->loop, co);
    return true;
}

void co_queue_wake_all(CoQueue *queue)
{
    while (co_queue_wake_one(queue)) {
    }
}

bool co_queue_empty(const CoQueue *queue)
{
    return list_empty(&queue->waiters);
}

/* ---- group commit ---- */

typedef struct Member {
    ListLink link;
    Coroutine *co;
    int ret;
} Member;

void co_group_init(CoGroup *group, Loop *loop)
{
    co_queue_init(&group->ended, loop);
    list_init(&group->members);
    group->running = false;
}

bool co_group_idle(const CoGroup *group)
{
    return !group->running && list_empty(&group->members);
}

void coroutine_fn co_group_wait_idle(CoGroup *group)
{
    while (group->running) {
        co_queue_wait(&group->ended);
    }
}

static int coroutine_fn run_group(CoGroup *group, CoGroupRun *run, void *opaque)
{
    group->running = true;
    int ret = run(opaque);
    group->running = false;
    co_queue_wake_all(&group->ended);
    return ret;
}

int coroutine_fn co_group_alone(CoGroup *group, CoGroupRun *run, void *opaque)
{
    co_group_wait_idle(group);
    return run_group(group, run, opaque);
}

int coroutine_fn co_group_join(CoGroup *group, CoGroupRun *run, void *opaque)
{
    Loop *loop = group->ended.loop;
    Member self = {.co = coroutine_self()};
    bool leader = list_empty(&group->members);
    ListLink mine;

    list_append(&group->members, &self.link);
    if (!leader) {
        coroutine_yield(); /* the leader has set ret */
        return self.ret;
    }
    coroutine_wake_later(loop, self.co); /* let the round bring the others */
    coroutine_yield();
    co_group_wait_idle(group);
    /* order: who joins from here on waits for the next run */
    list_init(&mine);
    list_splice(&mine, &group->members);
    list_remove(&self.link);
    int ret = run_group(group, run, opaque);
    while (!list_empty(&mine)) {
        Member *member = list_first(&mine, Member, link);
        list_remove(&member->link);
        member->ret = ret;
        coroutine_wake_later(loop, member->co);
    }
    return ret;
}

/* ---- working together ---- */

typedef struct Team {
    CoWorker *worker;
    void *opaque;
    unsigned running;
    bool over; /* somebody found nothing left */
    int ret;
    CoQueue ended;
} Team;

static void coroutine_fn team_work(void *opaque)
{
    Team *team = opaque;

    team->running++;
    int ret = team->worker(team->opaque);
    team->over = true;
    team->ret = team->ret ? team->ret : ret;
    team->running--;
    co_queue_wake_all(&team->ended);
}

int coroutine_fn co_together(Loop *loop, unsigned n, CoWorker *worker, void *opaque)
{
    Team team = {.worker = worker, .opaque = opaque};

    co_queue_init(&team.ended, loop);
    for (unsigned i = 1; i < n && !team.over; i++) {
        Coroutine *co = coroutine_try_new(team_work, &team, CO_STACK_DATA);
        if (!co) {
            break;
        }
        coroutine_enter(co);
    }
    if (!team.over) {
        team_work(&team);
    }
    while (team.running) {
        co_queue_wait(&team.ended);
    }
    return team.ret;
}

/* ---- reader/writer ---- */

enum { WAIT_READ, WAIT_WRITE };

void co_rwlock_init(CoRwlock *lock, Loop *loop)
{
    lock->loop = loop;
    lock->readers = 0;
    list_init(&lock->waiters);
}

void coroutine_fn co_rwlock_rdlock(CoRwlock *lock)
{
    if (lock->readers >= 0 && list_empty(&lock->waiters)) {
        lock->readers++;
        return;
    }
    coroutine_self()->wait_kind = WAIT_READ;
    wait_in(&lock->waiters);
}

void coroutine_fn co_rwlock_wrlock(CoRwlock *lock)
{
    if (lock->readers == 0) {
        lock->readers = -1;
        return;
    }
    coroutine_self()->wait_kind = WAIT_WRITE;
    wait_in(&lock->waiters);
}

void co_rwlock_unlock(CoRwlock *lock)
{
    if (lock->readers < 0) {
        lock->readers = 0;
    } else {
        g_assert(lock->readers > 0);
        lock->readers--;
    }
    while (!list_empty(&lock->waiters)) {
        Coroutine *next = first_waiter(&lock->waiters);
        if (next->wait_kind == WAIT_WRITE) {
            if (lock->readers != 0) {
                return;
            }
            lock->readers = -1;
        } else {
            lock->readers++;
        }
        list_remove(&next->link);
        loop_ready(lock->loop, next);
        if (lock->readers < 0) {
            return;
        }
    }
}
