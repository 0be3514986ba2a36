/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The management console's "config" and "remove": User-Mode Linux's devices, told by its words.
 *
 * Spec: Linux 6.1, arch/um/drivers: ubd_kern.c, net_kern.c, line.c, mconsole_kern.c (syntax, texts
 * of errors). ubdN is the disk named diskN, a virtio disk with the serial number ubdN unless another
 * is given; ethN is the card netN. "config ubdN=COW,BASE" makes COW where it is not there, as the
 * command line does. Consoles are told and cannot be added: con0 and con1 are the serial ports.
 *
 * "remove" asks the guest to let go and answers when it did; where it does not within
 * REMOVE_SECONDS the device is said to be in use, which it is. What the guest lets go of later goes
 * all the same, its image with it.
 *
 * Invariants: (1) a removal stays on its list until the device is gone; its reply is answered once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/chan.h"
#include "lodge/error.h"
#include "lodge/net.h"
#include "lodge/num.h"

#include "mconsole_internal.h"
#include "virtio_balloon.h"

#define REMOVE_SECONDS 10
#define UBD_MAX 15u
#define CON_MAX 15u
#define SSL_MAX 63u
#define ETH_MAX 31u
#define REMOVALS_MAX 64u

typedef enum Kind { KIND_UBD, KIND_CON, KIND_SSL, KIND_ETH, KIND_VEC, KIND_MEM } Kind;

typedef struct Removal {
    Mconsole *m;
    Kind kind;
    char *id;             /* owned; of the device */
    MconsoleReply *reply; /* NULL: was answered */
    guint timer;
    bool gone;
} Removal;

static const char *const prefixes[] = {"ubd", "con", "ssl", "eth", "vec", "mem"};

/* ---- words ---- */

static bool find_kind(const char **text, Kind *ret)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(prefixes); i++) {
        if (g_str_has_prefix(*text, prefixes[i])) {
            *text += strlen(prefixes[i]);
            *ret = (Kind)i;
            return true;
        }
    }
    return false;
}

/* A number as strtoul() with any base reads it, and for disks a letter; false: none. */
static bool take_number(const char **text, bool letters, unsigned *ret)
{
    char *end;

    if (letters && g_ascii_islower(**text)) {
        *ret = (unsigned)(*(*text)++ - 'a');
        return true;
    }
    if (!g_ascii_isdigit(**text))
        return false;
    unsigned long n = strtoul(*text, &end, 0);
    *text = end;
    *ret = (unsigned)MIN(n, (unsigned long)G_MAXINT);
    return true;
}

/* The device's name in the machine; transfer full. */
static char *id_of(Kind kind, unsigned n)
{
    return g_strdup_printf(kind == KIND_UBD ? "disk%u" : "net%u", n);
}

static bool put(Tree *t, const char *path, const char *name, const char *value)
{
    return !value || !value[0] || tree_set_str(t, path, name, value);
}

/* The first line of @error with UML's number for it. */
static void answer_error(MconsoleReply *r, const GError *error)
{
    int err = error->domain != LODGE_ERROR               ? -EINVAL
              : error->code == LODGE_ERROR_BUSY          ? -EBUSY
              : error->code == LODGE_ERROR_EXISTS        ? -EBUSY
              : error->code == LODGE_ERROR_HOST          ? -EIO
              : error->code == LODGE_ERROR_NOT_FOUND     ? -ENODEV
                                                         : -EINVAL;
    g_autofree char *line = g_strndup(error->message, MIN(strcspn(error->message, "\n"), 500u));

    mconsole_answer(r, err, line);
}

static void plug(Machine *machine, const Tree *t, Kind kind, const char *id, MconsoleReply *r)
{
    g_autoptr(GError) error = NULL;

    /* One whose device went by another way is free. */
    if (kind == KIND_UBD)
        (void)machine_drop_disk(machine, id, NULL);
    else
        (void)machine_drop_net(machine, id, NULL);
    if (!machine_add_backends(machine, t, &error)) {
        answer_error(r, error);
    } else if (!machine_plug(machine, t, id, &error)) {
        if (kind == KIND_UBD)
            (void)machine_drop_disk(machine, id, NULL);
        else
            (void)machine_drop_net(machine, id, NULL);
        answer_error(r, error);
    } else {
        mconsole_answer(r, 0, "");
    }
}

