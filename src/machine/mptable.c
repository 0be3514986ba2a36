/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The MP table, for kernels without ACPI.
 *
 * Specification: Intel MultiProcessor Specification 1.4, chapter 4. Processors, a PCI and an ISA
 * bus, one IOAPIC, the ISA interrupts (timer on pin 2), INTA to INTD of each PCI slot by the
 * board's reset routes, ExtINT and NMI at the local APICs. IMCR is absent. A route that the guest
 * changes afterwards in the ISA bridge is not followed by the table.
 *
 * Threads: none of its own; a pure function.
 */
#include "mptable.h"

#include <string.h>

#include "lodge/num.h"

#include "pc_map.h"
#include "pci.h"

/* 4.1 and 4.2 */
enum {
    MPF_ADDRESS = 4,
    MPF_LENGTH = 8, /* in units of 16 bytes */
    MPF_REVISION = 9,
    MPF_CHECKSUM = 10,
    MPF_LEN = 16,
    MPC_LENGTH = 4,
    MPC_REVISION = 6,
    MPC_CHECKSUM = 7,
    MPC_OEM = 8,
    MPC_PRODUCT = 16,
    MPC_ENTRIES = 34,
    MPC_LAPIC = 36,
    MPC_LEN = 44,
};
#define MP_REVISION 4 /* 1.4 */

/* 4.3 */
enum { MP_PROCESSOR, MP_BUS, MP_IOAPIC, MP_INT, MP_LOCAL_INT };
enum { MP_TYPE_INT, MP_TYPE_NMI, MP_TYPE_SMI, MP_TYPE_EXTINT };
#define MP_CPU_ENABLED 0x01
#define MP_CPU_BOOTS 0x02
#define MP_CPU_SIGNATURE 0x0600 /* family 6; kernels ask CPUID */
#define MP_CPU_FEATURES 0x0201  /* FPU and APIC */
#define MP_LAPIC_VERSION 0x14
#define MP_IOAPIC_VERSION 0x11
#define MP_IOAPIC_ENABLED 0x01
#define MP_IOAPIC_ID 0
#define MP_BUS_PCI 0
#define MP_BUS_ISA 1
#define MP_LEVEL_HIGH 0x000d
#define MP_CONFORMS 0x0000
#define MP_ALL_APICS 0xff
#define MP_TOP_GPA 0x100000u
#define PCI_SLOTS 32
#define PCI_PINS 4

static void put8(GByteArray *b, uint8_t v)
{
    g_byte_array_append(b, &v, 1);
}

static void put16(GByteArray *b, uint16_t v)
{
    g_byte_array_append(b, (const uint8_t *)&v, sizeof v);
}

static void put32(GByteArray *b, uint32_t v)
{
    g_byte_array_append(b, (const uint8_t *)&v, sizeof v);
}

static void put_processor(GByteArray *b, unsigned id)
{
    put8(b, MP_PROCESSOR);
    put8(b, (uint8_t)id);
    put8(b, MP_LAPIC_VERSION);
    put8(b, MP_CPU_ENABLED | (id ? 0 : MP_CPU_BOOTS));
    put32(b, MP_CPU_SIGNATURE);
    put32(b, MP_CPU_FEATURES);
    put32(b, 0);
    put32(b, 0);
}

static void put_bus(GByteArray *b, uint8_t id, const char type[static 7])
{
    put8(b, MP_BUS);
    put8(b, id);
    g_byte_array_append(b, (const uint8_t *)type, 6);
}

/* An interrupt entry, to the IOAPIC (MP_INT) or to local APICs (MP_LOCAL_INT). */
static void put_int(GByteArray *b, uint8_t entry, uint8_t type, uint16_t flags, uint8_t bus,
                    uint8_t source, uint8_t apic, uint8_t pin)
{
    put8(b, entry);
    put8(b, type);
    put16(b, flags);
    put8(b, bus);
    put8(b, source);
    put8(b, apic);
    put8(b, pin);
}

