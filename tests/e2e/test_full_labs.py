# SPDX-License-Identifier: GPL-2.0-or-later
"""What people do with User-Mode Linux, on Lodge: a teaching server's laboratory from one script, and the
lines of manuals."""
import io
import os
import pathlib
import re
import select
import shutil
import subprocess
import tarfile
import tempfile
import time

import pytest
from linux_guest import BOOT_SECONDS, ext4, kernel

HERE = pathlib.Path(__file__).resolve().parent
LAB_SECONDS = 240
TOOLS = """sh mount umount uname sed tail sync poweroff halt echo ls cat ip ping modprobe lsmod sleep readlink stat grep ps kill tty mkdir blockdev cut sort
rm wc dd tar mkswap swapon ifconfig route getty login free true head hostname""".split()
LAB_INIT = """#!/bin/busybox sh
# name= and number= are words of the command line that the kernel did not know.
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -o remount,rw /
say() { echo "$name: $1"; }
trap 'say cad; sync; mount -o remount,ro /; poweroff -f' INT
echo 0 > /proc/sys/kernel/ctrl-alt-del
echo $name > /stamp; sync
ifconfig lo 127.0.0.1 up
for n in 0 1 2 3; do ifconfig eth$n 20.0.$n.$number netmask 255.255.255.0 up; done
route add default gw 20.0.0.1
say up
for o in 101 102 103 104; do for n in 0 3; do until ping -q -c 1 -W 2 20.0.$n.$o > /dev/null; do :; done; done; done
say "hears the others"
before=
while :; do
  now=$(ls /sys/class/net | grep eth4)
  [ "$now" = "$before" ] || { [ -n "$now" ] && say "eth4 came" || say "eth4 went"; }
  before=$now
  sleep 1 & wait $!
done
"""
MANUAL_INIT = """#!/bin/busybox sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -o remount,rw /
mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /tmp
say() { echo "$1: $2"; }
say tty "$(tty) $(stat -c %t:%T /dev/tty0)"
say ls "$(ls -l /dev/ubda /dev/ubdb | wc -l)"
say fd0 "$(blockdev --getsize64 /dev/ubdb)"
say cdrom "$(head -c 5 /dev/ubdc)"
mkswap /dev/ubdd > /dev/null; swapon /dev/ubdd; say swap "$(tail -n +2 /proc/swaps | wc -l)"
cd /tmp; tar -xf /dev/ubde; say hello "$(cat hello.txt)"; cd /
mount -t ext4 /dev/ubdf /mnt; echo kept > /mnt/kept; umount /mnt; mount -o ro -t ext4 /dev/ubdf /mnt; say disk "$(cat /mnt/kept)"; umount /mnt
ifconfig eth0 192.168.0.253 up; ping -q -c 1 -W 20 192.168.0.254 > /dev/null; say tuntap $?
mkdir -p /host; mount -t hostfs none /host > /tmp/err 2>&1; say hostfs "$? $(head -n 1 /tmp/err)"
modprobe dummy; say modprobe $?
say ready yes
(while :; do getty -n -l /bin/welcome 38400 tty1; done) 2> /dev/null &
trap 'say cad seen; sync; poweroff -f; sleep 100' INT
echo 0 > /proc/sys/kernel/ctrl-alt-del
seen=
while :; do
  for d in ubdg eth5 tty3; do
    case $d in ubd*) p=/sys/block/$(readlink /dev/$d | cut -d / -f 3)/size ;; eth*) p=/sys/class/net/$d/mtu ;; *) p=/none; [ $(stat -c %t /dev/$d) = e5 ] && p=/proc/uptime ;; esac
    case " $seen " in *" $d "*) [ -e $p ] || { say went $d; seen=$(echo " $seen " | sed "s/ $d / /"); } ;; *) [ ! -e $p ] || { say came $d; seen="$seen $d"; [ $d != tty3 ] || echo here > /dev/tty3; } ;; esac
  done
  sleep 1 & wait $!
done
"""
WELCOME = """#!/bin/busybox sh
echo "welcome on $(/bin/tty)"; read word; echo "said $word"
"""


