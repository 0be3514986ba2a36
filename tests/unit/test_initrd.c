/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Made initrds: order, compression, names, what is missing; the archive's bytes; file systems. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/error.h"

#include "cpio.h"
#include "fake_kernel.h"
#include "initrd.h"

static char *dir;

static void put(const char *name, const void *data, size_t len)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *parent = g_path_get_dirname(path);
    g_assert_cmpint(g_mkdir_with_parents(parent, 0700), ==, 0);
    g_assert_true(g_file_set_contents(path, data, (gssize)len, NULL));
}

static void put_module(const char *name, UnpackFormat format)
{
    uint8_t elf[200] = "\177ELF module";
    memset(elf + 20, name[strlen(name) / 2], 100);
    g_autoptr(GByteArray) packed = fake_compress(format, elf, sizeof elf);
    put(name, packed->data, packed->len);
}

static void put_text(const char *name, const char *text)
{
    put(name, text, strlen(text));
}

static void make_tree(void)
{
    put_text("modules.dep", "kernel/a/top-mod.ko: kernel/b/mid.ko.xz kernel/c/low_one.ko.zst\n"
                            "kernel/b/mid.ko.xz: kernel/c/low_one.ko.zst\n"
                            "kernel/c/low_one.ko.zst:\n"
                            "kernel/d/sum-fast.ko.gz:\n"
                            "kernel/d/sum_generic.ko:\n"
                            "kernel/e/loop1.ko: kernel/e/loop2.ko\n"
                            "kernel/e/loop2.ko: kernel/e/loop1.ko\n"
                            "kernel/f/torn.ko.xz:\n");
    put_text("modules.builtin", "kernel/x/virtio-pci.ko\n");
    put_text("modules.softdep", "# comment\nsoftdep top_mod pre: crypto-sum post: other\n");
    put_text("modules.alias", "# comment\nalias crypto-sum sum_fast\nalias crypto-sum sum_generic\n"
                              "alias crypto-sum-more other\n");
    put_module("kernel/a/top-mod.ko", UNPACK_PLAIN);
    put_module("kernel/b/mid.ko.xz", UNPACK_XZ);
    put_module("kernel/c/low_one.ko.zst", UNPACK_ZSTD);
    put_module("kernel/d/sum-fast.ko.gz", UNPACK_GZIP);
    put_module("kernel/d/sum_generic.ko", UNPACK_PLAIN);
    put_module("kernel/e/loop1.ko", UNPACK_PLAIN);
    put_module("kernel/e/loop2.ko", UNPACK_PLAIN);
    g_autoptr(GByteArray) torn = fake_compress(UNPACK_XZ, (const uint8_t *)dir, strlen(dir));
    put("kernel/f/torn.ko.xz", torn->data, torn->len / 2);
}

/* Contents of @name in the archive, NULL if it is not there. */
static GBytes *look(int fd, const char *name, unsigned *ret_mode)
{
    struct stat st;
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_autofree char *all = g_malloc((gsize)st.st_size);
    g_assert_cmpint(pread(fd, all, (size_t)st.st_size, 0), ==, st.st_size);
    g_assert_cmpint(st.st_size % 4, ==, 0);
    for (size_t at = 0; at < (size_t)st.st_size;) {
        char field[9] = "";
        g_assert_true(!memcmp(all + at, "070701", 6));
        memcpy(field, all + at + 6 + 8, 8);
        unsigned mode = (unsigned)strtoul(field, NULL, 16);
        memcpy(field, all + at + 6 + 6 * 8, 8);
        size_t len = strtoul(field, NULL, 16);
        memcpy(field, all + at + 6 + 11 * 8, 8);
        size_t name_len = strtoul(field, NULL, 16);
        const char *this = all + at + 110;
        g_assert_cmpuint(strlen(this) + 1, ==, name_len);
        at = align_up(at + 110 + name_len, 4);
        if (!strcmp(this, name)) {
            *ret_mode = mode;
            return g_bytes_new(all + at, len);
        }
        if (!strcmp(this, "TRAILER!!!"))
            return NULL;
        at = align_up(at + len, 4);
    }
    g_assert_not_reached();
}

static void expect_text(int fd, const char *name, const char *text)
{
    unsigned mode;
    g_autoptr(GBytes) got = look(fd, name, &mode);
    g_assert_nonnull(got);
    gsize len;
    const char *data = g_bytes_get_data(got, &len);
    g_autofree char *copy = g_strndup(data, len);
    g_assert_cmpstr(copy, ==, text);
}

