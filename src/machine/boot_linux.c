/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Linux bzImages: unpacked on the host and entered directly, or by their own entry.
 *
 * Unpacked: the payload comes from the cache or is decompressed (unpack.c), placed at a random
 * physical address and relocated to a random virtual one, which is what the kernel's own
 * decompressor would have done, and startup_64 is entered with boot_params in RSI, on an identity
 * map. KASLR_FLAG tells the kernel to randomize its memory regions too. LA57 is off: the kernel
 * runs with 4-level page tables, whatever the CPU offers.
 * Own entry: the protected-mode part is loaded at its preferred address and entered at offset
 * 0x200 in long mode, or at its start in 32-bit mode for kernels without a 64-bit entry. That is
 * also what becomes of payloads of unknown shape; a trace line says why.
 *
 * Left out: zImages and boot protocols before 2.06 (2.6.22), refused; EFI entries; payloads in
 * LZO. What is placed: initrd at the top of the memory that the kernel can reach; the kernel clear
 * of it; boot_params, command line, setup_data, GDT, page tables in the low megabyte.
 *
 * Invariants: (1) header fields are read by hdr_*() from the head, which is at least HDR_MIN long;
 * (2) ranges of the file are checked against its size in open.
 *
 * Threads: main; one worker from prefetch or for the cache, joined before priv is touched.
 * Spec: Linux Documentation/arch/x86/boot.rst and zero-page.rst, protocol 2.15.
 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "boot_internal.h"
#include "kernel_cache.h"
#include "kernel_image.h"

/* Offsets in the setup header; boot_params has it at the same place. */
enum {
    HDR_START = 0x1f1,
    HDR_SETUP_SECTS = 0x1f1,
    HDR_SYSSIZE = 0x1f4,
    HDR_VID_MODE = 0x1fa,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP_LEN = 0x201,
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_KERNEL_VERSION = 0x20e,
    HDR_TYPE_OF_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211,
    HDR_CODE32_START = 0x214,
    HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_CMD_LINE_PTR = 0x228,
    HDR_INITRD_ADDR_MAX = 0x22c,
    HDR_KERNEL_ALIGNMENT = 0x230,
    HDR_RELOCATABLE = 0x234,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_PAYLOAD_OFFSET = 0x248,
    HDR_PAYLOAD_LENGTH = 0x24c,
    HDR_SETUP_DATA = 0x250,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_MIN = 0x268,
    /* Other fields of boot_params. */
    BP_ACPI_RSDP = 0x070,
    BP_E820_ENTRIES = 0x1e8,
    BP_E820_TABLE = 0x2d0,
    BP_HDR_END = 0x290,
    BP_SIZE = 4096,
    E820_ENTRY_SIZE = 20,
};

#define HDR_MAGIC_VALUE 0x53726448u /* "HdrS" */
#define DEFAULT_ALIGN (2 * MIB)
#define DEFAULT_CMDLINE_SIZE 255
#define KERNEL_IMAGE_SIZE GIB /* virtual space for the kernel, KERNEL_IMAGE_SIZE of Linux */

enum {
    SECTOR = 512,
    BOOT_FLAG_VALUE = 0xaa55,
    LOADED_HIGH = 0x01,
    KASLR_FLAG = 0x02,
    XLF_KERNEL_64 = 0x01,
    LOADER_UNDEFINED = 0xff,
    VID_MODE_NORMAL = 0xffff,
    SETUP_RNG_SEED = 9,
    RNG_SEED_BYTES = 32,
    ENTRY_64 = 0x200,
    ONE_MIB = 0x100000,
};

typedef struct LinuxImage {
    bool unpack; /* try to enter it directly */
    uint16_t version;
    uint64_t body_at, body_len;       /* protected-mode part of the file */
    uint64_t payload_at, payload_len; /* compressed kernel; len 0: not known */
    UnpackFormat format;
    uint64_t pref, init_size, align, initrd_max;
    bool relocatable, entry64;
    KernelKey key;
    bool have_key;
    bool cache_bad; /* the entry proved damaged: do not look at it again */
    /* Owned by the worker until joined. */
    GThread *worker;
    KernelImage image;
    bool have_image;
    GError *error; /* owned: why there is no image */
} LinuxImage;

static uint16_t hdr_u16(const BootImage *b, unsigned at)
{
    return load_le16(b->head + at);
}

