#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run every test there is and close with one line: N passed, N failed, N skipped."""

import argparse
import json
import os
import re
import subprocess
import sys

TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SUMMARY = re.compile(r'^(\d+) passed, (\d+) failed, (\d+) skipped$')


def unit_tests(build):
    """The tests that meson knows; prints those that did not pass."""
    subprocess.run(['meson', 'test', '-C', build, '--no-rebuild', '--print-errorlogs'],
                   stdin=subprocess.DEVNULL, check=False)
    counts = [0, 0, 0]
    path = os.path.join(build, 'meson-logs', 'testlog.json')
    with open(path, encoding='utf-8') as log:
        for line in log:
            result = json.loads(line)['result']
            counts[0 if result in ('OK', 'EXPECTEDFAIL') else 2 if result == 'SKIP' else 1] += 1
    return counts


def io_tests(build):
    """tests/qemu-iotests."""
    check = os.path.join(TREE, 'tests', 'qemu-iotests', 'check')
    run = subprocess.Popen([sys.executable, check, '--build', build],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    counts = None
    for line in run.stdout:
        match = SUMMARY.match(line.strip())
        if match:
            counts = [int(n) for n in match.groups()]
        else:
            sys.stdout.write(line)
            sys.stdout.flush()
    status = run.wait()
    if counts is None:
        print('tests/qemu-iotests/check ended without a summary')
        return [0, 1, 0]
    if status and not counts[1]:
        counts[1] += 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--build', default='build')
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    totals = [a + b for a, b in zip(unit_tests(build), io_tests(build))]
    print('%d passed, %d failed, %d skipped' % tuple(totals))
    return 1 if totals[1] or not totals[0] else 0


if __name__ == '__main__':
    sys.exit(main())
