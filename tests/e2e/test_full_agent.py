# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with the distribution's QEMU guest agent: commands with streams and status of their own,
files both ways, several clients at once, and a kernel that dies meanwhile."""
import pathlib
import re
import shutil
import subprocess
import threading

import pytest
from linux_guest import BOOT_SECONDS, Cpio, initrd, kernel

PROGRAM = shutil.which("qemu-ga", path="/usr/sbin:/usr/bin")
MODULES = ("virtio_pci", "virtio_console")
# The link that udev would make of the port's name.
SCRIPT = """
ln -s /dev/ttyS0 /dev/tty9; mkdir -p /dev/virtio-ports /var/run /srv; chmod 1777 /tmp; chown 33:33 /srv
for p in /sys/class/virtio-ports/*; do read n < $p/name; ln -s ../${p##*/} /dev/virtio-ports/$n; done
[ ! -e /late ] || sleep 2
say state up
exec env -i PATH=/bin qemu-ga -t /var/run
"""
pytestmark = pytest.mark.skipif(not PROGRAM, reason="there is no qemu-ga; install qemu-guest-agent")


def libraries():
    out = subprocess.run(["ldd", PROGRAM], stdout=subprocess.PIPE, check=True).stdout.decode()
    return sorted(set(re.findall(r"(/\S+) \(0x", out)))


def root(path, extra=()):
    """An archive with the agent, what it needs, and two users."""
    first, second, folders = initrd(path, SCRIPT, MODULES), Cpio(), set()
    files = {p: pathlib.Path(p).read_bytes() for p in libraries()}
    files["/bin/qemu-ga"] = pathlib.Path(PROGRAM).read_bytes()
    files["/etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:web:/srv:/bin/sh\n"
    files["/etc/group"] = b"root:x:0:\nwww-data:x:33:\n"
    files.update(dict(extra))
    for name, data in files.items():
        for folder in reversed(pathlib.PurePath(name).parents):
            if folder not in folders and str(folder) not in ("/", "/bin", "/etc"):
                second.add(str(folder)[1:], 0o040755)
            folders.add(folder)
        second.add(name[1:], 0o100755, data)
    with open(first, "ab") as f:
        f.write(second.finish())
    return ["--kernel", kernel().path, "--initrd", first, "--append", "console=ttyS0 quiet panic=-1", "--net", "none", "--memory", "192M"]


def test_commands_and_files(lodge, tmp_path, nothing_left):
    assert lodge("run", "vm", "-d", *root(tmp_path / "initrd")).status == 0
    assert lodge("wait", "vm", "--agent", "--timeout", BOOT_SECONDS, timeout=BOOT_SECONDS + 10).status == 0

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

    seen = []
    threads = [threading.Thread(target=lambda i=i: seen.append(run("vm", "--", "sh", "-c", f"sleep 0.5; exit {i}").status)) for i in range(1, 4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(seen) == [1, 2, 3]

    # A panic ends the command with the status that stands for it.
    r = run("vm", "--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 100")
    assert r.status == 255 and "died (panic)" in r.err, r
