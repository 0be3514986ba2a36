/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices that come and go while the guest runs: PCI slots, told by ACPI.
 *
 * To come, a device is made with the vCPUs parked, by the function that builds it at the start,
 * then the guest is told. To go, the guest is asked; when it lets go of the slot (or at a restart,
 * when it holds nothing) the device is brought to rest and freed with the vCPUs parked.
 *
 * Back ends come before their device and go after it, each on its own.
 *
 * Invariants:
 * (1) A device leaves the machine's list before it is freed, so nobody finds it half gone.
 */
#include <string.h>

#include "lodge/diag.h"
#include "lodge/error.h"

#include "acpi_hotplug.h"
#include "block_int.h"
#include "hostfwd.h"
#include "machine_internal.h"
#include "pci.h"
#include "virtio.h"

#define QUIESCE_TIMEOUT (10 * G_TIME_SPAN_SECOND)

Device *machine_device(Machine *m, const char *id)
{
    for (unsigned i = 0; i < m->devices->len; i++) {
        Device *d = g_ptr_array_index(m->devices, i);
        if (!strcmp(d->id, id))
            return d;
    }
    return NULL;
}

static bool on_pci(const Device *d)
{
    return !g_strcmp0(d->cls->bus, "pci");
}

/* Run on as before @parked. */
static void park(Machine *m, bool parked)
{
    if (m->state != MACHINE_RUNNING)
        return;
    if (parked)
        cpu_set_park(m->cpus);
    else
        cpu_set_run(m->cpus);
}

bool machine_plug(Machine *m, const Tree *t, const char *id, GError **error)
{
    if (m->state != MACHINE_RUNNING && m->state != MACHINE_PAUSED)
        return lodge_fail(error, LODGE_ERROR_STATE, "%s: the machine does not run", id);
    if (!m->pc.hotplug)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "%s: this machine has no slots for devices that come later", id);
    if (machine_device(m, id))
        return lodge_fail(error, LODGE_ERROR_EXISTS, "%s: a device of that name is there", id);
    g_autofree char *path = g_strdup_printf("/devices/%s", id);
    const char *name = tree_str(t, path, "compatible");
    const DeviceClass *cls = name ? device_class_find(name) : NULL;
    if (!cls || g_strcmp0(cls->bus, "pci"))
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "%s: %s: is no PCI device", id,
                          name ? name : "");
    park(m, true);
    bool ok = machine_build_device(m, t, id, error);
    if (ok) {
        acpi_hotplug_added(m->pc.hotplug, ((PciDev *)machine_device(m, id))->devfn >> 3);
        (void)tree_graft(m->now, path, t, path); /* it can be as large as the one of the start */
    }
    park(m, false);
    return ok;
}

bool machine_unplug(Machine *m, const char *id, GError **error)
{
    Device *d = machine_device(m, id);
    if (!d)
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "%s: no such device", id);
    unsigned slot = on_pci(d) ? ((PciDev *)d)->devfn >> 3 : 0;
    if (!m->pc.hotplug || slot < ACPI_HOTPLUG_FIRST_SLOT)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "%s: is fixed to the board", id);
    acpi_hotplug_request_eject(m->pc.hotplug, slot);
    return true;
}

/* ---- ports of the virtio console ---- */

static Device *console_device(Machine *m, const char *id)
{
    Device *d = machine_device(m, id);
    return d && !strcmp(d->cls->name, "virtio-console-pci") ? d : NULL;
}

bool machine_plug_port(Machine *m, const char *device, const char *name, const char *chan,
                       const char *spec, GError **error)
{
    Device *d = console_device(m, device);
    if (!d)
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "%s: no such virtio console", device);
    Chan *there = g_hash_table_lookup(m->chans, chan);
    if (there && strcmp(chan_describe(there), "none")) /* nobody is at one that leads nowhere */
        return lodge_fail(error, LODGE_ERROR_EXISTS, "%s: a back end of that name is there", chan);
    g_autoptr(Chan) c = chan_open(spec, chan, m->io, error);
    if (!c || !virtio_console_add_port(d, name, true, c, error))
        return false;
    g_hash_table_insert(m->chans, g_strdup(chan), g_steal_pointer(&c));
    return true;
}

