/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cpio archives in the "newc" format, as the kernel unpacks into its first file system.
 *
 * Every entry belongs to root and has time 0, so equal contents give equal archives.
 * Spec: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
 */
#include "cpio.h"

#include <string.h>
#include <sys/stat.h>

enum { CPIO_ALIGN = 4, NEWC_HEADER_LEN = 110 };

static void pad(Cpio *c)
{
    static const guint8 zeros[CPIO_ALIGN];
    g_byte_array_append(c->out, zeros, -c->out->len % CPIO_ALIGN);
}

static void add(Cpio *c, const char *path, unsigned mode, unsigned major, unsigned minor,
                const void *data, size_t len)
{
    char header[NEWC_HEADER_LEN + 1];
    size_t name_len = strlen(path) + 1;
    g_snprintf(header, sizeof header, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
               c->next_ino++, mode, 0u, 0u, S_ISDIR(mode) ? 2u : 1u, 0u, (unsigned)len, 0u, 0u,
               major, minor, (unsigned)name_len, 0u);
    g_byte_array_append(c->out, (const guint8 *)header, NEWC_HEADER_LEN);
    g_byte_array_append(c->out, (const guint8 *)path, (guint)name_len);
    pad(c);
    if (len)
        g_byte_array_append(c->out, data, (guint)len);
    pad(c);
}

void cpio_begin(Cpio *c)
{
    *c = (Cpio){.out = g_byte_array_new(), .next_ino = 1};
}

void cpio_add_dir(Cpio *c, const char *path, unsigned mode)
{
    add(c, path, S_IFDIR | mode, 0, 0, NULL, 0);
}

void cpio_add_file(Cpio *c, const char *path, unsigned mode, const void *data, size_t len)
{
    add(c, path, S_IFREG | mode, 0, 0, data, len);
}

void cpio_add_char_device(Cpio *c, const char *path, unsigned mode, unsigned major, unsigned minor)
{
    add(c, path, S_IFCHR | mode, major, minor, NULL, 0);
}

GByteArray *cpio_end(Cpio *c)
{
    add(c, "TRAILER!!!", 0, 0, 0, NULL, 0);
    return g_steal_pointer(&c->out);
}
