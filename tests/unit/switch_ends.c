/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "switch_ends.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/num.h"
#include "switch_client.h"

/* ---- frames ---- */

void frame_make(uint8_t f[FRAME], unsigned dst, unsigned src, unsigned seq)
{
    const uint8_t none[6] = {2}, all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    memset(f, 0x5a, FRAME);
    memcpy(f, dst ? none : all, 6);
    if (dst)
        f[5] = (uint8_t)dst;
    memcpy(f + 6, none, 6);
    f[11] = (uint8_t)src;
    store_be16(f + 12, 0x88b5);
    store_be32(f + 14, seq);
}

/* ---- clients of others' protocols ---- */

static void connect_at(int fd, const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    g_strlcpy(a.sun_path, path, sizeof a.sun_path);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&a, sizeof a), ==, 0);
}

void set_deadline(int fd)
{
    struct timeval t = {.tv_sec = DEADLINE_S};

    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t), ==, 0);
}

void client_begin(Client *c, const char *ctl, const char *path, unsigned id)
{
    *c = (Client){.own.sun_family = AF_UNIX, .own_len = sizeof c->own};
    c->ctl = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    c->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    set_deadline(c->ctl);
    set_deadline(c->fd);
    if (path) {
        c->path = g_strdup(path);
        g_strlcpy(c->own.sun_path, path, sizeof c->own.sun_path);
    } else {
        int pid = getpid();
        memcpy(c->own.sun_path + 4, &pid, sizeof pid);
        memcpy(c->own.sun_path + 8, &id, sizeof id);
    }
    g_assert_cmpint(bind(c->fd, (struct sockaddr *)&c->own, c->own_len), ==, 0);
    connect_at(c->ctl, ctl);
}

size_t client_request(uint8_t *to, const Client *c, unsigned version, uint32_t type)
{
    size_t at = version == 3 ? 12 : version ? 14 : 10;

    memset(to, 0, SW_REQUEST_MAX);
    store_le32(to, version ? 0xfeedfaceu : type);
    store_le32(to + 4, version == 3 ? 3 : type);
    if (version == 3)
        store_le32(to + 8, type);
    else if (!version)
        memset(to + 4, 0, 6);
    memcpy(to + at, &c->own, sizeof c->own);
    return at + sizeof c->own;
}

bool client_ask(Client *c, unsigned version, uint32_t type, size_t extra)
{
    uint8_t r[SW_REQUEST_MAX];
    size_t len = client_request(r, c, version, type) + extra;

    g_assert_cmpint(send(c->ctl, r, len, 0), ==, (ssize_t)len);
    return !version || recv(c->ctl, &c->peer, sizeof c->peer, MSG_WAITALL) == sizeof c->peer;
}

void client_end(Client *c)
{
    close(c->ctl);
    close(c->fd);
    if (c->path)
        (void)unlink(c->path);
    g_clear_pointer(&c->path, g_free);
}

void client_put(Client *c, unsigned dst, unsigned src, unsigned seq)
{
    uint8_t f[FRAME];

    frame_make(f, dst, src, seq);
    g_assert_cmpint(sendto(c->fd, f, sizeof f, 0, (struct sockaddr *)&c->peer, sizeof c->peer), ==,
                    FRAME);
}

void client_get(Client *c, unsigned src, unsigned seq)
{
    uint8_t f[2048];

    g_assert_cmpint(recv(c->fd, f, sizeof f, 0), ==, FRAME);
    g_assert_cmpuint(f[11], ==, src);
    g_assert_cmpuint(load_be32(f + 14), ==, seq);
}

/* ---- our own link ---- */

void link_open(Link *l)
{
    g_autoptr(GError) error = NULL;
    SwHello h = sw_hello(SW_OP_ATTACH, "test");
    SwWelcome w;
    unsigned nfds;

    l->ctl = sw_dial("t", &error);
    g_assert_no_error(error);
    g_assert_true(sw_send_hello(l->ctl, &h, NULL, 0, &error));
    g_assert_true(sw_recv_welcome(l->ctl, &w, l->fds, &nfds, DEADLINE_S * 1000, &error));
    g_assert_cmpuint(nfds, ==, SW_ATTACH_FDS);
    l->memory = sw_link_map(l->fds[0], &error);
    g_assert_no_error(error);
    g_assert_cmpint(ftruncate(l->fds[0], 0), <, 0); /* sealed */
    link_tx_init(&l->tx, l->memory, 0);
    link_rx_init(&l->rx, l->memory, 1);
    l->port = w.port;
}

void link_close(Link *l)
{
    munmap(l->memory, LINK_BYTES);
    for (unsigned i = 0; i < SW_ATTACH_FDS; i++)
        close(l->fds[i]);
    close(l->ctl);
}

void link_kick(Link *l)
{
    uint64_t one = 1;

    g_assert_cmpint(write(l->fds[2], &one, sizeof one), ==, sizeof one);
}

bool link_put(Link *l, unsigned dst, unsigned src, unsigned seq)
{
    uint8_t f[FRAME];
    struct iovec iov = {f, sizeof f};
    NetFrame v = {.iov = &iov, .niov = 1, .len = sizeof f};

    frame_make(f, dst, src, seq);
    bool ok = link_tx_put(&l->tx, &v);
    if (link_tx_publish(&l->tx))
        link_kick(l);
    return ok;
}

void link_get(Link *l, unsigned src, unsigned seq)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    struct iovec at;
    NetFrame f;

    while (!link_rx_next(&l->rx, &f, &at)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(200);
    }
    g_assert_cmpuint(((uint8_t *)at.iov_base)[11], ==, src);
    g_assert_cmpuint(load_be32((uint8_t *)at.iov_base + 14), ==, seq);
    if (link_rx_release(&l->rx))
        link_kick(l);
}
