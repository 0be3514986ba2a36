/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Multiboot 1: a header in the first 8 KiB of the file, flat 32-bit mode, EBX = information.
 *
 * The file is an ELF32, or anything whose header has the address fields (the "a.out kludge",
 * flag 16). An ELF64 without them is refused, as the specification knows none. Modules are the
 * initrds, each on a page of its own above the kernel; a module's string is its path and what the
 * user wrote behind it, the kernel's is its path and the command line.
 * Left out: video modes (flag 2 is accepted, text only is reported by silence), drives, APM.
 *
 * Every header field is checked against the file's size and guest memory.
 * Threads: main.
 * Spec: Multiboot Specification 0.6.96, 3.1 "OS image format", 3.2 "Machine state", 3.3 "Boot
 *       information format".
 */
#include <inttypes.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "boot_internal.h"

#define HEADER_MAGIC 0x1badb002u
#define LOADER_MAGIC 0x2badb002u

enum {
    SEARCH_BYTES = 8192,
    HEADER_LEN = 12,
    HEADER_KLUDGE_LEN = 32,
    FLAG_MEMORY = 1 << 1,
    FLAG_VIDEO = 1 << 2,
    FLAGS_KNOWN_REQUIRED = 0x7, /* page-aligned modules, memory information, video */
    FLAGS_REQUIRED_MASK = 0xffff,
    FLAG_KLUDGE = 1 << 16,
    INFO_MEMORY = 1 << 0,
    INFO_CMDLINE = 1 << 2,
    INFO_MODS = 1 << 3,
    INFO_MMAP = 1 << 6,
    INFO_LOADER = 1 << 9,
    MODULE_ALIGN = 4096,
    MAX_MODULES = 64,
    MODS_AT = BOOT_TABLES_GPA + 0x1000,
    STRINGS_AT = BOOT_TABLES_GPA + 0x2000,
};

typedef struct MultibootInfo {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name;
    uint32_t apm_table;
} MultibootInfo;

typedef struct MultibootModule {
    uint32_t start, end, string, reserved;
} MultibootModule;

typedef struct __attribute__((packed)) MultibootMmap {
    uint32_t size; /* of the rest */
    uint64_t at, len;
    uint32_t type;
} MultibootMmap;

typedef struct MultibootImage {
    BootElf elf; /* with the kludge: one segment made from the header */
    uint32_t flags;
} MultibootImage;

/* Offset of the header in the head; false: none. */
static bool find_header(const BootImage *b, size_t *ret_at)
{
    size_t end = MIN(b->head_len, SEARCH_BYTES);
    for (size_t at = 0; at + HEADER_LEN <= end; at += 4) {
        if (load_le32(b->head + at) != HEADER_MAGIC)
            continue;
        uint32_t sum = HEADER_MAGIC + load_le32(b->head + at + 4) + load_le32(b->head + at + 8);
        if (sum == 0) {
            *ret_at = at;
            return true;
        }
    }
    return false;
}

static BootMatch probe_multiboot(const BootImage *b)
{
    size_t at;
    BootElf e;
    if (!find_header(b, &at))
        return BOOT_MATCH_NO;
    bool kludge = load_le32(b->head + at + 4) & FLAG_KLUDGE;
    return kludge || (boot_elf_probe(b, &e) && !e.is64) ? BOOT_MATCH_GOOD : BOOT_MATCH_POOR;
}

/* The header's address fields: one segment from the file, and where to enter. */
static bool open_kludge(BootImage *b, size_t at, BootElf *ret, GError **error)
{
    if (at + HEADER_KLUDGE_LEN > b->head_len)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "kernel '%s': truncated Multiboot header",
                          b->kernel.path);
    const uint8_t *h = b->head + at;
    uint32_t header_addr = load_le32(h + 12), load_addr = load_le32(h + 16);
    uint32_t load_end = load_le32(h + 20), bss_end = load_le32(h + 24);
    if (header_addr < load_addr || header_addr - load_addr > at ||
        (load_end && load_end < load_addr) || (bss_end && bss_end < load_end))
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "kernel '%s': damaged Multiboot header: its addresses", b->kernel.path);
    uint64_t offset = at - (header_addr - load_addr);
    uint64_t filesz = load_end ? load_end - load_addr : b->kernel.size - offset;
    if (!range_within(offset, filesz, b->kernel.size))
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "kernel '%s': is truncated: Multiboot header asks for %" PRIu64
                          " bytes at offset %" PRIu64, b->kernel.path, filesz, offset);
    uint64_t memsz = bss_end > load_addr ? MAX(bss_end - load_addr, filesz) : filesz;
    *ret = (BootElf){.entry = load_le32(h + 28),
                     .low = load_addr,
                     .high = load_addr + memsz,
                     .n = 1,
                     .seg[0] = {offset, load_addr, filesz, memsz}};
    return true;
}

