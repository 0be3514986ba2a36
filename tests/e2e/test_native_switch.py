# SPDX-License-Identifier: GPL-2.0-or-later
"""lodge switch with programs of others (uml_switch's clients, vde_plug, slirpvde, vde_switch) and with guests."""
import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest
from conftest import has_ended
from linux_guest import Cpio
from test_native_nets import host  # noqa: F401 (a fixture)

DEADLINE = 30
ALL = b"\xff" * 6
needs_vde = pytest.mark.skipif(not shutil.which("vde_plug") or not shutil.which("slirpvde"), reason="needs vde_plug and slirpvde (package vde2)")


def mac(n):
    return bytes([2, 0, 0, 0, 0, n])


def frame(dst, src, body=b"", kind=0x88B5):
    return dst + src + struct.pack(">H", kind) + body.ljust(46, b"\x5a")


@pytest.fixture
def no_switch_left(lodge):
    """The run folder is as it was, and so are the paths where a switch listened."""
    yield
    left = [os.path.join(at, f) for at, _, files in os.walk(lodge.home) for f in files if "cache" not in at and "state" not in at]
    assert not left, f"left behind: {left}"


class UmlClient:
    """uml_switch's protocol, version 3, as a User-Mode Linux speaks it."""

    serial = itertools.count()

    def __init__(self, path):
        self.data = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.own = b"\0" * 4 + struct.pack("=ii", os.getpid(), next(self.serial)) + b"\0" * 96
        self.data.bind(self.own)
        self.data.setblocking(False)
        self.ctl = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.ctl.settimeout(DEADLINE)
        self.ctl.connect(str(path))
        self.ctl.sendall(struct.pack("=IIIH", 0xFEEDFACE, 3, 0, socket.AF_UNIX) + self.own + b"\0\0")
        answer = self.ctl.recv(110, socket.MSG_WAITALL)
        assert len(answer) == 110, "refused"
        self.peer = answer[2:]

    def put(self, data):
        # A name of full length; the module would cut it at its zeros.
        address = struct.pack("=H", socket.AF_UNIX) + self.peer
        libc = ctypes.CDLL(None, use_errno=True)
        n = libc.sendto(self.data.fileno(), data, len(data), 0, address, len(address))
        assert n == len(data), os.strerror(ctypes.get_errno())

    def get(self, wait=DEADLINE):
        if not select.select([self.data], [], [], wait)[0]:
            return None
        return self.data.recv(65536)

    def close(self):
        self.ctl.close()
        self.data.close()


def report(lodge, name, what="stats"):
    r = lodge("switch", name, what, "--json")
    assert r.status == 0, r.err
    return json.loads(r.out)


