/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The allowed system calls, by what they are for. To add one: say for what; and is it
 * harmless in the hands of somebody who has taken over the process?
 *
 * Left out on purpose: execve, fork and vfork, ptrace and process_vm_*, mount and its kin,
 * setuid and its kin, chmod, chown, rename, link, symlink, mkdir, kill, bpf,
 * perf_event_open, userfaultfd, io_uring_setup (rings exist already; a new one would have
 * no restrictions).
 */
#include "qdp/sandbox-calls.h"

static const char *const calls[] = {
    /* disks: opening at any time (blockdev-add, snapshots, relink), all engines */
    "open", "openat", "close", "read", "write", "pread64", "pwrite64", "readv", "writev",
    "preadv", "pwritev", "preadv2", "pwritev2", "lseek", "_llseek", "fsync", "fdatasync",
    "sync_file_range", "fallocate", "ftruncate", "ftruncate64", "fadvise64",
    "fadvise64_64", "copy_file_range", "stat", "fstat", "lstat", "newfstatat", "stat64",
    "fstat64", "lstat64", "fstatat64", "statx", "statfs", "fstatfs", "statfs64",
    "fstatfs64", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getcwd",
    "getdents64", "ioctl", "fcntl", "fcntl64", "flock", "io_setup", "io_submit",
    "io_getevents", "io_pgetevents", "io_cancel", "io_destroy", "io_uring_enter",
    "io_uring_register",
    /* sockets; socket(2) itself by family, elsewhere */
    "bind", "listen", "accept", "accept4", "connect", "getsockname", "getpeername",
    "getsockopt", "setsockopt", "send", "sendto", "sendmsg", "sendmmsg", "recv",
    "recvfrom", "recvmsg", "recvmmsg", "shutdown", "socketpair", "unlink", "unlinkat",
    "umask", "chdir" /* detaching comes last */,
    /* waiting */
    "poll", "ppoll", "select", "pselect6", "epoll_create1", "epoll_ctl", "epoll_wait",
    "epoll_pwait", "epoll_pwait2", "eventfd2", "signalfd4", "timerfd_create",
    "timerfd_settime", "timerfd_gettime", "nanosleep", "clock_nanosleep", "pipe2", "dup",
    "dup2", "dup3",
    /* memory and threads */
    "brk", "mmap", "mmap2", "munmap", "mremap", "mprotect", "madvise", "mincore", "futex",
    "futex_time64", "set_robust_list", "get_robust_list", "rseq", "membarrier", "exit",
    "exit_group", "sched_yield", "sched_getaffinity", "gettid", "restart_syscall",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack",
    /* abort(3) and raise(3) of our own threads */
    "tgkill",
    /* asking the system */
    "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getrlimit",
    "ugetrlimit", "getrusage", "uname", "sysinfo", "getrandom", "time", "gettimeofday",
    "clock_gettime", "clock_gettime64", "clock_getres",
    NULL,
};

const char *const *sandbox_calls(void)
{
    return calls;
}
