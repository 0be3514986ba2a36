/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_TFTP_H
#define LODGE_NET_TFTP_H

#include "pkt.h"

enum {
    TFTP_TRANSFERS = 8,    /* at a time; the one that rested longest gives way */
    TFTP_FRAME_MAX = 1518, /* libslirp's blocks have at most 1428 bytes */
};

/* One transfer from the server to the guest. */
typedef struct TftpTransfer {
    uint8_t addr[16]; /* the guest's: four bytes or sixteen, the rest 0 */
    uint16_t port;    /* the guest's; 0: no transfer */
    uint16_t acked;   /* the last block that the guest acknowledged */
    bool acks;        /* it did so at all */
    uint16_t len;     /* of frame */
    int64_t sent_ns;  /* when the frame was last sent */
    uint8_t frame[TFTP_FRAME_MAX]; /* with the last block */
} TftpTransfer;

typedef struct Tftp {
    TftpTransfer transfer[TFTP_TRANSFERS];
} Tftp;

typedef enum TftpVerdict {
    TFTP_PASS,   /* for the server */
    TFTP_DROP,   /* nobody's business any more */
    TFTP_RESEND, /* the guest lacks *ret_again */
} TftpVerdict;

/**
 * tftp_from_server() - Note a frame that goes to the guest
 * @info: what pkt_parse() made of @frame
 */
void tftp_from_server(Tftp *t, const uint8_t *frame, uint32_t len, const PktInfo *info,
                      int64_t now_ns);
/**
 * tftp_from_guest() - What to do with a frame that comes from the guest
 * @ret_again: for TFTP_RESEND: its frame and length, valid until the next call
 */
TftpVerdict tftp_from_guest(Tftp *t, const uint8_t *frame, uint32_t len, const PktInfo *info,
                            int64_t now_ns, const TftpTransfer **ret_again);

#endif
