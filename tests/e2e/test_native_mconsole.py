# SPDX-License-Identifier: GPL-2.0-or-later
"""User-Mode Linux's management console, with the client of its own tools and with others."""
import contextlib
import json
import os
import re
import select
import shutil
import socket
import stat
import struct
import subprocess
import time

import pytest

pytestmark = pytest.mark.usefixtures("nothing_left")

SECONDS = 30
MAGIC = 0xCAFEBABE


class Machine:
    """A guest that lets go of devices at once, its console on our pipes."""

    def __init__(self, lodge, guests, *more, umid="vm1", notify=""):
        self.lodge, self.umid = lodge, umid
        self.process = lodge.popen("run", "box", "--kernel", guests / "plug", "--memory", "64M", "--net", "none", "--rng", "off", "--console", "stdio",
                                   "--mconsole", f"umid={umid}{notify}", *more, stdin=subprocess.PIPE)
        self.folder = lodge.home / ".uml" / umid
        self.seen = b""
        self.expect(b"READY\r\n")

    def expect(self, text):
        deadline = time.monotonic() + SECONDS
        while text not in self.seen:
            assert select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0], f"no {text!r} in {self.seen!r}"
            got = os.read(self.process.stdout.fileno(), 4096)
            assert got, (self.seen, self.process.stderr.read())
            self.seen += got
        self.seen = self.seen.split(text, 1)[1]

    def uml(self, *words):
        """What uml_mconsole prints behind OK or ERR, and its status."""
        p = subprocess.run(["uml_mconsole", self.umid, *map(str, words)], env=dict(self.lodge.env), stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS,
                           check=False, text=True)
        kind, _, text = p.stdout.partition(" ")
        assert kind == ("ERR" if p.returncode else "OK"), p
        return text.rstrip("\n"), p.returncode

    def end(self, status=0):
        _, err = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == status, err
        return err.decode()


@pytest.fixture
def tools():
    if not shutil.which("uml_mconsole"):
        pytest.skip("no uml_mconsole; install uml-utilities")


@pytest.fixture
def box(lodge, guests, tools):
    return Machine(lodge, guests)


def test_life(box):
    assert stat.S_IMODE((box.folder / "mconsole").stat().st_mode) == 0o600 and stat.S_IMODE(box.folder.stat().st_mode) == 0o700
    assert int((box.folder / "pid").read_text()) == box.process.pid
    assert box.uml("version")[0].startswith("Lodge box ") and box.uml("versionxyz") == box.uml("version")
    text, status = box.uml("help")
    assert status == 0 and text.startswith("Commands: \n") and all(f" {c} " in text for c in ("version", "cad", "stop", "sysrq", "stack"))
    assert box.uml("stop") == ("stopped", 0) and box.uml("stop") == ("Already stopped", 1)
    box.process.stdin.write(b"x")
    box.process.stdin.flush()
    assert not select.select([box.process.stdout], [], [], 0.3)[0], "a stopped guest has answered"
    assert box.uml("version")[1] == 0
    assert box.uml("go") == ("", 0) and box.uml("go") == ("Not stopped", 1)
    box.expect(b".")
    assert box.uml("reboot") == ("", 0)
    box.expect(b"READY\r\n")
    assert box.uml("halt") == ("", 0)
    assert f"mconsole (version 2) initialized on {box.folder}/mconsole" in box.end()
    assert not box.folder.exists()


def test_keys_and_texts(box):
    assert box.uml("sysrq", "m") == ("sysrq 109", 0)
    box.expect(b"sysrq 109\r\n")
    assert box.uml("log", "from the host") == ("\nOK ", 0)  # that client says it in two pieces
    assert b"from the host" in (box.lodge.home / "state" / "lodge" / "box" / "console.log").read_bytes()
    assert box.uml("proc", "version") == ("Proc not available", 1)
    assert box.uml("stack") == ("Please specify a pid", 1) and box.uml("stack", "1") == ("Couldn't find that pid", 1)
    assert box.uml("no", "such") == ("Unknown command", 1)
    assert box.uml("cad") == ("", 0)  # this machine has no keyboard: the power button
    assert box.uml("halt")[1] == 0
    box.end()


