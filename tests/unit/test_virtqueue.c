/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtqueue walker against hostile rings, through the entropy device on the real bus; and its
 * bookkeeping, called directly. */
#include <string.h>

#include <linux/virtio_ring.h>

#include "virtio_driver.h"
#include "virtqueue.h"

#define F_NEXT VRING_DESC_F_NEXT
#define F_WRITE VRING_DESC_F_WRITE
#define F_INDIRECT VRING_DESC_F_INDIRECT
#define BUF 0x200000 /* guest address of a buffer */
#define TABLE 0x210000 /* guest address of an indirect table */
#define SIZE 8

typedef struct Desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
} Desc;

/* What the driver puts in the ring, and whether the device may live on. */
typedef struct Hostile {
    const char *name;
    Desc ring[SIZE];
    Desc table[4];
    uint16_t head, avail; /* avail index to publish; 0: one entry */
    bool fine;
} Hostile;

static const Hostile cases[] = {
    {.name = "plain", .ring = {{BUF, 16, F_WRITE, 0}}, .fine = true},
    {.name = "indirect",
     .ring = {{TABLE, 32, F_INDIRECT, 0}},
     .table = {{BUF, 16, F_NEXT, 1}, {BUF, 16, F_WRITE, 0}},
     .fine = true},
    {.name = "direct-then-indirect",
     .ring = {{BUF, 16, F_NEXT, 1}, {TABLE, 16, F_INDIRECT, 0}},
     .table = {{BUF, 16, F_WRITE, 0}},
     .fine = true},
    {.name = "loop", .ring = {{BUF, 16, F_WRITE | F_NEXT, 1}, {BUF, 16, F_WRITE | F_NEXT, 0}}},
    {.name = "self-loop", .ring = {{BUF, 16, F_WRITE | F_NEXT, 0}}},
    {.name = "next-outside", .ring = {{BUF, 16, F_WRITE | F_NEXT, SIZE}}},
    {.name = "next-far-outside", .ring = {{BUF, 16, F_WRITE | F_NEXT, 0xffff}}},
    {.name = "head-outside", .ring = {{BUF, 16, F_WRITE, 0}}, .head = SIZE},
    {.name = "zero-length", .ring = {{BUF, 0, F_WRITE, 0}}},
    {.name = "outside-memory", .ring = {{DRV_RAM, 16, F_WRITE, 0}}},
    {.name = "end-outside-memory", .ring = {{DRV_RAM - 8, 16, F_WRITE, 0}}},
    {.name = "address-wraps", .ring = {{UINT64_MAX - 7, 16, F_WRITE, 0}}},
    {.name = "in-device-registers", .ring = {{0xfe000000, 16, F_WRITE, 0}}},
    {.name = "length-4g", .ring = {{BUF, UINT32_MAX, F_WRITE, 0}}},
    {.name = "sum-too-long",
     .ring = {{0, DRV_RAM, F_NEXT, 1}, {0, VIRTQ_BYTES_MAX, F_WRITE, 0}}},
    {.name = "readable-after-writable",
     .ring = {{BUF, 16, F_WRITE | F_NEXT, 1}, {BUF, 16, 0, 0}}},
    {.name = "indirect-in-indirect",
     .ring = {{TABLE, 16, F_INDIRECT, 0}},
     .table = {{TABLE, 16, F_INDIRECT, 0}}},
    {.name = "indirect-odd-length",
     .ring = {{TABLE, 17, F_INDIRECT, 0}},
     .table = {{BUF, 16, F_WRITE, 0}}},
    {.name = "indirect-empty", .ring = {{TABLE, 0, F_INDIRECT, 0}}},
    {.name = "indirect-too-long",
     .ring = {{TABLE, 16 * (VIRTQ_SEGMENTS_MAX + 1), F_INDIRECT, 0}},
     .table = {{BUF, 16, F_WRITE, 0}}},
    {.name = "indirect-outside-memory", .ring = {{DRV_RAM - 8, 16, F_INDIRECT, 0}}},
    {.name = "indirect-with-next", .ring = {{TABLE, 16, F_INDIRECT | F_NEXT, 1}},
     .table = {{BUF, 16, F_WRITE, 0}}},
    {.name = "indirect-loop",
     .ring = {{TABLE, 32, F_INDIRECT, 0}},
     .table = {{BUF, 16, F_WRITE | F_NEXT, 1}, {BUF, 16, F_WRITE | F_NEXT, 0}}},
    {.name = "indirect-next-outside",
     .ring = {{TABLE, 16, F_INDIRECT, 0}},
     .table = {{BUF, 16, F_WRITE | F_NEXT, 1}, {BUF, 16, F_WRITE, 0}}},
    {.name = "avail-jumps", .ring = {{BUF, 16, F_WRITE, 0}}, .avail = SIZE + 1},
    {.name = "avail-falls", .ring = {{BUF, 16, F_WRITE, 0}}, .avail = 0xffff},
};

