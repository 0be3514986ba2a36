/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The gate in a wire: what is sent passes the program in force first. Frames lie in memory that
 * the guest, or another program at a ring's other end, may write at any moment. So the bytes that
 * are looked at are copied first, and the frame goes on with the copy in front and only what
 * nobody looks at from where it was: what was allowed is what is sent.
 *
 * Frames that the receiver has no room for come again and are judged again; only what was taken
 * counts. A frame that is refused is gone for its sender.
 *
 * Threads: a direction's sender alone uses its Side, of which each stream of a back end has a pair;
 * a program is put in place by the main thread, which frees the old one when all senders have been
 * at rest since (net_settle()).
 */
#include "filter.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "lodge/error.h"
#include "pkt.h"

enum {
    BATCH = 16,      /* frames judged before they are sent */
    PIECES = 2048,   /* of a batch, and more than a frame has */
};

/* What one direction is sent from. */
typedef struct Side {
    NetFrame frame[BATCH];
    uint16_t by[BATCH];
    uint8_t head[BATCH][FILTER_HEAD];
    struct iovec iov[PIECES];
} Side;

struct NetGate {
    FilterProgram *program; /* atomic; owned; NULL: everything passes */
    uint64_t refused;       /* atomic, relaxed */
    unsigned streams;       /* constant */
    Side *side[NET_STREAMS_MAX][2]; /* owned; constant from before the first program is seen */
};

NetGate *net_gate_new(unsigned streams)
{
    NetGate *g = g_new0(NetGate, 1);

    g->streams = streams;
    return g;
}

void net_gate_free(NetGate *g)
{
    if (!g)
        return;
    filter_program_free(g->program);
    for (unsigned i = 0; i < g->streams; i++) {
        g_free(g->side[i][0]);
        g_free(g->side[i][1]);
    }
    g_free(g);
}

static FilterProgram *program_of(const NetGate *g)
{
    return __atomic_load_n(&g->program, __ATOMIC_ACQUIRE);
}

bool net_gate_open(const NetGate *g)
{
    return !program_of(g);
}

/* Copy @f's head to @s and make it the @n'th frame; @iovs: pieces in use. False: no room. */
static bool take(Side *s, unsigned n, unsigned *iovs, const NetFrame *f)
{
    uint32_t head = MIN(f->len, (uint32_t)FILTER_HEAD), skip = head;
    struct iovec *out = s->iov + *iovs;
    unsigned used = 1;

    if (f->niov >= PIECES - *iovs)
        return false;
    (void)pkt_gather(f, 0, s->head[n], head); /* zeros where it lies about its length */
    out[0] = (struct iovec){s->head[n], head};
    for (unsigned i = 0; i < f->niov; i++) {
        size_t have = f->iov[i].iov_len;
        if (skip >= have) {
            skip -= (uint32_t)have;
            continue;
        }
        out[used++] = (struct iovec){(uint8_t *)f->iov[i].iov_base + skip, have - skip};
        skip = 0;
    }
    s->frame[n] = *f;
    s->frame[n].iov = out;
    s->frame[n].niov = used;
    *iovs += used;
    return true;
}

/**
 * net_gate_send() - Send what the program allows
 * @stream: of the back end; @out: from the guest; @mac: the card's
 * @send: takes frames as net_send() does, with @opaque
 * Context: the sender's IoThread. Return: frames done with, sent or refused; fewer than @n: @send
 * took no more.
 */
unsigned net_gate_send(NetGate *g, unsigned stream, bool out, const uint8_t mac[6],
                       const NetFrame *v, unsigned n, NetGateSend send, void *opaque)
{
    FilterProgram *p = program_of(g);
    unsigned done = 0;

    if (!p)
        return send(opaque, v, n);
    Side *s = g->side[stream][out];
    while (done < n) {
        unsigned count = 0, iovs = 0;
        bool refused = false;
        FilterVerdict verdict = {false, FILTER_BY_UNCLEAR};
        while (count < BATCH && done + count < n && !refused) {
            if (!take(s, count, &iovs, &v[done + count])) {
                refused = !count; /* more pieces than any sender makes */
                break;
            }
            verdict = filter_judge(p, s->head[count], &s->frame[count], out, mac);
            refused = !verdict.allow;
            if (!refused)
                s->by[count++] = (uint16_t)verdict.by;
        }
        unsigned took = count ? send(opaque, s->frame, count) : 0;
        for (unsigned i = 0; i < took; i++)
            filter_count(p, s->by[i], 1, s->frame[i].len);
        done += took;
        if (took < count)
            break;
        if (refused) {
            filter_count(p, verdict.by, 1, v[done++].len);
            __atomic_fetch_add(&g->refused, 1, __ATOMIC_RELAXED);
        }
    }
    return done;
}

/**
 * net_gate_swap() - Put @p in force, taken over; NULL: everything passes
 * Context: main thread. Return: what was, transfer full, in use until all senders were at rest.
 */
FilterProgram *net_gate_swap(NetGate *g, FilterProgram *p)
{
    for (unsigned i = 0; p && i < 2 * g->streams; i++) {
        if (!g->side[i / 2][i % 2])
            g->side[i / 2][i % 2] = g_new(Side, 1);
    }
    return __atomic_exchange_n(&g->program, p, __ATOMIC_ACQ_REL);
}

NetFilterInfo *net_gate_info(NetGate *g)
{
    FilterProgram *p = program_of(g);

    return p ? filter_describe(p) : NULL;
}

uint64_t net_gate_refused(const NetGate *g)
{
    return __atomic_load_n(&g->refused, __ATOMIC_RELAXED);
}

/**
 * net_filter_read() - Read the text of a filter
 * Context: any thread. Return: transfer full, or NULL with LODGE_ERROR_HOST or LODGE_ERROR_LIMIT.
 */
char *net_filter_read(const char *path, size_t *ret_len, GError **error)
{
    g_autofree char *text = g_malloc(FILTER_TEXT_MAX + 2);
    size_t len = 0;
    ssize_t n = 1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    while (fd >= 0 && n && len <= FILTER_TEXT_MAX) {
        n = read(fd, text + len, FILTER_TEXT_MAX + 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        len += (size_t)n;
    }
    int err = fd < 0 || n < 0 ? errno : 0;
    if (fd >= 0)
        close(fd);
    if (err) {
        lodge_fail_errno(error, err, "\"%s\": cannot read the rules", path);
        return NULL;
    }
    if (len > FILTER_TEXT_MAX) {
        lodge_fail(error, LODGE_ERROR_LIMIT, "\"%s\": rules have at most %d KiB", path,
                   FILTER_TEXT_MAX >> 10);
        return NULL;
    }
    text[len] = '\0';
    *ret_len = len;
    return g_steal_pointer(&text);
}
