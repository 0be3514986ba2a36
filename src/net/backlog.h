/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_BACKLOG_H
#define LODGE_BACKLOG_H

/* Copies of frames that a wire did not take, in order and bounded, for a source that cannot be told
 * to keep them. One thread. */

#include "lodge/net.h"

enum { BACKLOG_BYTES_MAX = 4 << 20 };

typedef struct Backlog {
    GQueue frames; /* owned */
    size_t bytes;
} Backlog;

void backlog_init(Backlog *b);
void backlog_clear(Backlog *b);
static inline bool backlog_empty(const Backlog *b)
{
    return g_queue_is_empty((GQueue *)&b->frames);
}
/* Keep a copy of @f. Return: false: full. */
bool backlog_add(Backlog *b, const NetFrame *f);
/* Send what @from's peer takes. */
void backlog_send(Backlog *b, NetPort *from);

#endif
