#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""make run: start qemu-dp, configure it over QMP in plain view, serve a disk over NBD."""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time


class Qmp:
    """A QMP session that shows what it says and hears."""

    def __init__(self, path):
        deadline = time.monotonic() + 5
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                self.sock.connect(path)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self.file = self.sock.makefile('r', encoding='utf-8')
        print('  <- ' + self.file.readline().strip())
        self.command('qmp_capabilities')

    def command(self, name, arguments=None):
        message = {'execute': name}
        if arguments:
            message['arguments'] = arguments
        text = json.dumps(message)
        print('  -> ' + text)
        self.sock.sendall(text.encode())
        while True:
            line = self.file.readline()
            if not line:
                sys.exit('qemu-dp closed the QMP connection')
            print('  <- ' + line.strip())
            reply = json.loads(line)
            if 'error' in reply:
                sys.exit('qemu-dp refused: ' + reply['error']['desc'])
            if 'return' in reply:
                return reply['return']


def image_format(path):
    with open(path, 'rb') as image:
        return 'qcow2' if image.read(4) == b'QFI\xfb' else 'raw'


def load(uri):
    """A short verified load from outside: write, read back, compare."""
    data = os.urandom(8 << 20)
    if not shutil.which('nbdcopy'):
        print('  (nbdcopy is not installed: no load)')
        return
    with tempfile.NamedTemporaryFile() as before, tempfile.NamedTemporaryFile() as after:
        before.write(data)
        before.flush()
        start = time.monotonic()
        subprocess.run(['nbdcopy', '--flush', before.name, uri], check=True)
        subprocess.run(['nbdcopy', uri, after.name], check=True)
        took = time.monotonic() - start
        with open(after.name, 'rb') as back:
            if back.read(len(data)) != data:
                sys.exit('DATA MISMATCH')
    print('  8 MiB written, flushed, read back and compared in %.2f s' % took)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--build', default='build')
    parser.add_argument('--image')
    parser.add_argument('--once', action='store_true')
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    home = tempfile.mkdtemp(prefix='qemu-dp-run-')
    qmp_path = os.path.join(home, 'qmp.sock')
    nbd_path = os.path.join(home, 'nbd.sock')
    image = os.path.abspath(args.image) if args.image else os.path.join(home, 'disk.qcow2')
    if not args.image:
        create = os.path.join(build, 'qemu-img')
        if not os.path.exists(create):
            create = 'qemu-img'
        print('$ qemu-img create -f qcow2 %s 10G' % image)
        subprocess.run([create, 'create', '-q', '-f', 'qcow2', image, '10G'], check=True)
    print('$ qemu-dp --qmp unix:%s' % qmp_path)
    daemon = subprocess.Popen([os.path.join(build, 'qemu-dp'), '--qmp', 'unix:' + qmp_path])
    try:
        qmp = Qmp(qmp_path)
        qmp.command('blockdev-add', {
            'driver': image_format(image), 'node-name': 'disk', 'discard': 'unmap',
            'file': {'driver': 'file', 'filename': image}})
        qmp.command('nbd-server-start', {'addr': {'type': 'unix', 'data': {'path': nbd_path}}})
        qmp.command('nbd-server-add', {'device': 'disk', 'writable': True})
        uri = 'nbd+unix:///disk?socket=' + nbd_path
        if not args.image:
            print('a short load:')
            load(uri)
        print('\nServing %s' % image)
        print('  QMP socket  %s' % qmp_path)
        print('  NBD URI     %s' % uri)
        print('  try         nbdinfo "%s"' % uri)
        print('              nbdcopy "%s" - | md5sum' % uri)
        print('              qemu-img info "%s"' % uri)
        if not args.once:
            print('Ctrl-C ends it.')
            signal.pause()
    except KeyboardInterrupt:
        print()
    finally:
        try:
            Qmp(qmp_path).command('quit')
            daemon.wait(10)
        except (OSError, subprocess.TimeoutExpired, SystemExit):
            daemon.kill()
        shutil.rmtree(home, ignore_errors=True)
    print('qemu-dp ended with status %d' % daemon.returncode)
    return 1 if daemon.returncode else 0


if __name__ == '__main__':
    sys.exit(main())
