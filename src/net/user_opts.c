/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Options of the user network, from text to addresses and numbers that fit together.
 * Main thread only; no state.
 */
#include "user_opts.h"

#include <arpa/inet.h>
#include <string.h>

#include "lodge/error.h"
#include "hostfwd.h"
#include "opts.h"

enum {
    MTU_MIN = 576,
    MTU_DEFAULT = 1500,
    MTU_MIN_IP6 = 1280, /* RFC 8200, section 5 */
    HOSTNAME_MAX = 64,
    NET_BITS_MIN = 8,
    NET_BITS_MAX = 27, /* leases have sixteen addresses */
};

const NetOptSpec user_opts[] = {
    {"hostfwd", "tcp|udp:[ADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT: a host port into the guest; ADDR "
                "is 127.0.0.1 when empty, HOSTPORT 0 takes a free one", true},
    {"guestfwd", "tcp:ADDR:PORT-unix:PATH or tcp:ADDR:PORT-cmd:COMMAND: what the guest reaches "
                 "there, an address of its network: a socket, or a program's input and output",
     true},
    {"restrict", "on|off: keep the guest from reaching anything outside (off)"},
    {"host-loopback", "on|off: the guest reaches the host's 127.0.0.1 as 10.0.2.2 (on)"},
    {"net", "the guest's network, ADDR/BITS with 8 to 27 bits (10.0.2.0/24): the host is its "
            "second address, the name server the third, leases begin at the fifteenth"},
    {"ipv6", "on|off (on)"},
    {"ipv6-net", "the guest's IPv6 network, ADDR/64 (fec0::/64)"},
    {"mtu", "bytes, 576 to 65520 (1500); a virtio card tells its guest"},
    {"hostname", "name that DHCP gives the guest"},
    {"dns", "address of the name server that the guest is told, in its network (the third)"},
    {"tftp", "folder served to the guest by TFTP, read-only"},
    {"bootfile", "file name that DHCP gives for network boot"},
    {NULL},
};

static bool opt_mtu(GHashTable *opts, UserOpts *o, GError **error)
{
    const char *text = net_opt(opts, "mtu");
    guint64 v = MTU_DEFAULT;

    if (text && !g_ascii_string_to_unsigned(text, 10, MTU_MIN, USER_MTU_MAX, &v, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "mtu '%s' is not a number from %d to %d", text,
                          MTU_MIN, USER_MTU_MAX);
    if (v < MTU_MIN_IP6 && o->ip6)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "mtu %s is too small for IPv6, which needs "
                          "%d; add ipv6=off", text, MTU_MIN_IP6);
    o->mtu = (uint16_t)v;
    return true;
}

struct in_addr user_address_at(const UserOpts *o, uint32_t n)
{
    return (struct in_addr){htonl(ntohl(o->net.s_addr) + n)};
}

static bool in_network(const UserOpts *o, struct in_addr a)
{
    return (a.s_addr & o->mask.s_addr) == o->net.s_addr;
}

static bool opt_names(GHashTable *opts, UserOpts *o, GError **error)
{
    const char *dns = net_opt(opts, "dns");

    o->hostname = net_opt(opts, "hostname");
    o->tftp = net_opt(opts, "tftp");
    o->bootfile = net_opt(opts, "bootfile");
    if (o->hostname && (!*o->hostname || strlen(o->hostname) > HOSTNAME_MAX))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "hostname '%s' is not 1 to %d characters long",
                          o->hostname, HOSTNAME_MAX);
    if (o->tftp && !g_file_test(o->tftp, G_FILE_TEST_IS_DIR))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "tftp '%s' is not a folder", o->tftp);
    o->dns = user_address_at(o, USER_DNS_ADDRESS);
    if (!dns)
        return true;
    if (inet_pton(AF_INET, dns, &o->dns) != 1 || !in_network(o, o->dns) ||
        o->dns.s_addr == user_address_at(o, USER_HOST_ADDRESS).s_addr)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "dns '%s' is not an address of the guest's "
                          "network other than the host's", dns);
    return true;
}

static bool opt_networks(GHashTable *opts, UserOpts *o, GError **error)
{
    const char *net = net_opt(opts, "net"), *net6 = net_opt(opts, "ipv6-net");
    g_auto(GStrv) part = g_strsplit(net ? net : "10.0.2.0/24", "/", 2);
    g_auto(GStrv) part6 = g_strsplit(net6 ? net6 : "fec0::/64", "/", 2);
    guint64 bits;

    if (inet_pton(AF_INET, part[0], &o->net) != 1 || !part[1] ||
        !g_ascii_string_to_unsigned(part[1], 10, NET_BITS_MIN, NET_BITS_MAX, &bits, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "net '%s' is not ADDR/BITS with %d to %d bits",
                          net, NET_BITS_MIN, NET_BITS_MAX);
    o->mask.s_addr = htonl(UINT32_MAX << (32 - bits));
    if (o->net.s_addr & ~o->mask.s_addr)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "net '%s' has bits behind its %d", net,
                          (int)bits);
    if (inet_pton(AF_INET6, part6[0], &o->prefix6) != 1 || g_strcmp0(part6[1], "64") ||
        o->prefix6.s6_addr32[2] || o->prefix6.s6_addr32[3])
        return lodge_fail(error, LODGE_ERROR_CONFIG, "ipv6-net '%s' is not ADDR/64", net6);
    return true;
}

static bool opt_forwards(GHashTable *opts, UserOpts *o, GError **error)
{
    GPtrArray *texts = g_hash_table_lookup(opts, "hostfwd");

    o->guest_forwards = g_hash_table_lookup(opts, "guestfwd");
    for (guint i = 0; texts && i < texts->len; i++) {
        HostFwd f;
        if (!hostfwd_parse(g_ptr_array_index(texts, i), &f, error))
            return false;
        g_array_append_val(o->forwards, f);
    }
    return true;
}

/**
 * user_opts_parse() - Read the options of a user network
 * @o: zeroed but for forwards, an array to be filled; borrows texts of @opts
 * Context: main thread. Return: false with LODGE_ERROR_CONFIG.
 */
bool user_opts_parse(GHashTable *opts, UserOpts *o, GError **error)
{
    return net_opt_switch(opts, "restrict", false, &o->restricted, error) &&
           net_opt_switch(opts, "host-loopback", true, &o->host_loopback, error) &&
           net_opt_switch(opts, "ipv6", true, &o->ip6, error) && opt_mtu(opts, o, error) &&
           opt_networks(opts, o, error) && opt_names(opts, o, error) &&
           opt_forwards(opts, o, error);
}
