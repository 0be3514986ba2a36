/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The words of "lodge run", compiled to a machine description.
 *
 * A pure function of its words, the device classes and the network drivers: it opens no file, so
 * that --dry-run and tests see what a run would build. A sub-option of --disk or --net that the
 * back end does not know is a property of the guest's device, checked against its class here, so
 * that the message can name the option that the user wrote.
 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/net.h"
#include "lodge/num.h"

#include "verb_run.h"

#define RUN_MEMORY_DEFAULT (512 * MIB)
#define RUN_MEMORY_MIN MIB
#define RUN_MEMORY_MAX (1024 * GIB)
#define RUN_PAGE ((uint64_t)4096)
#define RUN_CPUS_MAX                                                                               \
    255 /* 8-bit APIC ids without interrupt remapping; KVM's own limit comes later */
#define RUN_NAME_MAX 63
#define RUN_TIMEOUT_MAX_S 31536000.0 /* a year */
#define RUN_PORT_MAX 65535
#define RUN_CONSOLES_MAX 2 /* serial ports of the board */

#define CLASS_SERIAL "16550a"
#define CLASS_DISK "virtio-blk-pci"
#define CLASS_NET "virtio-net-pci"
#define CLASS_RNG "virtio-rng-pci"
#define CLASS_CHANNEL "virtio-console-pci"

void run_options_clear(RunOptions *o)
{
    g_clear_pointer(&o->name, g_free);
}

/* ---- devices and their properties ---- */

static const PropSpec *prop_named(const DeviceClass *cls, const char *name)
{
    for (const PropSpec *p = cls->props; p && p->name; p++) {
        if (!strcmp(p->name, name))
            return p;
    }
    return NULL;
}

static const PropSpec *prop_of_kind(const DeviceClass *cls, PropKind kind)
{
    for (const PropSpec *p = cls->props; p && p->name; p++) {
        if (p->kind == kind)
            return p;
    }
    return NULL;
}

static const DeviceClass *class_for(const char *option, const char *name, GError **error)
{
    const DeviceClass *cls = device_class_find(name);

    if (!cls || !cls->bus) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "--%s: \"%s\": no device class that can be added; see \"lodge devices\"", option,
                   name);
        return NULL;
    }
    return cls;
}

static bool prop_check(const char *option, const DeviceClass *cls, const PropSpec *p,
                       const char *value, GError **error)
{
    uint8_t mac[6];
    uint64_t n;
    bool on;

    switch (p->kind) {
    case PROP_BOOL:
        if (!parse_bool(value, &on))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: %s of %s: \"%s\" is neither on nor off", option, p->name,
                              cls->name, value);
        return true;
    case PROP_U32:
    case PROP_U64:
        if (!parse_size(value, &n) || n < p->min || n > p->max)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: %s of %s: \"%s\" is no number from %" PRIu64 " to %" PRIu64,
                              option, p->name, cls->name, value, p->min, p->max);
        return true;
    case PROP_STRING:
        if (p->max && strlen(value) > p->max)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: %s of %s: \"%s\" has over %" PRIu64 " characters", option,
                              p->name, cls->name, value, p->max);
        return true;
    case PROP_MAC:
        if (!parse_mac(value, mac))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: %s of %s: \"%s\" is no address; write 52:54:00:12:34:56",
                              option, p->name, cls->name, value);
        return true;
    case PROP_BLK:
    case PROP_NET:
    case PROP_CHAN:
        return true; /* the machine looks the name up */
    }
    return true;
}

/* Names that --disk and --net take besides their own: a class's properties, back ends aside. */
static void props_list(GString *out, const DeviceClass *cls)
{
    for (const PropSpec *p = cls->props; p && p->name; p++) {
        if (p->kind != PROP_BLK && p->kind != PROP_NET && p->kind != PROP_CHAN)
            g_string_append_printf(out, "%s%s", out->len ? ", " : "", p->name);
    }
}

