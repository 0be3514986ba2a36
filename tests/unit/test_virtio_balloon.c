/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory balloon over the bus: what the guest gives is gone, what it may not give stays. */
#include <string.h>

#include <linux/virtio_balloon.h>
#include <linux/virtio_ring.h>

#include "lodge/num.h"
#include "virtio_balloon.h"
#include "virtio_driver.h"

#define PAGE 4096u
#define FIRST 0x100u /* a page of the board's memory that no ring lies in */
#define ALL UINT64_C(0x3f)
#define BIT(b) (UINT64_C(1) << (b))
#define HUGE_AT (UINT64_C(1) << 30)
#define HUGE_LEN (4u << 20)
#define NS_PER_S (INT64_C(1000) * 1000 * 1000)

enum { Q_INFLATE, Q_DEFLATE, Q_STATS, Q_REPORT_PACKED, Q_REPORT, QUEUES };
enum { CFG_WANTED = 0, CFG_ACTUAL = 4, CFG_POISON = 12 };

static Drv *balloon_up(TestBoard *tb, uint64_t features)
{
    Drv *d;

    tb->board.ram_below_4g = DRV_RAM;
    d = drv_open(tb, "virtio-balloon-pci", NULL);
    g_assert_true(drv_accept(d, features));
    drv_msix(d, QUEUES);
    for (unsigned q = 0; q < QUEUES; q++)
        drv_queue(d, q, 16);
    drv_ready(d);
    return d;
}

static void fill(Drv *d, uint64_t gpa, uint32_t len)
{
    g_autofree uint8_t *bytes = g_malloc(len);

    memset(bytes, 0xa5, len);
    drv_put(d, gpa, bytes, len);
}

static bool is(Drv *d, uint64_t gpa, uint32_t len, uint8_t byte)
{
    g_autofree uint8_t *bytes = g_malloc(len);
    uint32_t n = 0;

    drv_get(d, gpa, bytes, len);
    while (n < len && bytes[n] == byte)
        n++;
    return n == len;
}

/* Give queue @q a list of pages, and have it back. */
static void list(Drv *d, unsigned q, const uint32_t *pfn, unsigned n)
{
    uint64_t at = drv_alloc(d, n * 4);
    DrvSeg seg = {at, n * 4, false};
    uint32_t head, len;
    uint8_t word[4];

    for (unsigned i = 0; i < n; i++) {
        store_le32(word, pfn[i]);
        drv_put(d, at + 4 * i, word, sizeof word);
    }
    drv_add(d, q, &seg, 1);
    drv_kick(d, q);
    g_assert_true(drv_used(d, q, &head, &len));
    g_assert_cmpuint(len, ==, 0);
}

static BalloonInfo info_of(Drv *d)
{
    BalloonInfo info;

    virtio_balloon_info(d->dev, &info);
    return info;
}

/* Pages in any order are zeros afterwards, their neighbours are not. */
static void test_inflate(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL);
    const uint32_t pfn[] = {FIRST + 3, FIRST + 1, FIRST + 2, FIRST + 6};

    fill(d, FIRST * PAGE, 8 * PAGE);
    list(d, Q_INFLATE, pfn, G_N_ELEMENTS(pfn));
    g_assert_true(is(d, FIRST * PAGE, PAGE, 0xa5));
    g_assert_true(is(d, (FIRST + 1) * PAGE, 3 * PAGE, 0));
    g_assert_true(is(d, (FIRST + 4) * PAGE, 2 * PAGE, 0xa5));
    g_assert_true(is(d, (FIRST + 6) * PAGE, PAGE, 0));
    g_assert_true(is(d, (FIRST + 7) * PAGE, PAGE, 0xa5));
    g_assert_cmpuint(info_of(d).inflated, ==, 4 * PAGE);
    g_assert_cmpuint(drv_msis(d, Q_INFLATE), ==, 1);
    g_assert_cmpuint(d->dev->faults, ==, 0);
    fill(d, (FIRST + 1) * PAGE, PAGE); /* it takes one out again */
    list(d, Q_DEFLATE, pfn + 1, 1);
    g_assert_true(is(d, (FIRST + 1) * PAGE, PAGE, 0xa5));
}

