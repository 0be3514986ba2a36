# SPDX-License-Identifier: GPL-2.0-or-later
"""Overlays put on a running disk and merged away again, while a guest writes and reads it all the while."""
import json
import re
import select
import os
import shutil
import subprocess
import time

import pytest
from qmp import Qmp

pytestmark = pytest.mark.usefixtures("nothing_left")

SECONDS = 60
SECTORS = 4
MIB = 1 << 20


def read_until(p, pattern, out=b""):
    deadline = time.monotonic() + SECONDS
    while not re.search(pattern, out):
        assert select.select([p.stdout], [], [], max(0, deadline - time.monotonic()))[0], f"no {pattern!r} in {out[-500:]!r}"
        got = os.read(p.stdout.fileno(), 4096)
        assert got, f"ended before {pattern!r}: {out[-500:]!r}\n{p.stderr.read().decode(errors='replace')}"
        out += got
    return out


def sectors(round):
    return b"".join(((lba * 257 + i + 1 + round * 3) & 0xffff).to_bytes(2, "little") for lba in range(SECTORS) for i in range(256))


class Writer:
    """A machine whose guest writes and reads the first sectors of its disk without an end."""

    def __init__(self, lodge, guests, disk, *more):
        self.lodge = lodge
        self.process = lodge.popen("run", "box", "--kernel", guests / "disk", "--append", f"follow n={SECTORS}", "--memory", "64M", "--net", "none", "--console", "stdio",
                                   "--debug-exit", "--disk", f"{disk},bus=ide", *more, stdin=subprocess.PIPE)
        self.work(1)
        self.qmp = Qmp(lodge.home / "run" / "lodge" / "box" / "qmp.sock")
        self.disk = self.qmp.ask("query-named-block-nodes")[1]["return"][0]["node-name"]

    def work(self, rounds):
        read_until(self.process, rb"(\.[^.]*){%d}" % rounds)

    def nodes(self):
        return [n["file"] for n in self.qmp.ask("query-named-block-nodes")[1]["return"]]

    def end(self):
        """The rounds that the guest did, all of which it has found on the disk."""
        self.process.stdin.write(b"x")
        self.process.stdin.flush()
        out, err = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 33, (out[-300:], err)
        return int(re.search(rb"rounds: (\d+)", out).group(1)), err.decode()


def content(path, format):
    if format == "raw":
        return path.read_bytes()
    out = path.with_name(path.name + ".raw")
    subprocess.run(["qemu-img", "convert", "-f", {"vhd": "vpc"}.get(format, format), "-O", "raw", path, out], check=True)
    return out.read_bytes()


def image(lodge, path, format):
    r = lodge("image", "create", "--format", format, "--size", "4M", path)
    assert r.status == 0, r.err


@pytest.mark.parametrize("format", ["raw", "qcow2", "vhd", "vdi", "vmdk"])
def test_up_and_down(lodge, guests, tmp_path, format):
    base, one, two = (tmp_path / n for n in ("base", "one", "two"))
    image(lodge, base, format)
    w = Writer(lodge, guests, f"{base},format={format}")
    for path in (one, two):
        r = lodge("disk", "box", "overlay", w.disk, path, *(("--format", format) if path == one and format != "raw" else ()))
        assert r.status == 0, r.err
        w.work(2)
    assert w.nodes() == [str(two), str(one), str(base)]
    for path in (one, base):
        r = lodge("disk", "box", "commit", w.disk, "--json")
        assert r.status == 0, r.err
        assert json.loads(r.out)["file"] == str(path)
        w.work(1)
    assert w.nodes() == [str(base)]
    assert "base" in lodge("disk", "box").out
    rounds, err = w.end()
    assert err.count("merged into") == 2
    assert content(base, format)[: SECTORS * 512] == sectors(rounds - 1)
    if format in ("qcow2", "vdi", "vmdk") and shutil.which("qemu-img"):
        subprocess.run(["qemu-img", "check", "-q", base], check=True)


