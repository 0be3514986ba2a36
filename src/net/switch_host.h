/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_SWITCH_HOST_H
#define LODGE_SWITCH_HOST_H

/*
 * A switch as it runs: the forwarding half, its ports' descriptors on one loop, and what asks to
 * become a port. Everything here happens on that loop, but for what says otherwise.
 */

#include <stdbool.h>
#include <stdint.h>

#include "lodge/iothread.h"
#include "switch.h"
#include "switch_proto.h"

typedef struct SwHost SwHost;
typedef struct SwHostPort SwHostPort;
typedef struct SwListener SwListener;

enum {
    SW_BATCH = 64,           /* frames of one port before others get a turn */
    SW_DGRAM_FRAME_MAX = 1518, /* what clients of uml_switch's and vde's protocols have room for */
    SW_HOLD_MS = 10,         /* how long senders wait for a reader that is full */
    SW_HOLD_GAP_MS = 500,    /* and when they do so again for one that stayed full... */
    SW_HOLD_GAP_FIRST_MS = 20, /* ...time after time: this at first, then twice that */
    SW_CLIENTS_MAX = 64,     /* control connections that are no ports, of each kind */
};

/* What the transports' ports have in common; first in their structs. */
struct SwHostPort {
    SwPort p;
    SwHost *host;
    void (*flush)(SwHostPort *h); /* after a round of the loop, where marked; NULL: none */
    void (*resume)(SwHostPort *h); /* held no more; NULL where it never is */
    /* After sw_host_stuck(), at the end of the round: hand over more of what waits, then have an
     * event sent when there is room, if there still is none. */
    void (*retry)(SwHostPort *h);
    void (*arm)(SwHostPort *h);
    void (*trim)(SwHostPort *h);  /* now and then: give back memory that is not needed; or NULL */
    void (*free)(SwHostPort *h);  /* give back what it has; it is not plugged in any more */
    IoWatch *watch;               /* of what frames come in by; owned */
    IoWatch *ctl_watch;           /* the connection that lives as long as the port; owned */
    int ctl_fd;                   /* owned; -1: none */
    bool dirty, held, doomed, stuck;
    bool of_host;         /* a tap: nobody uses the switch by that alone */
    bool full;            /* its reader has no room, and it will be told when there is */
    uint64_t full_round;  /* of the loop, since when */
    int64_t hold_end_ms;  /* senders wait for this reader until then; 0: they do not */
    int64_t hold_ok_ms;   /* not before then again */
    int hold_gap_ms;      /* and so long after the next time that it was in vain */
};

struct SwHost {
    char *name; /* owned */
    IoThread *io;
    LodgeClock *clock;
    Switch *sw;
    bool internal, automatic;
    GPtrArray *ports;     /* SwHostPort, owned */
    GPtrArray *listeners; /* SwListener, owned */
    GPtrArray *dirty, *held, *stuck; /* SwHostPort, borrowed */
    unsigned doomed;
    unsigned rings_busy, rings_busy_before; /* since the latest tick; from the one before to it */
    LodgeTimer *hold_timer, *tick_timer;
    bool ticking;
    uint64_t rounds; /* of the loop */
    GQueue events;       /* char *, owned: the last things that happened, newest last */
    int64_t unused_ms;   /* since when there is no port, or only taps of the host */
    void (*unused)(void *opaque); /* so it has been for a while; NULL: nobody asks */
    void *opaque;
    uint8_t *buf; /* owned: frames that are being received */
};

/* No power of two: slots would have the same lines of the cache. */
enum { SW_BUF_SLOT = 2048 + 64, SW_BUF_BYTES = SW_BATCH * SW_BUF_SLOT };

/* @config: event and opaque are ours. @clock: borrowed. NULL with LODGE_ERROR_HOST. Any thread. */
SwHost *sw_host_new(const char *name, const SwConfig *config, LodgeClock *clock, GError **error);
/* Ends its loop. NULL is fine. Any other thread. */
void sw_host_free(SwHost *host);
/* Something that an operator wants to know; kept, and said once. */
void sw_host_event(SwHost *host, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
int64_t sw_host_now_ms(const SwHost *host);

/**
 * sw_host_adopt() - Plug @h in and watch its descriptors
 * @h:  p.ops, flush, free and ctl_fd are set; taken over, freed where this fails
 * @fd: frames come in by it; @on_frames is called with @h
 */
bool sw_host_adopt(SwHost *host, SwHostPort *h, int fd, uint32_t events, IoWatchFn on_frames,
                   unsigned number, const char *name, const SwVlan *vlan, GError **error);
/* It goes at the end of this round. @why: for people; NULL: nothing to be said. */
void sw_host_doom(SwHostPort *h, const char *why);
void sw_host_doom_op(SwPort *p); /* SwPortOps.unplug of all kinds */
/* Have flush called at the end of this round. */
void sw_host_dirty(SwHostPort *h);
/* Have resume called when a reader has room, or after SW_HOLD_MS. */
void sw_host_hold(SwHostPort *h);
void sw_host_release_held(SwHost *host);
/* @h's reader has no room: the answer of output, which is to be told by sw_host_room() when there
 * is again. */
SwOut sw_host_full(SwHostPort *h, bool may_hold);
void sw_host_room(SwHostPort *h);
/* Its reader's queue is full: have retry and arm called at the end of the round. */
void sw_host_stuck(SwHostPort *h);

/* Text of "ports", "macs", "stats"; transfer full. */
char *sw_host_report(SwHost *host, SwOp op, bool json);

/* ---- transports ---- */

/* Lodge's own link. @fds: SW_ATTACH_FDS of them, for the other side; the caller closes them. */
bool sw_link_serve(SwHost *host, int ctl_fd, const SwHello *hello, int fds[SW_ATTACH_FDS],
                   unsigned *ret_number, GError **error);
/* The other end of it, at another switch. @fds: as they came, @ctl_fd: the connection they came by;
 * all taken over. */
bool sw_link_join(SwHost *host, int ctl_fd, const int fds[SW_ATTACH_FDS], unsigned number,
                  const char *name, const SwVlan *vlan, GError **error);
/* Every now and then, after the ports' trim: who is busy is found out anew. */
void sw_link_tick(SwHost *host);
/* A client of uml_switch's or vde's protocol at the other end of connected socket @fd. @path: where
 * it is bound, to be removed with it; NULL: nowhere. All taken over.
 * @shared: where frames of it come by another socket, its address; NULL: they come by @fd */
bool sw_dgram_add(SwHost *host, const SwPortOps *ops, int ctl_fd, int fd, const char *path,
                  const struct sockaddr_un *shared, unsigned number, const char *name,
                  GError **error);
/* Take frames from socket @fd, which the ports have in common that were added with @shared. */
void sw_dgram_take_shared(SwHost *host, int fd);
extern const SwPortOps sw_uml_ops, sw_vde_ops;
/* @fd: a tap with vnet headers; taken over. */
bool sw_tap_add(SwHost *host, int fd, unsigned number, const char *name, const SwVlan *vlan,
                GError **error);
/* Open tap @name and bring it up, or say how (any thread); -1 with the error. */
int sw_tap_open(const char *name, GError **error);

/* ---- doors ---- */

/* "uml:PATH" or "vde:DIR". Any thread. */
bool sw_listen(SwHost *host, const char *where, GError **error);
/* Lodge's own, on listening socket @fd, taken over. Any thread. */
bool sw_listen_control(SwHost *host, int fd, GError **error);
void sw_listener_free(SwListener *l);

#endif
