# SPDX-License-Identifier: GPL-2.0-or-later
"""curl, iperf3 and ping of a Linux guest through every back end, with Apache and iperf3 in a namespace that stands
for the host: what curl put there is what the guest has, and comes back so. LODGE_TEST_LONG=1 takes 1 GiB each way
through virtio."""
import collections
import contextlib
import os
import re
import shutil
import socket

import pytest
from linux_guest import NET, add_files, add_programs, initrd, kernel, words
from test_full_cards import COMPLAINTS, assert_no_complaints, sum_of
from test_full_pc import FUNCTIONS, MIB, SECONDS, md5
from test_native_nets import host, inside, listening, need, wait_for  # noqa: F401 (a fixture)
from test_native_switch import switch

LONG = "LODGE_TEST_LONG" in os.environ
PAGE_BYTES = MIB // 4 + 1235  # a page twice or out of place is at no round address
Card = collections.namedtuple("Card", "flavour driver pages pings")
# An NE2000 exits for each word, where every exit is emulated twice.
CARDS = {"virtio": Card("cloud", "virtio_net", 4096 if LONG else 24, 500), "pcnet": Card("stock", "pcnet32", 512 if LONG else 4, 100),
         "ne2k_pci": Card("stock", "ne2k_pci", 16 if LONG else 1, 20)}
MODULES = (*NET, "pcnet32", "ne2k_pci")
TAP, HTTP, IPERF, NOBODY = "lt0", 8080, 5201, 65534
MULTICAST = "239.192.168.9", 1109
PASST_MTU = 65520
# Of the guest and its host, over IPv4 and IPv6; the user network has its own.
ADDRESSES, USER_ADDRESSES = ("10.9.0.2", "10.9.0.1", "fd09::2", "fd09::1"), ("10.0.2.15", "10.0.2.2", "fec0::15", "fec0::2")

GUEST = f"""
exec 2>&1
for i in default eth0; do echo 0 > /proc/sys/net/ipv6/conf/$i/accept_dad; done
ip link set lo up; ip link set eth0 mtu $mtu up; ip addr add $own4/24 dev eth0; [ -z "$own6" ] || ip addr add $own6/64 dev eth0
say driver $(basename $(readlink -f /sys/class/net/eth0/device/driver))
reach() {{ wait_for "/bin/ping -q -c 1 -W 1 $1 > /dev/null"; took reached; }}
stream() {{ yes /page | head -n $1 | xargs cat; }}
fetch() {{ curl -gsSf "$@"; echo $? > /tmp/status; }}
move() {{ # NAME HOST PAGES
  stream $3 | fetch -o /dev/null -T - http://$2:{HTTP}/$1; say up_$1 $(cat /tmp/status); took up
  say got_$1 $(fetch http://$2:{HTTP}/$1 | md); say down_$1 $(cat /tmp/status); took down
}}
perf() {{ local name=$1; shift; iperf3 -c $host4 -p {IPERF} -t 1 "$@" > /tmp/perf; say $name "$? $(grep receiver /tmp/perf)"; took $name; }}
reach $host4; move four $host4 $pages
[ -z "$own6" ] || {{ reach $host6; move six "[$host6]" $pages6; }}
perf iperf_up; perf iperf_down -R
say flood "$(/bin/ping -q -f -c $pings -W 10 $host4 | grep loss)"; took flood
""" + COMPLAINTS


@contextlib.contextmanager
def at_user(host, lodge):
    yield "user"


@contextlib.contextmanager
def at_tap(host, lodge):
    yield f"tap={TAP}"


@contextlib.contextmanager
def at_switch(host, lodge):
    with switch(lodge, "nets", "--tap", TAP, preexec_fn=host.enter):
        yield "switch=nets"


@contextlib.contextmanager
def at_daemon(host, lodge):
    need("uml_switch")
    ctl = lodge.home / "u"
    host.popen("uml_switch", "-unix", str(ctl), "-tap", TAP)
    listening(ctl)
    yield f"daemon={ctl}"


@contextlib.contextmanager
def at_vde(host, lodge):
    need("vde_switch")
    folder = lodge.home / "v"
    host.popen("vde_switch", "-s", str(folder), "-M", str(lodge.home / "m"), "-t", TAP)
    listening(folder / "ctl")
    yield f"vde={folder}"


