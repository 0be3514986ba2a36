# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands and files by the console of a guest without an agent: one where getty and login stand before
the shell, with a password, and one with nothing but a shell there."""
import pytest
from linux_guest import BOOT_SECONDS, add_files, initrd, kernel

GETTY = """
mkdir -p /root /var/log; chmod 1777 /tmp; stty -F /dev/ttyS0 sane; hostname box
while :; do setsid getty -L 115200 ttyS0 vt100; done
"""
SHELL = """
mkdir -p /root; say state shell
while :; do setsid sh -c 'exec sh -i < /dev/ttyS0 > /dev/ttyS0 2>&1'; done
"""
# Of "secret", by crypt(3) with MD5, which every busybox knows.
PASSWORD = "$1$lodge$jMxhFZum/cdrlAJWogKaA/"
USERS = "root:{}:0:0:root:/root:/bin/sh\nweb::33:33:web:/tmp:/bin/sh\n"


@pytest.fixture
def start(lodge, tmp_path, nothing_left):
    def run(script, password=""):
        first = add_files(initrd(tmp_path / "initrd", script, ("pvpanic", "pvpanic_mmio")),
                          {"/etc/passwd": USERS.format(password).encode(), "/etc/group": b"root:x:0:\nweb:x:33:\n", "/etc/shells": b"/bin/sh\n"})
        return ["--kernel", kernel().path, "--initrd", first, "--append", "console=ttyS0 panic=-1", "--net", "none", "--memory", "192M"]
    yield run
    lodge("kill", "--all")


def test_login(lodge, start, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    assert lodge("run", "vm", "-d", *start(GETTY, PASSWORD), timeout=BOOT_SECONDS).status == 0
    r = lodge("wait", "vm", "--log", "login: *$", "--timeout", 2 * BOOT_SECONDS, timeout=3 * BOOT_SECONDS)
    assert r.status == 0, (r, lodge("log", "vm").out)

    def run(*words, **kw):
        return lodge(*words, timeout=BOOT_SECONDS, **kw)

    r = run("exec", "vm", "--", "true")
    assert r.status == 125 and "asks for the password of root; give it with --password-file FILE" in r.err, r
    given = ("--password-file", secret)
    r = run("exec", *given, "vm", "--", "sh", "-c", "echo out; echo err >&2; cat; exit 7", input=b"typed\n")
    assert (r.status, r.out, r.err) == (7, "out\ntyped\n", "err\n")
    r = run("exec", "--via", "console", "-u", "web", "-w", "/", "-e", "X=a b", "vm", "--", "sh", "-c", "echo $(id -u) $PWD $X; exec /no/such")
    assert (r.status, r.out) == (127, "33 / a b\n"), r
    # The kernel speaks in the middle; it costs nothing but time.
    r = run("exec", *given, "vm", "--", "sh", "-c", "(for i in 1 2 3; do echo word $i > /dev/kmsg; sleep 0.2; done) & seq 1000")
    assert (r.status, r.out) == (0, "".join(f"{n}\n" for n in range(1, 1001))), r.err
    data = bytes(range(256)) * 40 + b"end"
    (tmp_path / "file").write_bytes(data)
    assert run("cp", *given, tmp_path / "file", "vm:/tmp/").status == 0
    assert run("cp", *given, "vm:/tmp/file", tmp_path / "back").status == 0
    assert (tmp_path / "back").read_bytes() == data
    assert lodge("log", "vm").out.rstrip().endswith("login:")
    r = run("exec", *given, "vm", "--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 100")
    assert r.status == 255 and "died (panic)" in r.err, r


def test_bare_shell(lodge, start):
    r = lodge("run", *start(SHELL), "--via", "console", "--", "sh", "-c", "cat; echo err >&2; exit 3", input=b"in\n", timeout=2 * BOOT_SECONDS)
    assert (r.status, r.out, r.err) == (3, "in\n", "err\n")
