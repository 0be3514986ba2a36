# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that nobody should send, by a guest that does not care into every back end, and from there back. They are
drawn anew in each run, which prints the seed; FRAMES_SEED=N draws those of another one."""
import contextlib
import ctypes
import json
import os
import random
import select
import socket
import struct
import subprocess
import time

import pytest
from test_native_nets import host, inside, listening, malformed, need, wait_for  # noqa: F401 (a fixture)
from test_native_switch import UmlClient, switch, vde_put

GUEST, PEER, ALL = bytes.fromhex("525400123456"), bytes.fromhex("020000000001"), b"\xff" * 6
NEEDS_CSUM, TCP4, UDP, TCP6, UDP_L4, ECN = 1, 1, 3, 4, 5, 0x80
HDR, FRAME_MIN, FRAME_MAX, ROOM = 12, 14, 65562, 1 << 17
DRAWN, SECONDS = 400, 180
GROUP, PORT = "239.192.168.9", 1109


@pytest.fixture
def draw():
    seed = int(os.environ.get("FRAMES_SEED") or random.randrange(1 << 32))
    print(f"FRAMES_SEED={seed}")
    return random.Random(seed)


def header(flags=0, gso=0, hdr_len=0, size=0, start=0, off=0):
    """virtio 1.2, 5.1.6: struct virtio_net_hdr."""
    return struct.pack("<BBHHHHH", flags, gso, hdr_len, size, start, off, 0)


def no_frame(record):
    """Whether a card has to refuse what a driver offers so (5.1.6.2, "Driver Requirements: Packet Transmission")."""
    if len(record) < HDR:
        return True
    flags, gso, _, size, start, off, _ = struct.unpack("<BBHHHHH", record[:HDR])
    n, gso = len(record) - HDR, gso & ~ECN
    if not FRAME_MIN <= n <= FRAME_MAX or flags & NEEDS_CSUM and start + off + 2 > n:
        return True
    return bool(gso) and (gso not in (TCP4, TCP6, UDP_L4) or not size or not flags & NEEDS_CSUM)


def good_frames(scapy):
    ether = scapy.Ether(src=GUEST, dst=PEER)
    four, six = scapy.IP(src="10.0.2.15", dst="10.0.2.2"), scapy.IPv6(src="fec0::15", dst="fec0::2")
    load = bytes(range(200))
    return [bytes(f) for f in (
        ether / four / scapy.TCP(dport=9) / load, ether / six / scapy.TCP(dport=9) / load, ether / four / scapy.UDP(dport=69) / load, ether / six / scapy.UDP(dport=53) / load,
        ether / four / scapy.ICMP() / load, ether / six / scapy.ICMPv6EchoRequest() / load, ether / scapy.ARP(pdst="10.0.2.2"), ether / six / scapy.ICMPv6ND_NS(tgt="fec0::2"),
        ether / four / scapy.UDP(sport=68, dport=67) / scapy.BOOTP(chaddr=GUEST) / scapy.DHCP(options=[("message-type", "discover"), "end"]),
        ether / scapy.Dot1Q(vlan=5) / four / scapy.TCP(dport=9) / load, ether / scapy.Dot1AD(vlan=5) / scapy.Dot1Q(vlan=6) / six / scapy.UDP(dport=9) / load)]


def drawn_header(draw, frame):
    """What a driver may ask for, right often enough that it is carried out."""
    near = lambda *right: draw.choice(right) if draw.random() < 0.9 else draw.randrange(1 << 16)
    gso = draw.choice((0, 0, 0, 0, TCP4, TCP6, UDP_L4, UDP, draw.randrange(256)))
    flags = draw.choice((0, NEEDS_CSUM, NEEDS_CSUM, draw.randrange(256)) if not gso else (NEEDS_CSUM, NEEDS_CSUM, NEEDS_CSUM, draw.randrange(256)))
    return header(flags, gso, near(0, 54, 74, len(frame)), near(0, 100, 1448), near(34, 54, 38, 0, len(frame) - 2), near(16, 6, 0, 2))


def drawn_frame(draw, good):
    f = bytearray(draw.choice(good))
    if draw.random() < 0.2:
        f += bytes(draw.choice((1, 1300, 4000, 9000, 60000)))
    for _ in range(draw.choice((0, 1, 1, 4, 30))):
        at = draw.randrange(12, min(len(f), 90))  # the addresses stay: switches shall not believe in a loop
        f[at] = draw.choice((0, 1, 0x7f, 0x80, 0xff, draw.randrange(256)))
    if draw.random() < 0.3:
        del f[draw.randrange(12, len(f)):]
    return bytes(f)


def corpus(scapy, draw, headers=True):
    """What a driver hands to its card: a header and a frame, or neither. Fewer where the card has no @headers."""
    good = good_frames(scapy)
    swap = lambda f: f[6:12] + f[:6] + f[12:]
    records = [header() + swap(f) for f in malformed(scapy)]
    records += [b"\0", header()[:11], header(), header() + b"x", header() + PEER + GUEST, header() + (PEER + GUEST + b"\x08\0").ljust(FRAME_MAX, b"\x45"),
                header() + bytes(FRAME_MAX + 1), header(NEEDS_CSUM) + bytes(ROOM - HDR)]
    if not headers:
        return records + [header() + drawn_frame(draw, good) for _ in range(DRAWN // 3)]
    # Each wrong in one thing: a checksum outside, one over nothing, segments without size, of the other family, one byte each, of what is no TCP.
    tcp4, tcp6, udp4 = good[0], good[1], good[2]
    for gso, f, start, off in ((TCP4, tcp4, 34, 16), (TCP6, tcp6, 54, 16), (UDP_L4, udp4, 34, 6), (TCP6, tcp4, 34, 16), (TCP4, tcp6, 54, 16),
                               (UDP_L4, tcp4, 34, 16), (TCP4, good[6], 14, 0), (UDP, udp4, 34, 6)):
        long = f + bytes(3000)
        records += [header(flags, kind, hdr_len, size, s, o) + long for flags, kind, hdr_len, size, s, o in (
            (NEEDS_CSUM, gso, 54, 1448, start, off), (NEEDS_CSUM, gso, 0, 0, start, off), (0, gso, 54, 1448, start, off), (NEEDS_CSUM, gso | ECN, 0xffff, 1, start, off),
            (NEEDS_CSUM, gso, 54, 0xffff, start, off), (NEEDS_CSUM, gso, 54, 8, 0, 0), (NEEDS_CSUM, 0, 0, 0, len(long) - 2, 0), (NEEDS_CSUM, 0, 0, 0, len(long) - 1, 0),
            (NEEDS_CSUM, 0, 0, 0, 0xffff, 0xffff), (NEEDS_CSUM, gso, 54, 1448, start, len(long) - start - 1))]
    for _ in range(DRAWN):
        f = drawn_frame(draw, good)
        records.append(drawn_header(draw, f) + f)
    draw.shuffle(records)
    return records


def archive(path, records, draw):
    """For the guest: a length, where a second descriptor begins, and what is in them."""
    with open(path, "wb") as f:
        for r in records:
            f.write(struct.pack("<II", len(r), draw.choice((0, 0, draw.randrange(len(r))))) + r)
    return path


class Packets:
    """A back end's other end: frames one by one."""

    def __init__(self, end, to=None):
        self.end, self.to = end, to

    def put(self, frame):
        if self.to:
            self.end.sendto(frame, self.to)
        else:
            self.end.send(frame)

    def get(self, seconds):
        return self.take() if select.select([self.end], [], [], seconds)[0] else None

    def take(self):
        return self.end.recv(70000)


