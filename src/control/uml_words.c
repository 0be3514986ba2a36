/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Words of User-Mode Linux for disks, network cards and channels, read once for its command line
 * (src/uml) and its management console (mconsole_plug.c).
 *
 * Spec: Linux 6.1, arch/um/drivers: ubd_kern.c, net_kern.c and the transports' *_kern.c,
 * chan_kern.c, line.c.
 *
 * A disk is a virtio disk with the serial number ubdN unless another is given, by which the guest's
 * side finds it. A card without an address gets one that is locally administered: drawn, as UML
 * draws it, or made of what the machine is, so that a guest that keeps names of cards by their
 * addresses finds the same ones at its next start.
 */
#include "uml_words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/net.h"

#define FLAGS_MAX 6
#define FIELDS_MAX 8
#define FD_MAX 65535u
#define PORT_MAX 65535u

bool uml_take_number(const char **text, bool letters, unsigned *ret)
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

static bool put(Tree *t, const char *path, const char *name, const char *value)
{
    return !value || !value[0] || tree_set_str(t, path, name, value);
}

/* ---- disks ---- */

void uml_disk_clear(UmlDisk *d)
{
    g_clear_pointer(&d->file, g_free);
    g_clear_pointer(&d->base, g_free);
    g_clear_pointer(&d->serial, g_free);
}

const char *uml_disk_parse(const char *text, UmlDisk *ret)
{
    UmlDisk d = {0};

    if (!uml_take_number(&text, true, &d.n))
        return "Couldn't parse device number";
    if (d.n > UML_UBD_MAX)
        return "Device number out of range";
    for (const char *flags = text; *text != '='; text++) {
        d.read_only |= *text == 'r';
        d.plain |= *text == 'd';
        d.keep |= *text == 't';
        if (!*text || !strchr("rscdt", *text) || text - flags >= FLAGS_MAX)
            return "Expected '=' or flag letter (r, s, c, t or d)";
    }
    g_auto(GStrv) part = g_strsplit_set(text + 1, ",:", 3);
    unsigned n = g_strv_length(part);
    bool file = n > 0 && part[0][0], base = file && n > 1 && part[1][0];
    if (d.plain && base)
        return "Can't specify both 'd' and a cow file";
    d.file = file ? g_strdup(part[0]) : NULL;
    d.base = base ? g_strdup(part[1]) : NULL;
    d.serial = file && n > 2 && part[2][0] ? g_strdup(part[2]) : NULL;
    *ret = d;
    return NULL;
}

bool uml_disk_put(Tree *t, const char *id, const UmlDisk *d)
{
    g_autofree char *back = g_strdup_printf("/backends/block/%s", id);
    g_autofree char *device = g_strdup_printf("/devices/%s", id);
    g_autofree char *preset = g_strdup_printf("ubd%u", d->n);
    bool ok = put(t, back, "file", d->file) && put(t, back, "base", d->base) &&
              put(t, back, "format", d->plain ? "raw" : d->is_new ? "umlcow" : NULL) &&
              put(t, back, "discard", d->keep ? "ignore" : NULL) &&
              put(t, device, "compatible", "virtio-blk-pci") && put(t, device, "drive", id) &&
              put(t, device, "serial", d->serial ? d->serial : preset);

    if (ok)
        tree_set_bool(t, back, "read-only", d->read_only);
    return ok;
}

/* ---- network cards ---- */

/* UML's transports by the back ends of lodge run --net; fields are counted from 1, 0: none. */
struct UmlTransport {
    const char *name, *driver;
    unsigned mac;
    struct {
        const char *option;
        unsigned field;
    } options[2];
};

static const UmlTransport transports[] = {
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

void uml_net_clear(UmlNet *n)
{
    g_clear_pointer(&n->field, g_strfreev);
}

const char *uml_net_parse(const char *text, UmlNet *ret)
{
    unsigned n = 0;

    if (!uml_take_number(&text, false, &n) || *text != '=')
        return n > UML_ETH_MAX ? "device number out of range" : "";
    if (n > UML_ETH_MAX)
        return "device number out of range";
    g_auto(GStrv) field = g_strsplit(text + 1, ",", FIELDS_MAX);
    for (unsigned i = 0; field[0] && i < G_N_ELEMENTS(transports); i++) {
        if (strcmp(field[0], transports[i].name))
            continue;
        *ret = (UmlNet){n, &transports[i], g_steal_pointer(&field)};
        return NULL;
    }
    return "";
}

char *uml_net_names(void)
{
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(transports); i++)
        g_string_append_printf(s, "%s%s", i ? ", " : "", transports[i].name);
    return g_string_free(s, FALSE);
}

static const char *field(const UmlNet *n, unsigned i, const char *otherwise)
{
    return i < g_strv_length(n->field) && n->field[i][0] ? n->field[i] : otherwise;
}

