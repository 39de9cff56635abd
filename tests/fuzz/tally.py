#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run one libFuzzer program and tell how far it came, in processor time.

    tally.py [--quiet MINUTES] [--least MINUTES] NAME PROGRAM ARGUMENT...

The program's lines are kept in NAME.log; the last line printed is

    NAME: 31.2 CPU min, 1234567 executions, cov 7649, ft 32685, last new edge 12.3 CPU min ago

With --quiet the program is stopped (which is no failure) once it has used --least minutes
of processor time and found no new edge in the last --quiet ones: clocks on the wall say
nothing on a shared machine. Ends with the program's status, or 1 when it failed."""

import argparse
import os
import re
import signal
import subprocess
import sys

FAILURE = re.compile(r'SUMMARY|does not hold|runtime error|ERROR')
STATUS = re.compile(r'^#(\d+)\s.*\bcov: (\d+) ft: (\d+)')
TICKS = os.sysconf('SC_CLK_TCK')


def cpu_minutes(pid):
    try:
        with open(f'/proc/{pid}/stat', encoding='ascii') as f:
            fields = f.read().rpartition(')')[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / TICKS / 60


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    p.add_argument('--quiet', type=float, default=0)
    p.add_argument('--least', type=float, default=0)
    p.add_argument('name')
    p.add_argument('program')
    p.add_argument('arguments', nargs=argparse.REMAINDER)
    a = p.parse_args()
    executions = cov = ft = 0
    used = newest = 0.0
    failed = stopped = False
    with open(a.name + '.log', 'w', encoding='utf-8') as log, subprocess.Popen(
            [a.program, *a.arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors='replace') as fuzzer:
        for line in fuzzer.stdout:
            log.write(line)
            used = cpu_minutes(fuzzer.pid) or used
            m = STATUS.match(line)
            if m:
                executions, edges, ft = (int(g) for g in m.groups())
                if edges > cov:
                    cov, newest = edges, used
            elif FAILURE.search(line):
                failed = True
                print(line, end='', flush=True)
            if (a.quiet and not stopped and used >= a.least
                    and used - newest >= a.quiet):
                stopped = True
                fuzzer.send_signal(signal.SIGINT)
    print(f'{os.path.basename(a.name)}: {used:.1f} CPU min, {executions} executions, '
          f'cov {cov}, ft {ft}, last new edge {used - newest:.1f} CPU min ago', flush=True)
    sys.exit(1 if failed else 0 if stopped else fuzzer.returncode)


if __name__ == '__main__':
    main()