def test_killed_in_the_middle(lodge, guests, tmp_path):
    """The chain opens afterwards, by Lodge and by qemu-img, with what the guest had flushed."""
    base, over = tmp_path / "base", tmp_path / "over"
    for cow, own in (("qcow2", "raw"), ("umlcow", "raw"), ("vhd", "vhd"), ("vdi", "vdi"), ("vmdk", "vmdk")):
        image(lodge, base, own)
        w = Writer(lodge, guests, f"{base},format={own}")
        assert lodge("disk", "box", "overlay", w.disk, over, "--format", cow).status == 0
        w.work(2)
        events, answer = w.qmp.ask("block-commit", device=w.disk)
        assert answer == {"return": {}} and [e["data"]["status"] for e in events] == ["created", "running"]
        w.work(2)
        w.process.kill()
        w.process.wait()
        assert lodge("image", "check", over).status == 0
        raw = tmp_path / "raw"
        r = lodge("image", "convert", "--to", "raw", over, raw)
        assert r.status == 0, r.err
        got = raw.read_bytes()[: SECTORS * 512]
        first = (int.from_bytes(got[:2], "little") - 1) // 3 % 21846
        # Killed in the middle of a round: each sector is of that one or the one before.
        assert first > 3
        for lba in range(SECTORS):
            part = slice(lba * 512, lba * 512 + 512)
            assert got[part] in (sectors(first)[part], sectors(first - 1)[part]), lba
        for f in (base, over, raw):
            f.unlink()
    shutil.rmtree(lodge.home / "run" / "lodge")  # what a killed one leaves is for the next start to find


def test_wire(lodge, guests, tmp_path):
    """The answers, errors and order of events of QEMU."""
    base, over = tmp_path / "base", tmp_path / "over"
    image(lodge, base, "raw")
    w = Writer(lodge, guests, f"{base},format=raw")
    q = w.qmp

    def error(command, **arguments):
        events, answer = q.ask(command, **arguments)
        assert not events
        return answer["error"]["class"], answer["error"]["desc"]

    assert q.ask("query-block-jobs")[1] == q.ask("query-jobs")[1] == {"return": []}
    assert error("blockdev-snapshot-sync", device="none", **{"snapshot-file": "x"}) == ("GenericError", "Cannot find device='none' nor node-name=''")
    assert error("blockdev-snapshot-sync", **{"snapshot-file": "x"}) == ("GenericError", "Cannot find device='' nor node-name=''")
    assert error("blockdev-snapshot-sync", device=w.disk) == ("GenericError", "Parameter 'snapshot-file' is missing")
    assert error("blockdev-snapshot-sync", device=w.disk, mode="no", **{"snapshot-file": "x"}) == ("GenericError", "Parameter 'mode' does not accept value 'no'")
    assert "has no base to be merged into" in error("block-commit", device=w.disk)[1]
    assert error("block-job-complete", device="x") == ("DeviceNotActive", "Block job 'x' not found")
    assert error("job-complete", id="x") == ("GenericError", "Job not found")
    assert error("block_resize", device=w.disk, size=0) == ("GenericError", "Parameter 'size' expects a value greater than zero")
    assert q.ask("blockdev-snapshot-sync", device=w.disk, **{"snapshot-file": str(over)}) == ([], {"return": {}})
    node = q.ask("query-block")[1]["return"]
    inserted = next(d for d in node if "inserted" in d and d["inserted"]["node-name"] == w.disk)["inserted"]
    assert (inserted["file"], inserted["drv"], inserted["backing_file"], inserted["backing_file_depth"], inserted["ro"]) == (str(over), "qcow2", str(base), 1, False)
    assert inserted["image"]["backing-image"] == {"filename": str(base), "format": "raw", "virtual-size": 4 * MIB}
    assert q.ask("block_resize", device=w.disk, size=8 * MIB) == ([], {"return": {}})
    assert "no such" in error("block-commit", device=w.disk, base="/none")[1] or "is not the image" in error("block-commit", device=w.disk, base="/none")[1]
    events, answer = q.ask("block-commit", device=w.disk, base=str(base), top=str(over), **{"job-id": "merge"})
    assert answer == {"return": {}} and [e["event"] for e in events] == ["JOB_STATUS_CHANGE"] * 2
    seen = []
    while not seen or seen[-1]["event"] != "BLOCK_JOB_READY":
        seen.append(q.line())
    assert [e["data"].get("status") for e in seen] == ["ready", None]
    assert seen[1]["data"]["type"] == "commit" and seen[1]["data"]["device"] == "merge"
    job = q.ask("query-block-jobs")[1]["return"][0]
    assert job["ready"] and job["status"] == "ready" and job["device"] == "merge" and job["type"] == "commit"
    assert q.ask("query-jobs")[1]["return"][0]["id"] == "merge"
    assert "being merged" in error("block-commit", device=w.disk, **{"job-id": "again"})[1]
    q.send(b'{"execute": "block-job-complete", "arguments": {"device": "merge"}}')
    seen = []
    while not seen or seen[-1].get("data", {}).get("status") != "null":
        seen.append(q.line())
    assert [e["data"].get("status", e["event"]) for e in seen if "event" in e] == ["waiting", "pending", "BLOCK_JOB_COMPLETED", "concluded", "null"]
    assert w.nodes() == [str(base)]
    assert base.stat().st_size == 8 * MIB
    w.work(1)
    # Given up: the overlay stays.
    over.unlink()
    assert q.ask("blockdev-snapshot-sync", device=w.disk, **{"snapshot-file": str(over)}) == ([], {"return": {}})
    q.ask("block-commit", device=w.disk, speed=1)
    q.send(b'{"execute": "job-cancel", "arguments": {"id": "%s"}}' % w.disk.encode())
    seen = []
    while not seen or seen[-1].get("data", {}).get("status") != "null":
        seen.append(q.line())
    said = [e["data"].get("status", e["event"]) for e in seen if "event" in e]
    assert said[-4:] == ["aborting", "BLOCK_JOB_CANCELLED", "concluded", "null"]
    assert w.nodes() == [str(over), str(base)]
    w.work(1)
    w.end()


