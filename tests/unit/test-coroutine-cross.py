#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Every way to switch stacks: assembly for x86-64 and aarch64, ucontext; with and without
optimisation. What is not this machine's runs in an emulator. Exit 77 when nothing foreign
could be tried; the reasons are printed.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
AIO = os.path.join(ROOT, 'block', 'aio')

# where the build puts headers that it writes
GENERATED = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, 'build')
MACHINES = {
    'x86_64': ('x86_64-linux-gnu-gcc', 'qemu-x86_64-static'),
    'aarch64': ('aarch64-linux-gnu-gcc', 'qemu-aarch64-static'),
}


def build(compiler, machine, ucontext, flags, out):
    sources = [os.path.join(AIO, 'coroutine.c'), os.path.join(AIO, 'co-context.c'),
               os.path.join(HERE, 'cross', 'coroutine-cross.c')]
    if ucontext:
        flags = flags + ['-DCO_UCONTEXT']
    else:
        sources.append(os.path.join(AIO, 'co-switch-%s.S' % machine))
    subprocess.run([compiler, '-static', '-std=gnu11', '-D_GNU_SOURCE', '-Wall', '-Werror',
                    '-I' + os.path.join(HERE, 'cross'), '-I' + ROOT, '-I' + GENERATED, *flags, *sources,
                    '-o', out], check=True, timeout=120)


def main():
    foreign = 0
    with tempfile.TemporaryDirectory() as scratch:
        for machine, (compiler, emulator) in MACHINES.items():
            native = machine == platform.machine()
            compiler = shutil.which(compiler) or (native and shutil.which('cc'))
            runner = [] if native else [shutil.which(emulator)]
            if not compiler or None in runner:
                print('SKIP %s: no compiler or no emulator' % machine)
                continue
            foreign += not native
            for ucontext in (False, True):
                for flags in (['-O0'], ['-O2'], ['-O2', '-fstack-protector-strong']):
                    out = os.path.join(scratch, 'coroutines')
                    build(compiler, machine, ucontext, flags, out)
                    subprocess.run(runner + [out], check=True, timeout=60,
                                   stdout=subprocess.DEVNULL)
                    print('ok', machine, 'ucontext' if ucontext else 'assembly', *flags)
    return 0 if foreign else 77


if __name__ == '__main__':
    sys.exit(main())
