# SPDX-License-Identifier: GPL-2.0-or-later
"""For the fault tests, 400-449: a load that knows what a flush has covered, small file
systems, and programs whose Nth call of something fails (failcall.c)."""

import os
import random
import subprocess
import sys
import threading

# pylint: disable=unused-import
import qmpdaemon as q
from nbdrig import n, Server, file_node, null_node

BLOCK = 4096
HERE = os.path.dirname(os.path.abspath(__file__))
IMG = os.environ.get('QEMU_IMG', os.path.join(q.TREE, 'build', 'qemu-img'))
IO = os.environ.get('QEMU_IO', os.path.join(q.TREE, 'build', 'qemu-io'))
STOCK_IMG = os.environ.get('STOCK_QEMU_IMG', 'qemu-img')


def run(*command, env=None):
    """(exit status, output and errors)."""
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
                          check=False, env=dict(os.environ, **(env or {})))
    return done.returncode, done.stdout.decode(errors='replace')


def must(*command):
    status, out = run(*command)
    if status:
        raise AssertionError('%s: %d\n%s' % (' '.join(map(str, command)), status, out))
    return out


def not_corrupt(path, program=IMG):
    """Clean, or leaks at most."""
    status, out = run(program, 'check', '-f', 'qcow2', path)
    if status not in (0, 3):
        print('%s check: %d\n%s' % (os.path.basename(program), status, out[:2000]))
    return status in (0, 3)


def block_of(number, generation):
    return (number << 24 | generation).to_bytes(8, 'big') * (BLOCK // 8)


class Load(threading.Thread):
    """Writes random blocks of a disk, many in flight, flushes often, and remembers for each
    block which generations it may hold: what the last covering flush covered, or later."""

    def __init__(self, server, seed, nb_blocks, history, node='d', depth=16, discard=False):
        super().__init__(daemon=True)
        self.client = server.client().go(node)
        self.rand = random.Random(seed)
        self.nb_blocks, self.depth, self.discard = nb_blocks, depth, discard
        self.history = history  # block: [generations that a reader may find], oldest first
        self.busy = {}          # block: in flight
        self.answered = {}      # block: the generation last answered
        self.flushes = 0
        self.errors = []

    def write_one(self, cookie):
        number = self.rand.randrange(self.nb_blocks)
        if number in self.busy:
            return False
        generation = self.history.setdefault(number, [0])[-1] + 1
        self.history[number].append(generation)
        self.busy[number] = generation
        self.client.expect(n.WRITE, cookie)
        self.client.send(n.request(n.WRITE, number * BLOCK, cookie=cookie,
                                   data=block_of(number, generation)))
        return True

    def run(self):
        c, cookie = self.client, 1
        written, covers = {}, {}
        try:
            while True:
                while len(c.pending) < self.depth:
                    if self.write_one(cookie):
                        written[cookie] = list(self.busy)[-1]
                    cookie += 1
                    if cookie % 24 == 0:
                        c.expect(n.FLUSH, cookie)
                        covers[cookie] = dict(self.answered)
                        c.send(n.request(n.FLUSH, cookie=cookie))
                        cookie += 1
                got = c.reply()
                if got.cookie in covers:
                    self.flushed(covers.pop(got.cookie), got.error)
                else:
                    number = written.pop(got.cookie)
                    if got.error:
                        self.errors.append(got.error)
                    else:
                        self.answered[number] = self.busy[number]
                    del self.busy[number]
        except (n.Closed, OSError):
            pass

    def flushed(self, covered, error):
        if error:
            self.errors.append(error)
            return
        self.flushes += 1
        for number, generation in covered.items():
            kept = self.history[number]
            while kept[0] < generation:
                kept.pop(0)


def lost_blocks(path, raw, history, fmt='qcow2'):
    """The blocks that hold what they may not, and are older than a flush."""
    must(IMG, 'convert', '-f', fmt, '-O', 'raw', path, raw)
    lost = []
    with open(raw, 'rb') as f:
        for number, generations in sorted(history.items()):
            f.seek(number * BLOCK)
            data = f.read(BLOCK)
            found = int.from_bytes(data[:8], 'big')
            allowed = [block_of(number, g) if g else bytes(BLOCK) for g in generations]
            if data not in allowed:
                # a block that was being written may be old and new, sector by sector
                if len(generations) > 1 and all(
                        any(data[i:i + 512] == a[i:i + 512] for a in allowed)
                        for i in range(0, BLOCK, 512)):
                    continue
                lost.append((number, hex(found), generations[0], generations[-1]))
    return lost


def sanitized(process):
    """Is it a build with sanitizers? Their shadow is terabytes of addresses."""
    with open('/proc/%d/status' % process.pid, encoding='ascii') as lines:
        return [int(x.split()[1]) for x in lines if x.startswith('VmSize')][0] > 1 << 30


class SmallFileSystem:
    """A tmpfs of @size; the test is skipped where it cannot be mounted."""

    def __init__(self, path, size):
        self.path = path
        os.mkdir(path)
        if os.geteuid() or run('mount', '-t', 'tmpfs', '-o', 'size=' + size, 'tmpfs', path)[0]:
            q.skip('cannot mount a small file system')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        run('umount', '-l', self.path)

    def resize(self, size):
        must('mount', '-o', 'remount,size=' + size, self.path)


def with_asan():
    """Were the programs built with the address sanitizer?"""
    with open(q.OURS, 'rb') as program:
        return b'__asan_init' in program.read()


def failing(library, call, nth, **more):
    """The environment of a program whose @nth @call fails; see failcall.c for @more. Under
    the address sanitizer the library still stands before its runtime: so it sees the
    program's own calls, allocations with them, and passes them on to the sanitizer."""
    env = {'LD_PRELOAD': library, 'FAIL_CALL': call, 'FAIL_NTH': str(nth),
           **{'FAIL_' + name.upper(): str(value) for name, value in more.items()}}
    if with_asan():
        env['ASAN_OPTIONS'] = ':'.join(filter(None, (
            os.environ.get('ASAN_OPTIONS'), 'verify_asan_link_order=0')))
    return env


def failcall(scratch):
    """The library that makes calls fail, for LD_PRELOAD; skips without a compiler."""
    library = scratch.file('failcall.so')
    status, out = run(os.environ.get('CC', 'cc'), '-shared', '-fPIC', '-O1', '-o', library,
                      os.path.join(HERE, 'failcall.c'), '-ldl')
    if status:
        q.skip('cannot compile failcall.c: ' + out[:200])
    return library


def spread(total, most):
    """At most @most of the calls 1 to @total: the first, the last, and some between."""
    if total <= most:
        return list(range(1, total + 1))
    return sorted({1 + i * (total - 1) // (most - 1) for i in range(most)})