bool machine_unplug_port(Machine *m, const char *device, const char *name, const char *chan)
{
    Device *d = console_device(m, device);
    return d && g_hash_table_contains(m->chans, chan) && virtio_console_remove_port(d, name) &&
           g_hash_table_remove(m->chans, chan);
}

/* ---- back ends ---- */

static bool open_each(Machine *m, const Tree *t, const char *path, GHashTable *there,
                      bool (*open)(Machine *m, const Tree *t, const char *id, GError **error),
                      GPtrArray *made, GError **error)
{
    g_autoptr(GPtrArray) ids = tree_children(t, path);
    for (unsigned i = 0; i < ids->len; i++) {
        const char *id = g_ptr_array_index(ids, i);
        if (g_hash_table_contains(there, id))
            return lodge_fail(error, LODGE_ERROR_EXISTS, "%s: a back end of that name is there",
                              id);
        if (!open(m, t, id, error))
            return false;
        g_ptr_array_add(made, g_strdup(id));
    }
    return true;
}

/* What machine_now() tells. */
static void note(Machine *m, const Tree *t, const char *under, const GPtrArray *ids)
{
    for (unsigned i = 0; i < ids->len; i++) {
        g_autofree char *path = g_strdup_printf("%s/%s", under, (char *)g_ptr_array_index(ids, i));
        (void)tree_graft(m->now, path, t, path); /* it can be as large as the one of the start */
    }
}

static void forget(Machine *m, const char *under, const char *id)
{
    g_autofree char *path = g_strdup_printf("%s/%s", under, id);
    tree_remove(m->now, path, NULL);
}

const Tree *machine_now(const Machine *m)
{
    return m->now;
}

void machine_note_forward(Machine *m, const char *id, const char *rule)
{
    g_autofree char *path = g_strdup_printf("/backends/net/%s", id);
    (void)tree_add_str(m->now, path, "hostfwd", rule);
}

void machine_forget_forward(Machine *m, const char *id, const HostFwd *gone)
{
    g_autofree char *path = g_strdup_printf("/backends/net/%s", id);
    g_auto(GStrv) rules = NULL;
    guint n = tree_strv(m->now, path, "hostfwd", &rules);
    bool found = false;
    tree_remove(m->now, path, "hostfwd");
    for (guint i = 0; i < n; i++) {
        HostFwd f;
        if (!found && hostfwd_parse(rules[i], &f, NULL) && hostfwd_same_rule(&f, gone))
            found = true;
        else
            (void)tree_add_str(m->now, path, "hostfwd", rules[i]);
    }
}

bool machine_add_backends(Machine *m, const Tree *t, GError **error)
{
    g_autoptr(GPtrArray) blks = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) nets = g_ptr_array_new_with_free_func(g_free);
    if ((m->state != MACHINE_RUNNING && m->state != MACHINE_PAUSED) || m->stalled)
        return lodge_fail(error, LODGE_ERROR_STATE, "the machine does not run");
    if (!open_each(m, t, "/backends/block", m->blks, machine_open_disk, blks, error) ||
        !open_each(m, t, "/backends/net", m->nets, machine_open_net, nets, error)) {
        for (unsigned i = 0; i < blks->len; i++)
            (void)machine_drop_disk(m, g_ptr_array_index(blks, i), NULL);
        for (unsigned i = 0; i < nets->len; i++)
            (void)machine_drop_net(m, g_ptr_array_index(nets, i), NULL);
        return false;
    }
    for (unsigned i = 0; m->state == MACHINE_PAUSED && i < blks->len; i++) /* as all at rest */
        blk_drain_begin(g_hash_table_lookup(m->blks, g_ptr_array_index(blks, i)));
    note(m, t, "/backends/block", blks);
    note(m, t, "/backends/net", nets);
    return true;
}

