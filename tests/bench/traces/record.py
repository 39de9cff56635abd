#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What real file systems ask of a disk, recorded for l2trace; and the records as text.

    record.py record DIR [NAME..]   as root: make DIR/NAME.trace again, some minutes
    record.py print FILE [BYTES]    the numbers of the slices of BYTES (an L2 cache entry; 4096)
                                    that are looked up, one a line
    record.py replay L2TRACE FILE.. l2trace's table of each, at two sizes of slices

A sparse 64 GiB disk (nbdkit, its log filter) is a file by nbdfuse, a loop device on it, ext4 or
XFS on that. It is mounted anew between the parts of a workload, so that what the page cache
held is read again. A trace has the clusters (64 KiB) of each request, first and count, and
whether it writes: varints of the distance to the request before, in zlib.

Needs: nbdkit nbdfuse (libnbd-bin, fuse) losetup mkfs.ext4 mkfs.xfs git, and /dev/fuse.
"""
import contextlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib

SIZE = 64 << 30
CLUSTER_BITS = 16
MAGIC = b'l2trace1'
TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


# ---- the format ----

def varint(n):
    out = bytearray()
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def pack(requests):
    """[(first cluster, count, writes)] as bytes."""
    out, last = bytearray(), 0
    for first, count, writes in requests:
        delta = first - last
        out += varint((delta << 1 if delta >= 0 else (-delta << 1) - 1) << 1 | writes)
        out += varint(count)
        last = first + count - 1
    return MAGIC + zlib.compress(bytes(out), 9)


def unpack(data):
    assert data.startswith(MAGIC), 'not a trace'
    numbers, n, shift = [], 0, 0
    for byte in zlib.decompress(data[len(MAGIC):]):
        n |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(n)
            n = shift = 0
    last = 0
    for head, count in zip(numbers[::2], numbers[1::2]):
        zigzag = head >> 1
        first = last + (zigzag >> 1 if not zigzag & 1 else -((zigzag + 1) >> 1))
        yield first, count, head & 1
        last = first + count - 1


def slices(path, entry_bytes):
    """A look-up for each slice that a request touches."""
    with open(path, 'rb') as f:
        data = f.read()
    shift = (entry_bytes // 8).bit_length() - 1
    for first, count, _ in unpack(data):
        yield from range(first >> shift, (first + count - 1 >> shift) + 1)


# ---- recording ----

def run(*cmd, **kw):
    subprocess.run(cmd, check=True, timeout=600, stdout=subprocess.DEVNULL, **kw)


class Disk:
    """The disk with its log; attach() and detach() as a guest's start and end."""

    def __init__(self, base):
        self.base = base
        self.log = os.path.join(base, 'log')
        self.fuse, self.mnt = os.path.join(base, 'fuse'), os.path.join(base, 'mnt')
        os.mkdir(self.fuse)
        os.mkdir(self.mnt)
        data = os.path.join(base, 'data')
        with open(data, 'wb') as f:
            f.truncate(SIZE)
        self.server = subprocess.Popen(
            ['nbdfuse', os.path.join(self.fuse, 'disk'), '--command', 'nbdkit', '-s',
             '--filter=log', 'file', data, 'logfile=' + self.log])
        self.file = os.path.join(self.fuse, 'disk')
        end = time.monotonic() + 20
        while not os.path.exists(self.file):
            if self.server.poll() is not None or time.monotonic() > end:
                raise RuntimeError('nbdfuse does not come')
            time.sleep(0.1)
        self.loop = None

    def make(self, kind):
        self.attach(mount=False)
        run('mkfs.' + kind, '-q', self.loop)
        self.detach()

    def attach(self, mount=True):
        done = subprocess.run(['losetup', '--find', '--show', self.file], check=True, text=True,
                              stdout=subprocess.PIPE, timeout=60)
        self.loop = done.stdout.strip()
        if mount:
            run('mount', self.loop, self.mnt)

    def detach(self):
        if self.loop:
            if os.path.ismount(self.mnt):
                run('umount', self.mnt)
            run('losetup', '-d', self.loop)
            self.loop = None

    def close(self):
        try:
            self.detach()
        finally:
            subprocess.run(['umount', self.fuse], check=False, timeout=60)
            try:
                self.server.wait(30)
            except subprocess.TimeoutExpired:
                self.server.kill()

    def requests(self):
        line = re.compile(r'\b(Read|Write|Trim|Zero)\b.*offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+)')
        with open(self.log, encoding='utf-8') as log:
            for text in log:
                found = line.search(text)
                if found and '...' not in text[:text.find('offset')]:
                    offset, count = int(found[2], 16), int(found[3], 16)
                    if count and found[1] in ('Read', 'Write'):
                        first = offset >> CLUSTER_BITS
                        last = (offset + count - 1) >> CLUSTER_BITS
                        yield first, last - first + 1, int(found[1] == 'Write')


def anew(disk):
    disk.detach()
    disk.attach()


