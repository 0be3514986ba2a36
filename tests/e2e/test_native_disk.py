# SPDX-License-Identifier: GPL-2.0-or-later
"""A bare-metal guest drives virtio disks: what it writes it reads back, whoever serves the queues."""
import subprocess

import pytest

MIB = 1 << 20
GUEST_PASS = 33
TESTS = "v4k-32,v64k-5,w4k-16,r4k-100,v1m-3"


def pattern(place, size):
    """What the guest writes: words of a block, for its number."""
    start = (place * 2654435761 & 0xffffffff) ^ 0x5bd1e995
    return b"".join((start ^ (i * 40503 & 0xffffffff)).to_bytes(4, "little") for i in range(size // 4))


def drive(lodge, guests, disk, queues=1, mib=8):
    r = lodge("run", "--kernel", guests / "blkbench", "--append", f"tests={TESTS} ms=30 mib={mib} queues={queues}", "--debug-exit", "--net", "none", "--memory", "128M",
              "--disk", disk, "--quiet")
    assert r.status == GUEST_PASS, r
    assert [line.split()[0] for line in r.out.splitlines() if " ops " in line] == TESTS.split(",")


@pytest.mark.parametrize("options,queues", [
    ("", 1), (",aio=threads", 1), (",cache=none,aio=libaio", 1), (",queues=4,iothreads=3", 4), (",queues=8,iothreads=8,aio=threads", 8), (",queues=2,iothreads=2,iops=1000000", 2),
])
def test_raw(lodge, guests, tmp_path, options, queues):
    image = tmp_path / "disk"
    with open(image, "wb") as f:
        f.truncate(8 * MIB)
    drive(lodge, guests, f"{image},format=raw{options}", queues)
    data = image.read_bytes()
    assert len(data) == 8 * MIB
    for place in range(8):
        assert data[place * MIB:place * MIB + 4096] == pattern(place, 4096)


@pytest.mark.parametrize("fmt", ["umlcow", "qcow2", "vdi"])
@pytest.mark.parametrize("options,queues", [("", 1), (",queues=4,iothreads=3", 4)])
def test_formats(lodge, guests, tmp_path, fmt, options, queues):
    image, base = tmp_path / "disk", tmp_path / "base"
    with open(base, "wb") as f:
        f.truncate(8 * MIB)
    r = lodge("image", "create", "--format", fmt, *(["--base", base] if fmt == "umlcow" else ["--size", "8M"]), image)
    assert r.status == 0, r
    drive(lodge, guests, f"{image},format={fmt}{options}", queues)
    r = lodge("image", "check", image)
    assert r.status == 0, r
    raw = tmp_path / "raw"
    r = lodge("image", "convert", "--to", "raw", image, raw)
    assert r.status == 0, r
    assert all(raw.read_bytes()[place * MIB:place * MIB + 4096] == pattern(place, 4096) for place in range(8))


def mounted(lodge, at, mount, *args):
    """Lodge in a mount namespace of its own where `mount` has made `at` another file system; skipped where that cannot be had."""
    at.mkdir()
    script = f'cd "$1" && ({mount}) >/dev/null 2>&1 || exit 77; shift; exec "$@"'
    r = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", str(at), lodge.path, *[str(a) for a in args]], env=lodge.env, stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, timeout=60, check=False)
    if r.returncode == 77 or "unshare:" in r.stderr:
        pytest.skip("this user may not mount file systems here")
    return r


def driving(guests, disk):
    return ["run", "--kernel", guests / "blkbench", "--append", "tests=w4k-32,v4k-32 ms=30 mib=8 queues=1", "--debug-exit", "--net", "none", "--memory", "128M", "--quiet",
            "--disk", disk]


def test_no_direct_io(lodge, guests, tmp_path):
    """A file system without O_DIRECT (ramfs): said before the start, with what to do."""
    at = tmp_path / "m"
    r = mounted(lodge, at, 'mount -t ramfs none "$1" && truncate -s 8M "$1/disk"', *driving(guests, f"{at}/disk,format=raw,cache=none"))
    assert (r.returncode, r.stdout) == (125, ""), r
    assert r.stderr.startswith("lodge: ") and "has no O_DIRECT; leave cache=none out" in r.stderr and r.stderr.count("\n") == 1


@pytest.mark.parametrize("fmt,status,text", [("raw", GUEST_PASS, ""), ("qcow2", 125, "has blocks of 4096 bytes, and format qcow2 writes by 512; leave cache=none out")])
def test_large_blocks(lodge, guests, tmp_path, fmt, status, text):
    """A file system on a device of 4096-byte blocks: a raw disk has them too, formats are refused."""
    at, image = tmp_path / "m", tmp_path / "fs"
    with open(image, "wb") as f:
        f.truncate(40 * MIB)
    mount = f'D=$(losetup --find --show --sector-size 4096 {image}) && mkfs.ext4 -q -F -b 4096 $D && mount $D "$1" && losetup -d $D && ' \
            f'"{lodge.path}" image create --format {fmt} --size 8M "$1/disk"'
    r = mounted(lodge, at, mount, *driving(guests, f"{at}/disk,format={fmt},cache=none"))
    assert r.returncode == status and text in r.stderr, r


def test_24_disks(lodge, guests, tmp_path):
    disks = []
    for i in range(24):
        with open(tmp_path / f"d{i}", "wb") as f:
            f.truncate(MIB)
        disks += ["--disk", f"{tmp_path / f'd{i}'},format=raw"]
    run = ("run", "--kernel", guests / "hello", "--debug-exit", "--quiet")
    assert lodge(*run, *disks).status == GUEST_PASS
    r = lodge(*run, *disks, "--disk", tmp_path / "one-more")
    assert r.status != 0 and "one more than the limit of 24 disks" in r.err, r


def test_refused(lodge, guests, tmp_path):
    image = tmp_path / "disk"
    image.write_bytes(bytes(MIB))
    r = lodge("run", "--kernel", guests / "hello", "--disk", f"{image},queues=2,iothreads=4")
    assert r.status != 0 and r.err.startswith("lodge: run: disk0: iothreads=4: more than its 2 queues; "), r
