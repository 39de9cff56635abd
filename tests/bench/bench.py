#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""qemu-dp against qemu-storage-daemon, in one run, interleaved, a fresh daemon per cell.

A cell is a workload on a rig. Stock is tried with several engines; the best is the peer.
Figures are medians over the rounds. See README.md in this folder.
"""
import argparse
import fnmatch
import json
import os
import platform
import statistics
import subprocess
import sys

import probes
import rig

K4 = ["--bs", "4k", "--order", "random"]
#        name                 image   cluster  nbdload options
CELLS = [
    ("null-randread-1",       "null",   None, K4 + ["--rw", "read", "--depth", "1"]),
    ("null-randread-32",      "null",   None, K4 + ["--rw", "read", "--depth", "32"]),
    ("null-randwrite-32",     "null",   None, K4 + ["--rw", "write", "--depth", "32"]),
    ("raw-randread-1",        "raw",    None, K4 + ["--rw", "read", "--depth", "1"]),
    ("raw-randread-32",       "raw",    None, K4 + ["--rw", "read", "--depth", "32"]),
    ("raw-randwrite-1",       "raw",    None, K4 + ["--rw", "write", "--depth", "1"]),
    ("raw-randwrite-32",      "raw",    None, K4 + ["--rw", "write", "--depth", "32"]),
    ("mapped-randread-1",     "mapped", None, K4 + ["--rw", "read", "--depth", "1"]),
    ("mapped-randread-32",    "mapped", None, K4 + ["--rw", "read", "--depth", "32"]),
    ("mapped-randwrite-1",    "mapped", None, K4 + ["--rw", "write", "--depth", "1"]),
    ("mapped-randwrite-32",   "mapped", None, K4 + ["--rw", "write", "--depth", "32"]),
    ("mapped-flush-each-16",  "mapped", None,
     K4 + ["--rw", "write", "--depth", "16", "--flush-every", "1"]),
    ("mapped-seqread-64k",    "mapped", None,
     ["--bs", "64k", "--order", "seq", "--rw", "read", "--depth", "8"]),
    ("mapped-seqwrite-64k",   "mapped", None,
     ["--bs", "64k", "--order", "seq", "--rw", "write", "--depth", "8"]),
    ("mapped-seqread-1m",     "mapped", None,
     ["--bs", "1M", "--order", "seq", "--rw", "read", "--depth", "4"]),
    ("mapped-seqwrite-1m",    "mapped", None,
     ["--bs", "1M", "--order", "seq", "--rw", "write", "--depth", "4"]),
    # beyond the list of the targets: long chains, and an image no small cache covers
    ("chain10-randread-32",   "chain",  None, K4 + ["--rw", "read", "--depth", "32"]),
    ("scattered-randread-32", "scattered", None,
     K4 + ["--step", "64M", "--rw", "read", "--depth", "32"]),
    ("scattered-randwrite-32", "scattered", None,
     K4 + ["--step", "64M", "--rw", "write", "--depth", "32"]),
    # allocating: every write meets a new cluster
    ("alloc-64k-randwrite-32", "new",   "64k",
     ["--bs", "4k", "--step", "64k", "--order", "once", "--rw", "write", "--depth", "32"]),
    ("alloc-64k-randwrite-1", "new",    "64k",
     ["--bs", "4k", "--step", "64k", "--order", "once", "--rw", "write", "--depth", "1"]),
    ("alloc-2m-randwrite-32", "new",    "2M",
     ["--bs", "4k", "--step", "2M", "--order", "once", "--rw", "write", "--depth", "32"]),
]
QUICK = ["mapped-randread-32", "mapped-randwrite-32", "mapped-randread-1",
         "null-randread-32", "mapped-flush-each-16", "alloc-64k-randwrite-32",
         "alloc-2m-randwrite-32"]
ALLOC_OPS = {"64k": 20000, "2M": 1000}

# cell pattern: (at least so many times the IOPS, at most this part of the CPU per I/O)
TARGETS = {
    "mapped-randread-32": (2.0, 0.5),
    "mapped-randwrite-32": (2.0, 0.5),
    "alloc-64k-randwrite-32": (1.5, None),
    "alloc-2m-randwrite-32": (1.5, None),
}


def load(args, daemon, options, seconds, cluster):
    cmd = [args.nbdload, "--pid", str(daemon.pid)] + options
    if cluster:
        # counted, and bounded in time by what the slowest needs
        cmd += ["--ops", str(int(ALLOC_OPS[cluster] * args.scale))]
    else:
        cmd += ["--seconds", str(seconds), "--warmup", "0.3"]
    done = subprocess.run(cmd + [daemon.nbd, "disk"], stdout=subprocess.PIPE,
                          timeout=180, text=True)
    result = json.loads(done.stdout) if done.stdout else {}
    if done.returncode:
        raise RuntimeError("load failed: %s" % (result or cmd))
    return result


def system_calls(args, program, options, kind, image, engine, cluster):
    """System calls of the daemon per I/O, by the kernel's own trace point; None when
    perf cannot count them here."""
    out = os.path.join(args.scratch, "perf.csv")
    with rig.Daemon(program, rig.blockdev(image, kind, engine)) as daemon:
        cmd = [args.nbdload] + options
        cmd += ["--ops", "2000"] if cluster else ["--seconds", "0.5"]
        perf = ["perf", "stat", "-x,", "-o", out, "-e", "raw_syscalls:sys_enter",
                "-p", str(daemon.pid), "--"]
        try:
            done = subprocess.run(perf + cmd + [daemon.nbd, "disk"], timeout=60, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            with open(out) as lines:
                count = [line.split(",")[0] for line in lines if "sys_enter" in line]
            result = json.loads(done.stdout)
            return int(count[0]) / (result["ops"] + result["flushes"])
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
            return None


def measure(args, the_rig, cells):
    """{(cell, peer): {figure: [per round]}}"""
    peers = [("ours", args.ours, args.ours_engine)]
    peers += [("stock/" + e, args.stock, e) for e in args.engines.split(",")]
    figures = {}
    if any(kind == "scattered" for _, kind, _, _ in cells):
        the_rig.make_scattered(args.nbdload)
    for turn in range(args.rounds):
        for name, kind, cluster, options in cells:
            for peer, program, engine in peers:
                if kind == "null" and peer not in ("ours", peers[1][0]):
                    continue  # no file, no engine
                image = None if kind == "null" else the_rig.image(kind, cluster)
                with rig.Daemon(program, rig.blockdev(image, kind, engine)) as daemon:
                    got = load(args, daemon, options, args.seconds, cluster)
                row = figures.setdefault((name, peer), {})
                for key, value in (("iops", got["iops"]),
                                   ("cpu_us", got["server_cpu_us_per_op"]),
                                   ("p50_us", got["latency_us"]["p50"]),
                                   ("p99_us", got["latency_us"]["p99"])):
                    row.setdefault(key, []).append(value)
                if turn == 0 and not args.no_syscalls:
                    image = None if kind == "null" else the_rig.image(kind, cluster)
                    row["syscalls"] = [system_calls(args, program, options, kind, image,
                                                    engine, cluster)]
                if kind == "new":
                    os.unlink(image)
                print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return figures


def median(row, key):
    values = [v for v in row.get(key, []) if v is not None]
    return statistics.median(values) if values else None


def text(value, form):
    return "-" if value is None else form % value


def summarise(rig_name, cells, figures):
    """Print the rig's table; a list of results, the better stock engine as the peer."""
    results = []
    print("\n%s rig: k IOPS, daemon CPU us per I/O, p99 us, system calls per I/O" % rig_name)
    print("%-24s %8s %7s %8s %6s | %-9s %8s %7s %8s %6s | %6s %5s" % (
        "cell", "ours", "cpu", "p99", "sysc", "stock", "kIOPS", "cpu", "p99", "sysc",
        "IOPS x", "cpu x"))
    for name, _, _, _ in cells:
        rows = {peer: row for (cell, peer), row in figures.items() if cell == name}
        ours = {k: median(rows["ours"], k)
                for k in ("iops", "cpu_us", "p50_us", "p99_us", "syscalls")}
        best = max((p for p in rows if p != "ours"), key=lambda p: median(rows[p], "iops"))
        stock = {k: median(rows[best], k) for k in ours}
        ratio = ours["iops"] / stock["iops"]
        cpu = ours["cpu_us"] / stock["cpu_us"] if stock["cpu_us"] else None
        print("%-24s %8.1f %7.2f %8.1f %6s | %-9s %8.1f %7.2f %8.1f %6s | %6.2f %5s" % (
            name, ours["iops"] / 1e3, ours["cpu_us"], ours["p99_us"],
            text(ours["syscalls"], "%.2f"), best.split("/")[1], stock["iops"] / 1e3,
            stock["cpu_us"], stock["p99_us"], text(stock["syscalls"], "%.2f"), ratio,
            text(cpu, "%.2f")))
        results.append({"rig": rig_name, "cell": name, "ours": ours, "stock": stock,
                        "stock_engine": best.split("/")[1], "iops_ratio": ratio,
                        "cpu_ratio": cpu,
                        "rounds": {p: r for p, r in rows.items()}})
    return results


