# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket of a running machine: clients good and bad, what they do to the guest, and the verbs that go through it."""
import contextlib
import json
import os
import pathlib
import resource
import select
import shutil
import socket
import stat
import struct
import subprocess
import time
import zlib

import pytest
from conftest import BUILD
from qmp import Qmp

pytestmark = pytest.mark.usefixtures("nothing_left")

SECONDS = 30
MIB = 1 << 20


def read_until(p, text):
    out, deadline = b"", time.monotonic() + SECONDS
    while text not in out:
        assert select.select([p.stdout], [], [], max(0, deadline - time.monotonic()))[0], f"no {text!r} in {out!r}"
        got = os.read(p.stdout.fileno(), 4096)
        assert got, f"ended before {text!r}: {out!r}\n{p.stderr.read().decode(errors='replace')}"
        out += got
    return out


class Box:
    """A machine named box whose guest answers each byte on its serial line with a dot."""

    def __init__(self, lodge, guests, *more):
        self.process = lodge.popen("run", "box", "--kernel", guests / "hlt_wake", "--append", "n=100000000", "--memory", "64M", "--net", "none", "--console", "stdio", *more,
                                   stdin=subprocess.PIPE)
        self.folder = lodge.home / "run" / "lodge" / "box"
        self.socket = self.folder / "qmp.sock"
        self.ready()

    def ready(self):
        read_until(self.process, b"READY\r\n")

    def alive(self):
        """The guest still runs and hears us."""
        self.process.stdin.write(b"x")
        self.process.stdin.flush()
        read_until(self.process, b".")

    def end(self, status=0):
        out, err = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == status, (out, err)
        return err.decode()


@pytest.fixture
def box(lodge, guests):
    return Box(lodge, guests)


def test_socket_is_private(box):
    assert stat.S_ISSOCK(box.socket.stat().st_mode) and stat.S_IMODE(box.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(box.folder.stat().st_mode) == 0o700
    q = Qmp(box.socket, negotiate=False)
    assert q.greeting["QMP"]["capabilities"] == []
    maps = pathlib.Path(f"/proc/{box.process.pid}/maps")
    assert "json-glib" not in maps.read_text()  # until somebody says something
    assert q.ask("qmp_capabilities")[1] == {"return": {}}
    assert "json-glib" in maps.read_text()
    assert q.ask("quit")[1] == {"return": {}}
    box.end()
    assert not box.socket.exists()


def test_life(box):
    """Each command's events come before its answer, as QEMU has them."""
    q = Qmp(box.socket)
    assert q.ask("query-status")[1]["return"] == {"status": "running", "singlestep": False, "running": True}
    assert q.ask("stop") == ([{"event": "STOP"}], {"return": {}})
    assert q.ask("stop") == ([], {"return": {}})
    assert q.ask("query-status")[1]["return"]["status"] == "paused"
    box.process.stdin.write(b"x")
    box.process.stdin.flush()
    assert not select.select([box.process.stdout], [], [], 0.3)[0], "a paused guest has answered"
    assert q.ask("cont") == ([{"event": "RESUME"}], {"return": {}})
    read_until(box.process, b".")
    assert q.ask("system_powerdown") == ([{"event": "POWERDOWN"}], {"return": {}})
    reset = {"event": "RESET", "data": {"guest": False, "reason": "host-qmp-system-reset"}}
    assert q.ask("system_reset") == ([reset], {"return": {}})
    box.ready()
    # Paused, it is reset when it goes on.
    q.ask("stop")
    assert q.ask("system_reset") == ([], {"return": {}})
    assert q.ask("cont") == ([{"event": "RESUME"}], {"return": {}})
    event = q.line()
    assert event.pop("timestamp") and event == reset
    box.ready()
    assert q.ask("human-monitor-command", **{"command-line": "info status"})[1] == {"return": "VM status: running\r\n"}
    assert q.ask("query-name")[1]["return"] == {"name": "box"}
    names = [c["name"] for c in q.ask("query-commands")[1]["return"]]
    assert {"quit", "stop", "query-block", "x-lodge-type"} < set(names) and len(names) == len(set(names))
    assert q.ask("quit") == ([{"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-qmp-quit"}}], {"return": {}})
    assert q.line() is None
    box.end()


