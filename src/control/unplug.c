/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices that come with their back end and go with it, for who changes a running machine.
 *
 * The guest lets go of a device when it likes. Who asked hears of it, or after a while that it has
 * not; then the device is in use, which it is. One that goes later takes its back end along all the
 * same.
 *
 * Invariants:
 * (1) An entry stays on the list until its device is gone; its function is called once.
 */
#include <string.h>

#include "lodge/error.h"

#include "control_internal.h"

#define UNPLUGS_MAX 64u

typedef struct Unplug {
    char *id, *disk, *net; /* owned; of the device, its back ends or NULL */
    void (*done)(void *opaque, bool gone); /* NULL: was called, or is not to be */
    void *opaque;
    guint timer;
    bool gone;
} Unplug;

static void unplug_free(gpointer opaque)
{
    Unplug *u = opaque;

    g_clear_handle_id(&u->timer, g_source_remove);
    g_free(u->id);
    g_free(u->disk);
    g_free(u->net);
    g_free(u);
}

void control_unplug_init(Control *c)
{
    c->unplugs = g_ptr_array_new_with_free_func(unplug_free);
}

void control_unplug_clear(Control *c)
{
    g_clear_handle_id(&c->settle, g_source_remove);
    g_ptr_array_free(c->unplugs, TRUE);
}

/* Keeps (1). */
static void answer(Unplug *u, bool gone)
{
    void (*done)(void *opaque, bool gone) = u->done;

    u->done = NULL;
    if (done)
        done(u->opaque, gone);
}

static gboolean give_up(gpointer opaque)
{
    Unplug *u = opaque;

    u->timer = 0;
    answer(u, false);
    return G_SOURCE_REMOVE;
}

static gboolean settle(gpointer opaque)
{
    Control *c = opaque;
    Machine *m = c->config.machine;

    c->settle = 0;
    for (unsigned i = 0; i < c->unplugs->len;) {
        Unplug *u = g_ptr_array_index(c->unplugs, i);

        if (!u->gone) {
            i++;
            continue;
        }
        /* Another one for the same device may have closed it. */
        if (u->disk)
            (void)machine_drop_disk(m, u->disk, NULL);
        if (u->net)
            (void)machine_drop_net(m, u->net, NULL);
        answer(u, true);
        g_ptr_array_remove_index(c->unplugs, i);
    }
    return G_SOURCE_REMOVE;
}

void control_unplugged(Control *c, const char *id)
{
    for (unsigned i = 0; i < c->unplugs->len; i++) {
        Unplug *u = g_ptr_array_index(c->unplugs, i);

        u->gone |= !strcmp(u->id, id);
        if (u->gone && !c->settle)
            c->settle = g_idle_add(settle, c); /* here the machine may not be called */
    }
}

void control_unplug_forget(Control *c, void *opaque)
{
    for (unsigned i = 0; i < c->unplugs->len; i++) {
        Unplug *u = g_ptr_array_index(c->unplugs, i);

        if (u->opaque == opaque)
            u->done = NULL;
    }
}

/* The back end that device @id is joined to by its property @kind; transfer full, NULL: none. */
static char *backend_of(Machine *m, const char *id, PropKind kind)
{
    const Device *d = machine_device(m, id);
    g_autofree char *path = g_strdup_printf("/devices/%s", id);

    for (const PropSpec *p = d->cls->props; p && p->name; p++) {
        if (p->kind == kind)
            return g_strdup(tree_str(machine_now(m), path, p->name));
    }
    return NULL;
}

/* The entry of device @id that nobody waits at any more; NULL: none. */
static Unplug *find_left(Control *c, const char *id)
{
    for (unsigned i = 0; i < c->unplugs->len; i++) {
        Unplug *u = g_ptr_array_index(c->unplugs, i);

        if (!u->done && !u->gone && !strcmp(u->id, id))
            return u;
    }
    return NULL;
}

bool control_unplug(Control *c, const char *id, unsigned seconds,
                    void (*done)(void *opaque, bool gone), void *opaque, GError **error)
{
    Machine *m = c->config.machine;

    if (!machine_device(m, id))
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "Device '%s' not found", id);
    Unplug *u = find_left(c, id);
    if (!u && c->unplugs->len >= UNPLUGS_MAX)
        return lodge_fail(error, LODGE_ERROR_BUSY, "too many devices are to go already");
    if (!machine_unplug(m, id, error))
        return false;
    if (!u) {
        u = g_new0(Unplug, 1);
        *u = (Unplug){.id = g_strdup(id), .disk = backend_of(m, id, PROP_BLK),
                      .net = backend_of(m, id, PROP_NET)};
        g_ptr_array_add(c->unplugs, u);
    }
    u->done = done;
    u->opaque = opaque;
    g_clear_handle_id(&u->timer, g_source_remove);
    u->timer = g_timeout_add_seconds(seconds, give_up, u);
    return true;
}

bool control_plug(Machine *m, const Tree *t, const char *id, GError **error)
{
    g_autoptr(GPtrArray) blks = tree_children(t, "/backends/block");
    g_autoptr(GPtrArray) nets = tree_children(t, "/backends/net");

    /* Those whose device went by another way are free. */
    for (unsigned i = 0; i < blks->len; i++)
        (void)machine_drop_disk(m, g_ptr_array_index(blks, i), NULL);
    for (unsigned i = 0; i < nets->len; i++)
        (void)machine_drop_net(m, g_ptr_array_index(nets, i), NULL);
    if (!machine_add_backends(m, t, error))
        return false;
    if (machine_plug(m, t, id, error))
        return true;
    for (unsigned i = 0; i < blks->len; i++)
        (void)machine_drop_disk(m, g_ptr_array_index(blks, i), NULL);
    for (unsigned i = 0; i < nets->len; i++)
        (void)machine_drop_net(m, g_ptr_array_index(nets, i), NULL);
    return false;
}
