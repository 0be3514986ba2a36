# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a guest that died or hangs: options, events, exit status; and the verbs that watch guests."""
import json
import os
import re
import time

import pexpect
import pytest
from qmp import Qmp

SECONDS = 30


@pytest.fixture
def dying(lodge, guests, nothing_left):
    """Start one that stands still until it is told to go on, with somebody who hears its events."""
    sockets = []

    def start(how, *options, go=0, first=()):
        p = lodge.popen("run", "box", "--kernel", guests / "dying", "--append", f"how={how} go={go}", "--memory", "16M", "--net", "none", "--debug-exit",
                        "--console", "stdio", "--gdb", f"unix:{lodge.home}/gdb,wait=on", *options)
        path, deadline = lodge.home / "run/lodge/box/qmp.sock", time.monotonic() + SECONDS
        while True:
            try:
                q = Qmp(path)
                break
            except OSError:
                assert p.poll() is None and time.monotonic() < deadline, p.stderr.read()
                time.sleep(0.01)
        sockets.append(q)
        while q.ask("query-status")[1]["return"]["status"] == "prelaunch":
            time.sleep(0.01)
        for name, words in first:
            assert q.ask(name, **words)[1] == {"return": {}}
        q.ask("cont")
        return p, q

    yield start
    for q in sockets:
        q.close()


def events(q, last):
    """Names and data of events up to @last."""
    seen = []
    while not seen or seen[-1][0] != last:
        e = q.line()
        assert e is not None, seen
        seen.append((e["event"], e.get("data")))
    return [s for s in seen if s[0] != "RESUME"]


def test_panic_ends(dying):
    p, q = dying("panic")
    assert events(q, "SHUTDOWN") == [("GUEST_PANICKED", {"action": "poweroff"}), ("SHUTDOWN", {"guest": True, "reason": "guest-panic"})]
    assert p.wait(SECONDS) == 255 and re.search(rb"^lodge: run: box: the guest's kernel died \(panic\)$", p.stderr.read(), re.M)


def test_panic_resets(dying):
    p, q = dying("panic", "--on-panic", "reset")
    assert events(q, "RESET") == [("GUEST_PANICKED", {"action": "run"}), ("RESET", {"guest": True, "reason": "guest-reset"})]
    assert p.wait(SECONDS) == 33 and b"second boot" in p.stdout.read()


def test_panic_pauses(dying):
    p, q = dying("panic", "--on-panic", "pause", go=1)
    assert events(q, "STOP") == [("GUEST_PANICKED", {"action": "pause"}), ("STOP", None)]
    assert q.ask("query-status")[1]["return"]["status"] == "guest-panicked"
    q.ask("cont")
    assert p.wait(SECONDS) == 33 and b"lives on" in p.stdout.read()


def test_panic_is_passed_over(dying):
    p, q = dying("panic", "--on-panic", "none", go=1)
    assert events(q, "GUEST_PANICKED") == [("GUEST_PANICKED", {"action": "run"})]
    assert p.wait(SECONDS) == 33 and b"lives on" in p.stdout.read()


def test_reset_where_none_is_wanted(dying):
    """With --no-reboot it ends, and not well."""
    p, q = dying("hang", "--watchdog", "--no-reboot")
    assert events(q, "SHUTDOWN")[0] == ("WATCHDOG", {"action": "reset"})
    assert p.wait(SECONDS) == 255 and b"its watchdog's time is over" in p.stderr.read()


def test_watchdog_resets(dying):
    p, q = dying("hang", "--watchdog")
    assert events(q, "RESET") == [("WATCHDOG", {"action": "reset"}), ("RESET", {"guest": True, "reason": "guest-reset"})]
    assert p.wait(SECONDS) == 33 and b"second boot" in p.stdout.read()


def test_watchdog_pauses(dying):
    p, q = dying("hang", "--watchdog=pause")
    assert events(q, "STOP") == [("WATCHDOG", {"action": "pause"}), ("STOP", None)]
    assert q.ask("query-status")[1]["return"] == {"status": "watchdog", "singlestep": False, "running": False}
    q.ask("quit")
    assert p.wait(SECONDS) == 0


def test_actions_while_it_runs(dying):
    """What QMP says before it happens counts, and not what the options said."""
    p, q = dying("panic", "--on-panic", "poweroff", go=1, first=[("set-action", {"panic": "pause", "watchdog": "none"})])
    assert events(q, "STOP") == [("GUEST_PANICKED", {"action": "pause"}), ("STOP", None)]
    for words, text in [({"action": "bark"}, "Parameter 'action' does not accept value 'bark'"), ({}, "Parameter 'action' is missing")]:
        assert q.ask("watchdog-set-action", **words)[1]["error"]["desc"] == text
    assert q.ask("set-action", panic="reset")[1]["error"]["desc"] == "Parameter 'panic' does not accept value 'reset'"
    q.ask("quit")
    assert p.wait(SECONDS) == 0


def test_watchdog_action_while_it_runs(dying):
    p, q = dying("hang", "--watchdog=reset", first=[("watchdog-set-action", {"action": "poweroff"})])
    assert events(q, "SHUTDOWN")[0] == ("WATCHDOG", {"action": "poweroff"})
    assert p.wait(SECONDS) == 255


# ---- the balloon, without a driver in the guest ----

