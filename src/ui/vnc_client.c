/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One viewer: a thread that speaks RFB with it by libvncserver.
 *
 * Spec: RFC 6143 and the community RFB specification, "QEMU Extended Key Event" (pseudo-encoding
 * -258, message 255) and "QEMU Pointer Motion Change" (-257).
 *
 * Each client has a screen of the library's for itself, over the server's picture, so that the
 * library's blocking reads and writes hold up nobody but the client that causes them, and nothing
 * of the library is shared but what vnc_lib.c guards. The thread sleeps in poll() without a time
 * limit once the greeting is over.
 *
 * A viewer with the key extension sends places on the keyboard. Others send characters, which are
 * typed on a US layout with Shift as the character needs it, whatever Shift the viewer holds.
 *
 * Hostile viewers: the greeting has GREETING_MS altogether and GREETING_WAIT_MS for each message; a
 * message begun must go on within MESSAGE_WAIT_MS; the library refuses text for the clipboard
 * beyond 1 MiB and file transfer, and none of it is kept. A password's check by the library is
 * confirmed by our own flag, since its list of security types is not safe between screens.
 *
 * Invariants:
 * (1) whatever the viewer holds is in `down` and `buttons`, and goes up when it leaves.
 */
#include "vnc_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <linux/input-event-codes.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "vnc_keys.h"

#define GREETING_MS 10000
#define GREETING_WAIT_MS 1000
#define MESSAGE_WAIT_MS 5000
/* The library waits for room with select() and 5 s at a time, which a shutdown of a Unix socket
 * does not end, but more room does: so there is little at first. TCP does not need it. */
#define UNIX_ROOM_BYTES 16384
#define MESSAGES_A_TURN 64 /* of a WebSocket's buffer, before news are looked at */

#define ENCODING_EXTENDED_KEY (-258)
#define ENCODING_POINTER_MOTION (-257)
#define MESSAGE_QEMU 255
#define QEMU_EXTENDED_KEY 0
#define EXTENDED_KEY_LEN 12 /* with the message type */
#define MOTION_ZERO 0x7fff  /* what stands for no movement in a relative position */

/* RFC 6143, 7.5.5: bits of the button mask */
#define RFB_LEFT 0x01
#define RFB_MIDDLE 0x02
#define RFB_RIGHT 0x04
#define RFB_WHEEL_UP 0x08
#define RFB_WHEEL_DOWN 0x10
#define RFB_BACK 0x80

struct VncClient {
    /* Constant: */
    Vnc *vnc;
    GThread *thread;
    int fd;      /* a duplicate, to hang up by: the library closes its own when it likes */
    int wake_fd; /* news, or stop */
    /* Atomic: */
    bool stop, done;
    /* Guarded by vnc->lock: */
    VncDirty dirty;
    bool resized;
    /* Owner thread only: */
    int sock; /* the library's, from the start on */
    rfbScreenInfo *screen;
    rfbClientRec *cl;
    char *passwords[2]; /* borrowed; NULL-terminated */
    bool authenticated;
    bool keys_wanted, keys_told;     /* the key extension */
    bool motion_wanted, motion_told; /* the pointer extension */
    bool abs_known;                  /* what it was told */
    bool placed; /* it sent a position: the next is a movement from there */
    int x, y;
    unsigned mask;    /* RFB's */
    unsigned buttons; /* INPUT_* */
    bool caps;
    uint8_t down[256 / 8];
};

static VncClient *client_of(rfbClientRec *cl)
{
    return cl->screen->screenData;
}

void vnc_wake(int event_fd)
{
    uint64_t one = 1;

    (void)!write(event_fd, &one, sizeof(one)); /* full: it is awake */
}

/* ---- keys ---- */

static bool is_down(const VncClient *c, unsigned code)
{
    return c->down[code / 8] >> code % 8 & 1;
}

/* The guest got something from us: it will show soon. */
static void await_answer(VncClient *c)
{
    if (c->vnc->display)
        display_stir(c->vnc->display);
}

