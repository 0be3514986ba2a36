# SPDX-License-Identifier: GPL-2.0-or-later
"""lodge image: statuses, what is printed, what is left behind, and what other programs make of the images."""
import json
import os
import shutil
import signal
import subprocess
import time

import pytest

MIB = 1 << 20


@pytest.fixture
def folder(lodge):
    at = lodge.home / "images"
    at.mkdir()
    return at


@pytest.fixture
def base(folder):
    """A sparse image with data at its start and in its middle."""
    path = folder / "base.img"
    with open(path, "wb") as f:
        f.write(os.urandom(MIB))
        f.seek(20 * MIB)
        f.write(b"middle" * 1000)
        f.truncate(64 * MIB)
    os.utime(path, (1000000, 1000000))
    return path


def ok(r):
    assert r.status == 0, f"{r.out}{r.err}"
    assert r.err == ""
    return r


def refused(r, status, text):
    """One line, the status, nothing on standard output."""
    assert r.status == status, f"status {r.status}\n{r.out}{r.err}"
    assert r.out == ""
    assert r.err.startswith("lodge: image ") and r.err.count("\n") == 1 and text in r.err, r.err


def answer(r):
    got = json.loads(ok(r).out)
    assert got["schema"] == 1
    return got


def test_from_overlay_to_base(lodge, folder, base):
    cow, out = folder / "o.cow", folder / "out.img"
    assert ok(lodge("image", "create", "--base", base, cow)).out == ""
    info = answer(lodge("image", "info", "--json", "--chain", cow))
    assert (info["format"], info["size"], info["base"]) == ("umlcow", 64 * MIB, str(base))
    assert info["details"]["base-mtime"] == 1000000
    assert [c["file"] for c in info["chain"]] == [str(base)]
    assert answer(lodge("image", "check", "--json", cow))["errors"] == 0
    shutil.copy(base, out)
    with open(out, "r+b") as f:
        f.seek(5 * MIB)
        f.write(b"changed")
    r = lodge("image", "compare", base, out)
    assert (r.status, r.out) == (1, f"differ at offset {5 * MIB}\n")
    other = folder / "other.cow"
    ok(lodge("image", "convert", "--base", base, out, other))
    assert answer(lodge("image", "compare", "--json", other, out))["same"]
    stretches = answer(lodge("image", "map", "--json", other))["map"]
    own = [s for s in stretches if s["depth"] == 0]
    assert [(s["start"], s["length"]) for s in own] == [(5 * MIB, 4096)]
    assert answer(lodge("image", "commit", "--json", other))["written"] == 4096
    assert ok(lodge("image", "compare", base, out)).out == "the same\n"
    # The overlay whose base was changed behind its back is refused; the other one's header followed.
    refused(lodge("image", "compare", cow, out), 2, "mtime mismatch")
    ok(lodge("image", "compare", other, out))


def test_sizes(lodge, folder):
    path = folder / "a.img"
    ok(lodge("image", "create", "--size", "10M", path))
    assert path.stat().st_size == 10 * MIB and path.stat().st_blocks == 0
    assert answer(lodge("image", "resize", "--json", path, "+1M"))["size"] == 11 * MIB
    refused(lodge("image", "resize", path, "1M"), 2, "--shrink")
    ok(lodge("image", "resize", "--shrink", path, "1M"))
    assert path.stat().st_size == MIB
    refused(lodge("image", "resize", path, "big"), 2, "no size")


def test_wrong(lodge, folder, base):
    new = folder / "new.img"
    before = sorted(os.listdir(folder))
    refused(lodge("image", "create", new), 2, "no size")
    refused(lodge("image", "create", "--size", "1M", base), 5, "is there already; name another file, or have it replaced (--force)")
    refused(lodge("image", "create", "--format", "wow", "--size", "1M", new), 2, "it can be qcow2, raw")
    refused(lodge("image", "create", "--base", folder / "none", new), 2, "no such file")
    refused(lodge("image", "create", "--option", "x=1", "--size", "1M", new), 2, "format raw has no options")
    refused(lodge("image", "convert", base, folder / "no" / "x.img"), 1, "cannot make the image")
    refused(lodge("image", "convert", base), 2, "no second file")
    refused(lodge("image", "convert", "--compress", base, new), 1, "stores nothing compressed")
    refused(lodge("image", "commit", base), 2, "has no base")
    refused(lodge("image", "snapshot", "--create", "x", base), 1, "cannot hold snapshots")
    refused(lodge("image", "rebase", base), 2, "either --base FILE or --no-base")
    refused(lodge("image", "bench", "--bytes", "1000", base), 2, "multiple of 512")
    refused(lodge("image", "bench", "--aio", "x", base), 2, "it can be auto, io_uring, threads, libaio")
    refused(lodge("image", "info", folder), 2, "is a directory")
    assert sorted(os.listdir(folder)) == before
    r = lodge("image", "creat", "x")
    assert (r.status, r.err) == (2, "lodge: image creat: unknown verb; did you mean create?\n")
    assert lodge("image").status == 2
    assert "convert" in ok(lodge("image", "--help")).out
    assert "--compress" in ok(lodge("help", "image", "convert")).out
    assert "*lodge image convert*" in ok(lodge("help", "--man", "image")).out