static bool put(Tree *t, const char *path, const char *prop, const char *value, GError **error)
{
    if (tree_set_str(t, path, prop, value))
        return true;
    return lodge_fail(error, LODGE_ERROR_CONFIG, "\"%s\": cannot be a value of %s in %s", value,
                      prop, path);
}

static char *device_add(Tree *t, const char *id, const DeviceClass *cls)
{
    char *path = g_strdup_printf("/devices/%s", id);

    tree_set_str(t, path, "compatible", cls->name);
    return path;
}

/* ---- names, numbers ---- */

static bool name_check(const char *what, const char *name, GError **error)
{
    bool ok = g_ascii_isalnum(name[0]) && strlen(name) <= RUN_NAME_MAX;

    for (const char *s = name; ok && *s; s++)
        ok = g_ascii_isalnum(*s) || strchr("._-", *s);
    if (!ok)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: \"%s\": a name is 1 to %d letters, digits, dots, dashes and "
                          "underscores, and starts with a letter or digit",
                          what, name, RUN_NAME_MAX);
    return true;
}

static bool compile_memory(Tree *t, const Options *o, GError **error)
{
    const OptValue *v = options_next(o, "memory", NULL);
    const char *text = v ? opt_sub(v, "size") : NULL;
    uint64_t size = RUN_MEMORY_DEFAULT;

    if (text && !parse_size(text, &size))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--memory: \"%s\": not a size; write a number with K, M, G or T, like "
                          "512M",
                          text);
    if (size < RUN_MEMORY_MIN) {
        bool bare = g_ascii_isdigit(text[strlen(text) - 1]);

        return lodge_fail(error, LODGE_ERROR_CONFIG, "--memory: \"%s\": less than the least, 1M%s",
                          text, bare && size ? "; a number alone is bytes, write M behind it" : "");
    }
    if (size > RUN_MEMORY_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--memory: \"%s\": more than the limit, 1T",
                          text);
    if (size % RUN_PAGE)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--memory: \"%s\": not a multiple of 4K; round it", text);
    tree_set_u64(t, "/memory", "size", size);
    if (v && opt_sub(v, "huge"))
        tree_set_str(t, "/memory", "huge", opt_sub(v, "huge"));
    tree_set_bool(t, "/memory", "prefault", v && opt_sub_on(v, "prefault"));
    tree_set_bool(t, "/memory", "shared", v && opt_sub_on(v, "shared"));
    return true;
}

static bool compile_cpus(Tree *t, const Options *o, GError **error)
{
    const OptValue *v = options_next(o, "cpus", NULL);
    const char *text = v ? opt_sub(v, "count") : NULL;
    const char *model = v ? opt_sub(v, "model") : NULL;
    uint64_t count = 1;

    if (text && (!parse_u64(text, &count) || !count || count > RUN_CPUS_MAX))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--cpus: \"%s\": not a number from 1 to %d",
                          text, RUN_CPUS_MAX);
    if (model && strcmp(model, "host"))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--cpus: model: \"%s\": this version has host only", model);
    tree_set_u32(t, "/cpus", "count", (uint32_t)count);
    return put(t, "/cpus", "model", model ? model : "host", error);
}

/* ---- disks, boot ---- */

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

static bool compile_disks(Tree *t, const Options *o, GError **error)
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

static bool compile_boot(Tree *t, const Options *o, GError **error)
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

/* ---- networks ---- */

static const NetDriver *net_driver_for(const char *name, GError **error)
{
    g_autoptr(GString) list = g_string_new(NULL);

    for (const NetDriver *const *d = net_driver_table; *d; d++) {
        if (!strcmp((*d)->name, name))
            return *d;
        g_string_append_printf(list, "%s%s", list->len ? ", " : "", (*d)->name);
    }
    lodge_fail(error, LODGE_ERROR_CONFIG, "--net: \"%s\": unknown back end; this version has %s",
               name, list->str);
    return NULL;
}

