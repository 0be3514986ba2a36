/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An instruction that some hosts cannot run in ring 0: where KVM emulates all of ring 0, its
 * emulator stops on these, and the VMM must say so and end. Where the CPU runs them itself the
 * exception, if any, comes here and the guest passes. how=int3 (default), ud2, clac, popcnt, xgetbv
 */
#include "lib.h"

static volatile u32 seen;
static void on_trap(Frame *f)
{
    seen = 1 + (u32)f->vector;
    if (f->vector == 6)
        f->ip += 2;
}

void guest_main(void)
{
    char how[16] = "int3";

    arg_str("how", how, sizeof how);
    on_vector(3, on_trap);
    on_vector(6, on_trap);
    say("about to run %s\n", how);
    switch (how[0]) {
    case 'i':
        __asm__ volatile("int3");
        break;
    case 'u':
        __asm__ volatile("ud2");
        CHECK(seen == 7, "ud2 did not fault");
        break;
    case 'c':
        __asm__ volatile("clac" : : : "memory");
        break;
    case 'p': {
        ulong v = 0xff;
        __asm__ volatile("popcnt %0, %0" : "+r"(v));
        CHECK(v == 8, "popcnt gives %u", (u32)v);
        break;
    }
    default:
        __asm__ volatile("xgetbv" : : "c"(0) : "eax", "edx");
    }
    say("it came back, exception %d\n", (int)seen - 1);
}
