/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A running switch: one loop with everything on it, so that nothing needs a lock. A round of the
 * loop takes a batch from each port that has frames; what they put into other ports is handed over
 * at the round's end, in as few system calls as it takes.
 *
 * Slow readers. A port whose queue is full makes those who send to it wait, for SW_HOLD_MS at most;
 * a reader that freed a part of its queue by then loses nothing. One that did not loses frames
 * until it has, and nobody waits for it again within SW_HOLD_GAP_FIRST_MS, the next time within
 * twice that, and so on up to SW_HOLD_GAP_MS. So a fast reader is never outrun, one that the host's
 * scheduler forgot is soon waited for again, and a slow one takes a fiftieth of a sender's time in
 * the long run.
 *
 * Ports that end are freed at the end of the round, since they may end inside one another's calls.
 */
#include "switch_host.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "lodge/clock.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/num.h"

enum {
    TICK_MS = 10000,
    EVENTS_KEPT = 32,
    UNUSED_MS = 10000, /* without a port that somebody uses it by */
    MANY_STUCK = 4,
};
#define NS_PER_MS INT64_C(1000000)

int64_t sw_host_now_ms(const SwHost *host)
{
    return clock_host_ns() / NS_PER_MS;
}

void sw_host_event(SwHost *host, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    lodge_note("switch %s: %s", host->name, text);
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *when = g_date_time_format(now, "%F %T");
    g_queue_push_tail(&host->events, g_strdup_printf("%s %s", when, text));
    if (g_queue_get_length(&host->events) > EVENTS_KEPT)
        g_free(g_queue_pop_head(&host->events));
}

static void on_event(void *opaque, const char *text)
{
    sw_host_event(opaque, "%s", text);
}

/* ---- ports ---- */

static void arm_tick(SwHost *host, int64_t ms)
{
    timer_arm(host->tick_timer, clock_now_ns(host->clock) + ms * NS_PER_MS);
    host->ticking = true;
}

static bool in_use(const SwHost *host)
{
    for (guint i = 0; i < host->ports->len; i++) {
        if (!((const SwHostPort *)g_ptr_array_index(host->ports, i))->of_host)
            return true;
    }
    return false;
}

static void on_tick(void *opaque)
{
    SwHost *host = opaque;
    int64_t now = sw_host_now_ms(host);

    host->ticking = false;
    switch_age(host->sw, now);
    for (guint i = 0; i < host->ports->len; i++) {
        SwHostPort *h = g_ptr_array_index(host->ports, i);
        if (h->trim && !h->doomed)
            h->trim(h);
    }
    sw_link_tick(host);
    if (in_use(host) || (host->ports->len && !host->unused)) {
        arm_tick(host, TICK_MS);
        return;
    }
    if (!host->unused)
        return;
    if (now - host->unused_ms >= UNUSED_MS)
        host->unused(host->opaque);
    else
        arm_tick(host, UNUSED_MS - (now - host->unused_ms));
}

static void port_free(SwHostPort *h)
{
    SwHost *host = h->host;

    g_ptr_array_remove_fast(host->dirty, h);
    g_ptr_array_remove_fast(host->held, h);
    g_ptr_array_remove_fast(host->stuck, h);
    io_watch_free(h->watch);
    io_watch_free(h->ctl_watch);
    switch_unplug(&h->p);
    if (h->ctl_fd >= 0)
        close(h->ctl_fd);
    h->free(h);
}

static void on_ctl(void *opaque, uint32_t events)
{
    SwHostPort *h = opaque;
    char bytes[SW_REQUEST_MAX];
    ssize_t n = read(h->ctl_fd, bytes, sizeof bytes);

    /* uml_switch's clients pad their requests, so a few bytes may still come. */
    if (n <= 0 && !(n < 0 && (errno == EAGAIN || errno == EINTR)))
        sw_host_doom(h, NULL);
}

