# SPDX-License-Identifier: GPL-2.0-or-later
"""A distribution's system under User-Mode Linux's command line, on a person's terminal: its partition as root, a second console on a pseudo-terminal,
a restart in the same process, a panic."""
import os
import pathlib
import re
import signal

import pexpect
import pexpect.fdpexpect
from linux_guest import BOOT_SECONDS, kernel
from pc_screen import guest

GUESTS = ("debian-disk",)
PROMPT = "bash-5[^\r\n]*# "


def test_debian_on_a_terminal(lodge, tmp_path, nothing_left, monkeypatch):
    image = pathlib.Path(guest("debian-disk"))
    stamp = image.stat().st_mtime_ns
    linux = tmp_path / "linux"
    linux.symlink_to(lodge.path)
    lodge.path = linux
    monkeypatch.chdir(tmp_path)
    vm = lodge.spawn(f"kernel={kernel().path}", f"ubd0=deb.cow,{image}", "root=98:1", "rw", "init=/bin/bash", "mem=256M", "umid=deb", "eth3=slirp", "con1=pts",
                     "hostlab=/somewhere", "quiet", timeout=BOOT_SECONDS)
    vm.expect(r"mconsole \(version 2\) initialized on (\S+)")
    assert vm.match[1] == str(lodge.home / ".uml" / "deb" / "mconsole")
    vm.expect("Virtual console 1 assigned device '(/dev/pts/[0-9]+)'")
    line = os.open(vm.match[1], os.O_RDWR | os.O_NOCTTY)
    vm.expect(PROMPT)

    def ask(command):
        vm.sendline(command)
        vm.expect_exact(command)
        vm.expect(PROMPT)
        return vm.before.replace("\r", "").strip()

    ask("mount -t proc proc /proc; mount -t sysfs sys /sys")
    words = ask("cat /proc/cmdline").split()
    assert {"hostlab=/somewhere", "con1=pts", "root=98:1", "lodge.uml=1", "lodge.eth=eth3"} <= set(words) and not any(w.startswith("umid=") for w in words)
    assert ask("readlink -f /dev/ubda1; cat /sys/class/net/eth3/type; grep -c ' / ' /proc/mounts") == "/dev/vda1\n1\n1"
    # The second console is a terminal that a shell can have.
    ask("setsid bash -c 'exec < /dev/tty1 > /dev/tty1 2>&1; read word; echo heard $word' &")
    second = pexpect.fdpexpect.fdspawn(line, timeout=BOOT_SECONDS, encoding="utf-8")
    second.send("something\r")
    second.expect("heard something")
    pid = vm.pid
    vm.sendline("sync; reboot -f")
    vm.expect("mconsole .version 2. initialized")  # another start, the same process
    assert (lodge.home / ".uml" / "deb" / "pid").read_text() == f"{pid}\n" and vm.isalive()
    vm.expect(PROMPT)
    vm.sendline("exit")  # of the first process: a panic
    vm.expect("Kernel panic - not syncing: Attempted to kill init")
    vm.expect(pexpect.EOF)
    vm.wait()
    os.close(line)
    assert vm.signalstatus == signal.SIGABRT and image.stat().st_mtime_ns == stamp
    assert not (lodge.home / ".uml" / "deb").exists() and re.search("cow", " ".join(os.listdir(tmp_path)))
