# SPDX-License-Identifier: GPL-2.0-or-later
"""A small NBD client that shares no code with ours or with stock."""

import struct

import qmpdaemon as q

READ, WRITE, DISCONNECT, FLUSH, TRIM = range(5)


class Nbd:
    """Just enough of the NBD protocol: EXPORT_NAME, read, write, flush; one at a time."""

    def __init__(self, path, export):
        self.sock = q.connect(path)
        self.sock.settimeout(q.TIMEOUT)
        assert self.take(16) == b'NBDMAGICIHAVEOPT'
        self.take(2)
        self.sock.sendall(struct.pack('>I8sII', 1, b'IHAVEOPT', 1, len(export))
                          + export.encode())
        self.size, self.flags = struct.unpack('>QH', self.take(10))
        self.take(124)
        self.handle = 0

    def take(self, size):
        data = b''
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def request(self, command, offset=0, size=0, data=b''):
        self.handle += 1
        self.sock.sendall(struct.pack('>IHHQQI', 0x25609513, 0, command, self.handle,
                                      offset, size or len(data)) + data)
        magic, error, handle = struct.unpack('>IIQ', self.take(16))
        assert (magic, handle) == (0x67446698, self.handle)
        if error:
            raise OSError(error, 'NBD command %d' % command)
        return self.take(size) if command == 0 else b''