static bool put_transport(Tree *t, const char *back, const UmlNet *n)
{
    const UmlTransport *x = n->transport;
    bool ok = put(t, back, "driver", x->driver);

    for (unsigned i = 0; i < G_N_ELEMENTS(x->options) && x->options[i].option; i++)
        ok = ok && put(t, back, x->options[i].option, field(n, x->options[i].field, NULL));
    /* UML makes a tap, and gives it the third field as its address, where no name says which. */
    if (!strcmp(x->name, "tuntap") && !field(n, 1, NULL))
        ok = ok && put(t, back, "address", field(n, 3, NULL));
    if (!strcmp(x->name, "daemon") && !field(n, 3, NULL)) {
        ok = ok && put(t, back, "path", UML_SWITCH);
    } else if (!strcmp(x->name, "mcast")) {
        g_autofree char *group =
            g_strdup_printf("%s:%s", field(n, 2, UML_GROUP), field(n, 3, UML_PORT));
        ok = ok && put(t, back, "group", group);
    } else if (!strcmp(x->name, "ucast")) {
        g_autofree char *local = g_strdup_printf("udp::%s", field(n, 3, UML_PORT));
        g_autofree char *remote =
            g_strdup_printf("udp:%s:%s", field(n, 2, ""), field(n, 4, UML_PORT));
        ok = ok && put(t, back, "local", local) && put(t, back, "remote", remote);
    }
    return ok;
}

bool uml_net_put(Tree *t, const char *id, const UmlNet *n, const char *mac)
{
    g_autofree char *back = g_strdup_printf("/backends/net/%s", id);
    g_autofree char *device = g_strdup_printf("/devices/%s", id);

    return put_transport(t, back, n) && put(t, device, "compatible", "virtio-net-pci") &&
           put(t, device, "netdev", id) && put(t, device, "mac", mac);
}

const char *uml_net_mac(const UmlNet *n)
{
    return field(n, n->transport->mac, "");
}

char *uml_mac(const char *text, const char *seed, const char *card)
{
    unsigned v[6], all = 0;
    uint8_t drawn[6];
    char more;

    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
               &more) == 6) {
        for (unsigned i = 0; i < 6; i++)
            all |= v[i];
        if (!(v[0] & 1) && all)
            return g_strdup_printf("%02x:%02x:%02x:%02x:%02x:%02x", v[0], v[1], v[2], v[3], v[4],
                                   v[5]);
    }
    if (seed) {
        g_autofree char *name = g_strdup_printf("%s/%s", seed, card);
        net_mac_of(name, 0, drawn);
    } else {
        for (unsigned i = 0; i < sizeof drawn; i++)
            drawn[i] = (uint8_t)g_random_int_range(0, 256);
        drawn[0] = (uint8_t)((drawn[0] & ~1u) | 2u); /* IEEE 802: one card, locally administered */
    }
    return net_mac_text(drawn);
}

/* ---- channels ---- */

static bool take_fd(const char **text, guint64 max, guint64 *ret)
{
    char *end;

    if (!g_ascii_isdigit(**text))
        return false;
    *ret = g_ascii_strtoull(*text, &end, 10);
    *text = end;
    return *ret <= max;
}

/* "fd:N" or "fd:N,fd:M". */
static char *fd_channel(const char *text)
{
    guint64 in, out;

    if (!g_str_has_prefix(text, "fd:"))
        return NULL;
    text += strlen("fd:");
    if (!take_fd(&text, FD_MAX, &in))
        return NULL;
    out = in;
    if (g_str_has_prefix(text, ",fd:")) {
        text += strlen(",fd:");
        if (!take_fd(&text, FD_MAX, &out))
            return NULL;
    }
    if (*text)
        return NULL;
    if (in == 0 && out == 1)
        return g_strdup("stdio");
    return in == out ? g_strdup_printf("fd:%u", (unsigned)in)
                     : g_strdup_printf("fd:%u,fd:%u", (unsigned)in, (unsigned)out);
}

static char *port_channel(const char *text)
{
    guint64 port;

    return take_fd(&text, PORT_MAX, &port) && port && !*text
               ? g_strdup_printf("tcp:0.0.0.0:%u", (unsigned)port)
               : NULL;
}

bool uml_channel_is_window(const char *text)
{
    return g_str_has_prefix(text, "xterm");
}

char *uml_channel(const char *text, const char **ret_problem)
{
    const char *comma = strchr(text, ',');
    size_t half = comma ? (size_t)(comma - text) : 0;
    char *spec = fd_channel(text);

    if (spec)
        return spec;
    *ret_problem = "failed to parse channel pair";
    if (g_str_has_prefix(text, "fd:") && !comma)
        return NULL;
    /* A pair of the same is one. */
    if (comma && (strlen(comma + 1) != half || strncmp(text, comma + 1, half))) {
        *ret_problem = "input and output are of two kinds; write one channel, or fd:N,fd:M";
        return NULL;
    }
    g_autofree char *one = comma ? g_strndup(text, half) : g_strdup(text);
    if (g_str_has_prefix(one, "null"))
        return g_strdup("none");
    if (g_str_has_prefix(one, "none"))
        return g_strdup("");
    if (g_str_has_prefix(one, "pts") || g_str_has_prefix(one, "pty") || uml_channel_is_window(one))
        return g_strdup("pty");
    if (g_str_has_prefix(one, "tty:") && one[4])
        return g_strdup(one);
    if (g_str_has_prefix(one, "port:"))
        return port_channel(one + strlen("port:"));
    return NULL;
}