def test_answers(lodge, folder, base):
    """check and compare: 0 yes, 1 no, 2 and more where that was not found out; resize: 0 only where it is done."""
    image, other = folder / "a.qcow2", folder / "b.qcow2"
    for path in (image, other):
        ok(lodge("image", "create", "--size", "1M", path))
    ok(lodge("image", "check", image))
    ok(lodge("image", "compare", image, other))
    with open(other, "r+b") as f:  # a cluster more that nothing counts as its own
        f.seek(2 * 65536 + 2 * 4)
        f.write(b"\0\1")
    r = lodge("image", "check", "--json", other)
    assert (r.status, json.loads(r.out)["leaks"], json.loads(r.out)["errors"]) == (1, 1, 0), r
    ok(lodge("image", "check", "--repair", other))
    ok(lodge("image", "check", other))
    assert lodge("image", "compare", image, base).status == 1
    ok(lodge("image", "resize", image, "+1M"))
    ok(lodge("image", "compare", image, other))
    assert lodge("image", "compare", "--strict", image, other).status == 1
    raw, none = folder / "raw.img", folder / "none"
    raw.write_bytes(bytes(MIB))
    refused(lodge("image", "check", raw), 2, "nothing that could be checked")
    for words in (("check", none), ("compare", image, none), ("resize", none, "1M"), ("check", "--format", "qcow2", raw), ("compare", "--format2", "qcow2", image, raw)):
        r = lodge("image", *words)
        assert r.status >= 2, r
        refused(r, r.status, f"'{words[-1] if words[0] != 'resize' else none}'")
    with open("/dev/full", "w") as full:  # the answer was not heard
        for words in (("check", image), ("compare", image, other)):
            assert lodge("image", *words, stdout=full).status == 2
    refused(lodge("image", "resize", image, "1M"), 2, "--shrink")


def test_rebase_to_what_is_not_there(lodge, folder, base):
    cow = folder / "o.qcow2"
    ok(lodge("image", "create", "--base", base, cow))
    refused(lodge("image", "rebase", "--base", folder / "gone.img", cow), 2, "gone.img")
    r = lodge("image", "rebase", "--unsafe", "--base", folder / "gone.img", cow)
    assert (r.status, r.out) == (0, "")
    assert r.err == f"lodge: image rebase: base '{folder}/gone.img': No such file or directory; '{cow}' records it all the same, and can be opened when it is there\n"
    assert answer(lodge("image", "info", "--json", cow))["base"] == str(folder / "gone.img")
    ok(lodge("image", "rebase", "--unsafe", "--base", base, cow))


def being_made(pid, folder):
    """Whether the process has a file without a name open in the folder."""
    fds = f"/proc/{pid}/fd"
    try:
        links = [os.readlink(os.path.join(fds, n)) for n in os.listdir(fds)]
    except FileNotFoundError:
        return False
    return any(s.startswith(f"{folder}/") and s.endswith("(deleted)") for s in links)


def test_interrupted(lodge, folder):
    """A convert that is killed leaves no target, and what was there before is untouched."""
    source, target = folder / "big.img", folder / "target.img"
    with open(source, "wb") as f:
        for _ in range(256):
            f.write(os.urandom(MIB))
    target.write_bytes(b"precious")
    p = lodge.popen("image", "convert", "--force", source, target)
    deadline = time.monotonic() + 20
    while not being_made(p.pid, folder):
        assert p.poll() is None and time.monotonic() < deadline
    p.kill()
    p.wait()
    assert target.read_bytes() == b"precious"
    assert sorted(os.listdir(folder)) == ["big.img", "target.img"]


def test_bar(lodge, folder):
    """On a terminal there is a bar while it lasts, and it is gone at the end."""
    import pexpect
    source = folder / "big.img"
    with open(source, "wb") as f:
        for _ in range(512):
            f.write(os.urandom(MIB))
    for attempt in range(12):  # held up somewhere on its way, so that it lasts on any machine
        p = lodge.spawn("image", "convert", "--sync", source, folder / f"out{attempt}.img", dimensions=(24, 100))
        time.sleep(0.01 * attempt)
        p.kill(signal.SIGSTOP)
        time.sleep(0.3)
        p.kill(signal.SIGCONT)
        seen = p.expect([r"\[#* *\] +\d+% +\d+ MiB/s +\d+:\d\d left", pexpect.EOF])
        if seen == 0:
            p.expect("\r +\r")
            p.expect(pexpect.EOF)
        p.close()
        assert p.exitstatus == 0
        (folder / f"out{attempt}.img").unlink()
        if seen == 0:
            break
    assert seen == 0
    r = lodge("image", "convert", source, folder / "out2.img")
    assert (r.status, r.out, r.err) == (0, "", "")


@pytest.mark.skipif(not shutil.which("uml_moo") or not shutil.which("uml_mkcow"), reason="package uml-utilities is missing")
def test_uml_tools(lodge, folder, base):
    made, merged, ours = folder / "made.cow", folder / "merged.img", folder / "ours.cow"
    subprocess.run(["uml_mkcow", made, base], check=True, capture_output=True)
    ok(lodge("image", "compare", made, base))
    ok(lodge("image", "check", made))
    ok(lodge("image", "create", "--base", base, ours))
    subprocess.run(["uml_moo", ours, merged], check=True, capture_output=True)
    ok(lodge("image", "compare", merged, base))
