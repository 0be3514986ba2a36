/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Message-signalled interrupts, by way of a virtio 1.0 entropy device (1af4:1044) on PCI bus 0: one
 * queue, one buffer of 16 bytes a round, MSI-X entry 0 to vector 0x50. A masked entry keeps its
 * message pending and sends it when unmasked. Where no firmware placed the BARs, the guest does.
 */
#include "lib.h"

enum { VECTOR = 0x50, ROUNDS = 20, QSIZE = 8 };
typedef struct Desc {
    u64 addr;
    u32 len;
    u16 flags, next;
} Desc;
static Desc desc[QSIZE] __attribute__((aligned(16)));
static struct {
    u16 flags, idx, ring[QSIZE], used_event;
} avail __attribute__((aligned(2)));
static volatile struct {
    u16 flags, idx;
    struct {
        u32 id, len;
    } ring[QSIZE];
} used __attribute__((aligned(4)));
static volatile u32 irqs;
static u32 next_bar = 0xfe000000;
static unsigned dev;

static void on_msi(Frame *f)
{
    irqs++;
    lapic_write(LAPIC_EOI, 0);
}

static ulong bar_base(unsigned bar)
{
    unsigned reg = 0x10 + 4 * bar;
    u32 v = pci_read(dev, 0, reg), size;

    CHECK(!(v & 1), "BAR %u is a port range", bar);
    if (!(v & ~15u)) {
        pci_write(dev, 0, reg, ~0u);
        size = ~(pci_read(dev, 0, reg) & ~15u) + 1;
        CHECK(size >= 16 && !(size & (size - 1)) && size <= 1 << 24, "BAR %u has size %x", bar,
              size);
        next_bar = (next_bar + size - 1) & ~(size - 1);
        pci_write(dev, 0, reg, next_bar);
        v = next_bar;
        next_bar += size;
        if ((pci_read(dev, 0, reg) & 6) == 4)
            pci_write(dev, 0, reg + 4, 0);
    }
    if ((pci_read(dev, 0, reg) & 6) == 4)
        CHECK(!pci_read(dev, 0, reg + 4) || sizeof(ulong) == 8, "BAR %u lies above 4 GiB", bar);
    return v & ~15u;
}

