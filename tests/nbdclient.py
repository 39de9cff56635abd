# SPDX-License-Identifier: GPL-2.0-or-later
"""A raw NBD client for tests: says what it is told to, nonsense included.

It shares no code with the server. Nothing here judges: replies come back as they are.
"""
import socket
import struct
import time

NBDMAGIC = b'NBDMAGIC'
IHAVEOPT = b'IHAVEOPT'
REP_MAGIC = 0x0003e889045565a9
REQUEST, SIMPLE, STRUCTURED = 0x25609513, 0x67446698, 0x668e33ef
FIXED, NO_ZEROES = 1, 2

(OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO, OPT_STRUCTURED,
 OPT_LIST_META, OPT_SET_META) = 1, 2, 3, 5, 6, 7, 8, 9, 10
REP = {1: 'ACK', 2: 'SERVER', 3: 'INFO', 4: 'META_CONTEXT', 0x80000001: 'ERR_UNSUP',
       0x80000002: 'ERR_POLICY', 0x80000003: 'ERR_INVALID', 0x80000006: 'ERR_UNKNOWN',
       0x80000009: 'ERR_TOO_BIG'}
(READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS) = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
ERRORS = {0: 'ok', 1: 'EPERM', 5: 'EIO', 12: 'ENOMEM', 22: 'EINVAL', 28: 'ENOSPC',
          75: 'EOVERFLOW', 95: 'ENOTSUP', 108: 'ESHUTDOWN'}


def option(code, data=b'', magic=IHAVEOPT, length=None):
    return magic + struct.pack('>II', code, len(data) if length is None else length) + data


def info_data(name, infos=()):
    raw = name.encode()
    return (struct.pack('>I', len(raw)) + raw + struct.pack('>H', len(infos)) +
            b''.join(struct.pack('>H', i) for i in infos))


def meta_data(name, queries=('base:allocation',)):
    raw = name.encode()
    ret = struct.pack('>I', len(raw)) + raw + struct.pack('>I', len(queries))
    for query in queries:
        ret += struct.pack('>I', len(query)) + query.encode()
    return ret


def request(kind, offset=0, length=0, flags=0, cookie=0, data=b'', magic=REQUEST):
    return struct.pack('>IHHQQI', magic, flags, kind, cookie, offset,
                       length or len(data)) + data


class Closed(Exception):
    """The server ended the connection."""


class Reply:
    """All chunks of the reply to one request."""

    def __init__(self, cookie):
        self.cookie = cookie
        self.error = 0
        self.text = ''
        self.chunks = []  # (type, payload); simple replies have none
        self.data = {}    # offset: bytes, holes expanded
        self.extents = {} # context id: [(length, flags)]

    def read(self):
        return b''.join(self.data[o] for o in sorted(self.data))

    def __str__(self):
        return ERRORS.get(self.error, str(self.error))


