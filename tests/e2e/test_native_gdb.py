# SPDX-License-Identifier: GPL-2.0-or-later
"""Stock GDB on a bare-metal guest, as far as a host whose KVM emulates guest kernel mode stops there: steps and
execution breakpoints. Watchpoints and INT3 are in test_full_gdb.py."""
import contextlib
import os
import re
import socket
import stat
import subprocess
import time

import pytest
from gdb_session import SECONDS, Debuggee, gdb_or_skip
from qmp import Qmp

pytestmark = pytest.mark.usefixtures("nothing_left")


def number(text):
    return int(re.search(r"= (?:\(.*\) )?(0x[0-9a-f]+|\d+)", text)[1], 0)


def test_breakpoints_and_steps(lodge, guests):
    gdb_or_skip()
    box = Debuggee(lodge, guests)
    out = box.gdb("info threads", "hbreak bump", "continue", "bt 2", "p counter", "delete", "finish", "p counter", "break mark", "continue", "p/x $rip == &mark", "stepi", "stepi", "p/x $rip",
                  "next", "p marked == counter", "info registers cr0 efer fs_base", "delete", "detach")
    assert "Thread 1 (vCPU 0" in out[0] and "Thread 2 (vCPU 1" in out[0]
    assert "Hardware assisted breakpoint 1 at" in out[1] and "hit Breakpoint 1, bump (by=" in out[2]
    assert "#1 " in out[3] and "guest_main" in out[3]
    assert "guest_main" in out[6] and number(out[7]) == number(out[4]) + 2
    assert "hit Breakpoint 2, mark ()" in out[9] and number(out[10]) == 1
    assert number(out[15]) == 1
    assert "cr0 " in out[16] and re.search(r"efer +0x500 ", out[16]) and "fs_base" in out[16]
    assert "detached" in out[18]
    box.quit()


def test_registers_and_memory(lodge, guests):
    gdb_or_skip()
    box = Debuggee(lodge, guests)
    out = box.gdb("thread 2", "bt 1", "p others", "p $rdi", "thread 1", "p $rsp != 0", "set var marked = 0x12345678", "p/x marked", "p &marked",
                  "maint packet Qqemu.PhyMemMode:1", "x/1xw &marked", "maint packet Qqemu.PhyMemMode:0", "x/1xw 0xffffffff80000000", "set $r15 = 77", "p $r15", "p $xmm0.uint128",
                  "set $xmm3.v2_int64[1] = 5", "p $xmm3.v2_int64[1]", "p $st0", "monitor info status", "detach")
    assert "ap_main (index=1)" in out[1] and number(out[3]) == 1 and number(out[7]) == 0x12345678
    assert '"OK"' in out[9] and "0x12345678" in out[10] and "Cannot access memory" in out[12]
    assert number(out[14]) == 77 and number(out[17]) == 5 and "VM status: paused" in out[19]
    box.quit()


def test_32_bits(lodge, guests):
    gdb_or_skip()
    box = Debuggee(lodge, guests, name="debug", cpus=1)
    out = box.gdb("hbreak bump", "continue", "info registers eip cr0", "stepi", "show architecture", "delete", "detach")
    assert "Breakpoint 1, bump" in out[1] and "<bump>" in out[2] and '"i386"' in out[4]
    box.quit()


def test_wait(lodge, guests):
    """With wait=on nothing runs before the debugger says so; a TCP port; kill."""
    gdb_or_skip()
    box = Debuggee(lodge, guests, "--gdb", "tcp:0,wait=on", name="debug", cpus=1, ready=False)
    said = b""
    while b"target remote" not in said:
        got = os.read(box.process.stderr.fileno(), 4096)
        assert got, said
        said += got
    address = re.search(r"target remote (127\.0\.0\.1:\d+); the machine waits for it", said.decode())[1]
    assert Qmp(box.lodge.home / "run" / "lodge" / "box" / "qmp.sock").ask("query-status")[1]["return"]["status"] == "paused"
    assert lodge("gdb", "--print", "box").out == f"target remote {address}\n"
    out = box.gdb("p counter", "hbreak guest_main", "continue", "p counter", "kill", remote=address)
    assert number(out[0]) == 0 and "Breakpoint 1, guest_main" in out[2] and number(out[3]) == 0
    box.process.communicate(timeout=SECONDS)
    assert box.process.returncode == 0


def packet(s, text):
    s.sendall(b"$" + text + b"#%02x" % (sum(text) & 255))


def hear(s, until=b"#"):
    out = b""
    while until not in out:
        got = s.recv(4096)
        assert got, out
        out += got
    return out


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])


