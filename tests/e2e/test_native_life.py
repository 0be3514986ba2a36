# SPDX-License-Identifier: GPL-2.0-or-later
"""Named machines: what they are defined as, the verbs about them, what is left when they end, and who may have a name."""
import contextlib
import json
import os
import pathlib
import re
import resource
import select
import signal
import socket
import stat
import subprocess
import time

import pytest
from conftest import BUILD, has_assist, has_ended

SECONDS = 30


def until(what, condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


def hear(p, text):
    """What a child says on standard output, up to @text."""
    out, deadline = b"", time.monotonic() + SECONDS
    while text not in out:
        assert select.select([p.stdout], [], [], max(0, deadline - time.monotonic()))[0], f"no {text!r} in {out!r}"
        got = os.read(p.stdout.fileno(), 4096)
        assert got, f"ended before {text!r}: {out!r}"
        out += got


def fails(r, status, pattern):
    """Exactly one line of error, and nothing on standard output."""
    assert (r.status, r.out) == (status, ""), (r.status, r.out, r.err)
    assert re.fullmatch(rf"lodge: {pattern}\n", r.err), r.err


def works(r):
    assert (r.status, r.err) == (0, ""), (r.status, r.out, r.err)
    return r.out


@pytest.fixture(autouse=True)
def ended(lodge, nothing_left):
    """What a test that failed leaves running does not stay."""
    yield
    for pid in (lodge.home / "run").glob("lodge/*/pid"):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture
def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def echo(guests):
    """A guest that answers each byte on its serial line with a dot, and knows no power button."""
    return ["--kernel", guests / "hlt_wake", "--append", "n=100000000", "--memory", "16M", "--net", "none"]


@pytest.fixture
def polite(guests):
    """A guest that powers off when the button is pressed."""
    return ["--kernel", guests / "acpi", "--append", "wait", "--memory", "16M", "--net", "none"]


def state(lodge, name):
    return {m["name"]: m for m in json.loads(works(lodge("list", "--json")))["machines"]}.get(name, {}).get("state")


def folder(lodge, name):
    return lodge.home / "state" / "lodge" / name


# ---- list, and what a name stands for ----

def test_list(lodge, echo, port):
    assert works(lodge("list")) == "" and json.loads(works(lodge("list", "--json"))) == {"schema": 1, "machines": []}
    works(lodge("run", "web", "-d", *echo[:-2], "-p", f"{port}:80", "--cpus", "2"))
    works(lodge("define", "db", "--memory", "1G", "--cpus", "3"))
    lines = works(lodge("list")).splitlines()
    assert re.fullmatch(r"NAME  STATE    CPUS  MEMORY .*SINCE .*PORTS", lines[0])
    assert re.fullmatch(r"db    stopped  3     1G  +-  +-", lines[1])
    assert re.fullmatch(r"web   running  2     [0-9.]+M of 16M  20\d\d-\d\d-\d\d \d\d:\d\d:\d\d  127\.0\.0\.1:" + f"{port}->80/tcp", lines[2])
    db, web = json.loads(works(lodge("list", "--json")))["machines"]
    assert db == {"name": "db", "state": "stopped", "defined": True, "cpus": 3, "memory": 1 << 30}
    assert web["pid"] == int((lodge.home / "run/lodge/web/pid").read_text()) and web["memory"] == 16 << 20 and 0 < web["resident"] < 64 << 20
    assert works(lodge("list", "-q")) == "db\nweb\n" and works(lodge("list", "-q", "web")) == "web\n"
    fails(lodge("list", "nobody"), 3, "list: nobody: no machine of that name; lodge list shows them")
    fails(lodge("list", "../x"), 2, r"list: '\.\./x': not a name for a machine; .*")
    fails(lodge("list", "-q", "--json"), 2, "list: --json: stands beside --quiet; choose one")
    works(lodge("kill", "web"))
    assert state(lodge, "web") == "stopped"


def test_definition(lodge, echo, guests, tmp_path):
    """A name with options is defined once it runs; alone, it stands for that, files looked up where they were."""
    (tmp_path / "k").symlink_to(guests / "hlt_wake")
    works(lodge("run", "web", "-d", "--kernel", "k", *echo[2:], cwd=tmp_path))
    works(lodge("wait", "web", "--log", "READY", "--timeout", "20"))
    works(lodge("kill", "web"))
    at = folder(lodge, "web") / "definition"
    assert at.read_text() == f"lodge machine 1\nfolder {tmp_path}\n--kernel=k\n--append=n=100000000\n--memory=16M\n--net=none\n"
    assert stat.S_IMODE(at.stat().st_mode) == 0o600 and stat.S_IMODE(at.parent.stat().st_mode) == 0o700
    works(lodge("run", "web", "-d", cwd="/"))
    works(lodge("wait", "web", "--log", "READY", "--timeout", "20"))
    works(lodge("kill", "web"))
    before = at.read_text()
    # What does not start, and what is about one run, leaves the definition alone.
    assert lodge("run", "web", "--kernel", "/nowhere/kernel").status == 2
    assert lodge("run", "web", *echo, "--timeout", "0.2", "--ephemeral").status == 124
    assert lodge("run", "web", "--timeout", "0.2").status == 124
    assert at.read_text() == before
    assert 'vm-name = "web"' in works(lodge("run", "web", "--dry-run"))
    fails(lodge("run", "nobody"), 3, "run: nobody: no machine of that name is defined; lodge list .*")
    fails(lodge("run", "nobody", "-d", "--quiet"), 3, "run: nobody: .*")
    for text, status, says in [("", 1, "line 1: is not .lodge machine 1."), ("lodge machine 2\n", 1, "is of another version .*"),
                               ("lodge machine 1\n--memory=1G\n", 1, "has no folder; .*"), ("lodge machine 1\nfolder /\nmemory\n", 1, "line 3: is no option; .*"),
                               ("lodge machine 1\nfolder x\n", 1, "line 2: the folder is no absolute path"), ("lodge machine 1\nfolder /\n--append=\\x\n", 1, "line 3: a backslash .*")]:
        at.write_text(text)
        fails(lodge("run", "web"), status, f"run: web: '{at}': {says}")
    at.write_text("lodge machine 1\nfolder /\n# mine\n--memroy=1G\n")
    fails(lodge("run", "web"), 2, "run: --memroy: unknown option; did you mean --memory.*")
    at.write_text("lodge machine 1\nfolder /nowhere\n--memory=1G\n")
    fails(lodge("run", "web"), 1, "run: web: cannot enter its folder '/nowhere': No such file or directory")


def test_define(lodge, echo):
    works(lodge("define", "web", *echo))
    before = (folder(lodge, "web") / "definition").read_text()
    assert state(lodge, "web") == "stopped"
    fails(lodge("define", "web", "--memory", "x"), 2, 'define: --memory: "x": not a size; .*')
    fails(lodge("define", "web", "--memory", "1G", "-d"), 2, "define: --detach: is about one run; .*")
    fails(lodge("define", "--memory", "1G"), 2, "define: no machine; give its NAME")
    assert (folder(lodge, "web") / "definition").read_text() == before
    works(lodge("run", "web", "-d"))
    works(lodge("define", "web", "--memory", "32M"))  # for the next time
    works(lodge("kill", "web"))


def test_full_disk(lodge, echo):
    """Where the definition cannot be written the machine runs, and the old one is there."""
    works(lodge("define", "web", "--memory", "1G"))
    before = (folder(lodge, "web") / "definition").read_text()
    p = lodge.popen("run", "web", *echo, stdin=subprocess.PIPE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)))
    hear(p, b"READY")
    works(lodge("kill", "web"))
    assert "its definition is not kept" in p.communicate()[1].decode()
    assert (folder(lodge, "web") / "definition").read_text() == before
    assert os.listdir(folder(lodge, "web")) and not [n for n in os.listdir(folder(lodge, "web")) if n.startswith("definition.")]
    works(lodge("run", "web", "--dry-run"))