def test_balloon_without_a_driver(lodge, guests, nothing_left):
    p = lodge.popen("run", "box", "--kernel", guests / "hlt_wake", "--append", "n=100000000", "--memory", "16M", "--net", "none", "--console", "pty", "-d")
    assert p.wait(SECONDS) == 0
    q = Qmp(lodge.home / "run/lodge/box/qmp.sock")
    assert q.ask("query-balloon")[1] == {"return": {"actual": 16 << 20}}
    assert q.ask("balloon", value=8 << 20)[1] == {"return": {}}
    assert q.ask("query-balloon")[1] == {"return": {"actual": 16 << 20}}
    assert q.ask("balloon", value=0)[1]["error"]["desc"] == "Parameter 'target' expects a size"
    line = {"command-line": "info balloon"}
    assert q.ask("human-monitor-command", **line)[1] == {"return": "balloon: actual=16\r\n"}
    assert q.ask("human-monitor-command", **{"command-line": "balloon 8"})[1] == {"return": ""}
    assert "invalid" in q.ask("human-monitor-command", **{"command-line": "balloon x"})[1]["return"]
    stats = q.ask("x-lodge-stats", ask=True)[1]["return"]
    assert stats["exits"] > 0 and stats["balloon"]["wanted"] == 8 << 20 and not stats["balloon"]["driver"] and stats["balloon"]["stats"] == {}
    path = "/machine/peripheral/balloon0"
    assert q.ask("qom-get", path=path, property="guest-stats-polling-interval")[1] == {"return": 0}
    assert q.ask("qom-set", path=path, property="guest-stats-polling-interval", value=2)[1] == {"return": {}}
    assert q.ask("qom-get", path=path, property="guest-stats-polling-interval")[1] == {"return": 2}
    told = q.ask("qom-get", path=path, property="guest-stats")[1]["return"]
    assert told["last-update"] == 0 and set(told["stats"].values()) == {-1} and "stat-free-memory" in told["stats"]
    for name, words, text in [("qom-get", {"path": path, "property": "x"}, "Property 'virtio-balloon-pci.x' not found"),
                              ("qom-get", {"path": "/nowhere", "property": "x"}, "Device '/nowhere' not found"),
                              ("qom-set", {"path": path, "property": "guest-stats-polling-interval", "value": -1}, "timer value must be greater than zero"),
                              ("qom-set", {"path": path, "property": "guest-stats-polling-interval", "value": "x"},
                               "Invalid parameter type for 'guest-stats-polling-interval', expected: integer"),
                              ("qom-set", {"path": path, "property": "guest-stats-polling-interval"}, "Parameter 'value' is missing")]:
        assert q.ask(name, **words)[1]["error"]["desc"] == text
    r = lodge("set", "box", "--memory", "8M")
    assert (r.status, r.out) == (0, "box: memory: at the next start: the guest has no driver for its balloon\n")
    assert lodge("set", "box", "--memory", "32M").out == "box: memory: at the next start: it was started with less\n"
    assert lodge("set", "box", "--memory", "8M,huge=off").out == "box: memory: at the next start: other options of it\n"
    q.close()
    assert lodge("kill", "box").status == 0


def test_no_balloon(lodge, guests, nothing_left):
    p = lodge.popen("run", "box", "--kernel", guests / "hlt_wake", "--append", "n=100000000", "--memory", "16M", "--net", "none", "--balloon", "off", "-d")
    assert p.wait(SECONDS) == 0
    q = Qmp(lodge.home / "run/lodge/box/qmp.sock")
    for name, words in [("query-balloon", {}), ("balloon", {"value": 1})]:
        assert q.ask(name, **words)[1]["error"]["desc"] == "No balloon device has been activated"
    assert "balloon" not in q.ask("x-lodge-stats")[1]["return"]
    assert lodge("set", "box", "--memory", "8M").out == "box: memory: at the next start: it runs without a balloon\n"
    q.close()
    assert lodge("kill", "box").status == 0


# ---- top ----

def test_top(lodge, guests, nothing_left):
    r = lodge("top")
    assert r.status == 0 and r.out.split() == ["NAME", "STATE", "CPU", "VCPUS", "MEMORY", "GUEST", "READ/s", "WRITE/s", "RECV/s", "SENT/s", "EXITS/s"]
    guest = ["--kernel", guests / "hlt_wake", "--append", "n=100000000", "--memory", "16M", "--net", "none", "-d"]
    for name in ("one", "two"):
        assert lodge("run", name, *guest).status == 0
    assert lodge("pause", "two").status == 0
    r = lodge("top")
    rows = {line.split()[0]: line.split() for line in r.out.splitlines()[1:]}
    assert set(rows) == {"one", "two"} and rows["one"][1] == "running" and rows["two"][1] == "paused"
    assert rows["two"][5] == "16M" and rows["two"][10] == "0"
    screen = lodge.spawn("top", dimensions=(8, 60))
    screen.expect_exact("q ends")
    screen.expect_exact("\033[H")  # the next round
    screen.expect(r"one +running[^\r]*\r\n")
    assert len(screen.match[0].split("\033")[0]) <= 60
    screen.send("q")
    screen.expect(pexpect.EOF)
    screen.close()
    assert screen.exitstatus == 0
    for name in ("one", "two"):
        assert lodge("kill", name).status == 0
    r = lodge("top", "x")
    assert r.status == 2 and r.err.startswith("lodge: top: ")


def test_stats_of_one_that_hangs(lodge, guests, nothing_left):
    """A process that does not answer is shown all the same."""
    assert lodge("run", "box", "--kernel", guests / "hlt_wake", "--append", "n=100000000", "--memory", "16M", "--net", "none", "-d").status == 0
    pid = int((lodge.home / "run/lodge/box/pid").read_text())
    told, = json.loads(lodge("stats", "--json", "box").out)["machines"]
    assert told["exits"] > 0 and told["balloon"]["actual"] == 16 << 20
    os.kill(pid, 19)
    try:
        untold, = json.loads(lodge("stats", "--json", "box").out)["machines"]
    finally:
        os.kill(pid, 18)
    assert "exits" not in untold and "balloon" not in untold and untold["resident"] > 0
    assert lodge("kill", "box").status == 0