static void press(VncClient *c, unsigned code, bool down)
{
    uint8_t bit = (uint8_t)(1 << code % 8);

    if (!down && !(c->down[code / 8] & bit))
        return;
    c->down[code / 8] = (uint8_t)((c->down[code / 8] & ~bit) | (down ? bit : 0));
    if (!c->vnc->input)
        return;
    input_key(c->vnc->input, code, down);
    await_answer(c);
}

static bool is_modifier(unsigned code)
{
    return code == KEY_LEFTSHIFT || code == KEY_RIGHTSHIFT || code == KEY_LEFTCTRL ||
           code == KEY_RIGHTCTRL || code == KEY_LEFTALT || code == KEY_RIGHTALT ||
           code == KEY_LEFTMETA || code == KEY_RIGHTMETA;
}

static void release_held(VncClient *c, bool modifiers_too)
{
    for (unsigned code = 0; code < 256; code++) {
        if (is_down(c, code) && (modifiers_too || !is_modifier(code)))
            press(c, code, false);
    }
}

/* Type a character with the Shift that it needs. */
static void press_shifted(VncClient *c, unsigned code, bool want)
{
    bool left = is_down(c, KEY_LEFTSHIFT), right = is_down(c, KEY_RIGHTSHIFT);

    if (want == (left || right)) {
        press(c, code, true);
        return;
    }
    if (want) {
        press(c, KEY_LEFTSHIFT, true);
        press(c, code, true);
        press(c, KEY_LEFTSHIFT, false);
        return;
    }
    press(c, KEY_LEFTSHIFT, false);
    press(c, KEY_RIGHTSHIFT, false);
    press(c, code, true);
    if (left)
        press(c, KEY_LEFTSHIFT, true);
    if (right)
        press(c, KEY_RIGHTSHIFT, true);
}

static void key_event(rfbBool down, rfbKeySym sym, rfbClientRec *cl)
{
    VncClient *c = client_of(cl);
    VncShift shift;
    unsigned code = vnc_key_by_keysym(sym, &shift);

    if (!code)
        return;
    if (!down) {
        /* Another modifier between press and release changes the character, not the key. */
        if (is_down(c, code))
            press(c, code, false);
        else if (!is_modifier(code))
            release_held(c, false);
        return;
    }
    if (code == KEY_CAPSLOCK && !is_down(c, code))
        c->caps = !c->caps;
    switch (shift) {
    case VNC_SHIFT_ANY:
        press(c, code, true);
        break;
    case VNC_SHIFT_NO:
    case VNC_SHIFT_YES:
        press_shifted(c, code, shift == VNC_SHIFT_YES);
        break;
    case VNC_SHIFT_UPPER:
    case VNC_SHIFT_LOWER:
        press_shifted(c, code, (shift == VNC_SHIFT_UPPER) != c->caps);
        break;
    }
}

/* ---- the pointer ---- */

static unsigned buttons_of(unsigned mask)
{
    return (mask & RFB_LEFT ? INPUT_LEFT : 0) | (mask & RFB_MIDDLE ? INPUT_MIDDLE : 0) |
           (mask & RFB_RIGHT ? INPUT_RIGHT : 0) | (mask & RFB_BACK ? INPUT_SIDE : 0);
}

static unsigned to_abs(int at, int size)
{
    return size > 1 ? (unsigned)(CLAMP(at, 0, size - 1) * (int64_t)INPUT_ABS_MAX / (size - 1)) : 0;
}

static void pointer_event(int mask, int x, int y, rfbClientRec *cl)
{
    VncClient *c = client_of(cl);
    Input *in = c->vnc->input;
    unsigned pressed = (unsigned)mask & ~c->mask;
    int dz = (pressed & RFB_WHEEL_DOWN ? 1 : 0) - (pressed & RFB_WHEEL_UP ? 1 : 0);

    c->mask = (unsigned)mask;
    c->buttons = buttons_of(c->mask);
    if (!in)
        return;
    if (input_has_abs(in)) {
        if (!c->motion_told || c->abs_known) /* else a movement, sent before it knew */
            input_abs(in, to_abs(x, c->screen->width), to_abs(y, c->screen->height), dz,
                      c->buttons);
    } else if (c->motion_told && !c->abs_known) {
        input_rel(in, x - MOTION_ZERO, y - MOTION_ZERO, dz, c->buttons);
    } else {
        input_rel(in, c->placed ? x - c->x : 0, c->placed ? y - c->y : 0, dz, c->buttons);
    }
    await_answer(c);
    c->placed = true;
    c->x = x;
    c->y = y;
}

