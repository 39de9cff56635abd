# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured and what is to be reached: the workloads (cells) and the targets."""
from collections import namedtuple

# image: see rig.py; cluster: of "new" and "overlay" images; options: nbdload's;
# ops: so many operations instead of a time (allocating cells come to an end);
# ours: options of our daemon and of its export beyond the usual ones.
Cell = namedtuple("Cell", "name image cluster options ops ours rigs")
Target = namedtuple("Target", "rig cell times part")

K4 = ["--bs", "4k", "--order", "random"]
BOTH = ("tmpfs", "loop")
SPIN = (["--object", "iothread,id=io0,poll-max-ns=200000"], ",iothread=io0")


def cell(name, image, *options, cluster=None, ops=None, ours=((), ""), rigs=BOTH):
    return Cell(name, image, cluster, list(options), ops, ours, rigs)


def k4(rw, depth, *more):
    return K4 + ["--rw", rw, "--depth", str(depth)] + list(more)


def once(step, depth):
    return ["--bs", "4k", "--step", step, "--order", "once", "--rw", "write", "--depth",
            str(depth)]


def seq(rw, size, depth):
    return ["--bs", size, "--order", "seq", "--rw", rw, "--depth", str(depth)]


CELLS = [
    cell("null-randread-1", "null", *k4("read", 1)),
    cell("null-randread-32", "null", *k4("read", 32)),
    cell("null-randwrite-32", "null", *k4("write", 32)),
    cell("raw-randread-1", "raw", *k4("read", 1)),
    cell("raw-randread-32", "raw", *k4("read", 32)),
    cell("raw-randwrite-1", "raw", *k4("write", 1)),
    cell("raw-randwrite-32", "raw", *k4("write", 32)),
    cell("mapped-randread-1", "mapped", *k4("read", 1)),
    cell("mapped-randwrite-1", "mapped", *k4("write", 1)),
    cell("mapped-randread-1-spin", "mapped", *k4("read", 1), ours=SPIN),
    cell("mapped-randwrite-1-spin", "mapped", *k4("write", 1), ours=SPIN),
    cell("mapped-randread-32", "mapped", *k4("read", 32)),
    cell("mapped-randwrite-32", "mapped", *k4("write", 32)),
    cell("mapped-fua-1", "mapped", *k4("write", 1, "--fua")),
    cell("mapped-fua-16", "mapped", *k4("write", 16, "--fua")),
    cell("mapped-flush-each-1", "mapped", *k4("write", 1, "--flush-every", "1")),
    cell("mapped-flush-each-16", "mapped", *k4("write", 16, "--flush-every", "1")),
    cell("mapped-seqread-64k", "mapped", *seq("read", "64k", 8)),
    cell("mapped-seqwrite-64k", "mapped", *seq("write", "64k", 8)),
    cell("mapped-seqread-1m", "mapped", *seq("read", "1M", 4)),
    cell("mapped-seqwrite-1m", "mapped", *seq("write", "1M", 4)),
    cell("chain10-randread-32", "chain", *k4("read", 32)),
    # allocating: every write meets a new cluster
    cell("alloc-64k-randwrite-32", "new", *once("64k", 32), cluster="64k", ops=20000),
    cell("alloc-64k-randwrite-1", "new", *once("64k", 1), cluster="64k", ops=20000),
    cell("alloc-2m-randwrite-32", "new", *once("2M", 32), cluster="2M", ops=1000),
    cell("alloc-2m-randwrite-1", "new", *once("2M", 1), cluster="2M", ops=1000),
    # what a file system of the guest does when it commits
    cell("alloc-64k-flush64-32", "new", *once("1M", 32), "--flush-every", "64",
         cluster="64k", ops=8000),
    cell("alloc-backed-64k-randwrite-32", "overlay", *once("64k", 32), cluster="64k",
         ops=8000),
    cell("alloc-backed-2m-randwrite-32", "overlay", *once("2M", 32), cluster="2M", ops=400),
    # images that no small cache covers: one cluster per 4 MiB of 64 GiB, per 64 MiB of 1 TiB
    cell("scattered-64g-randread-32", "scattered-64g", *k4("read", 32, "--step", "4M")),
    cell("scattered-64g-randwrite-32", "scattered-64g", *k4("write", 32, "--step", "4M")),
    cell("scattered-1t-randread-32", "scattered-1t", *k4("read", 32, "--step", "64M")),
    cell("scattered-1t-randwrite-32", "scattered-1t", *k4("write", 32, "--step", "64M")),
    # every cluster mapped, in random order; each slice of the tables is met
    *(cell("dense-%s-rand%s-32" % (size, rw), "dense-" + size,
           *k4(rw, 32, "--step", step), rigs=("tmpfs",))
      for size, step in (("64g", "1M"), ("1t", "16M")) for rw in ("read", "write")),
]
QUICK = ["mapped-randread-32", "mapped-randwrite-32", "mapped-randread-1",
         "null-randread-32", "mapped-flush-each-16", "alloc-64k-randwrite-32",
         "alloc-2m-randwrite-32"]

