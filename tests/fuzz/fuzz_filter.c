/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz rules about what passes a network: an input is eight bytes of what the guest leaves to its
 * card, a text of rules up to the first zero byte, and a frame. Either text or frame may be
 * nonsense; what is decided has to be a row of what is in force, and the same for both looks.
 */
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "filter.h"
#include "lodge/num.h"
#include "replay.h"

enum { KNOBS = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

    if (size < KNOBS || size - KNOBS > NET_FRAME_MAX)
        return 0;
    const char *text = (const char *)data + KNOBS;
    const char *end = memchr(text, '\0', size - KNOBS);
    size_t len = end ? (size_t)(end - text) : size - KNOBS;
    g_autoptr(FilterProgram) p = filter_compile("rules", text, len, NULL);
    if (!p || !end)
        return 0;
    uint32_t have = (uint32_t)(size - KNOBS - len - 1);
    g_autofree uint8_t *head = g_memdup2(end + 1, MIN(have, (uint32_t)FILTER_HEAD));
    NetFrame f = {.len = have, .flags = data[0] & NET_FRAME_NEEDS_CSUM, .gso = data[1],
                  .gso_size = load_le16(data + 2), .csum_start = load_le16(data + 4),
                  .csum_off = load_le16(data + 6)};
    g_autoptr(NetFilterInfo) info = filter_describe(p);
    for (int out = 0; out < 2; out++) {
        FilterVerdict a = filter_judge(p, head, &f, out, mac);
        FilterVerdict b = filter_judge(p, head, &f, out, mac);
        if (a.by != b.by || a.allow != b.allow || a.by >= FILTER_BYS ||
            (a.by < FILTER_RULES_MAX && a.by >= info->rows))
            abort();
        filter_count(p, a.by, 1, have);
    }
    return 0;
}
