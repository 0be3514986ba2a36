/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The cache of unpacked kernels: hits, damage anywhere, changed kernels, the cap, bad folders. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/mem.h"

#include "boot.h"
#include "fake_kernel.h"
#include "kernel_cache.h"

enum { RAM = 64 << 20 };

static char *dir, *cache, *kernel;

static void write_kernel(uint8_t mark)
{
    g_autoptr(GByteArray) payload = fake_payload(3);
    payload->data[FAKE_TEXT_AT + 7] = mark;
    g_autoptr(GByteArray) image = fake_bzimage(UNPACK_LZ4, payload);
    g_assert_true(g_file_set_contents(kernel, (char *)image->data, image->len, NULL));
    /* An old file: only such ones are stored. The change time is the kernel's to set: wait. */
    for (;;) {
        KernelKey key;
        int fd = open(kernel, O_RDONLY);
        g_assert_true(kernel_cache_key(fd, &key));
        close(fd);
        if (key.settled)
            break;
        g_usleep(50000);
    }
}

/* One start; returns whether the bytes came from the cache. */
static bool start(uint8_t mark)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BootImage) b =
        boot_open(&(BootSpec){.kernel = kernel, .cache_dir = cache, .kaslr_off = true}, &error);
    g_assert_no_error(error);
    g_autoptr(MemMap) m = mem_map_new();
    MemBlock *ram = mem_block_new("ram", RAM, 0, &error);
    g_assert_no_error(error);
    g_assert_true(mem_map_add(m, ram, 0, 0, RAM, NULL));
    BootLayout l = {.ram_below_4g = RAM};
    BootCpu cpu;
    boot_load(b, m, &l, &cpu, &error);
    g_assert_no_error(error);
    uint8_t got[FAKE_TEXT_LEN], want[FAKE_TEXT_LEN];
    g_autoptr(GByteArray) payload = fake_payload(3);
    memcpy(want, payload->data + FAKE_TEXT_AT, sizeof want);
    want[7] = mark;
    g_assert_true(mem_read(m, cpu.rip, got, sizeof got));
    g_assert_cmpmem(got, sizeof got, want, sizeof want);
    return strstr(boot_describe(b), "unpacked before") != NULL;
}

/* Names in the cache folder, hidden ones too; @ret_path: of the last entry. */
static unsigned entries(char **ret_path)
{
    g_autoptr(GDir) d = g_dir_open(cache, 0, NULL);
    unsigned n = 0;
    for (const char *name; d && (name = g_dir_read_name(d));) {
        n++;
        g_assert_cmpuint(strlen(name), ==, KERNEL_KEY_HEX);
        if (ret_path) {
            g_free(*ret_path);
            *ret_path = g_build_filename(cache, name, NULL);
        }
    }
    return n;
}

static void wipe(void)
{
    g_autofree char *path = NULL;
    while (entries(&path))
        g_assert_cmpint(g_unlink(path), ==, 0);
    g_rmdir(cache);
}

static void test_hit(void)
{
    write_kernel(1);
    g_assert_false(start(1));
    g_assert_true(start(1));
    g_autofree char *path = NULL;
    g_assert_cmpuint(entries(&path), ==, 1);
    struct stat st;
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 0777, ==, 0600);
    g_assert_cmpint(stat(cache, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 0777, ==, 0700);
    /* Changed in place: another kernel, no old bytes. */
    write_kernel(2);
    g_assert_false(start(2));
    g_assert_true(start(2));
    wipe();
}

/* From here on the kernel is the one that test_hit() wrote last. */
static void test_damage(void)
{
    g_assert_false(start(2));
    g_autofree char *path = NULL;
    g_assert_cmpuint(entries(&path), ==, 1);
    g_autofree char *good = NULL;
    gsize len = 0;
    g_assert_true(g_file_get_contents(path, &good, &len, NULL));
    /* In the header and its two extents, in the bytes, and by cutting it short. */
    enum { HEADER_SPOTS = 8, DATA_SPOTS = 8, CUTS = 4, HEADER_STEP = 29, DATA_AT = 4096 };
    for (unsigned i = 0; i < HEADER_SPOTS + DATA_SPOTS + CUTS; i++) {
        g_autofree char *hurt = g_memdup2(good, len);
        size_t cut = len;
        if (i < HEADER_SPOTS)
            hurt[i * HEADER_STEP] ^= 1;
        else if (i < HEADER_SPOTS + DATA_SPOTS)
            hurt[DATA_AT + (len - DATA_AT) / DATA_SPOTS * (i - HEADER_SPOTS)] ^= 0x40;
        else
            cut = len * (i - HEADER_SPOTS - DATA_SPOTS) / CUTS;
        g_assert_true(g_file_set_contents(path, hurt, (gssize)cut, NULL));
        g_assert_cmpint(chmod(path, 0600), ==, 0);
        g_assert_false(start(2));
        g_assert_true(start(2));
        g_assert_cmpuint(entries(NULL), ==, 1);
    }
    wipe();
}

