/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine description: set and get, order, the flat form both ways, hostile blobs, dtc. */
#include <libfdt.h>
#include <string.h>

#include <glib/gstdio.h>

#include "lodge/error.h"
#include "tree.h"

static Tree *sample(void)
{
    Tree *t = tree_new();

    tree_set_str(t, "/", "compatible", TREE_COMPATIBLE);
    tree_set_str(t, "/", "vm-name", "a \"quoted\" \\ back\xc3\xa9");
    tree_set_u64(t, "/memory", "size", UINT64_C(0x123456789000));
    tree_set_bool(t, "/memory", "shared", true);
    tree_set_u32(t, "/cpus", "count", 3);
    tree_add_str(t, "/boot", "initrd", "one");
    tree_add_str(t, "/boot", "initrd", "two,with comma");
    tree_set_str(t, "/boot", "append", "");
    tree_set_str(t, "/devices/zeta", "compatible", "x");
    tree_set_str(t, "/devices/alpha", "compatible", "y");
    return t;
}

static void check_sample(const Tree *t)
{
    g_autoptr(GPtrArray) children = tree_children(t, "/devices");
    g_auto(GStrv) list = NULL;
    uint64_t n;

    g_assert_cmpstr(tree_str(t, "/", "vm-name"), ==, "a \"quoted\" \\ back\xc3\xa9");
    g_assert_true(tree_u64(t, "/memory", "size", &n));
    g_assert_cmphex(n, ==, UINT64_C(0x123456789000));
    g_assert_true(tree_u64(t, "/cpus", "count", &n));
    g_assert_cmpuint(n, ==, 3);
    g_assert_true(tree_has(t, "/memory", "shared"));
    g_assert_false(tree_has(t, "/memory", "prefault"));
    g_assert_cmpuint(tree_strv(t, "/boot", "initrd", &list), ==, 2);
    g_assert_cmpstr(list[1], ==, "two,with comma");
    g_assert_cmpstr(tree_str(t, "/boot", "append"), ==, "");
    g_assert_cmpuint(children->len, ==, 2);
    g_assert_cmpstr(g_ptr_array_index(children, 0), ==, "zeta");
    g_assert_cmpstr(g_ptr_array_index(children, 1), ==, "alpha");
}

static void test_set(void)
{
    g_autoptr(Tree) t = sample();
    g_autofree char *deep = g_strdup("/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a");
    uint64_t n;

    check_sample(t);
    g_assert_null(tree_str(t, "/memory", "size"));
    g_assert_null(tree_str(t, "/nowhere", "x"));
    g_assert_false(tree_u64(t, "/boot", "kernel", &n));
    g_assert_false(tree_set_str(t, "relative", "x", "y"));
    g_assert_false(tree_set_str(t, "/bad name", "x", "y"));
    g_assert_false(tree_set_str(t, "/devices", "bad prop", "y"));
    g_assert_false(tree_set_str(t, "/devices", "name", "y"));
    g_assert_false(tree_set_str(t, deep, "x", "y"));
    g_assert_false(tree_has(t, "/a", NULL));
    tree_set_bool(t, "/memory", "shared", false);
    g_assert_false(tree_has(t, "/memory", "shared"));
    tree_remove(t, "/devices/zeta", NULL);
    g_assert_false(tree_has(t, "/devices/zeta", NULL));
    g_assert_true(tree_has(t, "/devices/alpha", NULL));
}

static void test_graft(void)
{
    g_autoptr(Tree) t = sample(), to = tree_new();
    g_autoptr(GError) error = NULL;
    size_t len;

    g_assert_true(tree_graft(to, "/x/devices", t, "/devices"));
    g_assert_cmpstr(tree_str(to, "/x/devices/alpha", "compatible"), ==, "y");
    tree_set_str(to, "/x/devices/alpha", "more", "1");
    g_assert_true(tree_graft(to, "/x/devices/alpha", t, "/devices/alpha")); /* in its place */
    g_assert_false(tree_has(to, "/x/devices/alpha", "more"));
    g_assert_false(tree_graft(to, "/y", t, "/nowhere"));
    g_assert_false(tree_graft(to, "relative", t, "/boot"));
    g_assert_false(tree_has(to, "/y", NULL));
    g_assert_true(tree_graft(to, "/boot", t, "/boot") && tree_graft(to, "/memory", t, "/memory") &&
                  tree_graft(to, "/cpus", t, "/cpus") && tree_graft(to, "/devices", t, "/devices"));
    tree_set_str(to, "/", "vm-name", tree_str(t, "/", "vm-name"));
    check_sample(to);
    const void *blob = tree_blob(to, &len);
    g_autoptr(Tree) back = tree_from_blob(blob, len, &error);
    g_assert_no_error(error);
    check_sample(back);
}

static void test_ceilings(void)
{
    g_autoptr(Tree) t = tree_new();
    unsigned made = 0;

    for (unsigned i = 0; i < 5000; i++) {
        g_autofree char *path = g_strdup_printf("/n%u", i);

        made += tree_add_node(t, path);
    }
    g_assert_cmpuint(made, ==, 4095); /* and the root */
    made = 0;
    for (unsigned i = 0; i < 300; i++) {
        g_autofree char *prop = g_strdup_printf("p%u", i);

        made += tree_set_u32(t, "/n1", prop, i);
    }
    g_assert_cmpuint(made, ==, 256);
}

static void test_blob(void)
{
    g_autoptr(Tree) t = sample(), back = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *a = tree_source(t), *b = NULL;
    size_t len;
    const void *blob = tree_blob(t, &len);

    g_assert_nonnull(blob);
    g_assert_cmpint(fdt_check_full(blob, len), ==, 0);
    back = tree_from_blob(blob, len, &error);
    g_assert_no_error(error);
    check_sample(back);
    b = tree_source(back);
    g_assert_cmpstr(a, ==, b);
}

