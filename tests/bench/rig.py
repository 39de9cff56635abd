# SPDX-License-Identifier: GPL-2.0-or-later
"""Where and against what is measured: scratch file systems, images, daemons.

A rig is a directory on a file system with known behaviour:
  tmpfs  /dev/shm with O_DIRECT: measures software overhead alone;
  loop   ext4 on a loop device with direct I/O over a tmpfs file: really asynchronous.
Images are made by the stock qemu-img, so that both daemons meet what users have.
"""
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

GIB = 1 << 30
NULL_SIZE = 64 * GIB


class Skip(Exception):
    """The rig cannot be had here; the text says why."""


def run(*cmd, timeout=300):
    done = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=timeout, text=True)
    if done.returncode:
        raise RuntimeError("%s: %s" % (" ".join(cmd), done.stdout.strip()))
    return done.stdout


class Rig:
    """The tmpfs rig; also the base of the other."""
    name = "tmpfs"
    best_engine = "native" # ours; no matter here, where I/O is inline
    client_spin = 100      # M8, us

    nbdload = "nbdload" # bench.py says where it is

    def __init__(self, size=1 * GIB):
        self.size = size
        self.base = tempfile.mkdtemp(prefix="qdp-bench-", dir="/dev/shm")
        self.dir = self.base
        self.made = {}

    def close(self):
        shutil.rmtree(self.base, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def warm(self, size=GIB):
        """Let the memory that the next files get be there: on a virtual machine the host
        may have taken back what was freed, and gives it page by page when it is touched."""
        path = self.path("warm")
        try:
            with open(path, "wb", buffering=0) as out:
                block = bytes(1 << 20)
                for _ in range(size >> 20):
                    out.write(block)
        finally:
            os.unlink(path)

    def image(self, kind, cluster="64k"):
        """A path for this kind of image. "new" images are fresh at every call."""
        if kind in ("new", "overlay"):
            path = self.path("%s-%s.qcow2" % (kind, cluster))
            if os.path.exists(path):
                os.unlink(path)
            size = "64G" if cluster == "2M" else "16G"
            below = ["-b", self.image("raw"), "-F", "raw"] if kind == "overlay" else []
            run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
                "cluster_size=" + cluster, *below, path, *([] if below else [size]))
            self.warm()
            return path
        if kind not in self.made:
            self.made[kind] = self._fill(kind)
            forget_pages(self.made[kind])
        return self.made[kind]

    def scattered(self, kind):
        """One mapped cluster per 64 MiB of a 1 TiB disk, or per 4 MiB of one of 64 GiB, in
        scattered host order; written through stock's daemon. Dense: every cluster is mapped,
        in random order, and four times as many are written: those that are measured, for a
        page that the kernel has to find first costs more than the request."""
        size, step = {"scattered-64g": ("64G", "4M"), "scattered-1t": ("1T", "64M"),
                      "dense-64g": ("64G", "1M"), "dense-1t": ("1T", "16M")}[kind]
        path = self.path(kind + ".qcow2")
        if kind.startswith("dense"):
            run(self.scatter, "B", path, size)
        else:
            run("qemu-img", "create", "-q", "-f", "qcow2", path, size)
        with Daemon("qemu-storage-daemon", blockdev(path, kind, "native")) as d:
            run(self.nbdload, "--rw", "write", "--order", "once", "--bs", "4k", "--step", step,
                "--depth", "32", d.nbd, "disk")
        return path

    def _fill(self, kind):
        raw = self.path("full.raw")
        if not os.path.exists(raw):
            with open(raw, "wb") as out:
                block = os.urandom(1 << 20)
                for _ in range(self.size >> 20):
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
        if kind == "raw":
            return raw
        if kind.startswith(("scattered", "dense")):
            return self.scattered(kind)
        if kind == "chain":
            below = self.image("mapped")
            for i in range(10):
                path = self.path("chain-%d.qcow2" % i)
                run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2",
                    path)
                below = path
            return below
        path = self.path("mapped.qcow2")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o",
            "cluster_size=64k", raw, path)
        return path