bool sw_host_adopt(SwHost *host, SwHostPort *h, int fd, uint32_t events, IoWatchFn on_frames,
                   unsigned number, const char *name, const SwVlan *vlan, GError **error)
{
    h->host = host;
    if (switch_plug(host->sw, &h->p, number, name, vlan, error))
        h->watch = io_watch_new(host->io, fd, events, on_frames, h, error);
    if (h->watch && h->ctl_fd >= 0)
        h->ctl_watch = io_watch_new(host->io, h->ctl_fd, EPOLLIN | EPOLLRDHUP, on_ctl, h, error);
    if (!h->watch || (h->ctl_fd >= 0 && !h->ctl_watch)) {
        port_free(h);
        return false;
    }
    g_ptr_array_add(host->ports, h);
    if (!host->ticking)
        arm_tick(host, TICK_MS);
    return true;
}

void sw_host_doom(SwHostPort *h, const char *why)
{
    if (h->doomed)
        return;
    if (why)
        sw_host_event(h->host, "port %u (%s): %s", h->p.number, h->p.name, why);
    h->doomed = true;
    h->host->doomed++;
}

void sw_host_doom_op(SwPort *p)
{
    sw_host_doom((SwHostPort *)p, NULL);
}

void sw_host_dirty(SwHostPort *h)
{
    if (h->dirty)
        return;
    h->dirty = true;
    g_ptr_array_add(h->host->dirty, h);
}

void sw_host_hold(SwHostPort *h)
{
    SwHost *host = h->host;

    if (h->held)
        return;
    h->held = true;
    if (!host->held->len)
        timer_arm(host->hold_timer, clock_now_ns(host->clock) + SW_HOLD_MS * NS_PER_MS);
    g_ptr_array_add(host->held, h);
}

void sw_host_release_held(SwHost *host)
{
    for (guint i = 0; i < host->held->len; i++) {
        SwHostPort *h = g_ptr_array_index(host->held, i);

        h->held = false;
        h->resume(h);
    }
    g_ptr_array_set_size(host->held, 0);
    timer_cancel(host->hold_timer);
}

SwOut sw_host_full(SwHostPort *h, bool may_hold)
{
    int64_t now = sw_host_now_ms(h->host);

    if (!h->full) {
        h->full = true;
        h->full_round = h->host->rounds;
        h->hold_end_ms = now >= h->hold_ok_ms ? now + SW_HOLD_MS : 0;
        if (now - h->hold_ok_ms >= SW_HOLD_GAP_MS)
            h->hold_gap_ms = SW_HOLD_GAP_FIRST_MS;
    }
    /* A round may take longer than that: it had its chance once the loop has looked for events. */
    if (h->hold_end_ms && now >= h->hold_end_ms && h->host->rounds - h->full_round >= 2) {
        h->hold_end_ms = 0;
        h->hold_ok_ms = now + h->hold_gap_ms;
        h->hold_gap_ms = MIN(2 * h->hold_gap_ms, (int)SW_HOLD_GAP_MS);
    }
    return may_hold && h->hold_end_ms ? SW_HOLD : SW_FULL;
}

void sw_host_room(SwHostPort *h)
{
    if (!h->full)
        return;
    h->full = false;
    h->hold_end_ms = 0;
    sw_host_release_held(h->host);
}

static void on_hold_end(void *opaque)
{
    sw_host_release_held(opaque);
}

static void reap(SwHost *host)
{
    for (guint i = host->ports->len; i-- > 0;) {
        SwHostPort *h = g_ptr_array_index(host->ports, i);

        if (!h->doomed)
            continue;
        g_ptr_array_remove_index_fast(host->ports, i);
        port_free(h);
    }
    host->doomed = 0;
    if (!in_use(host)) {
        host->unused_ms = sw_host_now_ms(host);
        arm_tick(host, UNUSED_MS);
    }
    sw_host_release_held(host); /* who waited may have waited for one of these */
}

