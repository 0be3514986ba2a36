#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that a machine costs beside the guest's own: the sum of Pss over its mappings without guest
RAM, for one vCPU, one COW disk and the user network, the guest idle.

  memory.py --lodge build/src/cli/lodge --kernel build/tests/guests/hlt_wake [--seconds 2]
"""
import argparse
import os
import re
import signal
import subprocess
import tempfile
import time


def pss(pid, ram_kib):
    """(KiB without guest RAM, the largest other mappings) of process @pid."""
    total, rows, size, name, first = 0, [], 0, "", True
    with open(f"/proc/{pid}/smaps", encoding="ascii") as f:
        for line in f:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)", line)
            if m:
                size = (int(m[2], 16) - int(m[1], 16)) // 1024
                name = m[4] or "[anonymous]"
            elif line.startswith("Pss:"):
                kib = int(line.split()[1])
                if name == "[anonymous]" and ram_kib * 0.9 < size <= ram_kib * 1.1 + 2048:
                    continue  # guest RAM
                total += kib
                rows.append((kib, size, name))
    return total, sorted(rows, reverse=True)[:12]


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lodge", required=True)
    p.add_argument("--kernel", required=True)
    p.add_argument("--initrd")
    p.add_argument("--append", default="n=1000000000")
    p.add_argument("--seconds", type=float, default=2)
    p.add_argument("--verbose", action="store_true")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
        with open(f"{tmp}/base", "wb") as f:
            f.truncate(64 << 20)
        argv = [args.lodge, "run", "--kernel", args.kernel, "--append", args.append, "--memory",
                "256M", "--cpus", "1", "--disk", f"{tmp}/cow,base={tmp}/base", "--net", "user"]
        argv += ["--initrd", args.initrd] if args.initrd else []
        read_end, write_end = os.pipe()
        proc = subprocess.Popen(argv, stdin=read_end, stdout=subprocess.DEVNULL)
        time.sleep(args.seconds)
        total, rows = pss(proc.pid, 256 << 10)
        proc.send_signal(signal.SIGKILL)
        proc.wait()
        os.close(write_end)
        print(f"beside guest memory: {total / 1024:.2f} MiB")
        if args.verbose:
            for kib, size, name in rows:
                print(f"  {kib:6} KiB of {size:8} {name}")


main()