def idle(args):
    the_rig = rig.Rig(1 << 20)
    try:
        options = []
        for i in range(args.density):
            path = the_rig.path("idle-%d.qcow2" % i)
            rig.run("qemu-img", "create", "-q", "-f", "qcow2", path, "64G")
            options.append(rig.blockdev(path, "mapped", "native"))
        found = {}
        for count in sorted({1, args.density}):
            found["empty x%d" % count] = probes.empty_memory(args.empty_glib, count)
            found["ours x%d" % count] = probes.idle_memory(args.ours, options, count)
            found["stock x%d" % count] = probes.idle_memory(args.stock, options, count)
    finally:
        the_rig.close()
    print("\nidle, one qcow2 disk exported, QMP socket: KiB (median of each)")
    print("%-12s %8s %14s %8s" % ("", "PSS", "private dirty", "threads"))
    for name, m in found.items():
        print("%-12s %8d %14d %8d" % (name, m["pss"], m["private_dirty"], m["threads"]))
    times = probes.start_up({"ours": args.ours, "stock": args.stock}, args.empty_glib)
    print("start to QMP greeting, ms: ours %.2f, stock %s; empty glib program ended: %.2f"
          % (times["ours"], text(times["stock"], "%.2f"), times["empty"]))
    return found, times


def judge(results, idle_found):
    """Print the targets with pass or fail; true when all that was measured passed."""
    lines = []
    for r in results:
        if r["rig"] != "tmpfs" or r["cell"] not in TARGETS:
            continue
        times, part = TARGETS[r["cell"]]
        lines.append((r["cell"] + " IOPS >= %.1f x stock" % times,
                      "%.2f" % r["iops_ratio"], r["iops_ratio"] >= times))
        if part and r["cpu_ratio"] is not None:
            lines.append((r["cell"] + " CPU per I/O <= %.2f of stock" % part,
                          "%.2f" % r["cpu_ratio"], r["cpu_ratio"] <= part))
    if idle_found:
        memory, times = idle_found
        ours, empty = memory["ours x1"], memory["empty x1"]
        lines += [
            ("idle private dirty <= 700 KiB", "%d" % ours["private_dirty"],
             ours["private_dirty"] <= 700),
            ("idle PSS <= empty glib + 1024 KiB", "%+d" % (ours["pss"] - empty["pss"]),
             ours["pss"] - empty["pss"] <= 1024),
            ("greeting <= empty glib's end + 3 ms",
             "%+.2f" % (times["ours"] - times["empty"]),
             times["ours"] - times["empty"] <= 3),
        ]
    if lines:
        print("\ntargets")
    for what, value, good in lines:
        print("  %s  %-48s %s" % ("pass" if good else "FAIL", what, value))
    return all(good for _, _, good in lines)


