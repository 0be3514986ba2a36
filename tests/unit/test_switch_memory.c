/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the rings of a switch's links take together, with all of its ports busy. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/num.h"
#include "../bench/link_client.h"
#include "switch_fix.h"

enum { PORTS = 64, FRAME = 1514, EACH = 3000, BURST = 40, DEADLINE_S = 60,
       RINGS_BYTES = 2 << 20, /* as in switch_port_link.c */
       BESIDE = 2 * LINK_PAGE, /* the counters, and a page for what goes beyond */
};

typedef struct Port {
    LinkClient link;
    unsigned sent, got; /* got: one more than the latest frame's number */
} Port;

static void send_some(Port *p, unsigned number)
{
    uint8_t f[FRAME] = {0};
    struct iovec iov = {f, sizeof f};
    NetFrame v = {.iov = &iov, .niov = 1, .len = sizeof f};

    f[0] = f[6] = 2;
    f[5] = (uint8_t)(number ^ 1);
    f[11] = (uint8_t)number;
    for (unsigned i = 0; i < BURST; i++) {
        store_be32(f + 14, p->sent);
        if (!link_tx_put(&p->link.tx, &v))
            break;
        p->sent++;
    }
    link_client_flush(&p->link);
}

static void take_some(Port *p, unsigned number)
{
    struct iovec at;
    NetFrame f;

    while (link_rx_next(&p->link.rx, &f, &at)) {
        const uint8_t *bytes = at.iov_base;
        if (bytes[11] != (number ^ 1) || bytes[5] != number)
            continue; /* of another pair, before the switch knew where its port is */
        g_assert_cmpuint(load_be32(bytes + 14), >=, p->got); /* in order */
        p->got = load_be32(bytes + 14) + 1;
    }
    if (link_rx_release(&p->link.rx))
        link_client_poke(p->link.fds[2]);
}

/* All that the links' memory takes; each is ours and the switch's. */
static uint64_t memory_of(const Port *port, unsigned n)
{
    uint64_t bytes = 0;
    struct stat st;

    for (unsigned i = 0; i < n; i++) {
        g_assert_cmpint(fstat(port[i].link.fds[0], &st), ==, 0);
        bytes += (uint64_t)st.st_blocks * 512;
    }
    return bytes;
}

/* From each port to its neighbour, and back where @both, until @each frames came to everybody. */
static void exchange(Port *port, bool both, unsigned each)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    unsigned left = both ? PORTS : PORTS / 2;

    while (left) {
        left = 0;
        for (unsigned i = 0; i < PORTS; i++) {
            bool sends = both || i % 2 == 0, takes = both || i % 2;
            if (sends)
                send_some(&port[i], i);
            take_some(&port[i], i);
            left += takes && port[i].got < each;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_thread_yield();
    }
}

/* EACH frames and more, in little memory. */
static void flood(bool both)
{
    g_autofree Port *port = g_new0(Port, PORTS);
    g_autoptr(GError) error = NULL;
    Fix x;

    fix_open(&x);
    for (unsigned i = 0; i < PORTS; i++) {
        if (!link_client_open(&port[i].link, "t", "test", DEADLINE_S * 1000, &error))
            g_error("%s", error->message);
    }
    exchange(port, true, 1); /* what goes to a port that never sent goes to all */
    exchange(port, both, EACH);
    /* Both rings of each port have been busy. */
    g_assert_cmpuint(memory_of(port, PORTS), <=,
                     MAX((unsigned)RINGS_BYTES, 2 * PORTS * LINK_LIMIT_MIN) + PORTS * 2 * BESIDE);
    for (unsigned i = 0; i < PORTS; i++)
        link_client_close(&port[i].link);
    fix_close(&x);
}

static void test_one_way(void)
{
    flood(false);
}

static void test_both_ways(void)
{
    flood(true);
}

/* One that is busy alone has all of its ring. */
static void test_alone(void)
{
    Port port[2] = {0};
    g_autoptr(GError) error = NULL;
    Fix x;

    fix_open(&x);
    for (unsigned i = 0; i < 2; i++) {
        if (!link_client_open(&port[i].link, "t", "test", DEADLINE_S * 1000, &error))
            g_error("%s", error->message);
    }
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    while (memory_of(&port[1], 1) < LINK_RING_BYTES) { /* it does not read */
        send_some(&port[0], 0);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_thread_yield();
    }
    for (unsigned i = 0; i < 2; i++)
        link_client_close(&port[i].link);
    fix_close(&x);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/switch-memory/one-way", test_one_way);
    g_test_add_func("/switch-memory/both-ways", test_both_ways);
    g_test_add_func("/switch-memory/alone", test_alone);
    return g_test_run();
}