static void test_hostile(gconstpointer data)
{
    const Hostile *h = data;
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = drv_open(tb, "virtio-rng-pci", NULL);
    uint32_t head, len;

    g_assert_true(drv_accept(d, UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC));
    drv_msix(d, 1);
    drv_queue(d, 0, SIZE);
    drv_ready(d);
    drv_put(d, d->q[0].desc, h->ring, sizeof h->ring);
    drv_put(d, TABLE, h->table, sizeof h->table);
    drv_offer(d, 0, h->head);
    if (h->avail)
        drv_put16(d, d->q[0].ring + 2, h->avail);
    drv_kick(d, 0);
    g_assert_cmpint(drv_used(d, 0, &head, &len), ==, h->fine);
    g_assert_cmpint(drv_needs_reset(d), ==, !h->fine);
    g_assert_cmpuint(drv_msis(d, -1), ==, h->fine ? 0 : 1);
    g_assert_cmpuint(d->dev->faults > 0, ==, !h->fine);
    if (h->fine)
        return;
    /* Broken stays broken, and quiet, until a reset; then all is well again. */
    drv_desc(d, 0, 0, BUF, 16, F_WRITE, 0);
    drv_kick(d, 0);
    g_assert_false(drv_used(d, 0, &head, &len));
    drv_reset(d);
    g_assert_cmpuint(drv_get_status(d), ==, 0);
    g_assert_true(drv_accept(d, 0));
    drv_queue(d, 0, SIZE);
    drv_ready(d);
    drv_add(d, 0, &(DrvSeg){BUF, 16, true}, 1);
    drv_kick(d, 0);
    g_assert_true(drv_used(d, 0, &head, &len));
    g_assert_cmpuint(len, ==, 16);
}

/* ---- direct ---- */

typedef struct Fixture {
    MemMap *mem;
    VirtQueue q;
    VirtQueueSetup s;
    uint8_t *ram;
    struct iovec iov[16];
    MemPin pins[16];
    VirtChain c;
} Fixture;

/* Two blocks of memory side by side, so that a buffer can cross from one to the other. */
static void fixture_up(Fixture *f, gconstpointer unused)
{
    for (unsigned i = 0; i < 2; i++) {
        MemBlock *b = mem_block_new("ram", 0x10000, 0, NULL);

        g_assert_nonnull(b);
        if (!i) {
            f->mem = mem_map_new();
            f->ram = mem_block_host(b);
        }
        g_assert_true(mem_map_add(f->mem, b, i * 0x10000u, 0, 0x10000, NULL));
    }
    f->s = (VirtQueueSetup){.desc_gpa = 0, .avail_gpa = 0x1000, .used_gpa = 0x2000, .size = 4};
    f->c = (VirtChain){.iov = f->iov, .pins = f->pins, .max = G_N_ELEMENTS(f->iov)};
}

static void fixture_down(Fixture *f, gconstpointer unused)
{
    virtqueue_stop(&f->q);
    mem_map_free(f->mem);
}

static void offer(Fixture *f, uint16_t n)
{
    memcpy(f->ram + 0x1002, &n, sizeof n);
}

