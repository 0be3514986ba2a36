/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The NBD server by its wire: a client that knows what it does, and one that means harm. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "blockfix.h"
#include "image_ops.h"
#include "nbd_listen.h"
#include "nbd_server_int.h"

#define SIZE (4 * MIB)
#define WAIT_S 20

typedef struct Wire {
    BlockFix *f;
    BlkNode *n;
    NbdServer *s;
    char *path;
    int fd;       /* the client's end, blocking with a limit */
    gint left;    /* atomic; how often the last user left */
} Wire;

static void count_left(void *opaque)
{
    g_atomic_int_inc((gint *)opaque);
}

static int plug(Wire *w)
{
    g_autoptr(GError) error = NULL;
    int pair[2];
    struct timeval limit = {.tv_sec = WAIT_S};

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    g_assert_cmpint(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), ==, 0);
    g_assert_cmpint(setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), ==, 0);
    g_assert_true(nbd_server_add(w->s, pair[1], &error));
    g_assert_no_error(error);
    return pair[0];
}

static Wire *wire_new(bool writable, const char *name)
{
    Wire *w = g_new0(Wire, 1);

    w->f = block_fix_new();
    w->path = block_fix_image(w->f, "disk.img", SIZE, 3);
    w->n = block_fix_open(w->f, &(BlkOptions){.file = w->path, .format = "raw",
                                              .read_only = !writable});
    w->s = nbd_server_new(&(NbdServerConfig){.node = w->n, .name = name, .writable = writable,
                                             .clients = 4, .left = count_left,
                                             .opaque = &w->left});
    w->fd = plug(w);
    return w;
}

static void wire_free(Wire *w)
{
    nbd_server_free(w->s);
    if (w->fd >= 0)
        close(w->fd);
    blk_close(w->n);
    g_free(w->path);
    block_fix_free(w->f);
    g_free(w);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Wire, wire_free)

static void put(int fd, const void *buf, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t r = send(fd, (const uint8_t *)buf + at, len - at, MSG_NOSIGNAL);
        g_assert_true(r > 0 || errno == EINTR);
        at += MAX(r, 0);
    }
}

static void get(int fd, void *buf, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t r = recv(fd, (uint8_t *)buf + at, len - at, 0);
        g_assert_true(r > 0 || (r < 0 && errno == EINTR)); /* io_uring interrupts who made it */
        at += MAX(r, 0);
    }
}

/* The server hung up; with its unread input lost that shows as a reset. */
static void want_end(int fd)
{
    uint8_t b[256];
    ssize_t r;

    while ((r = recv(fd, b, sizeof b, 0)) > 0 || (r < 0 && errno == EINTR))
        ;
    g_assert_true(r == 0 || errno == ECONNRESET);
}

/* ---- handshake ---- */

static void greet(int fd, uint32_t flags)
{
    uint8_t b[18], f[4];

    get(fd, b, sizeof b);
    g_assert_cmphex(load_be64(b), ==, NBD_MAGIC);
    g_assert_cmphex(load_be64(b + 8), ==, NBD_OPTION_MAGIC);
    g_assert_cmphex(load_be16(b + 16), ==, 3);
    store_be32(f, flags);
    put(fd, f, sizeof f);
}

static void option(int fd, uint32_t opt, const void *data, uint32_t len)
{
    uint8_t b[16 + 256];

    store_be64(b, NBD_OPTION_MAGIC);
    store_be32(b + 8, opt);
    store_be32(b + 12, len);
    memcpy(b + 16, data ? data : "", len);
    put(fd, b, 16 + len);
}

/* One answer; *ret_len in: room of @data. */
static uint32_t answer(int fd, uint32_t opt, uint8_t *data, uint32_t *ret_len)
{
    uint8_t b[20];

    get(fd, b, sizeof b);
    g_assert_cmphex(load_be64(b), ==, NBD_REPLY_MAGIC);
    g_assert_cmpuint(load_be32(b + 8), ==, opt);
    uint32_t len = load_be32(b + 16);
    g_assert_cmpuint(len, <=, *ret_len);
    if (len)
        get(fd, data, len);
    *ret_len = len;
    return load_be32(b + 12);
}

/* The answer, whatever it says besides. */
static uint32_t verdict(int fd, uint32_t opt)
{
    uint8_t data[4200];
    uint32_t len = sizeof data;

    return answer(fd, opt, data, &len);
}

