/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_BOOT_INTERNAL_H
#define LODGE_BOOT_INTERNAL_H

/* Shared by the boot protocols; not for others. */

#include "boot.h"

#define BOOT_HEAD_MAX 65536u /* bytes of the kernel file that probes look at */

/* Places in low memory, all inside [BOOT_LOW_START, BOOT_LOW_END). */
enum {
    BOOT_STACK_TOP_GPA = 0x10000,   /* grows down to BOOT_LOW_START */
    BOOT_PARAMS_GPA = 0x10000,      /* boot_params, hvm_start_info or Multiboot information */
    BOOT_SETUP_DATA_GPA = 0x11000,  /* Linux' setup_data chain */
    BOOT_GDT_GPA = 0x12000,
    BOOT_TABLES_GPA = 0x14000,      /* memory maps and module lists of PVH and Multiboot */
    BOOT_TABLES_END_GPA = 0x20000,
    BOOT_CMDLINE_GPA = 0x20000,
    BOOT_CMDLINE_MAX = 0x10000,     /* bytes with the terminating zero */
    BOOT_PAGE_TABLES_GPA = 0x30000, /* to BOOT_LOW_END */
};

typedef struct BootFile {
    char *path; /* owned; for messages */
    char *args; /* owned or NULL: what follows the path (Multiboot modules) */
    int fd;     /* owned */
    uint64_t size;
} BootFile;

typedef enum BootMatch {
    BOOT_MATCH_NO,
    BOOT_MATCH_POOR, /* can be tried */
    BOOT_MATCH_GOOD,
    BOOT_MATCH_BEST,
} BootMatch;

typedef struct BootProtocol BootProtocol;

struct BootImage {
    BootFile kernel;
    uint8_t *head; /* owned: first bytes of the kernel file */
    size_t head_len;
    GArray *initrds; /* BootFile, owned */
    uint64_t initrd_bytes; /* all initrds, each padded to 4 bytes */
    char *append;    /* owned */
    char *cache_dir; /* owned or NULL */
    bool kaslr_off;
    bool loaded; /* memory holds what an earlier load left */
    const BootProtocol *protocol;
    void *priv;           /* owned by the protocol */
    char *version;        /* owned or NULL */
    char *banner;         /* owned or NULL: version and what follows it */
    char *describe;       /* owned */
};

struct BootProtocol {
    const char *name, *help;
    /* How well the first bytes fit; @b has head, head_len and kernel.size. */
    BootMatch (*probe)(const BootImage *b);
    bool (*open)(BootImage *b, GError **error);
    void (*prefetch)(BootImage *b); /* may be NULL */
    bool (*load)(BootImage *b, MemMap *mem, const BootLayout *l, BootCpu *ret_cpu, GError **error);
    void (*close)(BootImage *b); /* frees b->priv; accepts NULL there */
};

extern const BootProtocol boot_proto_linux, boot_proto_bzimage, boot_proto_multiboot,
    boot_proto_pvh, boot_proto_elf;

/* boot.c: helpers */
void boot_set_describe(BootImage *b, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* Read [@off, @off + @len) of @f to @to; false with LODGE_ERROR_HOST or, at its end,
 * LODGE_ERROR_IMAGE. */
bool boot_file_read(const BootFile *f, uint64_t off, void *to, uint64_t len, GError **error);
/* The same, into guest memory. */
bool boot_file_load(const BootFile *f, uint64_t off, MemMap *mem, gpa_t to, uint64_t len,
                    GError **error);
/* Zero guest memory, but only if an earlier start may have left something there. */
bool boot_zero(BootImage *b, MemMap *mem, gpa_t at, uint64_t len);
/* Write GDT with a 32- or 64-bit code segment at BOOT_GDT_GPA. */
bool boot_write_gdt(MemMap *mem, bool long_mode);
uint64_t boot_random(const BootLayout *l);
/* "memory: ...: needs at least N MiB" */
bool boot_too_small(const BootImage *b, const BootLayout *l, uint64_t need, GError **error);
/* Write all initrds one after another from @at, padded to 4 bytes each. */
bool boot_load_initrds(BootImage *b, MemMap *mem, gpa_t at, GError **error);
/* Copy the command line (NUL-terminated) to BOOT_CMDLINE_GPA. */
bool boot_write_cmdline(MemMap *mem, const char *text, GError **error);

/* boot_place.c: choosing addresses */
typedef struct BootRange {
    uint64_t at, len;
} BootRange;

typedef struct BootPlaceQuery {
    const BootRange *ram, *avoid;
    unsigned n_ram, n_avoid;
    uint64_t min, max; /* the result lies in [min, max) as a whole */
    uint64_t size, align;
} BootPlaceQuery;
/* Number of aligned places for @q->size bytes; the @pick'th of them in @ret_at if there is. */
uint64_t boot_places(const BootPlaceQuery *q, uint64_t pick, uint64_t *ret_at);
/* What the command line says about memory: Linux' mem=, memmap=, nokaslr. */
typedef struct BootCmdlineMem {
    bool nokaslr, exactmap;
    uint64_t limit; /* UINT64_MAX: none */
    BootRange avoid[16];
    unsigned n_avoid;
} BootCmdlineMem;
void boot_parse_cmdline(const char *text, BootCmdlineMem *ret);
/* Identity-map the first 4 GiB and [@at, @at + @len) by 2 MiB pages at BOOT_PAGE_TABLES_GPA. */
bool boot_write_page_tables(MemMap *mem, gpa_t at, uint64_t len, GError **error);

/* boot_linux.c: what raw ELF kernels share with bzImages */
typedef struct BootLinuxInfo {
    const uint8_t *header; /* setup header from 0x1f1, or NULL: a minimal one is made */
    size_t header_len;
    gpa_t initrd_gpa;
    uint64_t code32_start;
    bool kaslr;
} BootLinuxInfo;
bool boot_write_params(BootImage *b, MemMap *mem, const BootLayout *l, const BootLinuxInfo *info,
                       GError **error);

/* boot_elf.c: what the ELF-based protocols share */
typedef struct BootElfSegment {
    uint64_t offset, paddr, filesz, memsz;
} BootElfSegment;

enum { BOOT_ELF_MAX_SEGMENTS = 64 };

typedef struct BootElf {
    bool is64;
    bool has_interp;
    bool has_linux_note;
    bool has_pvh;
    uint32_t pvh_entry;
    uint64_t entry;
    uint64_t low, high; /* physical span of the segments */
    unsigned n;
    BootElfSegment seg[BOOT_ELF_MAX_SEGMENTS];
} BootElf;
/* Whether the head is an ELF file for x86; fills @ret as far as the head reaches. */
bool boot_elf_probe(const BootImage *b, BootElf *ret);
/* The full parse, with reading of notes; LODGE_ERROR_IMAGE on hostile values. */
bool boot_elf_open(BootImage *b, BootElf *ret, GError **error);
bool boot_elf_load(BootImage *b, const BootElf *e, MemMap *mem, const BootLayout *l,
                   GError **error);

#endif
