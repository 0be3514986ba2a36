# SPDX-License-Identifier: GPL-2.0-or-later
"""What each bare-metal guest is run with, and what must come of it.

One table serves two masters: test_native_guests.py runs it on Lodge, and tests/guests/oracle on
QEMU's emulation, so that a guest that asks for something no PC does is found there.
"""
from dataclasses import dataclass

PASS, FAIL = 33, 35


@dataclass(frozen=True)
class Case:
    guest: str
    append: str = ""
    memory: int = 64  # MiB
    cpus: int = 1
    status: int = PASS
    expect: tuple = ()  # texts that the serial line must carry, in order
    rng: bool = False
    card: str = ""  # network card on the user network
    feed: int = 0  # bytes sent one by one, each after the guest's '.'
    modules: int = 0
    timeout: int = 60
    oracle: bool = True  # QEMU's emulation can be asked too
    where: str = "any"  # "emulated": only where KVM emulates ring 0
    reboots: bool = False  # the guest resets the machine and goes on

    @property
    def name(self):
        words = [w.replace("=", "-") for w in self.append.split()]
        if self.memory != 64:
            words.append(f"{self.memory}M")
        if self.cpus != 1:
            words.append(f"{self.cpus}cpus")
        if self.modules:
            words.append(f"{self.modules}modules")
        if self.card:
            words.append(self.card)
        return "-".join([self.guest, *words])


def both(guest, **kw):
    return [Case(guest, **kw), Case(guest + "64", **kw)]


CASES = [
    Case("first", status=5),
    *both("hello", append="one two", expect=("one two", "modules: 0", "PASS")),
    Case("hello", append="x", modules=2, expect=("modules: 2", "module 0: '", "5000 bytes, sum 5000", "module 1: '", "5001 bytes, sum 10002")),
    Case("hello", append="exit=3", status=7),
    Case("hello", append="exit=0", status=1),
    *both("bus"),
    *both("exitcost", append="n=20000", expect=("cycles each, ring 0",)),
    *both("exitcost", append="n=20000 ring3", expect=("cycles each, ring 3",)),
    Case("ring3", append="n=1"),
    Case("ring364", append="n=100"),
    *both("ring3", append="n=1 ticks"),
    *both("irq_pic"),
    *both("irq_ioapic"),
    *both("irq_msi", rng=True),
    *both("pit_tsc"),
    *both("hlt_wake", append="n=1000", feed=1000),
    *both("hlt_wake", append="n=1000 ioapic", feed=1000),
    *[c for n in (1, 2, 4) for c in both("smp", append=f"cpus={n}", cpus=n)],
    *both("rmw", append="n=2000"),
    *[c for card in ("ne2k_isa", "ne2k_pci") for c in both("ne2000", append="n=50", card=card, oracle=False)],
    *[c for card in ("ne2k_isa", "ne2k_pci") for c in both("ne2000", append="n=50 noloop", card=card)],
    Case("fwcfg", append="mem=64 cpus=1"),
    Case("fwcfg", append="mem=128 cpus=2", memory=128, cpus=2),
    Case("memmap", append="mem=64"),
    Case("memmap", append="mem=3073", memory=3073),
    Case("memmap", append="mem=5120", memory=5120),
    Case("acpi", append="stay"),
    Case("acpi", append="stay cpus=2", cpus=2),
    Case("acpi", append="off", status=0, expect=("PASS",)),
    *[Case("reset", append=f"how={how}", reboots=True, expect=("first boot", "second boot", "PASS"), oracle=how != "acpi")
      for how in ("cf9", "92", "kbd", "acpi", "triple")],
    *both("triple", append="once", reboots=True, expect=("triple fault now", "PASS")),
    *[Case(g, append=f"how={how}", status=125, where="emulated") for g in ("fault", "fault64") for how in ("int3",)],
    Case("fault", append="how=ud2", expect=("exception 6",)),
]
