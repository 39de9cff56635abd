/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The loop where it is easily wrong: descriptor numbers used again, files that cannot be
 * polled, full rings and full sockets, posts from many threads, io_uring refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "block/aio/loop.h"

static Loop *loop;

static bool loop_begin(gconstpointer kind)
{
    g_autoptr(GError) error = NULL;

    loop = loop_new(GPOINTER_TO_INT(kind), &error);
    if (!loop) {
        g_test_skip(error->message);
    }
    return loop;
}

static LoopTimer watchdog;

static void watchdog_fired(LoopTimer *timer)
{
    g_error("the loop heard of nothing for a minute");
}

static void guard_begin(void)
{
    loop_timer_init(&watchdog, loop, watchdog_fired);
    loop_timer_arm(&watchdog, loop_now_ns(loop) + 60 * G_USEC_PER_SEC * INT64_C(1000));
}

static void loop_end(void)
{
    loop_timer_cancel(&watchdog);
    loop_free(loop);
}

/* ---- numbers used again ---- */

static void coroutine_fn reuse_entry(void *opaque)
{
    char byte;
    int first = -1;

    guard_begin();
    for (int i = 0; i < 20; i++) {
        int fd[2];
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
        if (first < 0) {
            first = fd[0];
        }
        g_assert_cmpint(fd[0], ==, first); /* the same number each time */
        g_assert_cmpint(send(fd[1], "x", 1, 0), ==, 1);
        g_assert_cmpint(sock_co_recv(loop, fd[0], &byte, 1), ==, 1);
        /* the interest in it is still registered */
        close(fd[0]);
        close(fd[1]);
    }
}

static void test_reuse_socket(gconstpointer opaque)
{
    if (loop_begin(opaque)) {
        loop_run_coroutine(loop, reuse_entry, NULL);
        loop_end();
    }
}

static int calls;

static void watch_fired(LoopFd *watch, unsigned revents)
{
    g_assert_true(revents & POLLIN);
    if (++calls == 3) { /* level-triggered: again until told otherwise */
        loop_fd_watch(watch, 0);
        loop_stop(loop);
    }
}

/* After a socket whose interest stayed registered, the number becomes a pipe. */
static void test_reuse_watch(gconstpointer opaque)
{
    int fd[2];
    LoopFd watch;

    if (!loop_begin(opaque)) {
        return;
    }
    loop_run_coroutine(loop, reuse_entry, NULL);
    g_assert_cmpint(pipe(fd), ==, 0);
    g_assert_cmpint(write(fd[1], "x", 1), ==, 1);
    calls = 0;
    loop_fd_init(&watch, loop, fd[0], watch_fired);
    loop_fd_watch(&watch, POLLIN);
    loop_run(loop);
    g_assert_cmpint(calls, ==, 3);
    close(fd[0]);
    close(fd[1]);
    loop_end();
}

/* ---- what is no socket ---- */

static void coroutine_fn file_entry(void *opaque)
{
    char buf[8];
    int fd[2];

    g_assert_cmpint(pipe(fd), ==, 0);
    g_assert_cmpint(sock_co_send_all(loop, fd[1], "hello", 5), ==, 5);
    g_assert_cmpint(sock_co_recv(loop, fd[0], buf, sizeof(buf)), ==, 5);
    close(fd[1]);
    g_assert_cmpint(sock_co_recv(loop, fd[0], buf, sizeof(buf)), ==, 0);
    close(fd[0]);
    fd[0] = open("/proc/self/exe", O_RDONLY);
    g_assert_cmpint(sock_co_recv(loop, fd[0], buf, 4), ==, 4);
    g_assert_cmpmem(buf, 4, "\177ELF", 4);
    close(fd[0]);
}

static void test_no_socket(gconstpointer opaque)
{
    int fd = open("/proc/self/exe", O_RDONLY);
    LoopFd watch;

    if (!loop_begin(opaque)) {
        return;
    }
    loop_run_coroutine(loop, file_entry, NULL);
    calls = 0;
    loop_fd_init(&watch, loop, fd, watch_fired);
    loop_fd_watch(&watch, POLLIN); /* epoll cannot; it is always ready */
    loop_run(loop);
    g_assert_cmpint(calls, ==, 3);
    close(fd);
    loop_end();
}

