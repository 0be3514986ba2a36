/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the bytes of a disk are: BLK_STATUS asked of each image of the chain in turn, and of the
 * file below for holes. Shared by map, convert, commit, rebase and compare.
 */
#include <errno.h>
#include <string.h>

#include "lodge/num.h"

#include "image_ops.h"

/* What lies at @e's place in the file may be a hole. */
static void look_for_hole(BlkNode *node, MapEntry *e)
{
    BlkReq req = {.op = BLK_STATUS, .offset = e->file_offset, .len = e->len};

    if (node->drv == &blk_driver_raw || !node->file || e->file_offset == BLK_NO_OFFSET ||
        e->file_offset % BLK_SECTOR ||
        !range_within(e->file_offset, e->len, node->file->limits.size))
        return;
    if (blk_wait(node->file, &req) != 0)
        return; /* it is data then */
    e->len = MIN(e->len, req.status_len);
    e->zero = req.status == BLK_ST_BELOW;
}

int image_map(BlkNode *n, uint64_t offset, uint64_t len, MapEntry *ret)
{
    MapEntry e = {.offset = offset, .len = MIN(len, n->limits.size - offset),
                  .file_offset = BLK_NO_OFFSET};
    bool found = false;

    while (!found) {
        if (offset >= n->limits.size) { /* a base that is smaller */
            e.zero = true;
            break;
        }
        BlkReq req = {.op = BLK_STATUS, .offset = offset,
                      .len = MIN(e.len, n->limits.size - offset)};
        int err = blk_wait(n, &req);
        if (err)
            return err;
        e.len = MIN(req.len, req.status_len);
        found = req.status != BLK_ST_BELOW || !n->base;
        if (!found) {
            n = n->base;
            e.depth++;
            continue;
        }
        e.data = req.status == BLK_ST_DATA;
        e.zero = !e.data;
        if (e.data) {
            e.file_offset = req.status_offset;
            e.file = blk_file_under(n)->path;
            look_for_hole(n, &e);
        } else if (req.status == BLK_ST_ZERO) {
            e.data = false;
        }
    }
    *ret = e;
    return e.len ? 0 : EIO;
}