@contextlib.contextmanager
def at_passt(host, lodge):
    """What is for the gateway goes to the loopback. It wants a default route, and is nobody when it makes its socket."""
    need("passt")
    path = lodge.home / "p"
    os.chmod(lodge.home, 0o777)
    host("ip", "route", "add", "default", "via", "10.9.0.3", "dev", TAP)
    host("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    host.popen("passt", "-f", "-s", str(path), "-a", ADDRESSES[0], "-g", ADDRESSES[1], "-4")
    wait_for("passt", path.exists)
    yield f"stream=unix:{path}"


def socat(host, end):
    need("socat")
    host.popen("socat", "-b", "65536", end, f"TUN,tun-type=tap,tun-name={TAP},iff-no-pi")


@contextlib.contextmanager
def at_dgram(host, lodge):
    mine, theirs = lodge.home / "a", lodge.home / "b"
    socat(host, f"UNIX-SENDTO:{theirs},bind={mine}")
    wait_for("socat", mine.exists)
    yield f"dgram=unix:{mine},local=unix:{theirs}"


@contextlib.contextmanager
def at_mcast(host, lodge):
    group, port = MULTICAST
    socat(host, f"UDP4-DATAGRAM:{group}:{port},bind=:{port},reuseaddr,ip-add-membership={group}:127.0.0.1,ip-multicast-if=127.0.0.1")
    yield f"mcast={group}:{port},interface=lo"


ENDS = {"user": at_user, "tap": at_tap, "switch": at_switch, "daemon": at_daemon, "vde": at_vde, "passt": at_passt, "dgram": at_dgram, "mcast": at_mcast}
WITH_IPV6 = ("user", "tap", "switch")
CASES = [("virtio", end) for end in ENDS] + [(card, end) for card in ("pcnet", "ne2k_pci") for end in ("tap", "switch")]


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    """A page of noise, and an archive that has it and the programs for each flavour of kernel."""
    need("curl", "iperf3", "ping", "apache2")
    folder, page = tmp_path_factory.mktemp("nets"), os.urandom(PAGE_BYTES)
    programs = [shutil.which(p) for p in ("curl", "iperf3", "ping")]

    def archive(flavour):
        path = folder / flavour
        return path if path.exists() else add_files(add_programs(initrd(path, FUNCTIONS + GUEST + "\nbye", MODULES, flavour), *programs), {"/page": page})
    yield page, archive
    shutil.rmtree(folder)


@pytest.fixture
def tap(host):  # noqa: F811
    """The host's interface, for whoever is between it and the guest to open. IPv6 is off on it at first: it would
    speak before the guest is there, and socat ends where nobody takes a frame."""
    host("ip", "tuntap", "add", TAP, "mode", "tap")
    host("sysctl", "-qw", f"net.ipv6.conf.{TAP}.accept_dad=0", f"net.ipv6.conf.{TAP}.disable_ipv6=1")
    host("ip", "addr", "add", f"{ADDRESSES[1]}/24", "dev", TAP)
    host("ip", "link", "set", TAP, "up")


def connects(host, port):
    with inside(host), socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def served(host, lodge):  # noqa: F811
    """A folder that Apache, in the namespace, takes files into and gives them from; iperf3 serves beside it."""
    folder, conf = lodge.home / "www", lodge.home / "apache.conf"
    os.chmod(lodge.home, 0o711)
    for at in (folder, lodge.home / "locks"):
        at.mkdir()
        os.chown(at, NOBODY, NOBODY)
    modules = "".join(f"LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so\n" for m in ("mpm_prefork", "authz_core", "dav", "dav_fs"))
    conf.write_text(f"{modules}Listen 0.0.0.0:{HTTP}\nListen [::]:{HTTP}\nServerName host\nUser #{NOBODY}\nGroup #{NOBODY}\n"
                    f"PidFile {lodge.home}/pid\nErrorLog {lodge.home}/errors\nDocumentRoot {folder}\nDavLockDB {lodge.home}/locks/db\n"
                    f"<Directory {folder}>\nDav on\nLimitRequestBody 0\n</Directory>\n")
    for port, program in ((HTTP, ("apache2", "-X", "-f", str(conf))), (IPERF, ("iperf3", "-s", "-p", str(IPERF)))):
        host.popen(*program)
        wait_for(f"no {program[0]}", lambda p=port: connects(host, p))
    return folder


@pytest.mark.parametrize("card,end", CASES)
def test_programs(card, end, host, tap, lodge, guest, served):  # noqa: F811
    c, (page, archive) = CARDS[card], guest
    pages = {"four": c.pages}
    own4, host4, own6, host6 = USER_ADDRESSES if end == "user" else ADDRESSES
    given = {"own4": own4, "host4": host4, "mtu": PASST_MTU if end == "passt" else 1500, "pages": c.pages, "pings": c.pings}
    if end in WITH_IPV6:
        pages["six"] = max(1, c.pages // 8)
        given |= {"own6": own6, "host6": host6, "pages6": pages["six"]}
        host("sysctl", "-qw", f"net.ipv6.conf.{TAP}.disable_ipv6=0")
        host("ip", "addr", "add", f"{ADDRESSES[3]}/64", "dev", TAP)
    with ENDS[end](host, lodge) as net:
        r = lodge("run", "nets", "--kernel", kernel(c.flavour).path, "--initrd", archive(c.flavour), "--memory", "192M", "--net", f"{net},model={card}",
                  "--append", "console=ttyS0 quiet " + " ".join(f"{k}={v}" for k, v in given.items()), timeout=SECONDS, preexec_fn=host.enter)
    print(r.out, r.err, (lodge.home / "errors").read_text())
    said = words(r.out)
    assert r.status == 0
    assert said["driver"][0].replace("-", "_") == c.driver
    for name, n in pages.items():
        assert said[f"up_{name}"] == said[f"down_{name}"] == ["0"]
        assert [md5(served / name)] == said[f"got_{name}"] == [sum_of(page, n * PAGE_BYTES)]
    for name in ("iperf_up", "iperf_down"):
        assert float(re.match(r"0 .* sec +([0-9.]+) [KMG]?Bytes", said[name][0])[1]) > 0, said[name]
    assert f"{c.pings} received" in said["flood"][0], said["flood"]
    assert_no_complaints(said)
