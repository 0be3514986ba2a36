/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MODULE_INDEX_H
#define LODGE_MODULE_INDEX_H

/* The binary tables in which modprobe looks: modules.dep.bin, modules.alias.bin. */

#include <stdint.h>

#include <glib.h>

typedef struct ModuleIndex {
    GPtrArray *entries;
} ModuleIndex;

void module_index_begin(ModuleIndex *x);
/* @key: ASCII, not empty; copied like @value. One key may have several values, the lowest
 * @priority first. */
void module_index_add(ModuleIndex *x, const char *key, const char *value, uint32_t priority);
/* The table; frees @x. Return: transfer full. */
GByteArray *module_index_end(ModuleIndex *x);

#endif
