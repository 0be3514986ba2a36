/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The VNC server from a viewer that is written out here: RFC 6143 and the QEMU extensions. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <glib/gstdio.h>
#include <linux/input-event-codes.h>

#include "lodge/clock.h"
#include "lodge/dynlib.h"
#include "lodge/error.h"
#include "lodge/num.h"
#include "vnc.h"

#define WAIT_MS 10000

typedef struct Fixture {
    char *dir, *path, *spec;
    Display *display;
    Input *input;
    Vnc *vnc;
    /* The adapter. */
    unsigned width, height;
    DisplayRect draw; /* what the next refresh changes */
    unsigned scatter; /* and so many pixels, each for itself */
    uint32_t colour;
    unsigned refreshes; /* atomic */
    /* What the guest heard; guarded by mutex. */
    GMutex mutex;
    GString *heard;
} Fixture;

static uint32_t pixel_at(unsigned x, unsigned y)
{
    return (x * 7 + y * 131071) & 0xffffff;
}

static DisplayNews draw_refresh(void *opaque, Display *d, bool all)
{
    Fixture *f = opaque;
    DisplaySurface s = display_begin(d, f->width, f->height);

    g_atomic_int_inc(&f->refreshes);
    if (all) {
        for (unsigned y = 0; y < s.height; y++) {
            for (unsigned x = 0; x < s.width; x++)
                s.pixels[y * s.stride + x] = pixel_at(x, y);
        }
        display_damage(d, (DisplayRect){0, 0, s.width, s.height});
    }
    for (unsigned y = f->draw.y; y < f->draw.y + f->draw.height && y < s.height; y++) {
        for (unsigned x = f->draw.x; x < f->draw.x + f->draw.width && x < s.width; x++)
            s.pixels[y * s.stride + x] = f->colour;
    }
    if (f->draw.width)
        display_damage(d, f->draw);
    for (unsigned i = 0; i < f->scatter; i++) {
        s.pixels[i * s.stride + i * 5 % s.width] = f->colour;
        display_damage(d, (DisplayRect){i * 5 % s.width, i, 1, 1});
    }
    f->scatter = 0;
    f->draw.width = f->draw.height = 0;
    display_end(d);
    return (DisplayNews){.stirred = true, .next_ns = INT64_MAX};
}

static const DisplaySource source = {.refresh = draw_refresh};

