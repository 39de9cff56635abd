#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Draw what diary.py measured: charts.py FOLDER (reads diary.json, writes *.svg there).

One picture for each image size and number of disks: a row of bars for each workload, ours and
stock side by side in every configuration."""
import json
import os
import sys

import matplotlib
matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402  pylint: disable=wrong-import-position

OURS, STOCK = "#1b6ca8", "#c9a227"


def bars(axes, rows, workload):
    """k IOPS of each configuration; for the latency probe, microseconds."""
    probe = workload == "ioping"
    key, scale = ("p50_us", 1) if probe else ("iops", 1e-3)
    at = range(len(rows))
    for peer, shift, colour in (("ours", -0.2, OURS), ("stock", 0.2, STOCK)):
        values = [r[peer][key] * scale for r in rows]
        drawn = axes.bar([x + shift for x in at], values, 0.4, color=colour,
                         label="qemu-dp" if peer == "ours" else "qemu-storage-daemon")
        axes.bar_label(drawn, fmt="%.3g", fontsize=5)
    axes.set_title(workload, fontsize=8, loc="left")
    axes.set_ylabel("us, p50" if probe else "k IOPS", fontsize=7)
    axes.set_xticks(list(at))
    axes.set_xticklabels([r["config"] for r in rows], rotation=25, ha="right", fontsize=6)
    axes.tick_params(axis="y", labelsize=6)
    axes.spines[["top", "right"]].set_visible(False)


def draw(folder, about, size, disks, results):
    workloads = list(dict.fromkeys(r["workload"] for r in results))
    figure, all_axes = pyplot.subplots((len(workloads) + 1) // 2, 2, squeeze=False,
                                       figsize=(13, 2.6 * ((len(workloads) + 1) // 2) + 0.6))
    flat = [a for row in all_axes for a in row]
    for axes, workload in zip(flat, workloads):
        bars(axes, [r for r in results if r["workload"] == workload], workload)
    for axes in flat[len(workloads):]:
        axes.set_visible(False)
    flat[0].legend(fontsize=7, frameon=False)
    figure.suptitle("%s, clusters scattered, %d disk%s - %s rig, %d x %s, kernel %s" % (
        size, disks, "" if disks == 1 else "s at once", about["rig"], about["host"]["cpus"],
        about["host"]["model"], about["host"]["kernel"]), fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    path = os.path.join(folder, "diary-%s-%d.svg" % (size, disks))
    figure.savefig(path)
    pyplot.close(figure)
    print(path)


def main():
    folder = sys.argv[1]
    with open(os.path.join(folder, "diary.json"), encoding="utf-8") as f:
        about = json.load(f)
    groups = {}
    for r in about["results"]:
        groups.setdefault((r["size"], r["disks"]), []).append(r)
    for (size, disks), results in groups.items():
        draw(folder, about, size, disks, results)


if __name__ == "__main__":
    main()
