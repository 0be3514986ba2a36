# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks of starts share: the time from exec to a mark on the console, turns between sides,
and their table."""
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import time

SAID_MAX = 2000  # bytes of what a guest that did not get there said last
END_SECONDS = 20


def run_once(argv, env, timeout, mark, stay=False):
    """(seconds from exec until @mark was on standard output, or None; standard error). @stay: the guest
    does not end by itself, and is ended."""
    begin = time.monotonic()
    proc = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen, took = b"", None
    while mark not in seen and select.select([proc.stdout], [], [], max(0, begin + timeout - time.monotonic()))[0]:
        data = os.read(proc.stdout.fileno(), 65536)
        if not data:
            break
        seen += data
    if mark in seen:
        took = time.monotonic() - begin
    if stay or took is None:
        for _ in range(2):  # the power button, then the plug
            proc.terminate()
            time.sleep(0.2)
    try:
        said = proc.communicate(timeout=END_SECONDS)[1]
    except subprocess.TimeoutExpired:
        proc.kill()
        said = proc.communicate()[1]
    if took is None:
        sys.stderr.write((seen[-SAID_MAX:] + said[-SAID_MAX:]).decode(errors="replace") + "\n")
    return took, said


def present(names, argv_of):
    """Those of @names, with commas between, whose program this host has."""
    return [s for s in names.split(",") if shutil.which(argv_of(s)[0])]


def take_turns(names, rounds, run):
    """{side: [seconds]}; run(side) answers them, or None. Round 0 warms up."""
    times = {s: [] for s in names}
    for i in range(rounds + 1):
        for s, t in times.items():
            took = run(s)
            if i and took is not None:
                t.append(took)
    return times


def report(times, goal, path):
    """Print a line for each side, which may not have reached @goal; what is known into @path, unless that is
    None. Answers {side: median}."""
    result = {s: {"median": statistics.median(t), "min": min(t), "max": max(t), "times": t} for s, t in times.items() if t}
    for s in times:
        if s in result:
            r = result[s]
            print(f"{s:14} median {r['median']:.3f} s  min {r['min']:.3f}  max {r['max']:.3f}  runs {len(r['times'])}")
        else:
            print(f"{s:14} did not reach {goal}")
    if path:
        with open(path, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
    return {s: r["median"] for s, r in result.items()}