/* ---- disks ---- */

/* UNIT[FLAGS]=FILE[sep FILE[sep SERIAL]] */
static void config_ubd(Machine *machine, const char *text, MconsoleReply *r)
{
    const char *problem = NULL, *flags;
    unsigned n = 0;
    bool plain = false, read_only = false, keep = false;

    if (!take_number(&text, true, &n)) {
        mconsole_answer(r, -EINVAL, "Couldn't parse device number");
        return;
    }
    if (n > UBD_MAX)
        problem = "Device number out of range";
    for (flags = text; !problem && *text != '='; text++) {
        read_only |= *text == 'r';
        plain |= *text == 'd';
        keep |= *text == 't';
        if (!*text || !strchr("rscdt", *text) || text - flags > 6)
            problem = "Expected '=' or flag letter (r, s, c, t or d)";
    }
    g_auto(GStrv) part = problem ? NULL : g_strsplit_set(text + 1, ",:", 3);
    const char *file = part && part[0] ? part[0] : "";
    const char *base = file[0] && part[1] && part[1][0] ? part[1] : NULL;
    const char *serial = file[0] && part[1] ? part[2] : NULL;
    g_autofree char *id = id_of(KIND_UBD, n), *preset = g_strdup_printf("ubd%u", n);
    if (!problem && plain && base)
        problem = "Can't specify both 'd' and a cow file";
    if (problem) {
        mconsole_answer(r, -EINVAL, problem);
    } else if (!file[0]) {
        mconsole_answer(r, 0, ""); /* names no disk: none */
    } else if (machine_device(machine, id)) {
        mconsole_answer(r, -EBUSY, "Device is already configured");
    } else if (!g_file_test(base ? base : file, G_FILE_TEST_EXISTS)) {
        mconsole_answer(r, -ENOENT, "Couldn't determine size of device's file");
    } else {
        g_autoptr(Tree) t = tree_new();
        g_autofree char *back = g_strdup_printf("/backends/block/%s", id);
        g_autofree char *device = g_strdup_printf("/devices/%s", id);
        bool ok = put(t, back, "file", file) && put(t, back, "base", base) &&
                  put(t, back, "format", plain ? "raw" : NULL) &&
                  put(t, back, "discard", keep ? "ignore" : NULL) &&
                  put(t, device, "compatible", "virtio-blk-pci") && put(t, device, "drive", id) &&
                  put(t, device, "serial", serial && serial[0] ? serial : preset);

        if (!ok) {
            mconsole_answer(r, -EINVAL, "not text that a name can have");
            return;
        }
        tree_set_bool(t, back, "read-only", read_only);
        plug(machine, t, KIND_UBD, id, r);
    }
}

static void query_ubd(Machine *machine, const char *text, MconsoleReply *r)
{
    const char *file = NULL, *base = NULL;
    unsigned n;

    if (!take_number(&text, true, &n) || *text || n > UBD_MAX) {
        mconsole_answer(r, 1, "ubd_get_config : Couldn't parse device number");
        return;
    }
    g_autofree char *id = id_of(KIND_UBD, n);
    if (!machine_device(machine, id) || !machine_disk_files(machine, id, &file, &base)) {
        mconsole_answer(r, 0, "");
        return;
    }
    g_autofree char *answer = g_strdup_printf("%s%s%s", file, base ? "," : "", base ? base : "");
    mconsole_answer(r, 0, answer);
}

/* ---- network cards ---- */

/* UML's transports by the back ends of lodge run --net; fields are counted from 1, 0: none. */
static const struct Transport {
    const char *transport, *driver;
    unsigned mac;
    struct {
        const char *option;
        unsigned field;
    } options[2];
} transports[] = {
    {"tuntap", "tap", 2, {{"ifname", 1}}},
    {"daemon", "daemon", 1, {{"path", 3}}},
    {"vde", "vde", 2, {{"dir", 1}, {"port", 3}}},
    {"slirp", "user", 1, {{NULL, 0}}},
    {"mcast", "mcast", 1, {{"ttl", 4}}},
    {"ucast", "dgram", 1, {{NULL, 0}}},
};

#define UML_PORT "1102"
#define UML_GROUP "239.192.168.1"
#define UML_SWITCH "/var/run/uml-utilities/uml_switch.ctl" /* as Debian's kernel has it */

