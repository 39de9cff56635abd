#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the seed corpora: make-corpus.py [TARGET ...].

What fuzzing found lies in the same folders, under names that start with "found-", and is
never touched here. Images come from stock qemu-img and qemu-io ($STOCK_QEMU_IMG,
$STOCK_QEMU_IO, else PATH); the hostile ones are those with a field or two changed.
"""

import os
import shutil
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
IMG = os.environ.get('STOCK_QEMU_IMG', 'qemu-img')
IO = os.environ.get('STOCK_QEMU_IO', 'qemu-io')


def save(target, name, data):
    folder = os.path.join(HERE, 'corpus', target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), 'wb') as out:
        out.write(data if isinstance(data, (bytes, bytearray)) else data.encode())


# ---- qcow2 ----

# spec: qcow2, "Header": offset and width of each field
FIELDS = {'magic': (0, 4), 'version': (4, 4), 'backing_offset': (8, 8), 'backing_size': (16, 4),
          'cluster_bits': (20, 4), 'size': (24, 8), 'crypt': (32, 4), 'l1_size': (36, 4),
          'l1_offset': (40, 8), 'rt_offset': (48, 8), 'rt_clusters': (56, 4),
          'nb_snapshots': (60, 4), 'snapshots_offset': (64, 8), 'incompatible': (72, 8),
          'compatible': (80, 8), 'autoclear': (88, 8), 'refcount_order': (96, 4),
          'header_length': (100, 4), 'compression': (104, 1)}
LETTER = {1: 'B', 4: 'I', 8: 'Q'}
COPIED, COMPRESSED = 1 << 63, 1 << 62
MAX64, MAX32 = (1 << 64) - 1, (1 << 32) - 1


class Image(bytearray):
    """A qcow2 image of 512-byte clusters."""

    def get(self, name):
        at, width = FIELDS[name]
        return struct.unpack_from('>' + LETTER[width], self, at)[0]

    def put(self, **fields):
        for name, value in fields.items():
            at, width = FIELDS[name]
            struct.pack_into('>' + LETTER[width], self, at, value)
        return self

    def put64(self, at, value):
        if len(self) < at + 8:
            self.extend(bytes(at + 8 - len(self)))
        struct.pack_into('>Q', self, at, value)
        return self

    def get64(self, at):
        return struct.unpack_from('>Q', self, at)[0]

    def l2(self):
        return self.get64(self.get('l1_offset')) & 0x00fffffffffffe00

    def entry(self, i, value):
        return self.put64(self.l2() + 8 * i, value)

    def extensions(self, *pairs):
        """Put header extensions behind the header, in place of those that are there."""
        at = self.get('header_length')
        self[at:512] = bytes(512 - at)
        for kind, length, data in pairs:
            struct.pack_into('>II', self, at, kind, length)
            self[at + 8:at + 8 + len(data)] = data
            at += 8 + (len(data) + 7) // 8 * 8
        return self

    def backing(self, name, size=None):
        """A backing name at the end of the first cluster."""
        at = 512 - len(name)
        self[at:512] = name
        return self.put(backing_offset=at, backing_size=len(name) if size is None else size)


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)


def made(options='', size='64k', commands=(), backing=None, bitmap=False, snapshot=False):
    """An image by stock."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'image')
        options = 'cluster_size=512' + (',' + options if options else '')
        command = [IMG, 'create', '-q', '-f', 'qcow2', '-o', options]
        if backing:
            command += ['-u', '-b', backing, '-F', 'raw']
        run(*command, path, size)
        if snapshot:
            run(IO, '-c', 'write -P 1 0 2k', path)
            run(IMG, 'snapshot', '-c', 'one', path)
        for c in commands:
            args = ['--image-opts', 'driver=qcow2,file.filename=%s,backing=' % path] \
                if backing else [path]
            run(IO, '-c', c, *args)
        if bitmap:
            run(IMG, 'bitmap', '--add', '-g', '512', path, 'b0')
        with open(path, 'rb') as image:
            return Image(image.read())


def qcow2_good():
    some = ['write -P 17 1k 3k', 'write -z 8k 1k']
    yield 'empty', made()
    yield 'some', made(commands=some)
    yield 'v2', made('compat=0.10', commands=['write -P 17 1k 3k'])
    for bits in (1, 8, 64):
        yield 'refcount-%d' % bits, made('refcount_bits=%d' % bits, commands=some)
    yield 'compressed', made(commands=['write -c -P 17 1k 512', 'write -c -P 18 2k 512'])
    yield 'zero-allocated', made(commands=['write -P 17 0 4k', 'write -z 1k 1k'])
    yield 'discarded', made(commands=['write -P 17 0 4k', 'discard 1k 1k'])
    yield 'snapshot', made(snapshot=True, commands=['write -P 2 1k 2k'])
    yield 'bitmap', made(bitmap=True)
    yield 'backing', made(backing='base', commands=['write -P 17 1k 512'])
    yield 'lazy-dirty', made('lazy_refcounts=on', commands=some).put(incompatible=1)
    yield 'extended-l2', made().put(incompatible=16)
    yield 'zstd', made('compression_type=zstd')
    yield 'data-file', made().put(incompatible=4)
    yield 'size-0', made(size='0')
    yield 'size-odd', made(size='33k', commands=['write -P 1 32k 512'])
    yield 'two-tables', made(size='96k', commands=['write -P 1 31k 3k'])


