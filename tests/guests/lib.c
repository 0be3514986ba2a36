/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See lib.h. The code avoids what KVM's instruction emulator lacks (SSE, POPCNT, CMPXCHG16B, INT3).
 */
#include "lib.h"

enum { COM1 = 0x3f8 };

void *memcpy(void *to, const void *from, size_t n)
{
    u8 *t = to;
    const u8 *f = from;
    while (n--)
        *t++ = *f++;
    return to;
}
void *memset(void *to, int c, size_t n)
{
    u8 *t = to;
    while (n--)
        *t++ = (u8)c;
    return to;
}
int memcmp(const void *a, const void *b, size_t n)
{
    const u8 *x = a, *y = b;
    for (; n--; x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}
size_t strlen(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

/* A 32-bit compiler calls these for 64-bit quotients; the host may have no 32-bit libgcc. */
static u64 divide(u64 n, u64 d, u64 *rest)
{
    u64 q = 0, r = 0;
    if (!(n >> 32) && !(d >> 32)) {
        *rest = (u32)n % (u32)d;
        return (u32)n / (u32)d;
    }
    for (int i = 63; i >= 0; i--) {
        r = r << 1 | (n >> i & 1);
        if (r >= d) {
            r -= d;
            q |= 1ull << i;
        }
    }
    *rest = r;
    return q;
}
u64 __udivdi3(u64 n, u64 d);
u64 __umoddi3(u64 n, u64 d);
u64 __udivdi3(u64 n, u64 d)
{
    u64 r;
    return divide(n, d, &r);
}
u64 __umoddi3(u64 n, u64 d)
{
    u64 r;
    divide(n, d, &r);
    return r;
}

/* ---- output ---- */
static void put(char c)
{
    if (c == '\n')
        put('\r');
    while (!(inb(COM1 + 5) & 0x20))
        cpu_relax();
    outb(COM1, (u8)c);
}
static void put_number(u64 v, unsigned base)
{
    char b[24];
    int i = 0;
    do {
        u64 r;
        v = divide(v, base, &r);
        b[i++] = "0123456789abcdef"[r];
    } while (v);
    while (i)
        put(b[--i]);
}
static void vsay(const char *f, va_list ap)
{
    for (; *f; f++) {
        if (*f != '%') {
            put(*f);
            continue;
        }
        switch (*++f) {
        case 's':
            for (const char *s = va_arg(ap, const char *); *s; s++)
                put(*s);
            break;
        case 'c':
            put((char)va_arg(ap, int));
            break;
        case 'd': {
            int v = va_arg(ap, int);
            if (v < 0)
                put('-');
            put_number(v < 0 ? -(u32)v : (u32)v, 10);
            break;
        }
        case 'u':
            put_number(va_arg(ap, u32), 10);
            break;
        case 'x':
            put_number(va_arg(ap, u32), 16);
            break;
        case 'q':
            put_number(va_arg(ap, u64), 16);
            break;
        case 'Q':
            put_number(va_arg(ap, u64), 10);
            break;
        default:
            put(*f);
        }
    }
}
void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsay(fmt, ap);
    va_end(ap);
}
static bool in_ring3(void)
{
    u16 cs;

    __asm__("mov %%cs, %0" : "=r"(cs));
    return cs & 3;
}
void guest_exit(u32 v)
{
    outb(EXIT_PORT, (u8)v);
    for (;;) { /* QEMU may end a little later */
        if (in_ring3())
            __asm__ volatile("pause");
        else
            __asm__ volatile("cli; hlt");
    }
}
void pass(void)
{
    say("PASS %s\n", guest_name);
    guest_exit(EXIT_PASS);
}
void fail(const char *fmt, ...)
{
    va_list ap;

    if (!in_ring3()) /* not every host lets ring 3 */
        irq_disable();
    say("FAIL %s: ", guest_name);
    va_start(ap, fmt);
    vsay(fmt, ap);
    va_end(ap);
    say("\n");
    guest_exit(EXIT_FAIL);
}

/* ---- Multiboot ---- */
const MbInfo *mb_info(void)
{
    return (const MbInfo *)(ulong)mb_info_addr;
}
const char *cmdline(void)
{
    return mb_info()->flags & 4 ? (const char *)(ulong)mb_info()->cmdline : "";
}
/* The text after KEY where KEY begins a word, or NULL. */
static const char *find_word(const char *key)
{
    size_t n = strlen(key);
    for (const char *s = cmdline(); *s; s++)
        if ((s == cmdline() || s[-1] == ' ') && !memcmp(s, key, n))
            return s + n;
    return NULL;
}
bool arg_has(const char *word)
{
    const char *s = find_word(word);
    return s && (*s == ' ' || !*s);
}
bool arg_str(const char *key, char *to, size_t size)
{
    const char *s = find_word(key);
    if (!s || *s++ != '=')
        return false;
    for (; *s && *s != ' ' && size > 1; size--)
        *to++ = *s++;
    *to = 0;
    return true;
}
u32 arg_num(const char *key, u32 otherwise)
{
    char b[12];
    u32 v = 0;
    if (!arg_str(key, b, sizeof b))
        return otherwise;
    for (char *s = b; *s >= '0' && *s <= '9'; s++)
        v = v * 10 + (u32)(*s - '0');
    return v;
}

/* ---- interrupts ---- */
extern u8 isr_stubs[], ap_trampoline[], ap_trampoline_end[], gdt_tss[];
extern u32 ap_index;
static IrqHandler handlers[256];
#ifdef __x86_64__
static struct {
    u16 lo, cs, attr, mid;
    u32 hi, zero;
} idt[256];
static struct __attribute__((packed)) {
    u32 r;
    u64 sp[3], r2, ist[7], r3;
    u16 r4, iomap;
    u8 ports[8193];
} tss;
#else
static struct {
    u16 lo, cs, attr, mid;
} idt[256];
static struct __attribute__((packed)) {
    u32 link, sp0, ss0, rest[22];
    u16 trap, iomap;
    u8 ports[8193];
} tss;
#endif
static u8 ring0_stack[8192] __attribute__((aligned(16)));

void isr_dispatch(Frame *f);
void isr_dispatch(Frame *f)
{
    if (handlers[f->vector])
        handlers[f->vector](f);
    else
        fail("%s %u, error %x, at %x:%q", f->vector < 32 ? "exception" : "stray interrupt",
             (u32)f->vector, (u32)f->error, (u32)f->cs, (u64)f->ip);
}
void on_vector(u8 vector, IrqHandler fn)
{
    handlers[vector] = fn;
}
void idt_load(void)
{
    struct __attribute__((packed)) {
        u16 limit;
        ulong base;
    } p = {sizeof idt - 1, (ulong)idt};
    __asm__ volatile("lidt %0" : : "m"(p));
}
void lib_start(void);
void lib_start(void)
{
    ulong t = (ulong)&tss;
    u16 cs;

    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    for (unsigned i = 0; i < 256; i++) {
        ulong a = (ulong)isr_stubs + 16 * i;
        idt[i].lo = (u16)a;
        idt[i].cs = cs;
        idt[i].attr = 0x8e00;
        idt[i].mid = (u16)(a >> 16);
    }
    idt_load();
    /* All ports are open to ring 3 by the map as well as by IOPL: a host that runs ring 3 itself
     * does not carry IOPL into it. The byte after the map must be ones. */
    tss.iomap = (u16)offsetof(__typeof__(tss), ports);
    tss.ports[8192] = 0xff;
#ifdef __x86_64__
    tss.sp[0] = (ulong)(ring0_stack + sizeof ring0_stack);
#else
    tss.sp0 = (ulong)(ring0_stack + sizeof ring0_stack);
    tss.ss0 = 0x10;
#endif
    /* An available 32- or 64-bit TSS; the image lies below 4 GiB. */
    ((u32 *)gdt_tss)[0] = (u32)(t << 16) | (sizeof tss - 1);
    ((u32 *)gdt_tss)[1] = ((u32)t & 0xff000000) | 0x8900 | ((u32)t >> 16 & 0xff);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);
    CHECK(mb_magic == 0x2BADB002, "EAX at entry is %x", mb_magic);
    guest_main();
    pass();
}