/* GO's or INFO's data for @name that asks for block sizes. */
static uint32_t go_data(uint8_t *b, const char *name)
{
    uint32_t len = (uint32_t)strlen(name);

    store_be32(b, len);
    memcpy(b + 4, name, len);
    store_be16(b + 4 + len, 1);
    store_be16(b + 6 + len, NBD_INFO_BLOCK_SIZE);
    return 8 + len;
}

static uint32_t meta_data(uint8_t *b, const char *name, const char *query)
{
    uint32_t len = (uint32_t)strlen(name), q = (uint32_t)strlen(query);

    store_be32(b, len);
    memcpy(b + 4, name, len);
    store_be32(b + 4 + len, 1);
    store_be32(b + 8 + len, q);
    memcpy(b + 12 + len, query, q);
    return 12 + len + q;
}

static void go(int fd, bool structured)
{
    uint8_t b[256], data[64];
    uint32_t len = sizeof data;

    greet(fd, 3);
    if (structured) {
        option(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
        g_assert_cmpuint(verdict(fd, NBD_OPT_STRUCTURED_REPLY), ==, NBD_REP_ACK);
        option(fd, NBD_OPT_SET_META_CONTEXT, b, meta_data(b, "", "base:allocation"));
        g_assert_cmpuint(answer(fd, NBD_OPT_SET_META_CONTEXT, data, &len), ==,
                         NBD_REP_META_CONTEXT);
        g_assert_cmpmem(data + 4, len - 4, "base:allocation", 15);
        g_assert_cmpuint(verdict(fd, NBD_OPT_SET_META_CONTEXT), ==, NBD_REP_ACK);
    }
    option(fd, NBD_OPT_GO, b, go_data(b, ""));
    len = sizeof data;
    g_assert_cmpuint(answer(fd, NBD_OPT_GO, data, &len), ==, NBD_REP_INFO);
    g_assert_cmpuint(len, ==, 12);
    g_assert_cmpuint(load_be64(data + 2), ==, SIZE);
    len = sizeof data;
    g_assert_cmpuint(answer(fd, NBD_OPT_GO, data, &len), ==, NBD_REP_INFO);
    g_assert_cmpuint(len, ==, 14);
    g_assert_cmpuint(load_be32(data + 2), ==, 512);
    g_assert_cmpuint(load_be32(data + 10), ==, NBD_PAYLOAD_MAX);
    g_assert_cmpuint(verdict(fd, NBD_OPT_GO), ==, NBD_REP_ACK);
}

static void test_options(void)
{
    g_autoptr(Wire) w = wire_new(true, "web");
    uint8_t b[256];
    uint8_t data[64];
    uint32_t len = sizeof data;

    greet(w->fd, 3);
    option(w->fd, NBD_OPT_LIST, NULL, 0);
    g_assert_cmpuint(answer(w->fd, NBD_OPT_LIST, data, &len), ==, NBD_REP_SERVER);
    g_assert_cmpmem(data + 4, len - 4, "web", 3);
    g_assert_cmpuint(verdict(w->fd, NBD_OPT_LIST), ==, NBD_REP_ACK);
    option(w->fd, NBD_OPT_LIST, "x", 1);
    g_assert_cmphex(verdict(w->fd, NBD_OPT_LIST), ==, NBD_REP_ERR_INVALID);
    option(w->fd, 5, NULL, 0); /* STARTTLS */
    g_assert_cmphex(verdict(w->fd, 5), ==, NBD_REP_ERR_UNSUP);
    option(w->fd, 4711, "data", 4);
    g_assert_cmphex(verdict(w->fd, 4711), ==, NBD_REP_ERR_UNSUP);
    option(w->fd, NBD_OPT_INFO, b, go_data(b, "other"));
    g_assert_cmphex(verdict(w->fd, NBD_OPT_INFO), ==, NBD_REP_ERR_UNKNOWN);
    option(w->fd, NBD_OPT_SET_META_CONTEXT, b, meta_data(b, "web", "base:allocation"));
    g_assert_cmphex(verdict(w->fd, NBD_OPT_SET_META_CONTEXT), ==, NBD_REP_ERR_INVALID);
    option(w->fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    g_assert_cmpuint(verdict(w->fd, NBD_OPT_STRUCTURED_REPLY), ==, NBD_REP_ACK);
    option(w->fd, NBD_OPT_LIST_META_CONTEXT, b, meta_data(b, "web", "base:"));
    g_assert_cmphex(verdict(w->fd, NBD_OPT_LIST_META_CONTEXT), ==, NBD_REP_META_CONTEXT);
    g_assert_cmphex(verdict(w->fd, NBD_OPT_LIST_META_CONTEXT), ==, NBD_REP_ACK);
    option(w->fd, NBD_OPT_SET_META_CONTEXT, b, meta_data(b, "web", "qemu:dirty"));
    g_assert_cmphex(verdict(w->fd, NBD_OPT_SET_META_CONTEXT), ==, NBD_REP_ACK);
    option(w->fd, NBD_OPT_INFO, b, go_data(b, "web"));
    g_assert_cmpuint(verdict(w->fd, NBD_OPT_INFO), ==, NBD_REP_INFO);
    g_assert_cmpuint(verdict(w->fd, NBD_OPT_INFO), ==, NBD_REP_INFO);
    g_assert_cmpuint(verdict(w->fd, NBD_OPT_INFO), ==, NBD_REP_ACK);
    option(w->fd, NBD_OPT_ABORT, NULL, 0);
    g_assert_cmpuint(verdict(w->fd, NBD_OPT_ABORT), ==, NBD_REP_ACK);
    want_end(w->fd);
    g_assert_cmpint(g_atomic_int_get(&w->left), ==, 0); /* it never used the export */
}

/* Lengths that lie, each in an option that is whole. */
static void test_options_hostile(void)
{
    static const struct {
        uint32_t option, len;
        const char *data;
    } bad[] = {
        {NBD_OPT_GO, 0, ""},
        {NBD_OPT_GO, 3, "\0\0\0"},
        {NBD_OPT_GO, 4, "\0\0\0\0"},
        {NBD_OPT_GO, 6, "\xff\xff\xff\xff\0\0"},
        {NBD_OPT_GO, 6, "\0\0\0\x03" "ab"},
        {NBD_OPT_GO, 6, "\0\0\0\0\0\x01"},
        {NBD_OPT_INFO, 8, "\0\0\0\0\xff\xff\0\x03"},
        {NBD_OPT_INFO, 9, "\0\0\0\0\0\x01\0\x03x"},
        {NBD_OPT_SET_META_CONTEXT, 8, "\0\0\0\0\xff\xff\xff\xff"},
        {NBD_OPT_SET_META_CONTEXT, 12, "\0\0\0\0\0\0\0\x01\xff\xff\xff\xff"},
        {NBD_OPT_SET_META_CONTEXT, 12, "\0\0\0\0\0\0\0\x01\0\0\0\x01"},
        {NBD_OPT_SET_META_CONTEXT, 13, "\0\0\0\0\0\0\0\x01\0\0\0\0x"},
        {NBD_OPT_LIST_META_CONTEXT, 7, "\0\0\0\0\0\0\0"},
        {NBD_OPT_STRUCTURED_REPLY, 1, "x"},
    };
    g_autoptr(Wire) w = wire_new(true, "");

    greet(w->fd, 3);
    option(w->fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    g_assert_cmpuint(verdict(w->fd, NBD_OPT_STRUCTURED_REPLY), ==, NBD_REP_ACK);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        option(w->fd, bad[i].option, bad[i].data, bad[i].len);
        g_assert_cmphex(verdict(w->fd, bad[i].option), ==, NBD_REP_ERR_INVALID);
    }
}

/* What ends the connection at once. */
static void test_hung_up(void)
{
    static const struct {
        const char *what;
        size_t len;
    } bad[] = {
        {"\0\0\0\x04", 4},
        {"\0\0\0\x03IHAVEOPX\0\0\0\x03\0\0\0\0", 20},
        {"\0\0\0\x03IHAVEOPT\0\0\0\x03\xff\xff\xff\xff", 20},
        {"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\x01\0\0", 20},
        {"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x02no", 22},
    };
    g_autoptr(Wire) w = wire_new(true, "web");
    uint8_t b[18];

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        int fd = plug(w);
        get(fd, b, sizeof b);
        put(fd, bad[i].what, bad[i].len);
        want_end(fd);
        close(fd);
    }
}

static void test_export_name(void)
{
    g_autoptr(Wire) w = wire_new(false, "web");
    uint8_t b[134];
    int fd = plug(w);

    greet(w->fd, 1);
    option(w->fd, NBD_OPT_EXPORT_NAME, "web", 3);
    get(w->fd, b, 134);
    g_assert_cmpuint(load_be64(b), ==, SIZE);
    g_assert_true(load_be16(b + 8) & NBD_READ_ONLY);
    g_assert_false(load_be16(b + 8) & (NBD_SEND_TRIM | NBD_SEND_DF));
    greet(fd, 3);
    option(fd, NBD_OPT_EXPORT_NAME, "", 0);
    get(fd, b, 10);
    g_assert_cmpuint(load_be64(b), ==, SIZE);
    close(fd);
}

/* ---- requests ---- */

static uint64_t next_cookie = 0x1122334455660000;

static uint64_t ask(int fd, uint16_t flags, uint16_t type, uint64_t offset, uint32_t len)
{
    uint8_t b[28];

    store_be32(b, NBD_REQUEST_MAGIC);
    store_be16(b + 4, flags);
    store_be16(b + 6, type);
    store_be64(b + 8, ++next_cookie);
    store_be64(b + 16, offset);
    store_be32(b + 24, len);
    put(fd, b, sizeof b);
    return next_cookie;
}

/* A simple reply's error. */
static uint32_t simple(int fd, uint64_t cookie)
{
    uint8_t b[16];

    get(fd, b, sizeof b);
    g_assert_cmphex(load_be32(b), ==, NBD_SIMPLE_MAGIC);
    g_assert_cmphex(load_be64(b + 8), ==, cookie);
    return load_be32(b + 4);
}

/* A structured reply of one chunk: its type; data into @buf. */
static uint16_t chunk(int fd, uint64_t cookie, uint8_t *buf, uint32_t *ret_len)
{
    uint8_t b[20];

    get(fd, b, sizeof b);
    g_assert_cmphex(load_be32(b), ==, NBD_CHUNK_MAGIC);
    g_assert_cmpuint(load_be16(b + 4), ==, NBD_CHUNK_DONE);
    g_assert_cmphex(load_be64(b + 8), ==, cookie);
    uint32_t len = load_be32(b + 16);
    g_assert_cmpuint(len, <=, *ret_len);
    get(fd, buf, len);
    *ret_len = len;
    return load_be16(b + 6);
}

static void want_simple(int fd, uint32_t error, uint16_t flags, uint16_t type, uint64_t offset,
                        uint32_t len)
{
    g_assert_cmpuint(simple(fd, ask(fd, flags, type, offset, len)), ==, error);
}

static void test_requests(void)
{
    g_autoptr(Wire) w = wire_new(true, "");
    g_autofree uint8_t *buf = g_malloc(8192), *want = g_malloc(8192);

    go(w->fd, false);
    uint64_t cookie = ask(w->fd, 0, NBD_CMD_READ, 1000, 3000); /* not aligned */
    g_assert_cmpuint(simple(w->fd, cookie), ==, 0);
    get(w->fd, buf, 3000);
    for (unsigned i = 0; i < 3000; i++)
        g_assert_cmpuint(buf[i], ==, block_fix_byte(1000 + i, 3));
    memset(want, 0x5a, 4096);
    cookie = ask(w->fd, NBD_FLAG_FUA, NBD_CMD_WRITE, 512, 4096);
    put(w->fd, want, 100); /* in two parts */
    put(w->fd, want + 100, 3996);
    g_assert_cmpuint(simple(w->fd, cookie), ==, 0);
    want_simple(w->fd, 0, 0, NBD_CMD_FLUSH, 0, 0);
    want_simple(w->fd, 0, NBD_FLAG_FUA, NBD_CMD_WRITE_ZEROES, 1024, 512);
    want_simple(w->fd, 0, NBD_FLAG_NO_HOLE, NBD_CMD_WRITE_ZEROES, 2048, 512);
    want_simple(w->fd, 0, NBD_FLAG_FAST_ZERO, NBD_CMD_WRITE_ZEROES, 2560, 512);
    want_simple(w->fd, 0, NBD_FLAG_FUA, NBD_CMD_TRIM, 3 * MIB, MIB);
    memset(want + 512, 0, 512);
    memset(want + 1536, 0, 1024);
    g_assert_cmpint(blk_pread(w->n, buf, 512, 4096), ==, 0);
    g_assert_cmpmem(buf, 4096, want, 4096);
    g_assert_cmpint(blk_pread(w->n, buf, 3 * MIB, 4096), ==, 0);
    g_assert_true(buffer_is_zero(buf, 4096));
    /* Good-bye: what was asked for before is still answered. */
    cookie = ask(w->fd, 0, NBD_CMD_READ, 0, 8192);
    (void)ask(w->fd, 0, NBD_CMD_DISC, 0, 0);
    g_assert_cmpuint(simple(w->fd, cookie), ==, 0);
    get(w->fd, buf, 8192);
    want_end(w->fd);
    while (g_atomic_int_get(&w->left) != 1)
        g_usleep(1000);
}

static void test_requests_hostile(void)
{
    g_autoptr(Wire) w = wire_new(true, "");
    uint8_t sector[512] = {1};

    go(w->fd, false);
    want_simple(w->fd, NBD_EINVAL, 0, NBD_CMD_READ, SIZE - 512, 1024);
    want_simple(w->fd, NBD_EINVAL, 0, NBD_CMD_READ, UINT64_MAX - 511, 512);
    want_simple(w->fd, NBD_EINVAL, 0, NBD_CMD_READ, 0, 0);
    want_simple(w->fd, NBD_EINVAL, 0, NBD_CMD_READ, 0, UINT32_MAX);
    want_simple(w->fd, NBD_EINVAL, 0x8000, NBD_CMD_READ, 0, 512);
    want_simple(w->fd, NBD_EINVAL, 0, NBD_CMD_FLUSH, 0, 512);
    want_simple(w->fd, NBD_EINVAL, 0, NBD_CMD_TRIM, 1, 512);
    want_simple(w->fd, NBD_EINVAL, 0, NBD_CMD_TRIM, SIZE, 512);
    want_simple(w->fd, NBD_EINVAL, NBD_FLAG_NO_HOLE, NBD_CMD_TRIM, 0, 512);
    want_simple(w->fd, NBD_ENOSPC, 0, NBD_CMD_WRITE_ZEROES, 0, UINT32_MAX & ~511u);
    want_simple(w->fd, NBD_EINVAL, 0, NBD_CMD_CACHE, 0, 512);
    want_simple(w->fd, NBD_EINVAL, 0, 4711, 0, 512);
    want_simple(w->fd, NBD_EINVAL, 0, NBD_CMD_WRITE, 0, 0);
    /* What is refused is read all the same, so that the next request is understood. */
    uint64_t cookie = ask(w->fd, 0, NBD_CMD_WRITE, SIZE, 512);
    put(w->fd, sector, 512);
    g_assert_cmpuint(simple(w->fd, cookie), ==, NBD_ENOSPC);
    cookie = ask(w->fd, 0, NBD_CMD_WRITE, 1, 512);
    put(w->fd, sector, 512);
    g_assert_cmpuint(simple(w->fd, cookie), ==, NBD_EINVAL);
    cookie = ask(w->fd, 0, NBD_CMD_WRITE, UINT64_MAX, 511);
    put(w->fd, sector, 511);
    g_assert_cmpuint(simple(w->fd, cookie), ==, NBD_ENOSPC);
    want_simple(w->fd, 0, 0, NBD_CMD_FLUSH, 0, 0);
    g_assert_cmpint(blk_pread(w->n, sector, 0, 512), ==, 0);
    g_assert_cmpuint(sector[0], ==, block_fix_byte(0, 3));
    (void)ask(w->fd, 0, NBD_CMD_WRITE, 0, NBD_PAYLOAD_MAX + 1);
    want_end(w->fd);
    int fd = plug(w);
    go(fd, false);
    put(fd, "\x25\x60\x95\x14zzzzzzzzzzzzzzzzzzzzzzzz", 28);
    want_end(fd);
    close(fd);
}

static void test_read_only(void)
{
    g_autoptr(Wire) w = wire_new(false, "");
    uint8_t sector[512] = {1};

    go(w->fd, false);
    uint64_t cookie = ask(w->fd, 0, NBD_CMD_WRITE, 0, 512);
    put(w->fd, sector, 512);
    g_assert_cmpuint(simple(w->fd, cookie), ==, NBD_EPERM);
    want_simple(w->fd, NBD_EPERM, 0, NBD_CMD_TRIM, 0, 512);
    want_simple(w->fd, NBD_EPERM, 0, NBD_CMD_WRITE_ZEROES, 0, 512);
    want_simple(w->fd, 0, 0, NBD_CMD_FLUSH, 0, 0);
}

static void want_extents(int fd, uint16_t flags, uint64_t offset, uint32_t len, unsigned n,
                         const uint32_t *want)
{
    uint8_t buf[256];
    uint32_t got = sizeof buf;
    uint64_t cookie = ask(fd, flags, NBD_CMD_BLOCK_STATUS, offset, len);

    g_assert_cmpuint(chunk(fd, cookie, buf, &got), ==, NBD_CHUNK_BLOCK_STATUS);
    g_assert_cmpuint(got, ==, 4 + n * 8);
    for (unsigned i = 0; i < 2 * n; i++)
        g_assert_cmpuint(load_be32(buf + 4 + i * 4), ==, want[i]);
}

static void test_structured(void)
{
    g_autoptr(Wire) w = wire_new(true, "");
    g_autofree uint8_t *buf = g_malloc(8192);
    uint32_t len = 8192;

    go(w->fd, true);
    uint64_t cookie = ask(w->fd, NBD_FLAG_DF, NBD_CMD_READ, 513, 4096);
    g_assert_cmpuint(chunk(w->fd, cookie, buf, &len), ==, NBD_CHUNK_OFFSET_DATA);
    g_assert_cmpuint(len, ==, 8 + 4096);
    g_assert_cmpuint(load_be64(buf), ==, 513);
    for (unsigned i = 0; i < 4096; i++)
        g_assert_cmpuint(buf[8 + i], ==, block_fix_byte(513 + i, 3));
    len = 8192;
    cookie = ask(w->fd, 0, NBD_CMD_READ, SIZE, 1);
    g_assert_cmphex(chunk(w->fd, cookie, buf, &len), ==, NBD_CHUNK_ERROR);
    g_assert_cmpuint(load_be32(buf), ==, NBD_EINVAL);
    want_simple(w->fd, 0, 0, NBD_CMD_WRITE_ZEROES, MIB, MIB);
    want_extents(w->fd, 0, 0, SIZE, 3,
                 (uint32_t[]){MIB, 0, MIB, NBD_STATE_HOLE | NBD_STATE_ZERO, 2 * MIB, 0});
    want_extents(w->fd, NBD_FLAG_REQ_ONE, 100, 2 * MIB, 1, (uint32_t[]){MIB - 100, 0});
    want_extents(w->fd, 0, MIB + 7, 500, 1, (uint32_t[]){500, 3});
    len = 8192;
    cookie = ask(w->fd, 0, NBD_CMD_BLOCK_STATUS, 0, 0);
    g_assert_cmphex(chunk(w->fd, cookie, buf, &len), ==, NBD_CHUNK_ERROR);
    len = 8192;
    cookie = ask(w->fd, 0, NBD_CMD_BLOCK_STATUS, SIZE - 1, 2);
    g_assert_cmphex(chunk(w->fd, cookie, buf, &len), ==, NBD_CHUNK_ERROR);
}

/* What an overlay has, what its base has, and what nobody has. */
static void test_status_chain(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = block_fix_image(f, "base.img", SIZE, 0);
    g_autofree char *cow = block_fix_path(f, "o.cow");
    g_autofree uint8_t *data = g_malloc(MIB);
    g_autoptr(BlkNode) b = block_fix_open(f, &(BlkOptions){.file = base});
    Wire w = {.f = f};

    memset(data, 7, MIB);
    g_assert_cmpint(blk_pwrite(b, data, MIB, MIB), ==, 0);
    blk_close(g_steal_pointer(&b));
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = cow, .base = base});
    g_assert_cmpint(blk_pwrite(n, data, 3 * MIB, MIB), ==, 0);
    w.s = nbd_server_new(&(NbdServerConfig){.node = n, .name = "", .clients = 2});
    int fd = plug(&w);
    go(fd, true);
    want_extents(fd, 0, 0, SIZE, 4, (uint32_t[]){MIB, 3, MIB, 0, MIB, 3, MIB, 0});
    want_extents(fd, 0, 2 * MIB - 10, 20, 2, (uint32_t[]){10, 0, 10, 3});
    nbd_server_free(w.s);
    close(fd);
}

