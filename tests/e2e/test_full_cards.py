# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's drivers on the network cards of an old PC move data with right checksums in both directions."""
import hashlib
import os
import socketserver
import threading

import pytest
from test_full_pc import CHUNK, MIB, TIMES, run_guest

GUESTS = ("kernel-686", "busybox-686")
# Model -> (kernel, driver, bytes to the guest, bytes from it). An NE2000 exits for each word that it
# sends, where every exit is emulated twice: little for the slower ones. Debian's amd64 kernel has no driver for the ISA card.
CARDS = {"pcnet": ("stock", "pcnet32", 48 * MIB, 16 * MIB), "ne2k_pci": ("stock", "ne2k-pci", 7 * MIB, MIB),
         "ne2k_isa": ("686", "ne", MIB // 2, MIB // 16)}


class Peer:
    """A server on the host: GET N answers N bytes of @page over and over, PUT takes what comes and tells its sum."""

    def __init__(self, page):
        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                word, _, length = self.rfile.readline().decode().strip().partition(" ")
                if word == "GET":
                    for at in range(0, int(length), len(page)):
                        self.wfile.write(page[:int(length) - at])
                    return
                h = hashlib.md5()
                while data := self.rfile.read1(CHUNK):
                    h.update(data)
                self.wfile.write(h.hexdigest().encode() + b"\n")

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


CARD = """
insmod /modules/*-ne.ko io=0x300 irq=5 2> /dev/null # an ISA card does not say where it is
net; say driver $(basename $(readlink -f /sys/class/net/eth0/device/driver)); say mac $(cat /sys/class/net/eth0/address)
ping -c 3 -W 5 10.0.2.2 > /tmp/ping; took start
say got $(echo "GET $down" | nc 10.0.2.2 $port | md); took got
head -c 65536 /dev/urandom > /tmp/noise
stream() { local i=0; while [ $i -lt $up ]; do cat /tmp/noise; i=$((i + 65536)); done; }
say sent $(stream | md); say answer $({ echo PUT; stream; } | nc 10.0.2.2 $port); took sent
for c in rx_errors tx_errors rx_crc_errors rx_frame_errors tx_carrier_errors collisions; do say $c $(cat /sys/class/net/eth0/statistics/$c); done
trouble 'NETDEV WATCHDOG|[Tt]imed out|mismatch|bogus|[Tt]ransmit timed'
"""
ERROR_COUNTS = ("rx_errors", "tx_errors", "rx_crc_errors", "rx_frame_errors", "tx_carrier_errors", "collisions")


@pytest.mark.parametrize("card", CARDS)
def test_network_card(card, tmp_path):
    flavour, driver, down, up = CARDS[card]
    down, up = down * TIMES, up * TIMES
    page = os.urandom(3 * MIB + 12345)
    peer = Peer(page)
    module = driver.replace("-", "_")
    out = run_guest(tmp_path, CARD, "--net", f"user,model={card},mac=52:54:00:12:34:56", modules=("af_packet", module),
                    append=f"down={down} up={up} port={peer.port}", flavour=flavour)
    peer.close()
    said, h = out.said, hashlib.md5()
    for at in range(0, down, len(page)):
        h.update(page[:down - at])
    assert out.status == 0, out
    assert said["driver"] == [driver]
    assert said["mac"] == ["52:54:00:12:34:56"]
    assert said["got"] == [h.hexdigest()]
    assert said["answer"] == said["sent"]
    counts = {name: said[name] for name in ERROR_COUNTS if name in said}
    assert counts == {name: ["0"] for name in counts}
    assert "trouble" not in said