/* Twice the same, beyond the memory, the last that can be said, in ROM, in what a device shows. */
static void test_hostile_pages(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL);
    MemBlock *rom = mem_block_new("rom", PAGE, MEM_READ_ONLY, NULL);
    MemBlock *shown = mem_block_new("shown", PAGE, MEM_DIRTY_LOG, NULL);
    const uint32_t twice[] = {FIRST, FIRST, FIRST + 1, FIRST};
    const uint32_t bad[] = {0xf0000, 0xf1000, 0xffffffff, DRV_RAM / PAGE, 0x80000};
    uint8_t text[8] = "contents", got[8];

    g_assert_true(mem_map_add(tb->board.mem, rom, 0xf0000000, 0, PAGE, NULL));
    g_assert_true(mem_map_add(tb->board.mem, shown, 0xf1000000, 0, PAGE, NULL));
    memcpy(mem_block_host(rom), text, sizeof text);
    memcpy(mem_block_host(shown), text, sizeof text);
    fill(d, FIRST * PAGE, 3 * PAGE);
    list(d, Q_INFLATE, twice, G_N_ELEMENTS(twice));
    g_assert_cmpuint(d->dev->faults, ==, 0);
    g_assert_true(is(d, FIRST * PAGE, 2 * PAGE, 0));
    g_assert_true(is(d, (FIRST + 2) * PAGE, PAGE, 0xa5));
    list(d, Q_INFLATE, bad, G_N_ELEMENTS(bad));
    list(d, Q_DEFLATE, bad, G_N_ELEMENTS(bad));
    g_assert_cmpuint(d->dev->faults, ==, 1);
    g_assert_true(mem_read(tb->board.mem, 0xf0000000, got, sizeof got));
    g_assert_cmpmem(got, sizeof got, text, sizeof text);
    g_assert_true(mem_read(tb->board.mem, 0xf1000000, got, sizeof got));
    g_assert_cmpmem(got, sizeof got, text, sizeof text);
    g_assert_false(drv_needs_reset(d));
}

/* A list that is no list: odd length, written instead of read, nothing; and one that is too long is
 * cut. */
static void test_hostile_lists(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL);
    uint64_t at = drv_alloc(d, 128 << 10);
    const DrvSeg lists[] = {{at, 3, false}, {at, 6, false}, {at, 64, true}, {at, 70000, false}};
    uint32_t head, len;

    for (unsigned i = 0; i < G_N_ELEMENTS(lists); i++) {
        for (unsigned q = Q_INFLATE; q <= Q_DEFLATE; q++) {
            drv_add(d, q, &lists[i], 1);
            drv_kick(d, q);
            g_assert_true(drv_used(d, q, &head, &len));
            g_assert_cmpuint(len, ==, 0);
        }
        g_assert_cmpuint(d->dev->faults, ==, 2 * (i + 1));
    }
    g_assert_false(drv_needs_reset(d));
}

