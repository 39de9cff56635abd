# SPDX-License-Identifier: GPL-2.0-or-later
"""What a daemon costs that does nothing: idle memory, and time from start to greeting."""
import os
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import time

import rig


def memory(pid):
    """Pss and Private_Dirty in KiB."""
    ret = {}
    with open("/proc/%d/smaps_rollup" % pid) as lines:
        for line in lines:
            word = line.split()
            if word[0] in ("Rss:", "Pss:", "Private_Dirty:"):
                ret[word[0][:-1].lower()] = int(word[1])
    ret["threads"] = len(os.listdir("/proc/%d/task" % pid))
    return ret


def settle(program):
    """Pages of a program that was linked a moment ago count as private and dirty until they
    are on the disk."""
    with open(shutil.which(program) or program, "rb") as f:
        os.fsync(f.fileno())


def idle_memory(program, options, count=1):
    """Medians over @count daemons that run at the same time, each with its own disk."""
    daemons = []
    settle(program)
    try:
        for one in options[:count]:
            daemons.append(rig.Daemon(program, one, qmp=True))
        time.sleep(1.5)
        seen = [memory(d.pid) for d in daemons]
    finally:
        for d in daemons:
            d.stop()
    return {key: statistics.median(m[key] for m in seen) for key in seen[0]}


def empty_memory(program, count=1):
    settle(program)
    sleepers = [subprocess.Popen([program, "wait"]) for _ in range(count)]
    time.sleep(0.3)
    seen = [memory(p.pid) for p in sleepers]
    for p in sleepers:
        p.terminate()
        p.wait()
    return {key: statistics.median(m[key] for m in seen) for key in seen[0]}


def greeting_once(program):
    tmp = tempfile.mkdtemp(prefix="qdp-bench-")
    path = os.path.join(tmp, "qmp")
    begin = time.monotonic()
    process = subprocess.Popen([program, "--chardev",
                                "socket,id=c,path=%s,server=on,wait=off" % path,
                                "--monitor", "c"])
    try:
        while True:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(1)
            try:
                sock.connect(path)
                if sock.recv(4096).startswith(b'{"QMP"'):
                    return (time.monotonic() - begin) * 1e3
            except socket.timeout:
                return None  # stock hangs when a client comes while it starts
            except OSError:
                time.sleep(0.0001)
            finally:
                sock.close()
            if time.monotonic() - begin > 5:
                return None
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(tmp, ignore_errors=True)


def first_read(sock):
    """The old greeting and one read of 4 KiB (spec: NBD protocol)."""
    def take(size):
        got = b""
        while len(got) < size:
            more = sock.recv(size - len(got))
            if not more:
                raise OSError("the server left")
            got += more
        return got
    take(18)
    sock.sendall(struct.pack(">IQII4s", 3, 0x49484156454f5054, 1, 4, b"disk"))
    take(10)
    sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, 4096))
    if struct.unpack(">IIQ", take(16))[1]:
        raise OSError("the read failed")
    take(4096)


def first_io_once(program, options):
    with tempfile.TemporaryDirectory(prefix="qdp-bench-") as tmp:
        path = os.path.join(tmp, "nbd")
        begin = time.monotonic()
        process = subprocess.Popen(rig.daemon_command(program, options, path))
        try:
            while True:
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(10)
                    try:
                        sock.connect(path)
                        first_read(sock)
                        return (time.monotonic() - begin) * 1e3
                    except (ConnectionError, FileNotFoundError):
                        time.sleep(0.0001)
                if time.monotonic() - begin > 10 or process.poll() is not None:
                    raise RuntimeError("%s did not start" % program)
        finally:
            process.kill()
            process.wait()


def first_io(programs, options, rounds=15):
    """Milliseconds from start to the reply of a read: {name: median}."""
    times = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            times[name].append(first_io_once(program, options))
    return {name: statistics.median(v) for name, v in times.items()}


def exit_once(program):
    begin = time.monotonic()
    subprocess.run([program], check=True)
    return (time.monotonic() - begin) * 1e3


def start_up(programs, empty, rounds=15):
    """Milliseconds to the QMP greeting, and the empty program's until it ended."""
    times = {name: [] for name in programs}
    times["empty"] = []
    for _ in range(rounds):
        times["empty"].append(exit_once(empty))
        for name, program in programs.items():
            value = greeting_once(program)
            if value is not None:
                times[name].append(value)
    return {name: statistics.median(v) if v else None for name, v in times.items()}
