# SPDX-License-Identifier: GPL-2.0-or-later
"""Wrong input and rough handling: one clear line, the documented status, nothing left behind."""
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import termios
import time

import pexpect
import pytest
from conftest import BUILD, TOP

pytestmark = pytest.mark.usefixtures("nothing_left")

MIB = 1 << 20
WAITER = ["--append", "n=100000000", "--memory", "64M"]  # hlt_wake: sleeps until bytes come


def one_line(r, status, pattern):
    """Exactly one line, from `lodge run`, and nothing on standard output."""
    assert r.status == status, f"status {r.status}, not {status}\n{r.out}{r.err}"
    assert r.out == ""
    assert re.fullmatch(rf"lodge: run: .*{pattern}.*\n", r.err), r.err


def until(what, condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


def read_until(p, text, seconds=20):
    """What a child says on standard output, up to @text."""
    out, deadline = b"", time.monotonic() + seconds
    while text not in out:
        assert select.select([p.stdout], [], [], max(0, deadline - time.monotonic()))[0], f"no {text!r} in {out!r}"
        got = os.read(p.stdout.fileno(), 4096)
        if not got:
            pytest.fail(f"ended before {text!r}: {out!r}\n{p.stderr.read().decode(errors='replace')}")
        out += got
    return out


@pytest.fixture
def hello(guests):
    return ["--kernel", guests / "hello", "--net", "none"]


@pytest.fixture
def waiting(lodge, guests):
    """Starts a machine that goes on until it is ended, and waits until its guest runs."""
    def start(*more):
        p = lodge.popen("run", "--kernel", guests / "hlt_wake", *WAITER, *(() if "--net" in more else ("--net", "none")), "--console", "stdio", *more, stdin=subprocess.PIPE)
        read_until(p, b"READY\r\n")
        return p
    return start


def end(p):
    for _ in range(2):
        p.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    p.wait(timeout=20)


# ---- files ----

def kernel_file(kind, tmp_path, guests):
    at = tmp_path / "kernel"
    whole = (guests / "hello").read_bytes()
    if kind == "a folder":
        at.mkdir()
    elif kind != "missing":
        at.write_bytes({"empty": b"", "truncated": whole[:3000], "text": b"hello, world\n" * 500, "noise": bytes(range(256)) * 400,
                        "one byte": b"\x7f", "ELF magic alone": b"\x7fELF"}[kind])
    return at


@pytest.mark.parametrize("debug_exit", [False, True], ids=["plain", "debug-exit"])
@pytest.mark.parametrize("kind,status,says", [
    ("missing", 2, "No such file"), ("empty", 2, "is empty"), ("truncated", 1, "is truncated"), ("text", 1, "is not a kernel"), ("noise", 1, "is not a kernel"),
    ("one byte", 1, "kernel"), ("ELF magic alone", 1, "kernel"), ("a folder", 2, "is a folder")])
def test_kernel(kind, status, says, debug_exit, lodge, tmp_path, guests):
    at = kernel_file(kind, tmp_path, guests)
    r = lodge("run", "--kernel", at, "--net", "none", *(["--debug-exit"] if debug_exit else []))
    one_line(r, 125 if debug_exit else status, f"kernel '{at}': .*{says}")


def test_kernel_unreadable(lodge, tmp_path, guests):
    if os.geteuid() != 0:
        at = tmp_path / "kernel"
        shutil.copy(guests / "hello", at)
        at.chmod(0)
        one_line(lodge("run", "--kernel", at, "--net", "none"), 2, "ermission denied")
        return
    one_line(lodge("run", "--kernel", "/dev/null/kernel", "--net", "none"), 2, "kernel '/dev/null/kernel': Not a directory")


def test_bzimage_truncated(lodge, tmp_path):
    at = tmp_path / "kernel"
    header = bytearray(8192)  # the header alone: boot protocol 2.15 and a payload that is not there
    header[0x1f1], header[0x1fe:0x200], header[0x202:0x206], header[0x206:0x208] = 4, b"\x55\xaa", b"HdrS", b"\x0f\x02"
    header[0x1f4:0x1f8] = (1 << 20).to_bytes(4, "little")
    at.write_bytes(header)
    one_line(lodge("run", "--kernel", at, "--net", "none"), 1, "truncated")


def test_initrd_missing(lodge, hello):
    one_line(lodge("run", *hello, "--initrd", "/nowhere/initrd"), 2, "initrd '/nowhere/initrd': No such file")


def test_initrd_folder(lodge, hello, tmp_path):
    one_line(lodge("run", *hello, "--initrd", tmp_path), 2, f"initrd '{tmp_path}': is a folder")


def test_initrd_too_large(lodge, hello, tmp_path, guests):
    """And what the message asks for is enough."""
    at = tmp_path / "initrd"
    with open(at, "wb") as f:
        f.truncate(100 * MIB)
    r = lodge("run", *hello, "--initrd", at, "--memory", "64M")
    one_line(r, 2, "64 MiB is too small .* initrd: at least [0-9]+ MiB are needed")
    need = re.search(r"at least ([0-9]+) MiB", r.err)[1]
    r = lodge("run", "--kernel", guests / "first", "--net", "none", "--initrd", at, "--memory", f"{need}M", "--debug-exit")
    assert r.status == 5, r.err


def test_image_missing(lodge, hello):
    one_line(lodge("run", *hello, "--disk", "/nowhere/disk"), 2, "'/nowhere/disk': no such file; ")


def test_image_folder(lodge, hello, tmp_path):
    one_line(lodge("run", *hello, "--disk", tmp_path), 2, f"'{tmp_path}': is a directory; ")


@pytest.fixture
def base(tmp_path):
    at = tmp_path / "base"
    with open(at, "wb") as f:
        f.truncate(4 * MIB)
    return at


def test_image_locked(lodge, waiting, hello, tmp_path, base):
    """A second machine on the same overlay is told who has it."""
    overlay = tmp_path / "overlay"
    p = waiting("holder", "--disk", f"{overlay},base={base}")
    before = overlay.stat().st_size
    one_line(lodge("run", *hello, "--disk", overlay), 1, f"'{overlay}': .*holder")
    assert overlay.stat().st_size == before
    end(p)
    r = lodge("run", *hello, "--disk", overlay, "--debug-exit")
    assert r.status == 33, r.err


def test_base_locked(lodge, waiting, hello, tmp_path, base):
    """Nobody writes to a base while an overlay over it is in use; readers are welcome."""
    p = waiting("reader", "--disk", f"{tmp_path / 'overlay'},base={base}")
    one_line(lodge("run", *hello, "--disk", base), 1, f"'{base}': .*reader")
    r = lodge("run", *hello, "--disk", f"{tmp_path / 'other'},base={base}", "--debug-exit")
    assert r.status == 33, r.err
    end(p)


def test_image_read_only(lodge, hello, tmp_path, base):
    """A file that cannot be written is an error for a writer, and none with ro."""
    if os.geteuid() == 0:  # root writes to any file: a mount that nobody can write to
        script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, "sh", str(base)]
    else:
        base.chmod(0o444)
        command = []
    def run(disk):
        p = subprocess.run([*command, str(lodge.path), "run", *map(str, hello), "--debug-exit", "--disk", disk], env=lodge.env, stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=60, check=False)
        return p.returncode, p.stderr
    status, err = run(str(base))
    assert status == 125 and re.fullmatch(rf"lodge: run: disk disk0: '{base}': cannot be written \(.*\); add ,ro .*\n", err), err
    status, err = run(f"{base},ro")
    assert status == 33, err


