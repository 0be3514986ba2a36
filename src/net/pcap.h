/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_PCAP_H
#define LODGE_NET_PCAP_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/net.h"

typedef struct Pcap Pcap;

enum {
    PCAP_BUFFER = 4 << 20,       /* bytes of frames that wait for the writer */
    PCAP_LIMIT_MIN = 256 << 10,  /* of a file */
};

Pcap *pcap_open_fd(int fd, GError **error);
Pcap *pcap_open_file(const char *path, uint64_t limit, GError **error);
void pcap_frames(Pcap *p, const NetFrame *v, unsigned n);
/* Whether writing failed, or the reader went. Any thread. */
bool pcap_ended(Pcap *p);
/* Frames written and frames thrown away because the reader was too slow. Any thread. */
void pcap_counts(Pcap *p, uint64_t *ret_frames, uint64_t *ret_dropped);
void pcap_free(Pcap *p); /* writes what it can without waiting for a reader; NULL is fine */

#endif