void pic_init(u8 base)
{
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, base);
    outb(0xa1, base + 8);
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, 1);
    outb(0xa1, 1);
    pic_mask(0xffff);
}
void pic_mask(u16 mask)
{
    outb(0x21, (u8)mask);
    outb(0xa1, (u8)(mask >> 8));
}
void pic_eoi(unsigned irq)
{
    if (irq >= 8)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
}

void lapic_enable(void)
{
    lapic_write(LAPIC_SVR, 0x1ff);
}
u32 ioapic_read(u8 reg)
{
    mmio_write32(IOAPIC, reg);
    return mmio_read32(IOAPIC + 0x10);
}
void ioapic_write(u8 reg, u32 v)
{
    mmio_write32(IOAPIC, reg);
    mmio_write32(IOAPIC + 0x10, v);
}
void ioapic_route(unsigned pin, u32 low)
{
    ioapic_write((u8)(0x11 + 2 * pin), lapic_read(LAPIC_ID) & 0xff000000);
    ioapic_write((u8)(0x10 + 2 * pin), low);
}

/* ---- timers ---- */
void pit0_start(unsigned mode, u16 count)
{
    outb(0x43, (u8)(0x30 | mode << 1));
    outb(0x40, (u8)count);
    outb(0x40, (u8)(count >> 8));
}
u64 pit2_measure(u16 count)
{
    u64 t;
    outb(0x61, (inb(0x61) & ~3) | 0); /* gate and speaker off */
    outb(0x43, 0xb0);                 /* channel 2, mode 0: OUT rises when the count ends */
    outb(0x42, (u8)count);
    outb(0x42, (u8)(count >> 8));
    outb(0x61, (inb(0x61) & ~3) | 1);
    t = rdtsc();
    while (!(inb(0x61) & 0x20))
        CHECK(rdtsc() - t < 10 * TSC_SECOND, "channel 2 never ends");
    return rdtsc() - t;
}

