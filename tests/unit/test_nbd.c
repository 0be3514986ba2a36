/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks over NBD: what is named, what goes there and back, what happens when the server goes. The
 * server is ours; tests/e2e has those of others. */
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "blockfix.h"
#include "image_ops.h"
#include "nbd_lib.h"
#include "nbd_listen.h"
#include "nbd_server.h"
#include "nbd_uri.h"

#define SIZE (8 * MIB)
#define WAIT_US (20 * G_USEC_PER_SEC)

/* A file, served; and the clients' URI. */
typedef struct Far {
    BlockFix *f;
    char *path, *socket, *uri;
    BlkNode *n;
    NbdServer *s;
} Far;

static GPtrArray *said; /* lines of the log */
static GMutex said_mutex;

static void note(void *opaque, const char *line)
{
    g_mutex_lock(&said_mutex);
    g_ptr_array_add(said, g_strdup(line));
    g_mutex_unlock(&said_mutex);
}

static unsigned count_said(const char *text)
{
    unsigned n = 0;

    g_mutex_lock(&said_mutex);
    for (guint i = 0; i < said->len; i++)
        n += strstr(g_ptr_array_index(said, i), text) != NULL;
    g_mutex_unlock(&said_mutex);
    return n;
}

static void far_start_as(Far *r, const char *file, bool writable)
{
    g_autoptr(GError) error = NULL;
    NbdListen l = {.fd = -1};

    r->n = block_fix_open(r->f, &(BlkOptions){.file = file, .format = "raw",
                                              .read_only = !writable});
    r->s = nbd_server_new(&(NbdServerConfig){.node = r->n, .name = "disk", .writable = writable,
                                             .clients = 4});
    g_assert_true(nbd_listen_unix(r->socket, "disk", &l, &error));
    g_assert_true(nbd_server_listen(r->s, l.fd, &error));
    g_free(l.socket);
    g_free(r->uri);
    r->uri = l.uri;
}

static void far_start(Far *r)
{
    far_start_as(r, r->path, true);
}

static void far_stop(Far *r)
{
    nbd_server_free(g_steal_pointer(&r->s));
    blk_close(g_steal_pointer(&r->n));
}

static bool lib_is_there(void)
{
    void *so = dlopen(NBD_LIB_SONAME, RTLD_LAZY);

    if (so)
        dlclose(so);
    else
        g_test_skip("libnbd is missing (package " NBD_LIB_PACKAGE ")");
    return so != NULL;
}

static Far *far_new(uint64_t size)
{
    Far *r;

    if (!lib_is_there())
        return NULL;
    r = g_new0(Far, 1);
    r->f = block_fix_new();
    r->path = block_fix_image(r->f, "disk.img", size, 5);
    r->socket = block_fix_path(r->f, "s");
    far_start(r);
    return r;
}

static void far_free(Far *r)
{
    if (!r)
        return;
    far_stop(r);
    block_fix_free(r->f);
    g_free(r->path);
    g_free(r->socket);
    g_free(r->uri);
    g_free(r);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Far, far_free)

static BlkNode *open_far(Far *r, const char *format)
{
    return block_fix_open(r->f, &(BlkOptions){.file = r->uri, .format = format});
}

/* ---- names ---- */

