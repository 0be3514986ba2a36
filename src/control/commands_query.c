/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Questions about the hardware of a machine, in QEMU 7.2's form (qapi/machine-target.json,
 * machine.json, pci.json, char.json, block-core.json, qdev.json).
 *
 * What differs: times of disk requests are not measured and read 0; a fill with zeros counts as a
 * write; a chardev is always open at the guest's side.
 */
#include <string.h>

#include "lodge/block.h"
#include "lodge/chan.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "control_internal.h"

COMMAND_FN(cmd_query_cpus)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    CpuSet *s = machine_cpus(m);
    JsonOut *out = control_return(r);
    json_array(out, "return");
    for (unsigned i = 0; i < cpu_set_count(s); i++) {
        json_object(out, NULL);
        json_number(out, "thread-id", cpu_set_thread(s, i));
        json_object(out, "props");
        json_number(out, "core-id", i);
        json_number(out, "thread-id", 0);
        json_number(out, "socket-id", 0);
        json_end(out);
        json_string(out, "qom-path", "/machine");
        json_number(out, "cpu-index", i);
        json_string(out, "target", "x86_64");
        json_end(out);
    }
    json_end(out);
    return true;
}

COMMAND_FN(cmd_query_memory)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    const Board *b = machine_board(m);
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_number(out, "base-memory", (int64_t)(b->ram_below_4g + b->ram_above_4g));
    json_number(out, "plugged-memory", 0);
    json_end(out);
    return true;
}

COMMAND_FN(cmd_query_target)
{
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_string(out, "arch", "x86_64");
    json_end(out);
    return true;
}

COMMAND_FN(cmd_query_current_machine)
{
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_bool(out, "wakeup-suspend-support", false);
    json_end(out);
    return true;
}

COMMAND_FN(cmd_query_machines)
{
    JsonOut *out = control_return(r);
    json_array(out, "return");
    json_object(out, NULL);
    json_bool(out, "hotpluggable-cpus", false);
    json_string(out, "name", "pc");
    json_bool(out, "numa-mem-supported", false);
    json_string(out, "default-cpu-type", "host-x86_64-cpu");
    json_number(out, "cpu-max", MACHINE_CPUS_MAX);
    json_bool(out, "is-default", true);
    json_bool(out, "deprecated", false);
    json_end(out);
    json_end(out);
    return true;
}

COMMAND_FN(cmd_query_chardev)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    g_autoptr(GPtrArray) ids = tree_children(machine_now(m), "/backends/chan");
    JsonOut *out = control_return(r);
    json_array(out, "return");
    for (unsigned i = 0; i < ids->len; i++) {
        const char *id = g_ptr_array_index(ids, i);
        Chan *chan = machine_chan(m, id);
        if (!chan)
            continue;
        json_object(out, NULL);
        json_bool(out, "frontend-open", true);
        json_string(out, "filename", chan_describe(chan));
        json_string(out, "label", id);
        json_end(out);
    }
    json_end(out);
    return true;
}

/* ---- disks ---- */

static void print_stats(JsonOut *out, const BlkStats *s)
{
    static const struct {
        const char *prefix;
        BlkOp op, also; /* the same: no other */
        bool bytes;
    } kinds[] = {{"rd", BLK_READ, BLK_READ, true},
                 {"wr", BLK_WRITE, BLK_ZERO, true},
                 {"flush", BLK_FLUSH, BLK_FLUSH, false},
                 {"unmap", BLK_DISCARD, BLK_DISCARD, true}};
    json_object(out, "stats");
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        BlkOp op = kinds[i].op, also = kinds[i].also;
        const struct {
            const char *before, *after;
            uint64_t value;
            bool wanted;
        } fields[] = {
            {"", "_operations", s->ops[op] + (also != op ? s->ops[also] : 0), true},
            {"failed_", "_operations", s->errors[op] + (also != op ? s->errors[also] : 0), true},
            {"invalid_", "_operations", 0, true},
            {"", "_bytes", s->bytes[op] + (also != op ? s->bytes[also] : 0), kinds[i].bytes},
            {"", "_merged", 0, kinds[i].bytes},
            {"", "_total_time_ns", 0, true},
        };
        for (unsigned k = 0; k < G_N_ELEMENTS(fields); k++) {
            g_autofree char *name =
                g_strconcat(fields[k].before, kinds[i].prefix, fields[k].after, NULL);
            if (fields[k].wanted)
                json_number(out, name, (int64_t)fields[k].value);
        }
    }
    json_number(out, "wr_highest_offset", 0);
    json_bool(out, "account_invalid", false);
    json_bool(out, "account_failed", true);
    json_array(out, "timed_stats");
    json_end(out);
    json_end(out);
}

static void print_disk_stats(void *out, Device *d, BlkNode *node)
{
    BlkStats s;
    if (!node)
        return;
    blk_stats(node, &s);
    json_object(out, NULL);
    json_string(out, "device", d->id);
    print_stats(out, &s);
    json_string(out, "node-name", blk_name(node));
    json_string(out, "qdev", d->id);
    json_end(out);
}

COMMAND_FN(cmd_query_blockstats)
{
    if (!control_machine(c, error))
        return false;
    JsonOut *out = control_return(r);
    json_array(out, "return");
    (void)control_each_device(c, print_disk_stats, out, NULL); /* there is a machine */
    json_end(out);
    return true;
}

/* ---- classes ---- */