def test_disks_come_and_go(box, tmp_path):
    (tmp_path / "base").write_bytes(os.urandom(1 << 20))
    box.uml("config", f"ubd1=,{tmp_path}/x")  # names no disk
    assert box.uml("config", "ubdb") == ("", 0)
    assert box.uml("config", f"ubd1={tmp_path}/cow,{tmp_path}/base") == ("", 0)
    box.expect(b"up ")
    assert box.uml("config", "ubd1") == (f"{tmp_path}/cow,{tmp_path}/base", 0)
    assert box.uml("config", f"ubd1={tmp_path}/base") == ("Device is already configured", 240)
    assert "in use" in box.uml("config", f"ubd2={tmp_path}/cow")[0]  # by ubd1
    assert box.uml("remove", "ubd1") == ("", 0)
    box.expect(b"down ")
    assert box.uml("config", "ubd1") == ("", 0) and box.uml("remove", "ubd1") == ("Device doesn't exist", 237)
    for _ in range(3):  # the image is free again each time
        assert box.uml("config", f"ubdcr={tmp_path}/base") == ("", 0) and box.uml("remove", "ubdc") == ("", 0)
    for words, answer in {
        ("config", "ubd3=/no/such"): ("Couldn't determine size of device's file", 254),
        ("config", "ubd16=/x"): ("Device number out of range", 234),
        ("config", "ubd3x=/x"): ("Expected '=' or flag letter (r, s, c, t or d)", 234),
        ("config", f"ubd3d={tmp_path}/cow,{tmp_path}/base"): ("Can't specify both 'd' and a cow file", 234),
        ("config", "abc"): ("Bad configuration option", 1),
        ("remove", "abc1"): ("Bad remove option", 1),
        ("remove", "ubd"): ("Couldn't parse device number", 1),
        ("remove", "ubd99"): ("Invalid device number - must be between 0 and 15", 1),
        ("remove", "mem"): ("Memory doesn't support the remove operation", 240),
        ("remove", "con0"): ("Device is already open", 234),
        ("remove", "con5"): ("configured as 'none'", 234),
        ("config", "con=pts"): ("Can't configure all devices from mconsole", 234),
        ("config", "con5=nosuch"): ("failed to parse channel pair", 255),
        ("config", "con0=pts"): ("Device is already open", 234),
        ("config", "con0"): ("fd:0,fd:1", 0),
        ("config", "con9"): ("none", 0),
        ("config", "mem"): (str(64 << 20), 0),
        ("config", "mem=3"): ("Expected increment to start with '-' or '+'", 234),
        ("config", "mem=+x"): ("Failed to parse memory increment", 234),
        ("config", "mem=-16M"): ("", 0),
        ("config", "mem=+32M"): ("", 0),
        ("config", "eth0"): ("No get_config routine defined", 1),
        ("config", "eth0=nosuch,,"): ("", 1),
        ("remove", "eth7"): ("Device doesn't exist", 237),
    }.items():
        assert box.uml(*words) == answer, words
    assert box.uml("halt")[1] == 0
    box.end()


def test_lines_come_and_go(lodge, guests, tools):
    """Of a machine with the virtio console that `lodge uml` gives; whether a guest sees them, test_full_labs.py tells."""
    box = Machine(lodge, guests, "--device", "virtio-console-pci,id=consoles,max-ports=16")
    assert box.uml("config", "con3=none") == ("", 0)
    for _ in range(2):
        assert box.uml("config", "con3=pts") == ("", 0)
        pts, status = box.uml("config", "con3")
        assert status == 0 and re.fullmatch(r"pts:/dev/pts/\d+", pts)
        assert os.path.exists(pts.partition(":")[2])
        assert box.uml("config", "con3=null") == ("Device is already open", 234)
        assert box.uml("remove", "con3") == ("", 0)
        assert box.uml("config", "con3") == ("none", 0) and box.uml("remove", "con3") == ("configured as 'none'", 234)
    assert box.uml("config", "ssl2=null") == ("", 0) and box.uml("config", "ssl2") == ("null", 0)
    text, status = box.uml("config", "con4=tty:/no/such")
    assert status and "/no/such" in text
    # Linux knows eight of these terminals, of which con0 is one.
    for n in range(5, 11):
        assert box.uml("config", f"con{n}=null") == ("", 0)
    text, status = box.uml("config", "con11=null")
    assert status == 234 and "8 terminals" in text and box.uml("config", "con11") == ("none", 0)
    assert box.uml("remove", "ssl2") == ("", 0) and box.uml("config", "con11=null") == ("", 0)
    assert box.uml("halt")[1] == 0
    assert "Virtual console 3 assigned device '/dev/pts/" in box.end()


