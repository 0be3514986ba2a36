/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_HOSTFWD_H
#define LODGE_HOSTFWD_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>
#include <netinet/in.h>

/* A host port that leads into the guest. */
typedef struct HostFwd {
    bool udp;
    struct in_addr host_addr;
    uint16_t host_port; /* 0: a free one is to be found */
    struct in_addr guest_addr; /* 0.0.0.0: the first DHCP lease */
    uint16_t guest_port; /* 1..65535 */
    uint16_t asked_port; /* what host_port was before a free one was found */
} HostFwd;

bool hostfwd_parse(const char *text, HostFwd *ret_fwd, GError **error);
bool hostfwd_parse_host(const char *text, HostFwd *ret_fwd, GError **error);
/* Whether both were asked for by the same rule. */
bool hostfwd_same_rule(const HostFwd *a, const HostFwd *b);
/* Whether both have the same end on the host. */
bool hostfwd_same_host(const HostFwd *a, const HostFwd *b);
bool hostfwd_probe(HostFwd *fwd, GError **error);
/* "127.0.0.1:2222 (tcp)"; transfer full. */
char *hostfwd_name(const HostFwd *fwd);

#endif
