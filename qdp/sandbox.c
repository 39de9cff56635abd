/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See sandbox.h.
 *
 * A call that is not in the list raises SIGSYS in its thread; the handler answers EPERM in
 * the call's stead and hands the number to the loop, which finds the name and logs it.
 */
#include "qdp/sandbox.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "block/base/error.h"
#include "qdp/log.h"
#include "qdp/sandbox-calls.h"

#ifdef HAVE_SECCOMP

#include <seccomp.h>

/* ---- naming what was refused ---- */

#define NB_CALLS 1024 /* numbers of system calls are below on all architectures here */

static unsigned char refused[NB_CALLS]; /* 1: to be said, 2: was said */
static int refused_event = -1;
static LoopFd refused_watch;

static void set_result(ucontext_t *uc, long value)
{
#if defined(__x86_64__)
    uc->uc_mcontext.gregs[REG_RAX] = value;
#elif defined(__aarch64__)
    uc->uc_mcontext.regs[0] = (unsigned long long)value;
#else
    (void)uc;
    (void)value;
#endif
}

/* In any thread, at any place: nothing but atomics and write(2). */
static void on_sigsys(int signo, siginfo_t *info, void *context)
{
    static const uint64_t one = 1;
    int saved = errno;
    unsigned nr = (unsigned)info->si_syscall;
    unsigned char unsaid = 0;

    if (nr < NB_CALLS && __atomic_compare_exchange_n(&refused[nr], &unsaid, 1, false,
                                                     __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        ssize_t ignored = write(refused_event, &one, sizeof(one));
        (void)ignored;
    }
    set_result(context, -EPERM);
    errno = saved;
}

static void say_refused(LoopFd *watch, unsigned revents)
{
    uint64_t count;
    ssize_t ignored = read(watch->fd, &count, sizeof(count));

    (void)ignored;
    for (unsigned nr = 0; nr < NB_CALLS; nr++) {
        if (__atomic_load_n(&refused[nr], __ATOMIC_RELAXED) == 1) {
            char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)nr);
            __atomic_store_n(&refused[nr], 2, __ATOMIC_RELAXED);
            log_warning("sandbox: refused the system call %s (%u)", name ? name : "?", nr);
            free(name);
        }
    }
}

static bool prepare_naming(Loop *loop, GError **errp)
{
    struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};

    refused_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (refused_event < 0 || sigaction(SIGSYS, &action, NULL) < 0) {
        error_set_errno(errp, errno, "Could not prepare the sandbox");
        return false;
    }
    loop_fd_init(&refused_watch, loop, refused_event, say_refused);
    loop_fd_watch(&refused_watch, POLLIN);
    return true;
}

/* ---- the filter ---- */

static int allow(scmp_filter_ctx filter, const char *name)
{
    int nr = seccomp_syscall_resolve_name(name);

    /* not on this architecture, or newer than the library */
    return nr < 0 ? 0 : seccomp_rule_add(filter, SCMP_ACT_ALLOW, nr, 0);
}

static int allow_threads(scmp_filter_ctx filter)
{
    /* a thread, never a process; clone3 cannot be looked into: libc falls back */
    int ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                               SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));

    return ret ? ret : seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

static int allow_sockets(scmp_filter_ctx filter)
{
    static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
    int ret = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(families) && !ret; i++) {
        ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                               SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i]));
    }
    return ret;
}

/* Our own limits may be asked, not set. */
static int allow_limits(scmp_filter_ctx filter)
{
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2,
                            SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0));
}

/* Does a process live? (file locks ask for their holder's.) No signal is sent. */
static int allow_looking(scmp_filter_ctx filter)
{
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(kill), 1,
                            SCMP_A1(SCMP_CMP_EQ, 0));
}

static int fill(scmp_filter_ctx filter)
{
    const char *const *names = sandbox_calls();
    int ret = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);

    for (size_t i = 0; names[i] && !ret; i++) {
        ret = allow(filter, names[i]);
    }
    ret = ret ? ret : allow_limits(filter);
    ret = ret ? ret : allow_looking(filter);
    ret = ret ? ret : allow_threads(filter);
    return ret ? ret : allow_sockets(filter);
}

static bool close_sandbox(Loop *loop, GError **errp)
{
#if defined(__x86_64__) || defined(__aarch64__)
    uint32_t otherwise = SCMP_ACT_TRAP;
#else
    uint32_t otherwise = SCMP_ACT_ERRNO(EPERM); /* refused, not named */
#endif
    scmp_filter_ctx filter;
    int ret;

    if (!prepare_naming(loop, errp)) {
        return false;
    }
    filter = seccomp_init(otherwise);
    ret = filter ? fill(filter) : -ENOMEM;
    if (!ret) {
        ret = seccomp_load(filter);
    }
    seccomp_release(filter);
    if (ret) {
        error_set_errno(errp, -ret, "Could not close the sandbox");
    }
    return !ret;
}

#else /* !HAVE_SECCOMP */

static bool close_sandbox(Loop *loop, GError **errp)
{
    error_set(errp, "--sandbox is not supported: built without libseccomp");
    return false;
}

#endif

/* ---- for tests ---- */

/* Calls a taken-over program might make. None of them harms when it succeeds. */
static bool try_one(const char *name, GError **errp)
{
    static char *const no_words[] = {NULL};
    long ret;

    if (!strcmp(name, "execve")) {
        ret = execve("/nonexistent", no_words, no_words);
    } else if (!strcmp(name, "ptrace")) {
        ret = ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    } else if (!strcmp(name, "io_uring_setup")) {
        ret = syscall(SYS_io_uring_setup, 0, NULL);
    } else if (!strcmp(name, "fork")) {
        ret = fork();
        if (!ret) {
            _exit(0);
        }
    } else if (!strcmp(name, "socket")) {
        ret = socket(AF_PACKET, SOCK_RAW, 0);
    } else {
        error_set(errp, "no test of the sandbox is called '%s'", name);
        return false;
    }
    log_info("sandbox: %s gave %ld: %s", name, ret, ret < 0 ? g_strerror(errno) : "ok");
    return true;
}

bool walls_raise(const Walls *walls, Loop *loop, GError **errp)
{
    return walls_drop_privileges(walls, errp) &&
           (!walls->sandbox || close_sandbox(loop, errp)) &&
           (!walls->try_call || try_one(walls->try_call, errp));
}
