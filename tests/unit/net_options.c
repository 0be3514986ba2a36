/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "net_options.h"

#include <stdarg.h>

GHashTable *options(const char *first, ...)
{
    GHashTable *t = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                          (GDestroyNotify)g_ptr_array_unref);
    va_list ap;

    va_start(ap, first);
    for (const char *name = first; name; name = va_arg(ap, const char *)) {
        GPtrArray *values = g_hash_table_lookup(t, name);
        if (!values) {
            values = g_ptr_array_new_with_free_func(g_free);
            g_hash_table_insert(t, g_strdup(name), values);
        }
        g_ptr_array_add(values, g_strdup(va_arg(ap, const char *)));
    }
    va_end(ap);
    return t;
}
