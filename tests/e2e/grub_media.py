# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks and CD-ROMs that boot GRUB with a menu of the test's own: grub-mkimage makes the core, the
rest is laid out here, so that no other tool is needed.

ISO: ECMA-119 (sections in the code), El Torito 1.0; GRUB's cdboot.img wants the boot information
table that mkisofs writes at its offset 8."""
import io
import pathlib
import subprocess
import tarfile

MODULES = pathlib.Path("/usr/lib/grub/i386-pc")
DISK_MODULES = ("biosdisk", "memdisk", "tar", "normal", "ls", "echo", "sleep", "configfile", "serial", "terminal", "multiboot", "halt", "part_msdos")
CD_MODULES = (*DISK_MODULES, "iso9660")
SECTOR, BLOCK = 512, 2048
CATALOG_LBA, ROOT_LBA, PATH_LBA, FILES_LBA = 20, 21, 22, 24
RUN_OUT = 16  # blocks behind the files: cdboot.img reads its core and one block more


def _core(folder, form, config, modules):
    """GRUB's core for the platform @form, which finds @config in itself."""
    tar, out = folder / f"{form}.tar", folder / f"{form}.core"
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as t:
        entry = tarfile.TarInfo("boot/grub/grub.cfg")
        entry.size = len(config.encode())
        t.addfile(entry, io.BytesIO(config.encode()))
    subprocess.run(["grub-mkimage", "-O", form, "-d", MODULES, "-m", tar, "-p", "(memdisk)/boot/grub", "-o", out, *modules], stdin=subprocess.DEVNULL, check=True)
    return out.read_bytes()


def disk(path, config, megabytes=4):
    """A raw disk: GRUB's boot sector, its core behind that, nothing else."""
    core = _core(path.parent, "i386-pc", config, DISK_MODULES)
    image = (MODULES / "boot.img").read_bytes()[:440].ljust(SECTOR - 2, b"\0") + b"\x55\xaa" + core
    path.write_bytes(image.ljust(megabytes << 20, b"\0"))
    return path


def _both(value, size):
    """A number in both byte orders (ECMA-119, 7.2.3 and 7.3.3)."""
    return value.to_bytes(size, "little") + value.to_bytes(size, "big")


def _record(name, lba, length, folder=False):
    """A directory record (ECMA-119, 9.1)."""
    pad = b"" if len(name) % 2 else b"\0"
    body = (b"\0" + _both(lba, 4) + _both(length, 4) + bytes((126, 11, 1, 0, 0, 0, 0)) + bytes((2 if folder else 0, 0, 0)) + _both(1, 2)
            + bytes((len(name),)) + name + pad)
    return bytes((len(body) + 1,)) + body


def _volume(blocks):
    """The primary volume descriptor (ECMA-119, 8.4)."""
    date = b"2026010100000000\0"
    d = b"\x01CD001\x01\0" + b" " * 32 + b"LODGE_TEST".ljust(32) + bytes(8) + _both(blocks, 4) + bytes(32) + _both(1, 2) + _both(1, 2) + _both(BLOCK, 2)
    d += _both(10, 4) + PATH_LBA.to_bytes(4, "little") + bytes(4) + (PATH_LBA + 1).to_bytes(4, "big") + bytes(4)
    d += _record(b"\0", ROOT_LBA, BLOCK, True) + b" " * (128 * 4 + 37 * 3) + date * 2 + b"0" * 16 + b"\0" + b"0" * 16 + b"\0" + b"\x01\0"
    return d.ljust(BLOCK, b"\0")


def _catalog(lba):
    """El Torito's boot catalogue, 2.0: validation entry, and one that boots without emulation."""
    entry = bytearray(b"\x01\0\0\0" + bytes(24) + b"\0\0\x55\xaa")
    entry[28:30] = (-sum(int.from_bytes(entry[i:i + 2], "little") for i in range(0, 32, 2)) & 0xffff).to_bytes(2, "little")
    return (bytes(entry) + b"\x88\0\0\0\0\0" + (4).to_bytes(2, "little") + lba.to_bytes(4, "little")).ljust(BLOCK, b"\0")


def _bootable(core, lba):
    """@core with the boot information table: where the volume is and where this file."""
    core = bytearray(core)
    core += bytes(-len(core) % 4)
    words = sum(int.from_bytes(core[i:i + 4], "little") for i in range(64, len(core), 4)) & 0xffffffff
    core[8:24] = b"".join(v.to_bytes(4, "little") for v in (16, lba, len(core), words))
    return bytes(core)


def iso(path, config, files=None):
    """A CD-ROM that boots GRUB, with @files {NAME: bytes} in its root."""
    core = _bootable(_core(path.parent, "i386-pc-eltorito", config, CD_MODULES), FILES_LBA)
    data, root = bytearray(), _record(b"\0", ROOT_LBA, BLOCK, True) + _record(b"\x01", ROOT_LBA, BLOCK, True)
    for name, content in [("GRUB.IMG", core), *sorted((files or {}).items())]:
        root += _record(name.encode() + b";1", FILES_LBA + len(data) // BLOCK, len(content))
        data += content + bytes(-len(content) % BLOCK)
    data += bytes(RUN_OUT * BLOCK)
    table = [b"\x01\0" + ROOT_LBA.to_bytes(4, order) + (1).to_bytes(2, order) + b"\0\0" for order in ("little", "big")]
    head = [_volume(FILES_LBA + len(data) // BLOCK), (b"\0CD001\x01EL TORITO SPECIFICATION".ljust(71, b"\0") + CATALOG_LBA.to_bytes(4, "little")).ljust(BLOCK, b"\0"),
            b"\xffCD001\x01".ljust(BLOCK, b"\0"), bytes(BLOCK), _catalog(FILES_LBA), root.ljust(BLOCK, b"\0"), *(t.ljust(BLOCK, b"\0") for t in table)]
    path.write_bytes(bytes(16 * BLOCK) + b"".join(head) + bytes(data))
    return path
