#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Time from starting a virtual machine monitor to the guest's init, Lodge against others.

Every side boots the same kernel with the same initrd, command line, memory and vCPUs, in turn
(A B C A B C ...), and each figure is the median over the rounds. The initrd's init writes a mark
to the console and powers off; the clock stops when the mark arrives. User-Mode Linux has a kernel
of its own, with the same initrd.

  boot.py --lodge build/src/cli/lodge --kernel /boot/vmlinuz-... [--rounds 7] [--json FILE]
          [--sides lodge-cold,lodge-warm,qemu-pc,qemu-microvm,uml]

Where this host has no hardware assist, run it inside tests/amdv/run.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

MARK = b"lodge-bench: init"
APPEND = "console=ttyS0 quiet panic=-1"
INIT = f"""#!/bin/busybox sh
/bin/busybox mkdir -p /dev /proc
/bin/busybox mount -t devtmpfs dev /dev
echo "{MARK.decode()}" >/dev/console
/bin/busybox poweroff -f
"""


def make_initrd(path):
    """A cpio archive with busybox and the init above."""
    with tempfile.TemporaryDirectory() as root:
        os.makedirs(f"{root}/bin")
        os.makedirs(f"{root}/dev")
        shutil.copy("/bin/busybox", f"{root}/bin/busybox")
        with open(f"{root}/init", "w", encoding="ascii") as f:
            f.write(INIT)
        os.chmod(f"{root}/init", 0o755)
        names = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
        with open(path, "wb") as out:
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names,
                           stdout=out, check=True)


def sides(args, initrd, cache):
    """Name -> (argv, environment, what to do before each run)."""
    memory, cpus = str(args.memory), str(args.cpus)
    qemu = [args.qemu, "-accel", "kvm", "-cpu", "host", "-m", memory, "-smp", cpus, "-nodefaults",
            "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
            "-kernel", args.kernel, "-initrd", initrd, "-append", APPEND]
    lodge = [args.lodge, "run", "--kernel", args.kernel, "--initrd", initrd, "--append", APPEND,
             "--memory", memory + "M", "--cpus", cpus, "--net", "none", "--quiet", "--no-reboot"]
    env = dict(os.environ, XDG_CACHE_HOME=cache)

    def forget():
        shutil.rmtree(f"{cache}/lodge", ignore_errors=True)

    return {
        "lodge-cold": (lodge, env, forget),
        "lodge-warm": (lodge, env, None),
        "qemu-pc": (qemu + ["-machine", "pc"], None, None),
        "qemu-microvm": (qemu + ["-machine", "microvm,isa-serial=on"], None, None),
        "uml": (["linux.uml", f"mem={memory}M", f"initrd={initrd}", "con=null", "con0=null,fd:1",
                 "console=tty0", "quiet", "panic=-1"], None, None),
    }


def run_once(argv, env, timeout):
    """Seconds from exec to the mark; None if it did not come."""
    begin = time.monotonic()
    proc = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)
    seen, took = b"", None
    os.set_blocking(proc.stdout.fileno(), True)
    try:
        while took is None and time.monotonic() - begin < timeout:
            data = os.read(proc.stdout.fileno(), 65536)
            if not data:
                break
            seen += data
            if MARK in seen:
                took = time.monotonic() - begin
        if took is None:
            sys.stderr.write(seen[-2000:].decode(errors="replace") + "\n")
        while os.read(proc.stdout.fileno(), 65536):
            pass
    finally:
        try:
            proc.wait(10)
        except subprocess.TimeoutExpired:
            proc.kill()
            proc.wait()
    return took


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lodge", required=True)
    p.add_argument("--kernel", required=True)
    p.add_argument("--qemu", default="qemu-system-x86_64")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--memory", type=int, default=256)
    p.add_argument("--cpus", type=int, default=1)
    p.add_argument("--timeout", type=float, default=60)
    p.add_argument("--sides", default="lodge-cold,lodge-warm,qemu-pc,qemu-microvm,uml")
    p.add_argument("--json")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
        initrd = f"{tmp}/initrd"
        make_initrd(initrd)
        table = sides(args, initrd, tmp)
        chosen = [s for s in args.sides.split(",") if shutil.which(table[s][0][0])]
        times = {s: [] for s in chosen}
        for i in range(args.rounds + 1):  # round 0 warms up, the cache of kernels too
            for s in chosen:
                argv, env, before = table[s]
                if before:
                    before()
                took = run_once(argv, env, args.timeout)
                if i and took is not None:
                    times[s].append(took)
    result = {s: {"median": statistics.median(t), "min": min(t), "max": max(t), "times": t}
              for s, t in times.items() if t}
    for s, r in result.items():
        print(f"{s:14} median {r['median']:.3f} s  min {r['min']:.3f}  max {r['max']:.3f}  "
              f"runs {len(r['times'])}")
    for s in times:
        if s not in result:
            print(f"{s:14} did not reach init")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)


main()
