/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The first frame of a coroutine, for each way to switch. */
#include <string.h>

#include "block/aio/coroutine-private.h"

#ifndef CO_UCONTEXT

void co_start_asm(void);

void co_context_init(Coroutine *co, void (*main)(Coroutine *co))
{
    uintptr_t top = ((uintptr_t)co->stack_low + co->stack_size) & ~(uintptr_t)63;
    void **sp;
#ifdef __x86_64__
    /* r15 r14 r13 r12 rbx rbp rip, then rsp is 16-byte aligned at co_start_asm */
    sp = (void **)(top - 64) - 7;
    memset(sp, 0, 7 * sizeof(*sp));
    sp[2] = co;
    sp[3] = (void *)main;
    sp[6] = (void *)co_start_asm;
#else
    sp = (void **)(top - 64 - 160);
    memset(sp, 0, 160);
    sp[0] = (void *)main;
    sp[1] = co;
    sp[11] = (void *)co_start_asm; /* x30 */
#endif
    co->sp = sp;
}

#else

typedef struct StartArgs {
    Coroutine *co;
    void (*main)(Coroutine *co);
} StartArgs;

static __thread StartArgs start_args;

static void start(void)
{
    StartArgs args = start_args;
    swapcontext(&args.co->context, (ucontext_t *)args.co->sp);
    args.main(args.co);
}

/* makecontext passes only ints: run the first few instructions now, and stop. */
void co_context_init(Coroutine *co, void (*main)(Coroutine *co))
{
    ucontext_t here;
    getcontext(&co->context);
    co->context.uc_link = NULL;
    co->context.uc_stack.ss_sp = co->stack_low;
    co->context.uc_stack.ss_size = co->stack_size;
    start_args = (StartArgs){co, main};
    co->sp = &here;
    makecontext(&co->context, start, 0);
    swapcontext(&here, &co->context);
    co->sp = NULL;
}

void co_context_switch(Coroutine *from, Coroutine *to)
{
    swapcontext(&from->context, &to->context);
}

#endif
