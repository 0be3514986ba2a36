# SPDX-License-Identifier: GPL-2.0-or-later
"""The stock kernel (XZ, everything a module) from a root disk, without an initrd of the user's."""
import hashlib
import shutil

from linux_guest import BOOT_SECONDS, bus_hits, ext4, initrd, kernel, words

PIT_ACCESSES_MAX = 50
ROOT_INIT = """#!/bin/busybox sh
export PATH=/bin
mount -t proc proc /proc
echo "release: $(uname -r)"; echo "cpus: $(nproc)"
echo "root: $(sed -n 's/^\\([^ ]*\\) \\/ \\([^ ]*\\) \\(..\\).*/\\1 \\2 \\3/p' /proc/mounts | tail -n 1)"
echo kept > /kept; sync
poweroff -f
"""


def root_tree(folder):
    for d in ("bin", "sbin", "proc", "dev", "sys"):
        (folder / d).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), folder / "bin" / "busybox")
    for name in ("sh", "mount", "uname", "nproc", "sed", "tail", "sync", "poweroff", "echo"):
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "sbin" / "init").write_text(ROOT_INIT)
    (folder / "sbin" / "init").chmod(0o755)
    return folder


def test_root_disk_without_initrd(lodge, tmp_path, record_property):
    base = ext4(tmp_path / "root", root_tree(tmp_path / "tree"))
    before = hashlib.sha256(base.read_bytes()).digest()
    k = kernel("stock")
    r = lodge("run", "--kernel", f"{k.path},modules={k.modules}", "--append", "console=ttyS0 quiet", "--disk", f"{tmp_path}/cow,base={base}",
              "--memory", "256M", "--cpus", 2, timeout=BOOT_SECONDS, env={"LODGE_TRACE": "bus"})
    said = words(r.out)
    assert r.status == 0, r
    assert said["release"] == [k.release]
    assert said["cpus"] == ["2"]
    assert said["root"] == ["/dev/vda ext4 rw"]
    assert hashlib.sha256(base.read_bytes()).digest() == before
    hits = bus_hits(r.err)
    count = hits.get("pit", 0) + hits.get("port61", 0)
    record_property("pit_accesses", count)
    assert count <= PIT_ACCESSES_MAX, hits


def test_mp_tables_without_acpi(lodge, tmp_path):
    """Unlike the cloud kernel it reads MP tables: two CPUs and the IOAPIC."""
    archive = initrd(tmp_path / "initrd", "say cpus $(nproc); cat /proc/interrupts; sync; reboot -f", flavour="stock")
    r = lodge("run", "--kernel", kernel("stock").path, "--initrd", archive, "--append", "console=ttyS0 quiet acpi=off", "--cpus", 2, "--no-reboot",
              timeout=BOOT_SECONDS)
    assert r.status == 0, r
    assert words(r.out)["cpus"] == ["2"]
    assert "IO-APIC" in r.out
