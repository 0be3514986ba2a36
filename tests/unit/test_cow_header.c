/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The header of UML's COW files: layouts of every version, refusals. */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "cow_header.h"

static uint8_t head[COW_HEADER_MAX];

static void refused(size_t len, int code, const char *text)
{
    g_autoptr(GError) error = NULL;
    CowLayout l;

    g_assert_false(cow_header_parse(head, len, "x.cow", &l, &error));
    g_assert_error(error, LODGE_ERROR, code);
    g_assert_nonnull(strstr(error->message, text));
}

/* The example of the interoperation notes: 70000 bytes -> 8192, 18, 12288. */
static void test_v3(void)
{
    CowLayout l, back;
    g_autoptr(GError) error = NULL;

    g_assert_true(cow_layout_init("/srv/base.img", 70000, 0x12345678, &l, &error));
    g_assert_cmpuint(l.bitmap_offset, ==, 8192);
    g_assert_cmpuint(l.bitmap_len, ==, 18);
    g_assert_cmpuint(l.data_offset, ==, 12288);
    size_t len = cow_header_build(&l, head);
    g_assert_cmpuint(len, ==, 4128);
    g_assert_cmpmem(head, 8, "OOOM\0\0\0\3", 8);
    g_assert_cmpuint(load_be32(head + 8), ==, 0x12345678);
    g_assert_cmpuint(load_be64(head + 12), ==, 70000);
    g_assert_cmpuint(load_be32(head + 20), ==, 512);
    g_assert_cmpuint(load_be32(head + 24), ==, 4096);
    g_assert_cmpstr((char *)head + 32, ==, "/srv/base.img");
    g_assert_true(cow_header_parse(head, len, "x.cow", &back, &error));
    g_assert_cmpuint(back.kind, ==, COW_V3);
    g_assert_cmpuint(back.data_offset, ==, 12288);
    g_assert_cmpstr(back.backing, ==, "/srv/base.img");
    store_be32(head + 24, 512);
    g_assert_true(cow_header_parse(head, len, "x.cow", &back, &error));
    g_assert_cmpuint(back.bitmap_offset, ==, 4608);
}

static void test_old(void)
{
    static const struct {
        CowKind kind;
        uint64_t header, bitmap, data;
    } want[] = {
        {COW_V1, 280, 280, 512},
        {COW_V2, 4120, 4120, 4608},
        {COW_V3_BROKEN, 4136, 8192, 12288},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++) {
        CowLayout l, back;
        g_autoptr(GError) error = NULL;
        g_assert_true(cow_layout_init("/b", 70000, 77, &l, &error));
        l.kind = want[i].kind;
        g_assert_cmpuint(cow_header_build(&l, head), ==, want[i].header);
        g_assert_true(cow_header_parse(head, want[i].header, "x.cow", &back, &error));
        g_assert_no_error(error);
        g_assert_cmpuint(back.kind, ==, want[i].kind);
        g_assert_cmpuint(back.mtime, ==, 77);
        g_assert_cmpuint(back.size, ==, 70000);
        g_assert_cmpuint(back.bitmap_offset, ==, want[i].bitmap);
        g_assert_cmpuint(back.data_offset, ==, want[i].data);
        refused(want[i].header - 1, LODGE_ERROR_IMAGE, "ends at offset");
    }
}

static void test_refused(void)
{
    CowLayout l;
    size_t len;

    g_assert_true(cow_layout_init("/b", 4096, 1, &l, NULL));
    len = cow_header_build(&l, head);
    refused(7, LODGE_ERROR_IMAGE, "no COW header");
    store_be32(head + 4, 4);
    refused(len, LODGE_ERROR_UNSUPPORTED, "version 4");
    cow_header_build(&l, head);
    store_be32(head + 24, 0);
    refused(len, LODGE_ERROR_IMAGE, "alignment 0");
    store_be32(head + 24, 3 << 20);
    refused(len, LODGE_ERROR_IMAGE, "alignment");
    store_be32(head + 24, 8);
    refused(len, LODGE_ERROR_IMAGE, "below a sector");
    cow_header_build(&l, head);
    store_be32(head + 20, 1024);
    refused(len, LODGE_ERROR_UNSUPPORTED, "1024");
    cow_header_build(&l, head);
    store_be64(head + 12, 0);
    refused(len, LODGE_ERROR_IMAGE, "disk size 0");
    store_be64(head + 12, UINT64_MAX);
    refused(len, LODGE_ERROR_IMAGE, "disk size");
    cow_header_build(&l, head);
    memset(head + 32, 'a', 4096);
    refused(len, LODGE_ERROR_IMAGE, "not terminated");
    cow_header_build(&l, head);
    store_be32(head + 28, 1);
    refused(len, LODGE_ERROR_UNSUPPORTED, "format 1");
    g_autofree char *lengthy = g_strnfill(5000, 'x');
    g_autoptr(GError) error = NULL;
    g_assert_false(cow_layout_init(lengthy, 1, 1, &l, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cow-header/v3", test_v3);
    g_test_add_func("/cow-header/old", test_old);
    g_test_add_func("/cow-header/refused", test_refused);
    return g_test_run();
}
