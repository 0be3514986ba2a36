/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that says what it was given: command line, memory, modules (name, size, sum of bytes). */
#include "lib.h"

void guest_main(void)
{
    const MbInfo *mb = mb_info();
    const MbModule *m = (const MbModule *)(ulong)mb->mods_addr;
    u32 status = arg_num("exit", EXIT_PASS);

    say("hello from a %u-bit guest\n", (u32)sizeof(void *) * 8);
    say("cmdline: %s\n", cmdline());
    if (mb->flags & 1)
        say("memory: %u KiB below, %u KiB above 1 MiB\n", mb->mem_lower, mb->mem_upper);
    say("modules: %u\n", mb->flags & 8 ? mb->mods_count : 0);
    for (u32 i = 0; (mb->flags & 8) && i < mb->mods_count; i++) {
        u32 sum = 0;
        CHECK(m[i].start < m[i].end && m[i].start >= (ulong)_end, "module %u lies at %x..%x", i,
              m[i].start, m[i].end);
        CHECK(!(m[i].start & 0xfff), "module %u at %x is not page aligned", i, m[i].start);
        for (const u8 *p = (const u8 *)(ulong)m[i].start; p < (const u8 *)(ulong)m[i].end; p++)
            sum += *p;
        say("module %u: '%s' %u bytes, sum %u\n", i,
            m[i].string ? (const char *)(ulong)m[i].string : "", m[i].end - m[i].start, sum);
    }
    say("PASS %s\n", guest_name);
    guest_exit(status);
}
