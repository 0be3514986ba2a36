# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks with programs that others wrote at the other end. Namespaces that the tests make stand for hosts."""
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 2, 0x100, 0x1000, 0x4000
ECHO, ASK = "10.9.0.2", "10.9.0.3"


def need(*programs):
    for p in programs:
        if not shutil.which(p, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            pytest.skip(f"no {p} here; scripts/deps test installs it")


class Host:
    """A network namespace, and what runs in it."""

    def __init__(self, name):
        self.name = name
        self.children = []
        subprocess.run(["ip", "netns", "add", name], check=True)
        self("ip", "link", "set", "lo", "up", "multicast", "on")
        self("ip", "route", "add", "224.0.0.0/4", "dev", "lo")

    def enter(self):
        fd = os.open(f"/var/run/netns/{self.name}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(fd)

    def __call__(self, *args, check=True, **kw):
        return subprocess.run(args, preexec_fn=self.enter, check=check, capture_output=True, text=True, timeout=60, **kw)

    def popen(self, *args, **kw):
        p = subprocess.Popen(args, preexec_fn=self.enter, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kw)
        self.children.append(p)
        return p

    def close(self):
        for p in self.children:
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
            p.stdin.close()  # vde_switch ends at the end of its input
        subprocess.run(["ip", "netns", "del", self.name], check=False)


@pytest.fixture
def host():
    if os.geteuid() or not pathlib.Path("/dev/net/tun").exists():
        pytest.skip("network namespaces and taps need root and /dev/net/tun")
    h = Host(f"lt-{os.getpid()}")
    try:
        yield h
    finally:
        h.close()


@contextlib.contextmanager
def inside(host):
    back = os.open("/proc/self/ns/net", os.O_RDONLY)
    host.enter()
    try:
        yield
    finally:
        assert not ctypes.CDLL(None).setns(back, CLONE_NEWNET)
        os.close(back)


def wait_for(what, fn, seconds=30):
    end = time.monotonic() + seconds
    while not (value := fn()):
        assert time.monotonic() < end, f"{what} in {seconds} s"
        time.sleep(0.02)
    return value


def listening(path):
    def try_it():
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(str(path)) == 0
    return wait_for(f"nobody at {path}", try_it)


class Vm:
    """The guest netecho on a network of the namespace."""

    def __init__(self, lodge, host, guests, net, name, words, tmp_path, **kw):
        self.lodge, self.name = lodge, name
        self.log = tmp_path / f"{name}.log"
        self.p = lodge.popen("run", name, "--kernel", guests / "netecho", "--append", words, "--memory", "16M", "--net", net, "--debug-exit", "--console", "stdio",
                             stdout=open(self.log, "wb"), stderr=subprocess.STDOUT, preexec_fn=host.enter, **kw)

    def text(self):
        return self.log.read_text(errors="replace")

    def says(self, what, seconds=30):
        def look():
            assert what in self.text() or self.p.poll() is None, self.text()
            return what in self.text()
        wait_for(f"{self.name}: no {what!r}: {self.text()}", look, seconds)

    def passes(self, seconds=60):
        try:
            assert self.p.wait(seconds) == 33, self.text()
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} does not end: {self.text()}")

    def net(self):
        r = self.lodge("net", self.name, "--json")
        assert r.status == 0, r.err
        return json.loads(r.out)["networks"][0]


@pytest.fixture
def vm(lodge, host, guests, tmp_path):
    def make(net, name="echo", words=f"ip={ECHO}", **kw):
        return Vm(lodge, host, guests, net, name, words, tmp_path, **kw)
    return make


def asker(vm, net, n=3, name="ask", **kw):
    return vm(f"{net},mac=52:54:00:00:00:02", name, f"ip={ASK} ping={ECHO} n={n}", **kw)


def test_tap(host, vm, lodge, tmp_path):
    need("ping", "tcpdump")
    pcap = tmp_path / "all.pcap"
    host("ip", "tuntap", "add", "lt0", "mode", "tap")
    host("ip", "link", "add", "br0", "type", "bridge")
    host("ip", "addr", "add", "10.9.0.1/24", "dev", "br0")
    host("ip", "link", "set", "br0", "up")
    script = tmp_path / "up"
    script.write_text(f"#!/bin/sh\necho up $1 >> {tmp_path}/said\n")
    script.chmod(0o755)
    v = vm(f"tap=lt0,bridge=br0,up={script},pcap={pcap}")
    v.says("ready")
    assert (tmp_path / "said").read_text() == "up lt0\n"
    capture = lodge.popen("capture", "echo", "-c", "2", "-w", tmp_path / "some.pcap")
    piped = lodge.popen("capture", "echo:0", "-c", "2")
    ping = host("ping", "-c", "3", "-i", "0.2", "-W", "10", "-s", "1472", ECHO)
    assert "3 received" in ping.stdout, ping.stdout
    assert capture.wait(20) == 0
    flood = host("ping", "-f", "-c", "500", "-W", "10", ECHO)
    assert "500 received" in flood.stdout, flood.stdout
    (tmp_path / "piped.pcap").write_bytes(piped.communicate(timeout=20)[0])
    assert [len(host("tcpdump", "-nr", tmp_path / f"{name}.pcap").stdout.splitlines()) for name in ("some", "piped")] == [2, 2]
    n = v.net()
    assert n["link"] and n["tx-frames"] >= 4 and {"address": ECHO, "mac": n["mac"], "how": "arp"} in n["addresses"]
    # The interface goes, and comes back.
    host("ip", "link", "del", "lt0")
    v.says("net0: tap lt0: the interface is gone; trying again")
    assert not v.net()["link"]
    host("ip", "tuntap", "add", "lt0", "mode", "tap")
    v.says("net0: tap lt0: connected again")
    ping = host("ping", "-c", "1", "-W", "10", ECHO)
    assert "1 received" in ping.stdout, ping.stdout
    host("python3", "-c", f"import socket; socket.socket(2, 2).sendto(b'bye', ('{ECHO}', 9))")
    v.passes()
    assert v.text().count("is gone") == 1
    echo = host("tcpdump", "-nr", pcap, "icmp[icmptype] == icmp-echoreply").stdout
    assert echo.count("length 1480") == 3, echo


def test_tap_errors(host, lodge, guests):
    host("ip", "tuntap", "add", "lt1", "mode", "tap", "user", "root")

    # Opens /dev/kvm whatever its mode is, but has no right to networks.
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all,+dac_override",
              "--inh-caps", "-all,+dac_override", "--ambient-caps", "+dac_override")
    base = ("run", "--kernel", guests / "hello", "--memory", "16M", "--net")
    r = lodge(*base, "tap=lt1,bridge=none", preexec_fn=host.enter)
    assert r.status == 1 or r.status == 2
    assert "there is no bridge of that name; make it: sudo ip link add none type bridge" in r.err
    program = lodge.home / "lodge"
    shutil.copy(lodge.path, program)
    shutil.copy(guests / "hello", lodge.home / "hello")
    os.chmod(lodge.home, 0o755)
    run = lodge.home / "nobody"
    run.mkdir(mode=0o700)
    os.chown(run, 65534, 65534)
    host("ip", "tuntap", "add", "lt7", "mode", "tap", "user", "65534")
    for net, status, says in (("tap=lt1", 1, 'net \'net0\': tap "lt1": no right to it; make one of your own: sudo ip tuntap add lt1 mode tap user $USER && sudo ip link set lt1 up'),
                              ("host-only=lt1", 1, 'net \'net0\': switch lt1: cannot be started: tap "lt1": no right to it; make one of your own: sudo ip tuntap add lt1 mode tap user $USER && sudo ip link set lt1 up'),
                              ("tap=lt7", 33, "net0: lt7 is down; bring it up: sudo ip link set lt7 up"),
                              ("host-only=lt7", 33, "switch lt7: tap lt7 is down; bring it up: sudo ip link set lt7 up")):
        r = subprocess.run([*nobody, program, "run", "--kernel", lodge.home / "hello", "--memory", "16M", "--net", net, *(["--debug-exit"] if status == 33 else [])],
                           preexec_fn=host.enter, capture_output=True, text=True, timeout=60,
                           env=dict(lodge.env, HOME=str(run), XDG_RUNTIME_DIR=str(run), XDG_CACHE_HOME=str(run)), stdin=subprocess.DEVNULL)
        assert r.returncode == status and says in r.stderr and len(re.findall("^lodge: ", r.stderr, re.M)) == 1, (net, r)
    os.kill(int((run / "lodge" / ".switch" / ".lt7.lock").read_text()), signal.SIGTERM)
    wait_for("the switch does not end", lambda: not (run / "lodge" / ".switch").exists())


