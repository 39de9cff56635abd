#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A file includes its own folder or a lower floor, never a higher one (HACKING.md)."""

import os
import re
import sys

FLOORS = [('block/base', 0), ('qapi', 0), ('block/aio', 1), ('block/qcow2', 3),
          ('block/driver', 3), ('block/job', 4), ('block', 2), ('qdp/export', 5),
          ('qdp/qmp', 5), ('qdp', 6), ('tests', 9)]
# What a floor may see of a neighbour: the one header that is its door.
DOORS = {'qdp/export/export.h', 'block/driver/table.h', 'qdp/log.h', 'qdp/trace.h'}


def floor_of(path):
    """The folder of a path and its floor; None for what is not ours."""
    for folder, floor in FLOORS:
        if path.startswith(folder + '/'):
            return folder, floor
    return None


def main():
    tree = sys.argv[1]
    bad = seen = 0
    for base, dirs, names in os.walk(tree):
        dirs[:] = [d for d in dirs if not d.startswith(('.', 'build'))]
        for name in names:
            path = os.path.relpath(os.path.join(base, name), tree)
            own = floor_of(path)
            if not name.endswith(('.c', '.h')) or not own:
                continue
            with open(os.path.join(tree, path), encoding='utf-8') as source:
                includes = re.findall(r'^#include "([^"]+)"', source.read(), re.M)
            for include in includes:
                seen += 1
                other = floor_of(include)
                if not other:
                    print('%s includes "%s": not from the top of the tree' % (path, include))
                    bad += 1
                elif (other[1] > own[1] or (other[1] == own[1] and other[0] != own[0]
                                            and own[1] > 0)) and include not in DOORS:
                    print('%s (floor %d) includes %s (floor %d)' % (path, own[1], include,
                                                                   other[1]))
                    bad += 1
    print('%d includes, %d against the rule' % (seen, bad))
    return 1 if bad or not seen else 0


if __name__ == '__main__':
    sys.exit(main())
