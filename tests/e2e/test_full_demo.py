# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/demo, which is what `make demo` runs: the tour, and the shell on a terminal."""
import os
import re
import shutil
import subprocess
import termios

import pytest
from conftest import BUILD, TOP

TOUR_SECONDS = 240
STEPS = ("kernel", "hypervisor", "cpus", "dhcp", "http", "disk", "poweroff", "base image unchanged")


@pytest.fixture
def demo(lodge, tmp_path):
    """The command and its environment; its build folder has nothing but the program."""
    shutil.copy(lodge.path, tmp_path / "lodge")
    env = dict(lodge.env, BUILD=str(tmp_path), LODGE_KERNEL_DIR=os.environ.get("LODGE_KERNEL_DIR", str(BUILD / "kernel")))
    yield TOP / "scripts" / "demo", env
    assert not [f for f in os.listdir("/dev/shm") if f.startswith("lodge-demo")]


def test_tour(demo):
    command, env = demo
    p = subprocess.run([command], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TOUR_SECONDS, check=False)
    said = p.stdout.decode(errors="replace").replace("\r", "")
    assert p.returncode == 0, said
    assert re.findall("^tour: ok (.*)$", said, re.M) == list(STEPS), said


@pytest.mark.parametrize("leave, status", [("poweroff\r", 0), ("\x1dq", 0)], ids=["poweroff", "key"])
def test_shell(demo, leave, status):
    import pexpect
    command, env = demo
    p = pexpect.spawn(str(command), env=env, timeout=TOUR_SECONDS, encoding="utf-8", codec_errors="replace", echo=False)
    before = termios.tcgetattr(p.child_fd)
    p.expect("leave with 'poweroff'")
    p.expect(r"Linux \S+ on 2 CPUs, address 10\.0\.2\.15")
    p.expect("# ")
    p.send("echo in-$((6 * 7))\r")
    p.expect("in-42")
    p.expect("# ")
    p.send(leave)
    p.expect(pexpect.EOF)
    after = termios.tcgetattr(p.child_fd)
    p.close()
    assert p.exitstatus == status
    assert after == before
