/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz what networks say: an input's first byte chooses between frames that a guest or a peer
 * sends, which are looked at for addresses and captured; a program of what happens at a stream back
 * end; and the answer of a switch.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib.h>

#include "lodge/clock.h"
#include "lodge/diag.h"
#include "lodge/iothread.h"
#include "lodge/net.h"
#include "lodge/num.h"
#include "plug.h"
#include "pkt.h"
#include "fuzz_input.h"
#include "replay.h"
#include "watch.h"

enum {
    INPUT_MAX = 64 << 10,
    STEPS = 64,
    CAPTURES = 10,     /* more than there may be */
    PIECES_MAX = 1100, /* more than a message may have */
    STREAM_LENGTH = 4, /* bytes before each frame of a stream */
    FRAME_MIN = 14,
    FRAME_PAD = 60,    /* to which shorter ones are filled up */
    LOST_MS = 10000,   /* after which a connection that should have ended has not */
};

/* ---- what is looked at ---- */

static void fuzz_watch(Input *in, unsigned knobs)
{
    NetWatch *w = net_watch_new();
    NetSeen seen[NET_SEEN_MAX];
    unsigned captures = 0;

    while (in->len) {
        size_t size = take(in) * 4, cut = take(in);
        size = MIN(size, in->len);
        cut = MIN(cut, size);
        g_autofree uint8_t *a = g_memdup2(in->data, cut);
        g_autofree uint8_t *b = g_memdup2(in->data + cut, size - cut);
        struct iovec iov[2] = {{a, cut}, {b, size - cut}};
        NetFrame f = {.iov = iov, .niov = 2, .len = (uint32_t)size};

        if (knobs & 8 && captures++ < CAPTURES)
            (void)net_watch_to_fd(w, open("/dev/null", O_WRONLY | O_CLOEXEC), NULL); /* too many */
        net_watch_frames(w, knobs & 1, &f, 1);
        in->data += size;
        in->len -= size;
    }
    if (net_watch_seen(w, seen, NET_SEEN_MAX) > NET_SEEN_MAX)
        abort();
    net_watch_free(w);
}

/* ---- what a stream should bring ---- */

/* The frames that the peer has sent, as the format has them: what the card is given is of these, in
 * this order, though some are lost with their connection. */
typedef struct Sent {
    GMutex lock;
    GByteArray *rest;  /* owned; of this connection, sent and not yet a whole frame */
    GPtrArray *frames; /* owned; of GBytes, as the card should see them */
    unsigned given;    /* those before it were given or lost */
    bool out_of_step;  /* this connection has had a length that no frame has */
} Sent;

static void sent_init(Sent *s)
{
    *s = (Sent){.rest = g_byte_array_new(),
                .frames = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref)};
    g_mutex_init(&s->lock);
}

static void sent_free(Sent *s)
{
    g_byte_array_unref(s->rest);
    g_ptr_array_unref(s->frames);
    g_mutex_clear(&s->lock);
}

static void sent_new_connection(Sent *s)
{
    g_byte_array_set_size(s->rest, 0);
    s->out_of_step = false;
}

static void sent_add_frame(Sent *s, const uint8_t *data, uint32_t len)
{
    uint32_t padded = MAX(len, FRAME_PAD);
    uint8_t *copy = g_malloc0(padded);

    memcpy(copy, data, len);
    g_ptr_array_add(s->frames, g_bytes_new_take(copy, padded));
}

/* Context: s->lock held. */
static void sent_add(Sent *s, const uint8_t *data, size_t n)
{
    g_byte_array_append(s->rest, data, (guint)n);
    while (!s->out_of_step && s->rest->len >= STREAM_LENGTH) {
        uint32_t len = load_be32(s->rest->data);
        s->out_of_step = len > NET_FRAME_MAX;
        if (s->out_of_step || s->rest->len - STREAM_LENGTH < len)
            break;
        if (len >= FRAME_MIN)
            sent_add_frame(s, s->rest->data + STREAM_LENGTH, len);
        g_byte_array_remove_range(s->rest, 0, STREAM_LENGTH + len);
    }
}

