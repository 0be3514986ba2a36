/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bus widths and string I/O. Ports: the UART's scratch register (0x3ff) takes any byte, and wider
 * accesses to byte-wide chips are split, low part first; unclaimed ports and memory read as all
 * ones of the access's width, and writes there vanish. String instructions reach the same
 * registers one element at a time.
 */
#include "lib.h"

enum { SCRATCH = 0x3ff, NOBODY = 0x5550, HOLE = 0xfd000000 };

static void ports(void)
{
    outb(0x80, 1);
    outw(0x80, 1);
    outl(0x80, 1);
    for (u32 v = 0; v < 256; v += 51) {
        outb(SCRATCH, (u8)v);
        CHECK(inb(SCRATCH) == v, "scratch: wrote %x, read %x", v, inb(SCRATCH));
    }
    outb(SCRATCH, 0x5a);
    CHECK(inw(0x3fe) >> 8 == 0x5a, "16-bit read over two byte registers gives %x", inw(0x3fe));
    CHECK(inl(0x3fc) >> 24 == 0x5a, "32-bit read over four byte registers gives %x", inl(0x3fc));
    outw(0x3fe, 0xa500);
    CHECK(inb(SCRATCH) == 0xa5, "16-bit write over two byte registers left %x", inb(SCRATCH));
    outb(NOBODY, 0);
    outw(NOBODY, 0);
    outl(NOBODY, 0);
    CHECK(inb(NOBODY) == 0xff && inw(NOBODY) == 0xffff && inl(NOBODY) == 0xffffffff,
          "unclaimed port is not all ones");
    CHECK(inl(0xfffc) == 0xffffffff, "the last ports are not all ones");
    say("ok ports\n");
}

static void strings(void)
{
    static u8 from[8] = {1, 2, 3, 4, 5, 6, 7, 0x3c}, to[8];
    static u16 words[4] = {0x1100, 0x2200, 0x3300, 0x7700};
    static u32 longs[4];
    const void *s;
    void *d;
    ulong n;

    s = from, n = 8;
    __asm__ volatile("cld; rep outsb" : "+S"(s), "+c"(n) : "d"(SCRATCH) : "memory");
    CHECK(inb(SCRATCH) == 0x3c && n == 0 && s == from + 8, "rep outsb: left %x, count %u",
          inb(SCRATCH), (u32)n);
    d = to, n = 8;
    __asm__ volatile("cld; rep insb" : "+D"(d), "+c"(n) : "d"(SCRATCH) : "memory");
    for (int i = 0; i < 8; i++)
        CHECK(to[i] == 0x3c, "rep insb: byte %d is %x", i, to[i]);
    CHECK(n == 0 && d == to + 8, "rep insb: count %u", (u32)n);
    s = words, n = 4;
    __asm__ volatile("cld; rep outsw" : "+S"(s), "+c"(n) : "d"(0x3fe) : "memory");
    CHECK(inb(SCRATCH) == 0x77 && n == 0, "rep outsw: left %x", inb(SCRATCH));
    d = to, n = 4;
    __asm__ volatile("cld; rep insw" : "+D"(d), "+c"(n) : "d"(0x3fe) : "memory");
    CHECK(to[1] == 0x77 && to[7] == 0x77, "rep insw: %x %x", to[1], to[7]);
    d = longs, n = 4;
    __asm__ volatile("cld; rep insl" : "+D"(d), "+c"(n) : "d"(NOBODY) : "memory");
    for (int i = 0; i < 4; i++)
        CHECK(longs[i] == 0xffffffff, "rep insl: long %d is %x", i, longs[i]);
    /* Backwards: the direction flag counts too. */
    d = to + 7, n = 8;
    outb(SCRATCH, 0x19);
    __asm__ volatile("std; rep insb; cld" : "+D"(d), "+c"(n) : "d"(SCRATCH) : "memory");
    CHECK(to[0] == 0x19 && to[7] == 0x19 && d == to - 1, "rep insb downwards: %x %x", to[0], to[7]);
    n = 0, s = from;
    __asm__ volatile("rep outsb" : "+S"(s), "+c"(n) : "d"(SCRATCH) : "memory");
    CHECK(inb(SCRATCH) == 0x19 && s == from, "rep outsb of nothing did something");
    say("ok strings\n");
}

static void memory(void)
{
    mmio_write32(IOAPIC, 1);
    CHECK((mmio_read32(IOAPIC) & 0xff) == 1, "IOREGSEL reads %x", mmio_read32(IOAPIC));
    CHECK((mmio_read32(IOAPIC + 0x10) >> 16 & 0xff) == 23, "IOAPIC version register is %x",
          mmio_read32(IOAPIC + 0x10));
    mmio_write8(HOLE, 0);
    mmio_write16(HOLE + 2, 0);
    mmio_write32(HOLE + 4, 0);
    /* hole=0 is for emulators that answer 0 where a PC's bus floats high. */
    ulong ones = (ulong) - (arg_num("hole", 1) != 0);
    CHECK(mmio_read8(HOLE) == (u8)ones && mmio_read16(HOLE + 2) == (u16)ones &&
              mmio_read32(HOLE + 4) == (u32)ones,
          "unclaimed memory is not all ones");
    CHECK(mmio_read32(HOLE + 0xffd) == (u32)ones, "unclaimed memory across a page is not all ones");
#ifdef __x86_64__
    mmio_write64(HOLE + 8, 0);
    CHECK(mmio_read64(HOLE + 8) == ones, "unclaimed memory is not all ones, 64 bits");
#endif
    say("ok memory\n");
}

void guest_main(void)
{
    ports();
    strings();
    memory();
}
