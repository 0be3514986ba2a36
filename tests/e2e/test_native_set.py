# SPDX-License-Identifier: GPL-2.0-or-later
"""lodge set, unset and edit on a machine that runs: disks, networks and forwards come and go at once."""
import base64
import json
import os
import resource
import socket

import pytest
from test_native_life import ended, fails, folder, works  # noqa: F401 (ended is a fixture)


@pytest.fixture
def ports():
    """Three ports of the host that are free."""
    sockets = [socket.socket() for _ in range(3)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    found = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return found


@pytest.fixture
def box(lodge, guests, tmp_path):
    """A guest that lets go of devices at once; its folder has images a, b and c."""
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(1 << 20))

    def run(*options):
        works(lodge("run", "web", "-d", "--kernel", guests / "plug", "--memory", "64M", "--rng", "off", *options, cwd=tmp_path))
        works(lodge("wait", "web", "--log", "READY", "--timeout", "20"))
    return run


def lines(lodge, *words, **kw):
    return works(lodge(*words, **kw)).splitlines()


def files(lodge):
    return {d["qdev"]: os.path.basename(d["inserted"]["file"]) for d in json.loads(works(lodge("qmp", "web", "query-block")))}


def cards(lodge):
    devices = json.loads(works(lodge("devices", "web", "--json")))["devices"]
    return {d["id"]: d["properties"]["mac"] for d in devices if d["class"] == "virtio-net-pci"}


def test_disks(lodge, box, tmp_path):
    box("--net", "none", "--disk", "a")
    at = tmp_path
    assert lines(lodge, "set", "web", "--disk", at / "a", "--disk", "b", cwd=at) == [f"web: disk: now: disk1 ({at}/b) is in"]
    assert lines(lodge, "set", "web", "--disk", "a", "--disk", "b", cwd=at) == ["web: disk: now"]
    assert files(lodge) == {"disk0": "a", "disk1": "b"}
    # b stays where it is, though it is the first one now.
    assert lines(lodge, "set", "web", "--disk", at / "b", "--disk", at / "c,ro") == [f"web: disk: now: disk0 ({at}/a) is out", f"web: disk: now: disk1 ({at}/c) is in as disk0"]
    assert files(lodge) == {"disk0": "c", "disk1": "b"}
    assert lines(lodge, "set", "web", "--disk", at / "c") == [f"web: disk: at the next start: other options of disk0 ({at}/c)", f"web: disk: now: disk1 ({at}/b) is out"]
    # What cannot be done is said and changes nothing that runs; the images are free again.
    said = lines(lodge, "set", "web", "--disk", at / "c", "--disk", at / "none")[-1]
    assert said.startswith(f"web: disk: at the next start: disk1 ({at}/none): disk disk1: ") and "no such file" in said
    assert lines(lodge, "set", "web", "--disk", at / "c", "--disk", f"{at}/b,bus=ide")[-1] == f"web: disk: at the next start: disk1 ({at}/b): is no device that can come while the machine runs"
    assert files(lodge) == {"disk0": "c"}
    assert lines(lodge, "unset", "web", "disk") == [f"web: disk: now: disk0 ({at}/c) is out"]
    assert lines(lodge, "set", "web", "--disk", at / "a", "--memory", "32M") == [f"web: disk: now: disk0 ({at}/a) is in", "web: memory: at the next start: the guest has no driver for its balloon"]
    works(lodge("kill", "web"))
    assert (folder(lodge, "web") / "definition").read_text().endswith(f"--disk=file={at}/a\n--memory=size=32M\n")


def test_limits(lodge, box, tmp_path):
    """Of a disk in use they change at once, whatever else of it waits for the next start."""
    box("--net", "none", "--disk", "a", "--disk", "b,iops=9")

    def limits():
        return [(d["inserted"]["iops"], d["inserted"]["bps"]) for d in json.loads(works(lodge("qmp", "web", "query-block")))]
    a, b = (f"limits of disk{i} ({tmp_path}/{f})" for i, f in enumerate("ab"))
    assert limits() == [(0, 0), (9, 0)]
    assert lines(lodge, "set", "web", "--disk", "a,bps=2M", "--disk", "b,iops=9", cwd=tmp_path) == [f"web: disk: now: {a}"] and limits() == [(0, 2 << 20), (9, 0)]
    assert lines(lodge, "set", "web", "--disk", "b,iops=7,bps=1G,ro", "--disk", "a,iops=5", cwd=tmp_path) == [f"web: disk: at the next start: other options of disk1 ({tmp_path}/b)", f"web: disk: now: {b}",
                                                                                                        f"web: disk: now: {a}"]
    assert limits() == [(5, 0), (7, 1 << 30)]
    assert lines(lodge, "set", "web", "--disk", "b,iops=7,bps=1G", "--disk", "a,iops=5", cwd=tmp_path) == ["web: disk: now"]
    assert lines(lodge, "set", "web", "--disk", "a", "--disk", "b", cwd=tmp_path) == [f"web: disk: now: {a}", f"web: disk: now: {b}"] and limits() == [(0, 0)] * 2
    works(lodge("kill", "web"))


def test_ephemeral(lodge, box, tmp_path):
    box("--net", "none", "--disk", "a")
    works(lodge("kill", "web"))
    works(lodge("run", "web", "-d", "--ephemeral"))
    works(lodge("set", "web", "--disk", tmp_path / "a", "--disk", tmp_path / "b"))
    tree = base64.b64decode(json.loads(works(lodge("qmp", "web", "x-lodge-description")))["tree"])
    assert tree.count(b"\0\0\0\3\0\0\0\0") >= 3, "what is written to b is lost, as of all disks"
    assert [d["inserted"]["drv"] for d in json.loads(works(lodge("qmp", "web", "query-block")))] == ["umlcow", "umlcow"]
    works(lodge("kill", "web"))


