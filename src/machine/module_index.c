/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * modprobe's binary tables: a tree over the characters of keys, written leaves first.
 *
 * All numbers are big-endian words of 32 bits. Header: magic, version, offset of the root. The
 * offset of a node has in its top bits which parts the node has, in this order:
 *   PREFIX: characters that all its keys have next, zero-terminated
 *   CHILDREN: first and last character (a byte each), and an offset for each from one to the other,
 *             0 where no key goes on with it
 *   VALUES: their count, then priority and zero-terminated text of each
 *
 * Spec: kmod, libkmod/libkmod-index.h ("Disk format"), index version 2.1.
 */
#include "module_index.h"

#include <string.h>

enum {
    HEADER_LEN = 12,
    HAS_VALUES = 0x4,
    HAS_PREFIX = 0x8,
    HAS_CHILDREN = 0x2,
    FLAGS_SHIFT = 28,
    KEY_MAX = 1024, /* characters; a longer one is left out */
    ASCII_END = 0x80,
};

#define INDEX_MAGIC UINT32_C(0xb007f457)
#define INDEX_VERSION UINT32_C(0x00020001)

typedef struct Entry {
    char *key, *value; /* owned */
    uint32_t priority;
} Entry;

static void entry_free(gpointer opaque)
{
    Entry *e = opaque;
    g_free(e->key);
    g_free(e->value);
    g_free(e);
}

static gint entry_order(gconstpointer a, gconstpointer b)
{
    const Entry *x = *(Entry *const *)a, *y = *(Entry *const *)b;
    int order = strcmp(x->key, y->key);
    return order ? order : (x->priority > y->priority) - (x->priority < y->priority);
}

void module_index_begin(ModuleIndex *x)
{
    x->entries = g_ptr_array_new_with_free_func(entry_free);
}

void module_index_add(ModuleIndex *x, const char *key, const char *value, uint32_t priority)
{
    for (const char *p = key; *p; p++)
        if ((unsigned char)*p >= ASCII_END || p - key >= KEY_MAX)
            return;
    Entry *e = g_new(Entry, 1);
    *e = (Entry){g_strdup(key), g_strdup(value), priority};
    g_ptr_array_add(x->entries, e);
}

static void put_word(GByteArray *out, uint32_t v)
{
    guint8 bytes[] = {(guint8)(v >> 24), (guint8)(v >> 16), (guint8)(v >> 8), (guint8)v};
    g_byte_array_append(out, bytes, sizeof bytes);
}

static const Entry *entry(const ModuleIndex *x, guint i)
{
    return g_ptr_array_index(x->entries, i);
}

/* The node of the sorted entries @from to @end, which agree in their first @depth characters. One
 * level deeper is a character more, so KEY_MAX bounds it. Its offset and flags. */
static uint32_t put_node(GByteArray *out, const ModuleIndex *x, guint from, guint end, size_t depth)
{
    /* What the first and the last agree in, all between them do. */
    const char *a = entry(x, from)->key + depth, *b = entry(x, end - 1)->key + depth;
    size_t same = 0;
    while (a[same] && a[same] == b[same])
        same++;
    depth += same;
    guint values = from;
    while (values < end && !entry(x, values)->key[depth])
        values++;
    uint32_t child[ASCII_END] = {0};
    unsigned first = ASCII_END, last = 0;
    for (guint i = values; i < end;) {
        unsigned c = (unsigned char)entry(x, i)->key[depth];
        guint next = i;
        while (next < end && (unsigned char)entry(x, next)->key[depth] == c)
            next++;
        child[c] = put_node(out, x, i, next, depth + 1);
        first = MIN(first, c);
        last = c;
        i = next;
    }
    uint32_t at = out->len, flags = 0;
    if (same) {
        guint8 zero = 0;
        flags |= HAS_PREFIX;
        g_byte_array_append(out, (const guint8 *)a, (guint)same);
        g_byte_array_append(out, &zero, 1);
    }
    if (values < end) {
        guint8 span[] = {(guint8)first, (guint8)last};
        flags |= HAS_CHILDREN;
        g_byte_array_append(out, span, sizeof span);
        for (unsigned c = first; c <= last; c++)
            put_word(out, child[c]);
    }
    if (values > from) {
        flags |= HAS_VALUES;
        put_word(out, values - from);
        for (guint i = from; i < values; i++) {
            const char *text = entry(x, i)->value;
            put_word(out, entry(x, i)->priority);
            g_byte_array_append(out, (const guint8 *)text, (guint)strlen(text) + 1);
        }
    }
    return at | flags << FLAGS_SHIFT;
}

GByteArray *module_index_end(ModuleIndex *x)
{
    GByteArray *out = g_byte_array_new();
    put_word(out, INDEX_MAGIC);
    put_word(out, INDEX_VERSION);
    put_word(out, 0);
    g_ptr_array_sort(x->entries, entry_order);
    uint32_t root = x->entries->len ? put_node(out, x, 0, x->entries->len, 0) : 0;
    for (unsigned i = 0; i < 4; i++)
        out->data[HEADER_LEN - 4 + i] = (guint8)(root >> (24 - 8 * i));
    g_clear_pointer(&x->entries, g_ptr_array_unref);
    return out;
}
