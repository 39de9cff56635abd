/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Coroutines: life, entering and yielding, and the pool of stacks.  How the processor
 * changes stacks is in co-switch-*.S and co-context.c; locks are in co-lock.c.
 *
 * A stack is one mapping: a guard page, then the stack; the Coroutine itself lies at its
 * upper end, so that a new coroutine costs no second allocation.
 */
#include "block/aio/coroutine.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/aio/coroutine-private.h"
#include "block/aio/loop-private.h"
#include "block/base/ablate.h"

#if CO_ASAN
#define STACK_FACTOR 2
#else
#define STACK_FACTOR 1
#endif
#define DATA_STACK    (64u * 1024 * STACK_FACTOR)
#define CONTROL_STACK (256u * 1024 * STACK_FACTOR)
#define POOL_RESERVE  4   /* data stacks kept when idle */
#define POOL_MAX      256 /* data stacks kept at all */
#define CONTROL_MAX   2

typedef struct StackPool {
    Coroutine *free;
    unsigned count;
} StackPool;

static __thread StackPool pools[2];
static __thread Coroutine *current;
static __thread Coroutine thread_self; /* the thread's own stack */

static size_t stack_size(CoroutineStack kind)
{
    return kind == CO_STACK_CONTROL ? CONTROL_STACK : DATA_STACK;
}

/* Layout of the mapping: [guard][stack ...][Coroutine]. */
static Coroutine *stack_map(CoroutineStack kind)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t size = stack_size(kind);
    uint8_t *base = mmap(NULL, page + size, PROT_READ | PROT_WRITE,
                         /* cppcheck-suppress invalidFunctionArg ; no file: -1 */
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (base == MAP_FAILED) {
        return NULL;
    }
    if (mprotect(base, page, PROT_NONE) < 0) { /* a guard is one mapping more */
        munmap(base, page + size);
        return NULL;
    }
    Coroutine *co = (Coroutine *)(base + page + size - round_up(sizeof(Coroutine), 64));
    co->map = base;
    co->map_len = page + size;
    co->stack_low = base + page;
    co->stack_size = (uint8_t *)co - co->stack_low;
    co->kind = kind;
    co_stack_register(co);
    return co;
}

static void stack_unmap(Coroutine *co)
{
    co_stack_unregister(co);
    munmap(co->map, co->map_len);
}

static void co_main(Coroutine *co)
{
    co_switch_finish(co);
    for (;;) {
        co->entry(co->opaque);
        co->ended = true;
        co_switch(co, co->caller, false);
    }
}

Coroutine *coroutine_try_new(CoroutineEntry *entry, void *opaque, CoroutineStack kind)
{
    StackPool *pool = &pools[kind];
    Coroutine *co = pool->free;

    if (co) {
        pool->free = co->caller;
        pool->count--;
    } else {
        co = stack_map(kind);
        if (!co) {
            return NULL;
        }
        co_context_init(co, co_main);
    }
    co->entry = entry;
    co->opaque = opaque;
    co->caller = NULL;
    co->ended = false;
    list_init(&co->link);
    return co;
}

Coroutine *coroutine_new(CoroutineEntry *entry, void *opaque, CoroutineStack kind)
{
    Coroutine *co = coroutine_try_new(entry, opaque, kind);
    if (!co) {
        g_error("no memory for a stack");
    }
    return co;
}

static void coroutine_put(Coroutine *co)
{
    StackPool *pool = &pools[co->kind];
    unsigned keep = co->kind == CO_STACK_DATA ? POOL_MAX : CONTROL_MAX;

    if (ablated(ABLATE_STACK_POOL)) {
        keep = 0;
    }
    if (pool->count >= keep) {
        stack_unmap(co);
        return;
    }
    co->caller = pool->free;
    pool->free = co;
    pool->count++;
}

bool coroutine_pool_excess(void)
{
    return pools[CO_STACK_DATA].count > POOL_RESERVE || pools[CO_STACK_CONTROL].count;
}

void coroutine_pool_trim(void)
{
    for (int kind = 0; kind < 2; kind++) {
        StackPool *pool = &pools[kind];
        unsigned keep = kind == CO_STACK_DATA ? POOL_RESERVE : 0;
        while (pool->count > keep) {
            Coroutine *co = pool->free;
            pool->free = co->caller;
            pool->count--;
            stack_unmap(co);
        }
    }
}

void coroutine_enter(Coroutine *co)
{
    Coroutine *self = current ? current : &thread_self;

    g_assert(!co->caller); /* C3 */
    co->caller = self;
    current = co;
    co_switch(self, co, true);
    current = self == &thread_self ? NULL : self;
    if (co->ended) {
        coroutine_put(co);
    }
}

void coroutine_fn coroutine_yield(void)
{
    Coroutine *self = current;
    Coroutine *caller = self->caller;

    self->caller = NULL;
    co_switch(self, caller, true);
}

Coroutine *coroutine_self(void)
{
    return current;
}

void coroutine_wake(Loop *loop, Coroutine *co)
{
    if (current) {
        loop_ready(loop, co);
    } else {
        coroutine_enter(co);
    }
}

void coroutine_wake_later(Loop *loop, Coroutine *co)
{
    loop_ready(loop, co);
}