def test_what_the_guest_does(lodge, guests):
    """A guest that ends the machine."""
    p = lodge.popen("run", "box", "--kernel", guests / "hlt_wake", "--append", "n=1", "--memory", "64M", "--net", "none", "--console", "stdio", "--debug-exit", stdin=subprocess.PIPE)
    read_until(p, b"READY\r\n")
    q = Qmp(lodge.home / "run" / "lodge" / "box" / "qmp.sock")
    p.stdin.write(b"x")
    p.stdin.flush()
    event = q.line()
    assert event.pop("timestamp") and event == {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}}
    assert q.line() is None
    p.communicate(timeout=SECONDS)
    assert p.returncode == 33


def test_signal_is_told(lodge, guests):
    box = Box(lodge, guests)
    q = Qmp(box.socket)
    box.process.terminate()
    assert q.line()["event"] == "POWERDOWN"
    box.process.terminate()
    assert q.line()["data"] == {"guest": False, "reason": "host-signal"}
    box.end(128 + 15)


def test_stream(box):
    """Commands are balanced braces, not lines; 0xFF brings the reader back."""
    q = Qmp(box.socket)
    q.send(b'{"execute": "query-name", "id": "}{"}{"execute": "query-kvm", "id": 2}')
    assert q.line()["id"] == "}{" and q.line() == {"return": {"enabled": True, "present": True}, "id": 2}
    q.send(b'{"execute":\n\n "query-n')
    assert not select.select([q.socket], [], [], 0.2)[0]
    q.send(b'ame"}')
    assert q.line() == {"return": {"name": "box"}}
    q.send(b'{"execute": "query-na\xff{"execute": "query-name"}')
    assert "stray" in q.line()["error"]["desc"] and q.line() == {"return": {"name": "box"}}
    q.send(b'{"execute": "nosuch", "id": null}')
    assert q.line() == {"id": None, "error": {"class": "CommandNotFound", "desc": "The command nosuch has not been found"}}
    q.ask("quit")
    box.end()