static void flush_dirty(SwHost *host)
{
    for (guint i = 0; i < host->dirty->len; i++) {
        SwHostPort *h = g_ptr_array_index(host->dirty, i);

        h->dirty = false;
        if (!h->doomed)
            h->flush(h);
    }
    g_ptr_array_set_size(host->dirty, 0);
}

void sw_host_stuck(SwHostPort *h)
{
    if (h->stuck)
        return;
    h->stuck = true;
    g_ptr_array_add(h->host->stuck, h);
}

/*
 * Readers whose queues are full are tried once more before the kernel is asked for events: each of
 * these wakes us as soon as one frame has gone, only to send one frame, and so on. Where many are
 * full CPUs are short, so ours is left to them for a turn; where few are it is not, since the
 * kernel lets a reader interrupt who has just given up a turn, for each frame anew.
 */
static void retry_stuck(SwHost *host)
{
    if (host->stuck->len > MANY_STUCK)
        sched_yield();
    for (guint i = 0; i < host->stuck->len; i++) {
        SwHostPort *h = g_ptr_array_index(host->stuck, i);

        if (!h->doomed)
            h->retry(h);
    }
    flush_dirty(host); /* whose frames were held goes on */
    for (guint i = 0; i < host->stuck->len; i++) {
        SwHostPort *h = g_ptr_array_index(host->stuck, i);

        h->stuck = false;
        if (!h->doomed)
            h->arm(h);
    }
    g_ptr_array_set_size(host->stuck, 0);
}

static void on_round_end(void *opaque)
{
    SwHost *host = opaque;

    flush_dirty(host);
    if (host->stuck->len)
        retry_stuck(host);
    host->rounds++;
    if (host->doomed)
        reap(host);
}

/* ---- life ---- */

static void host_start(void *opaque)
{
    SwHost *host = opaque;

    host->hold_timer = timer_new(io_thread_timers(host->io), on_hold_end, host);
    host->tick_timer = timer_new(io_thread_timers(host->io), on_tick, host);
    host->unused_ms = sw_host_now_ms(host);
    arm_tick(host, UNUSED_MS);
    io_thread_add_idle(host->io, on_round_end, host);
}

static void host_stop(void *opaque)
{
    SwHost *host = opaque;

    io_thread_remove_idle(host->io, on_round_end, host);
    for (guint i = 0; i < host->ports->len; i++)
        port_free(g_ptr_array_index(host->ports, i));
    for (guint i = 0; i < host->listeners->len; i++)
        sw_listener_free(g_ptr_array_index(host->listeners, i));
    timer_free(host->hold_timer);
    timer_free(host->tick_timer);
}

SwHost *sw_host_new(const char *name, const SwConfig *config, LodgeClock *clock, GError **error)
{
    SwHost *host = g_new0(SwHost, 1);
    SwConfig c = *config;

    c.event = on_event;
    c.opaque = host;
    host->name = g_strdup(name);
    host->clock = clock;
    host->sw = switch_new(&c);
    host->ports = g_ptr_array_new();
    host->listeners = g_ptr_array_new();
    host->dirty = g_ptr_array_new();
    host->held = g_ptr_array_new();
    host->stuck = g_ptr_array_new();
    host->buf = g_malloc(SW_BUF_BYTES);
    g_queue_init(&host->events);
    host->io = io_thread_new("switch", clock, error);
    if (!host->io) {
        sw_host_free(host);
        return NULL;
    }
    io_thread_call(host->io, host_start, host);
    return host;
}

void sw_host_free(SwHost *host)
{
    if (!host)
        return;
    if (host->io) {
        io_thread_call(host->io, host_stop, host);
        io_thread_free(host->io);
    }
    g_ptr_array_unref(host->ports);
    g_ptr_array_unref(host->listeners);
    g_ptr_array_unref(host->dirty);
    g_ptr_array_unref(host->held);
    g_ptr_array_unref(host->stuck);
    switch_free(host->sw);
    g_queue_clear_full(&host->events, g_free);
    g_free(host->buf);
    g_free(host->name);
    g_free(host);
}

