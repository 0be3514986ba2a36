# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux guests for the end-to-end tests: the distribution's kernels under small initrds, each made
for its test from busybox, a few modules and a shell script, and the words they print."""
import functools
import gzip
import lzma
import os
import pathlib
import re
import select
import shutil
import subprocess
import time

from conftest import BUILD, TOP
from pc_screen import guest

DISK = ("virtio_pci", "virtio_blk")
NET = ("virtio_pci", "virtio_net", "af_packet")
BUTTON = ("button", "evdev")
BOOT_SECONDS = 90  # far more than a boot takes in the emulated machine
READ_MAX = 65536


class Kernel:
    """A distribution kernel of a flavour, "cloud" or "stock", as scripts/kernel finds it, or "686"."""

    def __init__(self, flavour):
        self.busybox = shutil.which("busybox")
        if flavour == "686":
            self.busybox, root = guest("busybox-686"), pathlib.Path(guest("kernel-686"))
            self.path, = root.glob("boot/vmlinuz-*")
            self.modules, = root.glob("lib/modules/*")
        else:
            env = dict(os.environ, BUILD=str(BUILD))
            out = subprocess.run([TOP / "scripts" / "kernel", "--flavour", flavour], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env, check=True)
            self.path, folder = out.stdout.decode().split()
            self.modules = pathlib.Path(folder)
        self.release = self.modules.name
        self.dep = {}
        for line in (self.modules / "modules.dep").read_text().splitlines():
            path, _, needs = line.partition(":")
            self.dep[self._name(path)] = (path, needs.split())

    @staticmethod
    def _name(path):
        return pathlib.Path(path).name.split(".ko")[0].replace("-", "_")

    def with_needs(self, names):
        """Files of these modules and what they need, in loading order; built-in ones have none."""
        order = []
        for name in names:
            if name in self.dep:
                path, needs = self.dep[name]
                order += [p for p in [*reversed(needs), path] if p not in order]
        return order

    def read(self, path):
        data = (self.modules / path).read_bytes()
        if path.endswith(".xz"):
            return lzma.decompress(data)
        if path.endswith(".gz"):
            return gzip.decompress(data)
        if path.endswith(".zst"):
            return subprocess.run(["zstd", "-qdc"], input=data, stdout=subprocess.PIPE, check=True).stdout
        return data


@functools.lru_cache
def kernel(flavour="cloud"):
    return Kernel(flavour)


class Cpio:
    """An archive in the form that the kernel unpacks (newc)."""

    def __init__(self):
        self.data, self.inode = bytearray(), 0

    def add(self, name, mode, data=b"", rdev=(0, 0)):
        self.inode += 1
        raw = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(raw), 0)
        self._padded(b"070701" + b"".join(b"%08X" % f for f in fields) + raw)
        self._padded(data)

    def add_busybox(self, program, applets):
        """Put @program, of this host, into /bin, under those names too."""
        self.add("bin/busybox", 0o100755, pathlib.Path(program).read_bytes())
        for name in applets:
            self.add("bin/" + name, 0o120777, b"busybox")

    def _padded(self, data):
        self.data += data
        self.data += bytes(-len(data) % 4)

    def finish(self):
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


@functools.lru_cache
def _applets():
    out = subprocess.run(["busybox", "--list"], stdout=subprocess.PIPE, check=True).stdout.decode()
    return [a for a in out.split() if a not in ("busybox", "init")]


INIT = """#!/bin/busybox sh
export PATH=/bin HOME=/
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in /modules/*; do [ ! -e $m ] || insmod $m; done
say() { echo "$1: $2"; }
sum() { sha256sum < "$1" | cut -d ' ' -f 1; }
bye() { sync; poweroff -f; sleep 100; }
# The address from the user network: fixed, since most tests are not about DHCP.
net() { ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2; }
listen() { # to the power button, from here on
  local e; e=$(grep -l 'Power Button' /sys/class/input/event*/device/name | head -n 1); e=${e%/device/name}
  exec 4< /dev/input/${e##*/}
}
button() { dd bs=24 count=1 <&4 > /dev/null 2>&1; }
"""


def initrd(path, script, modules=(), flavour="cloud"):
    """Write an archive whose /init prepares a plain system and then runs @script."""
    a, k = Cpio(), kernel(flavour)
    for folder in ("bin", "dev", "proc", "sys", "modules", "mnt", "tmp", "etc"):
        a.add(folder, 0o040755)
    a.add("dev/console", 0o020600, rdev=(5, 1))
    a.add("etc/nsswitch.conf", 0o100644, b"hosts: files\nservices: files\nprotocols: files\n")
    a.add_busybox(k.busybox, _applets())
    for n, p in enumerate(k.with_needs(modules)):
        a.add(f"modules/{n:02}-{k._name(p)}.ko", 0o100644, k.read(p))
    a.add("init", 0o100755, (INIT + script + "\n").encode())
    pathlib.Path(path).write_bytes(a.finish())
    return path


def libraries(program):
    """Paths of the shared libraries of @program, and of the loader that finds them."""
    out = subprocess.run(["ldd", program], stdout=subprocess.PIPE, check=True).stdout.decode()
    return sorted(set(re.findall(r"(/\S+) \(0x", out)))


def add_files(path, files, mode=0o100644):
    """Append @files {absolute name: bytes} and their folders to the archive at @path."""
    a, folders = Cpio(), {"/", "/bin", "/etc"}
    for name, data in files.items():
        for folder in reversed([str(p) for p in pathlib.PurePath(name).parents]):
            if folder not in folders:
                a.add(folder[1:], 0o040755)
            folders.add(folder)
        a.add(name[1:], mode, data)
    with open(path, "ab") as f:
        f.write(a.finish())
    return path


def add_programs(path, *programs):
    """Append programs of this host to the archive at @path, as /bin/NAME, with their libraries."""
    files = {lib: lib for program in programs for lib in libraries(program)}
    files.update((f"/bin/{pathlib.Path(program).name}", program) for program in programs)
    return add_files(path, {name: pathlib.Path(source).read_bytes() for name, source in files.items()}, 0o100755)


def extra_initrd(path, files):
    """An archive of plain @files {name: bytes}, for a second --initrd."""
    a = Cpio()
    for name, data in files.items():
        a.add(name, 0o100644, data)
    pathlib.Path(path).write_bytes(a.finish())
    return path


def words(text):
    """What a guest said: {name: [values in order]} from its lines "name: value"."""
    said = {}
    for line in text.replace("\r", "").splitlines():
        m = re.fullmatch(r"([a-z][a-z0-9_]*): (.*)", line)
        if m:
            said.setdefault(m[1], []).append(m[2])
    return said


def read_until(fd, text, seconds=BOOT_SECONDS):
    """What came up to and with @text."""
    seen, deadline = b"", time.monotonic() + seconds
    while text not in seen:
        left = deadline - time.monotonic()
        assert left > 0 and select.select([fd], [], [], left)[0], f"no {text!r} in {seen!r}"
        data = os.read(fd, READ_MAX)
        assert data, f"the end before {text!r}: {seen!r}"
        seen += data
    return seen


def answer_to(p, word):
    """What the guest of process @p, which answers words on its console, says to @word."""
    p.stdin.write(word.encode() + b"\n")
    p.stdin.flush()
    said = read_until(p.stdout.fileno(), f"\n{word}: ".encode())
    while not said.endswith(b"\n"):
        said += read_until(p.stdout.fileno(), b"\n")
    return said.rsplit(f"\n{word}: ".encode(), 1)[1].decode().strip()


def bus_hits(err):
    """Accesses by name of the region, from what LODGE_TRACE=bus printed."""
    return {m[1]: int(m[2]) for m in re.finditer(r"bus: \w+ 0x[0-9a-f]+ (.*): (\d+)$", err, re.M)}


def ext4(path, tree, megabytes=24):
    """An ext4 image that holds the folder @tree."""
    env = dict(os.environ, PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", "-E", "root_owner=0:0,lazy_itable_init=0", "-d", tree, path, f"{megabytes}M"], stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, env=env, check=True)
    return path
