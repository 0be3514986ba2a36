#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP in bulk between a Linux guest behind a user network and the host's loopback, both ways.

Lodge and QEMU by libslirp, and both by passt, in turn; same kernel, initrd and card (virtio). The guest
runs iperf3 against 10.0.2.2, that is, against an iperf3 of this host.

  user_net.py --lodge build-release/src/cli/lodge [--rounds 3] [--seconds 5]
              [--sides lodge,lodge-9000,qemu,lodge-passt,qemu-passt] [--json FILE]

passt wants a network with a default route; where there is none, it is left out. Where this host has no
hardware assist, run it inside tests/amdv/run: tests/bench/user_net does, with a route for passt.
"""
import contextlib
import os
import pathlib
import re
import subprocess
import time

import turns

MODULES = ("virtio_pci", "virtio_net")
MEASURES = {"up": "TCP to the host, Mbit/s", "down": "TCP to the guest, Mbit/s", "up4": "4 streams to the host, Mbit/s", "down4": "4 streams to the guest, Mbit/s"}
WAIT_SECONDS = 10
GUEST = """
exec 2>&1
net
rate() { iperf3 -c 10.0.2.2 -t $SECONDS -f m "$@" | grep receiver | tail -n 1 | sed 's/.*Bytes *//'; }
say mtu "$(cat /sys/class/net/eth0/mtu)"
say up "$(rate)"
say down "$(rate -R)"
say up4 "$(rate -P 4)"
say down4 "$(rate -P 4 -R)"
bye
"""


def sides(args, archive, sock):
    """Name -> (whether passt carries it, a guest's command line)."""
    card = ("-device", "virtio-net-pci,netdev=n,romfile=")
    return {
        "lodge": (False, turns.lodge_argv(args, archive, "--net", "user")),
        "lodge-9000": (False, turns.lodge_argv(args, archive, "--net", "user,mtu=9000")),
        "qemu": (False, turns.qemu_argv(args, archive, "-netdev", "user,id=n", *card)),
        "lodge-passt": (True, turns.lodge_argv(args, archive, "--net", f"stream=unix:{sock}")),
        "qemu-passt": (True, turns.qemu_argv(args, archive, "-netdev", f"stream,id=n,server=off,addr.type=unix,addr.path={sock}", *card)),
    }


@contextlib.contextmanager
def passt(sock):
    """passt, with the addresses that libslirp's guests have, and the host's loopback as the gateway."""
    argv = ["passt", "--foreground", "--quiet", "--socket", sock, "--address", "10.0.2.15", "--netmask", "24", "--gateway", "10.0.2.2", "--ipv4-only",
            *(["--runas", "0"] if os.getuid() == 0 else [])]  # who else cannot make a socket in our folder
    with turns.running(argv):
        end = time.monotonic() + WAIT_SECONDS
        while not pathlib.Path(sock).exists() and time.monotonic() < end:
            time.sleep(0.05)
        yield
    pathlib.Path(sock).unlink(missing_ok=True)


def read_figures(text):
    return {m[1]: float(m[2]) for m in re.finditer(r"^(up4?|down4?): ([0-9.]+) Mbits", text, re.M)}


def has_route():
    return bool(subprocess.run(["ip", "-4", "route", "show", "default"], stdout=subprocess.PIPE, check=False).stdout)


def main():
    args = turns.arguments(__doc__).parse_args()
    with turns.scratch("user_net") as tmp, turns.running(["iperf3", "-s", "-B", "127.0.0.1"]):
        sock = f"{tmp}/passt"
        table = sides(args, turns.archive_of(args, tmp, GUEST, MODULES, "iperf3"), sock)
        names = turns.chosen(args, table)
        if turns.need("passt") or not has_route():
            names = [n for n in names if not table[n][0]]

        def run_once(side, _):
            by_passt, argv = table[side]
            with passt(sock) if by_passt else contextlib.nullcontext():
                text = turns.console(argv, args.timeout)
            return read_figures(text), text

        results = turns.take_turns(args, names, MEASURES, run_once)
    turns.report(results, MEASURES, [("lodge", "qemu"), ("lodge-9000", "qemu"), ("lodge", "lodge-passt"), ("lodge-passt", "qemu-passt")])


main()
