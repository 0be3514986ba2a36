/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtio memory balloon.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, section 5.5 "Traditional Memory Balloon Device". Pages
 * that the driver puts into the balloon (5.5.6) or reports as free (5.5.6.7) go back to the host;
 * the guest finds zeros there when it takes them again, which costs it a fault. Left out: hints of
 * free pages (5.5.6.5), which serve migration only: the feature is not offered.
 *
 * Queues: 0 inflate, 1 deflate, 2 statistics, 4 reports. Drivers number the queues that are there
 * without a gap, too, which makes 3 the reports, or 2 where there are no statistics: each is taken
 * for what the features say.
 *
 * Huge pages: where the host's pages are larger than the guest's, one goes back when the driver has
 * put all of it into the balloon. One such page at a time is gathered, as drivers take pages side
 * by side. A page must then not be used before the device has seen it leave (MUST_TELL_HOST); a
 * driver that does not promise that gives nothing back there.
 *
 * What a driver may get wrong: pages twice, beyond the memory, in ROM, in holes, in memory that a
 * device shows: these have no effect, and a wrong list is a guest fault. The pages that the rings
 * themselves or requests under way lie in are the guest's own to lose.
 *
 * Threads: queues, the page that is gathered and the timer belong to the loop thread; what the
 * guest told is under the device's lock.
 *
 * Invariants:
 * (1) A round gives back at most ROUND_PFNS pages of lists before the loop sees to others.
 * (2) held: a chain of the statistics queue was popped and not pushed. None is while the device is
 *     quiet or stopped, so ring indices say all.
 */
#include "virtio_balloon.h"

#include <stdlib.h>
#include <string.h>

#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "lodge/iothread.h"
#include "lodge/num.h"

#include "virtio.h"

enum {
    BALLOON_ENTRIES = 128,
    Q_INFLATE = 0,
    Q_DEFLATE = 1,
    Q_STATS = 2,
    BALLOON_QUEUES = 5,
    LIST_PFNS = 16384,  /* of one chain; drivers send some hundreds */
    ROUND_PFNS = 16384,
    ROUND_CHAINS = 64,
    CHUNK = 256,        /* PFNs that are sorted and given back together */
    STATS_READ = 64,    /* entries of one set that are looked at */
    CONFIG_LEN = sizeof(struct virtio_balloon_config),
    CLASS_MEMORY_OTHER = 0x058000, /* PCI: other memory controller */
};
#define GUEST_PAGE (UINT64_C(1) << VIRTIO_BALLOON_PFN_SHIFT)
#define HUGE_PAGE (2 * MIB)
#define HUGE_WORDS (HUGE_PAGE / GUEST_PAGE / 64)

G_STATIC_ASSERT(BALLOON_STATS == VIRTIO_BALLOON_S_NR);
G_STATIC_ASSERT(CONFIG_LEN <= VIRTIO_CONFIG_MAX);

const char *const balloon_stat_names[BALLOON_STATS] =
    VIRTIO_BALLOON_S_NAMES_WITH_PREFIX("stat-");

typedef struct BalloonRegs {
    VirtioSaved transport;
    uint32_t config[CONFIG_LEN / 4]; /* struct virtio_balloon_config, filled at save */
} BalloonRegs;

typedef struct VirtioBalloon {
    VirtioDev v;
    /* Constant after realize: */
    bool deflate_on_oom, reporting;
    LodgeTimer *timer;  /* owned: asks for statistics */
    TimerQueue *timers; /* borrowed */
    /* Loop thread only: */
    bool held;         /* see (2) */
    uint16_t held_head;
    bool fresh;        /* the driver starts anew: nothing is lent */
    gpa_t gathered;    /* the huge page of gathered_bits */
    uint64_t gathered_bits[HUGE_WORDS];
    struct iovec iov[BALLOON_ENTRIES];
    MemPin pins[BALLOON_ENTRIES];
    /* Atomic: */
    uint32_t poll_s;   /* ask for statistics each so many seconds; 0: not */
    uint64_t inflated, reported;
    /* Guarded by dev.lock, beside v.config: */
    uint32_t have;
    uint64_t stats[BALLOON_STATS];
    int64_t stats_at_s;
    unsigned stats_seq;
    /* Main thread, quiesced: */
    BalloonRegs saved;
} VirtioBalloon;

