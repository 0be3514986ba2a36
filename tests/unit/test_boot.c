/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Boot protocols: made kernels of every shape, the host's own, and files that are no kernels. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/mem.h"

#include "boot.h"
#include "fake_kernel.h"

enum { RAM = 256 << 20 };

static char *dir; /* scratch folder of this run */

static char *put(const char *name, const void *data, size_t len)
{
    char *path = g_build_filename(dir, name, NULL);
    g_assert_true(g_file_set_contents(path, data, (gssize)len, NULL));
    return path;
}

static MemMap *make_ram(uint64_t low, uint64_t high)
{
    MemMap *m = mem_map_new();
    g_autoptr(GError) error = NULL;
    MemBlock *b = mem_block_new("ram", low + high, 0, &error);
    g_assert_no_error(error);
    g_assert_true(mem_map_add(m, b, 0, 0, low, NULL));
    if (high)
        g_assert_true(mem_map_add(m, b, 4 * GIB, low, high, NULL));
    return m;
}

static uint64_t next_random(void *opaque)
{
    uint64_t *state = opaque;
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 16;
}

static uint64_t peek(MemMap *m, gpa_t at, unsigned size)
{
    uint64_t v = 0;
    g_assert_true(mem_read(m, at, &v, size));
    return v;
}

static BootImage *open_ok(const BootSpec *s)
{
    g_autoptr(GError) error = NULL;
    BootImage *b = boot_open(s, &error);
    g_assert_no_error(error);
    return b;
}

static void check_relocated(MemMap *m, const BootCpu *cpu, unsigned lists, bool kaslr)
{
    gpa_t base = cpu->rip;
    uint64_t delta = peek(m, base + FAKE_WORD64, 8) - 0xffffffff81000080u;
    g_assert_cmphex(delta % 0x200000, ==, 0);
    g_assert_cmphex(delta, <=, GIB - FAKE_PREF - FAKE_INIT_SIZE);
    g_assert_cmphex(peek(m, base + FAKE_WORD32, 4), ==, (uint32_t)(0x81000040 + delta));
    g_assert_cmphex(peek(m, base + FAKE_WORD_INV, 4), ==,
                    (uint32_t)(lists == 3 ? 0x10000000 - delta : 0x10000000));
    if (!kaslr)
        g_assert_cmphex(delta, ==, 0);
    g_assert_cmphex(peek(m, base + 5, 1), ==, 36);
    g_assert_cmphex(peek(m, base + FAKE_DATA_UP + FAKE_DATA_LEN, 8), ==, 0);
    /* GDT, page tables, boot_params, command line */
    g_assert_cmpint(cpu->mode, ==, BOOT_MODE_LONG64);
    g_assert_cmphex(peek(m, cpu->gdt_gpa + BOOT_CS, 8), ==, 0x00af9b000000ffff);
    uint64_t pdpt = peek(m, cpu->cr3 + (base >> 39) % 512 * 8, 8) & ~0xfffull;
    uint64_t pd = peek(m, pdpt + (base >> 30) % 512 * 8, 8) & ~0xfffull;
    g_assert_cmphex(peek(m, pd + (base >> 21) % 512 * 8, 8), ==, align_down(base, 2 * MIB) | 0x83);
    gpa_t bp = cpu->rsi;
    g_assert_cmphex(peek(m, bp + 0x202, 4), ==, 0x53726448);
    g_assert_cmphex(peek(m, bp + 0x1fe, 2), ==, 0xaa55);
    g_assert_cmphex(peek(m, bp + 0x210, 1), ==, 0xff);
    g_assert_cmphex(peek(m, bp + 0x211, 1), ==, kaslr ? 3 : 1);
    g_assert_cmphex(peek(m, bp + 0x70, 8), ==, 0xe0000);
    gpa_t seed = peek(m, bp + 0x250, 8);
    g_assert_cmphex(peek(m, seed + 8, 4), ==, 9);
    g_assert_cmphex(peek(m, seed + 12, 4), ==, 32);
    g_assert_cmphex(peek(m, seed + 16, 8), !=, 0);
}