static void test_uri(void)
{
    static const struct {
        const char *text, *host, *port, *socket, *export;
    } good[] = {
        {"nbd://host/a", "host", "10809", NULL, "a"},
        {"nbd://host", "host", "10809", NULL, ""},
        {"NBD://10.0.0.1:99/a/b%20c", "10.0.0.1", "99", NULL, "a/b c"},
        {"nbd://[::1]:5/", "::1", "5", NULL, ""},
        {"nbd://h//x", "h", "10809", NULL, "/x"},
        {"nbd+unix:///x?socket=/a/b", NULL, NULL, "/a/b", "x"},
        {"nbd+unix:///?socket=/a%3fb", NULL, NULL, "/a?b", ""},
    };
    static const struct {
        const char *text, *why;
        int code;
    } bad[] = {
        {"nbds://h/x?tls-psk-file=k", "absolute", LODGE_ERROR_CONFIG},
        {"nbds://h/x?tls-psk-file=/k&tls-certificates=/c", "name one of", LODGE_ERROR_CONFIG},
        {"nbd://h/x?tls-psk-file=/k", "is for nbds", LODGE_ERROR_CONFIG},
        {"nbds://h/x", "name one of", LODGE_ERROR_CONFIG},
        {"nbds://u@h/x?tls-certificates=/c", "a user", LODGE_ERROR_CONFIG},
        {"nbds://u:p@h/x?tls-psk-file=/k", "a user", LODGE_ERROR_CONFIG},
        {"nbds+unix:///?socket=/s&tls-certificates=/c", "a socket has none", LODGE_ERROR_CONFIG},
        {"nbds+vsock://1/x", "vsock", LODGE_ERROR_UNSUPPORTED},
        {"nbd+vsock://1/x", "vsock", LODGE_ERROR_UNSUPPORTED},
        {"nbd:///x", "names no host", LODGE_ERROR_CONFIG},
        {"nbd:unix:/s", "names no host", LODGE_ERROR_CONFIG},
        {"nbd://h/x?tls=1", "'tls'", LODGE_ERROR_CONFIG},
        {"nbd://h/x?socket=/s", "socket= is for", LODGE_ERROR_CONFIG},
        {"nbd://u@h/x", "a user", LODGE_ERROR_CONFIG},
        {"nbd://h/x#y", "a #", LODGE_ERROR_CONFIG},
        {"nbd://h:99999/x", "99999", LODGE_ERROR_CONFIG},
        {"nbd+unix:///x", "names no socket", LODGE_ERROR_CONFIG},
        {"nbd+unix://h/x?socket=/s", "names no socket", LODGE_ERROR_CONFIG},
    };
    g_autoptr(NbdUri) tls =
        nbd_uri_parse("nbds://u@h/x?tls-psk-file=/k%20ey", NULL);
    g_autoptr(NbdUri) tls_unix = nbd_uri_parse("nbds+unix:///?socket=/s&tls-psk-file=/c", NULL);
    g_autoptr(NbdUri) copy = nbd_uri_copy(tls);
    g_autofree char *name = g_strnfill(NBD_NAME_MAX + 1, 'n');
    g_autofree char *long_name = g_strconcat("nbd://h/", name, NULL);
    g_autofree char *long_path = g_strdup_printf("nbd+unix:///?socket=/%.200s", name);

    g_assert_true(copy->tls && tls_unix->tls);
    g_assert_cmpstr(copy->user, ==, "u");
    g_assert_cmpstr(copy->psk_file, ==, "/k ey");
    g_assert_cmpstr(tls_unix->psk_file, ==, "/c");
    g_assert_cmpstr(tls_unix->socket, ==, "/s");
    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(NbdUri) u = nbd_uri_parse(good[i].text, &error);
        g_assert_no_error(error);
        g_assert_cmpstr(u->host, ==, good[i].host);
        g_assert_cmpstr(u->port, ==, good[i].port);
        g_assert_cmpstr(u->socket, ==, good[i].socket);
        g_assert_cmpstr(u->export, ==, good[i].export);
        g_assert_false(u->tls);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_true(nbd_uri_is(bad[i].text));
        g_assert_null(nbd_uri_parse(bad[i].text, &error));
        g_assert_error(error, LODGE_ERROR, bad[i].code);
        if (!strstr(error->message, bad[i].why))
            g_error("'%s' is not in '%s'", bad[i].why, error->message);
    }
    g_assert_null(nbd_uri_parse(long_name, NULL));
    g_assert_null(nbd_uri_parse(long_path, NULL));
    g_assert_false(nbd_uri_is("nbd"));
    g_assert_false(nbd_uri_is("/nbd://x"));
    g_assert_false(nbd_uri_is("nbdx://x"));
    g_autofree char *six = nbd_uri_text(NULL, "::1", 7, "a b");
    g_assert_cmpstr(six, ==, "nbd://[::1]:7/a%20b");
}

