# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting from the network as a person sees it: SeaBIOS and its boot menu, the card's iPXE ROM, DHCP and TFTP
of the user network or of dnsmasq on a bridge, and what was loaded answers the keyboard."""
import pathlib
import re
import struct
import subprocess
import time

import pytest
from pc_screen import Machine, guest
from test_native_nets import host, need  # noqa: F401 (a fixture)

GUESTS = ("netboot",)
FLOPPY_BYTES = 1440 * 1024
LOAD_SECONDS = 900  # 49 MB, a block of 1,428 bytes for each answer; far more than an idle machine takes
VESA_MENU = (640, 480)

INSTALLER = """#!ipxe
kernel linux initrd=initrd.gz vga=normal nomodeset quiet
initrd initrd.gz
boot
"""
QUESTION = """#!ipxe
echo Loaded by ${net0/chip} at ${net0/mac}
echo -n Name:
read name
echo You are ${name}.
chain pxelinux.0
"""


@pytest.fixture
def installer():
    """Folder with the Debian installer's kernel, initial RAM disk and PXELINUX."""
    return pathlib.Path(guest("netboot")) / "debian-installer" / "amd64"


def served(tmp_path, script, *files):
    """A folder for the TFTP server: an iPXE script and what it names."""
    folder = tmp_path / "tftp"
    folder.mkdir()
    (folder / "boot.ipxe").write_text(script)
    for f in files:
        (folder / f.name).symlink_to(f)
    return f"user,tftp={folder},bootfile=boot.ipxe"


def test_debian_installer_over_pcnet(lodge, tmp_path, installer):
    """To the first dialogue, and a key leads to the next one."""
    net = served(tmp_path, INSTALLER, installer / "linux", installer / "initrd.gz")
    m = Machine(lodge, "--net", f"{net},model=pcnet", "--boot", "order=n", "--console", "none", memory="1G")
    m.wait(r"using pcnet32 on")
    m.wait(r"^linux\.\.\. ok", LOAD_SECONDS)
    m.wait(r"Select a language", LOAD_SECONDS)
    m.wait(r"English")
    m.type("", "ret")
    m.wait(r"Select your location", LOAD_SECONDS)
    m.end()


def test_boot_menu_chooses_ne2000(lodge, tmp_path, installer):
    """The menu's second line is the card, whose script asks for a name and starts an image; the floppy, which
    would come first, is not tried."""
    floppy = tmp_path / "blank.img"
    with open(floppy, "wb") as f:
        f.truncate(FLOPPY_BYTES)
    net = served(tmp_path, QUESTION, installer / "pxelinux.0")
    m = Machine(lodge, "--net", f"{net},model=ne2k_pci,mac=52:54:00:12:34:56", "--floppy", floppy, "--boot", "order=an,menu=on,menu-timeout=60000", "--console", "none")
    m.wait(r"Press ESC for boot menu")
    m.type("", "esc")
    m.wait(r"^1\. Floppy \[drive A\]")
    choice = m.wait(r"^([0-9])\. iPXE \(PCI ")[1]
    m.type(choice)
    m.wait(r"Loaded by rtl8029 at 52:54:00:12:34:56")
    assert not re.search("Booting from Floppy", m.screen())
    m.type("lodge", enter=True)
    m.wait(r"You are lodge\.")
    m.wait(r"PXELINUX [0-9.]+ ", LOAD_SECONDS)
    m.end()


def picture_size(m):
    """Width and height of the screen's picture."""
    r = subprocess.run([m.lodge.path, "screen", m.name, "--png", "-"], env=m.lodge.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    return struct.unpack(">II", r.stdout[16:24]) if r.stdout.startswith(b"\x89PNG") else None


def test_pxelinux_over_pcnet(lodge, installer):
    """The installer's own loader from its package, as it is: a menu in graphics, and the prompt behind it."""
    m = Machine(lodge, "--net", f"user,tftp={installer.parent.parent},bootfile=pxelinux.0,model=pcnet", "--boot", "order=n", "--console", "none")
    m.wait(r"Filename: pxelinux\.0")
    deadline = time.monotonic() + LOAD_SECONDS
    while m.screen() or picture_size(m) != VESA_MENU:
        assert time.monotonic() < deadline and m.process.poll() is None, m.screen()
        time.sleep(0.5)
    m.type("", "esc")
    m.wait(r"^boot:")
    m.type("help", enter=True)
    m.wait(r"Welcome to Debian GNU/Linux")
    m.end()


BOOTED = """#!ipxe
echo Loaded by ${net0/chip} at ${net0/ip} from ${next-server}
imgfetch --name data data && echo Fetched data
imgstat
read name
"""
DATA_BYTES = 1234567


@pytest.mark.parametrize("card,chip", [("pcnet", "pcnet32"), ("virtio", "virtio-net")])
def test_dnsmasq_on_a_bridge(card, chip, host, lodge, tmp_path):
    """Its leases and its TFTP reach a machine by a tap in a bridge; what it gave is what the machine says, and what
    Lodge saw pass."""
    need("dnsmasq")
    folder, leases, mac = tmp_path / "tftp", tmp_path / "leases", "52:54:00:12:34:56"
    folder.mkdir()
    (folder / "boot.ipxe").write_text(BOOTED)
    (folder / "data").write_bytes(bytes(DATA_BYTES))
    host("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
    host("ip", "addr", "add", "10.9.0.1/24", "dev", "br0")
    host("ip", "tuntap", "add", "lt0", "mode", "tap")
    host("ip", "link", "set", "lt0", "master", "br0")
    for link in ("lt0", "br0"):
        host("ip", "link", "set", link, "up")
    host.popen("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=br0", "--bind-interfaces", "--user=root", "--no-ping",
               "--pid-file=", f"--dhcp-leasefile={leases}", "--dhcp-range=10.9.0.77,10.9.0.77,1h", "--dhcp-vendorclass=set:pxe,PXEClient", "--dhcp-boot=tag:pxe,boot.ipxe",
               "--enable-tftp", f"--tftp-root={folder}")
    m = Machine(lodge, "--net", f"tap=lt0,model={card},mac={mac}", "--boot", "order=n", "--console", "none", preexec_fn=host.enter)
    m.wait(rf"Loaded by {chip} at 10\.9\.0\.77 from 10\.9\.0\.1", LOAD_SECONDS)
    m.wait(r"Fetched data", LOAD_SECONDS)
    m.wait(rf"data : {DATA_BYTES} bytes")
    assert leases.read_text().split()[1:3] == [mac, "10.9.0.77"]
    r = lodge("net", "pc")
    assert re.search(rf"address 10\.9\.0\.77, {mac} \((dhcp|arp)\)", r.out), r
    m.end()