def test_a_crowd(lodge, guests, tmp_path):
    """A thousand connections, a megabyte without end, and half a packet of each: the first has the machine, nothing grows, the guest goes on."""
    box = Debuggee(lodge, guests, "--gdb", f"unix:{tmp_path}/g")
    q = Qmp(lodge.home / "run" / "lodge" / "box" / "qmp.sock")

    def connect():
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(SECONDS)
        s.connect(str(tmp_path / "g"))
        return s

    def running():
        return q.ask("query-status")[1]["return"]["status"] == "running"
    first = once_served(connect)
    before = resident_kib(box.process.pid)
    for i in range(1000):
        with connect() as s:
            if i % 2:  # some leave before they are turned away
                with contextlib.suppress(ConnectionError):
                    assert s.recv(1) == b""
    assert running()
    packet(first, b"qSupported")
    assert b"PacketSize=" in hear(first)
    for mib in (b"$" + b"x" * (1 << 20), b"}" * (1 << 20), b"$" + b"}" * (1 << 20) + b"#00", b"$x" * (1 << 19), b"#" * (1 << 20)):
        with contextlib.suppress(OSError):
            first.settimeout(1)
            first.sendall(mib)
        first.close()
        first = once_served(connect)
        assert running()
    for command in (b"g", b"G00", b"m0,40", b"M0,1:", b"vCont;s:1", b"Z1,0,1", b"?", b"D", b"c", b"qXfer:features:read:target.xml:0,fff", b"qRcmd,73746f70"):
        for cut in (False, True):
            packet(first, command) if not cut else first.sendall(b"$" + command[:-1])
            first.close()
            first = once_served(connect)
            deadline = time.monotonic() + SECONDS
            while not running():
                assert time.monotonic() < deadline, command
    assert resident_kib(box.process.pid) - before < 8 * 1024
    first.close()
    box.quit()


def once_served(connect):
    """The debugger, when the one before it has been noticed to be gone."""
    deadline = time.monotonic() + SECONDS
    while True:
        s = connect()
        with contextlib.suppress(ConnectionError):
            packet(s, b"qSupported")
            if s.recv(1):
                hear(s)
                return s
        s.close()
        assert time.monotonic() < deadline


def test_clients(lodge, guests, tmp_path):
    """Those who leave in mid-command, send noise, or come second; QMP beside a debugger."""
    box = Debuggee(lodge, guests, "--gdb", f"unix:{tmp_path}/g")
    path = str(tmp_path / "g")
    q = Qmp(lodge.home / "run" / "lodge" / "box" / "qmp.sock")

    def status(wanted):
        deadline = time.monotonic() + SECONDS
        while (now := q.ask("query-status")[1]["return"]["status"]) != wanted:
            assert time.monotonic() < deadline, now

    def connect():
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(SECONDS)
        s.connect(path)
        return s

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    s = connect()
    status("running")  # until it asks for something
    packet(s, b"?")
    assert b"T05thread:1;" in hear(s)
    status("paused")
    other = connect()
    assert other.recv(1) == b""
    packet(s, b"vCont;c")
    hear(s, b"+")
    status("running")
    assert q.ask("stop")[1] == {"return": {}}
    assert b"$T02thread:1;" in hear(s)
    q.ask("cont")
    packet(s, b"g")  # it was let go on behind the debugger's back
    assert len(hear(s)) > 1000
    status("paused")
    s.close()
    status("running")
    for noise in (os.urandom(1 << 18), b"$" * 5000, b"$" + b"m" * 100000 + b"#00", b"\x03" * 1000, b"-" * 10000, b"$m0,fff", b"+"):
        s = connect()
        with contextlib.suppress(OSError):
            s.settimeout(0.3)
            s.sendall(noise)
        s.close()
        status("running")
    deaf = connect()
    deaf.settimeout(0.2)
    with contextlib.suppress(OSError):
        for _ in range(20000):
            packet(deaf, b"m0,800")
    deaf.close()
    status("running")
    # A breakpoint that its debugger left goes with it.
    entry = int(re.search(r"([0-9a-f]+) T bump$", subprocess.run(["nm", box.symbols], capture_output=True, check=True, text=True).stdout, re.M)[1], 16)
    deadline = time.monotonic() + SECONDS
    while True:  # the place is free when the machine has seen the last one go
        s = connect()
        with contextlib.suppress(OSError, AssertionError):
            packet(s, b"?")
            hear(s)
            break
        assert time.monotonic() < deadline
    for p in (b"Z1,%x,1" % entry, b"Z0,%x,1" % (entry + 1)):
        packet(s, p)
        assert b"$OK#" in hear(s)
    s.close()
    status("running")
    box.quit()
    assert not os.path.exists(path)


def test_errors(lodge, guests, tmp_path):
    run = ["run", "box", "--kernel", guests / "debug64", "--net", "none", "--console", "none"]
    (tmp_path / "file").write_text("")
    for spec, text in {"5": 'write tcp:[ADDR:]PORT or unix:PATH', "tcp:x": "write tcp:[ADDR:]PORT or unix:PATH", "tcp:127.0.0.1:70000": "write tcp:[ADDR:]PORT",
                       "unix:" + "x" * 120: "a socket's path has 1 to 107 letters", f"unix:{tmp_path}/file": "is there already; remove it or choose another path",
                       "unix:/no/such/x": "cannot listen: No such file", "wait=on": "write tcp:[ADDR:]PORT or unix:PATH", "tcp:1,wait=x": "wait"}.items():
        r = lodge(*run, "--gdb", spec)
        assert r.status in (1, 2, 5) and text in r.err and r.err.count("\n") == 1, (spec, r)
    assert (r := lodge("gdb", "nosuch")).status == 3 and "no machine of that name" in r.err
    assert (r := lodge("gdb")).status == 2 and "give its NAME" in r.err
    box = Debuggee(lodge, guests)
    (tmp_path / "bin").mkdir()
    r = lodge("gdb", "box", env={"PATH": str(tmp_path / "bin")})
    assert r.status == 3 and "there is no gdb; install it" in r.err
    assert lodge("gdb", "--print", "box").out == f"target remote {lodge.home}/run/lodge/box/gdb.sock\n"
    box.quit()
