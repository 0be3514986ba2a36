#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine costs whose guest idles at a text screen while somebody looks: processor time of its
process, in percent of one core, without a viewer and with one.

  idle.py --lodge build/src/cli/lodge [--seconds 30] [--type REGEX TEXT]... [--ready REGEX] [--json FILE]
          -- ARGUMENTS OF RUN

Each --type waits for REGEX on the screen and types TEXT (\\n is Enter). The guest is at rest when --ready
is seen (default: a login prompt). The viewer asks for each change of the picture, as viewers do, and
takes it.
"""
import argparse
import json
import os
import pathlib
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time

SETTLE_SECONDS = 10


class Viewer:
    """A VNC viewer (RFC 6143) that takes raw rectangles."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.connect(path)
        self.take(12)
        self.s.sendall(b"RFB 003.008\n")
        types = self.take(self.take(1)[0])
        assert 1 in types, f"no access without a password: {types}"
        self.s.sendall(b"\1")
        assert self.take(4) == bytes(4), "refused"
        self.s.sendall(b"\1")
        head = self.take(24)
        self.width, self.height = int.from_bytes(head[:2], "big"), int.from_bytes(head[2:4], "big")
        self.pixel = head[4] // 8
        self.take(int.from_bytes(head[20:], "big"))
        self.bytes = self.updates = 0
        self.ask(0)

    def take(self, n):
        data = b""
        while len(data) < n:
            got = self.s.recv(n - len(data))
            assert got, "the server went away"
            data += got
        return data

    def ask(self, incremental=1):
        self.s.sendall(bytes((3, incremental, 0, 0, 0, 0)) + self.width.to_bytes(2, "big") + self.height.to_bytes(2, "big"))

    def look(self, seconds):
        """Take what comes for that long."""
        end = time.monotonic() + seconds
        while select.select([self.s], [], [], max(0, end - time.monotonic()))[0]:
            kind = self.take(1)[0]
            if kind == 0:
                for _ in range(int.from_bytes(self.take(3)[1:], "big")):
                    r = self.take(12)
                    size = int.from_bytes(r[4:6], "big") * int.from_bytes(r[6:8], "big") * self.pixel
                    self.take(size)
                    self.bytes += size
                self.updates += 1
                self.ask()
            elif kind == 3:
                self.take(int.from_bytes(self.take(7)[3:], "big"))


def spent(pid):
    """Seconds of processor time so far, the guest's own among them, by thread name."""
    out = {}
    for t in pathlib.Path(f"/proc/{pid}/task").iterdir():
        name, ns = (t / "comm").read_text().strip(), int((t / "schedstat").read_text().split()[0])
        out[name] = out.get(name, 0) + ns / 1e9
    return out


def percent(before, after, seconds):
    by = {n: round((after[n] - before.get(n, 0)) / seconds * 100, 2) for n in after}
    return {"all": round(sum(by.values()), 2), **{n: v for n, v in by.items() if v}}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lodge", default="build/src/cli/lodge")
    p.add_argument("--seconds", type=float, default=30)
    p.add_argument("--type", nargs=2, action="append", default=[], metavar=("REGEX", "TEXT"))
    p.add_argument("--ready", default=r"login: *$")
    p.add_argument("--timeout", type=float, default=600)
    p.add_argument("--json")
    p.add_argument("arguments", nargs="+")
    a = p.parse_args()
    home = tempfile.mkdtemp(prefix="lb.", dir="/dev/shm")
    env = dict(os.environ, XDG_RUNTIME_DIR=home, XDG_STATE_HOME=home)
    proc = subprocess.Popen([a.lodge, "run", "idle", "--display", f"vnc=unix:{home}/vnc", *a.arguments], env=env, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + a.timeout
        for regex, text in [*a.type, (a.ready, None)]:
            while True:
                r = subprocess.run([a.lodge, "screen", "idle"], env=env, capture_output=True, text=True, check=False)
                if re.search(regex, r.stdout, re.M):
                    break
                if proc.poll() is not None or time.monotonic() > end:
                    sys.exit(f"idle: never saw {regex!r} on\n{r.stdout}{r.stderr}")
                time.sleep(1)
            if text:
                subprocess.run([a.lodge, "type", "idle", text], env=env, check=True)
        time.sleep(SETTLE_SECONDS)
        before = spent(proc.pid)
        time.sleep(a.seconds)
        result = {"alone": percent(before, spent(proc.pid), a.seconds)}
        viewer = Viewer(f"{home}/vnc")
        viewer.look(SETTLE_SECONDS)
        viewer.bytes = viewer.updates = 0
        before = spent(proc.pid)
        viewer.look(a.seconds)
        result["viewer"] = percent(before, spent(proc.pid), a.seconds)
        print(f"percent of a core over {a.seconds:.0f} s, {viewer.width}x{viewer.height}:")
        for name, values in result.items():
            print(f"  {name:7}" + "  ".join(f"{k} {v}" for k, v in values.items()))
        print(f"  the viewer got {viewer.updates} updates, {viewer.bytes} bytes")
        if a.json:
            pathlib.Path(a.json).write_text(json.dumps(result))
    finally:
        proc.kill()
        proc.wait()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
