/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reaching a server: name, socket, handshake, within NBD_CONNECT_S altogether.
 *
 * A resolver cannot be told to hurry, so all of it runs on a thread that is left to itself when
 * nobody wants its answer any more. What it made is then dropped by it. libnbd's own connecting is
 * used only where it has to be, for TLS with certificates over TCP, since it checks the server's
 * certificate for the name that it was given itself: it tries addresses without a time limit of
 * their own, and its words for a server that is not there are its own.
 *
 * A refused export is looked into once more, so that the error can say what the server has.
 *
 * Threads: "nbd-connect" runs the attempt; the one who made it waits, or is told on its loop.
 * t->mutex (a GMutex because of its GCond) guards result and dropped; only the loop's queue is
 * entered with it held.
 */
#include "nbd_connect.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/num.h"

#define POLLS_FAILED 16u
#define OFFERS_MAX 8u /* names in a message */

struct NbdTry {
    /* constant */
    NbdLib *lib;       /* ref */
    NbdUri *uri;       /* owned */
    IoThread *io;      /* borrowed; not touched once dropped */
    NbdTriedFn fn;
    void *opaque;
    int64_t deadline_ns;
    gint refs; /* atomic */
    GMutex mutex;
    GCond cond;
    /* guarded by mutex */
    bool over, dropped;
    NbdHandle *h;  /* owned */
    GError *error; /* owned */
};

static void try_unref(NbdTry *t)
{
    if (!g_atomic_int_dec_and_test(&t->refs))
        return;
    if (t->h)
        t->lib->close(t->h);
    g_clear_error(&t->error);
    nbd_lib_unref(t->lib);
    nbd_uri_free(t->uri);
    g_mutex_clear(&t->mutex);
    g_cond_clear(&t->cond);
    g_free(t);
}

/* ---- the socket ---- */

static int left_ms(const NbdTry *t)
{
    int64_t left = t->deadline_ns - clock_host_ns();

    return left <= 0 ? 0 : (int)(left / (NS_PER_SEC / 1000)) + 1;
}

/* Return: 0 or errno. */
static int connect_until(const NbdTry *t, int fd, const struct sockaddr *at, socklen_t len)
{
    socklen_t size = sizeof(int);
    int err = 0;

    if (connect(fd, at, len) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    while (true) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        int r = poll(&p, 1, left_ms(t));
        if (r > 0)
            break;
        if (r == 0)
            return ETIMEDOUT;
        if (errno != EINTR)
            return errno;
    }
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0 ? errno : err;
}

static int connect_unix(const NbdTry *t, int *ret_err)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    g_strlcpy(at.sun_path, t->uri->socket, sizeof at.sun_path); /* bounded when it was parsed */
    *ret_err = fd < 0 ? errno : connect_until(t, fd, (struct sockaddr *)&at, sizeof at);
    if (!*ret_err)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static int connect_tcp(const NbdTry *t, int *ret_err, GError **error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *list = NULL;
    int r = getaddrinfo(t->uri->host, t->uri->port, &hints, &list), fd = -1, on = 1;

    if (r != 0) {
        lodge_fail(error, LODGE_ERROR_HOST, "host '%s': %s", t->uri->host,
                   r == EAI_SYSTEM ? g_strerror(errno) : gai_strerror(r));
        return -1;
    }
    *ret_err = ECONNREFUSED;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        *ret_err = fd < 0 ? errno : connect_until(t, fd, a->ai_addr, a->ai_addrlen);
        if (*ret_err && fd >= 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd >= 0) { /* neither can fail on such a socket, nor would it matter */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    }
    return fd;
}

static int open_socket(const NbdTry *t, GError **error)
{
    g_autoptr(GError) why = NULL;
    int err = 0;
    int fd = t->uri->socket ? connect_unix(t, &err) : connect_tcp(t, &err, &why);

    if (fd < 0 && why)
        g_propagate_error(error, g_steal_pointer(&why));
    else if (fd < 0)
        lodge_fail(error, LODGE_ERROR_HOST, "no server at %s: %s; start it, or check the address",
                   t->uri->where, g_strerror(err));
    return fd;
}

/* ---- the handshake ---- */

static bool busy(const NbdLib *lib, NbdHandle *h)
{
    return lib->aio_is_connecting(h) > 0;
}