static uint32_t hdr_u32(const BootImage *b, unsigned at)
{
    return load_le32(b->head + at);
}

static BootMatch probe_bzimage(const BootImage *b)
{
    return b->head_len >= HDR_MIN && hdr_u16(b, HDR_BOOT_FLAG) == BOOT_FLAG_VALUE &&
                   hdr_u32(b, HDR_MAGIC) == HDR_MAGIC_VALUE
               ? BOOT_MATCH_BEST
               : BOOT_MATCH_NO;
}

static bool bad(const BootImage *b, GError **error, const char *why)
{
    return lodge_fail(error, LODGE_ERROR_IMAGE, "kernel '%s': %s", b->kernel.path, why);
}

/* The version string is up to the first space: "6.1.0-13-amd64 (debian-kernel@..." */
static void read_version(BootImage *b)
{
    unsigned at = hdr_u16(b, HDR_KERNEL_VERSION);
    if (!at || at + SECTOR >= b->head_len)
        return;
    const char *text = (const char *)b->head + at + SECTOR;
    size_t len = strnlen(text, MIN(b->head_len - at - SECTOR, 256));
    size_t word = 0;
    while (word < len && g_ascii_isgraph(text[word]) && text[word] != '/')
        word++;
    if (word) {
        b->version = g_strndup(text, word);
        b->banner = g_strndup(text, len);
    }
}

static bool open_header(BootImage *b, LinuxImage *x, GError **error)
{
    x->version = hdr_u16(b, HDR_VERSION);
    if (x->version < 0x206)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "kernel '%s': boot protocol %u.%02u is too old; 2.06 (Linux 2.6.22) and "
                          "later can be started", b->kernel.path, x->version >> 8,
                          x->version & 0xff);
    if (!(b->head[HDR_LOADFLAGS] & LOADED_HIGH))
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "kernel '%s': is a zImage; only bzImages can be started",
                          b->kernel.path);
    unsigned sectors = b->head[HDR_SETUP_SECTS] ? b->head[HDR_SETUP_SECTS] : 4;
    x->body_at = (uint64_t)(sectors + 1) * SECTOR;
    x->body_len = (uint64_t)hdr_u32(b, HDR_SYSSIZE) * 16;
    /* syssize rounds up to 16 bytes. */
    uint64_t have = b->kernel.size > x->body_at ? b->kernel.size - x->body_at : 0;
    if (!x->body_len || align_up(have, 16) < x->body_len)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "kernel '%s': is truncated: %" PRIu64 " bytes of %" PRIu64,
                          b->kernel.path, b->kernel.size, x->body_at + x->body_len);
    x->body_len = MIN(x->body_len, have);
    x->align = hdr_u32(b, HDR_KERNEL_ALIGNMENT);
    if (!is_power_of_two(x->align) || x->align > KERNEL_IMAGE_SIZE)
        return bad(b, error, "damaged header: its alignment");
    x->align = MAX(x->align, 4096);
    x->relocatable = b->head[HDR_RELOCATABLE];
    x->initrd_max = hdr_u32(b, HDR_INITRD_ADDR_MAX);
    x->entry64 = x->version >= 0x20c && (hdr_u16(b, HDR_XLOADFLAGS) & XLF_KERNEL_64);
    x->pref = ONE_MIB;
    x->init_size = x->body_len;
    if (x->version >= 0x20a) {
        x->pref = load_le64(b->head + HDR_PREF_ADDRESS);
        x->init_size = MAX(hdr_u32(b, HDR_INIT_SIZE), x->body_len);
    }
    if (x->pref < ONE_MIB || x->pref > 2 * GIB || x->init_size > UNPACK_MAX_SIZE)
        return bad(b, error, "damaged header: its preferred address or its size");
    size_t limit = hdr_u32(b, HDR_CMDLINE_SIZE);
    limit = limit ? limit : DEFAULT_CMDLINE_SIZE;
    if (strlen(b->append) > limit)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "command line: %zu bytes are more than the %zu that '%s' takes",
                          strlen(b->append), limit, b->kernel.path);
    return true;
}