def wait_for(what, test):
    end = time.monotonic() + DEADLINE
    while not (got := test()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return got


@contextlib.contextmanager
def switch(lodge, name, *options, **kw):
    r = lodge("switch", name, *options, "--detach", **kw)
    assert (r.status, r.out, r.err) == (0, "", "")
    pid = report(lodge, name)["pid"]
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        wait_for("the switch does not end", lambda: has_ended(pid))


@contextlib.contextmanager
def program(*args, **kw):
    p = subprocess.Popen([str(a) for a in args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **kw)
    try:
        yield p
    finally:
        p.kill()
        p.communicate()


def vde_put(p, data):
    """vde_plug's standard input: a length and a frame."""
    p.stdin.write(struct.pack(">H", len(data)) + data)
    p.stdin.flush()


def vde_get(p):
    assert select.select([p.stdout], [], [], DEADLINE)[0], "no frame"
    n = struct.unpack(">H", p.stdout.read(2))[0]
    return p.stdout.read(n)


# What goes in by which client, and in which order; the answers of uml_switch and ours are the same. (They are
# not for a frame to where it comes from, which uml_switch sends back and we, as the standard has it, do not.)
CONVERSATION = [
    (0, frame(ALL, mac(1), b"broadcast")),
    (1, frame(mac(1), mac(2), b"known")),
    (2, frame(mac(2), mac(3), b"known too")),
    (0, frame(mac(9), mac(1), b"unknown")),
    (0, frame(mac(2), mac(1), b"two")),
    (2, frame(mac(1), mac(2), b"two moves house")),
    (0, frame(mac(2), mac(1), b"two, elsewhere")),
    (1, frame(b"\x01\x00\x5e\x00\x00\x01", mac(2), b"group")),
    (1, frame(b"\x01\x80\xc2\x00\x00\x00", mac(2), b"bpdu")),
    (0, frame(ALL, mac(1), bytes(1500))[:1514]),
    # Malformed: an empty payload, a lone header, IP cut off, wrong lengths, a tag cut off, tags in tags, a group as source.
    (0, frame(mac(2), mac(1))[:60]),
    (0, ALL + mac(1) + b"\x08\x00"),
    (0, frame(ALL, mac(1), b"\x45\x00\xff\xff" + bytes(10), 0x0800)),
    (0, frame(ALL, mac(1), b"\x4f" + bytes(45), 0x0800)),
    (0, frame(ALL, mac(1), b"\x60" + bytes(3) + b"\xff\xff" + bytes(40), 0x86DD)),
    (0, ALL + mac(1) + b"\x81\x00\x00"),
    (0, frame(ALL, mac(1), struct.pack(">HHH", 100, 0x8100, 200), 0x8100)),
    (0, frame(ALL, mac(1), struct.pack(">HHH", 100, 0x8100, 200), 0x88A8)),
    (1, frame(ALL, b"\x03\x00\x00\x00\x00\x01", b"group as source")),
]


def listens(path):
    """Its name is there before that."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        return s.connect_ex(str(path)) == 0


def converse(path):
    """Who hears what, with a marker behind each frame so that nothing has to be timed."""
    clients = [UmlClient(path) for _ in range(3)]
    heard = []
    try:
        for n, (who, data) in enumerate(CONVERSATION):
            marker = frame(ALL, mac(0x50 + who), b"marker %d" % n)
            clients[who].put(data)
            clients[who].put(marker)
            heard.append({})
            for i, c in enumerate(clients):
                while i != who and (got := c.get()) != marker:
                    assert got is not None, f"client {i} misses the marker behind frame {n}"
                    heard[-1].setdefault(i, []).append(got)
        assert all(c.get(0) is None for c in clients)
    finally:
        for c in clients:
            c.close()
    return heard


@pytest.mark.parametrize("hub", [False, True], ids=["switch", "hub"])
def test_same_as_uml_switch(hub, lodge, tmp_path, no_switch_left):
    if not shutil.which("uml_switch"):
        pytest.skip("needs uml_switch (package uml-utilities)")
    real = lodge.home / "real"
    with program("uml_switch", *(["-hub"] if hub else []), "-unix", real):
        wait_for("uml_switch does not listen", lambda: listens(real))
        theirs = converse(real)
    real.unlink()
    with switch(lodge, "u", "--listen", f"uml:{lodge.home}/ours", *(["--hub"] if hub else [])):
        ours = converse(lodge.home / "ours")
        for n, (a, b) in enumerate(zip(theirs, ours)):
            assert a == b, f"frame {n}"
        # Runts and giants: dropped and counted, where uml_switch passes them on or cuts them off.
        client = UmlClient(lodge.home / "ours")
        client.put(b"\xff" * 13)
        client.put(frame(ALL, mac(1), bytes(4000)))
        port = wait_for("the drops are counted", lambda: [p for p in report(lodge, "u", "ports")["ports"] if p["drops"]["short"] == 1 and p["drops"]["long"] == 1])
        assert port[0]["kind"] == "uml"
        client.close()


@needs_vde
def test_vde_programs(lodge, no_switch_left):
    """vde_plug at our switch, and a cable of vde's between ours and a real vde_switch."""
    ours, real = lodge.home / "ours", lodge.home / "real"
    with contextlib.ExitStack() as stack:
        stack.enter_context(switch(lodge, "v", "--listen", f"vde:{ours}"))
        a = stack.enter_context(program("vde_plug", f"{ours}"))
        b = stack.enter_context(program("vde_plug", f"{ours}[9]"))
        wait_for("both are plugged in", lambda: len(report(lodge, "v", "ports")["ports"]) == 2)
        assert {p["port"] for p in report(lodge, "v", "ports")["ports"]} == {1, 9}
        for n in range(200):
            vde_put(a, frame(ALL if n < 1 else mac(2), mac(1), b"%d" % n))
            assert vde_get(b) == frame(ALL if n < 1 else mac(2), mac(1), b"%d" % n)
            vde_put(b, frame(mac(1), mac(2), b"%d" % n))
            assert vde_get(a) == frame(mac(1), mac(2), b"%d" % n)
        stack.enter_context(program("vde_switch", "-x", "-s", real))
        wait_for("vde_switch does not listen", lambda: listens(real / "ctl"))
        stack.enter_context(program("dpipe", "vde_plug", ours, "=", "vde_plug", real))
        c = stack.enter_context(program("vde_plug", real))
        wait_for("the cable is plugged in", lambda: len(report(lodge, "v", "ports")["ports"]) == 3)
        end = time.monotonic() + DEADLINE
        while True:  # the real switch's ports do not say when they are there
            vde_put(c, frame(ALL, mac(3), b"across"))
            if select.select([a.stdout], [], [], 0.2)[0]:
                break
            assert time.monotonic() < end, "nothing comes across"
        assert vde_get(a) == frame(ALL, mac(3), b"across")
        vde_put(a, frame(mac(3), mac(1), b"back"))
        assert vde_get(c) == frame(mac(3), mac(1), b"back")
    shutil.rmtree(real)  # vde_switch was killed


@needs_vde
@pytest.mark.parametrize("card", ["ne2k_pci", "ne2k_isa"])
def test_guest_reaches_slirpvde(card, lodge, guests, no_switch_left):
    with switch(lodge, "s", "--listen", f"vde:{lodge.home}/vde"), program("slirpvde", "--dhcp", "-s", lodge.home / "vde"):
        wait_for("slirpvde is plugged in", lambda: report(lodge, "s", "ports")["ports"])
        r = lodge("run", "--kernel", guests / "ne2000", "--append", "noloop n=20", "--memory", "64M", "--net", f"switch=s,port=5,model={card},mac=52:54:00:12:34:56", "--debug-exit")
        assert r.status == 33, r.out + r.err
        macs = report(lodge, "s", "macs")["macs"]
        assert "52:54:00:12:34:56" not in {m["mac"] for m in macs}, "its port is gone, and what was learnt there"


def test_made_at_first_use(lodge, guests, no_switch_left):
    """A machine makes the switch, finds it killed, makes it again, and says so."""
    p = lodge.popen("run", "first", "--kernel", guests / "hlt_wake", "--append", "n=1000000", "--memory", "64M", "--net", "internal=made,vlan=7", "--console", "none")
    stats = wait_for("there is no switch", lambda: (r := lodge("switch", "made", "stats", "--json")).status == 0 and json.loads(r.out))
    assert stats["internal"] and stats["until-unused"]
    port = wait_for("the machine is not plugged in", lambda: report(lodge, "made", "ports")["ports"])[0]
    assert (port["kind"], port["name"], port["vlan"], port["port"]) == ("lodge", "first net0", "7", 1)
    r = lodge("run", "second", "--kernel", guests / "hello", "--memory", "16M", "--net", "internal=made,port=1")
    assert (r.status, r.err) == (1, "lodge: run: net 'net0': port 1: taken by first net0; choose another\n")
    os.kill(stats["pid"], signal.SIGKILL)
    again = wait_for("it is not made again", lambda: (r := lodge("switch", "made", "stats", "--json")).status == 0 and json.loads(r.out)["ports"] and json.loads(r.out))
    assert again["pid"] != stats["pid"] and again["ports"][0]["vlan"] == "7"
    assert re.search(r"^SigBlk:\s*0+$", pathlib.Path(f"/proc/{again['pid']}/status").read_text(), re.M), "it hears signals"
    p.terminate()  # the power button, which nobody in the guest hears
    time.sleep(0.2)
    p.terminate()
    err = p.communicate(timeout=DEADLINE)[1].decode()
    assert "net 'net0': switch made: is gone; frames are lost until it is back" in err
    assert "net 'net0': switch made is back" in err
    wait_for("the machine's port is not gone", lambda: not report(lodge, "made", "ports")["ports"])
    os.kill(again["pid"], signal.SIGTERM)
    wait_for("the switch does not end", lambda: has_ended(again["pid"]))


def test_loop(lodge, no_switch_left):
    """Two cables between two switches: the storm is noticed and bounded."""
    with switch(lodge, "a", "--listen", f"uml:{lodge.home}/a"), switch(lodge, "b"):
        for _ in range(2):
            r = lodge("switch", "a", "plug", "switch:b")
            assert (r.status, r.err) == (0, "")
        client = UmlClient(lodge.home / "a")
        client.put(frame(ALL, mac(1), b"around"))
        wait_for("no loop is noticed", lambda: report(lodge, "a")["loops"] and report(lodge, "b")["loops"])
        assert any("a loop" in e for e in report(lodge, "b")["events"])

        def received():
            return sum(p["rx-frames"] for p in report(lodge, "a")["ports"])

        before, then = received(), time.monotonic()
        time.sleep(0.5)
        rate = (received() - before) / (time.monotonic() - then)
        assert rate < 5000, f"{rate} frames a second"  # unbounded, it is a hundred times that
        lodge("switch", "a", "unplug", "1")
        wait_for("the cable is not gone", lambda: len(report(lodge, "b", "ports")["ports"]) == 1)
        client.close()


def test_slow_reader(lodge, no_switch_left):
    """One that never reads loses frames; the others hear all of theirs."""
    with switch(lodge, "q", "--listen", f"uml:{lodge.home}/q"):
        a, b, slow = (UmlClient(lodge.home / "q") for _ in range(3))
        slow.put(frame(ALL, mac(3)))
        b.put(frame(ALL, mac(2)))
        assert a.get() and a.get()
        assert b.get()
        for n in range(3000):
            a.put(frame(mac(3), mac(1), b"%d" % n))
            if n % 10 == 0:
                a.put(frame(mac(2), mac(1), b"%d" % n))
                assert b.get() == frame(mac(2), mac(1), b"%d" % n)
        wait_for("nothing is dropped", lambda: any(p["drops"]["full"] for p in report(lodge, "q", "ports")["ports"]))
        for c in (a, b, slow):
            c.close()


def test_words(lodge, guests, no_switch_left):
    """What is printed for people, and each error on a line of its own."""
    with switch(lodge, "w", "--vlan", "3=10", "--vlan", "4=trunk:10+20-29", "--mirror", "2", "--age", "5", "--storm", "1000"):
        r = lodge("switch", "w", "ports")
        assert r.status == 0 and re.match(r"PORT KIND +VLAN +MACS +RX +TX +DROPPED +NAME\n$", r.out)
        assert lodge("switch", "w", "macs").out.split() == ["MAC", "VLAN", "PORT", "AGE"]
        r = lodge("switch", "w", "stats")
        assert r.status == 0 and re.match(r"switch w, pid \d+\naddresses: 0 of 16384, forgotten after 5 s, not learnt 0\nloops noticed: 0\n$", r.out)
        stats = report(lodge, "w")
        assert (stats["schema"], stats["name"], stats["mirror"], stats["storm"]) == (1, "w", 2, 1000)
        for args, status, text in [
            (["w"], 5, r"w: a switch of that name runs \(pid \d+\)"),
            (["w", "unplug", "9"], 3, "port 9: nothing is plugged in there"),
            (["w", "unplug", "x"], 2, "unplug x: must be 1 to 256"),
            (["w", "unplug"], 2, "unplug: say what: .*"),
            (["w", "ports", "1"], 2, "ports: takes nothing more"),
            (["w", "plug", "cable"], 2, "plug: 'cable': write tap:NAME or switch:NAME"),
            (["w", "plug", "switch:none"], 3, "none: no switch of that name runs; lodge switch none runs one"),
            (["w", "plug", "switch:w", "--vlan", "x"], 2, "vlan 'x': write a number .*"),
            (["w", "walk"], 2, '"walk": not done with a switch; write ports, macs, stats, plug or unplug'),
            (["w", "ports", "--hub"], 2, "--hub: only where a switch is started"),
            (["w", "ports", "--port", "1"], 2, "--port: only with plug"),
            (["none", "ports"], 3, "none: no switch of that name runs; lodge switch none runs one"),
            (["--hub"], 2, "--hub: needs the NAME of a switch"),
            (["ports", "w"], 2, "'ports': not a name for a switch; lodge switch NAME ports lists .*"),
            *[([word], 2, f"'{word}': not a name for a switch; lodge .*") for word in ("ports", "macs", "stats", "plug", "unplug", "show", "list", "ls", "help")],
            (["-x"], 2, ".*"),
            (["a/b"], 2, "'a/b': not a name for a switch; .*"),
            (["y", "--vlan", "3"], 2, "--vlan 3: write PORT=VLAN, like 3=10 or 4=trunk"),
            (["y", "--vlan", "3=0"], 2, "vlan '0': write a number from 1 to 4094, .*"),
            (["y", "--mirror", "0"], 2, "--mirror 0: must be 1 to 256"),
            (["y", "--listen", "tcp:1"], 2, "'tcp:1': write uml:PATH or vde:DIR"),
            (["y", "--listen", f"uml:{lodge.home}/no/such"], 1, ".*/no/such: cannot listen: No such file or directory"),
            (["y", "--internal", "--listen", "uml:/x"], 2, "switch y: is internal and listens nowhere"),
            (["y", "--json"], 2, "--json: only with ports, macs and stats, and without NAME"),
        ]:
            r = lodge("switch", *args)
            assert r.status == status, (args, r)
            assert re.fullmatch(f"lodge: switch: {text}\n", r.err), (args, r.err)
            assert r.out == ""
    r = lodge("run", "--kernel", guests / "hello", "--net", "switch=a/b")
    assert r.status == 2 and "'a/b': not a name for a switch" in r.err
    r = lodge("run", "--kernel", guests / "hello", "--net", "switch=list")
    assert r.status == 2 and "'list': not a name for a switch; lodge switch lists those that run\n" in r.err


def test_list(lodge, no_switch_left):
    """Those that run; of one that does not answer what is known without it, and nothing of one that was killed."""
    def listed():
        r = lodge("switch", "--json")
        assert (r.status, r.err) == (0, "")
        said = json.loads(r.out)
        assert said["schema"] == 1
        return [(s["name"], s["pid"], s["ports"]) for s in said["switches"]]

    assert listed() == []
    r = lodge("switch")
    assert (r.status, r.out, r.err) == (0, "", "")
    with switch(lodge, "lab-2", "--listen", f"uml:{lodge.home}/u") as two, switch(lodge, "a") as one:
        clients = [UmlClient(lodge.home / "u") for _ in range(3)]
        assert listed() == [("a", one, 0), ("lab-2", two, 3)]
        assert lodge("switch").out == f"NAME       PID  PORTS\na      {one:7}      0\nlab-2  {two:7}      3\n"
        os.kill(one, signal.SIGSTOP)
        assert listed() == [("a", one, None), ("lab-2", two, 3)]
        assert lodge("switch").out.splitlines()[1] == f"a      {one:7}      -"
        os.kill(one, signal.SIGKILL)
        wait_for("it does not end", lambda: has_ended(one))
        assert listed() == [("lab-2", two, 3)]
        for c in clients:
            c.close()
        with switch(lodge, "a"):  # takes what the killed one left, and tidies up
            pass


def netecho(guests, net, number, *words):
    return ["run", "--kernel", guests / "netecho", "--append", " ".join(words), "--memory", "64M", "--net", f"{net},mac=52:54:00:00:00:{number:02x}", "--debug-exit"]


def test_two_guests(lodge, guests, no_switch_left):
    """Pings across a switch that a machine made, which is killed meanwhile."""
    answerer = lodge.popen(*netecho(guests, "switch=two,vlan=5", 2, "ip=10.0.0.2"))
    wait_for("there is no switch", lambda: (r := lodge("switch", "two", "ports", "--json")).status == 0 and json.loads(r.out)["ports"])
    asker = lodge.popen(*netecho(guests, "switch=two,vlan=5", 1, "ip=10.0.0.1", "ping=10.0.0.2", "n=200"))
    wait_for("no pings", lambda: any(p["rx-frames"] > 50 for p in report(lodge, "two", "ports")["ports"]))
    macs = report(lodge, "two", "macs")["macs"]
    assert {(m["mac"], m["vlan"]) for m in macs} == {("52:54:00:00:00:01", 5), ("52:54:00:00:00:02", 5)}
    first = report(lodge, "two")["pid"]
    os.kill(first, signal.SIGKILL)
    out, err = asker.communicate(timeout=120)
    assert asker.returncode == 33, out + err
    assert b"switch two is back" in err and b" 200 replies" in out
    pid = report(lodge, "two")["pid"]
    assert pid != first
    answerer.terminate()
    time.sleep(0.2)
    answerer.terminate()
    answerer.wait(DEADLINE)
    os.kill(pid, signal.SIGTERM)
    wait_for("the switch does not end", lambda: has_ended(pid))


UML_INIT = """#!/bin/busybox sh
export PATH=/bin
ip link set eth0 up
ip addr add 10.0.0.1/24 dev eth0
ping -c 3 -W 20 10.0.0.2
poweroff -f
"""


@pytest.mark.skipif(not shutil.which("linux.uml"), reason="no User-Mode Linux; install user-mode-linux")
def test_user_mode_linux(lodge, guests, tmp_path, no_switch_left):
    """Its kernel at one port pings a machine at another."""
    a = Cpio()
    for folder in ("bin", "dev"):
        a.add(folder, 0o040755)
    a.add("dev/console", 0o020600, rdev=(5, 1))
    a.add_busybox(shutil.which("busybox"), ("ip", "ping", "poweroff"))
    a.add("init", 0o100755, UML_INIT.encode())
    initrd, at = tmp_path / "initrd", lodge.home / "uml"
    initrd.write_bytes(a.finish())
    with switch(lodge, "um", "--listen", f"uml:{at}"):
        p = lodge.popen(*netecho(guests, "switch=um", 2, "ip=10.0.0.2", "n=3"))
        wait_for("the machine is not plugged in", lambda: report(lodge, "um", "ports")["ports"])
        out = subprocess.run(["linux.uml", "mem=64M", f"initrd={initrd}", f"eth0=daemon,52:54:00:00:00:01,unix,{at}", "con=null", "con0=null,fd:1", "quiet"],
                             env=lodge.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=120, check=False).stdout.decode(errors="replace")
        assert "3 packets received" in out, out
        assert p.wait(DEADLINE) == 33


def test_qemu_vde(lodge, guests, no_switch_left):
    """QEMU's back end for vde_switch at our switch; a machine behind it pings one of the switch's."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("needs qemu-system-x86_64")
    vde, cable = lodge.home / "vde", lodge.home / "cable"
    with switch(lodge, "qv", "--listen", f"vde:{vde}"):
        p = lodge.popen(*netecho(guests, "switch=qv", 2, "ip=10.0.0.2", "n=3"))
        wait_for("the machine is not plugged in", lambda: report(lodge, "qv", "ports")["ports"])
        with program("qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-netdev", f"vde,id=v,sock={vde}", "-netdev", "hubport,id=hv,hubid=0,netdev=v",
                     "-netdev", f"stream,id=s,server=on,addr.type=unix,addr.path={cable}", "-netdev", "hubport,id=hs,hubid=0,netdev=s"):
            wait_for("QEMU is not plugged in", lambda: cable.exists() and {p["kind"] for p in report(lodge, "qv", "ports")["ports"]} == {"lodge", "vde"})
            r = lodge(*netecho(guests, f"stream=unix:{cable}", 1, "ip=10.0.0.1", "ping=10.0.0.2", "n=3"))
            assert r.status == 33, r.out + r.err
        assert p.wait(DEADLINE) == 33
    cable.unlink()


def test_tap_goes(host, lodge, no_switch_left):
    """A tap is brought up, one that is deleted is unplugged, and said; the switch stays. What is no tap is told."""
    host("ip", "tuntap", "add", "lt6", "mode", "tap")
    host("ip", "tuntap", "add", "lt8", "mode", "tap", "multi_queue")
    with switch(lodge, "tg", "--tap", "lt6", preexec_fn=host.enter):
        assert host("ip", "link", "show", "lt6", "up").stdout
        for tap, why in (("lt6", "another program has it; take another one"), ("lo", "is there and is no tap; take another name"), ("lt8", "is there and is no tap of one queue; take another name"),
                         ("a/b", "no name for an interface; it has 1 to 15 characters, none of them / : % or a blank")):
            r = lodge("switch", "tg", "plug", f"tap:{tap}", preexec_fn=host.enter)
            assert r.status in (1, 2) and r.err == f'lodge: switch: tap "{tap}": {why}\n', r.err
        assert [p["kind"] for p in report(lodge, "tg", "ports")["ports"]] == ["tap"]
        host("ip", "link", "del", "lt6")
        wait_for("it is not unplugged", lambda: not report(lodge, "tg", "ports")["ports"])
        assert any(e.endswith("port 1 (lt6): the tap is gone; unplugged") for e in report(lodge, "tg")["events"])


def test_host_only(lodge, guests, no_switch_left):
    """The host pings a guest over the switch's tap, which is up by then; the switch ends after the last guest."""
    if os.geteuid() or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root and /dev/net/tun, for a tap in a network name space")
    script = """set -e
"$@" >"$OUT" 2>&1 &
vm=$!
for i in $(seq 300); do [ -e /sys/class/net/hx ] || ip link show hx >/dev/null 2>&1 && break; sleep 0.1; done
ip addr add 10.9.0.1/24 dev hx
ping -c 5 -i 0.2 -W 10 10.9.0.2
ping -c 1 -W 10 -s 1400 10.9.0.2
wait $vm || status=$?
cat "$OUT" >&2
"$LODGE" switch hx ports
exit $status
"""
    args = netecho(guests, "host-only=hx", 2, "ip=10.9.0.2", "n=6")
    env = dict(lodge.env, LODGE=str(lodge.path), OUT=str(lodge.home / "tmp" / "out"))
    p = subprocess.run(["unshare", "-n", "sh", "-c", script, "sh", str(lodge.path), *map(str, args)], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert p.returncode == 33, p.stdout + p.stderr
    assert "5 received" in p.stdout and "1 received" in p.stdout and re.search(r" tap +- ", p.stdout), p.stdout
    os.unlink(env["OUT"])
    r = lodge("run", "--kernel", guests / "netecho", "--net", "host-only=0123456789abcdef")
    assert r.status == 1 and "net 'net0': switch 0123456789abcdef: cannot be started: tap \"0123456789abcdef\": no name for an interface; it has 1 to 15 characters" in r.err
    wait_for("the switch does not end", lambda: not os.path.exists(lodge.home / "run" / "lodge" / ".switch" / "hx"))
