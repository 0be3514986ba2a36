#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Throughput of an old PC's devices under Linux's own drivers, Lodge against QEMU.

Both sides boot the same kernel with the same initrd, memory and devices (the IDE disk of a PIIX3,
PCNet and NE2000 on PCI behind a user network), in turn. The guest says on its console where each
measure begins and ends; the host's clock runs between. The other ends of connections are here.

  devices.py --lodge build-release/src/cli/lodge [--rounds 5] [--only ide-read,...] [--scale 1]
             [--json FILE]

Where this host has no hardware assist, run it inside tests/amdv/run. As root it mounts debugfs, if
nobody has, and tells for each measure how often a MiB made the guest leave to the kernel (exits)
and to the process (to process), and what processor time the threads of the process took.
"""
import argparse
import collections
import glob
import json
import os
import pathlib
import re
import socket
import socketserver
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
# pylint: disable=wrong-import-position
from linux_guest import initrd, kernel

MIB = 1 << 20
BLOCK = bytes(range(256)) * 4096
MARK = re.compile(rb"^(begin|end): (\S+)\r?\n", re.M)
COUNTERS = {"exits": "exits", "to process": "host_state_reload", "I/O": "io_exits", "emulated": "insn_emulation"}
MODULES = ("ata_piix", "sd_mod", "af_packet", "pcnet32", "ne2k_pci", "pktgen")
FRAME_BYTES = 1514
# Name -> (MiB, what the guest does with $n of them)
MEASURES = {
    # Commands of 128 KiB, as a file that is read in order makes them: else their size depends on which pages dd happens to have.
    "ide-read": (128, "echo 128 > /sys/block/sda/queue/max_sectors_kb && dd if=/dev/sda of=/dev/null bs=1M count=$n iflag=direct"),
    "pcnet-in": (4, "card pcnet32 && echo GET $n | nc 10.0.2.2 $port > /dev/null"),
    "pcnet-out": (4, "card pcnet32 && { echo PUT; dd if=/dev/zero bs=64k count=$((n * 16)); } | nc 10.0.2.2 $port > /dev/null"),
    "pcnet-send": (2, "card pcnet32 && frames && echo start > /proc/net/pktgen/pgctrl"),
    "ne2k-in": (1, "card ne2k-pci && echo GET $n | nc 10.0.2.2 $port > /dev/null"),
    "ne2k-out": (1, "card ne2k-pci && { echo PUT; dd if=/dev/zero bs=64k count=$((n * 16)); } | nc 10.0.2.2 $port > /dev/null"),
}
GUEST = """
card() { # the only one that is up
  for e in /sys/class/net/eth*; do
    e=${e##*/}; ifconfig $e 0.0.0.0 down
    if [ $(basename $(readlink -f /sys/class/net/$e/device/driver)) = $1 ]; then mine=$e; fi
  done
  ip addr add 10.0.2.15/24 dev $mine; ip link set $mine up; ip route add default via 10.0.2.2; ping -c 2 -W 5 10.0.2.2 > /dev/null
}
frames() { # the kernel's own generator will hand $n MiB of full frames to the card, as fast as it takes them
  echo add_device $mine > /proc/net/pktgen/kpktgend_0
  for word in "count $((n * 1048576 / @FRAME@))" "pkt_size @FRAME@" "dst_mac 52:55:0a:00:02:02" "dst 10.0.2.2" "src_min 10.0.2.15" \
    "udp_dst_min $sink" "udp_dst_max $sink" "delay 0" "burst 1"; do
    echo $word > /proc/net/pktgen/$mine
  done
}
exec 2> /dev/null
i=0; while [ $i -lt 100 ] && [ ! -b /dev/sda ]; do sleep 0.1; i=$((i + 1)); done
"""


class Peer(socketserver.StreamRequestHandler):
    def handle(self):
        word, _, n = self.rfile.readline().decode().strip().partition(" ")
        if word == "GET":
            for _ in range(int(n)):
                self.wfile.write(BLOCK)
        else:
            while self.rfile.read1(MIB):
                pass
            self.wfile.write(b"done\n")


def guest_script(chosen, port, sink, scale):
    """@sink: a UDP port where nobody reads."""
    script = GUEST.replace("@FRAME@", str(FRAME_BYTES)) + f"sink={sink}\n"
    for name in chosen:
        mib, what = MEASURES[name]
        prepare, _, what = what.rpartition(" && ")
        script += f"n={mib * scale}; port={port}; {prepare or ':'}\nsay begin {name}; {what}; say end {name}\n"
    return script + "bye"


def sides(args, archive, disk):
    boot, append = ["-kernel", str(kernel("stock").path), "-initrd", archive], "console=ttyS0 quiet"
    return {
        "lodge": [args.lodge, "run", "--quiet", "--memory", "256M", "--kernel", boot[1], "--initrd", archive, "--append", append,
                  "--disk", f"{disk},format=raw,bus=ide", "--net", "user,model=pcnet", "--net", "user,model=ne2k_pci"],
        "qemu": [args.qemu, "-machine", "pc", "-accel", "kvm", "-cpu", "host,arch-capabilities=off", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none",
                 "-serial", "stdio", "-no-reboot", *boot, "-append", append, "-drive", f"file={disk},format=raw,if=ide,file.locking=off",
                 "-netdev", "user,id=a", "-device", "pcnet,netdev=a,romfile=", "-netdev", "user,id=b", "-device", "ne2k_pci,netdev=b,romfile="],
    }


def counters(pid):
    """The kernel's counts of exits, and the processor seconds of each of the process's threads."""
    seen = collections.Counter()
    for folder in glob.glob(f"/sys/kernel/debug/kvm/{pid}-*"):
        for name, file in COUNTERS.items():
            path = pathlib.Path(folder, file)
            paths = [path] if path.exists() else pathlib.Path(folder).glob(f"vcpu*/{file}")
            seen[name] = sum(int(p.read_text()) for p in paths)
    tick = os.sysconf("SC_CLK_TCK")
    for stat in glob.glob(f"/proc/{pid}/task/*/stat"):
        text = pathlib.Path(stat).read_text()
        fields = text.rpartition(")")[2].split()
        user, system, guest = int(fields[11]), int(fields[12]), int(fields[40])
        thread = text[text.index("(") + 1:text.rindex(")")]
        seen["cpu " + thread] += (user + system) / tick
        if guest:
            seen["cpu inside the guest"] += guest / tick
    return seen


def run_once(argv, timeout):
    """{measure: (seconds, counters)} of one guest."""
    proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    stop = threading.Timer(timeout, proc.kill)
    stop.start()
    seen, at, begun, took = b"", 0, {}, {}
    while data := os.read(proc.stdout.fileno(), 65536):
        now, seen = time.monotonic(), seen + data
        while m := MARK.search(seen, at):
            at, name = m.end(), m[2].decode()
            if m[1] == b"begin":
                begun[name] = (now, counters(proc.pid))
            else:
                took[name] = (now - begun[name][0], counters(proc.pid) - begun[name][1])
    stop.cancel()
    if proc.wait() or not took:
        sys.stderr.write(seen[-2000:].decode(errors="replace") + "\n")
    return took


def report(results, chosen, scale, out):
    lodge, qemu = ({name: [t for t, _ in runs] for name, runs in results[s].items()} for s in ("lodge", "qemu"))
    print(f"{'measure':10} {'Lodge MiB/s':>12} {'QEMU MiB/s':>12} {'ratio':>6}   medians of {len(lodge[chosen[0]])} rounds", file=out)
    for name in chosen:
        mib = MEASURES[name][0] * scale
        if not lodge[name] or not qemu[name]:
            print(f"{name:10} was not finished", file=out)
            continue
        a, b = (mib / statistics.median(t[name]) for t in (lodge, qemu))
        print(f"{name:10} {a:12.2f} {b:12.2f} {a / b:6.2f}   seconds: {' '.join(f'{t:.2f}' for t in lodge[name])} | {' '.join(f'{t:.2f}' for t in qemu[name])}",
              file=out)
    print("\nFor each MiB, and what processor time the threads took in each second", file=out)
    for name in chosen:
        for side, runs in results.items():
            if not runs[name]:
                continue
            seconds, c = sorted(runs[name], key=lambda r: r[0])[len(runs[name]) // 2]
            per = "  ".join(f"{k} {c[k] / MEASURES[name][0] / scale:.0f}" for k in COUNTERS)
            cpu = "  ".join(f"{k[4:]} {v / seconds:.2f}" for k, v in c.items() if k.startswith("cpu "))
            print(f"{name:10} {side:6} {per}\n{'':18}{cpu}", file=out)
    out.flush()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lodge", required=True)
    p.add_argument("--qemu", default="qemu-system-x86_64")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--only", default=",".join(MEASURES))
    p.add_argument("--scale", type=int, default=1)
    p.add_argument("--timeout", type=float, default=300)
    p.add_argument("--json")
    args = p.parse_args()
    chosen = args.only.split(",")
    if os.geteuid() == 0 and not os.path.isdir("/sys/kernel/debug/kvm"):
        subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], check=False)
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Peer)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind(("127.0.0.1", 0))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as tmp:
        os.environ.update(XDG_RUNTIME_DIR=tmp, XDG_CACHE_HOME=tmp)
        archive = str(initrd(f"{tmp}/initrd", guest_script(chosen, server.server_address[1], sink.getsockname()[1], args.scale), MODULES, "stock"))
        with open(f"{tmp}/disk", "wb") as f:
            for _ in range(MEASURES["ide-read"][0] * args.scale if "ide-read" in chosen else 1):
                f.write(BLOCK)
        table = sides(args, archive, f"{tmp}/disk")
        results = {s: {name: [] for name in chosen} for s in table}
        for i in range(args.rounds):
            for side, argv in table.items():
                for name, r in run_once(argv, args.timeout).items():
                    results[side][name].append(r)
            if i + 1 < args.rounds:
                print(f"round {i + 1}:", {s: {n: f"{r[-1][0]:.2f} s" for n, r in runs.items() if r} for s, runs in results.items()}, file=sys.stderr, flush=True)
        report(results, chosen, args.scale, sys.stdout)
        if args.json:
            with open(args.json, "w", encoding="utf-8") as f:
                json.dump(results, f, indent=1)
    server.shutdown()


main()
