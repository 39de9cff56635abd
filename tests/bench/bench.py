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

import cells
import probes
import rig

def client_spin(args, the_rig, c):
    """M8"""
    if args.client_spin is not None:
        return args.client_spin
    return the_rig.client_spin if c.options[c.options.index("--depth") + 1] != "1" else 100


def load(args, the_rig, daemon, c, seconds):
    cmd = [args.nbdload, "--pid", str(daemon.pid), "--spin", str(client_spin(args, the_rig, c))]
    cmd += c.options
    if c.ops: # counted, and bounded in time by what the slowest needs
        cmd += ["--ops", str(int(c.ops * args.scale))]
    else:
        cmd += ["--seconds", str(seconds), "--warmup", "0.3"]
    done = subprocess.run(cmd + [daemon.nbd, "disk"], stdout=subprocess.PIPE,
                          timeout=180, text=True)
    result = json.loads(done.stdout) if done.stdout else {}
    if done.returncode:
        raise RuntimeError("load failed: %s" % (result or cmd))
    return result


def system_calls(args, peer, c, image):
    """System calls of the daemon per I/O, by the kernel's own trace point; None when
    perf cannot count them here."""
    out = os.path.join(args.scratch, "perf.csv")
    with peer.start(c, image) as daemon:
        cmd = [args.nbdload] + c.options
        cmd += ["--ops", str(min(c.ops, 2000))] if c.ops else ["--seconds", "0.5"]
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


class Peer:
    """Who is measured: a program with an engine, and options of its own."""

    def __init__(self, name, program, engine, extra=()):
        self.name, self.program, self.engine = name, program, engine
        self.extra = list(extra)
        self.ours = name.startswith("ours")

    def start(self, c, image):
        if self.name == "floor":
            return rig.Floor(self.program, image)
        more, export = c.ours if self.ours else ((), "")
        return rig.Daemon(self.program, rig.blockdev(image, c.image, self.engine),
                          extra=self.extra + list(more), export=export)

    def takes(self, c, first):
        if self.name == "floor":
            return c.image in ("raw", "null")
        if self.name == "ours-native":
            return c.name in cells.ENGINES
        return c.image != "null" or self.ours or first


def peers_of(args, the_rig):
    best = args.ours_engine or the_rig.best_engine
    peers = [Peer("ours", args.ours, best)]
    if the_rig.name == "loop" and best != "native":
        peers.append(Peer("ours-native", args.ours, "native"))
    peers += [Peer("stock/" + e, args.stock, e) for e in args.engines.split(",")]
    if os.path.exists(args.floor) and the_rig.name == "tmpfs":
        peers.append(Peer("floor", args.floor, None))
    return peers


def measure(args, the_rig, chosen, peers):
    """{(cell, peer): {figure: [per round]}}"""
    figures = {}
    first = next((p for p in peers if p.name.startswith("stock")), None)
    for turn in range(args.rounds):
        for c in chosen:
            for peer in peers:
                if not peer.takes(c, peer is first):
                    continue
                image = None if c.image == "null" else the_rig.image(c.image, c.cluster)
                with peer.start(c, image) as daemon:
                    got = load(args, the_rig, daemon, c, args.seconds)
                row = figures.setdefault((c.name, peer.name), {})
                for key, value in (("iops", got["iops"]),
                                   ("cpu_us", got["server_cpu_us_per_op"]),
                                   ("p50_us", got["latency_us"]["p50"]),
                                   ("p99_us", got["latency_us"]["p99"])):
                    row.setdefault(key, []).append(value)
                if turn == 0 and not args.no_syscalls and peer.name != "floor":
                    image = None if c.image == "null" else the_rig.image(c.image, c.cluster)
                    row["syscalls"] = [system_calls(args, peer, c, image)]
                print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return figures


def median(row, key):
    values = [v for v in row.get(key, []) if v is not None]
    return statistics.median(values) if values else None


def text(value, form):
    return "-" if value is None else form % value


