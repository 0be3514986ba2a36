/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_OPTS_H
#define LODGE_NET_OPTS_H

/* Values of a back end's options, by name. */

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <glib.h>

/* The last value; NULL: not given. */
const char *net_opt(GHashTable *opts, const char *name);
bool net_opt_switch(GHashTable *opts, const char *name, bool preset, bool *ret_on, GError **error);
bool net_opt_number(GHashTable *opts, const char *name, uint64_t min, uint64_t max,
                    uint64_t preset, uint64_t *ret_value, GError **error);
/* A descriptor that was given to us: now closed on exec. False: not one that is open. */
bool net_opt_fd(GHashTable *opts, int *ret_fd, GError **error);
/* All that are given, at most @max. */
bool net_opt_fds(GHashTable *opts, int *ret_fds, unsigned max, unsigned *ret_n, GError **error);
/* Bits a second: "10M". Nanoseconds: "20ms", a plain number in ms. Parts in 2^32: "1.5%". Bytes:
 * "64M". Each leaves *ret alone where the option is not given. */
bool net_opt_rate(GHashTable *opts, const char *name, uint64_t *ret_bits, GError **error);
bool net_opt_time(GHashTable *opts, const char *name, int64_t *ret_ns, GError **error);
bool net_opt_share(GHashTable *opts, const char *name, uint32_t *ret_share, GError **error);
bool net_opt_size(GHashTable *opts, const char *name, uint64_t min, uint64_t *ret_bytes,
                  GError **error);

typedef struct NetAddr {
    struct sockaddr_storage sa;
    socklen_t len;
} NetAddr;

bool net_addr_unix(const char *path, NetAddr *ret, GError **error);
bool net_addr_inet(const char *text, int type, bool passive, NetAddr *ret, GError **error);
/* "unix:PATH" or "@inet:HOST:PORT"; @inet is "tcp" or "udp". */
bool net_addr_parse(const char *text, const char *inet, int type, bool passive, NetAddr *ret,
                    GError **error);

/* Remove the file of a socket that nobody listens at any more; false: somebody does, or it is
 * something else. */
bool net_unix_clear(const char *path, int type, GError **error);

#endif