static void test_formats(void)
{
    static const UnpackFormat formats[] = {UNPACK_GZIP, UNPACK_BZIP2, UNPACK_LZMA, UNPACK_XZ,
                                           UNPACK_LZ4,  UNPACK_ZSTD,  UNPACK_PLAIN};
    uint64_t seed = 1;
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        unsigned lists = i % 2 ? 2 : 3;
        g_autoptr(GByteArray) payload = fake_payload(lists);
        g_autoptr(GByteArray) image = fake_bzimage(formats[i], payload);
        g_autofree char *path = put("kernel", image->data, image->len);
        g_autofree char *initrd = put("initrd", "abcde", 5);
        g_autofree char *second = put("initrd2", "fghi", 4);
        const char *initrds[] = {initrd, second, NULL};
        BootSpec spec = {.kernel = path, .initrds = initrds, .append = "console=ttyS0 quiet"};
        g_autoptr(BootImage) b = open_ok(&spec);
        g_assert_cmpstr(boot_kernel_version(b), ==, "9.9.9-fake");
        g_autoptr(MemMap) m = make_ram(RAM, 64 * MIB);
        BootLayout l = {.ram_below_4g = RAM,
                        .ram_above_4g = 64 * MIB,
                        .rsdp_gpa = 0xe0000,
                        .random = next_random,
                        .opaque = &seed};
        for (unsigned round = 0; round < 40; round++) {
            BootCpu cpu;
            g_autoptr(GError) error = NULL;
            if (round % 2)
                boot_prefetch(b);
            boot_load(b, m, &l, &cpu, &error);
            g_assert_no_error(error);
            check_relocated(m, &cpu, lists, true);
            gpa_t at = peek(m, cpu.rsi + 0x218, 4);
            g_assert_cmpuint(peek(m, cpu.rsi + 0x21c, 4), ==, 12);
            char text[12];
            g_assert_true(mem_read(m, at, text, sizeof text));
            g_assert_cmpmem(text, 12, "abcde\0\0\0fghi", 12);
            g_assert_false(ranges_overlap(at, 12, cpu.rip, FAKE_INIT_SIZE));
            char cmdline[20];
            g_assert_true(mem_read(m, peek(m, cpu.rsi + 0x228, 4), cmdline, sizeof cmdline));
            g_assert_cmpstr(cmdline, ==, "console=ttyS0 quiet");
        }
        g_assert_nonnull(strstr(boot_describe(b), "Linux 9.9.9-fake, unpacked ("));
    }
}

/* Physical places stay inside memory and clear of what must stay; nokaslr is obeyed. */
static void test_placing(void)
{
    g_autoptr(GByteArray) payload = fake_payload(3);
    g_autoptr(GByteArray) image = fake_bzimage(UNPACK_LZ4, payload);
    g_autofree char *path = put("kernel", image->data, image->len);
    uint64_t seed = 7;
    static const struct {
        const char *append;
        uint64_t min, max;
        bool kaslr;
    } cases[] = {
        {"", FAKE_PREF, RAM, true},
        {"mem=64M", FAKE_PREF, 64 << 20, true},
        {"memmap=64M", FAKE_PREF, 64 << 20, true},
        {"memmap=128M$16M", 144 << 20, RAM, true},
        {"memmap=64M#16M,64M!0x5000000", 144 << 20, RAM, true},
        {"memmap=exactmap memmap=64M@0", FAKE_PREF, FAKE_PREF + FAKE_INIT_SIZE, true},
        {"quiet nokaslr", FAKE_PREF, FAKE_PREF + FAKE_INIT_SIZE, false},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BootSpec spec = {.kernel = path, .append = cases[i].append};
        g_autoptr(BootImage) b = open_ok(&spec);
        g_autoptr(MemMap) m = make_ram(RAM, 0);
        BootLayout l = {.ram_below_4g = RAM,
                        .rsdp_gpa = 0xe0000,
                        .random = next_random,
                        .opaque = &seed};
        gpa_t first = 0;
        bool moved = false;
        for (unsigned round = 0; round < 30; round++) {
            BootCpu cpu;
            g_autoptr(GError) error = NULL;
            boot_load(b, m, &l, &cpu, &error);
            g_assert_no_error(error);
            check_relocated(m, &cpu, 3, cases[i].kaslr);
            g_assert_cmphex(cpu.rip, >=, cases[i].min);
            g_assert_cmphex(cpu.rip + FAKE_INIT_SIZE, <=, cases[i].max);
            moved |= round && cpu.rip != first;
            first = cpu.rip;
        }
        g_assert_cmpint(moved, ==,
                        cases[i].max - cases[i].min > FAKE_INIT_SIZE + 2 * MIB);
    }
}

