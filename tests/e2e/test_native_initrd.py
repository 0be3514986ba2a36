# SPDX-License-Identifier: GPL-2.0-or-later
"""The program in Lodge's initrd, as an image made for User-Mode Linux meets it: run under User-Mode Linux's
own kernel, which needs no hardware assist and whose disks tell a serial number too."""
import os
import shutil
import subprocess
import time

import pytest
from conftest import BUILD
from linux_guest import Cpio, ext4

SECONDS = 60
ROOT_INIT = """#!/bin/busybox sh
export PATH=/bin
say() { echo "$1: $2"; }
say root "$(grep ' / ext4' /proc/mounts | cut -d ' ' -f 1)"
say links "$(readlink /dev/ubdd) $(readlink /dev/ubd3) $(readlink /dev/ubd/3) $(readlink /dev/ubd/disc3/disc)"
say modules "$(ls /lib/modules)"
say rules "$(grep -c SYMLINK /run/udev/rules.d/10-lodge-uml.rules)"
say hostfs "$(grep -c fs-hostfs /run/modprobe.d/lodge-uml.conf)"
say ready yes
until [ -e /dev/ubdh ]; do sleep 1; done; say late "$(readlink /dev/ubdh)"
mount -t tmpfs tmpfs /dev; until [ -b /dev/ubdh ] && [ -b /dev/ubdd ]; do sleep 1; done; say again yes
until [ ! -e /sys/block/ubdb ]; do sleep 1; done; say gone yes
poweroff -f
"""


@pytest.mark.skipif(not shutil.which("linux.uml"), reason="no User-Mode Linux; install user-mode-linux")
def test_names_stay(lodge, tmp_path):
    tree = tmp_path / "tree"
    for d in ("bin", "sbin", "proc", "dev", "sys", "lib/modules", "lib/systemd", "run"):
        (tree / d).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tree / "bin" / "busybox")
    for name in ("sh", "grep", "cut", "readlink", "ls", "sleep", "mount", "poweroff", "echo"):
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "lib" / "systemd" / "systemd").touch()  # one that brings its own /run
    (tree / "sbin" / "init").write_text(ROOT_INIT)
    (tree / "sbin" / "init").chmod(0o755)
    image = ext4(tmp_path / "root", tree, 16)
    (tmp_path / "late").write_bytes(bytes(1 << 20))
    release = subprocess.run(["linux.uml", "--version"], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    a = Cpio()
    for folder in ("dev", "proc", "sys", "root", "modules", "lib", "lib/modules", f"lib/modules/{release}"):
        a.add(folder, 0o040755)
    a.add("dev/console", 0o020600, rdev=(5, 1))
    a.add("init", 0o100755, (BUILD / "firmware" / "lodge-init").read_bytes())
    a.add("modules/order", 0o100644)
    (tmp_path / "initrd").write_bytes(a.finish())
    env = dict(lodge.env)
    said = tmp_path / "said"
    with open(said, "wb") as out:
        p = subprocess.Popen(["linux.uml", "mem=96M", f"initrd={tmp_path}/initrd", f"ubd0={image},,ubd3", "root=98:48", "umid=names", "lodge.uml=1", "con=null", "con0=null,fd:1",
                              "quiet"], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    lodge.children.append(p)

    def until(line):
        deadline = time.monotonic() + SECONDS
        while line not in (text := said.read_text(errors="replace").replace("\r", "")).splitlines():
            assert time.monotonic() < deadline and p.poll() is None, f"no {line!r} in {text}"
            time.sleep(0.05)
        return text

    text = until("ready: yes")
    for line in ("root: /dev/ubdd", "links: /dev/ubda /dev/ubda /dev/ubda /dev/ubda", f"modules: {release}", "rules: 32", "hostfs: 1"):
        assert line in text.splitlines(), text
    subprocess.run(["uml_mconsole", "names", "config", f"ubd1={tmp_path}/late,,ubd7"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=SECONDS)
    until("late: /dev/ubdb")
    until("again: yes")
    subprocess.run(["uml_mconsole", "names", "remove", "ubd1"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=SECONDS)
    until("gone: yes")
    p.wait(SECONDS)
    assert not os.path.exists(lodge.home / ".uml" / "names")