static const VirtioFeature balloon_features[] = {
    {VIRTIO_BALLOON_F_MUST_TELL_HOST, "must_tell_host", 0},
    {VIRTIO_BALLOON_F_STATS_VQ, "stats_vq", 0},
    {VIRTIO_BALLOON_F_DEFLATE_ON_OOM, "deflate_on_oom", 0},
    {VIRTIO_BALLOON_F_PAGE_POISON, "page_poison", 0},
    {VIRTIO_BALLOON_F_REPORTING, "reporting", 0},
    {0, NULL, 0},
};

static uint64_t ram_of(const VirtioBalloon *b)
{
    const Board *board = b->v.pci.dev.board;
    return board->ram_below_4g + board->ram_above_4g;
}

static VirtChain scratch_chain(VirtioBalloon *b)
{
    return (VirtChain){.iov = b->iov, .pins = b->pins, .max = BALLOON_ENTRIES};
}

static uint32_t config_word(const VirtioBalloon *b, size_t off)
{
    return load_le32(b->v.config + off);
}

static void count(uint64_t *sum, uint64_t bytes)
{
    __atomic_fetch_add(sum, bytes, __ATOMIC_RELAXED);
}

/* ---- pages in and out ---- */

static uint64_t *gathered_word(VirtioBalloon *b, gpa_t page, uint64_t *ret_bit)
{
    uint64_t i = page % HUGE_PAGE / GUEST_PAGE;
    *ret_bit = UINT64_C(1) << (i % 64);
    return &b->gathered_bits[i / 64];
}

/* One page of the guest in a huge one of the host. */
static void gather(VirtioBalloon *b, gpa_t page)
{
    gpa_t huge = align_down(page, HUGE_PAGE);
    uint64_t bit, all = UINT64_MAX;

    if (!virtio_has(&b->v, VIRTIO_BALLOON_F_MUST_TELL_HOST))
        return;
    if (huge != b->gathered) {
        memset(b->gathered_bits, 0, sizeof b->gathered_bits);
        b->gathered = huge;
    }
    uint64_t *word = gathered_word(b, page, &bit);
    *word |= bit;
    for (unsigned i = 0; i < HUGE_WORDS; i++)
        all &= b->gathered_bits[i];
    if (all != UINT64_MAX)
        return;
    count(&b->inflated, mem_discard(b->v.pci.dev.board->mem, huge, HUGE_PAGE));
    memset(b->gathered_bits, 0, sizeof b->gathered_bits);
}

/* @n pages from @pfn on go into the balloon. Return: false: not all are memory that it may lend. */
static bool take_run(VirtioBalloon *b, uint32_t pfn, uint32_t n)
{
    MemMap *mem = b->v.pci.dev.board->mem;
    gpa_t at = (gpa_t)pfn << VIRTIO_BALLOON_PFN_SHIFT;
    uint64_t len = (uint64_t)n << VIRTIO_BALLOON_PFN_SHIFT;
    uint32_t page = mem_host_page(mem, at);

    if (page > GUEST_PAGE) {
        for (uint32_t i = 0; i < n; i++)
            gather(b, at + i * GUEST_PAGE);
        return true;
    }
    uint64_t gone = mem_discard(mem, at, len);
    count(&b->inflated, gone);
    return gone == len;
}

