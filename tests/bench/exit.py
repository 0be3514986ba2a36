#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What an OUT costs under Lodge beyond a bare KVM_RUN loop, and how long a start takes.

Alternates the two sides; each figure is the median of the rounds, the differences pair by pair.
Instructions are counted by stepping the vCPU thread from one system call to the next.

  exit.py --lodge build/src/cli/lodge --guests build/tests/guests --bare BARE_KVM --steps EXIT_INSNS
"""
import argparse
import os
import pathlib
import re
import signal
import statistics
import subprocess
import time

NULL = subprocess.DEVNULL


def cycles(argv):
    out = subprocess.run(argv, stdin=NULL, capture_output=True, text=True).stdout
    return int(re.search(r"(\d+) cycles each", out)[1])


def tsc_ghz():
    """From the kernel's own calibration, else the rated frequency."""
    for line in open("/proc/cpuinfo", encoding="ascii"):
        if line.startswith("cpu MHz"):
            return float(line.split(":")[1]) / 1000
    return 1.0


def lodge_argv(args, guest, *more):
    return [args.lodge, "run", "--kernel", f"{args.guests}/{guest}", "--debug-exit", "--net", "none",
            "--quiet", *more]


def instructions(args):
    """Between two KVM_RUN of a vCPU thread whose guest writes a port in a loop."""
    proc = subprocess.Popen(lodge_argv(args, "exitcost", "--append", "n=1000000000"), stdin=NULL,
                            stdout=NULL, stderr=NULL)
    try:
        time.sleep(1)
        for task in pathlib.Path(f"/proc/{proc.pid}/task").iterdir():
            if (task / "comm").read_text().strip() == "vcpu 0":
                out = subprocess.run([args.steps, task.name, "9"], capture_output=True, text=True)
                return statistics.median(int(n) for n in out.stdout.split())
    finally:
        for sig in (signal.SIGINT, signal.SIGINT):
            proc.send_signal(sig)
            time.sleep(0.1)
        proc.wait()
    return None


def start_ms(args):
    begin = time.monotonic()
    subprocess.run(lodge_argv(args, "first"), stdin=NULL, stdout=NULL, stderr=NULL)
    return (time.monotonic() - begin) * 1e3


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lodge", required=True)
    p.add_argument("--guests", required=True)
    p.add_argument("--bare", required=True)
    p.add_argument("--steps", required=True)
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--count", type=int, default=100000)
    args = p.parse_args()
    bare, ours = [], []
    for _ in range(args.rounds):
        bare.append(cycles([args.bare, str(args.count)]))
        ours.append(cycles(lodge_argv(args, "exitcost", "--append", f"n={args.count}")))
    ghz = tsc_ghz()
    diff = [(o - b) / ghz for o, b in zip(ours, bare)]
    print(f"OUT, bare KVM_RUN loop   median {statistics.median(bare) / ghz:8.0f} ns  min {min(bare) / ghz:.0f}")
    print(f"OUT under Lodge          median {statistics.median(ours) / ghz:8.0f} ns  min {min(ours) / ghz:.0f}")
    print(f"difference, pair by pair median {statistics.median(diff):8.0f} ns  of minima "
          f"{(min(ours) - min(bare)) / ghz:.0f}")
    print(f"instructions in user space for each OUT: {instructions(args)}")
    starts = [start_ms(args) for _ in range(args.rounds)]
    print(f"exec to first guest instruction and exit: median {statistics.median(starts):.1f} ms  "
          f"min {min(starts):.1f}")


main()
