/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VNC server: the screen for any number of viewers at a time.
 *
 * A thread listens, copies what changed on the display into the picture that all clients read, and
 * tells their threads (vnc_client.c). It sleeps until one of these comes: a connection, a change
 * of the display, of the pointer's kind, or the end of a client. The display is looked at only
 * while a client is there.
 *
 * The picture has room for the largest screen; the host gives memory only for what was written. A
 * client that reads it while it changes may see half of a change, and is told of the whole
 * afterwards.
 *
 * Threads: main (open, close), "vnc" (here), a thread for each client; the display's and the
 * router's threads post. vnc->lock ranks with the display's: it is not held when that is called.
 *
 * Invariants:
 * (1) clients come and go by the "vnc" thread, or after its end.
 * (2) the picture is the display's when a client is told its size: it is looked at before.
 */
#include "vnc_internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lodge/error.h"

#define EMPTY_WIDTH 640 /* until the display has a picture */
#define EMPTY_HEIGHT 480
#define ACCEPT_PAUSE_MS 100 /* when the host has no descriptors left */

void vnc_dirty_add(VncDirty *d, const DisplayRect *r)
{
    if (d->n < VNC_DIRTY_MAX)
        d->rect[d->n++] = *r;
    else
        display_rect_join(&d->rect[VNC_DIRTY_MAX - 1], r);
}

static void viewer_changed(void *opaque, const DisplayRect *r)
{
    Vnc *vnc = opaque;

    lodge_lock(&vnc->lock);
    vnc_dirty_add(&vnc->dirty, r);
    lodge_unlock(&vnc->lock);
    vnc_wake(vnc->wake_fd);
}

static void viewer_resized(void *opaque, unsigned width, unsigned height)
{
    Vnc *vnc = opaque;

    lodge_lock(&vnc->lock);
    vnc->resized = true;
    lodge_unlock(&vnc->lock);
    vnc_wake(vnc->wake_fd);
}

static const DisplayViewer viewer = {.changed = viewer_changed, .resized = viewer_resized};

static void abs_changed(void *opaque, bool has_abs)
{
    Vnc *vnc = opaque;

    __atomic_store_n(&vnc->has_abs, has_abs, __ATOMIC_RELEASE);
    vnc_wake(vnc->wake_fd);
}

/* Cut @r to a size; false: nothing is left. */
static bool rect_cut(DisplayRect *r, unsigned width, unsigned height)
{
    if (r->x >= width || r->y >= height)
        return false;
    r->width = MIN(r->width, width - r->x);
    r->height = MIN(r->height, height - r->y);
    return r->width && r->height;
}

static void copy_rect(Vnc *vnc, const DisplaySurface *s, const DisplayRect *r)
{
    for (unsigned y = r->y; y < r->y + r->height; y++)
        memcpy(vnc->picture + (size_t)y * VNC_STRIDE + r->x,
               s->pixels + (size_t)y * s->stride + r->x, r->width * sizeof(uint32_t));
}

/* Bring the picture up to date and tell the clients. */
static void fetch(Vnc *vnc)
{
    VncDirty dirty;
    bool resized;
    unsigned width, height;

    lodge_lock(&vnc->lock);
    dirty = vnc->dirty;
    resized = vnc->resized;
    width = vnc->width;
    height = vnc->height;
    vnc->dirty.n = 0;
    vnc->resized = false;
    lodge_unlock(&vnc->lock);
    if (!vnc->display || (!resized && !dirty.n))
        return;

    DisplaySurface s = display_lock(vnc->display);
    if (s.width && s.height && s.width <= VNC_STRIDE && s.height <= DISPLAY_HEIGHT_MAX) {
        resized |= s.width != width || s.height != height;
        width = s.width;
        height = s.height;
        if (resized) {
            dirty.n = 1;
            dirty.rect[0] = (DisplayRect){0, 0, width, height};
        }
        for (unsigned i = 0; i < dirty.n; i++) {
            if (rect_cut(&dirty.rect[i], width, height))
                copy_rect(vnc, &s, &dirty.rect[i]);
        }
    } else {
        resized = false;
        dirty.n = 0;
    }
    display_unlock(vnc->display);

    lodge_lock(&vnc->lock);
    bool other = width != vnc->width || height != vnc->height;
    vnc->width = width;
    vnc->height = height;
    for (unsigned i = 0; i < vnc->clients->len; i++)
        vnc_client_post_locked(g_ptr_array_index(vnc->clients, i), other ? NULL : &dirty);
    lodge_unlock(&vnc->lock);
}

