/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See chardev-bridge.h. */
#include "qdp/chardev-bridge.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "block/base/error.h"

#define FINISH_WAIT_S 1

typedef struct Bridge {
    int in_fd, out_fd;
    int pair_fd;
    pthread_t writer;
} Bridge;

static GPtrArray *bridges; /* Bridge; they stay to the program's end */

static bool write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    return true;
}

/* Until the end of @from or an error. */
static void carry(int from, int to)
{
    char buf[4096];

    for (;;) {
        ssize_t n = read(from, buf, sizeof(buf));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0 || !write_all(to, buf, (size_t)n)) {
            return;
        }
    }
}

static void *reader_main(void *opaque)
{
    Bridge *bridge = opaque;

    /* the end of the input is not the end of the session: replies still go out */
    carry(bridge->in_fd, bridge->pair_fd);
    return NULL;
}

static void *writer_main(void *opaque)
{
    Bridge *bridge = opaque;

    carry(bridge->pair_fd, bridge->out_fd);
    return NULL;
}

/* Signals are the loop's: no thread of ours takes one. */
static int start(pthread_t *thread, void *(*entry)(void *), Bridge *bridge)
{
    sigset_t all, old;
    int ret;

    sigfillset(&all);
    sigdelset(&all, SIGSYS); /* the sandbox answers it, in any thread */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    ret = pthread_create(thread, NULL, entry, bridge);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ret;
}

static int start_threads(Bridge *bridge)
{
    pthread_t reader;
    int ret = start(&bridge->writer, writer_main, bridge);

    if (!ret && bridge->in_fd >= 0) {
        ret = start(&reader, reader_main, bridge);
        if (!ret) {
            pthread_detach(reader); /* it may sit in read(2) for ever */
        }
    }
    return ret;
}

int chardev_bridge(int in_fd, int out_fd, GError **errp)
{
    Bridge *bridge = g_new0(Bridge, 1);
    int fds[2], ret;

    bridge->in_fd = in_fd;
    bridge->out_fd = out_fd;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
        error_set_errno(errp, errno, "Could not make a pair of sockets");
        g_free(bridge);
        return -1;
    }
    bridge->pair_fd = fds[1];
    ret = start_threads(bridge);
    if (ret) { /* rare and fatal to the start: the bridge and its ends stay as they are */
        error_set_errno(errp, ret, "Could not start a thread");
        close(fds[0]);
        return -1;
    }
    if (!bridges) {
        bridges = g_ptr_array_new();
    }
    g_ptr_array_add(bridges, bridge);
    fcntl(fds[0], F_SETFL, fcntl(fds[0], F_GETFL) | O_NONBLOCK);
    return fds[0];
}

void chardev_bridges_finish(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += FINISH_WAIT_S;
    for (guint i = 0; bridges && i < bridges->len; i++) {
        Bridge *bridge = g_ptr_array_index(bridges, i);
        if (pthread_timedjoin_np(bridge->writer, NULL, &until)) {
            return; /* nobody reads: what is left is lost with the process */
        }
    }
}
