/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_USER_OPTS_H
#define LODGE_NET_USER_OPTS_H

#include <netinet/in.h>

#include "lodge/net.h"

enum {
    USER_MTU_MAX = 65520,
    USER_IP6_PREFIX_LEN = 64,
    /* in the guest's network */
    USER_HOST_ADDRESS = 2,
    USER_DNS_ADDRESS = 3,
    USER_LEASE_ADDRESS = 15,
};

typedef struct UserOpts {
    bool restricted, host_loopback, ip6;
    uint16_t mtu;
    const char *hostname, *tftp, *bootfile; /* borrowed from the options */
    struct in_addr net, mask, dns;
    struct in6_addr prefix6; /* of 64 bits */
    GArray *forwards;        /* owned; HostFwd */
    GPtrArray *guest_forwards; /* borrowed from the options; texts, or NULL */
} UserOpts;

extern const NetOptSpec user_opts[];
bool user_opts_parse(GHashTable *opts, UserOpts *o, GError **error);
/* The @n-th address of the guest's network. */
struct in_addr user_address_at(const UserOpts *o, uint32_t n);

#endif