def resident_kib(pid):
    for line in open(f"/proc/{pid}/status", encoding="ascii"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def test_rough_clients(box):
    """Noise, halves, a megabyte without end, those who leave in the middle or never read: the guest goes on, memory is bounded."""
    pid = box.process.pid
    Qmp(box.socket).close()
    before = resident_kib(pid)
    random = os.urandom(1 * MIB)
    for data in (random, b"[" * MIB, b"{" * MIB, b'{"a":' * 100000, b"]" * 10000, b"\xff" * 10000, b'"' + b"\\ud800" * 1000 + b'"', b"\x00" * 100000, b'{"execute": "qmp_capab'):
        c = socket.socket(socket.AF_UNIX)
        c.connect(str(box.socket))
        c.settimeout(0.2)
        with contextlib.suppress(OSError):  # it may be dropped, or held up until it reads
            c.sendall(data)
        c.close()
        box.alive()
    q = Qmp(box.socket)
    with contextlib.suppress(OSError):
        q.send(b'{"execute": "' + b"x" * (4 * MIB))
    assert q.line()["error"]["desc"] == "JSON token size limit exceeded"
    assert q.line() is None
    for command in ("stop", "cont", "system_reset", "x-lodge-type"):
        q = Qmp(box.socket)
        q.send(json.dumps({"execute": command, "arguments": {"text": "a"} if "type" in command else {}}).encode())
        q.close()
    q = Qmp(box.socket)
    q.ask("cont")
    deaf = Qmp(box.socket)
    deaf.socket.settimeout(0.2)
    with contextlib.suppress(OSError):
        for _ in range(2000):
            deaf.send(b'{"execute": "query-commands"}' * 100)
    box.process.stdout.read1()
    box.alive()
    assert resident_kib(pid) - before < 24 * 1024
    q.ask("quit")
    box.end()


@pytest.fixture
def many_files():
    """Room for a thousand sockets of our own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip(f"no more than {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_connections(box, many_files):
    clients = []
    before = resident_kib(box.process.pid)
    for _ in range(1000):
        c = socket.socket(socket.AF_UNIX)
        c.connect(str(box.socket))
        c.settimeout(SECONDS)
        clients.append(c)
    first = [c.recv(4096) for c in clients]
    assert [b'"QMP"' in f for f in first] == [True] * 16 + [False] * 984
    assert all(b"too many clients" in f for f in first[16:])
    assert resident_kib(box.process.pid) - before < 4 * 1024
    box.alive()
    for c in clients:
        c.close()
    deadline = time.monotonic() + SECONDS
    while True:  # those places become free when the machine has seen them go
        try:
            q = Qmp(box.socket)
            break
        except (AssertionError, OSError):
            assert time.monotonic() < deadline
    assert q.ask("quit")[1] == {"return": {}}
    box.end()


def once_there_is_room(path):
    """A client, when those who went before it have been noticed: there is a limit."""
    end = time.monotonic() + 30
    while True:
        try:
            return Qmp(path)
        except (AssertionError, OSError):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_gone_while_the_guest_thinks(lodge, guests, tmp_path):
    """Who asked for a device to go, and went: it is still asked for, others are told, and its image is free afterwards."""
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    box = Box(lodge, guests, "--disk", tmp_path / "a")  # whose guest lets go of nothing
    for seconds in (1, 30):
        q = Qmp(box.socket)
        q.send(json.dumps({"execute": "x-lodge-unplug", "arguments": {"id": "disk0", "seconds": seconds}}).encode())
        q.close()
    box.alive()
    q = Qmp(box.socket)
    for _ in range(70):
        q.send(b'{"execute": "x-lodge-unplug", "arguments": {"id": "disk0", "seconds": 1}}')
        q.close()
        q = once_there_is_room(box.socket)
    assert q.ask("x-lodge-unplug", id="disk0", seconds=1)[1]["error"]["desc"] == "the guest has not let go of it yet"
    events, answer = q.ask("system_reset")  # a guest that starts again holds nothing
    assert answer == {"return": {}}
    while "DEVICE_DELETED" not in [e["event"] for e in events]:
        events.append(q.line())
    box.ready()
    assert q.ask("blockdev-add", driver="raw", **{"node-name": "disk0"}, file={"driver": "file", "filename": str(tmp_path / "a")})[1] == {"return": {}}
    q.ask("quit")
    box.end()


def test_media(lodge, guests, tmp_path):
    for name, size in (("a.iso", 1), ("b.iso", 2)):
        (tmp_path / name).write_bytes(bytes(size * MIB))
    box = Box(lodge, guests, "--cdrom", tmp_path / "a.iso")
    q = Qmp(box.socket)

    def medium():
        drive = next(d for d in q.ask("query-block")[1]["return"] if d["removable"])
        return drive.get("inserted", {}).get("image", {}).get("virtual-size"), drive["device"]

    def tray(up):
        return {"event": "DEVICE_TRAY_MOVED", "data": {"device": name, "id": name, "tray-open": up}}

    size, name = medium()
    assert size == 1 * MIB
    assert q.ask("blockdev-change-medium", id=name, filename=str(tmp_path / "b.iso")) == ([tray(True), tray(False)], {"return": {}})
    assert medium()[0] == 2 * MIB
    events, answer = q.ask("blockdev-change-medium", id=name, filename=str(tmp_path / "no"))
    assert not events and str(tmp_path / "no") in answer["error"]["desc"] and medium()[0] == 2 * MIB
    assert q.ask("eject", device=name) == ([tray(True)], {"return": {}})
    assert medium()[0] is None
    assert q.ask("eject", device=name) == ([], {"return": {}})
    q.ask("stop")
    assert q.ask("blockdev-change-medium", device=name, filename=str(tmp_path / "a.iso"))[1] == {"return": {}}
    q.ask("cont")
    assert medium()[0] == 1 * MIB
    assert q.ask("eject", device="nosuch")[1]["error"] == {"class": "DeviceNotFound", "desc": "Device 'nosuch' not found"}
    assert q.ask("eject")[1]["error"]["desc"] == "Need exactly one of 'device' and 'id'"
    assert q.ask("eject", device=name, id=name)[1]["error"]["desc"] == "Need exactly one of 'device' and 'id'"
    box.alive()
    q.ask("quit")
    box.end()


def png_size(data):
    """Width and height of a PNG whose pieces are whole."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds = 8, []
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        assert zlib.crc32(data[at + 4:at + 8 + length]) == struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0]
        kinds.append(kind)
        at += 12 + length
    assert kinds[0] == b"IHDR" and kinds[-1] == b"IEND"
    return struct.unpack(">II", data[16:24])


