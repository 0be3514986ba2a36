/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A folder, a loop and images, for the tests of the block path. */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "block_int.h"
#include "blockfix.h"

BlockFix *block_fix_new(void)
{
    g_autoptr(GError) error = NULL;
    BlockFix *f = g_new0(BlockFix, 1);

    f->dir = g_dir_make_tmp("lodge-block-XXXXXX", &error);
    g_assert_no_error(error);
    f->clock = lodge_clock_new();
    f->io = io_thread_new("block-test", f->clock, &error);
    g_assert_no_error(error);
    return f;
}

void block_fix_free(BlockFix *f)
{
    if (!f)
        return;
    io_thread_free(f->io);
    lodge_clock_free(f->clock);
    GDir *dir = g_dir_open(f->dir, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = block_fix_path(f, name);
        g_remove(path);
    }
    if (dir)
        g_dir_close(dir);
    g_assert_cmpint(g_rmdir(f->dir), ==, 0);
    g_free(f->dir);
    g_free(f);
}

char *block_fix_path(BlockFix *f, const char *name)
{
    return g_build_filename(f->dir, name, NULL);
}

uint8_t block_fix_byte(uint64_t offset, unsigned seed)
{
    return seed ? (uint8_t)(offset / 512 * 7 + offset % 512 * 3 + seed) | 1 : 0;
}

char *block_fix_image(BlockFix *f, const char *name, uint64_t size, unsigned seed)
{
    char *path = block_fix_path(f, name);
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0644);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    for (uint64_t at = 0; seed && at < size; at += 4096) {
        uint8_t buf[4096];
        size_t len = MIN(size - at, sizeof buf);
        for (unsigned i = 0; i < len; i++)
            buf[i] = block_fix_byte(at + i, seed);
        g_assert_cmpint(pwrite(fd, buf, len, at), ==, (ssize_t)len);
    }
    close(fd);
    return path;
}

BlkNode *block_fix_open(BlockFix *f, const BlkOptions *o)
{
    g_autoptr(GError) error = NULL;
    BlkNode *n = blk_open_flags("d0", o, 0, f->io, &error);

    g_assert_no_error(error);
    g_assert_nonnull(n);
    return n;
}

void block_fix_refused(BlockFix *f, const BlkOptions *o, int code, const char *text)
{
    g_autoptr(GError) error = NULL;
    BlkNode *n = blk_open("d0", o, f->io, &error);

    g_assert_null(n);
    g_assert_error(error, LODGE_ERROR, code);
    if (!strstr(error->message, text))
        g_error("'%s' is not in '%s'", text, error->message);
    g_assert_null(strchr(error->message, '\n'));
}

unsigned block_fix_count(BlockFix *f)
{
    GDir *dir = g_dir_open(f->dir, 0, NULL);
    unsigned n = 0;

    while (g_dir_read_name(dir))
        n++;
    g_dir_close(dir);
    return n;
}

bool block_fix_need(const char *program, const char *package)
{
    g_autofree char *path = g_find_program_in_path(program);

    if (path)
        return true;
    g_autofree char *why = g_strdup_printf("%s is missing (package %s)", program, package);
    g_test_skip(why);
    return false;
}
