# SPDX-License-Identifier: GPL-2.0-or-later
"""Much data by every card and back end, there and back: a guest that sends back what comes, and every byte of it
compared. LODGE_TEST_LONG=1 takes 1 GiB each way through virtio."""
import contextlib
import os
import random
import socket
import struct
import time

import pytest
from test_native_frames import CARDS, ENDS, GUEST, PEER, Guest, Packets, archive, at_stream, drops, header, inside, mark, put, until
from test_native_nets import host, wait_for  # noqa: F401 (a fixture)

MIB = 1 << 20
LONG = "LODGE_TEST_LONG" in os.environ
# Old cards exit for each word or descriptor, all of them in emulated kernel mode.
BYTES = {"virtio": (1 << 30) if LONG else 16 * MIB, "pcnet": MIB * 4 if LONG else MIB // 8, "ne2k_pci": MIB if LONG else MIB // 16, "ne2k_isa": MIB if LONG else MIB // 16}
SECONDS = 900
# Frames under way: the queues of some sockets take no more (net.unix.max_dgram_qlen; a group hears itself), others 64.
SHORT, WINDOW = ("dgram", "mcast", "switch", "daemon"), {True: 8, False: 64}
DATA = 1464  # with a number and the heads of UDP over IPv4 1,500
HEAD = GUEST + PEER + b"\x88\xb5"
BACK = PEER + GUEST + b"\x88\xb5"
ADDRESS, PORT = "10.0.2.15", 5007
ARP = b"\xff" * 6 + GUEST + bytes.fromhex("08060001080006040001") + GUEST + socket.inet_aton(ADDRESS) + bytes(6) + socket.inet_aton("10.0.2.2")


class Datagrams(Packets):
    """Of a port that leads into a user network: what is in the frames, without their heads."""

    def put(self, frame):
        self.end.send(frame[len(HEAD):])

    def take(self):
        return BACK + super().take()


@contextlib.contextmanager
def at_user(host, lodge):
    with inside(host):
        end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with end:
        end.connect(("127.0.0.1", PORT))
        yield f"user,hostfwd=udp:127.0.0.1:{PORT}-{ADDRESS}:7", lambda: Datagrams(end)


class Carrier:
    """Sends numbered frames, @window of them under way, those that were lost again, and takes each that comes back once."""

    def __init__(self, peer, length, window):
        self.peer, self.window, self.page = peer, window, os.urandom(MIB)
        self.under_way, self.next, self.count, self.lost, self.strange = {}, 0, -(-length // DATA), 0, 0

    def frame(self, n):
        at = n * DATA % (len(self.page) - DATA)
        return HEAD + struct.pack("<Q", n) + self.page[at:at + DATA]

    def fill(self):
        while len(self.under_way) < self.window and self.next < self.count:
            f = self.under_way[self.next] = self.frame(self.next)
            self.next += 1
            self.peer.put(f)

    def take(self, got):
        n = struct.unpack_from("<Q", got, len(HEAD))[0] if got[:len(BACK)] == BACK and len(got) > len(HEAD) + 8 else None
        f = self.under_way.get(n)
        if not f:
            self.strange += got[:len(BACK)] == BACK and (n is None or n >= self.next)
        elif got[len(BACK):] == f[len(HEAD):]:
            del self.under_way[n]
        else:
            self.strange += 1

    def run(self):
        end = time.monotonic() + SECONDS
        heard = time.monotonic()
        while self.next < self.count or self.under_way:
            now = time.monotonic()
            assert now < end, f"{self.next} of {self.count} frames in {SECONDS} s, {self.lost} of them twice"
            self.fill()
            if got := self.peer.get(1):
                self.take(got)
                heard = now
            elif now - heard > 1:  # not just one's own frame, which a group's members hear too
                self.lost += len(self.under_way)
                for f in self.under_way.values():
                    put(self.peer, f)
                heard = now


CASES = [("virtio", name) for name in ("user", *ENDS)] + [("pcnet", "tap"), ("ne2k_pci", "stream"), ("ne2k_isa", "switch")]


@pytest.mark.parametrize("card,name", CASES)
def test_bulk(card, name, host, lodge, guests):
    """What the guest got is what it sent, and both are what went in."""
    frames = archive(lodge.home / "frames", [header() + ARP.ljust(60, b"\0")], random.Random(0))
    with (at_user if name == "user" else ENDS[name])(host, lodge) as (net, peer_of):
        g = Guest(lodge, host, guests, frames, f"{net},mac=52:54:00:12:34:56,model={card}", CARDS[card][0])
        peer = peer_of()
        wait_for("the guest listens", lambda: g.said(b"sent"), SECONDS)
        c = Carrier(peer, BYTES[card], WINDOW[name in SHORT or card != "virtio"])
        started = time.monotonic()
        c.run()
        seconds = time.monotonic() - started
        n = g.net()
        print(f"{card} {name}: {c.count * DATA >> 10} KiB each way in {seconds:.1f} s, {c.lost} frames lost, {drops(n)}")
        assert c.strange == 0
        assert n["rx-bytes"] >= c.count * DATA and n["tx-bytes"] >= c.count * DATA
        until("the end", peer, lambda _: g.p.poll() is not None, lambda: put(peer, mark(GUEST, PEER, b"bye")))
        g.ends(33)
