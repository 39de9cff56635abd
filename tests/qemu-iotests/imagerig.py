# SPDX-License-Identifier: GPL-2.0-or-later
"""Run our qemu-img and qemu-io, and stock's as oracles, on images in the scratch folder.

Ours: $QEMU_IMG, $QEMU_IO (check sets them). Stock: $STOCK_QEMU_IMG, $STOCK_QEMU_IO, else
those in PATH; a test that needs them and does not find them is skipped: exit 77.
Whatever a program prints has its speeds made equal and the scratch folder's name removed,
so that the output of two programs, or of two runs, can be compared.
"""

import os
import random
import re
import shutil
import subprocess
import sys

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TIMEOUT = 120
DIR = os.environ.get('TEST_DIR', os.getcwd())


def ours(name):
    default = os.path.join(TREE, 'build', name)
    return os.environ.get(name.upper().replace('-', '_'), default)


def stock(name):
    return os.environ.get('STOCK_' + name.upper().replace('-', '_')) or shutil.which(name)


IMG, IO, STOCK_IMG, STOCK_IO = ours('qemu-img'), ours('qemu-io'), stock('qemu-img'), stock('qemu-io')


def skip(reason):
    print('skipped: ' + reason)
    sys.exit(77)


def need_stock():
    if not STOCK_IMG or not STOCK_IO:
        skip('no stock qemu-img and qemu-io to compare with')


class Result:
    """Exit status, and what was printed where."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def text(self):
        return 'exit %d\n%s%s' % (self.code, self.out, self.err)

    def __eq__(self, other):
        return self.text() == other.text()


SPEED = re.compile(r'\d+ ops; [0-9:.]+( sec)? \([^)]*\)')


def tidy(text):
    text = text.replace(DIR + '/', '')
    text = re.sub(r'^[^ ]*/(qemu-img|qemu-io):', r'\1:', text, flags=re.M)
    return SPEED.sub(lambda m: m.group(0).split()[0] + ' ops; SPEED', text)


def run(*command, env=None, stdin=None):
    source = {'stdin': subprocess.DEVNULL} if stdin is None else {'input': stdin}
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=TIMEOUT, text=True, check=False,
                          errors='replace', env=dict(os.environ, **(env or {})), **source)
    if done.returncode < 0 or 'Sanitizer' in done.stderr or 'runtime error:' in done.stderr:
        raise AssertionError('%s died: %d\n%s' % (' '.join(map(str, command)), done.returncode, done.stderr))
    return Result(done.returncode, tidy(done.stdout), tidy(done.stderr))


def must(*command, **kw):
    """Run what has to succeed; its output."""
    result = run(*command, **kw)
    if result.code:
        raise AssertionError('%s\n%s' % (' '.join(map(str, command)), result.text()))
    return result.out


def io_command(program, image, commands, options=()):
    line = [program, *options]
    for c in commands:
        line += ['-c', c]
    return line + [image]


def io(program, image, *commands, options=(), env=None):
    """qemu-io with these commands; all of them must succeed."""
    return must(*io_command(program, image, commands, options), env=env)


def check(image, want=0, programs=None):
    """Both checkers give this verdict (0 clean, 2 corrupt, 3 leaks)."""
    for program in programs or (STOCK_IMG, IMG):
        result = run(program, 'check', image)
        if result.code != want:
            raise AssertionError('%s check %s: not %d\n%s' % (program, image, want,
                                                              result.text()))


def equal_images(a, b, *options):
    """Stock and ours agree that two images hold the same."""
    for program in (STOCK_IMG, IMG):
        result = run(program, 'compare', *options, a, b)
        if result.code:
            raise AssertionError('%s compare %s %s\n%s' % (program, a, b, result.text()))


def compare_runs(what, *args, program='qemu-img', setup=None, tweak=None, quiet=False):
    """Run stock and ours with the same arguments; print what differs, or "same"."""
    results = []
    for path in ((STOCK_IMG, IMG) if program == 'qemu-img' else (STOCK_IO, IO)):
        if setup:
            setup()
        result = run(path, *args)
        text = result.text()
        results.append(tweak(text) if tweak else text)
    if results[0] != results[1]:
        print('%s: differs\n--- stock\n%s\n--- ours\n%s' % (what, *results))
        return False
    if not quiet:
        print('%s: same' % what)
    return True


class Shadow:
    """The bytes an image should hold, and a random workload for it."""

    def __init__(self, image, size, seed, backing=None):
        self.image, self.size = image, size
        self.bytes = bytearray(backing or b'')[:size].ljust(size, b'\0')
        self.random = random.Random(seed)

    def command(self, kinds, align, longest):
        r = self.random
        kind = r.choice(kinds)
        offset = r.randrange(0, self.size // align) * align
        length = min(r.randrange(1, longest // align + 1) * align, self.size - offset)
        if length == 0:
            offset, length = 0, min(align, self.size)
        if kind.split()[0] in ('write', 'aio_write', 'writev') and '-z' not in kind:
            byte = r.randrange(1, 256)
            self.bytes[offset:offset + length] = bytes([byte]) * length
            kind += ' -P %d' % byte
            if kind.startswith('writev') and length >= 2 * align:
                half = length // 2 // align * align
                return '%s -q %d %d %d' % (kind, offset, half, length - half)
        elif '-z' in kind:
            self.bytes[offset:offset + length] = bytes(length)
        return '%s -q %d %d' % (kind, offset, length)

    def work(self, program, count, kinds=('write', 'write', 'writev', 'write -z', 'write -z -u'),
             align=512, longest=1 << 17, options=(), env=None):
        """@count random commands in one run of @program."""
        io(program, self.image, *[self.command(kinds, align, longest) for _ in range(count)],
           options=options, env=env)

    def verify(self, *programs, options=()):
        """Each program reads back all of it, equal to the shadow."""
        with open('shadow.raw', 'wb') as f:
            f.write(self.bytes)
        fmt = options and ['-f', options[1]] or []
        for program in programs or (STOCK_IMG, IMG):
            result = run(program, 'compare', '-U', *fmt, '-F', 'raw', self.image, 'shadow.raw')
            if result.code:
                raise AssertionError('%s compare with the shadow:\n%s' % (program,
                                                                          result.text()))
