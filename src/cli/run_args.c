/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The words of "lodge run", compiled to a machine description.
 *
 * A pure function of its words, the device classes and the network drivers: it opens no file, so
 * that --dry-run and tests see what a run would build. A sub-option of --disk or --net that the
 * back end does not know is a property of the guest's device, checked against its class here, so
 * that the message can name the option that the user wrote.
 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "agent_port.h"
#include "guest_way.h"
#include "run_compile.h"
#include "verb_run.h"
#include "wait.h"

#define RUN_MEMORY_MIN MIB
#define RUN_MEMORY_MAX (1024 * GIB)
#define RUN_PAGE ((uint64_t)4096)
#define RUN_CPUS_MAX                                                                               \
    255 /* 8-bit APIC ids without interrupt remapping; KVM's own limit comes later */
#define RUN_TIMEOUT_MAX_S 31536000.0 /* a year */
#define RUN_CONSOLES_MAX 2 /* serial ports of the board */

#define CLASS_SERIAL "16550a"
#define CLASS_RNG "virtio-rng-pci"
#define CLASS_BALLOON "virtio-balloon-pci"
#define CLASS_WATCHDOG "i6300esb"
#define CLASS_VGA "vga"
#define CLASS_CHANNEL "virtio-console-pci"

void run_options_clear(RunOptions *o)
{
    g_clear_pointer(&o->name, g_free);
    g_clear_pointer(&o->command, g_strfreev);
    if (o->way)
        guest_way_clear(o->way);
    g_clear_pointer(&o->way, g_free);
    g_clear_pointer(&o->display, g_free);
    g_clear_pointer(&o->display_password, g_free);
    g_clear_pointer(&o->define, definition_free);
    g_clear_pointer(&o->gdb, g_free);
    g_clear_pointer(&o->qmp, g_ptr_array_unref);
    g_clear_pointer(&o->wait, g_regex_unref);
    g_clear_pointer(&o->mconsole_path, g_free);
    g_clear_pointer(&o->umid, g_free);
    g_clear_pointer(&o->uml_dir, g_free);
    g_clear_pointer(&o->mconsole_notify, g_free);
}

/* ---- names, numbers ---- */

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

/* ---- consoles, channels, other devices ---- */

static bool chan_spec_check(const char *option, const char *spec, GError **error)
{
    static const char *const plain[] = {"none", "stdio", "pty"};
    static const char *const with_rest[] = {"file:", "unix:", "tcp:", "fd:", "tty:"};

    for (size_t i = 0; i < G_N_ELEMENTS(plain); i++) {
        if (!strcmp(spec, plain[i]))
            return true;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(with_rest); i++) {
        if (g_str_has_prefix(spec, with_rest[i]) && spec[strlen(with_rest[i])])
            return true;
    }
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "--%s: \"%s\": write stdio, pty, none, unix:PATH, file:PATH, tcp:HOST:PORT "
                      "or tty:PATH",
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

/* The guest agent's port is the one behind those of --channel, on the same device; a device of its
 * own comes last, since Linux numbers the consoles hvcN by their slots. */
static bool compile_agent(Tree *t, const Options *o, GError **error)
{
    unsigned channels = 0;
    for (const OptValue *v = NULL; (v = options_next(o, "channel", v));)
        channels++;
    const DeviceClass *cls = class_for("agent", CLASS_CHANNEL, error);
    const char *text = options_text(o, "agent");
    g_autofree char *port = g_strdup_printf("port%u", channels + 1);
    g_autofree char *label = g_strdup_printf("port%u-name", channels + 1);
    bool on = true;

    if (!cls)
        return false;
    if (text && !parse_bool(text, &on))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--agent: \"%s\" is neither on nor off", text);
    for (const OptValue *v = NULL; (v = options_next(o, "channel", v));) {
        if (!g_str_has_prefix(v->text, AGENT_PORT_NAME "="))
            continue;
        if (text && on)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--agent: on: a --channel has the name " AGENT_PORT_NAME);
        on = false; /* somebody else talks to the agent */
    }
    if (!on && o->command && g_strcmp0(options_text(o, "via"), "console"))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--: a command for the guest needs its agent's port; leave --agent off "
                          "and a --channel of that name away, or write --via console");
    if (!on)
        return true;
    if (!prop_named(cls, port))
        return (!text && !o->command) ||
               lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--agent: on: there are %u channels already; leave one away", channels);
    g_autofree char *device = device_add(t, "channels", cls);
    return put(t, "/backends/chan/" RUN_AGENT_CHAN, "spec", "pair", error) &&
           put(t, device, port, RUN_AGENT_CHAN, error) &&
           put(t, device, label, AGENT_PORT_NAME, error);
}