static void release_all(VncClient *c)
{
    Input *in = c->vnc->input;

    release_held(c, true);
    if (!in || !c->buttons)
        return;
    if (input_has_abs(in))
        input_abs(in, to_abs(c->x, c->screen->width), to_abs(c->y, c->screen->height), 0, 0);
    else
        input_rel(in, 0, 0, 0, 0);
}

/* ---- extensions ---- */

static rfbBool extension_new(rfbClientRec *cl, void **data)
{
    *data = NULL;
    return TRUE;
}

static rfbBool extension_encoding(rfbClientRec *cl, void **data, int encoding)
{
    VncClient *c = client_of(cl);

    if (encoding == ENCODING_EXTENDED_KEY)
        c->keys_wanted = true;
    else if (encoding == ENCODING_POINTER_MOTION)
        c->motion_wanted = true;
    else
        return FALSE;
    return TRUE;
}

static rfbBool extension_message(rfbClientRec *cl, void *data, const rfbClientToServerMsg *msg)
{
    VncClient *c = client_of(cl);
    uint8_t m[EXTENDED_KEY_LEN];

    if (msg->type != MESSAGE_QEMU)
        return FALSE;
    if (c->vnc->lib->rfbReadExact(cl, (char *)m + 1, sizeof(m) - 1) <= 0 ||
        m[1] != QEMU_EXTENDED_KEY) {
        c->vnc->lib->rfbCloseClient(cl);
        return TRUE;
    }
    unsigned code = vnc_key_by_xt(load_be32(m + 8));
    if (code)
        press(c, code, load_be16(m + 2));
    else
        key_event(load_be16(m + 2) != 0, load_be32(m + 4), cl);
    return TRUE;
}

rfbProtocolExtension vnc_extension = {
    .newClient = extension_new,
    .enablePseudoEncoding = extension_encoding,
    .handleMessage = extension_message,
};

/* An update of one rectangle without pixels, whose encoding is the message. */
static void send_pseudo(VncClient *c, int encoding, unsigned x)
{
    uint8_t m[4 + 12] = {rfbFramebufferUpdate, 0, 0, 1};

    store_be16(m + 4, (uint16_t)x);
    store_be16(m + 8, (uint16_t)c->screen->width);
    store_be16(m + 10, (uint16_t)c->screen->height);
    store_be32(m + 12, (uint32_t)encoding);
    if (c->vnc->lib->rfbWriteExact(c->cl, (char *)m, sizeof(m)) < 0)
        c->vnc->lib->rfbCloseClient(c->cl);
}

static void tell_extensions(VncClient *c)
{
    bool abs = __atomic_load_n(&c->vnc->has_abs, __ATOMIC_ACQUIRE);

    if (c->keys_wanted && !c->keys_told) {
        c->keys_told = true;
        send_pseudo(c, ENCODING_EXTENDED_KEY, 0);
    }
    if (c->motion_wanted && c->cl->sock >= 0 && (!c->motion_told || abs != c->abs_known)) {
        c->motion_told = true;
        c->abs_known = abs;
        c->placed = false;
        send_pseudo(c, ENCODING_POINTER_MOTION, abs);
    }
}

/* ---- the loop ---- */

static void set_size(VncClient *c, unsigned width, unsigned height)
{
    c->vnc->lib->rfbNewFramebuffer(c->screen, (char *)c->vnc->picture, (int)width, (int)height, 8,
                                   3, sizeof(uint32_t));
    c->screen->paddedWidthInBytes = VNC_STRIDE * sizeof(uint32_t);
    c->screen->serverFormat.redShift = 16; /* the library would have red in the lowest byte */
    c->screen->serverFormat.blueShift = 0;
    if (c->cl)
        c->vnc->lib->rfbSetTranslateFunction(c->cl);
    c->placed = false;
}