static void test_refused(void)
{
    g_autoptr(Far) r = far_new(SIZE);
    g_autofree char *none = NULL, *other = NULL, *cow = NULL;

    if (!r)
        return;
    none = g_strdup_printf("nbd+unix:///x?socket=%s.none", r->socket);
    other = g_strdup_printf("nbd+unix:///other?socket=%s", r->socket);
    cow = block_fix_path(r->f, "o.cow");
    block_fix_refused(r->f, &(BlkOptions){.file = none}, LODGE_ERROR_HOST, "no server at ");
    block_fix_refused(r->f, &(BlkOptions){.file = "nbd://127.0.0.1:1/x"}, LODGE_ERROR_HOST,
                      "127.0.0.1 port 1: Connection refused");
    block_fix_refused(r->f, &(BlkOptions){.file = other}, LODGE_ERROR_HOST,
                      "refuses export 'other'; it offers 'disk'");
    far_stop(r);
    far_start_as(r, r->path, false);
    block_fix_refused(r->f, &(BlkOptions){.file = r->uri}, LODGE_ERROR_CONFIG, "add ,ro");
    g_autoptr(BlkNode) ro = block_fix_open(r->f, &(BlkOptions){.file = r->uri, .read_only = true});
    g_assert_cmpint(blk_pwrite(ro, "", 0, 0), ==, EROFS);
    /* An overlay that names an export: taken at the operator's word, not at the file's. */
    g_autoptr(BlkNode) n = block_fix_open(r->f, &(BlkOptions){.file = cow, .base = r->uri});
    blk_close(g_steal_pointer(&n));
    block_fix_refused(r->f, &(BlkOptions){.file = cow}, LODGE_ERROR_CONFIG, "give base=nbd+unix:");
    n = block_fix_open(r->f, &(BlkOptions){.file = cow, .base = r->uri});
    uint8_t b[512];
    g_assert_cmpint(blk_pread(n, b, MIB, 512), ==, 0);
    g_assert_cmpuint(b[7], ==, block_fix_byte(MIB + 7, 5));
    /* And one whose writes are forgotten. */
    g_autoptr(BlkNode) s = block_fix_open(r->f, &(BlkOptions){.file = r->uri, .snapshot = true});
    g_assert_cmpint(blk_pwrite(s, b, 0, 512), ==, 0);
}

/* ---- there and back ---- */

static int run(BlkNode *n, BlkReq *req, BlkOp op, uint64_t offset, uint64_t len)
{
    req->op = op;
    req->offset = offset;
    req->len = len;
    return blk_wait(n, req);
}

static void test_requests(void)
{
    g_autoptr(Far) r = far_new(40 * MIB); /* more than goes into one command */
    g_autofree uint8_t *a = NULL, *b = NULL;
    BlkLimits l;

    if (!r)
        return;
    a = g_malloc(40 * MIB);
    b = g_malloc(40 * MIB);
    g_autoptr(BlkNode) n = open_far(r, "raw");
    blk_limits(n, &l);
    g_assert_cmpuint(l.size, ==, 40 * MIB);
    g_assert_cmpuint(l.align, ==, 512);
    g_assert_false(l.read_only);
    g_assert_cmpstr(blk_engine(n), ==, "nbd");
    for (uint64_t i = 0; i < 40 * MIB; i++)
        a[i] = (uint8_t)(i * 7 + i / 4096);
    g_assert_cmpint(blk_pwrite(n, a, 0, 40 * MIB), ==, 0);
    g_assert_cmpint(blk_pread(n, b, 0, 40 * MIB), ==, 0);
    g_assert_true(memcmp(a, b, 40 * MIB) == 0);
    /* In pieces of memory, with FUA. */
    struct iovec iov[3] = {{a + 1, 700}, {a + 5000, 300}, {a + 9, 24}};
    BlkReq req = {.iov = iov, .niov = 3, .fua = true};
    g_assert_cmpint(run(n, &req, BLK_WRITE, 4096, 1024), ==, 0);
    struct iovec back[2] = {{b, 1}, {b + 100, 1023}};
    req = (BlkReq){.iov = back, .niov = 2};
    g_assert_cmpint(run(n, &req, BLK_READ, 4096, 1024), ==, 0);
    g_assert_cmpuint(b[0], ==, a[1]);
    g_assert_cmpmem(b + 100, 699, a + 2, 699);
    g_assert_cmpmem(b + 799, 300, a + 5000, 300);
    g_assert_cmpmem(b + 1099, 24, a + 9, 24);
    req = (BlkReq){.fua = true};
    g_assert_cmpint(run(n, &req, BLK_ZERO, MIB, 16 * MIB), ==, 0);
    req = (BlkReq){0};
    g_assert_cmpint(run(n, &req, BLK_DISCARD, 30 * MIB, 10 * MIB), ==, 0);
    g_assert_cmpint(blk_flush(n), ==, 0);
    g_assert_cmpint(blk_pread(r->n, b, 0, 40 * MIB), ==, 0);
    g_assert_true(buffer_is_zero(b + MIB, 16 * MIB));
    g_assert_true(buffer_is_zero(b + 30 * MIB, 10 * MIB));
    g_assert_true(memcmp(a + 17 * MIB, b + 17 * MIB, 13 * MIB) == 0);
    req = (BlkReq){0};
    g_assert_cmpint(run(n, &req, BLK_STATUS, 17 * MIB, 23 * MIB), ==, 0);
    g_assert_cmpint(req.status, ==, BLK_ST_DATA);
    g_assert_cmpuint(req.status_len, ==, 13 * MIB);
    req = (BlkReq){0};
    g_assert_cmpint(run(n, &req, BLK_STATUS, 30 * MIB + 512, 4096), ==, 0);
    g_assert_cmpint(req.status, ==, BLK_ST_BELOW);
    g_assert_cmpuint(req.status_len, ==, 4096);
}