/* What the guest is asked to lend, and what it says it does. */
static void test_size(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL);

    g_assert_cmpuint(test_peek(tb, d->config + CFG_WANTED, 4), ==, 0);
    (void)drv_msis(d, -1);
    virtio_balloon_set(d->dev, DRV_RAM - 64 * PAGE);
    g_assert_cmpuint(test_peek(tb, d->config + CFG_WANTED, 4), ==, 64);
    g_assert_cmpuint(drv_msis(d, -1), ==, 1);
    virtio_balloon_set(d->dev, UINT64_MAX);
    g_assert_cmpuint(test_peek(tb, d->config + CFG_WANTED, 4), ==, 0);
    test_poke(tb, d->config + CFG_ACTUAL, 4, 16);
    g_assert_cmpuint(tb->requests[BOARD_BALLOON], ==, 1);
    test_poke(tb, d->config + CFG_ACTUAL, 4, 16); /* no news */
    g_assert_cmpuint(tb->requests[BOARD_BALLOON], ==, 1);
    g_assert_cmpuint(info_of(d).lent, ==, 16 * PAGE);
    test_poke(tb, d->config + CFG_ACTUAL, 4, 0xffffffff);
    g_assert_cmpuint(info_of(d).lent, ==, DRV_RAM);
    g_assert_cmpuint(d->dev->faults, ==, 0);
    test_poke(tb, d->config + CFG_WANTED, 4, 1); /* not the driver's */
    test_poke(tb, d->config + CFG_ACTUAL, 2, 1);
    g_assert_cmpuint(d->dev->faults, ==, 2);
    g_assert_cmpuint(test_peek(tb, d->config + CFG_WANTED, 4), ==, 0);
}

/* After a reset nothing is lent, but what is wanted still is. */
static void test_reset(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL);

    virtio_balloon_set(d->dev, DRV_RAM / 2);
    test_poke(tb, d->config + CFG_ACTUAL, 4, 16);
    drv_reset(d);
    g_assert_false(info_of(d).driver);
    g_assert_cmpuint(info_of(d).lent, ==, 0);
    g_assert_true(drv_accept(d, ALL));
    drv_msix(d, QUEUES);
    drv_queue(d, 0, 16);
    drv_ready(d);
    g_assert_cmpuint(info_of(d).lent, ==, 0);
    g_assert_cmpuint(info_of(d).wanted, ==, DRV_RAM / 2);
}

/* Free pages go, in pieces that are whole pages of the host; and not with a poison of its own. */
static void test_report(void)
{
    for (unsigned q = Q_REPORT_PACKED; q <= Q_REPORT; q++) {
        g_autoptr(TestBoard) tb = drv_board();
        g_autoptr(Drv) d = balloon_up(tb, ALL);
        const DrvSeg segs[] = {{FIRST * PAGE, 4 * PAGE, true},
                               {(FIRST + 6) * PAGE - 100, PAGE + 200, true}};
        uint32_t head, len;

        fill(d, FIRST * PAGE, 8 * PAGE);
        test_poke(tb, d->config + CFG_POISON, 4, 0xaa);
        drv_add(d, q, segs, 2);
        drv_kick(d, q);
        g_assert_true(drv_used(d, q, &head, &len));
        g_assert_true(is(d, FIRST * PAGE, 8 * PAGE, 0xa5));
        test_poke(tb, d->config + CFG_POISON, 4, 0);
        drv_add(d, q, segs, 2);
        drv_kick(d, q);
        g_assert_true(drv_used(d, q, &head, &len));
        g_assert_true(is(d, FIRST * PAGE, 4 * PAGE, 0));
        g_assert_true(is(d, (FIRST + 4) * PAGE, 2 * PAGE, 0xa5));
        g_assert_true(is(d, (FIRST + 6) * PAGE, PAGE, 0));
        g_assert_true(is(d, (FIRST + 7) * PAGE, PAGE, 0xa5));
        g_assert_cmpuint(info_of(d).reported, ==, 5 * PAGE);
    }
}

/* A driver without statistics has its reports on queue 2; one without reports has none. */
static void test_report_queue(void)
{
    const DrvSeg seg = {FIRST * PAGE, PAGE, true};
    uint32_t head, len;
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, BIT(VIRTIO_BALLOON_F_REPORTING));
    fill(d, FIRST * PAGE, PAGE);
    drv_add(d, 2, &seg, 1);
    drv_kick(d, 2);
    g_assert_true(drv_used(d, 2, &head, &len));
    g_assert_true(is(d, FIRST * PAGE, PAGE, 0));

    g_autoptr(TestBoard) tb2 = drv_board();
    g_autoptr(Drv) d2 = balloon_up(tb2, BIT(VIRTIO_BALLOON_F_STATS_VQ));
    fill(d2, FIRST * PAGE, PAGE);
    drv_add(d2, Q_REPORT, &seg, 1);
    drv_kick(d2, Q_REPORT);
    g_assert_true(drv_used(d2, Q_REPORT, &head, &len));
    g_assert_true(is(d2, FIRST * PAGE, PAGE, 0xa5));
}