static void test_start(Fixture *f, gconstpointer unused)
{
    const VirtQueueSetup bad[] = {
        {0, 0x1000, 0x2000, .size = 0},      {0, 0x1000, 0x2000, .size = 3},
        {0, 0x1000, 0x2000, .size = 2048},   {8, 0x1000, 0x2000, .size = 4},
        {0, 0x1001, 0x2000, .size = 4},      {0, 0x1000, 0x2002, .size = 4},
        {0x1fff0, 0x1000, 0x2000, .size = 4}, {0, 0x20000, 0x2000, .size = 4},
        {0, 0x1000, 0x1fff0, .size = 4},     {UINT64_MAX - 15, 0x1000, 0x2000, .size = 4},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        const char *why = NULL;

        g_assert_false(virtqueue_start(&f->q, f->mem, &bad[i], &why));
        g_assert_nonnull(why);
        g_assert_false(virtqueue_running(&f->q));
    }
}

static void test_crossing(Fixture *f, gconstpointer unused)
{
    struct vring_desc d = {.addr = 0xfff0, .len = 0x30, .flags = F_WRITE};
    const char *why;

    memcpy(f->ram, &d, sizeof d);
    g_assert_true(virtqueue_start(&f->q, f->mem, &f->s, &why));
    offer(f, 1);
    g_assert_cmpint(virtqueue_pop(&f->q, &f->c), ==, VIRTQ_CHAIN);
    g_assert_cmpuint(f->c.writable, ==, 2);
    g_assert_cmpuint(f->c.writable_len, ==, 0x30);
    g_assert_cmpuint(f->iov[0].iov_len, ==, 0x10);
    g_assert_cmpuint(f->iov[1].iov_len, ==, 0x20);
}

/* A driver that moves the index on without waiting for completions gets no more than a ring. */
static void test_in_use(Fixture *f, gconstpointer unused)
{
    struct vring_desc d = {.addr = 0x3000, .len = 16, .flags = F_WRITE};
    const char *why;

    memcpy(f->ram, &d, sizeof d);
    g_assert_true(virtqueue_start(&f->q, f->mem, &f->s, &why));
    offer(f, 4);
    for (unsigned i = 0; i < 4; i++)
        g_assert_cmpint(virtqueue_pop(&f->q, &f->c), ==, VIRTQ_CHAIN);
    g_assert_cmpint(virtqueue_pop(&f->q, &f->c), ==, VIRTQ_EMPTY);
    offer(f, 5);
    g_assert_cmpint(virtqueue_pop(&f->q, &f->c), ==, VIRTQ_BROKEN);
    g_assert_cmpuint(f->q.inuse, ==, 4);
}

static void test_rewind(Fixture *f, gconstpointer unused)
{
    struct vring_desc d = {.addr = 0x3000, .len = 16, .flags = F_WRITE};
    uint16_t used;
    const char *why;

    memcpy(f->ram, &d, sizeof d);
    g_assert_true(virtqueue_start(&f->q, f->mem, &f->s, &why));
    offer(f, 2);
    g_assert_cmpint(virtqueue_pop(&f->q, &f->c), ==, VIRTQ_CHAIN);
    g_assert_cmpint(virtqueue_pop(&f->q, &f->c), ==, VIRTQ_CHAIN);
    virtqueue_rewind(&f->q, 2);
    g_assert_true(virtqueue_has_more(&f->q));
    g_assert_cmpint(virtqueue_pop(&f->q, &f->c), ==, VIRTQ_CHAIN);
    virtqueue_push_chain(&f->q, &f->c, 7);
    memcpy(&used, f->ram + 0x2002, sizeof used);
    g_assert_cmpuint(used, ==, 0); /* not seen before it is published */
    g_assert_true(virtqueue_publish(&f->q));
    memcpy(&used, f->ram + 0x2002, sizeof used);
    g_assert_cmpuint(used, ==, 1);
    g_assert_false(virtqueue_publish(&f->q));
}

