/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz what networks say: an input's first byte chooses between frames that a guest or a peer
 * sends, which are looked at for addresses; the bytes of a stream back end's other end, in two writes; and
 * the answer of a switch.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib.h>

#include "lodge/clock.h"
#include "lodge/diag.h"
#include "lodge/net.h"
#include "plug.h"
#include "pkt.h"
#include "replay.h"
#include "watch.h"

enum { STREAM_MAX = 64 << 10 }; /* what a socket holds */

static bool take(NetPort *self, const NetFrame *f)
{
    g_autofree uint8_t *copy = g_malloc(f->len);

    if (f->len < 60 || f->len > NET_FRAME_MAX || !pkt_gather(f, 0, copy, f->len))
        abort();
    return true;
}

static void fuzz_watch(const uint8_t *data, size_t size, bool from_guest)
{
    NetWatch *w = net_watch_new();
    NetSeen seen[NET_SEEN_MAX];
    size_t cut = size / 3;
    g_autofree uint8_t *a = g_memdup2(data, cut), *b = g_memdup2(data + cut, size - cut);
    struct iovec iov[2] = {{a, cut}, {b, size - cut}};
    NetFrame f = {.iov = iov, .niov = 2, .len = (uint32_t)size};

    net_watch_frames(w, from_guest, &f, 1);
    if (net_watch_seen(w, seen, NET_SEEN_MAX) > 1)
        abort();
    net_watch_free(w);
}

static void fuzz_stream(const uint8_t *data, size_t size)
{
    static const NetPortOps ops = {.deliver = take};
    g_autoptr(GHashTable) opts = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GPtrArray) value = g_ptr_array_new_with_free_func(g_free);
    LodgeClock *clock = lodge_clock_new();
    int pair[2];
    NetInfo info;

    lodge_set_quiet(true);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        abort();
    g_ptr_array_add(value, g_strdup_printf("%d", pair[0]));
    g_hash_table_insert(opts, (gpointer) "fd", value);
    NetBackend *be = net_backend_open("stream", "net0", opts, clock, NULL);
    if (!be)
        abort();
    NetPort card = {.ops = &ops, .name = "card", .io = be->port->io};
    if (!net_join(&card, be->port, NULL))
        abort();
    /* The other end may have been cut off between the two. */
    (void)!send(pair[1], data, size / 2, MSG_NOSIGNAL);
    (void)!send(pair[1], data + size / 2, size - size / 2, MSG_NOSIGNAL);
    shutdown(pair[1], SHUT_WR);
    struct pollfd p = {.fd = pair[1], .events = POLLRDHUP};
    poll(&p, 1, 1000); /* until all was read, and the end seen */
    net_backend_info(be, &info);
    net_backend_close(be);
    close(pair[1]);
    lodge_clock_free(clock);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sockaddr_un addr;

    if (size < 1 || size > STREAM_MAX)
        return 0;
    switch (data[0] & 3) {
    case 0:
    case 1:
        fuzz_watch(data + 1, size - 1, data[0] & 1);
        break;
    case 2:
        fuzz_stream(data + 1, size - 1);
        break;
    default:
        if (plug_reply(data + 1, size - 1, &addr) && addr.sun_path[0] &&
            strnlen(addr.sun_path, sizeof addr.sun_path) == sizeof addr.sun_path)
            abort();
        break;
    }
    return 0;
}