static void leave(VirtioBalloon *b, uint32_t pfn)
{
    gpa_t page = (gpa_t)pfn << VIRTIO_BALLOON_PFN_SHIFT;
    uint64_t bit;

    if (align_down(page, HUGE_PAGE) == b->gathered) {
        uint64_t *word = gathered_word(b, page, &bit);
        *word &= ~bit;
    }
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static bool take_chunk(VirtioBalloon *b, uint32_t *pfn, unsigned n)
{
    bool ok = true;

    qsort(pfn, n, sizeof *pfn, by_number);
    for (unsigned i = 0, run; i < n; i += run) {
        uint32_t first = pfn[i], last = first;

        for (run = 1; i + run < n && pfn[i + run] - last <= 1; run++)
            last = pfn[i + run]; /* one that is there twice counts once */
        ok &= take_run(b, first, last - first + 1);
    }
    return ok;
}

/* A list of pages, copied piece by piece before it is looked at. Return: how many there were. */
static unsigned pages(VirtioBalloon *b, const VirtChain *c, bool inflate)
{
    uint32_t pfn[CHUNK];
    unsigned total = MIN(c->readable_len / sizeof *pfn, LIST_PFNS);
    bool ok = c->readable_len == total * sizeof *pfn && !c->writable;

    for (unsigned done = 0, n; done < total; done += n) {
        n = MIN(total - done, CHUNK);
        virtq_from_iov(c->iov, c->readable, done * sizeof *pfn, pfn, n * sizeof *pfn);
        for (unsigned i = 0; i < n; i++) {
            pfn[i] = load_le32(&pfn[i]);
            if (!inflate)
                leave(b, pfn[i]);
        }
        if (inflate)
            ok &= take_chunk(b, pfn, n);
    }
    if (!ok)
        guest_fault(&b->v.pci.dev, "a list of pages that is no list of memory");
    return total;
}

/* Pages that the driver does not use: it may write them again once the chain is back (5.5.6.7.1),
 * so this is over by then. With another poison than zero they have to keep it. */
static unsigned report(VirtioBalloon *b, const VirtChain *c)
{
    bool zeros = true;

    if (virtio_has(&b->v, VIRTIO_BALLOON_F_PAGE_POISON)) {
        lodge_lock(&b->v.pci.dev.lock);
        zeros = !config_word(b, offsetof(struct virtio_balloon_config, poison_val));
        lodge_unlock(&b->v.pci.dev.lock);
    }
    for (unsigned i = 0; zeros && i < c->npins; i++)
        count(&b->reported, mem_discard(b->v.pci.dev.board->mem, c->pins[i].gpa, c->pins[i].len));
    return c->npins;
}

/* ---- statistics, 5.5.6.4 ---- */

static void read_stats(VirtioBalloon *b, const VirtChain *c)
{
    struct virtio_balloon_stat s[STATS_READ];
    size_t n = virtq_from_iov(c->iov, c->readable, 0, s, sizeof s) / sizeof *s;

    lodge_lock(&b->v.pci.dev.lock);
    b->have = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t tag = load_le16(&s[i].tag);

        if (tag >= BALLOON_STATS)
            continue; /* of a later version */
        b->stats[tag] = load_le64(&s[i].val);
        b->have |= 1u << tag;
    }
    b->stats_at_s = g_get_real_time() / G_USEC_PER_SEC;
    b->stats_seq++;
    lodge_unlock(&b->v.pci.dev.lock);
}

/* The driver keeps one chain here, which we hold until we want to know more. */
static void stats_kick(VirtioBalloon *b)
{
    VirtChain c = scratch_chain(b);
    VirtQueue *vq = &b->v.q[Q_STATS].vq;

    if (!b->held && virtio_pop(&b->v, Q_STATS, &c)) {
        b->held = true;
        b->held_head = c.head;
        read_stats(b, &c);
    }
    /* A kick for the next one; where it is there already it is looked at when this one goes
     * back. */
    if (virtqueue_running(vq) && virtqueue_notify_on(vq) && !b->held)
        virtio_kick_again(&b->v, Q_STATS);
}

static void ask_on_loop(void *opaque)
{
    VirtioBalloon *b = opaque;
    VirtQueue *vq = &b->v.q[Q_STATS].vq;

    if (!b->held || !virtio_may_run(&b->v) || !virtqueue_running(vq))
        return;
    b->held = false;
    virtqueue_push(vq, b->held_head, 0);
    virtio_publish(&b->v, Q_STATS);
    virtio_kick_again(&b->v, Q_STATS); /* one that was offered meanwhile */
}

static void arm_poll(VirtioBalloon *b)
{
    uint32_t seconds = __atomic_load_n(&b->poll_s, __ATOMIC_RELAXED);

    if (seconds)
        timer_arm(b->timer, clock_now_ns(timer_queue_clock(b->timers)) +
                                (int64_t)seconds * NS_PER_SEC);
    else
        timer_cancel(b->timer);
}

static void poll_timer(void *opaque)
{
    VirtioBalloon *b = opaque;

    ask_on_loop(b);
    arm_poll(b);
}

/* ---- virtio ---- */

static bool is_stats(const VirtioBalloon *b, unsigned qi)
{
    return qi == Q_STATS && virtio_has(&b->v, VIRTIO_BALLOON_F_STATS_VQ);
}

static unsigned serve(VirtioBalloon *b, unsigned qi, const VirtChain *c)
{
    if (qi == Q_INFLATE || qi == Q_DEFLATE)
        return pages(b, c, qi == Q_INFLATE);
    return virtio_has(&b->v, VIRTIO_BALLOON_F_REPORTING) ? report(b, c) : 0;
}