class LoopRig(Rig):
    name = "loop"
    best_engine = "io_uring"
    client_spin = 0

    def __init__(self, size=1 * GIB):
        super().__init__(size)
        self.device = None
        try:
            backing = os.path.join(self.base, "backing")
            with open(backing, "wb") as out:
                out.truncate(16 * GIB) # sparse; the images of a whole run need ten
            self.device = run("losetup", "--find", "--show", "--direct-io=on",
                              backing).strip()
            run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0",
                self.device)
            self.dir = os.path.join(self.base, "mnt")
            os.mkdir(self.dir)
            run("mount", self.device, self.dir)
        except (RuntimeError, OSError) as err:
            self.close()
            raise Skip("no loop rig: %s" % err) from err

    def close(self):
        if self.device:
            subprocess.run(["umount", self.dir], stderr=subprocess.DEVNULL)
            subprocess.run(["losetup", "-d", self.device])
        super().close()


def forget_pages(path):
    """Out of the page cache with what made the image: the first to write with O_DIRECT would
    pay for throwing it out."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def blockdev(image, kind, engine):
    if kind == "null":
        return {"driver": "null-co", "node-name": "disk", "size": NULL_SIZE}
    file = {"driver": "file", "filename": image, "aio": engine,
            "cache": {"direct": True}}
    if kind == "raw":
        return dict(file, **{"node-name": "disk"})
    return {"driver": "qcow2", "node-name": "disk", "file": file,
            "cache": {"direct": True}, "discard": "unmap"}


def daemon_command(program, options, nbd, export=""):
    """The command line of one disk behind an NBD socket."""
    return [program, "--blockdev", json.dumps(options),
            "--nbd-server", "addr.type=unix,addr.path=%s,max-connections=0" % nbd,
            "--export", "nbd,id=e,node-name=disk,name=disk,writable=on" + export]


class Daemon:
    """One daemon with one disk behind an NBD socket; used as a context."""

    def __init__(self, program, options, qmp=False, extra=(), export=""):
        self.tmp = tempfile.mkdtemp(prefix="qdp-bench-sock-")
        self.nbd = os.path.join(self.tmp, "nbd")
        self.qmp = os.path.join(self.tmp, "qmp")
        cmd = daemon_command(program, options, self.nbd, export)
        cmd[1:1] = extra
        if qmp:
            cmd += ["--chardev", "socket,id=c,path=%s,server=on,wait=off" % self.qmp,
                    "--monitor", "c"]
        # stock tells of every client that leaves; what it says matters when it fails
        self.log = open(os.path.join(self.tmp, "log"), "w+")
        self.process = subprocess.Popen(cmd, stderr=self.log)
        self.pid = self.process.pid
        deadline = time.monotonic() + 10
        while not connects(self.nbd):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.log.seek(0)
                why = self.log.read()
                self.stop()
                raise RuntimeError("daemon did not start: %s\n%s" % (" ".join(cmd), why))
            time.sleep(0.005)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise RuntimeError("daemon did not end when told to") from None
        finally:
            self.log.close()
            shutil.rmtree(self.tmp, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


class Floor:
    """floor.c on a raw file, in the place of a daemon; for one connection."""

    def __init__(self, program, image):
        self.tmp = tempfile.mkdtemp(prefix="qdp-bench-sock-")
        self.nbd = os.path.join(self.tmp, "nbd")
        what = [image] if image else ["null", str(NULL_SIZE)]
        self.process = subprocess.Popen([program, self.nbd] + what)
        self.pid = self.process.pid
        while not os.path.exists(self.nbd):
            if self.process.poll() is not None:
                raise RuntimeError("floor did not start")
            time.sleep(0.005)
        time.sleep(0.05) # listen() follows bind(); a look would be its one connection

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.tmp, ignore_errors=True)


def connects(path):
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)
        return True
    except OSError:
        return False
    finally:
        sock.close()
