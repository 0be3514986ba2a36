/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_IDE_FIX_H
#define LODGE_IDE_FIX_H

/*
 * A board with the IDE controller, media in memory whose requests wait until they are let go, and
 * what a driver does at the ports. Stands for the block layer: it defines its functions.
 */
#include "lodge/block.h"
#include "testboard.h"

#define IDE_PRIMARY 0x1f0
#define IDE_SECONDARY 0x170
#define IDE_CONTROL(base) ((uint16_t)((base) + 0x206))
#define IDE_BM 0xc000 /* of the primary channel; the secondary's is 8 further */
#define IDE_DEVFN (1 << 3 | 1)
#define IDE_RAM (4u << 20)

struct BlkNode {
    BlkLimits limits;
    uint8_t *disk; /* owned */
    GQueue held;   /* BlkReq */
    uint64_t bad_from, bad_to; /* sectors that fail with EIO */
    int err;       /* of every request */
    BlkReq last;   /* a copy of the last request */
    unsigned ops[6];
};

typedef struct IdeFix {
    TestBoard *tb;
    uint8_t *ram;
    BlkNode *node[4];
} IdeFix;

/* Sector i of a medium holds its number and bytes that follow from it. */
BlkNode *ide_medium_new(uint64_t sectors);
void ide_medium_free(BlkNode *n);
/* Whether @p is sector @i of a new medium. */
bool ide_is_sector(const uint8_t *p, uint32_t i);
/* Finish what is held and what that brings about; returns how many. */
unsigned ide_let_go(BlkNode *n);

/* A board with the controller, ports enabled, BAR 4 at IDE_BM, and memory below IDE_RAM. */
void ide_fix_up(IdeFix *f);
void ide_fix_down(IdeFix *f);
/* Add a drive of @sectors on @unit; 0: without a medium. @more: further properties or NULL. */
Device *ide_fix_drive(IdeFix *f, const char *cls, unsigned unit, uint64_t sectors,
                      const char *more);
void ide_settle(IdeFix *f);

uint8_t ide_in(IdeFix *f, unsigned base, unsigned reg);
void ide_out(IdeFix *f, unsigned base, unsigned reg, uint8_t val);
uint8_t ide_alt(IdeFix *f, unsigned base);
/* Select, address, count, command; LBA28, or LBA48 with @ext. Nothing is let go. */
void ide_cmd(IdeFix *f, unsigned base, uint8_t device, uint64_t lba, unsigned count, uint8_t cmd,
             bool ext);
void ide_read_words(IdeFix *f, unsigned base, void *to, unsigned bytes);
void ide_write_words(IdeFix *f, unsigned base, const void *from, unsigned bytes);
bool ide_irq(IdeFix *f, unsigned base); /* level of the channel's pin, as the PIC sees it */

/* Write a table at @at of (address, length) pairs; the last gets EOT. 65536 is written as 0. */
typedef struct IdePrd {
    uint32_t addr, len;
} IdePrd;
void ide_table(IdeFix *f, uint32_t at, const IdePrd *prd, unsigned n);
void ide_bm_start(IdeFix *f, unsigned base, uint32_t table, bool to_memory);
void ide_bm_stop(IdeFix *f, unsigned base);
uint8_t ide_bm_status(IdeFix *f, unsigned base);
void ide_bm_clear(IdeFix *f, unsigned base);

#endif
