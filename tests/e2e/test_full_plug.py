# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux lets go of PCI devices and finds new ones while it runs, through ACPI."""
import functools
import hashlib
import os

import pytest
from linux_guest import BOOT_SECONDS, DISK, NET, answer_to, initrd, kernel, read_until
from qmp import Qmp

SIZE = 1 << 20
MODULES = tuple(dict.fromkeys((*DISK, *NET)))
SLOTS = """
echo "state: up"
while read -r word; do
  case $word in
    slots) echo "slots: $(ls /sys/bus/pci/slots | tr '\\n' ' ')" ;;
    net) wait_for '[ -e /sys/class/net/eth0 ]'; net; ping -c 2 -W 9 10.0.2.2 > /dev/null && echo 'net: answers' || echo 'net: silent' ;;
    disk) wait_for '[ -b /dev/vda ]'; echo "disk: $(sum /dev/vda)" ;;
    nodisk) wait_for '[ ! -b /dev/vda ]'; echo "nodisk: gone" ;;
    nonet) wait_for '[ ! -e /sys/class/net/eth0 ]'; echo "nonet: gone" ;;
    off) bye ;;
  esac
done
"""


@pytest.fixture
def session(lodge, nothing_left, tmp_path):
    """A guest that answers words on its console, and the control socket beside it."""
    (tmp_path / "disk").write_bytes(os.urandom(SIZE))
    wait = 'wait_for() { local n=0; until eval "$1"; do n=$((n + 1)); [ $n -lt 150 ] || return 1; sleep 0.2; done; }\n'
    archive = initrd(tmp_path / "initrd", wait + SLOTS, MODULES)
    p = lodge.popen("run", "box", "--kernel", kernel().path, "--initrd", archive, "--append", "console=ttyS0 quiet", "--memory", "160M", "--disk",
                    f"{tmp_path}/disk,format=raw", "--net", "user", "--console", "stdio", stdin=-1)
    read_until(p.stdout.fileno(), b"state: up")

    yield functools.partial(answer_to, p), Qmp(lodge.home / "run" / "lodge" / "box" / "qmp.sock"), hashlib.sha256((tmp_path / "disk").read_bytes()).hexdigest()
    p.stdin.write(b"off\n")
    p.stdin.flush()
    assert p.wait(BOOT_SECONDS) == 0


def unplug(q, name):
    q.socket.settimeout(BOOT_SECONDS)
    events, answer = q.ask("device_del", id=name)
    assert answer == {"return": {}}
    while not events:
        events = [q.line()]
    assert events[0]["event"] == "DEVICE_DELETED" and events[0]["data"]["device"] == name


def test_devices_come_and_go(session):
    say, q, contents = session
    assert say("disk") == contents
    assert say("net") == "answers"
    before = [d["id"] for d in q.ask("x-lodge-devices")[1]["return"]]
    for _ in range(2):
        unplug(q, "disk0")
        assert say("nodisk") == "gone"
        unplug(q, "net0")
        assert say("nonet") == "gone"
        assert set(before) - {d["id"] for d in q.ask("x-lodge-devices")[1]["return"]} == {"disk0", "net0"}
        assert q.ask("device_add", driver="virtio-blk-pci", id="disk0", drive="disk0") == ([], {"return": {}})
        assert say("disk") == contents
        assert q.ask("device_add", driver="virtio-net-pci", id="net0", netdev="net0") == ([], {"return": {}})
        assert say("net") == "answers"