static void hear(Fixture *f, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void hear(Fixture *f, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_mutex_lock(&f->mutex);
    g_string_append_vprintf(f->heard, fmt, ap);
    g_mutex_unlock(&f->mutex);
    va_end(ap);
}

static void hear_key(void *opaque, unsigned code, bool down)
{
    hear(opaque, "%c%u ", down ? '+' : '-', code);
}

static void hear_rel(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
    hear(opaque, "r%d,%d,%d,%u ", dx, dy, dz, buttons);
}

static void hear_abs(void *opaque, unsigned x, unsigned y, int dz, unsigned buttons)
{
    hear(opaque, "a%u,%u,%d,%u ", x, y, dz, buttons);
}

static const InputOps keyboard = {.key = hear_key, .rel = hear_rel};
static const InputOps tablet = {.abs = hear_abs};

/* Wait until the guest heard exactly @want, and forget it. */
static void heard(Fixture *f, const char *want)
{
    gint64 end = g_get_monotonic_time() + WAIT_MS * 1000;
    bool same;
    do {
        g_mutex_lock(&f->mutex);
        same = !strcmp(f->heard->str, want);
        bool wrong = !g_str_has_prefix(want, f->heard->str);
        if (same)
            g_string_truncate(f->heard, 0);
        if (wrong)
            g_test_message("heard %s", f->heard->str);
        g_mutex_unlock(&f->mutex);
        g_assert_false(wrong);
        g_usleep(500);
    } while (!same && g_get_monotonic_time() < end);
    g_assert_true(same);
}

static void set_up(Fixture *f, gconstpointer password)
{
    GError *error = NULL;
    *f = (Fixture){.width = 64, .height = 48, .display = display_new(NULL), .input = input_new(),
                   .heard = g_string_new(NULL)};
    f->dir = g_dir_make_tmp("lodge-vnc-XXXXXX", &error);
    g_assert_no_error(error);
    f->path = g_build_filename(f->dir, "screen", NULL);
    f->spec = g_strconcat("unix:", f->path, NULL);
    display_set_source(f->display, &source, f);
    input_attach(f->input, &keyboard, f);
    if (password) {
        g_autofree char *file = g_build_filename(f->dir, "password", NULL);
        g_file_set_contents_full(file, password, -1, G_FILE_SET_CONTENTS_NONE, 0600, &error);
        g_assert_no_error(error);
        g_autofree char *spec = f->spec;
        f->spec = g_strdup_printf("%s,password-file=%s", spec, file);
    }
    VncConfig c = {.display = f->display, .input = f->input, .name = "tested"};
    f->vnc = vnc_open(f->spec, &c, &error);
    g_assert_no_error(error);
}

static void tear_down(Fixture *f, gconstpointer password)
{
    vnc_close(f->vnc);
    g_assert_false(g_file_test(f->path, G_FILE_TEST_EXISTS));
    g_autofree char *file = g_build_filename(f->dir, "password", NULL);
    (void)g_unlink(file);
    g_assert_cmpint(g_rmdir(f->dir), ==, 0);
    display_set_source(f->display, NULL, NULL);
    display_free(f->display);
    input_free(f->input);
    g_string_free(f->heard, TRUE);
    g_free(f->dir);
    g_free(f->path);
    g_free(f->spec);
}

/* ---- a viewer ---- */

static int dial(Fixture *f)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval tv = {.tv_sec = WAIT_MS / 1000};
    g_strlcpy(un.sun_path, f->path, sizeof(un.sun_path));
    g_assert_cmpint(connect(fd, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), ==, 0);
    return fd;
}

static void get(int fd, void *to, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = read(fd, (char *)to + done, len - done);
        g_assert_cmpint(n, >, 0);
        done += (size_t)n;
    }
}

static void put(int fd, const void *from, size_t len)
{
    g_assert_cmpint(send(fd, from, len, MSG_NOSIGNAL), ==, len);
}

static bool hung_up(int fd)
{
    char c;
    ssize_t n;
    while ((n = read(fd, &c, 1)) > 0)
        continue;
    return n == 0 || errno == ECONNRESET;
}

/* Up to the security types. */
static unsigned greet(int fd)
{
    char version[12];
    uint8_t types[2];
    get(fd, version, sizeof(version));
    g_assert_cmpmem(version, sizeof(version), "RFB 003.008\n", 12);
    put(fd, version, sizeof(version));
    get(fd, types, sizeof(types));
    g_assert_cmpuint(types[0], ==, 1);
    return types[1];
}

static void init(int fd, unsigned width, unsigned height)
{
    uint8_t m[24];
    char name[64] = {0};
    put(fd, "\0", 1); /* not shared, which is ignored */
    get(fd, m, sizeof(m));
    g_assert_cmpuint(load_be16(m), ==, width);
    g_assert_cmpuint(load_be16(m + 2), ==, height);
    g_assert_cmpuint(m[4], ==, 32);
    g_assert_cmpuint(m[6], ==, 0); /* little-endian, true colour, red is highest */
    g_assert_cmpuint(m[7], !=, 0);
    g_assert_cmpmem(m + 8, 9, "\0\xff\0\xff\0\xff\x10\x08\0", 9);
    g_assert_cmpuint(load_be32(m + 20), <, sizeof(name));
    get(fd, name, load_be32(m + 20));
    g_assert_cmpstr(name, ==, "tested");
}

static void set_encodings(int fd, const int32_t *list, unsigned n)
{
    uint8_t m[4 + 4 * 8] = {2, 0, 0, (uint8_t)n};
    for (unsigned i = 0; i < n; i++)
        store_be32(m + 4 + 4 * i, (uint32_t)list[i]);
    put(fd, m, 4 + 4 * n);
}

