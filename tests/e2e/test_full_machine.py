# SPDX-License-Identifier: GPL-2.0-or-later
"""The cloud kernel with every device at work: one boot with two CPUs, disks, network, channel and
entropy, whose parts the tests look at one by one; then the ways into the kernel."""
import collections
import hashlib
import http.server
import os
import socket
import subprocess
import threading
import time

import pytest
from conftest import running_lodge
from linux_guest import BOOT_SECONDS, DISK, NET, bus_hits, extra_initrd, initrd, kernel, words

MIB = 1 << 20
PAGE_BYTES = 8 * MIB
RAW_BYTES, COW_BYTES = 12 * MIB, 16 * MIB
PIT_ACCESSES_MAX = 50
CHANNEL = "org.lodge.test"

# What it does with the host, it does in step: the host speaks first, through the channel.
EVERYTHING = """
say release $(uname -r); say cpus $(nproc); say flags "$(sed -n 's/^flags.*: //p' /proc/cpuinfo | head -n 1)"
say clocksource $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)
say clockevent $(cat /sys/devices/system/clockevents/clockevent1/current_device)
say sockets $(sed -n 's/^physical id.*: //p' /proc/cpuinfo | sort -u | wc -l)
say rng $(cat /sys/class/misc/hw_random/rng_current)
say entropy $(dd if=/dev/hwrng bs=32 count=1 2>/dev/null | sha256sum | cut -d ' ' -f 1)
say entropy $(dd if=/dev/hwrng bs=32 count=1 2>/dev/null | sha256sum | cut -d ' ' -f 1)

head -c 12582912 /dev/urandom > /tmp/noise
dd if=/tmp/noise of=/dev/vdb bs=64k conv=fsync 2>/dev/null; say noise $(sum /tmp/noise)
# Pieces of every size and alignment, over blocks that the overlay has and has not.
n=0; for at in 0 1 7 8 100 4095 20000 32000; do
  dd if=/tmp/noise of=/dev/vda bs=512 skip=$((n * 50)) seek=$at count=$((1 + n * 3)) conv=notrunc 2>/dev/null; n=$((n + 1))
done
sync; echo 3 > /proc/sys/vm/drop_caches
say vda $(sum /dev/vda); say vdb $(sum /dev/vdb)
say vdc_ro $(blockdev --getro /dev/vdc); dd if=/tmp/noise of=/dev/vdc bs=512 count=1 2>/dev/null && say vdc written || say vdc refused
dd if=/tmp/noise of=/dev/vdd bs=1M count=1 conv=fsync 2>/dev/null; echo 3 > /proc/sys/vm/drop_caches
cmp -n 1048576 /tmp/noise /dev/vdd && say vdd kept
rm /tmp/noise

ip link set lo up; ip link set eth0 up; say mac $(cat /sys/class/net/eth0/address)
echo '#!/bin/sh
[ "$1" != bound ] || echo "$ip $mask $router" > /tmp/lease' > /tmp/script; chmod +x /tmp/script
udhcpc -q -n -f -t 5 -T 1 -i eth0 -s /tmp/script > /tmp/dhcp.log 2>&1
say lease "$(cat /tmp/lease)"; net
port=$(sed 's/.*page=\\([0-9]*\\).*/\\1/' /proc/cmdline)
printf 'GET /page HTTP/1.0\\r\\n\\r\\n' | nc 10.0.2.2 $port > /tmp/page
say page $(tail -c 8388608 /tmp/page | sha256sum | cut -d ' ' -f 1)
mkdir /www; tail -c 3000000 /tmp/page > /www/part; echo inside > /www/index.html; httpd -p 8080 -h /www

mkdir -p /dev/virtio-ports; p=$(grep -lx org.lodge.test /sys/class/virtio-ports/*/name); p=/dev/$(basename ${p%/name})
exec 3<>$p; echo ready >&3; read -r line <&3; echo "heard $line" >&3; read -r line <&3; say channel "$line"
bye
"""

Outcome = collections.namedtuple("Outcome", "status said out err console_log folder page base_sum forwarded channel left")


