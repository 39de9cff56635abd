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
    """The tests that meson knows: counts, and what is to be said of those that failed."""
    patience = int(os.environ.get('CHECK_TIMEOUT', '300')) / 300
    subprocess.run(['meson', 'test', '-C', build, '--no-rebuild', '--print-errorlogs',
                    '--timeout-multiplier', '%g' % patience],
                   stdin=subprocess.DEVNULL, check=False)
    counts = [0, 0, 0]
    failures = []
    path = os.path.join(build, 'meson-logs', 'testlog.json')
    with open(path, encoding='utf-8') as log:
        for line in log:
            test = json.loads(line)
            kind = {'OK': 0, 'EXPECTEDFAIL': 0, 'SKIP': 2}.get(test['result'], 1)
            counts[kind] += 1
            if kind == 1:
                failures.append('%s: %s\n%s' % (test['name'], test['result'],
                                                test.get('stderr') or test.get('stdout', '')))
    return counts, failures


def io_tests(build):
    """tests/qemu-iotests: counts, and what is to be said of those that failed."""
    check = os.path.join(TREE, 'tests', 'qemu-iotests', 'check')
    run = subprocess.Popen([sys.executable, check, '--build', build],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    counts = None
    failures = []
    for line in run.stdout:
        match = SUMMARY.match(line.strip())
        if match:
            counts = [int(n) for n in match.groups()]
            continue
        sys.stdout.write(line)
        sys.stdout.flush()
        if re.match(r'\d{3} \S+ +fail ', line):
            failures.append(line)
        elif failures and not re.match(r'\d{3} \S+ +(pass|skip) ', line):
            failures[-1] += line
    status = run.wait()
    if counts is None:
        print('tests/qemu-iotests/check ended without a summary')
        return [0, 1, 0], failures
    if status and not counts[1]:
        counts[1] += 1
    return counts, failures


def recall(failures):
    """What failed, once more and short: whoever reads a log's end reads this."""
    for failure in failures:
        lines = failure.rstrip().split('\n')
        print('FAILED ' + '\n'.join(line[:200] for line in lines[:25]))
        if len(lines) > 25:
            print('  ... %d more lines above' % (len(lines) - 25))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--build', default='build')
    args = parser.parse_args()
    build = os.path.abspath(args.build)
    parts = [unit_tests(build), io_tests(build)]
    totals = [sum(numbers) for numbers in zip(*(counts for counts, _ in parts))]
    recall([failure for _, failures in parts for failure in failures])
    print('%d passed, %d failed, %d skipped' % tuple(totals))
    return 1 if totals[1] or not totals[0] else 0


if __name__ == '__main__':
    sys.exit(main())