COMMAND_FN(cmd_device_properties)
{
    static const char *const types[] = {
        [PROP_BOOL] = "bool",  [PROP_U32] = "uint32", [PROP_U64] = "uint64", [PROP_STRING] = "str",
        [PROP_MAC] = "str",    [PROP_BLK] = "str",    [PROP_NET] = "str",    [PROP_CHAN] = "str",
    };
    const char *name = jv_text(jv_get(args, "typename"));
    const DeviceClass *cls = device_class_find(name);
    if (!cls)
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "Device '%s' not found", name);
    JsonOut *out = control_return(r);
    json_array(out, "return");
    for (const PropSpec *p = cls->props; p && p->name; p++) {
        uint64_t number;
        json_object(out, NULL);
        if ((p->kind == PROP_U32 || p->kind == PROP_U64) && p->preset &&
            parse_u64(p->preset, &number))
            json_number(out, "default-value", (int64_t)number);
        else if (p->kind == PROP_BOOL)
            json_bool(out, "default-value", !g_strcmp0(p->preset, "on"));
        json_string(out, "name", p->name);
        json_string(out, "description", p->help);
        json_string(out, "type", types[p->kind]);
        json_end(out);
    }
    json_end(out);
    return true;
}

/* ---- PCI ---- */

/* Spec: PCI Code and ID Assignment 1.11, 1: base class and sub-class. */
static const char *class_text(unsigned class)
{
    static const struct {
        uint16_t class;
        const char *text;
    } classes[] = {
        {0x0100, "SCSI controller"}, {0x0101, "IDE controller"}, {0x0200, "Ethernet controller"},
        {0x0300, "VGA controller"},  {0x0600, "Host bridge"},    {0x0601, "ISA bridge"},
        {0x0680, "Bridge"},          {0x0780, "Serial port"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(classes); i++) {
        if (classes[i].class == class)
            return classes[i].text;
    }
    return NULL;
}

static void look_at_bar(ControlPciBar *ret, const PciDev *d, unsigned i)
{
    const PciBar *bar = &d->bar[i];
    uint32_t low = load_le32(d->regs.cfg + 0x10 + 4 * i); /* PCI Local Bus 3.0, 6.2.5.1 */
    bool io = bar->kind == PCI_BAR_IO;

    *ret = (ControlPciBar){.number = i, .io = io, .prefetch = !io && low & 8,
                           .wide = !io && (low & 6) == 4, .len = bar->len,
                           .at = pci_bar_base(d, i)};
}

/* Spec: PCI Local Bus 3.0, 6.1. */
static void look_at_function(ControlPci *ret, PciDev *d)
{
    const uint8_t *cfg = d->regs.cfg;

    lodge_lock(&d->dev.lock);
    *ret = (ControlPci){
        .id = d->dev.id,
        .slot = d->devfn >> 3,
        .function = d->devfn & 7,
        .class = load_le16(cfg + 0x0a),
        .vendor = load_le16(cfg),
        .device = load_le16(cfg + 2),
        .sub_vendor = load_le16(cfg + 0x2c),
        .sub_device = load_le16(cfg + 0x2e),
        .irq_pin = d->intx_pin,
        .irq = cfg[0x3c],
    };
    for (unsigned i = 0; i < PCI_BARS; i++) {
        if (d->bar[i].kind != PCI_BAR_NONE)
            look_at_bar(&ret->bar[ret->bars++], d, i);
    }
    lodge_unlock(&d->dev.lock);
    ret->class_text = class_text(ret->class);
}

void control_each_pci(PciBus *bus, ControlPciFn *fn, void *out)
{
    for (PciDev *d = pci_bus_next(bus, NULL); d; d = pci_bus_next(bus, d)) {
        ControlPci p;
        look_at_function(&p, d);
        fn(out, &p);
    }
}

static void print_region(JsonOut *out, const ControlPciBar *bar)
{
    json_object(out, NULL);
    if (!bar->io) {
        json_bool(out, "prefetch", bar->prefetch);
        json_bool(out, "mem_type_64", bar->wide);
    }
    json_number(out, "bar", bar->number);
    json_number(out, "size", (int64_t)bar->len);
    json_number(out, "address", (int64_t)bar->at);
    json_string(out, "type", bar->io ? "io" : "memory");
    json_end(out);
}

static void print_function(void *opaque, const ControlPci *p)
{
    JsonOut *out = opaque;

    json_object(out, NULL);
    json_number(out, "irq_pin", p->irq_pin);
    json_number(out, "bus", 0);
    json_string(out, "qdev_id", p->id);
    if (p->irq_pin)
        json_number(out, "irq", p->irq);
    json_number(out, "slot", p->slot);
    json_object(out, "class_info");
    json_number(out, "class", p->class);
    if (p->class_text)
        json_string(out, "desc", p->class_text);
    json_end(out);
    json_object(out, "id");
    json_number(out, "device", p->device);
    json_number(out, "subsystem-vendor", p->sub_vendor);
    json_number(out, "vendor", p->vendor);
    json_number(out, "subsystem", p->sub_device);
    json_end(out);
    json_number(out, "function", p->function);
    json_array(out, "regions");
    for (unsigned i = 0; i < p->bars; i++)
        print_region(out, &p->bar[i]);
    json_end(out);
    json_end(out);
}

COMMAND_FN(cmd_query_pci)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    PciBus *bus = machine_board(m)->pci;
    JsonOut *out = control_return(r);
    json_array(out, "return");
    if (bus) {
        json_object(out, NULL);
        json_number(out, "bus", 0);
        json_array(out, "devices");
        control_each_pci(bus, print_function, out);
        json_end(out);
        json_end(out);
    }
    json_end(out);
    return true;
}
