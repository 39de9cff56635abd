/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Coroutines: switching, nesting, stacks, and the order in which locks are handed on. */
#include <glib.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/aio/coroutine.h"
#include "block/aio/loop.h"

static GString *trace;

static void note(const char *what)
{
    g_string_append(trace, what);
}

/* ---- switching ---- */

static void coroutine_fn inner(void *opaque)
{
    note("i1 ");
    g_assert_true(coroutine_self() == *(Coroutine **)opaque);
    coroutine_yield();
    note("i2 ");
}

static void coroutine_fn outer(void *opaque)
{
    Coroutine *child;

    note("o1 ");
    child = coroutine_new(inner, &child, CO_STACK_DATA);
    coroutine_enter(child);
    note("o2 ");
    coroutine_yield();
    coroutine_enter(child);
    note("o3 ");
}

static void test_nesting(void)
{
    Coroutine *co = coroutine_new(outer, NULL, CO_STACK_CONTROL);

    trace = g_string_new(NULL);
    g_assert_false(in_coroutine());
    coroutine_enter(co);
    note("main ");
    g_assert_false(in_coroutine());
    coroutine_enter(co);
    g_assert_cmpstr(trace->str, ==, "o1 i1 o2 main i2 o3 ");
    g_string_free(trace, TRUE);
}

/* Callee-saved registers, the vector unit's rounding and errno-like locals survive. */
static void coroutine_fn arithmetic(void *opaque)
{
    double *result = opaque;
    double a = 1.5, b = 2.25, c = -3.125, d = 0.5;
    long long k[12];

    for (int i = 0; i < 12; i++) {
        k[i] = i * 0x123456789abLL;
    }
    for (int round = 0; round < 100; round++) {
        a = a * 1.0625 + b;
        b = b * 0.5 - c;
        c = c + d;
        coroutine_yield();
        d = d * 0.75 + 0.125;
        for (int i = 0; i < 12; i++) {
            g_assert_cmpint(k[i], ==, i * 0x123456789abLL + round);
            k[i]++;
        }
    }
    *result = a + b + c + d;
}

static void test_registers(void)
{
    double result[50];
    Coroutine *co[50];

    for (int i = 0; i < 50; i++) {
        result[i] = i;
        co[i] = coroutine_new(arithmetic, &result[i], CO_STACK_DATA);
    }
    for (int round = 0; round <= 100; round++) {
        for (int i = 0; i < 50; i++) {
            coroutine_enter(co[i]);
        }
    }
    for (int i = 1; i < 50; i++) {
        g_assert_cmpfloat(result[i], ==, result[0]);
    }
    coroutine_pool_trim();
}

/* ---- stacks ---- */

static int __attribute__((noinline)) deep(int levels)
{
    volatile char pad[512];

    memset((char *)pad, levels, sizeof(pad));
    return levels ? deep(levels - 1) + pad[17] - (char)levels + 1 : 0;
}

static void coroutine_fn use_stack(void *opaque)
{
    g_assert_cmpint(deep(GPOINTER_TO_INT(opaque)), ==, GPOINTER_TO_INT(opaque));
}

/* 48 KiB of a data stack, 200 KiB of a control stack are there to be used. */
static void test_stack_size(void)
{
    coroutine_enter(coroutine_new(use_stack, GINT_TO_POINTER(80), CO_STACK_DATA));
    coroutine_enter(coroutine_new(use_stack, GINT_TO_POINTER(340), CO_STACK_CONTROL));
}

/* Beyond the end is the guard page: a crash here, not damage there. */
static void test_overflow(void)
{
    if (g_test_subprocess()) {
        signal(SIGSEGV, SIG_DFL);
        coroutine_enter(coroutine_new(use_stack, GINT_TO_POINTER(4000), CO_STACK_DATA));
        exit(0); /* not reached: the guard was missed */
    }
    g_test_trap_subprocess(NULL, 10 * 1000000, 0);
    g_assert_false(g_test_trap_has_passed());
}

static void coroutine_fn yield_once(void *opaque)
{
    coroutine_yield();
    ++*(int *)opaque;
}

static void test_many(void)
{
    enum { MANY = 2000 };
    Coroutine **co = g_new(Coroutine *, MANY);
    int count = 0;

    for (int i = 0; i < MANY; i++) {
        co[i] = coroutine_new(yield_once, &count, CO_STACK_DATA);
        coroutine_enter(co[i]);
    }
    for (int i = 0; i < MANY; i++) {
        coroutine_enter(co[i]);
    }
    g_assert_cmpint(count, ==, MANY);
    coroutine_pool_trim();
    g_free(co);
}

/* ---- locks ---- */

typedef struct Locks {
    CoGroup group;
    int runs; /* of the group */
    Loop *loop;
    CoMutex mutex;
    CoQueue queue;
    CoRwlock rwlock;
    int running;
} Locks;