ISO_BLOCK = 2048
def iso_image(blocks):
    """The volume descriptor of that many blocks, and nothing else."""
    volume = b"\1CD001\1".ljust(80, b"\0") + blocks.to_bytes(4, "little") + blocks.to_bytes(4, "big") + bytes(40) + ISO_BLOCK.to_bytes(2, "little") + ISO_BLOCK.to_bytes(2, "big")
    return bytes(16 * ISO_BLOCK) + volume.ljust(ISO_BLOCK, b"\0")


def fat_image(sectors):
    return b"\xeb\x3c\x90".ljust(11, b"\0") + bytes((0, 2, 1, 1, 0, 2, 224, 0)) + sectors.to_bytes(2, "little") + b"\xf0" + bytes(700 * 512 - 22)


WHAT_IS_THERE = {"empty": b"", "odd": bytes(1000), "zeros": bytes(3 * MIB), "huge": bytes(17 * MIB), "cut-off CD": iso_image(18), "cut-off FAT": fat_image(2880)}


@pytest.mark.parametrize("option,kind,says", [
    ("cdrom", "missing", "cd0: '{at}': no such file; check"), ("cdrom", "empty", "cd0: '{at}': is empty; "), ("cdrom", "a folder", "cd0: '{at}': is a directory; "),
    ("cdrom", "odd", "cd0: '{at}': .* no CD-ROM, .*; name an ISO image"), ("cdrom", "cut-off CD", "cd0: '{at}': is cut off: .*36864 bytes, the image 34816; fetch"),
    ("floppy", "missing", "floppy0: '{at}': no such file; check"), ("floppy", "empty", "floppy0: '{at}': is empty; "), ("floppy", "a folder", "floppy0: '{at}': is a directory; "),
    ("floppy", "odd", "floppy0: '{at}': 1000 bytes .*cut off"), ("floppy", "zeros", "floppy0: an image of 3145728 bytes is no floppy disk; there are .*1440K"),
    ("floppy", "cut-off FAT", "floppy0: '{at}': is cut off: .*1474560 bytes, the image 358400; fetch"),
    ("firmware", "missing", "firmware '{at}': no such file; "), ("firmware", "empty", "firmware '{at}': is empty; "), ("firmware", "a folder", "firmware '{at}': is a directory; "),
    ("firmware", "odd", "firmware '{at}': 1000 bytes, not a multiple of 64 KiB; it is cut off"), ("firmware", "huge", "firmware '{at}': 17825792 bytes, at most 16 MiB; ")])
