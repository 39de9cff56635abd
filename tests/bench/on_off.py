#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What each switch of the catalogue is worth: its cells with the switch on and off, in turn.

    on_off.py [--build DIR] [--rounds N] [--seconds S] [--write] [PAGE ...]

PAGE is the number of a page (0008); the default is every page with a switch and cells (its
`bench:`; its `rig:` if not tmpfs). --write puts the table into the page, between the markers.
"""
import argparse
import fnmatch
import os
import re
import subprocess
import sys

import bench
import cells
import rig

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "patches"))
import catalogue  # noqa: E402  pylint: disable=wrong-import-position

BEGIN, END = "<!-- measured: make bench CATALOGUE=1 -->\n", "<!-- end -->"


def commit():
    try:
        return subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], text=True,
                              stdout=subprocess.PIPE, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def chosen_cells(front):
    patterns = [p for p in re.split(r"[,\s]+", front.get("bench", "")) if p]
    return [c for c in cells.CELLS if any(fnmatch.fnmatch(c.name, p) for p in patterns)]


def table(args, front, figures, names):
    about = bench.host()
    lines = ["Measured on %d x %s, kernel %s, load %.1f at the start, commit %s, %s rig; medians "
             "of %d rounds of %g s:" % (about["cpus"], about["model"], about["kernel"],
                                        about["load"], commit(), front["where"], args.rounds,
                                        args.seconds),
             "", "| cell | k IOPS on | off | CPU us per I/O on | off | system calls on | off |",
             "|---|---|---|---|---|---|---|"]
    for name in names:
        on, off = figures[name, "ours"], figures[name, "ours-off"]
        row = [name]
        for key, scale, form in (("iops", 1e-3, "%.1f"), ("cpu_us", 1, "%.2f"),
                                 ("syscalls", 1, "%.2f")):
            for side in (on, off):
                value = bench.median(side, key)
                row.append("-" if value is None else form % (value * scale))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def put_into(page, text):
    path = os.path.join(ROOT, "patches", page)
    with open(path, encoding="utf-8") as f:
        old = f.read()
    begin, end = old.find(BEGIN), old.find(END)
    if begin < 0 or end < begin:
        raise RuntimeError("%s has no markers" % page)
    with open(path, "w", encoding="utf-8") as f:
        f.write(old[:begin + len(BEGIN)] + text + old[end:])


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--build", default=os.environ.get("BUILD", "build"))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=1)
    p.add_argument("--write", action="store_true")
    p.add_argument("pages", nargs="*")
    args = p.parse_args()
    args.scale, args.client_spin, args.no_syscalls = 1, None, False
    args.nbdload = rig.Rig.nbdload = os.path.join(args.build, "tests/bench/nbdload")
    ours = os.path.join(args.build, "qdp/qemu-dp")
    rigs = {}
    try:
        for front in map(catalogue.read, catalogue.page_names()):
            here = chosen_cells(front)
            if not front["switches"] or not here or (
                    args.pages and front["number"] not in args.pages):
                continue
            front["where"] = front.get("rig", "tmpfs")
            if front["where"] not in rigs:
                rigs[front["where"]] = {"tmpfs": rig.Rig, "loop": rig.LoopRig}[front["where"]]()
            the_rig = rigs[front["where"]]
            args.scratch = the_rig.base
            off = ["--ablate", front["number"]]
            engine = the_rig.best_engine
            peers = [bench.Peer("ours", ours, engine),
                     bench.Peer("ours-off", ours, engine, off)]
            figures = bench.measure(args, the_rig, here, peers)
            text = table(args, front, figures, [c.name for c in here])
            print("\n%s %s\n\n%s" % (front["number"], front["title"], text))
            if args.write:
                put_into(front["page"], text)
    finally:
        for r in rigs.values():
            r.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