static void test_above_4g(void)
{
    g_autoptr(GByteArray) payload = fake_payload(3);
    g_autoptr(GByteArray) image = fake_bzimage(UNPACK_LZ4, payload);
    g_autofree char *path = put("kernel", image->data, image->len);
    BootSpec spec = {.kernel = path};
    g_autoptr(BootImage) b = open_ok(&spec);
    g_autoptr(MemMap) m = make_ram(32 * MIB, 512 * MIB);
    uint64_t seed = 3;
    BootLayout l = {.ram_below_4g = 32 * MIB,
                    .ram_above_4g = 512 * MIB,
                    .rsdp_gpa = 0xe0000,
                    .random = next_random,
                    .opaque = &seed};
    unsigned high = 0;
    for (unsigned round = 0; round < 20; round++) {
        BootCpu cpu;
        g_assert_true(boot_load(b, m, &l, &cpu, NULL));
        check_relocated(m, &cpu, 3, true);
        high += cpu.rip >= 4 * GIB;
    }
    g_assert_cmpuint(high, >, 0);
}

/* A payload without lists is not moved virtually; of another shape, the own entry is used. */
static void test_shapes(void)
{
    static const struct {
        unsigned lists;
        const char *append, *says;
        BootMode mode;
    } cases[] = {
        {0, "", "unpacked", BOOT_MODE_LONG64},
        {9, "", "by its own 64-bit entry", BOOT_MODE_LONG64},
        {32, "", "by its own 32-bit entry", BOOT_MODE_PROT32},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) payload = fake_payload(cases[i].lists);
        if (cases[i].lists == 9)
            payload->data[EI_CLASS] = ELFCLASS32;
        g_autoptr(GByteArray) image = fake_bzimage(UNPACK_XZ, payload);
        if (cases[i].lists == 32)
            image->data[0x236] = 0;
        g_autofree char *path = put("kernel", image->data, image->len);
        BootSpec spec = {.kernel = path, .append = cases[i].append, .kaslr_off = true};
        g_autoptr(BootImage) b = open_ok(&spec);
        g_autoptr(MemMap) m = make_ram(RAM, 0);
        BootLayout l = {.ram_below_4g = RAM};
        BootCpu cpu;
        g_autoptr(GError) error = NULL;
        boot_load(b, m, &l, &cpu, &error);
        g_assert_no_error(error);
        g_assert_cmpint(cpu.mode, ==, cases[i].mode);
        g_assert_nonnull(strstr(boot_describe(b), cases[i].says));
        if (cases[i].lists) {
            g_assert_cmphex(cpu.rip, ==, FAKE_PREF + (cpu.mode == BOOT_MODE_LONG64 ? 0x200 : 0));
            char cmdline[8];
            g_assert_true(mem_read(m, peek(m, cpu.rsi + 0x228, 4), cmdline, sizeof cmdline));
            g_assert_cmpstr(cmdline, ==, "nokaslr");
            /* the protected-mode part is where it enters */
            uint8_t bytes[64];
            g_assert_true(mem_read(m, FAKE_PREF + 0x2c0, bytes, sizeof bytes));
            g_assert_cmpmem(bytes, 6, "\3757zXZ\0", 6);
        }
    }
}

static void expect_error(const BootSpec *spec, int code, const char *says)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(boot_open(spec, &error));
    g_assert_error(error, LODGE_ERROR, code);
    if (!strstr(error->message, says))
        g_error("'%s' does not say '%s'", error->message, says);
    g_assert_null(strchr(error->message, '\n'));
}

