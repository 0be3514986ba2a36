/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FORMATFIX_H
#define LODGE_FORMATFIX_H

/* What the tests of image formats share: making, scribbling, other programs' opinions. */

#include "block_int.h"
#include "blockfix.h"

/* Make an image; @options: "k=v,k=v" or NULL. Path, transfer full. */
char *format_make(BlockFix *f, const char *name, const BlkMake *m, const char *options);
/* The same, refused with @code and @text. */
void format_make_refused(BlockFix *f, const BlkMake *m, const char *options, int code,
                         const char *text);
/* Run a program; it must succeed. */
void format_run(const char *program, ...) G_GNUC_NULL_TERMINATED;
/* Random writes, zeros, discards, flushes, reads and reopenings of @o's image, whose disk is
 * @want[@size] before and after. */
void format_scribble(BlockFix *f, const BlkOptions *o, uint8_t *want, uint64_t size, unsigned seed,
                     unsigned steps);
/* Writes, zeros and flushes all over the disk at the same time. */
void format_storm(BlockFix *f, const BlkOptions *o, uint8_t *want, uint64_t size, unsigned seed);
/* Take a copy of @o's file in the middle of writes, as a killed process leaves it: what was flushed
 * is there, it checks clean after the next writer. @want is the disk before, and the copy's
 * after. */
void format_killed(BlockFix *f, const BlkOptions *o, const char *copy, uint8_t *want,
                   uint64_t size, unsigned seed);
/* The whole disk is @want, for us and, with @qemu, for qemu-img's driver of that name. */
void format_same(BlockFix *f, const BlkOptions *o, const uint8_t *want, uint64_t size,
                 const char *qemu);
/* Let the check find @errors and @leaks, all mended with @repair. */
void format_check(BlockFix *f, const char *path, bool repair, unsigned errors, unsigned leaks);
/* Change the size; one that gets smaller is refused without @shrink. */
void format_resize(BlockFix *f, const char *path, uint64_t size, bool shrink);
/* A new image of @size bytes of disk, up to 20 MiB, gets larger and smaller, at last @last bytes:
 * what is new reads as zeros, and each state is sound, for @qemu too where the disk is not large.
 * @look: is shown the file each time; NULL: nobody is. */
void format_resizes(const char *format, const char *options, uint64_t size, uint64_t last,
                    const char *qemu, void (*look)(const char *path));
/* Overlays of @format that get another base, are emptied, and get none. */
void format_rebase(const char *format, uint64_t size, const char *qemu);
/* An overlay whose base has another name, which base= tells. */
void format_moved(const char *format, uint64_t size);
/* The image's text of describe() for @key; transfer full, NULL: not there. */
char *format_fact(BlockFix *f, const char *path, const char *key);
/* Change @len bytes at @offset of a file; from its end if negative. */
void format_poke(const char *path, int64_t offset, const void *bytes, size_t len);
void format_peek(const char *path, int64_t offset, void *bytes, size_t len);

#endif