static void test_cap(void)
{
    g_autoptr(GByteArray) payload = fake_payload(3);
    UnpackBuf buf = {0};
    g_assert_true(
        unpack(UNPACK_PLAIN, payload->data, payload->len, 0, UNPACK_MAX_SIZE, &buf, NULL));
    g_auto(KernelImage) k = {.fd = -1};
    g_autoptr(GError) error = NULL;
    kernel_image_parse(&buf, FAKE_PREF, &k, &error);
    g_assert_no_error(error);
    KernelKey key = {.settled = true};
    uint64_t max = 3 * payload->len;
    for (unsigned i = 0; i < 6; i++) {
        memset(key.hex, 'a' + (int)i, KERNEL_KEY_HEX);
        g_assert_true(kernel_cache_store(cache, &key, &k, max));
        g_auto(KernelImage) got = {.fd = -1};
        g_assert_true(kernel_cache_open(cache, &key, &got));
        g_assert_cmpuint(got.span, ==, k.span);
        /* the first stays the most recently used */
        memset(key.hex, 'a', KERNEL_KEY_HEX);
        g_auto(KernelImage) first = {.fd = -1};
        g_assert_true(kernel_cache_open(cache, &key, &first));
    }
    g_autoptr(GDir) d = g_dir_open(cache, 0, NULL);
    uint64_t total = 0;
    for (const char *name; (name = g_dir_read_name(d));) {
        g_autofree char *path = g_build_filename(cache, name, NULL);
        struct stat st;
        g_assert_cmpint(stat(path, &st), ==, 0);
        total += (uint64_t)st.st_size;
    }
    g_assert_cmpuint(total, <=, max);
    /* An entry larger than everything is not stored; an unsettled one neither. */
    memset(key.hex, 'z', KERNEL_KEY_HEX);
    g_assert_false(kernel_cache_store(cache, &key, &k, payload->len - 1));
    key.settled = false;
    g_assert_false(kernel_cache_store(cache, &key, &k, max));
    wipe();
}

static void test_unusable(void)
{
    /* A file where the folder should be; a folder that all may write: no cache, no error. */
    g_assert_true(g_file_set_contents(cache, "x", 1, NULL));
    g_assert_false(start(2));
    g_assert_false(start(2));
    g_unlink(cache);
    g_assert_cmpint(g_mkdir(cache, 0700), ==, 0);
    g_assert_cmpint(chmod(cache, 0777), ==, 0);
    g_assert_false(start(2));
    g_assert_false(start(2));
    g_assert_cmpuint(entries(NULL), ==, 0);
    g_assert_cmpint(chmod(cache, 0700), ==, 0);
    g_assert_false(start(2));
    g_assert_true(start(2));
    /* An entry that others may write is not believed. */
    g_autofree char *path = NULL;
    g_assert_cmpuint(entries(&path), ==, 1);
    g_assert_cmpint(chmod(path, 0666), ==, 0);
    g_assert_false(start(2));
    wipe();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("lodge-cache-XXXXXX", NULL);
    cache = g_build_filename(dir, "kernel", NULL);
    kernel = g_build_filename(dir, "vmlinuz", NULL);
    g_test_add_func("/kernel-cache/hit", test_hit);
    g_test_add_func("/kernel-cache/damage", test_damage);
    g_test_add_func("/kernel-cache/cap", test_cap);
    g_test_add_func("/kernel-cache/unusable", test_unusable);
    int status = g_test_run();
    g_unlink(kernel);
    g_rmdir(dir);
    g_free(cache);
    g_free(kernel);
    g_free(dir);
    return status;
}
