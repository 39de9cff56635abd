# SPDX-License-Identifier: GPL-2.0-or-later
"""Start a daemon (ours, or stock's qemu-storage-daemon as oracle) and speak QMP with it.

Programs: $QEMU_DP (default build/qemu-dp of this tree) and $QEMU_STORAGE_DAEMON (default
from PATH).  A test that needs the oracle and does not find it is skipped: exit 77.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OURS = os.environ.get('QEMU_DP', os.path.join(TREE, 'build', 'qemu-dp'))
STOCK = os.environ.get('QEMU_STORAGE_DAEMON', 'qemu-storage-daemon')
TIMEOUT = 90


def skip(reason):
    print('skipped: ' + reason)
    sys.exit(77)


def need_stock():
    if not shutil.which(STOCK):
        skip('no stock qemu-storage-daemon to compare with')


def need_sandbox():
    """--sandbox is optional at build time."""
    probe = subprocess.run([OURS, '--sandbox', 'on', '--chardev', 'stdio,id=c', '--monitor',
                            'c'], input='{"execute":"qmp_capabilities"}{"execute":"quit"}',
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                           timeout=120, check=False)
    if 'not supported' in probe.stderr:
        skip('built without libseccomp')


class Scratch:
    """A folder that goes away."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix='qdp-')
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def file(self, name):
        return os.path.join(self.path, name)


class Session:
    """One QMP connection. Lines are kept as they come; events are set aside."""

    def __init__(self, path, negotiate=True):
        self.sock = connect(path)
        self.sock.settimeout(TIMEOUT)
        self.file = self.sock.makefile('rb')
        self.events = []
        self.greeting = self.line()
        if negotiate:
            self.command('qmp_capabilities')

    def line(self):
        line = self.file.readline()
        if line and not line.endswith(b'\r\n'):
            raise AssertionError('no line end: %r' % line)
        return json.loads(line) if line else None

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def reply(self):
        """The next value that is no event; None at the end."""
        while True:
            value = self.line()
            if value is None or 'event' not in value:
                return value
            self.events.append(value)

    def raw(self, data):
        self.send(data)
        return self.reply()

    def command(self, name, /, **arguments):
        """Without a newline, as the clients send it."""
        request = {'execute': name}
        if arguments:
            request['arguments'] = {k.replace('_', '-') if k not in KEEP else k: v
                                    for k, v in arguments.items()}
        return self.raw(json.dumps(request))

    def event(self, name):
        """The next event of that name, waiting for it."""
        while True:
            for i, event in enumerate(self.events):
                if event['event'] == name:
                    return self.events.pop(i)
            value = self.line()
            if value is None:
                raise AssertionError('the end came before ' + name)
            self.events.append(value)

    def close(self):
        self.file.close()
        self.sock.close()


KEEP = set()


def connect(path):
    end = time.monotonic() + TIMEOUT
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            return sock
        except OSError:
            sock.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


class Daemon:
    """A daemon with one QMP socket (and --chardev/--monitor unless args say otherwise)."""

    def __init__(self, scratch, args=(), program=OURS, monitor=True, name='qmp', **popen):
        self.path = scratch.file(name)
        argv = [program]
        if monitor:
            argv += ['--chardev', 'socket,id=c,path=%s,server=on,wait=off' % self.path,
                     '--monitor', 'chardev=c']
        self.process = subprocess.Popen(argv + list(args), **popen)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise

    def session(self, **kw):
        return Session(self.path, **kw)

    def wait(self):
        return self.process.wait(TIMEOUT)


def without_times(value):
    if isinstance(value, dict):
        value = dict(value)
        value.pop('timestamp', None)
    return value


def answers(program, script, with_events=False):
    """The reply to each text of the script, by a fresh daemon; events of each, too."""
    with Scratch() as scratch, Daemon(scratch, program=program) as daemon:
        session = daemon.session(negotiate=False)
        out = []
        for text in script:
            reply = without_times(session.raw(text))
            events = []
            if with_events:
                events = [without_times(e) for e in session.events]
                session.events.clear()
            out.append((reply, events))
        session.close()
        return out


def same_as_stock(script, with_events=False, normal=lambda reply: reply):
    """Give the script to both; print what differs, and a count."""
    need_stock()
    stock = answers(STOCK, script, with_events)
    ours = answers(OURS, script, with_events)
    differ = 0
    for text, (a, a_events), (b, b_events) in zip(script, stock, ours):
        if normal(a) != normal(b) or a_events != b_events:
            differ += 1
            print('%s\n  stock: %s %s\n  ours:  %s %s' % (
                text, json.dumps(a), a_events or '', json.dumps(b), b_events or ''))
    print('%d requests, %d answered differently' % (len(script), differ))


def request(name, /, **arguments):
    return json.dumps({'execute': name, 'arguments': {
        k.replace('_', '-'): v for k, v in arguments.items()}})


def size(text):
    """A number of bytes, from 4k or 1M."""
    units = {'k': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)
