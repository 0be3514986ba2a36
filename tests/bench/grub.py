#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Time from starting a virtual machine monitor to GRUB's menu from a CD-ROM, Lodge against QEMU pc.

Both start the same SeaBIOS and VGA BIOS, the same image, one vCPU and the same memory, in turn
(A B A B ...), and each figure is the median over the rounds. The image's GRUB draws its menu on the
VGA text screen and the serial port alike; the clock stops when the line of the countdown, the last
of the menu, arrives on the serial port.

  grub.py --lodge build/src/cli/lodge [--rounds 5] [--json FILE] [--sides lodge,qemu-pc] [--trace]

Where this host has no hardware assist, run it inside tests/amdv/run.
"""
import argparse
import os
import pathlib
import sys
import tempfile

import starts

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import grub_media  # noqa: E402

MARK = b"will be executed automatically"
MENU = """serial --unit=0 --speed=115200
terminal_output console serial
set timeout=30
menuentry "One" { echo one }
menuentry "Two" { echo two }
"""


def sides(args, image):
    memory = str(args.memory)
    return {
        "lodge": [args.lodge, "run", "--firmware", "--cdrom", image, "--memory", memory + "M", "--net", "none", "--quiet", "--console", "stdio"],
        "qemu-pc": [args.qemu, "-machine", "pc", "-accel", "kvm", "-cpu", "host,arch-capabilities=off", "-m", memory, "-nodefaults", "-no-user-config", "-vga", "std",
                    "-display", "none", "-serial", "stdio", "-drive", f"file={image},media=cdrom,if=ide,format=raw"],
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lodge", required=True)
    p.add_argument("--qemu", default="qemu-system-x86_64")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--memory", type=int, default=128)
    p.add_argument("--timeout", type=float, default=120)
    p.add_argument("--sides", default="lodge,qemu-pc")
    p.add_argument("--trace", action="store_true", help="one more start of lodge, with the accesses of each region")
    p.add_argument("--json")
    args = p.parse_args()

    def start(argv, env):
        return starts.run_once(argv, env, args.timeout, MARK, stay=True)

    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
        image = grub_media.iso(pathlib.Path(tmp) / "grub.iso", MENU)
        os.mkdir(f"{tmp}/run", 0o700)
        env = dict(os.environ, XDG_RUNTIME_DIR=f"{tmp}/run")
        table = sides(args, str(image))
        times = starts.take_turns(starts.present(args.sides, table.get), args.rounds, lambda s: start(table[s], env)[0])
        if args.trace:
            print(start(table["lodge"], dict(env, LODGE_TRACE="bus"))[1].decode(errors="replace"))
    medians = starts.report(times, "the menu", args.json)
    if {"lodge", "qemu-pc"} <= set(medians):
        print(f"lodge / qemu-pc {medians['lodge'] / medians['qemu-pc']:.2f}")


main()
