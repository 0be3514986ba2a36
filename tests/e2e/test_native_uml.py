# SPDX-License-Identifier: GPL-2.0-or-later
"""User-Mode Linux's command line from outside, with bare-metal guests as kernels: how it ends, what it says, what tools find."""
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time

import pytest

pytestmark = pytest.mark.usefixtures("nothing_left")

SECONDS = 30


@pytest.fixture
def linux(lodge, tmp_path, monkeypatch):
    """The program by the name that scripts have; its folder is the current one."""
    path = tmp_path / "linux"
    path.symlink_to(lodge.path)
    monkeypatch.chdir(tmp_path)
    lodge.path = path
    return lodge


class Uml:
    def __init__(self, linux, *words, **kw):
        kw.setdefault("stdin", subprocess.PIPE)
        self.linux, self.seen = linux, b""
        self.process = linux.popen(*words, **kw)

    def expect(self, text):
        deadline = time.monotonic() + SECONDS
        while text not in self.seen:
            assert select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0], f"no {text!r} in {self.seen!r}"
            got = os.read(self.process.stdout.fileno(), 4096)
            assert got, (self.seen, self.process.stderr.read())
            self.seen += got
        before, self.seen = self.seen.split(text, 1)
        return before.decode()

    def mconsole(self, *words):
        umid = next(w for w in self.process.args if w.startswith("umid="))[5:]
        return subprocess.run(["uml_mconsole", umid, *words], env=self.linux.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False,
                              text=True)

    def end(self, status):
        out, err = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == status, (self.seen, out, err)
        return (self.seen + out).decode() + err.decode()


@pytest.fixture
def tools():
    if not shutil.which("uml_mconsole"):
        pytest.skip("no uml_mconsole; install uml-utilities")


def test_halt_and_words(linux, guests):
    text = linux(f"kernel={guests}/acpi", "umid=vm1", "mem=64M")
    assert text.status == 0 and "PASS acpi" in text.out and not text.err, text
    assert f"mconsole (version 2) initialized on {linux.home}/.uml/vm1/mconsole" in text.out
    assert not (linux.home / ".uml" / "vm1").exists()
    vm = Uml(linux, f"kernel={guests}/hello", "umid=vm1", "mem=64M", "hostlab=/x", "con0=fd:0,fd:1")
    assert f"{guests}/hello mem=64M hostlab=/x con0=fd:0,fd:1 root=" in vm.expect(b"PASS hello")
    args = pathlib.Path(f"/proc/{vm.process.pid}/cmdline").read_bytes().split(b"\0")[:-1]
    assert args[1:] == [w.encode() for w in vm.process.args[1:]]
    folder = linux.home / ".uml" / "vm1"
    assert (folder / "pid").read_text() == f"{vm.process.pid}\n" and (folder / "mconsole").is_socket()
    assert any(line.startswith("vm1 ") for line in subprocess.run([BUILD_LODGE(linux), "list"], env=linux.env, capture_output=True, text=True, check=True).stdout.splitlines())
    os.kill(vm.process.pid, signal.SIGTERM)
    vm.end(1)
    assert not folder.exists()


def BUILD_LODGE(linux):
    return str(linux.path.resolve())


def test_interrupt_hangup_and_a_name_that_is_taken(linux, guests, tools):
    first = Uml(linux, f"kernel={guests}/plug", "umid=vm1", "mem=64M", "con0=pts")
    name = first.expect(b"mconsole (version 2) initialized")
    pts = re.search(r"/dev/pts/\d+", first.expect(b"\n") + first.expect(b"\r\n"))
    assert pts, name
    second = Uml(linux, f"kernel={guests}/plug", "umid=vm1", "mem=64M")
    other = second.expect(b"READY")
    assert "initialized on" in other and "/vm1/" not in other
    os.kill(first.process.pid, signal.SIGHUP)  # its terminal may go
    assert first.mconsole("version").stdout.startswith("OK ")
    assert first.mconsole("halt").returncode == 0
    first.end(0)
    os.kill(second.process.pid, signal.SIGINT)
    assert f'umid "vm1" is already in use by pid {first.process.pid}' in second.end(1)


def test_restart(linux, guests):
    vm = Uml(linux, f"kernel={guests}/reset", "umid=vm1", "mem=64M", "con1=pts", "how=kbd")
    told = [re.search(r"Virtual console 1 assigned device '(/dev/pts/\d+)'", vm.expect(b"first boot")) for _ in range(3)]  # each start is a new process image
    assert all(told), told
    assert (linux.home / ".uml" / "vm1" / "pid").read_text() == f"{vm.process.pid}\n"
    vm.process.terminate()
    vm.end(1)
    assert "first boot" in linux(f"kernel={guests}/reset", "mem=64M", "noreboot").out


