/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keys on their way to the guest at the pace of a hand: what commands ask for is pressed one thing
 * after the other, whoever asked, by a timer on the main loop.
 *
 * A guest's keyboard holds 16 bytes; typing faster than it reads loses keys, so every step says how
 * long to wait behind it. Invariants: (1) at most STEPS_MAX steps wait. (2) A job that is
 * cancelled, or cut off by key_queue_free(), lets go of what it holds down.
 */
#include <string.h>

#include "lodge/error.h"

#include "control_internal.h"

#define STEPS_MAX (512u * 1024u)
#define CODES 256u

typedef struct KeyJob {
    KeyQueue *queue;
    Input *in;
    GArray *steps; /* KeyStep */
    size_t at;
    ControlReply *reply; /* NULL: nobody waits */
    uint8_t down[CODES / 8]; /* codes that it holds */
} KeyJob;

struct KeyQueue {
    GQueue jobs;  /* KeyJob; the first one is under way */
    size_t steps; /* of all of them */
    guint timer;  /* source; 0: none */
};

KeyQueue *key_queue_new(void)
{
    KeyQueue *q = g_new0(KeyQueue, 1);
    g_queue_init(&q->jobs);
    return q;
}

static void job_free(KeyJob *job)
{
    for (unsigned code = 0; code < CODES; code++) {
        if (job->down[code / 8] & 1u << code % 8)
            input_key(job->in, code, false);
    }
    job->queue->steps -= job->steps->len;
    g_array_free(job->steps, TRUE);
    g_free(job);
}

void key_queue_free(KeyQueue *q)
{
    if (!q)
        return;
    g_clear_handle_id(&q->timer, g_source_remove);
    KeyJob *job;
    while ((job = g_queue_pop_head(&q->jobs)))
        job_free(job);
    g_free(q);
}

static gboolean on_timer(gpointer opaque);

/* Press and let go up to the next pause. */
static void run(KeyQueue *q)
{
    KeyJob *job;
    while ((job = g_queue_peek_head(&q->jobs))) {
        while (job->at < job->steps->len) {
            KeyStep *s = &g_array_index(job->steps, KeyStep, job->at++);
            uint8_t bit = (uint8_t)(1u << s->code % 8);
            if (s->down)
                job->down[s->code / 8] |= bit;
            else
                job->down[s->code / 8] &= (uint8_t)~bit;
            input_key(job->in, s->code, s->down);
            if (s->wait_ms) {
                q->timer = g_timeout_add(s->wait_ms, on_timer, q);
                return;
            }
        }
        (void)g_queue_pop_head(&q->jobs);
        ControlReply *reply = job->reply;
        job_free(job);
        if (reply)
            control_reply_done(reply, NULL);
    }
}

static gboolean on_timer(gpointer opaque)
{
    KeyQueue *q = opaque;
    q->timer = 0;
    run(q);
    return G_SOURCE_REMOVE;
}

/* The one who asked is gone. */
static void cancel(ControlReply *r)
{
    KeyJob *job = r->opaque;
    KeyQueue *q = job->queue;
    bool first = g_queue_peek_head(&q->jobs) == job;
    (void)g_queue_remove(&q->jobs, job);
    job_free(job);
    if (first) {
        g_clear_handle_id(&q->timer, g_source_remove);
        if (!g_queue_is_empty(&q->jobs))
            q->timer = g_idle_add(on_timer, q);
    }
}

bool key_queue_add(KeyQueue *q, Input *in, const KeyStep *steps, size_t n, ControlReply *r,
                   GError **error)
{
    if (n > STEPS_MAX - q->steps)
        return lodge_fail(error, LODGE_ERROR_BUSY, "too many keys wait to be typed already");
    KeyJob *job = g_new0(KeyJob, 1);
    job->queue = q;
    job->in = in;
    job->reply = r;
    job->steps = g_array_sized_new(FALSE, FALSE, sizeof(KeyStep), (guint)n);
    if (n)
        g_array_append_vals(job->steps, steps, (guint)n);
    q->steps += n;
    if (r)
        control_reply_later(r, cancel, job);
    g_queue_push_tail(&q->jobs, job);
    if (!q->timer) /* from the loop: the answer may not come before the command returns */
        q->timer = g_idle_add(on_timer, q);
    return true;
}
