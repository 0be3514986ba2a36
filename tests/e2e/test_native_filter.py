# SPDX-License-Identifier: GPL-2.0-or-later
"""filter=: rules against libpcap's answers and against frames whose fields the test knows, and on a machine that runs."""
import ipaddress
import os
import random
import re
import subprocess

import pytest

from conftest import BUILD
from test_native_nets import ECHO, host, need, vm, wait_for  # noqa: F401

GUEST, OTHER = "52:54:00:12:34:56", "02:00:00:00:00:01"
NETS4 = ["10.0.0.5/32", "10.0.0.0/8", "10.0.0.4/31", "192.168.1.0/24", "0.0.0.0/0"]
NETS6 = ["fd00::5/128", "fd00::/16", "fd00::4/127", "fe80::/10", "::/0"]
ADDRS = {4: ["10.0.0.5", "10.0.0.4", "10.9.8.7", "192.168.1.9", "172.16.0.1"], 6: ["fd00::5", "fd00::4", "fd00:1::9", "fe80::1", "2001:db8::1"]}
PORTS = [0, 22, 53, 79, 80, 81, 8000, 8500, 65535]


@pytest.fixture
def rng():
    seed = int(os.environ.get("DIFF_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"DIFF_SEED={seed}")
    return random.Random(seed)


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


class Frame:
    """A frame and what is true of it, by how it was made."""

    def __init__(self, rng, odd):
        self.out = rng.random() < 0.5
        self.src = GUEST
        self.dst = rng.choice([OTHER, "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"])
        self.tags = [rng.choice([5, 7]) for _ in range(rng.choice([0, 0, 0, 1, 2, 3]))] if odd else []
        self.ip = rng.choice([4, 4, 6, 6, 0])
        self.proto = rng.choice([1 if self.ip == 4 else 58, 6, 6, 17, 17, 47])
        self.sport, self.dport = rng.choice(PORTS), rng.choice(PORTS)
        self.flags = rng.choice([2, 2, 0x12, 0x10])
        self.type = rng.choice([8, 128, 135])
        self.frag = rng.choice([0, 0, 0, 1, 2]) if odd else 0  # none, the first, a later one
        self.exts = rng.choice([0, 0, 1, 2, 8, 9]) if odd and self.ip == 6 else 0
        self.addrs = [rng.choice(ADDRS[self.ip]) for _ in range(2)] if self.ip else None
        self.lost = rng.choice([0, 0, rng.randrange(1, 60)]) if odd else 0
        self.make()

    def make(self):
        l4 = {6: self.sport.to_bytes(2, "big") + self.dport.to_bytes(2, "big") + bytes(8) + bytes([0x50, self.flags]) + bytes(6),
              17: self.sport.to_bytes(2, "big") + self.dport.to_bytes(2, "big") + b"\0\x08\0\0"}.get(self.proto, bytes([self.type]) + bytes(7))
        d = mac(self.dst) + mac(self.src)
        for tag in self.tags:
            d += b"\x81\x00" + (0x2000 | tag).to_bytes(2, "big")
        self.at_type = len(d)
        d += {4: b"\x08\x00", 6: b"\x86\xdd", 0: b"\x08\x06"}[self.ip]
        self.at_ip = len(d)
        if self.ip == 4:
            frag = [0, 0x2000, 185][self.frag]
            d += b"\x45\0" + (20 + len(l4)).to_bytes(2, "big") + b"\0\0" + frag.to_bytes(2, "big") + bytes([64, self.proto]) + b"\0\0"
        elif self.ip == 6:
            chain = [60] * self.exts + ([44] if self.frag else []) + [self.proto]
            body = b"".join(bytes([n, 0] + [0] * 6) for n in chain[1:self.exts + 1])
            if self.frag:
                body += bytes([self.proto, 0]) + [b"\0\x01", b"\x05\xc8"][self.frag - 1] + bytes(4)
            d += b"\x60\0\0\0" + (len(body) + len(l4)).to_bytes(2, "big") + bytes([chain[0], 64])
        if self.ip:
            d += b"".join(ipaddress.ip_address(a).packed for a in self.addrs)
        else:
            d += bytes(28)
        self.end_ip = len(d)
        if self.ip == 6:
            d += body
        self.at_l4 = len(d)
        d += l4 if self.ip else b""
        self.bytes = d[:max(14, len(d) - self.lost)]

    def has(self, end):
        return len(self.bytes) >= end

    # Each answers True, False, or None where the frame does not show it.
    def type_known(self):
        return len(self.tags) <= 2 and self.has(self.at_type + 2)

    def is_ip(self, version):
        return (self.ip == version if version else self.ip != 0) if self.type_known() else None

    def proto_known(self):
        if not self.has(self.end_ip):
            return False
        return self.ip == 4 or (self.exts + (self.frag == 1) <= 8 and self.exts <= 8 and self.exts + bool(self.frag) <= 8 and self.has_exts())

    def has_exts(self):
        # An extension is walked where its first eight bytes are there.
        return self.has(self.at_l4)


def three(values):
    values = list(values)
    return False if False in values else None if None in values else True


def make_rule(rng, odd):
    """A rule's words, the same for libpcap, and a function of a frame: true, false, None."""
    ours, pcap, asks = [], [], []
    ip = 0
    kind = rng.choice(["any", "ip", "proto", "proto", "proto"])
    if kind == "ip":
        ip = rng.choice([4, 6])
        ours.append({4: "ip", 6: "ip6"}[ip])
        pcap.append(ours[-1])
        asks.append(lambda f, v=ip: f.is_ip(v))
    proto = None
    if kind == "proto":
        proto, name = rng.choice([(6, "tcp"), (17, "udp"), (1, "icmp"), (58, "icmpv6"), (47, "proto 47")])
        ip = {1: 4, 58: 6}.get(proto, 0)
        ours.append(name)
        pcap.append({"icmpv6": "(ip6 and ip6 proto 58)", "proto 47": "(ip proto 47 or ip6 proto 47)"}.get(name, name))

        def ask_proto(f):
            found = f.is_ip(ip)
            if found is not True:
                return found
            return f.proto == proto if f.proto_known() else None
        asks.append(ask_proto)
    for side, word in enumerate(("from", "to")):
        if rng.random() < 0.4:
            ip = ip or rng.choice([4, 6])
            net = rng.choice(NETS4 if ip == 4 else NETS6)
            ours.append(f"{word} {net}")
            pcap.append(f"{'src' if word == 'from' else 'dst'} net {net}" if net != "::/0" and net != "0.0.0.0/0" else "ip" if ip == 4 else "ip6")

            def ask_addr(f, side=side, net=net, ip=ip):
                found = f.is_ip(ip)
                if found is not True:
                    return found
                return ipaddress.ip_address(f.addrs[side]) in ipaddress.ip_network(net) if f.has(f.end_ip) else None
            asks.append(ask_addr)
    if proto in (6, 17) and rng.random() < 0.7:
        word = rng.choice(["from port", "to port", "port"])
        low = rng.choice(PORTS)
        high = rng.choice([low, max(low, 8500)])
        ours.append(f"{word} {low}-{high}")
        pcap.append(f"{ {'from port': 'src portrange', 'to port': 'dst portrange', 'port': 'portrange'}[word]} {low}-{high}")

        def ask_port(f):
            if f.is_ip(0) is not True or not f.proto_known():
                return None if f.is_ip(0) is not False else False
            if f.proto not in (6, 17):
                return False
            if f.frag == 2 or not f.has(f.at_l4 + 4):
                return None
            hit = [low <= p <= high for p in (f.sport, f.dport)]
            return hit[0] if word == "from port" else hit[1] if word == "to port" else any(hit)
        asks.append(ask_port)
    if proto == 6 and rng.random() < 0.3:
        ours.append("syn")
        pcap.append("((ip and tcp[13] & 0x12 = 2) or (ip6 and ip6[53] & 0x12 = 2))")

        def ask_syn(f):
            if f.is_ip(0) is not True or not f.proto_known():
                return None if f.is_ip(0) is not False else False
            if f.proto != 6:
                return False
            return (f.flags & 0x12) == 2 if f.frag != 2 and f.has(f.at_l4 + 14) else None
        asks.append(ask_syn)
    if rng.random() < 0.2:
        m = rng.choice([OTHER, GUEST])
        ours.append(f"to mac {m}")
        pcap.append(f"ether dst {m}")
        asks.append(lambda f: f.dst == m)
    if odd and rng.random() < 0.3:
        vlan = rng.choice(["5", "7", "5.7", "none"])
        ours.append(f"vlan {vlan}")

        def ask_vlan(f):
            known = sum(f.has(14 + 4 * (i + 1)) for i in range(min(len(f.tags), 2)))
            if vlan == "none":
                return not f.tags
            want = [int(v) for v in vlan.split(".")]
            return three(f.tags[i] == w if i < known else None if i < len(f.tags) and i < 2 or not f.type_known() else False for i, w in enumerate(want))
        asks.append(ask_vlan)
    if rng.random() < 0.3:
        out = rng.random() < 0.5
        ours.insert(0, "out" if out else "in")
        return " ".join(ours), None, lambda f: three(a(f) for a in asks) if f.out == out else False
    return " ".join(ours), " and ".join(pcap) or "ether[0] >= 0", lambda f: three(a(f) for a in asks)


def write_pcap(path, frames):
    with open(path, "wb") as w:
        w.write(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000"))
        for i, f in enumerate(frames):
            w.write(i.to_bytes(4, "little") + bytes(4) + len(f.bytes).to_bytes(4, "little") * 2 + f.bytes)


def judge(tmp_path, rules, frames):
    (tmp_path / "rules").write_text(rules)
    write_pcap(tmp_path / "frames", frames)
    r = subprocess.run([BUILD / "tests/diff/judge_filter", tmp_path / "rules", tmp_path / "frames", GUEST], capture_output=True, text=True, check=True)
    return [line.split()[0 if f.out else 1] for f, line in zip(frames, r.stdout.splitlines(), strict=True)]


def test_as_libpcap(rng, tmp_path):
    """One rule allows what libpcap's expression takes, of whole frames."""
    need("tcpdump")
    frames = [Frame(rng, False) for _ in range(400)]
    for _ in range(25):
        ours, pcap, _ = make_rule(rng, False)
        if pcap is None:
            continue
        got = judge(tmp_path, f"allow {ours}\ndefault deny\n", frames)
        said = subprocess.run(["tcpdump", "-nn", "-tt", "-r", tmp_path / "frames", pcap], capture_output=True, text=True, check=True,
                              env=dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin")).stdout
        theirs = {int(m) for m in re.findall(r"^(\d+)\.0{6} ", said, re.M)}
        assert {i for i, v in enumerate(got) if v == "allow"} == theirs, (ours, pcap)


def test_as_made(rng, tmp_path):
    """Several rules over tagged, fragmented, extended and truncated frames, against what the frames were made of."""
    tally = {"allow": 0, "deny": 0, "unclear": 0}
    for _ in range(60):
        frames = [Frame(rng, True) for _ in range(150)]
        rules = [(rng.random() < 0.5, *make_rule(rng, True)) for _ in range(rng.randrange(1, 6))]
        default = rng.random() < 0.5
        text = "".join(f"{'allow' if allow else 'deny'} {ours}\n" for allow, ours, _, _ in rules) + f"default {'allow' if default else 'deny'}\n"
        for f, got in zip(frames, judge(tmp_path, text, frames)):
            want = "allow" if default else "deny"
            for allow, _, _, ask in rules:
                answer = ask(f)
                if answer is None:
                    want = "unclear"
                elif answer:
                    want = "allow" if allow else "deny"
                if answer is not False:
                    break
            assert got == want, (text, f.__dict__)
            tally[got] += 1
    assert min(tally.values()) > 200, tally


def rule_counts(v):
    return {r["rule"]: r["frames"] for r in v.net()["filter"]["rules"]}


def test_running(host, vm, lodge, tmp_path):
    """Rules of a machine that runs: counted, replaced, taken away; wrong ones change nothing."""
    need("ping")
    host("ip", "tuntap", "add", "lt0", "mode", "tap")
    host("ip", "addr", "add", "10.9.0.1/24", "dev", "lt0")
    host("ip", "link", "set", "lt0", "up")

    def ping(ok, *more):
        r = host("ping", "-c", "1", "-W", "20" if ok else "1", *more, ECHO, check=False)
        assert ("1 received" in r.stdout) == ok, r.stdout

    rules = tmp_path / "rules"
    rules.write_text("# who it is\nantispoof=10.9.0.2\nallow arp\nallow icmp from 10.9.0.1 type 8\nallow out icmp type 0\ndefault deny\n")
    v = vm(f"tap=lt0,filter={rules}")
    v.says("ready")
    ping(True)
    ping(True, "-s", "1400")
    counts = rule_counts(v)
    assert counts["allow icmp from 10.9.0.1 type 8"] == counts["allow out icmp type 0"] == 2 and counts["antispoof"] == 0, counts
    shown = lodge("net", "echo").out
    assert re.search(r"2 frames +\d+ bytes  4: allow icmp from 10.9.0.1 type 8\n", shown) and f"filter {rules}\n" in shown, shown
    # Another one's address; its answers to ARP are that one's, too.
    rules.write_text("antispoof=10.9.0.99\n")
    assert lodge("net", "echo", "--filter", rules).status == 0
    ping(False)
    wait_for("no spoofed frame", lambda: rule_counts(v)["antispoof"])
    assert any(d["reason"] == "refused by the filter" for d in v.net()["drops"])
    rules.write_text("deny in icmp\ndeny somewhere\n")
    r = lodge("net", "echo", "--filter", f"0:{rules}")
    assert r.status == 1 and f'{rules}:2:6: "somewhere" is no condition; there are arp, ip, ip6' in r.err and r.err.count("\n") == 1, r.err
    assert "antispoof" in rule_counts(v)
    assert lodge("net", "echo", "--filter", "off").status == 0
    assert "filter" not in v.net()
    ping(True)
    for arg, why in [("1:off", "Network 'net1' not found"), ("/nowhere/r", 'cannot read the rules: No such file'), ("0:", "write [N:]FILE or off")]:
        r = lodge("net", "echo", "--filter", arg)
        assert r.status and why in r.err and r.err.count("\n") == 1, r.err


def test_refused(lodge, guests, tmp_path):
    (tmp_path / "r").write_text("allow tcp port 99999\n")
    for net, why in [(f"user,filter={tmp_path}/r", f"net 'net0': filter: {tmp_path}/r:1:16: \"99999\" is no list of ports; write 80,443,8000-8999"),
                     ("user,filter=/nowhere/f", "net 'net0': filter: \"/nowhere/f\": cannot read the rules: No such file or directory"),
                     (f"none,filter={tmp_path}/r", "none: takes no sub-options")]:
        r = lodge("run", "--kernel", guests / "hello", "--memory", "16M", "--net", net)
        assert r.status in (1, 2, 3) and why in r.err and r.err.count("\n") == 1, r.err
