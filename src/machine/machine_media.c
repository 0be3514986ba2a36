/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Removable media: another image behind a drive of a machine that runs.
 *
 * The new image is opened first, so that a wrong one leaves everything as it was; then the machine
 * comes to rest, the drive takes the new node, and the old one is closed. A node goes by the name
 * of its drive from then on. Main thread.
 */
#include <string.h>

#include "lodge/error.h"

#include "machine_internal.h"
#include "medium.h"

/* The property that names the image; NULL: @d has none. */
static BlkNode **medium_of(Device *d)
{
    for (const PropSpec *p = d->cls->props; p && p->name; p++) {
        if (p->kind == PROP_BLK)
            return (BlkNode **)((char *)d + p->offset);
    }
    return NULL;
}

BlkNode *machine_medium(Machine *m, Device *d)
{
    BlkNode **at = medium_of(d), *node = NULL;
    if (at) {
        lodge_lock(&d->lock);
        node = *at;
        lodge_unlock(&d->lock);
    }
    return node;
}

/* A name for the new node that no other has: two media of one drive are open for a moment. */
static char *node_name(Machine *m, const Device *d)
{
    char *name = NULL;
    for (unsigned i = 0; !name || g_hash_table_contains(m->blks, name); i++) {
        g_free(name);
        name = i ? g_strdup_printf("%s.%u", d->id, i) : g_strdup(d->id);
    }
    return name;
}

bool machine_change_medium(Machine *m, Device *d, const BlkOptions *o, bool force, GError **error)
{
    BlkNode **at = medium_of(d);
    if (!d->cls->change_medium || !at)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "%s: its medium is fixed", d->id);
    g_autofree char *name = node_name(m, d);
    g_autoptr(BlkNode) node = NULL;
    if (o) {
        node = blk_open(name, o, m->io, error);
        if (!node)
            return false;
        if (!medium_check(d->cls->boot, node, o->file, error)) {
            g_prefix_error(error, "disk %s: ", d->id);
            return false;
        }
    }
    if (!machine_hold(m, error))
        return false;
    BlkNode *old = machine_medium(m, d);
    if (!d->cls->change_medium(d, node, force, error)) {
        machine_let_go(m);
        return false;
    }
    lodge_lock(&d->lock);
    *at = node;
    lodge_unlock(&d->lock);
    if (node) {
        machine_watch_disk(m, node);
        blk_drain_begin(node); /* like all others at rest */
        g_hash_table_insert(m->blks, g_steal_pointer(&name), g_steal_pointer(&node));
    }
    if (old)
        machine_close_disk(m, old);
    machine_let_go(m);
    return true;
}
