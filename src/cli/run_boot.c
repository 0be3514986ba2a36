/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is started: --kernel with --initrd and --append, or --firmware with --boot and --smbios. */
#include <string.h>

#include "lodge/error.h"

#include "run_compile.h"

/* Whether word @name, or @name=..., stands in a kernel's command line. */
static bool append_has(const char *append, const char *name)
{
    size_t len = strlen(name);

    for (const char *s = append; *s; s += strcspn(s, " ")) {
        s += strspn(s, " ");
        if (!strncmp(s, name, len) && (!s[len] || s[len] == ' ' || s[len] == '='))
            return true;
    }
    return false;
}

static char *append_text(const Options *o)
{
    const char *given = options_text(o, "append");
    const OptValue *disk = options_next(o, "disk", NULL);
    const char *mode = disk && opt_sub_on(disk, "ro") ? "ro" : "rw";
    bool console = g_strcmp0(options_text(o, "console"), "none") || !options_has(o, "console");

    if (disk && !g_strcmp0(opt_sub(disk, "bus"), "none"))
        disk = NULL;
    if (!given) {
        GString *s = g_string_new(console ? "console=ttyS0" : "");

        if (disk)
            g_string_append_printf(s, "%sroot=/dev/vda %s", s->len ? " " : "", mode);
        return g_string_free(s, FALSE);
    }
    if (!given[0] || !disk || options_has(o, "initrd") || append_has(given, "root"))
        return g_strdup(given);
    if (append_has(given, "ro") || append_has(given, "rw"))
        return g_strdup_printf("%s root=/dev/vda", given);
    return g_strdup_printf("%s root=/dev/vda %s", given, mode);
}

bool compile_boot(Tree *t, const Options *o, GError **error)
{
    const OptValue *kernel = options_next(o, "kernel", NULL);
    const char *file = kernel ? opt_sub(kernel, "file") : NULL;
    g_autofree char *append = append_text(o);

    if (!file || !file[0])
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "no kernel; write --kernel FILE, /boot/vmlinuz-* is where they are");
    if (!put(t, "/boot", "kernel", file, error))
        return false;
    for (const OptValue *v = NULL; (v = options_next(o, "initrd", v));) {
        if (!v->text[0])
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--initrd: is empty; write --initrd FILE");
        if (!tree_add_str(t, "/boot", "initrd", v->text))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--initrd: \"%s\": too many", v->text);
    }
    if (!put(t, "/boot", "append", append, error) ||
        !put(t, "/boot", "protocol",
             opt_sub(kernel, "protocol") ? opt_sub(kernel, "protocol") : "auto", error))
        return false;
    if (opt_sub(kernel, "modules") &&
        !put(t, "/boot", "modules", opt_sub(kernel, "modules"), error))
        return false;
    tree_set_bool(t, "/boot", "cache", !opt_sub(kernel, "cache") || opt_sub_on(kernel, "cache"));
    return true;
}

