/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands about devices and the media in their drives. */
#include <string.h>

#include "lodge/block.h"
#include "lodge/chan.h"
#include "lodge/error.h"
#include "lodge/net.h"

#include "control_internal.h"
#include "pci.h"

/* ---- properties ---- */

/* The value of @p as text; transfer full, NULL: nothing. The device's lock keeps it still. */
static char *prop_text(Device *d, const PropSpec *p)
{
    const char *at = (const char *)d + p->offset;
    const uint8_t *mac = (const uint8_t *)at;
    char *text = NULL;
    lodge_lock(&d->lock);
    switch (p->kind) {
    case PROP_BOOL:
        text = g_strdup(*(const bool *)at ? "on" : "off");
        break;
    case PROP_U32:
        text = g_strdup_printf("%u", *(const uint32_t *)at);
        break;
    case PROP_U64:
        text = g_strdup_printf("%" PRIu64, *(const uint64_t *)at);
        break;
    case PROP_STRING:
        text = g_strdup(*(char *const *)at);
        break;
    case PROP_MAC:
        text = net_mac_text(mac);
        break;
    case PROP_BLK:
        if (*(BlkNode *const *)at)
            text = g_strdup(blk_name(*(BlkNode *const *)at));
        break;
    case PROP_NET:
        if (*(NetPort *const *)at)
            text = g_strdup((*(NetPort *const *)at)->name);
        break;
    case PROP_CHAN:
        if (*(Chan *const *)at)
            text = g_strdup(chan_describe(*(Chan *const *)at));
        break;
    }
    lodge_unlock(&d->lock);
    return text;
}

/* Where @d stands: on PCI its slot and function, as lspci has it. */
static char *address_of(Board *b, Device *d)
{
    for (PciDev *p = b->pci ? pci_bus_next(b->pci, NULL) : NULL; p; p = pci_bus_next(b->pci, p)) {
        if (&p->dev == d)
            return g_strdup_printf("00:%02x.%u", p->devfn >> 3, p->devfn & 7u);
    }
    return NULL;
}

COMMAND_FN(cmd_devices)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    const GPtrArray *devices = machine_devices(m);
    JsonOut *out = control_return(r);
    json_array(out, "return");
    for (unsigned i = 0; i < devices->len; i++) {
        Device *d = g_ptr_array_index(devices, i);
        g_autofree char *address = address_of(machine_board(m), d);
        json_object(out, NULL);
        json_string(out, "id", d->id);
        json_string(out, "class", d->cls->name);
        json_string(out, "bus", d->cls->bus);
        json_string(out, "help", d->cls->help);
        json_string(out, "address", address);
        json_object(out, "properties");
        for (const PropSpec *p = d->cls->props; p && p->name; p++) {
            g_autofree char *text = prop_text(d, p);
            json_string(out, p->name, text);
        }
        json_end(out);
        json_end(out);
    }
    json_end(out);
    return true;
}

/* ---- media ---- */

static Device *find_drive(Control *c, Jv args, GError **error)
{
    Machine *m = control_machine(c, error);
    const char *device = jv_text(jv_get(args, "device")), *id = jv_text(jv_get(args, "id"));
    const char *name = device ? device : id;
    if (!m)
        return NULL;
    if (!device == !id) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "Need exactly one of 'device' and 'id'");
        return NULL;
    }
    Device *d = machine_device(m, name);
    if (d && d->cls->change_medium)
        return d;
    if (d)
        lodge_fail(error, LODGE_ERROR_CONFIG, "Device '%s' is not removable", name);
    else
        lodge_fail(error, LODGE_ERROR_NOT_FOUND, "Device '%s' not found", name);
    return NULL;
}

static void tray_event(Control *c, const Device *d, bool open)
{
    JsonOut *e = control_event_begin(EVENT_DEVICE_TRAY_MOVED);
    json_object(e, "data");
    json_string(e, "device", d->id);
    json_string(e, "id", d->id);
    json_bool(e, "tray-open", open);
    control_event_send(c, e);
}

COMMAND_FN(cmd_change_medium)
{
    Device *d = find_drive(c, args, error);
    const char *mode = jv_text(jv_get(args, "read-only-mode"));
    if (!d)
        return false;
    BlkNode *now = machine_medium(c->config.machine, d);
    /* An empty drive: a floppy can be written, a CD cannot. */
    BlkLimits limits = {.read_only = g_strcmp0(d->cls->bus, "fdc") != 0};
    uint64_t iops = 0, bps = 0; /* the drive's, whatever is in it */
    if (now) {
        blk_limits(now, &limits);
        blk_rates(now, &iops, &bps);
    }
    BlkOptions o = {
        .iops = iops,
        .bps = bps,
        .file = jv_text(jv_get(args, "filename")),
        .format = jv_text(jv_get(args, "format")),
        .read_only = !mode || !strcmp(mode, "retain") ? limits.read_only
                                                      : !strcmp(mode, "read-only"),
        .holder = c->config.name,
    };
    if (!machine_change_medium(c->config.machine, d, &o, jv_bool(jv_get(args, "force")),
                               error))
        return false;
    tray_event(c, d, true);
    tray_event(c, d, false);
    return true;
}

COMMAND_FN(cmd_eject)
{
    Device *d = find_drive(c, args, error);
    if (!d)
        return false;
    bool had = machine_medium(c->config.machine, d) != NULL;
    if (had && !machine_change_medium(c->config.machine, d, NULL, jv_bool(jv_get(args, "force")),
                                      error))
        return false;
    if (had)
        tray_event(c, d, true);
    return true;
}
