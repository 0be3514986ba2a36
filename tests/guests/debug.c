/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Something to debug: CPU 0 calls bump(2) again and again and sets `marked` every 16th time, CPU 1
 * (if there is one) counts. Ends on the byte 'q', and says how far it came.
 */
#include "lib.h"

enum { COM1 = 0x3f8, LSR = COM1 + 5, LSR_DR = 1 };
volatile u32 counter, others, marked;

__attribute__((noinline)) void bump(u32 by)
{
    counter += by;
    counter ^= 0;
}

__attribute__((noinline)) void mark(void)
{
    marked = counter;
}

void ap_main(u32 index)
{
    for (;;)
        others += index;
}

void guest_main(void)
{
    u32 calls = 0;

    smp_start_all();
    say("READY\n");
    do {
        bump(2);
        if (++calls % 16 == 0)
            mark();
    } while (!(inb(LSR) & LSR_DR) || inb(COM1) != 'q');
    CHECK(counter == calls * 2, "the counter is %u after %u calls", counter, calls);
    say("calls %u\n", calls);
}
