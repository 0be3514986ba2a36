# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the end-to-end tests. tests/run decides where they run and says so in the environment."""
import collections
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("LODGE_TEST_BUILD") or os.environ.get("BUILD") or TOP / "build").resolve()
Result = collections.namedtuple("Result", "status out err seconds")


def _binary():
    for at in ("lodge", "src/lodge", "src/cli/lodge"):
        if (BUILD / at).is_file():
            return BUILD / at
    pytest.exit(f"no lodge under {BUILD}; build first", returncode=3)


def has_assist():
    """True, False, or None where doctor could not tell."""
    return {"yes": True, "no": False}.get(os.environ.get("LODGE_TEST_ASSIST", ""))


def has_ended(pid):
    """Whether a process that is nobody's child here has ended; its new parent may let it lie for long."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Lodge:
    """The program, with a run folder, cache and home of its own."""

    def __init__(self, home):
        self.path = _binary()
        self.home = home
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "LODGE_"))}
        self.env.update(HOME=str(home), XDG_RUNTIME_DIR=str(home / "run"), XDG_CACHE_HOME=str(home / "cache"), XDG_STATE_HOME=str(home / "state"),
                        TMPDIR=str(home / "tmp"), NO_COLOR="1",
                        ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:exitcode=99"))
        (home / "run").mkdir(mode=0o700)
        (home / "tmp").mkdir(mode=0o700)  # its own, since others may be writing to /tmp
        self.children = []

    def popen(self, *args, **kw):
        """Start it in a session of its own, so that the fixture can end whatever is left."""
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("stdout", subprocess.PIPE)
        kw.setdefault("stderr", subprocess.PIPE)
        env = dict(self.env, **kw.pop("env", {}))
        p = subprocess.Popen([str(self.path), *map(str, args)], env=env, start_new_session=True, **kw)
        self.children.append(p)
        return p

    def __call__(self, *args, timeout=60, **kw):
        """Run to the end; a time-out fails the test with what was said so far."""
        started = time.monotonic()
        if "input" in kw:
            kw["stdin"] = subprocess.PIPE
        data = kw.pop("input", None)
        p = self.popen(*args, **kw)
        try:
            out, err = p.communicate(data, timeout=timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            out, err = p.communicate()
            pytest.fail(f"lodge {' '.join(map(str, args))} did not end in {timeout} s\n{out.decode(errors='replace')}\n{err.decode(errors='replace')}")
        text = [(b or b"").decode(errors="replace") for b in (out, err)]
        return Result(p.returncode, *text, time.monotonic() - started)

    def spawn(self, *args, **kw):
        """On a terminal, by pexpect."""
        import pexpect
        kw.setdefault("timeout", 60)
        kw.setdefault("encoding", "utf-8")
        kw.setdefault("codec_errors", "replace")
        kw.setdefault("env", dict(self.env, TERM="vt100"))  # a real one, whatever runs the tests
        p = pexpect.spawn(str(self.path), [str(a) for a in args], **kw)
        self.children.append(p)
        return p

    def close(self):
        for p in self.children:
            if isinstance(p, subprocess.Popen):
                if p.poll() is None:
                    os.killpg(p.pid, signal.SIGKILL)
                    p.wait()
                for f in (p.stdin, p.stdout, p.stderr):
                    if f:
                        f.close()
            else:
                p.close(force=True)


@contextlib.contextmanager
def running_lodge():
    """A Lodge of its own, ended and cleaned up afterwards."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="lt."))  # short: a Unix socket's path has 107 characters
    program = Lodge(home)
    try:
        yield program
    finally:
        program.close()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def lodge():
    with running_lodge() as program:
        yield program


def _listing(program):
    """What a VM could leave behind."""
    seen = set()
    for folder in ("/dev/shm", program.home / "tmp", program.home / "run"):
        for root, _, files in os.walk(folder):
            if "/lodge-block-" in root or "/lodge-fuzz-" in root:  # unit tests of images, and fuzzers, beside us
                continue
            seen.update(os.path.join(root, f) for f in files)
    seen.update("link " + n for n in os.listdir("/sys/class/net"))
    return seen


@pytest.fixture
def nothing_left(lodge):
    """/dev/shm, the run folder, its folder for temporary files and the network links are the same afterwards."""
    before = _listing(lodge)
    yield
    new = _listing(lodge) - before
    assert not new, f"left behind: {sorted(new)}"


@pytest.fixture(scope="session")
def guests():
    folder = BUILD / "tests" / "guests"
    if not (folder / "hello").is_file():
        pytest.exit(f"no guests under {folder}; build with -Dguests=true", returncode=3)
    return folder
