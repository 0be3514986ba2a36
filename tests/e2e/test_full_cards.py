# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's drivers on the network cards of an old PC move data with right checksums in both directions."""
import hashlib
import json
import os
import socketserver
import subprocess
import threading

import pytest
from conftest import running_lodge
from linux_guest import NET, initrd, kernel, words
from test_full_pc import CHUNK, FUNCTIONS, MIB, SECONDS, TIMES, run_guest

GUESTS = ("kernel-686", "busybox-686")
# Model -> (kernel, driver, bytes to the guest, bytes from it). An NE2000 exits for each word that it
# sends, where every exit is emulated twice: little for the slower ones. Debian's amd64 kernel has no driver for the ISA card.
CARDS = {"pcnet": ("stock", "pcnet32", 48 * MIB, 16 * MIB), "ne2k_pci": ("stock", "ne2k-pci", 7 * MIB, MIB),
         "ne2k_isa": ("686", "ne", MIB // 2, MIB // 16)}


class Peer:
    """A server on the host: GET N answers N bytes of @page over and over, PUT takes what comes and tells its sum."""

    def __init__(self, page, address="127.0.0.1", tell=None):
        """@tell: called at the word TELL, before that is answered."""
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                word, _, length = self.rfile.readline().decode().strip().partition(" ")
                if word == "GET":
                    for at in range(0, int(length), len(page)):
                        self.wfile.write(page[:int(length) - at])
                    return
                if word == "TELL":
                    tell()
                    return
                h = hashlib.md5()
                while data := self.rfile.read1(CHUNK):
                    h.update(data)
                self.wfile.write(h.hexdigest().encode() + b"\n")

        self.server = socketserver.ThreadingTCPServer((address, 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


ERROR_COUNTS = ("rx_errors", "tx_errors", "rx_crc_errors", "rx_frame_errors", "tx_carrier_errors", "collisions")
COMPLAINTS = f"""
for c in {" ".join(ERROR_COUNTS)}; do say $c $(cat /sys/class/net/eth0/statistics/$c); done
trouble 'NETDEV WATCHDOG|[Tt]imed out|mismatch|bogus|bad gso|[Tt]ransmit timed'
"""


def assert_no_complaints(said):
    counts = {name: said[name] for name in ERROR_COUNTS}
    assert counts == {name: ["0"] for name in counts}
    assert "trouble" not in said


def sum_of(page, length):
    """MD5 of @length bytes of @page over and over."""
    h = hashlib.md5()
    for at in range(0, length, len(page)):
        h.update(page[:length - at])
    return h.hexdigest()


CARD = """
insmod /modules/*-ne.ko io=0x300 irq=5 2> /dev/null # an ISA card does not say where it is
net; say driver $(basename $(readlink -f /sys/class/net/eth0/device/driver)); say mac $(cat /sys/class/net/eth0/address)
ping -c 3 -W 5 10.0.2.2 > /tmp/ping; took start
say got $(echo "GET $down" | nc 10.0.2.2 $port | md); took got
head -c 65536 /dev/urandom > /tmp/noise
stream() { local i=0; while [ $i -lt $up ]; do cat /tmp/noise; i=$((i + 65536)); done; }
say sent $(stream | md); say answer $({ echo PUT; stream; } | nc 10.0.2.2 $port); took sent
"""


@pytest.mark.parametrize("card", CARDS)
def test_network_card(card, tmp_path):
    flavour, driver, down, up = CARDS[card]
    down, up = down * TIMES, up * TIMES
    page = os.urandom(3 * MIB + 12345)
    peer = Peer(page)
    module = driver.replace("-", "_")
    out = run_guest(tmp_path, CARD + COMPLAINTS, "--net", f"user,model={card},mac=52:54:00:12:34:56", modules=("af_packet", module),
                    append=f"down={down} up={up} port={peer.port}", flavour=flavour)
    peer.close()
    said = out.said
    assert out.status == 0, out
    assert said["driver"] == [driver]
    assert said["mac"] == ["52:54:00:12:34:56"]
    assert said["got"] == [sum_of(page, down)]
    assert said["answer"] == said["sent"]
    assert_no_complaints(said)


QUEUES = """
ifconfig eth0 10.9.0.2 netmask 255.255.255.0 up
say queues "$(echo $(ls /sys/class/net/eth0/queues))"
head -c 65536 /dev/urandom > /tmp/noise
stream() { local i=0; while [ $i -lt $up ]; do cat /tmp/noise; i=$((i + 65536)); done; }
say sent $(stream | md)
for cpu in 1 2; do for n in 1 2; do # masks of the CPUs, each of which has a queue for what it sends
  taskset $cpu sh -c "echo 'GET $down' | nc 10.9.0.1 $port | md5sum" > /tmp/got$cpu$n &
  { echo PUT; stream; } | taskset $cpu nc 10.9.0.1 $port > /tmp/answer$cpu$n &
done; done; wait
for f in /tmp/got*; do say got $(cut -d ' ' -f 1 $f); done
for f in /tmp/answer*; do say answer $(cat $f); done
say told $(echo TELL | nc 10.9.0.1 $port)
ifconfig eth0 down; trouble 'NETDEV WATCHDOG|[Tt]imed out|bogus|bad gso'
"""


def ip(*words):
    subprocess.run(["ip", *words], check=True)


@pytest.mark.skipif(os.geteuid() or not os.path.exists("/dev/net/tun"), reason="a tap needs root and /dev/net/tun")
def test_pairs_of_queues(tmp_path):
    """A guest of two CPUs on a tap of two queues: both pairs of them carry its streams, both ways, whole."""
    page, tap, found = os.urandom(MIB + 12345), f"mq{os.getpid()}", []
    down, up = 2 * MIB * TIMES, MIB * TIMES

    def tell():
        r = subprocess.run([running["lodge"].path, "net", "queues", "--json"], env=running["lodge"].env, stdout=subprocess.PIPE, check=True)
        found.append(json.loads(r.stdout)["networks"][0])

    running = {}
    archive = initrd(tmp_path / "initrd", FUNCTIONS + QUEUES + "\nbye", NET, "cloud")
    ip("tuntap", "add", tap, "mode", "tap", "multi_queue")
    try:
        ip("addr", "add", "10.9.0.1/24", "dev", tap)
        ip("link", "set", tap, "up")
        peer = Peer(page, "10.9.0.1", tell)
        with running_lodge() as lodge:
            running["lodge"] = lodge
            r = lodge("run", "queues", "--kernel", kernel("cloud").path, "--initrd", archive, "--memory", "256M", "--cpus", "2", "--net", f"tap={tap},queues=auto",
                      "--append", f"console=ttyS0 quiet down={down} up={up} port={peer.port}", timeout=SECONDS)
        peer.close()
    finally:
        ip("link", "del", tap)
    print(r.out, r.err, found)
    said = words(r.out)
    assert r.status == 0
    assert said["queues"] == ["rx-0 rx-1 tx-0 tx-1"]
    assert said["got"] == [sum_of(page, down)] * 4
    assert said["answer"] == said["sent"] * 4
    queues = found[0]["queues"]
    assert [q["used"] for q in queues] == [True, True]
    assert all(q["rx-frames"] > 50 and q["tx-frames"] > 50 for q in queues), queues
    assert sum(q["rx-bytes"] for q in queues) <= found[0]["rx-bytes"]
    assert "trouble" not in said