def test_medium(option, kind, says, lodge, tmp_path):
    """What is no CD-ROM, floppy disk or firmware is refused before anything starts."""
    at = tmp_path / "image"
    if kind == "a folder":
        at.mkdir()
    elif kind != "missing":
        at.write_bytes(WHAT_IS_THERE[kind])
    words = [f"--firmware={at}"] if option == "firmware" else [f"--{option}", at]
    one_line(lodge("run", *words, "--net", "none"), 2, says.format(at=at))


def test_screen_hint(lodge):
    """A machine whose screen nobody sees says how to; not where somebody may look, nor with --quiet."""
    for words, hint in ((["seen"], True), (["seen", "--quiet"], False), (["seen", "--vga", "none"], False), (["seen", "--display", f"vnc=unix:{lodge.home}/vnc"], False)):
        r = lodge("run", *words, "--firmware", "--net", "none", "--timeout", "0.2", "--console", "none")
        assert r.status == 124, r.err
        assert ("lodge screen seen prints it" in r.err) is hint, r.err


NOTHING_TO_BOOT = r"lodge: box: only its firmware \(SeaBIOS\) starts, there is nothing to boot; add --disk FILE, --cdrom FILE or --kernel FILE"


@pytest.mark.parametrize("words,told", [([], True), (["--quiet"], False), (["--boot", "order=n"], False)], ids=["plain", "quiet", "network"])
def test_nothing_to_boot(lodge, words, told):
    """On a terminal it is said, once; to a script it is not."""
    start = ["run", "box", "--ephemeral", "--memory", "16M", "--net", "none", "--console", "none", "--timeout", "0.3", *words]
    p = lodge.spawn(*start)
    p.expect(pexpect.EOF)
    assert len(re.findall(NOTHING_TO_BOOT, p.before)) == told, p.before
    r = lodge(*start)
    assert r.status == 124 and "nothing to boot" not in r.out + r.err


def test_file_for_a_name(lodge, tmp_path):
    (tmp_path / "disk.qcow2").touch()
    for word, status in (("disk.qcow2", 3), ("./disk.qcow2", 2)):
        one_line(lodge("run", word, cwd=tmp_path), status, f"{word}: is a file, not the name of a machine; lodge run --disk {word} starts from it")
    one_line(lodge("run", "disk.qcow2"), 3, "disk.qcow2: no machine of that name is defined; .*")


