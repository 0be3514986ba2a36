# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's own drivers on the devices of an old PC: they bind, and move data with right checksums in both
directions. LODGE_TEST_LONG=1 moves ten times as much."""
import collections
import contextlib
import hashlib
import json
import os
import re
import select
import signal
import socket
import socketserver
import subprocess
import threading
import time

import pytest
from conftest import guest, running_lodge
from linux_guest import BOOT_SECONDS, initrd, kernel, words

GUESTS = ("kernel-686", "busybox-686", "debian-disk")
MIB = 1 << 20
TIMES = 10 if "LODGE_TEST_LONG" in os.environ else 1
IDE_BYTES, PCNET_BYTES, NE2K_BYTES = 16 * MIB * TIMES, 8 * MIB * TIMES, 1 * MIB * TIMES
PIO_BYTES, CD_BYTES, FLOPPY_BYTES = 8 * MIB, 16 * MIB, 1440 * 1024
LBA48_BYTES = 160 << 30  # above 128 GiB, where 28 bits of address end
CHUNK = MIB
Outcome = collections.namedtuple("Outcome", "status said out err folder")


def md5(path, length=None, at=0):
    """Of @length bytes from @at; to the end without."""
    h, left = hashlib.md5(), length
    with open(path, "rb") as f:
        f.seek(at)
        while data := f.read(CHUNK if left is None else min(CHUNK, left)):
            h.update(data)
            left = left and left - len(data)
            if left == 0:
                break
    return h.hexdigest()


def noise(path, length):
    with open(path, "wb") as f:
        for _ in range(length // CHUNK):
            f.write(os.urandom(CHUNK))
        f.write(os.urandom(length % CHUNK))
    return path


def run_guest(lodge, folder, script, *args, modules=(), flavour="stock", append="", seconds=BOOT_SECONDS, memory="192M"):
    archive = initrd(folder / "initrd", FUNCTIONS + script + "\nbye", modules, flavour)
    r = lodge("run", "--kernel", kernel(flavour).path, "--initrd", archive, "--append", f"console=ttyS0 quiet {append}", "--memory", memory, *args, timeout=seconds)
    return Outcome(r.status, words(r.out), r.out, r.err, folder)


# What every guest here can do; md() reads what the device has, not what the cache remembers.
FUNCTIONS = """
drop() { sync; echo 3 > /proc/sys/vm/drop_caches; }
md() { md5sum "$@" | cut -d ' ' -f 1; }
driver() { basename $(readlink -f $1/driver); }
wait_for() { local i=0; while [ $i -lt 100 ] && ! eval "$1"; do sleep 0.1; i=$((i + 1)); done; }
uptime() { cut -d ' ' -f 1 /proc/uptime; }
"""

STORAGE = """
wait_for '[ -b /dev/sdb ] && [ -b /dev/sr0 ]'
for d in /sys/bus/pci/drivers/ata_piix/*:*; do say ata_piix $(basename $d); done
say mode "$(dmesg | sed -n 's/.*\\(ata1.00: configured for .*\\)/\\1/p' | tail -n 1)"
say time0 $(uptime)
say read $(md /dev/sda)
say time1 $(uptime)
head -c $bytes /dev/urandom | tee /dev/sda | md5sum | cut -d ' ' -f 1 > /tmp/wrote; drop
say time2 $(uptime)
say wrote $(cat /tmp/wrote); say again $(md /dev/sda)
say time3 $(uptime)
say big $(cat /sys/block/sdb/size)
head -c 1048576 /dev/urandom > /tmp/noise; say noise $(md /tmp/noise)
dd if=/tmp/noise of=/dev/sdb bs=1M seek=140000 conv=fsync,notrunc 2>/dev/null; drop
say high $(dd if=/dev/sdb bs=1M skip=140000 count=1 2>/dev/null | md)
say low $(dd if=/dev/sdb bs=1M count=1 2>/dev/null | tr -d '\\0' | wc -c)
say cd $(md /dev/sr0); say cd_type $(cat /sys/block/sr0/device/type)
dmesg | grep -E 'ata[0-9.]+: (exception|failed|SATA|error)|I/O error|lost interrupt|timeout' | head | while read -r l; do say trouble "$l"; done
"""


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("storage")
    sums = {"disk": md5(noise(folder / "disk", IDE_BYTES)), "cd": md5(noise(folder / "cd", CD_BYTES))}
    with open(folder / "big", "wb") as f:
        f.truncate(LBA48_BYTES)
    with running_lodge() as lodge:
        out = run_guest(lodge, folder, STORAGE, "--disk", f"{folder}/disk,format=raw,bus=ide", "--disk", f"{folder}/big,format=raw,bus=ide", "--cdrom", folder / "cd",
                        "--net", "none", modules=("ata_piix", "sd_mod", "sr_mod"), append=f"bytes={IDE_BYTES}", seconds=BOOT_SECONDS + 240 * TIMES)
    yield out, sums
    for name in ("disk", "cd", "big"):
        (folder / name).unlink()


def test_ide_disk(storage):
    out, sums = storage
    assert out.status == 0, out
    assert out.said["ata_piix"] == ["0000:00:01.1"]
    assert out.said["read"] == [sums["disk"]]
