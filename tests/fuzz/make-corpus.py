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


# ---- text ----

def json_texts():
    texts = ['{}', '[]', 'null', '[true, false]', '{"a": [1, -2, 3.5e-7, 18446744073709551615]}',
             '-9223372036854775808', '18446744073709551616', '1e400', '-0', '-0.0', '01', '1.',
             '"\\u0041\\ud83d\\ude00 \\n\\/"', '"\\ud83d"', '"\\ude00\\ud83d"', '"\\u0000"',
             '"\x7f\u00e9\u20ac\U0001f600"', "{'a': 'b\\'\"'}", '{"a": 1, "a": 2}',
             '{"a.b": 1, "a": {"c": 2}}', '{"a.0": 1, "a.1": [2]}', '{"a.1": 1}', '{"a..b": 1}',
             '{"a": 1, "a.b": 2}', '[' * 40 + ']' * 40, '[' * 1100, '{"x":' * 1030, '{"a" 1}\n[2]',
             '[1,]', '{,}', '[1 2]', 'tru', 'truefalse', '1 2 3', '"unended', '[1}{2]', '# no']
    for i, text in enumerate(texts):
        save('json', 'text-%02d' % i, b'\3' + text.encode())
    for i, raw in enumerate((b'"\xff"', b'\xff{}', b'{"a\0b": 1}', b'"\xc0\x80"', b'"\xed\xa0\x80"',
                             b'"\xf4\x90\x80\x80"', b'[1\xfe2]', b'"a\nb"', b'\x1b[]')):
        save('json', 'bytes-%d' % i, b'\0' + raw)


def keyval():
    texts = ['driver=qcow2,node-name=disk,file.driver=file,file.filename=a,,b,discard=unmap',
             'raw,offset=4k,size=1M,file=node', 'null-co,size=1T,read-zeroes=on,latency-ns=0',
             'driver=qcow2,file=a,backing=,l2-cache-size=64k,cache.direct=on,cache.no-flush=off',
             'nbd,id=x,node-name=n,writable=on,name=y,bitmaps.0=a,bitmaps.1=b', 'help', '?,a=b',
             'addr.type=unix,addr.path=/s,max-connections=0',
             'addr.type=inet,addr.host=::1,addr.port=10809,addr.ipv6=on',
             '{"driver": "file", "filename": "x", "aio": "io_uring"}', 'json:{"driver":"raw","file":"a"}',
             'qcow2,file.driver=file,file.filename=f,size=1G,cluster-size=64k,version=v3,'
             'refcount-bits=16,lazy-refcounts=off', 'a.b=1,a=2', 'a.0=1,a.2=3', '=x', '.a=1', 'a', '',
             'a.0=1,a.b=2', 'x' * 200 + '=1', '64k', '1.5G', '0x10', '1e3', '8E', '16E', '-1',
             '18446744073709551615', '18446744073709551616', '1.9999999999999999999E', 'a=,,,,=,b=,,']
    for i, text in enumerate(texts):
        save('keyval', 'text-%02d' % i, bytes([(1, 1, 2, 0, 5)[i % 5]]) + text.encode())


def filename():
    texts = ['image', 'base', 'file:image', 'file:./image', 'host_device:base', 'null-co://', 'null-aio:',
             'nbd://host:1/x', 'nbd+unix:///x?socket=y', 'nbd:unix:/x:exportname=y', 'http://x/y', 'a:b',
             './a:b', '/a:b', ':', '', 'fat:rw:/', 'json:', 'json:{}', 'json:[]', 'json:{"driver":"qcow2"}',
             'json:{"driver":"qcow2","file":{"driver":"file","filename":"image"}}',
             'json:{"file.filename":"image"}', 'json:{"driver":"raw","file.filename":"base","size":512}',
             'json:{"file.driver":"file","file.filename":"image","backing":null}',
             'json:{"driver":"qcow2","file":"image"}', 'json:{"driver":"raw","offset":"512","size":"1k",'
             '"file":{"filename":"base"}}', 'json:{"driver":"null-co","size":"1T","read-zeroes":true}',
             'json:{"driver":"qcow2","file.filename":"image","backing.file.filename":"base",'
             '"backing.driver":"raw"}', 'json:{"driver":"qcow2","file.filename":"image","backing":"image"}',
             'json:{"driver":"raw","file":{"driver":"raw","file":{"driver":"raw","file":{"filename":"base"'
             '}}}}', 'json:{"filename":"json:{\\"driver\\":\\"null-co\\"}"}']
    for i, text in enumerate(texts):
        save('filename', 'name-%02d' % i, bytes([(0, 4, 2, 1, 40)[i % 5]]) + text.encode())


