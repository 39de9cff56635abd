/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The loop: coroutines, timers, posts, sockets and disk operations on every backend. */
#include <glib.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/aio/disk.h"
#include "block/aio/loop.h"

typedef struct Case {
    LoopKind kind;
    Loop *loop;
} Case;

static Loop *loop_or_skip(LoopKind kind)
{
    g_autoptr(GError) error = NULL;
    Loop *loop = loop_new(kind, &error);
    if (!loop) {
        g_test_skip(error->message);
    }
    return loop;
}

/* ---- coroutines ---- */

static void coroutine_fn nested(void *opaque)
{
    int *count = opaque;
    for (int i = 0; i < 3; i++) {
        (*count)++;
        coroutine_yield();
    }
}

static void test_switch(void)
{
    int count = 0;
    for (int round = 0; round < 1000; round++) {
        Coroutine *co = coroutine_new(nested, &count, CO_STACK_DATA);
        for (int i = 0; i < 4; i++) {
            g_assert_false(in_coroutine());
            coroutine_enter(co);
        }
    }
    g_assert_cmpint(count, ==, 3000);
    coroutine_pool_trim();
}

typedef struct LockTest {
    CoMutex mutex;
    Loop *loop;
    int inside, max_inside, done;
} LockTest;

static void coroutine_fn lock_user(void *opaque)
{
    LockTest *test = opaque;
    for (int i = 0; i < 10; i++) {
        co_mutex_lock(&test->mutex);
        test->inside++;
        test->max_inside = MAX(test->max_inside, test->inside);
        co_sleep_ns(test->loop, 1000);
        test->inside--;
        co_mutex_unlock(&test->mutex);
    }
    if (++test->done == 5) {
        loop_stop(test->loop);
    }
}

static void test_mutex(gconstpointer opaque)
{
    LockTest test = {.loop = loop_or_skip(GPOINTER_TO_INT(opaque))};
    if (!test.loop) {
        return;
    }
    co_mutex_init(&test.mutex, test.loop);
    for (int i = 0; i < 5; i++) {
        coroutine_enter(coroutine_new(lock_user, &test, CO_STACK_DATA));
    }
    loop_run(test.loop);
    g_assert_cmpint(test.max_inside, ==, 1);
    g_assert_cmpint(test.done, ==, 5);
    loop_free(test.loop);
}

/* ---- timers and posts ---- */

static GString *order;
static LoopTimer timers[3];

static void timer_fired(LoopTimer *timer)
{
    g_string_append_c(order, (char)('a' + (timer - timers)));
    if (order->len == 3) {
        loop_stop(timer->loop);
    }
}

static void test_timers(gconstpointer opaque)
{
    Loop *loop = loop_or_skip(GPOINTER_TO_INT(opaque));
    if (!loop) {
        return;
    }
    int64_t now = loop_now_ns(loop);
    order = g_string_new(NULL);
    for (int i = 0; i < 3; i++) {
        loop_timer_init(&timers[i], loop, timer_fired);
    }
    loop_timer_arm(&timers[0], now + 9000000);
    loop_timer_arm(&timers[1], now + 3000000);
    loop_timer_arm(&timers[2], now + 1000);
    loop_timer_arm(&timers[2], now + 6000000);
    loop_run(loop);
    g_assert_cmpstr(order->str, ==, "bca");
    g_string_free(order, TRUE);
    loop_free(loop);
}

static int thread_call(void *opaque)
{
    *(int *)opaque += 1;
    return -EXDEV;
}

static void coroutine_fn threads_entry(void *opaque)
{
    Loop *loop = opaque;
    int calls = 0;
    for (int i = 0; i < 50; i++) {
        g_assert_cmpint(loop_co_run_in_thread(loop, thread_call, &calls), ==, -EXDEV);
    }
    g_assert_cmpint(calls, ==, 50);
}

static void test_threads(gconstpointer opaque)
{
    Loop *loop = loop_or_skip(GPOINTER_TO_INT(opaque));
    if (loop) {
        loop_run_coroutine(loop, threads_entry, loop);
        loop_free(loop);
    }
}

/* ---- sockets ---- */

typedef struct SockTest {
    Loop *loop;
    int fd[2];
    size_t len;
    uint8_t *data;
} SockTest;

static void coroutine_fn sender(void *opaque)
{
    SockTest *test = opaque;
    g_assert_cmpint(sock_co_send_all(test->loop, test->fd[0], test->data, test->len), ==,
                    test->len);
    shutdown(test->fd[0], SHUT_WR);
}

static void coroutine_fn receiver(void *opaque)
{
    SockTest *test = opaque;
    size_t got = 0;
    uint8_t buf[5000];
    coroutine_enter(coroutine_new(sender, test, CO_STACK_DATA));
    for (;;) {
        ssize_t n = sock_co_recv(test->loop, test->fd[1], buf, sizeof(buf));
        g_assert_cmpint(n, >=, 0);
        if (n == 0) {
            break;
        }
        g_assert_cmpint(memcmp(buf, test->data + got, n), ==, 0);
        got += n;
    }
    g_assert_cmpint(got, ==, test->len);
}

static void test_sockets(gconstpointer opaque)
{
    SockTest test = {.loop = loop_or_skip(GPOINTER_TO_INT(opaque)), .len = 3000001};
    if (!test.loop) {
        return;
    }
    test.data = g_malloc(test.len);
    for (size_t i = 0; i < test.len; i++) {
        test.data[i] = (uint8_t)(i * 7 + i / 251);
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, test.fd), ==, 0);
    loop_run_coroutine(test.loop, receiver, &test);
    loop_free(test.loop);
    close(test.fd[0]);
    close(test.fd[1]);
    g_free(test.data);
}

