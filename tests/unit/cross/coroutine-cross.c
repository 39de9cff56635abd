/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Coroutines without a loop and without glib: what test-coroutine-cross.py builds for each
 * way to switch and each machine that it finds a compiler and an emulator for.
 */
#include <glib.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/aio/coroutine.h"

/* ablate.c wants all of glib; here nothing is off. */
uint32_t ablate_mask;

/* The one thing that coroutine.c asks of the loop. */
void loop_ready(Loop *loop, Coroutine *co);
void loop_ready(Loop *loop, Coroutine *co)
{
    abort(); /* nobody is woken here */
}

/* Enough live values to fill every register that a call preserves, of both kinds. */
static void coroutine_fn registers(void *opaque)
{
    double *result = opaque;
    double f[10], start = *result;
    uint64_t k[12];

    for (int i = 0; i < 12; i++) {
        k[i] = (uint64_t)i << 40 | 7;
    }
    for (int i = 0; i < 10; i++) {
        f[i] = i * 1.25;
    }
    for (int round = 0; round < 1000; round++) {
        double a = f[0], b = f[1], c = f[2], d = f[3], e = f[4], g = f[5], h = f[6],
               j = f[7];
        uint64_t p = k[0], q = k[1], r = k[2], s = k[3], t = k[4], u = k[5];
        coroutine_yield();
        f[0] = a + 0.5;
        f[1] = b + 0.5;
        f[2] = c + 0.5;
        f[3] = d + 0.5;
        f[4] = e + 0.5;
        f[5] = g + 0.5;
        f[6] = h + 0.5;
        f[7] = j + 0.5;
        k[0] = p + 1;
        k[1] = q + 1;
        k[2] = r + 1;
        k[3] = s + 1;
        k[4] = t + 1;
        k[5] = u + 1;
    }
    for (int i = 0; i < 8; i++) {
        g_assert(f[i] == i * 1.25 + 500);
    }
    for (int i = 0; i < 6; i++) {
        g_assert(k[i] == ((uint64_t)i << 40 | 7) + 1000);
    }
    *result = start + 1;
}

static void test_registers(void)
{
    enum { N = 20 };
    Coroutine *co[N];
    double result[N];

    for (int i = 0; i < N; i++) {
        result[i] = i;
        co[i] = coroutine_new(registers, &result[i], i % 2);
    }
    for (int round = 0; round <= 1000; round++) {
        for (int i = 0; i < N; i++) {
            coroutine_enter(co[i]);
            g_assert(!in_coroutine());
        }
    }
    for (int i = 0; i < N; i++) {
        g_assert(result[i] == i + 1);
    }
}

static void coroutine_fn nest(void *opaque)
{
    int *depth = opaque;

    /* the ABI's alignment of a stack, which vector code relies on */
    g_assert(((uintptr_t)__builtin_frame_address(0) & 15) == 0);
    if (++*depth < 50) {
        Coroutine *co = coroutine_new(nest, depth, CO_STACK_DATA);
        coroutine_enter(co);
        coroutine_enter(co);
    }
    coroutine_yield();
}

static void test_nesting(void)
{
    int depth = 0;
    Coroutine *co = coroutine_new(nest, &depth, CO_STACK_DATA);

    coroutine_enter(co);
    coroutine_enter(co);
    g_assert(depth == 50);
    coroutine_pool_trim();
}

static int __attribute__((noinline)) deep(int levels)
{
    volatile char pad[1024];

    memset((char *)pad, levels, sizeof(pad));
    return levels ? deep(levels - 1) + (pad[17] == (char)levels) : 0;
}

static void coroutine_fn use_stack(void *opaque)
{
    int levels = *(int *)opaque;

    g_assert(deep(levels) == levels);
}

static void test_guard(void)
{
    int levels = 45, status;

    coroutine_enter(coroutine_new(use_stack, &levels, CO_STACK_DATA));
    pid_t child = fork();
    if (child == 0) {
        levels = 100;
        coroutine_enter(coroutine_new(use_stack, &levels, CO_STACK_DATA));
        _exit(0); /* not reached: the guard page was missed */
    }
    g_assert(waitpid(child, &status, 0) == child);
    g_assert(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
}

int main(void)
{
    test_registers();
    test_nesting();
    test_guard();
    puts("coroutines work");
    return 0;
}
