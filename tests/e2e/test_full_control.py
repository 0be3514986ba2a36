# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person and a supervisor do to a running stock guest: power button, signals, the keys of the
console, and what they are told when the guest's kernel dies."""
import os
import re
import select
import signal
import termios
import time

import pytest
from linux_guest import BOOT_SECONDS, BUTTON, READ_MAX, initrd, kernel, read_until, words

DEAF = "echo 'state: up'; while :; do sleep 1; done"
POLITE = "listen; echo 'state: up'; button; echo 'state: button'; bye"


def arguments(tmp_path, script, modules=()):
    archive = initrd(tmp_path / "initrd", script, modules)
    return ["--kernel", kernel().path, "--initrd", archive, "--append", "console=ttyS0 quiet", "--net", "none", "--memory", "128M"]


def started(lodge, *args, **kw):
    p = lodge.popen("run", *args, **kw)
    read_until(p.stdout.fileno(), b"state: up")
    return p


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signal_presses_the_power_button(lodge, tmp_path, nothing_left, sig):
    p = started(lodge, *arguments(tmp_path, POLITE, BUTTON))
    p.send_signal(sig)
    out, err = (b.decode(errors="replace") for b in p.communicate(timeout=BOOT_SECONDS))
    assert p.returncode == 0, out + err
    assert words(out)["state"] == ["button"]


def test_second_signal_pulls_the_plug(lodge, tmp_path, nothing_left):
    p = started(lodge, *arguments(tmp_path, DEAF))
    p.send_signal(signal.SIGINT)
    said = read_until(p.stderr.fileno(), b"second signal pulls the plug")
    assert b"power button pressed" in said
    p.send_signal(signal.SIGINT)
    assert p.wait(BOOT_SECONDS) == 128 + signal.SIGINT


def test_detached_machine(lodge, tmp_path, nothing_left):
    """It runs on after `lodge run -d`, its log is kept, and a signal is its power button."""
    r = lodge("run", "away", "-d", *arguments(tmp_path, POLITE, BUTTON), timeout=BOOT_SECONDS)
    assert r.status == 0 and r.out == "", r
    pid = int((lodge.home / "run" / "lodge" / "away" / "pid").read_text())
    log = lodge.home / "state" / "lodge" / "away" / "console.log"
    wait_for(lambda: "state: up" in log.read_text())
    again = lodge("run", "away", "--kernel", kernel().path)
    assert again.status == 5 and str(pid) in again.err
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not (lodge.home / "run" / "lodge").exists())
    assert words(log.read_text())["state"] == ["up", "button"]


def wait_for(condition):
    deadline = time.monotonic() + BOOT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Terminal:
    """Lodge on a terminal of its own, whose settings are compared when it has ended."""

    def __init__(self, lodge, *args):
        self.ours, self.theirs = os.openpty()
        self.before = termios.tcgetattr(self.theirs)
        self.process = lodge.popen("run", *args, stdin=self.theirs, stdout=self.theirs, stderr=self.theirs, preexec_fn=self._controlling)

    def _controlling(self):
        import fcntl
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def until(self, text):
        return read_until(self.ours, text)

    def type(self, data):
        os.write(self.ours, data)

    def end(self):
        """The status; the terminal is as it was."""
        seen, deadline = b"", time.monotonic() + BOOT_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.05)[0]:
                seen += os.read(self.ours, READ_MAX)
        status = self.process.poll()
        after = termios.tcgetattr(self.theirs)
        os.close(self.ours)
        os.close(self.theirs)
        assert status is not None, seen
        assert after == self.before, "the terminal's settings have changed"
        return status


def test_keys_of_the_console(lodge, tmp_path, nothing_left):
    """Ctrl-C and Ctrl-] Ctrl-] are the guest's, Ctrl-] p is the power button."""
    script = """exec < /dev/ttyS0 > /dev/ttyS0 2>&1; stty -echo
trap 'echo "state: interrupted"; got=1' INT; listen
echo 'state: up'; while [ -z "$got" ]; do sleep 1 & wait $!; done
stty raw; echo 'state: raw'; say byte $(dd bs=1 count=1 2>/dev/null | hexdump -e '1/1 "%02x"'); stty sane
button; echo 'state: button'; bye"""
    # The interrupt reaches who has the terminal as its own.
    shell = "exec setsid -c sh -c '. /script' < /dev/ttyS0 > /dev/ttyS0 2>&1"
    prelude = "cat > /script << 'EOF'\n$(declare)\nEOF\n".replace("$(declare)", functions() + script)
    t = Terminal(lodge, *arguments(tmp_path, prelude + shell, BUTTON))
    assert b"Ctrl-]" in t.until(b"state: up")
    t.type(b"\x03")
    t.until(b"state: interrupted")
    t.until(b"state: raw")
    t.type(b"\x1d\x1d")
    t.until(b"byte: 1d")
    t.type(b"\x1d?")
    t.until(b"power button")
    t.type(b"\x1dp")
    t.until(b"state: button")
    assert t.end() == 0


def functions():
    """The shell functions that every guest's script has, for a second shell."""
    from linux_guest import INIT
    return INIT[INIT.index("say()"):]


def test_key_ends_it(lodge, tmp_path, nothing_left):
    t = Terminal(lodge, *arguments(tmp_path, DEAF))
    t.until(b"state: up")
    t.type(b"\x1dq")
    assert t.end() == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP])
def test_terminal_comes_back_after_signals(lodge, tmp_path, nothing_left, sig):
    t = Terminal(lodge, *arguments(tmp_path, DEAF))
    t.until(b"state: up")
    t.process.send_signal(sig)
    if sig != signal.SIGHUP:
        t.until(b"second signal")
        t.process.send_signal(sig)
    assert t.end() == 128 + sig


def test_panic_is_seen(lodge, tmp_path, nothing_left):
    r = lodge("run", "dying", *arguments(tmp_path, "echo 'state: up'; echo c > /proc/sysrq-trigger", ("pvpanic", "pvpanic_mmio")), timeout=BOOT_SECONDS)
    assert r.status == 255, r
    assert re.search(r"^lodge: run: dying: .*panic", r.err, re.M)
    tail = r.err.partition("the last lines of the console:")[2]
    assert "sysrq triggered crash" in tail, r.err
    log = (lodge.home / "state" / "lodge" / "dying" / "console.log").read_text()
    assert "state: up" in log and "sysrq triggered crash" in log


def test_time_limit(lodge, tmp_path, nothing_left):
    r = lodge("run", "--timeout", "15", *[a.removesuffix(" quiet") for a in map(str, arguments(tmp_path, DEAF))], timeout=BOOT_SECONDS)
    assert r.status == 124, r
    assert re.search(r"\[ +\d+\.\d+\] |state: up", r.err.partition("the last lines of the console:")[2]), r.err  # however far it came