# ---- values ----

@pytest.mark.parametrize("value,says", [("0", '"0": '), ("1P", '"1P": not a size; '), ("lots", '"lots": not a size; '), ("-1", "not a size; "), ("512", "; .*write M"),
                                        ("", "empty"), ("2T", "more than the limit"), ("1048577", "multiple of 4K")])
def test_memory(value, says, lodge, hello):
    one_line(lodge("run", *hello, "--memory", value), 2, f"--memory: .*{says}")
    one_line(lodge("run", *hello, "--memory", value, "--debug-exit"), 125, f"--memory: .*{says}")


def test_memory_too_small(lodge, hello):
    r = lodge("run", *hello, "--memory", "1M")
    one_line(r, 2, "1 MiB is too small for .*: at least [0-9]+ MiB are needed")
    need = re.search(r"at least ([0-9]+) MiB", r.err)[1]
    r = lodge("run", *hello, "--memory", f"{need}M", "--debug-exit")
    assert r.status == 33, r.err


@pytest.mark.parametrize("value", ["0", "1000", "two", "-1", "1.5"])
def test_cpus(value, lodge, hello):
    one_line(lodge("run", *hello, "--cpus", value), 2, f'--cpus: "{value}": not a number from 1 to ')


@pytest.mark.parametrize("words,says", [
    (["--memroy", "64M"], "--memroy: unknown option; did you mean --memory\\?"), (["--xyzzy"], "--xyzzy: unknown option; see --help"),
    (["-z"], "-z: unknown option"), (["--memory"], "--memory: needs a value; "), (["--no-reboot=yes"], "--no-reboot: takes no value"),
    (["--memory", "64M,hug=on"], '--memory: "hug": unknown sub-option; valid ones are .*huge'),
    (["--net", "wifi"], '--net: "wifi": unknown back end; this version has .*user'), (["--net", "user,speed=9"], '--net: "speed": unknown sub-option; valid ones .*hostfwd'),
    (["--net", "user,mac=52:54:00"], '--net: mac .*"52:54:00"'), (["--net", "user,mac=zz:54:00:12:34:56"], "--net: mac "),
    (["--net", "user,hostfwd=22"], "hostfwd '22' is not "), (["--net", "user,hostfwd=tcp:127.0.0.1:99999-:22"], "99999"), (["--net", "user,hostfwd=sctp::1-:2"], "sctp"),
    (["-p", "nothing"], '--publish: "nothing": write '), (["--disk", "x,speed=1"], '--disk: "speed": unknown sub-option'), (["--timeout", "0"], "--timeout: "),
    (["--timeout", "soon"], "--timeout: "), (["--uuid", "1"], "--uuid: "), (["--rtc", "noon"], "--rtc: "), (["--device", "flux"], '"flux": no device class'),
    (["--console", "teapot"], '--console: "teapot": write '), (["a/b"], 'NAME: "a/b": '), (["x" * 64], "NAME: "), (["one", "two"], '"two": one word too many')])
def test_options(words, says, lodge, guests):
    net = [] if {"--net", "-p"} & set(words) else ["--net", "none"]
    one_line(lodge("run", "--kernel", guests / "hello", *net, *words), 2, says)