static const NetOptSpec *net_opt_named(const NetDriver *d, const char *name)
{
    for (const NetOptSpec *s = d->opts; s && s->name; s++) {
        if (!strcmp(s->name, name))
            return s;
    }
    return NULL;
}

static bool compile_net_pair(Tree *t, const NetDriver *d, const DeviceClass *cls,
                             const char *backend, const char *device, const OptPair *pair,
                             GError **error)
{
    const NetOptSpec *opt = net_opt_named(d, pair->key);
    const PropSpec *p = prop_named(cls, pair->key);

    if (opt) {
        if (!opt->repeat && tree_has(t, backend, pair->key))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--net: %s: given twice", pair->key);
        if (!tree_add_str(t, backend, pair->key, pair->value))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--net: %s: too many", pair->key);
        return true;
    }
    if (!p || p->kind == PROP_NET) {
        g_autoptr(GString) list = g_string_new(NULL);

        for (const NetOptSpec *s = d->opts; s && s->name; s++)
            g_string_append_printf(list, "%s%s", list->len ? ", " : "", s->name);
        props_list(list, cls);
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--net: \"%s\": unknown sub-option; valid ones for %s are %s", pair->key,
                          d->name, list->str);
    }
    return prop_check("net", cls, p, pair->value, error) &&
           put(t, device, p->name, pair->value, error);
}

static bool compile_net(Tree *t, const OptValue *v, unsigned n, GError **error)
{
    const char *name = v ? opt_sub(v, "driver") : "user";
    const NetDriver *d = net_driver_for(name ? name : "user", error);
    const DeviceClass *cls = d ? class_for("net", CLASS_NET, error) : NULL;
    g_autofree char *id = g_strdup_printf("net%u", n);
    g_autofree char *backend = g_strdup_printf("/backends/net/%s", id);
    g_autofree char *device = NULL;
    const PropSpec *port = cls ? prop_of_kind(cls, PROP_NET) : NULL;

    if (!cls)
        return false;
    tree_set_str(t, backend, "driver", d->name);
    device = device_add(t, id, cls);
    if (port)
        tree_set_str(t, device, port->name, id);
    for (guint i = 0; v && i < v->pairs->len; i++) {
        const OptPair *pair = g_ptr_array_index(v->pairs, i);

        if (strcmp(pair->key, "driver") &&
            !compile_net_pair(t, d, cls, backend, device, pair, error))
            return false;
    }
    return true;
}

static bool port_ok(const char *text, uint64_t least)
{
    uint64_t port;

    return parse_u64(text, &port) && port >= least && port <= RUN_PORT_MAX;
}

/* [ADDR:]HOST:GUEST[/udp] to the user network's own form. Transfer full. */
static char *publish_rule(const char *text, GError **error)
{
    g_autofree char *copy = g_strdup(text);
    g_auto(GStrv) part = NULL;
    const char *proto = "tcp", *addr = "127.0.0.1";
    char *slash = strchr(copy, '/');
    struct in_addr ip;
    guint n;

    if (slash) {
        *slash = '\0';
        proto = slash + 1;
    }
    part = g_strsplit(copy, ":", -1);
    n = g_strv_length(part);
    if (n == 3)
        addr = part[0];
    if (n < 2 || n > 3 || (strcmp(proto, "tcp") && strcmp(proto, "udp")) ||
        inet_pton(AF_INET, addr, &ip) != 1 || !port_ok(part[n - 2], 0) ||
        !port_ok(part[n - 1], 1)) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "--publish: \"%s\": write [ADDR:]HOST:GUEST[/udp], like 2222:22 or "
                   "0.0.0.0:8080:80",
                   text);
        return NULL;
    }
    return g_strdup_printf("%s:%s:%s-:%s", proto, addr, part[n - 2], part[n - 1]);
}

