/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_H
#define LODGE_NET_H

/*
 * Ethernet. A wire joins two ports; the offloads in force are the AND of both ends, and the wire
 * computes checksums or segments for the rest. Sending takes arrays and answers how many it took. A
 * source that can write in place (tap, ring) pulls: it borrows the guest's buffers, fills and
 * commits them. A source that owns the bytes (libslirp) delivers, and false means full. A wire
 * between two IoThreads is one bounded queue that copies.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <glib.h>

typedef struct IoThread IoThread;
typedef struct LodgeClock LodgeClock;

enum {
    NET_OFF_CSUM = 1 << 0, /* takes frames whose checksum is to be done */
    NET_OFF_TSO4 = 1 << 1,
    NET_OFF_TSO6 = 1 << 2,
    NET_OFF_USO = 1 << 3, /* datagrams of UDP, of either IP, in one frame */
    NET_OFF_ALL = NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6 | NET_OFF_USO,
};

enum { NET_FRAME_NEEDS_CSUM = 1 << 0, NET_FRAME_CSUM_VALID = 1 << 1 };
enum { NET_GSO_NONE = 0, NET_GSO_TCPV4 = 1, NET_GSO_TCPV6 = 4, NET_GSO_UDP = 5 };

#define NET_FRAME_MAX 65562 /* bytes with Ethernet header */
#define NET_STREAMS_MAX 8   /* of one back end */

typedef struct NetFrame {
    const struct iovec *iov;
    unsigned niov;
    uint32_t len; /* bytes, sum of iov */
    uint32_t gso_size;
    uint16_t csum_start, csum_off;
    uint16_t hdr_len;
    uint8_t flags, gso;
} NetFrame;

typedef struct NetPort NetPort;

typedef struct NetPortOps {
    /* Frames for the outside of this port, called by net_send() on the peer's side. Frames taken;
     * fewer than n: the rest again after writable. Context: self's IoThread, unlocked. */
    unsigned (*send)(NetPort *self, const NetFrame *v, unsigned n);
    /* From the peer. Context: self's IoThread, unlocked; f dies on return. False: full; the peer
     * keeps it. */
    bool (*deliver)(NetPort *self, const NetFrame *f);
    /* Pieces of the receiver's own memory for the next frame, as long as it thinks that one will
     * be. 0: none now; NULL slot: deliver only. Each borrow is followed by a commit, at once.
     * Context as deliver. */
    unsigned (*rx_borrow)(NetPort *self, struct iovec *ret_iov, unsigned max);
    /* The frame is in what was lent, and what did not fit there behind it in f->iov. f->len 0:
     * there is none. False: no room, the frame is to be delivered. */
    bool (*rx_commit)(NetPort *self, const NetFrame *f);
    void (*writable)(NetPort *self);                        /* room again; context as deliver */
    void (*link)(NetPort *self, bool up);                   /* the peer's; context as deliver */
    /* net_peer_takes() or net_peer_idle() says something else, or the peer is gone; context as
     * deliver. */
    void (*changed)(NetPort *self);
    uint32_t offloads;                                      /* NET_OFF_* that self can consume */
} NetPortOps;

struct NetPort {
    const NetPortOps *ops; /* constant */
    const char *name;      /* borrowed; in messages */
    void *opaque;          /* of the port's owner */
    IoThread *io;          /* where its callbacks run; constant while joined */
    uint16_t mtu;          /* bytes without Ethernet header; 0: 1500 */
    uint32_t offloads;     /* what it takes now: a subset of ops->offloads; atomic */
    bool idle;             /* frames are to come by the other streams, not here; atomic */
    bool down;             /* its link at the moment of joining; its IoThread only */
    bool cut;              /* the operator has cut its cable; main thread only */
    struct NetWatch *watch; /* constant while joined, borrowed: who looks at what passes here */
    struct NetGate *gate;   /* likewise: what may pass */
    uint8_t stream;         /* constant: its number among those of the back end */
    NetPort *next;          /* constant, borrowed: the back end's next stream; NULL: the last */
    uint8_t mac[6];         /* constant while joined: of a card, as its owner has set it */
    struct NetWire *wire;  /* owned by the pair; NULL: not joined */
};

/**
 * net_join() - Wire @a to @b
 * Both ports stay owned by their makers. If they have different IoThreads the wire queues copies.
 * Context: main thread. Return: false with LODGE_ERROR_STATE if either is joined already.
 */
bool net_join(NetPort *a, NetPort *b, GError **error);
/* The loop for a card's port that will be joined to @backend: that one's own, so that a frame
 * changes threads once and not twice; @otherwise where it has none. */
