# SPDX-License-Identifier: GPL-2.0-or-later
"""What reaches into guests, where the guest has no agent or no SSH server: each error says what to do. With
them, see test_full_agent.py."""
import re
import socket
import subprocess

import pytest
from linux_guest import read_until


@pytest.fixture
def box(lodge, guests, nothing_left):
    """A machine whose guest has no agent and stays."""
    def start(name, *more):
        r = lodge("run", name, "-d", "--kernel", guests / "hlt_wake", "--append", "n=100000000", "--memory", "16M", *more)
        assert (r.status, r.err) == (0, ""), r
    yield start
    lodge("kill", "--all")


def fails(r, status, pattern):
    assert (r.status, r.out) == (status, "") and re.fullmatch(rf"lodge: {pattern}\n", r.err), r


def test_no_agent(lodge, box, tmp_path):
    box("box", "--net", "none")
    fails(lodge("exec", "box", "--timeout", "0.5", "--", "true"), 124,
          "exec: box: no guest agent answers; the guest needs qemu-guest-agent, installed and running; and by the console: there is no login prompt on its console")
    fails(lodge("exec", "box", "--via", "agent", "--timeout", "0.5", "--", "true"), 124, "exec: box: no guest agent answers; .* running")
    fails(lodge("exec", "box", "--via", "console", "--timeout", "0.5", "--", "true"), 124, "exec: box: neither a login prompt nor a shell answers on its console")
    fails(lodge("wait", "box", "--agent", "--timeout", "0.5"), 124, "wait: box: no guest agent answered in time")
    lodge("pause", "box")
    for via in ("auto", "agent", "console"):
        fails(lodge("exec", "box", "--via", via, "--timeout", "0.5", "--", "true"), 124, "exec: box: is paused, .*; lodge resume box")


def test_no_port(lodge, box, guests):
    box("box", "--net", "none", "--agent", "off")
    fails(lodge("exec", "box", "--via", "agent", "--", "true"), 125, "exec: box: the machine has no port for a guest agent; start it with --agent on")
    fails(lodge("cp", "--via", "agent", "box:/etc/passwd", "."), 1, "cp: box: .*--agent on")
    fails(lodge("exec", "box", "--timeout", "1", "--", "true"), 124, "exec: box: .*--agent on; and by the console: there is no login prompt on its console")


def test_console_is_taken(lodge, box):
    box("box", "--net", "none")
    viewer = lodge.popen("console", "box", stdin=subprocess.PIPE)
    try:
        read_until(viewer.stdout.fileno(), b"READY")  # it is there
        fails(lodge("exec", "box", "--via", "console", "--timeout", "1", "--", "true"), 124, r"exec: box: somebody types on its console \(lodge console, or another command\)")
    finally:
        viewer.kill()


def test_password_file(lodge, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("abc\n")
    secret.chmod(0o644)
    line = ("exec", "--password-file", secret, "nobody", "--", "true")
    fails(lodge(*line), 125, "exec: --password-file .*: others may read it; chmod 600 it")
    secret.chmod(0o600)
    fails(lodge(*line), 125, "exec: nobody: .*")
    secret.write_text("\n")
    fails(lodge(*line), 125, "exec: --password-file .*: the first line must have 1 to 256 characters that can be typed")
    fails(lodge("exec", "--password-file", "/no/such", "nobody", "--", "true"), 125, "exec: --password-file .*: No such file or directory")
    fails(lodge("exec", "--password-file", tmp_path, "nobody", "--", "true"), 125, "exec: --password-file .*: is no file")


@pytest.mark.parametrize("words, status, pattern", [
    (("exec", "nobody", "--", "true"), 125, "exec: nobody: .*"),
    (("exec", "nobody"), 125, 'exec: no command; write it behind "--"'),
    (("exec", "-u", "a b", "nobody", "--", "true"), 125, 'exec: --user: "a b": not the name of a user'),
    (("exec", "-e", "A", "nobody", "--", "true"), 125, 'exec: --env: "A": write NAME=VALUE'),
    (("exec", "--via", "ssh", "nobody", "--", "true"), 125, 'exec: --via: "ssh": write auto, agent or console'),
    (("exec", "--via", "agent", "--password-file", "x", "nobody", "--", "true"), 125, "exec: --password-file: the agent asks for no password; .*"),
    (("cp", "-u", "web", "nobody:/x", "y"), 2, "cp: --user: the agent copies as root; write --via console with it"),
    (("run", "--kernel", "k", "--via", "console"), 2, 'run: --via: is about a command for the guest; write one behind "--"'),
    (("cp", "a", "b"), 2, "cp: neither is in a guest; write NAME:PATH for one"),
    (("cp", "a:/x", "b:/y"), 2, "cp: both are in guests; copy to this host first"),
    (("cp", "a:x", "b"), 2, "cp: a:x: write the path in the guest from its root, like a:/x"),
    (("cp", "a:/x"), 2, "cp: write what to copy, and where; one is NAME:PATH"),
    (("ssh", "nobody"), 3, "ssh: .*nobody.*"),
    (("ssh-config",), 2, "ssh-config: no machine; give its NAME"),
    (("wait", "--ssh", "--agent", "nobody"), 2, "wait: two conditions; choose one of .*"),
])
def test_errors(lodge, words, status, pattern):
    fails(lodge(*words), status, pattern)


def test_command_that_cannot_run(lodge, guests, nothing_left):
    hello = ["run", "--kernel", guests / "hello", "--net", "none", "--memory", "16M"]
    fails(lodge(*hello, "--"), 125, 'run: --: no command; write it behind "--"')
    fails(lodge(*hello, "--agent", "off", "--", "true"), 125, "run: --: a command for the guest needs its agent's port; .*")
    fails(lodge("run", "--kernel", "/no/such", "--net", "none", "--", "true"), 125, "run: kernel '/no/such': .*")
    r = lodge(*hello, "--timeout", "1", "--", "true")
    assert r.status == 124 and r.out == "" and "not done within its time limit" in r.err, r


def test_ssh(lodge, box, tmp_path):
    box("box", "--net", "user")
    fails(lodge("ssh", "box"), 2, "ssh: box: no port of this host leads to its port 22; make one: lodge net box --publish 2222:22")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    assert lodge("net", "box", "--publish", f"{port}:22").status == 0
    r = lodge("ssh-config", "box")
    assert (r.status, r.out) == (0, f"Host box\n    HostName 127.0.0.1\n    Port {port}\n    HostKeyAlias lodge-box\n")
    fails(lodge("wait", "box", "--ssh", "--timeout", "0.5"), 124, "wait: box: no SSH server answered in time")
    # A program in ssh's place shows how it is called.
    fake = tmp_path / "ssh"
    fake.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 42\n')
    fake.chmod(0o755)
    r = lodge("ssh", "box", "-l", "root", "-v", "uptime", "-p", env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (r.status, r.out) == (42, f"-p|{port}|-o|HostKeyAlias=lodge-box|-l|root|-v|127.0.0.1|uptime|-p|")
    assert lodge("net", "box", "--unpublish", str(port)).status == 0
    fails(lodge("ssh", "box"), 2, "ssh: box: no port .*")