def test_tap_queues(host, vm, lodge, guests):
    """A driver that knows one pair of queues on a tap of three: the kernel gives it all frames, also when the interface came back."""
    tap = ("ip", "tuntap", "add", "lt2", "mode", "tap", "multi_queue")
    host(*tap)
    v = vm("tap=lt2,queues=3,rate=100M")
    v.says("ready")
    host("ip", "addr", "add", "10.9.0.1/24", "dev", "lt2")

    def answers(n):  # of as many flows: the kernel would spread them over the queues that it is told of
        for port in range(5001, 5001 + n):
            host("python3", "-c", f"import socket; socket.socket(2, 2).sendto(b'flow', ('{ECHO}', {port}))")
        ping = host("ping", "-c", "3", "-i", "0.2", "-W", "10", ECHO)
        assert "3 received" in ping.stdout, ping.stdout
        net = v.net()
        assert [q["used"] for q in net["queues"]] == [True, False, False]
        assert [q["rx-frames"] for q in net["queues"][1:]] == [0, 0]
        assert net["queues"][0]["rx-frames"] == net["rx-frames"] >= n + 4
        return net["rx-frames"]
    first = answers(12)
    assert "queues 1: not in use, received 0 frames" in lodge("net", "echo").out
    host("ip", "link", "del", "lt2")
    v.says("net0: tap lt2: the interface is gone; trying again")
    host(*tap)
    v.says("net0: tap lt2: connected again")
    wait_for("link", lambda: v.net()["link"])
    host("ip", "addr", "add", "10.9.0.1/24", "dev", "lt2")
    assert answers(12) >= first + 12
    host("python3", "-c", f"import socket; socket.socket(2, 2).sendto(b'bye', ('{ECHO}', 9))")
    v.passes()
    assert v.text().count("is gone") == 1