def probe():
    image = made(commands=['write -P 17 1k 512'])
    sector = bytes(image[:512])
    for name, disk in (('raw', bytes(4096)), ('raw-odd', b'x' * 1000), ('raw-short', b'x' * 100),
                       ('empty', b''), ('qcow2', image), ('almost', b'QFI\xfa' + bytes(1020)),
                       ('three-of-four', b'QFI' + bytes(1021)), ('qcow2-cut', image[:3])):
        save('probe', name + '-cve-2008-2004-gets-header', bytes(disk) + sector)
        save('probe', name + '-gets-text', bytes(disk) + b'text' * 128)


# ---- NBD ----

REQUEST = 0x25609513
OPTION = b'IHAVEOPT'


def request(kind, offset=0, length=0, flags=0, cookie=7, data=b'', magic=REQUEST):
    return struct.pack('>IHHQQI', magic, flags, kind, cookie, offset, length) + data


def option(number, data=b'', length=None):
    return OPTION + struct.pack('>II', number, len(data) if length is None else length) + data


def nbd_requests():
    """What follows a handshake."""
    yield 'reads', request(0, 0, 512) + request(0, 65024, 512, cookie=8) + request(0, 100, 9)
    yield 'writes', request(1, 0, 512, data=b'w' * 512) + request(1, 1025, 7, 1, data=b'x' * 7) + request(3)
    yield 'trim-zero', request(4, 0, 4096) + request(6, 512, 1024) + request(6, 0, 65536, 2) + \
        request(6, 0, 1024, 16)
    yield 'status', request(7, 0, 65536) + request(7, 0, 65536, 8) + request(7, 1, 1)
    yield 'cache-flush-disc', request(5, 0, 512) + request(3) + request(2)
    yield 'read-df', request(0, 0, 65536, 4)
    yield 'write-then-garbage', request(1, 0, 16, data=b'0123456789abcdef') + b'garbage' * 8
    for name, kind in (('read', 0), ('write', 1), ('trim', 4), ('cache', 5), ('zero', 6),
                       ('status', 7)):
        yield name + '-wraps', request(kind, MAX64 - 511, 1024, data=b'')
        yield name + '-behind-the-end', request(kind, 65536, 512, data=b'a' * 512 * (kind == 1))
        yield name + '-empty', request(kind, 0, 0) + request(kind, 65536, 0) + request(3)
        yield name + '-all-flags', request(kind, 0, 512, 0xffff, data=b'b' * 512 * (kind == 1))
    yield 'cve-2017-15119-read-too-long', request(0, 0, (32 << 20) + 1) + request(3)
    yield 'write-too-long', request(1, 0, (32 << 20) + 1) + request(3)
    yield 'write-longest', request(1, 0, 32 << 20, data=b'c' * 100)
    yield 'write-cut', request(1, 0, 4096, data=b'd' * 1000)
    yield 'cve-2020-10761-long-error', request(0x4141, 0, 0) + request(0, MAX64, MAX32)
    yield 'unknown-commands', b''.join(request(k) for k in (8, 9, 255, 0xffff))
    yield 'no-magic', request(0, 0, 512, magic=0x25609514)
    yield 'simple-reply-magic', request(0, magic=0x67446698)
    yield 'extended-magic', request(0, magic=0x21e41c71)
    yield 'header-cut', request(0, 0, 512)[:27]
    yield 'same-cookie', request(0, 0, 512) * 20
    yield 'cve-2017-9524-vanishes-at-once', b''


