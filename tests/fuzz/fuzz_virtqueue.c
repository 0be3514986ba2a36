/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz the virtqueue walker: the input is a queue's set-up and the guest's memory around it.
 *
 * Byte 0: ring size as a power of two; byte 1: features (1 indirect, 2 event index) and rounds in
 * the upper half; bytes 2 to 7: avail index to start from, desc, avail and used offsets in units of
 * 16; the rest is memory from address 0 on. Between rounds the memory is shifted by a byte, which
 * stands for a driver that writes under our eyes.
 */
#include <string.h>

#include <glib.h>

#include "replay.h"
#include "virtqueue.h"

#define RAM_BYTES 0x10000
#define HEADER 8
#define UNIT 16
#define ROOM 40 /* pieces: fewer than a hostile chain has */
#define POPS 3000

static void check_chain(const VirtChain *c, const uint8_t *ram)
{
    uint64_t in = 0, out = 0;

    g_assert_cmpuint(c->readable + c->writable, <=, ROOM);
    for (unsigned i = 0; i < c->readable + c->writable; i++) {
        const uint8_t *p = c->iov[i].iov_base;

        g_assert_true(p >= ram && c->iov[i].iov_len <= RAM_BYTES &&
                      p + c->iov[i].iov_len <= ram + RAM_BYTES && c->iov[i].iov_len);
        *(i < c->readable ? &in : &out) += c->iov[i].iov_len;
    }
    g_assert_cmpuint(in, ==, c->readable_len);
    g_assert_cmpuint(out, ==, c->writable_len);
    g_assert_cmpuint(in + out, <=, VIRTQ_BYTES_MAX);
}

static void drain(VirtQueue *q, uint8_t *ram)
{
    struct iovec iov[ROOM];
    MemPin pins[ROOM];
    VirtChain c = {.iov = iov, .pins = pins, .max = ROOM};

    for (unsigned i = 0; i < POPS && virtqueue_pop(q, &c) == VIRTQ_CHAIN; i++) {
        check_chain(&c, ram);
        g_assert_cmpuint(q->inuse, <=, q->size);
        if (i % 5 == 4) {
            virtqueue_rewind(q, 1);
            break;
        }
        virtqueue_push_chain(q, &c, c.writable_len);
        if (i % 3)
            virtqueue_publish(q);
    }
    virtqueue_publish(q);
    virtqueue_notify_on(q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    g_autoptr(MemMap) mem = mem_map_new();
    MemBlock *b = mem_block_new("ram", RAM_BYTES, 0, NULL);
    VirtQueue q = {0};
    VirtQueueSetup s;
    const char *why;
    uint8_t *ram;

    if (!b || !mem_map_add(mem, b, 0, 0, RAM_BYTES, NULL))
        return 0;
    ram = mem_block_host(b);
    if (len < HEADER)
        return 0;
    s = (VirtQueueSetup){.size = (uint16_t)(1u << (data[0] % 16)),
                         .indirect = data[1] & 1,
                         .event_idx = data[1] & 2,
                         .last_avail = (uint16_t)(data[2] | data[3] << 8),
                         .used_idx = data[4],
                         .desc_gpa = data[5] * UNIT,
                         .avail_gpa = data[6] * UNIT,
                         .used_gpa = data[7] * UNIT};
    memcpy(ram, data + HEADER, MIN(len - HEADER, RAM_BYTES));
    if (!virtqueue_start(&q, mem, &s, &why))
        return 0;
    for (unsigned round = 0; round <= data[1] >> 4; round++) {
        drain(&q, ram);
        memmove(ram + 1, ram, RAM_BYTES - 1);
    }
    virtqueue_stop(&q);
    return 0;
}
