/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fw_cfg's selector (0x510) and data (0x511) ports: signature, memory size, numbers of CPUs, and
 * zeros after an item's end. */
#include "lib.h"

void guest_main(void)
{
    u64 ram;
    u32 cpus, max;

    CHECK(fwcfg_read(0, 4) == 0x554d4551, "signature is %q", fwcfg_read(0, 4)); /* "QEMU" */
    CHECK(fwcfg_read(0, 4) == 0x554d4551, "selecting again does not start again");
    ram = fwcfg_read(3, 8);
    cpus = (u32)fwcfg_read(5, 2);
    max = (u32)fwcfg_read(15, 2);
    say("fw_cfg: %Q bytes, %u CPUs of %u\n", ram, cpus, max);
    CHECK(ram >= 1 << 20 && !(ram & 0xfff), "memory size %q", ram);
    CHECK(cpus >= 1 && max >= cpus, "%u CPUs of %u", cpus, max);
    CHECK(!arg_num("mem", 0) || ram == (u64)arg_num("mem", 0) << 20,
          "memory is not the %u MiB asked for", arg_num("mem", 0));
    CHECK(!arg_num("cpus", 0) || cpus == arg_num("cpus", 0), "not the %u CPUs asked for",
          arg_num("cpus", 0));
    fwcfg_read(0, 4);
    CHECK(inb(0x511) == 0, "a byte after the end is not 0");
}
