/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_TESTBOARD_H
#define LODGE_TESTBOARD_H

/*
 * A board without KVM: real buses, real interrupt router, real memory, a clock that the test
 * moves. What reaches the CPU side is recorded.
 */

#include "lodge/device.h"

typedef struct TestMsi {
    uint64_t addr;
    uint32_t data;
} TestMsi;

typedef struct TestBoard {
    Board board;
    BusReader *pio, *mmio;
    GPtrArray *devices; /* owned, in order of making */
    GArray *msis;       /* TestMsi: messages delivered; lock it while loops run */
    GMutex msis_lock;
    bool extint;        /* PIC's INTR */
    unsigned requests[16]; /* by BoardRequest */
    int last_arg;
    GHashTable *backends; /* name -> BlkNode, NetPort or Chan; borrowed */
} TestBoard;

/* @ram_bytes of memory at 0 (multiple of 4096; at most 3 GiB). */
TestBoard *test_board_new(uint64_t ram_bytes);
void test_board_free(TestBoard *tb); /* frees the devices in reverse */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TestBoard, test_board_free)
/* Make, set "a=b,c=d" (NULL: none), realize; the test fails if that fails. Transfer none. */
Device *test_board_add(TestBoard *tb, const char *cls, const char *props);
void test_board_backend(TestBoard *tb, const char *name, void *backend);
uint64_t test_in(TestBoard *tb, uint16_t port, unsigned size);
void test_out(TestBoard *tb, uint16_t port, unsigned size, uint64_t val);
uint64_t test_peek(TestBoard *tb, uint64_t addr, unsigned size); /* MMIO */
void test_poke(TestBoard *tb, uint64_t addr, unsigned size, uint64_t val);
/* Set the 8259 pair up as a PC does, vectors from 0x20 and 0x28, ending interrupts by itself. */
void test_pic_auto_eoi(TestBoard *tb);
/* Move the clock, firing timers on the way. */
void test_advance(TestBoard *tb, int64_t ns);
/* PCI configuration by the window at 0xCF8. */
uint32_t test_cfg_read(TestBoard *tb, uint8_t devfn, uint8_t reg, unsigned size);
void test_cfg_write(TestBoard *tb, uint8_t devfn, uint8_t reg, unsigned size, uint32_t val);

#endif
