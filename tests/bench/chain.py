#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a layer of a backing chain costs: random reads through chains of several lengths.

Each layer is thin: one cluster of every 64 is its own, so that all tables exist and 98 % of
the reads go down to the lowest layer, where every cluster is mapped. Data are holes.
Ours, ours with a switch off (--off), and stock, in turn; medians over the rounds.

    tests/bench/chain.py --build build --lengths 0,10,30,60 --off map-flat
"""
import argparse
import json
import os
import statistics
import subprocess

import rig


def chain(the_rig, scatter, size, layers):
    """The path of the top of a chain with so many layers above the lowest."""
    below = the_rig.path('base-%s' % size)
    if not os.path.exists(below):
        rig.run(scatter, 'B', below, size)
    for i in range(layers):
        path = the_rig.path('layer-%s-%d' % (size, i))
        if not os.path.exists(path):
            rig.run(scatter, 'A', path, size)
            rig.run('qemu-img', 'rebase', '-u', '-b', below, '-F', 'qcow2', path)
        below = path
    return below


def one(args, program, extra, image):
    options = rig.blockdev(image, 'chain', 'native')
    with rig.Daemon(program, options, extra=extra) as daemon:
        # all tables of all layers: 128 KiB reach beyond the top layer's own cluster
        rig.run(args.nbdload, '--rw', 'read', '--order', 'once', '--bs', '128k', '--step', '32M',
                '--depth', '8', daemon.nbd, 'disk')
        done = subprocess.run([args.nbdload, '--pid', str(daemon.pid), '--bs', '4k', '--order',
                               'random', '--rw', args.rw, '--depth', '32', '--seconds',
                               str(args.seconds), '--warmup', str(args.warmup), daemon.nbd,
                               'disk'],
                              stdout=subprocess.PIPE, timeout=120, check=True)
    got = json.loads(done.stdout)
    return got['iops'] / 1e3, got['server_cpu_us_per_op']


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--build', default='build')
    parser.add_argument('--lengths', default='0,1,10,30,60')
    parser.add_argument('--sizes', default='16G,64G')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=0.7)
    parser.add_argument('--warmup', type=float, default=0.3)
    parser.add_argument('--rw', default='read')
    parser.add_argument('--off', help='also ours with this switch off')
    parser.add_argument('--no-stock', action='store_true')
    args = parser.parse_args()
    args.nbdload = os.path.join(args.build, 'tests/bench/nbdload')
    scatter = os.path.join(args.build, 'tests/bench/scatter')
    ours = os.path.join(args.build, 'qdp/qemu-dp')
    peers = [('ours', ours, [])]
    if args.off:
        peers.append((args.off + ' off', ours, ['--ablate', args.off]))
    if not args.no_stock:
        peers.append(('stock', 'qemu-storage-daemon', []))
    the_rig = rig.Rig()
    try:
        print('| size | layers | ' + ' | '.join('%s: k IOPS, CPU us' % p[0] for p in peers) + ' |')
        print('|---' * (2 + len(peers)) + '|')
        for size in args.sizes.split(','):
            for layers in map(int, args.lengths.split(',')):
                image = chain(the_rig, scatter, size, layers)
                found = [[] for _ in peers]
                for _ in range(args.rounds):
                    for i, (_, program, extra) in enumerate(peers):
                        found[i].append(one(args, program, extra, image))
                cells = ['%.0f, %.2f' % tuple(map(statistics.median, zip(*f))) for f in found]
                print('| %s | %d | %s |' % (size, layers, ' | '.join(cells)), flush=True)
    finally:
        the_rig.close()


if __name__ == '__main__':
    main()
