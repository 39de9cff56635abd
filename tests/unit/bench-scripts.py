#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark's scripts: bench-scripts.py BUILD. What they say of what was measured, not
the measuring: cells and targets agree, stacks become boxes of the right width, a table goes
between its page's markers and nowhere else."""

import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.path.join(os.path.dirname(HERE), 'bench')
sys.path.insert(0, BENCH)
sys.dont_write_bytecode = True

import bench  # noqa: E402  pylint: disable=wrong-import-position
import cells  # noqa: E402  pylint: disable=wrong-import-position
import flamegraph  # noqa: E402  pylint: disable=wrong-import-position
import on_off  # noqa: E402  pylint: disable=wrong-import-position

SCRIPT = """qemu-dp  1 1.0:  1 cpu-clock:
\t    55 inner+0x1 (/usr/bin/x)
\t    66 middle+0x22 (/usr/bin/x)
\t    77 [unknown] (/usr/bin/x)
\t    78 [unknown] (/usr/bin/x)

qemu-dp  1 1.1:  1 cpu-clock:
\t    99 do_read+0x3 ([kernel.kallsyms])
\t    66 middle+0x22 (/usr/bin/x)
\t    77 [unknown] (/usr/bin/x)

qemu-dp  1 1.1:  1 cpu-clock:
\t    99 do_read+0x3 ([kernel.kallsyms])
\t    66 middle+0x22 (/usr/bin/x)
\t    77 [unknown] (/usr/bin/x)
"""


def test_cells():
    names = [c.name for c in cells.CELLS]
    assert len(names) == len(set(names))
    wanted = [t.cell for t in cells.TARGETS] + cells.QUICK + [c for a in cells.AGAINST
                                                              for c in a[1:3]]
    assert all(w in names for w in wanted), [w for w in wanted if w not in names]
    out = subprocess.run([sys.executable, os.path.join(BENCH, 'bench.py'), '--list', '--cells',
                          'null-*'], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert out.split() == [n for n in names if n.startswith('null-')]


def test_flamegraph():
    stacks = flamegraph.fold(SCRIPT)
    assert stacks == {('[unknown]', 'middle', 'inner'): 1,
                      ('[unknown]', 'middle', 'do_read_[k]'): 2}, stacks
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, 'out.svg')
        flamegraph.draw(flamegraph.tree_of(stacks), 'a <title>', out)
        with open(out, encoding='utf-8') as f:
            svg = f.read()
    boxes = dict(re.findall(r'<title>(\S+) \((\d+) samples', svg))
    assert boxes == {'all': '3', '[unknown]': '3', 'middle': '3', 'inner': '1',
                     'do_read': '2'}, boxes
    assert 'a &lt;title&gt;' in svg


def test_pages():
    for front in map(on_off.catalogue.read, on_off.catalogue.page_names()):
        if front.get('bench'):
            assert on_off.chosen_cells(front), front['page']
    with tempfile.TemporaryDirectory() as folder:
        on_off.ROOT, root = folder, on_off.ROOT
        os.mkdir(os.path.join(folder, 'patches'))
        path = os.path.join(folder, 'patches', 'x.md')
        with open(path, 'w', encoding='utf-8') as f:
            f.write('a\n' + on_off.BEGIN + 'old\n' + on_off.END + 'z\n')
        on_off.put_into('x.md', 'new\n')
        with open(path, encoding='utf-8') as f:
            assert f.read() == 'a\n' + on_off.BEGIN + 'new\n' + on_off.END + 'z\n'
        on_off.ROOT = root


def test_judge():
    def row(cell, times, cpu, iops=1e5, native=None):
        return {'rig': 'tmpfs', 'cell': cell, 'iops_ratio': times, 'cpu_ratio': cpu,
                'floor_iops': None, 'native_iops': native, 'ours': {'iops': iops, 'cpu_us': 1, 'syscalls': 1.0}}
    lines = bench.judge_ratios([row('mapped-randread-32', 3.6, 0.31)])
    assert [good for what, _, good in lines if 'stock' in what] == [True, False], lines
    for native, good in ((81e3, True), (79e3, False)):
        lines = bench.judge_ratios([row('mapped-randread-1', 2, 0.5, native=native)])
        assert [g for what, _, g in lines if 'libaio' in what] == [good], lines
    by_depth = {c.name: bench.client_spin(type('A', (), {'client_spin': None}), bench.rig.LoopRig, c)
                for c in bench.cells.CELLS}
    assert by_depth['mapped-randread-1'] == 100 and by_depth['mapped-randread-32'] == 0


for name, fn in list(globals().items()):
    if name.startswith('test_'):
        fn()
        print('ok', name)