/* Decide whether the kernel can be unpacked; sets x->format. */
static bool open_payload(BootImage *b, LinuxImage *x, GError **error)
{
    if (!x->entry64 || x->version < 0x20a)
        return true;
    uint64_t at = hdr_u32(b, HDR_PAYLOAD_OFFSET), len = hdr_u32(b, HDR_PAYLOAD_LENGTH);
    if (!at || len < 16)
        return true;
    if (!range_within(at, len, x->body_len))
        return bad(b, error, "damaged header: its payload lies outside the file");
    x->payload_at = x->body_at + at;
    x->payload_len = len;
    uint8_t magic[8];
    if (!boot_file_read(&b->kernel, x->payload_at, magic, sizeof magic, error))
        return false;
    x->format = unpack_detect(magic, sizeof magic);
    if (b->cache_dir)
        x->have_key = kernel_cache_key(b->kernel.fd, &x->key);
    return true;
}

static bool open_common(BootImage *b, bool want_unpack, GError **error)
{
    LinuxImage *x = g_new0(LinuxImage, 1);
    x->image.fd = -1;
    b->priv = x;
    read_version(b);
    if (!open_header(b, x, error) || (want_unpack && !open_payload(b, x, error)))
        return false;
    x->unpack = x->format != UNPACK_UNKNOWN;
    const char *version = b->version ? b->version : "(unknown version)";
    if (want_unpack && !x->unpack)
        lodge_trace("boot", "kernel %s: nothing to unpack; its own entry is used", version);
    boot_set_describe(b, "Linux %s, %s", version,
                      x->unpack ? "to be unpacked" : "by its own entry");
    return true;
}

static bool open_linux(BootImage *b, GError **error)
{
    return open_common(b, true, error);
}

static bool open_bzimage(BootImage *b, GError **error)
{
    return open_common(b, false, error);
}

/* Read and unpack the payload. */
static bool unpack_payload(BootImage *b, LinuxImage *x, KernelImage *ret, GError **error)
{
    g_autofree uint8_t *packed = g_try_malloc(x->payload_len);
    if (!packed)
        return lodge_fail(error, LODGE_ERROR_HOST, "kernel: no memory to unpack it");
    if (!boot_file_read(&b->kernel, x->payload_at, packed, x->payload_len, error))
        return false;
    /* The build appends the unpacked size; gzip ends in it by itself. */
    uint64_t expect = load_le32(packed + x->payload_len - 4);
    uint64_t len = x->payload_len - (x->format == UNPACK_GZIP ? 0 : 4);
    if (x->format == UNPACK_PLAIN)
        expect = len = x->payload_len;
    if (!expect)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "compressed data: its size is 0");
    g_auto(UnpackBuf) buf = {0};
    return unpack(x->format, packed, len, expect, UNPACK_MAX_SIZE, &buf, error) &&
           kernel_image_parse(&buf, x->pref, ret, error);
}

/* From the cache, else from the file. Fills x->image or x->error. */
static void obtain_image(BootImage *b, LinuxImage *x)
{
    if (x->have_key && !x->cache_bad &&
        kernel_cache_open(b->cache_dir, &x->key, &x->image)) {
        if (x->image.link_base == x->pref) {
            x->have_image = true;
            return;
        }
        kernel_image_clear(&x->image);
    }
    x->have_image = unpack_payload(b, x, &x->image, &x->error);
}

static void *prefetch_worker(void *opaque)
{
    BootImage *b = opaque;
    obtain_image(b, b->priv);
    return NULL;
}

/* Store the image and drop it. */
static void *store_worker(void *opaque)
{
    BootImage *b = opaque;
    LinuxImage *x = b->priv;
    (void)kernel_cache_store(b->cache_dir, &x->key, &x->image, KERNEL_CACHE_MAX_BYTES);
    kernel_image_clear(&x->image);
    return NULL;
}

static void join_worker(LinuxImage *x)
{
    if (x->worker)
        g_thread_join(g_steal_pointer(&x->worker));
}

static void prefetch_linux(BootImage *b)
{
    LinuxImage *x = b->priv;
    if (!x->unpack || x->worker || x->have_image)
        return;
    g_clear_error(&x->error);
    x->worker = g_thread_try_new("unpack", prefetch_worker, b, NULL); /* none: load does it */
}

static void close_linux(BootImage *b)
{
    LinuxImage *x = b->priv;
    if (!x)
        return;
    join_worker(x);
    kernel_image_clear(&x->image);
    g_clear_error(&x->error);
    g_free(x);
    b->priv = NULL;
}