/* Find what the card is offered; @take_it: it has it now, else it will be offered again. */
static void sent_check(Sent *s, const uint8_t *data, size_t len, bool take_it)
{
    g_mutex_lock(&s->lock);
    unsigned i = s->given;
    for (; i < s->frames->len; i++) {
        gsize size;
        const void *f = g_bytes_get_data(s->frames->pdata[i], &size);
        if (size == len && !memcmp(f, data, len))
            break;
    }
    if (i == s->frames->len)
        abort(); /* nobody has sent it */
    if (take_it)
        s->given = i + 1;
    g_mutex_unlock(&s->lock);
}

/* ---- a stream ---- */

typedef struct Cable {
    NetBackend *be;
    NetPort card;
    Sent sent;
    int peer; /* -1: has gone */
    int room; /* whether the card takes frames; atomic */
    unsigned frames, len, pieces; /* that it sends next */
} Cable;

static bool cable_deliver(NetPort *self, const NetFrame *f)
{
    Cable *c = self->opaque;
    g_autofree uint8_t *copy = g_malloc(f->len);
    bool room = g_atomic_int_get(&c->room);

    if (f->len < FRAME_PAD || f->len > NET_FRAME_MAX || !pkt_gather(f, 0, copy, f->len))
        abort();
    sent_check(&c->sent, copy, f->len, room);
    return room;
}

static void cable_link(NetPort *self, bool up)
{
}

static void cable_send(void *opaque)
{
    static uint8_t bytes[NET_FRAME_MAX];
    Cable *c = opaque;
    struct iovec iov[PIECES_MAX];
    NetFrame f = {.iov = iov, .niov = c->pieces, .len = c->len};

    for (unsigned i = 0; i < c->pieces; i++)
        iov[i] = (struct iovec){bytes, i ? 0 : c->len};
    for (unsigned i = 0; i < c->frames; i++) {
        if (!net_send(&c->card, &f, 1))
            break;
    }
}

static void cable_room(void *opaque)
{
    Cable *c = opaque;

    g_atomic_int_set(&c->room, 1);
    net_rx_ready(&c->card);
}

static void cable_unplug(Cable *c)
{
    if (c->peer >= 0)
        close(c->peer);
    c->peer = -1;
}

static void cable_plug(Cable *c, const struct sockaddr_un *at)
{
    if (!at || c->peer >= 0)
        return;
    sent_new_connection(&c->sent);
    c->peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(c->peer, (const struct sockaddr *)at, sizeof *at) < 0)
        cable_unplug(c);
}

static void cable_peer_sends(Cable *c, const uint8_t *data, size_t len)
{
    g_mutex_lock(&c->sent.lock);
    ssize_t n = send(c->peer, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) /* it may have been cut off */
        sent_add(&c->sent, data, (size_t)n);
    g_mutex_unlock(&c->sent.lock);
}

static void cable_step(Cable *c, Input *in, const struct sockaddr_un *at)
{
    static uint8_t sink[1 << 16];
    unsigned what = take(in);
    size_t n;

    switch (what & 7) {
    case 0:
    case 1:
        n = take(in);
        n = MIN(n, in->len);
        if (c->peer >= 0)
            cable_peer_sends(c, in->data, n);
        in->data += n;
        in->len -= n;
        break;
    case 2:
        if (c->peer >= 0)
            (void)!recv(c->peer, sink, take(in) * 256, MSG_DONTWAIT);
        break;
    case 3:
        c->frames = what >> 3;
        c->len = 60 + take(in) * 256;
        c->pieces = what & 8 ? PIECES_MAX : 1;
        io_thread_call(c->card.io, cable_send, c);
        break;
    case 4:
        cable_unplug(c);
        break;
    case 5:
        cable_plug(c, at);
        break;
    case 6:
        g_atomic_int_set(&c->room, 0);
        break;
    default:
        io_thread_call(c->card.io, cable_room, c);
        break;
    }
}

