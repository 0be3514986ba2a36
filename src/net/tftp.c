/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Acknowledgements that a guest repeats, kept from libslirp's TFTP server.
 *
 * Specification: RFC 1350, sections 2 and 4 (one block at a time; the last packet is sent again
 * after a time-out), RFC 1123, 4.2.3.1 (a repeated acknowledgement starts nothing new).
 *
 * libslirp (4.7 to 4.9) answers each acknowledgement with the next block, whatever block it names.
 * A guest that was slow and repeats one is sent two blocks ahead, from then on for good, and one
 * that really lost a block never gets it: the transfer ends in the guest's time-out. Here the last
 * block of a transfer is kept. An acknowledgement of an earlier block, or of the same one again,
 * does not reach the server; if the kept block was sent a while ago it is sent again.
 *
 * Left out: transfers to the server, which libslirp refuses.
 *
 * Threads: the user network's.
 *
 * Invariants:
 * (1) no transfer with port 0; frame holds len <= TFTP_FRAME_MAX bytes.
 * (2) nothing is kept but what the server sent, so a guest's frames take no memory.
 */
#include "tftp.h"

#include <string.h>

#include <glib.h>

#include "lodge/num.h"

enum {
    SERVER_PORT = 69,
    OP_READ = 1,
    OP_WRITE = 2,
    OP_DATA = 3,
    OP_ACK = 4,
    OP_ERROR = 5,
    OP_OPTIONS = 6, /* RFC 2347 */
    OP_LEN = 4,     /* operation and block */
    IP4_FROM = 12,
    IP4_TO = 16,
    IP6_FROM = 8,
    IP6_TO = 24,
};

/* The least time between two sendings of a block: above the way through a guest that works. */
#define RESEND_NS INT64_C(200000000)

/* The UDP payload of a TFTP frame, or NULL; the guest's end in @ret_end. */
static const uint8_t *payload(const uint8_t *frame, uint32_t len, const PktInfo *info,
                              bool to_guest, TftpTransfer *ret_end)
{
    const uint8_t *udp = frame + info->l4_off, *ip = frame + info->l3_off;
    unsigned server = to_guest ? 0 : 2;

    if (!info->l4_off || info->proto != PKT_PROTO_UDP || info->fragment ||
        info->payload_off + OP_LEN > len || load_be16(udp + server) != SERVER_PORT)
        return NULL;
    memset(ret_end->addr, 0, sizeof ret_end->addr);
    if (info->ip_version == 4)
        memcpy(ret_end->addr, ip + (to_guest ? IP4_TO : IP4_FROM), 4);
    else
        memcpy(ret_end->addr, ip + (to_guest ? IP6_TO : IP6_FROM), 16);
    ret_end->port = load_be16(udp + 2 - server);
    return ret_end->port ? frame + info->payload_off : NULL;
}

static TftpTransfer *find(Tftp *t, const TftpTransfer *end)
{
    for (unsigned i = 0; i < TFTP_TRANSFERS; i++) {
        TftpTransfer *x = &t->transfer[i];
        if (x->port == end->port && !memcmp(x->addr, end->addr, sizeof x->addr))
            return x;
    }
    return NULL;
}

/* A free place, or that of the transfer that rested longest. */
static TftpTransfer *begin(Tftp *t, const TftpTransfer *end)
{
    TftpTransfer *x = &t->transfer[0];

    for (unsigned i = 1; i < TFTP_TRANSFERS && x->port; i++) {
        if (!t->transfer[i].port || t->transfer[i].sent_ns < x->sent_ns)
            x = &t->transfer[i];
    }
    *x = (TftpTransfer){.port = end->port};
    memcpy(x->addr, end->addr, sizeof x->addr);
    return x;
}

void tftp_from_server(Tftp *t, const uint8_t *frame, uint32_t len, const PktInfo *info,
                      int64_t now_ns)
{
    TftpTransfer end;
    const uint8_t *p = payload(frame, len, info, true, &end);
    uint16_t op = p ? load_be16(p) : 0;

    if ((op != OP_DATA && op != OP_OPTIONS) || len > TFTP_FRAME_MAX)
        return;
    TftpTransfer *x = find(t, &end);
    if (!x)
        x = begin(t, &end);
    memcpy(x->frame, frame, len);
    x->len = (uint16_t)len;
    x->sent_ns = now_ns;
}

TftpVerdict tftp_from_guest(Tftp *t, const uint8_t *frame, uint32_t len, const PktInfo *info,
                            int64_t now_ns, const TftpTransfer **ret_again)
{
    TftpTransfer end;
    const uint8_t *p = payload(frame, len, info, false, &end);
    TftpTransfer *x = p ? find(t, &end) : NULL;

    if (!x)
        return TFTP_PASS;
    uint16_t op = load_be16(p), block = load_be16(p + 2);
    if (op == OP_READ || op == OP_WRITE || op == OP_ERROR)
        x->port = 0;
    if (op != OP_ACK)
        return TFTP_PASS;
    if (!x->acks || (int16_t)(uint16_t)(block - x->acked) > 0) {
        x->acks = true;
        x->acked = block;
        return TFTP_PASS;
    }
    if (block != x->acked || now_ns - x->sent_ns < RESEND_NS)
        return TFTP_DROP;
    x->sent_ns = now_ns;
    *ret_again = x;
    return TFTP_RESEND;
}