static void put_isa_ints(GByteArray *b)
{
    for (unsigned irq = 0; irq < 16; irq++) {
        if (irq == PC_IRQ_CASCADE)
            continue;
        bool level = PC_ELCR_LEVEL >> irq & 1;
        put_int(b, MP_INT, MP_TYPE_INT, level ? MP_LEVEL_HIGH : MP_CONFORMS, MP_BUS_ISA,
                (uint8_t)irq, MP_IOAPIC_ID,
                (uint8_t)(irq == PC_IRQ_PIT ? PC_PIT_IOAPIC_PIN : irq));
    }
}

static void put_pci_ints(GByteArray *b)
{
    for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
        for (unsigned pin = 0; pin < PCI_PINS; pin++) {
            unsigned irq = pci_pirq(slot, pin) < 2 ? PC_IRQ_PIRQ_A : PC_IRQ_PIRQ_C;
            put_int(b, MP_INT, MP_TYPE_INT, MP_LEVEL_HIGH, MP_BUS_PCI,
                    (uint8_t)(slot << 2 | pin), MP_IOAPIC_ID, (uint8_t)irq);
        }
    }
}

static uint8_t checksum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += p[i];
    return (uint8_t)-sum;
}

bool mptable_build(unsigned cpus, gpa_t at, GByteArray *ret)
{
    if (!cpus || cpus > MPTABLE_CPUS_MAX || at % MPF_LEN || at >= MP_TOP_GPA)
        return false;
    guint start = ret->len;
    unsigned entries = 0;
    g_byte_array_set_size(ret, start + MPF_LEN + MPC_LEN);
    memset(ret->data + start, 0, MPF_LEN + MPC_LEN);
    for (unsigned i = 0; i < cpus; i++, entries++)
        put_processor(ret, i);
    put_bus(ret, MP_BUS_PCI, "PCI   ");
    put_bus(ret, MP_BUS_ISA, "ISA   ");
    put8(ret, MP_IOAPIC);
    put8(ret, MP_IOAPIC_ID);
    put8(ret, MP_IOAPIC_VERSION);
    put8(ret, MP_IOAPIC_ENABLED);
    put32(ret, PC_IOAPIC_GPA);
    put_isa_ints(ret);
    put_pci_ints(ret);
    put_int(ret, MP_LOCAL_INT, MP_TYPE_EXTINT, MP_CONFORMS, MP_BUS_ISA, 0, MP_ALL_APICS, 0);
    put_int(ret, MP_LOCAL_INT, MP_TYPE_NMI, MP_CONFORMS, MP_BUS_ISA, 0, MP_ALL_APICS, 1);
    entries += 2 + 1 + 15 + (PCI_SLOTS - 1) * PCI_PINS + 2;

    uint8_t *mpf = ret->data + start, *mpc = mpf + MPF_LEN;
    unsigned len = ret->len - start - MPF_LEN;
    memcpy(mpf, "_MP_", 4);
    store_le32(mpf + MPF_ADDRESS, (uint32_t)at + MPF_LEN);
    mpf[MPF_LENGTH] = MPF_LEN / 16;
    mpf[MPF_REVISION] = MP_REVISION;
    mpf[MPF_CHECKSUM] = checksum(mpf, MPF_LEN);
    memcpy(mpc, "PCMP", 4);
    store_le16(mpc + MPC_LENGTH, (uint16_t)len);
    mpc[MPC_REVISION] = MP_REVISION;
    memcpy(mpc + MPC_OEM, "LODGE   ", 8);
    memcpy(mpc + MPC_PRODUCT, "PC          ", 12);
    store_le16(mpc + MPC_ENTRIES, (uint16_t)entries);
    store_le32(mpc + MPC_LAPIC, PC_LAPIC_GPA);
    mpc[MPC_CHECKSUM] = checksum(mpc, len);
    return true;
}