def nbd_handshakes():
    """Client flags, then options."""
    go = option(7, struct.pack('>I', 1) + b'd' + struct.pack('>H', 0))
    yield 'flags-none', bytes(4) + option(1, b'd')
    yield 'flags-unknown', b'\xff' * 4 + go
    yield 'flags-cut', b'\0\0'
    yield 'no-zeroes', b'\0\0\0\3' + option(1, b'd') + request(2)
    start = b'\0\0\0\1'
    yield 'list-info-go', start + option(3) + option(6, struct.pack('>I', 0) + struct.pack(
        '>HH', 1, 3)) + go + request(0, 0, 512)
    yield 'abort', start + option(2) + go
    yield 'cve-2021-3716-starttls-injection', start + option(5) + go + request(1, 0, 3, data=b'abc')
    yield 'starttls-with-data', start + option(5, b'data')
    meta = struct.pack('>I', 1) + b'd' + struct.pack('>I', 1) + struct.pack('>I', 15) + b'base:allocation'
    yield 'meta-without-structured', start + option(10, meta)
    yield 'meta', start + option(8) + option(9, meta) + option(10, meta) + go + request(7, 0, 512)
    yield 'meta-queries-max', start + option(8) + option(10, struct.pack('>I', 1) + b'd' + b'\xff' * 4)
    yield 'meta-query-length', start + option(8) + option(10, struct.pack(
        '>I', 1) + b'd' + struct.pack('>II', 1, MAX32))
    yield 'meta-all', start + option(8) + option(9, struct.pack('>I', 1) + b'd' + bytes(4)) + option(
        9, struct.pack('>I', 1) + b'd' + struct.pack('>II', 1, 5) + b'base:')
    yield 'cve-2017-15118-export-name-long', start + option(1, b'n' * 4097)
    yield 'cve-2017-15118-go-name-long', start + option(7, struct.pack('>I', 4097) + b'n' * 4097 + b'\0\0')
    yield 'go-name-length-max', start + option(7, b'\xff' * 4 + b'd\0\0') + go
    yield 'go-infos-max', start + option(7, struct.pack('>I', 1) + b'd\xff\xff')
    yield 'cve-2017-7539-option-length-max', start + option(7, length=MAX32)
    yield 'option-length-32-mib', start + option(3, length=32 << 20) + b'x' * 100
    yield 'option-longer-than-data', start + option(99, b'y' * 20000) + go
    yield 'option-unknown', start + option(0) + option(4) + option(11) + option(MAX32, b'z') + go
    yield 'option-magic', start + b'IHAVEOPS' + bytes(8)
    yield 'export-name-unknown', start + option(1, b'nobody')
    yield 'export-name-empty', start + option(1)
    yield 'cve-2024-7409-silent', start
    yield 'options-many', start + option(8) * 40


def nbd():
    for name, data in nbd_requests():
        for mode in (1, 2):
            save('nbd', '%s-%s' % (('', 'structured', 'simple')[mode], name), bytes([mode]) + data)
    reads = dict(nbd_requests())
    save('nbd', 'export-name-reads', b'\3' + reads['reads'])
    for name in ('writes', 'trim-zero', 'reads'):
        save('nbd', 'read-only-' + name, b'\4' + reads[name])
    for name, data in nbd_handshakes():
        save('nbd', 'handshake-' + name, b'\0' + data)


# ---- QMP ----