def summarise(rig_name, chosen, figures):
    """Print the rig's table; a list of results, the better stock engine as the peer."""
    results = []
    print("\n%s rig: k IOPS, daemon CPU us per I/O, p99 us, system calls per I/O" % rig_name)
    print("%-24s %8s %7s %8s %6s | %-9s %8s %7s %8s %6s | %6s %5s" % (
        "cell", "ours", "cpu", "p99", "sysc", "stock", "kIOPS", "cpu", "p99", "sysc",
        "IOPS x", "cpu x"))
    for name in (c.name for c in chosen):
        rows = {peer: row for (cell, peer), row in figures.items() if cell == name}
        ours = {k: median(rows["ours"], k)
                for k in ("iops", "cpu_us", "p50_us", "p99_us", "syscalls")}
        best = max((p for p in rows if p.startswith("stock")), key=lambda p: median(rows[p], "iops"))
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
                        "native_iops": median(rows.get("ours-native", {}), "iops"),
                        "floor_iops": median(rows.get("floor", {}), "iops"),
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
        times = probes.start_up({"ours": args.ours, "stock": args.stock}, args.empty_glib)
        first = probes.first_io({"ours": args.ours, "stock": args.stock}, options[0])
    finally:
        the_rig.close()
    print("\nidle, one qcow2 disk exported, QMP socket: KiB (median of each)")
    print("%-12s %8s %14s %8s" % ("", "PSS", "private dirty", "threads"))
    for name, m in found.items():
        print("%-12s %8d %14d %8d" % (name, m["pss"], m["private_dirty"], m["threads"]))
    print("start to QMP greeting, ms: ours %.2f, stock %s; empty glib program ended: %.2f"
          % (times["ours"], text(times["stock"], "%.2f"), times["empty"]))
    print("start to the reply of a first read, ms: ours %.2f, stock %.2f"
          % (first["ours"], first["stock"]))
    return found, times, first


def touch(args, the_rig):
    """[(image, RSS in KiB, limit)] of ours after reading every cluster of scattered images."""
    found = []
    for kind, step, limit in cells.RSS:
        image = the_rig.image(kind)
        with rig.Daemon(args.ours, rig.blockdev(image, kind, the_rig.best_engine)) as daemon:
            rig.run(args.nbdload, "--rw", "read", "--order", "once", "--bs", "4k", "--step",
                    step, "--depth", "8", daemon.nbd, "disk")
            found.append((kind, probes.memory(daemon.pid)["rss"], limit))
    return found


def judge_ratios(results):
    """[(what, value, passed)] of the targets against stock, ourselves and the floor."""
    found = {(r["rig"], r["cell"]): r for r in results}
    lines = []

    def add(what, value, good, form="%.2f"):
        if value is not None:
            lines.append((what, form % value, good(value)))

    for t in cells.TARGETS:
        r = found.get((t.rig, t.cell))
        if r:
            add("%s %s: IOPS >= %.1f x stock" % (t.rig, t.cell, t.times), r["iops_ratio"],
                lambda v, t=t: v >= t.times)
            if t.part:
                add("%s %s: CPU per I/O <= %.2f of stock" % (t.rig, t.cell, t.part),
                    r["cpu_ratio"], lambda v, t=t: v <= t.part)
    for where, cell, peer, times, part in cells.AGAINST:
        a, b = found.get((where, cell)), found.get((where, peer))
        if a and b:
            add("%s %s: IOPS >= %.2f of %s" % (where, cell, times, peer),
                a["ours"]["iops"] / b["ours"]["iops"], lambda v, t=times: v >= t)
            add("%s %s: CPU <= %.2f of %s" % (where, cell, part, peer),
                a["ours"]["cpu_us"] / b["ours"]["cpu_us"], lambda v, p=part: v <= p)
    for where, cell, times, _ in cells.FLOOR:
        r = found.get((where, cell))
        if r and r["floor_iops"]:
            add("%s %s: IOPS >= %.2f of the floor" % (where, cell, times),
                r["ours"]["iops"] / r["floor_iops"], lambda v, t=times: v >= t)
    for (where, cell), r in found.items():
        if r["native_iops"]:
            add("%s %s: IOPS of libaio >= %.2f of io_uring" % (where, cell, cells.LAIO),
                r["native_iops"] / r["ours"]["iops"], lambda v: v >= cells.LAIO)
    for (where, cell), r in found.items():
        if cell.endswith("-32") and not cell.startswith(cells.MORE_CALLS):
            add("%s %s: system calls per I/O <= %.1f" % (where, cell, cells.MAX_SYSTEM_CALLS),
                r["ours"]["syscalls"], lambda v: v <= cells.MAX_SYSTEM_CALLS)
    return lines


