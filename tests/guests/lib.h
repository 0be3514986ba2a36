/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the test guests share: output on COM1, the exit port, interrupts, and the chips that more
 * than one of them drives. A guest is one file with guest_main(); it ends in pass() or fail().
 * Exit protocol: value v to port 0xf4 ends the VM with status ((v << 1) | 1) & 0xff, so that a
 * pass is 33 and a failure 35; the serial line carries "PASS name" or "FAIL name: why".
 */
#ifndef GUEST_LIB_H
#define GUEST_LIB_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned long ulong;

enum { EXIT_PORT = 0xf4, EXIT_PASS = 0x10, EXIT_FAIL = 0x11 };
#define TSC_SECOND 3000000000ull /* of deadlines only: no host counts much faster or slower */

/* ---- ports and memory-mapped registers, one access of exactly this width each ---- */
#define DEFINE_PORT(type, s)                                                                       \
    static inline type in##s(u16 port)                                                             \
    {                                                                                              \
        type v;                                                                                    \
        __asm__ volatile("in" #s " %w1, %0" : "=a"(v) : "Nd"(port));                               \
        return v;                                                                                  \
    }                                                                                              \
    static inline void out##s(u16 port, type v)                                                    \
    {                                                                                              \
        __asm__ volatile("out" #s " %0, %w1" : : "a"(v), "Nd"(port) : "memory");                   \
    }
DEFINE_PORT(u8, b)
DEFINE_PORT(u16, w)
DEFINE_PORT(u32, l)
#define DEFINE_MMIO(bits, s, r)                                                                    \
    static inline u##bits mmio_read##bits(ulong a)                                                 \
    {                                                                                              \
        u##bits v;                                                                                 \
        __asm__ volatile("mov" #s " (%1), %0" : "=" r(v) : "r"(a) : "memory");                     \
        return v;                                                                                  \
    }                                                                                              \
    static inline void mmio_write##bits(ulong a, u##bits v)                                        \
    {                                                                                              \
        __asm__ volatile("mov" #s " %0, (%1)" : : r(v), "r"(a) : "memory");                        \
    }
DEFINE_MMIO(8, b, "q")
DEFINE_MMIO(16, w, "r")
DEFINE_MMIO(32, l, "r")
#ifdef __x86_64__
DEFINE_MMIO(64, q, "r")
#endif
static inline u64 rdtsc(void)
{
    u32 lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (u64)hi << 32 | lo;
}
static inline void cpu_relax(void)
{
    __asm__ volatile("pause" : : : "memory");
}
static inline void irq_enable(void)
{
    __asm__ volatile("sti" : : : "memory");
}
static inline void irq_disable(void)
{
    __asm__ volatile("cli" : : : "memory");
}
/* Sleep for one interrupt: STI holds interrupts back for one instruction, so none slips in before
 * HLT. */
static inline void irq_wait(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* ---- the Multiboot hand-over ---- */
typedef struct MbInfo {
    u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4],
        mmap_length, mmap_addr;
} MbInfo;
typedef struct MbModule {
    u32 start, end, string, reserved;
} MbModule;
typedef struct __attribute__((packed)) MbMmap {
    u32 size;
    u64 addr, len;
    u32 type;
} MbMmap;
extern u32 mb_magic, mb_info_addr;
extern u8 _end[];
const MbInfo *mb_info(void);
const char *cmdline(void);
bool arg_has(const char *word);              /* WORD stands on the command line */
u32 arg_num(const char *key, u32 otherwise); /* key=NUMBER */
bool arg_str(const char *key, char *to, size_t size);

/* ---- output and the end: %s %c %u %d %x, %q and %Q for 64 bits in hexadecimal and decimal ---- */
extern const char *guest_name;
void say(const char *fmt, ...);
void guest_exit(u32 v) __attribute__((noreturn));
void pass(void) __attribute__((noreturn));
void fail(const char *fmt, ...) __attribute__((noreturn));
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond))                                                                               \
            fail(__VA_ARGS__);                                                                     \
    } while (0)

/* ---- interrupts ---- */
#ifdef __x86_64__
typedef struct Frame {
    ulong r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, bx, dx, cx, ax, vector, error, ip, cs,
        flags;
} Frame;
#else
typedef struct Frame {
    ulong di, si, bp, sp, bx, dx, cx, ax, vector, error, ip, cs, flags;
} Frame;
#endif
typedef void (*IrqHandler)(Frame *f);
void on_vector(u8 vector,
               IrqHandler fn); /* others: an exception fails the guest, an interrupt too */
void idt_load(void);           /* the shared table, on this CPU */

void pic_init(u8 base); /* both chips, cascaded, all lines masked */
void pic_mask(u16 mask);
void pic_eoi(unsigned irq);

enum {
    LAPIC = 0xfee00000,
    LAPIC_ID = 0x20,
    LAPIC_EOI = 0xb0,
    LAPIC_SVR = 0xf0,
    LAPIC_ISR = 0x100,
    LAPIC_ICR = 0x300,
    LAPIC_ICR2 = 0x310
};
enum { IOAPIC = 0xfec00000 };
static inline u32 lapic_read(u32 r)
{
    return mmio_read32(LAPIC + r);
}
static inline void lapic_write(u32 r, u32 v)
{
    mmio_write32(LAPIC + r, v);
}
void lapic_enable(void);
u32 ioapic_read(u8 reg);
void ioapic_write(u8 reg, u32 v);
void ioapic_route(unsigned pin, u32 low); /* to this CPU */

/* ---- timers ---- */
enum { PIT_HZ = 1193182 };
void pit0_start(unsigned mode, u16 count);
u64 pit2_measure(
    u16 count); /* TSC ticks that COUNT ticks of channel 2 take, polled through port 0x61 */

/* ---- other CPUs: each runs ap_main(i), i = 1.. in order of arrival, on a stack of its own ---- */
void smp_start_all(void);
void ap_main(u32 index);

void ring3_enter(void (*fn)(void), ulong stack_top) __attribute__((noreturn));

/* ---- PCI mechanism 1, CMOS ---- */
u32 pci_read(unsigned dev, unsigned fn, unsigned reg);
void pci_write(unsigned dev, unsigned fn, unsigned reg, u32 v);
u8 cmos_read(u8 i);
void cmos_write(u8 i, u8 v);
u64 fwcfg_read(u16 key, unsigned bytes); /* little-endian */

void guest_main(void);
int memcmp(const void *a, const void *b, size_t n);
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
size_t strlen(const char *s);
#endif
