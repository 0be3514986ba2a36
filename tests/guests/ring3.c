/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ring 3 with IOPL 3: n million (100) iterations of a loop, then the exit port, all without a
 * kernel below. The 64-bit one runs at the CPU's own speed wherever there is a /dev/kvm; without
 * paging, as in the 32-bit one, a host that lacks hardware assist emulates ring 3 too. First a
 * privileged instruction must fault there, and an interrupt must get in and out again.
 */
#include "lib.h"

static volatile u32 faults, ticks;

static void on_gp(Frame *f)
{
    CHECK((f->cs & 3) == 3, "fault %u in ring %u at %q", (u32)f->vector, (u32)f->cs & 3,
          (u64)f->ip);
    faults++;
    f->ip += 2; /* skips the two bytes of CLTS */
}
static void on_tick(Frame *f)
{
    CHECK((f->cs & 3) == 3, "tick in ring %u", (u32)f->cs & 3);
    ticks++;
    pic_eoi(0);
}

static void user(void)
{
    u32 n = arg_num("n", 100) * 1000000u;
    u64 t;

    __asm__ volatile("clts");
    CHECK(faults == 1, "clts in ring 3 faulted %u times", faults);
    if (arg_has("ticks")) {
        pic_mask(0xfffe); /* the interrupt flag has been set since ring 0: not every host lets ring
                             3 set it */
        while (ticks < 10)
            cpu_relax();
        pic_mask(0xffff);
    }
    t = rdtsc();
    __asm__ volatile("1: dec %0; jnz 1b" : "+r"(n));
    say("ring3 %Q cycles\n", rdtsc() - t);
    pass();
}

void guest_main(void)
{
    static u8 stack[4096] __attribute__((aligned(16)));
    pic_init(0x20);
    on_vector(13, on_gp);
    on_vector(0x20, on_tick);
    pit0_start(2, PIT_HZ / 100);
    irq_enable();
    ring3_enter(user, (ulong)(stack + sizeof stack - 8));
}