static bool compile_chans(Tree *t, const Options *o, GError **error)
{
    bool stdio_used = false;
    for (const OptValue *v = NULL; (v = options_next(o, "qmp", v));)
        stdio_used |= !g_strcmp0(opt_sub(v, "at"), "stdio");
    /* Whether the machine's standard streams are no terminal of its own. */
    const char *why = options_has(o, "detach") ? "a detached machine has no terminal"
                      : o->command             ? "the command for the guest has it"
                                               : NULL;
    const char *preset = why || stdio_used ? "none" : "stdio";
    unsigned n = 0;

    for (const OptValue *v = NULL; (v = options_next(o, "console", v)); n++) {
        g_autofree char *id = g_strdup_printf("con%u", n);

        if (n >= RUN_CONSOLES_MAX)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--console: \"%s\": the machine has %d serial ports; use --channel",
                              v->text, RUN_CONSOLES_MAX);
        if (why && !strcmp(v->text, "stdio"))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--console: stdio: %s; write pty", why);
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

/* A device that every machine has unless --@option says off; it is called @option0. */
static bool compile_preset(Tree *t, const Options *o, const char *option, const char *class_name,
                           GError **error)
{
    const char *text = options_text(o, option);
    g_autofree char *id = g_strdup_printf("%s0", option);
    bool on = true;

    if (text && !parse_bool(text, &on))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: \"%s\" is neither on nor off", option,
                          text);
    if (on) {
        const DeviceClass *cls = class_for(option, class_name, error);

        if (!cls)
            return false;
        g_free(device_add(t, id, cls));
    }
    return true;
}

/* What --@option does, kept as /options/@prop. */
static bool compile_action(Tree *t, const char *option, const char *prop, const char *text,
                           const char *const *words, GError **error)
{
    g_autofree char *list = g_strjoinv(", ", (char **)words);

    if (!g_strv_contains(words, text))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: \"%s\": write one of %s", option, text,
                          list);
    return put(t, "/options", prop, text, error);
}

static bool compile_guest_faults(Tree *t, const Options *o, GError **error)
{
    static const char *const panic[] = {"poweroff", "reset", "pause", "none", NULL};
    static const char *const bite[] = {"reset", "poweroff", "shutdown", "pause", "none", NULL};
    const char *on_panic = options_text(o, "on-panic");
    const OptValue *v = options_next(o, "watchdog", NULL);
    const DeviceClass *cls;

    if (on_panic && !compile_action(t, "on-panic", "on-panic", on_panic, panic, error))
        return false;
    if (!v)
        return true;
    if (v->text && v->text[0] &&
        !compile_action(t, "watchdog", "watchdog-action", v->text, bite, error))
        return false;
    cls = class_for("watchdog", CLASS_WATCHDOG, error);
    if (!cls)
        return false;
    g_free(device_add(t, "watchdog0", cls));
    return true;
}

static bool compile_devices(Tree *t, const Options *o, GError **error)
{
    unsigned n = 0;

    if (!compile_preset(t, o, "rng", CLASS_RNG, error))
        return false;
    for (const OptValue *v = NULL; (v = options_next(o, "device", v)); n++) {
        if (!compile_device(t, v, n, error))
            return false;
    }
    return compile_guest_faults(t, o, error) &&
           compile_preset(t, o, "balloon", CLASS_BALLOON, error);
}

/* ---- the screen ---- */

/* Who looks at it is no part of the machine; that there is one is. */
static bool compile_display(Tree *t, const Options *o, RunOptions *r, GError **error)
{
    const OptValue *v = options_next(o, "display", NULL);
    const char *vnc = v ? opt_sub(v, "vnc") : NULL, *kind = v ? opt_sub(v, "kind") : NULL;
    const char *vga = options_text(o, "vga");
    const DeviceClass *cls;

    if (vga && strcmp(vga, "std") && strcmp(vga, "none"))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--vga: \"%s\": write std or none", vga);
    if (kind && strcmp(kind, "none"))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--display: \"%s\": write none, vnc=:N, vnc=ADDR:N, vnc=unix:PATH or "
                          "vnc=auto", kind);
    if (kind && vnc)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--display: none: stands beside vnc=%s", vnc);
    if (vnc && !g_strcmp0(vga, "none"))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--display: needs a screen; leave --vga none away");
    if (v && !vnc && opt_sub(v, "password-file"))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--display: password-file: nobody can look; write vnc=:N before it");
    r->display = g_strdup(vnc);
    r->display_password = v ? g_strdup(opt_sub(v, "password-file")) : NULL;
    if (vga ? !strcmp(vga, "none") : !vnc && !run_has_firmware(o))
        return true;
    cls = class_for("display", CLASS_VGA, error);
    if (!cls)
        return false;
    g_free(device_add(t, "vga", cls));
    return true;
}

/* ---- who controls it ---- */

static bool compile_gdb(const Options *o, RunOptions *r, GError **error)
{
    const OptValue *v = options_next(o, "gdb", NULL);
    const char *at = v ? opt_sub(v, "at") : NULL;

    if (!v)
        return true;
    if (!at || (!g_str_has_prefix(at, "tcp:") && !g_str_has_prefix(at, "unix:")))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--gdb: \"%s\": write tcp:[ADDR:]PORT or unix:PATH", at ? at : "");
    r->gdb = g_strdup(at);
    r->gdb_wait = opt_sub_on(v, "wait");
    return true;
}

static void run_qmp_free(gpointer opaque)
{
    RunQmp *q = opaque;

    g_free(q->spec);
    g_free(q);
}

