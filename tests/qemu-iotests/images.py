# SPDX-License-Identifier: GPL-2.0-or-later
"""Images, tools and shadow copies for the numbered tests."""

import os
import random
import shutil
import subprocess
import sys

IMG = os.environ['QEMU_IMG']
IO = os.environ['QEMU_IO']
FMT = os.environ.get('IMGFMT', 'qcow2')
STOCK_IMG = os.environ.get('STOCK_QEMU_IMG', 'qemu-img')
STOCK_IO = os.environ.get('STOCK_QEMU_IO', 'qemu-io')

for program in (STOCK_IMG, STOCK_IO):
    if not shutil.which(program):
        print('SKIP: %s is not installed' % program)
        sys.exit(77)


def run(*argv, text=None, env=None):
    """(exit status, output); stderr goes with stdout."""
    done = subprocess.run(argv, input=text, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=240, check=False,
                          env=dict(os.environ, **env) if env else None)
    return done.returncode, done.stdout


def must(*argv, **kwargs):
    """The output of a command that has to succeed."""
    status, out = run(*argv, **kwargs)
    if status:
        sys.exit('%s: exit status %d\n%s' % (' '.join(argv), status, out))
    return out


def create(path, size, *options, program=STOCK_IMG, fmt=None):
    must(program, 'create', '-q', '-f', fmt or FMT, *options, path, str(size))


def check(path, fmt=None):
    """Exit statuses of stock's check and ours: (0, 0) is clean."""
    return (run(STOCK_IMG, 'check', '-q', '-f', fmt or FMT, path)[0],
            run(IMG, 'check', '-q', '-f', fmt or FMT, path)[0])


def io(program, path, commands, *options, fmt=None, env=None):
    """Run qemu-io commands; the output without the lines that have rates in them."""
    status, out = run(program, *options, '-f', fmt or FMT, path,
                      text='\n'.join(commands) + '\nquit\n', env=env)
    lines = [line for line in out.replace('qemu-io> ', '').splitlines()
             if 'ops/sec' not in line]
    return status, lines


class Shadow:
    """What an image should contain, and random requests that keep it so."""

    def __init__(self, size, seed, base=None):
        self.size = size
        self.data = bytearray(base.data if base else bytes(size))
        self.data = self.data[:size] + bytes(size - len(self.data))
        self.rand = random.Random(seed)

    def range(self, align=512, longest=200 << 10):
        length = self.rand.randrange(1, longest // align) * align
        length = min(length, self.size)
        offset = self.rand.randrange(0, (self.size - length) // align + 1) * align
        return offset, length

    def write(self, offset, length, pattern):
        self.data[offset:offset + length] = bytes([pattern]) * length

    def commands(self, count, align=512, zeroes=True, discards=False):
        """Random writes and zeroes, as qemu-io commands, and in the shadow."""
        out = []
        for _ in range(count):
            offset, length = self.range(align)
            kind = self.rand.random()
            if zeroes and kind < 0.2:
                flag = self.rand.choice(['-z', '-z -u'])
                out.append('write -q %s %d %d' % (flag, offset, length))
                self.write(offset, length, 0)
            elif discards and kind < 0.3:
                out.append('flush')
            elif kind < 0.35:
                pattern = self.rand.randrange(1, 256)
                out.append('aio_write -q -P %d %d %d' % (pattern, offset, length))
                out.append('aio_flush')
                self.write(offset, length, pattern)
            else:
                pattern = self.rand.randrange(1, 256)
                out.append('write -q -P %d %d %d' % (pattern, offset, length))
                self.write(offset, length, pattern)
        return out

    def save(self, path):
        with open(path, 'wb') as raw:
            raw.write(self.data)
        return path


def contents(path, program=IMG, fmt=None):
    """All bytes of an image, by convert."""
    target = path + '.contents'
    must(program, 'convert', '-f', fmt or FMT, '-O', 'raw', path, target)
    with open(target, 'rb') as raw:
        data = raw.read()
    os.unlink(target)
    return data


def same(path, shadow, fmt=None):
    """Do stock and ours both read what the shadow has?  Says who does not."""
    wrong = []
    for name, program in (('stock', STOCK_IMG), ('ours', IMG)):
        if contents(path, program, fmt) != bytes(shadow.data):
            wrong.append(name)
    return 'equal' if not wrong else 'DIFFERENT for ' + ' and '.join(wrong)
