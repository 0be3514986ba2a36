# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP where --qmp says, in each form that QEMU's option has, and run --detach --wait."""
import json
import socket
import stat
import subprocess
import time

import pytest
from qmp import Qmp
from test_native_life import echo, ended, fails, state, works  # noqa: F401 (fixtures)

SECONDS = 30


@pytest.fixture
def here(echo):
    return [*echo, "--ephemeral"]


def hears(f):
    return json.loads(f.readline())


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stdio(lodge, here):
    p = lodge.popen("run", "box", *here, "--qmp", "stdio", stdin=subprocess.PIPE)
    assert hears(p.stdout)["QMP"]["capabilities"] == []
    p.stdin.write(b'{"execute": "qmp_capabilities"}{"execute": "query-name", "id": [1]}')
    p.stdin.flush()
    assert hears(p.stdout) == {"return": {}} and hears(p.stdout) == {"return": {"name": "box"}, "id": [1]}
    p.stdin.write(b'{"execute": "stop"}')
    p.stdin.close()  # its end is not the machine's; what was asked is answered
    assert hears(p.stdout)["event"] == "STOP" and hears(p.stdout) == {"return": {}}
    until(lambda: state(lodge, "box") == "paused")
    works(lodge("kill", "box"))
    assert p.wait(SECONDS) == 0 and p.stderr.read() == b""


def test_sockets(lodge, here):
    at = lodge.home / "q.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(at))  # which somebody left behind
    stale.close()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    works(lodge("run", "box", "-d", *here, "--qmp", f"unix:{at},server=on,wait=off", "--qmp", f"tcp::{port},server=on,wait=off"))
    assert stat.S_IMODE(at.stat().st_mode) == 0o600
    q = Qmp(at)
    assert q.ask("query-name") == ([], {"return": {"name": "box"}})
    t = socket.create_connection(("127.0.0.1", port), SECONDS)
    assert b'"QMP"' in t.recv(4096)
    t.sendall(b'{"execute":"qmp_capabilities"}{"execute":"quit"}')
    assert q.line()["event"] == "SHUTDOWN"  # each hears of what the other does
    until(lambda: not at.exists() and state(lodge, "box") is None)
    at.write_text("somebody's file")
    fails(lodge("run", "box", *here, "--qmp", f"unix:{at},server=on"), 5, f"run: qmp '{at}': is there already; remove it or choose another path")
    at.unlink()


def test_waits_for_a_client(lodge, here):
    at = lodge.home / "q.sock"
    p = lodge.popen("run", "box", *here, "--console", "none", "--qmp", f"unix:{at},server=on")
    until(at.exists)
    assert state(lodge, "box") in ("starting", None)
    q = Qmp(at)
    until(lambda: state(lodge, "box") == "running")
    assert q.ask("quit")[1] == {"return": {}}
    assert p.wait(SECONDS) == 0 and b"qmp: waits for a client at" in p.stderr.read()


def test_comes_to_a_client(lodge, here):
    at = lodge.home / "q.sock"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(at))
        s.listen()
        p = lodge.popen("run", "box", *here, "--console", "none", "--qmp", f"unix:{at}")
        c, _ = s.accept()
        c.settimeout(SECONDS)
        assert b'"QMP"' in c.recv(4096)
        c.sendall(b'{"execute":"qmp_capabilities"}')
        assert c.recv(4096) == b'{"return": {}}\r\n'
        c.close()
        until(lambda: state(lodge, "box") == "running")
        works(lodge("kill", "box"))
        assert p.wait(SECONDS) == 0
    at.unlink()
    fails(lodge("run", "box", *here, "--qmp", f"unix:{at}"), 1, f"run: qmp 'unix:{at}': cannot connect: No such file or directory")
    assert state(lodge, "box") is None


def test_detached_and_waited_for(lodge, echo, guests):
    works(lodge("run", "box", "-d", "--wait=log:^READY$", *echo))
    assert "READY" in works(lodge("log", "box"))
    works(lodge("kill", "box"))
    r = lodge("run", "box", "-d", "--wait=log:never", "--kernel", guests / "hello", "--memory", "16M", "--net", "none", "--debug-exit")
    fails(r, 7, "run: box: (ended, and no line matched|is not running)")
    waiter = lodge.popen("run", "box", "-d", "--wait", *echo)  # for a login, which that guest has not
    until(lambda: state(lodge, "box") == "running")
    assert waiter.poll() is None
    works(lodge("kill", "box"))
    assert waiter.wait(SECONDS) == 7


@pytest.mark.parametrize("words,says", [
    (["--qmp", "x"], '--qmp: "x": write unix:PATH, tcp:.*'),
    (["--qmp", "stdio", "-d"], "--qmp: stdio: a detached machine has none; .*"),
    (["--qmp", "stdio", "--console", "stdio"], "--console: stdio: there is one terminal, .*"),
    (["--qmp", "unix:/x,wait=off"], "--qmp: wait: goes with server=on, .*"),
    (["--qmp", "tcp:nowhere:1,server=on"], r"qmp 'tcp:nowhere:1': write tcp:\[ADDR:\]PORT or unix:PATH"),
    (["--qmp", f"unix:/{'x' * 120},server=on"], "qmp '/x*': a socket's path has 1 to 107 letters"),
    (["--wait"], "--wait: goes with --detach"),
    (["-d", "--wait", "--ephemeral"], "--wait: an --ephemeral machine keeps no log .*"),
    (["-d", "--wait=x"], '--wait: "x": write log:REGEX'),
    (["-d", "--wait=log:("], r'--wait: "log:\(": .*'),
])
def test_wrong_words(lodge, echo, words, says):
    fails(lodge("run", "box", *echo, *words), 2, f"run: {says}")