static bool compile_qmp(const Options *o, RunOptions *r, GError **error)
{
    r->qmp = g_ptr_array_new_with_free_func(run_qmp_free);
    for (const OptValue *v = NULL; (v = options_next(o, "qmp", v));) {
        const char *at = opt_sub(v, "at");
        bool stdio = !g_strcmp0(at, "stdio");
        bool server = opt_sub_on(v, "server"), wait = !opt_sub(v, "wait") || opt_sub_on(v, "wait");

        if (!at || (!stdio && !g_str_has_prefix(at, "tcp:") && !g_str_has_prefix(at, "unix:")))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--qmp: \"%s\": write unix:PATH, tcp:[ADDR]:PORT or stdio",
                              at ? at : "");
        if (stdio && options_has(o, "detach"))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--qmp: stdio: a detached machine has none; write unix:PATH");
        if (opt_sub(v, "wait") && !server)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--qmp: wait: goes with server=on, where clients come");
        RunQmp *q = g_new0(RunQmp, 1);
        *q = (RunQmp){.spec = g_strdup(at), .server = server, .wait = wait};
        g_ptr_array_add(r->qmp, q);
    }
    return true;
}

static bool compile_wait(const Options *o, RunOptions *r, GError **error)
{
    const char *text = options_text(o, "wait");

    if (!options_has(o, "wait"))
        return true;
    if (text && !g_str_has_prefix(text, "log:"))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--wait: \"%s\": write log:REGEX", text);
    if (!r->detach)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--wait: goes with --detach");
    if (r->ephemeral)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--wait: an --ephemeral machine keeps no log that could be read");
    r->wait = wait_regex("wait", text ? text + strlen("log:") : "login: *$", error);
    return r->wait;
}

static bool compile_mconsole(const Options *o, RunOptions *r, GError **error)
{
    const OptValue *v = options_next(o, "mconsole", NULL);
    const char *path = v ? opt_sub(v, "path") : NULL, *umid = v ? opt_sub(v, "umid") : NULL;

    if (!v)
        return true;
    if (!path == !umid || (path && !path[0]))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--mconsole: write either the PATH of a socket or umid=NAME");
    if (path && opt_sub(v, "uml-dir"))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--mconsole: uml-dir: goes with umid=NAME, not with a PATH");
    r->mconsole = true;
    r->mconsole_path = g_strdup(path);
    r->umid = g_strdup(umid);
    r->uml_dir = g_strdup(opt_sub(v, "uml-dir"));
    r->mconsole_notify = g_strdup(opt_sub(v, "notify"));
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
    static const char *const no_command[] = {"detach", "debug-exit"};
    static const char *const of_command[] = {"via", "user", "password-file"};
    const char *trace = options_text(o, "trace");

    if (o->command && !o->command_len)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--: no command; write it behind \"--\"");
    for (unsigned i = 0; o->command && i < G_N_ELEMENTS(no_command); i++) {
        if (options_has(o, no_command[i]))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: stands beside a command for the guest; choose one",
                              no_command[i]);
    }
    for (unsigned i = 0; !o->command && i < G_N_ELEMENTS(of_command); i++) {
        if (options_has(o, of_command[i]))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: is about a command for the guest; write one behind \"--\"",
                              of_command[i]);
    }
    if (o->command) {
        r->way = g_new0(GuestWay, 1);
        if (!guest_way_read(o, r->way, error))
            return false;
        GStrvBuilder *words = g_strv_builder_new();
        for (int i = 0; i < o->command_len; i++)
            g_strv_builder_add(words, o->command[i]);
        r->command = g_strv_builder_end(words);
        g_strv_builder_unref(words);
    }
    if (trace && strcmp(trace, "boot"))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--trace: \"%s\": write --trace boot", trace);
    r->detach = options_has(o, "detach");
    r->ephemeral = options_has(o, "ephemeral");
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

/* Whatever is written to a disk goes with the machine. */
static void forget_writes(Tree *t)
{
    g_autoptr(GPtrArray) ids = tree_children(t, "/backends/block");

    tree_set_bool(t, "/options", "ephemeral", true);
    for (guint i = 0; i < ids->len; i++) {
        g_autofree char *path =
            g_strdup_printf("/backends/block/%s", (char *)g_ptr_array_index(ids, i));

        if (!tree_has(t, path, "read-only"))
            tree_set_bool(t, path, "snapshot", true);
    }
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
        !compile_flags(t, o, &r, error) || !compile_display(t, o, &r, error) ||
        !compile_gdb(o, &r, error) || !compile_qmp(o, &r, error) ||
        !compile_wait(o, &r, error) || !compile_mconsole(o, &r, error) ||
        !compile_disks(t, o, error) || !compile_cdroms(t, o, error) ||
        !compile_floppies(t, o, error) || !compile_nets(t, o, error) ||
        !compile_chans(t, o, error) || !compile_devices(t, o, error) ||
        !compile_agent(t, o, error) ||
        !compile_firmware(t, o, error)) {
        run_options_clear(&r);
        return NULL;
    }
    if (r.ephemeral)
        forget_writes(t);
    *ret = r;
    return g_steal_pointer(&t);
}
