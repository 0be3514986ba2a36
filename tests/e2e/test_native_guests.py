# SPDX-License-Identifier: GPL-2.0-or-later
"""The bare-metal guests on this host's /dev/kvm; guest_cases.py says what each must come to."""
import os
import re
import select
import time

import pytest
from conftest import has_assist
from guest_cases import CASES, PASS, Case


def check(case, status, out, err):
    said = f"\n--- guest\n{out}\n--- lodge\n{err}"
    wanted = {case.status}
    if case.where == "emulated":
        # Where the CPU runs ring 0 itself, the guest handles the exception and passes.
        wanted = {True: {PASS}, False: {case.status}, None: {PASS, case.status}}[has_assist()]
    assert status in wanted, f"status {status}, not {sorted(wanted)}{said}"
    at = 0
    for text in case.expect:
        at = out.find(text, at)
        assert at >= 0, f"no {text!r}{said}"


def arguments(case, guests, tmp_path):
    args = ["run", "--kernel", guests / case.guest, "--append", case.append, "--memory", f"{case.memory}M", "--cpus", case.cpus, "--net", f"user,model={case.card}" if case.card else "none",
            "--debug-exit", "--console", "stdio"]
    for i in range(case.modules):
        path = tmp_path / f"module{i}"
        path.write_bytes(bytes([i + 1]) * (5000 + i))
        args += ["--initrd", path]
    return args


@pytest.mark.parametrize("case", [c for c in CASES if not c.feed], ids=lambda c: c.name)
def test_guest(case, lodge, guests, tmp_path, nothing_left):
    r = lodge(*arguments(case, guests, tmp_path), timeout=case.timeout)
    check(case, r.status, r.out, r.err)


@pytest.mark.parametrize("debug_exit", [False, True], ids=["status-8", "debug-exit"])
def test_stopped_cpu(debug_exit, lodge, guests, nothing_left):
    """What KVM cannot emulate: registers, code, KVM's words, what it means, the tail of the console."""
    if has_assist():
        pytest.skip("this host's CPU runs guest kernel mode itself, so that nothing stops it")
    r = lodge("run", "--kernel", guests / "fault64", "--append", "how=int3", "--memory", "64M", "--net", "none", *(["--debug-exit"] if debug_exit else []))
    assert r.status == (125 if debug_exit else 8), r.err
    for what in (r"^lodge: run: vm-\d+: vCPU 0 stopped$", r"^ +rip 0000000000[0-9a-f]{6} ", r"^  bytes at rip: cc ", r"^  => 0x0000000000[0-9a-f]{6}: int3 *$",
                 r"^     0x0000000000[0-9a-f]{6}: mov esi, dword ptr \[rip \+ 0x", r"^  KVM said: internal error 1 \(it cannot emulate", r"^  what it means: this host has no VT-x",
                 r"^lodge: the last lines of the console:$", r"^about to run int3\s*$"):
        assert re.search(what, r.err, re.M), f"{what}\n{r.err}"


def feed(lodge, guests, tmp_path, case):
    """A byte (or a batch) at a time, each after the answer to the one before: a lost wake-up is a time-out."""
    p = lodge.popen(*arguments(case, guests, tmp_path), stdin=-1)
    deadline = time.monotonic() + case.timeout
    out = b""

    def read(what):
        nonlocal out
        ready, _, _ = select.select([p.stdout], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            p.kill()
            pytest.fail(f"time-out: {what}\n{out.decode(errors='replace')}\n{p.stderr.read().decode(errors='replace')}")
        got = os.read(p.stdout.fileno(), 4096)
        if not got:
            pytest.fail(f"ended: {what}\n{out.decode(errors='replace')}\n{p.stderr.read().decode(errors='replace')}")
        return got

    batch = 256 if "quiet" in case.append else 1
    while b"READY" not in out:
        out += read("before it was ready")
    out = out.replace(b".", b"")
    for sent in range(batch, case.feed + 1, batch):
        os.write(p.stdin.fileno(), b"x" * batch)
        while not (got := read(f"after {sent} bytes")).count(b"."):
            out += got
    rest, err = p.communicate(timeout=max(1, deadline - time.monotonic()))
    check(case, p.returncode, (out + rest).decode(errors="replace"), err.decode(errors="replace"))


# A million takes a minute or more, so that is asked for: LODGE_TEST_LONG=1
LONG = [Case("hlt_wake", append="n=1000000", feed=1000000, timeout=900)] if "LODGE_TEST_LONG" in os.environ else []


@pytest.mark.parametrize("case", [c for c in CASES if c.feed] + LONG, ids=lambda c: c.name)
def test_wake_ups(case, lodge, guests, tmp_path, nothing_left):
    feed(lodge, guests, tmp_path, case)