static void test_bad_files(void)
{
    g_autoptr(GByteArray) payload = fake_payload(3);
    g_autoptr(GByteArray) image = fake_bzimage(UNPACK_XZ, payload);
    g_autofree char *good = put("good", image->data, image->len);
    g_autofree char *empty = put("empty", "", 0);
    g_autofree char *text = put("text", "#!/bin/sh\n", 10);
    g_autofree char *cut = put("cut", image->data, image->len / 2);
    g_autofree char *missing = g_build_filename(dir, "missing", NULL);
    expect_error(&(BootSpec){.kernel = missing}, LODGE_ERROR_CONFIG, "No such file");
    expect_error(&(BootSpec){.kernel = dir}, LODGE_ERROR_CONFIG, "is a folder");
    expect_error(&(BootSpec){.kernel = empty}, LODGE_ERROR_CONFIG, "is empty");
    expect_error(&(BootSpec){.kernel = text}, LODGE_ERROR_IMAGE, "looks like a script");
    expect_error(&(BootSpec){.kernel = cut}, LODGE_ERROR_IMAGE, "is truncated");
    expect_error(&(BootSpec){.kernel = good, .protocol = "uefi"}, LODGE_ERROR_CONFIG,
                 "known: auto, linux");
    expect_error(&(BootSpec){.kernel = good, .protocol = "pvh"}, LODGE_ERROR_IMAGE,
                 "cannot be started by protocol 'pvh'");
    const char *initrds[] = {missing, NULL};
    expect_error(&(BootSpec){.kernel = good, .initrds = initrds}, LODGE_ERROR_CONFIG,
                 "No such file");
    initrds[0] = empty;
    expect_error(&(BootSpec){.kernel = good, .initrds = initrds}, LODGE_ERROR_CONFIG, "is empty");
    g_autofree char *longline = g_strnfill(3000, 'x');
    expect_error(&(BootSpec){.kernel = good, .append = longline}, LODGE_ERROR_CONFIG, "2047");
    image->data[0x206] = 3;
    g_autofree char *old = put("old", image->data, image->len);
    expect_error(&(BootSpec){.kernel = old}, LODGE_ERROR_UNSUPPORTED, "too old");
    image->data[0x206] = 0xf;
    store_le32(image->data + 0x24c, 0x7fffffff);
    g_autofree char *liar = put("liar", image->data, image->len);
    expect_error(&(BootSpec){.kernel = liar}, LODGE_ERROR_IMAGE, "payload lies outside");
}

static void load_error(const BootSpec *spec, uint64_t ram, int code, const char *says)
{
    g_autoptr(BootImage) b = open_ok(spec);
    g_autoptr(MemMap) m = make_ram(ram, 0);
    BootLayout l = {.ram_below_4g = ram};
    BootCpu cpu;
    g_autoptr(GError) error = NULL;
    g_assert_false(boot_load(b, m, &l, &cpu, &error));
    g_assert_error(error, LODGE_ERROR, code);
    if (!strstr(error->message, says))
        g_error("'%s' does not say '%s'", error->message, says);
}