def test_a_guest_that_holds_on(lodge, guests, tmp_path):
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    works(lodge("run", "web", "-d", "--kernel", guests / "hlt_wake", "--append", "n=100000000", "--memory", "16M", "--net", "none", "--disk", tmp_path / "a"))
    works(lodge("wait", "web", "--log", "READY", "--timeout", "20"))
    fails(lodge("qmp", "web", "x-lodge-unplug", "id=disk0", "seconds:=1"), 1, "qmp: web: the guest has not let go of it yet")
    fails(lodge("qmp", "web", "x-lodge-unplug", "id=disk0", "seconds:=0"), 1, "qmp: web: Parameter 'seconds' expects 1 to 3600")
    fails(lodge("qmp", "web", "x-lodge-unplug", "id=disk7"), 3, "qmp: web: Device 'disk7' not found")
    fails(lodge("qmp", "web", "x-lodge-plug", "tree=AAAA"), 1, "qmp: web: .*")
    assert list(files(lodge)) == ["disk0"]
    works(lodge("reset", "web"))  # a guest that starts again holds nothing
    works(lodge("set", "web", "--disk", tmp_path / "a"))
    works(lodge("kill", "web"))


def test_networks_and_ports(lodge, box, ports):
    one, two, three = ports
    box("--net", "user", "-p", f"{one}:22")
    mac = cards(lodge)["net0"]
    assert mac.startswith("52:54:00:") and mac != "52:54:00:12:34:56"
    assert lines(lodge, "set", "web", "--net", "user,dns=10.0.2.9", "--net", "user", "-p", f"{two}:23") == [
        "web: net: now: net0 (user) is in as net1", f"web: net: now: tcp:127.0.0.1:{one}-:22 is out", f"web: net: now: tcp:127.0.0.1:{two}-:23 is in", "web: publish: now"]
    assert cards(lodge) == {"net0": mac, "net1": mac[:-2] + f"{(int(mac[-2:], 16) + 1) % 256:02x}"}
    assert f"127.0.0.1:{two}->23/tcp" in works(lodge("list")) and str(one) not in works(lodge("list"))
    socket.create_connection(("127.0.0.1", two), 5).close()
    assert lines(lodge, "edit", "web", env={"EDITOR": f"sed -i s/{two}:23/{three}:24/"}) == [
        f"web: publish: now: tcp:127.0.0.1:{two}-:23 is out", f"web: publish: now: tcp:127.0.0.1:{three}-:24 is in"]
    with socket.socket() as s:
        s.bind(("127.0.0.1", one))
        s.listen()
        (said,) = [s for s in lines(lodge, "set", "web", "-p", f"{three}:24", "-p", f"{one}:22")]
        assert said.startswith(f"web: publish: at the next start: tcp:127.0.0.1:{one}-:22: hostfwd: port 127.0.0.1:{one} (tcp) is in use")
    assert lines(lodge, "unset", "web", "net", "publish") == ["web: net: now: net1 (user) is out", f"web: net: now: tcp:127.0.0.1:{three}-:24 is out", "web: publish: now"]
    assert list(cards(lodge)) == ["net0"]
    works(lodge("kill", "web"))


def test_names_in_bytes(lodge, box, tmp_path):
    """Names of files are bytes: what is no UTF-8 goes from a definition to a running machine and back; a client of the
    control socket, which has no such words, says so."""
    name = os.fsdecode(os.fsencode(tmp_path) + b"/d\xff\xfe.img")
    (tmp_path / "a").rename(name)
    box("--disk", name)
    assert lines(lodge, "set", "web", "--disk", name, "--disk", tmp_path / "b") == [f"web: disk: now: disk1 ({tmp_path}/b) is in"]
    assert len(lines(lodge, "set", "web", "--disk", tmp_path / "b")) == 1 and files(lodge) == {"disk1": "b"}
    assert len(lines(lodge, "set", "web", "--disk", tmp_path / "b", "--disk", name)) == 1
    assert sorted(files(lodge).values()) == ["b", "d\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.img"]
    fails(lodge("qmp", "web", "blockdev-change-medium", "id=disk0", f"filename={name}"), 2,
          "qmp: web: a word is no UTF-8, which is all that the control socket takes; give a file a link with such a name")
    fails(lodge("set", "web", "--disk", os.fsdecode(b"/t\xff.img")), 2, "set: .*: cannot be a value of file in /backends/block/disk0: .*")
    works(lodge("kill", "web"))
    assert os.fsencode(name) in (folder(lodge, "web") / "definition").read_bytes()


def test_full_disk(lodge, guests):
    """Where the host's disk is full, the definition stays as it was."""
    works(lodge("define", "web", "--kernel", guests / "plug", "--memory", "16M"))
    before = (folder(lodge, "web") / "definition").read_text()

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
    for words in (["set", "web", "--memory", "32M"], ["unset", "web", "memory"], ["define", "web", "--kernel", "other"]):
        fails(lodge(*words, preexec_fn=full), 1, f"{words[0]}: web: its definition is not kept: .*")
        assert (folder(lodge, "web") / "definition").read_text() == before
        assert os.listdir(folder(lodge, "web")) == ["definition"]
