/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starting the other CPUs: INIT and start-up to all but self, then each counts itself with a locked
 * add, and the count must be what the MP table, fw_cfg and cpus=N say. After that all of them add
 * to one counter together, and each must have an APIC ID of its own.
 */
#include "lib.h"

enum { ROUNDS = 1000 };
static volatile u32 arrived, total, done, go, ids[8];

void ap_main(u32 index)
{
    u32 id = lapic_read(LAPIC_ID) >> 24;

    (void)index;
    __asm__ volatile("lock; orl %1, %0" : "+m"(ids[id / 32]) : "r"(1u << id % 32));
    __asm__ volatile("lock; incl %0" : "+m"(arrived));
    while (!go)
        cpu_relax();
    for (u32 i = 0; i < ROUNDS; i++)
        __asm__ volatile("lock; incl %0" : "+m"(total));
    __asm__ volatile("lock; incl %0" : "+m"(done));
}

static const u8 *find_mp(ulong from, ulong to)
{
    for (ulong a = from; a + 16 <= to; a += 16) {
        u8 sum = 0;
        if (memcmp((void *)a, "_MP_", 4))
            continue;
        for (int i = 0; i < 16; i++)
            sum += ((u8 *)a)[i];
        if (!sum)
            return (u8 *)a;
    }
    return NULL;
}

/* Enabled CPUs in the MP table, 0 where there is none. */
static u32 mp_cpus(void)
{
    const u8 *mp, *t, *e;
    u32 cpus = 0;
    u8 sum = 0;

    ulong ebda = (ulong)mb_info()->mem_lower * 1024;
    mp = find_mp(0x9fc00, 0xa0000);
    if (!mp && ebda >= 0x80000 && ebda < 0xa0000)
        mp = find_mp(ebda, 0xa0000);
    if (!mp)
        mp = find_mp(0xf0000, 0x100000);
    if (!mp)
        mp = find_mp(0xe0000, 0xf0000);
    if (!mp)
        return 0;
    t = (const u8 *)(ulong) * (const u32 *)(mp + 4);
    CHECK(!memcmp(t, "PCMP", 4), "the MP configuration table has no signature");
    for (u32 i = 0; i < *(const u16 *)(t + 4); i++)
        sum += t[i];
    CHECK(!sum, "the MP configuration table's sum is %x", sum);
    CHECK(*(const u32 *)(t + 36) == LAPIC, "the MP table has the local APIC at %x",
          *(const u32 *)(t + 36));
    e = t + 44;
    for (u32 n = *(const u16 *)(t + 34); n; n--) {
        if (*e == 0 && (e[3] & 1))
            cpus++;
        e += *e == 0 ? 20 : 8;
    }
    return cpus;
}

void guest_main(void)
{
    u32 fw = (u32)fwcfg_read(5, 2), mp = mp_cpus(), want = arg_num("cpus", fw), seen = 0;
    u64 t;

    say("CPUs: MP table %u, fw_cfg %u, asked for %u\n", mp, fw, want);
    CHECK(fw == want, "fw_cfg says %u CPUs, not %u", fw, want);
    CHECK(mp == want, "the MP table has %u CPUs, not %u", mp, want);
    smp_start_all();
    for (t = rdtsc(); arrived < want - 1;)
        CHECK(rdtsc() - t < 20 * TSC_SECOND, "%u of %u other CPUs came", arrived, want - 1);
    for (t = rdtsc(); rdtsc() - t < TSC_SECOND / 50;)
        cpu_relax();
    CHECK(arrived == want - 1, "%u other CPUs came, not %u", arrived, want - 1);
    ids[0] |= 1u << (lapic_read(LAPIC_ID) >> 24);
    for (u32 i = 0; i < 256; i++)
        seen += ids[i / 32] >> i % 32 & 1;
    CHECK(seen == want, "%u APIC IDs on %u CPUs", seen, want);
    go = 1;
    for (t = rdtsc(); done < want - 1;)
        CHECK(rdtsc() - t < 20 * TSC_SECOND, "%u of %u CPUs finished", done, want - 1);
    CHECK(total == (want - 1) * ROUNDS, "the counter is %u, not %u", total, (want - 1) * ROUNDS);
}