static bool compile_publish(Tree *t, const Options *o, GError **error)
{
    g_autoptr(GPtrArray) nets = tree_children(t, "/backends/net");
    g_autofree char *user = NULL;

    for (guint i = 0; i < nets->len && !user; i++) {
        g_autofree char *path =
            g_strdup_printf("/backends/net/%s", (char *)g_ptr_array_index(nets, i));

        if (!strcmp(tree_str(t, path, "driver"), "user"))
            user = g_steal_pointer(&path);
    }
    for (const OptValue *v = NULL; (v = options_next(o, "publish", v));) {
        g_autofree char *rule = publish_rule(v->text, error);

        if (!rule)
            return false;
        if (!user)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--publish: \"%s\": needs a user network; add --net user", v->text);
        if (!tree_add_str(t, user, "hostfwd", rule))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--publish: \"%s\": too many", v->text);
    }
    return true;
}

static bool compile_nets(Tree *t, const Options *o, GError **error)
{
    unsigned n = 0;
    bool none = false;

    for (const OptValue *v = NULL; (v = options_next(o, "net", v));) {
        if (!g_strcmp0(opt_sub(v, "driver"), "none")) {
            if (v->pairs->len > 1)
                return lodge_fail(error, LODGE_ERROR_CONFIG, "--net: none: takes no sub-options");
            none = true;
        } else if (!compile_net(t, v, n++, error)) {
            return false;
        }
    }
    if (none && n)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--net: none: stands beside another --net");
    if (!none && !n && !compile_net(t, NULL, 0, error))
        return false;
    return compile_publish(t, o, error);
}

/* ---- consoles, channels, other devices ---- */

static bool chan_spec_check(const char *option, const char *spec, GError **error)
{
    static const char *const plain[] = {"none", "stdio", "pty"};
    static const char *const with_rest[] = {"file:", "unix:", "tcp:", "fd:"};

    for (size_t i = 0; i < G_N_ELEMENTS(plain); i++) {
        if (!strcmp(spec, plain[i]))
            return true;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(with_rest); i++) {
        if (g_str_has_prefix(spec, with_rest[i]) && spec[strlen(with_rest[i])])
            return true;
    }
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "--%s: \"%s\": write stdio, pty, none, unix:PATH, file:PATH or tcp:HOST:PORT",
                      option, spec);
}

static bool chan_add(Tree *t, const char *option, const char *id, const char *spec,
                     bool *stdio_used, GError **error)
{
    g_autofree char *path = g_strdup_printf("/backends/chan/%s", id);

    if (!chan_spec_check(option, spec, error))
        return false;
    if (!strcmp(spec, "stdio")) {
        if (*stdio_used)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: stdio: there is one terminal, and it is taken; write pty",
                              option);
        *stdio_used = true;
    }
    return put(t, path, "spec", spec, error);
}

/* A serial port of the board, at the place where every PC has it. */
static bool compile_serial(Tree *t, unsigned n, const char *chan, GError **error)
{
    static const struct {
        const char *id, *iobase, *irq;
    } ports[RUN_CONSOLES_MAX] = {{"com1", "0x3f8", "4"}, {"com2", "0x2f8", "3"}};
    const DeviceClass *cls = class_for("console", CLASS_SERIAL, error);
    g_autofree char *path = cls ? device_add(t, ports[n].id, cls) : NULL;

    return cls && put(t, path, "iobase", ports[n].iobase, error) &&
           put(t, path, "irq", ports[n].irq, error) && put(t, path, "chan", chan, error);
}