@pytest.mark.parametrize("words, status, says", [
    ([""], 2, "no verb; lodge --help lists them"),
    (["lst"], 2, "lst: unknown verb; did you mean list\\?"),
    *(([verb, "nobody", *more], 3, f"{verb}: nobody: no machine of that name; lodge list shows them") for verb, *more in (
        ["stop"], ["kill"], ["pause"], ["resume"], ["reset"], ["log"], ["console"], ["wait", "--exit"], ["rm"], ["rename", "x"],
        ["events"], ["stats"], ["ssh"], ["ssh-config"], ["screen"], ["type", "x"], ["view"], ["gdb"], ["net"], ["disk"], ["capture"], ["qmp", "stop"])),
    (["set", "nobody", "--memory", "1G"], 3, "set: nobody: no machine of that name is defined; lodge list shows those that are"),
    (["exec", "nobody", "--", "ls"], 125, "exec: nobody: no machine of that name; lodge list shows them"),
    (["stop", "a/b"], 2, "stop: 'a/b': not a name for a machine; use up to 63 letters, .*"),
    (["stop", ""], 2, "stop: '': not a name for a machine; use up to 63 letters, .*"),
    (["stop", "--timeout", "1", "--timeout", "2", "x"], 2, "stop: --timeout: given twice; give it once"),
    (["list", "--jsn"], 2, "list: --jsn: unknown option; did you mean --json\\?"),
    (["run", "--kernel", ""], 2, "run: --kernel: is empty; write --kernel FILE.*"),
    (["run", "--display", "vnc=x", "--dry-run"], 0, ""),
    (["run", "--display", "vnc=x", "--timeout", "5"], 2, 'run: vnc: "x": write :DISPLAY, HOST:DISPLAY, HOST::PORT, auto or unix:PATH'),
    (["image", "info", ""], 2, "image info: no file named; give the path of one"),
    (["switch", "nobody", "ports"], 3, "switch: nobody: no switch of that name runs; lodge switch nobody runs one"),
    (["switch", "nobody", "walk"], 2, 'switch: "walk": not done with a switch; write ports, macs, stats, plug or unplug'),
])
def test_newcomer(words, status, says, lodge):
    """Each message says what, which, why, and what to do."""
    r = lodge(*words)
    assert r.status == status and re.fullmatch(f"lodge: {says}\n" if says else "", r.err), r


REFUSED = ["--share", "--host"]


@pytest.mark.parametrize("option", REFUSED)
def test_refused(option, lodge, hello):
    one_line(lodge("run", *hello, option), 2, f"{option}: not supported by this version; leave it away")
    one_line(lodge("run", *hello, "--debug-exit", option), 125, f"{option}: not supported by this version; leave it away")


def test_refused_not_in_help(lodge):
    r = lodge("run", "--help")
    assert r.status == 0 and "--kernel" in r.out and r.err == ""
    words = set(re.findall(r"--[a-z-]+", r.out))
    assert not words & set(REFUSED)


def test_no_kernel(lodge):
    one_line(lodge("run", "--kernel", "protocol=elf"), 2, "no kernel; write --kernel FILE")


@pytest.mark.parametrize("where", ["file:/nowhere/log", "unix:/nowhere/socket", "file:/"])
def test_console_nowhere(where, lodge, hello):
    r = lodge("run", *hello, "--console", where)
    one_line(r, r.status, re.escape(where.split(":")[1]))
    assert r.status in (1, 2)


def test_host_port_busy(lodge, guests):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        r = lodge("run", "--kernel", guests / "hello", "--net", f"user,hostfwd=tcp:127.0.0.1:{port}-:22")
        assert r.status in (1, 2)
        one_line(r, r.status, f"{port}.*in use")


# ---- KVM ----

