/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_UMLCOW_H
#define LODGE_UMLCOW_H

/* What the data path (fmt_umlcow.c) and the care of whole images (umlcow_image.c) share. */

#include "child.h"
#include "cow_header.h"

typedef struct BlkCow {
    BlkNode node;
    /* constant after open, but for set_base at rest */
    CowLayout layout;
    bool base_changes; /* there is a note that the base was being written */
    uint64_t change_ino;  /* the note's: inode of that base */
    int64_t change_until; /* the note's: seconds since 1970 */
    uint64_t bitmap_bytes; /* that exist in the file */
    unsigned pieces_max;
    /* IoThread only */
    GHashTable *pieces; /* index -> CowPiece, owned */
    struct CowPiece *last; /* of pieces, or NULL */
    uint64_t tick;
    unsigned n_failed;
    BlkChildren children;
} BlkCow;

/* fmt_umlcow.c: after the layout is known; and to forget what is cached, at rest. */
void cow_pieces_init(BlkCow *c, uint64_t meta_bytes);
void cow_pieces_drop(BlkCow *c);

/* umlcow_image.c: slots of the driver. */
bool cow_probe(const BlkProbe *p);
bool cow_open(BlkNode *n, const BlkOpenHow *how, BlkBaseRef *ret_base, GError **error);
bool cow_attach(BlkNode *n, const BlkBaseInfo *base, GError **error);
bool cow_create(const BlkCreate *create, GError **error);
bool cow_check(BlkNode *n, bool repair, BlkReport *r, GError **error);
bool cow_set_base(BlkNode *n, const BlkBaseInfo *base, GError **error);
bool cow_base_changes(BlkNode *n, int64_t until_s, GError **error);
bool cow_make_empty(BlkNode *n, GError **error);
void cow_describe(BlkNode *n, GPtrArray *facts);

#endif