/* Channel @n is the named port n + 1 of one device: its port 0 is a console of its own. */
static bool compile_channel(Tree *t, const char *text, unsigned n, bool *stdio_used, GError **error)
{
    const char *eq = strchr(text, '=');
    g_autofree char *name = eq ? g_strndup(text, (gsize)(eq - text)) : NULL;
    g_autofree char *id = g_strdup_printf("chan%u", n);
    g_autofree char *port = g_strdup_printf("port%u", n + 1);
    g_autofree char *label = g_strdup_printf("port%u-name", n + 1);
    const DeviceClass *cls = class_for("channel", CLASS_CHANNEL, error);
    g_autofree char *device = NULL;

    if (!cls)
        return false;
    if (!name)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--channel: \"%s\": write NAME=SPEC, like agent=unix:/tmp/agent", text);
    if (!prop_named(cls, port))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--channel: \"%s\": one more than the limit, %u", text, n);
    if (!name_check("--channel", name, error) ||
        !chan_add(t, "channel", id, eq + 1, stdio_used, error))
        return false;
    device = device_add(t, "channels", cls);
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *other = g_strdup_printf("port%u-name", i + 1);

        if (!g_strcmp0(tree_str(t, device, other), name))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--channel: \"%s\": given twice; choose another name", name);
    }
    return put(t, device, port, id, error) && put(t, device, label, name, error);
}

static bool compile_chans(Tree *t, const Options *o, GError **error)
{
    const char *preset = options_has(o, "detach") ? "none" : "stdio";
    bool stdio_used = false;
    unsigned n = 0;

    for (const OptValue *v = NULL; (v = options_next(o, "console", v)); n++) {
        g_autofree char *id = g_strdup_printf("con%u", n);

        if (n >= RUN_CONSOLES_MAX)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--console: \"%s\": the machine has %d serial ports; use --channel",
                              v->text, RUN_CONSOLES_MAX);
        if (options_has(o, "detach") && !strcmp(v->text, "stdio"))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--console: stdio: a detached machine has no terminal; write pty");
        if (!chan_add(t, "console", id, v->text, &stdio_used, error) ||
            !compile_serial(t, n, id, error))
            return false;
    }
    if (!n && (!chan_add(t, "console", "con0", preset, &stdio_used, error) ||
               !compile_serial(t, 0, "con0", error)))
        return false;
    n = 0;
    for (const OptValue *v = NULL; (v = options_next(o, "channel", v)); n++) {
        if (!compile_channel(t, v->text, n, &stdio_used, error))
            return false;
    }
    return true;
}

static bool compile_device(Tree *t, const OptValue *v, unsigned n, GError **error)
{
    const char *name = opt_sub(v, "class");
    const DeviceClass *cls = class_for("device", name ? name : "", error);
    g_autofree char *id =
        opt_sub(v, "id") ? g_strdup(opt_sub(v, "id")) : g_strdup_printf("dev%u", n);
    g_autofree char *path = g_strdup_printf("/devices/%s", id);

    if (!cls || !name_check("--device: id", id, error))
        return false;
    if (tree_has(t, path, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--device: id: \"%s\": is taken; choose another", id);
    tree_set_str(t, path, "compatible", cls->name);
    for (guint i = 0; i < v->pairs->len; i++) {
        const OptPair *pair = g_ptr_array_index(v->pairs, i);
        const PropSpec *p = prop_named(cls, pair->key);

        if (!strcmp(pair->key, "class") || !strcmp(pair->key, "id"))
            continue;
        if (!p) {
            g_autoptr(GString) list = g_string_new(NULL);

            for (p = cls->props; p && p->name; p++)
                g_string_append_printf(list, "%s%s", list->len ? ", " : "", p->name);
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--device: %s: \"%s\": unknown property; valid ones are %s",
                              cls->name, pair->key, list->len ? list->str : "none");
        }
        if (tree_has(t, path, p->name))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--device: %s: given twice", pair->key);
        if (!prop_check("device", cls, p, pair->value, error) ||
            !put(t, path, p->name, pair->value, error))
            return false;
    }
    return true;
}

static bool compile_devices(Tree *t, const Options *o, GError **error)
{
    const char *rng = options_text(o, "rng");
    bool on = true;
    unsigned n = 0;

    if (rng && !parse_bool(rng, &on))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--rng: \"%s\" is neither on nor off", rng);
    if (on) {
        const DeviceClass *cls = class_for("rng", CLASS_RNG, error);

        if (!cls)
            return false;
        g_free(device_add(t, "rng0", cls));
    }
    for (const OptValue *v = NULL; (v = options_next(o, "device", v)); n++) {
        if (!compile_device(t, v, n, error))
            return false;
    }
    return true;
}