/* ---- many, slow, gone ---- */

typedef struct Held {
    Wire *w;
    unsigned tasks;
    uint64_t bytes;
} Held;

static void look(void *opaque)
{
    Held *h = opaque;
    const NbdConn *c = h->w->s->conns.head->data;

    h->tasks = c->tasks;
    h->bytes = c->bytes;
}

/* One that asks @asked times and does not read is not read from any more, once @tasks or @full
 * bytes are under way; others do not notice. */
static void slow(unsigned asked, uint32_t bytes, unsigned tasks, uint64_t full)
{
    g_autoptr(Wire) w = wire_new(true, "");
    g_autofree uint8_t *buf = g_malloc(bytes), *seen = g_malloc0(asked);
    int64_t until = g_get_monotonic_time() + WAIT_S * G_USEC_PER_SEC;
    Held h = {.w = w};
    uint8_t b[28] = {0};

    go(w->fd, false);
    store_be32(b, NBD_REQUEST_MAGIC);
    store_be32(b + 24, bytes);
    for (unsigned i = 0; i < asked; i++) {
        store_be64(b + 8, i);
        put(w->fd, b, 28);
    }
    for (unsigned i = 0; i < 10;) { /* for a while after a bound was reached */
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_usleep(20000);
        io_thread_call(w->f->io, look, &h);
        g_assert_cmpuint(h.tasks, <=, tasks);
        g_assert_cmpuint(h.bytes, <=, full);
        i += h.tasks == tasks || h.bytes == full;
    }
    int fd = plug(w);
    go(fd, false);
    want_simple(fd, 0, 0, NBD_CMD_FLUSH, 0, 0);
    close(fd);
    for (unsigned i = 0; i < asked; i++) {
        get(w->fd, b, 16);
        g_assert_cmpuint(load_be32(b + 4), ==, 0);
        g_assert_cmpuint(load_be64(b + 8), <, asked);
        g_assert_cmpuint(seen[load_be64(b + 8)]++, ==, 0);
        get(w->fd, buf, bytes);
        g_assert_cmpuint(buf[5], ==, block_fix_byte(5, 3));
    }
}