static void take_news(VncClient *c)
{
    VncDirty dirty;
    unsigned width, height;
    bool resized;

    lodge_lock(&c->vnc->lock);
    dirty = c->dirty;
    resized = c->resized;
    width = c->vnc->width;
    height = c->vnc->height;
    c->dirty.n = 0;
    c->resized = false;
    lodge_unlock(&c->vnc->lock);
    if (resized)
        set_size(c, width, height);
    for (unsigned i = 0; i < dirty.n; i++) {
        DisplayRect *r = &dirty.rect[i];
        c->vnc->lib->rfbMarkRectAsModified(c->screen, (int)r->x, (int)r->y,
                                           (int)(r->x + r->width), (int)(r->y + r->height));
    }
}

static rfbBool password_check(rfbClientRec *cl, const char *response, int len)
{
    VncClient *c = client_of(cl);

    c->authenticated = c->vnc->lib->rfbCheckPasswordByList(cl, response, len);
    return c->authenticated;
}

static void take_message(VncClient *c)
{
    bool greeting = c->cl->state != RFB_NORMAL;

    if (greeting)
        vnc_lib_greeting_lock();
    c->vnc->lib->rfbProcessClientMessage(c->cl);
    if (greeting)
        vnc_lib_greeting_unlock();
    if (c->passwords[0] && !c->authenticated && c->cl->sock >= 0 &&
        c->cl->state >= RFB_INITIALISATION)
        c->vnc->lib->rfbCloseClient(c->cl);
    if (c->cl->state == RFB_NORMAL)
        c->screen->maxClientWait = MESSAGE_WAIT_MS;
}

/* Wait for bytes or news; false: it is over. */
static bool wait_for_work(VncClient *c, gint64 deadline)
{
    struct pollfd p[] = {{.fd = c->cl->sock, .events = POLLIN},
                         {.fd = c->wake_fd, .events = POLLIN}};
    int ms = -1;

    if (c->cl->state != RFB_NORMAL) {
        ms = (int)((deadline - g_get_monotonic_time()) / 1000);
        if (ms <= 0)
            return false;
    }
    if (poll(p, G_N_ELEMENTS(p), ms) < 0)
        return errno == EINTR;
    if (p[1].revents) {
        uint64_t n;
        (void)!read(c->wake_fd, &n, sizeof(n)); /* only to quiet it */
    }
    if (p[0].revents) {
        unsigned left = MESSAGES_A_TURN;
        do
            take_message(c);
        while (c->cl->sock >= 0 && --left && c->vnc->lib->webSocketsHasDataInBuffer(c->cl));
        if (!left)
            vnc_wake(c->wake_fd); /* poll() does not see the rest */
    }
    return true;
}

static void serve(VncClient *c)
{
    gint64 deadline = g_get_monotonic_time() + GREETING_MS * 1000;
    bool rest = false; /* bytes of a WebSocket are buffered */

    while (c->cl->sock >= 0 && !__atomic_load_n(&c->stop, __ATOMIC_ACQUIRE)) {
        take_news(c);
        if (c->cl->state == RFB_NORMAL) {
            tell_extensions(c);
            /* A new size is an update of its own, before the pixels. */
            for (unsigned i = 0; i < 2 && c->cl->sock >= 0; i++)
                c->vnc->lib->rfbUpdateClient(c->cl);
        }
        if (c->cl->sock < 0)
            break;
        rest = c->vnc->lib->webSocketsHasDataInBuffer(c->cl);
        if (rest)
            take_message(c);
        else if (!wait_for_work(c, deadline))
            break;
    }
}

static rfbScreenInfo *make_screen(VncClient *c)
{
    rfbScreenInfo *s = malloc(sizeof(*s)); /* freed by the library */

    if (!s)
        return NULL;
    *s = *c->vnc->lib->blank;
    pthread_mutex_init(&s->cursorMutex, NULL);
    s->screenData = c;
    s->desktopName = c->vnc->name;
    s->cursor = NULL; /* the guest draws its own */
    s->alwaysShared = TRUE;
    s->deferUpdateTime = 0;
    s->deferPtrUpdateTime = 0;
    s->maxClientWait = GREETING_WAIT_MS;
    s->kbdAddEvent = key_event;
    s->ptrAddEvent = pointer_event;
    s->setXCutTextUTF8 = NULL;
    s->frameBuffer = (char *)c->vnc->picture;
    if (c->passwords[0]) {
        s->authPasswdData = c->passwords;
        s->passwordCheck = password_check;
    }
    return s;
}

