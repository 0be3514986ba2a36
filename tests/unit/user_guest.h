/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_TESTS_USER_GUEST_H
#define LODGE_TESTS_USER_GUEST_H

/* A guest on the user network for unit tests: a port that keeps what arrives, and hand-made frames. */

#include <stdbool.h>
#include <stdint.h>

#include "lodge/clock.h"
#include "lodge/iothread.h"
#include "lodge/net.h"

enum { DEADLINE_S = 15, GUEST_IP = 0x0a00020f, HOST_IP = 0x0a000202, WINDOW = 60000 };

extern const uint8_t user_guest_mac[6], broadcast[6];

/* Its card. */
typedef struct Guest {
    LodgeClock *clock;
    IoThread *io;
    NetBackend *be;
    NetPort port;
    GAsyncQueue *frames; /* GBytes */
    GAsyncQueue *room;   /* one entry for each writable */
    guint gso; /* atomic: frames that came to be segmented */
    guint bad; /* atomic: frames longer than the MTU that nobody is to segment, or wrongly so */
    guint refused; /* atomic: frames that it did not take */
    bool deaf;     /* its loop's: it takes none */
    uint8_t gateway[6];
    uint16_t ip_id;
} Guest;

void guest_start(Guest *g, GHashTable *opts);
/* @clock: transfer full. */
void guest_start_at(Guest *g, GHashTable *opts, LodgeClock *clock);
void guest_stop(Guest *g);
/* It takes no more frames; the second time: it does again. */
void guest_turn_deaf(Guest *g);
void guest_send(Guest *g, const uint8_t *data, uint32_t len);
/* @gso_size: of segments of TCP over IPv4; 0: none. */
void guest_send_gso(Guest *g, const uint8_t *data, uint32_t len, uint32_t gso_size);
/* The next frame that @match accepts; others are dropped. */
typedef bool (*Match)(const uint8_t *p, gsize len);
GBytes *guest_wait(Guest *g, Match match);
bool is_tcp(const uint8_t *p, gsize len);

uint32_t eth(uint8_t *p, const uint8_t *to, uint16_t type);
/* IPv4 header at 14 for @len bytes behind it, and the pseudo header's sum into @field. */
void ip4(Guest *g, uint8_t *p, uint32_t from, uint32_t to, uint8_t proto, uint32_t len,
         uint8_t *field);
/* Who the gateway is. */
void arp(Guest *g);

/* A very small TCP of the guest's. */
typedef struct Tcp {
    Guest *g;
    uint16_t here, there; /* ports */
    uint32_t to;          /* the other end's address; 0: HOST_IP */
    uint32_t seq, ack;
    GString *got;
    bool fin;
} Tcp;

void tcp_send(Tcp *t, uint8_t flags, const char *data);
/* Take one segment, acknowledge what it carries; its flags. */
uint8_t tcp_recv(Tcp *t);
/* One segment with @n bytes of @data; a SYN has the MSS of an ordinary card. */
void bulk_send(Tcp *t, uint8_t flags, const uint8_t *data, uint32_t n);
/* A connection from the guest to a listener; the host's end. */
int bulk_open(Tcp *t);
int listen_loopback(uint16_t *ret_port);
void read_text(int fd, const char *want);

#endif
