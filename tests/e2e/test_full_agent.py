# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with the distribution's QEMU guest agent: commands with streams and status of their own,
files both ways, several clients at once, and a kernel that dies meanwhile."""
import hashlib
import pathlib
import shutil
import threading

import pytest
from linux_guest import BOOT_SECONDS, add_files, add_programs, initrd, kernel

PROGRAM = shutil.which("qemu-ga", path="/usr/sbin:/usr/bin")
MODULES = ("virtio_pci", "virtio_console", "pvpanic", "pvpanic_mmio")
# The link that udev would make of the port's name.
SCRIPT = """
ln -s /dev/ttyS0 /dev/tty9; mkdir -p /dev/virtio-ports /var/run /srv; chmod 1777 /tmp; chown 33:33 /srv
for p in /sys/class/virtio-ports/*; do read n < $p/name; ln -s ../${p##*/} /dev/virtio-ports/$n; done
say state up
exec env -i PATH=/bin qemu-ga -t /var/run
"""
pytestmark = pytest.mark.skipif(not PROGRAM, reason="there is no qemu-ga; install qemu-guest-agent")


def root(path):
    """An archive with the agent, what it needs, and two users."""
    first = add_programs(initrd(path, SCRIPT, MODULES), PROGRAM)
    add_files(first, {"/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:web:/srv:/bin/sh\n",
                      "/etc/group": b"root:x:0:\nwww-data:x:33:\n"})
    return ["--kernel", kernel().path, "--initrd", first, "--append", "console=ttyS0 quiet panic=-1", "--net", "none", "--memory", "192M"]


def test_commands_and_files(lodge, tmp_path, nothing_left):
    assert lodge("run", "vm", "-d", *root(tmp_path / "initrd"), timeout=BOOT_SECONDS).status == 0
    r = lodge("wait", "vm", "--agent", "--timeout", 2 * BOOT_SECONDS, timeout=3 * BOOT_SECONDS)
    assert r.status == 0, (r, lodge("log", "vm").out)

    def run(*words, **kw):
        return lodge("exec", *words, timeout=BOOT_SECONDS, **kw)

    r = run("vm", "--", "sh", "-c", "echo out; echo err >&2; cat; exit 7", input=b"typed\n")
    assert (r.status, r.out, r.err) == (7, "out\ntyped\n", "err\n")
    r = run("vm", "--", "uname", "-r")
    assert (r.status, r.out) == (0, kernel().release + "\n")
    assert run("vm", "--", "/no/such").status == 127
    assert run("vm", "--", "/etc/nsswitch.conf").status == 126
    assert run("vm", "--", "sh", "-c", "kill -9 $$").status == 137
    r = run("vm", "--timeout", "1", "--", "sleep", "1000")
    assert r.status == 124 and r.err == "lodge: exec: vm: the command did not end in time; it was ended\n"
    r = run("-u", "www-data", "-w", "/srv", "-e", "X=a b", "vm", "--", "sh", "-c", "echo $(id -un) $HOME $PWD $X")
    assert r.out == "www-data /srv /srv a b\n", r
    r = run("-w", "/no/such", "vm", "--", "true")
    assert r.status == 125 and r.err.startswith("lodge: exec: vm: cannot run a command in the guest: ") and "/no/such" in r.err
    r = run("vm", "--", "dd", "if=/dev/zero", "bs=4k", "count=300")
    assert r.status == 0 and len(r.out) == 300 * 4096
    r = run("vm", "--", "dd", "if=/dev/zero", "bs=64k", "count=200")  # more than the guest keeps at a time
    assert r.status == 0 and len(r.out) == 200 * 65536

    seen = []
    threads = [threading.Thread(target=lambda i=i: seen.append(run("vm", "--", "sh", "-c", f"sleep 0.5; exit {i}").status)) for i in range(1, 4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(seen) == [1, 2, 3]

    data = bytes(range(256)) * 1200 + bytes(1 << 20) + b"end"
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "file").chmod(0o640)
    r = lodge("cp", tmp_path / "file", "vm:/srv/", timeout=BOOT_SECONDS)
    assert (r.status, r.out, r.err) == (0, "", "")
    assert run("vm", "--", "sh", "-c", "sha256sum < /srv/file; stat -c %a /srv/file").out.split() == [hashlib.sha256(data).hexdigest(), "-", "640"]
    assert lodge("cp", "vm:/srv/file", tmp_path / "back", timeout=BOOT_SECONDS).status == 0
    assert (tmp_path / "back").read_bytes() == data and (tmp_path / "back").stat().st_mode & 0o777 == 0o640
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "sub" / "a").write_text("a")
    (tmp_path / "folder" / "link").symlink_to("/etc/passwd")
    r = lodge("cp", "-r", tmp_path / "folder", "vm:/srv", timeout=BOOT_SECONDS)
    assert (r.status, r.err) == (0, "")
    # What is there and is neither file nor folder nor link stays there.
    assert run("vm", "--", "mknod", "/srv/folder/device", "b", "8", "0").status == 0
    r = lodge("cp", "-r", "vm:/srv/folder", tmp_path / "copy", timeout=BOOT_SECONDS)
    assert (r.status, r.err) == (0, "lodge: cp: device: is no file, folder or link; left out\n")
    assert sorted(p.name for p in (tmp_path / "copy").rglob("*")) == ["a", "link", "sub"]
    assert (tmp_path / "copy" / "link").readlink() == pathlib.Path("/etc/passwd")
    r = lodge("cp", "vm:/no/such", tmp_path / "x", timeout=BOOT_SECONDS)
    assert r.status == 1 and "No such file" in r.err and not list(tmp_path.glob("x*"))
    r = lodge("cp", "vm:/srv", tmp_path / "x", timeout=BOOT_SECONDS)
    assert r.status == 1 and r.err == "lodge: cp: vm: /srv is a folder; copy it with -r\n"

    # A panic ends the command with the status that stands for it.
    r = run("vm", "--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 100")
    assert r.status == 255 and "died (panic)" in r.err, r


def test_a_machine_for_one_command(lodge, tmp_path, nothing_left):
    r = lodge("run", *root(tmp_path / "initrd"), "--", "sh", "-c", "cat; echo err >&2; exit 3", input=b"in\n", timeout=2 * BOOT_SECONDS)
    assert (r.status, r.out, r.err) == (3, "in\n", "err\n")
