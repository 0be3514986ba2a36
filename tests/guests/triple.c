/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A triple fault: with no interrupt table the exception of UD2 cannot be delivered, nor the double
 * fault after it. A PC resets then; what the VMM makes of that is its option. With "once" a CMOS
 * byte tells the second boot from the first, and the second passes.
 */
#include "lib.h"

enum { MARK = 0x50, MARKED = 0xa5 };

void guest_main(void)
{
    struct __attribute__((packed)) {
        u16 limit;
        ulong base;
    } none = {0, 0};

    if (arg_has("once")) {
        if (cmos_read(MARK) == MARKED) {
            cmos_write(MARK, 0);
            return;
        }
        cmos_write(MARK, MARKED);
    }
    say("triple fault now\n");
    __asm__ volatile("lidt %0; ud2" : : "m"(none));
    fail("still here");
}