/* ---- full ---- */

enum { PAIRS = 300 };

static int received;

static void one_received(SockOp *op, ssize_t result)
{
    g_assert_cmpint(result, ==, 1);
    if (++received == PAIRS) {
        loop_stop(loop);
    }
}

/* More operations in one turn than the submission queue has entries. */
static void test_full_ring(gconstpointer opaque)
{
    static int fd[PAIRS][2];
    static SockOp ops[PAIRS];
    static char bytes[PAIRS];

    if (!loop_begin(opaque)) {
        return;
    }
    received = 0;
    for (int i = 0; i < PAIRS; i++) {
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd[i]), ==, 0);
        sock_op_init(&ops[i], loop, fd[i][0], one_received);
        sock_recv(&ops[i], &bytes[i], 1);
    }
    for (int i = 0; i < PAIRS; i++) {
        g_assert_cmpint(send(fd[i][1], "x", 1, 0), ==, 1);
    }
    guard_begin();
    loop_run(loop);
    for (int i = 0; i < PAIRS; i++) {
        close(fd[i][0]);
        close(fd[i][1]);
    }
    loop_end();
}

static ssize_t send_result;
static char *big;
enum { BIG = 8 << 20 };

static void sent(SockOp *op, ssize_t result)
{
    send_result = result;
    loop_stop(loop);
}


static SockOp *to_cancel;
static void cancel_fired(LoopTimer *timer)
{
    sock_cancel(to_cancel);
}

/* A send that nobody reads waits without turning, and can be cancelled. */
static void test_blocked_send(gconstpointer opaque)
{
    int fd[2];
    SockOp op, recv_op;
    LoopTimer timer;
    char byte;
    struct iovec iov;

    if (!loop_begin(opaque)) {
        return;
    }
    big = g_malloc0(BIG);
    iov = (struct iovec){big, BIG};
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    sock_op_init(&op, loop, fd[0], sent);
    sock_sendv(&op, &iov, 1);
    to_cancel = &op;
    /* data comes in the other direction, and nobody receives it */
    g_assert_cmpint(send(fd[1], "x", 1, 0), ==, 1);
    loop_timer_init(&timer, loop, cancel_fired);
    loop_timer_arm(&timer, loop_now_ns(loop) + 50000000);
    guard_begin();
    send_result = 0;
    loop_run(loop);
    g_assert_cmpint(send_result, ==, -ECANCELED);
    /* and the descriptor is as good as before for the other direction */
    sock_op_init(&recv_op, loop, fd[0], sent);
    sock_recv(&recv_op, &byte, 1);
    loop_run(loop);
    g_assert_cmpint(send_result, ==, 1);
    close(fd[0]);
    close(fd[1]);
    g_free(big);
    loop_end();
}

static void *reader(void *opaque)
{
    int fd = *(int *)opaque;
    size_t got = 0;
    static char buf[70000];

    while (got < BIG) {
        ssize_t n = recv(fd, buf, sizeof(buf), 0);
        g_assert_cmpint(n, >, 0);
        for (ssize_t i = 0; i < n; i++) {
            g_assert_cmpint(buf[i], ==, (char)((got + i) * 31 >> 7));
        }
        got += n;
    }
    return NULL;
}

/* One big send in pieces of many elements, more than the kernel takes at once. */
static void test_big_send(gconstpointer opaque)
{
    enum { N = 3000 };
    struct iovec *iov = g_new(struct iovec, N);
    size_t at = 0;
    int fd[2];
    SockOp op;
    pthread_t thread;

    if (!loop_begin(opaque)) {
        g_free(iov);
        return;
    }
    big = g_malloc(BIG);
    for (size_t i = 0; i < BIG; i++) {
        big[i] = (char)(i * 31 >> 7);
    }
    for (int i = 0; i < N; i++) {
        size_t len = i == N - 1 ? BIG - at : BIG / N;
        iov[i] = (struct iovec){big + at, len};
        at += len;
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), ==, 0);
    fcntl(fd[1], F_SETFL, 0);
    pthread_create(&thread, NULL, reader, &fd[1]);
    sock_op_init(&op, loop, fd[0], sent);
    sock_sendv(&op, iov, N);
    guard_begin();
    loop_run(loop);
    g_assert_cmpint(send_result, ==, BIG);
    pthread_join(thread, NULL);
    close(fd[0]);
    close(fd[1]);
    g_free(big);
    g_free(iov);
    loop_end();
}

