/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_HOST_END_H
#define LODGE_NET_HOST_END_H

/*
 * What back ends over one descriptor share: an IoThread of their own, frames received in batches
 * and held where the card has no room, waiting for room in the host, a connection that is lost and
 * sought again, counters. A driver embeds HostEnd first and gives the functions of HostEndOps.
 */

#include "lodge/clock.h"
#include "lodge/iothread.h"
#include "lodge/net.h"

typedef struct HostEnd HostEnd;

typedef enum HostDrop {
    HOST_DROP_DOWN,      /* nobody is at the other end */
    HOST_DROP_SLOW,      /* the other end does not read */
    HOST_DROP_TOO_LONG,  /* for the other end */
    HOST_DROP_HOST,      /* the host refused it */
    HOST_DROP_MALFORMED, /* received, and no frame */
    HOST_DROPS,
} HostDrop;

enum {
    HOST_RX_BATCH = 32,
    HOST_RX_STRIDE = 68 << 10, /* bytes for a received frame and what is in front of it */
    HOST_RX_BYTES = HOST_RX_BATCH * HOST_RX_STRIDE,
    HOST_FRAME_MIN = 14,
    HOST_FRAME_PAD = 60, /* shorter ones are filled up to it, as on a cable */
};

/* Answers of the fill slot besides a count of frames. */
enum { HOST_FILL_DRY = 0, HOST_FILL_LOST = -1 };

typedef struct HostEndOps {
    /* Make and set h->fd, and h->ctl where there is one; say what it is joined to in h->detail.
     * @first: somebody waits for the answer, else at most a moment may pass. Context: the loop. */
    bool (*connect)(HostEnd *h, bool first, GError **error);
    /* Receive with host_end_rx() until the batch is full or nothing is left. Return: frames, or
     * HOST_FILL_*; with HOST_FILL_LOST h->why says why. Context: the loop, nothing is held. */
    int (*fill)(HostEnd *h);
    /* As NetPortOps.send; called while there is a descriptor. */
    unsigned (*send)(HostEnd *h, const NetFrame *v, unsigned n);
    /* The descriptor can be written again. NULL: only the frames wait. */
    void (*ready)(HostEnd *h);
    /* Forget the connection; h->fd and h->ctl are closed by the caller. NULL: nothing to do. */
    void (*lost)(HostEnd *h);
    /* h->ctl is readable or closed. Return: false: lost. NULL: that is a loss. */
    bool (*ctl)(HostEnd *h);
    /* As NetPortOps.changed; called while there is a descriptor, and when it comes. NULL: not
     * interested. */
    void (*changed)(HostEnd *h);
} HostEndOps;

struct HostEnd {
    NetBackend be;
    NetPort port;
    const HostEndOps *ops;
    char *id;          /* owned */
    IoThread *io;      /* owned */
    LodgeClock *clock; /* borrowed */
    bool again;        /* constant: a lost connection is sought again */
    bool polls_room;   /* constant: EPOLLOUT tells when there is room; else a timer asks */
    bool silent;       /* constant: another one speaks of the connection */

    /* loop only */
    int fd, ctl; /* owned; -1: none */
    IoWatch *watch, *ctl_watch;
    LodgeTimer *retry, *room;
    int64_t backoff_ns;
    unsigned full_ticks; /* of the room timer, since something was taken */
    bool tx_full;        /* frames were refused and wait */
    bool more_posted;    /* receiving goes on in a while */
    bool want_out;       /* ready() is to be called when there is room */
    uint8_t *rx;         /* owned; HOST_RX_BYTES */
    unsigned rx_first, rx_count; /* frames [first, count) wait for the card */
    NetFrame frame[HOST_RX_BATCH];
    struct iovec iov[HOST_RX_BATCH][2];
    const char *why;     /* static; of a loss */
    int64_t said_since;  /* guest ns; what is said in a while is bounded */
    unsigned said;
    char detail[160]; /* what it is joined to */

    uint64_t drops[HOST_DROPS]; /* atomic */
};

bool host_end_open(HostEnd *h, const NetDriver *driver, const HostEndOps *ops, const char *id,
                   LodgeClock *clock, uint32_t offloads, GError **error);
bool host_end_start(HostEnd *h, GError **error);
void host_end_stop(HostEnd *h);
void host_end_info(NetBackend *be, NetInfo *ret_info);
/* The same, with what others that belong to it have dropped. */
void host_end_tell(NetBackend *be, const uint64_t more[HOST_DROPS], NetInfo *ret_info);
void host_end_free(HostEnd *h);

/* ---- for drivers, on the loop ---- */

void host_end_drop(HostEnd *h, HostDrop why, unsigned frames);
/* Add a frame of @len bytes at @data, which stays until fill is called again. The new frame, to
 * be completed, or NULL: it is no frame, counted. */
NetFrame *host_end_rx(HostEnd *h, void *data, size_t len);
/* A connection came (a server's): watch it. */
bool host_end_up(HostEnd *h, GError **error);
void host_end_lost(HostEnd *h, const char *why);
/* Whether one more line about the connection may be said: a peer cannot fill the log. */
bool host_end_may_say(HostEnd *h);
/* Ask for ready() once there is room. */
void host_end_want_out(HostEnd *h, bool want);

#endif
