/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CPIO_H
#define LODGE_CPIO_H

/* Writer of cpio archives ("newc"), the format of an initramfs. */

#include <stdint.h>

#include <glib.h>

typedef struct Cpio {
    GByteArray *out; /* owned */
    uint32_t next_ino;
} Cpio;

void cpio_begin(Cpio *c);
/* A folder; parents come first, by the caller. */
void cpio_add_dir(Cpio *c, const char *path, unsigned mode);
void cpio_add_file(Cpio *c, const char *path, unsigned mode, const void *data, size_t len);
void cpio_add_char_device(Cpio *c, const char *path, unsigned mode, unsigned major,
                          unsigned minor);
/* Close the archive. Return: transfer full; @c is empty after. */
GByteArray *cpio_end(Cpio *c);

#endif
