/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FAKE_KERNEL_H
#define LODGE_FAKE_KERNEL_H

/* A tiny bzImage with everything that Lodge looks at: header, compressed ELF, relocation lists. */

#include <elf.h>
#include <string.h>

#include <glib.h>
#include <glib/gstdio.h>

#include "lodge/dynlib.h"
#include "lodge/num.h"

#include "unpack.h"

enum {
    FAKE_PREF = 0x1000000,
    FAKE_INIT_SIZE = 0x600000,
    FAKE_TEXT_AT = 0x200000, /* offset of the first segment in the ELF file */
    FAKE_TEXT_LEN = 0x3000,
    FAKE_DATA_LEN = 0x1000, /* second segment, a megabyte up in memory */
    FAKE_DATA_UP = 0x100000,
    FAKE_WORD32 = 0x100,  /* offsets in the text segment of the words to relocate */
    FAKE_WORD_INV = 0x200,
    FAKE_WORD64 = 0x300,
};

/* ELF part plus relocation lists; @lists 2 or 3, 0: none. */
static inline GByteArray *fake_payload(unsigned lists)
{
    GByteArray *a = g_byte_array_new();
    size_t sections = FAKE_TEXT_AT + FAKE_TEXT_LEN + FAKE_DATA_LEN;
    size_t end = sections + 2 * sizeof(Elf64_Shdr);
    g_byte_array_set_size(a, (guint)end);
    memset(a->data, 0, end);
    Elf64_Ehdr eh = {.e_type = ET_EXEC,
                     .e_machine = EM_X86_64,
                     .e_entry = FAKE_PREF,
                     .e_phoff = sizeof eh,
                     .e_phnum = 2,
                     .e_phentsize = sizeof(Elf64_Phdr),
                     .e_shoff = sections,
                     .e_shnum = 2,
                     .e_shentsize = sizeof(Elf64_Shdr)};
    memcpy(eh.e_ident, ELFMAG, SELFMAG);
    eh.e_ident[EI_CLASS] = ELFCLASS64;
    eh.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(a->data, &eh, sizeof eh);
    Elf64_Phdr ph[2] = {
        {.p_type = PT_LOAD,
         .p_offset = FAKE_TEXT_AT,
         .p_paddr = FAKE_PREF,
         .p_filesz = FAKE_TEXT_LEN,
         .p_memsz = FAKE_TEXT_LEN},
        {.p_type = PT_LOAD,
         .p_offset = FAKE_TEXT_AT + FAKE_TEXT_LEN,
         .p_paddr = FAKE_PREF + FAKE_DATA_UP,
         .p_filesz = FAKE_DATA_LEN,
         .p_memsz = 2 * FAKE_DATA_LEN},
    };
    memcpy(a->data + sizeof eh, ph, sizeof ph);
    for (unsigned i = 0; i < FAKE_TEXT_LEN + FAKE_DATA_LEN; i++)
        a->data[FAKE_TEXT_AT + i] = (uint8_t)(i * 7 + (i >> 8) + 1);
    store_le32(a->data + FAKE_TEXT_AT + FAKE_WORD32, 0x81000040);
    store_le32(a->data + FAKE_TEXT_AT + FAKE_WORD_INV, 0x10000000);
    store_le64(a->data + FAKE_TEXT_AT + FAKE_WORD64, 0xffffffff81000080u);
    uint32_t base = 0x80000000u + FAKE_PREF;
    uint32_t three[] = {0, base + FAKE_WORD64, 0, base + FAKE_WORD_INV, 0, base + FAKE_WORD32};
    uint32_t two[] = {0, base + FAKE_WORD64, 0, base + FAKE_WORD32};
    if (lists == 3)
        g_byte_array_append(a, (uint8_t *)three, sizeof three);
    else if (lists == 2)
        g_byte_array_append(a, (uint8_t *)two, sizeof two);
    return a;
}

