# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of a VM under write load: the guest "writer" numbers its writes and says which a flush has covered; the machine is
killed at a random point between the 10th and the 10,000th write. Then the image must be free at once, clean for our check and
qemu-img's, and hold each write that was flushed; what came later may be there or not, sector by sector.

KILL_SEED sets the seed, which is printed; KILLS says how often each image's machine is killed (LODGE_TEST_LONG: 200 in all)."""
import json
import os
import random
import shutil
import struct
import subprocess
import time

import pytest

LONG = "LODGE_TEST_LONG" in os.environ
SECTORS = 16384
SLICES, LEN_MAX = 8, 12
SLICE = SECTORS // SLICES
# Name: what our tools call the format, options of its making, stands on a base, what qemu-img calls it.
IMAGES = {
    "raw": ("raw", (), False, None),
    "umlcow": ("umlcow", (), True, None),
    "qcow2": ("qcow2", (), False, "qcow2"),
    "qcow2-v2": ("qcow2", ("compat=0.10", "cluster-size=4K"), False, "qcow2"),
    "qcow2-overlay": ("qcow2", ("cluster-size=16K",), True, "qcow2"),
    "vhd": ("vhd", (), False, "vpc"),
    "vhd-overlay": ("vhd", (), True, None),
    "vdi": ("vdi", (), False, "vdi"),
    "vdi-overlay": ("vdi", (), True, None),
    "vmdk": ("vmdk", (), False, "vmdk"),
    "vmdk-overlay": ("vmdk", (), True, "vmdk"),
}
KILLS = int(os.environ.get("KILLS", 0)) or (-(-200 // len(IMAGES)) if LONG else 2)
LAST = 10000 if LONG else 500
DEADLINE = 60


def mix(i):
    """hash() of the guest."""
    i &= 0xffffffff
    i = (i ^ i >> 16) * 0x7feb352d & 0xffffffff
    i = (i ^ i >> 15) * 0x846ca68b & 0xffffffff
    return i ^ i >> 16


def write(i):
    """First sector, length, value of write i."""
    h = mix(i)
    n = 1 + h % LEN_MAX
    return i % SLICES * SLICE + (h >> 4) % (SLICE - LEN_MAX), n, 0 if h >> 28 == 0 else i


def kill_one(lodge, guests, disk, first, target, pause):
    """Number of the last write that a flush has covered."""
    p = lodge.popen("run", "--kernel", guests / "writer", "--append", f"sectors={SECTORS} first={first}", "--memory", "32M", "--net", "none",
                    "--disk", disk, "--console", "stdio")
    flushed, deadline, said = first - 1, time.monotonic() + DEADLINE, b""
    while flushed < first - 1 + target:
        line = p.stdout.readline()
        said += line
        assert line and time.monotonic() < deadline and b"FAIL" not in line, f"{said[-2000:]}{p.stderr.read() if not line else ''}"
        if line.startswith(b"F "):
            flushed = int(line.split()[1])
    time.sleep(pause)
    p.kill()
    rest = p.stdout.read()  # lines that were said before it
    for line in rest.split(b"\n")[:-1]:
        if line.startswith(b"F "):
            flushed = int(line.split()[1])
    p.wait(timeout=DEADLINE)
    return flushed


def sectors_of(path):
    """The number in each sector; its first and last word agree."""
    data = path.read_bytes()
    assert len(data) >= SECTORS * 512
    words = [struct.unpack_from("<I504xI", data, s * 512) for s in range(SECTORS)]
    return words


def expect_sound(words, model, first, flushed, why):
    """Bring @model, the number in each sector, to what was found."""
    for i in range(first, flushed + 1):
        at, n, value = write(i)
        for s in range(at, at + n):
            model[s] = value
    found = max([a for a, _ in words] + [flushed])
    later = [write(i) for i in range(flushed + 1, found + 2 * SLICES)]
    allowed = {}
    for at, n, value in later:
        for s in range(at, at + n):
            allowed.setdefault(s, set()).add(value)
    for s, (a, b) in enumerate(words):
        assert a == b, f"{why}: sector {s} is torn: {a} and {b}"
        assert a == model[s] or a in allowed.get(s, ()), f"{why}: sector {s} has write {a}, not {model[s]}; {flushed} was flushed"
        model[s] = a


@pytest.mark.parametrize("name", IMAGES)
def test_kill(name, lodge, guests):
    fmt, options, overlay, theirs = IMAGES[name]
    seed = int(os.environ.get("KILL_SEED", 0)) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"KILL_SEED={seed}")
    rand = random.Random(seed)
    image, base, raw = (lodge.home / n for n in ("image", "base", "raw"))
    args = [a for o in options for a in ("-o", o)]
    if overlay:
        own = fmt if fmt in ("vhd", "vdi", "vmdk") else "raw"
        r = lodge("image", "create", "--format", own, "--size", SECTORS * 512, base)
        assert r.status == 0, r.err
        args += ["--base", base, "--base-format", own]
    r = lodge("image", "create", "--format", fmt, *args, *([] if overlay else ["--size", SECTORS * 512]), image)
    assert r.status == 0, r.err
    model, first, all_flushed, qemu = [0] * SECTORS, 1, 0, theirs and shutil.which("qemu-img")
    for kill in range(KILLS):
        target = rand.randrange(10, LAST) if LONG else int(10 * (LAST / 10) ** rand.random())
        why = f"KILL_SEED={seed}, kill {kill} of {name}"
        flushed = kill_one(lodge, guests, f"{image},format={fmt}", first, target, rand.random() * 0.004)
        if fmt != "raw":
            r = lodge("image", "check", "--json", "--format", fmt, image)
            assert r.out and json.loads(r.out)["errors"] == 0, f"{why}: {r.status} {r.out}{r.err}"  # leaks are room that nothing uses, no more
        if qemu:
            q = subprocess.run([qemu, "check", "-f", theirs, image], cwd=lodge.home, capture_output=True, text=True, check=False)
            assert q.returncode in (0, 3, 63), f"{why}: qemu-img check: {q.stdout}{q.stderr}"  # 63: it has no check
        r = lodge("image", "convert", "--from", fmt, image, raw)
        assert r.status == 0, f"{why}: {r.err}"
        words = sectors_of(raw)
        raw.unlink()
        expect_sound(words, model, first, flushed, why)
        all_flushed += flushed - first + 1
        first = max(flushed, max(a for a, _ in words)) + 1000
    print(f"{KILLS} kills, {all_flushed} writes flushed")