/* The mark of an image format in a disk whose format was guessed. */
static void test_guard(void)
{
    g_autoptr(Far) r = far_new(SIZE);
    uint8_t b[512] = "QFI\xfb\0\0\0\x03";

    if (!r)
        return;
    g_autoptr(BlkNode) n = open_far(r, NULL);
    g_assert_cmpint(blk_pwrite(n, b, 0, 512), ==, EIO);
    g_assert_cmpint(blk_pwrite(n, b, 512, 512), ==, 0);
}

/* What formats do with their file, on one that keeps its size; the second time it takes blocks
 * only. */
static void test_file(void)
{
    g_autoptr(Far) r = far_new(SIZE);

    if (!r)
        return;
    g_autofree uint8_t *want = g_malloc(SIZE), *got = g_malloc(SIZE);
    g_autoptr(BlkNode) n = open_far(r, "raw");
    BlkFile *file = blk_file_under(n);
    g_assert_true(file->remote);
    g_assert_cmpint(blk_pread(n, want, 0, SIZE), ==, 0);
    for (unsigned i = 0; i < 2; i++) {
        static const uint64_t zeros[][2] = {{1000, 3 * MIB}, {5 * MIB, 8192}, {6 * MIB + 5, 100}};
        for (unsigned k = 0; k < G_N_ELEMENTS(zeros); k++) {
            memset(want + zeros[k][0] + i * 16, 0, zeros[k][1]);
            g_assert_cmpint(blk_file_zero_at(file, zeros[k][0] + i * 16, zeros[k][1]), ==, 0);
        }
        memset(want + 7 * MIB - 3, 0x40 + (int)i, 7000);
        g_assert_cmpint(blk_file_write_at(file, want + 7 * MIB - 3, 7000, 7 * MIB - 3), ==, 0);
        g_assert_cmpint(blk_file_read_at(file, got, SIZE, 0), ==, 0);
        g_assert_true(memcmp(got, want, SIZE) == 0);
        memset(got, 1, 200); /* behind its end */
        g_assert_cmpint(blk_file_read_at(file, got, 200, SIZE - 100), ==, 0);
        g_assert_cmpmem(got, 100, want + SIZE - 100, 100);
        for (unsigned k = 100; k < 200; k++)
            g_assert_cmpint(got[k], ==, 0);
        g_assert_cmpint(blk_file_write_at(file, want, 200, SIZE - 100), ==, ENOSPC);
        g_assert_cmpint(blk_file_zero_at(file, SIZE - 100, 200), ==, ENOSPC);
        g_assert_cmpint(blk_file_truncate(file, SIZE), ==, 0);
        g_assert_cmpint(blk_file_truncate(file, SIZE + 1), ==, ENOSPC);
        file->unit = 4096;
    }
}

