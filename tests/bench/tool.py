#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a verb costs that only looks: from exec to the end of "lodge version", and of "lodge list" while
machines are there, beside /bin/true, in turns.

  tool.py --lodge build-release/src/cli/lodge --kernel build-release/tests/guests/plug [--machines 50] [--rounds 40]
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

AIMS_MS = {"lodge version": 5, "lodge list": 30}


def seconds(argv, env):
    begin = time.monotonic()
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lodge", required=True)
    p.add_argument("--kernel", required=True)
    p.add_argument("--machines", type=int, default=50)
    p.add_argument("--rounds", type=int, default=40)
    args = p.parse_args()
    sides = {"/bin/true": ["/bin/true"], "lodge version": [args.lodge, "version"], "lodge list": [args.lodge, "list"]}
    times = {s: [] for s in sides}
    with tempfile.TemporaryDirectory() as tmp:
        env = dict(os.environ, XDG_RUNTIME_DIR=f"{tmp}/run", XDG_STATE_HOME=f"{tmp}/state", XDG_CACHE_HOME=f"{tmp}/cache")
        os.mkdir(f"{tmp}/run", 0o700)
        for i in range(args.machines):
            subprocess.run([args.lodge, "run", f"m{i}", "-d", "--kernel", args.kernel, "--memory", "8M", "--net", "none"],
                           env=env, check=True, stdin=subprocess.DEVNULL)
        try:
            subprocess.run([args.lodge, "pause", *(f"m{i}" for i in range(args.machines))], env=env, check=True)  # they cost no time of ours
            for i in range(args.rounds + 1):  # round 0 warms up
                for side, argv in sides.items():
                    took = seconds(argv, env)
                    if i:
                        times[side].append(took * 1000)
            listed = subprocess.run([args.lodge, "list"], env=env, check=True, capture_output=True, text=True).stdout
        finally:
            subprocess.run([args.lodge, "kill", "--all"], env=env, check=False)
        time.sleep(1)  # their folders go with them
    if listed.count(" paused ") != args.machines:
        sys.exit(f"not all machines are there:\n{listed}")
    for side, t in times.items():
        aim = f", aim {AIMS_MS[side]} ms" if side in AIMS_MS else ""
        print(f"{side}: median {statistics.median(t):.2f} ms, from {min(t):.2f} to {max(t):.2f} ms{aim}")


if __name__ == "__main__":
    main()