static inline IoThread *net_card_loop(const NetPort *backend, IoThread *otherwise)
{
    return backend && backend->io ? backend->io : otherwise;
}
/* The MTU that a card tells its guest: the one @chosen for it, else the back end's; 0: none, since
 * 1500 is what every guest assumes. */
static inline uint16_t net_card_mtu(const NetPort *backend, uint32_t chosen)
{
    return (uint16_t)(chosen ? chosen : backend->mtu == 1500 ? 0 : backend->mtu);
}
/* Take the wire away; no callback of either port starts afterwards. Main thread; NULL is fine. */
void net_part(NetPort *p);

/**
 * net_send() - Send @n frames from @from to its peer
 * Delivers into the peer (through its queue where the IoThreads differ), finishing checksums and
 * segments that the peer cannot take. Not joined or link down: taken and counted as dropped.
 * Context: @from's IoThread, no lock held. Return: frames taken; fewer: retry on writable.
 */
unsigned net_send(NetPort *from, const NetFrame *v, unsigned n);
/**
 * net_rx_borrow() - The peer's own memory for the frame that @from will receive next
 * A call of net_rx_commit() follows before anything else is done with the port; net_send() from
 * @from serves all frames, this one those that nothing has to be done to.
 * Context: @from's IoThread, no lock held. Return: pieces in @ret_iov; 0: use net_send().
 */
unsigned net_rx_borrow(NetPort *from, struct iovec *ret_iov, unsigned max);
/* As NetPortOps.rx_commit. False: send it, from memory of your own. */
bool net_rx_commit(NetPort *from, const NetFrame *f);
/* @from has room again after deliver() said false. Context: @p's IoThread. */
void net_rx_ready(NetPort *p);
/* Why frames were thrown away at a wire. */
typedef enum NetLoss {
    NET_LOSS_DOWN,   /* a link was down */
    NET_LOSS_HEADER, /* no frame has that length, or what is left to be done to it cannot be */
    NET_LOSS_FULL,   /* the reader is too slow */
    NET_LOSSES,
} NetLoss;
/* Count frames that @p's owner did not send and threw away. Context: any thread, while @p stays
 * joined or is not. */
void net_count_loss(NetPort *p, NetLoss why, unsigned frames);
/* What frames @p may send: peer's offloads and the wire's abilities. */
uint32_t net_peer_offloads(NetPort *p);
uint16_t net_peer_mtu(NetPort *p);
/* NET_OFF_* that the peer takes at this moment; what it does not take the wire finishes. */
uint32_t net_peer_takes(NetPort *p);
/* Whether the peer wants nothing here; true when not joined. */
bool net_peer_idle(NetPort *p);
/* @p's offloads, or whether it is idle, are others now: tell the peer. Context: @p's IoThread. */
void net_changed(NetPort *p);
/* The peer's link; true when not joined. */
bool net_peer_link(NetPort *p);
/* Tell the peer. Context: main thread, or @p's IoThread. */
void net_set_link(NetPort *p, bool up);
/* Pull @p's cable, or put it in again: its link is up if both say so. Stays while @p is joined to
 * others. Main thread. */
void net_cut(NetPort *p, bool cut);

typedef struct NetStats {
    uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes, rx_dropped, tx_dropped;
} NetStats;
void net_stats(NetPort *p, NetStats *ret_stats); /* as @p sees it; any thread */
/* Frames of both directions at @p's wire. Any thread. */
void net_losses(NetPort *p, uint64_t ret_frames[NET_LOSSES]);

/* An address that a guest was seen to use. */
typedef struct NetSeen {
    uint8_t mac[6];
    bool ip6;
    uint8_t addr[16]; /* the first 4 bytes where it is IPv4 */
    const char *how;  /* static: "arp", "dhcp", "nd" */
} NetSeen;
enum { NET_SEEN_MAX = 16 };

/* A filter in force: each rule, then what is done with the rest. */
typedef struct NetFilterRow {
    unsigned line; /* of the text; 0: no rule of it */
    char *text;    /* owned; the rule, or what the row is for */
    bool allow;
    uint64_t frames, bytes; /* that it decided about */
} NetFilterRow;
typedef struct NetFilterInfo {
    char *name; /* owned; of the text */
    NetFilterRow *row; /* owned */
    unsigned rows;
} NetFilterInfo;
void net_filter_info_free(NetFilterInfo *i); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NetFilterInfo, net_filter_info_free)

