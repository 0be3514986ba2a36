/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PVH: ELF kernels entered in flat 32-bit mode with hvm_start_info in EBX.
 *
 * The entry is in a note (Xen, type 18). The kernel makes everything else itself from the memory
 * map, the command line, the modules (initrds, one each) and ACPI's root pointer. No address is
 * randomized.
 * Threads: main.
 * Spec: Xen docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h, version 1.
 */
#include <inttypes.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "boot_internal.h"

#define START_INFO_MAGIC 0x336ec578u

typedef struct PvhStartInfo {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist_gpa, cmdline_gpa, rsdp_gpa, memmap_gpa;
    uint32_t memmap_entries, reserved;
} PvhStartInfo;

typedef struct PvhModule {
    uint64_t gpa, size, cmdline_gpa, reserved;
} PvhModule;

typedef struct PvhMemmapEntry {
    uint64_t at, len;
    uint32_t type, reserved;
} PvhMemmapEntry;

enum { MODULES_AT = BOOT_TABLES_GPA + 0x1000, MAX_MODULES = 64, MODULE_ALIGN = 4096 };

static BootMatch probe_pvh(const BootImage *b)
{
    BootElf e;
    if (!boot_elf_probe(b, &e))
        return BOOT_MATCH_NO;
    BootImage copy = *b;
    g_autoptr(GError) ignored = NULL;
    return boot_elf_open(&copy, &e, &ignored) && e.has_pvh ? BOOT_MATCH_GOOD : BOOT_MATCH_NO;
}

static bool open_pvh(BootImage *b, GError **error)
{
    BootElf *e = g_new0(BootElf, 1);
    b->priv = e;
    if (!boot_elf_open(b, e, error))
        return false;
    if (b->initrds->len > MAX_MODULES)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "initrds: more than %d", MAX_MODULES);
    boot_set_describe(b, "ELF%u by its PVH entry at 0x%" PRIx32, e->is64 ? 64 : 32, e->pvh_entry);
    return true;
}

/* Modules above the kernel, each on a page of its own. */
static bool load_modules(BootImage *b, const BootElf *e, MemMap *mem, const BootLayout *l,
                         GError **error)
{
    uint64_t at = align_up(e->high, MODULE_ALIGN);
    for (unsigned i = 0; i < b->initrds->len; i++) {
        const BootFile *f = &g_array_index(b->initrds, BootFile, i);
        if (!range_within(at, f->size, l->ram_below_4g))
            return boot_too_small(b, l, at + f->size, error);
        PvhModule m = {.gpa = at, .size = f->size};
        if (!boot_file_load(f, 0, mem, at, f->size, error) ||
            !mem_write(mem, MODULES_AT + i * sizeof m, &m, sizeof m))
            return false;
        at = align_up(at + f->size, MODULE_ALIGN);
    }
    return true;
}

static bool load_pvh(BootImage *b, MemMap *mem, const BootLayout *l, BootCpu *cpu, GError **error)
{
    const BootElf *e = b->priv;
    if (!boot_elf_load(b, e, mem, l, error) || !load_modules(b, e, mem, l, error) ||
        !boot_write_cmdline(mem, b->append, error))
        return false;
    BootE820 map[BOOT_MAX_E820];
    PvhMemmapEntry entries[BOOT_MAX_E820] = {0};
    unsigned n = boot_e820(l, map);
    for (unsigned i = 0; i < n; i++)
        entries[i] = (PvhMemmapEntry){.at = map[i].at, .len = map[i].len, .type = map[i].type};
    PvhStartInfo info = {.magic = START_INFO_MAGIC,
                         .version = 1,
                         .nr_modules = b->initrds->len,
                         .modlist_gpa = b->initrds->len ? MODULES_AT : 0,
                         .cmdline_gpa = BOOT_CMDLINE_GPA,
                         .rsdp_gpa = l->rsdp_gpa,
                         .memmap_gpa = BOOT_TABLES_GPA,
                         .memmap_entries = n};
    if (!mem_write(mem, BOOT_TABLES_GPA, entries, n * sizeof entries[0]) ||
        !mem_write(mem, BOOT_PARAMS_GPA, &info, sizeof info) || !boot_write_gdt(mem, false))
        return boot_too_small(b, l, MIB, error);
    *cpu = (BootCpu){.mode = BOOT_MODE_PROT32,
                     .rip = e->pvh_entry,
                     .rsp = BOOT_STACK_TOP_GPA,
                     .rbx = BOOT_PARAMS_GPA,
                     .gdt_gpa = BOOT_GDT_GPA};
    return true;
}

static void close_pvh(BootImage *b)
{
    g_free(b->priv);
    b->priv = NULL;
}

const BootProtocol boot_proto_pvh = {
    .name = "pvh",
    .help = "ELF by its PVH entry",
    .probe = probe_pvh,
    .open = open_pvh,
    .load = load_pvh,
    .close = close_pvh,
};
