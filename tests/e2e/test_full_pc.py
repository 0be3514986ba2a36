# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's own drivers on the devices of an old PC: they bind, and move data with right checksums in both
directions. LODGE_TEST_LONG=1 moves ten times as much."""
import collections
import hashlib
import os

import pytest
from conftest import running_lodge
from linux_guest import initrd, kernel, words

MIB = 1 << 20
TIMES = 10 if "LODGE_TEST_LONG" in os.environ else 1
SECONDS = 900 * TIMES  # of a clock that runs fast in the emulated machine while its host is busy
IDE_BYTES = 256 * MIB  # copied TIMES times
CD_BYTES, FLOPPY_BYTES, FLOPPY_WRITE_AT = 16 * MIB, 1440 * 1024, 1350 * 1024
PIO_READ_AT, PIO_READ, PIO_WRITE = MIB // 2, MIB, MIB // 4  # in words, each of which is an exit when it is written
LBA48_BYTES, LBA48_AT = 160 << 30, 140000 * MIB  # above 128 GiB, where 28 bits of address end
CHUNK = MIB
Outcome = collections.namedtuple("Outcome", "status said out err folder")


def md5(path, length=None, at=0):
    """Of @length bytes from @at; to the end without."""
    h = hashlib.md5()
    with open(path, "rb") as f:
        f.seek(at)
        left = os.fstat(f.fileno()).st_size if length is None else length
        while left and (data := f.read(min(CHUNK, left))):
            h.update(data)
            left -= len(data)
    return h.hexdigest()


def noise(path, length):
    with open(path, "wb") as f:
        for at in range(0, length, CHUNK):
            f.write(os.urandom(min(CHUNK, length - at)))
    return path


FUNCTIONS = """
drop() { sync; echo 3 > /proc/sys/vm/drop_caches; }
md() { md5sum "$@" | cut -d ' ' -f 1; }
wait_for() { local i=0; while [ $i -lt 100 ] && ! eval "$1"; do sleep 0.1; i=$((i + 1)); done; }
took() { say time "$1 $(cut -d ' ' -f 1 /proc/uptime)"; }
trouble() { dmesg | grep -E "$1" | head -n 20 | while read -r l; do say trouble "$l"; done; }
"""


def run_guest(folder, script, *args, modules=(), append="", memory="192M", flavour="stock"):
    archive = initrd(folder / "initrd", FUNCTIONS + script + "\nbye", modules, flavour)
    with running_lodge() as lodge:
        r = lodge("run", "--kernel", kernel(flavour).path, "--initrd", archive, "--append", f"console=ttyS0 quiet {append}", "--memory", memory, *args,
                  timeout=SECONDS)
    print(r.out, r.err)
    return Outcome(r.status, words(r.out), r.out, r.err, folder)


# ---- drives ----

STORAGE = """
names() { # the order of sda and sdb is a matter of luck
  wait_for '[ -b /dev/sdb ] && [ -b /dev/sda ] && [ -b /dev/sr0 ]'
  disk=$(basename /sys/bus/scsi/devices/*:0:0:0/block/sd*); big=$(basename /sys/bus/scsi/devices/*:0:1:0/block/sd*)
}
read_part() { dd if=/dev/$1 bs=$2 skip=$3 count=$4 2>/dev/null; }
write_part() { dd if=$1 of=/dev/$2 bs=$3 seek=$4 count=$5 conv=fsync,notrunc 2>/dev/null; drop; }
mode() { cat /sys/class/ata_device/dev*.0/xfer_mode | head -n 1; }
names
for d in /sys/bus/pci/drivers/ata_piix/*:*; do say ata_piix $(basename $d); done
say mode "$(mode)"; took start
i=0
while [ $i -lt $times ]; do # the first half to the second one, a MiB further with every round
  write_part /dev/$disk $disk 1M $((half + i)) $half; took copied
  say copy $(read_part $disk 1M $((half + i)) $half | md); drop; i=$((i + 1))
done
took dma

say big $(cat /sys/block/$big/size); head -c 1048576 /dev/urandom > /tmp/noise; say noise $(md /tmp/noise)
write_part /tmp/noise $big 1M 140000 1
say high $(read_part $big 1M 140000 1 | md); say low $(read_part $big 1M 0 1 | tr -d '\\0' | wc -c)
say cd_type $(cat /sys/block/sr0/device/type); say cd $(md /dev/sr0); took cd

say floppy $(md /dev/fd0); drop
write_part /tmp/noise fd0 18k 75 5; say floppy_wrote $(head -c 92160 /tmp/noise | md)
say floppy_again $(read_part fd0 18k 75 5 | md); took floppy

rmmod ata_piix sr_mod sd_mod libata
insmod /modules/*-libata.ko dma=0; for m in /modules/*; do insmod $m 2>/dev/null; done; names
say pio_mode "$(mode)"; say pio_read $(read_part $disk 256k 2 4 | md)
write_part /tmp/noise $disk 256k 1 1; say pio_wrote $(head -c 262144 /tmp/noise | md)
say pio_again $(read_part $disk 256k 1 1 | md); took pio
trouble 'ata[0-9.]+: (exception|failed|error)|I/O error|lost interrupt|[Tt]imeout|floppy0:'
"""


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("storage")
    for name, length in (("disk", IDE_BYTES), ("cd", CD_BYTES), ("floppy", FLOPPY_BYTES)):
        noise(folder / name, length)
    sums = {"disk": md5(folder / "disk"), "cd": md5(folder / "cd"), "floppy": md5(folder / "floppy"), "pio": md5(folder / "disk", PIO_READ, PIO_READ_AT),
            "floppy_rest": md5(folder / "floppy", FLOPPY_WRITE_AT)}
    for name, length in (("disk", 2 * IDE_BYTES + TIMES * MIB), ("big", LBA48_BYTES)):
        with open(folder / name, "ab") as f:
            f.truncate(length)
    out = run_guest(folder, STORAGE, "--disk", f"{folder}/disk,format=raw,bus=ide", "--disk", f"{folder}/big,format=raw,bus=ide", "--cdrom", folder / "cd",
                    "--floppy", folder / "floppy", "--net", "none", modules=("ata_piix", "sd_mod", "sr_mod", "floppy"), append=f"half={IDE_BYTES // MIB} times={TIMES}")
    yield out, sums
    for name in ("disk", "cd", "big"):
        (folder / name).unlink()


def test_ide_disk_by_dma(storage):
    """What the guest copied from the first half to the second one is right to itself and to the host."""
    out, sums = storage
    said = out.said
    assert out.status == 0, out
    assert said["ata_piix"] == ["0000:00:01.1"]
    assert "DMA" in said["mode"][0]
    assert said["copy"] == [sums["disk"]] * TIMES
    assert md5(out.folder / "disk", IDE_BYTES, IDE_BYTES + (TIMES - 1) * MIB) == sums["disk"]


def test_ide_disk_by_pio(storage):
    out, sums = storage
    said = out.said
    assert "PIO" in said["pio_mode"][0]
    assert said["pio_read"] == [sums["pio"]]
    assert said["pio_again"] == said["pio_wrote"] == [md5(out.folder / "disk", PIO_WRITE, PIO_WRITE)]


def test_ide_disk_beyond_28_bits(storage):
    out, _ = storage
    said = out.said
    assert said["big"] == [str(LBA48_BYTES // 512)]
    assert said["high"] == said["noise"] == [md5(out.folder / "big", MIB, LBA48_AT)]
    assert said["low"] == ["0"]


def test_cdrom(storage):
    out, sums = storage
    assert out.said["cd_type"] == ["5"]
    assert out.said["cd"] == [sums["cd"]]


def test_floppy(storage):
    out, sums = storage
    said = out.said
    assert said["floppy"] == [sums["floppy"]]
    assert said["floppy_again"] == said["floppy_wrote"] == [md5(out.folder / "floppy", at=FLOPPY_WRITE_AT)] != [sums["floppy_rest"]]


def test_drives_without_errors(storage):
    assert "trouble" not in storage[0].said
