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
import json
import os
import pathlib
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

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
        "qemu-pc": [args.qemu, "-machine", "pc", "-accel", "kvm", "-cpu", "host", "-m", memory, "-nodefaults", "-no-user-config", "-vga", "std",
                    "-display", "none", "-serial", "stdio", "-drive", f"file={image},media=cdrom,if=ide,format=raw"],
    }


def run_once(argv, env, timeout):
    """(seconds from exec to the mark or None, what it said on standard error)."""
    begin = time.monotonic()
    proc = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen, took = b"", None
    while MARK not in seen and select.select([proc.stdout], [], [], max(0, begin + timeout - time.monotonic()))[0]:
        data = os.read(proc.stdout.fileno(), 65536)
        if not data:
            break
        seen += data
    if MARK in seen:
        took = time.monotonic() - begin
    for _ in range(2):  # the power button, then the plug
        proc.terminate()
        time.sleep(0.2)
    try:
        said = proc.communicate(timeout=20)[1]
    except subprocess.TimeoutExpired:
        proc.kill()
        said = proc.communicate()[1]
    if took is None:
        sys.stderr.write((seen[-2000:] + said[-2000:]).decode(errors="replace") + "\n")
    return took, said


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
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
        image = grub_media.iso(pathlib.Path(tmp) / "grub.iso", MENU)
        os.mkdir(f"{tmp}/run", 0o700)
        env = dict(os.environ, XDG_RUNTIME_DIR=f"{tmp}/run")
        table = sides(args, str(image))
        times = {s: [] for s in args.sides.split(",") if shutil.which(table[s][0])}
        for i in range(args.rounds + 1):  # round 0 warms up
            for s, t in times.items():
                took, _ = run_once(table[s], env, args.timeout)
                if i and took is not None:
                    t.append(took)
        if args.trace:
            print(run_once(table["lodge"], dict(env, LODGE_TRACE="bus"), args.timeout)[1].decode(errors="replace"))
    result = {s: {"median": statistics.median(t), "min": min(t), "max": max(t), "times": t} for s, t in times.items() if t}
    for s, r in result.items():
        print(f"{s:8} median {r['median']:.3f} s  min {r['min']:.3f}  max {r['max']:.3f}  runs {len(r['times'])}")
    for s in times:
        if s not in result:
            print(f"{s:8} did not reach the menu")
    if {"lodge", "qemu-pc"} <= set(result):
        print(f"lodge / qemu-pc {result['lodge']['median'] / result['qemu-pc']['median']:.2f}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)


main()
