/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_USAGE_H
#define LODGE_USAGE_H

/* What a running machine uses of the host, and what it tells of its guest: for stats and top. */

#include <stdbool.h>
#include <stdint.h>

#include "client.h"

typedef struct Usage {
    int64_t at_us;             /* monotonic */
    double cpu_s, vcpu_s;      /* of the process; of its vCPUs */
    uint64_t resident;         /* bytes */
    uint64_t read, written;    /* bytes that went to or from the host's disks */
    unsigned threads;
    /* As the machine tells: */
    bool told;                 /* it answered; else zeros */
    uint64_t received, sent;   /* bytes on its networks, as the guest sees it */
    uint64_t exits;            /* of its vCPUs */
    uint64_t guest;            /* bytes of memory that the guest has now; 0: no balloon */
    uint64_t available;        /* bytes of it that the guest could use; 0: it does not say */
} Usage;

/* Look at process @pid; the machine is not asked. */
void usage_look(long pid, Usage *u);
/**
 * usage_ask() - Have machine @name fill in the rest of @u
 * @deadline: as of client_connect()
 * @ret_client: the connection that *ret_answer belongs to; transfer full. NULL: not asked for.
 * @ret_answer: all that x-lodge-stats tells, valid until the connection is freed
 * Return: false: it did not answer; @u->told says the same.
 */
bool usage_ask(const char *name, int64_t deadline, Usage *u, Client **ret_client, Jv *ret_answer);

#endif
