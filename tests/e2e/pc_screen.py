# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that starts from firmware, as a person sees it: what is on its screen, and typing."""
import re
import subprocess
import time

import pytest
from conftest import TOP

SCREEN_SECONDS = 120  # far more than firmware and a boot menu take in the emulated machine
POLL_SECONDS = 0.2


def guest(name):
    """Path of a guest that scripts/guests has or fetches; skips the test where it cannot."""
    p = subprocess.run([TOP / "scripts" / "guests", name], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if p.returncode:
        pytest.skip(f"scripts/guests {name}: {p.stderr.strip().splitlines()[-1] if p.stderr.strip() else 'failed'}")
    return p.stdout.strip()


class Machine:
    """`lodge run` in the background, and what can be seen and done from outside."""

    def __init__(self, lodge, *args, name="pc", memory="64M", **kw):
        self.lodge, self.name = lodge, name
        self.process = lodge.popen("run", name, "--memory", memory, *(() if "--net" in args else ("--net", "none")), *args, **kw)

    def screen(self):
        """The text screen; empty before there is one, and in graphics modes."""
        r = self.lodge("screen", self.name)
        return r.out if r.status == 0 else ""

    def died(self):
        out, err = (b.decode(errors="replace") for b in self.process.communicate())
        return f"it ended with status {self.process.returncode}\n{out}{err}"

    def wait(self, pattern, seconds=SCREEN_SECONDS):
        """The match of @pattern on the screen; fails with what is there after @seconds."""
        deadline = time.monotonic() + seconds
        while True:
            text = self.screen()
            m = re.search(pattern, text, re.M)
            if m:
                return m
            if self.process.poll() is not None:
                pytest.fail(f"no {pattern!r}: {self.died()}")
            if time.monotonic() >= deadline:
                pytest.fail(f"no {pattern!r} within {seconds} s on\n{_shown(text)}")
            time.sleep(POLL_SECONDS)

    def watch(self, pattern, seconds):
        """The same match until @seconds have passed: each value of its first group, in order."""
        deadline, seen = time.monotonic() + seconds, []
        while time.monotonic() < deadline:
            m = re.search(pattern, self.screen(), re.M)
            if m and m[1] not in seen[-1:]:
                seen.append(m[1])
            time.sleep(POLL_SECONDS)
        return seen

    def type(self, text="", *keys, enter=False):
        words = [*([text] if text else ()), *(w for k in keys for w in ("--keys", k)), *(["--enter"] if enter else ())]
        r = self.lodge("type", self.name, *words)
        assert r.status == 0, r.err

    def end(self):
        """Pull the plug; (status, standard output, standard error)."""
        for _ in range(2):
            if self.process.poll() is None:
                self.process.terminate()
                time.sleep(0.1)
        out, err = (b.decode(errors="replace") for b in self.process.communicate(timeout=SCREEN_SECONDS))
        return self.process.returncode, out, err


def _shown(text):
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def console(path):
    """What a machine with --console file:PATH has said so far."""
    return path.read_text(errors="replace") if path.exists() else ""


def wait_console(machine, path, pattern, seconds=SCREEN_SECONDS):
    """The match of @pattern in that file; fails with its end after @seconds."""
    deadline = time.monotonic() + seconds
    while not (m := re.search(pattern, console(path), re.M)):
        if machine.process.poll() is not None:
            pytest.fail(f"no {pattern!r}: {machine.died()}\n{console(path)}")
        if time.monotonic() >= deadline:
            pytest.fail(f"no {pattern!r} within {seconds} s in\n{console(path)[-4000:]}\n{_shown(machine.screen())}")
        time.sleep(POLL_SECONDS)
    return m