/* ---- posts ---- */

enum { THREADS = 4, POSTS = 5000 };

typedef struct Post {
    LoopWork work;
    int thread, number;
} Post;

static int next_number[THREADS], posted;

static void post_arrived(LoopWork *work)
{
    Post *post = container_of(work, Post, work);
    /* those of one thread come in order */
    g_assert_cmpint(next_number[post->thread], ==, post->number);
    next_number[post->thread]++;
    g_free(post);
    if (++posted == THREADS * POSTS) {
        loop_stop(loop);
    }
}

static void *poster(void *opaque)
{
    for (int i = 0; i < POSTS; i++) {
        Post *post = g_new0(Post, 1);
        post->thread = GPOINTER_TO_INT(opaque);
        post->number = i;
        loop_work_init(&post->work, post_arrived);
        loop_post(loop, &post->work);
        if (i % 1000 == 0) {
            g_usleep(1000); /* let the loop fall asleep */
        }
    }
    return NULL;
}

static void test_posts(gconstpointer opaque)
{
    pthread_t thread[THREADS];

    if (!loop_begin(opaque)) {
        return;
    }
    posted = 0;
    memset(next_number, 0, sizeof(next_number));
    guard_begin();
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&thread[i], NULL, poster, GINT_TO_POINTER(i));
    }
    loop_run(loop);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
    loop_end();
}

/* ---- idle ---- */

static void stop_fired(LoopTimer *timer)
{
    loop_stop(timer->loop);
}

static void count_turns(void *opaque, const char *name, uint64_t value)
{
    if (strcmp(name, "turns") == 0) {
        *(uint64_t *)opaque = value;
    }
}

/* A loop with watches and receives that wait does not turn. */
static void test_idle(gconstpointer opaque)
{
    int fd[2];
    LoopTimer timer;
    LoopFd watch;
    SockOp op;
    char byte;
    uint64_t turns = 0;

    if (!loop_begin(opaque)) {
        return;
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), ==, 0);
    sock_op_init(&op, loop, fd[0], sent);
    sock_recv(&op, &byte, 1);
    loop_fd_init(&watch, loop, fd[1], watch_fired);
    loop_fd_watch(&watch, POLLIN);
    loop_timer_init(&timer, loop, stop_fired);
    loop_timer_arm(&timer, loop_now_ns(loop) + 300000000);
    loop_run(loop);
    loop_stats_foreach(loop, count_turns, &turns);
    g_assert_cmpuint(turns, <, 10);
    loop_fd_watch(&watch, 0);
    sock_cancel(&op);
    loop_run(loop);
    close(fd[0]);
    close(fd[1]);
    loop_end();
}

/* ---- polling ---- */

static void count_polls(void *opaque, const char *name, uint64_t value)
{
    if (strcmp(name, "polls") == 0) {
        *(uint64_t *)opaque = value;
    }
}

static void count_looks(void *opaque, const char *name, uint64_t value)
{
    if (strcmp(name, "looks") == 0) {
        *(uint64_t *)opaque = value;
    }
}

typedef struct PingPong {
    SockOp recv;
    LoopTimer timer;
    int other;
    int left;
    bool look;
    char byte;
} PingPong;

static void ping_came(SockOp *op, ssize_t result)
{
    PingPong *p = container_of(op, PingPong, recv);

    g_assert_cmpint(result, ==, 1);
    if (--p->left > 0) { /* the next comes in a moment: what polling is for */
        loop_timer_arm(&p->timer, loop_now_ns(loop) + 200000);
        sock_recv(op, &p->byte, 1);
        if (p->look) {
            sock_last_look(op);
        }
    } else {
        loop_stop(loop);
    }
}

static void ping(LoopTimer *timer)
{
    PingPong *p = container_of(timer, PingPong, timer);
    g_assert_cmpint(write(p->other, "x", 1), ==, 1);
}