/* ---- the rest ---- */

static bool compile_rtc(Tree *t, const Options *o, GError **error)
{
    const char *base = options_text(o, "rtc");
    uint64_t epoch;

    if (base && strcmp(base, "utc") && strcmp(base, "localtime") &&
        (!parse_u64(base, &epoch) || epoch > (uint64_t)(INT64_MAX / NS_PER_SEC)))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--rtc: \"%s\": write utc, localtime or seconds since 1970", base);
    return put(t, "/rtc", "base", base ? base : "utc", error);
}

static bool compile_timeout(const Options *o, RunOptions *r, GError **error)
{
    const char *text = options_text(o, "timeout");
    char *end;
    double seconds;

    if (!text)
        return true;
    seconds = g_ascii_strtod(text, &end);
    if (!g_ascii_isdigit(text[0]) || *end || !(seconds > 0) || seconds > RUN_TIMEOUT_MAX_S)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--timeout: \"%s\": not a number of seconds above 0", text);
    r->timeout_ns = (uint64_t)(seconds * (double)NS_PER_SEC);
    return true;
}

static bool compile_identity(Tree *t, const Options *o, RunOptions *r, GError **error)
{
    const char *uuid = options_text(o, "uuid");

    if (uuid && !g_uuid_string_is_valid(uuid))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--uuid: \"%s\": not a UUID; uuidgen makes one", uuid);
    r->name_given = o->args->len > 0;
    r->name = r->name_given ? g_strdup(g_ptr_array_index(o->args, 0))
                            : g_strdup_printf("vm-%ld", (long)getpid());
    if (!name_check("NAME", r->name, error))
        return false;
    tree_set_str(t, "/", "compatible", TREE_COMPATIBLE);
    tree_set_str(t, "/", "vm-name", r->name);
    return !uuid || put(t, "/", "uuid", uuid, error);
}

static bool compile_flags(Tree *t, const Options *o, RunOptions *r, GError **error)
{
    const char *trace = options_text(o, "trace");

    if (o->command)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--: a command to run in the guest is not supported by this version");
    if (trace && strcmp(trace, "boot"))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--trace: \"%s\": write --trace boot", trace);
    r->detach = options_has(o, "detach");
    r->dry_run = options_has(o, "dry-run");
    r->debug_exit = options_has(o, "debug-exit");
    r->verbose = options_has(o, "verbose");
    r->quiet = options_has(o, "quiet");
    r->trace_boot = trace != NULL;
    if (r->verbose && r->quiet)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--quiet: stands beside --verbose; choose one");
    tree_add_node(t, "/options");
    tree_set_bool(t, "/options", "debug-exit", r->debug_exit);
    tree_set_bool(t, "/options", "no-reboot", options_has(o, "no-reboot"));
    return compile_timeout(o, r, error);
}

Tree *run_compile(int argc, char **argv, RunOptions *ret, GError **error)
{
    g_autoptr(Options) o = options_parse(run_options_table, argc, argv, 1, error);
    g_autoptr(Tree) t = tree_new();
    RunOptions r = {0};

    if (!o)
        return NULL;
    if (!compile_identity(t, o, &r, error) || !compile_memory(t, o, error) ||
        !compile_cpus(t, o, error) || !compile_boot(t, o, error) || !compile_rtc(t, o, error) ||
        !compile_flags(t, o, &r, error) || !compile_disks(t, o, error) ||
        !compile_nets(t, o, error) || !compile_chans(t, o, error) ||
        !compile_devices(t, o, error)) {
        run_options_clear(&r);
        return NULL;
    }
    *ret = r;
    return g_steal_pointer(&t);
}