/* Image formats in an export: its size stays, so room for new data is made before. */
static void test_formats(void)
{
    static const char *const formats[] = {"qcow2", "vhd", "vdi", "vmdk"};

    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        g_autoptr(Far) r = far_new(SIZE);
        g_autoptr(GError) error = NULL;
        g_autofree uint8_t *a = g_malloc(MIB), *b = g_malloc(MIB);
        if (!r)
            return;
        far_stop(r);
        g_autofree char *image = block_fix_path(r->f, "image");
        BlkMake m = {.file = image, .format = formats[i], .size = SIZE};
        g_assert_true(blk_make(&m, r->f->io, &error));
        g_autoptr(BlkNode) first = block_fix_open(r->f, &(BlkOptions){.file = image,
                                                                      .format = formats[i]});
        memset(a, 3, MIB);
        g_assert_cmpint(blk_pwrite(first, a, 0, MIB), ==, 0);
        blk_close(g_steal_pointer(&first));
        /* Behind a qcow2 there is room for more; the others hold on to the file's length. */
        if (i == 0)
            g_assert_cmpint(truncate(image, 2 * SIZE), ==, 0);
        far_start_as(r, image, true);
        g_autoptr(BlkNode) n = open_far(r, formats[i]);
        g_assert_cmpuint(n->limits.size, ==, SIZE);
        memset(a, 9, MIB / 2);
        g_assert_cmpint(blk_pwrite(n, a, 0, MIB / 2), ==, 0);
        if (i == 0)
            g_assert_cmpint(blk_pwrite(n, a, 5 * MIB, MIB), ==, 0);
        g_assert_cmpint(blk_flush(n), ==, 0);
        g_assert_cmpint(blk_pread(n, b, 0, MIB), ==, 0);
        g_assert_true(memcmp(a, b, MIB) == 0);
        blk_close(g_steal_pointer(&n));
        far_stop(r);
        g_autoptr(BlkNode) last = block_fix_open(r->f, &(BlkOptions){.file = image,
                                                                     .format = formats[i]});
        g_assert_cmpint(blk_pread(last, b, i == 0 ? 5 * MIB : 0, MIB), ==, 0);
        g_assert_true(memcmp(a, b, MIB) == 0);
        g_autoptr(BlkReport) report = blk_report_new();
        if (last->drv->check) {
            g_assert_true(image_check(last, false, report, &error));
            g_assert_cmpuint(report->errors, ==, 0);
        }
        blk_close(g_steal_pointer(&last));
        far_start_as(r, image, true); /* for the end */
    }
}