/* ---- host back ends: rows of net_driver_table[] ---- */
typedef struct NetBackend NetBackend;
struct HostFwd;
typedef struct NetOptSpec {
    const char *name, *help;
    bool repeat; /* may come several times */
} NetOptSpec;
typedef struct NetDriver {
    const char *name; /* "user", "none" */
    const char *help;
    const NetOptSpec *opts; /* NULL name ends it */
    const char *target;     /* the option that VALUE of "NAME=VALUE" is; NULL: it takes none */
    /* @opts: name -> GPtrArray of strings, borrowed. Main thread. Transfer full. */
    NetBackend *(*open)(const char *id, GHashTable *opts, LodgeClock *clock, GError **error);
} NetDriver;
extern const NetDriver *const net_driver_table[]; /* NULL-terminated */
/* Whose networks these are, for people at the other end. Before any is opened; main thread. */
void net_set_owner(const char *name);
/* "NAME ID", or "pid N ID" where nobody has said a name; transfer full. */
char *net_owner_text(const char *id);

enum { NET_DROPS_MAX = 12 };

/* What there is to say of a back end. */
typedef struct NetInfo {
    bool link;        /* the back end's side */
    char detail[160]; /* what it is joined to */
    struct {
        const char *reason; /* static */
        uint64_t frames;
    } drop[NET_DROPS_MAX]; /* reason NULL ends it */
} NetInfo;

struct NetBackend {
    const NetDriver *driver;
    /* To be joined to the guest's; owned by the back end; NULL for "none". Where it has several
     * streams (port->next) the first is always one of those in use, and a card may use it alone. */
    NetPort *port;
    void (*close)(NetBackend *be); /* parts, stops its thread, frees */
    /* Fill @ret_info's detail, link and drops. Main thread. NULL: nothing to tell. */
    void (*info)(NetBackend *be, NetInfo *ret_info);
    /* A port of the host into the guest comes, as the option hostfwd has it, and goes, by that or
     * by "tcp|udp:[ADDR]:HOSTPORT". add answers which it became, transfer full; remove, what it
     * was. Main thread. NULL: has none. LODGE_ERROR_NOT_FOUND: there is no such forward. */
    char *(*hostfwd_add)(NetBackend *be, const char *text, GError **error);
    bool (*hostfwd_remove)(NetBackend *be, const char *text, struct HostFwd *ret_gone,
                           GError **error);
    /* All, as they became: HostFwd (hostfwd.h), borrowed until one comes or goes. Main thread. */
    const GArray *(*hostfwds)(NetBackend *be);
    /* Of net_backend_open(), which owns them: */
    char *id;
    struct NetWatch *watch;
    struct NetShape *shape[NET_STREAMS_MAX]; /* between port and the driver's; NULL: none */
    struct NetGate *gate;
};
/* @driver: its name. LODGE_ERROR_CONFIG for an unknown one, or an unknown or ill-formed option. */
NetBackend *net_backend_open(const char *driver, const char *id, GHashTable *opts,
                             LodgeClock *clock, GError **error);
void net_backend_close(NetBackend *be); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NetBackend, net_backend_close)
/* Options that every back end with a port takes; NULL name ends it. */
extern const NetOptSpec net_common_opts[];
/* Main thread. */
void net_backend_info(NetBackend *be, NetInfo *ret_info);
/* As the guest's side sees it. Any thread. */
void net_backend_stats(NetBackend *be, NetStats *ret_stats);
/* Of one of its streams; likewise. */
void net_stream_stats(NetPort *stream, NetStats *ret_stats);
/* Pull the cable, or put it in again; see net_cut(). Main thread. */
void net_backend_cut(NetBackend *be, bool cut);
unsigned net_backend_seen(NetBackend *be, NetSeen *ret_seen, unsigned max);
/* Write what passes to @fd, taken over, as pcap until its reader goes. Main thread. */
bool net_backend_capture(NetBackend *be, int fd, GError **error);
/* Let pass what the rules of @text allow, called @name, from now on; NULL: all. LODGE_ERROR_CONFIG
 * or LODGE_ERROR_LIMIT: the text is wrong, nothing has changed. Main thread. */
bool net_backend_filter(NetBackend *be, const char *name, const char *text, size_t len,
                        GError **error);
/* The rules in force; NULL: none. Main thread. */
NetFilterInfo *net_backend_filter_info(NetBackend *be);
/* Read a filter's text from a file, at most as long as it may be; transfer full. */
char *net_filter_read(const char *path, size_t *ret_len, GError **error);

/* ---- mac.c ---- */

/* The six bytes of the address that card @n of machine @name has where none was chosen. */
void net_mac_of(const char *name, unsigned n, uint8_t *ret_mac);
/* Whether a card @id can have it as its own; LODGE_ERROR_CONFIG. */
bool net_mac_check(const uint8_t *mac, const char *id, GError **error);
char *net_mac_text(const uint8_t *mac); /* "52:54:00:12:34:56"; transfer full */

#endif
