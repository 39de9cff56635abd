/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of a coroutine, and the switch: a few instructions on x86-64 and aarch64,
 * ucontext elsewhere.  Sanitizers and valgrind are told about the stacks here.
 */
#ifndef BLOCK_AIO_COROUTINE_PRIVATE_H
#define BLOCK_AIO_COROUTINE_PRIVATE_H

#include <glib.h>
#include <stddef.h>
#include <stdint.h>
#include "block/aio/coroutine.h"

#if defined(__SANITIZE_ADDRESS__)
#define CO_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CO_ASAN 1
#endif
#endif
#ifndef CO_ASAN
#define CO_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__)
#define CO_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CO_TSAN 1
#endif
#endif
#ifndef CO_TSAN
#define CO_TSAN 0
#endif

#if CO_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if CO_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#define CO_VALGRIND 1
#else
#define CO_VALGRIND 0
#endif

#if !defined(CO_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define CO_UCONTEXT 1
#endif
#ifdef CO_UCONTEXT
#include <ucontext.h>
#endif

struct Coroutine {
    void *sp; /* saved stack pointer while it does not run */
    Coroutine *caller;
    CoroutineEntry *entry;
    void *opaque;
    ListLink link; /* in a lock's waiters or the loop's ready list */
    bool ended;
    uint8_t kind;
    int wait_kind; /* the lock's own note */
    uint8_t *stack_low;
    size_t stack_size;
    void *map;
    size_t map_len;
    void *fake_stack; /* ASan's */
    void *fiber;      /* TSan's */
    unsigned valgrind_id;
#ifdef CO_UCONTEXT
    ucontext_t context;
#endif
};

/* Has this thread more pooled stacks than coroutine_pool_trim() would leave? */
bool coroutine_pool_excess(void);

/* Prepare @co so that the first switch to it calls @main with @co. */
void co_context_init(Coroutine *co, void (*main)(Coroutine *co));
#ifdef CO_UCONTEXT
void co_context_switch(Coroutine *from, Coroutine *to);
#else
/* co-switch-*.S: save callee-saved registers on this stack, its pointer in *save; load
 * those of @load. */
void co_switch_asm(void **save, void *load);
static inline void co_context_switch(Coroutine *from, Coroutine *to)
{
    co_switch_asm(&from->sp, to->sp);
}
#endif

static inline void co_stack_register(Coroutine *co)
{
#if CO_VALGRIND
    co->valgrind_id = VALGRIND_STACK_REGISTER(co->stack_low, co->stack_low + co->stack_size);
#endif
#if CO_TSAN
    co->fiber = __tsan_create_fiber(0);
#endif
    (void)co;
}

static inline void co_stack_unregister(Coroutine *co)
{
#if CO_VALGRIND
    VALGRIND_STACK_DEREGISTER(co->valgrind_id);
#endif
#if CO_TSAN
    __tsan_destroy_fiber(co->fiber);
#endif
    (void)co;
}

/* Called first thing on the stack that was switched to. */
static inline void co_switch_finish(Coroutine *self)
{
#if CO_ASAN
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(self->fake_stack, &bottom, &size);
    Coroutine *from = self->caller;
    if (from && !from->map) { /* a thread's own stack: learn it */
        from->stack_low = (uint8_t *)bottom;
        from->stack_size = size;
    }
#endif
    (void)self;
}

/* Leave @from for @to; returns when somebody switches back. @returns false: never. */
static inline void co_switch(Coroutine *from, Coroutine *to, bool returns)
{
#if CO_ASAN
    /* An ended coroutine's stack is used again from its top, by co_main's loop. */
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack_low, to->stack_size);
#endif
#if CO_TSAN
    if (!from->fiber) {
        from->fiber = __tsan_get_current_fiber(); /* a thread's own stack */
    }
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
    (void)returns;
    co_context_switch(from, to);
#if CO_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

#endif