static const char *field(char **part, unsigned n, const char *otherwise)
{
    return n < g_strv_length(part) && part[n][0] ? part[n] : otherwise;
}

static bool put_transport(Tree *t, const char *back, const struct Transport *x, char **part)
{
    bool ok = put(t, back, "driver", x->driver);

    for (unsigned i = 0; i < G_N_ELEMENTS(x->options) && x->options[i].option; i++)
        ok = ok && put(t, back, x->options[i].option, field(part, x->options[i].field, NULL));
    if (!strcmp(x->transport, "daemon") && !field(part, 3, NULL)) {
        ok = ok && put(t, back, "path", UML_SWITCH);
    } else if (!strcmp(x->transport, "mcast")) {
        g_autofree char *group = g_strdup_printf("%s:%s", field(part, 2, UML_GROUP),
                                                 field(part, 3, UML_PORT));
        ok = ok && put(t, back, "group", group);
    } else if (!strcmp(x->transport, "ucast")) {
        g_autofree char *local = g_strdup_printf("udp::%s", field(part, 3, UML_PORT));
        g_autofree char *remote = g_strdup_printf("udp:%s:%s", field(part, 2, ""),
                                                  field(part, 4, UML_PORT));
        ok = ok && put(t, back, "local", local) && put(t, back, "remote", remote);
    }
    return ok;
}

/* A usable address of UML's form, "" for none given; UML draws one where it is wrong. */
static char *mac_of(const char *text, unsigned n)
{
    unsigned v[6], zero = 0;
    char more;

    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
               &more) == 6) {
        for (unsigned i = 0; i < 6; i++)
            zero |= v[i];
        if (!(v[0] & 1) && zero)
            return g_strdup(text);
    }
    return g_strdup_printf("52:54:00:12:34:%02x", (0x56 + n) & 0xff);
}

/* N=TRANSPORT[,FIELD]... */
static void config_eth(Machine *machine, const char *text, MconsoleReply *r)
{
    unsigned n = 0;

    if (!take_number(&text, false, &n) || *text != '=' || n > ETH_MAX) {
        mconsole_answer(r, 1, n > ETH_MAX ? "device number out of range" : "");
        return;
    }
    g_auto(GStrv) part = g_strsplit(text + 1, ",", 8);
    g_autofree char *id = id_of(KIND_ETH, n);
    unsigned fields = g_strv_length(part);
    for (unsigned i = 0; fields && i < G_N_ELEMENTS(transports); i++) {
        if (strcmp(part[0], transports[i].transport))
            continue;
        if (machine_device(machine, id)) {
            mconsole_answer(r, -EBUSY, "Device is already configured");
            return;
        }
        g_autoptr(Tree) t = tree_new();
        g_autofree char *back = g_strdup_printf("/backends/net/%s", id);
        g_autofree char *device = g_strdup_printf("/devices/%s", id);
        g_autofree char *mac = mac_of(field(part, transports[i].mac, ""), n);

        if (!put_transport(t, back, &transports[i], part) ||
            !put(t, device, "compatible", "virtio-net-pci") || !put(t, device, "netdev", id) ||
            !put(t, device, "mac", mac)) {
            mconsole_answer(r, -EINVAL, "not text that a name can have");
            return;
        }
        plug(machine, t, KIND_ETH, id, r);
        return;
    }
    mconsole_answer(r, 1, ""); /* as UML says it */
}

/* ---- consoles, memory ---- */

static const char *const channels[] = {"null", "none", "fd:", "pts", "pty", "tty:", "port:",
                                       "xterm"};

static bool channel_ok(const char *text)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(channels); i++) {
        if (g_str_has_prefix(text, channels[i]))
            return true;
    }
    return false;
}

/* N=CHANNEL[,CHANNEL] */
static void config_line(Machine *machine, const char *text, unsigned max, MconsoleReply *r)
{
    unsigned n;

    if (*text == '=') {
        mconsole_answer(r, -EINVAL, "Can't configure all devices from mconsole");
        return;
    }
    if (!take_number(&text, false, &n) || *text != '=') {
        mconsole_answer(r, -EINVAL, "Couldn't parse device number");
        return;
    }
    g_auto(GStrv) part = g_strsplit(text + 1, ",", 3);
    unsigned count = g_strv_length(part);
    bool ok = count >= 1 && count <= 2;
    for (unsigned i = 0; i < count; i++)
        ok = ok && channel_ok(part[i]);
    g_autofree char *chan = g_strdup_printf("con%u", n);
    if (n > max)
        mconsole_answer(r, -EINVAL, "Device number out of range");
    else if (!ok)
        mconsole_answer(r, -EPERM, "failed to parse channel pair");
    else if (max == CON_MAX && machine_chan(machine, chan))
        mconsole_answer(r, -EINVAL, "Device is already open");
    else
        mconsole_answer(r, -EINVAL, "Device number out of range"); /* none can be added */
}