static void test_order(void)
{
    const char *wanted[] = {"virtio_pci", "top_mod", "?not-there", "mid", NULL};
    InitrdPlan plan = {.kernel = "/k", .version = "1.0", .modules_dir = dir, .modules = wanted,
                       .fstype = "ext4"};
    g_autoptr(GError) error = NULL;
    int fd = initrd_make(&plan, &error);
    g_assert_no_error(error);
    expect_text(fd, "modules/order",
                "sum_fast.ko ?\nsum_generic.ko ?\nlow_one.ko\nmid.ko\ntop_mod.ko\n");
    expect_text(fd, "fstype", "ext4");
    static const char *const names[] = {"sum_fast", "sum_generic", "low_one", "mid", "top_mod"};
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_strdup_printf("modules/%s.ko", names[i]);
        unsigned mode;
        g_autoptr(GBytes) data = look(fd, path, &mode);
        g_assert_nonnull(data);
        g_assert_cmpuint(g_bytes_get_size(data), ==, 200);
        g_assert_cmpmem(g_bytes_get_data(data, NULL), 11, "\177ELF module", 11);
    }
    unsigned mode;
    g_autoptr(GBytes) init = look(fd, "init", &mode);
    g_assert_cmpuint(mode, ==, S_IFREG | 0755);
    g_assert_cmpmem(g_bytes_get_data(init, NULL), 4, "\177ELF", 4);
    g_assert_cmpuint(g_bytes_get_size(init), <, 20480);
    g_autoptr(GBytes) console = look(fd, "dev/console", &mode);
    g_assert_nonnull(console);
    g_assert_cmpuint(mode, ==, S_IFCHR | 0600);
    close(fd);
}

/* Put the archive's file @name below @root. */
static void extract(int fd, const char *root, const char *name)
{
    unsigned mode;
    g_autoptr(GBytes) data = look(fd, name, &mode);
    g_autofree char *path = g_build_filename(root, name, NULL);
    g_autofree char *parent = g_path_get_dirname(path);
    gsize len = 0;
    const char *bytes = data ? g_bytes_get_data(data, &len) : NULL;
    g_assert_nonnull(bytes);
    g_assert_cmpint(g_mkdir_with_parents(parent, 0700), ==, 0);
    g_assert_true(g_file_set_contents(path, bytes, (gssize)len, NULL));
}

/* What the distribution's modprobe finds for @name below @root. */
static char *modprobe(const char *root, const char *name)
{
    char *out = NULL;
    const char *argv[] = {"/sbin/modprobe", "-d", root, "-S", "1.0", "--show-depends", name, NULL};
    if (!g_file_test(argv[0], G_FILE_TEST_IS_EXECUTABLE))
        return NULL;
    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL,
                               &out, NULL, NULL, NULL));
    return out;
}

static void expect_found(const char *root, const char *name, const char *const *files)
{
    g_autofree char *out = modprobe(root, name);
    g_autoptr(GString) want = g_string_new(NULL);
    for (; *files; files++)
        g_string_append_printf(want, "insmod %s/lib/modules/1.0/kernel/%s \n", root, *files);
    if (out)
        g_assert_cmpstr(out, ==, want->str);
    else
        g_test_message("no modprobe here: its tables are not looked at");
}

