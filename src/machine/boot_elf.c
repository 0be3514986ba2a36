/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ELF kernels: the file format that the Multiboot and PVH protocols share, and the plain protocol.
 *
 * Plain: each PT_LOAD goes to its physical address and the entry point is called with Linux'
 * boot_params in RSI: in long mode on an identity map for ELF64, in flat 32-bit mode for ELF32. A
 * Linux vmlinux (told by its "Linux" note) is started that way; it brings no relocation lists, so
 * its addresses are not randomized. Any other ELF with a PVH note starts by that unless this
 * protocol is asked for.
 *
 * Left out: dynamic executables, and programs for Linux (with an interpreter), refused.
 *
 * The file is untrusted: offsets are checked against its size, addresses against memory at load.
 * Threads: main.
 * Spec: System V ABI, ELF; Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
 */
#include <elf.h>
#include <inttypes.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "boot_internal.h"

enum {
    NOTE_MAX = 65536, /* bytes of one note segment that are read */
    XEN_ELFNOTE_PHYS32_ENTRY = 18,
};

bool boot_elf_probe(const BootImage *b, BootElf *ret)
{
    *ret = (BootElf){.low = UINT64_MAX};
    const uint8_t *h = b->head;
    if (b->head_len < sizeof(Elf32_Ehdr) || memcmp(h, ELFMAG, SELFMAG) ||
        h[EI_DATA] != ELFDATA2LSB)
        return false;
    uint16_t machine = load_le16(h + offsetof(Elf32_Ehdr, e_machine));
    uint16_t type = load_le16(h + offsetof(Elf32_Ehdr, e_type));
    if (type != ET_EXEC && type != ET_DYN)
        return false;
    if (h[EI_CLASS] == ELFCLASS64 && b->head_len >= sizeof(Elf64_Ehdr)) {
        ret->is64 = true;
        ret->entry = load_le64(h + offsetof(Elf64_Ehdr, e_entry));
        return machine == EM_X86_64;
    }
    ret->entry = load_le32(h + offsetof(Elf32_Ehdr, e_entry));
    return h[EI_CLASS] == ELFCLASS32 && machine == EM_386;
}

static bool bad(const BootImage *b, GError **error, const char *what)
{
    return lodge_fail(error, LODGE_ERROR_IMAGE, "kernel '%s': damaged ELF file: %s",
                      b->kernel.path, what);
}

/* Notes: name size, descriptor size, type, then both padded to 4 bytes. */
static void read_notes(const uint8_t *p, size_t len, BootElf *ret)
{
    size_t at = 0;
    while (range_within(at, sizeof(Elf32_Nhdr), len)) {
        uint32_t name_len = load_le32(p + at), desc_len = load_le32(p + at + 4);
        uint32_t type = load_le32(p + at + 8);
        at += sizeof(Elf32_Nhdr);
        if (!range_within(at, align_up(name_len, 4), len))
            return;
        const uint8_t *name = p + at;
        at += align_up(name_len, 4);
        if (!range_within(at, desc_len, len))
            return;
        if (name_len == 6 && !memcmp(name, "Linux", 6))
            ret->has_linux_note = true;
        if (name_len == 4 && !memcmp(name, "Xen", 4) && type == XEN_ELFNOTE_PHYS32_ENTRY &&
            desc_len >= 4) {
            ret->has_pvh = true;
            ret->pvh_entry = load_le32(p + at);
        }
        at += align_up(desc_len, 4);
    }
}

static Elf64_Phdr read_phdr(const uint8_t *p, bool is64)
{
    Elf64_Phdr ph;
    if (is64) {
        memcpy(&ph, p, sizeof ph);
        return ph;
    }
    Elf32_Phdr small;
    memcpy(&small, p, sizeof small);
    return (Elf64_Phdr){.p_type = small.p_type,
                        .p_offset = small.p_offset,
                        .p_paddr = small.p_paddr,
                        .p_filesz = small.p_filesz,
                        .p_memsz = small.p_memsz};
}

static bool add_load(BootImage *b, const Elf64_Phdr *ph, BootElf *ret, GError **error)
{
    uint64_t end;
    if (!range_within(ph->p_offset, ph->p_filesz, b->kernel.size))
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "kernel '%s': is truncated: a segment at offset %" PRIu64
                          " of %" PRIu64 " bytes, in a file of %" PRIu64, b->kernel.path,
                          (uint64_t)ph->p_offset, (uint64_t)ph->p_filesz, b->kernel.size);
    if (ph->p_filesz > ph->p_memsz || !u64_add_ok(ph->p_paddr, ph->p_memsz, &end))
        return bad(b, error, "a segment's size");
    if (ret->n == BOOT_ELF_MAX_SEGMENTS)
        return bad(b, error, "too many segments");
    ret->seg[ret->n++] =
        (BootElfSegment){ph->p_offset, ph->p_paddr, ph->p_filesz, ph->p_memsz};
    ret->low = MIN(ret->low, ph->p_paddr);
    ret->high = MAX(ret->high, end);
    return true;
}

