/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ethN= and vecN:, the guest's network cards.
 *
 * ethN's transports are those of the management console (uml_words.c). A vector card's options are
 * keys with values; which speeds it up in UML (depth, vec, gro, headroom) a virtio card has by
 * itself. Transports that carry frames in another protocol (raw, gre, l2tpv3, bess) are not had.
 */
#include <string.h>

#include "lodge/error.h"

#include "uml_internal.h"

void uml_clear_nets(Uml *u)
{
    for (unsigned i = 0; i <= UML_ETH_MAX; i++)
        uml_net_clear(&u->net[i]);
    for (unsigned i = 0; i <= UML_VEC_MAX; i++)
        g_clear_pointer(&u->vec[i], g_free);
}

bool uml_take_eth(Uml *u, const char *rest, GError **error)
{
    UmlNet n = {0};

    if (!g_ascii_isdigit(rest[0]))
        return true; /* a word of the kernel, ether= */
    const char *problem = uml_net_parse(rest, &n);
    g_autofree char *names = problem ? uml_net_names() : NULL;
    if (problem && problem[0])
        return lodge_fail(error, LODGE_ERROR_CONFIG, "eth%s: %s", rest, problem);
    if (problem)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "eth%s: write ethN=TRANSPORT,...; this version has %s", rest, names);
    if (u->net_given[n.n]) {
        uml_net_clear(&n);
        return lodge_fail(error, LODGE_ERROR_CONFIG, "eth%s: this card is given twice", rest);
    }
    u->net_given[n.n] = true;
    u->net[n.n] = n;
    return true;
}

bool uml_take_vec(Uml *u, const char *rest, GError **error)
{
    const char *at = rest;
    unsigned n;

    if (!uml_take_number(&at, false, &n) || *at != ':')
        return true; /* a word of the kernel */
    if (n > UML_VEC_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "vec%s: there are vec0 to vec%u", rest,
                          UML_VEC_MAX);
    if (u->vec[n])
        return lodge_fail(error, LODGE_ERROR_CONFIG, "vec%s: this card is given twice", rest);
    u->vec[n] = g_strdup(at + 1);
    return true;
}

/* ---- vector cards ---- */

static const char *value_of(char **pair, const char *key)
{
    size_t len = strlen(key);

    for (; *pair; pair++) {
        if (!strncmp(*pair, key, len) && (*pair)[len] == '=')
            return *pair + len + 1;
    }
    return NULL;
}

/* What a VNL of libvdeplug4 leads to. */
static bool put_vnl(Uml *u, const char *back, const char *vnl, GError **error)
{
    static const struct {
        const char *scheme, *driver, *option;
    } known[] = {
        {"vde://", "vde", "dir"}, {"tap://", "tap", "ifname"}, {"slirp://", "user", NULL},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(known); i++) {
        if (!g_str_has_prefix(vnl, known[i].scheme))
            continue;
        vnl += strlen(known[i].scheme);
        return uml_put(u, back, "driver", known[i].driver, error) &&
               (!known[i].option || !vnl[0] || uml_put(u, back, known[i].option, vnl, error));
    }
    return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                      "vnl=%s: this version has vde://DIR, tap://NAME and slirp://", vnl);
}

static bool put_transport(Uml *u, const char *back, char **pair, GError **error)
{
    const char *transport = value_of(pair, "transport"), *ifname = value_of(pair, "ifname");
    const char *fd = value_of(pair, "fd"), *ifup = value_of(pair, "ifup");
    const char *vnl = value_of(pair, "vnl");

    if (!transport)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "no transport; write transport=tap or fd");
    if (g_str_has_prefix(transport, "tap") || g_str_has_prefix(transport, "hybrid"))
        return uml_put(u, back, "driver", "tap", error) &&
               (!ifname || uml_put(u, back, "ifname", ifname, error)) &&
               (!ifup || uml_put(u, back, "up", ifup, error));
    if (g_str_has_prefix(transport, "fd")) {
        if (!fd)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "transport=fd: no descriptor; write fd=N, of an attached tap");
        return uml_put(u, back, "driver", "tap", error) && uml_put(u, back, "fd", fd, error) &&
               (!ifup || uml_put(u, back, "up", ifup, error));
    }
    if (g_str_has_prefix(transport, "vde"))
        return put_vnl(u, back, vnl ? vnl : "", error);
    return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                      "transport=%s: this version has tap, fd and vde; a tap that the host bridges "
                      "to the interface does what raw does", transport);
}

static bool put_vec(Uml *u, unsigned n, GError **error)
{
    g_auto(GStrv) pair = g_strsplit(u->vec[n], ",", -1);
    g_autofree char *id = g_strdup_printf("vec%u", n);
    g_autofree char *back = g_strdup_printf("/backends/net/%s", id);
    g_autofree char *device = g_strdup_printf("/devices/%s", id);
    const char *mac = value_of(pair, "mac"), *mtu = value_of(pair, "mtu");
    g_autofree char *address = uml_mac(mac ? mac : "", u->host->seed, id);

    for (char **p = pair; *p; p++) {
        if (!strchr(*p, '='))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: \"%s\": write KEY=VALUE", id, *p);
    }
    if (!put_transport(u, back, pair, error)) {
        g_prefix_error(error, "%s: ", id);
        return false;
    }
    return uml_put(u, device, "compatible", "virtio-net-pci", error) &&
           uml_put(u, device, "netdev", id, error) && uml_put(u, device, "mac", address, error) &&
           (!mtu || uml_put(u, device, "mtu", mtu, error));
}

/* ---- all ---- */

static void add_name(GString *names, const char *name)
{
    g_string_append_printf(names, "%s%s", names->len ? "," : "", name);
}

bool uml_put_nets(Uml *u, char **ret_names, GError **error)
{
    g_autoptr(GString) names = g_string_new(NULL);

    for (unsigned i = 0; i <= UML_ETH_MAX; i++) {
        g_autofree char *name = g_strdup_printf("eth%u", i);
        g_autofree char *id = g_strdup_printf("net%u", i); /* the management console's name */

        if (!u->net_given[i])
            continue;
        g_autofree char *mac = uml_mac(uml_net_mac(&u->net[i]), u->host->seed, name);
        if (!uml_net_put(u->tree, id, &u->net[i], mac))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: not text that a name can have", name);
        add_name(names, name);
    }
    for (unsigned i = 0; i <= UML_VEC_MAX; i++) {
        g_autofree char *name = g_strdup_printf("vec%u", i);

        if (!u->vec[i])
            continue;
        if (!put_vec(u, i, error))
            return false;
        add_name(names, name);
    }
    *ret_names = g_strdup(names->str);
    return true;
}