def test_memory(lodge, box):
    """What the balloon is asked for: no more than there is, and back no more than was taken."""
    for words, wanted in [("mem=-16M", 48), ("mem=-8M", 40), ("mem=+4M", 44), ("mem=+1G", 64), ("mem=-1G", 0)]:
        assert box.uml("config", words) == ("", 0)
        assert json.loads(lodge("qmp", "box", "x-lodge-stats").out)["balloon"]["wanted"] == wanted << 20
    assert box.uml("halt")[1] == 0
    box.end()


def test_networks_come_and_go(box):
    for _ in range(2):
        assert box.uml("config", "eth3=slirp,02:00:00:00:00:07") == ("", 0)
        box.expect(b"up ")
        assert box.uml("config", "eth3=slirp") == ("Device is already configured", 240)
        assert box.uml("remove", "eth3") == ("", 0)
        box.expect(b"down ")
    assert box.uml("halt")[1] == 0
    box.end()


def test_a_hub(box, tmp_path):
    """config eth4=daemon against the switch of UML's own tools: the card is on it, and off it again."""
    hub = subprocess.Popen(["stdbuf", "-oL", "uml_switch", "-hub", "-unix", str(tmp_path / "hub")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def hears(text):
        out, deadline = b"", time.monotonic() + SECONDS
        while text not in out:
            assert select.select([hub.stdout], [], [], max(0, deadline - time.monotonic()))[0], out
            out += os.read(hub.stdout.fileno(), 4096)

    try:
        hears(b"attached to unix socket")
        assert box.uml("config", f"eth4=daemon,02:00:00:00:00:04,unix,{tmp_path}/hub") == ("", 0)
        hears(b"New connection")
        assert box.uml("remove", "eth4") == ("", 0)
        hears(b"Disconnect")
        assert box.uml("config", f"eth4=daemon,,,{tmp_path}/hub") == ("", 0)  # as Netkit writes it
        hears(b"New connection")
    finally:
        hub.kill()
        hub.communicate()
    assert box.uml("config", "eth5=tuntap,a/b") != ("", 0)
    assert box.uml("halt")[1] == 0
    box.end()


def ask(path, data, name=b""):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.settimeout(SECONDS)
        s.bind(b"\0" + (name or b"%5d" % os.getpid()).ljust(107, b"\0"))
        s.sendto(data, str(path))
        out, err = b"", None
        while True:
            got = s.recv(1024)
            if got[:4] == b"ERR ":
                return got, None
            e, more, length = struct.unpack_from("<III", got)
            assert len(got) == 12 + length and length <= 512 and got.endswith(b"\0")
            err = e if err is None else err
            out += got[12:-1]
            if not more:
                return out, err


def request(text, version=2, length=None):
    return struct.pack("<III", MAGIC, version, len(text) if length is None else length) + text


def test_datagrams(box):
    path = box.folder / "mconsole"
    old = b"ERR Version 0 mconsole clients are not supported by this driver"
    for data in (b"", b"x", b"version", b"\0" * 524, struct.pack(">I", MAGIC) + b"\0" * 520):
        assert ask(path, data)[0].startswith(old)
    only = b"This driver only supports version 2 clients"
    for data in (struct.pack("<I", MAGIC), request(b"version", 1), request(b"version", 3), struct.pack("<II", MAGIC, 2)):
        assert ask(path, data) == (only, 1)
    for length in (512, 4096, 0xFFFFFFFF):
        assert ask(path, request(b"version", length=length)) == (b"Request too large", 1)
    whole = ask(path, request(b"version"))
    assert whole[1] == 0
    assert ask(path, request(b"version").ljust(524, b"\0")) == whole and ask(path, request(b"version", length=511)) == whole
    assert ask(path, request(b"version" + b"\0junk" + b"z" * 480)) == whole
    for text in (b"", b" version", b"VERSION", b"versio", b"\xff" * 511):
        assert ask(path, request(text)) == (b"Unknown command", 1)
    assert len(ask(path, request(b"help"))[0]) > 511
    # Who does not read, or has no name, or is gone, holds nobody up.
    deaf = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    deaf.bind(b"\0deaf%d" % os.getpid())
    deaf.setblocking(False)
    for _ in range(2000):
        try:
            deaf.sendto(request(b"help"), str(path))
        except BlockingIOError:
            break
    for _ in range(100):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.settimeout(SECONDS)
            s.sendto(request(b"help"), str(path))
    assert ask(path, request(b"version")) == whole
    deaf.close()
    assert box.uml("halt")[1] == 0
    box.end()


def test_a_crowd(box):
    """A thousand clients at once, noise, halves, the longest datagram, those who leave before the answer: the guest goes on and nothing grows."""
    path = str(box.folder / "mconsole")

    def resident_kib():
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{box.process.pid}/status").read())[1])
    whole = ask(path, request(b"version"))
    before = resident_kib()
    commands = (b"version", b"help", b"log x", b"config ubdb", b"config ubdb=/nonexistent", b"remove eth7", b"config", b"sysrq", b"proc", b"stack 0", b"config mem=+", b"cad7")
    clients = []
    for i in range(1000):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        s.bind(b"\0crowd%d-%d" % (os.getpid(), i))
        s.settimeout(SECONDS)
        clients.append(s)
        s.sendto(request(b"help") if i % 3 else os.urandom(i % 600), path)
        if i % 5 == 0:
            s.close()
        if i % 50 == 49:  # so much as the host keeps of what nobody has read
            assert all(s.recv(1024) and (len(s.recv(1024)) if (i - 49 + k) % 3 else True) for k, s in enumerate(clients[-50:]) if s.fileno() >= 0)
    for command in commands:
        for length in range(len(request(command))):  # cut off at each byte, and nobody waits
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.settimeout(SECONDS)
                s.sendto(request(command)[:length], path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.settimeout(SECONDS)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        for size in (1 << 12, 1 << 16, 1 << 17, 200000, 1 << 20):
            with contextlib.suppress(OSError):  # more than the host sends at once
                s.sendto(request(b"version", length=size).ljust(size, b"x"), path)
    for s in clients:
        s.close()
    assert ask(path, request(b"version")) == whole and resident_kib() - before < 4 * 1024
    box.process.stdin.write(b"x")
    box.process.stdin.flush()
    box.expect(b".")
    assert box.uml("halt")[1] == 0
    box.end()


def test_names(lodge, guests, tools, tmp_path):
    """A umid in use, one that was left, notices."""
    left = lodge.home / ".uml" / "vm1"
    left.mkdir(parents=True)
    (left / "pid").write_text("2147480000\n")
    (left / "mconsole").write_text("")
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.bind(str(tmp_path / "n"))
    notices.settimeout(SECONDS)
    one = Machine(lodge, guests, notify=f",notify={tmp_path}/n")
    path = f"{one.folder}/mconsole".encode() + b"\0"
    assert notices.recv(1024) == struct.pack("<IIII", MAGIC, 2, 0, len(path)) + path
    run = ["run", "two", "--kernel", guests / "plug", "--memory", "64M", "--net", "none", "--console", "none"]
    r = lodge(*run, "--mconsole", "umid=vm1")
    assert r.status == 5 and f'umid "vm1" is already in use by pid {one.process.pid}; choose another' in r.err
    r = lodge(*run, "--mconsole", one.folder / "mconsole")
    assert r.status == 5 and "is there already; remove it or choose another path" in r.err
    one.process.stdin.write(b"q")
    one.process.stdin.flush()
    one.expect(b"PASS")
    one.uml("halt")
    one.end()
    for spec, text in {
        "notify=/x": "write either the PATH of a socket or umid=NAME",
        "/x,umid=y": "write either the PATH of a socket or umid=NAME",
        "/x,uml-dir=/y": "uml-dir: goes with umid=NAME",
        "umid=a/b": "must have 1 to 63 letters, no slash",
        "/" + "x" * 120: "too long for a socket",
        "/no/such/folder": "cannot make the socket",
        "umid=x,uml-dir=/no/such": "cannot make the folder of umids",
    }.items():
        r = lodge(*run, "--mconsole", spec)
        assert r.status in (1, 2) and text in r.err and r.err.count("\n") == 1, (spec, r)
    (lodge.home / ".uml" / "link").symlink_to(tmp_path)
    r = lodge(*run, "--mconsole", "umid=link")
    assert "is not a folder of this user" in r.err and (tmp_path / "n").exists()
