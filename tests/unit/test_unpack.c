/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Decompression: every format round trip, sizes that lie, damage at every kind of place. */
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/error.h"

#include "fake_kernel.h"

enum { BIG = 9 << 20, SMALL = 70000 };

static GByteArray *sample(size_t len)
{
    GByteArray *a = g_byte_array_new();
    g_byte_array_set_size(a, (guint)len);
    uint32_t v = 1;
    for (size_t i = 0; i < len; i++) {
        v = v * 1664525 + 1013904223;
        a->data[i] = (v >> 24) < 128 ? 'x' : (uint8_t)(v >> 16);
    }
    return a;
}

static const UnpackFormat formats[] = {UNPACK_PLAIN, UNPACK_GZIP, UNPACK_BZIP2, UNPACK_LZMA,
                                       UNPACK_XZ,    UNPACK_LZ4,  UNPACK_ZSTD};

static void test_round_trip(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        size_t len = formats[i] == UNPACK_LZ4 ? BIG : SMALL; /* more than one block */
        g_autoptr(GByteArray) plain = sample(len);
        memcpy(plain->data, "\177ELF", 4);
        g_autoptr(GByteArray) packed = fake_compress(formats[i], plain->data, plain->len);
        g_assert_cmpint(unpack_detect(packed->data, packed->len), ==, formats[i]);
        for (unsigned known = 0; known < 2; known++) {
            g_autoptr(GError) error = NULL;
            g_auto(UnpackBuf) buf = {0};
            unpack(formats[i], packed->data, packed->len, known ? len : 0, 64 << 20, &buf, &error);
            g_assert_no_error(error);
            g_assert_cmpmem(buf.data, buf.len, plain->data, plain->len);
        }
    }
}

static void test_wrong_size(void)
{
    g_autoptr(GByteArray) plain = sample(SMALL);
    for (unsigned i = 1; i < G_N_ELEMENTS(formats); i++) {
        g_autoptr(GByteArray) packed = fake_compress(formats[i], plain->data, plain->len);
        for (int off = -1; off <= 1; off += 2) {
            g_autoptr(GError) error = NULL;
            g_auto(UnpackBuf) buf = {0};
            g_assert_false(unpack(formats[i], packed->data, packed->len, (uint64_t)(SMALL + off),
                                  64 << 20, &buf, &error));
            g_assert_true(error->domain == LODGE_ERROR);
            g_assert_null(buf.data);
        }
        g_autoptr(GError) error = NULL;
        g_auto(UnpackBuf) buf = {0};
        g_assert_false(
            unpack(formats[i], packed->data, packed->len, 0, SMALL - 5000, &buf, &error));
        g_assert_nonnull(error);
    }
}

static void test_truncated(void)
{
    g_autoptr(GByteArray) plain = sample(SMALL);
    for (unsigned i = 1; i < G_N_ELEMENTS(formats); i++) {
        g_autoptr(GByteArray) packed = fake_compress(formats[i], plain->data, plain->len);
        const size_t lens[] = {0, 1, 5, 7, packed->len / 2, packed->len - 9};
        for (unsigned k = 0; k < G_N_ELEMENTS(lens); k++) {
            g_autoptr(GError) error = NULL;
            g_auto(UnpackBuf) buf = {0};
            g_autofree uint8_t *exact = g_memdup2(packed->data, MAX(lens[k], 1));
            g_assert_false(
                unpack(formats[i], exact, lens[k], SMALL, UNPACK_MAX_SIZE, &buf, &error));
            g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
        }
    }
}

static void test_refused(void)
{
    g_autoptr(GError) error = NULL;
    g_auto(UnpackBuf) buf = {0};
    g_assert_cmpint(unpack_detect("\211LZO\0\r\n\032\n", 9), ==, UNPACK_LZO);
    g_assert_cmpint(unpack_detect("abc", 3), ==, UNPACK_UNKNOWN);
    g_assert_false(unpack(UNPACK_LZO, "x", 1, 1, 10, &buf, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED);
    g_clear_error(&error);
    g_assert_false(unpack(UNPACK_XZ, "x", 1, UINT64_MAX, UINT64_MAX, &buf, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_clear_error(&error);
    g_assert_null(dynlib_open("libnothere.so.7", "libnothere7", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED);
    g_assert_nonnull(strstr(error->message, "install the package libnothere7"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/unpack/round-trip", test_round_trip);
    g_test_add_func("/unpack/wrong-size", test_wrong_size);
    g_test_add_func("/unpack/truncated", test_truncated);
    g_test_add_func("/unpack/refused", test_refused);
    return g_test_run();
}
