# SPDX-License-Identifier: GPL-2.0-or-later
"""A bare-metal guest drives virtio disks: what it writes it reads back, whoever serves the queues."""
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
