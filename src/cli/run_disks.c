/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --disk, --cdrom and --floppy. */
#include <string.h>

#include "lodge/error.h"

#include "machine.h"
#include "run_compile.h"
#include "verb_run.h"

#define CLASS_DISK "virtio-blk-pci"
#define CLASS_IDE_DISK "ide-hd"
#define CLASS_CDROM "ide-cd"
#define CLASS_FLOPPY "floppy"

enum { DISKS_MAX = 24 }; /* leaves slots of the one PCI bus for networks and others */

static bool disk_file_used(const Tree *t, const char *file)
{
    g_autoptr(GPtrArray) ids = tree_children(t, "/backends/block");

    for (guint i = 0; i < ids->len; i++) {
        g_autofree char *path =
            g_strdup_printf("/backends/block/%s", (char *)g_ptr_array_index(ids, i));

        if (!g_strcmp0(tree_str(t, path, "file"), file))
            return true;
    }
    return false;
}

/* Units of the two IDE channels, in the order in which drives of a kind take them: a disk is the
 * primary master, a CD-ROM drive the secondary one. */
static const char *const disk_units[] = {"0", "1", "2", "3", NULL};
static const char *const cdrom_units[] = {"2", "3", "1", "0", NULL};
static const char *const floppy_units[] = {"0", "1", NULL};

static bool unit_used(const Tree *t, const char *bus, const char *unit)
{
    g_autoptr(GPtrArray) ids = tree_children(t, "/devices");

    for (guint i = 0; i < ids->len; i++) {
        g_autofree char *path = g_strdup_printf("/devices/%s", (char *)g_ptr_array_index(ids, i));
        const DeviceClass *cls = device_class_find(tree_str(t, path, "compatible"));

        if (cls && !g_strcmp0(cls->bus, bus) && !g_strcmp0(tree_str(t, path, "unit"), unit))
            return true;
    }
    return false;
}

static bool take_unit(Tree *t, const char *option, const char *path, const DeviceClass *cls,
                      const char *const *units, GError **error)
{
    const char *given = tree_str(t, path, "unit");

    if (given)
        return true; /* the drive itself refuses one that is taken */
    for (; *units; units++) {
        if (!unit_used(t, cls->bus, *units))
            return put(t, path, "unit", *units, error);
    }
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "--%s: one more than the limit: the board has no free %s drive", option,
                      cls->bus);
}

/* The guest's device of back end @id (NULL: a drive without a medium). */
static bool add_drive(Tree *t, const OptValue *v, const SubSpec *subs, const char *cls_name,
                      const char *name, const char *id, const char *const *units, GError **error)
{
    const char *option = v->spec->name;
    const DeviceClass *cls = class_for(option, cls_name, error);
    const PropSpec *backend = cls ? prop_of_kind(cls, PROP_BLK) : NULL;
    g_autofree char *path = NULL;

    if (!cls)
        return false;
    path = device_add(t, name, cls);
    if (backend && id)
        tree_set_str(t, path, backend->name, id);
    for (guint i = 0; i < v->pairs->len; i++) {
        const OptPair *pair = g_ptr_array_index(v->pairs, i);
        const PropSpec *p = prop_named(cls, pair->key);
        bool ours = false;

        for (const SubSpec *s = subs; s->key && !ours; s++)
            ours = !strcmp(s->key, pair->key);
        if (ours)
            continue;
        if (!p || p->kind == PROP_BLK) {
            g_autoptr(GString) list = g_string_new(NULL);

            for (const SubSpec *s = subs; s->key; s++)
                g_string_append_printf(list, "%s%s", list->len ? ", " : "", s->key);
            props_list(list, cls);
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: \"%s\": unknown sub-option; valid ones are %s", option,
                              pair->key, list->str);
        }
        if (!prop_check(option, cls, p, pair->value, error) ||
            !put(t, path, p->name, pair->value, error))
            return false;
    }
    return !units || take_unit(t, option, path, cls, units, error);
}

