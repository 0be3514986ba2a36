# SPDX-License-Identifier: GPL-2.0-or-later
"""Systems that start from firmware and speak to the screen: GRUB from a CD-ROM, a floppy and an IDE
disk, GNU Mach, U-Boot."""
import re

import grub_media
import pytest
from pc_screen import Machine, guest, wait_console

GUESTS = ("grub-cdrom", "grub-floppy", "gnumach", "u-boot")
COUNTDOWN = r"executed automatically in (\d+)s"
PROMPT = r"^grub> *$"
MENU = """set timeout=30
menuentry "First entry" { echo first-was-chosen; sleep 30 }
menuentry "GNU Mach" { multiboot (cd)/GNUMACH root=none; boot }
"""


@pytest.fixture
def machine(lodge, nothing_left):
    """Starts a machine; one that still runs at the end is stopped, and must then leave nothing."""
    started = []

    def start(*args, **kw):
        started.append(Machine(lodge, *args, **kw))
        return started[-1]

    yield start
    for m in started:
        if m.process.poll() is None:
            m.end()


def to_shell(m):
    """From the menu into GRUB's shell; what `ls` says there."""
    m.type("c")
    m.wait(PROMPT)
    m.type("ls", enter=True)
    return m.wait(r"^grub> ls *\n(\(.*\)) *\n(?:.*\n)*grub> *$")[1].split()


def test_grub_cdrom(machine):
    """The rescue CD: its menu, a countdown that falls and stops at a key, the drives."""
    m = machine("--cdrom", guest("grub-cdrom"))
    first = int(m.wait(COUNTDOWN)[1])
    assert "GNU GRUB" in m.screen() and "*GNU/Linux" in m.screen()
    seen = [first, *map(int, m.watch(COUNTDOWN, 5))]
    assert seen == sorted(seen, reverse=True) and seen[-1] < first, seen
    m.type("", "down")
    m.wait(r"\*GNU \(aka")
    text = m.screen()
    assert "*GNU/Linux" not in text and not re.search(COUNTDOWN, text), text
    drives = to_shell(m)
    assert "(cd)" in drives or "(cd0)" in drives, drives


def test_grub_floppy(machine):
    """The rescue floppy's image, which ends before the disk does; started with the CD drive empty."""
    m = machine("--firmware", "--floppy", f"{guest('grub-floppy')},ro", "--boot", "order=a")
    m.wait(COUNTDOWN)
    assert "(fd0)" in to_shell(m)


def test_grub_disk(machine, tmp_path):
    """GRUB's boot sector on an IDE disk; the chosen entry runs."""
    image = grub_media.disk(tmp_path / "disk", MENU)
    m = machine("--firmware", "--disk", f"{image},bus=ide")
    m.wait(COUNTDOWN)
    assert "(hd0)" in to_shell(m)
    m.type("", "esc")
    m.wait(r"\*First entry")
    m.type(enter=True)
    m.wait("first-was-chosen")


def test_gnumach(machine, tmp_path):
    """GNU Mach, read by GRUB from a CD-ROM, finds no module to run."""
    with open(guest("gnumach"), "rb") as f:
        image = grub_media.iso(tmp_path / "iso", MENU, {"GNUMACH": f.read()})
    m = machine("--cdrom", image)
    m.wait(COUNTDOWN)
    m.type("", "down")
    m.wait(r"\*GNU Mach")
    m.type(enter=True)
    m.wait(r"GNU Mach [0-9]")
    m.wait("[Nn]o bootstrap code")


def test_u_boot(machine, tmp_path):
    """U-Boot as firmware, to its prompt on the serial port, where it answers what the keyboard types.
    Without a screen: it runs the VGA BIOS with segments of 64 KiB, beyond which that reads."""
    log = tmp_path / "serial"
    m = machine(f"--firmware={guest('u-boot')}", "--vga", "none", "--console", f"file:{log}", memory="256M")
    wait_console(m, log, r"U-Boot 20\d\d")
    wait_console(m, log, r"Hit any key to stop autoboot")
    m.type("x")
    wait_console(m, log, r"^=> ")
    m.type("", "backspace")
    m.type("echo typed-$arch", enter=True)
    wait_console(m, log, r"^typed-x86")
