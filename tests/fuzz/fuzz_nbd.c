/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server against a client that says anything. The first byte says whether the disk may be
 * written and whether a whole handshake goes before the rest, which the client sends as it is; then
 * it hangs up its side, reads what comes, and vanishes without reading where the byte says so. The
 * server must let go of it, and the disk must keep its size.
 */
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/clock.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

#include "nbd_proto.h"
#include "nbd_server.h"
#include "replay.h"

#define SIZE (1 * MIB)
#define INPUT_MAX (256 * KIB)

enum { WRITABLE = 1, HANDSHAKE = 2, VANISH = 4, SIMPLE = 8 };

static IoThread *io;
static BlkNode *node;
static int disk_fd;

static void set_up(void)
{
    g_autoptr(GError) error = NULL;

    disk_fd = memfd_create("disk", MFD_CLOEXEC);
    g_assert(ftruncate(disk_fd, SIZE) == 0);
    io = io_thread_new("fuzz", lodge_clock_new(), &error);
    g_assert_no_error(error);
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", disk_fd);
    node = blk_open("d0", &(BlkOptions){.file = path, .format = "raw", .aio = BLK_AIO_THREADS}, io,
                    &error);
    g_assert_no_error(error);
}

static void option(GByteArray *a, uint32_t opt, const char *data, uint32_t len)
{
    uint8_t b[NBD_OPTION_HEADER];

    store_be64(b, NBD_OPTION_MAGIC);
    store_be32(b + 8, opt);
    store_be32(b + 12, len);
    g_byte_array_append(a, b, sizeof b);
    g_byte_array_append(a, (const uint8_t *)data, len);
}

static void handshake(GByteArray *a, bool simple)
{
    static const char set[] = "\0\0\0\0\0\0\0\x01\0\0\0\x0f" "base:allocation";

    g_byte_array_append(a, (const uint8_t *)"\0\0\0\x03", 4);
    if (!simple) {
        option(a, NBD_OPT_STRUCTURED_REPLY, "", 0);
        option(a, NBD_OPT_SET_META_CONTEXT, set, sizeof set - 1);
    }
    option(a, NBD_OPT_GO, "\0\0\0\0\0\0", 6);
}

/* Send all of @a, reading what comes meanwhile unless @vanish. */
static void talk(int fd, const GByteArray *a, bool vanish)
{
    static uint8_t sink[1 << 16];
    size_t at = 0;

    while (at < a->len) {
        ssize_t r = send(fd, a->data + at, a->len - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (r > 0) {
            at += (size_t)r;
            continue;
        }
        struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
        if (vanish || poll(&p, 1, -1) < 0 ||
            ((p.revents & POLLIN) && recv(fd, sink, sizeof sink, 0) <= 0))
            return;
    }
    (void)shutdown(fd, SHUT_WR);
    while (!vanish && recv(fd, sink, sizeof sink, 0) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    g_autoptr(GByteArray) a = g_byte_array_new();
    struct stat st;
    int pair[2];

    if (len < 1 || len > INPUT_MAX)
        return 0;
    if (!io)
        set_up();
    if (data[0] & HANDSHAKE)
        handshake(a, data[0] & SIMPLE);
    g_byte_array_append(a, data + 1, (guint)(len - 1));
    NbdServer *s = nbd_server_new(&(NbdServerConfig){.node = node, .name = "disk",
                                                     .writable = data[0] & WRITABLE,
                                                     .clients = 2});
    g_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    g_assert(nbd_server_add(s, pair[1], NULL));
    talk(pair[0], a, data[0] & VANISH);
    close(pair[0]);
    nbd_server_free(s);
    g_assert(fstat(disk_fd, &st) == 0 && st.st_size == SIZE);
    return 0;
}
