/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames that the initrd holds, for guests that send what nobody should: records of a length, where a
 * second descriptor begins (0: nowhere), both of four bytes, least significant first, and as many
 * bytes, of which the first RECORD_HDR are a virtio card's header.
 */
#ifndef GUEST_RECORDS_H
#define GUEST_RECORDS_H

#include "lib.h"

enum { RECORD_HEAD = 8, RECORD_HDR = 12 };

static u32 record_get32(const u8 *p)
{
    return p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}

/* Hand each record to @send, with its number. Return: how many there were. */
static u32 send_records(void (*send)(u32 n, const u8 *record, u32 len, u32 second))
{
    const MbInfo *mb = mb_info();
    const MbModule *m = (const MbModule *)(ulong)mb->mods_addr;
    u32 sent = 0;

    CHECK((mb->flags & 8) && mb->mods_count == 1, "no frames");
    for (const u8 *p = (const u8 *)(ulong)m->start; p < (const u8 *)(ulong)m->end; sent++) {
        u32 len = record_get32(p);
        send(sent, p + RECORD_HEAD, len, record_get32(p + 4));
        p += RECORD_HEAD + len;
    }
    return sent;
}

#endif