/* ---- other CPUs ---- */
__attribute__((weak)) void ap_main(u32 index)
{
    (void)index;
}
static void spin(u64 ticks)
{
    for (u64 t = rdtsc(); rdtsc() - t < ticks;)
        cpu_relax();
}
void smp_start_all(void)
{
    memcpy((void *)0x8000, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
    lapic_enable();
    lapic_write(LAPIC_ICR, 0xc4500); /* INIT to all but self */
    spin(TSC_SECOND / 100);
    lapic_write(LAPIC_ICR, 0xc4608); /* start at 0x8000 */
    spin(TSC_SECOND / 1000);
    lapic_write(LAPIC_ICR, 0xc4608); /* a CPU that runs already ignores the second */
}

/* ---- PCI, CMOS, fw_cfg ---- */
u32 pci_read(unsigned dev, unsigned fn, unsigned reg)
{
    outl(0xcf8, 0x80000000u | dev << 11 | fn << 8 | (reg & 0xfc));
    return inl(0xcfc);
}
void pci_write(unsigned dev, unsigned fn, unsigned reg, u32 v)
{
    outl(0xcf8, 0x80000000u | dev << 11 | fn << 8 | (reg & 0xfc));
    outl(0xcfc, v);
}
u8 cmos_read(u8 i)
{
    outb(0x70, i);
    return inb(0x71);
}
void cmos_write(u8 i, u8 v)
{
    outb(0x70, i);
    outb(0x71, v);
}
u64 fwcfg_read(u16 key, unsigned bytes)
{
    u64 v = 0;
    outw(0x510, key);
    for (unsigned i = 0; i < bytes; i++)
        v |= (u64)inb(0x511) << (8 * i);
    return v;
}
