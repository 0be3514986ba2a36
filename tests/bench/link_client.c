/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See link_client.h; switch_port_link.c has how sleeping and waking go. */
#include "link_client.h"

#include <sys/mman.h>
#include <unistd.h>

#include "lodge/clock.h"
#include "lodge/error.h"

enum { DIAL_GAP_US = 5000 };

bool link_client_open(LinkClient *c, const char *name, const char *who, int wait_ms,
                      GError **error)
{
    SwHello h = sw_hello(SW_OP_ATTACH, who);
    int64_t end = clock_host_ns() + wait_ms * INT64_C(1000000);
    SwWelcome w;
    unsigned nfds;

    while ((c->ctl = sw_dial(name, NULL)) < 0 && clock_host_ns() < end)
        g_usleep(DIAL_GAP_US);
    if (c->ctl < 0 && (c->ctl = sw_dial(name, error)) < 0)
        return false;
    if (!sw_send_hello(c->ctl, &h, NULL, 0, error) ||
        !sw_recv_welcome(c->ctl, &w, c->fds, &nfds, wait_ms, error))
        return false;
    if (nfds != SW_ATTACH_FDS)
        return lodge_fail(error, LODGE_ERROR_HOST, "switch %s: sent no link", name);
    c->memory = sw_link_map(c->fds[0], error);
    if (!c->memory)
        return false;
    link_tx_init(&c->tx, c->memory, 0);
    link_rx_init(&c->rx, c->memory, 1);
    return true;
}

void link_client_close(LinkClient *c)
{
    munmap(c->memory, LINK_BYTES);
    for (unsigned i = 0; i < SW_ATTACH_FDS; i++)
        close(c->fds[i]);
    close(c->ctl);
}

void link_client_poke(int fd)
{
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof one);

    (void)n; /* a full counter wakes as well */
}

void link_client_flush(LinkClient *c)
{
    if (link_tx_publish(&c->tx))
        link_client_poke(c->fds[2]);
}

void link_client_rest(LinkClient *c)
{
    uint64_t count;
    ssize_t got = read(c->fds[1], &count, sizeof count);

    (void)got; /* the ring says what there is */
    if (!link_rx_sleep(&c->rx))
        link_client_poke(c->fds[1]);
}
