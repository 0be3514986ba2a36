# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's screen as others see it: a browser through `lodge view`, and VNC clients that others wrote. The guest is a boot sector that echoes keys."""
import base64
import contextlib
import functools
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import time
import zlib

import pexpect
import pytest

pytestmark = pytest.mark.usefixtures("nothing_left")

SECONDS = 60
PASSWORD = "s3cret"
TEXT_SCREEN = (720, 400)

# Text mode, no cursor, "READY ", then what is typed.
BOOT = bytes.fromhex("31c0 8ed8 b80300 cd10 b401 b90020 cd10 be2b7c ac 08c0 7406 b40e cd10 ebf5 30e4 cd16 b40e bb0700 cd10 ebf3") + b"READY \0"


def read_png(data):
    """(width, height, whether each pixel is bright) of 8 bit RGB or RGBA, not interlaced."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[at + 8:at + 8 + length])
            assert depth == 8 and colour in (2, 6) and not interlaced
        elif kind == b"IDAT":
            packed += data[at + 8:at + 8 + length]
        at += 12 + length
    size = 3 if colour == 2 else 4
    raw, step, rows = zlib.decompress(packed), width * size + 1, [bytes(width * size)]
    for y in range(height):
        rows.append(unfilter(raw[y * step], raw[y * step + 1:(y + 1) * step], rows[-1], size))
    return width, height, bright(b"".join(rows[1:]), size)


@functools.lru_cache(64)  # most rows are alike
def unfilter(how, row, above, size):
    row = bytearray(row)
    for i in range(len(row)) if how else ():
        left, up, corner = (row[i - size], above[i], above[i - size]) if i >= size else (0, above[i], 0)
        guess = left + up - corner
        paeth = min((left, up, corner), key=lambda v: abs(guess - v))  # the first of equals
        row[i] = (row[i] + (left, up, (left + up) // 2, paeth)[how - 1]) & 255
    return bytes(row)


def bright(pixels, size):
    """Of each pixel, whether its green is."""
    return bytes(v > 80 for v in pixels[1::size])


def pull_plug(lodge, name, process):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(SECONDS)
        s.connect(str(lodge.home / "run" / "lodge" / name / "qmp.sock"))
        s.sendall(b'{"execute": "qmp_capabilities"}{"execute": "quit"}')
        while s.recv(4096):
            pass
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err


class Box:
    def __init__(self, lodge, folder, *more):
        disk = folder / "boot.img"
        disk.write_bytes((BOOT.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
        self.lodge, self.folder = lodge, folder
        self.process = lodge.popen("run", "box", "--disk", f"{disk},bus=ide", "--memory", "32M", "--net", "none", *more)
        self.wait_for("READY")

    def wait_for(self, text):
        deadline = time.monotonic() + SECONDS
        while True:
            r = self.lodge("screen", "box")
            if not r.status and text in r.out:
                return
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, r
            time.sleep(0.1)

    def picture(self):
        path = self.folder / "box.png"
        assert self.lodge("screen", "box", "--png", path).status == 0
        seen = read_png(path.read_bytes())
        assert seen[:2] == TEXT_SCREEN and 0 < sum(seen[2]) < 20000, "not a few letters"
        return seen

    def end(self):
        if self.process.poll() is None:
            pull_plug(self.lodge, "box", self.process)


@pytest.fixture
def box(lodge, tmp_path):
    machine = Box(lodge, tmp_path)
    yield machine
    machine.end()


@contextlib.contextmanager
def blank_box(lodge, guests, name="box", *more):
    """A machine that is there at once, without firmware, and with nothing on its screen."""
    process = lodge.popen("run", name, "--kernel", guests / "hlt_wake", "--append", "n=100000000", "--memory", "64M", "--net", "none", "--console", "stdio", *more)
    assert process.stdout.read(5) == b"READY"
    yield
    pull_plug(lodge, name, process)


@pytest.fixture
def blank(lodge, guests):
    with blank_box(lodge, guests, "box", "--vga", "std"):
        yield


class View:
    """`lodge view box`, and the addresses it prints."""

    def __init__(self, lodge, *more):
        self.process = lodge.popen("view", "box", *more)
        self.address = self.next()

    def next(self):
        line, deadline = b"", time.monotonic() + SECONDS
        while not line.endswith(b"\n"):
            assert select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0], f"no address: {line!r}"
            got = os.read(self.process.stdout.fileno(), 1)
            assert got, self.process.stderr.read().decode()
            line += got
        self.address = line.decode().strip()
        assert self.address.startswith("http://127.0.0.1:")
        return self.address

    @property
    def site(self):
        return self.address.split("/")[2]

    @property
    def token(self):
        return self.address.rsplit("%3D", 1)[1]

    def ask(self, request):
        """All that is answered to some bytes."""
        host, port = self.site.split(":")
        with socket.create_connection((host, int(port)), SECONDS) as s:
            s.sendall(request.encode() if isinstance(request, str) else request)
            out = b""
            while True:
                got = s.recv(65536)
                if not got:
                    return out
                out += got

    def upgrade(self, token, host=None, origin=None):
        host = host or self.site
        return (f"GET /websockify?token={token} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin or 'http://' + host}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")

    def end(self):
        self.process.terminate()
        out, err = self.process.communicate(timeout=SECONDS)
        assert self.process.returncode == 0, (out, err)
        return err.decode()


class Browser:
    """Headless Chromium by its DevTools protocol, over a pair of pipes."""

    def __init__(self, folder):
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not program:
            pytest.skip("no chromium")
        if os.environ.get("LODGE_TEST_EMULATED"):
            pytest.skip("a browser is too slow in the emulated machine")
        to_read, self.to = os.pipe()
        self.of, of_write = os.pipe()
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio", "--remote-debugging-pipe", "--window-size=900,600",
                 f"--user-data-dir={folder}/chromium"]
        env = dict(os.environ, HOME=str(folder), TMPDIR=str(folder))
        self.process = subprocess.Popen(["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{of_write}', "chromium", program, *words], env=env, start_new_session=True,
                                        pass_fds=(to_read, of_write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(of_write)
        self.buffer, self.last, self.session, self.said = b"", 0, None, []

    def message(self):
        while b"\0" not in self.buffer:
            assert select.select([self.of], [], [], SECONDS)[0], "the browser does not answer"
            got = os.read(self.of, 1 << 20)
            assert got, "the browser ended"
            self.buffer += got
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params, **({"sessionId": self.session} if self.session else {})}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            m = self.message()
            if m.get("id") == self.last:
                assert "error" not in m, (method, m)
                return m["result"]
            if m.get("method") == "Log.entryAdded":
                self.said.append(m["params"]["entry"]["text"] + " " + m["params"]["entry"].get("url", ""))

    def open(self, address):
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Log.enable")
        self.call("Page.navigate", url=address)

    def run(self, script):
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait_for(self, script):
        deadline = time.monotonic() + SECONDS
        while True:
            value = self.run(script)
            if value:
                return value
            assert time.monotonic() < deadline, (script, self.run("document.body.innerText"), self.said)
            time.sleep(0.05)

    def key(self, text):
        code = {"keyCode": ord(text.upper()), "windowsVirtualKeyCode": ord(text.upper()), "code": f"Key{text.upper()}", "key": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **code)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.of)


@pytest.fixture
def browser(tmp_path):
    b = Browser(tmp_path)
    yield b
    b.close()


CONNECTED = "document.documentElement.classList.contains('noVNC_connected')"
CANVAS = "document.querySelector('#noVNC_container canvas')"
PIXELS = """(() => { const c = %s; if (!c || !c.width) return null;
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let s = '';
  for (let i = 1; i < d.length; i += 4) s += d[i] > 80 ? '\\x01' : '\\0';
  return [c.width, c.height, btoa(s)]; })()""" % CANVAS


def seen_by(browser):
    value = browser.run(PIXELS)
    return value and (value[0], value[1], base64.b64decode(value[2]))


def wait_same(browser, want):
    deadline = time.monotonic() + SECONDS
    while seen_by(browser) != want:
        assert time.monotonic() < deadline, "the browser does not show what is on the screen"
        time.sleep(0.1)


def test_browser(lodge, box, browser, tmp_path):
    """The page shows the guest's pixels and types into it; its address is good once; a second viewer comes by the next."""
    view = View(lodge)
    first = view.address
    browser.open(first)
    browser.wait_for(CONNECTED)
    wait_same(browser, box.picture())
    browser.run(f"{CANVAS}.focus()")
    for c in "abc":
        browser.key(c)
    box.wait_for("READY abc")
    wait_same(browser, box.picture())
    (tmp_path / "page.png").write_bytes(base64.b64decode(browser.call("Page.captureScreenshot")["data"]))
    page = read_png((tmp_path / "page.png").read_bytes())
    assert 0 < sum(page[2]) < page[0] * page[1] / 4
    said = [s for s in browser.said if "Security Policy" in s or "Failed to load" in s]
    assert all("/package.json" in s for s in said), said  # Debian's noVNC is without it
    view.next()
    session = browser.session
    browser.open(view.address)  # beside the first
    browser.wait_for(CONNECTED)
    wait_same(browser, box.picture())
    browser.open(first)  # not again
    browser.wait_for("document.getElementById('noVNC_status').classList.contains('noVNC_open') && !" + CONNECTED)
    assert seen_by(browser) is None
    browser.session = session
    assert lodge("type", "box", "x").status == 0
    box.wait_for("READY abcx")
    wait_same(browser, box.picture())
    box.end()
    browser.wait_for("!" + CONNECTED)
    out, err = view.process.communicate(timeout=SECONDS)
    assert view.process.returncode == 0 and err.decode() == "lodge: box: the machine has ended\n", (out, err)


