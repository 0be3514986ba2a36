/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hot-plug of PCI slots 3 to 31: the guest's side of src/devices/acpi_hotplug.c.
 *
 * Specification: ACPI 6.4, 5.6.4 (event methods), 5.6.6 (Notify: 1 device check, 3 eject request),
 * 6.3.3 (_EJ0), 6.1.11 (_SUN). A slot has no _STA: whether a device is there is told by its
 * configuration space, and a fixed answer would contradict it.
 */
DefinitionBlock ("", "SSDT", 2, "LODGE", "LODGEHP", 1)
{
    External (\_SB.PCI0, DeviceObj)

    Scope (\_SB.PCI0)
    {
        OperationRegion (PHPR, SystemIO, 0xAE00, 0x0C)
        Field (PHPR, DWordAcc, NoLock, WriteAsZeros)
        {
            PCIU, 32, // added since the last look
            PCID, 32, // to be removed
            PCEJ, 32  // eject
        }

        Device(S03) { Name (_ADR, 0x030000) Name (_SUN, 3) Method(_EJ0, 1) { PCEJ = 0x8 } }
        Device(S04) { Name (_ADR, 0x040000) Name (_SUN, 4) Method(_EJ0, 1) { PCEJ = 0x10 } }
        Device(S05) { Name (_ADR, 0x050000) Name (_SUN, 5) Method(_EJ0, 1) { PCEJ = 0x20 } }
        Device(S06) { Name (_ADR, 0x060000) Name (_SUN, 6) Method(_EJ0, 1) { PCEJ = 0x40 } }
        Device(S07) { Name (_ADR, 0x070000) Name (_SUN, 7) Method(_EJ0, 1) { PCEJ = 0x80 } }
        Device(S08) { Name (_ADR, 0x080000) Name (_SUN, 8) Method(_EJ0, 1) { PCEJ = 0x100 } }
        Device(S09) { Name (_ADR, 0x090000) Name (_SUN, 9) Method(_EJ0, 1) { PCEJ = 0x200 } }
        Device(S0A) { Name (_ADR, 0x0A0000) Name (_SUN, 10) Method(_EJ0, 1) { PCEJ = 0x400 } }
        Device(S0B) { Name (_ADR, 0x0B0000) Name (_SUN, 11) Method(_EJ0, 1) { PCEJ = 0x800 } }
        Device(S0C) { Name (_ADR, 0x0C0000) Name (_SUN, 12) Method(_EJ0, 1) { PCEJ = 0x1000 } }
        Device(S0D) { Name (_ADR, 0x0D0000) Name (_SUN, 13) Method(_EJ0, 1) { PCEJ = 0x2000 } }
        Device(S0E) { Name (_ADR, 0x0E0000) Name (_SUN, 14) Method(_EJ0, 1) { PCEJ = 0x4000 } }
        Device(S0F) { Name (_ADR, 0x0F0000) Name (_SUN, 15) Method(_EJ0, 1) { PCEJ = 0x8000 } }
        Device(S10) { Name (_ADR, 0x100000) Name (_SUN, 16) Method(_EJ0, 1) { PCEJ = 0x10000 } }
        Device(S11) { Name (_ADR, 0x110000) Name (_SUN, 17) Method(_EJ0, 1) { PCEJ = 0x20000 } }
        Device(S12) { Name (_ADR, 0x120000) Name (_SUN, 18) Method(_EJ0, 1) { PCEJ = 0x40000 } }
        Device(S13) { Name (_ADR, 0x130000) Name (_SUN, 19) Method(_EJ0, 1) { PCEJ = 0x80000 } }
        Device(S14) { Name (_ADR, 0x140000) Name (_SUN, 20) Method(_EJ0, 1) { PCEJ = 0x100000 } }
        Device(S15) { Name (_ADR, 0x150000) Name (_SUN, 21) Method(_EJ0, 1) { PCEJ = 0x200000 } }
        Device(S16) { Name (_ADR, 0x160000) Name (_SUN, 22) Method(_EJ0, 1) { PCEJ = 0x400000 } }
        Device(S17) { Name (_ADR, 0x170000) Name (_SUN, 23) Method(_EJ0, 1) { PCEJ = 0x800000 } }
        Device(S18) { Name (_ADR, 0x180000) Name (_SUN, 24) Method(_EJ0, 1) { PCEJ = 0x1000000 } }
        Device(S19) { Name (_ADR, 0x190000) Name (_SUN, 25) Method(_EJ0, 1) { PCEJ = 0x2000000 } }
        Device(S1A) { Name (_ADR, 0x1A0000) Name (_SUN, 26) Method(_EJ0, 1) { PCEJ = 0x4000000 } }
        Device(S1B) { Name (_ADR, 0x1B0000) Name (_SUN, 27) Method(_EJ0, 1) { PCEJ = 0x8000000 } }
        Device(S1C) { Name (_ADR, 0x1C0000) Name (_SUN, 28) Method(_EJ0, 1) { PCEJ = 0x10000000 } }
        Device(S1D) { Name (_ADR, 0x1D0000) Name (_SUN, 29) Method(_EJ0, 1) { PCEJ = 0x20000000 } }
        Device(S1E) { Name (_ADR, 0x1E0000) Name (_SUN, 30) Method(_EJ0, 1) { PCEJ = 0x40000000 } }
        Device(S1F) { Name (_ADR, 0x1F0000) Name (_SUN, 31) Method(_EJ0, 1) { PCEJ = 0x80000000 } }

        // Arg0: slots, Arg1: what to tell them
        Method (PTEL, 2, NotSerialized)
        {
            If (Arg0 & 0x8) { Notify (S03, Arg1) }
            If (Arg0 & 0x10) { Notify (S04, Arg1) }
            If (Arg0 & 0x20) { Notify (S05, Arg1) }
            If (Arg0 & 0x40) { Notify (S06, Arg1) }
            If (Arg0 & 0x80) { Notify (S07, Arg1) }
            If (Arg0 & 0x100) { Notify (S08, Arg1) }
            If (Arg0 & 0x200) { Notify (S09, Arg1) }
            If (Arg0 & 0x400) { Notify (S0A, Arg1) }
            If (Arg0 & 0x800) { Notify (S0B, Arg1) }
            If (Arg0 & 0x1000) { Notify (S0C, Arg1) }
            If (Arg0 & 0x2000) { Notify (S0D, Arg1) }
            If (Arg0 & 0x4000) { Notify (S0E, Arg1) }
            If (Arg0 & 0x8000) { Notify (S0F, Arg1) }
            If (Arg0 & 0x10000) { Notify (S10, Arg1) }
            If (Arg0 & 0x20000) { Notify (S11, Arg1) }
            If (Arg0 & 0x40000) { Notify (S12, Arg1) }
            If (Arg0 & 0x80000) { Notify (S13, Arg1) }
            If (Arg0 & 0x100000) { Notify (S14, Arg1) }
            If (Arg0 & 0x200000) { Notify (S15, Arg1) }
            If (Arg0 & 0x400000) { Notify (S16, Arg1) }
            If (Arg0 & 0x800000) { Notify (S17, Arg1) }
            If (Arg0 & 0x1000000) { Notify (S18, Arg1) }
            If (Arg0 & 0x2000000) { Notify (S19, Arg1) }
            If (Arg0 & 0x4000000) { Notify (S1A, Arg1) }
            If (Arg0 & 0x8000000) { Notify (S1B, Arg1) }
            If (Arg0 & 0x10000000) { Notify (S1C, Arg1) }
            If (Arg0 & 0x20000000) { Notify (S1D, Arg1) }
            If (Arg0 & 0x40000000) { Notify (S1E, Arg1) }
            If (Arg0 & 0x80000000) { Notify (S1F, Arg1) }
        }
    }

    // The registers are nobody else's.
    Device (\_SB.PHPR)
    {
        Name (_HID, EisaId ("PNP0C02"))
        Name (_UID, 1)
        Name (_CRS, ResourceTemplate ()
        {
            IO (Decode16, 0xAE00, 0xAE00, 0x01, 0x10)
        })
    }

    Scope (\_GPE)
    {
        Method (_E01, 0, NotSerialized)
        {
            \_SB.PCI0.PTEL (\_SB.PCI0.PCIU, 1)
            \_SB.PCI0.PTEL (\_SB.PCI0.PCID, 3)
        }
    }
}
