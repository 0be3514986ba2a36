# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP where --qmp says, in each form that QEMU's option has, and run --detach --wait."""
import hashlib
import importlib.util
import json
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import time

import pytest
from conftest import BUILD
from qmp import Qmp, conforms
from test_native_life import echo, ended, fails, state, works  # noqa: F401 (fixtures)

SECONDS = 30


@pytest.fixture
def here(echo):
    return [*echo, "--ephemeral"]


def hears(f):
    return json.loads(f.readline())


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stdio(lodge, here):
    p = lodge.popen("run", "box", *here, "--qmp", "stdio", stdin=subprocess.PIPE)
    assert hears(p.stdout)["QMP"]["capabilities"] == []
    p.stdin.write(b'{"execute": "qmp_capabilities"}{"execute": "query-name", "id": [1]}')
    p.stdin.flush()
    assert hears(p.stdout) == {"return": {}} and hears(p.stdout) == {"return": {"name": "box"}, "id": [1]}
    p.stdin.write(b'{"execute": "stop"}')
    p.stdin.close()  # its end is not the machine's; what was asked is answered
    assert hears(p.stdout)["event"] == "STOP" and hears(p.stdout) == {"return": {}}
    until(lambda: state(lodge, "box") == "paused")
    works(lodge("kill", "box"))
    assert p.wait(SECONDS) == 0 and p.stderr.read() == b""


def test_sockets(lodge, here):
    at = lodge.home / "q.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(at))  # which somebody left behind
    stale.close()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    works(lodge("run", "box", "-d", *here, "--qmp", f"unix:{at},server=on,wait=off", "--qmp", f"tcp::{port},server=on,wait=off"))
    assert stat.S_IMODE(at.stat().st_mode) == 0o600
    q = Qmp(at)
    assert q.ask("query-name") == ([], {"return": {"name": "box"}})
    t = socket.create_connection(("127.0.0.1", port), SECONDS)
    assert b'"QMP"' in t.recv(4096)
    t.sendall(b'{"execute":"qmp_capabilities"}{"execute":"quit"}')
    assert q.line()["event"] == "SHUTDOWN"  # each hears of what the other does
    until(lambda: not at.exists() and state(lodge, "box") is None)
    at.write_text("somebody's file")
    fails(lodge("run", "box", *here, "--qmp", f"unix:{at},server=on"), 5, f"run: qmp '{at}': is there already; remove it or choose another path")
    at.unlink()


def test_waits_for_a_client(lodge, here):
    at = lodge.home / "q.sock"
    p = lodge.popen("run", "box", *here, "--console", "none", "--qmp", f"unix:{at},server=on")
    until(at.exists)
    assert state(lodge, "box") in ("starting", None)
    q = Qmp(at)
    until(lambda: state(lodge, "box") == "running")
    assert q.ask("quit")[1] == {"return": {}}
    assert p.wait(SECONDS) == 0 and b"qmp: waits for a client at" in p.stderr.read()


def test_comes_to_a_client(lodge, here):
    at = lodge.home / "q.sock"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(at))
        s.listen()
        p = lodge.popen("run", "box", *here, "--console", "none", "--qmp", f"unix:{at}")
        c, _ = s.accept()
        c.settimeout(SECONDS)
        assert b'"QMP"' in c.recv(4096)
        c.sendall(b'{"execute":"qmp_capabilities"}')
        assert c.recv(4096) == b'{"return": {}}\r\n'
        c.close()
        until(lambda: state(lodge, "box") == "running")
        works(lodge("kill", "box"))
        assert p.wait(SECONDS) == 0
    at.unlink()
    fails(lodge("run", "box", *here, "--qmp", f"unix:{at}"), 1, f"run: qmp 'unix:{at}': cannot connect: No such file or directory")
    assert state(lodge, "box") is None


def test_detached_and_waited_for(lodge, echo, guests):
    works(lodge("run", "box", "-d", "--wait=log:^READY$", *echo))
    assert "READY" in works(lodge("log", "box"))
    works(lodge("kill", "box"))
    r = lodge("run", "box", "-d", "--wait=log:never", "--kernel", guests / "hello", "--memory", "16M", "--net", "none", "--debug-exit")
    fails(r, 7, "run: box: (ended, and no line matched|is not running; .*)")
    waiter = lodge.popen("run", "box", "-d", "--wait", *echo)  # for a login, which that guest has not
    until(lambda: state(lodge, "box") == "running")
    assert waiter.poll() is None
    works(lodge("kill", "box"))
    assert waiter.wait(SECONDS) == 7


