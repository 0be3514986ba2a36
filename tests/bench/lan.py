#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Two Linux guests on a switch: what iperf3 gets from one to the other, and how long a ping takes.

Lodge on its own switch and on uml_switch, QEMU on vde_switch, User-Mode Linux on uml_switch, in turn;
the guests of Lodge and QEMU have the same kernel, all have the same programs, and each side has the
best card that it knows (virtio).

  lan.py --lodge build-release/src/cli/lodge [--rounds 3] [--seconds 5] [--sides lodge,lodge-uml,qemu-vde,uml]
         [--json FILE]

Where this host has no hardware assist, run it inside tests/amdv/run.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
# pylint: disable=wrong-import-position
from linux_guest import add_programs, initrd, kernel

PINGS = 300
MODULES = ("virtio_pci", "virtio_net")
MEASURES = {"tcp": "TCP, Mbit/s", "udp": "UDP of 64 bytes, datagrams/s", "ping": "ping, us"}
GUEST = f"""
exec 2>&1
ip link set lo up; ip link set eth0 up
case $(cat /proc/cmdline) in
*lan.server*)
  ip addr add 10.9.0.1/24 dev eth0
  iperf3 -s > /dev/null ;;
*)
  ip addr add 10.9.0.2/24 dev eth0
  i=0; until ping -c 1 -W 1 10.9.0.1 > /dev/null && nc 10.9.0.1 5201 < /dev/null > /dev/null; do i=$((i + 1)); [ $i -lt 60 ] || bye; sleep 1; done
  sleep 1
  say tcp "$(iperf3 -c 10.9.0.1 -t $SECONDS -f m | grep receiver | sed 's/.*Bytes *//')"
  say udp "$(iperf3 -c 10.9.0.1 -t $SECONDS -u -l 64 -b 0 -f m | grep receiver)"
  say ping "$(ping -q -A -c {PINGS} 10.9.0.1 | tail -n 1)" ;;
esac
bye
"""


def sides(args, archive, tmp):
    """Name -> (what carries the frames, a guest's command line without its role)."""
    k, append = str(kernel("cloud").path), "console=ttyS0 quiet panic=-1 "
    lodge = [args.lodge, "run", "--quiet", "--memory", "160M", "--kernel", k, "--initrd", archive]
    qemu = [args.qemu, "-machine", "pc", "-accel", "kvm", "-cpu", "host", "-m", "160", "-nodefaults", "-no-user-config", "-display", "none",
            "-serial", "stdio", "-no-reboot", "-kernel", k, "-initrd", archive]
    uml, vde = f"{tmp}/uml.ctl", f"{tmp}/vde"
    uml_switch = ["uml_switch", "-unix", uml]
    return {
        "lodge": (None, lambda n: [*lodge, "--net", f"switch=lan,mac=52:54:00:00:00:0{n}", "--append", append]),
        "lodge-uml": (uml_switch, lambda n: [*lodge, "--net", f"daemon={uml},mac=52:54:00:00:00:0{n}", "--append", append]),
        "qemu-vde": (["vde_switch", "-s", vde], lambda n: [*qemu, "-netdev", f"vde,id=n,sock={vde}", "-device",
                                                           f"virtio-net-pci,netdev=n,romfile=,mac=52:54:00:00:00:0{n}", "-append", append]),
        "uml": (uml_switch, lambda n: ["linux.uml", "mem=160M", f"initrd={archive}", "con=null", "con0=null,fd:1", "console=tty0", "quiet", "panic=-1",
                                       f"umid=lan{n}", f"eth0=daemon,52:54:00:00:00:0{n},unix,{uml}", ""]),
    }


def last_word(argv, role):
    return [*argv[:-1], (argv[-1] + role).strip()]


def read_figures(text):
    """{measure: figure} of what the client said."""
    got = {}
    if m := re.search(r"^tcp: ([0-9.]+) Mbits", text, re.M):
        got["tcp"] = float(m[1])
    if m := re.search(r"^udp: .*?0\.00-([0-9.]+) +sec.*?([0-9]+)/([0-9]+) \(", text, re.M):
        got["udp"] = (int(m[3]) - int(m[2])) / float(m[1])
    if m := re.search(r"^ping: .*= [0-9.]+/([0-9.]+)/", text, re.M):
        got["ping"] = float(m[1]) * 1000
    return got


def run_once(carrier, guest, timeout):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = []
    try:
        if carrier:
            running.append(subprocess.Popen(carrier, stdin=subprocess.PIPE, **quiet))
            time.sleep(1)
        running.append(subprocess.Popen(last_word(guest(1), "lan.server"), stdin=subprocess.DEVNULL, **quiet))
        client = subprocess.Popen(last_word(guest(2), "lan.client"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        running.append(client)
        stop = threading.Timer(timeout, client.kill)
        stop.start()
        text = client.stdout.read().decode(errors="replace").replace("\r", "")
        stop.cancel()
    finally:
        for p in reversed(running):
            p.kill()
            p.wait()
    got = read_figures(text)
    if len(got) < len(MEASURES):
        sys.stderr.write(text[-1500:] + "\n")
    return got


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lodge", required=True)
    p.add_argument("--qemu", default="qemu-system-x86_64")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=int, default=5)
    p.add_argument("--sides")
    p.add_argument("--timeout", type=float, default=120)
    p.add_argument("--json")
    args = p.parse_args()
    tmp = tempfile.mkdtemp(prefix="lan.", dir="/dev/shm")
    os.environ.update(XDG_RUNTIME_DIR=tmp, XDG_STATE_HOME=tmp, XDG_CACHE_HOME=tmp, HOME=tmp)
    try:
        archive = initrd(f"{tmp}/initrd", GUEST.replace("$SECONDS", str(args.seconds)), MODULES)
        table = sides(args, add_programs(archive, shutil.which("iperf3")), tmp)
        chosen = args.sides.split(",") if args.sides else list(table)
        results = {s: {m: [] for m in MEASURES} for s in chosen}
        for i in range(args.rounds):
            for side in chosen:
                for m, figure in run_once(*table[side], args.timeout).items():
                    results[side][m].append(figure)
            print(f"round {i + 1}: { {s: {m: round(f[-1]) for m, f in r.items() if f} for s, r in results.items()} }", file=sys.stderr, flush=True)
        print(f"{'medians':32}" + "".join(f"{s:>12}" for s in chosen))
        for m, title in MEASURES.items():
            print(f"{title:32}" + "".join(f"{statistics.median(results[s][m]) if results[s][m] else float('nan'):12.0f}" for s in chosen))
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


main()