static void finished(Locks *locks)
{
    if (--locks->running == 0) {
        loop_stop(locks->loop);
    }
}

static void locks_init(Locks *locks)
{
    g_autoptr(GError) error = NULL;

    locks->loop = loop_new(LOOP_EPOLL, &error);
    g_assert_no_error(error);
    co_mutex_init(&locks->mutex, locks->loop);
    co_queue_init(&locks->queue, locks->loop);
    co_rwlock_init(&locks->rwlock, locks->loop);
    co_group_init(&locks->group, locks->loop);
    trace = g_string_new(NULL);
}

static void locks_fini(Locks *locks, const char *expected)
{
    if (locks->running) {
        loop_run(locks->loop);
    }
    g_assert_cmpstr(trace->str, ==, expected);
    g_string_free(trace, TRUE);
    loop_free(locks->loop);
}

typedef struct User {
    Locks *locks;
    char name;
} User;

static void coroutine_fn mutex_user(void *opaque)
{
    User *user = opaque;
    Locks *locks = user->locks;

    co_mutex_lock(&locks->mutex);
    g_string_append_c(trace, user->name);
    g_assert_false(co_mutex_trylock(&locks->mutex));
    co_sleep_ns(locks->loop, 100000);
    g_string_append_c(trace, user->name);
    co_mutex_unlock(&locks->mutex);
    finished(locks);
}

static void test_mutex_fifo(void)
{
    Locks locks = {.running = 3};
    User users[3] = {{&locks, 'a'}, {&locks, 'b'}, {&locks, 'c'}};

    locks_init(&locks);
    for (int i = 0; i < 3; i++) {
        coroutine_enter(coroutine_new(mutex_user, &users[i], CO_STACK_DATA));
    }
    locks_fini(&locks, "aabbcc");
}

static void coroutine_fn queue_user(void *opaque)
{
    User *user = opaque;

    co_queue_wait(&user->locks->queue);
    g_string_append_c(trace, user->name);
    finished(user->locks);
}

static void test_queue(void)
{
    Locks locks = {.running = 3};
    User users[3] = {{&locks, 'a'}, {&locks, 'b'}, {&locks, 'c'}};

    locks_init(&locks);
    g_assert_false(co_queue_wake_one(&locks.queue));
    for (int i = 0; i < 3; i++) {
        coroutine_enter(coroutine_new(queue_user, &users[i], CO_STACK_DATA));
    }
    g_assert_cmpstr(trace->str, ==, "");
    g_assert_false(co_queue_empty(&locks.queue));
    g_assert_true(co_queue_wake_one(&locks.queue));
    co_queue_wake_all(&locks.queue);
    g_assert_true(co_queue_empty(&locks.queue));
    locks_fini(&locks, "abc");
}

static int coroutine_fn group_run(void *opaque)
{
    Locks *locks = opaque;

    g_string_append_c(trace, '(');
    co_sleep_ns(locks->loop, 2000000);
    g_string_append_c(trace, ')');
    return ++locks->runs;
}

/* A name is appended, the number of the run that it shared after it. */
static void coroutine_fn group_user(void *opaque)
{
    User *user = opaque;
    Locks *locks = user->locks;

    if (user->name == 'e') {
        while (!locks->group.running) { /* comes too late for the first */
            co_sleep_ns(locks->loop, 100000);
        }
    }
    int ret = user->name == 'x' ? co_group_alone(&locks->group, group_run, locks)
                                : co_group_join(&locks->group, group_run, locks);
    g_string_append_printf(trace, "%c%d", user->name, ret);
    finished(locks);
}

/* Who comes together shares a run; who comes while one runs waits for the next, never for
 * the end of one that began before. */
static void test_group(void)
{
    Locks locks = {.running = 4};
    User users[4] = {{&locks, 'a'}, {&locks, 'b'}, {&locks, 'c'}, {&locks, 'e'}};

    locks_init(&locks);
    g_assert_true(co_group_idle(&locks.group));
    for (int i = 0; i < 4; i++) {
        coroutine_enter(coroutine_new(group_user, &users[i], CO_STACK_DATA));
    }
    g_assert_false(co_group_idle(&locks.group));
    locks_fini(&locks, "()a1(b1c1)e2");
    g_assert_cmpint(locks.runs, ==, 2);
}

/* Alone: a run each, one after the other. */
static void test_group_alone(void)
{
    Locks locks = {.running = 2};
    User users[2] = {{&locks, 'x'}, {&locks, 'x'}};

    locks_init(&locks);
    for (int i = 0; i < 2; i++) {
        coroutine_enter(coroutine_new(group_user, &users[i], CO_STACK_DATA));
    }
    locks_fini(&locks, "()x1()x2");
}

typedef struct Heap {
    Locks *locks;
    int left, fails_at;
    bool sleeps;
    unsigned workers, running, most;
    unsigned n;
} Heap;

