/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_UNPACK_H
#define LODGE_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

typedef enum UnpackFormat {
    UNPACK_UNKNOWN,
    UNPACK_PLAIN, /* an ELF file that is not compressed */
    UNPACK_GZIP,
    UNPACK_BZIP2,
    UNPACK_LZMA, /* .lzma, "LZMA alone" */
    UNPACK_XZ,
    UNPACK_LZ4, /* the legacy frame that the kernel uses */
    UNPACK_ZSTD,
    UNPACK_LZO, /* recognised by name only */
} UnpackFormat;

#define UNPACK_MAX_SIZE ((uint64_t)1 << 30) /* ceiling of what is unpacked, bytes */

/* Anonymous memory that holds what was unpacked. All zero: empty. */
typedef struct UnpackBuf {
    uint8_t *data; /* owned mapping of @mapped bytes */
    size_t len;    /* bytes of contents */
    size_t mapped;
} UnpackBuf;

/* What the first bytes of @data say. */
UnpackFormat unpack_detect(const void *data, size_t len);
const char *unpack_name(UnpackFormat format); /* "xz"; static */
/**
 * unpack() - Decompress a whole buffer
 * @src, @len: compressed bytes, complete and untrusted
 * @expect:    exact size of the result in bytes if known, else 0
 * @max:       ceiling of the result in bytes, at most UNPACK_MAX_SIZE
 * @ret_buf:   caller clears it with unpack_buf_clear()
 * Context: any thread; takes up to some hundreds of milliseconds; may run helper threads.
 * Return:  false with LODGE_ERROR_IMAGE (damaged, over @max, or not of size @expect),
 *          LODGE_ERROR_LIMIT (@expect is over @max), LODGE_ERROR_UNSUPPORTED (format not known, or its library is missing; named),
 *          LODGE_ERROR_HOST (no memory).
 */
bool unpack(UnpackFormat format, const void *src, size_t len, uint64_t expect, uint64_t max,
            UnpackBuf *ret_buf, GError **error);
void unpack_buf_clear(UnpackBuf *buf);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(UnpackBuf, unpack_buf_clear)

#endif
