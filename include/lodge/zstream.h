/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_ZSTREAM_H
#define LODGE_ZSTREAM_H

#include <stdint.h>

/* z_stream of zlib.h; the soname promises that its layout stays. */
typedef struct ZStream {
    const uint8_t *next_in;
    unsigned avail_in;
    unsigned long total_in;
    uint8_t *next_out;
    unsigned avail_out;
    unsigned long total_out;
    const char *msg;
    void *state, *zalloc, *zfree, *opaque;
    int data_type;
    unsigned long adler, reserved;
} ZStream;

#endif