static int coroutine_fn take_all(void *opaque)
{
    Heap *heap = opaque;
    int ret = 0;

    heap->workers++;
    heap->running++;
    heap->most = MAX(heap->most, heap->running);
    while (heap->left > 0 && ret == 0) {
        int mine = heap->left--;
        if (heap->sleeps) {
            co_sleep_ns(heap->locks->loop, 100000);
        }
        ret = mine == heap->fails_at ? -mine : 0;
    }
    heap->running--;
    return ret;
}

static void coroutine_fn heap_owner(void *opaque)
{
    Heap *heap = opaque;
    int ret = co_together(heap->locks->loop, heap->n, take_all, heap);
    g_assert_cmpuint(heap->running, ==, 0);
    g_string_append_printf(trace, "%u workers, %d left: %d\n", heap->workers, heap->left, ret);
    finished(heap->locks);
}

/* Several are at it where each thing takes its time, one where it does not; all have ended
 * when it returns, the first error with them. */
static void test_together(void)
{
    static const struct {
        Heap heap;
        const char *expected;
    } cases[] = {
        {{.left = 20, .sleeps = true, .n = 4}, "4 workers, 0 left: 0\n"},
        {{.left = 2, .sleeps = true, .n = 4}, "3 workers, 0 left: 0\n"},
        {{.left = 20, .sleeps = false, .n = 4}, "1 workers, 0 left: 0\n"},
        {{.left = 20, .sleeps = true, .n = 1}, "1 workers, 0 left: 0\n"},
        {{.left = 0, .sleeps = true, .n = 0}, "1 workers, 0 left: 0\n"},
        {{.left = 20, .sleeps = true, .n = 4, .fails_at = 9}, "4 workers, 0 left: -9\n"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Locks locks = {.running = 1};
        Heap heap = cases[i].heap;
        heap.locks = &locks;
        locks_init(&locks);
        coroutine_enter(coroutine_new(heap_owner, &heap, CO_STACK_DATA));
        locks_fini(&locks, cases[i].expected);
        g_assert_cmpuint(heap.most, ==, heap.workers);
    }
}

static void coroutine_fn rwlock_user(void *opaque)
{
    User *user = opaque;
    Locks *locks = user->locks;
    bool writer = g_ascii_isupper(user->name);

    if (writer) {
        co_rwlock_wrlock(&locks->rwlock);
    } else {
        co_rwlock_rdlock(&locks->rwlock);
    }
    g_string_append_c(trace, user->name);
    co_sleep_ns(locks->loop, 2000000);
    g_string_append_c(trace, user->name);
    co_rwlock_unlock(&locks->rwlock);
    finished(locks);
}

/* Readers share; a writer that waits keeps later readers behind it. */
static void test_rwlock(void)
{
    Locks locks = {.running = 5};
    User users[5] = {
        {&locks, 'a'}, {&locks, 'b'}, {&locks, 'W'}, {&locks, 'c'}, {&locks, 'd'}};

    locks_init(&locks);
    for (int i = 0; i < 5; i++) {
        coroutine_enter(coroutine_new(rwlock_user, &users[i], CO_STACK_DATA));
    }
    locks_fini(&locks, "ababWWcdcd");
}

#ifndef __SANITIZE_ADDRESS__ /* its shadow needs the address space */
static void test_no_memory(void)
{
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {.rlim_cur = 1, .rlim_max = RLIM_INFINITY};
        unsigned made = 0;
        setrlimit(RLIMIT_AS, &limit); /* what is mapped stays; nothing is added */
        while (made < 1000 && coroutine_try_new(NULL, NULL, CO_STACK_CONTROL)) {
            made++;
        }
        limit.rlim_cur = RLIM_INFINITY;
        setrlimit(RLIMIT_AS, &limit);
        bool again = coroutine_try_new(NULL, NULL, CO_STACK_CONTROL) != NULL;
        _exit(made < 1000 && again ? 0 : 1);
    }
    int status;
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    g_assert_cmpint(status, ==, 0);
}
#endif

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/coroutine/nesting", test_nesting);
    g_test_add_func("/coroutine/registers", test_registers);
    g_test_add_func("/coroutine/stack-size", test_stack_size);
    g_test_add_func("/coroutine/overflow", test_overflow);
    g_test_add_func("/coroutine/many", test_many);
    g_test_add_func("/coroutine/mutex-fifo", test_mutex_fifo);
    g_test_add_func("/coroutine/queue", test_queue);
    g_test_add_func("/coroutine/rwlock", test_rwlock);
    g_test_add_func("/coroutine/group", test_group);
    g_test_add_func("/coroutine/group-alone", test_group_alone);
    g_test_add_func("/coroutine/together", test_together);
#ifndef __SANITIZE_ADDRESS__
    g_test_add_func("/coroutine/no-memory", test_no_memory);
#endif
    return g_test_run();
}