def test_panic(linux, guests, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(SECONDS)
        notify.bind(str(linux.home / "n"))
        vm = Uml(linux, f"kernel={guests}/reset", "umid=vm1", "mem=64M", f"mconsole=notify:{linux.home}/n", "Kernel panic - not syncing: test of it")
        vm.end(-signal.SIGABRT)
        kinds = [notify.recv(1024) for _ in range(2)]
    assert [struct.unpack("<4I", k[:16])[:3] for k in kinds] == [(0xCAFEBABE, 2, 0), (0xCAFEBABE, 2, 1)]
    assert kinds[1][16:].startswith(b"test of it")
    assert not (linux.home / ".uml" / "vm1").exists() and not list(tmp_path.glob("core*"))


def test_reboot_by_mconsole_is_no_panic(linux, guests, tools):
    vm = Uml(linux, f"kernel={guests}/plug", "umid=vm1", "mem=64M", "noreboot")
    vm.expect(b"READY")
    assert vm.mconsole("log", "Kernel panic - not syncing: long ago").returncode == 0
    assert vm.mconsole("reboot").returncode == 0
    vm.end(0)


def test_disks_and_channels(linux, guests, tools, tmp_path):
    for name in ("root_fs", "base"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    vm = Uml(linux, f"kernel={guests}/plug", "umid=vm1", "mem=64M", "ubd1=vm1.cow,base", "ubd2=nowhere", "ssl0=pts", "con1=null", "eth0=mcast")
    text = vm.expect(b"READY")
    assert 'ubd2: "nowhere" is not there' in text and re.search("Serial line 0 assigned device '/dev/pts/", text)
    assert (tmp_path / "vm1.cow").exists()
    assert vm.mconsole("config", "ubd0").stdout == "OK root_fs\n" and vm.mconsole("config", "ubd1").stdout == "OK vm1.cow,base\n"
    assert vm.mconsole("config", "con1").stdout == "OK null\n" and vm.mconsole("config", "con0").stdout == "OK fd:0,fd:1\n"
    os.kill(vm.process.pid, signal.SIGINT)
    vm.end(1)
    # Another may not have the same writable image.
    vm = Uml(linux, f"kernel={guests}/plug", "umid=a", "mem=64M")
    vm.expect(b"READY")
    text = linux(f"kernel={guests}/plug", "mem=64M")
    assert text.status == 1 and "root_fs" in text.err and "in use" in text.err, text
    assert vm.mconsole("halt").returncode == 0
    vm.end(0)


@pytest.mark.parametrize("how", ["term", "halt", "kill -SEGV"])
def test_terminal_is_restored(linux, guests, tools, how):
    vm = linux.spawn(f"kernel={guests}/plug", "umid=vm1", "mem=64M")
    before = termios.tcgetattr(vm.child_fd)
    vm.expect("READY")
    during = termios.tcgetattr(vm.child_fd)
    assert before[3] & termios.ICANON and not during[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    vm.send("\x1d\x03x")  # no key is ours: each is answered
    for _ in range(3):
        vm.expect(r"\.")
    if how == "halt":
        subprocess.run(["uml_mconsole", "vm1", "halt"], env=linux.env, capture_output=True, timeout=SECONDS, check=True)
    else:
        os.kill(vm.pid, signal.SIGSEGV if "SEGV" in how else signal.SIGTERM)
    vm.expect(__import__("pexpect").EOF)
    # The terminal's last user is gone; its settings are those of the pair.
    after = termios.tcgetattr(vm.child_fd)
    vm.wait()
    assert after[3] == before[3]
    assert (vm.exitstatus, vm.signalstatus) == {"halt": (0, None), "term": (1, None)}.get(how, (None, signal.SIGSEGV))
    shutil.rmtree(linux.home / "run" / "lodge", ignore_errors=True)


def test_words_that_are_wrong_and_asked(linux, guests):
    for word, text in {"ubd16=x": "ubd16=x: Device number out of range", "con1=xterm": "no window", "eth0=pcap": "this version has tuntap"}.items():
        answer = linux(f"kernel={guests}/hello", word)
        assert answer.status == 1 and answer.err.startswith("lodge: uml: ") and answer.err.count("\n") == 1 and text in answer.err
    answer = linux("--help")
    assert answer.status == 0 and "ubd<n>[rscdt]=FILE" in answer.out and not answer.err
    assert linux("kernel=/no/such", "mem=64M").status == 1
    answer = linux("--version", env={"LODGE_UML_KERNEL": str(guests / "hello")})
    assert answer.status == 1 and "no bzImage" in answer.err
