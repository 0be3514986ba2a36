/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The management console's "config" and "remove": User-Mode Linux's devices, told by its words.
 *
 * Spec: Linux 6.1, arch/um/drivers: ubd_kern.c, net_kern.c, line.c, mconsole_kern.c (syntax, texts
 * of errors). ubdN is the disk named diskN, a virtio disk with the serial number ubdN unless
 * another is given; ethN is the card netN. "config ubdN=COW,BASE" makes COW where it is not there,
 * as the command line does. conN and sslN are ports of the virtio console that a machine run as
 * User-Mode Linux has, and its channels' names; elsewhere con0 and con1 are the serial ports, and
 * none can be added.
 *
 * "remove" asks the guest to let go and answers when it did; where it does not within
 * REMOVE_SECONDS the device is said to be in use, which it is. What the guest lets go of later goes
 * all the same, its image with it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/chan.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/net.h"
#include "lodge/num.h"

#include "mconsole_internal.h"
#include "uml_words.h"
#include "virtio_balloon.h"

#define REMOVE_SECONDS 10
#define CONSOLES "consoles" /* the device whose ports are the lines */

typedef enum Kind { KIND_UBD, KIND_CON, KIND_SSL, KIND_ETH, KIND_VEC, KIND_MEM } Kind;

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