def test_tap_queues_errors(host, lodge, guests):
    host("ip", "tuntap", "add", "lt3", "mode", "tap")
    host("ip", "tuntap", "add", "lt4", "mode", "tap", "multi_queue")
    for net, why in (("tap=lt3,queues=2", 'tap "lt3": is there and has one queue; leave out queues, or make it again: sudo ip link delete lt3 && '
                      "sudo ip tuntap add lt3 mode tap multi_queue user $USER && sudo ip link set lt3 up"),
                     ("tap=lt4", 'tap "lt4": is there and is no tap of one queue; take another name'),
                     ("tap=lo", 'tap "lo": is there and is no tap; take another name'),
                     ("tap=lt3,bridge=lo", 'bridge "lo": is an interface, and no bridge; name another one'),
                     ("tap=a/b", 'tap "a/b": no name for an interface; it has 1 to 15 characters'),
                     ("tap=lo,queues=2", 'tap "lo": is there and is no tap; take another name'),
                     ("tap=lt4,queues=9", "queues '9' is not a number from 1 to 8"),
                     ("tap=lt4,queues=2,model=ne2k_pci", "this card has one pair of queues; leave out queues, or take model=virtio"),
                     ("user,queues=2", "--net: queues: user has one pair of queues; a tap has several, like tap=NAME,queues=2"),
                     ("tap,fd=77,fd=78", "fd '77' is not open")):
        r = lodge("run", "--kernel", guests / "hello", "--memory", "16M", "--net", net, preexec_fn=host.enter)
        assert r.status in (1, 2) and why in r.err and r.err.count("\n") == 1, r.err


def test_uml_switch(host, vm, lodge, tmp_path):
    need("uml_switch")
    ctl = lodge.home / "uml.ctl"
    start = lambda: host.popen("uml_switch", "-unix", str(ctl))
    switch = start()
    listening(ctl)
    v = vm(f"daemon={ctl}")
    v.says("ready")
    asker(vm, f"daemon={ctl}").passes()
    os.killpg(switch.pid, signal.SIGKILL)
    v.says(f"net0: daemon {ctl}: the other end has closed the connection; trying again")
    start()
    v.says(f"net0: daemon {ctl}: connected again")
    asker(vm, f"daemon={ctl}", name="ask2").passes()


def test_vde_switch(host, vm, lodge, tmp_path):
    need("vde_switch")
    folder = lodge.home / "vde"
    start = lambda: host.popen("vde_switch", "-s", str(folder), "-M", str(lodge.home / "mgmt"))
    switch = start()
    listening(folder / "ctl")
    v = vm(f"vde={folder},port=7")
    v.says("ready")
    asker(vm, f"vde={folder}").passes()
    os.killpg(switch.pid, signal.SIGKILL)
    v.says(f"net0: vde {folder}: the other end has closed the connection; trying again")
    start()
    v.says(f"net0: vde {folder}: connected again")
    asker(vm, f"vde={folder}", name="ask2").passes()


def test_stream(host, vm, lodge):
    path = lodge.home / "s"
    v = vm(f"stream=unix:{path},server=on")
    v.says("ready")
    assert not v.net()["link"]
    asker(vm, f"stream=unix:{path}").passes()
    v.says(f"net0: unix:{path}: the other end has closed the connection; the link is down")
    # A peer that stops in the middle of a frame, one that is out of its mind, and a good one again.
    for data, why in ((b"\0\0\0\x40" + 20 * b"x", "the other end has gone in the middle of a frame"), (b"\xff\xff\xff\xff", "the other end sent a length that no frame has")):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(path))
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            v.says(why)
    asker(vm, f"stream=unix:{path}", name="ask2").passes()


