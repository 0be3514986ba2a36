/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz the packet code: an input's first bytes choose GSO and checksum fields, MTU and MSS, the rest
 * is the frame, in two pieces.
 */
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "lodge/num.h"
#include "pkt.h"
#include "replay.h"

enum { KNOBS = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t gso[] = {NET_GSO_TCPV6, NET_GSO_TCPV4, NET_GSO_UDP};
    PktInfo info;
    PktSegmenter seg;
    PktFragmenter frag;

    if (size < KNOBS || size - KNOBS > NET_FRAME_MAX)
        return 0;
    uint32_t len = (uint32_t)(size - KNOBS), cut = len ? data[0] % len : 0;
    uint8_t *frame = g_memdup2(data + KNOBS, len);
    struct iovec iov[2] = {{frame, cut}, {frame ? frame + cut : NULL, len - cut}};
    NetFrame f = {.iov = iov, .niov = 2, .len = len,
                  .gso = gso[data[1] % G_N_ELEMENTS(gso)],
                  .gso_size = load_le16(data + 2)};

    if (pkt_seg_begin(&seg, &f)) {
        for (uint32_t i = 0; i < seg.count; i += 1 + seg.count / 64) {
            uint32_t n = pkt_seg_len(&seg, i);
            g_autofree uint8_t *out = g_malloc(n);
            pkt_seg_write(&seg, i, out);
        }
    }
    g_autofree uint8_t *whole = g_malloc(len);
    (void)pkt_seg_whole(&f, whole); /* may refuse */
    (void)pkt_finish_csum(frame, len, load_le16(data + 4), load_le16(data + 6)); /* may refuse */
    if (len && pkt_parse(frame, len, &info)) {
        if (info.l4_off > len || info.payload_off > len || info.l3_off > len)
            abort();
        (void)pkt_clear_urgent(frame, &info); /* may have nothing to do */
        (void)pkt_raise_mss(frame, &info, load_le16(data + 4), load_le16(data + 6));
        if (info.ip_version)
            (void)pkt_pseudo_sum(frame, &info, len - info.l3_off);
        if (pkt_frag_begin(&frag, frame, len, &info, load_le16(data + 2))) {
            for (uint32_t i = 0; i < frag.count; i += 1 + frag.count / 64) {
                uint8_t head[PKT_HEADERS_MAX];
                struct iovec body = pkt_frag_get(&frag, i, head);
                uint8_t *at = body.iov_base;
                if (at < frame || !range_within((uint64_t)(at - frame), body.iov_len, len))
                    abort();
            }
        }
    }
    g_free(frame);
    return 0;
}