/* Go on until @h is ready, or with @negotiating has come so far. */
static bool handshake(const NbdTry *t, NbdHandle *h, bool negotiating, const bool *done)
{
    const NbdLib *lib = t->lib;

    for (unsigned failed = 0; done ? !*done : busy(lib, h);) {
        int ms = left_ms(t);
        failed += ms && lib->poll(h, ms) < 0; /* by a signal perhaps */
        if (ms == 0 || failed > POLLS_FAILED || lib->aio_is_dead(h) > 0 ||
            lib->aio_is_closed(h) > 0)
            return false;
        if (done && !busy(lib, h) && !(lib->aio_is_negotiating(h) > 0))
            return false;
    }
    return negotiating ? lib->aio_is_negotiating(h) > 0 : lib->aio_is_ready(h) > 0;
}

typedef struct Offers {
    GString *names;
    unsigned n;
    bool done;
} Offers;

static int one_offer(void *opaque, const char *name, const char *description)
{
    Offers *o = opaque;
    g_autofree char *safe = g_strescape(name, NULL);

    if (o->n++ < OFFERS_MAX)
        g_string_append_printf(o->names, "%s'%s'", o->n > 1 ? ", " : "", safe);
    return 0;
}

static int offers_done(void *opaque, int *error)
{
    ((Offers *)opaque)->done = true;
    return 1;
}

/* Whether the library has to make the connection. */
static bool by_name(const NbdUri *u)
{
    return u->tls && !u->psk_file && !u->socket;
}

/* A socket for hand_over(), -1 with the error, or -1 without one where there shall be none. */
static int socket_for(const NbdTry *t, GError **error)
{
    return by_name(t->uri) ? -1 : open_socket(t, error);
}

/* What TLS needs to know; false: the library says why. */
static bool set_tls(const NbdTry *t, NbdHandle *h)
{
    const NbdLib *lib = t->lib;
    const NbdUri *u = t->uri;

    return !u->tls ||
           (lib->set_tls(h, NBD_LIB_TLS_REQUIRE) == 0 &&
            (!u->certificates || lib->set_tls_certificates(h, u->certificates) == 0) &&
            (!u->psk_file || lib->set_tls_psk_file(h, u->psk_file) == 0) &&
            (!u->user || lib->set_tls_username(h, u->user) == 0));
}

/* Have the library connect, or take @fd, which it closes then in any case. */
static bool hand_over(const NbdTry *t, NbdHandle *h, int fd)
{
    return (fd < 0 ? t->lib->aio_connect_tcp(h, t->uri->host, t->uri->port)
                   : t->lib->aio_connect_socket(h, fd)) == 0;
}

/* What a server without TLS has, by a connection of its own; transfer full, or NULL. */
static char *list_offers(const NbdTry *t)
{
    const NbdLib *lib = t->lib;
    Offers o = {.names = g_string_new(NULL)};
    int fd = open_socket(t, NULL);
    NbdHandle *h = fd >= 0 ? lib->create() : NULL;
    bool given = h && lib->set_opt_mode(h, true) == 0;
    bool ok = given && lib->aio_connect_socket(h, fd) == 0;

    if (fd >= 0 && !given)
        close(fd);
    ok = ok && handshake(t, h, true, NULL) &&
         lib->aio_opt_list(h, (NbdLibList){one_offer, &o, NULL},
                           (NbdLibDone){offers_done, &o, NULL}) == 0 &&
         handshake(t, h, true, &o.done);
    if (h)
        lib->close(h);
    if (ok && o.n > OFFERS_MAX)
        g_string_append_printf(o.names, " and %u more", o.n - OFFERS_MAX);
    if (ok && !o.n)
        g_string_append(o.names, "nothing");
    return g_string_free(o.names, !ok);
}

