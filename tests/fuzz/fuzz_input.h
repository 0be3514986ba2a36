/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FUZZ_INPUT_H
#define LODGE_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

/* What is left of an input; bytes that it does not have are 0. */
typedef struct Input {
    const uint8_t *data;
    size_t len;
} Input;

static inline unsigned take(Input *in)
{
    if (!in->len)
        return 0;
    in->len--;
    return *in->data++;
}

#endif