static void balloon_kick(VirtioDev *vd, unsigned qi)
{
    VirtioBalloon *b = (VirtioBalloon *)vd;
    VirtQueue *vq = &vd->q[qi].vq;
    VirtChain c = scratch_chain(b);
    unsigned n = 0, done = 0;

    if (is_stats(b, qi)) {
        stats_kick(b);
        return;
    }
    do {
        virtqueue_notify_off(vq);
        for (; n < ROUND_CHAINS && done < ROUND_PFNS && virtio_pop(vd, qi, &c); n++) {
            done += serve(b, qi, &c);
            virtqueue_push(vq, c.head, 0);
        }
    } while (n < ROUND_CHAINS && done < ROUND_PFNS && !vd->broken && virtqueue_notify_on(vq));
    if (n == ROUND_CHAINS || done >= ROUND_PFNS)
        virtio_kick_again(vd, qi); /* keeps (1) */
    virtio_publish(vd, qi);
}

static void balloon_started(VirtioDev *vd)
{
    VirtioBalloon *b = (VirtioBalloon *)vd;

    if (b->fresh) {
        b->fresh = false;
        lodge_lock(&vd->pci.dev.lock);
        store_le32(vd->config + offsetof(struct virtio_balloon_config, actual), 0);
        lodge_unlock(&vd->pci.dev.lock);
    }
    arm_poll(b);
}

static void balloon_stopped(VirtioDev *vd)
{
    VirtioBalloon *b = (VirtioBalloon *)vd;

    b->held = false;
    b->fresh = true;
    memset(b->gathered_bits, 0, sizeof b->gathered_bits);
    if (b->timer)
        timer_cancel(b->timer);
}

/* Keeps (2): the chain is popped again when the device goes on. */
static void balloon_quieted(VirtioDev *vd)
{
    VirtioBalloon *b = (VirtioBalloon *)vd;

    if (b->held)
        virtqueue_rewind(&vd->q[Q_STATS].vq, 1);
    b->held = false;
}

static void balloon_config_written(VirtioDev *vd, unsigned off, unsigned len, uint32_t val)
{
    Board *board = vd->pci.dev.board;
    bool actual = off == offsetof(struct virtio_balloon_config, actual);
    bool poison = off == offsetof(struct virtio_balloon_config, poison_val);

    if (len != sizeof(uint32_t) || (!actual && !poison)) {
        guest_fault(&vd->pci.dev, "write of read-only configuration at 0x%x", off);
        return;
    }
    bool changed = actual && load_le32(vd->config + off) != val;
    store_le32(vd->config + off, val);
    if (changed)
        board->request(board, BOARD_BALLOON, 0);
}

static const VirtioClass balloon_virtio = {
    .name = "virtio-balloon",
    .type = VIRTIO_ID_BALLOON,
    .class_code = CLASS_MEMORY_OTHER,
    .features = balloon_features,
    .kick = balloon_kick,
    .started = balloon_started,
    .stopped = balloon_stopped,
    .quieted = balloon_quieted,
    .config_written = balloon_config_written,
};

/* ---- for the machine ---- */

bool is_virtio_balloon(const Device *d)
{
    return d->cls == &virtio_balloon_pci_class;
}

void virtio_balloon_info(Device *d, BalloonInfo *ret)
{
    VirtioBalloon *b = (VirtioBalloon *)d;
    uint64_t ram = ram_of(b);

    *ret = (BalloonInfo){
        .driver = __atomic_load_n(&b->v.live, __ATOMIC_RELAXED),
        .ram = ram,
        .inflated = __atomic_load_n(&b->inflated, __ATOMIC_RELAXED),
        .reported = __atomic_load_n(&b->reported, __ATOMIC_RELAXED),
    };
    lodge_lock(&d->lock);
    uint64_t lent = config_word(b, offsetof(struct virtio_balloon_config, actual));
    uint64_t wanted = config_word(b, offsetof(struct virtio_balloon_config, num_pages));
    ret->have = b->have;
    memcpy(ret->stats, b->stats, sizeof ret->stats);
    ret->stats_at_s = b->stats_at_s;
    ret->stats_seq = b->stats_seq;
    lodge_unlock(&d->lock);
    ret->lent = ret->driver ? MIN(lent * GUEST_PAGE, ram) : 0;
    ret->wanted = wanted * GUEST_PAGE;
}

void virtio_balloon_set(Device *d, uint64_t bytes)
{
    VirtioBalloon *b = (VirtioBalloon *)d;
    uint8_t num_pages[sizeof(uint32_t)];

    store_le32(num_pages, (uint32_t)((ram_of(b) - MIN(bytes, ram_of(b))) / GUEST_PAGE));
    virtio_config_set(&b->v, offsetof(struct virtio_balloon_config, num_pages), num_pages,
                      sizeof num_pages);
}