/* What con @n is joined to, in UML's words. */
static void query_line(Machine *machine, const char *text, unsigned max, MconsoleReply *r)
{
    unsigned n;

    if (!take_number(&text, false, &n) || *text || n > max) {
        mconsole_answer(r, 1, "Couldn't parse device number");
        return;
    }
    g_autofree char *name = g_strdup_printf("con%u", n);
    Chan *c = max == CON_MAX ? machine_chan(machine, name) : NULL;
    const char *what = c ? chan_describe(c) : NULL;
    g_autofree char *answer =
        !what                           ? g_strdup("none")
        : !strcmp(what, "stdio")        ? g_strdup("fd:0,fd:1")
        : !strcmp(what, "none")         ? g_strdup("null")
        : g_str_has_prefix(what, "pty ") ? g_strdup_printf("pts:%s", what + 4)
                                        : g_strdup(what);
    mconsole_answer(r, 0, answer);
}

/* +N or -N; more than was taken away is not there to be given back, which UML takes in silence. */
static void config_mem(Machine *machine, const char *text, MconsoleReply *r)
{
    Device *balloon = machine_balloon(machine);
    BalloonInfo info;
    uint64_t size;

    if (*text != '=' || (text[1] != '+' && text[1] != '-'))
        mconsole_answer(r, -EINVAL, "Expected increment to start with '-' or '+'");
    else if (!g_ascii_isdigit(text[2]) || !parse_size(text + 2, &size))
        mconsole_answer(r, -EINVAL, "Failed to parse memory increment");
    else if (!balloon)
        mconsole_answer(r, -ENODEV, "this machine has no balloon; start it without --balloon off");
    else {
        virtio_balloon_info(balloon, &info);
        uint64_t wanted = MIN(info.wanted, info.ram);
        wanted = text[1] == '-' ? wanted + MIN(size, info.ram - wanted)
                                : wanted - MIN(size, wanted);
        virtio_balloon_set(balloon, info.ram - wanted);
        mconsole_answer(r, 0, "");
    }
}

static void query_mem(Machine *machine, MconsoleReply *r)
{
    Board *b = machine_board(machine);
    Device *balloon = machine_balloon(machine);
    BalloonInfo info = {.ram = b->ram_below_4g + b->ram_above_4g};
    if (balloon)
        virtio_balloon_info(balloon, &info);
    g_autofree char *answer = g_strdup_printf("%" PRIu64, info.ram - info.lent);

    mconsole_answer(r, 0, answer);
}

void mconsole_config(Mconsole *m, const char *args, MconsoleReply *r)
{
    Machine *machine = m->control->config.machine;
    Kind kind;

    if (!find_kind(&args, &kind)) {
        mconsole_answer(r, 1, "Bad configuration option");
        return;
    }
    if (!machine) {
        mconsole_answer(r, 1, "there is no machine");
        return;
    }
    bool query = !strchr(args, '=');
    switch (kind) {
    case KIND_UBD:
        (query ? query_ubd : config_ubd)(machine, args, r);
        break;
    case KIND_CON:
        (query ? query_line : config_line)(machine, args, CON_MAX, r);
        break;
    case KIND_SSL:
        (query ? query_line : config_line)(machine, args, SSL_MAX, r);
        break;
    case KIND_ETH:
        if (query)
            mconsole_answer(r, 1, "No get_config routine defined");
        else
            config_eth(machine, args, r);
        break;
    case KIND_VEC:
        mconsole_answer(r, 1, query ? "No get_config routine defined" : "");
        break;
    case KIND_MEM:
        if (query)
            query_mem(machine, r);
        else
            config_mem(machine, args, r);
        break;
    }
}

/* ---- remove ---- */

static void removal_free(gpointer opaque)
{
    Removal *x = opaque;

    g_clear_handle_id(&x->timer, g_source_remove);
    g_free(x->id);
    g_free(x);
}