def clone(disk, name):
    run('git', 'clone', '-q', '--no-hardlinks', TREE, os.path.join(disk.mnt, name),
        stderr=subprocess.DEVNULL)


def read_tree(path):
    for folder, _, names in os.walk(path):
        for name in names:
            full = os.path.join(folder, name)
            if os.path.isfile(full) and not os.path.islink(full):
                with open(full, 'rb') as f:
                    f.read()


def develop(disk):
    """Clones, a tree of small files, "compiling" (read each, write an object), finding."""
    rng = random.Random(1)
    for i in range(12):
        clone(disk, 'clone%d' % i)
    run('cp', '-r', '/usr/include', '/usr/share/perl', os.path.join(disk.mnt, ''))
    anew(disk)
    for i in range(6):
        tree = os.path.join(disk.mnt, 'clone%d' % rng.randrange(12))
        for folder, _, names in list(os.walk(tree)):
            for name in names:
                if name.endswith('.c'):
                    with open(os.path.join(folder, name), 'rb') as f:
                        text = f.read()
                    with open(os.path.join(folder, name + '.o'), 'wb') as f:
                        f.write(text * 3)
        run('git', '-C', tree, 'status')
        run('find', disk.mnt, '-name', '*.h')
        if i % 2:
            anew(disk)
    read_tree(os.path.join(disk.mnt, 'include'))
    for i in range(0, 12, 3):
        shutil.rmtree(os.path.join(disk.mnt, 'clone%d' % i))
    clone(disk, 'again')


def database(disk):
    """SQLite: inserts, random updates and look-ups in transactions, a look at all of it."""
    rng = random.Random(2)
    path = os.path.join(disk.mnt, 'db')
    for part in range(4):
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute('pragma cache_size=-2000')
            db.execute('create table if not exists t (id integer primary key, k int, v blob)')
            db.execute('create index if not exists i on t (k)')
            for _ in range(40):
                db.executemany('insert into t (k, v) values (?, ?)',
                               ((rng.randrange(1 << 30), rng.randbytes(700)) for _ in range(1500)))
                db.commit()
            for _ in range(150):
                db.executemany('update t set v = ? where id = ?',
                               ((rng.randbytes(700), 1 + int(rng.paretovariate(0.3)) % 60000)
                                for _ in range(20)))
                db.commit()
            for _ in range(2000):
                db.execute('select v from t where k > ? limit 3', (rng.randrange(1 << 30),)).fetchall()
        anew(disk)
        if part == 2:
            with contextlib.closing(sqlite3.connect(path)) as db:
                db.execute('select sum(length(v)) from t').fetchall()


def copies(disk):
    """Large files, read and copied in order, beside small work: what must not wash out."""
    big = os.path.join(disk.mnt, 'big')
    with open(big, 'wb') as f:
        for _ in range(700):
            f.write(os.urandom(1 << 16) * 16)
    for i in range(4):
        clone(disk, 'clone%d' % i)
    anew(disk)
    rng = random.Random(3)
    for i in range(3):
        with open(big, 'rb') as src, open('%s%d' % (big, i), 'wb') as dst:
            while True:
                data = src.read(8 << 20)
                if not data:
                    break
                dst.write(data)
                tree = os.path.join(disk.mnt, 'clone%d' % rng.randrange(4), rng.choice(
                    ('block', 'qdp', 'tests', 'docs', '.git')))
                read_tree(tree)
        anew(disk)


WORK = {kind + '-' + work.__name__: (kind, work)
        for kind in ('ext4', 'xfs') for work in (develop, database, copies)}


def record(folder, names):
    for name in names or WORK:
        kind, work = WORK[name]
        base = tempfile.mkdtemp(prefix='trace-', dir='/dev/shm')
        disk = Disk(base)
        try:
            disk.make(kind)
            disk.attach()
            work(disk)
            disk.detach()
            requests = list(disk.requests())
        finally:
            disk.close()
            shutil.rmtree(base, ignore_errors=True)
        data = pack(requests)
        assert list(unpack(data)) == requests
        with open(os.path.join(folder, name + '.trace'), 'wb') as f:
            f.write(data)
        print('%s: %d requests, %d bytes' % (name, len(requests), len(data)), flush=True)


def replay(l2trace, files):
    for path in files:
        for entry in (4096, 512):
            with tempfile.NamedTemporaryFile('w', suffix='.txt') as out:
                out.writelines('%d\n' % n for n in slices(path, entry))
                out.flush()
                name = '%s, %d' % (os.path.basename(path).split('.')[0], entry)
                subprocess.run([l2trace, out.name, name], check=True, timeout=300)


def main(args):
    if len(args) >= 2 and args[0] == 'record':
        record(args[1], args[2:])
    elif len(args) in (2, 3) and args[0] == 'print':
        sys.stdout.writelines('%d\n' % n for n in slices(args[1], int((args + ['4096'])[2])))
    elif len(args) >= 3 and args[0] == 'replay':
        replay(args[1], args[2:])
    else:
        sys.exit(__doc__)


if __name__ == '__main__':
    main(sys.argv[1:])