bool virtio_balloon_ask(Device *d)
{
    VirtioBalloon *b = (VirtioBalloon *)d;

    if (!__atomic_load_n(&b->v.live, __ATOMIC_RELAXED))
        return false;
    if (b->v.io)
        io_thread_post(b->v.io, ask_on_loop, b);
    else
        ask_on_loop(b);
    return true;
}

void virtio_balloon_poll(Device *d, uint32_t seconds)
{
    VirtioBalloon *b = (VirtioBalloon *)d;

    __atomic_store_n(&b->poll_s, seconds, __ATOMIC_RELAXED);
    arm_poll(b);
}

uint32_t virtio_balloon_polled(Device *d)
{
    return __atomic_load_n(&((VirtioBalloon *)d)->poll_s, __ATOMIC_RELAXED);
}

/* ---- the class ---- */

static bool balloon_realize(Device *d, GError **error)
{
    VirtioBalloon *b = (VirtioBalloon *)d;
    uint64_t offered = VIRTIO_BIT(VIRTIO_BALLOON_F_MUST_TELL_HOST) |
                       VIRTIO_BIT(VIRTIO_BALLOON_F_STATS_VQ) |
                       VIRTIO_BIT(VIRTIO_BALLOON_F_PAGE_POISON);

    offered |= b->deflate_on_oom ? VIRTIO_BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) : 0;
    offered |= b->reporting ? VIRTIO_BIT(VIRTIO_BALLOON_F_REPORTING) : 0;
    if (!virtio_realize(&b->v, &balloon_virtio, d->board->io, offered, BALLOON_QUEUES,
                        BALLOON_ENTRIES, CONFIG_LEN, error))
        return false;
    b->timers = d->board->io ? io_thread_timers(d->board->io) : d->board->timers;
    b->timer = timer_new(b->timers, poll_timer, b);
    b->fresh = true;
    return true;
}

static void nothing(void *opaque)
{
}

static void balloon_unrealize(Device *d)
{
    VirtioBalloon *b = (VirtioBalloon *)d;

    if (b->timer)
        timer_free(b->timer);
    b->timer = NULL;
    if (b->v.io)
        io_thread_call(b->v.io, nothing, NULL); /* what was posted has run */
    virtio_unrealize(&b->v);
}

static void balloon_pre_save(void *obj)
{
    VirtioBalloon *b = obj;

    virtio_pre_save(&b->v, &b->saved.transport);
    for (unsigned i = 0; i < CONFIG_LEN / 4; i++)
        b->saved.config[i] = config_word(b, (size_t)4 * i);
}

static bool balloon_post_load(void *obj, unsigned version, GError **error)
{
    VirtioBalloon *b = obj;

    for (unsigned i = 0; i < CONFIG_LEN / 4; i++)
        store_le32(b->v.config + 4 * i, b->saved.config[i]);
    b->fresh = !(b->saved.transport.virtio.status & VIRTIO_CONFIG_S_DRIVER_OK);
    return virtio_post_load(&b->v, &b->saved.transport, error);
}

static const StateField balloon_fields[] = {
    ST_SUBS(BalloonRegs, transport, 1, &virtio_saved_state),
    ST_U_ARRAY(BalloonRegs, config, UINT32_MAX),
    ST_END,
};
static const StateDesc balloon_state = {
    .name = "virtio-balloon-pci",
    .version = 1,
    .oldest = 1,
    .regs_offset = offsetof(VirtioBalloon, saved),
    .regs_size = sizeof(BalloonRegs),
    .fields = balloon_fields,
    .pre_save = balloon_pre_save,
    .post_load = balloon_post_load,
};

static const PropSpec balloon_props[] = {
    {"deflate-on-oom", "a guest that runs out of memory may take from the balloon by itself",
     PROP_BOOL, offsetof(VirtioBalloon, deflate_on_oom), 0, 0, "on"},
    {"free-page-reporting", "memory that the guest frees goes back to the host by itself", PROP_BOOL,
     offsetof(VirtioBalloon, reporting), 0, 0, "on"},
    {0},
};

const DeviceClass virtio_balloon_pci_class = {
    .name = "virtio-balloon-pci",
    .bus = "pci",
    .help = "virtio 1.0 memory balloon",
    .instance_size = sizeof(VirtioBalloon),
    .props = balloon_props,
    .state = &balloon_state,
    .realize = balloon_realize,
    .reset = virtio_reset,
    .quiesce = virtio_quiesce,
    .resume = virtio_resume,
    .unrealize = balloon_unrealize,
};