/* The device's name in the machine; transfer full. */
static char *id_of(Kind kind, unsigned n)
{
    return g_strdup_printf(kind == KIND_UBD ? "disk%u" : "net%u", n);
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

static void plug(Machine *machine, const Tree *t, const char *id, MconsoleReply *r)
{
    g_autoptr(GError) error = NULL;

    if (control_plug(machine, t, id, &error))
        mconsole_answer(r, 0, "");
    else
        answer_error(r, error);
}

/* ---- disks ---- */

static void config_ubd(Mconsole *m, const char *text, MconsoleReply *r)
{
    Machine *machine = m->control->config.machine;
    UmlDisk d = {0};
    const char *problem = uml_disk_parse(text, &d);
    g_autofree char *id = id_of(KIND_UBD, d.n);

    if (problem) {
        mconsole_answer(r, -EINVAL, problem);
    } else if (!d.file) {
        mconsole_answer(r, 0, ""); /* names no disk: none */
    } else if (machine_device(machine, id)) {
        mconsole_answer(r, -EBUSY, "Device is already configured");
    } else if (!g_file_test(d.base ? d.base : d.file, G_FILE_TEST_EXISTS)) {
        mconsole_answer(r, -ENOENT, "Couldn't determine size of device's file");
    } else {
        g_autoptr(Tree) t = tree_new();

        d.is_new = d.base && !g_file_test(d.file, G_FILE_TEST_EXISTS);
        if (uml_disk_put(t, id, &d)) {
            g_autofree char *n = g_strdup_printf("%u", d.n);

            if (d.serial)
                mconsole_guest_expect(m->guest, "ubd", n, d.serial);
            plug(machine, t, id, r);
        } else {
            mconsole_answer(r, -EINVAL, "not text that a name can have");
        }
    }
    uml_disk_clear(&d);
}

static void query_ubd(Machine *machine, const char *text, MconsoleReply *r)
{
    const char *file = NULL, *base = NULL;
    unsigned n;

    if (!uml_take_number(&text, true, &n) || *text || n > UML_UBD_MAX) {
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

static void config_eth(Mconsole *m, const char *text, MconsoleReply *r)
{
    Machine *machine = m->control->config.machine;
    UmlNet n = {0};
    const char *problem = uml_net_parse(text, &n);
    g_autofree char *id = id_of(KIND_ETH, n.n);

    if (problem) {
        mconsole_answer(r, 1, problem);
    } else if (machine_device(machine, id)) {
        mconsole_answer(r, -EBUSY, "Device is already configured");
    } else {
        g_autoptr(Tree) t = tree_new();
        g_autofree char *mac = uml_mac(uml_net_mac(&n), m->control->config.name, id);

        if (uml_net_put(t, id, &n, mac)) {
            g_autofree char *name = g_strdup_printf("eth%u", n.n);

            mconsole_guest_expect(m->guest, "eth", name, mac);
            plug(machine, t, id, r);
        } else {
            mconsole_answer(r, -EINVAL, "not text that a name can have");
        }
    }
    uml_net_clear(&n);
}

/* ---- consoles, memory ---- */

/* The line's back end, "con3"; transfer full. */
static char *line_id(Kind kind, unsigned n)
{
    return g_strdup_printf("%s%u", prefixes[kind], n);
}

/* Its name in the guest, which is its port's. */
static char *line_name(Kind kind, unsigned n)
{
    return g_strdup_printf("tty%s%u", kind == KIND_SSL ? "S" : "", n);
}

static unsigned line_max(Kind kind)
{
    return kind == KIND_CON ? UML_CON_MAX : UML_SSL_MAX;
}

/* Line @n of the guest is from now on what chan_open() makes of @spec. */
static void add_line(Machine *machine, Kind kind, unsigned n, const char *spec, MconsoleReply *r)
{
    g_autofree char *id = line_id(kind, n), *name = line_name(kind, n);
    g_autoptr(GError) error = NULL;

    if (!machine_device(machine, CONSOLES)) {
        mconsole_answer(r, -EINVAL, "Device number out of range"); /* none can be added */
    } else if (!machine_plug_port(machine, CONSOLES, name, id, spec, &error)) {
        answer_error(r, error);
    } else {
        const char *what = chan_describe(machine_chan(machine, id));

        if (g_str_has_prefix(what, "pty "))
            lodge_note("%s %u assigned device '%s'",
                       kind == KIND_CON ? "Virtual console" : "Serial line", n, what + 4);
        mconsole_answer(r, 0, "");
    }
}

/* A null line but the first has no terminal yet, so it may be given one. */
static bool is_taken(Machine *machine, Kind kind, unsigned n)
{
    g_autofree char *id = line_id(kind, n);
    Chan *c = machine_chan(machine, id);

    return c && ((kind == KIND_CON && n == 0) || strcmp(chan_describe(c), "none"));
}

/* N=CHANNEL[,CHANNEL] */
static void config_line(Machine *machine, Kind kind, const char *text, MconsoleReply *r)
{
    const char *problem = NULL;
    unsigned n;

    if (*text == '=') {
        mconsole_answer(r, -EINVAL, "Can't configure all devices from mconsole");
        return;
    }
    if (!uml_take_number(&text, false, &n) || *text != '=') {
        mconsole_answer(r, -EINVAL, "Couldn't parse device number");
        return;
    }
    g_autofree char *spec = uml_channel(text + 1, &problem);
    if (n > line_max(kind))
        mconsole_answer(r, -EINVAL, "Device number out of range");
    else if (!spec)
        mconsole_answer(r, -EPERM, problem);
    else if (is_taken(machine, kind, n))
        mconsole_answer(r, -EINVAL, "Device is already open");
    else if (!*spec)
        mconsole_answer(r, 0, ""); /* none, as it was */
    else
        add_line(machine, kind, n, spec, r);
}

/* What line @n is joined to, in UML's words. */
static void query_line(Machine *machine, Kind kind, const char *text, MconsoleReply *r)
{
    unsigned n;

    if (!uml_take_number(&text, false, &n) || *text || n > line_max(kind)) {
        mconsole_answer(r, 1, "Couldn't parse device number");
        return;
    }
    g_autofree char *id = line_id(kind, n);
    Chan *c = machine_chan(machine, id);
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
        if (query)
            query_ubd(machine, args, r);
        else
            config_ubd(m, args, r);
        break;
    case KIND_CON:
    case KIND_SSL:
        (query ? query_line : config_line)(machine, kind, args, r);
        break;
    case KIND_ETH:
        if (query)
            mconsole_answer(r, 1, "No get_config routine defined");
        else
            config_eth(m, args, r);
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

static void removed(void *opaque, bool gone)
{
    mconsole_answer(opaque, gone ? 0 : -EBUSY, gone ? "" : "Device is currently open");
}

static void remove_device(Mconsole *m, Kind kind, unsigned n, MconsoleReply *r)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *id = id_of(kind, n);

    if (!machine_device(m->control->config.machine, id))
        mconsole_answer(r, -ENODEV, "Device doesn't exist");
    else if (!control_unplug(m->control, id, REMOVE_SECONDS, removed, r, &error))
        answer_error(r, error);
}

/* The first console is the kernel's, and stays. */
static void remove_line(Machine *machine, Kind kind, unsigned n, MconsoleReply *r)
{
    g_autofree char *id = line_id(kind, n), *name = line_name(kind, n);

    if (!machine_chan(machine, id))
        mconsole_answer(r, -EINVAL, "configured as 'none'");
    else if ((kind == KIND_CON && n == 0) ||
             !machine_unplug_port(machine, CONSOLES, name, id))
        mconsole_answer(r, -EINVAL, "Device is already open");
    else
        mconsole_answer(r, 0, "");
}

void mconsole_remove(Mconsole *m, const char *args, MconsoleReply *r)
{
    static const unsigned limits[] = {UML_UBD_MAX, UML_CON_MAX, UML_SSL_MAX, G_MAXINT, G_MAXINT, 0};
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
    if (!uml_take_number(&args, kind == KIND_UBD, &n))
        problem = g_strdup("Couldn't parse device number");
    else if (n > limits[kind])
        problem = g_strdup_printf("Invalid device number - must be between 0 and %u", limits[kind]);
    else if (!machine)
        problem = g_strdup("there is no machine");
    if (problem)
        mconsole_answer(r, 1, problem);
    else if (kind == KIND_CON || kind == KIND_SSL)
        remove_line(machine, kind, n, r);
    else if (kind == KIND_VEC)
        mconsole_answer(r, -ENODEV, "Device doesn't exist");
    else
        remove_device(m, kind, n, r);
}
