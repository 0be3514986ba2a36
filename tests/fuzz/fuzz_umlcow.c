/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The header of UML's COW files from hostile bytes. What is accepted must keep the layout's
 * invariants, and say the same again after it was built and parsed.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cow_header.h"
#include "replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    g_autoptr(GError) error = NULL;
    static CowLayout l, again;
    static uint8_t head[COW_HEADER_MAX];

    memset(&l, 0, sizeof l);
    if (!cow_header_parse(data, MIN(len, COW_HEADER_MAX), "fuzz", &l, &error)) {
        g_assert_nonnull(error);
        return 0;
    }
    g_assert(l.size > 0 && l.size <= COW_SIZE_MAX);
    g_assert(l.backing[0] && memchr(l.backing, 0, sizeof l.backing));
    g_assert(l.bitmap_offset <= l.data_offset && l.data_offset % COW_SECTOR == 0);
    g_assert(l.bitmap_len <= l.data_offset - l.bitmap_offset);
    size_t n = cow_header_build(&l, head);
    g_assert(cow_header_parse(head, n, "fuzz", &again, &error));
    g_assert(again.kind == l.kind && again.size == l.size && again.mtime == l.mtime &&
             again.data_offset == l.data_offset && strcmp(again.backing, l.backing) == 0);
    return 0;
}