@pytest.mark.parametrize("host_of", ["127.0.0.1", "[::1]"], ids=["ip4", "ip6"])
def test_udp(host_of, host, vm):
    """Where the local end names no host it is of the other end's family."""
    v = vm(f"dgram=udp:{host_of}:7001,local=udp::7002")
    v.says("ready")
    asker(vm, f"dgram=udp:{host_of}:7002,local=udp:{host_of}:7001").passes()


@pytest.mark.parametrize("kind", ["stream", "dgram"])
def test_given_sockets(kind, host, vm, lodge, guests):
    """A pair that was made elsewhere is a cable; whose end goes is not sought."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM)
    with a, b:
        fd = a.fileno()
        v = vm(f"{kind},fd={fd}", pass_fds=[fd])
        v.says("ready")
        w = asker(vm, f"{kind},fd={b.fileno()}", pass_fds=[b.fileno()])
        r = lodge("run", "--kernel", guests / "hello", "--memory", "16M", "--net", f"{kind},fd={fd}", "--net", f"{kind},fd={fd}", pass_fds=[fd])
        assert r.status == 2 and f"net 'net1': fd '{fd}' is not open, or in use already; pass one to lodge" in r.err, r.err
    w.passes()
    if kind == "stream":
        v.says(f"net0: stream fd={fd}: the other end has closed the connection; the link is down")
        assert not v.net()["link"]


def tap_fd(host, name):
    """A queue of a tap of that host's."""
    with inside(host):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE))
    return fd


def test_given_taps(host, vm):
    """Descriptors of a tap that somebody else opened, as many as it has queues."""
    need("ping")
    host("ip", "tuntap", "add", "lt5", "mode", "tap", "multi_queue")
    fds = [tap_fd(host, "lt5") for _ in range(2)]
    v = vm("tap," + ",".join(f"fd={fd}" for fd in fds), pass_fds=fds)
    for fd in fds:
        os.close(fd)
    v.says("ready")
    host("ip", "addr", "add", "10.9.0.1/24", "dev", "lt5")
    host("ip", "link", "set", "lt5", "up")
    ping = host("ping", "-c", "3", "-i", "0.2", "-W", "10", ECHO)
    assert "3 received" in ping.stdout, ping.stdout
    assert [q["used"] for q in v.net()["queues"]] == [True, False]
    host("ip", "link", "del", "lt5")
    v.says("the interface is gone; the link is down")
    assert not v.net()["link"]


def test_mcast(host, vm):
    v = vm("mcast=239.192.168.1:1102,interface=lo")
    v.says("ready")
    asker(vm, "mcast=239.192.168.1:1102,interface=lo").passes()
    # A frame of one's own does not come back: what was received are the other's three and its question.
    assert v.net()["rx-frames"] == 4


def test_given_mcast(host, vm):
    """Two sockets that somebody else opened: one that has joined the group, one to send to it."""
    group, port, lo = "239.192.168.1", 1102, struct.pack("4sii", b"", 0, 1)
    with inside(host):
        hear, say = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with hear, say:
        hear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hear.bind((group, port))
        hear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + lo[4:])
        say.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, lo)
        say.connect((group, port))
        v = vm(f"mcast,fd={hear.fileno()},fd={say.fileno()}", pass_fds=[hear.fileno(), say.fileno()])
    v.says("ready")
    asker(vm, f"mcast={group}:{port},interface=lo").passes()
    assert v.net()["rx-frames"] == 4


@pytest.mark.parametrize("net", ["mcast=[ff02::114%d0]:1102", "mcast=[ff15::114]:1102,interface=d0"])
def test_mcast6(net, host, vm):
    host("ip", "link", "add", "d0", "type", "bridge")
    host("ip", "link", "set", "d0", "up", "multicast", "on")
    host("ip", "addr", "add", "fe80::99/64", "dev", "d0", "nodad")
    v = vm(net)
    v.says("ready")
    asker(vm, net).passes()
    assert v.net()["rx-frames"] == 4


def test_qemu(host, vm, lodge):
    """QEMU as a hub of its stream, dgram and multicast back ends."""
    need("qemu-system-x86_64")
    stream, mine, its = lodge.home / "qs", lodge.home / "qd", lodge.home / "qe"
    host.popen("qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none",
               "-netdev", f"stream,id=s,server=on,addr.type=unix,addr.path={stream}", "-netdev", "hubport,id=hs,hubid=0,netdev=s",
               "-netdev", f"dgram,id=d,local.type=unix,local.path={its},remote.type=unix,remote.path={mine}", "-netdev", "hubport,id=hd,hubid=0,netdev=d",
               "-netdev", "dgram,id=m,remote.type=inet,remote.host=239.192.168.2,remote.port=1103", "-netdev", "hubport,id=hm,hubid=0,netdev=m")
    wait_for("QEMU", lambda: stream.exists() and its.exists())
    v = vm(f"stream=unix:{stream}")
    v.says("ready")
    asker(vm, f"dgram=unix:{its},local=unix:{mine}").passes()
    asker(vm, "mcast=239.192.168.2:1103,interface=lo", name="ask2").passes()