/* Text may be any bytes, as files' names are; but not what would come back as a number. */
static void test_bytes(void)
{
    static const char *const whole[] = {"\xff", "\xff\xfe", "abc", "/\xff/x", "/a\nb\xff", "/dev/x1", "/a/bb\xff/c", ""};
    static const char *const numbers[] = {"a\xff" "1", "\n\n\n", "/tmp/\xff" "1"};
    g_autoptr(Tree) t = tree_new();
    g_autoptr(GError) error = NULL;
    size_t len;

    for (unsigned i = 0; i < G_N_ELEMENTS(whole); i++) {
        g_autofree char *prop = g_strdup_printf("p%u", i);
        g_assert_true(tree_set_str(t, "/x", prop, whole[i]));
        g_assert_true(!whole[i][0] || tree_add_str(t, "/x", "all", whole[i]));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(numbers); i++)
        g_assert_false(tree_set_str(t, "/x", "number", numbers[i]));
    g_assert_false(tree_has(t, "/x", "number"));
    const void *blob = tree_blob(t, &len);
    g_autoptr(Tree) back = tree_from_blob(blob, len, &error);
    g_assert_no_error(error);
    for (unsigned i = 0; i < G_N_ELEMENTS(whole); i++) {
        g_autofree char *prop = g_strdup_printf("p%u", i);
        g_assert_cmpstr(tree_str(back, "/x", prop), ==, whole[i]);
    }
    g_auto(GStrv) all = NULL;
    g_assert_cmpuint(tree_strv(back, "/x", "all", &all), ==, G_N_ELEMENTS(whole) - 1);
    g_assert_cmpstr(all[1], ==, "\xff\xfe");
}

/* Each cut and each changed byte is either refused or gives a tree that can be walked. */
static void test_hostile(void)
{
    g_autoptr(Tree) t = sample();
    size_t len;
    const uint8_t *blob = tree_blob(t, &len);

    for (size_t cut = 0; cut < len; cut++) {
        g_autoptr(GError) error = NULL;
        g_autofree uint8_t *part = g_memdup2(blob, MAX(cut, 1));
        g_autoptr(Tree) back = tree_from_blob(part, cut, &error);

        g_assert_null(back);
        g_assert_nonnull(error);
    }
    for (size_t at = 0; at < len; at++) {
        for (unsigned v = 1; v < 256; v = v * 2 + 1) {
            g_autoptr(GError) error = NULL;
            g_autofree uint8_t *copy = g_memdup2(blob, len);
            g_autoptr(Tree) back = NULL;

            copy[at] ^= (uint8_t)v;
            back = tree_from_blob(copy, len, &error);
            g_assert_true((back == NULL) == (error != NULL));
            if (back)
                g_free(tree_source(back));
        }
    }
}

static void make_deep(void *fdt, unsigned depth, const char *twice)
{
    g_assert_cmpint(fdt_create(fdt, 65536), ==, 0);
    g_assert_cmpint(fdt_finish_reservemap(fdt), ==, 0);
    fdt_begin_node(fdt, "");
    for (unsigned i = 0; i < depth; i++)
        fdt_begin_node(fdt, "n");
    for (unsigned i = 0; i < depth; i++)
        fdt_end_node(fdt);
    if (twice) {
        for (unsigned i = 0; i < 2; i++) {
            fdt_begin_node(fdt, twice);
            fdt_end_node(fdt);
        }
    }
    fdt_end_node(fdt);
    g_assert_cmpint(fdt_finish(fdt), ==, 0);
}

static void test_refused(void)
{
    g_autofree void *fdt = g_malloc0(65536);
    g_autoptr(GError) error = NULL;

    make_deep(fdt, 17, NULL);
    g_assert_null(tree_from_blob(fdt, 65536, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_clear_error(&error);
    make_deep(fdt, 1, "twin");
    g_assert_null(tree_from_blob(fdt, 65536, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
    g_clear_error(&error);
    make_deep(fdt, 1, "bad name\n");
    g_assert_null(tree_from_blob(fdt, 65536, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
}

static void test_dtc(void)
{
    g_autoptr(Tree) t = sample(), back = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *source = tree_source(t), *dtc = g_find_program_in_path("dtc");
    g_autofree char *dts = NULL, *dtb = NULL, *bytes = NULL, *dir = NULL;
    gsize len;
    int status;

    if (!dtc) {
        g_test_skip("dtc is not installed");
        return;
    }
    dir = g_dir_make_tmp("lodge-test-XXXXXX", &error);
    g_assert_no_error(error);
    dts = g_build_filename(dir, "a.dts", NULL);
    dtb = g_build_filename(dir, "a.dtb", NULL);
    g_assert_true(g_file_set_contents(dts, source, -1, &error));
    const char *argv[] = {dtc, "-q", "-I", "dts", "-O", "dtb", "-o", dtb, dts, NULL};
    g_assert_true(
        g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, NULL, NULL, &status, &error));
    g_assert_cmpint(status, ==, 0);
    g_assert_true(g_file_get_contents(dtb, &bytes, &len, &error));
    back = tree_from_blob(bytes, len, &error);
    g_assert_no_error(error);
    check_sample(back);
    g_remove(dts);
    g_remove(dtb);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/tree/set", test_set);
    g_test_add_func("/tree/graft", test_graft);
    g_test_add_func("/tree/ceilings", test_ceilings);
    g_test_add_func("/tree/blob", test_blob);
    g_test_add_func("/tree/bytes", test_bytes);
    g_test_add_func("/tree/hostile", test_hostile);
    g_test_add_func("/tree/refused", test_refused);
    g_test_add_func("/tree/dtc", test_dtc);
    return g_test_run();
}