static NbdHandle *attempt(const NbdTry *t, GError **error)
{
    const NbdLib *lib = t->lib;
    int fd = socket_for(t, error);
    bool given = false;

    if (fd < 0 && !by_name(t->uri))
        return NULL;
    NbdHandle *h = lib->create();
    if (h && set_tls(t, h) && lib->set_export_name(h, t->uri->export) == 0 &&
        lib->add_meta_context(h, "base:allocation") == 0) {
        given = true; /* the library closes it from here on */
        if (hand_over(t, h, fd) && handshake(t, h, false, NULL))
            return h;
    }
    const char *said = lib->get_error();
    g_autofree char *why = g_strdup(said ? said : ""); /* may have the server's words in it */
    for (char *p = why; *p; p++)
        if (g_ascii_iscntrl(*p))
            *p = ' ';
    bool late = left_ms(t) == 0;
    if (!given && fd >= 0)
        close(fd);
    if (h)
        lib->close(h);
    if (late) {
        lodge_fail(error, LODGE_ERROR_HOST, "the server at %s does not answer: %s", t->uri->where,
                   g_strerror(ETIMEDOUT));
        return NULL;
    }
    g_autofree char *offers = t->uri->tls ? NULL : list_offers(t);
    if (t->uri->tls)
        lodge_fail(error, LODGE_ERROR_HOST,
                   "export '%s' of the server at %s cannot be had through TLS: %s; check address, "
                   "names and keys", t->uri->export, t->uri->where, why);
    else if (offers)
        lodge_fail(error, LODGE_ERROR_HOST,
                   "the server at %s refuses export '%s'; it offers %s (%s)", t->uri->where,
                   t->uri->export, offers, why);
    else
        lodge_fail(error, LODGE_ERROR_HOST, "the server at %s refuses export '%s': %s",
                   t->uri->where, t->uri->export, why);
    return NULL;
}

/* ---- the thread ---- */

static void tell(void *opaque)
{
    NbdTry *t = opaque;

    g_mutex_lock(&t->mutex);
    bool dropped = t->dropped;
    g_mutex_unlock(&t->mutex);
    if (!dropped)
        t->fn(t->opaque); /* only the loop drops it, so not meanwhile */
    try_unref(t);
}

static void *run(void *opaque)
{
    NbdTry *t = opaque;
    GError *error = NULL;
    NbdHandle *h = attempt(t, &error);

    g_mutex_lock(&t->mutex);
    t->h = h;
    t->error = error;
    t->over = true;
    g_cond_signal(&t->cond);
    if (t->io && !t->dropped) {
        g_atomic_int_inc(&t->refs);
        io_thread_post(t->io, tell, t);
    }
    g_mutex_unlock(&t->mutex);
    try_unref(t);
    return NULL;
}

NbdTry *nbd_try_new(NbdLib *lib, const NbdUri *uri, IoThread *io, NbdTriedFn fn,
                    void *opaque)
{
    NbdTry *t = g_new0(NbdTry, 1);
    GThread *thread;

    t->lib = nbd_lib_ref(lib);
    t->uri = nbd_uri_copy(uri);
    t->io = io;
    t->fn = fn;
    t->opaque = opaque;
    t->deadline_ns = clock_host_ns() + NBD_CONNECT_S * NS_PER_SEC;
    t->refs = 2;
    g_mutex_init(&t->mutex);
    g_cond_init(&t->cond);
    thread = g_thread_try_new("nbd-connect", run, t, NULL);
    if (thread) {
        g_thread_unref(thread);
        return t;
    }
    t->over = true;
    lodge_fail(&t->error, LODGE_ERROR_HOST, "no thread can be made: %s", g_strerror(EAGAIN));
    if (io)
        io_thread_post(io, tell, t); /* with the thread's reference */
    else
        try_unref(t);
    return t;
}

NbdHandle *nbd_try_take(NbdTry *t, GError **error)
{
    g_mutex_lock(&t->mutex);
    NbdHandle *h = g_steal_pointer(&t->h);
    if (!h && t->error)
        g_propagate_error(error, g_steal_pointer(&t->error));
    else if (!h)
        lodge_fail(error, LODGE_ERROR_HOST, "the server at %s does not answer: %s", t->uri->where,
                   g_strerror(ETIMEDOUT));
    g_mutex_unlock(&t->mutex);
    return h;
}

NbdHandle *nbd_try_wait(NbdTry *t, GError **error)
{
    /* A little more than the attempt has, so that its own words are heard. */
    gint64 until = g_get_monotonic_time() + (NBD_CONNECT_S * 1000 + 500) * G_TIME_SPAN_MILLISECOND;

    g_mutex_lock(&t->mutex);
    while (!t->over && g_cond_wait_until(&t->cond, &t->mutex, until))
        ;
    g_mutex_unlock(&t->mutex);
    return nbd_try_take(t, error);
}

void nbd_try_drop(NbdTry *t)
{
    if (!t)
        return;
    g_mutex_lock(&t->mutex);
    t->dropped = true;
    g_mutex_unlock(&t->mutex);
    try_unref(t);
}