/* Free the clients that ended. Return: how many are left. */
static unsigned sweep(Vnc *vnc)
{
    g_autoptr(GPtrArray) gone = g_ptr_array_new();

    lodge_lock(&vnc->lock);
    for (unsigned i = vnc->clients->len; i-- > 0;) {
        VncClient *c = g_ptr_array_index(vnc->clients, i);
        if (vnc_client_done(c))
            g_ptr_array_add(gone, g_ptr_array_remove_index(vnc->clients, i));
    }
    unsigned left = vnc->clients->len;
    lodge_unlock(&vnc->lock);
    for (unsigned i = 0; i < gone->len; i++)
        vnc_client_free(g_ptr_array_index(gone, i));
    return left;
}

/* Look at the display, or not any more. */
static void look(Vnc *vnc, bool on)
{
    if (!vnc->display || on == vnc->looking)
        return;
    vnc->looking = on;
    if (on)
        display_add_viewer(vnc->display, &viewer, vnc);
    else
        display_remove_viewer(vnc->display, &viewer, vnc);
    fetch(vnc);
}

static void accept_one(Vnc *vnc)
{
    int fd = accept4(vnc->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0) {
        look(vnc, true); /* keeps (2) */
        (void)vnc_client_start(vnc, fd, false, NULL); /* refused: hung up on */
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        g_usleep(ACCEPT_PAUSE_MS * 1000); /* it stays readable: no spinning */
    }
}

/* Serve what vnc_add_client() left. */
static void take_waiting(Vnc *vnc)
{
    g_autoptr(GArray) taken = g_array_new(FALSE, FALSE, sizeof(VncWaiting));

    lodge_lock(&vnc->lock);
    g_array_append_vals(taken, vnc->waiting->data, vnc->waiting->len);
    g_array_set_size(vnc->waiting, 0);
    lodge_unlock(&vnc->lock);
    for (unsigned i = 0; i < taken->len; i++) {
        VncWaiting *w = &g_array_index(taken, VncWaiting, i);
        look(vnc, true); /* keeps (2) */
        (void)vnc_client_start(vnc, w->fd, w->trusted, NULL);
    }
}

static void wake_clients(Vnc *vnc)
{
    lodge_lock(&vnc->lock);
    for (unsigned i = 0; i < vnc->clients->len; i++)
        vnc_client_wake(g_ptr_array_index(vnc->clients, i));
    lodge_unlock(&vnc->lock);
}

static void *vnc_main(void *opaque)
{
    Vnc *vnc = opaque;
    bool had_abs = false;
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (!__atomic_load_n(&vnc->stop, __ATOMIC_ACQUIRE)) {
        struct pollfd p[] = {{.fd = vnc->wake_fd, .events = POLLIN},
                             {.fd = vnc->listen_fd, .events = POLLIN}};
        if (poll(p, G_N_ELEMENTS(p), -1) < 0)
            continue;
        if (p[0].revents) {
            uint64_t n;
            (void)!read(vnc->wake_fd, &n, sizeof(n)); /* only to quiet it */
        }
        unsigned left = sweep(vnc);
        if (p[1].revents)
            accept_one(vnc);
        take_waiting(vnc);
        if (!left && !sweep(vnc))
            look(vnc, false);
        fetch(vnc);
        bool abs = __atomic_load_n(&vnc->has_abs, __ATOMIC_ACQUIRE);
        if (abs != had_abs)
            wake_clients(vnc);
        had_abs = abs;
    }
    look(vnc, false);
    return NULL;
}

const char *vnc_describe(const Vnc *vnc)
{
    return vnc->address;
}

bool vnc_has_password(const Vnc *vnc)
{
    return vnc->addr.password != NULL;
}

unsigned vnc_list_clients(Vnc *vnc, struct sockaddr_storage *ret, unsigned max)
{
    unsigned n = 0;

    lodge_lock(&vnc->lock);
    for (unsigned i = 0; i < vnc->clients->len && n < max; i++)
        n += vnc_client_address(g_ptr_array_index(vnc->clients, i), &ret[n]);
    lodge_unlock(&vnc->lock);
    return n;
}

