/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_COW_HEADER_H
#define LODGE_COW_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

#define COW_PATH_MAX 4096u         /* bytes of the path field of versions 2 and 3, with the NUL */
#define COW_HEADER_MAX 4136u       /* the largest of the header layouts */
#define COW_SECTOR 512u
#define COW_ALIGNMENT 4096u        /* of new files */
#define COW_SIZE_MAX ((uint64_t)1 << 50) /* bytes of disk; its bitmap is 256 GiB, sums are safe */

typedef enum CowKind { COW_V1, COW_V2, COW_V3, COW_V3_BROKEN } CowKind;

/* What a header says, and where that puts things. */
typedef struct CowLayout {
    CowKind kind;
    char backing[COW_PATH_MAX]; /* NUL-terminated, not empty */
    uint32_t mtime;             /* seconds, low 32 bits */
    uint64_t size;              /* bytes of the backing file */
    uint32_t sector_size, alignment;
    uint64_t bitmap_offset, bitmap_len; /* bytes; bitmap_len as the format defines it */
    uint64_t data_offset;
} CowLayout;

/**
 * cow_is_magic() - Whether a file that begins with these 4 bytes is a UML COW file
 */
bool cow_is_magic(const uint8_t *head);

/**
 * cow_header_parse() - Check a header and derive the layout
 * @head: the first @len bytes of the file, @len up to COW_HEADER_MAX
 * @path: for messages
 * Context: any thread; pure.
 * Return:  false with LODGE_ERROR_IMAGE (malformed; names the offset) or LODGE_ERROR_UNSUPPORTED.
 * Spec:    Linux 6.1 arch/um/drivers/cow_user.c as to layout
 */
bool cow_header_parse(const uint8_t *head, size_t len, const char *path, CowLayout *ret_layout,
                      GError **error);

/**
 * cow_layout_init() - Layout of a new version 3 overlay
 * @backing: absolute path
 * @size:    bytes of the backing file
 * Return:   false with LODGE_ERROR_CONFIG (path too long) or LODGE_ERROR_LIMIT (too big).
 */
bool cow_layout_init(const char *backing, uint64_t size, uint32_t mtime, CowLayout *ret_layout,
                     GError **error);

/* Where the path of the base stands in the header, and how many bytes it has with its NUL. */
uint32_t cow_path_offset(CowKind kind);
uint32_t cow_path_max(CowKind kind);

/* Write @l's header to @buf (COW_HEADER_MAX). Return: its length. */
size_t cow_header_build(const CowLayout *l, uint8_t *buf);

#endif