/* ---- boot_params ---- */

static bool write_seed(MemMap *mem, const BootLayout *l)
{
    uint8_t data[16 + RNG_SEED_BYTES] = {0}; /* next (8), type (4), len (4) */
    store_le32(data + 8, SETUP_RNG_SEED);
    store_le32(data + 12, RNG_SEED_BYTES);
    for (unsigned i = 0; i < RNG_SEED_BYTES; i += 8)
        store_le64(data + 16 + i, boot_random(l));
    return mem_write(mem, BOOT_SETUP_DATA_GPA, data, sizeof data);
}

bool boot_write_params(BootImage *b, MemMap *mem, const BootLayout *l, const BootLinuxInfo *info,
                       GError **error)
{
    uint8_t bp[BP_SIZE] = {0};
    if (info->header) {
        memcpy(bp + HDR_START, info->header, MIN(info->header_len, BP_HDR_END - HDR_START));
    } else {
        /* A raw ELF kernel brings no header: say what a current one would. */
        store_le16(bp + HDR_BOOT_FLAG, BOOT_FLAG_VALUE);
        store_le32(bp + HDR_MAGIC, HDR_MAGIC_VALUE);
        store_le16(bp + HDR_VERSION, 0x20f);
        bp[HDR_LOADFLAGS] = LOADED_HIGH;
        store_le32(bp + HDR_KERNEL_ALIGNMENT, DEFAULT_ALIGN);
        store_le32(bp + HDR_CMDLINE_SIZE, 2047);
    }
    bp[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    bp[HDR_LOADFLAGS] &= (uint8_t)~KASLR_FLAG;
    bp[HDR_LOADFLAGS] |= info->kaslr ? KASLR_FLAG : 0;
    store_le16(bp + HDR_VID_MODE, VID_MODE_NORMAL);
    store_le32(bp + HDR_CODE32_START, (uint32_t)info->code32_start);
    store_le32(bp + HDR_CMD_LINE_PTR, BOOT_CMDLINE_GPA);
    if (b->initrd_bytes) {
        store_le32(bp + HDR_RAMDISK_IMAGE, (uint32_t)info->initrd_gpa);
        store_le32(bp + HDR_RAMDISK_SIZE, (uint32_t)b->initrd_bytes);
    }
    if (load_le16(bp + HDR_VERSION) >= 0x209)
        store_le64(bp + HDR_SETUP_DATA, BOOT_SETUP_DATA_GPA);
    store_le64(bp + BP_ACPI_RSDP, l->rsdp_gpa);
    BootE820 map[BOOT_MAX_E820];
    unsigned n = boot_e820(l, map);
    bp[BP_E820_ENTRIES] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = bp + BP_E820_TABLE + i * E820_ENTRY_SIZE;
        store_le64(e, map[i].at);
        store_le64(e + 8, map[i].len);
        store_le32(e + 16, map[i].type);
    }
    if (!write_seed(mem, l) || !mem_write(mem, BOOT_PARAMS_GPA, bp, sizeof bp))
        return boot_too_small(b, l, MIB, error);
    return boot_write_cmdline(mem, b->append, error);
}

/* ---- placing and loading ---- */

typedef struct Places {
    gpa_t initrd, kernel;
    bool random_phys;
} Places;

/* Least memory, in bytes, that kernel and initrd can be put into. */
static uint64_t need_bytes(const BootImage *b, uint64_t kernel_end)
{
    return kernel_end + align_up(b->initrd_bytes, 4096);
}

static bool place_initrd(BootImage *b, const LinuxImage *x, const BootLayout *l,
                         const BootCmdlineMem *cmd, uint64_t kernel_end, Places *p, GError **error)
{
    uint64_t top = MIN(MIN(l->ram_below_4g, cmd->limit), x->initrd_max + 1);
    if (top < kernel_end)
        return boot_too_small(b, l, need_bytes(b, kernel_end), error);
    if (!b->initrd_bytes)
        return true;
    if (top < need_bytes(b, kernel_end))
        return boot_too_small(b, l, need_bytes(b, kernel_end), error);
    p->initrd = align_down(top - b->initrd_bytes, 4096);
    return true;
}