@pytest.fixture
def place():
    """A folder that other users can enter, with a short name for sockets."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lab.", dir="/dev/shm"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def linux(lodge, place):
    shutil.copy(lodge.path, place / "linux")
    if os.environ.get("LODGE_TEST_EMULATED"):  # a machine of our own
        os.chmod("/dev/kvm", 0o666)
    return place / "linux"


def image(folder, init, **files):
    tree = folder / "tree"
    for d in ("bin", "sbin", "proc", "dev", "sys", "lib/modules", "mnt", "tmp"):
        (tree / d).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tree / "bin" / "busybox")
    for name in TOOLS:
        (tree / "bin" / name).symlink_to("busybox")
    for name, text in {"sbin/init": init, **files}.items():
        (tree / name).write_text(text)
        (tree / name).chmod(0o755)
    return ext4(folder / "image", tree, 16)


def environment(lodge):
    return dict(lodge.env, LODGE_UML_KERNEL=str(kernel().path), LAB_SECONDS=str(LAB_SECONDS))


def test_laboratory_a(lodge, place, linux):
    done = subprocess.run([HERE / "laboratory-a", linux, image(place, LAB_INIT), place / "lab"], env=environment(lodge), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2 * LAB_SECONDS)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said
    steps = re.findall(r"^lab: (.*)$", said, re.M)
    assert steps[0] == "hubs" and steps[-1] == "merged by uml_moo, each holds what its machine wrote", said
    assert steps.count("the image is as it was") == 1 and sum("ended with status 0" in s for s in steps) == 4, said
    assert os.getuid() or not os.path.exists("/dev/net/tun") or "the host reaches all of them" in steps, said


def test_no_root_fs(lodge, place, linux):
    """`./linux ubd0=root_fs` in a folder without root_fs: a panic, and the status of one."""
    p = lodge_as_uml(lodge, place, linux, "ubd0=root_fs")
    said, _ = p.communicate(timeout=BOOT_SECONDS)
    assert b"Kernel panic - not syncing" in said and b"VFS: Unable to mount root fs" in said, said
    assert p.returncode == -6, said


def lodge_as_uml(lodge, place, linux, *args, **kw):
    p = subprocess.Popen([linux, *map(str, args)], cwd=place, env=environment(lodge), start_new_session=True, stdin=kw.pop("stdin", subprocess.DEVNULL),
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kw)
    lodge.children.append(p)
    return p


class Screen:
    """What a descriptor says, as far as it was read."""

    def __init__(self, fd):
        self.fd, self.text = fd, ""

    def until(self, pattern, seconds=BOOT_SECONDS):
        deadline = time.monotonic() + seconds
        while not (m := re.search(pattern, self.text, re.M)):
            assert time.monotonic() < deadline and select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0], f"no {pattern!r} in {self.text}"
            data = os.read(self.fd, 65536)
            assert data, f"the end before {pattern!r}: {self.text}"
            self.text += data.decode(errors="replace").replace("\r", "")
        return m

    def answers(self, line, pattern):
        """The answer to a line that is sent again until somebody reads it."""
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            os.write(self.fd, line)
            until = time.monotonic() + 1
            while not (m := re.search(pattern, self.text, re.M)) and select.select([self.fd], [], [], max(0, until - time.monotonic()))[0]:
                self.text += os.read(self.fd, 65536).decode(errors="replace").replace("\r", "")
            if m:
                return m
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.text}"


def mconsole(lodge, *words):
    done = subprocess.run(["uml_mconsole", "manual", *map(str, words)], env=environment(lodge), stdin=subprocess.DEVNULL, capture_output=True, timeout=BOOT_SECONDS)
    return done.stdout.decode(errors="replace"), done.returncode


def test_lines_of_manuals(lodge, place, linux):
    image(place, MANUAL_INIT, **{"bin/welcome": WELCOME}).rename(place / "root_fs")
    (place / "fd0").write_bytes(bytes(1440 << 10))
    (place / "cdrom").write_bytes(b"CD-ROM" + bytes(2042 + 2048 * 20))
    (place / "empty").mkdir()
    ext4(place / "disk", place / "empty", 4)
    for name in ("swap", "late"):
        (place / name).write_bytes(bytes(1 << 20))
    with tarfile.open(place / "hello.tar", "w") as tar:
        info = tarfile.TarInfo("hello.txt")
        info.size = 6
        tar.addfile(info, io.BytesIO(b"hello\n"))
    tap = os.getuid() == 0 and os.path.exists("/dev/net/tun")
    net = "eth0=tuntap,,,192.168.0.254" if tap else "eth0=mcast"
    p = lodge_as_uml(lodge, place, linux, "ubd0=root_fs.cow,root_fs", "ubd1r=fd0", "ubd2r=cdrom", "ubdd=swap", "ubde=hello.tar", "ubdf=disk", "con=null", "con0=fd:0,fd:1",
                     "con1=pts", "mem=128M", "umid=manual", "loglevel=5", net)
    con0 = Screen(p.stdout.fileno())
    pts = con0.until(r"Virtual console 1 assigned device '(.*)'")[1]
    con0.until(r"^ready: yes")
    said = dict(re.findall(r"^([a-z0-9]+): (.*)$", con0.text, re.M))
    assert said["tty"] == "/dev/console e5:0", con0.text
    assert said["ls"] == "2" and said["fd0"] == str(1440 << 10) and said["cdrom"] == "CD-RO" and said["swap"] == "1", con0.text
    assert said["hello"] == "hello" and said["disk"] == "kept" and said["modprobe"] == "0", con0.text
    assert not tap or said["tuntap"] == "0", con0.text
    assert re.fullmatch(r"(1|255) .*(No such device|unknown filesystem type).*", said["hostfs"]), con0.text
    # A second user of the file is refused.
    other = lodge_as_uml(lodge, place, linux, "ubd0=root_fs.cow,root_fs", "umid=second")
    out, _ = other.communicate(timeout=BOOT_SECONDS)
    assert other.returncode not in (0, None) and b"root_fs.cow" in out, out
    # A login on con1.
    fd = os.open(pts, os.O_RDWR | os.O_NOCTTY)
    tty1 = Screen(fd)
    tty1.answers(b"\n", r"said $")  # what was said before somebody looked is lost, and nobody may read yet; that login is over
    tty1.until(r"welcome on /dev/tty1")
    tty1.answers(b"friend\n", r"said friend")
    os.close(fd)
    # From outside.
    out, status = mconsole(lodge, "proc", "cmdline")
    assert status == 0 and out.startswith("OK") and "ubd0=root_fs.cow,root_fs" in out and "umid=" not in out, out
    assert mconsole(lodge, "proc", "no/such")[0] == "ERR Failed to open file\n"
    out, status = mconsole(lodge, "stack", "1")
    assert status == 0 and "+0x" in out, out
    assert mconsole(lodge, "stack", "99999")[0] == "ERR Couldn't find that pid\n"
    assert mconsole(lodge, "log", "a word from outside")[1] == 0
    con0.until(r"a word from outside")
    assert mconsole(lodge, "config", f"ubdg={place}/late") == ("OK \n", 0)
    con0.until(r"^came: ubdg")
    assert mconsole(lodge, "config", "eth5=slirp") == ("OK \n", 0)
    con0.until(r"^came: eth5")
    assert mconsole(lodge, "config", "con3=pts") == ("OK \n", 0)
    con0.until(r"^came: tty3")
    third = re.fullmatch(r"OK pts:(/dev/pts/\d+)\n", mconsole(lodge, "config", "con3")[0])
    assert third
    fd = os.open(third[1], os.O_RDWR | os.O_NOCTTY)
    Screen(fd).until(r"here")
    os.close(fd)
    for name, there in (("con3", "tty3"), ("ubdg", "ubdg"), ("eth5", "eth5")):
        assert mconsole(lodge, "remove", name) == ("OK \n", 0)
        con0.until(rf"^went: {there}")
    assert mconsole(lodge, "cad") == ("OK \n", 0)
    con0.until(r"^cad: seen")
    con0.text += p.communicate(timeout=BOOT_SECONDS)[0].decode(errors="replace")
    assert p.returncode == 0, con0.text
