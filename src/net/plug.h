/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_PLUG_H
#define LODGE_NET_PLUG_H

/* What uml_switch (version 3) and vde_switch are asked, and answer; see be_plug.c. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

enum {
    PLUG_VERSION = 3,
    PLUG_REQUEST_HEAD = 12,
    PLUG_DESCRIPTION_MAX = 127,
    PLUG_REQUEST_MAX = PLUG_REQUEST_HEAD + sizeof(struct sockaddr_un) + PLUG_DESCRIPTION_MAX + 1,
};
#define PLUG_MAGIC 0xfeedfaceu

size_t plug_request(uint8_t *to, const struct sockaddr_un *own, unsigned port,
                    const char *description);
bool plug_reply(const uint8_t *data, size_t len, struct sockaddr_un *ret_addr);

#endif