static int viewer_new(Fixture *f, bool extended)
{
    static const int32_t plain[] = {0}, more[] = {0, -223, -258, -257};
    int fd = dial(f);
    uint32_t result;
    g_assert_cmpuint(greet(fd), ==, 1);
    put(fd, "\1", 1);
    get(fd, &result, 4);
    g_assert_cmpuint(result, ==, 0);
    init(fd, f->width, f->height);
    if (extended)
        set_encodings(fd, more, 4);
    else
        set_encodings(fd, plain, 1);
    return fd;
}

static void request(int fd, bool incremental, unsigned width, unsigned height)
{
    uint8_t m[10] = {3, incremental};
    store_be16(m + 6, (uint16_t)width);
    store_be16(m + 8, (uint16_t)height);
    put(fd, m, sizeof(m));
}

/* The header of an update of one rectangle: x, y, w, h; returns its encoding. */
static int32_t update(int fd, unsigned r[4])
{
    uint8_t m[16];
    get(fd, m, sizeof(m));
    g_assert_cmpuint(m[0], ==, 0);
    g_assert_cmpuint(load_be16(m + 2), ==, 1);
    for (unsigned i = 0; i < 4; i++)
        r[i] = load_be16(m + 4 + 2 * i);
    return (int32_t)load_be32(m + 12);
}

static uint32_t *pixels(int fd, unsigned x, unsigned y, unsigned w, unsigned h)
{
    unsigned r[4];
    g_assert_cmpint(update(fd, r), ==, 0);
    g_assert_cmpuint(r[0], ==, x);
    g_assert_cmpuint(r[1], ==, y);
    g_assert_cmpuint(r[2], ==, w);
    g_assert_cmpuint(r[3], ==, h);
    uint32_t *p = g_new(uint32_t, w * h);
    get(fd, p, w * h * 4);
    return p;
}

static void whole_picture(int fd, unsigned w, unsigned h)
{
    request(fd, false, w, h);
    g_autofree uint32_t *p = pixels(fd, 0, 0, w, h);
    for (unsigned i = 0; i < w * h; i++)
        g_assert_cmphex(p[i], ==, pixel_at(i % w, i / w));
}

static void key(int fd, uint32_t sym, bool down)
{
    uint8_t m[8] = {4, down};
    store_be32(m + 4, sym);
    put(fd, m, sizeof(m));
}

static void key_code(int fd, uint32_t sym, uint32_t code, bool down)
{
    uint8_t m[12] = {255, 0, 0, down};
    store_be32(m + 4, sym);
    store_be32(m + 8, code);
    put(fd, m, sizeof(m));
}

static void point(int fd, unsigned x, unsigned y, unsigned mask)
{
    uint8_t m[6] = {5, (uint8_t)mask};
    store_be16(m + 2, (uint16_t)x);
    store_be16(m + 4, (uint16_t)y);
    put(fd, m, sizeof(m));
}

/* ---- tests ---- */

static void test_picture(Fixture *f, gconstpointer unused)
{
    struct stat st;
    g_assert_cmpint(stat(f->path, &st), ==, 0);
    g_assert_cmphex(st.st_mode & 0777, ==, 0600);
    int fd = viewer_new(f, false);
    whole_picture(fd, 64, 48);
    request(fd, true, 64, 48);
    f->colour = 0x123456;
    f->draw = (DisplayRect){3, 5, 10, 2};
    display_update(f->display);
    g_autofree uint32_t *p = pixels(fd, 3, 5, 10, 2);
    for (unsigned i = 0; i < 20; i++)
        g_assert_cmphex(p[i], ==, 0x123456);
    f->draw = (DisplayRect){60, 40, 4, 8};
    display_update(f->display);
    f->draw = (DisplayRect){60, 40, 4, 8}; /* one after the other: nothing is lost */
    display_update(f->display);
    request(fd, true, 64, 48);
    g_autofree uint32_t *q = pixels(fd, 60, 40, 4, 8);
    g_assert_cmphex(q[31], ==, 0x123456);
    close(fd);
}