static uint64_t put_stats(Drv *d, uint64_t free_bytes)
{
    uint64_t at = drv_alloc(d, 30);
    uint8_t s[30];

    store_le16(s, VIRTIO_BALLOON_S_MEMFREE);
    store_le64(s + 2, free_bytes);
    store_le16(s + 10, 4711); /* of a later version */
    store_le64(s + 12, 1);
    store_le16(s + 20, VIRTIO_BALLOON_S_MEMTOT);
    store_le64(s + 22, DRV_RAM);
    drv_put(d, at, s, sizeof s);
    return at;
}

/* The chain is held until somebody asks, and read again then. */
static void test_stats(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL);
    DrvSeg seg = {put_stats(d, 1000), 30, false};
    uint32_t head, len;
    BalloonInfo i;

    g_assert_cmpuint(info_of(d).have, ==, 0);
    drv_add(d, Q_STATS, &seg, 1);
    drv_kick(d, Q_STATS);
    g_assert_false(drv_used(d, Q_STATS, &head, &len));
    i = info_of(d);
    g_assert_cmpuint(i.have, ==,
                     BIT(VIRTIO_BALLOON_S_MEMFREE) | BIT(VIRTIO_BALLOON_S_MEMTOT));
    g_assert_cmpuint(i.stats[VIRTIO_BALLOON_S_MEMFREE], ==, 1000);
    g_assert_cmpuint(i.stats[VIRTIO_BALLOON_S_MEMTOT], ==, DRV_RAM);
    g_assert_cmpint(i.stats_at_s, >, 0);
    g_assert_true(virtio_balloon_ask(d->dev));
    g_assert_true(drv_used(d, Q_STATS, &head, &len));
    seg.gpa = put_stats(d, 2000);
    drv_add(d, Q_STATS, &seg, 1);
    drv_kick(d, Q_STATS);
    g_assert_cmpuint(info_of(d).stats_seq, ==, i.stats_seq + 1);
    g_assert_cmpuint(info_of(d).stats[VIRTIO_BALLOON_S_MEMFREE], ==, 2000);
    drv_reset(d);
    g_assert_false(virtio_balloon_ask(d->dev));
}

/* With event index each chain of statistics asks for the kick of the next. */
static void test_stats_event_idx(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL | BIT(VIRTIO_RING_F_EVENT_IDX));
    DrvSeg seg = {put_stats(d, 1000), 30, false};
    const DrvQueue *q = &d->q[Q_STATS];
    uint32_t head, len;

    for (uint16_t i = 1; i < 40; i++) { /* more than the ring is long */
        drv_add(d, Q_STATS, &seg, 1);
        drv_kick(d, Q_STATS);
        g_assert_cmpuint(drv_get16(d, q->used + 4 + 8 * q->size), ==, i);
        g_assert_true(virtio_balloon_ask(d->dev));
        g_assert_true(drv_used(d, Q_STATS, &head, &len));
        g_assert_cmpuint(info_of(d).stats_seq, ==, i);
    }
}

