/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is started: --kernel with --initrd and --append, or --firmware with --boot and --smbios. */
#include <string.h>

#include "lodge/error.h"
#include "lodge/firmware_path.h"

#include "run_compile.h"
#include "verb_run.h"

#define BOOT_MENU_MS_MAX 65535 /* the firmware keeps it in 16 bits */

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

bool run_has_firmware(const Options *o)
{
    return !options_has(o, "kernel") || options_has(o, "firmware");
}

static bool compile_firmware_file(Tree *t, const Options *o, GError **error)
{
    static const char *const of_kernel[] = {"initrd", "append"};
    const char *file = options_text(o, "firmware");

    if (options_has(o, "kernel"))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--firmware: stands beside --kernel; a machine starts from one of them");
    for (size_t i = 0; i < G_N_ELEMENTS(of_kernel); i++) {
        if (options_has(o, of_kernel[i]))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: needs --kernel FILE; firmware loads what is on the disk",
                              of_kernel[i]);
    }
    if (file && !file[0])
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--firmware: is empty; write --firmware or --firmware=FILE");
    return put(t, "/boot", "firmware", file ? file : FIRMWARE_BIOS, error);
}

/* Letters of drives as DOS and its boot menus had them. */
static bool order_ok(const char *order)
{
    for (const char *s = order; *s; s++) {
        if (!strchr("acdn", *s) || strchr(s + 1, *s))
            return false;
    }
    return order[0];
}

bool compile_firmware(Tree *t, const Options *o, GError **error)
{
    const OptValue *boot = options_next(o, "boot", NULL), *smbios = options_next(o, "smbios", NULL);
    const char *order = boot ? opt_sub(boot, "order") : NULL;
    const char *wait = boot ? opt_sub(boot, "menu-timeout") : NULL;
    uint64_t ms;

    if (!run_has_firmware(o) && (boot || smbios))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--%s: stands beside --kernel; firmware alone reads it",
                          boot ? "boot" : "smbios");
    if (order && !order_ok(order))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--boot: order: \"%s\": write letters, each once: a floppy, c disk, d "
                          "CD-ROM, n network", order);
    if (wait && (!parse_u64(wait, &ms) || ms > BOOT_MENU_MS_MAX))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--boot: menu-timeout: \"%s\": write milliseconds from 0 to %d", wait,
                          BOOT_MENU_MS_MAX);
    if (order && !put(t, "/boot", "order", order, error))
        return false;
    tree_set_bool(t, "/boot", "menu", boot && opt_sub_on(boot, "menu"));
    if (wait)
        tree_set_u32(t, "/boot", "menu-timeout", (uint32_t)ms);
    for (const OptValue *v = NULL; (v = options_next(o, "smbios", v));) {
        for (guint i = 0; i < v->pairs->len; i++) {
            const OptPair *pair = g_ptr_array_index(v->pairs, i);

            if (!put(t, "/smbios", pair->key, pair->value, error))
                return false;
        }
    }
    return true;
}

bool compile_boot(Tree *t, const Options *o, GError **error)
{
    if (run_has_firmware(o))
        return compile_firmware_file(t, o, error);

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

/* Whether somebody on network @id may offer a boot: on a user network only where we do. */
static bool net_may_boot(const Tree *t, const char *id)
{
    g_autofree char *path = g_strdup_printf("/backends/net/%s", id);
    const char *driver = tree_str(t, path, "driver");

    return tree_str(t, path, "bootfile") || (strcmp(driver, "user") && strcmp(driver, "none"));
}

bool run_may_boot(const Tree *t)
{
    const char *firmware = tree_str(t, "/boot", "firmware"), *order = tree_str(t, "/boot", "order");
    g_autoptr(GPtrArray) nets = tree_children(t, "/backends/net");
    bool may = g_strcmp0(firmware, FIRMWARE_BIOS) || (order && strchr(order, 'n')) ||
               tree_has(t, "/backends/block", NULL);

    for (guint i = 0; i < nets->len; i++)
        may |= net_may_boot(t, g_ptr_array_index(nets, i));
    return may;
}