def test_strangers(lodge, blank):
    """Who has no token, or comes from elsewhere, and who does not stop talking."""
    view = View(lodge)

    def status(request):
        return int(view.ask(request).split(b" ")[1])

    def get(path, host=view.site):
        return status(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")

    assert get("/vnc.html") == 200 and get("/core/rfb.js") == 200
    for path in ("/", "/app/", "/../passwd", "/app/../vnc.html", "//etc/passwd", "/.", "/%2e%2e/etc/passwd", "/utils/novnc_proxy", "/vnc.html/", "/nothing.js"):
        assert get(path) == 404, path
    assert get("/vnc.html", "evil.example") == 421 and get("/vnc.html", "127.0.0.1.evil.example:80") == 421
    token = view.token
    assert status(view.upgrade("0" * 32)) == 403 and status(view.upgrade(token[:-1])) == 403
    assert status(view.upgrade(token, origin="http://evil.example")) == 403
    assert status(view.upgrade(token, host="evil.example")) == 421
    assert status(f"GET /websockify?token={token} HTTP/1.1\r\nHost: {view.site}\r\nOrigin: http://{view.site}\r\n\r\n") == 426
    assert status("GET / HTTP/1.1\r\n" + "X: y\r\n" * 2000) == 431
    assert status("POST /vnc.html HTTP/1.1\r\nHost: localhost\r\n\r\n") == 405
    assert status(os.urandom(5000) + b"\r\n\r\n") == 400
    # None of that used the token up. With it: the greeting of VNC in a frame, then a frame without a mask: the end.
    answer = view.ask(view.upgrade(token).encode() + b"\x82\x0cRFB 003.008\n")
    assert b" 101 " in answer and answer.endswith(b"\x88\x02\x03\xea"), answer
    assert view.next().rsplit("%3D", 1)[1] != token
    assert status(view.upgrade(token)) == 403
    # A crowd that says nothing does not keep out those who come after it has gone.
    host, port = view.site.split(":")
    crowd = [socket.create_connection((host, int(port))) for _ in range(64)]
    assert status("GET /vnc.html HTTP/1.1\r\nHost: localhost\r\n\r\n") == 503
    for s in crowd:
        s.close()
    deadline = time.monotonic() + SECONDS
    while get("/vnc.html") != 200:
        assert time.monotonic() < deadline
    view.end()


def test_two_servers(lodge, blank):
    """A port that is taken is named; JSON."""
    view = View(lodge)
    port = view.site.split(":")[1]
    r = lodge("view", "box", "--port", port)
    assert (r.status, r.out, r.err) == (1, "", f"lodge: view: 127.0.0.1:{port}: somebody listens there; take another port, or leave --port out\n")
    assert not view.end()
    p = lodge.popen("view", "box", "--json", "--port", port, "--address", "::1")
    text, deadline = b"", time.monotonic() + SECONDS
    while not text.endswith(b"}\n"):
        assert select.select([p.stdout], [], [], max(0, deadline - time.monotonic()))[0]
        got = os.read(p.stdout.fileno(), 4096)
        if not got:
            assert b"::1" in p.stderr.read()
            pytest.skip("no IPv6 here")
        text += got
    told = json.loads(text)
    assert set(told) == {"schema", "name", "address"} and told["address"].startswith(f"http://[::1]:{port}/vnc.html#")
    p.terminate()
    assert p.wait(timeout=SECONDS) == 0


@pytest.mark.parametrize("args, status, says", [
    (["view"], 2, "no machine; give its NAME"),
    (["view", "nobody"], 3, "nobody: no machine of that name; lodge list shows them"),
    (["view", "box", "other"], 2, "other"),
    (["view", "box", "--port", "0"], 2, "--port 0: must be 1 to 65535"),
    (["view", "box", "--port", "65536"], 2, "--port 65536: must be 1 to 65535"),
    (["view", "box", "--address", "localhost"], 2, 'address "localhost": not a number'),
    (["view", "box", "--address", "192.0.2.1"], 1, "192.0.2.1"),
    (["view", "box", "--novnc", "/nonexistent"], 1, "/nonexistent/vnc.html: noVNC is not there; install Debian's package novnc"),
    (["view", "blind"], 1, "blind: there is no screen"),
])
def test_wrong_words(lodge, guests, args, status, says):
    """One line on standard error, nothing on standard output, the documented status."""
    name = args[1] if len(args) > 1 else ""
    with contextlib.ExitStack() as stack:
        if name in ("box", "blind"):
            stack.enter_context(blank_box(lodge, guests, name, *(["--vga", "std"] if name == "box" else [])))
        r = lodge(*args)
        assert (r.status, r.out) == (status, ""), r
        assert r.err.startswith("lodge: view: ") and says in r.err and r.err.count("\n") == 1
    if name in ("box", "blind"):
        assert lodge("view", name).err == f"lodge: view: {name}: is not running; lodge run {name} starts it\n"


# ---- VNC clients that others wrote ----

def capture(lodge, display, path, password):
    """gvnccapture, which asks for the password on its terminal; whether it got a picture."""
    path.unlink(missing_ok=True)
    p = pexpect.spawn("gvnccapture", [display, str(path)], timeout=SECONDS)
    lodge.children.append(p)
    if password is not None:
        p.expect("assword")
        p.sendline(password)
    p.expect(pexpect.EOF)
    p.close()
    return p.exitstatus == 0 and path.exists()


@pytest.fixture
def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_vnc_password(lodge, port, tmp_path):
    if not shutil.which("gvnccapture"):
        pytest.skip("no gvnccapture")
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    box = Box(lodge, tmp_path, "--display", f"vnc=127.0.0.1::{port},password-file={secret}")
    display = f"127.0.0.1:{port - 5900}"
    assert capture(lodge, display, tmp_path / "a.png", PASSWORD)
    assert read_png((tmp_path / "a.png").read_bytes()) == box.picture()
    assert not capture(lodge, display, tmp_path / "b.png", "wrong")
    view = View(lodge)  # those who may speak to the machine need no password
    host, at = view.site.split(":")
    with socket.create_connection((host, int(at)), SECONDS) as s:
        for say, want in ((view.upgrade(view.token).encode(), b"\x82\x0cRFB 003.008\n"), (b"\x82\x8c\0\0\0\0RFB 003.008\n", b"\x82\x02\x01\x01"),
                          (b"\x89\x81\0\0\0\0p", b"\x8a\x01p"), (b"\x88\x80\0\0\0\0", b"\x88\x02\x03\xe8")):
            s.sendall(say)
            heard = b""
            while not heard.endswith(want):
                got = s.recv(65536)
                assert got, heard
                heard += got
    view.end()
    box.end()


def test_vnc_clients(lodge, port, tmp_path):
    """Two at once, of two makers."""
    if not shutil.which("gvnccapture") or not shutil.which("vncsnapshot"):
        pytest.skip("no gvnccapture or vncsnapshot")
    box = Box(lodge, tmp_path, "--display", f"vnc=127.0.0.1::{port}")
    display = f"127.0.0.1:{port - 5900}"
    shots = tmp_path / "shots"
    shots.mkdir()
    other = subprocess.Popen(["vncsnapshot", "-quiet", "-count", "60", "-fps", "1", f"127.0.0.1::{port}", shots / "s.jpg"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT)

    def more_shots(than):
        deadline = time.monotonic() + SECONDS
        while len(seen := sorted(shots.iterdir())) <= than:
            assert other.poll() is None and time.monotonic() < deadline, other.stdout.read()
            time.sleep(0.05)
        return seen

    try:
        more_shots(0)
        assert capture(lodge, display, tmp_path / "a.png", None)
        assert read_png((tmp_path / "a.png").read_bytes()) == box.picture()
        seen = more_shots(len(more_shots(0)))  # it goes on
        data = seen[0].read_bytes()
        sof = data.index(b"\xff\xc0")
        assert struct.unpack(">HH", data[sof + 5:sof + 9]) == TEXT_SCREEN[::-1]
    finally:
        other.kill()
        other.communicate()
    box.end()