/* ---- reports ---- */

static void stats_json(SwHost *host, JsonOut *j)
{
    const SwConfig *c = switch_config(host->sw);

    json_number(j, "pid", getpid());
    json_bool(j, "hub", c->hub);
    json_bool(j, "internal", host->internal);
    json_bool(j, "until-unused", host->automatic);
    json_number(j, "age", c->age_s);
    if (c->storm)
        json_number(j, "storm", c->storm);
    else
        json_null(j, "storm");
    if (c->mirror)
        json_number(j, "mirror", c->mirror);
    else
        json_null(j, "mirror");
    json_number(j, "macs", switch_macs(host->sw));
    json_number(j, "macs-max", SW_MACS_MAX);
    json_number(j, "macs-refused", (int64_t)switch_macs_refused(host->sw));
    json_number(j, "loops", (int64_t)switch_loops(host->sw));
    json_array(j, "events");
    for (GList *e = host->events.head; e; e = e->next)
        json_string(j, NULL, e->data);
    json_end(j);
    switch_json_ports(host->sw, j);
}

static void stats_text(SwHost *host, GString *to)
{
    const SwConfig *c = switch_config(host->sw);

    g_string_append_printf(to, "%s %s, pid %d%s%s\n", c->hub ? "hub" : "switch", host->name,
                           (int)getpid(), host->internal ? ", internal" : "",
                           host->automatic ? ", until unused" : "");
    g_string_append_printf(to, "addresses: %u of %d, forgotten after %u s, not learnt %" PRIu64
                           "\n", switch_macs(host->sw), SW_MACS_MAX, c->age_s,
                           switch_macs_refused(host->sw));
    g_string_append_printf(to, "loops noticed: %" PRIu64 "\n", switch_loops(host->sw));
    for (unsigned i = 1; i <= SW_PORTS_MAX; i++) {
        const SwPort *p = switch_port(host->sw, i);

        if (!p)
            continue;
        g_string_append_printf(to, "port %u (%s %s): received %" PRIu64 " frames %" PRIu64
                               " bytes, sent %" PRIu64 " frames %" PRIu64 " bytes", i, p->ops->kind,
                               p->name, p->rx_frames, p->rx_bytes, p->tx_frames, p->tx_bytes);
        for (unsigned d = 0; d < SW_DROPS; d++) {
            if (p->drops[d])
                g_string_append_printf(to, ", dropped %" PRIu64 " %s", p->drops[d],
                                       sw_drop_name((SwDrop)d));
        }
        g_string_append_c(to, '\n');
    }
    for (GList *e = host->events.head; e; e = e->next)
        g_string_append_printf(to, "%s\n", (char *)e->data);
}

static char *report_text(SwHost *host, SwOp op)
{
    GString *s = g_string_new(NULL);

    if (op == SW_OP_PORTS)
        switch_text_ports(host->sw, s);
    else if (op == SW_OP_MACS)
        switch_text_macs(host->sw, s, sw_host_now_ms(host));
    else
        stats_text(host, s);
    return g_string_free(s, FALSE);
}

char *sw_host_report(SwHost *host, SwOp op, bool json)
{
    g_autoptr(JsonOut) j = NULL;

    if (!json)
        return report_text(host, op);
    j = json_out_new();
    json_object(j, NULL);
    json_number(j, "schema", 1);
    json_string(j, "name", host->name);
    if (op == SW_OP_PORTS)
        switch_json_ports(host->sw, j);
    else if (op == SW_OP_MACS)
        switch_json_macs(host->sw, j, sw_host_now_ms(host));
    else
        stats_json(host, j);
    return g_strdup(json_text(j));
}
