/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an OUT costs: n (200000) writes of a byte to port 0x80, in TSC cycles each, less the loop.
 * With the word "ring3" the loop runs in ring 3 with IOPL 3, which needs no instruction emulation
 * on hosts without hardware assist.
 */
#include "lib.h"

static void measure(void)
{
    u32 n = arg_num("n", 200000);
    u16 port = (u16)arg_num("port", 0x80);
    u64 t0, t1, t2;

    /* tests/bench/bare_kvm.c runs the same two loops. */
    t0 = rdtsc();
    u32 left = n;
    __asm__ volatile("1: decl %0; jnz 1b" : "+r"(left) : : "cc");
    t1 = rdtsc();
    left = n;
    __asm__ volatile("1: outb %%al, %%dx; decl %0; jnz 1b" : "+c"(left) : "a"(0), "d"(port) : "cc");
    t2 = rdtsc();
    u64 d = (t2 - t1) - (t1 - t0);
    say("exitcost %u outs, %Q cycles each, ring %u\n", n, d / n, arg_has("ring3") ? 3 : 0);
    pass();
}

void guest_main(void)
{
    static u8 stack[4096] __attribute__((aligned(16)));
    if (arg_has("ring3"))
        ring3_enter(measure, (ulong)(stack + sizeof stack - 8));
    measure();
}
