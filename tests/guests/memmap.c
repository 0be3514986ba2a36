/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory map against memory: a mark at both ends of every usable region of the Multiboot map,
 * all written before any is read back, so that a region seen twice shows; the regions do not
 * overlap and add up to what fw_cfg says; nothing answers in the PCI hole. 64-bit only: it maps
 * what lies above 4 GiB.
 */
#include "lib.h"

extern u64 pdpt[512];
enum { MAX = 64, PCI_HOLE = 0xfd000000 };
static u64 spots[MAX];
static u64 old[MAX];
static u32 n_spots;
static u64 extra_dirs[64][512] __attribute__((aligned(4096)));
static u32 n_dirs;

static void map(u64 a)
{
    u64 gib = a >> 30;
    if (pdpt[gib])
        return;
    CHECK(n_dirs < 64 && gib < 512, "too much memory to map");
    u64 *dir = extra_dirs[n_dirs++];
    for (u64 i = 0; i < 512; i++)
        dir[i] = (gib << 30) + (i << 21) + 0x87;
    pdpt[gib] = (u64)dir | 7;
}
static bool in_use(u64 a)
{
    const MbInfo *mb = mb_info();
    if (a < 0x1000 || (a >= 0x100000 - 8 && a < (u64)_end))
        return true;
    if (a + 8 > (u64)mb && a < (u64)mb + 256)
        return true;
    if (a + 8 > mb->mmap_addr && a < mb->mmap_addr + mb->mmap_length)
        return true;
    return a + 8 > mb->cmdline && a < (u64)mb->cmdline + 4096;
}
static void spot(u64 a)
{
    map(a);
    CHECK(n_spots < MAX, "too many regions");
    spots[n_spots] = a;
    old[n_spots++] = *(volatile u64 *)a;
}

void guest_main(void)
{
    const MbInfo *mb = mb_info();
    u64 usable = 0, ram = fwcfg_read(3, 8), high = 0;

    CHECK(mb->flags & 0x40, "no memory map");
    for (u64 p = mb->mmap_addr; p < (u64)mb->mmap_addr + mb->mmap_length;
         p += *(const u32 *)p + 4) {
        const MbMmap *e = (const MbMmap *)p;
        say("%q + %q type %u\n", e->addr, e->len, e->type);
        for (u64 q = mb->mmap_addr; q < p; q += *(const u32 *)q + 4) {
            const MbMmap *f = (const MbMmap *)q;
            CHECK(e->addr >= f->addr + f->len || f->addr >= e->addr + e->len,
                  "two entries overlap at %q", e->addr);
        }
        if (e->type != 1)
            continue;
        CHECK(e->len >= 16, "a usable region of %Q bytes", e->len);
        CHECK(e->addr + e->len <= 0xe0000000 || e->addr >= 1ull << 32, "memory in the PCI hole");
        usable += e->len;
        if (e->addr >= 1ull << 32)
            high += e->len;
        u64 first = (e->addr + 7) & ~7ull, last = (e->addr + e->len - 8) & ~7ull;
        if (in_use(first))
            first = first < 0x1000 ? 0x1000 : ((u64)_end + 0xfffff) & ~0xfffffull;
        if (first < last && !in_use(first))
            spot(first);
        if (!in_use(last))
            spot(last);
    }
    for (u32 i = 0; i < n_spots; i++)
        *(volatile u64 *)spots[i] = 0x5a5a000000000000ull ^ spots[i] ^ (u64)i << 56;
    for (u32 i = 0; i < n_spots; i++)
        CHECK(*(volatile u64 *)spots[i] == (0x5a5a000000000000ull ^ spots[i] ^ (u64)i << 56),
              "%q does not keep what was written", spots[i]);
    for (u32 i = n_spots; i--;)
        *(volatile u64 *)spots[i] = old[i];
    say("%Q KiB usable, %Q above 4 GiB, fw_cfg says %Q\n", usable >> 10, high >> 10, ram >> 10);
    CHECK(usable <= ram && ram - usable < 2 << 20, "the map does not add up to what fw_cfg says");
    CHECK(!arg_num("mem", 0) || ram == (u64)arg_num("mem", 0) << 20,
          "memory is not the %u MiB asked for", arg_num("mem", 0));
    mmio_write32(PCI_HOLE, 0);
    u64 ones = arg_num("hole", 1) ? ~0ull : 0; /* 0 for emulators that answer so */
    CHECK(mmio_read64(PCI_HOLE) == ones, "something answers at %x", PCI_HOLE);
    map(1ull << 38);
    CHECK(*(volatile u64 *)(1ull << 38) == ones, "something answers far above memory");
}
