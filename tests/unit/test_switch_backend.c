/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The back end of --net at a running switch: frames, a switch that dies and comes back, options. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/net.h"
#include "lodge/num.h"
#include "pkt.h"
#include "switch_ends.h"
#include "switch_fix.h"

typedef struct Card {
    NetPort port;
    GMutex mutex;
    GCond cond;
    unsigned got, seq;
    bool link;
} Card;

static bool card_deliver(NetPort *self, const NetFrame *f)
{
    Card *c = self->opaque;
    uint8_t head[18];

    g_mutex_lock(&c->mutex);
    if (pkt_gather(f, 0, head, sizeof head)) {
        c->got++;
        c->seq = load_be32(head + 14);
    }
    g_cond_broadcast(&c->cond);
    g_mutex_unlock(&c->mutex);
    return true;
}

static void card_link(NetPort *self, bool up)
{
    Card *c = self->opaque;

    g_mutex_lock(&c->mutex);
    c->link = up;
    g_cond_broadcast(&c->cond);
    g_mutex_unlock(&c->mutex);
}

static const NetPortOps card_ops = {.deliver = card_deliver, .link = card_link};

static void card_wait(Card *c, unsigned got, bool link)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;

    g_mutex_lock(&c->mutex);
    while (c->got < got || c->link != link)
        g_assert_true(g_cond_wait_until(&c->cond, &c->mutex, end));
    g_mutex_unlock(&c->mutex);
}

typedef struct Send {
    Card *card;
    unsigned dst, src, seq, taken;
} Send;

static void card_send(void *opaque)
{
    Send *s = opaque;
    uint8_t f[FRAME];
    struct iovec iov = {f, sizeof f};
    NetFrame v = {.iov = &iov, .niov = 1, .len = sizeof f};

    frame_make(f, s->dst, s->src, s->seq);
    s->taken = net_send(&s->card->port, &v, 1);
}

static NetBackend *open_backend(Fix *x, const char *option, const char *value, GError **error)
{
    g_autoptr(GHashTable) opts =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_ptr_array_unref);
    const char *pairs[2][2] = {{"switch", "t"}, {option, value}};

    for (unsigned i = 0; i < 2 && pairs[i][0]; i++) {
        GPtrArray *values = g_ptr_array_new_with_free_func(g_free);
        g_ptr_array_add(values, g_strdup(pairs[i][1]));
        g_hash_table_replace(opts, g_strdup(pairs[i][0]), values);
    }
    return net_backend_open("switch", "net0", opts, x->clock, error);
}

static void test_backend(void)
{
    g_autoptr(GError) error = NULL;
    Card card = {.link = true};
    Link l;
    Fix x;

    fix_open(&x);
    NetBackend *be = open_backend(&x, NULL, NULL, &error);
    g_assert_no_error(error);
    card.port = (NetPort){.ops = &card_ops, .name = "card", .opaque = &card, .io = be->port->io};
    g_assert_true(net_join(&card.port, be->port, &error));
    link_open(&l);
    Send s = {.card = &card, .src = 1, .seq = 5};
    io_thread_call(be->port->io, card_send, &s);
    link_get(&l, 1, 5);
    g_assert_true(link_put(&l, 1, 2, 6));
    card_wait(&card, 1, true);
    g_assert_cmpuint(card.seq, ==, 6);
    for (unsigned i = 0; i < 1000; i++)
        g_assert_true(link_put(&l, 1, 2, i));
    card_wait(&card, 1001, true);
    /* The switch dies: the link goes down, and comes back with the next one. */
    link_close(&l);
    host_stop(&x);
    card_wait(&card, 0, false);
    io_thread_call(be->port->io, card_send, &s);
    g_assert_cmpuint(s.taken, ==, 1); /* lost */
    host_start(&x);
    card_wait(&card, 0, true);
    link_open(&l);
    s.seq = 7;
    io_thread_call(be->port->io, card_send, &s);
    link_get(&l, 1, 7);
    g_assert_true(link_put(&l, 1, 2, 8));
    card_wait(&card, 1002, true);
    net_part(&card.port);
    net_backend_close(be);
    wait_ports(&x, 1);
    link_close(&l);
    wait_ports(&x, 0);
    fix_close(&x);
}

static void test_backend_options(void)
{
    static const char *const cases[][3] = {
        {"port", "0", "port '0' is not a number from 1 to 256"},
        {"port", "257", "not a number from 1 to 256"},
        {"port", "x", "not a number"},
        {"vlan", "0", "vlan '0'"},
        {"vlan", "trunk:", "vlan 'trunk:'"},
        {"switch", "a/b", "not a name for a switch"},
    };
    Fix x;

    fix_open(&x);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(open_backend(&x, cases[i][0], cases[i][1], &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_assert_nonnull(strstr(error->message, cases[i][2]));
    }
    fix_close(&x);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/switch-backend/backend", test_backend);
    g_test_add_func("/switch-backend/backend-options", test_backend_options);
    return g_test_run();
}
