# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a program on a kernel that lacks, or forbids, some system calls (a seccomp filter)."""

import ctypes
import errno
import os
import struct

NUMBERS = {'x86_64': {'io_setup': 206, 'fallocate': 285, 'preadv2': 327, 'pwritev2': 328,
                      'statx': 332, 'io_uring_setup': 425, 'close_range': 436,
                      'epoll_pwait2': 441},
           'aarch64': {'io_setup': 0, 'fallocate': 47, 'preadv2': 286, 'pwritev2': 287,
                       'statx': 291, 'io_uring_setup': 425, 'close_range': 436,
                       'epoll_pwait2': 441}}
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
BPF_LOAD_WORD, BPF_JUMP_EQUAL, BPF_RETURN = 0x20, 0x15, 0x06
RET_ALLOW, RET_ERRNO = 0x7fff0000, 0x00050000


def without(*calls, error=errno.ENOSYS):
    """A preexec_fn after which these calls fail with this errno."""
    numbers = [NUMBERS[os.uname().machine][call] for call in calls]
    code = [(BPF_LOAD_WORD, 0, 0, 0)]  # the number of the call
    for n, number in enumerate(numbers):
        code.append((BPF_JUMP_EQUAL, len(numbers) - n, 0, number))
    code += [(BPF_RETURN, 0, 0, RET_ALLOW), (BPF_RETURN, 0, 0, RET_ERRNO | error)]
    text = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *c) for c in code))
    program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(code),
                                                      ctypes.addressof(text)))
    libc = ctypes.CDLL(None, use_errno=True)

    def apply():
        if (libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or
                libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER,
                           ctypes.c_ulong(ctypes.addressof(program)), 0, 0)):
            raise OSError(ctypes.get_errno(), 'seccomp')
    apply.keep = text
    return apply