def _sum(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fetch(port, name):
    with socket.create_connection(("127.0.0.1", port), 30) as s:
        s.sendall(f"GET /{name} HTTP/1.0\r\n\r\n".encode())
        data = b"".join(iter(lambda: s.recv(65536), b""))
    return data.partition(b"\r\n\r\n")[2]


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _connect(path, process):
    """The guest's own port appears once it is up."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(str(path))
            s.settimeout(BOOT_SECONDS)
            return s
        except OSError:
            s.close()
            time.sleep(0.05)
    process.kill()
    pytest.fail(f"no channel; the guest said\n{process.communicate()}")


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    page = os.urandom(PAGE_BYTES)

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, size in (("base", COW_BYTES), ("raw", RAW_BYTES), ("ro", MIB), ("scratch", 2 * MIB)):
        (folder / name).write_bytes(os.urandom(size))
    before = {name: _sum(folder / name) for name in ("base", "ro", "scratch")}
    initrd(folder / "initrd", EVERYTHING, (*DISK, *NET, "virtio_console", "virtio_rng"))
    forward = _free_port()
    with running_lodge() as lodge:
        p = lodge.popen("run", "everything", "--kernel", kernel().path, "--initrd", folder / "initrd", "--append",
                        f"console=ttyS0 quiet page={server.server_address[1]}", "--memory", "256M", "--cpus", 2,
                        "--disk", f"{folder}/cow,base={folder}/base", "--disk", f"{folder}/raw,format=raw", "--disk", f"{folder}/ro,format=raw,ro",
                        "--disk", f"{folder}/scratch,format=raw,snapshot=on", "--net", f"user,hostfwd=tcp:127.0.0.1:{forward}-:8080",
                        "--channel", f"{CHANNEL}=unix:{lodge.home}/chan", env={"LODGE_TRACE": "bus"})
        channel = _connect(lodge.home / "chan", p)
        lines = channel.makefile("rwb", buffering=0)
        heard = [lines.readline()]
        forwarded = _fetch(forward, "part"), _fetch(forward, "")
        lines.write(b"a word\n")
        heard.append(lines.readline())
        lines.write(b"the end\n")
        out, err = (b.decode(errors="replace") for b in p.communicate(timeout=BOOT_SECONDS))
        channel.close()
        log = (lodge.home / "state" / "lodge" / "everything" / "console.log").read_text(errors="replace")
        left = [str(f) for f in (lodge.home / "run").rglob("*")] + [str(f) for f in lodge.home.glob("chan")]
    server.shutdown()
    server.server_close()
    return Outcome(p.returncode, words(out), out, err, log, folder, page, before, forwarded, heard, left)


def test_powers_off_through_acpi(everything):
    assert everything.status == 0, everything.out + everything.err
    assert everything.said["release"] == [kernel().release]


def test_two_cpus(everything):
    assert everything.said["cpus"] == ["2"]


def test_clock_needs_no_exit(everything):
    flags = everything.said["flags"][0].split()
    assert "hypervisor" in flags
    assert everything.said["clocksource"][0] in ("kvm-clock", "tsc")
    assert "tsc_deadline_timer" in flags and "arat" in flags
    assert everything.said["clockevent"] == ["lapic-deadline"]


def test_pit_is_left_alone(everything, record_property):
    hits = bus_hits(everything.err)
    assert hits, everything.err
    count = hits.get("pit", 0) + hits.get("port61", 0)
    record_property("pit_accesses", count)
    assert count <= PIT_ACCESSES_MAX, hits


def test_raw_disk_holds_what_the_guest_wrote(everything):
    said = everything.said
    assert said["vdb"] == said["noise"]
    assert _sum(everything.folder / "raw") == said["noise"][0]


def test_overlay_merges_into_what_the_guest_saw(everything):
    merged = everything.folder / "merged"
    subprocess.run(["uml_moo", everything.folder / "cow", merged], stdin=subprocess.DEVNULL, check=True)
    assert _sum(merged) == everything.said["vda"][0] != everything.base_sum["base"]


def test_bases_are_unchanged(everything):
    for name, was in everything.base_sum.items():
        assert _sum(everything.folder / name) == was, name


def test_read_only_disk_refuses(everything):
    assert everything.said["vdc_ro"] == ["1"]
    assert everything.said["vdc"] == ["refused"]


def test_snapshot_disk_keeps_writes_for_the_run(everything):
    assert everything.said["vdd"] == ["kept"]
    assert sorted(f.name for f in everything.folder.iterdir() if f.name != "merged") == ["base", "cow", "initrd", "raw", "ro", "scratch"]


def test_dhcp_lease(everything):
    assert everything.said["lease"] == ["10.0.2.15 24 10.0.2.2"]


def test_page_from_the_host(everything):
    assert everything.said["page"] == [hashlib.sha256(everything.page).hexdigest()]


def test_forwarded_port(everything):
    part, index = everything.forwarded
    assert part == everything.page[-3000000:]
    assert index == b"inside\n"


def test_channel(everything):
    assert everything.channel == [b"ready\n", b"heard a word\n"]
    assert everything.said["channel"] == ["the end"]


def test_entropy(everything):
    assert everything.said["rng"][0].startswith("virtio_rng")
    a, b = everything.said["entropy"]
    assert a != b and hashlib.sha256(b"").hexdigest() not in (a, b)


def test_console_log_is_kept(everything):
    assert everything.console_log.replace("\r", "").endswith(everything.out.replace("\r", "")[-500:])
    assert words(everything.console_log) == everything.said


def test_nothing_is_left(everything):
    assert not everything.left


WHERE = """
say cpus $(nproc); say text $(sed -n 's/ T _text$//p' /proc/kallsyms)
say code $(sed -n 's/^ *\\([0-9a-f]*\\)-.*Kernel code/\\1/p' /proc/iomem)
say memory $(sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo); say extra "$(cat /extra 2>/dev/null)"
"""
LINKED_TEXT, LINKED_CODE = "ffffffff81000000", "01000000"


def boot(lodge, tmp_path, script, *args, entry="", append="", modules=()):
    archive = initrd(tmp_path / "initrd", script, modules)
    r = lodge("run", "--kernel", f"{kernel().path}{entry}", "--initrd", archive, "--append", f"console=ttyS0 quiet {append}", "--net", "none", *args,
              timeout=BOOT_SECONDS)
    return r, words(r.out)


def test_one_cpu_two_initrds(lodge, tmp_path):
    more = extra_initrd(tmp_path / "more", {"extra": b"second\n"})
    r, said = boot(lodge, tmp_path, WHERE + "bye", f"--initrd={more}", "--cpus=1")
    assert r.status == 0, r
    assert said["cpus"] == ["1"] and said["extra"] == ["second"]


def test_without_acpi(lodge, tmp_path):
    """One CPU on the PIC and the PIT, whose interrupts it needs; there is no power-off without ACPI."""
    r, said = boot(lodge, tmp_path, WHERE + "cat /proc/interrupts; sync; reboot -f", "--cpus=2", "--no-reboot", append="acpi=off")
    assert r.status == 0, r
    assert said["cpus"] == ["1"]
    assert "XT-PIC" in r.out


def test_own_entry_of_the_bzimage(lodge, tmp_path):
    r, said = boot(lodge, tmp_path, WHERE + "bye", "--memory=5G", entry=",protocol=bzimage")
    assert r.status == 0, r
    assert said["cpus"] == ["1"]
    assert 4.7 * MIB < int(said["memory"][0]) < 5 * MIB  # in KiB: the part above the PCI hole too


COUNT = """
n=$(head -c 1 /dev/vda); say boot $n; echo -n $((n + 1)) > /dev/vda; sync
"""


@pytest.mark.parametrize("fixed", [False, True], ids=["random", "nokaslr"])
def test_reset_boots_again_elsewhere(lodge, tmp_path, fixed):
    """A reset draws new addresses, as a start does; nokaslr is honoured."""
    (tmp_path / "disk").write_bytes(b"0".ljust(MIB, b"\0"))
    again = 2 if fixed else 3
    script = COUNT + WHERE + f"[ $n = {again - 1} ] && bye; sync; reboot -f; sleep 100"
    r, said = boot(lodge, tmp_path, script, f"--disk={tmp_path}/disk,format=raw", append="nokaslr" if fixed else "", modules=DISK)
    assert r.status == 0, r
    assert said["boot"] == [str(n) for n in range(again)]
    places = set(zip(said["text"], said["code"]))
    if fixed:
        assert places == {(LINKED_TEXT, LINKED_CODE)}
        return
    assert len(places) == again, places
    assert len(set(said["text"])) > 1 and len(set(said["code"])) > 1, places


def test_starts_differ_and_no_reboot_ends(lodge, tmp_path):
    """Twice the same: from the cache the second time, and not at the first one's addresses."""
    first, a = boot(lodge, tmp_path, WHERE + "sync; reboot -f; sleep 100", "--no-reboot")
    second, b = boot(lodge, tmp_path, WHERE + "sync; reboot -f; sleep 100", "--no-reboot")
    assert first.status == second.status == 0, (first, second)
    assert len(a["text"]) == len(b["text"]) == 1
    assert (a["text"], a["code"]) != (b["text"], b["code"])


def test_timers_after_a_triple_fault(lodge, tmp_path):
    """A guest that resets by a triple fault finds timers that tick, and a clock that goes on."""
    (tmp_path / "disk").write_bytes(b"0".ljust(MIB, b"\0"))
    script = COUNT + """
say ticks $(sed -n 's/^LOC: *\\([0-9]*\\).*/\\1/p' /proc/interrupts)
say offset $(dmesg | sed -n 's/.*sched offset of \\([0-9]*\\).*/\\1/p')
[ $n = 2 ] && bye; sync; reboot -f; sleep 100"""
    r, said = boot(lodge, tmp_path, script, f"--disk={tmp_path}/disk,format=raw", append="reboot=t", modules=DISK)
    assert r.status == 0, r
    assert said["boot"] == ["0", "1", "2"]
    assert all(int(n) for n in said["ticks"]), said
    starts = [int(n) / 1e9 for n in said["offset"]]  # seconds of the machine's clock
    assert starts == sorted(starts) and starts[2] < BOOT_SECONDS, starts
