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
import re
import time

import turns

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
    uml, vde = f"{tmp}/uml.ctl", f"{tmp}/vde"
    uml_switch = ["uml_switch", "-unix", uml]
    return {
        "lodge": (None, lambda n: turns.lodge_argv(args, archive, "--net", f"switch=lan,mac=52:54:00:00:00:0{n}")),
        "lodge-uml": (uml_switch, lambda n: turns.lodge_argv(args, archive, "--net", f"daemon={uml},mac=52:54:00:00:00:0{n}")),
        "qemu-vde": (["vde_switch", "-s", vde], lambda n: turns.qemu_argv(args, archive, "-netdev", f"vde,id=n,sock={vde}", "-device",
                                                                          f"virtio-net-pci,netdev=n,romfile=,mac=52:54:00:00:00:0{n}")),
        "uml": (uml_switch, lambda n: turns.uml_argv(archive, f"umid=lan{n}", f"eth0=daemon,52:54:00:00:00:0{n},unix,{uml}")),
    }


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


def main():
    args = turns.arguments(__doc__).parse_args()
    with turns.scratch("lan") as tmp:
        table = sides(args, turns.archive_of(args, tmp, GUEST, MODULES, "iperf3"), tmp)

        def run_once(side, _):
            carrier, guest = table[side]
            with turns.running(carrier):
                time.sleep(1 if carrier else 0)
                with turns.running(turns.append_word(guest(1), "lan.server")):
                    text = turns.console(turns.append_word(guest(2), "lan.client"), args.timeout)
            return read_figures(text), text

        results = turns.take_turns(args, turns.chosen(args, table), MEASURES, run_once)
    turns.report(results, MEASURES, [("lodge", "qemu-vde"), ("lodge", "uml"), ("lodge-uml", "uml")])


main()