/* Looks before it sleeps, as long as that pays; timers keep their time; off is off. */
static void test_polling(gconstpointer opaque)
{
    uint64_t polls = 0, after = 0;
    PingPong p = {.left = 50};
    int fd[2];

    if (!loop_begin(opaque)) {
        return;
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), ==, 0);
    p.other = fd[1];
    sock_op_init(&p.recv, loop, fd[0], ping_came);
    loop_timer_init(&p.timer, loop, ping);
    loop_set_polling(loop, 100000000, 0, 0);
    sock_recv(&p.recv, &p.byte, 1);
    loop_timer_arm(&p.timer, loop_now_ns(loop) + 200000);
    loop_run(loop);
    loop_stats_foreach(loop, count_polls, &polls);
    g_assert_cmpuint(polls, >, 50);
    loop_set_polling(loop, 0, 0, 0);
    p.left = 10;
    sock_recv(&p.recv, &p.byte, 1);
    loop_timer_arm(&p.timer, loop_now_ns(loop) + 200000);
    loop_run(loop);
    loop_stats_foreach(loop, count_polls, &after);
    g_assert_cmpuint(after, ==, polls);
    close(fd[0]);
    close(fd[1]);
    loop_end();
}

/* A peer that is not quick is not looked out for often; without a word nobody looks. */
static void test_last_look(gconstpointer opaque)
{
    uint64_t looks = 0;
    PingPong p = {.left = 100};
    int fd[2];

    if (!loop_begin(opaque)) {
        return;
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), ==, 0);
    p.other = fd[1];
    sock_op_init(&p.recv, loop, fd[0], ping_came);
    loop_timer_init(&p.timer, loop, ping);
    for (int round = 0; round < 2; round++) {
        p.look = round == 1;
        p.left = 100;
        sock_recv(&p.recv, &p.byte, 1);
        loop_timer_arm(&p.timer, loop_now_ns(loop) + 200000);
        loop_run(loop);
        loop_stats_foreach(loop, count_looks, &looks);
        if (round == 0) {
            g_assert_cmpuint(looks, ==, 0);
        }
    }
    g_assert_cmpuint(looks, >=, 5); /* six: behind 0, 1, 3, 7, 15 and 31 left out */
    g_assert_cmpuint(looks, <=, 7);
    close(fd[0]);
    close(fd[1]);
    loop_end();
}

/* ---- a peer that always comes back at once ---- */

#define QUICK_ROUNDS 20000

typedef struct Quick {
    SockOp recv;
    LoopFd other; /* must be heard while the peer is quick */
    LoopTimer timer;
    int peer, rounds, other_at, timer_at;
    uint8_t byte;
} Quick;

static void *quick_peer(void *opaque)
{
    const Quick *quick = opaque;
    ssize_t n = 1;
    char byte;

    while (n) { /* busy, as a client is that polls */
        n = recv(quick->peer, &byte, 1, MSG_DONTWAIT);
        if (n > 0) {
            n = send(quick->peer, &byte, 1, MSG_NOSIGNAL);
        }
    }
    return NULL;
}

static void quick_came(SockOp *op, ssize_t result)
{
    Quick *quick = container_of(op, Quick, recv);
    const uint64_t one = 1;

    if (result == -ECANCELED) {
        loop_stop(loop);
        return;
    }
    g_assert_cmpint(result, ==, 1);
    if (++quick->rounds == QUICK_ROUNDS / 2) {
        g_assert_cmpint(write(quick->other.fd, &one, sizeof(one)), ==, sizeof(one));
        loop_timer_arm(&quick->timer, loop_now_ns(loop));
    }
    sock_recv(op, &quick->byte, 1);
    sock_last_look(op);
    if (quick->rounds == QUICK_ROUNDS) {
        sock_cancel(op); /* one that the backend has never seen */
    } else {
        g_assert_cmpint(send(op->fd, "x", 1, MSG_NOSIGNAL), ==, 1);
    }
}

static void quick_other(LoopFd *watch, unsigned revents)
{
    Quick *quick = container_of(watch, Quick, other);
    quick->other_at = quick->rounds;
    loop_fd_watch(watch, 0);
}