def test_ephemeral(lodge, echo, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    works(lodge("run", "web", "-d", *echo, "--ephemeral", "--disk", disk))
    fails(lodge("log", "web"), 3, "log: web: has no console log")
    works(lodge("kill", "web"))
    assert not folder(lodge, "web").exists() and state(lodge, "web") is None
    out = works(lodge("run", "web", *echo, "--ephemeral", "--disk", disk, "--disk", "/x,ro", "--dry-run"))
    assert out.count("snapshot;") == 1


def test_set(lodge, echo, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(bytes(1 << 16))
    works(lodge("define", "web", *echo, "--cdrom", "none", "--disk", tmp_path / "one"))
    works(lodge("set", "web", "--memory", "24M", "--disk", "two,ro", "--disk", "one", cwd=tmp_path))
    at = folder(lodge, "web") / "definition"
    assert at.read_text().splitlines()[2:] == [*(f"{a}={b}" for a, b in zip(echo[:4:2], echo[1:4:2])), "--net=none", "--cdrom=none", "--memory=size=24M",
                                               f"--disk=file={tmp_path}/two,ro=on", f"--disk=file={tmp_path}/one"]
    works(lodge("run", "web", "-d"))
    assert works(lodge("set", "web", "--cdrom", tmp_path / "two", "--cpus", "2")) == "web: cdrom: now\nweb: cpus: at the next start\n"

    def inserted():
        return ["inserted" in d for d in json.loads(works(lodge("qmp", "web", "query-block"))) if d["qdev"] == "cd0"]
    assert inserted() == [True]
    assert works(lodge("set", "web", "--cdrom", "none")) == "web: cdrom: now\n" and inserted() == [False]
    assert works(lodge("set", "web", "--floppy", "none")) == "web: floppy: at the next start\n"
    assert works(lodge("unset", "web", "floppy", "cdrom")) == "web: floppy: now\nweb: cdrom: at the next start\n"
    works(lodge("kill", "web"))
    before = at.read_text()
    assert "--cpus=2" in before and "cdrom" not in before and "floppy" not in before
    fails(lodge("set", "web", "--memory", "1"), 2, 'set: --memory: "1": less than .*')
    fails(lodge("set", "web", "-d"), 2, "set: --detach: is about one run; .*")
    fails(lodge("set", "web"), 2, "set: web: nothing to change; give options")
    fails(lodge("unset", "web"), 2, "unset: web: nothing to take away; .*")
    fails(lodge("unset", "web", "memory", "vga"), 3, "unset: web: --vga: is not in its definition")
    fails(lodge("unset", "web", "mem"), 3, "unset: web: --mem: is not in its definition")
    for verb in (["set", "db", "--cpus", "2"], ["unset", "db", "cpus"], ["edit", "db"]):
        fails(lodge(*verb), 3, f"{verb[0]}: db: no machine of that name is defined; .*")
    assert at.read_text() == before
    # In an editor.
    works(lodge("edit", "web", env={"EDITOR": "sed -i s/cpus=2/cpus=3/"}))
    assert at.read_text() == before.replace("cpus=2", "cpus=3")
    r = lodge("edit", "web", env={"EDITOR": "sed -i s/cpus=3/cpus=x/"})
    text, = (lodge.home / "tmp").glob("lodge-*")
    assert "cpus=x" in text.read_text() and "--cpus=3" in at.read_text()
    text.unlink()
    fails(r, 2, f"edit: web: nothing is changed, your text is in '{text}': --cpus: .*")
    fails(lodge("edit", "web", env={"EDITOR": "false"}), 1, "edit: the editor 'false' failed: .*")
    assert not list((lodge.home / "tmp").glob("lodge-*"))


def test_completion(lodge):
    works(lodge("define", "webserver"))
    script = works(lodge("completion", "bash")) + 'COMP_WORDS=(lodge $1 "$2"); COMP_CWORD=2; _lodge; echo "${COMPREPLY[@]}"\n'
    env = dict(lodge.env, PATH=f"{lodge.path.parent}:{os.environ['PATH']}")
    for verb in ("run", "stop", "console", "log", "rm", "screen", "set"):
        assert subprocess.run(["bash", "-c", script, "bash", verb, "web"], env=env, capture_output=True, text=True, check=True).stdout == "webserver\n", verb
    assert subprocess.run(["bash", "-c", script, "bash", "help", "web"], env=env, capture_output=True, text=True, check=True).stdout == "\n"


# ---- the verbs ----

@pytest.mark.parametrize("words", [["stop"], ["kill"], ["pause"], ["resume"], ["reset"], ["wait"], ["wait", "--log", "x"], ["events"], ["stats"], ["console"],
                                   ["qmp", "NAME", "query-status"]], ids="-".join)
def test_not_there(words, lodge):
    line = [w if w != "NAME" else "web" for w in words] + ([] if "NAME" in words else ["web"])
    fails(lodge(*line), 3, f"{words[0]}: web: no machine of that name; lodge list shows them")
    works(lodge("define", "web"))
    fails(lodge(*line), 7, f"{words[0]}: web: is not running; lodge run web starts it")
    fails(lodge(words[0]), 2, f"{words[0]}: no machine; .*")
    fails(lodge(*[w if w != "web" else "we/b" for w in line]), 2, f"{words[0]}: 'we/b': not a name .*")


def test_stop(lodge, polite, echo):
    """By the power button; by the plug where that does nothing; paused ones first go on. Together."""
    for name, guest in (("a", polite), ("b", polite), ("deaf", echo)):
        works(lodge("run", name, "-d", *guest))
        works(lodge("wait", name, "--log", "READY", "--timeout", "20"))
    works(lodge("pause", "b"))
    assert works(lodge("stop", "a", "b", "a")) == ""
    assert "the button was pressed" in works(lodge("log", "a")) and "the button was pressed" in works(lodge("log", "b"))
    r = lodge("stop", "--all", "--timeout", "0.3")
    assert (r.status, r.err) == (0, "lodge: deaf: did not power off in 0.3 s; its plug is pulled\n")
    assert works(lodge("stop", "--all")) == ""
    fails(lodge("stop", "--all", "a"), 2, "stop: --all: stands beside a name; choose one")
    fails(lodge("stop", "--timeout", "soon", "a"), 2, 'stop: --timeout: "soon": not a number .*')
    r = lodge("stop", "nobody", "a")  # one that fails keeps the others from nothing, and its status is ours
    assert r.status == 3 and r.err.splitlines()[1] == "lodge: stop: a: is not running; lodge run a starts it"


def test_life(lodge, echo):
    works(lodge("run", "web", "-d", *echo))
    works(lodge("wait", "web", "--log", "READY", "--timeout", "20"))
    events = lodge.popen("events", "web")
    plain = lodge.popen("events", "--json", "web")

    def they_listen():
        works(lodge("pause", "web"))
        works(lodge("resume", "web"))
        return len(select.select([events.stdout, plain.stdout], [], [], 0.1)[0]) == 2
    until("both hear of something", they_listen)
    works(lodge("pause", "web"))
    works(lodge("pause", "web"))
    assert state(lodge, "web") == "paused"
    works(lodge("wait", "web", "--paused", "--timeout", "1"))
    works(lodge("resume", "web"))
    works(lodge("wait", "web", "--running", "--timeout", "1"))
    works(lodge("reset", "web"))
    until("it starts again", lambda: works(lodge("log", "web")).count("READY") == 2)
    assert json.loads(works(lodge("qmp", "web", "query-status")))["status"] == "running"
    works(lodge("kill", "web"))
    said = events.communicate(timeout=SECONDS)[0].decode()
    assert re.findall(r"^\S+ \S+ (\S+)", said, re.M)[-4:] == ["STOP", "RESUME", "RESET", "SHUTDOWN"] and "reason=host-qmp-quit" in said, said
    assert [json.loads(line)["event"] for line in plain.communicate()[0].decode().splitlines()][-1] == "SHUTDOWN"
    assert events.returncode == plain.returncode == 0


def test_kill_of_one_that_hangs(lodge, echo):
    works(lodge("run", "web", "-d", *echo))
    pid = int((lodge.home / "run/lodge/web/pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    r = lodge("kill", "web", timeout=60)
    assert r.status == 0 and "its process is killed" in r.err
    assert has_ended(pid)
    works(lodge("run", "web", "-d"))  # what it left hinders nobody
    works(lodge("kill", "web"))


def test_wait(lodge, echo):
    waiter = lodge.popen("wait", "web", "--running", "--timeout", str(SECONDS))
    works(lodge("run", "web", "-d", *echo))
    assert waiter.wait(timeout=SECONDS) == 0
    works(lodge("wait", "web", "--log", "^READY$", "--timeout", "20"))
    fails(lodge("wait", "web", "--log", "never", "--timeout", "0.1"), 124, "wait: web: no line matched in time")
    fails(lodge("wait", "web", "--timeout", "0.1"), 124, "wait: web: did not end in time")
    fails(lodge("wait", "web", "--paused", "--timeout", "0.1"), 124, "wait: web: was not paused in time")
    fails(lodge("wait", "nobody", "--running", "--timeout", "0.1"), 124, "wait: nobody: did not run in time")
    fails(lodge("wait", "web", "--log", "x", "--exit"), 2, "wait: two conditions; .*")
    enders = [lodge.popen("wait", "web"), lodge.popen("wait", "web", "--log", "never"), lodge.popen("log", "-f", "web")]
    time.sleep(0.2)
    works(lodge("kill", "web"))
    assert [p.wait(timeout=SECONDS) for p in enders] == [0, 7, 0]
    assert enders[1].stderr.read() == b"lodge: wait: web: ended, and no line matched\n"
    assert b"READY" in enders[2].stdout.read()


@pytest.mark.parametrize("regex,why,where", [
    ("(", r"missing (terminating \)|closing parenthesis)", "at its end"),
    ("ä**x", "nothing to repeat|quantifier .*", "at character [34]"),
    ("*", "nothing to repeat|quantifier .*", "at character [12]|at its end"),
    (" at char 7: [x", r"missing terminating \] .*", "at its end"),
])
def test_bad_regex(lodge, regex, why, where):
    """What is no regular expression is told with the place, and what to do, before the machine is asked for."""
    rest = f'"%s": no regular expression as Perl has them: ({why}) ({where}); mend it, and write \\\\ before a sign that is to stand for itself'
    fails(lodge("wait", "web", "--log", regex), 2, f"wait: --log: {rest % re.escape(regex)}")
    fails(lodge("run", "web", "-d", "--net", "none", f"--wait=log:{regex}"), 2, f"run: --wait: {rest % re.escape(regex)}")


def test_regex_bytes(lodge):
    fails(lodge("wait", "web", "--log", os.fsdecode(b"\xff")), 2, "wait: --log: the regular expression is no UTF-8; write it in UTF-8")


def test_log(lodge, echo, guests):
    works(lodge("run", "web", "-d", *echo))
    works(lodge("wait", "web", "--log", "READY", "--timeout", "20"))
    works(lodge("kill", "web"))
    assert works(lodge("log", "web")) == "READY\r\n"
    # A bad end is kept, with its reason.
    assert lodge("run", "web", *echo, "--timeout", "0.5").status == 124
    r = lodge("log", "web")
    assert r.status == 0 and re.fullmatch(r"lodge: web: \S+ ended: the plug was pulled, status 124; lodge log --machine web tells more\n", r.err), r.err
    out = works(lodge("log", "--machine", "web"))
    assert "not done within its time limit" in out and "the last lines of the console:\nREADY\n" in out
    assert works(lodge("log", "--previous", "web")) == "READY\r\n"
    fails(lodge("log", "--previous", "-f", "web"), 2, "log: choose one of .*")
    fails(lodge("log", "nobody"), 3, "log: nobody: no machine of that name; lodge list shows them")
    works(lodge("define", "never"))
    fails(lodge("log", "never"), 3, "log: never: has no console log")
    fails(lodge("log", "--machine", "never"), 3, "log: never: has no such log")


@pytest.mark.skipif(has_assist() is not False, reason="the CPU runs what KVM's emulation cannot")
def test_log_of_a_stopped_cpu(lodge, guests):
    """The registers are kept, too."""
    assert lodge("run", "web", "--kernel", guests / "fault", "--append", "how=int3", "--memory", "16M", "--net", "none").status == 8
    out = works(lodge("log", "--machine", "web"))
    assert "ended: a CPU stopped, status 8" in out and re.search(r"rip[ =:]", out, re.I) and "the last lines of the console:" in out, out


def test_stats(lodge, echo):
    works(lodge("run", "web", "-d", *echo))
    works(lodge("wait", "web", "--log", "READY", "--timeout", "20"))
    head, line = works(lodge("stats", "web")).splitlines()
    assert head.split() == ["NAME", "STATE", "CPU", "VCPUS", "MEMORY", "GUEST", "FREE", "READ", "WRITTEN"] and line.split()[:2] == ["web", "running"]
    one, = json.loads(works(lodge("stats", "--all", "--json")))["machines"]
    assert one["vcpu_seconds"] > 0 and one["cpu_seconds"] >= one["vcpu_seconds"] and one["resident"] > 0 and one["threads"] > 2
    watcher = lodge.popen("stats", "-w", "web")
    hear(watcher, b"%")
    works(lodge("kill", "web"))
    assert watcher.wait(timeout=SECONDS) == 0


def test_qmp(lodge, echo):
    works(lodge("run", "web", "-d", *echo, "--cdrom", "none"))
    assert {"name": "stop"} in json.loads(works(lodge("qmp", "web", "query-commands")))
    assert works(lodge("qmp", "web", "stop")) == "{}\n"
    fails(lodge("qmp", "web"), 2, "qmp: no command; .*")
    fails(lodge("qmp", "web", "nosuch"), 1, "qmp: web: The command nosuch has not been found")
    fails(lodge("qmp", "web", "eject", "id=cd0", "force=true"), 1, "qmp: web: Invalid parameter type for 'force', expected: boolean")
    works(lodge("qmp", "web", "eject", "id=cd0", "force:=true"))
    works(lodge("qmp", "web", "eject", '{"id": "cd0", "force": true}'))
    for bad in ("force", "=x", "force:=", "force:=1 2", "force:={", "{} {}", "{"):
        fails(lodge("qmp", "web", "eject", bad), 2, 'qmp: ".*": (write KEY=TEXT|is not one JSON value).*')
    works(lodge("kill", "web"))


def test_rename_rm(lodge, echo):
    works(lodge("run", "web", "-d", *echo))
    fails(lodge("rename", "web", "old"), 5, "rename: web: is running; stop it first")
    fails(lodge("rm", "web"), 5, "rm: web: is running; stop it first")
    works(lodge("kill", "web"))
    works(lodge("define", "db"))
    fails(lodge("rename", "web", "db"), 5, "rename: db: a machine of that name is there; .*")
    fails(lodge("rename", "nobody", "old"), 3, "rename: nobody: no machine of that name; lodge list shows them")
    fails(lodge("rename", "web", "web"), 2, "rename: web: has that name already")
    fails(lodge("rename", "web"), 2, "rename: two names are needed; .*")
    fails(lodge("rename", "web", "a/b"), 2, "rename: 'a/b': not a name .*")
    works(lodge("rename", "web", "old"))
    assert works(lodge("list", "-q")) == "db\nold\n" and "started" in works(lodge("log", "--machine", "old"))
    works(lodge("run", "old", "-d"))
    works(lodge("kill", "old"))
    (folder(lodge, "db") / "mine").write_text("x")
    fails(lodge("rm", "db"), 5, "rm: db: its folder '.*' holds files that are not Lodge's; move them away")
    r = lodge("rm", "nobody", "old")
    assert r.status == 3 and not folder(lodge, "old").exists()
    fails(lodge("rm"), 2, "rm: no machine; give its NAME")


# ---- the console ----

def test_console(lodge, echo):
    works(lodge("run", "web", "-d", *echo))
    works(lodge("wait", "web", "--log", "READY", "--timeout", "20"))
    first = lodge.spawn("console", "web")
    first.expect_exact("lodge: web: Ctrl-] then q leaves, Ctrl-] then ? lists the keys")
    first.expect_exact("READY")  # what was said before
    first.send("x")
    first.expect_exact(".")
    second = lodge.spawn("console", "web")
    second.expect_exact("another console types; Ctrl-] then w types here")
    second.expect(r"READY\s+\.")
    reader = lodge.popen("console", "--read-only", "web")
    second.send("yyy")
    second.send("\x1d?")
    second.expect_exact("Ctrl-] q leaves, the machine goes on")
    second.send("\x1dw")
    second.expect_exact("this console types now")
    second.send("z")
    first.expect_exact(".")
    first.send("yyy\x1dq")
    first.expect_exact("left; the machine goes on")
    first.wait()
    assert first.exitstatus == 0 and state(lodge, "web") == "running"
    second.send("\x1d\x1d")  # the escape key itself
    second.expect_exact(".")
    works(lodge("kill", "web"))
    second.expect_exact("lodge: web: ended")
    second.wait()
    out, err = reader.communicate(timeout=SECONDS)
    assert second.exitstatus == reader.returncode == 0
    assert out == b"READY\r\n..." and err == b"lodge: web: ended\n"  # what those said that may not type is not there


def test_console_many(lodge, echo):
    """More than there is room for, and some that never read."""
    works(lodge("run", "web", "-d", *echo))
    works(lodge("wait", "web", "--log", "READY", "--timeout", "20"))
    many = [lodge.popen("console", "web") for _ in range(15)]
    for p in many:
        hear(p, b"READY")
    for p in many[1:]:
        p.kill()
    typist = many[0]
    works(lodge("kill", "web"))
    assert typist.wait(timeout=SECONDS) == 0


# ---- names are one's own ----

@pytest.mark.parametrize("times,many", [(20, 2), (1, 6)])
def test_one_wins(lodge, echo, times, many):
    """Of several that want one name at the same time one gets it, and the others say why not."""
    for _ in range(times):
        starts = [lodge.popen("run", "web", "-d", *echo) for _ in range(many)]
        ends = [(p.communicate(timeout=SECONDS)[1].decode(), p.returncode) for p in starts]
        assert sorted(status for _, status in ends) == [0] + [5] * (many - 1), ends
        assert all(re.fullmatch(r"lodge: run: web: a machine of that name is (running \(pid \d+\)|starting); choose another name\n", e) for e, s in ends if s), ends
        assert state(lodge, "web") == "running"
        works(lodge("kill", "web"))


@pytest.mark.parametrize("where", ["root", "machine"])
@pytest.mark.parametrize("what", ["link", "stranger", "open"])
def test_folder_of_another(where, what, lodge, echo, tmp_path):
    """Nothing is asked of, or told to, a folder that is not this user's alone."""
    at = lodge.home / "run" / "lodge" / ("" if where == "root" else "web")
    at.parent.mkdir(exist_ok=True, mode=0o700)
    if what == "link":
        at.symlink_to(tmp_path)
    else:
        at.mkdir(mode=0o700)
    if what == "stranger":
        if os.geteuid():
            pytest.skip("only root can give a folder away")
        os.chown(at, 65534, 65534)
    elif what == "open":
        at.chmod(0o777)
    for words in (["run", "web", *echo], ["stop", "web"], ["pause", "web"], ["events", "web"]):
        fails(lodge(*words), 1, f"{words[0]}: .*: is not a folder of this user alone; .*")
    if where == "root":
        fails(lodge("list"), 1, "list: .*: is not a folder of this user alone; .*")
    at.unlink() if what == "link" else at.rmdir()


def alive(pid):
    """Not ended, whether or not somebody has asked for its status."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_many_at_once(lodge, polite, tmp_path):
    """Fifty start at the same moment, each with an overlay of one image: all are there, none by half, and all power off."""
    base = tmp_path / "base.img"
    base.write_bytes(bytes(range(256)) * 4096)
    was = (base.read_bytes(), base.stat().st_mtime_ns)
    names = [f"m{i:02}" for i in range(50)]
    starts = [lodge.popen("run", name, "-d", *polite, "--console", "none", "--disk", f"{tmp_path}/{name}.cow,base={base}") for name in names]
    ends = [(p.communicate(timeout=120)[1].decode(), p.returncode) for p in starts]
    assert all(status == 0 and re.fullmatch(r"lodge: disk disk0: made '.*' as an overlay of '.*'\n", said) for said, status in ends), ends
    machines = json.loads(works(lodge("list", "--json")))["machines"]
    assert [m["name"] for m in machines] == names and {m["state"] for m in machines} == {"running"} and len({m["pid"] for m in machines}) == len(names)
    for name in names:
        works(lodge("wait", name, "--log", "READY", "--timeout", "60"))
        assert (folder(lodge, name) / "definition").is_file() and (tmp_path / f"{name}.cow").is_file()
    fails(lodge("run", "late", *polite, "--disk", base), 1, r"run: disk disk0: '.*/base\.img': in use by VM 'm\d\d'; stop that first, or give this VM an overlay of its own")
    works(lodge("stop", "--all", "--timeout", "60"))
    assert all(m["state"] == "stopped" for m in json.loads(works(lodge("list", "--json")))["machines"])
    until("their processes are gone", lambda: not any(alive(m["pid"]) for m in machines))
    assert not list((lodge.home / "run" / "lodge").glob("*/*"))
    assert (base.read_bytes(), base.stat().st_mtime_ns) == was
    works(lodge("rm", *names))
    assert works(lodge("list")) == "" and not list((lodge.home / "state" / "lodge").glob("m*"))


def test_nothing_loaded(lodge, echo):
    """A list asks no machine, and loads what it needs alone."""
    works(lodge("run", "web", "-d", *echo))
    r = lodge("list", env={"LD_DEBUG": "libs"})
    loaded = set(re.findall(r"calling init: \S*/(\S+)", r.err))
    assert r.status == 0 and loaded and not {n for n in loaded if n.startswith(("libjson", "libpng", "libgio", "libgobject"))}, loaded
    pid = int((lodge.home / "run/lodge/web/pid").read_text())
    assert "json-glib" not in pathlib.Path(f"/proc/{pid}/maps").read_text()
    works(lodge("kill", "web"))


def test_service(lodge, polite):
    """What a service manager hears, and SIGTERM as it sends it."""
    works(lodge("define", "web", *polite))
    at = lodge.home / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(at))
        s.settimeout(SECONDS)
        p = lodge.popen("run", "web", env={"NOTIFY_SOCKET": str(at), "WATCHDOG_USEC": "100000"})
        assert s.recv(4096) == f"READY=1\nSTATUS=The guest runs\nMAINPID={p.pid}".encode()
        assert s.recv(4096) == b"WATCHDOG=1"
        works(lodge("wait", "web", "--log", "READY", "--timeout", "20"))
        p.terminate()
        while (said := s.recv(4096)) == b"WATCHDOG=1":
            pass
        assert said.startswith(b"STOPPING=1\n")
        assert p.wait(timeout=SECONDS) == 0
    assert "the button was pressed" in works(lodge("log", "web"))
    unit = (BUILD / "data" / "lodge@.service.user").read_text()
    assert "Type=notify\n" in unit and re.search(r"^ExecStart=/\S+/lodge run %i$", unit, re.M)