def test_passt(host, vm, lodge):
    """passt answers for all neighbours, and relays the ping to the address of its host."""
    need("passt")
    path = lodge.home / "p"
    os.chmod(lodge.home, 0o777)
    host("ip", "tuntap", "add", "d0", "mode", "tap")
    host("ip", "addr", "add", "10.9.0.9/24", "dev", "d0")
    host("ip", "link", "set", "d0", "up")
    host("ip", "route", "add", "default", "via", "10.9.0.1", "dev", "d0")
    host("sysctl", "-w", "net.ipv4.ping_group_range=0 2147483647")
    host.popen("passt", "-f", "-s", str(path), "-a", ASK, "-g", "10.9.0.1", "-4")
    wait_for("passt", path.exists)
    v = vm(f"stream=unix:{path}", "ask", f"ip={ASK} ping=10.9.0.9 n=2")
    v.passes()


def test_malformed(host, vm, lodge):
    """What no host should send, from the network's side: the machine and its guest live on."""
    scapy = pytest.importorskip("scapy.all", reason="no scapy here; scripts/deps test installs it")
    theirs, mine = lodge.home / "v", lodge.home / "m"
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    end.bind(str(mine))
    end.settimeout(20)
    v = vm(f"dgram=unix:{mine},local=unix:{theirs},pcap={lodge.home}/p,mac=52:54:00:12:34:56")
    v.says("ready")
    ether = scapy.Ether(src="02:00:00:00:00:01", dst="52:54:00:12:34:56")
    ip = scapy.IP(src="10.9.0.1", dst=ECHO)
    ping = ether / ip / scapy.ICMP(id=7, seq=1) / b"abcdefgh"
    bad = [b"", b"x", bytes(13), bytes(14), bytes(59), bytes(9000), bytes(65000),
           ether / scapy.Dot1Q(vlan=1) / scapy.Dot1Q(vlan=2) / ip / scapy.ICMP(), ether / scapy.Dot1Q(vlan=4095),
           ether / scapy.IP(dst=ECHO, len=9999) / scapy.ICMP(), ether / scapy.IP(dst=ECHO, len=5) / scapy.ICMP(), ether / scapy.IP(dst=ECHO, ihl=15) / scapy.ICMP(),
           ether / scapy.IP(dst=ECHO, ihl=1), ether / scapy.IP(dst=ECHO, version=9), bytes(ping)[:20], bytes(ping)[:33], bytes(ping)[:38],
           ether / scapy.ARP(hwlen=200, plen=200), bytes(ether / scapy.ARP(op=2))[:30], ether / scapy.IPv6(plen=5000) / scapy.ICMPv6ND_NS(),
           ether / scapy.IPv6(nh=0) / b"\xff\xff", scapy.Ether(dst="ff:ff:ff:ff:ff:ff", type=0x8100), ether / scapy.IP(dst=ECHO, flags="MF", frag=8191) / scapy.UDP()]
    for frame in bad:
        end.sendto(bytes(frame), str(theirs))
    end.sendto(bytes(ping), str(theirs))
    while scapy.ICMP not in (answer := scapy.Ether(end.recv(70000))) or answer[scapy.ICMP].id != 7:
        pass
    assert answer[scapy.IP].src == ECHO and answer[scapy.Raw].load == b"abcdefgh"
    assert {d["reason"]: d["frames"] for d in v.net()["drops"]} == {"received malformed": 3}
    end.close()


def malformed(scapy):
    """Frames that no host should send, runts and giants among them."""
    ether = scapy.Ether(src="02:00:00:00:00:01", dst="52:54:00:12:34:56")
    ip, six = scapy.IP(src="10.9.0.1", dst=ECHO), scapy.IPv6(src="fd00::1", dst="fd00::2")
    tcp = bytes(ether / ip / scapy.TCP(dport=80) / bytes(40))
    made = [ether / scapy.Dot1Q(vlan=1) / scapy.Dot1Q(vlan=2) / ip / scapy.UDP(), ether / scapy.Dot1AD(vlan=4095) / scapy.Dot1Q(vlan=0) / scapy.Dot1Q() / ip,
            ether / scapy.IP(dst=ECHO, len=9999), ether / scapy.IP(dst=ECHO, len=0) / scapy.UDP(), ether / scapy.IP(dst=ECHO, ihl=15), ether / scapy.IP(dst=ECHO, ihl=0, version=0),
            ether / ip / scapy.UDP(len=3), ether / ip / scapy.UDP(len=65535), ether / ip / scapy.TCP(dataofs=15), ether / ip / scapy.TCP(dataofs=0), ether / scapy.ARP(hwlen=255, plen=255),
            ether / six / scapy.IPv6ExtHdrHopByHop(len=255), ether / six / scapy.IPv6ExtHdrFragment(offset=8191, m=1), ether / scapy.IPv6(plen=65535), ether / scapy.IPv6(nh=43) / b"\xff",
            ether / scapy.IP(dst=ECHO, flags="MF", frag=8191), ether / scapy.IP(dst=ECHO, ihl=6) / b"\x83\xff\x04\x00", scapy.Ether(src="02:00:00:00:00:01", dst="52:54:00:12:34:56", type=5) / (b"x" * 7)]
    return [bytes(f) for f in made] + [tcp[:n] for n in (14, 15, 17, 33, 34, 37, 53, 59)] + [tcp + bytes(1514 - len(tcp)), tcp + bytes(4000 - len(tcp))] + [tcp + bytes(9000)]


