#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Linux guest gets from its disk: dd of 1 MiB blocks in order, and fio of random 4 KiB blocks
one and 32 at a time.

Lodge and QEMU (virtio, I/O thread, io_uring) on raw and qcow2, Lodge and User-Mode Linux (ubd) on raw and
on UML's COW file, in turn. The guests bypass their own cache; every block was
written before; the host's cache is used, as UML does it. dd, fio and their libraries are on a second disk.

  linux_disk.py --lodge build-release/src/cli/lodge [--rounds 3] [--seconds 3] [--mib 128] [--dir FOLDER]
                [--sides lodge-raw,qemu-raw,uml-raw,lodge-qcow2,qemu-qcow2,lodge-cow,uml-cow] [--json FILE]

Where this host has no hardware assist, run it inside tests/amdv/run.
"""
import os
import pathlib
import re
import shutil
import subprocess

import turns
from linux_guest import ext4, libraries

MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
MEASURES = {"read": "dd, read, MiB/s", "write": "dd, write, MiB/s", "r1": "4 KiB reads, depth 1", "r32": "4 KiB reads, depth 32",
            "w1": "4 KiB writes, depth 1", "w32": "4 KiB writes, depth 32"}
JOBS = {"r1": ("randread", 1), "r32": ("randread", 32), "w1": ("randwrite", 1), "w32": ("randwrite", 32)}
PROGRAMS = ("dd", "fio")
MEMORY = 256
PROGRAM_MIB = 160  # fio's libraries are many
GUEST = """
exec 2>&1
d=/dev/vda p=/dev/vdb
[ -b $d ] || d=/dev/ubda p=/dev/ubdb
mount -t ext4 -o ro $p /mnt
run() { program=$1; shift; /mnt/lib/ld-linux-x86-64.so.2 --library-path /mnt/lib /mnt/$program "$@"; }
run dd if=/dev/zero of=$d bs=1M count=$MIB oflag=direct conv=notrunc 2> /dev/null
say read "$(run dd if=$d of=/dev/null bs=1M iflag=direct 2>&1 | tail -n 1)"
say write "$(run dd if=/dev/zero of=$d bs=1M count=$MIB oflag=direct conv=notrunc 2>&1 | tail -n 1)"
run fio --output-format=terse --terse-version=3 --filename=$d /mnt/jobs
bye
"""


def job_file(seconds):
    head = f"[global]\nioengine=libaio\ndirect=1\nbs=4k\ntime_based\nruntime={seconds}\nthread\ngtod_reduce=1\nnorandommap\nrandom_generator=lfsr\n"
    return head + "".join(f"[{name}]\nstonewall\nrw={rw}\niodepth={depth}\n" for name, (rw, depth) in JOBS.items())


def program_disk(args, tmp):
    """An image with dd, fio, their libraries and fio's jobs (busybox's dd may know no time)."""
    path = f"{args.keep or tmp}/programs"
    if os.path.exists(path):
        return path
    tree = pathlib.Path(tmp) / "tree"
    (tree / "lib").mkdir(parents=True)
    for name in PROGRAMS:
        program = shutil.which(name)
        for lib in libraries(program):
            shutil.copy(lib, tree / "lib")
        shutil.copy(program, tree / name)
    (tree / "jobs").write_text(job_file(args.seconds), encoding="utf-8")
    ext4(path, str(tree), PROGRAM_MIB)
    shutil.rmtree(tree)
    return path


def make_disks(args, tmp):
    """{format: path}; all blocks of all are there."""
    folder = pathlib.Path(args.dir or tmp)
    path = {f: str(folder / f"linux_disk.{f}") for f in ("raw", "base", "qcow2", "cow")}
    for name in ("raw", "base"):
        with open(path[name], "wb") as f:
            for _ in range(args.mib):
                f.write(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", path["raw"], path["qcow2"]], check=True)
    subprocess.run([args.lodge, "image", "create", "--format", "umlcow", "--base", path["base"], path["cow"]], check=True, stdout=subprocess.DEVNULL)
    return path


def sides(args, archive, disk, program):
    """Name -> a guest's command line."""
    def lodge(fmt, name):
        return turns.lodge_argv(args, archive, "--net", "none", "--disk", f"{disk[name]},format={fmt},cache=writeback",
                                "--disk", f"{program},format=raw,ro", memory=MEMORY)

    def qemu(fmt):
        return turns.qemu_argv(args, archive, "-object", "iothread,id=io", "-drive", f"file={disk[fmt]},format={fmt},if=none,id=d,cache=writeback,aio=io_uring",
                               "-device", "virtio-blk-pci,drive=d,iothread=io", "-drive", f"file={program},format=raw,if=none,id=p,readonly=on",
                               "-device", "virtio-blk-pci,drive=p", memory=MEMORY)

    def uml(ubd, name):
        return turns.uml_argv(archive, f"umid={name}", f"ubd0={ubd}", f"ubd1r={program}", memory=MEMORY)

    return {
        "lodge-raw": lodge("raw", "raw"),
        "qemu-raw": qemu("raw"),
        "uml-raw": uml(disk["raw"], "raw"),
        "lodge-qcow2": lodge("qcow2", "qcow2"),
        "qemu-qcow2": qemu("qcow2"),
        "lodge-cow": lodge("umlcow", "cow"),
        "uml-cow": uml(f"{disk['cow']},{disk['base']}", "cow"),
    }


def read_figures(text):
    """{measure: figure} of what the guest said."""
    got = {}
    for m in re.finditer(r"^(read|write): (\d+) bytes .*copied, ([0-9.]+) s", text, re.M):
        got[m[1]] = int(m[2]) / float(m[3]) / (1 << 20)
    for line in text.splitlines():
        field = line.split(";")
        if field[0] == "3" and len(field) > 48 and field[2] in JOBS:
            got[field[2]] = float(field[7] if JOBS[field[2]][0] == "randread" else field[48])
    return got


def main():
    p = turns.arguments(__doc__, seconds=3)
    p.add_argument("--mib", type=int, default=128, help="of disk")
    p.add_argument("--dir", help="where the disks are made; in memory when not given")
    args = p.parse_args()
    with turns.scratch("linux_disk") as tmp:
        archive = turns.archive_of(args, tmp, GUEST.replace("$MIB", str(args.mib)), MODULES)
        disk = make_disks(args, tmp)
        try:
            table = sides(args, archive, disk, program_disk(args, tmp))

            def run_once(side, _):
                text = turns.console(table[side], args.timeout)
                return read_figures(text), text

            results = turns.take_turns(args, turns.chosen(args, table), MEASURES, run_once)
        finally:
            for path in disk.values():
                pathlib.Path(path).unlink(missing_ok=True)
    turns.report(results, MEASURES, [("lodge-raw", "qemu-raw"), ("lodge-raw", "uml-raw"), ("lodge-qcow2", "qemu-qcow2"), ("lodge-cow", "uml-cow")])


main()