static bool cancelled;
static void cancel_done(SockOp *op, ssize_t result)
{
    g_assert_cmpint(result, ==, -ECANCELED);
    cancelled = true;
    loop_stop(op->loop);
}

static void test_cancel(gconstpointer opaque)
{
    Loop *loop = loop_or_skip(GPOINTER_TO_INT(opaque));
    int fd[2];
    char byte;
    SockOp op;
    if (!loop) {
        return;
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), ==, 0);
    sock_op_init(&op, loop, fd[0], cancel_done);
    sock_recv(&op, &byte, 1);
    sock_cancel(&op);
    cancelled = false;
    loop_run(loop);
    g_assert_true(cancelled);
    loop_free(loop);
    close(fd[0]);
    close(fd[1]);
}

/* ---- disk ---- */

typedef struct DiskTest {
    Loop *loop;
    DiskAio aio;
    const char *dir;
    int oflags;
    bool skipped;
} DiskTest;

static void coroutine_fn disk_entry(void *opaque)
{
    DiskTest *test = opaque;
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_strdup_printf("%s/test-loop-XXXXXX", test->dir);
    int fd = mkostemp(path, test->oflags | O_CLOEXEC);
    if (fd < 0) {
        test->skipped = true; /* no O_DIRECT here */
        return;
    }
    unlink(path);
    g_assert_cmpint(ftruncate(fd, 1000000), ==, 0);
    DiskFile *file = disk_file_new(test->loop, fd, path, test->aio, &error);
    if (!file) {
        g_test_message("%s", error->message);
        test->skipped = true;
        close(fd);
        return;
    }
    uint8_t *buf = disk_buffer_try_alloc(4096, 65536);
    uint8_t *back = disk_buffer_try_alloc(4096, 65536);
    memset(buf, 0x5a, 65536);
    struct iovec iov[2] = {{buf, 4096}, {buf + 8192, 4096}};
    struct iovec rd = {back, 65536};
    g_assert_cmpint(disk_co_run(file, DISK_WRITE, 4096, 8192, iov, 2, 0), ==, 0);
    g_assert_cmpint(disk_co_run(file, DISK_WRITE, 16384, 4096, iov, 1, DISK_FUA), ==, 0);
    g_assert_cmpint(disk_co_run(file, DISK_SYNC, 0, 0, NULL, 0, 0), ==, 0);
    g_assert_cmpint(disk_co_run(file, DISK_READ, 0, 65536, &rd, 1, 0), ==, 0);
    g_assert_cmpint(back[4095], ==, 0);
    g_assert_cmpint(back[4096], ==, 0x5a);
    g_assert_cmpint(back[12287], ==, 0x5a);
    g_assert_cmpint(back[12288], ==, 0);
    g_assert_cmpint(back[16384], ==, 0x5a);
    /* punch: zeros afterwards, or honestly refused */
    int ret = disk_co_run(file, DISK_PUNCH, 4096, 4096, NULL, 0, 0);
    g_assert_true(ret == 0 || ret == -ENOTSUP);
    ret = disk_co_run(file, DISK_ZERO, 8192, 4096, NULL, 0, 0);
    g_assert_true(ret == 0 || ret == -ENOTSUP);
    /* the end of the file is unaligned: the rest reads as zeros */
    memset(back, 1, 65536);
    rd.iov_len = 65536;
    g_assert_cmpint(disk_co_run(file, DISK_READ, 950272, 65536, &rd, 1, 0), ==, 0);
    g_assert_cmpint(back[65535], ==, 0);
    g_assert_cmpint(disk_co_run(file, DISK_TRUNCATE, 2000000, 0, NULL, 0, 0), ==, 0);
    g_assert_cmpint(disk_file_size(file), ==, 2000000);
    disk_buffer_free(buf);
    disk_buffer_free(back);
    disk_file_free(file);
}

static void run_disk(LoopKind kind, DiskAio aio, const char *dir, int oflags)
{
    DiskTest test = {.loop = loop_or_skip(kind), .aio = aio, .dir = dir, .oflags = oflags};
    if (!test.loop) {
        return;
    }
    loop_run_coroutine(test.loop, disk_entry, &test);
    if (test.skipped) {
        g_test_message("loop %d aio %d in %s: not available", kind, aio, dir);
    }
    loop_free(test.loop);
}

static void test_disk(gconstpointer opaque)
{
    LoopKind kind = GPOINTER_TO_INT(opaque);
    static const char *const dirs[] = {"/dev/shm", "/var/tmp"};
    for (int engine = 0; engine < 2; engine++) {
        if (engine) {
            g_setenv("QDP_DISK", "engine", TRUE);
        } else {
            g_unsetenv("QDP_DISK");
        }
        for (int aio = DISK_AIO_AUTO; aio <= DISK_AIO_URING; aio++) {
            for (int d = 0; d < 2; d++) {
                run_disk(kind, aio, dirs[d], 0);
                run_disk(kind, aio, dirs[d], O_DIRECT);
            }
        }
    }
    g_unsetenv("QDP_DISK");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/coroutine/switch", test_switch);
    for (int kind = LOOP_URING; kind <= LOOP_EPOLL; kind++) {
        const char *name = kind == LOOP_URING ? "io_uring" : "epoll";
        struct {
            const char *what;
            GTestDataFunc fn;
        } all[] = {{"mutex", test_mutex},     {"timers", test_timers},
                   {"threads", test_threads}, {"sockets", test_sockets},
                   {"cancel", test_cancel},   {"disk", test_disk}};
        for (gsize i = 0; i < G_N_ELEMENTS(all); i++) {
            g_autofree char *path = g_strdup_printf("/loop/%s/%s", name, all[i].what);
            g_test_add_data_func(path, GINT_TO_POINTER(kind), all[i].fn);
        }
    }
    return g_test_run();
}