def qmp():
    add = "{'execute':'blockdev-add','arguments':{'driver':'qcow2','node-name':'d'," \
        "'file':{'driver':'file','filename':'image','node-name':'f'}%s}}"
    start = "{'execute':'nbd-server-start','arguments':{'addr':{'type':'unix','data':{'path':'s'}}}}"
    export = "{'execute':'nbd-server-add','arguments':{'device':'d','writable':true}}"
    texts = [
        add % '' + start + export + "{'execute':'query-block-exports'}{'execute':'block-export-del',"
        "'arguments':{'id':'d'}}{'execute':'nbd-server-stop'}{'execute':'blockdev-del','arguments':{"
        "'node-name':'d'}}{'execute':'quit'}",
        add % ",'backing':null" + "{'execute':'query-named-block-nodes','arguments':{'flat':true}}"
        "{'execute':'query-block'}{'execute':'query-blockstats','arguments':{'query-nodes':true}}",
        add % '' + "{'execute':'block_resize','arguments':{'node-name':'d','size':131072},'id':[1,{}]}"
        "{'execute':'block_resize','arguments':{'node-name':'f','size':9223372036854775807}}",
        add % ",'read-only':true" + start + export + "{'execute':'block-export-add','arguments':{'type':"
        "'nbd','id':'x','node-name':'d','name':'y','writable':false}}{'execute':'nbd-server-remove',"
        "'arguments':{'name':'d','mode':'hard'}}",
        "{'execute':'blockdev-add','arguments':{'driver':'null-co','node-name':'n','size':65536}}"
        "{'execute':'blockdev-create','arguments':{'job-id':'j','options':{'driver':'qcow2','file':'n',"
        "'size':65536}}}{'execute':'query-jobs'}{'execute':'job-dismiss','arguments':{'id':'j'}}",
        "{'execute':'blockdev-create','arguments':{'job-id':'j','options':{'driver':'file',"
        "'filename':'x','size':1}}}{'execute':'job-cancel','arguments':{'id':'j'}}",
        add % '' + "{'execute':'blockdev-add','arguments':{'driver':'qcow2','node-name':'o','file':{"
        "'driver':'file','filename':'image'},'backing':null}}{'execute':'blockdev-snapshot','arguments':"
        "{'node':'d','overlay':'o'}}{'execute':'relink-chain','arguments':{'device':'o','top':'d'}}",
        "{'execute':'blockdev-add','arguments':{'driver':'raw','node-name':'r','offset':512,'size':1024,"
        "'file':{'driver':'raw','file':{'driver':'file','filename':'base'}}}}",
        "{'execute':'query-version'}{'execute':'query-commands'}{'exec-oob':'query-version','id':1}",
        "{'execute':'query-qmp-schema'}", "{'execute':'nope'}", "{'execute':1}", "{'arguments':{}}", '[]',
        "{'execute':'qmp_capabilities'}{'execute':'qmp_capabilities'}", '{"execute":"quit"',
        "{'execute':'xen-watch-device','arguments':{'domid':1,'devid':2,'type':'qdisk','blocknode':'d'}}"
        "{'execute':'xen-unwatch-device','arguments':{'domid':1,'devid':2,'type':'qdisk'}}",
        "{'execute':'nbd-server-start','arguments':{'addr':{'type':'inet','data':{'host':'::','port':'1'"
        "}},'max-connections':0,'tls-creds':'t'}}", '\xff{"execute":"query-version"}', "nonsense\n{}"]
    for i, text in enumerate(texts):
        for mode in (1, 2) if i < 9 else (i % 3,):
            save('qmp', 'talk-%02d-%d' % (i, mode), bytes([mode]) + text.encode('latin-1'))


def img():
    good = dict(qcow2_good())
    chosen = ('some', 'v2', 'backing', 'snapshot', 'bitmap', 'compressed', 'lazy-dirty', 'data-file')
    for name in chosen:
        save('img', 'good-' + name, good[name])
    for name, image in extensions_hostile(good['some']):
        save('img', name, image)
    for name, image in header_hostile(good['backing']):
        if 'backing' in name or 'header' in name or 'cut' in name:
            save('img', name, image)
    full = Image(good['some']).extensions((0x12345678, 512 - 128, bytes(512 - 128)))
    save('img', 'no-room-for-a-name', full)
    save('img', 'raw', b'raw' * 400)


TARGETS = {'qmp': qmp, 'img': img, 'nbd': nbd, 'qcow2': qcow2, 'json': json_texts, 'keyval': keyval, 'filename': filename,
           'probe': probe}


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
