# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's drivers of keyboard, mouse, absolute pointer and screen: what is sent is what evdev tells, and what is
drawn is what is seen."""
import hashlib
import os

import pytest
from conftest import running_lodge
from linux_guest import extra_initrd, initrd, kernel, words
from pc_screen import Machine, console, wait_console
from qmp import Qmp

SECONDS = 400  # of a clock that runs fast in the emulated machine while its host is busy
KEY, REL, ABS = 1, 2, 3  # linux/input-event-codes.h
BTN_LEFT = 0x110
ABS_MAX = 0x7fff  # of the control socket
SIZE = (1024, 768)
MODULES = ("evdev", "psmouse", "bochs")

# Reads EVENTS records of 24 bytes (16 of time) from the device whose name has PATTERN.
GUEST = """
wait_for() { local i=0; while [ $i -lt 200 ] && ! eval "$1"; do sleep 0.1; i=$((i + 1)); done; }
watch() { # WORD PATTERN EVENTS
  local e; wait_for "grep -q '$2' /sys/class/input/event*/device/name"
  e=$(grep -l "$2" /sys/class/input/event*/device/name | head -n 1); e=${e%/device/name}
  say name "$1 $(cat $e/device/name)"; exec 4< /dev/input/${e##*/}; say ready $1
  timeout 60 dd bs=24 count=$3 <&4 2> /dev/null | od -An -v -tu2 -w24 | while read -r a b c d e f g h type code lo hi; do say $1 "$type $code $((lo + 65536 * hi))"; done
}
protocol() { echo -n $1 > /sys/bus/serio/drivers/psmouse/serio1/protocol; }
watch keyboard 'AT Translated' 12
protocol imps; watch mouse 'ImPS/2' 12
protocol vmmouse; watch pointer 'VirtualPS/2 VMware VMMouse' 10
for d in /sys/bus/pci/drivers/bochs-drm/*:*; do say screen "$(cat $d/vendor) $(cat $d/device)"; done
say fb "$(cat /sys/class/graphics/fb0/name) $(cat /sys/class/graphics/fb0/virtual_size) $(cat /sys/class/graphics/fb0/bits_per_pixel)"
echo 0 > /sys/class/graphics/fbcon/cursor_blink; printf '\\033[?25l' > /dev/tty0
cat /noise > /dev/fb0; say back $(head -c 3145728 /dev/fb0 | md5sum | cut -d ' ' -f 1)
say ready screen; read -r line < /dev/ttyS0
bye
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Run it all once: what the guest said, what it drew, and the picture of it."""
    folder = tmp_path_factory.mktemp("input")
    said, picture = folder / "console", folder / "picture.ppm"
    noise = os.urandom(4 * SIZE[0] * SIZE[1])
    archives = initrd(folder / "initrd", GUEST, MODULES, "stock"), extra_initrd(folder / "noise", {"noise": noise})
    with running_lodge() as lodge:
        m = Machine(lodge, "--kernel", kernel("stock").path, "--initrd", archives[0], "--initrd", archives[1], "--append", "console=ttyS0 quiet",
                    "--display", f"vnc=unix:{lodge.home}/vnc",
                    "--console", f"file:{said}", memory="256M")
        wait_console(m, said, r"^ready: keyboard", SECONDS)
        q = Qmp(lodge.home / "run" / "lodge" / m.name / "qmp.sock")

        def send(*events):
            assert q.ask("input-send-event", events=[{"type": t, "data": d} for t, d in events]) == ([], {"return": {}})

        m.type("aB")  # with shift
        wait_console(m, said, r"^ready: mouse", SECONDS)
        send(("rel", {"axis": "x", "value": 5}), ("rel", {"axis": "y", "value": -3}))
        send(("btn", {"button": "left", "down": True}))
        send(("btn", {"button": "left", "down": False}))
        send(("btn", {"button": "wheel-up", "down": True}))
        send(("rel", {"axis": "x", "value": -200}), ("rel", {"axis": "y", "value": 100}))
        wait_console(m, said, r"^ready: pointer", SECONDS)
        send(("abs", {"axis": "x", "value": ABS_MAX // 4}), ("abs", {"axis": "y", "value": ABS_MAX // 2}))
        send(("btn", {"button": "left", "down": True}))
        send(("btn", {"button": "left", "down": False}))
        send(("abs", {"axis": "x", "value": ABS_MAX}), ("abs", {"axis": "y", "value": 0}))
        wait_console(m, said, r"^ready: screen", SECONDS)
        assert q.ask("screendump", filename=str(picture)) == ([], {"return": {}})
        m.end()
    print(console(said))
    return words(console(said)), noise, picture.read_bytes()


def events(said, device, kind):
    """(code, value) of the device's events of a kind, values as signed."""
    found = [tuple(int(x) for x in line.split()) for line in said.get(device, [])]
    return [(code, value - (1 << 32) if value >> 31 else value) for t, code, value in found if t == kind]


def test_keyboard(said):
    said, _, _ = said
    assert "keyboard AT Translated Set 2 keyboard" in said["name"]
    a, b, shift = 30, 48, 42
    assert events(said, "keyboard", KEY)[:4] == [(a, 1), (a, 0), (shift, 1), (b, 1)]


def test_mouse(said):
    said, _, _ = said
    assert any(n.startswith("mouse ImPS/2 ") for n in said["name"]), said["name"]
    assert events(said, "mouse", KEY) == [(BTN_LEFT, 1), (BTN_LEFT, 0)]
    x, y, wheel = 0, 1, 8
    assert events(said, "mouse", REL) == [(x, 5), (y, -3), (wheel, 1), (x, -200), (y, 100)]


def test_absolute_pointer(said):
    said, _, _ = said
    assert any("VMware VMMouse" in n for n in said["name"]), said["name"]
    assert events(said, "pointer", KEY) == [(BTN_LEFT, 1), (BTN_LEFT, 0)]
    got = events(said, "pointer", ABS)
    assert [code for code, _ in got] == [0, 1, 0, 1]
    assert abs(got[0][1] - 0xffff // 4) <= 4 and abs(got[1][1] - 0xffff // 2) <= 4
    assert got[2][1] == 0xffff and got[3][1] == 0


def test_bochs_screen(said):
    """What was written to the frame buffer is read back, and three bytes of four are seen."""
    said, noise, picture = said
    assert said["screen"] == ["0x1234 0x1111"]
    assert said["fb"] == [f"bochs-drmdrmfb {SIZE[0]},{SIZE[1]} 32"]
    assert said["back"] == [hashlib.md5(noise).hexdigest()]
    magic, width, height, top = picture.split(None, 4)[:4]
    assert (magic, int(width), int(height), int(top)) == (b"P6", *SIZE, 255)
    seen = picture[-3 * SIZE[0] * SIZE[1]:]
    assert (seen[0::3], seen[1::3], seen[2::3]) == (noise[2::4], noise[1::4], noise[0::4])