bool compile_disks(Tree *t, const Options *o, GError **error)
{
    static const char *const texts[] = {"base", "base-format", "format", "cache", "aio", "discard",
                                        "detect-zeroes", "iops", "bps", "on-error",
                                        "metadata-cache"};
    unsigned n = 0;

    for (const OptValue *v = NULL; (v = options_next(o, "disk", v)); n++) {
        g_autofree char *id = g_strdup_printf("disk%u", n);
        g_autofree char *path = g_strdup_printf("/backends/block/%s", id);
        const char *file = opt_sub(v, "file");
        const char *bus = opt_sub(v, "bus");
        BlkOptions checked;

        if (n == DISKS_MAX)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--disk: \"%s\": one more than the limit of %u disks; put what is on "
                              "it into another image",
                              file ? file : "", (unsigned)DISKS_MAX);
        if (!file || !file[0])
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--disk: no file; write --disk FILE");
        if (disk_file_used(t, file))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--disk: \"%s\": given twice; two disks cannot share an image", file);
        if (!g_strcmp0(opt_sub(v, "base"), file))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--disk: \"%s\": cannot be its own base; name another file", file);
        if (!put(t, path, "file", file, error))
            return false;
        for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
            const char *value = opt_sub(v, texts[i]);

            if (value && !value[0])
                return lodge_fail(error, LODGE_ERROR_CONFIG, "--disk: %s: is empty", texts[i]);
            if (value && !put(t, path, texts[i], value, error))
                return false;
        }
        tree_set_bool(t, path, "read-only", opt_sub_on(v, "ro"));
        tree_set_bool(t, path, "snapshot", opt_sub_on(v, "snapshot"));
        if (!machine_disk_options(t, id, &checked, error)) {
            g_prefix_error(error, "--disk: ");
            return false;
        }
        if (g_strcmp0(bus, "none")) {
            bool ide = !g_strcmp0(bus, "ide");

            if (!add_drive(t, v, run_disk_subs, ide ? CLASS_IDE_DISK : CLASS_DISK, id, id,
                           ide ? disk_units : NULL, error))
                return false;
        }
    }
    return true;
}

/* A drive whose medium can be changed; "none": it is empty. */
static bool add_removable(Tree *t, const OptValue *v, const SubSpec *subs, const char *cls,
                          const char *id, const char *const *units, bool read_only,
                          GError **error)
{
    const char *file = opt_sub(v, "file");
    g_autofree char *path = g_strdup_printf("/backends/block/%s", id);

    if (!file || !file[0])
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: no file; write --%s FILE, or none",
                          v->spec->name, v->spec->name);
    if (!strcmp(file, "none"))
        return add_drive(t, v, subs, cls, id, NULL, units, error);
    if (disk_file_used(t, file) && !read_only)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--%s: \"%s\": given twice; two drives cannot share an image",
                          v->spec->name, file);
    if (!put(t, path, "file", file, error) || !put(t, path, "format", "raw", error))
        return false;
    tree_set_bool(t, path, "read-only", read_only);
    return add_drive(t, v, subs, cls, id, id, units, error);
}

bool compile_cdroms(Tree *t, const Options *o, GError **error)
{
    unsigned n = 0;

    for (const OptValue *v = NULL; (v = options_next(o, "cdrom", v)); n++) {
        g_autofree char *id = g_strdup_printf("cd%u", n);

        if (!add_removable(t, v, run_cdrom_subs, CLASS_CDROM, id, cdrom_units, true, error))
            return false;
    }
    return true;
}

bool compile_floppies(Tree *t, const Options *o, GError **error)
{
    unsigned n = 0;

    for (const OptValue *v = NULL; (v = options_next(o, "floppy", v)); n++) {
        g_autofree char *id = g_strdup_printf("floppy%u", n);

        if (!add_removable(t, v, run_floppy_subs, CLASS_FLOPPY, id, floppy_units,
                           opt_sub_on(v, "ro"), error))
            return false;
    }
    return true;
}

