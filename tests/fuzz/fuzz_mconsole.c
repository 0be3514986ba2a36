/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Datagrams for the management console of a control without a machine, each behind a byte and its
 * length in two. With the byte's lowest bit, magic and version are put in front.
 */
#include <string.h>
#include <unistd.h>

#include "lodge/num.h"

#include "mconsole_internal.h"
#include "replay.h"

#define DATAGRAM_MAX 600u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ControlConfig config = {.name = "vm", .console_log = console_log_open(NULL, 4096, NULL)};
    Control *c = control_open(&config, NULL);
    Mconsole *m = g_new0(Mconsole, 1);
    struct sockaddr_un from = {.sun_family = AF_UNIX};
    uint8_t d[DATAGRAM_MAX + 12];

    g_assert_nonnull(c);
    mconsole_init(m, c);
    while (size >= 3) {
        bool framed = data[0] & 1;
        size_t n = MIN(MIN((size_t)load_le16(data + 1), size - 3), (size_t)DATAGRAM_MAX);
        size_t head = framed ? 12 : 0;

        store_le32(d, 0xcafebabe);
        store_le32(d + 4, 2);
        store_le32(d + 8, (uint32_t)n);
        memcpy(d + head, data + 3, n);
        mconsole_datagram(m, d, head + n, &from, data[0] & 2 ? sizeof from : 0);
        data += 3 + n;
        size -= 3 + n;
    }
    mconsole_close(m);
    control_close(c);
    console_log_close(config.console_log);
    return 0;
}