static void quick_timer(LoopTimer *timer)
{
    Quick *quick = container_of(timer, Quick, timer);
    quick->timer_at = quick->rounds;
}

/* Found by the look alone, it must not hide what else comes: descriptors and timers. */
static void test_quick_peer(gconstpointer opaque)
{
    Quick quick = {0};
    pthread_t thread;
    int fd[2];

    if (!loop_begin(opaque)) {
        return;
    }
    guard_begin();
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), ==, 0);
    quick.peer = fd[1];
    sock_op_init(&quick.recv, loop, fd[0], quick_came);
    loop_fd_init(&quick.other, loop, eventfd(0, EFD_CLOEXEC), quick_other);
    loop_fd_watch(&quick.other, POLLIN);
    loop_timer_init(&quick.timer, loop, quick_timer);
    sock_recv(&quick.recv, &quick.byte, 1);
    g_assert_cmpint(pthread_create(&thread, NULL, quick_peer, &quick), ==, 0);
    g_assert_cmpint(send(fd[0], "x", 1, MSG_NOSIGNAL), ==, 1);
    loop_run(loop);
    g_assert_cmpint(quick.rounds, ==, QUICK_ROUNDS);
    g_assert_cmpint(quick.timer_at, >=, QUICK_ROUNDS / 2);
    g_assert_cmpint(quick.timer_at, <=, QUICK_ROUNDS / 2 + 2);
    g_assert_cmpint(quick.other_at, >=, QUICK_ROUNDS / 2);
    g_assert_cmpint(quick.other_at, <=, QUICK_ROUNDS / 2 + 10);
    close(fd[0]);
    pthread_join(thread, NULL);
    close(fd[1]);
    close(quick.other.fd);
    loop_end();
}

/* ---- io_uring refused ---- */

static void refuse_uring(int error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {G_N_ELEMENTS(code), code};

    g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
    g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), ==, 0);
}

static void test_refused(gconstpointer opaque)
{
    g_autoptr(GError) error = NULL;

    if (!g_test_subprocess()) {
        g_test_trap_subprocess(NULL, 20 * 1000000, 0);
        g_test_trap_assert_passed();
        return;
    }
    refuse_uring(GPOINTER_TO_INT(opaque));
    g_assert_null(loop_new(LOOP_URING, &error));
    g_assert_nonnull(error);
    g_clear_error(&error);
    g_unsetenv("QDP_LOOP");
    loop = loop_new(LOOP_AUTO, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(loop_kind_name(loop), ==, "epoll");
    loop_run_coroutine(loop, reuse_entry, NULL);
    loop_end();
}

int main(int argc, char **argv)
{
    static const struct {
        const char *what;
        GTestDataFunc fn;
    } all[] = {{"reuse-socket", test_reuse_socket}, {"reuse-watch", test_reuse_watch},
               {"no-socket", test_no_socket},       {"full-ring", test_full_ring},
               {"blocked-send", test_blocked_send}, {"big-send", test_big_send},
               {"posts", test_posts},               {"idle", test_idle},
               {"polling", test_polling},
               {"last-look", test_last_look},
               {"quick-peer", test_quick_peer}};

    g_test_init(&argc, &argv, NULL);
    for (int kind = LOOP_URING; kind <= LOOP_EPOLL; kind++) {
        for (gsize i = 0; i < G_N_ELEMENTS(all); i++) {
            g_autofree char *path =
                g_strdup_printf("/loop-edges/%s/%s",
                                kind == LOOP_URING ? "io_uring" : "epoll", all[i].what);
            g_test_add_data_func(path, GINT_TO_POINTER(kind), all[i].fn);
        }
    }
    g_test_add_data_func("/loop-edges/refused/EPERM", GINT_TO_POINTER(EPERM), test_refused);
    g_test_add_data_func("/loop-edges/refused/ENOSYS", GINT_TO_POINTER(ENOSYS),
                         test_refused);
    g_test_add_data_func("/loop-edges/refused/ENOMEM", GINT_TO_POINTER(ENOMEM),
                         test_refused);
    return g_test_run();
}