class Tap(Packets):
    def take(self):
        got, where = self.end.recvfrom(70000)
        return None if where[2] == socket.PACKET_OUTGOING else got


class Stream(Packets):
    def put(self, frame):
        self.end.sendall(struct.pack(">I", len(frame)) + frame)

    def take(self):
        if not (head := self.end.recv(4, socket.MSG_WAITALL)):
            time.sleep(0.1)  # the end
            return None
        n, = struct.unpack(">I", head)
        assert 0 < n <= FRAME_MAX
        return self.end.recv(n, socket.MSG_WAITALL)


class Plug(Packets):
    """vde_plug's input and output: a length and a frame, as a pipe cuts them."""

    def __init__(self, end, to):
        super().__init__(end, to)
        self.rest = bytearray()

    def put(self, frame):
        vde_put(self.to, frame)

    def get(self, seconds):
        while len(self.rest) < 2 or len(self.rest) < (whole := 2 + int.from_bytes(self.rest[:2], "big")):
            if not select.select([self.end], [], [], seconds)[0]:
                return None
            if not (more := os.read(self.end.fileno(), 1 << 16)):
                time.sleep(0.1)  # the end
                return None
            self.rest += more
        frame = bytes(self.rest[2:whole])
        del self.rest[:whole]
        return frame