static void test_stats_poll(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL);
    DrvSeg seg = {put_stats(d, 1000), 30, false};
    uint32_t head, len;

    drv_add(d, Q_STATS, &seg, 1);
    drv_kick(d, Q_STATS);
    virtio_balloon_poll(d->dev, 3);
    g_assert_cmpuint(virtio_balloon_polled(d->dev), ==, 3);
    test_advance(tb, 2 * NS_PER_S);
    g_assert_false(drv_used(d, Q_STATS, &head, &len));
    test_advance(tb, 2 * NS_PER_S);
    g_assert_true(drv_used(d, Q_STATS, &head, &len));
    drv_add(d, Q_STATS, &seg, 1);
    drv_kick(d, Q_STATS);
    virtio_balloon_poll(d->dev, 0);
    test_advance(tb, 10 * NS_PER_S);
    g_assert_false(drv_used(d, Q_STATS, &head, &len));
}

static void quiet(Device *d, void *opaque)
{
    *(bool *)opaque = true;
}

/* A chain that is held is popped again after a pause, so that the ring's indices say all. */
static void test_pause(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL);
    DrvSeg seg = {put_stats(d, 1000), 30, false};
    unsigned seq;
    uint32_t head, len;
    bool at_rest = false;

    drv_add(d, Q_STATS, &seg, 1);
    drv_kick(d, Q_STATS);
    seq = info_of(d).stats_seq;
    device_quiesce(d->dev, quiet, &at_rest);
    g_assert_true(at_rest);
    (void)virtio_balloon_ask(d->dev);
    g_assert_false(drv_used(d, Q_STATS, &head, &len));
    device_resume(d->dev);
    g_assert_cmpuint(info_of(d).stats_seq, ==, seq + 1);
    g_assert_true(virtio_balloon_ask(d->dev));
    g_assert_true(drv_used(d, Q_STATS, &head, &len));
    g_assert_false(drv_used(d, Q_STATS, &head, &len));
}

/* State goes out and in: sizes are as they were. */
static void test_state(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL);
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;
    bool at_rest = false;
    size_t used;

    virtio_balloon_set(d->dev, DRV_RAM / 2);
    test_poke(tb, d->config + CFG_ACTUAL, 4, 16);
    device_quiesce(d->dev, quiet, &at_rest);
    state_save(d->dev->cls->state, d->dev, saved);
    device_reset(d->dev, RESET_COLD);
    virtio_balloon_set(d->dev, DRV_RAM);
    state_load(d->dev->cls->state, d->dev, saved->data, saved->len, &used, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(used, ==, saved->len);
    device_resume(d->dev);
    g_assert_cmpuint(info_of(d).lent, ==, 16 * PAGE);
    g_assert_cmpuint(info_of(d).wanted, ==, DRV_RAM / 2);
}

/* Of a file that others map, the file's pages go. */
static void test_shared(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL);
    MemBlock *b = mem_block_new("shared", 4 * PAGE, MEM_SHARED, NULL);
    const uint32_t pfn[] = {HUGE_AT / PAGE + 1};

    g_assert_true(mem_map_add(tb->board.mem, b, HUGE_AT, 0, 4 * PAGE, NULL));
    fill(d, HUGE_AT, 4 * PAGE);
    list(d, Q_INFLATE, pfn, 1);
    g_assert_true(is(d, HUGE_AT, PAGE, 0xa5));
    g_assert_true(is(d, HUGE_AT + PAGE, PAGE, 0));
    g_assert_true(is(d, HUGE_AT + 2 * PAGE, 2 * PAGE, 0xa5));
}

static void list_range(Drv *d, unsigned q, uint32_t from, uint32_t to)
{
    uint32_t pfn[256];

    for (uint32_t p = from, n; p < to; p += n) {
        n = MIN(to - p, G_N_ELEMENTS(pfn));
        for (uint32_t i = 0; i < n; i++)
            pfn[i] = p + i;
        list(d, q, pfn, n);
    }
}

/* A huge page of the host goes when all of it is in the balloon, and not while a page has left.
 * Nothing touches them, so that the host need not have any. */