/* Compress by the library itself, called as fake_unpack's counterpart. */
static inline GByteArray *fake_compress(UnpackFormat format, const uint8_t *src, size_t len)
{
    GByteArray *out = g_byte_array_new();
    size_t cap = len + len / 8 + 4096;
    g_byte_array_set_size(out, (guint)cap);
    size_t done = 0;
    g_autoptr(GError) error = NULL;
    g_autoptr(DynLib) lib = NULL;
#define FAKE_LIB(soname)                                                                          \
    do {                                                                                          \
        lib = dynlib_open(soname, "?", &error);                                                   \
        g_assert_no_error(error);                                                                 \
    } while (0)
    if (format == UNPACK_XZ) {
        FAKE_LIB("liblzma.so.5");
        int (*run)(uint32_t, int, const void *, const uint8_t *, size_t, uint8_t *, size_t *,
                   size_t) = dynlib_sym(lib, "lzma_easy_buffer_encode", NULL);
        g_assert_cmpint(run(1, 1 /* CRC32 */, NULL, src, len, out->data, &done, cap), ==, 0);
    } else if (format == UNPACK_ZSTD) {
        FAKE_LIB("libzstd.so.1");
        size_t (*run)(void *, size_t, const void *, size_t, int) =
            dynlib_sym(lib, "ZSTD_compress", NULL);
        done = run(out->data, cap, src, len, 1);
    } else if (format == UNPACK_BZIP2) {
        FAKE_LIB("libbz2.so.1.0");
        int (*run)(char *, unsigned *, char *, unsigned, int, int, int) =
            dynlib_sym(lib, "BZ2_bzBuffToBuffCompress", NULL);
        unsigned n = (unsigned)cap;
        g_assert_cmpint(run((char *)out->data, &n, (char *)src, (unsigned)len, 1, 0, 0), ==, 0);
        done = n;
    } else if (format == UNPACK_LZ4) {
        FAKE_LIB("liblz4.so.1");
        int (*run)(const char *, char *, int, int) = dynlib_sym(lib, "LZ4_compress_default", NULL);
        store_le32(out->data, 0x184c2102);
        done = 4;
        for (size_t at = 0; at < len; at += 8 << 20) {
            int piece = (int)MIN(len - at, 8u << 20);
            int n = run((const char *)src + at, (char *)out->data + done + 4, piece,
                        (int)(cap - done - 4));
            g_assert_cmpint(n, >, 0);
            store_le32(out->data + done, (uint32_t)n);
            done += 4 + (size_t)n;
        }
    } else if (format == UNPACK_PLAIN) {
        memcpy(out->data, src, len);
        done = len;
    } else {
        /* gzip and lzma have no one-call encoder: their programs do it. */
        g_autofree char *in = NULL;
        int fd = g_file_open_tmp("lodge-test-XXXXXX", &in, &error);
        g_assert_no_error(error);
        g_close(fd, NULL);
        g_assert_true(g_file_set_contents(in, (const char *)src, (gssize)len, NULL));
        g_autofree char *cmd = g_strdup_printf(
            format == UNPACK_GZIP ? "gzip -1 -c %s" : "xz --format=lzma -1 -c %s", in);
        const char *argv[] = {"sh", "-c", cmd, NULL};
        int pipe_fd = -1, status = -1;
        GPid pid;
        g_assert_true(g_spawn_async_with_pipes(NULL, (char **)argv, NULL,
                                               G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                                               NULL, NULL, &pid, NULL, &pipe_fd, NULL, NULL));
        for (ssize_t n; (n = read(pipe_fd, out->data + done, cap - done)) > 0;)
            done += (size_t)n;
        g_close(pipe_fd, NULL);
        waitpid(pid, &status, 0);
        g_assert_cmpint(status, ==, 0);
        g_unlink(in);
    }
#undef FAKE_LIB
    g_byte_array_set_size(out, (guint)done);
    return out;
}

/* A bzImage around @payload, compressed as @format. */
static inline GByteArray *fake_bzimage(UnpackFormat format, GByteArray *payload)
{
    enum { SETUP_SECTS = 3, PAYLOAD_AT = 0x2c0 };
    g_autoptr(GByteArray) packed = fake_compress(format, payload->data, payload->len);
    if (format != UNPACK_GZIP && format != UNPACK_PLAIN) {
        uint8_t size[4];
        store_le32(size, payload->len);
        g_byte_array_append(packed, size, sizeof size);
    }
    size_t body = (SETUP_SECTS + 1) * 512;
    size_t len = align_up(body + PAYLOAD_AT + packed->len, 16);
    GByteArray *a = g_byte_array_new();
    g_byte_array_set_size(a, (guint)len);
    memset(a->data, 0, len);
    uint8_t *h = a->data;
    h[0x1f1] = SETUP_SECTS;
    store_le32(h + 0x1f4, (uint32_t)((len - body) / 16));
    store_le16(h + 0x1fe, 0xaa55);
    h[0x201] = 0x6a;
    store_le32(h + 0x202, 0x53726448);
    store_le16(h + 0x206, 0x20f);
    store_le16(h + 0x20e, 0x300);
    h[0x211] = 1;
    store_le32(h + 0x22c, 0x7fffffff);
    store_le32(h + 0x230, 0x200000);
    h[0x234] = 1;
    store_le16(h + 0x236, 1);
    store_le32(h + 0x238, 2047);
    store_le32(h + 0x248, PAYLOAD_AT);
    store_le32(h + 0x24c, packed->len);
    store_le64(h + 0x258, FAKE_PREF);
    store_le32(h + 0x260, FAKE_INIT_SIZE);
    strcpy((char *)h + 0x500, "9.9.9-fake (me@here) #1");
    memcpy(h + body + PAYLOAD_AT, packed->data, packed->len);
    return a;
}

#endif