@pytest.mark.parametrize("words,says", [
    (["--qmp", "x"], '--qmp: "x": write unix:PATH, tcp:.*'),
    (["--qmp", "stdio", "-d"], "--qmp: stdio: a detached machine has none; .*"),
    (["--qmp", "stdio", "--console", "stdio"], "--console: stdio: there is one terminal, .*"),
    (["--qmp", "unix:/x,wait=off"], "--qmp: wait: goes with server=on, .*"),
    (["--qmp", "tcp:nowhere:1,server=on"], r"qmp 'tcp:nowhere:1': write tcp:\[ADDR:\]PORT or unix:PATH"),
    (["--qmp", f"unix:/{'x' * 120},server=on"], "qmp '/x*': a socket's path has 1 to 107 letters"),
    (["--wait"], "--wait: goes with --detach"),
    (["-d", "--wait", "--ephemeral"], "--wait: an --ephemeral machine keeps no log .*"),
    (["-d", "--wait=x"], '--wait: "x": write log:REGEX'),
])
def test_wrong_words(lodge, echo, words, says):
    fails(lodge("run", "box", *echo, *words), 2, f"run: {says}")


# ---- the same words to QEMU ----

def shape(v):
    """What kinds of things stands where; lists by their first."""
    if isinstance(v, dict):
        return {k: shape(x) for k, x in sorted(v.items())}
    return [shape(v[0])] if isinstance(v, list) and v else type(v).__name__


