# SPDX-License-Identifier: GPL-2.0-or-later
"""What an image made for User-Mode Linux finds in the guest: names of disks, cards and terminals, the
modules of the kernel that runs; before its init starts and for what comes later."""
import hashlib
import re
import shutil

import pytest
from linux_guest import BOOT_SECONDS, ext4, kernel, words

ROOT_INIT = """#!/bin/busybox sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys
say() { echo "$1: $2"; }
%s
sync; poweroff -f; sleep 100
"""
TOOLS = "sh mount umount uname sed tail sync poweroff echo ls cat ip modprobe lsmod sleep readlink stat grep ps kill tty mkdir mknod blockdev fdisk cut sort rm wc dd halt".split()


def root_tree(folder, script):
    for d in ("bin", "sbin", "proc", "dev", "sys", "lib/modules", "mnt", "tmp"):
        (folder / d).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), folder / "bin" / "busybox")
    for name in TOOLS:
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "sbin" / "init").write_text(ROOT_INIT % script)
    (folder / "sbin" / "init").chmod(0o755)
    return folder


LOOK = """
say release $(uname -r)
say root "$(grep ' / ext4' /proc/mounts | cut -d ' ' -f 1,3)"
say ubda "$(readlink /dev/ubda) $(readlink /dev/ubd0) $(readlink /dev/ubd/0) $(readlink /dev/ubd/disc0/disc)"
say ubdc "$(readlink /dev/ubdc) $(readlink /dev/ubdc1) $(readlink /dev/ubd/disc2/part1) $(blockdev --getsize64 /dev/ubdc)"
say ubdb "$(ls /dev/ubdb* 2>&1 | wc -l) $(readlink /dev/ubdb)"
say nets "$(ls /sys/class/net)"
for n in eth5 vec0; do say $n "$(cat /sys/class/net/$n/address) $(cat /sys/class/net/$n/name_assign_type)"; done
say console "$(cat /sys/class/tty/console/active)"
modprobe dummy; say dummy "$(lsmod | grep -c ^dummy)"
modprobe ext4; say ext4 $?
say modules "$(ls /lib/modules)"
mount -t tmpfs tmpfs /dev
i=0; until [ -b /dev/ubda ] || [ $i = 20 ]; do sleep 1; i=$((i + 1)); done
say newdev "$(stat -c '%F' /dev/ubda)"
mount -t hostfs none /mnt 2>&1 | sed 's/^/hostfs: /'
"""


def test_names(lodge, tmp_path):
    base = ext4(tmp_path / "root", root_tree(tmp_path / "tree", LOOK))
    before = hashlib.sha256(base.read_bytes()).digest()
    k = kernel()
    other, swap = tmp_path / "other", tmp_path / "swap"
    other.write_bytes(b"\0" * 446 + bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (1000).to_bytes(4, "little") + b"\0" * 48 + b"\x55\xaa" + b"\0" * (2 << 20))
    swap.write_bytes(b"\0" * (1 << 20))
    r = lodge("run", "--kernel", k.path, "--append", "console=ttyS0 quiet root=98:0 lodge.uml=1 lodge.ubd1=mine lodge.eth=eth5,vec0",
              "--disk", f"{tmp_path}/cow,base={base},serial=ubd0", "--disk", f"{other},serial=ubd2", "--disk", f"{swap},serial=mine",
              "--net", "user,mac=52:54:00:00:00:01", "--net", "user,mac=52:54:00:00:00:02", "--memory", "128M", timeout=BOOT_SECONDS)
    said = words(r.out)
    assert r.status == 0, r
    assert said["release"] == [k.release], r
    assert said["root"] == ["/dev/ubda ext4"], r
    assert said["ubda"] == ["/dev/vda /dev/vda /dev/vda /dev/vda"]
    assert said["ubdc"] == [f"/dev/vdb /dev/vdb1 /dev/vdb1 {other.stat().st_size}"]
    assert said["ubdb"] == ["1 /dev/vdc"]
    assert said["eth5"] == ["52:54:00:00:00:01 4"] and said["vec0"] == ["52:54:00:00:00:02 4"]
    assert said["dummy"] == ["1"] and said["ext4"] == ["0"] and said["modules"] == [k.release]
    assert said["newdev"] == ["block special file"], r
    assert "No such device" in said["hostfs"][0]
    assert hashlib.sha256(base.read_bytes()).digest() == before


def test_halt_without_systemd(lodge, tmp_path):
    base = ext4(tmp_path / "root", root_tree(tmp_path / "tree", "say state up; sync; halt -f"))
    r = lodge("uml", f"kernel={kernel().path}", f"ubd0={tmp_path}/cow,{base}", "mem=128M", timeout=BOOT_SECONDS)
    assert r.status == 0 and words(r.out)["state"] == ["up"], r


@pytest.mark.parametrize("root", ["/dev/ubdd", "98:48"])
def test_missing_root(lodge, tmp_path, root):
    k = kernel()
    disk = tmp_path / "disk"
    disk.write_bytes(b"\0" * (1 << 20))
    r = lodge("run", "--kernel", k.path, "--append", f"console=ttyS0 quiet root={root} lodge.uml=1 panic=-1", "--disk", f"{disk},serial=ubd0", "--memory", "128M", "--no-reboot",
              timeout=BOOT_SECONDS)
    assert re.search(r"VFS: Unable to mount root fs on /dev/ubdd: there is no such disk", r.out), r
    assert "Kernel panic - not syncing" in r.out
