# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian system on an IDE disk, as a person at the screen has it: firmware, GRUB's command line, login
and the power button."""
from pc_screen import Machine, console, guest

GUESTS = ("debian-disk",)
BOOT_SECONDS = 400  # of a clock that runs fast in the emulated machine while its host is busy
# The names of the keyboard and the mouse, and the driver of the disk's controller.
LOOK = "grep -h -o -E 'AT Translated|ImExPS/2|VMware VMMouse' /proc/bus/input/devices | sort | uniq -c; ls /sys/bus/pci/drivers/ata_piix | grep 0000"


def test_login_on_the_screen_and_power_button(lodge, tmp_path):
    said = tmp_path / "console"
    pc = Machine(lodge, "--disk", f"{tmp_path}/cow,base={guest('debian-disk')},bus=ide", "--console", f"file:{said}", memory="384M")
    # Early enough to wait in the keyboard's buffer for GRUB; nomodeset keeps the screen one of text.
    pc.wait(r"Booting from|GRUB", BOOT_SECONDS)
    pc.type("c")
    pc.wait(r"^grub>", BOOT_SECONDS)
    pc.type("linux /vmlinuz root=/dev/sda1 ro nomodeset quiet console=ttyS0 console=tty0", enter=True)
    pc.wait(r"(?s)^grub> linux.*^grub>", BOOT_SECONDS)
    pc.type("initrd /initrd.img", enter=True)
    pc.wait(r"(?s)^grub> initrd.*^grub>", BOOT_SECONDS)
    pc.type("boot", enter=True)
    pc.wait(r"^lodge-debian login:", BOOT_SECONDS)
    pc.type("root", enter=True)
    pc.wait(r"^root@lodge-debian:~#", BOOT_SECONDS)
    pc.type("echo $((6 * 7)) $(uname -m); stty size", enter=True)
    pc.wait(r"^42 x86_64\s*^25 80", BOOT_SECONDS)
    pc.type(LOOK, enter=True)
    pc.wait(r"^0000:00:01.1", BOOT_SECONDS)
    text = pc.screen()
    for name in ("AT Translated", "VMware VMMouse"):
        assert name in text.split("ata_piix")[-1], text
    pc.process.terminate()
    out, err = (b.decode(errors="replace") for b in pc.process.communicate(timeout=BOOT_SECONDS))
    assert pc.process.returncode == 0, f"{out}{err}{console(said)}"
    assert "power button pressed" in err