def without_kvm(lodge, home, script, *command):
    if os.geteuid() != 0:
        pytest.skip("needs root, to take /dev/kvm away in a mount name space")
    full = 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && mkdir -m 1777 /dev/shm && ' + script + ' && exec "$@"'
    p = subprocess.run(["unshare", "-m", "sh", "-c", full, "sh", *map(str, command)], env=lodge.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    return p.returncode, p.stdout, p.stderr


NO_KVM = {"missing": ("true", "not there; "), "no-kvm-in-it": ("touch /dev/kvm", "/dev/kvm: .*lodge doctor|/dev/kvm: .*; "), "a-dead-device": ("mknod /dev/kvm c 10 199", "/dev/kvm: .*lodge doctor")}


@pytest.mark.parametrize("kind", NO_KVM)
def test_no_kvm(kind, lodge, hello):
    script, says = NO_KVM[kind]
    for more, status in (([], 6), (["--debug-exit"], 125)):
        got, out, err = without_kvm(lodge, None, script, lodge.path, "run", *hello, *more)
        assert (got, out) == (status, ""), err
        assert re.fullmatch(rf"lodge: run: /dev/kvm: .*\n", err) and re.search(says, err), err


def test_kvm_not_permitted(lodge, tmp_path, hello, guests):
    """A user without rights, with the program and a guest where that user can read them."""
    folder = lodge.home / "open"
    folder.mkdir()
    for f in (lodge.path, guests / "hello"):
        shutil.copy(f, folder)
    subprocess.run(["chown", "-R", "65534:65534", lodge.home], check=os.geteuid() == 0)
    got, out, err = without_kvm(lodge, None, "mknod -m 600 /dev/kvm c 10 232", "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                                folder / "lodge", "run", "--kernel", folder / "hello", "--net", "none")
    assert (got, out) == (6, ""), err
    assert re.fullmatch(r"lodge: run: /dev/kvm: permission denied; .*kvm.*\n", err), err


# ---- names, signals, ends ----

def test_name_twice(lodge, waiting, hello):
    p = waiting("twin")
    one_line(lodge("run", "twin", *hello), 5, f"twin: a machine of that name is running \\(pid {p.pid}\\); ")
    end(p)
    r = lodge("run", "twin", *hello, "--debug-exit")
    assert r.status == 33, r.err


def test_timeout(lodge, guests):
    r = lodge("run", "--kernel", guests / "hlt_wake", *WAITER, "--net", "none", "--timeout", "0.5", "--console", "stdio", stdin=subprocess.PIPE)
    assert r.status == 124 and r.seconds < 10
    assert re.match(r"lodge: run: vm-\d+: not done within its time limit\n", r.err), r.err
    assert "READY" in r.err, "the tail of the console is not shown"


@pytest.mark.parametrize("sig,status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_twice(sig, status, lodge, waiting):
    p = waiting("signalled")
    p.send_signal(sig)
    assert b"power button" in p.stderr.readline()
    assert p.poll() is None
    p.send_signal(sig)
    assert p.wait(timeout=20) == status


def test_killed(lodge, waiting, hello, tmp_path, base):
    """What a kill leaves hinders nobody: same name, same disk."""
    overlay = tmp_path / "overlay"
    p = waiting("again", "--disk", f"{overlay},base={base}")
    p.kill()
    p.wait(timeout=20)
    r = lodge("run", "again", *hello, "--disk", overlay, "--debug-exit")
    assert r.status == 33, r.err


def test_detach(lodge, guests, tmp_path):
    log = tmp_path / "log"
    r = lodge("run", "away", "--kernel", guests / "hlt_wake", *WAITER, "--net", "none", "-d", "--console", f"file:{log}")
    assert (r.status, r.out, r.err) == (0, "", "")
    pid = int((lodge.home / "run" / "lodge" / "away" / "pid").read_text())
    assert pathlib.Path(f"/proc/{pid}/exe").resolve() == lodge.path.resolve()
    assert os.getsid(pid) == pid
    until("the guest runs", lambda: log.exists() and b"READY" in log.read_bytes())
    for _ in range(2):
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.1)
    until("it ends", lambda: not (lodge.home / "run" / "lodge" / "away").exists())


def test_detach_fails(lodge, hello):
    """The error comes to the caller, with its status."""
    one_line(lodge("run", *hello, "-d", "--disk", "/nowhere/disk"), 2, "'/nowhere/disk': no such file")


# ---- the terminal ----

def test_terminal_comes_back(lodge, guests):
    for how in ("exit", "escape", "signal", "error"):
        fd, tty = os.openpty()
        try:
            before = termios.tcgetattr(tty)
            words = {"exit": ["--kernel", guests / "hello", "--debug-exit"], "error": ["--kernel", guests / "hello", "--disk", "/nowhere/disk"]}.get(
                how, ["--kernel", guests / "hlt_wake", *WAITER])
            p = subprocess.Popen([str(lodge.path), "run", *map(str, words), "--net", "none"], env=lodge.env, stdin=tty, stdout=tty, stderr=tty, start_new_session=True)
            lodge.children.append(p)
            p.stdin = p.stdout = p.stderr = None
            said = b""
            if how in ("escape", "signal"):
                while b"READY" not in said:
                    assert select.select([fd], [], [], 20)[0], said
                    said += os.read(fd, 4096)
                assert termios.tcgetattr(tty)[3] & (termios.ICANON | termios.ECHO) == 0, "the terminal is not raw while the guest runs"
            if how == "escape":
                os.write(fd, b"\x1dq")
            elif how == "signal":
                p.send_signal(signal.SIGHUP)
            until(f"end by {how}", lambda: select.select([fd], [], [], 0)[0] and not os.read(fd, 4096) or p.poll() is not None)
            assert termios.tcgetattr(tty) == before, f"the terminal is not as before after {how}"
        finally:
            os.close(tty)
            os.close(fd)


# ---- what starts nothing ----

def test_dry_run(lodge, tmp_path, hello):
    """dtc takes it, and /dev/kvm is not touched: it goes where there is none."""
    at = tmp_path / "machine.dts"
    r = lodge("run", "paper", *hello, "--dry-run", "--cpus", "2")
    assert (r.status, r.err) == (0, "") and "paper" in r.out
    at.write_text(r.out)
    dtc = subprocess.run(["dtc", "-q", "-I", "dts", "-O", "dtb", "-o", "/dev/null", at], capture_output=True, text=True, check=False)
    assert dtc.returncode == 0, dtc.stderr
    if os.geteuid() == 0:
        assert without_kvm(lodge, None, "true", lodge.path, "run", "paper", *hello, "--dry-run", "--cpus", "2") == (0, r.out, "")
    assert not (lodge.home / "run" / "lodge").exists()


def test_binary_alone(lodge, tmp_path, guests):
    """Copied elsewhere, nothing of the build beside it."""
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(lodge.path, alone / "vmm")
    shutil.copy(guests / "hello", alone / "kernel")
    p = subprocess.run(["./vmm", "run", "--kernel", "kernel", "--debug-exit", "--timeout", "20"], cwd=alone, env=lodge.env, stdin=subprocess.DEVNULL,
                       capture_output=True, timeout=60, check=False)
    assert p.returncode == 33, p.stderr


def test_help(lodge):
    r = lodge("help")
    assert r.status == 0 and r.err == ""
    verbs = re.findall(r"^  ([a-z]+)  ", r.out, re.M)
    assert "run" in verbs and "doctor" in verbs, r.out
    for verb in verbs:
        by_help, by_option = lodge("help", verb), lodge(verb, "--help")
        assert (by_help.status, by_help.err) == (0, "") and f"lodge {verb}" in by_help.out
        assert by_help.out == by_option.out
    r = lodge("help", "rnu")
    assert r.status == 2 and re.fullmatch(r"lodge: .*rnu.*run.*\n", r.err), r.err


def test_verb_unknown(lodge):
    r = lodge("rnu")
    assert r.status == 2 and r.out == "" and re.fullmatch(r"lodge: .*rnu.*run.*\n", r.err), r.err


@pytest.mark.skipif(not shutil.which("man"), reason="no man on this machine")
def test_man_pages_render():
    pages = sorted((BUILD / "docs").glob("*.[1-9]"))
    assert pages
    for page in pages:
        p = subprocess.run(["man", "--warnings=w", "-E", "UTF-8", "-l", page], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
                           env=dict(os.environ, MANWIDTH="80", MANPAGER="cat"))
        assert p.returncode == 0 and p.stderr == "", f"{page}: {p.stderr}"
        assert "lodge" in p.stdout.lower()


def test_root_disk_without_modules(lodge, tmp_path, base):
    """A distribution kernel, a root disk, no modules for it and no initrd: said before a guest starts."""
    kernels = sorted(pathlib.Path("/boot").glob("vmlinuz-*"))
    kernels = [k for k in kernels if os.access(k, os.R_OK)]
    if not kernels:
        pytest.skip("no readable kernel in /boot")
    empty = tmp_path / "modules"
    empty.mkdir()
    r = lodge("run", "--kernel", f"{kernels[0]},modules={empty}", "--disk", base, "--net", "none")
    assert r.status in (1, 2, 3)
    one_line(r, r.status, f"{empty}.*; ")