/* Of a machine run as User-Mode Linux: a folder of modules, with tables for modprobe. */
static void test_kept(void)
{
    const char *wanted[] = {"mid", NULL}, *extra[] = {"top_mod", "?not-there", NULL};
    InitrdPlan plan = {.kernel = "/k", .version = "1.0", .modules_dir = dir, .modules = wanted,
                       .keep_modules = true, .extra = extra, .ports = 3};
    g_autoptr(GError) error = NULL;
    int fd = initrd_make(&plan, &error);
    g_assert_no_error(error);
    expect_text(fd, "modules/order", "/lib/modules/1.0/kernel/c/low_one.ko\n"
                                     "/lib/modules/1.0/kernel/b/mid.ko\n");
    expect_text(fd, "ports", "3");
    expect_text(fd, "lib/modules/1.0/modules.dep",
                "kernel/c/low_one.ko:\n"
                "kernel/b/mid.ko: kernel/c/low_one.ko\n"
                "kernel/d/sum-fast.ko:\n"
                "kernel/d/sum_generic.ko:\n"
                "kernel/a/top-mod.ko: kernel/b/mid.ko kernel/c/low_one.ko\n");
    expect_text(fd, "lib/modules/1.0/modules.alias", "alias crypto-sum sum_fast\n"
                                                     "alias crypto-sum sum_generic\n");
    expect_text(fd, "lib/modules/1.0/modules.softdep",
                "softdep top_mod pre: crypto-sum post: other\n");
    static const char *const files[] = {
        "modules.dep", "modules.dep.bin", "modules.alias", "modules.alias.bin", "modules.softdep",
        "modules.builtin", "kernel/c/low_one.ko", "kernel/b/mid.ko", "kernel/a/top-mod.ko",
        "kernel/d/sum-fast.ko", "kernel/d/sum_generic.ko"};
    g_autofree char *root = g_build_filename(dir, "root", NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *name = g_strconcat("lib/modules/1.0/", files[i], NULL);
        extract(fd, root, name);
    }
    expect_found(root, "mid", (const char *[]){"c/low_one.ko", "b/mid.ko", NULL});
    expect_found(root, "sum_generic", (const char *[]){"d/sum_generic.ko", NULL});
    expect_found(root, "sum-fast", (const char *[]){"d/sum-fast.ko", NULL});
    expect_found(root, "crypto-sum", (const char *[]){"d/sum-fast.ko", "d/sum_generic.ko", NULL});
    expect_found(root, "summer", (const char *[]){NULL});
    expect_found(root, "torn", (const char *[]){NULL}); /* not in the archive */
    close(fd);
}

static void expect_error(const char *const *wanted, const char *modules, int code,
                         const char *says)
{
    InitrdPlan plan = {.kernel = "/k", .version = "1.0", .modules_dir = modules, .modules = wanted};
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(initrd_make(&plan, &error), ==, -1);
    g_assert_error(error, LODGE_ERROR, code);
    g_assert_nonnull(strstr(error->message, says));
}

static void test_errors(void)
{
    const char *missing[] = {"mid", "nothere", "also-not", NULL};
    expect_error(missing, dir, LODGE_ERROR_CONFIG, "no module nothere, also-not");
    const char *torn[] = {"torn", NULL};
    expect_error(torn, dir, LODGE_ERROR_IMAGE, "torn.ko.xz");
    expect_error(torn, "/nonexistent", LODGE_ERROR_NOT_FOUND, "has no modules.dep; ");
    const char *loop[] = {"loop1", NULL};
    InitrdPlan plan = {.kernel = "/k", .version = "1.0", .modules_dir = dir, .modules = loop};
    g_autoptr(GError) error = NULL;
    int fd = initrd_make(&plan, &error); /* ends */
    g_assert_no_error(error);
    close(fd);
}

static void test_detect_fs(void)
{
    g_autofree uint8_t *head = g_malloc0(INITRD_FS_HEAD);
    g_assert_null(initrd_detect_fs(head, INITRD_FS_HEAD));
    g_assert_null(initrd_detect_fs(head, 0));
    store_le16(head + 1024 + 56, 0xef53);
    g_assert_cmpstr(initrd_detect_fs(head, INITRD_FS_HEAD), ==, "ext4");
    g_assert_null(initrd_detect_fs(head, 1024 + 57));
    memset(head, 0, 2048);
    memcpy(head + 65600, "_BHRfS_M", 8);
    g_assert_cmpstr(initrd_detect_fs(head, INITRD_FS_HEAD), ==, "btrfs");
    memcpy(head, "XFSB", 4);
    g_assert_cmpstr(initrd_detect_fs(head, 4), ==, "xfs");
    memcpy(head, "hsqs", 4);
    g_assert_cmpstr(initrd_detect_fs(head, 4), ==, "squashfs");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("lodge-initrd-XXXXXX", NULL);
    make_tree();
    g_test_add_func("/initrd/order", test_order);
    g_test_add_func("/initrd/kept", test_kept);
    g_test_add_func("/initrd/errors", test_errors);
    g_test_add_func("/initrd/detect-fs", test_detect_fs);
    int status = g_test_run();
    g_autofree char *quoted = g_shell_quote(dir);
    g_autofree char *cmd = g_strdup_printf("rm -rf %s", quoted);
    if (!g_spawn_command_line_sync(cmd, NULL, NULL, NULL, NULL))
        status = 1;
    g_free(dir);
    return status;
}