def judge(results, idle_found, touched):
    """Print the targets with pass or fail; true when all that was measured passed."""
    lines = judge_ratios(results)
    for image, kib, limit in touched:
        lines.append(("RSS after touching %s <= %d KiB" % (image, limit), "%d" % kib,
                      kib <= limit))
    if idle_found:
        memory, times, first = idle_found
        ours, empty = memory["ours x1"], memory["empty x1"]
        lines += [
            ("idle private dirty <= 500 KiB", "%d" % ours["private_dirty"],
             ours["private_dirty"] <= 500),
            ("idle PSS <= empty glib + 700 KiB", "%+d" % (ours["pss"] - empty["pss"]),
             ours["pss"] - empty["pss"] <= 700),
            ("greeting <= empty glib's end + 1.5 ms",
             "%+.2f" % (times["ours"] - times["empty"]),
             times["ours"] - times["empty"] <= 1.5),
            ("first I/O <= 5 ms", "%.2f" % first["ours"], first["ours"] <= 5),
        ]
        many = [m for n, m in memory.items() if n.startswith("ours x") and n != "ours x1"]
        lines += [("idle PSS of each of many <= 500 KiB", "%d" % m["pss"], m["pss"] <= 500)
                  for m in many]
    if lines:
        print("\ntargets")
    for what, value, good in lines:
        print("  %s  %-62s %s" % ("pass" if good else "FAIL", what, value))
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
    p.add_argument("--ours-engine", help="default: the rig's best")
    p.add_argument("--client-spin", type=float, metavar="US",
                   help="the client polls so long before it sleeps (default: the rig's)")
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
        args.cells = ",".join(cells.QUICK) if args.cells == "*" else args.cells
    for name, places in (("ours", ["qemu-dp", "qdp/qemu-dp"]),
                         ("nbdload", ["tests/bench/nbdload"]),
                         ("floor", ["tests/bench/floor"]),
                         ("scatter", ["tests/bench/scatter"]),
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
    chosen = [c for c in cells.CELLS if any(fnmatch.fnmatch(c.name, p) for p in patterns)]
    if args.list:
        print("\n".join(c.name for c in chosen))
        return 0
    about = host()
    print("%(cpus)d x %(model)s, kernel %(kernel)s, load %(load).1f" % about)
    rig.Rig.nbdload, rig.Rig.scatter = args.nbdload, args.scatter
    results, touched = [], []
    for make in (rig.Rig, rig.LoopRig):
        here = [c for c in chosen if make.name in c.rigs]
        if args.rig not in ("both", make.name) or not here:
            continue
        try:
            the_rig = make()
        except rig.Skip as why:
            print("\n%s rig skipped: %s" % (make.name, why))
            continue
        try:
            args.scratch = the_rig.base
            results += summarise(make.name, here,
                                 measure(args, the_rig, here, peers_of(args, the_rig)))
            if make.name == "tmpfs" and not args.no_idle:
                touched = touch(args, the_rig)
        finally:
            the_rig.close()
    idle_found = None if args.no_idle else idle(args)
    good = judge(results, idle_found, touched)
    if args.json:
        with open(args.json, "w") as out:
            json.dump({"host": about, "results": results, "idle": idle_found}, out,
                      indent=1)
    return 0 if good or not args.check else 1


if __name__ == "__main__":
    sys.exit(main())