static void place_kernel(const BootImage *b, const LinuxImage *x, const BootLayout *l,
                         const BootCmdlineMem *cmd, Places *p)
{
    p->kernel = x->pref;
    if (cmd->nokaslr || b->kaslr_off || cmd->exactmap || !x->relocatable)
        return;
    BootE820 map[BOOT_MAX_E820];
    unsigned n = boot_e820(l, map);
    BootRange ram[BOOT_MAX_E820], avoid[G_N_ELEMENTS(cmd->avoid) + 1];
    BootPlaceQuery q = {.ram = ram,
                        .avoid = avoid,
                        .min = x->pref,
                        .max = cmd->limit,
                        .size = x->init_size,
                        .align = x->align};
    for (unsigned i = 0; i < n; i++)
        if (map[i].type == BOOT_E820_RAM)
            ram[q.n_ram++] = (BootRange){map[i].at, map[i].len};
    for (unsigned i = 0; i < cmd->n_avoid; i++)
        avoid[q.n_avoid++] = cmd->avoid[i];
    avoid[q.n_avoid++] = (BootRange){p->initrd, b->initrd_bytes};
    gpa_t at = 0;
    uint64_t places = boot_places(&q, UINT64_MAX, &at);
    if (places && boot_places(&q, boot_random(l) % places, &at)) {
        p->kernel = at;
        p->random_phys = true;
    }
}

static BootLinuxInfo params_info(const BootImage *b, const Places *p)
{
    size_t end = HDR_MAGIC + (size_t)b->head[HDR_JUMP_LEN];
    return (BootLinuxInfo){.header = b->head + HDR_START,
                           .header_len = end - HDR_START,
                           .initrd_gpa = p->initrd,
                           .code32_start = p->kernel};
}

static bool load_own_entry(BootImage *b, MemMap *mem, const BootLayout *l, BootCpu *cpu,
                           GError **error)
{
    LinuxImage *x = b->priv;
    BootCmdlineMem cmd;
    boot_parse_cmdline(b->append, &cmd);
    /* Its own decompressor chooses the final place: this is only where it starts. */
    Places p = {.kernel = x->pref};
    if (!place_initrd(b, x, l, &cmd, x->pref + x->init_size, &p, error) ||
        !boot_file_load(&b->kernel, x->body_at, mem, p.kernel, x->body_len, error) ||
        !boot_load_initrds(b, mem, p.initrd, error))
        return false;
    if (!boot_zero(b, mem, p.kernel + x->body_len, x->init_size - x->body_len))
        return boot_too_small(b, l, x->pref + x->init_size, error);
    BootLinuxInfo info = params_info(b, &p);
    if (b->kaslr_off && !cmd.nokaslr) {
        g_autofree char *given = b->append;
        b->append = g_strconcat(given, *given ? " " : "", "nokaslr", NULL);
    }
    if (!boot_write_params(b, mem, l, &info, error) || !boot_write_gdt(mem, x->entry64) ||
        (x->entry64 && !boot_write_page_tables(mem, p.kernel, x->init_size, error)))
        return false;
    *cpu = (BootCpu){.mode = x->entry64 ? BOOT_MODE_LONG64 : BOOT_MODE_PROT32,
                     .rip = p.kernel + (x->entry64 ? ENTRY_64 : 0),
                     .rsp = BOOT_STACK_TOP_GPA,
                     .rsi = BOOT_PARAMS_GPA,
                     .cr3 = x->entry64 ? BOOT_PAGE_TABLES_GPA : 0,
                     .gdt_gpa = BOOT_GDT_GPA};
    boot_set_describe(b, "Linux %s, by its own %u-bit entry at 0x%" PRIx64,
                      b->version ? b->version : "(unknown version)", x->entry64 ? 64 : 32,
                      cpu->rip);
    return true;
}

/* Virtual slide: as many slots as fit the 1 GiB that the kernel maps for itself. */
static uint64_t draw_virt_delta(const LinuxImage *x, const BootLayout *l)
{
    if (x->pref + x->init_size > KERNEL_IMAGE_SIZE)
        return 0;
    uint64_t slots = (KERNEL_IMAGE_SIZE - x->pref - x->init_size) / x->align + 1;
    return boot_random(l) % slots * x->align;
}

