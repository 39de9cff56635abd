#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiment that found an earlier qemu-dp slow, again: whatever one tunes, how fast?

    diary.py [--build DIR] [--sizes 10G,64G,1T] [--configs PATTERNS] [--workloads PATTERNS]
             [--rounds N] [--seconds S] [--disks 1,2,4] [--out FOLDER]

Random and sequential reads and writes and a latency probe, on images whose clusters lie
scattered, in the configurations that were tried then; ours and stock side by side, in turn.
Writes FOLDER/diary.json, a table on standard output, and charts (charts.py) where matplotlib
is installed. --disks also measures several daemons with a disk each at the same time: how far
does a second process scale?
"""
import argparse
import fnmatch
import json
import os
import statistics
import subprocess
import sys

import bench
import rig

K, M = 1 << 10, 1 << 20
DIRECT = {"direct": True, "no-flush": True}
BUFFERED = {"direct": False, "no-flush": True}
FLUSHED = {"direct": False, "no-flush": False}
CONFIGS = { # name: (cache, options of qcow2; None: raw)
    "default": (DIRECT, {}),
    "buffered+flush": (FLUSHED, {}),
    "l2=3M": (DIRECT, {"l2-cache-size": 3 * M}),
    "l2=6.25M": (DIRECT, {"l2-cache-size": 6 * M + 256 * K}),
    "entry=8k": (DIRECT, {"l2-cache-entry-size": 8 * K}),
    "entry=64k buffered+flush": (FLUSHED, {"l2-cache-entry-size": 64 * K}),
    "l2=8M entry=8k": (DIRECT, {"l2-cache-size": 8 * M, "l2-cache-entry-size": 8 * K}),
    "l2=8M entry=8k buffered": (BUFFERED, {"l2-cache-size": 8 * M,
                                           "l2-cache-entry-size": 8 * K}),
    "l2=8M entry=8k buffered+flush": (FLUSHED, {"l2-cache-size": 8 * M,
                                                "l2-cache-entry-size": 8 * K}),
    "l2=8M entry=16k buffered": (BUFFERED, {"l2-cache-size": 8 * M,
                                            "l2-cache-entry-size": 16 * K}),
    "l2=16M entry=8k buffered": (BUFFERED, {"l2-cache-size": 16 * M,
                                            "l2-cache-entry-size": 8 * K}),
    "raw": (DIRECT, None),
}
WORKLOADS = {"ioping": ("read", "4k", "random", 1)}
for order in ("random", "seq"):
    for rw in ("read", "write"):
        for bs, depth in (("4k", 32), ("64k", 16), ("256k", 8), ("1M", 4)):
            WORKLOADS["%s %s %s" % (order, rw, bs)] = (rw, bs, order, depth)
BYTES = {"10G": 10 << 30, "64G": 64 << 30, "1T": 1 << 40}
CLUSTERS, EXTENTS = 8192, 256 # single clusters; extents of 1 MiB for large requests


def options_of(config, image, engine):
    cache, qcow2 = CONFIGS[config]
    file = {"driver": "file", "filename": image, "cache": cache,
            "aio": engine if cache["direct"] else "threads"}
    if qcow2 is None:
        return dict(file, **{"node-name": "disk"})
    return dict({"driver": "qcow2", "node-name": "disk", "file": file, "cache": cache,
                 "discard": "unmap"}, **qcow2)


class Images:
    """Scattered images, made once each: written through stock in scattered order."""

    def __init__(self, the_rig, nbdload):
        self.rig, self.nbdload, self.made = the_rig, nbdload, {}

    def get(self, size, bs, raw, copy=0):
        """(path, the distance of its blocks)"""
        large = bs in ("256k", "1M")
        step = BYTES[size] // (EXTENTS if large else CLUSTERS)
        key = "%s-%s-%s-%d" % (size, "extents" if large else "clusters",
                               "raw" if raw else "qcow2", copy)
        if key not in self.made:
            path = self.rig.path(key)
            if raw:
                with open(path, "wb") as f:
                    f.truncate(BYTES[size])
                opts = options_of("raw", path, "native")
            else:
                rig.run("qemu-img", "create", "-q", "-f", "qcow2", path, size)
                opts = options_of("default", path, "native")
            with rig.Daemon("qemu-storage-daemon", opts) as d:
                rig.run(self.nbdload, "--rw", "write", "--order", "once", "--bs",
                        "1M" if large else "64k", "--step", str(step), "--depth", "16", d.nbd,
                        "disk")
            self.made[key] = path
        return self.made[key], step

    def forget(self):
        for path in self.made.values():
            os.unlink(path)
        self.made = {}


def commands(args, workload, step, daemon):
    rw, bs, order, depth = WORKLOADS[workload]
    return [args.nbdload, "--rw", rw, "--bs", bs, "--order", order, "--depth", str(depth),
            "--step", str(step), "--seconds", str(args.seconds), "--warmup", "0.2", "--spin",
            "100", "--pid", str(daemon.pid), daemon.nbd, "disk"]


def measure(args, images, size, config, workload, disks):
    """{peer: {figure: median}} with @disks daemons at once; IOPS are their sum."""
    seen = {}
    for _ in range(args.rounds):
        for peer, program, engine in (("ours", args.ours, "native"),
                                      ("stock", args.stock, "native"),
                                      ("stock", args.stock, "io_uring")):
            if not CONFIGS[config][0]["direct"] and engine == "io_uring":
                continue # buffered: one engine
            daemons, loads = [], []
            try:
                for i in range(disks):
                    path, step = images.get(size, WORKLOADS[workload][1],
                                            CONFIGS[config][1] is None, i)
                    daemons.append(rig.Daemon(program, options_of(config, path, engine)))
                loads = [subprocess.Popen(commands(args, workload, step, d), text=True,
                                          stdout=subprocess.PIPE) for d in daemons]
                got = [json.loads(p.communicate(timeout=120)[0]) for p in loads]
            finally:
                for d in daemons:
                    d.stop()
            row = seen.setdefault((peer, engine), {"iops": [], "cpu_us": [], "p50_us": []})
            row["iops"].append(sum(g["iops"] for g in got))
            row["cpu_us"].append(statistics.mean(g["server_cpu_us_per_op"] for g in got))
            row["p50_us"].append(statistics.mean(g["latency_us"]["p50"] for g in got))
    best = {}
    for (peer, engine), row in seen.items():
        row = {k: statistics.median(v) for k, v in row.items()}
        row["engine"] = engine
        if peer not in best or row["iops"] > best[peer]["iops"]:
            best[peer] = row
    return best


def charts(folder):
    """Draw with whichever Python has the library."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "charts.py")
    for python in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([python, "-c", "import matplotlib"], stderr=subprocess.DEVNULL,
                          check=False).returncode == 0:
            return subprocess.run([python, script, folder], check=False).returncode
    print("no charts: matplotlib is not installed (Debian: python3-matplotlib)")
    return 0


