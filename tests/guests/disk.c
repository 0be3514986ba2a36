/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes sectors to the primary IDE master by programmed I/O, and reads them back. Arguments: n=
 * sectors; fails= the first sector whose write must end in an error (none). "follow" writes them
 * over and over, other bytes each time, with a flush and a look at each, until a byte comes in at the
 * serial line; then it says how often that was.
 * Spec: ATA/ATAPI-6, 9.5 and 9.6 (PIO data-in and data-out commands).
 */
#include "lib.h"

enum {
    IDE_DATA = 0x1f0,
    IDE_COUNT = 0x1f2,
    IDE_LBA = 0x1f3,
    IDE_DEVICE = 0x1f6,
    IDE_COMMAND = 0x1f7,
    ST_ERR = 0x01,
    ST_DRQ = 0x08,
    ST_DF = 0x20,
    ST_BSY = 0x80,
    CMD_READ = 0x20,
    CMD_WRITE = 0x30,
    CMD_FLUSH = 0xe7,
    UART_STATUS = 0x3fd,
    WORDS = 256,
    NEVER = 0xffffffff
};

/* The status once the drive is not busy; a machine that stands still makes no time pass here. */
static u8 settle(void)
{
    u8 s;

    do
        s = inb(IDE_COMMAND);
    while (s & ST_BSY);
    return s;
}

static void command(u32 lba, u8 cmd)
{
    settle();
    outb(IDE_DEVICE, 0xe0 | (lba >> 24 & 0xf));
    outb(IDE_COUNT, 1);
    for (unsigned i = 0; i < 3; i++)
        outb(IDE_LBA + i, lba >> (8 * i));
    outb(IDE_COMMAND, cmd);
}

static u16 word_of(u32 lba, unsigned i, u32 round)
{
    return (u16)(lba * 257 + i + 1 + round * 3);
}

static void write_all(u32 n, u32 fails, u32 round)
{
    for (u32 lba = 0; lba < n; lba++) {
        command(lba, CMD_WRITE);
        u8 s = settle();
        CHECK(s & ST_DRQ, "sector %u: status %x wants no data", lba, s);
        for (unsigned i = 0; i < WORDS; i++)
            outw(IDE_DATA, word_of(lba, i, round));
        s = settle();
        CHECK(!!(s & (ST_ERR | ST_DF)) == (lba >= fails), "sector %u: status %x", lba, s);
    }
    command(0, CMD_FLUSH);
    CHECK(!(settle() & (ST_ERR | ST_DF)), "flush failed");
}

static void read_all(u32 n, u32 round)
{
    for (u32 lba = 0; lba < n; lba++) {
        command(lba, CMD_READ);
        u8 s = settle();
        CHECK(s & ST_DRQ, "sector %u: status %x has no data", lba, s);
        for (unsigned i = 0; i < WORDS; i++) {
            u16 v = inw(IDE_DATA);
            CHECK(v == word_of(lba, i, round), "sector %u, round %u: word %u is %x", lba, round, i,
                  v);
        }
    }
}

void guest_main(void)
{
    u32 n = arg_num("n", 4), fails = arg_num("fails", NEVER), round = 0;

    do {
        write_all(n, fails, round);
        read_all(n < fails ? n : fails, round);
        if (arg_has("follow"))
            say(".");
        round++;
    } while (arg_has("follow") && !(inb(UART_STATUS) & 1));
    say("\nrounds: %u\n", round);
    pass();
}