bool vnc_add_client(Vnc *vnc, int fd, bool skip_auth, GError **error)
{
    VncWaiting waiting = {fd, skip_auth};

    lodge_lock(&vnc->lock);
    bool room = vnc->clients->len + vnc->waiting->len < VNC_CLIENTS_MAX;
    if (room)
        g_array_append_val(vnc->waiting, waiting);
    lodge_unlock(&vnc->lock);
    if (!room) {
        close(fd);
        return lodge_fail(error, LODGE_ERROR_LIMIT, "vnc: %d clients are there already",
                          VNC_CLIENTS_MAX);
    }
    vnc_wake(vnc->wake_fd);
    return true;
}

void vnc_close(Vnc *vnc)
{
    if (!vnc)
        return;
    if (vnc->abs_told)
        input_on_abs(vnc->input, NULL, NULL);
    __atomic_store_n(&vnc->stop, true, __ATOMIC_RELEASE);
    if (vnc->thread) {
        vnc_wake(vnc->wake_fd);
        g_thread_join(vnc->thread);
    }
    for (unsigned i = 0; i < vnc->clients->len; i++)
        vnc_client_stop(g_ptr_array_index(vnc->clients, i));
    for (unsigned i = 0; i < vnc->clients->len; i++)
        vnc_client_free(g_ptr_array_index(vnc->clients, i));
    g_ptr_array_free(vnc->clients, TRUE);
    for (unsigned i = 0; i < vnc->waiting->len; i++)
        close(g_array_index(vnc->waiting, VncWaiting, i).fd);
    g_array_free(vnc->waiting, TRUE);
    if (vnc->listen_fd >= 0) {
        close(vnc->listen_fd);
        if (vnc->addr.unix_path)
            (void)unlink(vnc->addr.unix_path); /* a stale one is replaced next time */
    }
    if (vnc->wake_fd >= 0)
        close(vnc->wake_fd);
    if (vnc->picture)
        munmap(vnc->picture, VNC_PICTURE_BYTES);
    vnc_addr_clear(&vnc->addr);
    lodge_lock_clear(&vnc->lock);
    g_free(vnc->address);
    g_free(vnc->name);
    g_free(vnc);
}

Vnc *vnc_open(const char *spec, const VncConfig *config, GError **error)
{
    VncAddr addr = {0};

    if (spec && !vnc_addr_parse(spec, &addr, error))
        return NULL;
    g_autoptr(Vnc) vnc = g_new0(Vnc, 1);
    vnc->addr = addr;
    vnc->display = config->display;
    vnc->input = config->input;
    vnc->name = g_strdup(config->name ? config->name : "lodge");
    vnc->listen_fd = vnc->wake_fd = -1;
    vnc->width = EMPTY_WIDTH;
    vnc->height = EMPTY_HEIGHT;
    vnc->clients = g_ptr_array_new();
    vnc->waiting = g_array_new(FALSE, FALSE, sizeof(VncWaiting));
    lodge_lock_init(&vnc->lock, LOCK_RANK_QUEUE, "vnc");
    vnc->lib = vnc_lib_load(&vnc_extension, error);
    if (!vnc->lib)
        return NULL;
    vnc->picture = mmap(NULL, VNC_PICTURE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (vnc->picture == MAP_FAILED) {
        vnc->picture = NULL;
        lodge_fail_errno(error, errno, "vnc: the picture");
        return NULL;
    }
    vnc->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vnc->wake_fd < 0) {
        lodge_fail_errno(error, errno, "vnc: an event descriptor");
        return NULL;
    }
    if (spec)
        vnc->listen_fd = vnc_addr_listen(&vnc->addr, &vnc->address, error);
    if (spec && vnc->listen_fd < 0)
        return NULL;
    if (vnc->input) {
        vnc->abs_told = true;
        input_on_abs(vnc->input, abs_changed, vnc);
        abs_changed(vnc, input_has_abs(vnc->input));
    }
    vnc->thread = g_thread_new("vnc", vnc_main, vnc);
    return g_steal_pointer(&vnc);
}