def echoed(f):
    """@f as the guest sends it back: addresses swapped, also IPv4's and the ports of UDP."""
    f = (f[6:12] + f[:6] + f[12:]).ljust(60, b"\0")
    if f[12:15] == b"\x08\x00\x45" and f[23] == 17:
        f = f[:26] + f[30:34] + f[26:30] + f[36:38] + f[34:36] + f[38:]
    return f


@pytest.mark.parametrize("net", ["dgram", "stream", "tap"])
def test_malformed_both_ways(net, host, lodge, guests):
    """The guest sends back as it came what no host should send; so each crosses the back end and the card both ways."""
    scapy = pytest.importorskip("scapy.all", reason="no scapy here; scripts/deps test installs it")
    a, b = lodge.home / "a", lodge.home / "b"
    if net == "tap":
        host("ip", "tuntap", "add", "lt0", "mode", "tap")
        host("sysctl", "-qw", "net.ipv6.conf.lt0.disable_ipv6=1", check=False)
        host("ip", "link", "set", "lt0", "up", "mtu", "9100")
    else:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if net == "dgram" else socket.SOCK_STREAM)
        server.bind(str(a))
        if net == "stream":
            server.listen()
    to = {"dgram": f"dgram=unix:{a},local=unix:{b}", "stream": f"stream=unix:{a}", "tap": "tap=lt0"}[net]
    p = lodge.popen("run", "--quiet", "--kernel", guests / "netbench", "--append", "echo", "--memory", "64M", "--net", to, "--debug-exit", preexec_fn=host.enter)
    while b"ready" not in (line := p.stdout.readline()):
        assert line, p.stderr.read()
    if net == "tap":
        with inside(host):
            end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            end.bind(("lt0", 3))
    else:
        end = server.accept()[0] if net == "stream" else server
    end.settimeout(20)

    def send(frame):
        if net == "dgram":
            end.sendto(frame, str(b))
        else:
            end.sendall((len(frame).to_bytes(4, "big") if net == "stream" else b"") + frame)

    def receive():
        if net == "stream":
            n = int.from_bytes(end.recv(4, socket.MSG_WAITALL), "big")
            return end.recv(n, socket.MSG_WAITALL)
        while True:
            f, *where = end.recvfrom(70000)
            if net != "tap" or where[0][2] != socket.PACKET_OUTGOING:
                return f

    frames = malformed(scapy)
    for f in frames:
        send(f)
        if len(f) > 4084:  # the guest drops it
            continue
        got, want = receive(), echoed(f)
        if net == "tap" and f[12:14] in (b"\x81\0", b"\x88\xa8"):
            want = want[:12] + want[16:]  # a packet socket has the outer tag beside the frame
        assert got == want, (f, got)
    send(frames[0][:14] + b"bye".ljust(50))
    assert p.wait(20) == 33
    end.close()


def pings(pcap):
    """Whose echo replies a capture has, by hardware address."""
    data, at, seen = pcap.read_bytes(), 24, []
    while at < len(data):
        n, = struct.unpack_from("<I", data, at + 8)
        f = data[at + 16:at + 16 + n]
        at += 16 + n
        if f[12:14] == b"\x08\x00" and f[23] == 1 and f[34] == 0:
            seen.append(f[:6].hex(":"))
    return seen


