/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ACPI tables as an operating system finds them: RSDP between 0xE0000 and 0xFFFFF, RSDT and
 * XSDT agree, all sums are 0, FADT, MADT and DSDT are there, the MADT's CPUs are cpus=N; then the
 * guest powers off through PM1a_CNT with the sleep type of \_S5. With "stay" it passes instead; with
 * "wait" it first sleeps until the power button is pressed, as the SCI tells.
 */
#include "lib.h"

enum { SCI = 9, PWRBTN = 1 << 8 }; /* PM1 status and enable, ACPI 6.5 section 4.8.3.1 */

static u16 event_port;
static volatile bool pressed;

static void on_sci(Frame *f)
{
    if (inw(event_port) & PWRBTN) {
        outw(event_port, PWRBTN);
        pressed = true;
    }
    pic_eoi(SCI);
}

static u8 sum(const void *p, u32 n)
{
    u8 s = 0;
    for (const u8 *b = p; n--; b++)
        s += *b;
    return s;
}
static u32 word(const u8 *t, unsigned at)
{
    u32 v;
    memcpy(&v, t + at, 4);
    return v;
}
static const u8 *checked(u32 at, const char *sig)
{
    const u8 *t = (const u8 *)(ulong)at;
    CHECK(at, "no %s", sig);
    CHECK(!memcmp(t, sig, 4), "%s has another signature", sig);
    CHECK(word(t, 4) >= 36 && word(t, 4) < 1 << 20, "%s is %u bytes long", sig, word(t, 4));
    CHECK(!sum(t, word(t, 4)), "the sum of %s is %x", sig, sum(t, word(t, 4)));
    return t;
}
/* \_S5's first element in AML: NameOp "_S5_" PackageOp length count element. -1: not here. */
static int sleep_type(const u8 *t)
{
    for (u32 i = 36; i + 12 < word(t, 4); i++) {
        const u8 *p = t + i;
        if (memcmp(p, "_S5_", 4) || p[4] != 0x12)
            continue;
        p += 5;
        p += 1 + (*p >> 6); /* package length */
        p++;                /* number of elements */
        return *p == 0x0a ? p[1] : *p <= 1 ? *p : -1;
    }
    return -1;
}

void guest_main(void)
{
    const u8 *rsdp = NULL, *fadt = NULL, *madt = NULL, *rsdt, *xsdt = NULL;
    int typ = -1;
    u32 cpus = 0, ioapics = 0, n, port;

    for (ulong a = 0xe0000; a < 0x100000 && !rsdp; a += 16)
        if (!memcmp((void *)a, "RSD PTR ", 8) && !sum((void *)a, 20))
            rsdp = (u8 *)a;
    CHECK(rsdp, "no RSDP");
    rsdt = checked(word(rsdp, 16), "RSDT");
    n = (word(rsdt, 4) - 36) / 4;
    if (rsdp[15] >= 2) {
        CHECK(!sum(rsdp, word(rsdp, 20)), "the RSDP's second sum is %x", sum(rsdp, word(rsdp, 20)));
        xsdt = checked(word(rsdp, 24), "XSDT");
        CHECK((word(xsdt, 4) - 36) / 8 == n, "RSDT and XSDT differ in length");
    }
    for (u32 i = 0; i < n; i++) {
        u32 at = word(rsdt, 36 + 4 * i);
        const u8 *t = (const u8 *)(ulong)at;
        char sig[5] = {(char)t[0], (char)t[1], (char)t[2], (char)t[3], 0};
        checked(at, sig);
        say("%s at %x, %u bytes\n", sig, at, word(t, 4));
        CHECK(!xsdt || (word(xsdt, 36 + 8 * i) == at && !word(xsdt, 40 + 8 * i)),
              "RSDT and XSDT differ in entry %u", i);
        if (!memcmp(sig, "FACP", 4))
            fadt = t;
        if (!memcmp(sig, "APIC", 4))
            madt = t;
        if (!memcmp(sig, "SSDT", 4) && typ < 0)
            typ = sleep_type(t);
    }
    CHECK(fadt && madt, "no FADT or no MADT");
    const u8 *dsdt = checked(word(fadt, 40), "DSDT");
    if (typ < 0)
        typ = sleep_type(dsdt);
    CHECK(typ >= 0, "no \\_S5");
    CHECK(word(madt, 36) == LAPIC, "the MADT has the local APIC at %x", word(madt, 36));
    for (u32 i = 44; i < word(madt, 4); i += madt[i + 1]) {
        CHECK(madt[i + 1] >= 2, "a MADT entry without length");
        cpus += madt[i] == 0 && (madt[i + 4] & 1);
        ioapics += madt[i] == 1 && word(madt, i + 4) == IOAPIC;
    }
    CHECK(ioapics == 1, "%u I/O APICs at %x", ioapics, IOAPIC);
    CHECK(cpus == arg_num("cpus", cpus), "the MADT has %u CPUs, not %u", cpus,
          arg_num("cpus", cpus));
    port = word(fadt, 64);
    say("ACPI: %u CPUs, PM1a control at %x, sleep type of S5 %d\n", cpus, port, typ);
    CHECK(port && fadt[89] == 2, "PM1a control at %x, %u bytes", port, fadt[89]);
    if (arg_has("stay"))
        return;
    if (!(inw((u16)port) & 1) && word(fadt, 48)) {
        outb((u16)word(fadt, 48), fadt[52]);
        for (u64 t = rdtsc(); !(inw((u16)port) & 1);)
            CHECK(rdtsc() - t < 5 * TSC_SECOND, "SCI_EN never comes");
    }
    CHECK(inw((u16)port) & 1, "SCI_EN is clear and there is no SMI command");
    if (arg_has("wait")) {
        event_port = (u16)word(fadt, 56);
        pic_init(0x20);
        on_vector(0x20 + SCI, on_sci);
        pic_mask((u16) ~(1 << 2 | 1 << SCI));
        outw(event_port, PWRBTN);
        outw((u16)(event_port + 2), PWRBTN);
        say("READY\n");
        while (!pressed)
            irq_wait();
        say("the button was pressed\n");
    }
    say("PASS %s\n", guest_name);
    outw((u16)port, (u16)(1 << 13 | typ << 10 | 1));
    for (u64 t = rdtsc(); rdtsc() - t < 5 * TSC_SECOND;)
        cpu_relax();
    fail("still on");
}
