# SPDX-License-Identifier: GPL-2.0-or-later
"""Network block devices: our client with the servers of others, our server with their clients, and guests on both."""
import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from conftest import running_lodge
from guest_cases import PASS
from qmp import Qmp

KIB, MIB = 1 << 10, 1 << 20
SIZE = 6 * MIB
FORMATS = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc", "vdi": "vdi", "vmdk": "vmdk"}  # ours: qemu-img's

pytestmark = pytest.mark.skipif(not all(map(shutil.which, ("qemu-nbd", "qemu-img", "qemu-io", "nbdkit", "nbdinfo", "nbdcopy"))),
                                reason="packages qemu-utils, nbdkit, libnbd-bin are missing")


def tool(*args, status=0):
    r = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=60, check=False)
    assert r.returncode == status, f"{args}\n{r.stdout}{r.stderr}"
    return r.stdout


def ok(r):
    assert r.status == 0 and r.err == "", f"{r.out}{r.err}"
    return r.out


def refused(r, status, text):
    assert (r.status, r.out) == (status, "") and r.err.startswith("lodge: ") and r.err.count("\n") == 1 and text in r.err, r


class Server:
    """A program that serves at a Unix socket, up when this returns."""

    def __init__(self, at, *command, **kw):
        self.socket = at
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **kw)
        deadline = time.monotonic() + 20
        while not self.up():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, f"{command} does not serve"
            time.sleep(0.01)

    def up(self):
        try:
            with open("/proc/net/unix", encoding="ascii") as f:
                return any(line.endswith(f" {self.socket}\n") and " 00010000 " in line for line in f)  # it listens
        except OSError:
            return False

    def uri(self, name=""):
        return f"nbd+unix:///{name}?socket={self.socket}"

    def end(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        self.process.wait(20)
        self.process.stderr.close()
        if os.path.exists(self.socket):
            os.unlink(self.socket)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def qemu_nbd(folder, *args):
    at = folder / "q.sock"
    return Server(at, "qemu-nbd", "--socket", at, "--persistent", "--shared", "8", *args)


def nbdkit(folder, *args):
    at = folder / "k.sock"
    return Server(at, "nbdkit", "--foreground", "--exit-with-parent", "--unix", at, *args)


def serve(lodge, folder, *args):
    at = folder / "l.sock"
    return Server(at, lodge.path, "image", "serve", "--socket", at, *args, env=lodge.env)


@pytest.fixture
def folder(lodge):
    at = lodge.home / "n"
    at.mkdir()
    return at


@pytest.fixture
def raw(folder):
    """Data, a hole, data."""
    path = folder / "disk.raw"
    with open(path, "wb") as f:
        f.write(os.urandom(MIB))
        f.seek(4 * MIB)
        f.write(b"middle" * 2000)
        f.truncate(SIZE)
    return path


@pytest.mark.parametrize("fmt", FORMATS)
def test_their_server(lodge, folder, raw, fmt):
    """What they serve as raw bytes we read as the image it is; what they read for us is the disk."""
    image, out = folder / "image", folder / "out.qcow2"
    tool("qemu-img", "convert", "-f", "raw", "-O", FORMATS[fmt], raw, image)
    with qemu_nbd(folder, "--export-name", "a/b", "--read-only", "--format", "raw", image) as s:
        uri = s.uri("a/b")
        info = json.loads(ok(lodge("image", "info", "--json", uri)))
        assert (info["file"], info["format"]) == (uri, fmt) and info["size"] >= SIZE
        ok(lodge("image", "compare", uri, raw))
        ok(lodge("image", "convert", uri, out))
        tool("qemu-img", "compare", raw, out)
        if fmt not in ("raw", "vmdk"):
            assert json.loads(ok(lodge("image", "check", "--json", uri)))["errors"] == 0
        refused(lodge("image", "resize", uri, "1G"), 2, "read-only")
        refused(lodge("image", "info", s.uri("else")), 1, "refuses export 'else'; it offers 'a/b'")
    with qemu_nbd(folder, "--format", FORMATS[fmt], image) as s:
        ok(lodge("image", "compare", s.uri(), raw))
        assert any(e["zero"] for e in json.loads(ok(lodge("image", "map", "--json", s.uri())))["map"])
        assert "requests/s" in ok(lodge("image", "bench", "--count", "500", s.uri()))


def test_nbdkit(lodge, folder, raw):
    """Servers with block sizes, with few commands, and with none that goes well."""
    copy = folder / "copy.raw"
    with nbdkit(folder, "--filter=blocksize-policy", "memory", str(SIZE), "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=1M") as s:
        ok(lodge("image", "convert", "--force", raw, s.uri()))
        ok(lodge("image", "compare", raw, s.uri()))
        ok(lodge("image", "create", "--size", "1M", copy.with_suffix(".qcow2")))
        ok(lodge("image", "convert", "--from", "raw", "--force", copy.with_suffix(".qcow2"), s.uri()))
        refused(lodge("image", "info", s.uri()), 1, "takes blocks of 4096 bytes")
    copy.write_bytes(b"\xff" * SIZE)
    with nbdkit(folder, "--filter=nozero", "--filter=fua", "--filter=noextents", "file", copy, "fuamode=emulate") as s:
        ok(lodge("image", "convert", "--force", raw, s.uri()))
    assert copy.read_bytes() == raw.read_bytes()
    with open(copy, "ab") as f:
        f.write(b"tail")  # a size that is no multiple of anything
    with nbdkit(folder, "file", copy) as s:
        assert json.loads(ok(lodge("image", "info", "--json", s.uri())))["size"] == SIZE + 4
        ok(lodge("image", "compare", copy, s.uri()))
    with nbdkit(folder, "--filter=error", "memory", str(SIZE), "error-pread=EIO", "error-rate=100%") as s:
        refused(lodge("image", "compare", "--format", "raw", raw, s.uri()), 2, "cannot read at 0: Input/output error")


@pytest.mark.parametrize("fmt", FORMATS)
def test_our_server(lodge, folder, raw, fmt):
    image, copy = folder / "image", folder / "copy.raw"
    ok(lodge("image", "create", "--format", fmt, "--size", str(SIZE), image))
    with serve(lodge, folder, "--writable", "--export", "web", "--format", fmt, image) as s:
        uri = s.uri("web")
        tool("nbdcopy", "--connections=3", raw, uri)
        tool("qemu-img", "compare", "-f", "raw", "-F", "raw", raw, uri)
        about = json.loads(tool("nbdinfo", "--json", uri))["exports"][0]
        assert about["export-size"] >= SIZE and about["can_multi_conn"] and not about["is_read_only"]
        extents = json.loads(tool("qemu-img", "map", "--output=json", "-f", "raw", uri))
        assert any(e["start"] <= 2 * MIB < e["start"] + e["length"] and e["zero"] for e in extents)
        said = tool("qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", "-c", "write -f -P 8 2M 3k", "-c", "write -z -u 0 512k", "-c", "write -z 512k 4k", "-c", "discard 4M 64k",
                    "-c", "flush", "-c", "read -P 7 1M 64k", "-c", "read -P 8 2M 3k", "-c", "read -P 0 0 516k", uri)
        assert "failed" not in said and "error" not in said, said
        tool("nbdcopy", uri, copy)
        s.process.send_signal(signal.SIGTERM)
        assert s.process.wait(20) == 0 and not s.socket.exists()
    ok(lodge("image", "compare", "--format", fmt, image, copy))
    if fmt != "vhd":  # whose sizes qemu-img guesses by who made it
        tool("qemu-img", "compare", "-f", FORMATS[fmt], "-F", "raw", image, copy)


def test_through_others(lodge, folder, raw):
    """Our disk, over our server, nbdkit's client and server, to our client."""
    cow = folder / "o.cow"
    ok(lodge("image", "create", "--base", raw, cow))
    with serve(lodge, folder, "--writable", cow) as ours, nbdkit(folder, "nbd", f"uri={ours.uri()}", "shared=true") as theirs:
        ok(lodge("image", "compare", raw, theirs.uri()))
        tool("qemu-io", "-f", "raw", "-c", "write -P 9 1M 1M", "-c", "flush", theirs.uri())
        assert lodge("image", "compare", raw, theirs.uri()).out == f"differ at offset {MIB}\n"
    assert json.loads(ok(lodge("image", "map", "--json", cow)))["map"][0]["depth"] == 1


def test_serve(lodge, folder, raw):
    """Where it says that it is, how it ends, what it refuses."""
    p = lodge.popen("image", "serve", "--json", "--listen", "127.0.0.1:0", "--once", raw)
    about = json.loads("".join(iter(lambda: p.stdout.readline().decode(), "}\n")) + "}")
    assert (about["size"], about["format"], about["read-only"]) == (SIZE, "raw", True)
    refused(lodge("image", "serve", "--writable", "--socket", folder / "s", raw), 1, "in use by lodge")
    refused(lodge("image", "compare", raw, about["uri"].replace("nbd:", "nbds:") + "?tls-certificates=/etc"), 2, "cannot be had through TLS")
    ok(lodge("image", "compare", raw, about["uri"]))
    assert p.wait(20) == 0 and p.stderr.read() == b""
    refused(lodge("image", "info", about["uri"]), 1, "Connection refused")
    # A listening socket that somebody passes: libnbd's tools start their server so.
    assert f"export-size: {SIZE}" in tool("nbdinfo", "--", "[", lodge.path, "image", "serve", raw, "]")
    for args, status, text in [(["--socket", folder / "s", "--listen", "127.0.0.1"], 2, "one excludes the other"), (["--listen", "localhost"], 2, "write a number"), (["--shared", "0"], 2, "not in 1..64"),
                               (["--socket", raw], 1, "is there already"), (["--writable", "--read-only"], 2, "one excludes the other"), (["--export", "x" * 5000], 2, "at most 4096")]:
        refused(lodge("image", "serve", *args, raw), status, text)
    refused(lodge("image", "serve", folder / "none"), 2, "no such file")


@pytest.fixture(scope="module", autouse=True)
def deaf(guests):
    """A machine whose disk's server says nothing; it takes its time beside the other tests."""
    with socket.socket() as s, running_lodge() as program:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        yield port, program.popen(*run_args(guests, 1), f"nbd://127.0.0.1:{port}/x")


def test_nobody_there(lodge, guests, deaf):
    """Nobody at the address, and one who says nothing: an error in bounded time that names where."""
    refused(lodge(*run_args(guests, 1), "nbd://127.0.0.1:1/x"), 125, "no server at 127.0.0.1 port 1: Connection refused")
    refused(lodge(*run_args(guests, 1), "nbd+unix:///x"), 125, "names no socket")
    port, p = deaf
    out, err = p.communicate(timeout=60)
    assert (p.returncode, out) == (125, b"") and f"the server at 127.0.0.1 port {port} does not answer".encode() in err and err.count(b"\n") == 1


def run_args(guests, n, *more):
    return ["run", *more, "--kernel", guests / "disk", "--append", f"n={n}", "--memory", "32M", "--net", "none", "--debug-exit", "--console", "stdio", "--disk"]


@pytest.mark.parametrize("who", ["qemu-nbd", "lodge"])
def test_guest(lodge, guests, folder, raw, who):
    image = folder / "disk.qcow2"
    tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    with qemu_nbd(folder, "--format", "qcow2", image) if who == "qemu-nbd" else serve(lodge, folder, "--writable", image) as s:
        r = lodge(*run_args(guests, 8), f"{s.uri()},bus=ide,format=raw")
        assert r.status == PASS, r.out + r.err
    tool("qemu-img", "check", image)
    got = folder / "got.raw"
    tool("qemu-img", "convert", "-O", "raw", image, got)
    data = got.read_bytes()
    for lba in (0, 1, 7):
        assert data[lba * 512:lba * 512 + 4] == (lba * 257 + 1 & 0xffff).to_bytes(2, "little") + (lba * 257 + 2 & 0xffff).to_bytes(2, "little")
    assert data[8 * 512:MIB] == raw.read_bytes()[8 * 512:MIB]


def test_server_goes_and_comes(lodge, guests, folder, raw):
    """With on-error=stop the machine waits while the server is away, and loses nothing."""
    with serve(lodge, folder, "--writable", raw) as s:
        p = lodge.popen(*run_args(guests, 40, "box"), f"{s.uri()},bus=ide,format=raw,on-error=stop")
        deadline = time.monotonic() + 60
        while raw.read_bytes()[3 * 512:3 * 512 + 2] != (3 * 257 + 1 & 0xffff).to_bytes(2, "little"):
            assert p.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        q = Qmp(lodge.home / "run" / "lodge" / "box" / "qmp.sock")
        s.end(signal.SIGKILL)
        while q.ask("query-status")[1]["return"]["status"] != "io-error":
            assert p.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    with serve(lodge, folder, "--writable", raw):
        while p.poll() is None:
            assert time.monotonic() < deadline + 30
            try:
                q.ask("cont")
            except (OSError, AssertionError):  # it has ended
                break
            time.sleep(0.05)
        out, err = p.communicate(timeout=60)
        assert p.returncode == PASS, (out, err)
    assert err.count(b"tried again") == 1 and err.count(b"the server is back") == 1


def test_tls_by_shared_key(lodge, folder, raw):
    """Over a Unix socket and TCP; with another key, or none, nothing is served."""
    key, wrong = folder / "key", folder / "wrong"
    key.write_text("alice:" + "5a" * 32 + "\n")
    wrong.write_text("alice:" + "a5" * 32 + "\n")
    for p in (key, wrong):
        p.chmod(0o600)
    with nbdkit(folder, "--tls=require", f"--tls-psk={key}", "file", raw) as s:
        uri = f"nbds+unix://alice@/?socket={s.socket}&tls-psk-file="
        copy = folder / "copy"
        ok(lodge("image", "convert", "--to", "raw", uri + str(key), copy))
        assert copy.read_bytes() == raw.read_bytes()
        refused(lodge("image", "compare", raw, uri + str(wrong)), 2, "cannot be had through TLS")
        refused(lodge("image", "compare", raw, s.uri()), 2, "refuses export")
        refused(lodge("image", "compare", raw, uri + str(folder / "none")), 2, "cannot be had through TLS")


def certificates(folder, name):
    """An authority, and a server's certificate for the name localhost."""
    at = folder / name
    at.mkdir()
    (at / "ext").write_text("subjectAltName=DNS:localhost\n")
    new = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    tool(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", at / "ca-key.pem", "-out", at / "ca-cert.pem")
    tool(*new, "-subj", "/CN=localhost", "-keyout", at / "server-key.pem", "-out", at / "csr")
    tool("openssl", "x509", "-req", "-days", "2", "-in", at / "csr", "-CA", at / "ca-cert.pem", "-CAkey", at / "ca-key.pem", "-CAcreateserial", "-extfile", at / "ext",
         "-out", at / "server-cert.pem")
    client = folder / f"{name}-client"
    client.mkdir()
    shutil.copy(at / "ca-cert.pem", client)
    return at, client


@pytest.mark.skipif(not shutil.which("openssl"), reason="package openssl is missing")
def test_tls_by_certificate(lodge, guests, folder, raw):
    """The server is who its certificate says: another name for the same address is refused. A guest uses the disk."""
    server, client = certificates(folder, "pki")
    _, other = certificates(folder, "other")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    kit = subprocess.Popen(["nbdkit", "--foreground", "--exit-with-parent", "--ipaddr", "127.0.0.1", "--port", str(port), "--tls=require",
                            f"--tls-certificates={server}", "file", str(raw)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert kit.poll() is None and time.monotonic() < deadline, "nbdkit does not serve"
                time.sleep(0.01)
        query = f"?tls-certificates={client}"
        copy = folder / "copy"
        ok(lodge("image", "convert", "--to", "raw", f"nbds://localhost:{port}/{query}", copy))
        assert copy.read_bytes() == raw.read_bytes()
        refused(lodge("image", "compare", raw, f"nbds://127.0.0.1:{port}/{query}"), 2, "cannot be had through TLS")
        refused(lodge("image", "compare", raw, f"nbds://localhost:{port}/?tls-certificates={other}"), 2, "cannot be had through TLS")
        refused(lodge("image", "compare", raw, f"nbds://localhost:{port}/"), 2, "name one of")
        r = lodge(*run_args(guests, 1), f"nbds://localhost:{port}/{query},bus=ide,format=raw")
        assert r.status == PASS, r
    finally:
        kit.kill()
        kit.wait()
        kit.stderr.close()
