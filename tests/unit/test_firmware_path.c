/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Firmware files: what is found, what is refused and in which words. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/error.h"
#include "lodge/firmware_path.h"
#include "lodge/num.h"

#define UNIT (64 * KIB)

static char *make_file(const char *dir, const char *name, off_t len)
{
    char *path = g_build_filename(dir, name, NULL);
    FILE *f = g_fopen(path, "w");
    g_assert_nonnull(f);
    g_assert_cmpint(fputs("\x55\xaa", f), >=, 0);
    g_assert_cmpint(fclose(f), ==, 0);
    g_assert_cmpint(truncate(path, len), ==, 0);
    return path;
}

static void refused(const char *path, size_t unit, const char *word)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(firmware_read(path, unit, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_assert_nonnull(strstr(error->message, path));
    if (!strstr(error->message, word))
        g_error("'%s' does not say '%s'", error->message, word);
}

static void test_read(void)
{
    g_autofree char *dir = g_dir_make_tmp("lodge-fw-XXXXXX", NULL);
    g_autofree char *good = make_file(dir, "good", 2 * UNIT), *odd = make_file(dir, "odd", UNIT - 1),
                    *empty = make_file(dir, "empty", 0),
                    *most = make_file(dir, "most", FIRMWARE_MAX),
                    *large = make_file(dir, "large", FIRMWARE_MAX + 1);
    g_autofree char *fifo = g_build_filename(dir, "fifo", NULL);
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    g_autoptr(GBytes) b = firmware_read(good, UNIT, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(g_bytes_get_size(b), ==, 2 * UNIT);
    g_assert_cmpmem(g_bytes_get_data(b, NULL), 3, "\x55\xaa\0", 3);
    g_autoptr(GBytes) m = firmware_read(most, UNIT, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(g_bytes_get_size(m), ==, FIRMWARE_MAX);
    g_autoptr(GBytes) o = firmware_read(odd, 1, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(g_bytes_get_size(o), ==, UNIT - 1);
    refused(odd, UNIT, "cut off");
    refused(empty, 1, "empty");
    refused(large, 1, "at most 16 MiB");
    refused(dir, UNIT, "directory");
    refused(fifo, UNIT, "regular");
    const char *const all[] = {good, odd, empty, most, large, fifo};
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
        g_assert_cmpint(g_unlink(all[i]), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
    refused(good, UNIT, "no such file");
}

static void test_packages(void)
{
    refused("bios-of-nobody.bin", UNIT, "package seabios");
    refused("vgabios-of-nobody.bin", UNIT, "package seabios");
    refused("/nowhere/pxe-of-nobody.rom", 1, "package ipxe-qemu");
    refused("u-boot-of-nobody.rom", 1, "package u-boot-qemu");
    g_autoptr(GError) error = NULL;
    g_assert_null(firmware_find("nobody.bin", &error));
    g_assert_null(strstr(error->message, "package"));
    g_clear_error(&error);
    g_assert_null(firmware_find("", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
}

/* The distribution's folder comes before the working directory. */
static void test_order(void)
{
    g_autofree char *installed = firmware_find(FIRMWARE_BIOS, NULL);
    if (!installed) {
        g_test_skip(FIRMWARE_BIOS " is not installed");
        return;
    }
    g_assert_true(g_path_is_absolute(installed));
    g_autofree char *old = g_get_current_dir(), *dir = g_dir_make_tmp("lodge-fw-XXXXXX", NULL);
    g_autofree char *stray = make_file(dir, FIRMWARE_BIOS, UNIT);
    g_autofree char *own = make_file(dir, "nobody.bin", UNIT);
    g_assert_cmpint(g_chdir(dir), ==, 0);
    g_autofree char *again = firmware_find(FIRMWARE_BIOS, NULL);
    g_assert_cmpstr(again, ==, installed);
    g_autofree char *here = firmware_find("nobody.bin", NULL);
    g_assert_cmpstr(here, ==, "nobody.bin");
    g_assert_cmpint(g_chdir(old), ==, 0);
    g_unlink(stray);
    g_unlink(own);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/firmware-path/read", test_read);
    g_test_add_func("/firmware-path/packages", test_packages);
    g_test_add_func("/firmware-path/order", test_order);
    return g_test_run();
}