def test_verb_errors(lodge, guests, tmp_path):
    base = tmp_path / "base"
    image(lodge, base, "raw")
    w = Writer(lodge, guests, f"{base},format=raw")
    for words, status, text in [
        ([], 2, "no machine named; say lodge disk NAME"),
        (["none"], 3, "none"),
        (["box", "fold"], 2, "'fold': not known; it can be list, overlay, commit or resize"),
        (["box", "commit"], 2, "commit: takes 2 words behind the machine's name"),
        (["box", "commit", w.disk], 1, "has no base to be merged into"),
        (["box", "commit", "none"], 1, "machine box has no such disk; lodge disk box list shows them"),
        (["box", "overlay", w.disk, base], 1, "is there already; name a file that is not"),
        (["box", "resize", w.disk, "much"], 2, "'much': is no size"),
        (["box", "resize", w.disk, "1M"], 2, "--shrink says that it is meant"),
        (["box", "resize", w.disk, "1M", "--speed", "1"], 2, "--speed: is for commit only"),
    ]:
        r = lodge("disk", *words)
        assert r.status != 0 and text in r.err and r.err.count("\n") == 1, (words, r)
    assert lodge("disk", "box", "resize", w.disk, "8M").status == 0
    assert base.stat().st_size == 8 * MIB
    listed = json.loads(lodge("disk", "box", "--json").out)
    assert listed["schema"] == 1 and listed["disks"][0]["image"]["virtual-size"] == 8 * MIB
    for words in (["resize", base, "16M"], ["compare", base, base]):  # other programs' images are left alone, and who has them is named
        r = lodge("image", *words)
        assert r.status in (1, 2) and "in use by VM 'box'; stop that first" in r.err and "overlay" not in r.err, r
    w.end()


def test_definition(lodge, guests, tmp_path):
    """The next start of a machine that has a definition finds the right image, and its other options."""
    base, over = tmp_path / "ba,se=1", tmp_path / "over"
    image(lodge, base, "raw")
    named = str(base).replace(",", ",,")
    r = lodge("define", "box", "--kernel", guests / "disk", "--append", "follow n=1", "--memory", "64M", "--net", "none", "--console", "stdio",
              "--debug-exit", "--disk", f"file={named},format=raw,bus=ide,cache=unsafe")
    assert r.status == 0, r.err

    def started(action, *words):
        p = lodge.popen("run", "box", stdin=subprocess.PIPE)
        read_until(p, rb"\.")
        qmp = Qmp(lodge.home / "run" / "lodge" / "box" / "qmp.sock")
        nodes = qmp.ask("query-named-block-nodes")[1]["return"]
        qmp.close()
        r = lodge("disk", "box", action, nodes[0]["node-name"], *words)
        assert r.status == 0 and "the definition of machine box says so" in r.out, r
        p.stdin.write(b"x")
        p.stdin.flush()
        out, err = p.communicate(timeout=SECONDS)
        assert p.returncode == 33, (out[-300:], err)
        return [n["file"] for n in nodes]

    assert started("overlay", over) == [str(base)]
    assert started("commit") == [str(over), str(base)]
    defined = next((lodge.home / "state").rglob("definition*")).read_text()
    assert f"--disk=file={named},bus=ide,cache=unsafe,format=raw" in defined
