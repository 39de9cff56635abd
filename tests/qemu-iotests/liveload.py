# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest: random requests over NBD against a shadow copy, in a thread of its own."""

import random
import threading

from nbdsocket import Nbd

BLOCK = 4096


class Load(threading.Thread):
    """Random writes, reads and flushes against a shadow copy."""

    def __init__(self, path, seed, export='qemu_node', contents=None):
        super().__init__()
        self.nbd = Nbd(path, export)
        self.size = self.nbd.size
        self.shadow = bytearray(contents or self.size)
        self.random = random.Random(seed)
        self.stop, self.error, self.count = threading.Event(), None, 0
        self.idle = threading.Event()

    def step(self):
        offset = self.random.randrange(self.size // BLOCK) * BLOCK
        size = min(BLOCK * self.random.choice((1, 1, 1, 4, 32)), self.size - offset)
        what = self.random.randrange(10)
        if what < 6:
            data = bytes([self.random.randrange(1, 256)]) * size
            self.nbd.request(1, offset, data=data)
            self.shadow[offset:offset + size] = data
        elif what < 9:
            if self.nbd.request(0, offset, size) != self.shadow[offset:offset + size]:
                raise AssertionError('wrong data at %d' % offset)
        else:
            self.nbd.request(3)
        self.count += 1

    def run(self):
        try:
            while not self.stop.is_set():
                self.step()
        except Exception as error:  # told by the main thread
            self.error = error

    def progress(self, operations):
        """Wait until so many more operations are done."""
        end = self.count + operations
        while self.count < end and not self.error:
            self.join(0.01)

    def verify_all(self):
        for offset in range(0, self.size, 1 << 20):
            assert self.nbd.request(0, offset, 1 << 20) == self.shadow[offset:
                                                                        offset + (1 << 20)]