def parse():
    build = os.environ.get("BUILD", "build")
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--build", default=build, help="build directory (default %(default)s)")
    p.add_argument("--ours", help="our daemon")
    p.add_argument("--stock", default="qemu-storage-daemon")
    p.add_argument("--rig", choices=["tmpfs", "loop", "both"], default="both")
    p.add_argument("--cells", default="*", help="comma separated patterns of cell names")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=2)
    p.add_argument("--engines", default="native,io_uring", help="stock's, comma separated")
    p.add_argument("--ours-engine", default="native")
    p.add_argument("--quick", action="store_true", help="few cells, one short round")
    p.add_argument("--no-idle", action="store_true")
    p.add_argument("--no-syscalls", action="store_true")
    p.add_argument("--density", type=int, default=20, help="idle daemons at once")
    p.add_argument("--json", help="write all figures there")
    p.add_argument("--list", action="store_true", help="list the cells and end")
    p.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    args = p.parse_args()
    args.scale = 1
    if args.quick:
        args.rounds, args.seconds, args.scale = 1, 0.7, 0.25
        args.cells = ",".join(QUICK) if args.cells == "*" else args.cells
    for name, places in (("ours", ["qemu-dp", "qdp/qemu-dp"]),
                         ("nbdload", ["tests/bench/nbdload"]),
                         ("empty_glib", ["tests/bench/empty-glib"])):
        if not getattr(args, name, None):
            found = [os.path.join(args.build, x) for x in places]
            setattr(args, name, next((f for f in found if os.path.exists(f)), found[0]))
    return args


def host():
    with open("/proc/cpuinfo") as lines:
        model = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {"cpus": os.cpu_count(), "model": model[0] if model else platform.machine(),
            "kernel": platform.release(),
            "load": os.getloadavg()[0]}


def main():
    args = parse()
    patterns = args.cells.split(",")
    cells = [c for c in CELLS if any(fnmatch.fnmatch(c[0], p) for p in patterns)]
    if args.list:
        print("\n".join(c[0] for c in cells))
        return 0
    about = host()
    print("%(cpus)d x %(model)s, kernel %(kernel)s, load %(load).1f" % about)
    results = []
    for make in (rig.Rig, rig.LoopRig):
        if args.rig not in ("both", make.name) or not cells:
            continue
        try:
            the_rig = make()
        except rig.Skip as why:
            print("\n%s rig skipped: %s" % (make.name, why))
            continue
        try:
            args.scratch = the_rig.base
            results += summarise(make.name, cells, measure(args, the_rig, cells))
        finally:
            the_rig.close()
    idle_found = None if args.no_idle else idle(args)
    good = judge(results, idle_found)
    if args.json:
        with open(args.json, "w") as out:
            json.dump({"host": about, "results": results, "idle": idle_found}, out,
                      indent=1)
    return 0 if good or not args.check else 1


if __name__ == "__main__":
    sys.exit(main())