/* Whether no device has @backend, of @kind. */
static bool is_free(Machine *m, PropKind kind, const void *backend, const char *id, GError **error)
{
    for (unsigned i = 0; i < m->devices->len; i++) {
        const Device *d = g_ptr_array_index(m->devices, i);
        for (const PropSpec *p = d->cls->props; p && p->name; p++) {
            if (p->kind == kind && *(void *const *)((const char *)d + p->offset) == backend)
                return lodge_fail(error, LODGE_ERROR_BUSY, "%s: is in use by %s", id, d->id);
        }
    }
    return true;
}

bool machine_drop_disk(Machine *m, const char *id, GError **error)
{
    BlkNode *n = g_hash_table_lookup(m->blks, id);
    if (!n)
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "%s: no such disk image", id);
    if (!is_free(m, PROP_BLK, n, id, error))
        return false;
    forget(m, "/backends/block", id);
    machine_close_disk(m, n);
    return true;
}

bool machine_drop_net(Machine *m, const char *id, GError **error)
{
    NetBackend *be = g_hash_table_lookup(m->nets, id);
    if (!be)
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "%s: no such network", id);
    if (be->port && !is_free(m, PROP_NET, be->port, id, error))
        return false;
    forget(m, "/backends/net", id);
    g_hash_table_remove(m->nets, id);
    (void)g_ptr_array_remove(m->net_order, be); /* closes it */
    return true;
}

bool machine_disk_files(Machine *m, const char *id, const char **ret_file, const char **ret_base)
{
    BlkNode *n = g_hash_table_lookup(m->blks, id);
    if (!n)
        return false;
    n = blk_top(n);
    *ret_file = blk_file_under(n)->path;
    *ret_base = n->base ? blk_file_under(n->base)->path : NULL;
    return true;
}

/* ---- the guest let go ---- */

typedef struct Rest {
    GMutex mutex;
    GCond cond;
    bool quiet;
} Rest;

static void is_quiet(Device *d, void *opaque)
{
    Rest *r = opaque;
    g_mutex_lock(&r->mutex);
    r->quiet = true;
    g_cond_signal(&r->cond);
    g_mutex_unlock(&r->mutex);
}

static bool bring_to_rest(Device *d)
{
    Rest *r = g_new0(Rest, 1);
    gint64 deadline = g_get_monotonic_time() + QUIESCE_TIMEOUT;
    bool in_time = true;
    g_mutex_init(&r->mutex);
    g_cond_init(&r->cond);
    device_quiesce(d, is_quiet, r);
    g_mutex_lock(&r->mutex);
    while (!r->quiet && in_time)
        in_time = g_cond_wait_until(&r->cond, &r->mutex, deadline);
    bool quiet = r->quiet;
    g_mutex_unlock(&r->mutex);
    if (!quiet)
        return false; /* r is left to the late answer */
    g_mutex_clear(&r->mutex);
    g_cond_clear(&r->cond);
    g_free(r);
    return true;
}

/* Keeps (1). vCPUs are parked. */
static void eject_slot(Machine *m, unsigned slot)
{
    for (unsigned i = m->devices->len; i-- > 0;) {
        Device *d = g_ptr_array_index(m->devices, i);
        if (!on_pci(d) || ((PciDev *)d)->devfn >> 3 != slot)
            continue;
        if (!bring_to_rest(d)) {
            lodge_warn("%s: does not come to rest, so it stays", d->id);
            device_resume(d);
            continue;
        }
        g_autofree char *id = g_strdup(d->id);
        g_ptr_array_remove_index(m->devices, i);
        forget(m, "/devices", id);
        device_free(d);
        machine_tell(m, &(MachineNews){.what = MACHINE_EVENT_UNPLUGGED, .device = id});
    }
    acpi_hotplug_removed(m->pc.hotplug, slot);
}

void machine_eject(Machine *m, uint32_t slots)
{
    park(m, true);
    for (unsigned slot = ACPI_HOTPLUG_FIRST_SLOT; slot < 32; slot++) {
        if (slots >> slot & 1)
            eject_slot(m, slot);
    }
    park(m, false);
}
