# SPDX-License-Identifier: GPL-2.0-or-later
"""User-Mode Linux's command line from outside, with bare-metal guests as kernels: how it ends, what it says, what tools find."""
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
import tty

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
    listed = subprocess.run([linux.path.resolve(), "list", "-q"], env=linux.env, capture_output=True, text=True, check=True).stdout.split()
    assert listed == ["vm1"]
    os.kill(vm.process.pid, signal.SIGTERM)
    vm.end(1)
    assert not folder.exists()


def test_halt_without_a_word(linux, guests):
    r = linux(f"kernel={guests}/dying", "mem=64M", "how=halt", timeout=60)
    assert r.status == 0 and "halts" in r.out, r
    # One that waits for an interrupt goes on.
    vm = Uml(linux, f"kernel={guests}/dying", "mem=64M", "how=idle")
    vm.expect(b"idles")
    with pytest.raises(subprocess.TimeoutExpired):
        vm.process.wait(3)
    vm.process.terminate()
    vm.end(1)


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


def test_restart_without_a_word(linux, tmp_path):
    code = b"\x66\xba\xf9\x0c\xb0\x06\xee\xf4\xeb\xfd"  # out 0xcf9, 6; hlt
    at, head = 0x100000, 52 + 32
    body = struct.pack("<3I", 0x1BADB002, 0, -0x1BADB002 & 0xFFFFFFFF) + code
    size = head + len(body)
    elf = b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<2H5I6H", 2, 3, 1, at + head + 12, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    (tmp_path / "mute").write_bytes(elf + struct.pack("<8I", 1, 0, at, at, size, size, 5, 4) + body)
    answer = linux(f"kernel={tmp_path}/mute", "mem=64M")
    assert answer.status == -signal.SIGABRT and "restarted without a word; add earlycon=" in answer.err, answer


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


def read_from(fd, end):
    seen, deadline = b"", time.monotonic() + SECONDS
    while end not in seen:
        assert select.select([fd], [], [], max(0, deadline - time.monotonic()))[0], seen
        seen += os.read(fd, 4096)
    return seen


def test_window(linux, guests, tmp_path):
    """An emulator of our own: it says how it was called and runs what it is given, on a terminal."""
    emulator = tmp_path / "emu"
    emulator.write_text(f"#!/bin/sh\nprintf '%s|' \"$@\" > {tmp_path}/args\n")
    emulator.chmod(0o755)
    vm = Uml(linux, f"kernel={guests}/plug", "umid=vm1", "mem=64M", "con1=xterm", f"xterm={emulator},-t,-x")
    line = re.search(r"Virtual console 1 assigned device '(/dev/pts/\d+)'", vm.expect(b"READY"))[1]
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "args").exists() or not (tmp_path / "args").read_text().endswith(f"|{line}|"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    option, title, run, *command = (tmp_path / "args").read_text().split("|")[:-1]
    assert (option, title, run) == ("-t", "Virtual Console #1 (vm1)", "-x")
    vm.process.terminate()
    vm.end(1)
    # What runs in the window passes bytes on, both ways, and ends with the line.
    (line, far), (window, shell) = pty.openpty(), pty.openpty()
    tty.setraw(far)
    relay = subprocess.Popen([*command[:-1], os.ttyname(far)], stdin=shell, stdout=shell, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        os.close(far)
        os.write(line, b"from the guest")
        assert read_from(window, b"guest").startswith(b"from the guest")
        os.write(window, b"\x03typed\r")
        assert read_from(line, b"\r") == b"\x03typed\r"
        os.close(line)
        relay.wait(SECONDS)
    finally:
        relay.kill()
        relay.wait()
        os.close(window)
        os.close(shell)
    answer = linux(f"kernel={guests}/acpi", "mem=64M", "con1=xterm", "xterm=/no/such/emulator")
    assert answer.status == 0 and "con1: no window" in answer.err and "the line is /dev/pts/" in answer.err


@pytest.mark.parametrize("how", ["term", "halt", "kill -SEGV"])
def test_terminal_is_restored(linux, guests, tools, how):
    import pexpect
    linux.env["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":handle_segv=0"  # it would end before we hear of it
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
    vm.expect(pexpect.EOF)
    # The terminal's last user is gone; its settings are those of the pair.
    after = termios.tcgetattr(vm.child_fd)
    vm.wait()
    assert after[3] == before[3]
    assert (vm.exitstatus, vm.signalstatus) == {"halt": (0, None), "term": (1, None)}.get(how, (None, signal.SIGSEGV))
    shutil.rmtree(linux.home / "run" / "lodge", ignore_errors=True)


def test_words_that_are_wrong_and_asked(linux, guests, tmp_path):
    for word, text in {"ubd16=x": "ubd16=x: Device number out of range", "con1=nothing": "failed to parse", "eth0=pcap": "this version has tuntap"}.items():
        answer = linux(f"kernel={guests}/hello", word)
        assert answer.status == 1 and answer.err.startswith("lodge: uml: ") and answer.err.count("\n") == 1 and text in answer.err
    answer = linux("--help")
    assert answer.status == 0 and "ubd<n>[rscdt]=FILE" in answer.out and not answer.err
    assert linux("kernel=/no/such", "mem=64M").status == 1
    answer = linux("--version", env={"LODGE_UML_KERNEL": str(guests / "hello")})
    assert answer.status == 1 and "no bzImage" in answer.err
    (tmp_path / "lodge").mkdir()
    for text, says in ((f"# ours\nkernel={guests}/hello\n", f'kernel "{guests}/hello": is no bzImage'), ("kernel=hello\n", f"{tmp_path}/lodge/uml.conf: line 1: kernel=hello: write the whole path")):
        (tmp_path / "lodge" / "uml.conf").write_text(text)
        answer = linux("--version", env={"XDG_CONFIG_HOME": str(tmp_path)})
        assert answer.status == 1 and says in answer.err and answer.err.count("\n") == 1
