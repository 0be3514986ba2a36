/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames that wait for a wire. There are few, and rarely any, so each is an allocation of its own.
 *
 * Threads: the owner's.
 */
#include "backlog.h"

#include "pkt.h"

typedef struct Kept {
    NetFrame f; /* its pieces are the bytes below */
    struct iovec iov;
    uint8_t bytes[];
} Kept;

void backlog_init(Backlog *b)
{
    *b = (Backlog){.frames = G_QUEUE_INIT};
}

void backlog_clear(Backlog *b)
{
    g_queue_clear_full(&b->frames, g_free);
    b->bytes = 0;
}

bool backlog_add(Backlog *b, const NetFrame *f)
{
    Kept *k;

    if (f->len > BACKLOG_BYTES_MAX - b->bytes)
        return false;
    k = g_malloc(sizeof *k + f->len);
    if (!pkt_gather(f, 0, k->bytes, f->len)) {
        g_free(k);
        return false;
    }
    k->f = *f;
    k->f.iov = &k->iov;
    k->f.niov = 1;
    k->iov = (struct iovec){k->bytes, f->len};
    g_queue_push_tail(&b->frames, k);
    b->bytes += f->len;
    return true;
}

void backlog_send(Backlog *b, NetPort *from)
{
    Kept *k;

    while ((k = g_queue_peek_head(&b->frames)) && net_send(from, &k->f, 1)) {
        b->bytes -= k->f.len;
        g_free(g_queue_pop_head(&b->frames));
    }
}