def parse():
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--build", default=os.environ.get("BUILD", "build"))
    p.add_argument("--stock", default="qemu-storage-daemon")
    p.add_argument("--sizes", default="10G,64G,1T")
    p.add_argument("--configs", default="*")
    p.add_argument("--workloads", default="ioping,* 4k,* 64k,* 1M")
    p.add_argument("--disks", default="1", help="how many at once, comma separated")
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--seconds", type=float, default=0.5)
    p.add_argument("--loop", action="store_true", help="on the loop rig, not tmpfs")
    p.add_argument("--out", default="diary", help="folder for results (default %(default)s)")
    args = p.parse_args()
    args.ours = os.path.join(args.build, "qdp/qemu-dp")
    args.nbdload = os.path.join(args.build, "tests/bench/nbdload")
    return args


def pick(names, patterns):
    return [n for n in names if any(fnmatch.fnmatch(n, p) for p in patterns.split(","))]


def main():
    args = parse()
    os.makedirs(args.out, exist_ok=True)
    the_rig = rig.LoopRig() if args.loop else rig.Rig()
    results = []
    print("VHD: skipped, the vpc driver is not there yet")
    print("%-5s %-2s %-30s %-18s | %9s %8s | %9s %8s | %6s" % (
        "size", "n", "configuration", "workload", "ours IOPS", "cpu us", "stock", "cpu us",
        "x"))
    try:
        for size in args.sizes.split(","):
            images = Images(the_rig, args.nbdload)
            for config in pick(CONFIGS, args.configs):
                for workload in pick(WORKLOADS, args.workloads):
                    for disks in map(int, args.disks.split(",")):
                        best = measure(args, images, size, config, workload, disks)
                        results.append(dict(best, size=size, config=config,
                                            workload=workload, disks=disks))
                        ours, stock = best["ours"], best["stock"]
                        print("%-5s %-2d %-30s %-18s | %9.0f %8.1f | %9.0f %8.1f | %6.2f" % (
                            size, disks, config, workload, ours["iops"], ours["cpu_us"],
                            stock["iops"], stock["cpu_us"], ours["iops"] / stock["iops"]),
                            flush=True)
            images.forget()
    finally:
        the_rig.close()
    with open(os.path.join(args.out, "diary.json"), "w", encoding="utf-8") as f:
        json.dump({"host": bench.host(), "rig": the_rig.name, "results": results}, f, indent=1)
    return charts(args.out)


if __name__ == "__main__":
    sys.exit(main())