static void test_convert(void)
{
    g_autoptr(Far) r = far_new(SIZE);
    g_autoptr(GError) error = NULL;
    CopyResult got;
    uint8_t b[512];

    if (!r)
        return;
    g_autofree char *src = block_fix_image(r->f, "src.img", SIZE, 9);
    g_autofree char *out = block_fix_path(r->f, "out.qcow2");
    ConvertArgs a = {.from = src, .to = {.file = r->uri}};
    g_assert_false(image_convert(&a, r->f->io, r->f->io, &got, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_EXISTS);
    g_clear_error(&error);
    a.to.overwrite = true;
    g_assert_true(image_convert(&a, r->f->io, r->f->io, &got, &error));
    g_assert_cmpint(blk_pread(r->n, b, SIZE - 512, 512), ==, 0);
    g_assert_cmpuint(b[9], ==, block_fix_byte(SIZE - 512 + 9, 9));
    a.to.format = "qcow2";
    g_assert_false(image_convert(&a, r->f->io, r->f->io, &got, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED);
    g_clear_error(&error);
    a = (ConvertArgs){.from = r->uri, .to = {.file = out, .format = "qcow2"}};
    g_assert_true(image_convert(&a, r->f->io, r->f->io, &got, &error));
    BlkMake m = {.file = r->uri, .size = SIZE, .overwrite = true};
    g_assert_false(blk_make(&m, r->f->io, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED);
}

/* ---- the server goes ---- */

static void wait_said(const char *text)
{
    for (int64_t until = g_get_monotonic_time() + WAIT_US; !count_said(text);) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_usleep(10000);
    }
}

/* Until reads work again. */
static void wait_back(BlkNode *n)
{
    int64_t until = g_get_monotonic_time() + WAIT_US;
    uint8_t b[512];

    while (blk_pread(n, b, 0, 512) != 0) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        g_usleep(10000);
    }
}

static void test_reconnect(void)
{
    g_autoptr(Far) r = far_new(SIZE);
    uint8_t b[4096] = {1};

    if (!r)
        return;
    g_autoptr(BlkNode) n = open_far(r, "raw");
    g_assert_cmpint(blk_pwrite(n, b, 0, sizeof b), ==, 0);
    g_assert_cmpint(blk_flush(n), ==, 0);
    far_stop(r);
    g_assert_cmpint(blk_pread(n, b, 0, sizeof b), ==, EIO);
    g_assert_cmpint(blk_flush(n), ==, EIO);
    g_usleep(300000); /* some attempts that fail are not told of */
    g_assert_cmpuint(count_said("tried again"), ==, 1);
    far_start(r);
    wait_back(n);
    g_assert_cmpuint(count_said("the server is back"), ==, 1);
    g_assert_cmpint(blk_flush(n), ==, 0); /* nothing was lost */
    g_assert_cmpint(blk_pwrite(n, b, 0, sizeof b), ==, 0);
    far_stop(r);
    far_start(r);
    wait_back(n);
    g_assert_cmpint(blk_flush(n), ==, EIO); /* a write might be lost, which is told once */
    g_assert_cmpint(blk_flush(n), ==, 0);
    /* Another export under the same name is not taken. */
    far_stop(r);
    g_autofree char *small = block_fix_image(r->f, "small.img", SIZE / 2, 1);
    far_start_as(r, small, true);
    wait_said("is back with another size");
    g_assert_cmpint(blk_pread(n, b, 0, sizeof b), ==, EIO);
    far_stop(r);
    far_start(r);
    wait_back(n);
    far_stop(r);
    far_start_as(r, r->path, false);
    wait_said("is back read-only");
    g_assert_cmpint(blk_pread(n, b, 0, sizeof b), ==, EIO);
    far_stop(r);
    far_start(r);
    wait_back(n);
}

/* With requests under way, and closed while it is gone. */
static void tell(void *opaque, BlkNode *n, int err)
{
    g_atomic_int_set((gint *)opaque, err);
}

static void count_done(BlkReq *req, int err)
{
    g_atomic_int_add((gint *)req->opaque, err ? 1000 : 1);
}

static void test_stop(void)
{
    g_autoptr(Far) r = far_new(SIZE);
    gint stopped = 0, done = 0;
    static uint8_t data[16][4096];
    struct iovec iov[16];
    BlkReq reqs[16];

    if (!r)
        return;
    g_autoptr(BlkNode) n = block_fix_open(
        r->f, &(BlkOptions){.file = r->uri, .format = "raw", .on_error = BLK_ERROR_STOP});
    blk_on_stop(n, tell, &stopped);
    far_stop(r);
    for (unsigned i = 0; i < 16; i++) {
        memset(data[i], 0x40 + i, 4096);
        iov[i] = (struct iovec){data[i], 4096};
        reqs[i] = (BlkReq){.op = BLK_WRITE, .offset = i * 4096, .len = 4096, .iov = &iov[i],
                           .niov = 1, .done = count_done, .opaque = &done};
        blk_submit(n, &reqs[i]);
    }
    for (int64_t until = g_get_monotonic_time() + WAIT_US; !g_atomic_int_get(&stopped);)
        g_assert_cmpint(g_get_monotonic_time(), <, until);
    g_assert_cmpint(g_atomic_int_get(&stopped), ==, EIO);
    g_assert_cmpint(g_atomic_int_get(&done), ==, 0);
    far_start(r);
    for (int64_t until = g_get_monotonic_time() + WAIT_US; g_atomic_int_get(&done) < 16;) {
        g_assert_cmpint(g_get_monotonic_time(), <, until);
        blk_retry(n, false);
        g_usleep(10000);
    }
    g_assert_cmpint(g_atomic_int_get(&done), ==, 16);
    uint8_t b[4096];
    for (unsigned i = 0; i < 16; i++) {
        g_assert_cmpint(blk_pread(r->n, b, i * 4096, 4096), ==, 0);
        g_assert_cmpmem(b, 4096, data[i], 4096);
    }
    far_stop(r);
    blk_close(g_steal_pointer(&n)); /* attempts may be under way */
    far_start(r);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    said = g_ptr_array_new_with_free_func(g_free);
    lodge_set_log(note, NULL);
    g_test_add_func("/nbd/uri", test_uri);
    g_test_add_func("/nbd/refused", test_refused);
    g_test_add_func("/nbd/requests", test_requests);
    g_test_add_func("/nbd/guard", test_guard);
    g_test_add_func("/nbd/file", test_file);
    g_test_add_func("/nbd/formats", test_formats);
    g_test_add_func("/nbd/convert", test_convert);
    g_test_add_func("/nbd/reconnect", test_reconnect);
    g_test_add_func("/nbd/stop", test_stop);
    int status = g_test_run();
    lodge_set_log(NULL, NULL);
    g_ptr_array_unref(said);
    return status;
}