static void test_suppression(Fixture *f, gconstpointer unused)
{
    uint16_t v = VRING_AVAIL_F_NO_INTERRUPT;
    struct vring_desc d = {.addr = 0x3000, .len = 16};
    const char *why;

    memcpy(f->ram, &d, sizeof d);
    memcpy(f->ram + 0x1000, &v, sizeof v);
    g_assert_true(virtqueue_start(&f->q, f->mem, &f->s, &why));
    virtqueue_notify_off(&f->q);
    memcpy(&v, f->ram + 0x2000, sizeof v);
    g_assert_cmpuint(v, ==, VRING_USED_F_NO_NOTIFY);
    offer(f, 1);
    g_assert_true(virtqueue_notify_on(&f->q)); /* what came in the meantime is not lost */
    memcpy(&v, f->ram + 0x2000, sizeof v);
    g_assert_cmpuint(v, ==, 0);
    g_assert_cmpint(virtqueue_pop(&f->q, &f->c), ==, VIRTQ_CHAIN);
    virtqueue_push_chain(&f->q, &f->c, 0);
    g_assert_false(virtqueue_publish(&f->q));
}

/* With an event index: whether a driver that offers up to @now, after @old, kicks (2.7.10.1). */
static bool would_kick(Fixture *f, uint16_t now, uint16_t old)
{
    uint16_t event;

    memcpy(&event, f->ram + 0x2004 + 4 * sizeof(struct vring_used_elem), sizeof event);
    return vring_need_event(event, now, old);
}

static void test_event_index(Fixture *f, gconstpointer unused)
{
    struct vring_desc d = {.addr = 0x3000, .len = 16};
    const char *why;

    memcpy(f->ram, &d, sizeof d);
    f->s.event_idx = true;
    f->s.last_avail = UINT16_MAX; /* the next one wraps */
    offer(f, UINT16_MAX);
    g_assert_true(virtqueue_start(&f->q, f->mem, &f->s, &why));
    for (uint16_t i = UINT16_MAX; i != 3; i++) {
        g_assert_false(virtqueue_notify_on(&f->q));
        g_assert_true(would_kick(f, (uint16_t)(i + 1), i));
        virtqueue_notify_off(&f->q); /* also of what was asked for a moment ago */
        g_assert_false(would_kick(f, (uint16_t)(i + 1), i));
        g_assert_false(would_kick(f, (uint16_t)(i + 4), i));
        /* What we took before the driver looks whether to kick for it needs none either. */
        g_assert_false(would_kick(f, (uint16_t)(i + 1), (uint16_t)(i - 2)));
        offer(f, (uint16_t)(i + 1));
        g_assert_true(virtqueue_notify_on(&f->q));
        g_assert_cmpint(virtqueue_pop(&f->q, &f->c), ==, VIRTQ_CHAIN);
        virtqueue_push_chain(&f->q, &f->c, 0);
    }
}

static void test_iov(void)
{
    uint8_t a[4] = "abcd", b[4] = "efgh", got[9] = {0};
    struct iovec iov[2] = {{a, 4}, {b, 4}}, *p = iov;
    unsigned n = 2;

    g_assert_cmpuint(virtq_from_iov(iov, 2, 2, got, 8), ==, 6);
    g_assert_cmpstr((char *)got, ==, "cdefgh");
    g_assert_cmpuint(virtq_to_iov(iov, 2, 3, "XYZ", 3), ==, 3);
    g_assert_cmpint(memcmp(a, "abcX", 4), ==, 0);
    g_assert_cmpint(memcmp(b, "YZgh", 4), ==, 0);
    virtq_trim_front(&p, &n, 5);
    g_assert_cmpuint(n, ==, 1);
    g_assert_true(p[0].iov_base == b + 1 && p[0].iov_len == 3);
    virtq_trim_back(p, &n, 2);
    g_assert_cmpuint(p[0].iov_len, ==, 1);
    virtq_trim_back(p, &n, 9);
    g_assert_cmpuint(n, ==, 0);
}

#define ADD(name, fn) g_test_add("/virtqueue/" name, Fixture, NULL, fixture_up, fn, fixture_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = g_strconcat("/virtqueue/hostile/", cases[i].name, NULL);

        g_test_add_data_func(path, &cases[i], test_hostile);
    }
    ADD("start", test_start);
    ADD("crossing", test_crossing);
    ADD("in-use", test_in_use);
    ADD("rewind", test_rewind);
    ADD("suppression", test_suppression);
    ADD("event-index", test_event_index);
    g_test_add_func("/virtqueue/iov", test_iov);
    return g_test_run();
}