static void test_slow(void)
{
    slow(250, 4096, 64, MIB);
    slow(120, MIB, 32, 32 * MIB);
}

/* Clients vanish in the middle of everything. */
static void test_gone(void)
{
    g_autoptr(Wire) w = wire_new(true, "");
    uint8_t sector[512] = {0};

    for (unsigned i = 0; i < 40; i++) {
        int fd = plug(w);
        if (i % 8) {
            go(fd, i % 2);
            for (unsigned k = 0; i % 8 > 1 && k < 20; k++)
                (void)ask(fd, 0, NBD_CMD_READ, k * 4096, 65536);
            if (i % 8 > 3) {
                (void)ask(fd, 0, NBD_CMD_WRITE, 0, 4096);
                put(fd, sector, 512);
            }
        }
        close(fd);
    }
    for (unsigned i = 0; nbd_server_clients(w->s) != 1; i++) {
        g_assert_cmpuint(i, <, WAIT_S * 1000);
        g_usleep(1000);
    }
    g_assert_cmpint(blk_pread(w->n, sector, 0, 512), ==, 0);
    g_assert_cmpuint(sector[0], ==, block_fix_byte(0, 3)); /* half a write is none */
    /* And the server in the middle of its clients. */
    int fd = plug(w);
    go(fd, true);
    for (unsigned k = 0; k < 50; k++)
        (void)ask(fd, 0, NBD_CMD_READ, k * 4096, 65536);
    nbd_server_free(g_steal_pointer(&w->s));
    want_end(w->fd);
    close(fd);
}

