# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux with its own drivers: memory that it frees returns to the host, a long pause does it no harm, its watchdog bites."""
import functools
import json
import pathlib
import re
import time

import pytest
from linux_guest import BOOT_SECONDS, answer_to, initrd, kernel, read_until
from qmp import Qmp

MEMORY = 192 << 20
PIECE = 64 << 20
MODULES = ("virtio_pci", "virtio_balloon", "i6300esb")
WORDS = """
mount -t tmpfs -o size=80% tmp /mnt
echo "state: up"
while read -r word; do
  case $word in
    fill) dd if=/dev/zero of=/mnt/f bs=1M count=64 2> /dev/null; echo "fill: done" ;;
    free) rm /mnt/f; echo 3 > /proc/sys/vm/drop_caches; echo "free: done" ;;
    left) echo "left: $(sed -n 's/^MemFree: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)" ;;
    watch) watchdog -T 2 -t 60 /dev/watchdog; echo "watch: left alone" ;;
    strict) echo 1 > /proc/sys/kernel/watchdog_thresh; echo 3 > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout; echo "strict: done" ;;
    clock) echo "clock: $(cat /sys/class/rtc/rtc0/since_epoch) $(cut -d ' ' -f 1 /proc/uptime) $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)" ;;
    barks) echo "barks: $(dmesg | grep -c -i -E 'lockup|stall|unstable')" ;;
  esac
done
"""


@pytest.fixture
def session(lodge, nothing_left, tmp_path):
    """A guest that answers words on its console, its process, and the control socket."""
    archive = initrd(tmp_path / "initrd", WORDS, MODULES, "stock")
    p = lodge.popen("run", "box", "--kernel", kernel("stock").path, "--initrd", archive, "--append", "console=ttyS0 quiet", "--memory", "192M", "--net",
                    "none", "--console", "stdio", "--watchdog=poweroff", stdin=-1)
    read_until(p.stdout.fileno(), b"state: up")

    yield functools.partial(answer_to, p), p, Qmp(lodge.home / "run" / "lodge" / "box" / "qmp.sock")


def resident(p):
    """Bytes of memory that the host has given the process."""
    return int(re.search(r"^Rss: +(\d+) kB", pathlib.Path(f"/proc/{p.pid}/smaps_rollup").read_text(), re.M)[1]) << 10


def wait_for(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.2)


def freed_memory_returns(lodge, say, p, q):
    assert say("fill") == "done"
    full = resident(p)
    assert full > PIECE
    assert say("free") == "done"
    wait_for(lambda: resident(p) < full - PIECE * 3 // 4)
    balloon = q.ask("x-lodge-stats")[1]["return"]["balloon"]
    assert balloon["driver"] and balloon["reported"] >= PIECE * 3 // 4
    # Less by the balloon: the guest has less, and says what it has.
    before = int(say("left"))
    r = lodge("set", "box", "--memory", "128M")
    assert (r.status, r.err, r.out) == (0, "", "box: memory: now: by the guest's balloon\n")
    q.socket.settimeout(BOOT_SECONDS)
    sizes = []
    while not sizes or sizes[-1] != 128 << 20:
        event = q.line()
        if event["event"] == "BALLOON_CHANGE":
            sizes.append(event["data"]["actual"])
    assert q.ask("query-balloon")[1] == {"return": {"actual": 128 << 20}}
    assert int(say("left")) < before - (48 << 10)
    r = lodge("stats", "--json", "box")
    machine, = json.loads(r.out)["machines"]
    assert machine["exits"] > 0 and machine["balloon"]["actual"] == 128 << 20
    assert 0 < machine["balloon"]["stats"]["stat-free-memory"] < MEMORY
    path = "/machine/peripheral/balloon0"
    assert q.ask("qom-set", path=path, property="guest-stats-polling-interval", value=1)[1] == {"return": {}}
    last = q.ask("qom-get", path=path, property="guest-stats")[1]["return"]["last-update"]
    wait_for(lambda: q.ask("qom-get", path=path, property="guest-stats")[1]["return"]["last-update"] > last)
    # And all of it back; beyond what it was started with at the next start only.
    assert lodge("set", "box", "--memory", "192M").out == "box: memory: now: by the guest's balloon\n"
    wait_for(lambda: q.ask("query-balloon")[1]["return"]["actual"] == MEMORY)
    assert int(say("left")) > before - (16 << 10)
    assert lodge("set", "box", "--memory", "256M").out == "box: memory: at the next start: it was started with less\n"


def long_pause(lodge, say):
    """A guest whose own watchdogs bark after 2 seconds is paused for longer."""
    assert say("strict") == "done"
    before = say("barks")
    _, up, source = say("clock").split()
    assert lodge("pause", "box").status == 0
    time.sleep(8)
    assert lodge("resume", "box").status == 0
    rtc, now, _ = say("clock").split()
    assert abs(int(rtc) - time.time()) < 5
    assert float(now) - float(up) < 6 or source != "kvm-clock"
    assert say("barks") == before


def watchdog_bites(say, p, q):
    assert say("watch") == "left alone"
    q.socket.settimeout(BOOT_SECONDS)
    events = []
    while (event := q.line()):
        events.append((event["event"], event.get("data")))
    assert ("WATCHDOG", {"action": "poweroff"}) in events
    assert p.wait(BOOT_SECONDS) == 255
    assert b"watchdog" in p.stderr.read()


def test_memory_pause_and_watchdog(lodge, session):
    """One guest, since each boot takes its time where the machine is emulated."""
    say, p, q = session
    freed_memory_returns(lodge, say, p, q)
    long_pause(lodge, say)
    watchdog_bites(say, p, q)