/* More places at a time than are kept apart: joined, none lost. */
static void test_scattered(Fixture *f, gconstpointer unused)
{
    int fd = viewer_new(f, false);
    g_autofree uint32_t *seen = g_new0(uint32_t, 64 * 48);
    unsigned there = 0;
    whole_picture(fd, 64, 48);
    f->colour = 0xabcdef;
    f->scatter = 48;
    display_update(f->display);
    while (there < 48) {
        uint8_t m[12];
        request(fd, true, 64, 48);
        get(fd, m, 4);
        for (unsigned n = load_be16(m + 2); n > 0; n--) {
            get(fd, m, 12);
            unsigned x = load_be16(m), y = load_be16(m + 2), w = load_be16(m + 4);
            g_assert_cmpuint(load_be32(m + 8), ==, 0);
            for (unsigned h = load_be16(m + 6); h > 0; h--, y++)
                get(fd, seen + y * 64 + x, w * 4);
        }
        there = 0;
        for (unsigned i = 0; i < 48; i++)
            there += seen[i * 64 + i * 5 % 64] == 0xabcdef;
    }
    close(fd);
}

static void test_resize(Fixture *f, gconstpointer unused)
{
    static const unsigned sizes[][2] = {{80, 25}, {1024, 768}, {33, 7}, {720, 400}};
    int fd = viewer_new(f, true);
    unsigned r[4];
    g_assert_cmpint(update(fd, r), ==, -258);
    g_assert_cmpint(update(fd, r), ==, -257);
    g_assert_cmpuint(r[0], ==, 0);
    whole_picture(fd, 64, 48);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        request(fd, true, 4096, 4096);
        f->width = sizes[i][0];
        f->height = sizes[i][1];
        display_set_source(f->display, &source, f); /* draws all */
        display_update(f->display);
        g_assert_cmpint(update(fd, r), ==, -223);
        g_assert_cmpuint(r[2], ==, sizes[i][0]);
        g_assert_cmpuint(r[3], ==, sizes[i][1]);
        /* The request for the old screen is still open: its pixels follow. */
        g_autofree uint32_t *p = pixels(fd, 0, 0, MIN(r[2], i ? sizes[i - 1][0] : 64),
                                        MIN(r[3], i ? sizes[i - 1][1] : 48));
        g_assert_cmphex(p[0], ==, pixel_at(0, 0));
        whole_picture(fd, sizes[i][0], sizes[i][1]);
    }
    close(fd);
}

static void test_keysyms(Fixture *f, gconstpointer unused)
{
    int fd = viewer_new(f, false);
    key(fd, 'a', true);
    key(fd, 'a', false);
    heard(f, "+30 -30 ");
    key(fd, 0xff0d, true);
    key(fd, 0xff0d, true); /* repeats */
    key(fd, 0xff0d, false);
    key(fd, 0xffc9, true);
    key(fd, 0xffc9, false);
    heard(f, "+28 +28 -28 +88 -88 ");
    key(fd, 'A', true); /* a program that types: no Shift of its own */
    key(fd, 'A', false);
    heard(f, "+42 +30 -42 -30 ");
    key(fd, 0xffe2, true); /* a German '/': Shift and 7 */
    key(fd, '/', true);
    key(fd, 0xffe2, false);
    key(fd, '7', false);
    heard(f, "+54 -54 +53 +54 -54 -53 ");
    key(fd, 0xffe5, true);
    key(fd, 0xffe5, false);
    key(fd, 'B', true);
    key(fd, 'B', false);
    heard(f, "+58 -58 +48 -48 ");
    key(fd, 0xfc, true); /* no key on a US layout */
    key(fd, 0x12345678, true);
    key(fd, 0x0100003f, true);
    heard(f, "+42 +53 -42 ");
    close(fd);
    heard(f, "-53 "); /* who leaves lets go */
}

