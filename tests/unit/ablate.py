#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A switch of the catalogue is off: everything is as right as with it on.

    ablate.py BUILD SWITCH [SEEDS]

1. The simulation: the same seeds, power cuts included, keep every promise.
2. One workload, with the switch on and off, on three images: the guest's bytes and the map
   (what is data, what is zero, from which layer) are equal, and check finds nothing.
3. Some of the numbered tests pass.
SWITCH may be "all"."""

import json
import os
import random
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
IOTESTS = ['106', '134', '305']
SIZE = 24 << 20


def run(*cmd, env=None, timeout=280):
    done = subprocess.run(cmd, env=dict(os.environ, **(env or {})), timeout=timeout, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        print(done.stdout[-3000:])
        sys.exit('%s: status %d' % (' '.join(cmd), done.returncode))
    return done.stdout


def workload(seed):
    """qemu-io commands: writes of all sizes, zeroes, discards, flushes, several in flight."""
    rng = random.Random(seed)
    commands = []
    for i in range(160):
        at = rng.randrange(SIZE // 512) * 512
        size = min(rng.choice((512, 4096, 4096, 65536, 200704, 1 << 20)), SIZE - at)
        kind = rng.random()
        if kind < 0.6:
            commands.append('aio_write -q -P %d %d %d' % (1 + i % 255, at, size))
            if rng.random() < 0.4: # what overlaps in flight has no order
                commands.append('aio_flush')
        elif kind < 0.7:
            commands += ['aio_flush', 'write -q -z %d %d' % (at, size)]
        elif kind < 0.8:
            commands += ['aio_flush', 'discard -q %d %d' % (at, size)]
        elif kind < 0.9:
            commands += ['aio_flush', 'flush']
        else:
            commands += ['aio_flush', 'write -q -P %d %d %d' % (1 + i % 255, at, size)]
    return separate(commands) + ['aio_flush', 'flush']


def separate(commands):
    """Wait before a write that overlaps one in flight: which wins is nobody's promise."""
    out, flying = [], []
    for c in commands:
        words = c.split()
        if words[0] == 'aio_flush':
            flying = []
        elif words[0] == 'aio_write':
            at, size = int(words[-2]), int(words[-1])
            if any(at < b + n and b < at + size for b, n in flying):
                out.append('aio_flush')
                flying = []
            flying.append((at, size))
        out.append(c)
    return out


def result(tools, folder, name, options, base, env):
    """What the workload leaves behind on a new image: map without places, and bytes."""
    img = os.path.join(folder, name)
    backing = ['-b', base, '-F', 'raw'] if base else []
    run(tools['qemu-img'], 'create', '-q', '-f', 'qcow2', '-o', options, *backing, img,
        str(SIZE))
    script = '\n'.join(workload(name)) + '\n'
    done = subprocess.run([tools['qemu-io'], '-d', 'unmap', '-f', 'qcow2', img], input=script,
                          text=True, env=dict(os.environ, **env), timeout=280, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode or 'rror' in done.stdout or 'failed' in done.stdout:
        sys.exit('workload on %s: %s' % (name, done.stdout[-2000:]))
    run(tools['qemu-img'], 'check', '-q', img)
    entries = json.loads(run(tools['qemu-img'], 'map', '--output=json', img))
    shape = []
    for e in entries: # neighbours that differ by their place alone are one
        key = [e['depth'], e['zero'], e['data']]
        if shape and shape[-1][2] == key and shape[-1][0] + shape[-1][1] == e['start']:
            shape[-1][1] += e['length']
        else:
            shape.append([e['start'], e['length'], key])
    raw = img + '.raw'
    run(tools['qemu-img'], 'convert', '-O', 'raw', img, raw)
    with open(raw, 'rb') as f:
        data = f.read()
    os.unlink(raw)
    return shape, data


def compare(tools, switch):
    with tempfile.TemporaryDirectory(
            dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else None) as folder:
        base = os.path.join(folder, 'base')
        with open(base, 'wb') as f:
            f.write(random.Random(1).randbytes(SIZE // 2))
        for options, below in (('cluster_size=64k', None), ('cluster_size=2M', None),
                               ('cluster_size=4k', base), ('cluster_size=512k', base)):
            name = options + ('-backed' if below else '')
            same = []
            for env in ({'QDP_ABLATE': ''}, {'QDP_ABLATE': switch}):
                same.append(result(tools, folder, name, options, below, env))
                os.unlink(os.path.join(folder, name))
            if same[0][1] != same[1][1]:
                sys.exit(f'{name}: the bytes differ with {switch} off')
            if same[0][0] != same[1][0]:
                sys.exit(f'{name}: the maps differ with {switch} off:\n{same[0][0]}\n'
                         f'{same[1][0]}')


def main():
    build, switch = sys.argv[1:3]
    seeds = sys.argv[3] if len(sys.argv) > 3 else '60'
    tools = {t: os.path.join(build, 'qdp/tool', t) for t in ('qemu-img', 'qemu-io')}
    off = {'QDP_ABLATE': switch}
    if subprocess.run([tools['qemu-img'], '--version'], env=dict(os.environ, QDP_ABLATE='no'),
                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                      check=False).returncode == 0:
        sys.exit('an unknown switch was not refused')
    print(run(os.path.join(build, 'tests/sim/crash'), '--seeds', seeds, '--seed-base', '77000',
              env=off).strip().split('\n')[-1])
    compare(tools, switch)
    print(run(os.path.join(ROOT, 'tests/qemu-iotests/check'), '--build', build, '-qcow2',
              *IOTESTS, env=off).strip().split('\n')[-1])


if __name__ == '__main__':
    main()
