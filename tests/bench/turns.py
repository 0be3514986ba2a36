# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks with Linux guests share: command lines of the hypervisors for one kernel and
initrd, turns between sides, and tables of medians with their spread."""
import argparse
import contextlib
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
# pylint: disable=wrong-import-position
from linux_guest import add_programs, initrd, kernel

APPEND = "console=ttyS0 quiet panic=-1"
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
SAID_MAX = 1500  # characters of what a guest that failed said last


def arguments(doc, **defaults):
    """A parser with the options that every such benchmark has."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lodge", required=True)
    p.add_argument("--qemu", default="qemu-system-x86_64")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=int, default=5, help="of each measure")
    p.add_argument("--sides", help="some of them, with commas between")
    p.add_argument("--timeout", type=float, default=120, help="seconds for one guest")
    p.add_argument("--json", help="a file for every figure; what it has from earlier rounds counts too")
    p.add_argument("--keep", help="a folder where what guests need (initrd, programs) is kept, and taken from if it is there")
    p.set_defaults(**defaults)
    return p


@contextlib.contextmanager
def scratch(name):
    """A folder in memory that is the runtime, state, cache and home of whatever is started."""
    with tempfile.TemporaryDirectory(prefix=name + ".", dir="/dev/shm") as tmp:
        os.environ.update(XDG_RUNTIME_DIR=tmp, XDG_STATE_HOME=tmp, XDG_CACHE_HOME=tmp, HOME=tmp)
        yield tmp


def archive_of(args, tmp, script, modules, *programs):
    """The initrd with these programs of the host, that runs @script; $SECONDS in it is --seconds."""
    path = f"{args.keep or tmp}/initrd"
    if not os.path.exists(path):
        add_programs(initrd(path, script.replace("$SECONDS", str(args.seconds)), modules), *map(shutil.which, programs))
    return path


def lodge_argv(args, archive, *more, memory=160):
    return [args.lodge, "run", "--quiet", "--memory", f"{memory}M", "--kernel", str(kernel("cloud").path), "--initrd", archive, "--append", APPEND, *more]


def qemu_argv(args, archive, *more, memory=160):
    return [args.qemu, "-machine", "pc", "-accel", "kvm", "-cpu", "host,arch-capabilities=off", "-m", str(memory), "-nodefaults", "-no-user-config", "-display", "none",
            "-serial", "stdio", "-no-reboot", "-kernel", str(kernel("cloud").path), "-initrd", archive, "-append", APPEND, *more]


def uml_argv(archive, *more, memory=160):
    return ["linux.uml", f"mem={memory}M", f"initrd={archive}", "con=null", "con0=null,fd:1", "console=tty0", "quiet", "panic=-1", *more]


def append_word(argv, word):
    """@argv of a guest with one more word on its kernel's command line."""
    argv = list(argv)
    for option in ("--append", "-append"):
        if option in argv:
            argv[argv.index(option) + 1] += " " + word
            return argv
    return [*argv, word]


@contextlib.contextmanager
def running(argv):
    """A process beside, ended with the block; none for None."""
    p = subprocess.Popen(argv, stdin=subprocess.PIPE, **QUIET) if argv else None
    try:
        yield p
    finally:
        if p:
            p.kill()
            p.wait()


def console(argv, timeout):
    """What a guest wrote until it ended by itself, or was ended."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
        stop = threading.Timer(timeout, p.kill)
        stop.start()
        try:
            return p.stdout.read().decode(errors="replace").replace("\r", "")
        finally:
            stop.cancel()
            p.kill()


def chosen(args, table):
    return args.sides.split(",") if args.sides else list(table)


def take_turns(args, names, measures, run_once):
    """{side: {measure: [figures]}} of all rounds; run_once(side, round) answers ({measure: figure}, text)."""
    results = {s: {m: [] for m in measures} for s in names}
    if args.json and os.path.exists(args.json):
        for s, r in json.loads(pathlib.Path(args.json).read_text(encoding="utf-8")).items():
            results[s] = {m: r.get(m, []) for m in measures}
    for i in range(args.rounds):
        for side in names:
            got, text = run_once(side, i)
            if len(got) < len(measures):
                sys.stderr.write(f"{side}: {text[-SAID_MAX:]}\n")
            for m, figure in got.items():
                results[side][m].append(figure)
            print(f"round {i + 1}, {side}: { {m: round(f) for m, f in got.items()} }", file=sys.stderr, flush=True)
            if args.json:
                pathlib.Path(args.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    return results


def shown(figures):
    """Median, and the least and the most."""
    if not figures:
        return "-"
    mid, low, high = (f"{f:,.0f}" for f in (statistics.median(figures), min(figures), max(figures)))
    return f"{mid} ({low} to {high})" if len(figures) > 1 else mid


def ratio(a, b):
    """Of two medians, or "-"."""
    return f"{statistics.median(a) / statistics.median(b):.2f}" if a and b else "-"


def report(results, measures, of):
    """A table: a row for each measure, a column for each side, then @of: pairs of sides to be divided."""
    names = list(results)
    pairs = [(a, b) for a, b in of if a in results and b in results]
    print(f"Linux {kernel('cloud').release}, {os.cpu_count()} CPUs, load {math.ceil(os.getloadavg()[0])}")
    print("| what | " + " | ".join([*names, *(f"{a} / {b}" for a, b in pairs)]) + " |")
    print("| --- " * (1 + len(names) + len(pairs)) + "|")
    for m, title in measures.items():
        cells = [shown(results[s][m]) for s in names] + [ratio(results[a][m], results[b][m]) for a, b in pairs]
        print(f"| {title} | " + " | ".join(cells) + " |")


def need(*programs):
    """Names of @programs that this host has not."""
    return [p for p in programs if not shutil.which(p)]