void guest_main(void)
{
    static u8 buffer[16];
    ulong common = 0, notify = 0, table = 0;
    u32 multiplier = 0, msix = 0;
    u8 status = 0;

    for (dev = 0; dev < 32; dev++)
        if (pci_read(dev, 0, 0) == 0x10441af4)
            break;
    CHECK(dev < 32, "no virtio-rng 1.0 on bus 0");
    pci_write(dev, 0, 4, (pci_read(dev, 0, 4) & 0xffff) & ~6u);
    for (u32 cap = pci_read(dev, 0, 0x34) & 0xfc; cap; cap = pci_read(dev, 0, cap) >> 8 & 0xfc) {
        u32 v = pci_read(dev, 0, cap);
        if ((v & 0xff) == 0x11) {
            u32 t = pci_read(dev, 0, cap + 4);
            msix = cap;
            table = bar_base(t & 7) + (t & ~7u);
        } else if ((v & 0xff) == 9) {
            u32 bar = pci_read(dev, 0, cap + 4) & 0xff, off = pci_read(dev, 0, cap + 8);
            if (v >> 24 == 1 && !common)
                common = bar_base(bar) + off;
            if (v >> 24 == 2 && !notify && !(pci_read(dev, 0, 0x10 + 4 * bar) & 1)) {
                notify = bar_base(bar) + off;
                multiplier = pci_read(dev, 0, cap + 16);
            }
        }
    }
    CHECK(common && notify && msix, "a capability is missing: common %q, notify %q, MSI-X %x",
          (u64)common, (u64)notify, msix);
    pci_write(dev, 0, 4, (pci_read(dev, 0, 4) & 0xffff) | 6 | 1 << 10);

    pic_init(0x20);
    lapic_enable();
    on_vector(VECTOR, on_msi);
    pci_write(dev, 0, msix, pci_read(dev, 0, msix) | 0x80000000u);
    mmio_write32(table, 0xfee00000 | (lapic_read(LAPIC_ID) >> 24) << 12);
    mmio_write32(table + 4, 0);
    mmio_write32(table + 8, VECTOR);
    mmio_write32(table + 12, 0);
    CHECK(mmio_read32(table + 8) == VECTOR, "the MSI-X table does not keep its data");

    mmio_write8(common + 20, 0);
    for (u64 t = rdtsc(); mmio_read8(common + 20);)
        CHECK(rdtsc() - t < 5 * TSC_SECOND, "reset never ends");
    mmio_write8(common + 20, status = 1);
    mmio_write8(common + 20, status |= 2);
    mmio_write32(common + 0, 1);
    CHECK(mmio_read32(common + 4) & 1, "VIRTIO_F_VERSION_1 is not offered");
    mmio_write32(common + 8, 0);
    mmio_write32(common + 12, 0);
    mmio_write32(common + 8, 1);
    mmio_write32(common + 12, 1);
    mmio_write8(common + 20, status |= 8);
    CHECK(mmio_read8(common + 20) & 8, "FEATURES_OK does not stay");
    mmio_write16(common + 22, 0);
    CHECK(mmio_read16(common + 24) >= QSIZE, "the queue has %u entries", mmio_read16(common + 24));
    mmio_write16(common + 24, QSIZE);
    mmio_write16(common + 26, 0);
    CHECK(mmio_read16(common + 26) == 0, "queue vector reads %x", mmio_read16(common + 26));
    ulong parts[3] = {(ulong)desc, (ulong)&avail, (ulong)&used};
    for (unsigned i = 0; i < 3; i++) {
        mmio_write32(common + 32 + 8 * i, (u32)parts[i]);
        mmio_write32(common + 36 + 8 * i, 0);
    }
    u16 noff = mmio_read16(common + 30);
    mmio_write16(common + 28, 1);
    mmio_write8(common + 20, status |= 4);

    for (u32 round = 0; round < ROUNDS; round++) {
        bool masked = round == ROUNDS / 2;
        memset(buffer, 0, sizeof buffer);
        desc[0] = (Desc){(ulong)buffer, sizeof buffer, 2, 0};
        avail.ring[round % QSIZE] = 0;
        __asm__ volatile("" : : : "memory");
        avail.idx = (u16)(round + 1);
        if (masked)
            mmio_write32(table + 12, 1);
        mmio_write16(notify + noff * multiplier, 0);
        if (masked) {
            irq_enable();
            for (u64 t = rdtsc(); used.idx != round + 1;)
                CHECK(rdtsc() - t < 10 * TSC_SECOND, "round %u: the device never answers", round);
            for (u64 t = rdtsc(); rdtsc() - t < TSC_SECOND / 20;)
                cpu_relax();
            irq_disable();
            CHECK(irqs == round, "an interrupt came through a masked entry");
            mmio_write32(table + 12, 0);
        }
        irq_enable();
        for (u64 t = rdtsc(); irqs == round;)
            CHECK(rdtsc() - t < 10 * TSC_SECOND, "round %u: no interrupt", round);
        irq_disable();
        CHECK(irqs == round + 1 && used.idx == round + 1, "round %u: %u interrupts, used index %u",
              round, irqs, used.idx);
        u32 len = used.ring[round % QSIZE].len, any = 0;
        CHECK(len >= 1 && len <= 16, "round %u: %u bytes", round, len);
        for (u32 i = 0; i < len; i++)
            any |= buffer[i];
        CHECK(any || len < 8, "round %u: all bytes are 0", round);
    }
    mmio_write8(common + 20, 0);
    say("virtio-rng: %u interrupts\n", irqs);
}