static bool load_image(BootImage *b, LinuxImage *x, MemMap *mem, const BootLayout *l,
                       const BootCmdlineMem *cmd, BootCpu *cpu, GError **error)
{
    Places p = {0};
    uint64_t size = MAX(x->init_size, x->image.span);
    if (!place_initrd(b, x, l, cmd, x->pref + size, &p, error))
        return false;
    place_kernel(b, x, l, cmd, &p);
    bool kaslr = !cmd->nokaslr && !b->kaslr_off && x->image.has_relocs;
    uint64_t delta = kaslr ? draw_virt_delta(x, l) : 0;
    if (!kernel_image_load(&x->image, mem, p.kernel, delta, !b->loaded, error) ||
        !boot_load_initrds(b, mem, p.initrd, error))
        return false;
    if (!boot_zero(b, mem, p.kernel + x->image.span, size - x->image.span))
        return boot_too_small(b, l, x->pref + size, error);
    BootLinuxInfo info = params_info(b, &p);
    info.kaslr = kaslr;
    if (!boot_write_params(b, mem, l, &info, error) || !boot_write_gdt(mem, true) ||
        !boot_write_page_tables(mem, p.kernel, size, error))
        return false;
    *cpu = (BootCpu){.mode = BOOT_MODE_LONG64,
                     .rip = p.kernel + x->image.entry,
                     .rsp = BOOT_STACK_TOP_GPA,
                     .rsi = BOOT_PARAMS_GPA,
                     .cr3 = BOOT_PAGE_TABLES_GPA,
                     .gdt_gpa = BOOT_GDT_GPA};
    boot_set_describe(b, "Linux %s, %s (%s), at 0x%" PRIx64 " + 0x%" PRIx64 "%s, 4-level paging",
                      b->version ? b->version : "(unknown version)",
                      x->image.fd >= 0 ? "unpacked before" : "unpacked", unpack_name(x->format),
                      p.kernel, delta, p.random_phys || kaslr ? ", randomized" : "");
    return true;
}

/* The image served: keep it for the cache or let it go. A VM holds no copy of its kernel. */
static void retire_image(BootImage *b, LinuxImage *x)
{
    bool fresh = x->image.fd < 0;
    x->have_image = false;
    if (fresh && x->have_key && x->key.settled)
        x->worker = g_thread_try_new("cache", store_worker, b, NULL);
    if (!x->worker)
        kernel_image_clear(&x->image);
}

static bool load_linux(BootImage *b, MemMap *mem, const BootLayout *l, BootCpu *cpu,
                       GError **error)
{
    LinuxImage *x = b->priv;
    if (!x->unpack)
        return load_own_entry(b, mem, l, cpu, error);
    /* A prefetch, or the cache's writer of the last start. */
    join_worker(x);
    BootCmdlineMem cmd;
    boot_parse_cmdline(b->append, &cmd);
    for (;;) {
        if (!x->have_image && !x->error)
            obtain_image(b, x);
        g_autoptr(GError) local = g_steal_pointer(&x->error);
        bool from_cache = x->have_image && x->image.fd >= 0;
        bool ok = x->have_image && load_image(b, x, mem, l, &cmd, cpu, &local);
        if (x->have_image)
            retire_image(b, x);
        if (ok)
            return true;
        if (from_cache && !g_error_matches(local, LODGE_ERROR, LODGE_ERROR_CONFIG)) {
            lodge_trace("boot", "%s; unpacking again", local->message);
            kernel_cache_forget(b->cache_dir, &x->key);
            x->cache_bad = true;
            b->loaded = true; /* what the damaged entry left behind */
            continue;
        }
        if (g_error_matches(local, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED)) {
            lodge_trace("boot", "%s; its own entry is used", local->message);
            x->unpack = false;
            return load_own_entry(b, mem, l, cpu, error);
        }
        g_propagate_prefixed_error(error, g_steal_pointer(&local), "kernel '%s': ",
                                   b->kernel.path);
        return false;
    }
}

const BootProtocol boot_proto_linux = {
    .name = "linux",
    .help = "bzImage, unpacked on the host and entered directly",
    .probe = probe_bzimage,
    .open = open_linux,
    .prefetch = prefetch_linux,
    .load = load_linux,
    .close = close_linux,
};

const BootProtocol boot_proto_bzimage = {
    .name = "bzimage",
    .help = "bzImage by its own 64- or 32-bit entry",
    .probe = probe_bzimage,
    .open = open_bzimage,
    .load = load_own_entry,
    .close = close_linux,
};