static void test_bad_loads(void)
{
    g_autoptr(GByteArray) payload = fake_payload(3);
    g_autoptr(GByteArray) image = fake_bzimage(UNPACK_XZ, payload);
    g_autofree char *good = put("good", image->data, image->len);
    load_error(&(BootSpec){.kernel = good}, 4096, LODGE_ERROR_CONFIG, "too small");
    load_error(&(BootSpec){.kernel = good}, 20 << 20, LODGE_ERROR_CONFIG,
               "at least 22 MiB are needed");
    load_error(&(BootSpec){.kernel = good, .protocol = "bzimage"}, 20 << 20, LODGE_ERROR_CONFIG,
               "at least 22 MiB are needed");
    g_autofree char *big = g_build_filename(dir, "big", NULL);
    int fd = open(big, O_CREAT | O_RDWR, 0600);
    g_assert_cmpint(ftruncate(fd, 100 << 20), ==, 0);
    close(fd);
    const char *initrds[] = {big, NULL};
    load_error(&(BootSpec){.kernel = good, .initrds = initrds}, 64 << 20, LODGE_ERROR_CONFIG,
               "and its initrd: at least 122 MiB");
    /* damage in the middle of the payload */
    image->data[image->len - 600] ^= 0xff;
    g_autofree char *hurt = put("hurt", image->data, image->len);
    load_error(&(BootSpec){.kernel = hurt}, RAM, LODGE_ERROR_IMAGE, "damaged");
    /* relocations that point outside, by every list */
    for (unsigned list = 0; list < 3; list++) {
        g_autoptr(GByteArray) evil = fake_payload(3);
        store_le32(evil->data + evil->len - 4 - 8 * list,
                   list == 1 ? 0x40000000 : 0x80000000u + FAKE_PREF + FAKE_DATA_UP +
                                                2 * FAKE_DATA_LEN - (list == 2 ? 7 : 3));
        g_autoptr(GByteArray) evil_image = fake_bzimage(UNPACK_LZ4, evil);
        g_autofree char *path = put("evil", evil_image->data, evil_image->len);
        uint64_t seed = 5;
        g_autoptr(BootImage) b = open_ok(&(BootSpec){.kernel = path});
        g_autoptr(MemMap) m = make_ram(RAM, 0);
        BootLayout l = {.ram_below_4g = RAM, .random = next_random, .opaque = &seed};
        BootCpu cpu;
        g_autoptr(GError) error = NULL;
        g_assert_false(boot_load(b, m, &l, &cpu, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
        g_assert_nonnull(strstr(error->message, "points outside"));
    }
}

/* ---- ELF, PVH, Multiboot ---- */

enum { ELF_AT = 0x100000, ELF_LEN = 0x400, ELF_NOTE_AT = 0x200, ELF_MB_AT = 0x300 };

static GByteArray *fake_elf(bool is64, uint32_t note_type, const char *note_name, uint32_t mb_flags)
{
    GByteArray *a = g_byte_array_new();
    g_byte_array_set_size(a, 0x1000 + ELF_LEN);
    memset(a->data, 0, a->len);
    if (is64) {
        Elf64_Ehdr eh = {.e_type = ET_EXEC, .e_machine = EM_X86_64, .e_entry = ELF_AT + 0x10,
                         .e_phoff = 64, .e_phnum = 2, .e_phentsize = sizeof(Elf64_Phdr)};
        memcpy(a->data, &eh, sizeof eh);
        Elf64_Phdr ph[] = {{.p_type = PT_LOAD, .p_offset = 0x1000, .p_paddr = ELF_AT,
                            .p_filesz = ELF_LEN, .p_memsz = 2 * ELF_LEN},
                           {.p_type = PT_NOTE, .p_offset = ELF_NOTE_AT, .p_filesz = 0x20}};
        memcpy(a->data + 64, ph, sizeof ph);
    } else {
        Elf32_Ehdr eh = {.e_type = ET_EXEC, .e_machine = EM_386, .e_entry = ELF_AT + 0x10,
                         .e_phoff = 64, .e_phnum = 2, .e_phentsize = sizeof(Elf32_Phdr)};
        memcpy(a->data, &eh, sizeof eh);
        Elf32_Phdr ph[] = {{.p_type = PT_LOAD, .p_offset = 0x1000, .p_paddr = ELF_AT,
                            .p_filesz = ELF_LEN, .p_memsz = 2 * ELF_LEN},
                           {.p_type = PT_NOTE, .p_offset = ELF_NOTE_AT, .p_filesz = 0x20}};
        memcpy(a->data + 64, ph, sizeof ph);
    }
    memcpy(a->data, "\177ELF", 4);
    a->data[EI_CLASS] = is64 ? ELFCLASS64 : ELFCLASS32;
    a->data[EI_DATA] = ELFDATA2LSB;
    uint8_t *note = a->data + ELF_NOTE_AT;
    if (note_name) {
        store_le32(note, (uint32_t)strlen(note_name) + 1);
        store_le32(note + 4, 4);
        store_le32(note + 8, note_type);
        strcpy((char *)note + 12, note_name);
        store_le32(note + 12 + align_up(strlen(note_name) + 1, 4), ELF_AT + 0x20);
    }
    if (mb_flags != UINT32_MAX) {
        uint8_t *mb = a->data + ELF_MB_AT;
        store_le32(mb, 0x1badb002);
        store_le32(mb + 4, mb_flags);
        store_le32(mb + 8, -(0x1badb002 + mb_flags));
        store_le32(mb + 12, ELF_AT + 0x100 + ELF_MB_AT);
        store_le32(mb + 16, ELF_AT + 0x100);
        store_le32(mb + 20, ELF_AT + 0x100 + 0x1000);
        store_le32(mb + 24, ELF_AT + 0x3000);
        store_le32(mb + 28, ELF_AT + 0x40);
    }
    memset(a->data + 0x1000, 0x5a, ELF_LEN);
    return a;
}

static void test_elf(void)
{
    static const struct {
        bool is64;
        const char *note;
        uint32_t type, mb;
        const char *protocol;
        BootMode mode;
        uint64_t rip;
    } cases[] = {
        {true, NULL, 0, UINT32_MAX, NULL, BOOT_MODE_LONG64, ELF_AT + 0x10},
        {true, "Linux", 1, UINT32_MAX, NULL, BOOT_MODE_LONG64, ELF_AT + 0x10},
        {false, NULL, 0, UINT32_MAX, "auto", BOOT_MODE_PROT32, ELF_AT + 0x10},
        {true, "Xen", 18, UINT32_MAX, NULL, BOOT_MODE_PROT32, ELF_AT + 0x20},
        {false, "Xen", 18, UINT32_MAX, "pvh", BOOT_MODE_PROT32, ELF_AT + 0x20},
        {true, "Xen", 18, UINT32_MAX, "elf", BOOT_MODE_LONG64, ELF_AT + 0x10},
        {false, "Xen", 18, 3, NULL, BOOT_MODE_PROT32, ELF_AT + 0x10},
        {true, NULL, 0, 1 << 16, NULL, BOOT_MODE_PROT32, ELF_AT + 0x40},
        {true, "Xen", 18, 3, NULL, BOOT_MODE_PROT32, ELF_AT + 0x20},
    };
    g_autofree char *mod = put("mod", "0123456789", 10);
    g_autofree char *with_args = g_strconcat(mod, " a=b c", NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) elf =
            fake_elf(cases[i].is64, cases[i].type, cases[i].note, cases[i].mb);
        g_autofree char *path = put("elf", elf->data, elf->len);
        const char *initrds[] = {with_args, NULL};
        g_autoptr(BootImage) b = open_ok(&(BootSpec){.kernel = path,
                                                     .initrds = initrds,
                                                     .append = "arg",
                                                     .protocol = cases[i].protocol});
        g_autoptr(MemMap) m = make_ram(RAM, 0);
        BootLayout l = {.ram_below_4g = RAM, .rsdp_gpa = 0xe0000};
        for (unsigned round = 0; round < 2; round++) {
            BootCpu cpu;
            g_autoptr(GError) error = NULL;
            boot_load(b, m, &l, &cpu, &error);
            g_assert_no_error(error);
            g_assert_cmpint(cpu.mode, ==, cases[i].mode);
            g_assert_cmphex(cpu.rip, ==, cases[i].rip);
            char text[64] = "";
            gpa_t module = 0;
            if (cpu.rax == 0x2badb002) {
                g_assert_cmphex(peek(m, cpu.rbx, 4), ==, 0x24d);
                g_assert_cmpuint(peek(m, cpu.rbx + 4, 4), ==, 639);
                g_assert_cmpuint(peek(m, cpu.rbx + 8, 4), ==, RAM / 1024 - 1024);
                g_assert_cmpuint(peek(m, cpu.rbx + 20, 4), ==, 1);
                gpa_t mods = peek(m, cpu.rbx + 24, 4);
                module = peek(m, mods, 4);
                g_assert_cmpuint(peek(m, mods + 4, 4) - module, ==, 10);
                mem_read(m, peek(m, mods + 8, 4), text, sizeof text);
                g_assert_true(g_str_has_suffix(text, "/mod a=b c"));
                mem_read(m, peek(m, cpu.rbx + 16, 4), text, sizeof text);
                g_assert_true(g_str_has_suffix(text, "/elf arg"));
                g_assert_cmpuint(peek(m, cpu.rbx + 44, 4), ==, 4 * 24);
                gpa_t map = peek(m, cpu.rbx + 48, 4);
                g_assert_cmpuint(peek(m, map, 4), ==, 20);
                g_assert_cmpuint(peek(m, map + 12, 8), ==, 0x9fc00);
                mem_read(m, peek(m, cpu.rbx + 64, 4), text, sizeof text);
                g_assert_cmpstr(text, ==, "lodge");
            } else if (cpu.rbx) {
                g_assert_cmphex(peek(m, cpu.rbx, 4), ==, 0x336ec578);
                g_assert_cmphex(peek(m, cpu.rbx + 32, 8), ==, 0xe0000);
                g_assert_cmpuint(peek(m, cpu.rbx + 48, 4), ==, 4);
                module = peek(m, peek(m, cpu.rbx + 16, 8), 8);
            } else {
                module = peek(m, cpu.rsi + 0x218, 4);
                g_assert_cmphex(peek(m, cpu.rsi + 0x1e8, 1), ==, 4);
            }
            g_assert_true(mem_read(m, module, text, 10));
            g_assert_cmpmem(text, 10, "0123456789", 10);
            if (cases[i].mb != 1 << 16) {
                g_assert_cmphex(peek(m, ELF_AT + 0x10, 1), ==, 0x5a);
                g_assert_cmphex(peek(m, ELF_AT + ELF_LEN, 8), ==, 0);
                mem_write(m, ELF_AT + ELF_LEN, "dirt", 4); /* a reset cleans it */
            }
        }
    }
}

static void test_bad_elf(void)
{
    g_autoptr(GByteArray) elf = fake_elf(true, 0, NULL, 3);
    g_autofree char *path = put("elf", elf->data, elf->len);
    expect_error(&(BootSpec){.kernel = path}, LODGE_ERROR_UNSUPPORTED, "the header's address");
    elf = fake_elf(false, 0, NULL, 0x8);
    g_free(path);
    path = put("elf", elf->data, elf->len);
    expect_error(&(BootSpec){.kernel = path}, LODGE_ERROR_UNSUPPORTED, "unknown features 0x8");
    elf = fake_elf(true, 0, NULL, UINT32_MAX);
    g_free(path);
    path = put("elf", elf->data, elf->len - 1);
    expect_error(&(BootSpec){.kernel = path}, LODGE_ERROR_IMAGE, "is truncated");
    g_free(path);
    store_le64(elf->data + 64 + offsetof(Elf64_Phdr, p_paddr), 0x1000);
    path = put("elf", elf->data, elf->len);
    load_error(&(BootSpec){.kernel = path}, RAM, LODGE_ERROR_UNSUPPORTED, "link it at");
    g_free(path);
    store_le64(elf->data + 64 + offsetof(Elf64_Phdr, p_paddr), RAM);
    path = put("elf", elf->data, elf->len);
    load_error(&(BootSpec){.kernel = path}, RAM, LODGE_ERROR_CONFIG, "at least 257 MiB");
    expect_error(&(BootSpec){.kernel = "/bin/true"}, LODGE_ERROR_IMAGE, "program for Linux");
}

/* Every kernel of this host that can be read. */
static void test_host_kernels(void)
{
    g_autoptr(GDir) boot = g_dir_open("/boot", 0, NULL);
    unsigned n = 0;
    for (const char *name; boot && (name = g_dir_read_name(boot));) {
        g_autofree char *path = g_build_filename("/boot", name, NULL);
        if (!g_str_has_prefix(name, "vmlinuz-") || access(path, R_OK))
            continue;
        n++;
        g_autofree char *cache = g_build_filename(dir, "cache", NULL);
        gpa_t first = 0;
        bool moved = false; /* by chance, one in a hundred starts is where the one before was */
        for (unsigned round = 0; round < 6; round++) {
            int64_t start = g_get_monotonic_time();
            g_autoptr(BootImage) b = open_ok(&(BootSpec){.kernel = path, .cache_dir = cache});
            g_assert_cmpstr(boot_kernel_version(b), ==, name + strlen("vmlinuz-"));
            g_autoptr(MemMap) m = make_ram(RAM, 0);
            BootLayout l = {.ram_below_4g = RAM, .rsdp_gpa = 0xe0000};
            BootCpu cpu;
            g_autoptr(GError) error = NULL;
            boot_load(b, m, &l, &cpu, &error);
            g_assert_no_error(error);
            g_test_message("%s, %.1f ms", boot_describe(b),
                           (double)(g_get_monotonic_time() - start) / 1000);
            g_assert_cmphex(peek(m, cpu.rsi + 0x211, 1) & 2, ==, 2);
            g_assert_nonnull(strstr(boot_describe(b), round ? "unpacked before" : "unpacked ("));
            if (!round)
                first = cpu.rip;
            moved |= cpu.rip != first;
        }
        g_assert_true(moved);
    }
    if (!n)
        g_test_skip("no readable kernel in /boot");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("lodge-boot-XXXXXX", NULL);
    g_test_add_func("/boot/formats", test_formats);
    g_test_add_func("/boot/placing", test_placing);
    g_test_add_func("/boot/above-4g", test_above_4g);
    g_test_add_func("/boot/shapes", test_shapes);
    g_test_add_func("/boot/bad-files", test_bad_files);
    g_test_add_func("/boot/bad-loads", test_bad_loads);
    g_test_add_func("/boot/elf", test_elf);
    g_test_add_func("/boot/bad-elf", test_bad_elf);
    g_test_add_func("/boot/host-kernels", test_host_kernels);
    int status = g_test_run();
    g_autofree char *quoted = g_shell_quote(dir);
    g_autofree char *cmd = g_strdup_printf("rm -rf %s", quoted);
    if (!g_spawn_command_line_sync(cmd, NULL, NULL, NULL, NULL))
        status = 1;
    g_free(dir);
    return status;
}