def test_devices_come_and_go(lodge, guests, tmp_path):
    """A guest without ACPI: what can be asked for, and what is refused with QEMU's words."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    box = Box(lodge, guests, "--disk", f"{disk},format=raw")
    q = Qmp(box.socket)

    def ids():
        return [d["id"] for d in q.ask("x-lodge-devices")[1]["return"]]

    def refused(says, *command, kind="GenericError", **args):
        before = ids()
        error = q.ask(*command, **args)[1]["error"]
        assert error["class"] == kind and says in error["desc"], error
        assert ids() == before

    refused("Parameter 'driver' is missing", "device_add", id="x")
    refused("Invalid parameter type for 'driver', expected: string", "device_add", driver=1)
    refused("'nosuch' is not a valid device model name", "device_add", driver="nosuch", id="x")
    refused("'pic-i8259' is not a valid device model name", "device_add", driver="pic-i8259", id="x")
    refused("Bus 'isa.0' not found", "device_add", driver="virtio-rng-pci", id="x", bus="isa.0")
    refused("Parameter 'id' does not accept value '../x'", "device_add", driver="virtio-rng-pci", id="../x")
    refused("Duplicate device ID 'disk0'", "device_add", driver="virtio-rng-pci", id="disk0")
    refused("is no PCI device", "device_add", driver="ide-hd", id="x", drive="disk0")
    refused("no property 'nosuch'", "device_add", driver="virtio-rng-pci", id="x", nosuch=True)
    refused("Invalid parameter type for 'queues'", "device_add", driver="virtio-blk-pci", id="x", drive="disk0", queues=[1])
    refused("drive=nosuch: no such back end", "device_add", driver="virtio-blk-pci", id="x", drive="nosuch")
    refused("drive: is in use by disk0", "device_add", driver="virtio-blk-pci", id="x", drive="disk0")
    refused("Device 'nosuch' not found", "device_del", kind="DeviceNotFound", id="nosuch")
    before = ids()
    assert q.ask("device_add", driver="virtio-rng-pci", id="more", bus="pci.0") == ([], {"return": {}})
    assert q.ask("device_add", driver="virtio-rng-pci") == ([], {"return": {}})
    assert ids() == before + ["more", "device0"]
    assert q.ask("stop")[1] == {"return": {}}
    assert q.ask("device_add", driver="virtio-rng-pci", id="paused") == ([], {"return": {}})
    assert q.ask("cont")[1] == {"return": {}}
    box.alive()
    # This guest holds nothing: it lets go when it starts again.
    assert q.ask("device_del", id="more") == ([], {"return": {}})
    assert "more" in ids()
    events, answer = q.ask("system_reset")
    assert answer == {"return": {}}
    gone = {"event": "DEVICE_DELETED", "data": {"device": "more", "path": "/machine/peripheral/more"}}
    while gone not in events:
        event = q.line()
        event.pop("timestamp")
        events.append(event)
    box.ready()
    assert ids() == before + ["device0", "paused"]
    # 32 slots, some of them the board's.
    error = None
    while not error:
        error = q.ask("device_add", driver="virtio-rng-pci")[1].get("error")
    assert "slot" in error["desc"] and len(ids()) <= 32 + len(before), error
    box.alive()
    q.ask("quit")
    box.end()


def test_verbs(lodge, guests, tmp_path):
    box = Box(lodge, guests, "--vga", "std")
    r = lodge("devices", "box", "--json")
    devices = {d["id"]: d for d in json.loads(r.out)["devices"]}
    assert json.loads(r.out)["schema"] == 1 and devices["com1"]["properties"]["irq"] == "4"
    assert devices["vga"]["class"] == "vga" and devices["vga"]["address"].startswith("00:")
    assert "i440fx (i440fx, board 00:00.0): " in lodge("devices", "box").out
    r = lodge("screen", "box")
    assert (r.status, r.err) == (0, "")
    r = lodge("screen", "box", "--json")
    assert set(json.loads(r.out)) == {"schema", "name", "text"}
    r = lodge("screen", "box", "--png", "shot.png", cwd=tmp_path)
    assert (r.status, r.out, r.err) == (0, "", "")
    assert min(png_size((tmp_path / "shot.png").read_bytes())) > 0
    p = lodge.popen("screen", "--png", "-", "box")
    assert png_size(p.communicate(timeout=SECONDS)[0]) == png_size((tmp_path / "shot.png").read_bytes())
    started = time.monotonic()
    r = lodge("type", "box", "Hello,", "world\\n", "--rate", "20", "--keys", "ctrl-alt-del", "--enter")
    assert (r.status, r.out, r.err) == (0, "", "")
    assert time.monotonic() - started > 0.6  # 13 keys, 20 a second
    r = lodge("type", "--json", "box", "a\\\\b")
    assert json.loads(r.out) == {"schema": 1, "name": "box", "characters": 3}
    Qmp(box.socket).ask("quit")
    box.end()


@pytest.mark.parametrize("args, status, says", [
    (["screen"], 2, "no machine; give its NAME"),
    (["screen", "nobody"], 3, "nobody: no machine of that name; lodge list shows them"),
    (["screen", "../box"], 2, "not a name for a machine"),
    (["screen", "box", "--png"], 2, "--png"),
    (["screen", "box", "--png", ""], 2, "--png: no file"),
    (["screen", "box", "--png", "-", "--json"], 2, "leave --json out"),
    (["screen", "box", "other"], 2, "other"),
    (["screen", "box"], 1, "no console"),
    (["screen", "box", "--png", "x.png"], 1, "no console"),
    (["type"], 2, "no machine; give its NAME"),
    (["type", "box"], 2, "nothing to type"),
    (["type", "nobody", "x"], 3, "nobody: no machine of that name; lodge list shows them"),
    (["type", "box", "a\u20ac"], 2, "character '\u20ac' (U+20AC) is not on the keyboard; nothing was typed"),
    (["type", "box", "a\\x"], 2, "a backslash stands before n, t or another one"),
    (["type", "box", "a\\"], 2, "a backslash stands before n, t or another one"),
    (["type", "box", b"\xff"], 2, "not UTF-8"),
    (["type", "box", "--keys", "ctrl-foo"], 2, 'no key "foo"'),
    (["type", "box", "--keys", ""], 2, "give 1 to 16 keys"),
    (["type", "box", "--keys", "-".join(["a"] * 17)], 2, "give 1 to 16 keys"),
    (["type", "box", "--rate", "0", "x"], 2, "must be 1 to 1000 keys a second"),
    (["type", "box", "--rate", "1001", "x"], 2, "must be 1 to 1000 keys a second"),
    (["type", "box", "x"], 1, "no keyboard or pointer"),
    (["devices", "nobody"], 3, "no such class and no such machine"),
    (["devices", "no/body"], 3, "no such class and no such machine"),
])
def test_wrong_words(lodge, guests, tmp_path, args, status, says):
    """One line on standard error, nothing on standard output, the documented status."""
    box = None
    if status == 1:
        box = Box(lodge, guests)
    words = [os.fsdecode(a) if isinstance(a, bytes) else a for a in args]
    r = lodge(*words, cwd=tmp_path)
    assert (r.status, r.out) == (status, ""), r
    assert r.err.startswith(f"lodge: {args[0]}: ") and says in r.err and r.err.count("\n") == 1
    if box:
        Qmp(box.socket).ask("quit")
        box.end()


def test_not_running(lodge, guests):
    """Known by name, not running: 7. So too where a killed machine has left its socket."""
    box = Box(lodge, guests)
    Qmp(box.socket).ask("quit")
    box.end()
    for args in (["screen", "box"], ["type", "box", "x"], ["devices", "box"]):
        r = lodge(*args)
        assert (r.status, r.out, r.err) == (7, "", f"lodge: {args[0]}: box: is not running; lodge run box starts it\n")
    box = Box(lodge, guests)
    box.process.kill()
    box.process.wait()
    assert box.socket.exists()
    assert lodge("screen", "box").status == 7
    box = Box(lodge, guests)
    Qmp(box.socket).ask("quit")
    box.end()


CLIENTS = r"""
const { QMPClient } = require('node-qemu'); const QMP = require('qemu-qmp');
const path = process.argv[2], seen = [];
const wait = (f) => new Promise((ok, no) => f((e, v) => ok(e ? {error: e.message} : v)));
const shown = (v) => seen.push(v);
(async () => {
  const old = new QMP();
  await wait((cb) => old.connect(path, cb));
  old.on('stop', () => shown('old: stop')); old.on('resume', () => shown('old: resume'));
  const run = (c, a) => wait((cb) => a ? old.execute(c, a, cb) : old.execute(c, cb));
  shown(await run('query-status')); shown(await run('stop')); shown((await run('query-status')).status);
  shown(await run('cont')); shown(await run('nosuch')); shown(await run('query-kvm'));
  shown(await run('human-monitor-command', {'command-line': 'info status'}));
  shown(await run('human-monitor-command', {}));
  old.end();
  const c = new QMPClient({socketPath: path, path, socket: {path}});
  await c.connect();
  const events = []; c.on && c.on('event', (e) => events.push(e.event));
  const ex = (n, a) => c.execute(n, a).catch((e) => ({error: e.message}));
  shown(await ex('query-status')); shown(await ex('stop')); shown(await ex('cont')); shown(await ex('query-uuid'));
  shown(await ex('query-name')); shown(await ex('send-key', {keys: 1})); shown(await ex('eject', {device: 'nosuch'}));
  shown(await ex('quit')); shown(events);
  console.log(JSON.stringify(seen)); process.exit(0);
})().catch((e) => { console.error(e); process.exit(1); });
"""


@pytest.fixture(scope="module")
def npm():
    """node-qemu and qemu-qmp in a folder of the build."""
    folder = BUILD / "npm-qmp"
    if not shutil.which("node") or not shutil.which("npm") or not shutil.which("qemu-system-x86_64"):
        pytest.skip("no node, npm or qemu-system-x86_64")
    if not (folder / "node_modules" / "node-qemu").is_dir() or not (folder / "node_modules" / "split").is_dir():
        folder.mkdir(exist_ok=True)
        r = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "node-qemu@1.3.0", "qemu-qmp@0.5.0", "split@1.0.1"], cwd=folder, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
        if r.returncode:
            pytest.skip("npm cannot fetch the two clients: no network")
    (folder / "clients.js").write_text(CLIENTS)
    return folder


def test_npm_clients(box, lodge, npm, tmp_path):
    """Two clients that others wrote see the same of QEMU and of Lodge."""
    def seen(path):
        r = subprocess.run(["node", npm / "clients.js", path], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        assert r.returncode == 0, r.stderr
        return json.loads(r.stdout)

    path = lodge.home / "q.sock"
    qemu = subprocess.Popen(["qemu-system-x86_64", "-machine", "none", "-name", "box", "-display", "none", "-nodefaults", "-qmp", f"unix:{path},server=on,wait=off"])
    try:
        deadline = time.monotonic() + SECONDS
        while not path.exists():
            assert time.monotonic() < deadline and qemu.poll() is None
            time.sleep(0.05)
        theirs = seen(path)
    finally:
        qemu.kill()
        qemu.wait()
    ours = seen(box.socket)
    box.end()
    theirs = [{**v, "enabled": True} if isinstance(v, dict) and "enabled" in v else v for v in theirs]  # that one has no KVM
    assert ours == theirs