static void *client_main(void *opaque)
{
    VncClient *c = opaque;
    sigset_t all;

    sigfillset(&all); /* SIGPIPE too: a write to who hung up is an error like others */
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    c->screen = make_screen(c);
    if (c->screen) {
        take_news(c);
        c->cl = c->vnc->lib->rfbNewClient(c->screen, c->sock);
        if (c->cl) {
            serve(c);
            release_all(c); /* keeps (1) */
            if (c->cl->sock >= 0)
                c->vnc->lib->rfbCloseClient(c->cl);
            g_clear_pointer(&c->cl->extensions, free); /* ours alone; the library forgets */
            g_clear_pointer(&c->cl->wsctx, free);      /* both of these */
            c->vnc->lib->rfbClientConnectionGone(c->cl);
        }
        c->vnc->lib->rfbScreenCleanup(c->screen);
    } else {
        close(c->sock);
    }
    shutdown(c->fd, SHUT_RDWR);
    __atomic_store_n(&c->done, true, __ATOMIC_RELEASE);
    vnc_wake(c->vnc->wake_fd);
    return NULL;
}

void vnc_client_post_locked(VncClient *c, const VncDirty *dirty)
{
    lock_assert_held(&c->vnc->lock);
    if (dirty) {
        for (unsigned i = 0; i < dirty->n; i++)
            vnc_dirty_add(&c->dirty, &dirty->rect[i]);
    } else {
        c->dirty.n = 0;
        c->resized = true;
    }
    vnc_wake(c->wake_fd);
}

void vnc_client_wake(VncClient *c)
{
    vnc_wake(c->wake_fd);
}

/* How much may wait on a Unix socket for the viewer to read. */
static void set_unix_room(VncClient *c, int bytes)
{
    int domain = 0;
    socklen_t len = sizeof(domain);

    if (getsockopt(c->fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX)
        (void)setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)); /* or it is slow */
}

void vnc_client_stop(VncClient *c)
{
    __atomic_store_n(&c->stop, true, __ATOMIC_RELEASE);
    shutdown(c->fd, SHUT_RDWR); /* ends the library's waiting */
    set_unix_room(c, INT_MAX / 2);
    vnc_wake(c->wake_fd);
}

bool vnc_client_address(const VncClient *c, struct sockaddr_storage *ret)
{
    socklen_t len = sizeof *ret;

    memset(ret, 0, sizeof *ret);
    return getpeername(c->fd, (struct sockaddr *)ret, &len) == 0;
}

bool vnc_client_done(VncClient *c)
{
    return __atomic_load_n(&c->done, __ATOMIC_ACQUIRE);
}

void vnc_client_free(VncClient *c)
{
    if (c->thread)
        g_thread_join(c->thread);
    if (c->fd >= 0)
        close(c->fd);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    g_free(c);
}

bool vnc_client_start(Vnc *vnc, int fd, bool trusted, GError **error)
{
    VncClient *c = g_new0(VncClient, 1);
    bool ok = true;

    c->vnc = vnc;
    c->passwords[0] = trusted ? NULL : vnc->addr.password;
    c->resized = true;
    c->sock = fd;
    c->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->fd < 0 || c->wake_fd < 0)
        ok = lodge_fail_errno(error, errno, "vnc: a client's descriptors");
    else if (fd >= FD_SETSIZE) /* the library waits with select() */
        ok = lodge_fail(error, LODGE_ERROR_LIMIT, "vnc: too many open files for a client");
    if (ok) {
        set_unix_room(c, UNIX_ROOM_BYTES);
        lodge_lock(&vnc->lock);
        if (vnc->clients->len >= VNC_CLIENTS_MAX)
            ok = lodge_fail(error, LODGE_ERROR_LIMIT, "vnc: %d clients are there already",
                            VNC_CLIENTS_MAX);
        else
            g_ptr_array_add(vnc->clients, c);
        lodge_unlock(&vnc->lock);
    }
    if (!ok) {
        close(fd);
        vnc_client_free(c);
        return false;
    }
    c->thread = g_thread_new("vnc-client", client_main, c);
    return true;
}