def test_sixteen(lodge, guests):
    """In the order of the slots each card has its own address, and its own host answers it."""
    macs = [f"52:54:00:12:34:{n:02x}" for n in random.sample(range(0x10, 0x100), 16)]
    nets = [w for n, mac in enumerate(macs) for w in ("--net", f"user,mac={mac},pcap={lodge.home}/{n}.pcap")]
    words = ["--kernel", guests / "netecho", "--memory", "16M", "--debug-exit", "--console", "stdio", "--append", "ip=10.0.2.15 ping=10.0.2.2 n=3 cards=16"]
    r = lodge("run", "many", *words, *nets, timeout=120)
    assert r.status == 33, (r.out, r.err)
    found = [":".join(f"{int(b, 16):02x}" for b in m.split(":")) for m in re.findall(r"^ready (\S+)", r.out, re.M)]
    assert found == macs
    assert [pings(lodge.home / f"{n}.pcap") for n in range(16)] == [[mac] * 3 for mac in macs]
    r = lodge("run", "more", *words, *nets, "--net", "user")
    assert (r.status, r.err) == (125, "lodge: run: --net: a machine has at most 16\n")


def test_shape(host, vm, lodge):
    """Twice 100 ms on the way, and every third frame lost: the guest asks again until it has its answers."""
    path = lodge.home / "s"
    v = vm(f"stream=unix:{path},server=on,delay=100ms,rate=1M")
    v.says("ready")
    a = asker(vm, f"stream=unix:{path},loss=30%,seed=7", n=5)
    a.says("ready")
    started = time.monotonic()
    a.passes()
    assert time.monotonic() - started > 5 * 0.2


@pytest.mark.parametrize("net,why", [
    ("tap=lt9,fd=77", "fd '77' is not open"),
    ("stream", "needs an address or a descriptor; write stream=unix:PATH"),
    ("stream=unix:/nowhere/s", "nobody listens there; start the other end first, or add server=on"),
    ("stream=pipe:x", '"pipe:x": write unix:PATH or tcp:HOST:PORT'),
    ("dgram=unix:/x", "needs both ends or a descriptor"),
    ("mcast=10.0.0.1:5", "is no group; they are from 224.0.0.0"),
    ("mcast=239.0.0.1:5,ttl=300", "ttl '300' is not a number from 0 to 255"),
    ("daemon=/nowhere/ctl", "daemon /nowhere/ctl: no switch is there; start it first"),
    ("vde=/nowhere", "vde /nowhere: no switch is there; start it first"),
    ("user,rate=fast", "rate 'fast' is not a number of bits a second"),
    ("user,loss=101", "loss '101' is not from 0% to 100%"),
    ("user,delay=2h", "delay '2h' is not a time"),
    ("user,pcap=/nowhere/p", "/nowhere/p: cannot create the capture"),
    ("user,pcap-limit=1", "pcap-limit '1' is not a size"),
    ("user,net=10.0.0.1/24", "has bits behind its 24"),
    ("user,guestfwd=tcp:1.2.3.4:5-unix:/x", "the address is not a free one"),
    ("user,guestfwd=tcp:10.0.2.9:5-unix:/x,guestfwd=tcp:10.0.2.9:5-cmd:cat", "tcp:10.0.2.9:5 is given twice; choose another address or port"),
    ("user=x", '--net: user: takes no value; leave out "=x"'),
    ("none=x", '--net: none: takes no value; leave out "=x"'),
    ("swich=lab", '--net: "swich": unknown back end; this version has user, tap, '),
    ("dgram=unix:/x,local=unix:/nowhere/x", "net 'net0': dgram: unix:/x from unix:/nowhere/x: cannot receive there: No such file"),
    ("user,mac=00:00:00:00:00:00", "net0: mac: 00:00:00:00:00:00 is no card's address"),
    ("user,mac=03:00:00:00:00:00,model=pcnet", "net0: mac: 03:00:00:00:00:00 is a group address; make its first byte even"),
], ids=lambda v: v.split(",")[-1] if "=" in v or "," in v else None)
def test_errors(net, why, lodge, guests):
    r = lodge("run", "--kernel", guests / "hello", "--memory", "16M", "--net", net)
    assert r.status in (1, 2, 3, 5) and why in r.err and r.err.count("\n") == 1, r.err


def test_which(lodge, guests):
    """Of several interfaces the error says which; two do not write to one capture."""
    words = ["run", "--kernel", guests / "hello", "--memory", "16M"]
    pcap = lodge.home / "p"
    for nets, why in ((("user", "stream=unix:/nowhere/s"), "net 'net1': stream: unix:/nowhere/s: nobody listens there"),
                      (("user", "user", "mcast,fd=3"), "net 'net2': fd '3' is not open"),
                      (("user,restrict=x", "user"), "net 'net0': restrict 'x'"),
                      ((f"user,pcap={pcap}", f"user,pcap={pcap}"), f"net 'net1': {pcap}: another capture is written there; name another file")):
        r = lodge(*words, *(w for net in nets for w in ("--net", net)))
        assert r.status in (1, 2) and r.err.startswith(f"lodge: run: {why}") and r.err.count("\n") == 1, r.err
    assert pcap.stat().st_size == 24  # the first one's header