/* Where one side listens; a file of this process's own. */
static const struct sockaddr_un *own_place(void)
{
    static struct sockaddr_un at = {.sun_family = AF_UNIX};

    if (!at.sun_path[0])
        g_snprintf(at.sun_path, sizeof at.sun_path, "%s/lodge-fuzz-net.%d", g_get_tmp_dir(),
                   (int)getpid());
    return &at;
}

static int own_listener(const struct sockaddr_un *at)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)unlink(at->sun_path); /* of the run before */
    if (fd < 0 || bind(fd, (const struct sockaddr *)at, sizeof *at) < 0 || listen(fd, 1) < 0)
        abort();
    return fd;
}

static void add_option(GHashTable *opts, const char *name, char *value)
{
    GPtrArray *values = g_ptr_array_new_with_free_func(g_free);

    g_ptr_array_add(values, value);
    g_hash_table_insert(opts, (gpointer)name, values);
}

/* How the two find each other. */
enum { GIVEN, SERVER, CLIENT, NOBODY, WAYS };

static NetBackend *cable_open(Cable *c, unsigned way, LodgeClock *clock)
{
    g_autoptr(GHashTable) opts = g_hash_table_new_full(g_str_hash, g_str_equal, NULL,
                                                       (GDestroyNotify)g_ptr_array_unref);
    const struct sockaddr_un *at = own_place();
    int pair[2], listener = way == CLIENT ? own_listener(at) : -1;

    if (way == GIVEN) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
            abort();
        add_option(opts, "fd", g_strdup_printf("%d", pair[0]));
        c->peer = pair[1];
    } else {
        add_option(opts, "addr", g_strdup_printf("unix:%s", at->sun_path));
    }
    if (way == SERVER)
        add_option(opts, "server", g_strdup("on"));
    NetBackend *be = net_backend_open("stream", "net0", opts, clock, NULL);
    if (way == CLIENT) {
        c->peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        close(listener);
        (void)unlink(at->sun_path);
    }
    return be;
}

/* A stream that is out of step is ended by the back end; any other by the peer, and then all of it
 * was read. */
static void cable_end(Cable *c)
{
    struct pollfd p = {.fd = c->peer, .events = POLLRDHUP};

    if (c->sent.out_of_step) {
        if (poll(&p, 1, LOST_MS) == 0)
            abort();
        return;
    }
    shutdown(c->peer, SHUT_WR);
    poll(&p, 1, 1000);
}

static void fuzz_stream(Input *in, unsigned way)
{
    static const NetPortOps ops = {.deliver = cable_deliver, .link = cable_link};
    const struct sockaddr_un *at = way == SERVER ? own_place() : NULL;
    LodgeClock *clock = lodge_clock_new();
    Cable c = {.peer = -1, .room = 1};
    NetInfo info;

    lodge_set_quiet(true);
    c.be = cable_open(&c, way, clock);
    if (!c.be != (way == NOBODY))
        abort();
    if (!c.be) {
        lodge_clock_free(clock);
        return;
    }
    sent_init(&c.sent);
    c.card = (NetPort){.ops = &ops, .name = "card", .opaque = &c, .io = c.be->port->io};
    if (!net_join(&c.card, c.be->port, NULL))
        abort();
    cable_plug(&c, at);
    for (unsigned n = 0; in->len && n < STEPS; n++)
        cable_step(&c, in, at);
    io_thread_call(c.card.io, cable_room, &c);
    if (c.peer >= 0)
        cable_end(&c);
    net_backend_info(c.be, &info);
    net_backend_close(c.be);
    cable_unplug(&c);
    sent_free(&c.sent);
    lodge_clock_free(clock);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = {data + 1, size - 1};
    struct sockaddr_un addr;

    if (size < 1 || size > INPUT_MAX)
        return 0;
    switch (data[0] & 3) {
    case 0:
    case 1:
        fuzz_watch(&in, data[0]);
        break;
    case 2:
        fuzz_stream(&in, (data[0] >> 2) % WAYS);
        break;
    default:
        if (plug_reply(in.data, in.len, &addr) && addr.sun_path[0] &&
            strnlen(addr.sun_path, sizeof addr.sun_path) == sizeof addr.sun_path)
            abort();
        break;
    }
    return 0;
}
