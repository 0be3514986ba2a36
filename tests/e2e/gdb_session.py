# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with something to debug, and stock GDB on it."""
import os
import pathlib
import re
import select
import shutil
import subprocess
import time

import pytest

SECONDS = 180 if os.environ.get("LODGE_TEST_EMULATED") else 60


def gdb_or_skip():
    if not shutil.which("gdb"):
        pytest.skip("no gdb; install it")


class Debuggee:
    """The guest "debug" on two CPUs, its console on our pipes."""

    def __init__(self, lodge, guests, *more, name="debug64", cpus=2, ready=True):
        self.lodge, self.guest = lodge, guests / name
        self.symbols = pathlib.Path(f"{self.guest}.p") / "elf"
        self.process = lodge.popen("run", "box", "--kernel", self.guest, "--cpus", cpus, "--memory", "64M", "--net", "none", "--rng", "off", "--console", "stdio",
                                   "--debug-exit", *more, stdin=subprocess.PIPE)
        self.seen = b""
        if ready:
            self.expect(b"READY\r\n")

    def expect(self, text):
        deadline = time.monotonic() + SECONDS
        while text not in self.seen:
            assert select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0], f"no {text!r} in {self.seen!r}"
            got = os.read(self.process.stdout.fileno(), 4096)
            assert got, (self.seen, self.process.stderr.read())
            self.seen += got

    def gdb(self, *commands, remote=None):
        """What GDB prints; each command's output stands behind a line "== N"."""
        lines = [word for i, c in enumerate(commands) for word in ("-ex", f"echo == {i}\\n", "-ex", c)]
        options = ["-nx", "-batch", "-ex", "set confirm off", "-ex", "set height 0", "-ex", "set width 0", *lines]
        env = dict(self.lodge.env, TERM="dumb")
        line = [str(self.lodge.path), "gdb", "box", "--", str(self.symbols), *options] if remote is None else ["gdb", "-q", str(self.symbols), "-ex", "set remotetimeout 60", "-ex", f"target remote {remote}", *options]
        try:
            p = subprocess.run(line, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2 * SECONDS, check=False, text=True)
        except subprocess.TimeoutExpired as e:
            pytest.fail(f"GDB did not end:\n{(e.stdout or b'').decode(errors='replace')}")
        parts = re.split(r"^== \d+\n", p.stdout, flags=re.M)
        assert len(parts) == len(commands) + 1, p.stdout
        return parts[1:]

    def quit(self):
        """The guest ends by itself: nothing that a debugger did was lost or stayed."""
        self.process.stdin.write(b"q")
        self.process.stdin.flush()
        _, err = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 33, (self.seen, err)