static int dial(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = WAIT_S};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(at.sun_path, path, sizeof at.sun_path);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&at, sizeof at), ==, 0);
    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), ==, 0);
    return fd;
}

/* More clients than there is room for wait their turn; where they do so, and who may. */
static void test_listen(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "disk.img", SIZE, 3);
    g_autofree char *at = block_fix_path(f, "s");
    g_autofree char *uri = g_strdup_printf("nbd+unix:///a%%20b?socket=%s", at);
    g_auto(NbdListen) l = {.fd = -1}, again = {.fd = -1}, tcp = {.fd = -1};
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = path});
    g_autoptr(GError) error = NULL;
    struct stat st;
    uint8_t b[18];

    g_assert_true(nbd_listen_unix(at, "a b", &l, &error));
    g_assert_cmpstr(l.uri, ==, uri);
    g_assert_true(stat(at, &st) == 0 && (st.st_mode & 0777) == 0600);
    g_assert_false(nbd_listen_unix(at, "", &again, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    g_clear_error(&error);
    NbdServer *s = nbd_server_new(&(NbdServerConfig){.node = n, .name = "", .clients = 1});
    g_assert_true(nbd_server_listen(s, l.fd, &error));
    l.fd = -1;
    int first = dial(at), second = dial(at);
    go(first, false);
    g_assert_cmpint(recv(second, b, sizeof b, MSG_DONTWAIT), ==, -1);
    g_assert_cmpint(errno, ==, EAGAIN);
    close(first);
    go(second, false);
    nbd_server_free(s);
    want_end(second);
    close(second);
    /* Nobody is there any more: the path may be taken again. */
    g_assert_true(nbd_listen_unix(at, "", &again, &error));
    static const char *const bad[] = {"localhost:1", "127.0.0.1:65536", "127.0.0.1:x", "[::1",
                                      "[::1]x", "1:2:3"};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_false(nbd_listen_tcp(bad[i], "", &tcp, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_clear_error(&error);
    }
    g_assert_true(nbd_listen_tcp("127.0.0.1:0", "", &tcp, &error));
    g_assert_true(g_str_has_prefix(tcp.uri, "nbd://127.0.0.1:"));
}

/* Addresses that cannot be had. */
static void test_listen_refused(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_auto(NbdListen) tcp = {.fd = -1}, six = {.fd = -1}, none = {.fd = -1};
    g_autoptr(GError) error = NULL;
    g_autofree char *nowhere = block_fix_path(f, "no/such"), *path = g_strnfill(200, 'a');

    g_assert_true(nbd_listen_tcp("127.0.0.1:0", "", &tcp, &error));
    g_autofree char *taken = g_strdup(tcp.uri + strlen("nbd://"));
    *strchr(taken, '/') = 0;
    g_assert_false(nbd_listen_tcp(taken, "", &none, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    g_clear_error(&error);
    if (nbd_listen_tcp("[::1]:0", "", &six, &error)) /* else this host has no IPv6 */
        g_assert_true(g_str_has_prefix(six.uri, "nbd://[::1]:"));
    else
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_clear_error(&error);
    g_assert_false(nbd_listen_unix(path, "", &none, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    g_assert_false(nbd_listen_unix(nowhere, "", &none, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
}

/* A process with @fd as its descriptor 3. 0: it was passed nothing, 1: serves on it, 2: refuses. */
static int passed(int fd, const char *count, long pid)
{
    pid_t child = fork();
    int status;

    g_assert_cmpint(child, >=, 0);
    if (!child) {
        NbdListen l = {.fd = -1};
        GError *error = NULL;
        g_setenv("LISTEN_PID", g_strdup_printf("%ld", pid ? pid : (long)getpid()), TRUE);
        g_setenv("LISTEN_FDS", count, TRUE);
        dup2(fd, 3);
        bool is = nbd_listen_passed(&l, &error);
        if (is)
            _exit(l.fd == 3 && !error && !g_getenv("LISTEN_FDS") ? 1 : 3);
        _exit(!error ? 0 : g_error_matches(error, LODGE_ERROR, LODGE_ERROR_CONFIG) ? 2 : 3);
    }
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    g_assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* A socket that systemd, or another program, listens on for us. */
static void test_listen_passed(void)
{
    g_auto(NbdListen) tcp = {.fd = -1};
    int pair[2];

    g_assert_true(nbd_listen_tcp("127.0.0.1:0", "", &tcp, NULL));
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    g_assert_cmpint(passed(tcp.fd, "1", 0), ==, 1);
    g_assert_cmpint(passed(tcp.fd, "1", 1), ==, 0);
    g_assert_cmpint(passed(tcp.fd, "2", 0), ==, 2);
    g_assert_cmpint(passed(pair[0], "1", 0), ==, 2);
    close(pair[0]);
    close(pair[1]);
}

/* Who does not get on with the handshake is dropped. */
static void test_handshake_time(void)
{
    LodgeClock *clock = lodge_clock_new_manual(0);
    g_autoptr(GError) error = NULL;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "disk.img", SIZE, 3);
    IoThread *io = io_thread_new("nbd-time", clock, &error);
    BlkNode *n = blk_open("d0", &(BlkOptions){.file = path}, io, &error);
    Wire w = {.f = f};

    g_assert_no_error(error);
    w.s = nbd_server_new(&(NbdServerConfig){.node = n, .name = "", .clients = 4});
    int idle = plug(&w), user = plug(&w);
    go(user, false);
    clock_advance(clock, 60 * NS_PER_SEC);
    io_thread_wake(io);
    want_end(idle);
    want_simple(user, 0, 0, NBD_CMD_FLUSH, 0, 0);
    nbd_server_free(w.s);
    close(idle);
    close(user);
    blk_close(n);
    io_thread_free(io);
    lodge_clock_free(clock);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd/server/options", test_options);
    g_test_add_func("/nbd/server/options-hostile", test_options_hostile);
    g_test_add_func("/nbd/server/hung-up", test_hung_up);
    g_test_add_func("/nbd/server/export-name", test_export_name);
    g_test_add_func("/nbd/server/requests", test_requests);
    g_test_add_func("/nbd/server/requests-hostile", test_requests_hostile);
    g_test_add_func("/nbd/server/read-only", test_read_only);
    g_test_add_func("/nbd/server/structured", test_structured);
    g_test_add_func("/nbd/server/status-chain", test_status_chain);
    g_test_add_func("/nbd/server/slow", test_slow);
    g_test_add_func("/nbd/server/gone", test_gone);
    g_test_add_func("/nbd/server/listen", test_listen);
    g_test_add_func("/nbd/server/listen-refused", test_listen_refused);
    g_test_add_func("/nbd/server/listen-passed", test_listen_passed);
    g_test_add_func("/nbd/server/handshake-time", test_handshake_time);
    return g_test_run();
}
