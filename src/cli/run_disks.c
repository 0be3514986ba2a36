/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --disk, --cdrom and --floppy. */
#include <string.h>

#include "lodge/error.h"

#include "run_compile.h"
#include "verb_run.h"

#define CLASS_DISK "virtio-blk-pci"

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

static bool compile_disk_device(Tree *t, const OptValue *v, const char *id, GError **error)
{
    const DeviceClass *cls = class_for("disk", CLASS_DISK, error);
    const PropSpec *backend = cls ? prop_of_kind(cls, PROP_BLK) : NULL;
    g_autofree char *path = NULL;

    if (!cls)
        return false;
    path = device_add(t, id, cls);
    if (backend)
        tree_set_str(t, path, backend->name, id);
    for (guint i = 0; i < v->pairs->len; i++) {
        const OptPair *pair = g_ptr_array_index(v->pairs, i);
        const PropSpec *p = prop_named(cls, pair->key);
        bool ours = false;

        for (const SubSpec *s = run_disk_subs; s->key && !ours; s++)
            ours = !strcmp(s->key, pair->key);
        if (ours)
            continue;
        if (!p || p->kind == PROP_BLK) {
            GString *list = g_string_new(NULL);

            for (const SubSpec *s = run_disk_subs; s->key; s++)
                g_string_append_printf(list, "%s%s", list->len ? ", " : "", s->key);
            props_list(list, cls);
            lodge_fail(error, LODGE_ERROR_CONFIG,
                       "--disk: \"%s\": unknown sub-option; valid ones are %s", pair->key,
                       list->str);
            g_string_free(list, TRUE);
            return false;
        }
        if (!prop_check("disk", cls, p, pair->value, error) ||
            !put(t, path, p->name, pair->value, error))
            return false;
    }
    return true;
}

bool compile_disks(Tree *t, const Options *o, GError **error)
{
    static const char *const texts[] = {"base", "format", "cache", "aio"};
    unsigned n = 0;

    for (const OptValue *v = NULL; (v = options_next(o, "disk", v)); n++) {
        g_autofree char *id = g_strdup_printf("disk%u", n);
        g_autofree char *path = g_strdup_printf("/backends/block/%s", id);
        const char *file = opt_sub(v, "file");
        const char *bus = opt_sub(v, "bus");

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
        if (g_strcmp0(bus, "none") && !compile_disk_device(t, v, id, error))
            return false;
    }
    return true;
}