static void test_key_codes(Fixture *f, gconstpointer unused)
{
    static const struct {
        unsigned xt, code;
    } some[] = {{0x1e, KEY_A}, {0x9d, KEY_RIGHTCTRL}, {0xb8, KEY_RIGHTALT}, {0xc8, KEY_UP},
                {0xc6, KEY_PAUSE}, {0x56, KEY_102ND}, {0x58, KEY_F12}, {0xdd, KEY_COMPOSE},
                {0x54, KEY_SYSRQ}, {0x9c, KEY_KPENTER}, {0x7d, KEY_YEN}};
    int fd = viewer_new(f, true);
    for (unsigned i = 0; i < G_N_ELEMENTS(some); i++) {
        g_autofree char *want = g_strdup_printf("+%u -%u ", some[i].code, some[i].code);
        key_code(fd, 'z', some[i].xt, true);
        key_code(fd, 'z', some[i].xt, false);
        heard(f, want);
    }
    key_code(fd, 'b', 0, true); /* no code: by the character */
    key_code(fd, 'b', 0xffffffff, false);
    heard(f, "+48 -48 ");
    key_code(fd, 0, 0x2a, true);
    key_code(fd, 0, 0x1e, true);
    heard(f, "+42 +30 ");
    close(fd);
    heard(f, "-30 -42 ");
}

static void test_pointer(Fixture *f, gconstpointer unused)
{
    int fd = viewer_new(f, false);
    point(fd, 10, 10, 0); /* where it starts is nobody's movement */
    point(fd, 13, 8, 1);
    point(fd, 13, 8, 1 | 8);
    point(fd, 13, 8, 4 | 16);
    heard(f, "r0,0,0,0 r3,-2,0,1 r0,0,-1,1 r0,0,1,2 ");
    input_attach(f->input, &tablet, f);
    point(fd, 63, 47, 2);
    point(fd, 0, 0, 2);
    point(fd, 9999, 9999, 0x82);
    heard(f, "a65535,65535,0,4 a0,0,0,4 a65535,65535,0,12 ");
    close(fd);
    heard(f, "a65535,65535,0,0 ");
    input_detach(f->input, &tablet, f);
}

static void test_pointer_motion(Fixture *f, gconstpointer unused)
{
    unsigned r[4];
    int fd = viewer_new(f, true);
    g_assert_cmpint(update(fd, r), ==, -258);
    g_assert_cmpint(update(fd, r), ==, -257);
    g_assert_cmpuint(r[0], ==, 0);
    point(fd, 0x7fff + 5, 0x7fff - 7, 0);
    heard(f, "r5,-7,0,0 ");
    input_attach(f->input, &tablet, f);
    g_assert_cmpint(update(fd, r), ==, -257);
    g_assert_cmpuint(r[0], ==, 1);
    point(fd, 63, 0, 0);
    heard(f, "a65535,0,0,0 ");
    input_detach(f->input, &tablet, f);
    g_assert_cmpint(update(fd, r), ==, -257);
    g_assert_cmpuint(r[0], ==, 0);
    point(fd, 0x7fff, 0x7fff, 1);
    heard(f, "r0,0,0,1 ");
    close(fd);
    heard(f, "r0,0,0,0 ");
}

/* Two viewers; one reads nothing, and the other and the screen go on. */
static void test_slow_viewer(Fixture *f, gconstpointer unused)
{
    f->width = 1600;
    f->height = 1200;
    int slow = viewer_new(f, false), fast = viewer_new(f, false);
    for (unsigned i = 0; i < 4; i++)
        request(slow, false, 1600, 1200); /* 30 MiB: more than fits into a socket */
    gint64 start = g_get_monotonic_time();
    for (unsigned i = 0; i < 5; i++) {
        whole_picture(fast, 1600, 1200);
        f->draw = (DisplayRect){0, 0, 1, 1};
        f->colour = pixel_at(0, 0);
        display_update(f->display);
    }
    g_assert_cmpint(g_get_monotonic_time() - start, <, 4 * G_USEC_PER_SEC);
    key(fast, 'x', true);
    key(fast, 'x', false);
    heard(f, "+45 -45 ");
    start = g_get_monotonic_time();
    g_clear_pointer(&f->vnc, vnc_close); /* does not wait for who does not read */
    g_assert_cmpint(g_get_monotonic_time() - start, <, 2 * G_USEC_PER_SEC);
    g_assert_true(hung_up(fast));
    close(slow);
    close(fast);
}