static void test_huge(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL);
    MemBlock *b = mem_block_new("huge", HUGE_LEN, MEM_HUGE, NULL);
    const uint32_t first = HUGE_AT / PAGE, per = 512;

    if (!b) {
        g_test_skip("the host's kernel has no huge pages");
        return;
    }
    g_assert_true(mem_map_add(tb->board.mem, b, HUGE_AT, 0, HUGE_LEN, NULL));
    g_assert_cmpuint(mem_host_page(tb->board.mem, HUGE_AT), ==, 2u << 20);
    list_range(d, Q_INFLATE, first, first + per - 1);
    list_range(d, Q_DEFLATE, first + 7, first + 8);
    list_range(d, Q_INFLATE, first + per - 1, first + per);
    g_assert_cmpuint(info_of(d).inflated, ==, 0);
    list_range(d, Q_INFLATE, first + 7, first + 8);
    g_assert_cmpuint(info_of(d).inflated, ==, HUGE_LEN / 2);
    g_assert_cmpuint(mem_discard(tb->board.mem, HUGE_AT + PAGE, HUGE_LEN - PAGE), ==, HUGE_LEN / 2);
    g_assert_cmpuint(d->dev->faults, ==, 0);
}

/* One that does not promise to tell before it uses a page gives none of those. */
static void test_huge_untold(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = balloon_up(tb, ALL & ~BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST));
    MemBlock *b = mem_block_new("huge", HUGE_LEN, MEM_HUGE, NULL);

    if (!b) {
        g_test_skip("the host's kernel has no huge pages");
        return;
    }
    g_assert_true(mem_map_add(tb->board.mem, b, HUGE_AT, 0, HUGE_LEN, NULL));
    list_range(d, Q_INFLATE, HUGE_AT / PAGE, HUGE_AT / PAGE + 512);
    g_assert_cmpuint(info_of(d).inflated, ==, 0);
}

/* mem_discard() up to the first hole, whole pages only. */
static void test_discard(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    MemMap *m = tb->board.mem;
    uint8_t byte = 0xa5;

    g_assert_true(mem_write(m, DRV_RAM - PAGE, &byte, 1));
    g_assert_cmpuint(mem_discard(m, DRV_RAM - PAGE - 1, PAGE), ==, 0);
    g_assert_cmpuint(mem_discard(m, DRV_RAM - PAGE, 16 * PAGE), ==, PAGE);
    g_assert_true(mem_read(m, DRV_RAM - PAGE, &byte, 1));
    g_assert_cmpuint(byte, ==, 0);
    g_assert_cmpuint(mem_discard(m, DRV_RAM, PAGE), ==, 0);
    g_assert_cmpuint(mem_discard(m, UINT64_MAX - 1, PAGE), ==, 0);
    g_assert_cmpuint(mem_discard(m, 0, 0), ==, 0);
    g_assert_cmpuint(mem_host_page(m, 0), ==, PAGE);
    g_assert_cmpuint(mem_host_page(m, DRV_RAM), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-balloon/inflate", test_inflate);
    g_test_add_func("/virtio-balloon/hostile-pages", test_hostile_pages);
    g_test_add_func("/virtio-balloon/hostile-lists", test_hostile_lists);
    g_test_add_func("/virtio-balloon/size", test_size);
    g_test_add_func("/virtio-balloon/reset", test_reset);
    g_test_add_func("/virtio-balloon/report", test_report);
    g_test_add_func("/virtio-balloon/report-queue", test_report_queue);
    g_test_add_func("/virtio-balloon/stats", test_stats);
    g_test_add_func("/virtio-balloon/stats-event-idx", test_stats_event_idx);
    g_test_add_func("/virtio-balloon/stats-poll", test_stats_poll);
    g_test_add_func("/virtio-balloon/pause", test_pause);
    g_test_add_func("/virtio-balloon/state", test_state);
    g_test_add_func("/virtio-balloon/shared", test_shared);
    g_test_add_func("/virtio-balloon/huge", test_huge);
    g_test_add_func("/virtio-balloon/huge-untold", test_huge_untold);
    g_test_add_func("/virtio-balloon/discard", test_discard);
    return g_test_run();
}
