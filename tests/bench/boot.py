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
import os
import shutil
import subprocess
import tempfile

import starts

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
    qemu = [args.qemu, "-accel", "kvm", "-cpu", "host,arch-capabilities=off", "-m", memory, "-smp", cpus, "-nodefaults",
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

        def start(side):
            argv, env, before = table[side]
            if before:
                before()
            return starts.run_once(argv, env, args.timeout, MARK)[0]

        names = starts.present(args.sides, lambda s: table[s][0])
        times = starts.take_turns(names, args.rounds, start)  # round 0 warms the cache of kernels too
    starts.report(times, "init", args.json)


main()