def within(ours, theirs, where=""):
    """Each field of ours is one of theirs, of its kind."""
    if isinstance(ours, dict):
        assert isinstance(theirs, dict) and set(ours) <= set(theirs), (where, set(ours) - set(theirs))
        for k in ours:
            within(ours[k], theirs[k], f"{where}.{k}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        within(ours[0], theirs[0], where + "[0]")
    else:
        assert ours == theirs, where


def listens(at):
    """A socket is there before it listens."""
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(str(at)) == 0


@pytest.fixture
def peers(lodge, guests, tmp_path):
    """QEMU and Lodge with the same hardware, as far as clients can tell."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("no qemu-system-x86_64; scripts/deps test installs it")
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    at = lodge.home / "q.sock"
    qemu = subprocess.Popen(["qemu-system-x86_64", "-S", "-M", "pc", "-m", "64", "-smp", "2", "-nodefaults", "-display", "none", "-name", "box", "-qmp", f"unix:{at},server=on,wait=off",
                             "-chardev", "null,id=con0", "-serial", "chardev:con0", "-blockdev", f"driver=raw,node-name=disk0,file.driver=file,file.filename={tmp_path}/b", "-device",
                             "virtio-blk-pci,drive=disk0,id=disk0", "-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,id=net0,mac=52:54:00:4b:5e:57"])
    try:
        works(lodge("run", "box", "-d", "--kernel", guests / "plug", "--memory", "64M", "--cpus", "2", "--rng", "off", "--net", "user,mac=52:54:00:4b:5e:57", "--disk", tmp_path / "a"))
        until(lambda: listens(at))
        yield Qmp(lodge.home / "run" / "lodge" / "box" / "qmp.sock"), Qmp(at), tmp_path
    finally:
        qemu.kill()
        qemu.wait()
        works(lodge("kill", "box"))


def test_answers_as_qemu(peers):
    ours, theirs, _ = peers
    for command in ("query-cpus-fast", "query-memory-size-summary", "query-target", "query-current-machine", "query-chardev", "query-blockstats", "query-pci", "query-block",
                    "query-named-block-nodes", "query-name", "query-uuid", "query-kvm", "query-jobs", "query-block-jobs", "query-vnc", "query-vnc-servers"):
        a, b = ours.ask(command)[1]["return"], theirs.ask(command)[1]["return"]
        within(shape(a), shape(b), command)
        if command in ("query-memory-size-summary", "query-target", "query-name", "query-uuid", "query-vnc", "query-vnc-servers"):
            assert a == b
    cpus = ours.ask("query-cpus-fast")[1]["return"]
    assert [c["cpu-index"] for c in cpus] == [0, 1] and all(pathlib.Path(f"/proc/{c['thread-id']}").exists() for c in cpus)
    cards = [[d["id"]["device"] for d in q.ask("query-pci")[1]["return"][0]["devices"] if d["class_info"]["class"] == 0x200] for q in (ours, theirs)]
    assert cards[0] in ([0x1000], [0x1041]) and len(cards[1]) == 1
    names = [{p["name"]: p["type"] for p in q.ask("device-list-properties", typename="virtio-net-pci")[1]["return"]} for q in (ours, theirs)]
    assert {"mac", "netdev"} <= set(names[0]) and names[0]["mac"] == names[1]["mac"] == "str"
    listed = {c["name"] for c in theirs.ask("query-commands")[1]["return"]}
    assert {c["name"] for c in ours.ask("query-commands")[1]["return"] if not c["name"].startswith("x-lodge-")} <= listed, "a name that QEMU does not know"
    kinds = [{m["name"]: m for m in q.ask("query-machines")[1]["return"]} for q in (ours, theirs)]
    within(shape(kinds[0]["pc"]), shape(next(m for m in kinds[1].values() if m.get("alias") == "pc")), "query-machines")
    for line in ("info uuid", "info status", "info nosuch", "info name", "info network", "info memory_size_summary", "info block-jobs", "info vnc", "info status x", "change", "eject", "info registers 9"):
        a, b = (q.ask("human-monitor-command", **{"command-line": line})[1]["return"] for q in (ours, theirs))
        if line == "info status":
            assert (a, b) == ("VM status: running\r\n", "VM status: paused (prelaunch)\r\n")
        elif line == "info network":
            assert a.replace("\r\n", ",") == b.replace(",net=10.0.2.0,restrict=off", "").replace("\r\n", ",")
        else:
            assert a == b, line


def test_hardware_as_qemu(peers):
    """Registers and PCI functions in the form that QEMU's monitor has, for who reads them by expressions."""
    ours, theirs, _ = peers

    def lines(q, line):
        return q.ask("human-monitor-command", **{"command-line": line})[1]["return"].split("\r\n")

    def form(line):
        return re.sub(r"\b[0-9a-f]{4,}\b", lambda m: "x" * len(m[0]), re.sub(r"\[[A-Z-]{7}\]|HLT=\d|(?<=, device)[ \d]+|\b[0-9a-f]+(?=, pin)", "_", line)).rstrip()
    a, b = ([form(x) for x in lines(q, "info registers")] for q in (ours, theirs))
    wide = "RAX=xxxxxxxxxxxxxxxx" in a[2]
    assert a[:2] == b[:2] == ["", "CPU#0"] and len(a) == (33 if wide else 27) and sum(x.startswith("XMM") for x in a) == (8 if wide else 4)
    assert [x for x in a if x[:3] in ("FCW", "CR0", "EFE")] == [x for x in b if x[:3] in ("FCW", "CR0", "EFE")] if not wide else True
    assert len([x for x in lines(ours, "info registers -a") if x.startswith("CPU#")]) == 2
    assert any("CPU#1" in x for x in lines(ours, "info registers 1")) and not any("CPU#1" in x for x in lines(ours, "info registers"))
    a, b = ({form(x) for x in lines(q, "info pci")} for q in (ours, theirs))
    assert "  Bus  0, device_, function 0:" in a & b and any(x.strip().startswith("Ethernet controller: PCI device xxxx:xxxx") for x in a & b)
    card = lines(ours, "info pci")
    at = card.index('      id "net0"')
    bars = [x for x in card[max(i for i in range(at) if "Bus " in card[i]):at] if "BAR" in x]
    assert bars and all(re.fullmatch(r"      BAR\d: (I/O at 0x[0-9a-f]{4,}|(32|64) bit( prefetchable)? memory at 0x[0-9a-f]{8,}) \[0x[0-9a-f]{4,}\]\.", x) for x in bars)


def test_schema_as_qemu(peers):
    """What we say that a command takes, QEMU's takes: by its name, of its kind, and needed where we need it."""
    def commands(q):
        schema = {e["name"]: e for e in q.ask("query-qmp-schema")[1]["return"]}
        assert all(set(e) >= {"name", "meta-type"} for e in schema.values())

        def members(kind):
            t = schema[kind]
            more = [m for v in t.get("variants", []) for m in schema[v["type"]]["members"]]
            return {m["name"]: (schema[m["type"]], "default" in m) for m in t["members"] + more}
        assert {e["meta-type"] for e in schema.values()} <= {"command", "event", "object", "enum", "array", "builtin", "alternate"}
        return {n: members(e["arg-type"]) for n, e in schema.items() if e["meta-type"] == "command"}, {n for n, e in schema.items() if e["meta-type"] == "event"}
    (ours, our_events), (theirs, their_events) = (commands(q) for q in peers[:2])
    assert set(ours) == {c["name"] for c in peers[0].ask("query-commands")[1]["return"]}
    assert our_events <= their_events
    for name in (n for n in ours if not n.startswith("x-lodge-")):
        for arg, (kind, optional) in ours[name].items():
            assert arg in theirs[name], (name, arg)
            their_kind, their_optional = theirs[name][arg]
            if kind["meta-type"] in ("builtin", "array"):
                assert kind["meta-type"] == their_kind["meta-type"] or their_kind["meta-type"] == "enum" and kind["json-type"] == "string", (name, arg)
            else:
                assert {m["name"] for m in kind["members"]} <= {m["name"] for m in their_kind["members"]}, (name, arg)
            assert optional or not their_optional or (name, arg) in ((("blockdev-add"), "file"),), (name, arg)


def test_results_as_qemu(peers):
    """What we say of results and of events' data, down to the last object, QEMU says so too, and has no member that it always sends and we lack."""
    schemas = [{e["name"]: e for e in q.ask("query-qmp-schema")[1]["return"]} for q in peers[:2]]
    ours, theirs = schemas
    seen = set()

    def members(schema, t):
        """By name: the type, and whether it may be missing; those of variants may."""
        more = {m["name"]: (m["type"], True) for v in t.get("variants", []) for m in schema[v["type"]]["members"]}
        return {**more, **{m["name"]: (m["type"], "default" in m) for m in t["members"]}}

    def same(what, our_type, their_type):
        a, b = ours[our_type], theirs[their_type]
        kinds = a["meta-type"], b["meta-type"]
        if (our_type, their_type) in seen:
            return
        seen.add((our_type, their_type))
        if kinds == ("array", "array"):
            if what != "query-blockstats.stats.timed_stats":  # which is always empty
                same(what, a["element-type"], b["element-type"])
        elif kinds == ("object", "object"):
            mine, qemus = members(ours, a), members(theirs, b)
            assert set(mine) <= set(qemus), (what, set(mine) - set(qemus))
            assert {n for n, (_, optional) in qemus.items() if not optional} <= {n for n, (_, optional) in mine.items() if not optional}, what
            for name, (kind, _) in mine.items():
                same(f"{what}.{name}", kind, qemus[name][0])
        elif kinds == ("enum", "enum"):
            assert set(a["values"]) <= set(b["values"]), what
        else:
            assert kinds == ("builtin", "enum") and a["json-type"] == "string" or kinds[0] == kinds[1] == "builtin" and a["json-type"] == b["json-type"], what
    events = [n for n, e in ours.items() if e["meta-type"] == "event"]
    for name in events:
        same(name, ours[name]["arg-type"], theirs[name]["arg-type"])
    assert len([n for n in events if ours[ours[n]["arg-type"]]["members"]]) == 13
    commands = [n for n, e in ours.items() if e["meta-type"] == "command" and not n.startswith("x-lodge-")]
    for name in commands:
        if name != "query-qmp-schema":  # kinds of entries have members of one name and of several types
            same(name, ours[name]["ret-type"], theirs[name]["ret-type"])
    assert len(commands) > 50
    assert [n for n in commands if ours[n]["ret-type"] == "any"] == ["qom-get"]


def test_results_are_so(lodge, guests, tmp_path):
    """What every command answers that asks for nothing, of a machine that has something to tell: qmp.py compares it with the schema."""
    (tmp_path / "base").write_bytes(bytes(1 << 20))
    (tmp_path / "rules").write_text("deny out udp\n")
    works(lodge("image", "create", "--base", tmp_path / "base", "--base-format", "raw", tmp_path / "top.qcow2"))
    works(lodge("run", "box", "-d", "--kernel", guests / "plug", "--memory", "64M", "--cpus", "2", "--vga", "std", "--display", f"vnc=unix:{lodge.home}/vnc", "--disk", tmp_path / "top.qcow2",
                "--cdrom", "none", "--net", f"user,filter={tmp_path}/rules", "--net", "user", "--watchdog", "--quiet"))
    q = Qmp(lodge.home / "run" / "lodge" / "box" / "qmp.sock")
    viewer = socket.socket(socket.AF_UNIX)
    viewer.connect(f"{lodge.home}/vnc")
    viewer.settimeout(SECONDS)
    assert viewer.recv(12) == b"RFB 003.008\n"
    viewer.sendall(b"RFB 003.008\n")
    viewer.recv(64)
    viewer.sendall(b"\1")
    viewer.recv(64)
    assert q.ask("block-commit", device="disk0", speed=1)[1] == {"return": {}}
    asks = [n for n, e in q.schema.items() if e["meta-type"] == "command" and n.startswith(("query-", "x-lodge-")) and not [
        m for m in q.schema[e["arg-type"]]["members"] if "default" not in m]]
    got = {n: q.ask(n)[1] for n in asks}
    assert len(got) == 28 and all(a.get("return") for a in got.values()), got
    assert got["query-block"]["return"][0]["inserted"]["image"]["backing-image"]["format"] == "raw"
    assert got["x-lodge-net"]["return"][0]["filter"]["rules"] and got["query-vnc"]["return"]["clients"]
    assert q.ask("device-list-properties", typename="virtio-net-pci")[1]["return"]
    assert q.ask("human-monitor-command", **{"command-line": "info status"})[1]["return"]
    assert q.ask("qom-get", path="/machine/peripheral/balloon0", property="guest-stats")[1]["return"]["stats"]
    assert q.ask("x-lodge-hostfwd-add", rule="tcp:127.0.0.1:0-:22")[1]["return"]["host"]
    viewer.close()
    works(lodge("kill", "box"))


def test_checker():
    """What the schema does not say, or is not as it says, is seen."""
    schema = {"1": {"meta-type": "object", "members": [{"name": "a", "type": "int"}, {"name": "b", "type": "[2]", "default": None}]}, "[2]": {"meta-type": "array", "element-type": "2"},
              "2": {"meta-type": "enum", "values": ["x"]}, "int": {"meta-type": "builtin"}}
    conforms(schema, "1", {"a": 1, "b": ["x", "x"]}, "")
    for wrong in ({}, {"a": True}, {"a": "1"}, {"a": 1, "c": 1}, {"a": 1, "b": ["y"]}, {"a": 1, "b": "x"}, [{"a": 1}]):
        with pytest.raises(AssertionError):
            conforms(schema, "1", wrong, "")


def test_errors_as_qemu(peers):
    """The same wrong words have the same answers, to the letter."""
    ours, theirs, folder = peers
    node = {"driver": "raw", "node-name": "b1", "file": {"driver": "file", "filename": str(folder / "b2")}}
    (folder / "b2").write_bytes(bytes(1 << 20))
    rates = {f"{kind}{part}": 0 for kind in ("bps", "iops") for part in ("", "_rd", "_wr")}
    words = [
        ("netdev_add", {"type": "user", "id": "n1"}), ("netdev_add", {"type": "user", "id": "n1"}), ("netdev_add", {"type": "nosuch", "id": "n2"}), ("netdev_add", {"id": "n2"}),
        ("netdev_add", {"type": "user", "id": "n3", "foo": "x"}), ("netdev_add", {"type": "user", "id": "1x"}), ("netdev_del", {"id": "n1"}), ("netdev_del", {"id": "n1"}),
        ("set_link", {"name": "net0", "up": False}), ("set_link", {"name": "nosuch", "up": True}), ("set_link", {"name": "net0"}), ("set_link", {"name": "net0", "up": "x"}),
        ("human-monitor-command", {"command-line": "set_link net0 on"}), ("human-monitor-command", {"command-line": "set_link net0"}),
        ("netdev_del", {}), ("device-list-properties", {"typename": "nosuch"}), ("device_del", {"id": "nosuch"}), ("device_add", {"driver": "nosuch"}), ("device_add", {}),
        ("blockdev-add", {"driver": "nosuch", "node-name": "b2"}), ("blockdev-add", {"driver": "raw", "node-name": "b2"}), ("blockdev-add", {"node-name": "b2"}),
        ("blockdev-add", {"driver": "file", "node-name": "b2"}), ("blockdev-del", {"node-name": "b1"}), ("blockdev-del", {}), ("blockdev-del", {"node-name": "disk0"}),
        ("query-target", {"x": 1}), ("query-pci", {"x": 1}), ("send-key", {}), ("screendump", {}), ("stop", {"x": 1}),
        ("block_resize", {"device": "nosuch", "size": 1}), ("block_resize", {"node-name": "nosuch", "size": 1}), ("block_resize", {"size": 1}), ("block-commit", {"device": "nosuch"}),
        ("block-job-cancel", {"device": "nosuch"}), ("block-job-set-speed", {"device": "nosuch", "speed": 0}), ("job-cancel", {"id": "nosuch"}), ("job-complete", {"id": "nosuch"}),
        ("block_set_io_throttle", {}), ("block_set_io_throttle", {**rates, "device": "nosuch"}), ("block_set_io_throttle", {**rates, "id": "nosuch"}), ("block_set_io_throttle", rates),
        ("block_set_io_throttle", {**rates, "id": "nosuch", "iops": "x"}), ("query-machines", {"x": 1}), ("query-qmp-schema", {"x": 1}), ("query-vnc", {"x": 1}),
        ("eject", {"device": "x"}), ("eject", {}), ("eject", {"id": "x", "device": "y"}), ("blockdev-change-medium", {"id": "x", "filename": "/x"}),
        ("send-key", {"keys": [{"type": "x", "data": "a"}]}), ("getfd", {"fdname": "x"}), ("closefd", {"fdname": "x"}), ("add_client", {"protocol": "vnc", "fdname": "y"}),
        ("human-monitor-command", {"command-line": "info", "cpu-index": 9}), ("qmp_capabilities", {}), ("nosuch", {}),
    ]
    for command, arguments in words:
        said = []
        for q in (ours, theirs):
            q.send(json.dumps({"execute": command, "arguments": arguments, "id": {"a": [1]}}).encode())
            said.append(q.answer()[1])
        assert said[0] == said[1], (command, arguments)
    q = ours

    def link():
        return [n["link"] for n in q.ask("x-lodge-net")[1]["return"]]
    assert link() == [True] and q.ask("set_link", name="net0", up=False)[1] == {"return": {}} and link() == [False]
    assert q.ask("set_link", name="net0", up=True)[1] == {"return": {}} and link() == [True]
    # An image for a device, by QEMU's words.
    assert q.ask("blockdev-add", **node)[1] == {"return": {}}
    assert q.ask("blockdev-add", **node)[1] == theirs_after(theirs, node)
    assert q.ask("device_add", driver="virtio-blk-pci", id="d1", drive="b1")[1] == {"return": {}}
    assert q.ask("blockdev-del", **{"node-name": "b1"})[1]["error"]["desc"] == "Node b1 is in use"
    assert q.ask("netdev_add", type="user", id="n1", hostfwd=[{"str": "tcp::0-:22"}])[1] == {"return": {}}
    assert q.ask("device_add", driver="virtio-net-pci", id="c1", netdev="n1")[1] == {"return": {}}
    assert {d["properties"]["mac"] for d in q.ask("x-lodge-devices")[1]["return"] if d["id"] == "c1"} == {derived("box")}
    assert q.ask("netdev_del", id="n1")[1]["error"]["class"] == "GenericError"
    for device in ("d1", "c1"):
        events, answer = q.ask("device_del", id=device)
        assert answer == {"return": {}}
        while not events:
            events = [q.line()]
        assert events[0]["data"] == {"device": device, "path": f"/machine/peripheral/{device}"}
    assert q.ask("netdev_del", id="n1")[1] == q.ask("blockdev-del", **{"node-name": "b1"})[1] == {"return": {}}


def test_throttle(lodge, guests, tmp_path):
    """Limits of a disk in use, set and read back; the definition keeps its own."""
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    works(lodge("run", "box", "-d", "--kernel", guests / "plug", "--memory", "64M", "--net", "none", "--rng", "off", "--disk", f"{tmp_path}/a,iops=500"))
    q = Qmp(lodge.home / "run" / "lodge" / "box" / "qmp.sock")

    def limits():
        seen = [d["inserted"] for d in q.ask("query-block")[1]["return"]] + q.ask("query-named-block-nodes")[1]["return"]
        assert {tuple(d[k] for k in ("bps_rd", "bps_wr", "iops_rd", "iops_wr")) for d in seen} == {(0, 0, 0, 0)}
        pairs = {(d["iops"], d["bps"]) for d in seen}
        assert len(pairs) == 1
        return pairs.pop()

    def throttle(device="disk0", key="id", **rates):
        full = {f"{kind}{part}": 0 for kind in ("bps", "iops") for part in ("", "_rd", "_wr")}
        return q.ask("block_set_io_throttle", **{**full, key: device, **rates})[1]
    assert limits() == (500, 0)
    assert throttle(iops=7, bps=1 << 20) == {"return": {}} and limits() == (7, 1 << 20)
    assert q.ask("human-monitor-command", **{"command-line": "block_set_io_throttle disk0 3 0 0 0 0 0"})[1] == {"return": ""} and limits() == (0, 3)
    for rates, says in (({"iops": -1}, "bps/iops/max values must be within [0, 1000000000000000]"), ({"bps": 1 << 60}, "bps/iops/max values must be within [0, 1000000000000000]"),
                        ({"iops_rd": 5}, "Parameter 'iops_rd' expects 0: reads and writes have one limit, iops"), ({"bps_wr": 5}, "Parameter 'bps_wr' expects 0: .* limit, bps")):
        assert re.fullmatch(says.replace("[", r"\[") if "within" in says else says, throttle(**rates)["error"]["desc"]), rates
    assert limits() == (0, 3)
    assert throttle(key="device") == {"return": {}} and limits() == (0, 0)
    works(lodge("kill", "box"))


def theirs_after(theirs, node):
    """What QEMU says to the same name twice."""
    assert theirs.ask("blockdev-add", **node)[1] == {"return": {}}
    answer = theirs.ask("blockdev-add", **node)[1]
    assert theirs.ask("blockdev-del", **{"node-name": node["node-name"]})[1] == {"return": {}}
    return answer


def derived(name, n=0):
    """The hardware address of a card that was given none."""
    low = int.from_bytes(hashlib.sha256(name.encode()).digest()[:3], "big") + n & 0xffffff
    return ":".join(f"{b:02x}" for b in bytes((0x52, 0x54, 0)) + low.to_bytes(3, "big"))


@pytest.fixture(scope="module")
def labgrid():
    """The module of Debian's labgrid that speaks QMP: its package alone, unpacked in the build's folder."""
    folder = BUILD / "labgrid"
    at = folder / "usr/lib/python3/dist-packages/labgrid/util/qmp.py"
    if not at.is_file():
        folder.mkdir(exist_ok=True)
        if not shutil.which("apt-get") or subprocess.run(["apt-get", "-q", "download", "python3-labgrid"], cwd=folder, capture_output=True, stdin=subprocess.DEVNULL, timeout=120,
                                                         check=False).returncode:
            pytest.skip("apt-get cannot fetch python3-labgrid")
        subprocess.run(["dpkg-deb", "-x", next(folder.glob("python3-labgrid_*.deb")), folder], check=True)
    pytest.importorskip("attr", reason="no python3-attr, which labgrid's class is made with")
    spec = importlib.util.spec_from_file_location("labgrid_qmp", at)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_labgrid(lodge, here, labgrid):
    """Its QEMU driver's monitor, over -qmp stdio as it starts QEMU, sees the same of both."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("no qemu-system-x86_64; scripts/deps test installs it")

    def session(p):
        monitor = labgrid.QMPMonitor(p.stdout, p.stdin)
        said = [monitor.execute("query-status")["running"]] + [monitor.execute(c) for c in ("stop", "query-name", "query-uuid", "cont", "system_powerdown")]
        said.append(monitor.execute("query-status")["status"])
        with pytest.raises((labgrid.QMPError, TypeError), match="The command nosuch has not been found"):  # 0.4's class fails to make its own error
            monitor.execute("nosuch")
        said.append(monitor.execute("quit"))
        p.stdin.close()
        assert p.wait(SECONDS) == 0
        p.stdout.close()
        return said
    qemu = subprocess.Popen(["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-name", "box", "-qmp", "stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        theirs = session(qemu)
    finally:
        qemu.kill()
        qemu.wait()
    ours = session(lodge.popen("run", "box", *here, "--qmp", "stdio", stdin=subprocess.PIPE))
    assert ours == theirs
