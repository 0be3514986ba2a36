/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_SHAPES_H
#define LODGE_SHAPES_H

/* Images of every format that can be made, in the shapes that their code tells apart. */

#include "blockfix.h"
#include "image_ops.h"

typedef struct Shape {
    const char *name;
    const char *format;
    const char *options;     /* "key=value,..." of creation, or NULL */
    const char *base_format; /* of the base; NULL: none */
    uint32_t block;          /* bytes of a block, where it is none of the options; 0: as made */
} Shape;

extern const Shape shapes[];
extern const unsigned n_shapes;

/* Make base (disk byte i is block_fix_byte(i, 3)) and image of @s, of @size bytes; both paths
 * transfer full, *ret_base NULL where there is none. */
char *shape_make(BlockFix *f, const Shape *s, uint64_t size, char **ret_base);
/* What the new image's disk has at byte @i. */
uint8_t shape_byte(const Shape *s, uint64_t i);
/* FAULT_SHAPE picks one by its name, FAULT_FORMAT those of a format. */
bool shape_is_asked(const Shape *s);

#endif