@contextlib.contextmanager
def at_tap(host, lodge):
    host("ip", "tuntap", "add", "lt0", "mode", "tap")
    host("sysctl", "-qw", "net.ipv6.conf.lt0.disable_ipv6=1", check=False)
    host("ip", "link", "set", "lt0", "up", "mtu", "9100")
    with inside(host):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        end.bind(("lt0", 3))
    yield "tap=lt0", lambda: Tap(end)
    end.close()


@contextlib.contextmanager
def at_dgram(host, lodge):
    mine, theirs = str(lodge.home / "a"), str(lodge.home / "b")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(mine)
        yield f"dgram=unix:{mine},local=unix:{theirs}", lambda: Packets(end, theirs)


@contextlib.contextmanager
def at_stream(host, lodge):
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as stack:
        server.bind(str(lodge.home / "a"))
        server.listen()
        yield f"stream=unix:{lodge.home}/a", lambda: Stream(stack.enter_context(server.accept()[0]))


@contextlib.contextmanager
def at_mcast(host, lodge):
    with inside(host):
        end, out = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        end.bind((GROUP, PORT))
        lo = socket.inet_aton(GROUP) + socket.inet_aton("127.0.0.1")
        end.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, lo)
        out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        out.bind(("127.0.0.1", 0))

    class Group(Packets):
        def put(self, frame):
            out.sendto(frame, (GROUP, PORT))

        def take(self):
            got, where = end.recvfrom(70000)
            return None if where == out.getsockname() else got
    yield f"mcast={GROUP}:{PORT},interface=lo", lambda: Group(end)
    end.close()
    out.close()


@contextlib.contextmanager
def at_switch(host, lodge):
    with switch(lodge, "f", "--listen", f"uml:{lodge.home}/f"), contextlib.closing(UmlClient(lodge.home / "f")) as end:
        yield "switch=f", lambda: end


@contextlib.contextmanager
def at_daemon(host, lodge):
    need("uml_switch")
    host.popen("uml_switch", "-unix", str(lodge.home / "u"))
    listening(lodge.home / "u")
    with inside(host):  # addresses of its sockets belong to its namespace
        end = UmlClient(lodge.home / "u")
    with contextlib.closing(end):
        yield f"daemon={lodge.home}/u", lambda: end