class Client:
    def __init__(self, path=None, host=None, timeout=20):
        if path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(path)  # waits while the backlog is full
            self.sock.settimeout(timeout)
        else:
            self.sock = socket.create_connection(host, timeout)
        self.buf = b''
        self.structured = False
        self.size = self.flags = None
        self.pending = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError as err:
            raise Closed from err

    def take(self, size):
        while len(self.buf) < size:
            try:
                piece = self.sock.recv(max(65536, size - len(self.buf)))
            except (ConnectionResetError, BrokenPipeError) as err:
                raise Closed from err
            if not piece:
                raise Closed
            self.buf += piece
        ret, self.buf = self.buf[:size], self.buf[size:]
        return ret

    def closed(self, timeout=5):
        """Did the server close (whatever it said before)?"""
        self.sock.settimeout(timeout)
        try:
            while self.sock.recv(65536):
                pass
            return True
        except socket.timeout:
            return False
        except OSError:
            return True

    # ---- handshake ----

    def greet(self, flags=FIXED | NO_ZEROES):
        hello = self.take(18)
        assert hello[:16] == NBDMAGIC + IHAVEOPT, hello
        self.send(struct.pack('>I', flags))
        return struct.unpack('>H', hello[16:])[0]

    def replies(self, code):
        """The replies to one option up to the last: [(name of the type, data)]"""
        ret = []
        while True:
            magic, opt, kind, length = struct.unpack('>QIII', self.take(20))
            assert (magic, opt) == (REP_MAGIC, code), (hex(magic), opt)
            data = self.take(length)
            ret.append((REP.get(kind, hex(kind)), data))
            if kind == 1 or kind & 0x80000000:
                return ret

    def option(self, code, data=b''):
        self.send(option(code, data))
        return self.replies(code)

    def go(self, name, structured=False, contexts=(), flags=FIXED | NO_ZEROES):
        """The whole handshake by GO."""
        self.greet(flags)
        if structured or contexts:
            assert self.option(OPT_STRUCTURED) == [('ACK', b'')]
            self.structured = True
        if contexts:
            assert self.option(OPT_SET_META, meta_data(name, contexts))[-1][0] == 'ACK'
        got = self.option(OPT_GO, info_data(name))
        if got[-1][0] != 'ACK':
            raise RuntimeError(got[-1])
        for kind, data in got:
            if kind == 'INFO' and data[:2] == b'\0\0':
                self.size, self.flags = struct.unpack('>QH', data[2:])
        return self

    def export_name(self, name, flags=FIXED | NO_ZEROES):
        self.greet(flags)
        self.send(option(OPT_EXPORT_NAME, name.encode()))
        self.size, self.flags = struct.unpack('>QH', self.take(10))
        return self if flags & NO_ZEROES else self.take(124)

    # ---- transmission ----

    def expect(self, kind, cookie, length=0):
        self.pending[cookie] = (kind, length)

    def reply(self):
        """The next reply to any request that was announced by expect()."""
        partial = {}
        while True:
            magic = struct.unpack('>I', self.take(4))[0]
            if magic == SIMPLE:
                error, cookie = struct.unpack('>IQ', self.take(12))
                kind, length = self.pending.pop(cookie)
                ret = Reply(cookie)
                ret.error = error
                if kind == READ and not error:
                    assert not self.structured, 'simple reply to a structured read'
                    ret.data[0] = self.take(length)
                return ret
            assert magic == STRUCTURED, hex(magic)
            flags, kind, cookie, length = struct.unpack('>HHQI', self.take(16))
            payload = self.take(length)
            ret = partial.setdefault(cookie, Reply(cookie))
            self._chunk(ret, kind, payload)
            if flags & 1:
                self.pending.pop(cookie)
                return ret

    @staticmethod
    def _chunk(ret, kind, payload):
        ret.chunks.append((kind, payload))
        if kind == 1:
            ret.data[struct.unpack('>Q', payload[:8])[0]] = payload[8:]
        elif kind == 2:
            offset, length = struct.unpack('>QI', payload)
            ret.data[offset] = bytes(length)
        elif kind == 5:
            context = struct.unpack('>I', payload[:4])[0]
            ret.extents[context] = list(struct.iter_unpack('>II', payload[4:]))
        elif kind & 0x8000:
            ret.error, n = struct.unpack('>IH', payload[:6])
            ret.text = payload[6:6 + n].decode()
        else:
            assert kind == 0, kind

    def do(self, kind, offset=0, length=0, flags=0, data=b'', cookie=1):
        self.expect(kind, cookie, length)
        self.send(request(kind, offset, length, flags, cookie, data))
        return self.reply()

    def read(self, offset, length):
        got = self.do(READ, offset, length)
        assert not got.error, got
        return got.read()

    def write(self, offset, data, flags=0):
        got = self.do(WRITE, offset, data=data, flags=flags)
        assert not got.error, got

    def status(self, offset, length, flags=0):
        got = self.do(BLOCK_STATUS, offset, length, flags)
        assert not got.error, got
        assert len(got.extents) == 1, got.extents
        return list(got.extents.values())[0]


def wait_for(condition, seconds=5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
