/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A library for LD_PRELOAD that makes the Nth call of one function fail, once.
 *
 *   FAIL_CALL    the function: one of those below
 *   FAIL_NTH     which call; 0: none (count only)
 *   FAIL_ON      set: that one and all that follow
 *   FAIL_ERRNO   with which errno; 0: io_submit takes one request of those offered
 *   FAIL_COUNT   a file that gets the number of calls at the end, one per process; it must
 *                be there (calls before and after main count, too)
 *
 * Calls made before this library is ready (by the loader) are not counted.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *fail_call;
static long fail_nth;
static int fail_on;
static int fail_errno;
static atomic_long nb_calls;

__attribute__((constructor)) static void begin(void)
{
    const char *nth = getenv("FAIL_NTH"), *number = getenv("FAIL_ERRNO");
    fail_nth = nth ? atol(nth) : 0;
    fail_errno = number ? atoi(number) : EIO;
    fail_on = getenv("FAIL_ON") != NULL;
    fail_call = getenv("FAIL_CALL");
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("FAIL_COUNT");
    FILE *out = path ? fopen(path, "a") : NULL;
    if (out) {
        fprintf(out, "%ld\n", (long)nb_calls);
        fclose(out);
    }
}

/* glib ends the program when its own small allocations fail: those are not what is asked. */
static int from_glib(const void *caller)
{
    Dl_info info;
    return dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "libglib");
}

static int fails(const char *name, const void *caller)
{
    if (!fail_call || strcmp(fail_call, name) != 0 || from_glib(caller)) {
        return 0;
    }
    long nth = ++nb_calls;
    if (nth != fail_nth && !(fail_on && fail_nth && nth > fail_nth)) {
        return 0;
    }
    errno = fail_errno;
    return 1;
}

#define WRAP(ret, failed, name, args, pass)                                              \
    ret name args;                                                                       \
    ret name args                                                                        \
    {                                                                                    \
        static ret(*real) args;                                                          \
        if (!real) {                                                                     \
            *(void **)&real = dlsym(RTLD_NEXT, #name);                                   \
        }                                                                                \
        return fails(#name, __builtin_return_address(0)) ? failed : real pass;                                        \
    }

WRAP(void *, MAP_FAILED, mmap,
     (void *at, size_t len, int prot, int flags, int fd, off_t offset),
     (at, len, prot, flags, fd, offset))
WRAP(void *, MAP_FAILED, mmap64,
     (void *at, size_t len, int prot, int flags, int fd, off64_t offset),
     (at, len, prot, flags, fd, offset))
WRAP(int, -1, mprotect, (void *at, size_t len, int prot), (at, len, prot))
WRAP(int, ENOMEM, posix_memalign, (void **ret, size_t align, size_t len), (ret, align, len))
WRAP(void *, NULL, aligned_alloc, (size_t align, size_t len), (align, len))
WRAP(void *, NULL, g_try_malloc, (size_t len), (len))
WRAP(void *, NULL, g_try_malloc0, (size_t len), (len))
WRAP(void *, NULL, g_try_malloc_n, (size_t n, size_t len), (n, len))
WRAP(void *, NULL, g_try_malloc0_n, (size_t n, size_t len), (n, len))
WRAP(void *, NULL, g_try_realloc_n, (void *old, size_t n, size_t len), (old, n, len))

WRAP(ssize_t, -1, pread, (int fd, void *buf, size_t n, off_t at), (fd, buf, n, at))
WRAP(ssize_t, -1, pread64, (int fd, void *buf, size_t n, off64_t at), (fd, buf, n, at))
WRAP(ssize_t, -1, preadv2, (int fd, const struct iovec *v, int n, off_t at, int flags),
     (fd, v, n, at, flags))
WRAP(ssize_t, -1, preadv64v2, (int fd, const struct iovec *v, int n, off64_t at, int flags),
     (fd, v, n, at, flags))
WRAP(ssize_t, -1, pwritev2, (int fd, const struct iovec *v, int n, off_t at, int flags),
     (fd, v, n, at, flags))
WRAP(ssize_t, -1, pwritev64v2,
     (int fd, const struct iovec *v, int n, off64_t at, int flags), (fd, v, n, at, flags))
WRAP(ssize_t, -1, preadv64, (int fd, const struct iovec *v, int n, off64_t at),
     (fd, v, n, at))
WRAP(ssize_t, -1, pwritev64, (int fd, const struct iovec *v, int n, off64_t at),
     (fd, v, n, at))
WRAP(int, -1, fdatasync, (int fd), (fd))
WRAP(int, -1, ftruncate64, (int fd, off64_t size), (fd, size))
WRAP(int, -1, fallocate64, (int fd, int mode, off64_t at, off64_t len), (fd, mode, at, len))

WRAP(int, -1, socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(int, -1, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
WRAP(int, -1, listen, (int fd, int backlog), (fd, backlog))
WRAP(int, -1, accept4, (int fd, struct sockaddr *a, socklen_t *n, int flags),
     (fd, a, n, flags))
WRAP(ssize_t, -1, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags))
WRAP(ssize_t, -1, recvmsg, (int fd, struct msghdr *msg, int flags), (fd, msg, flags))
WRAP(int, -1, eventfd, (unsigned n, int flags), (n, flags))
WRAP(int, -1, timerfd_create, (int clock, int flags), (clock, flags))
WRAP(int, -1, signalfd, (int fd, const void *mask, int flags), (fd, mask, flags))
WRAP(int, -1, epoll_create1, (int flags), (flags))
WRAP(int, -1, epoll_ctl, (int fd, int op, int other, void *event), (fd, op, other, event))
WRAP(int, -fail_errno, io_uring_queue_init_params, (unsigned n, void *ring, void *params),
     (n, ring, params))
WRAP(int, -fail_errno, io_setup, (int n, void *context), (n, context))
WRAP(int, fail_errno ? -fail_errno : real(context, n < 1 ? n : 1, requests), io_submit,
     (void *context, long n, void **requests), (context, n, requests))
WRAP(int, fail_errno, posix_fallocate64, (int fd, off64_t at, off64_t len), (fd, at, len))
WRAP(int, fail_errno, pthread_create,
     (void *thread, const void *attr, void *(*start)(void *), void *arg),
     (thread, attr, start, arg))

int open64(const char *path, int flags, ...);
int open64(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    va_list args;
    va_start(args, flags);
    int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(args, int) : 0;
    va_end(args);
    if (!real) {
        *(void **)&real = dlsym(RTLD_NEXT, "open64");
    }
    return fails("open64", __builtin_return_address(0)) ? -1 : real(path, flags, mode);
}