@contextlib.contextmanager
def at_vde(host, lodge):
    need("vde_switch", "vde_plug")
    folder = lodge.home / "v"
    host.popen("vde_switch", "-s", str(folder), "-M", str(lodge.home / "m"))
    listening(folder / "ctl")
    p = subprocess.Popen(["vde_plug", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=host.enter)
    yield f"vde={folder}", lambda: Plug(p.stdout, p)
    p.kill()
    p.communicate()


class Guest:
    """netbench, or another one, with the frames that it is to send."""

    def __init__(self, lodge, host, guests, frames, net, kernel="netbench"):
        self.lodge, self.log = lodge, lodge.home / "console"
        self.p = lodge.popen("run", "f1", "--quiet", "--kernel", guests / kernel, "--append", "frames", "--initrd", frames, "--memory", "64M", "--net", net, "--debug-exit",
                             "--console", f"file:{self.log}", preexec_fn=host.enter)
        wait_for("a guest", lambda: self.log.exists() or self.p.poll() is not None)
        assert self.p.poll() is None, self.p.communicate()

    def said(self, what):
        """The line that begins so, if it was said by now."""
        text = self.log.read_bytes()
        assert self.p.poll() is None and b"FAIL" not in text, (text, self.p.poll() is not None and (self.p.poll(), self.p.communicate()))
        return next((line for line in text.splitlines(True) if line.startswith(what) and line.endswith(b"\n")), None)

    def net(self):
        r = self.lodge("net", "f1", "--json")
        assert r.status == 0, r.err
        return json.loads(r.out)["networks"][0]

    def ends(self, *statuses):
        out, err = self.p.communicate(timeout=SECONDS)
        assert self.p.returncode in statuses, (self.p.returncode, out, err)
        assert b"runtime error" not in err and b"Sanitizer" not in err, err.decode(errors="replace")


def drops(net):
    return {d["reason"]: d["frames"] for d in net["drops"]}


def mark(to, by, text):
    return (to + by + b"\x88\xb5" + text).ljust(60, b"\0")


def put(peer, frame):
    """Where the cable takes it: it is longer than others', or full."""
    with contextlib.suppress(OSError, AssertionError):
        peer.put(frame)


def until(what, peer, seen, often=lambda: None):
    """Read all that comes until @seen says so of it, and do @often each second meanwhile: cables lose frames."""
    end = time.monotonic() + SECONDS
    often()
    while not seen(got := peer.get(1)):
        assert time.monotonic() < end, f"{what} in {SECONDS} s"
        if not got:
            often()


ENDS = {"tap": at_tap, "dgram": at_dgram, "stream": at_stream, "mcast": at_mcast, "switch": at_switch, "daemon": at_daemon, "vde": at_vde}
# Which get what is left to be done with the frame.
OFFLOADS = ("tap", "switch")
# What does not fit there is refused by name; a stream takes all.
TOO_LONG = {"daemon": "too long for the other end", "vde": "too long for the other end", "tap": "refused by the host"}


def no_frame_of_ne2000(record):
    """A card without headers takes 16 bits of length, and sends what is a frame with a tag at most."""
    return not FRAME_MIN <= min(len(record) - HDR, 0xffff) <= 1518


def no_frame_of_pcnet(record):
    """MCNT has 12 bits, with the check sequence."""
    return not FRAME_MIN <= max(len(record) - HDR, 1) <= 4091


# Model -> (its guest, what it refuses)
CARDS = {"virtio": ("netbench", no_frame), "ne2k_pci": ("ne2000", no_frame_of_ne2000), "ne2k_isa": ("ne2000", no_frame_of_ne2000), "pcnet": ("pcnet", no_frame_of_pcnet)}
# What an old card sends takes its way by the same wire: one for each back end, and all of them where there is time.
OLD = {"tap": "pcnet", "dgram": "ne2k_isa", "stream": "ne2k_pci", "mcast": "ne2k_pci", "switch": "pcnet", "daemon": "ne2k_pci", "vde": "ne2k_isa"}
CASES = [(card, name) for name in ENDS for card in (CARDS if "LODGE_TEST_LONG" in os.environ else ("virtio", OLD[name]))]


@pytest.mark.parametrize("card,name", CASES)
def test_from_guest(card, name, host, lodge, guests, draw):
    """All that it sends, then what nobody should send to it, then a good one each way; what was refused is counted,
    by its reason."""
    scapy = pytest.importorskip("scapy.all", reason="no scapy here; scripts/deps test installs it")
    records = corpus(scapy, draw, card == "virtio")
    kernel, no_frame_of = CARDS[card]
    refused = sum(map(no_frame_of, records))
    frames = archive(lodge.home / "frames", records, draw)
    with ENDS[name](host, lodge) as (net, peer_of):
        g = Guest(lodge, host, guests, frames, f"{net},mac=52:54:00:12:34:56,model={card}", kernel)
        peer = peer_of()
        until("all is sent", peer, lambda _: g.said(b"sent"))
        assert int(g.said(b"sent").split()[1]) == len(records)
        for f in malformed(scapy):
            put(peer, f)
        here, back = mark(GUEST, PEER, b"a good one"), mark(PEER, GUEST, b"a good one")
        until("there and back", peer, lambda got: got and got[:len(back)] == back, lambda: put(peer, here))
        n = g.net()
        why = drops(n)
        assert why["of a wrong length or header"] >= refused and n["tx-frames"] + n["tx-dropped"] >= len(records), n
        assert card == "virtio" and name not in OFFLOADS or why["of a wrong length or header"] == refused, n
        assert card != "virtio" or name not in TOO_LONG or why[TOO_LONG[name]], n
        until("the end", peer, lambda _: g.p.poll() is not None, lambda: put(peer, mark(GUEST, PEER, b"bye")))
        g.ends(33)


@pytest.mark.parametrize("card", CARDS if "LODGE_TEST_LONG" in os.environ else ("virtio", "pcnet"))
def test_into_user(card, host, lodge, guests, draw):
    """libslirp, whose host still answers afterwards; what it is not given is counted."""
    scapy = pytest.importorskip("scapy.all", reason="no scapy here; scripts/deps test installs it")
    records = corpus(scapy, draw, card == "virtio")
    kernel, no_frame_of = CARDS[card]
    ask = scapy.Ether(src=GUEST, dst=ALL) / scapy.ARP(hwsrc=GUEST, psrc="10.0.2.15", pdst="10.0.2.2")
    frames = archive(lodge.home / "frames", [*records, *(header() + bytes(ask) for _ in range(64))], draw)
    pcap = lodge.home / "pcap"
    g = Guest(lodge, host, guests, frames, f"user,mac=52:54:00:12:34:56,pcap={pcap},model={card}", kernel)
    wait_for("all is sent", lambda: g.said(b"sent"), SECONDS)
    answer = bytes(scapy.Ether(src="52:55:0a:00:02:02", dst=GUEST) / scapy.ARP(op=2, hwsrc="52:55:0a:00:02:02", psrc="10.0.2.2"))[:32]
    wait_for("an answer", lambda: answer in pcap.read_bytes(), SECONDS)
    n = wait_for("all is counted", lambda: n if (n := g.net())["tx-frames"] + n["tx-dropped"] >= len(records) else None)
    why = drops(n)
    assert why["of a wrong length or header"] >= sum(map(no_frame_of, records)) and why["sent malformed"], n
    g.p.terminate()  # the power button, which nobody in the guest hears
    time.sleep(0.2)
    g.p.terminate()
    g.ends(0, 143)


CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000


class Resolving:
    """A host with name servers of its own."""

    def __init__(self, host, conf):
        self.host, self.conf = host, conf

    def enter(self):
        self.host.enter()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) or \
           libc.mount(bytes(self.conf), b"/etc/resolv.conf", None, MS_BIND, None):
            raise OSError(ctypes.get_errno(), "/etc/resolv.conf")


