#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Profile the daemon under one cell of the benchmark and draw a flame graph.

    flamegraph.py [--build DIR] [--cell NAME] [--rig tmpfs|loop] [--seconds S] [--stock]
                  [--out FILE.svg]
    flamegraph.py --stacks FILE [--out FILE.svg]   draw from the output of `perf script`

Width is processor time; the bottom row is the program, each row above it what was called.
Move over a box to read its name and share. Needs perf.
"""
import argparse
import hashlib
import html
import os
import re
import subprocess
import sys
import time

import bench
import cells
import rig

WIDTH, ROW, MARGIN = 1200, 16, 10
MIN_PIXELS = 0.4


def fold(script):
    """{(outermost .. innermost): samples} from the text of `perf script`."""
    stacks, frames = {}, []
    for line in script.split("\n") + [""]:
        if not line.strip():
            if frames:
                key = tuple(reversed(frames))
                stacks[key] = stacks.get(key, 0) + 1
            frames = []
            continue
        m = re.match(r"\s+[0-9a-f]+ (.+?)(?:\+0x[0-9a-f]+)? \((.*)\)$", line)
        if m:
            name = m.group(1)
            if "[kernel" in m.group(2) or m.group(2).endswith(".ko"):
                name += "_[k]"
            if not frames or name != "[unknown]" or frames[-1] != name:
                frames.append(name) # a broken chain is one box, not a tower
    return stacks


def tree_of(stacks):
    root = {"name": "all", "count": 0, "below": {}}
    for frames, count in stacks.items():
        node = root
        node["count"] += count
        for name in frames:
            node = node["below"].setdefault(name, {"name": name, "count": 0, "below": {}})
            node["count"] += count
    return root


def depth_of(node):
    return 1 + max((depth_of(n) for n in node["below"].values()), default=0)


def colour(name):
    shade = int(hashlib.md5(name.encode()).hexdigest()[:4], 16) % 60
    if name.endswith("_[k]"):
        return "rgb(%d,%d,%d)" % (225, 110 + shade, 60)
    return "rgb(%d,%d,%d)" % (70, 130 + shade, 190)


def draw(root, title, out):
    rows = depth_of(root)
    height = rows * ROW + 3 * ROW
    boxes = []

    def box(node, x, level):
        width = (WIDTH - 2 * MARGIN) * node["count"] / root["count"]
        if width < MIN_PIXELS:
            return
        y = height - (level + 1) * ROW - MARGIN
        name = node["name"].replace("_[k]", "")
        share = 100 * node["count"] / root["count"]
        letters = int(width / 6.5)
        text = html.escape(name if len(name) <= letters else name[:max(letters - 2, 0)] + "..")
        boxes.append(
            '<g><title>%s (%d samples, %.2f %%)</title><rect x="%.1f" y="%d" width="%.1f" '
            'height="%d" fill="%s" rx="1"/>%s</g>' % (
                html.escape(name), node["count"], share, x, y, width, ROW - 1,
                colour(node["name"]),
                '<text x="%.1f" y="%d">%s</text>' % (x + 2, y + 12, text)
                if letters >= 3 else ""))
        for below in sorted(node["below"].values(), key=lambda n: n["name"]):
            box(below, x, level + 1)
            x += (WIDTH - 2 * MARGIN) * below["count"] / root["count"]

    box(root, MARGIN, 0)
    with open(out, "w", encoding="utf-8") as f:
        f.write('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" '
                'font-family="monospace" font-size="11">\n<rect width="100%%" height="100%%" '
                'fill="#fdfdfb"/>\n<text x="%d" y="16" font-size="13">%s</text>\n%s\n</svg>\n'
                % (WIDTH, height, MARGIN, html.escape(title), "\n".join(boxes)))


def record(args):
    """The text of `perf script` for the daemon under the cell."""
    c = next((c for c in cells.CELLS if c.name == args.cell), None)
    if not c:
        sys.exit("there is no cell %s (bench.py --list)" % args.cell)
    the_rig = {"tmpfs": rig.Rig, "loop": rig.LoopRig}[args.rig]()
    data = the_rig.path("perf.data")
    program = "qemu-storage-daemon" if args.stock else os.path.join(args.build, "qdp/qemu-dp")
    peer = bench.Peer("stock" if args.stock else "ours", program, "native")
    try:
        image = None if c.image == "null" else the_rig.image(c.image, c.cluster)
        with peer.start(c, image) as daemon:
            options = c.options + (["--ops", str(c.ops)] if c.ops else
                                   ["--seconds", str(args.seconds + 1)])
            load = subprocess.Popen([rig.Rig.nbdload, *options, "--spin", "100", daemon.nbd,
                                     "disk"], stdout=subprocess.DEVNULL)
            time.sleep(0 if c.ops else 0.4)
            subprocess.run(["perf", "record", "-q", "-F", "2999", "-g", "-o", data, "-p",
                            str(daemon.pid), "--", "sleep", str(args.seconds)], check=True,
                           timeout=120)
            load.wait(timeout=120)
        return subprocess.run(["perf", "script", "-i", data], check=True, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    finally:
        the_rig.close()


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--build", default=os.environ.get("BUILD", "build"))
    p.add_argument("--cell", default="mapped-randread-32")
    p.add_argument("--rig", choices=["tmpfs", "loop"], default="tmpfs")
    p.add_argument("--seconds", type=float, default=3)
    p.add_argument("--stock", action="store_true", help="the stock daemon instead")
    p.add_argument("--stacks", help="a file of perf script's output")
    p.add_argument("--out", default="flamegraph.svg")
    args = p.parse_args()
    rig.Rig.nbdload = os.path.join(args.build, "tests/bench/nbdload")
    if args.stacks:
        with open(args.stacks, encoding="utf-8") as f:
            script = f.read()
    else:
        script = record(args)
    stacks = fold(script)
    if not stacks:
        sys.exit("no samples")
    title = args.stacks or "%s, %s, %s rig" % (
        "qemu-storage-daemon" if args.stock else "qemu-dp", args.cell, args.rig)
    draw(tree_of(stacks), "%s: %d samples" % (title, sum(stacks.values())), args.out)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