def test_live_forward(lodge, guests, tmp_path):
    """A port of the host comes and goes while the guest runs; QEMU's words for it at the human monitor."""
    from qmp import Qmp
    p = lodge.popen("run", "web", "--kernel", guests / "netecho", "--append", "ip=10.0.2.15", "--memory", "16M", "--console", f"file:{tmp_path}/con")
    wait_for("guest", lambda: (tmp_path / "con").exists() and "ready" in (tmp_path / "con").read_text())
    r = lodge("net", "web", "--publish", "0:7")
    assert r.status == 0, r.err
    addr, port = re.fullmatch(r"([\d.]+):(\d+) \(tcp\)\n", r.out).groups()
    with socket.create_connection((addr, int(port)), timeout=10):
        pass
    assert lodge("net", "web", "--unpublish", port).status == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((addr, int(port)), timeout=10)
    r = lodge("net", "web", "--unpublish", port)
    assert (r.status, r.err) == (3, f"lodge: net: web: no port 127.0.0.1:{port} (tcp) leads into the guest\n")
    q = Qmp(lodge.home / "run" / "lodge" / "web" / "qmp.sock")
    say = lambda line: q.ask("human-monitor-command", **{"command-line": line})[1]["return"]
    assert say(f"hostfwd_add tcp:127.0.0.1:{port}-:7") == ""
    with socket.create_connection((addr, int(port)), timeout=10):
        pass
    assert say(f"hostfwd_remove net0 tcp:127.0.0.1:{port}") == f"host forwarding rule for tcp:127.0.0.1:{port} removed\r\n"
    assert "not found" in say(f"hostfwd_remove tcp:127.0.0.1:{port}")
    p.send_signal(signal.SIGTERM)


def test_any_port(lodge, guests):
    """Where a free port was asked for it is told by its number, to people, programs and ssh, and goes by it."""
    r = lodge("run", "web", "-d", "--kernel", guests / "hlt_wake", "--append", "n=100000000", "--memory", "16M", "-p", "0:22",
              "--net", "user,hostfwd=udp::0-10.0.2.20:53,hostfwd=tcp:127.0.0.2:0-:80")
    assert r.status == 0, r.err
    udp, http, ssh = map(int, re.findall(r"forwarding 127\.0\.0\.[12]:(\d+) to guest port", r.err))

    def ports():
        (net,) = json.loads(lodge("net", "web", "--json").out)["networks"]
        return [(f["protocol"], f["host"], f["host-port"], f.get("guest"), f["guest-port"]) for f in net["forwards"]]

    def listed():
        return json.loads(lodge("list", "--json").out)["machines"][0]["forwards"]
    assert ports() == [("udp", "127.0.0.1", udp, "10.0.2.20", 53), ("tcp", "127.0.0.2", http, None, 80), ("tcp", "127.0.0.1", ssh, None, 22)]
    assert listed() == [f"127.0.0.1:{udp}->53/udp", f"127.0.0.2:{http}->80/tcp", f"127.0.0.1:{ssh}->22/tcp"]
    said = lodge("net", "web").out
    assert f"    port 127.0.0.1:{udp} (udp) leads to 10.0.2.20:53\n    port 127.0.0.2:{http} (tcp) leads to port 80\n" in said, said
    assert re.search(rf"Port {ssh}$", lodge("ssh-config", "web").out, re.M)
    assert lodge("net", "web", "--unpublish", f"127.0.0.2:{http}").status == 0
    assert listed() == [f"127.0.0.1:{udp}->53/udp", f"127.0.0.1:{ssh}->22/tcp"]
    said = lodge("set", "web", "-p", "0:23", "-p", "0:24").out
    assert said.splitlines() == [f"web: publish: now: tcp:127.0.0.{rule}" for rule in ("1:0-:22 is out", "2:0-:80 is in", "1:0-:23 is in", "1:0-:24 is in")]
    assert lodge("set", "web", "-p", "0:24").out == "web: publish: now: tcp:127.0.0.1:0-:23 is out\n"
    assert [guest for *_, guest in ports()] == [53, 80, 24]
    lodge("kill", "web")


@pytest.mark.parametrize("word,text", [("--publish", "2222"), ("--publish", "::1:2:3"), ("--unpublish", "ssh"), ("--unpublish", "0"), ("--unpublish", "1.2.3:4"), ("--unpublish", "1:2:3")])
def test_no_port(word, text, lodge, guests):
    lodge("run", "web", "-d", "--ephemeral", "--kernel", guests / "hlt_wake", "--append", "n=100000000", "--memory", "16M")
    r = lodge("net", "web", word, text)
    assert r.status == 2 and r.err.startswith(f'lodge: net: {word}: "{text}": write [ADDR:]HOST') and r.err.count("\n") == 1, r.err
    lodge("kill", "web")