static uint32_t log_in(int fd, const char *password)
{
    g_autoptr(DynLib) lib = dynlib_open("libvncserver.so.1", "", NULL);
    void (*encrypt_bytes)(uint8_t *bytes, const char *key) =
        dynlib_sym(lib, "rfbEncryptBytes", NULL);
    uint8_t challenge[16];
    uint32_t result;
    g_assert_cmpuint(greet(fd), ==, 2);
    put(fd, "\2", 1);
    get(fd, challenge, sizeof(challenge));
    encrypt_bytes(challenge, password);
    put(fd, challenge, sizeof(challenge));
    get(fd, &result, 4);
    return result;
}

static void test_password(Fixture *f, gconstpointer unused)
{
    int fd = dial(f);
    g_assert_cmpuint(log_in(fd, "s3cret"), ==, 0);
    init(fd, 64, 48);
    whole_picture(fd, 64, 48);
    int bad = dial(f);
    g_assert_cmpuint(log_in(bad, "wrong"), !=, 0);
    g_assert_true(hung_up(bad));
    close(bad);
    bad = dial(f);
    g_assert_cmpuint(greet(bad), ==, 2);
    put(bad, "\1", 1); /* "none", which was not offered */
    g_assert_true(hung_up(bad));
    close(bad);
    whole_picture(fd, 64, 48);
    close(fd);
    int pair[2]; /* somebody else let this one in */
    GError *error = NULL;
    uint32_t result;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    g_assert_true(vnc_add_client(f->vnc, pair[0], true, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(greet(pair[1]), ==, 1);
    put(pair[1], "\1", 1);
    get(pair[1], &result, 4);
    init(pair[1], 64, 48);
    close(pair[1]);
}

/* A browser: HTTP upgrade, then RFB in binary frames. */
static void test_websocket(Fixture *f, gconstpointer unused)
{
    static const char hello[] = "GET /websockify HTTP/1.1\r\nHost: localhost\r\n"
                                "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                "Origin: http://localhost\r\nSec-WebSocket-Protocol: binary\r\n"
                                "Sec-WebSocket-Version: 13\r\n\r\n";
    int pair[2];
    GError *error = NULL;
    g_autoptr(GString) head = g_string_new(NULL);
    uint8_t frame[2 + 12];
    struct timeval tv = {.tv_sec = WAIT_MS / 1000};
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    g_assert_cmpint(setsockopt(pair[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), ==, 0);
    put(pair[1], hello, strlen(hello));
    g_assert_true(vnc_add_client(f->vnc, pair[0], true, &error));
    while (!g_str_has_suffix(head->str, "\r\n\r\n")) {
        char c;
        get(pair[1], &c, 1);
        g_string_append_c(head, c);
    }
    g_assert_nonnull(strstr(head->str, " 101 "));
    g_assert_nonnull(strstr(head->str, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")); /* RFC 6455, 1.3 */
    g_assert_nonnull(strstr(head->str, "Protocol: binary"));
    get(pair[1], frame, sizeof(frame));
    g_assert_cmphex(frame[0], ==, 0x82);
    g_assert_cmpuint(frame[1], ==, 12);
    g_assert_cmpmem(frame + 2, 12, "RFB 003.008\n", 12);
    /* Version and security type, masked with zeros, in one write. */
    put(pair[1], "\x82\x8c\0\0\0\0RFB 003.008\n\x82\x81\0\0\0\0\x01", 6 + 12 + 6 + 1);
    get(pair[1], frame, 2 + 2);
    g_assert_cmpmem(frame, 4, "\x82\x02\x01\x01", 4);
    get(pair[1], frame, 2 + 4);
    g_assert_cmpmem(frame, 6, "\x82\x04\0\0\0\0", 6);
    close(pair[1]);
}

static void test_many(Fixture *f, gconstpointer unused)
{
    int fd[VNC_CLIENTS_MAX];
    for (unsigned i = 0; i < VNC_CLIENTS_MAX; i++)
        fd[i] = viewer_new(f, false);
    int more = dial(f), pair[2];
    char c;
    errno = 0;
    g_assert_cmpint(read(more, &c, 1), <=, 0); /* not even a greeting */
    g_assert_cmpint(errno, !=, EAGAIN);
    close(more);
    GError *error = NULL;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    g_assert_false(vnc_add_client(f->vnc, pair[0], true, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_clear_error(&error);
    close(pair[1]);
    f->colour = 1;
    f->draw = (DisplayRect){1, 1, 1, 1};
    for (unsigned i = 0; i < VNC_CLIENTS_MAX; i++)
        whole_picture(fd[i], 64, 48);
    for (unsigned i = 0; i < VNC_CLIENTS_MAX; i++)
        close(fd[i]);
}

static void test_hostile(Fixture *f, gconstpointer unused)
{
    static const struct {
        const char *bytes;
        unsigned len;
    } ends[] = {{"\xff\x01\0\0\0\0\0\0\0\0\0\0", 12}, /* an unknown QEMU message */
                {"\x06\0\0\0\x7f\xff\xff\xff", 8},      /* 2 GiB for the clipboard */
                {"\x07\x01\0\x01\0\0\0\0\0\0\0\x10", 12}, /* file transfer */
                {"\x63", 1}, {"\x08\0\0\0", 4} /* scale by nothing */};
    for (unsigned i = 0; i < G_N_ELEMENTS(ends); i++) {
        int fd = viewer_new(f, true);
        put(fd, ends[i].bytes, ends[i].len);
        g_assert_true(hung_up(fd));
        close(fd);
    }
    int fd = dial(f);
    put(fd, "GET / HTTP/1.0\r\n\r\n", 18); /* not an upgrade */
    g_assert_true(hung_up(fd));
    close(fd);
    fd = viewer_new(f, false); /* scaled screens, cut text, sizes, then gone */
    put(fd, "\x08\x02\0\0\x06\0\0\0\0\0\0\x03" "abc\x03\0\xff\xff\xff\xff\xff\xff\xff\xff", 25);
    put(fd, "\x03\0\0\0\0\0\0\x10\0\x10", 10);
    close(fd);
    fd = viewer_new(f, false);
    whole_picture(fd, 64, 48);
    close(fd);
}

/* Nobody there: the adapter rests; a still screen: nothing is spent. */
static void test_idle(Fixture *f, gconstpointer unused)
{
    struct rusage a, b;
    g_assert_cmpint(f->refreshes, ==, 0);
    display_update(f->display);
    int fd = viewer_new(f, true);
    unsigned r[4], n;
    update(fd, r);
    update(fd, r);
    whole_picture(fd, 64, 48);
    request(fd, true, 64, 48);
    key(fd, 'a', true);
    heard(f, "+30 ");
    n = (unsigned)g_atomic_int_get(&f->refreshes);
    getrusage(RUSAGE_SELF, &a);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    g_assert_cmpint(poll(&p, 1, 1000), ==, 0);
    getrusage(RUSAGE_SELF, &b);
    g_assert_cmpint(b.ru_nvcsw - a.ru_nvcsw, <, 10); /* how often any thread slept again */
    g_assert_cmpuint(n, ==, (unsigned)g_atomic_int_get(&f->refreshes));
    close(fd);
    heard(f, "-30 ");
}

static void test_spec(void)
{
    static const char *const bad[] = {
        "", "1", "host", ":x", ":-1", ":70000", "127.0.0.1::0", "127.0.0.1::65536", "::1:1",
        "unix:", ":1,password=secret", ":1,password-file=/nonexistent/p", ":1,shared",
        ":1,password-file=/dev/zero",
    };
    VncConfig c = {.name = "spec"};
    GError *error = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_test_message("%s", bad[i]);
        g_assert_null(vnc_open(bad[i], &c, &error));
        g_assert_nonnull(error);
        g_clear_error(&error);
    }
    g_autoptr(Vnc) a = vnc_open("auto", &c, &error);
    g_assert_no_error(error);
    g_assert_true(g_str_has_prefix(vnc_describe(a), "127.0.0.1:59"));
    g_autoptr(Vnc) b = vnc_open("localhost:auto", &c, &error);
    g_assert_no_error(error);
    g_assert_true(g_str_has_prefix(vnc_describe(b), "localhost:59"));
    g_autofree char *same = g_strdup_printf("127.0.0.1::%s", strchr(vnc_describe(a), ':') + 1);
    g_assert_null(vnc_open(same, &c, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    g_clear_error(&error);
}

static void test_unix(void)
{
    VncConfig c = {.name = "unix"};
    GError *error = NULL;
    g_autofree char *dir = g_dir_make_tmp("lodge-vnc-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "a,b", NULL);
    g_autofree char *spec = g_strdup_printf("unix:%s/a,,b", dir);
    g_autofree char *want = g_strdup_printf("unix:%s", path);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    g_assert_true(g_file_set_contents(path, "precious", -1, NULL));
    g_assert_null(vnc_open(spec, &c, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    g_clear_error(&error);
    g_unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0); /* left behind by one that was killed */
    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    g_assert_cmpint(bind(fd, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    close(fd);
    Vnc *vnc = vnc_open(spec, &c, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(vnc_describe(vnc), ==, want);
    g_assert_null(vnc_open(spec, &c, &error)); /* and that one is alive */
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    g_clear_error(&error);
    vnc_close(vnc);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

static void test_password_files(void)
{
    static const struct {
        const char *text;
        int mode;
    } bad[] = {{"secret", 0644}, {"", 0600}, {"\nsecret", 0600}, {"ninechars", 0600}};
    VncConfig c = {.name = "password"};
    g_autofree char *dir = g_dir_make_tmp("lodge-vnc-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "p", NULL);
    g_autofree char *spec = g_strdup_printf("auto,password-file=%s", path);
    GError *error = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_true(g_file_set_contents_full(path, bad[i].text, -1, G_FILE_SET_CONTENTS_NONE,
                                               bad[i].mode, NULL));
        g_assert_cmpint(g_chmod(path, bad[i].mode), ==, 0);
        g_assert_null(vnc_open(spec, &c, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_clear_error(&error);
        g_unlink(path);
    }
    g_rmdir(dir);
}

#define VNC_TEST(name) g_test_add("/vnc/" #name, Fixture, NULL, set_up, test_##name, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_autoptr(DynLib) lib = dynlib_open("libvncserver.so.1", "libvncserver1", NULL);
    if (!lib) {
        g_print("1..0 # SKIP libvncserver.so.1 is not installed\n");
        return 0;
    }
    VNC_TEST(picture);
    VNC_TEST(scattered);
    VNC_TEST(resize);
    VNC_TEST(keysyms);
    VNC_TEST(key_codes);
    VNC_TEST(pointer);
    VNC_TEST(pointer_motion);
    VNC_TEST(slow_viewer);
    VNC_TEST(websocket);
    VNC_TEST(many);
    VNC_TEST(hostile);
    VNC_TEST(idle);
    g_test_add("/vnc/password", Fixture, "s3cret\n", set_up, test_password, tear_down);
    g_test_add_func("/vnc/spec", test_spec);
    g_test_add_func("/vnc/unix", test_unix);
    g_test_add_func("/vnc/password-files", test_password_files);
    return g_test_run();
}