bool boot_elf_open(BootImage *b, BootElf *ret, GError **error)
{
    if (!boot_elf_probe(b, ret))
        return bad(b, error, "its header");
    size_t phentsize = ret->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    const uint8_t *h = b->head;
    uint64_t phoff = ret->is64 ? load_le64(h + offsetof(Elf64_Ehdr, e_phoff))
                               : load_le32(h + offsetof(Elf32_Ehdr, e_phoff));
    unsigned phnum = load_le16(h + (ret->is64 ? offsetof(Elf64_Ehdr, e_phnum)
                                              : offsetof(Elf32_Ehdr, e_phnum)));
    unsigned size = load_le16(h + (ret->is64 ? offsetof(Elf64_Ehdr, e_phentsize)
                                             : offsetof(Elf32_Ehdr, e_phentsize)));
    if (!phnum || size != phentsize || !range_within(phoff, phnum * phentsize, b->kernel.size))
        return bad(b, error, "its program headers");
    g_autofree uint8_t *headers = g_malloc(phnum * phentsize);
    if (!boot_file_read(&b->kernel, phoff, headers, phnum * phentsize, error))
        return false;
    for (unsigned i = 0; i < phnum; i++) {
        Elf64_Phdr ph = read_phdr(headers + i * phentsize, ret->is64);
        if (ph.p_type == PT_INTERP)
            ret->has_interp = true;
        if (ph.p_type == PT_LOAD && ph.p_memsz && !add_load(b, &ph, ret, error))
            return false;
        if (ph.p_type == PT_NOTE && range_within(ph.p_offset, ph.p_filesz, b->kernel.size)) {
            size_t len = MIN(ph.p_filesz, NOTE_MAX);
            g_autofree uint8_t *notes = g_malloc(len + 4);
            if (!boot_file_read(&b->kernel, ph.p_offset, notes, len, error))
                return false;
            read_notes(notes, len, ret);
        }
    }
    if (!ret->n)
        return bad(b, error, "nothing to load");
    if (ret->has_interp)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "kernel '%s': is a program for Linux, not a kernel", b->kernel.path);
    return true;
}

bool boot_elf_load(BootImage *b, const BootElf *e, MemMap *mem, const BootLayout *l,
                   GError **error)
{
    if (e->low < BOOT_LOW_END)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "kernel '%s': its segment at 0x%" PRIx64
                          " lies where Lodge keeps its boot data; link it at 0x%x or above",
                          b->kernel.path, e->low, BOOT_LOW_END);
    if (e->high > l->ram_below_4g)
        return boot_too_small(b, l, e->high, error);
    for (unsigned i = 0; i < e->n; i++) {
        const BootElfSegment *s = &e->seg[i];
        if (!boot_file_load(&b->kernel, s->offset, mem, s->paddr, s->filesz, error))
            return false;
        if (!boot_zero(b, mem, s->paddr + s->filesz, s->memsz - s->filesz))
            return boot_too_small(b, l, e->high, error);
    }
    return true;
}

/* Notes beyond the head do not matter to a probe: open looks again. */
static BootMatch probe_elf(const BootImage *b)
{
    BootElf e;
    if (!boot_elf_probe(b, &e))
        return BOOT_MATCH_NO;
    BootImage copy = *b;
    g_autoptr(GError) ignored = NULL;
    if (boot_elf_open(&copy, &e, &ignored) && e.has_linux_note)
        return BOOT_MATCH_BEST;
    return BOOT_MATCH_POOR;
}

static bool open_elf(BootImage *b, GError **error)
{
    BootElf *e = g_new0(BootElf, 1);
    b->priv = e;
    if (!boot_elf_open(b, e, error))
        return false;
    boot_set_describe(b, "%s, ELF%u at 0x%" PRIx64 "%s", e->has_linux_note ? "Linux" : "kernel",
                      e->is64 ? 64 : 32, e->entry,
                      e->has_linux_note ? ", not randomized: it has no relocation lists" : "");
    return true;
}

static bool load_elf(BootImage *b, MemMap *mem, const BootLayout *l, BootCpu *cpu, GError **error)
{
    const BootElf *e = b->priv;
    if (!boot_elf_load(b, e, mem, l, error))
        return false;
    BootLinuxInfo info = {0};
    if (b->initrd_bytes) {
        /* Linux' own default for kernels that do not say how high they can reach. */
        uint64_t top = MIN(l->ram_below_4g, 0x38000000u);
        if (top < e->high || top - e->high < b->initrd_bytes + 4096)
            return boot_too_small(b, l, e->high + b->initrd_bytes + 4096, error);
        info.initrd_gpa = align_down(top - b->initrd_bytes, 4096);
    }
    if (!boot_load_initrds(b, mem, info.initrd_gpa, error) ||
        !boot_write_params(b, mem, l, &info, error) || !boot_write_gdt(mem, e->is64) ||
        (e->is64 && !boot_write_page_tables(mem, e->low, e->high - e->low, error)))
        return false;
    *cpu = (BootCpu){.mode = e->is64 ? BOOT_MODE_LONG64 : BOOT_MODE_PROT32,
                     .rip = e->entry,
                     .rsp = BOOT_STACK_TOP_GPA,
                     .rsi = BOOT_PARAMS_GPA,
                     .cr3 = e->is64 ? BOOT_PAGE_TABLES_GPA : 0,
                     .gdt_gpa = BOOT_GDT_GPA};
    return true;
}

static void close_elf(BootImage *b)
{
    g_free(b->priv);
    b->priv = NULL;
}

const BootProtocol boot_proto_elf = {
    .name = "elf",
    .help = "ELF by its entry point, with Linux' boot_params",
    .probe = probe_elf,
    .open = open_elf,
    .load = load_elf,
    .close = close_elf,
};