# At least so many times stock's IOPS, at most this part of its CPU per I/O (None: any).
TARGETS = [
    Target("tmpfs", "null-randread-32", 8, 0.12),
    Target("tmpfs", "null-randwrite-32", 8, 0.12),
    Target("tmpfs", "mapped-randread-32", 3.5, 0.3),
    Target("tmpfs", "mapped-randwrite-32", 3.5, 0.3),
    Target("loop", "mapped-randread-32", 2, 0.4),
    Target("loop", "mapped-randwrite-32", 2, 0.4),
    Target("tmpfs", "mapped-randread-1", 1.3, 0.6),
    Target("tmpfs", "mapped-randwrite-1", 1.3, 0.6),
    Target("tmpfs", "mapped-randread-1-spin", 1.7, 0.6),
    Target("tmpfs", "mapped-randwrite-1-spin", 1.7, 0.6),
    Target("tmpfs", "alloc-64k-randwrite-32", 4, 0.25),
    Target("tmpfs", "alloc-64k-randwrite-1", 2, 0.35),
    Target("tmpfs", "alloc-2m-randwrite-32", 4, 0.25),
    Target("tmpfs", "alloc-2m-randwrite-1", 2, 0.35),
    Target("tmpfs", "alloc-backed-64k-randwrite-32", 3, 0.35),
    Target("tmpfs", "alloc-backed-2m-randwrite-32", 3, 0.35),
    Target("tmpfs", "mapped-flush-each-16", 2.5, 0.3),
    Target("loop", "mapped-flush-each-1", 1.5, 0.3),
    Target("loop", "alloc-64k-flush64-32", 2.5, 0.4),
    Target("tmpfs", "scattered-64g-randread-32", 3.5, 0.3),
    Target("tmpfs", "scattered-64g-randwrite-32", 3.5, 0.3),
    Target("tmpfs", "scattered-1t-randread-32", 3, 0.3),
    Target("tmpfs", "scattered-1t-randwrite-32", 4, 0.3),
    Target("tmpfs", "dense-64g-randread-32", 1.5, None),
    Target("tmpfs", "dense-64g-randwrite-32", 1.5, None),
    Target("tmpfs", "dense-1t-randread-32", 1.5, None),
    Target("tmpfs", "dense-1t-randwrite-32", 1.5, None),
    Target("tmpfs", "chain10-randread-32", 3.5, 0.3),
    Target("tmpfs", "mapped-seqread-64k", 1.6, 0.65),
    Target("tmpfs", "mapped-seqwrite-64k", 1.2, 0.65),
]
# Ours against ours: (rig, cell, peer cell, at least so many times, at most this part)
AGAINST = [
    ("tmpfs", "mapped-randread-32", "raw-randread-32", 0.9, 1.1),
    ("tmpfs", "mapped-randwrite-32", "raw-randwrite-32", 0.9, 1.1),
]
FLOOR = [ # ours against the floor server (floor.c)
    ("tmpfs", "raw-randread-32", 0.75, None),
    ("tmpfs", "raw-randwrite-32", 0.75, None),
    ("tmpfs", "null-randwrite-32", 0.75, None), # where stock is no measure: the socket is
]
MAX_SYSTEM_CALLS = 1.1 # per I/O, cells of depth 32
MORE_CALLS = ("alloc", "dense") # but these: metadata is read or written, which is I/O too
ENGINES = ["mapped-randread-32", "mapped-randwrite-32", "mapped-randread-1"] # aio=native too
LAIO = 0.8 # of our io_uring figures, where the device is asynchronous
# After reading at each step: KiB. A dense disk may have its budget of 32 MiB, and 2 MiB.
RSS = [("scattered-64g", "4M", 6 << 10), ("scattered-1t", "64M", 10 << 10),
       ("dense-1t", "16M", (4 + 32 + 2) << 10)]