def header_hostile(image):
    """Each header field at, and beyond, its limits."""
    def with_(**fields):
        return Image(image).put(**fields)

    for bits in (0, 8, 22, 31, 32, 63, 64, MAX32):
        yield 'cluster-bits-%d' % bits, with_(cluster_bits=bits)
    for order in (7, 31, 32, 64, MAX32):
        yield 'refcount-order-%d' % order, with_(refcount_order=order)
    for version in (0, 1, 4, MAX32):
        yield 'version-%d' % version, with_(version=version)
    yield 'size-max', with_(size=MAX64)
    yield 'size-max-signed', with_(size=MAX64 >> 1)
    yield 'size-beyond-l1', with_(size=1 << 30)
    yield 'cve-2014-0143-l1-size-overflow', with_(l1_size=1 << 29 | 2)
    yield 'cve-2014-0143-l1-size-largest-legal', with_(l1_size=(32 << 20) // 8)
    yield 'cve-2014-0144-l1-offset-unaligned', with_(l1_offset=513)
    yield 'cve-2014-0144-l1-offset-behind-file', with_(l1_offset=1 << 40)
    yield 'cve-2014-0144-l1-offset-wraps', with_(l1_offset=MAX64 & ~511)
    yield 'cve-2014-0144-header-length-max', with_(header_length=MAX32)
    yield 'cve-2014-0144-header-length-cluster', with_(header_length=512)
    yield 'cve-2014-0144-header-length-short', with_(header_length=72)
    yield 'cve-2014-0144-backing-name-1024', with_(backing_offset=112, backing_size=1024)
    yield 'cve-2014-0144-backing-name-max', with_(backing_offset=112, backing_size=MAX32)
    yield 'cve-2014-0144-backing-offset-max', with_(backing_offset=MAX64, backing_size=8)
    yield 'cve-2014-0144-backing-over-header', with_(backing_offset=8, backing_size=64)
    yield 'cve-2014-0147-refcount-table-clusters', with_(rt_clusters=MAX32)
    yield 'cve-2014-0147-refcount-table-2-to-23', with_(rt_clusters=1 << 23)
    yield 'cve-2014-0144-refcount-table-unaligned', with_(rt_offset=514)
    yield 'cve-2014-0144-refcount-table-wraps', with_(rt_offset=MAX64 & ~511)
    yield 'cve-2014-0146-refcount-table-none', with_(rt_offset=0, rt_clusters=0)
    yield 'cve-2014-0145-snapshots-count', with_(nb_snapshots=MAX32, snapshots_offset=512)
    yield 'cve-2014-0145-snapshots-legal-count', with_(nb_snapshots=65536, snapshots_offset=512)
    yield 'cve-2014-0144-snapshots-unaligned', with_(nb_snapshots=1, snapshots_offset=513)
    yield 'cve-2014-0144-snapshots-wrap', with_(nb_snapshots=9, snapshots_offset=MAX64 & ~511)
    yield 'incompatible-all', with_(incompatible=MAX64)
    yield 'autoclear-all', with_(autoclear=MAX64)
    yield 'corrupt', with_(incompatible=2)
    yield 'dirty-and-corrupt', with_(incompatible=3)
    yield 'encrypted', with_(crypt=1)
    for n in (0, 3, 4, 71, 72, 103, 104, 511, 513):
        yield 'cut-to-%d' % n, Image(image[:n])


def extensions_hostile(image):
    def with_(*pairs):
        return Image(image).extensions(*pairs)

    yield 'cve-2014-0146-extension-length', with_((0x12345678, MAX32, b''))
    yield 'cve-2014-0146-extension-length-rounds', with_((0x12345678, MAX32 - 3, b''))
    yield 'cve-2014-0144-format-name-16', with_((0xe2792aca, 16, b'qcow2' * 4))
    yield 'extension-format-empty', with_((0xe2792aca, 0, b''))
    yield 'extension-features-partial', with_((0x6803f857, 40, b'\0\7name' + bytes(40)))
    yield 'extension-features-unterminated', with_(
        (0x6803f857, 48, b'\0\7' + b'n' * 46)).put(incompatible=1 << 7)
    yield 'extension-to-the-end', with_((0x12345678, 512 - 120, bytes(512 - 120)))
    yield 'cve-2024-4467-data-file-name', with_(
        (0x44415441, 11, b'/etc/shadow')).put(incompatible=4)
    yield 'cve-2024-4467-data-file-json', with_(
        (0x44415441, 40, b'json:{"driver":"file","filename":"base"}')).put(incompatible=4)
    yield 'cve-2024-4467-backing-json', Image(image).backing(
        b'json:{"driver":"file","filename":"base"}')
    yield 'cve-2024-4467-backing-protocol', Image(image).backing(b'nbd://127.0.0.1:1/x')
    yield 'backing-itself', Image(image).backing(b'image')
    yield 'backing-nul', Image(image).backing(b'ba\0se')
    yield 'backing-empty', Image(image).backing(b'')
    bitmaps = struct.pack('>IIQQ', 1, 0, 512, 1 << 10)
    yield 'bitmaps-directory', with_((0x23852875, 24, bitmaps)).put(autoclear=1)
    for name, fields in (('count', (MAX32, 0, 512, 1 << 10)), ('size', (1, 0, MAX64, 1 << 10)),
                         ('offset', (1, 0, 512, MAX64)), ('unaligned', (1, 0, 512, 1025)),
                         ('none', (0, 0, 0, 0))):
        yield 'bitmaps-%s' % name, with_(
            (0x23852875, 24, struct.pack('>IIQQ', *fields))).put(autoclear=1)


def tables_hostile(image, compressed, snapshot):
    l1, rt, end = image.get('l1_offset'), image.get('rt_offset'), len(image)
    block = image.get64(rt)

    def at(offset, value):
        return Image(image).put64(offset, value)

    for name, value in (('unaligned', COPIED | 0x301), ('behind-file', COPIED | 1 << 40),
                        ('reserved', MAX64), ('header', COPIED), ('itself', COPIED | l1),
                        ('refcounts', COPIED | block), ('last', COPIED | (1 << 56) - 512)):
        yield 'l1-entry-' + name, at(l1, value)
    table = image.l2()
    for name, value in (('unaligned', COPIED | 0x301), ('behind-file', COPIED | 1 << 40),
                        ('reserved', MAX64), ('itself', COPIED | table), ('zero-flag', 1),
                        ('header', COPIED | 0x200 >> 9), ('just-behind', COPIED | end),
                        ('zero-behind-file', COPIED | 1 << 40 | 1),
                        ('twice', Image(image).get64(table + 8 * 3))):
        yield 'l2-entry-' + name, at(table + 8 * 2, value)
    for name, value in (('unaligned', 0x301), ('behind-file', 1 << 40), ('itself', rt),
                        ('the-l1', l1), ('none', 0), ('reserved', block | 511)):
        yield 'refcount-entry-' + name, at(rt, value)
    counts = Image(image)
    counts[block:block + 512] = b'\xff' * 512
    yield 'refcounts-all-at-most', counts
    counts = Image(image)
    counts[block:block + 512] = bytes(512)
    yield 'refcounts-all-0', counts
    cut = Image(image)
    struct.pack_into('>HHHH', cut, block + 2 * (end // 512), 1, 1, 0, 1)
    yield 'refcounts-behind-the-end', cut
    for name, value in (('behind-file', COMPRESSED | 1 << 40), ('at-the-end', COMPRESSED | end - 1),
                        ('longest', COMPRESSED | 1 << 61 | 0x600), ('all-ones', MAX64 & ~COPIED),
                        ('over-the-end', COMPRESSED | 1 << 61 | end - 5),
                        ('header', COMPRESSED), ('copied', COPIED | COMPRESSED | 0x600)):
        yield 'compressed-' + name, Image(compressed).entry(2, value)
    torn = Image(compressed)
    where = torn.get64(torn.l2() + 16) & 0x1fffffffffffffff
    torn[where:where + 4] = b'\xff\xff\xff\xff'
    yield 'compressed-torn', torn
    table = snapshot.get('snapshots_offset')
    for name, offset, data in (
            ('cve-2014-0145-snapshot-l1-size', 8, b'\xff' * 4),
            ('cve-2014-0143-snapshot-l1-wraps', 8, b'\x20\0\0\1'),
            ('cve-2014-0144-snapshot-l1-offset', 0, b'\xff' * 8),
            ('snapshot-l1-behind-file', 0, b'\0\0\1' + bytes(5)),
            ('snapshot-id-length', 12, b'\xff\xff'), ('snapshot-name-length', 14, b'\xff\xff'),
            ('cve-2014-0145-snapshot-extra-data', 36, b'\xff' * 4),
            ('snapshot-extra-data-1024', 36, b'\0\0\4\0'), ('snapshot-extra-data-0', 36, bytes(4)),
            ('snapshot-vm-state', 32, b'\xff' * 4)):
        image = Image(snapshot)
        image[table + offset:table + offset + len(data)] = data
        yield name, image


def qcow2():
    good = dict(qcow2_good())
    for name, image in good.items():
        save('qcow2', 'good-' + name, image)
    for group in (header_hostile(good['some']), extensions_hostile(good['some']),
                  tables_hostile(good['some'], good['compressed'], good['snapshot'])):
        for name, image in group:
            save('qcow2', name, image)


TARGETS = {'qcow2': qcow2}


def main():
    if not shutil.which(IMG) or not shutil.which(IO):
        sys.exit('no stock qemu-img and qemu-io')
    for name in sys.argv[1:] or TARGETS:
        folder = os.path.join(HERE, 'corpus', name)
        for old in os.listdir(folder) if os.path.isdir(folder) else ():
            if not old.startswith('found-'):
                os.unlink(os.path.join(folder, old))
        TARGETS[name]()


if __name__ == '__main__':
    main()