static bool open_multiboot(BootImage *b, GError **error)
{
    MultibootImage *m = g_new0(MultibootImage, 1);
    b->priv = m;
    size_t at = 0;
    if (!find_header(b, &at))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "kernel '%s': has no Multiboot header",
                          b->kernel.path);
    m->flags = load_le32(b->head + at + 4);
    uint32_t unknown = m->flags & FLAGS_REQUIRED_MASK & ~FLAGS_KNOWN_REQUIRED;
    if (unknown)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "kernel '%s': Multiboot header requires unknown features 0x%" PRIx32,
                          b->kernel.path, unknown);
    if (m->flags & FLAG_KLUDGE) {
        if (!open_kludge(b, at, &m->elf, error))
            return false;
    } else if (!boot_elf_open(b, &m->elf, error)) {
        return false;
    } else if (m->elf.is64) {
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "kernel '%s': Multiboot in an ELF64 file needs the header's address "
                          "fields (flag 16); convert it with objcopy -O elf32-i386",
                          b->kernel.path);
    }
    if (b->initrds->len > MAX_MODULES)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "initrds: more than %d", MAX_MODULES);
    boot_set_describe(b, "Multiboot kernel at 0x%" PRIx64, m->elf.entry);
    return true;
}

/* Append @a and, if there is one, a space and @b2; the strings' address in *ret. */
static bool put_string(MemMap *mem, gpa_t *at, const char *a, const char *b2, uint32_t *ret)
{
    g_autofree char *text = b2 && *b2 ? g_strconcat(a, " ", b2, NULL) : g_strdup(a);
    size_t len = strlen(text) + 1;
    if (!range_within(*at, len, BOOT_TABLES_END_GPA) || !mem_write(mem, *at, text, len))
        return false;
    *ret = (uint32_t)*at;
    *at += len;
    return true;
}

static bool load_modules(BootImage *b, const BootElf *e, MemMap *mem, const BootLayout *l,
                         gpa_t *strings, GError **error)
{
    uint64_t at = align_up(e->high, MODULE_ALIGN);
    for (unsigned i = 0; i < b->initrds->len; i++) {
        const BootFile *f = &g_array_index(b->initrds, BootFile, i);
        if (!range_within(at, f->size, l->ram_below_4g))
            return boot_too_small(b, l, at + f->size, error);
        MultibootModule m = {.start = (uint32_t)at, .end = (uint32_t)(at + f->size)};
        if (!boot_file_load(f, 0, mem, at, f->size, error))
            return false;
        if (!put_string(mem, strings, f->path, f->args, &m.string) ||
            !mem_write(mem, MODS_AT + i * sizeof m, &m, sizeof m))
            return lodge_fail(error, LODGE_ERROR_LIMIT, "initrds: their names are too long");
        at = align_up(at + f->size, MODULE_ALIGN);
    }
    return true;
}

static bool load_multiboot(BootImage *b, MemMap *mem, const BootLayout *l, BootCpu *cpu,
                           GError **error)
{
    const MultibootImage *m = b->priv;
    gpa_t strings = STRINGS_AT;
    if (!boot_elf_load(b, &m->elf, mem, l, error) ||
        !load_modules(b, &m->elf, mem, l, &strings, error))
        return false;
    MultibootInfo info = {.flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODS | INFO_MMAP | INFO_LOADER,
                          .mem_lower = BOOT_LOW_RAM_END / KIB,
                          .mem_upper = l->ram_below_4g > MIB
                                           ? (uint32_t)((l->ram_below_4g - MIB) / KIB)
                                           : 0,
                          .cmdline = BOOT_CMDLINE_GPA,
                          .mods_count = b->initrds->len,
                          .mods_addr = MODS_AT,
                          .mmap_addr = BOOT_TABLES_GPA};
    g_autofree char *cmdline =
        *b->append ? g_strconcat(b->kernel.path, " ", b->append, NULL) : g_strdup(b->kernel.path);
    if (!boot_write_cmdline(mem, cmdline, error))
        return false;
    BootE820 map[BOOT_MAX_E820];
    unsigned n = boot_e820(l, map);
    MultibootMmap entries[BOOT_MAX_E820];
    for (unsigned i = 0; i < n; i++)
        entries[i] = (MultibootMmap){.size = sizeof entries[0] - sizeof entries[0].size,
                                     .at = map[i].at,
                                     .len = map[i].len,
                                     .type = map[i].type};
    info.mmap_length = n * (uint32_t)sizeof entries[0];
    if (!mem_write(mem, BOOT_TABLES_GPA, entries, info.mmap_length) ||
        !put_string(mem, &strings, "lodge", NULL, &info.boot_loader_name) ||
        !mem_write(mem, BOOT_PARAMS_GPA, &info, sizeof info) || !boot_write_gdt(mem, false))
        return boot_too_small(b, l, MIB, error);
    *cpu = (BootCpu){.mode = BOOT_MODE_PROT32,
                     .rip = m->elf.entry,
                     .rsp = BOOT_STACK_TOP_GPA,
                     .rax = LOADER_MAGIC,
                     .rbx = BOOT_PARAMS_GPA,
                     .gdt_gpa = BOOT_GDT_GPA};
    return true;
}

static void close_multiboot(BootImage *b)
{
    g_free(b->priv);
    b->priv = NULL;
}

const BootProtocol boot_proto_multiboot = {
    .name = "multiboot",
    .help = "Multiboot 1, with initrds as modules",
    .probe = probe_multiboot,
    .open = open_multiboot,
    .load = load_multiboot,
    .close = close_multiboot,
};