void mconsole_plug_init(Mconsole *m)
{
    m->removals = g_ptr_array_new_with_free_func(removal_free);
}

void mconsole_plug_free(Mconsole *m)
{
    g_clear_handle_id(&m->settle, g_source_remove);
    g_ptr_array_free(m->removals, TRUE);
}

/* Keeps (1). */
static void answer_removal(Removal *x, int err, const char *text)
{
    if (x->reply)
        mconsole_answer(g_steal_pointer(&x->reply), err, text);
}

static gboolean give_up(gpointer opaque)
{
    Removal *x = opaque;

    x->timer = 0;
    answer_removal(x, -EBUSY, "Device is currently open");
    return G_SOURCE_REMOVE;
}

static gboolean settle(gpointer opaque)
{
    Mconsole *m = opaque;
    Machine *machine = m->control->config.machine;

    m->settle = 0;
    for (unsigned i = 0; i < m->removals->len;) {
        Removal *x = g_ptr_array_index(m->removals, i);

        if (!x->gone) {
            i++;
            continue;
        }
        /* Another removal of the same device may have closed it. */
        if (x->kind == KIND_UBD)
            (void)machine_drop_disk(machine, x->id, NULL);
        else
            (void)machine_drop_net(machine, x->id, NULL);
        answer_removal(x, 0, "");
        g_ptr_array_remove_index(m->removals, i);
    }
    return G_SOURCE_REMOVE;
}

void mconsole_unplugged(Mconsole *m, const char *id)
{
    for (unsigned i = 0; i < m->removals->len; i++) {
        Removal *x = g_ptr_array_index(m->removals, i);

        if (strcmp(x->id, id))
            continue;
        x->gone = true;
        if (!m->settle)
            m->settle = g_idle_add(settle, m); /* here the machine may not be called */
    }
}

static void remove_device(Mconsole *m, Kind kind, unsigned n, MconsoleReply *r)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *id = id_of(kind, n);

    if (!machine_device(m->control->config.machine, id)) {
        mconsole_answer(r, -ENODEV, "Device doesn't exist");
    } else if (m->removals->len >= REMOVALS_MAX) {
        mconsole_answer(r, -EBUSY, "Device is currently open");
    } else if (!machine_unplug(m->control->config.machine, id, &error)) {
        answer_error(r, error);
    } else {
        Removal *x = g_new0(Removal, 1);

        *x = (Removal){.m = m, .kind = kind, .id = g_steal_pointer(&id), .reply = r};
        g_ptr_array_add(m->removals, x);
        x->timer = g_timeout_add_seconds(REMOVE_SECONDS, give_up, x);
    }
}

static void remove_line(Machine *machine, unsigned n, bool con, MconsoleReply *r)
{
    g_autofree char *name = g_strdup_printf("con%u", n);

    mconsole_answer(r, -EINVAL,
                    con && machine_chan(machine, name) ? "Device is already open"
                                                       : "configured as 'none'");
}

void mconsole_remove(Mconsole *m, const char *args, MconsoleReply *r)
{
    static const unsigned limits[] = {UBD_MAX, CON_MAX, SSL_MAX, G_MAXINT, G_MAXINT, 0};
    Machine *machine = m->control->config.machine;
    g_autofree char *problem = NULL;
    unsigned n = 0;
    Kind kind;

    if (!find_kind(&args, &kind)) {
        mconsole_answer(r, 1, "Bad remove option");
        return;
    }
    if (kind == KIND_MEM) {
        mconsole_answer(r, -EBUSY, "Memory doesn't support the remove operation");
        return;
    }
    if (!take_number(&args, kind == KIND_UBD, &n))
        problem = g_strdup("Couldn't parse device number");
    else if (n > limits[kind])
        problem = g_strdup_printf("Invalid device number - must be between 0 and %u", limits[kind]);
    else if (!machine)
        problem = g_strdup("there is no machine");
    if (problem)
        mconsole_answer(r, 1, problem);
    else if (kind == KIND_CON || kind == KIND_SSL)
        remove_line(machine, n, kind == KIND_CON, r);
    else if (kind == KIND_VEC)
        mconsole_answer(r, -ENODEV, "Device doesn't exist");
    else
        remove_device(m, kind, n, r);
}
