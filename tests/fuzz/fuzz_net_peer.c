/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz_net_peer.h"

unsigned fuzz_peer_send(NetPort *port, const NetFrame *v, unsigned n)
{
    FuzzPeer *p = port->opaque;
    unsigned took = MIN(n, p->room), sum = 0;

    for (unsigned k = 0; k < took; k++) {
        uint32_t len = 0;

        for (unsigned i = 0; i < v[k].niov; i++) {
            const uint8_t *b = v[k].iov[i].iov_base;

            len += (uint32_t)v[k].iov[i].iov_len;
            for (size_t at = 0; at < v[k].iov[i].iov_len; at++)
                sum += b[at]; /* every byte must be ours to read */
        }
        g_assert_cmpuint(len, ==, v[k].len);
    }
    p->room -= took;
    __asm__ volatile("" : : "r"(sum));
    return took;
}