def dns_queries(scapy):
    """By IPv4 and by IPv6, to the name servers of its network; before, it makes itself known there."""
    ether = scapy.Ether(src=GUEST, dst=ALL)
    query = lambda port, name, kind: scapy.UDP(sport=port, dport=53) / scapy.DNS(rd=1, qd=scapy.DNSQR(qname=name, qtype=kind))
    return [bytes(ether / f) for f in (
        scapy.ARP(hwsrc=GUEST, psrc="10.0.2.15", pdst="10.0.2.3"),
        scapy.IPv6(src="fec0::15", dst="fec0::3") / scapy.ICMPv6ND_NS(tgt="fec0::3") / scapy.ICMPv6NDOptSrcLLAddr(lladdr=GUEST),
        scapy.IP(src="10.0.2.15", dst="10.0.2.3") / query(4004, "four.lodge.test", "A"),
        scapy.IPv6(src="fec0::15", dst="fec0::3") / query(4006, "six.lodge.test", "AAAA"))]


def answers(family, address):
    """Whether a name server takes connections there."""
    with socket.socket(family) as s:
        return s.connect_ex((address, 53)) == 0


@pytest.mark.parametrize("loopback", ["on", "off"])
def test_dns(loopback, host, lodge, guests, draw):
    """What the host's resolv.conf names answers the guest, on the host's loopback too: it is not the guest that goes there."""
    scapy = pytest.importorskip("scapy.all", reason="no scapy here; scripts/deps test installs it")
    need("dnsmasq")
    if not os.path.exists("/etc/resolv.conf"):
        pytest.skip("no /etc/resolv.conf here, in whose place another one could be put")
    conf, pcap = lodge.home / "resolv.conf", lodge.home / "pcap"
    conf.write_text("# comment\nsearch lodge.test\nnameserver 127.0.0.1\nnameserver ::1\n")
    host.popen("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=root", "--no-resolv", "--no-hosts", "--interface=lo", "--bind-interfaces",
               "--address=/four.lodge.test/192.0.2.7", "--address=/six.lodge.test/2001:db8::7")
    frames = archive(lodge.home / "frames", [header() + f for f in dns_queries(scapy)], draw)
    with inside(host):
        wait_for("a name server", lambda: all(answers(family, at) for family, at in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))))
    g = Guest(lodge, Resolving(host, conf), guests, frames, f"user,mac=52:54:00:12:34:56,host-loopback={loopback},pcap={pcap}")
    wait_for("both are asked", lambda: g.said(b"sent"), SECONDS)

    def heard():
        said = [f for f in scapy.rdpcap(str(pcap)) if f.haslayer(scapy.UDP) and f.haslayer(scapy.DNSRR)]
        return {(f[scapy.UDP].dport, f[scapy.DNSRR].rdata) for f in said if f.dst == GUEST.hex(":")}  # it sends back what comes
    wait_for("both are answered", lambda: heard() == {(4004, "192.0.2.7"), (4006, "2001:db8::7")})
