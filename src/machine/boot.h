/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_BOOT_H
#define LODGE_BOOT_H

/* Starting a guest from a kernel file: which protocol, what goes where, how vCPU 0 begins. */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/mem.h"

typedef struct BootSpec {
    const char *kernel;         /* path */
    const char *const *initrds; /* paths, NULL-terminated; NULL: none. "PATH ARGS" for Multiboot */
    int initrd_fd;              /* > 0: a further one after those, dup'ed; see boot_add_initrd() */
    const char *append;         /* command line; NULL: empty */
    const char *protocol;       /* see boot_protocol_name(); NULL: auto */
    bool kaslr_off;             /* as nokaslr on the command line */
    const char *cache_dir;      /* folder of unpacked kernels; NULL: no cache */
} BootSpec;

/* Files opened and parsed once. Descriptors stay open, so a reset loads the same kernel. */
typedef struct BootImage BootImage;

typedef enum BootMode {
    BOOT_MODE_REAL,   /* reset vector; the fields below do not count */
    BOOT_MODE_PROT32, /* paging off, flat 4 GiB segments */
    BOOT_MODE_LONG64, /* PAE, LME and LMA on, LA57 off, 4-level tables at cr3 */
} BootMode;

/* Initial state of vCPU 0. Registers not named are 0; RFLAGS = 2 (interrupts off), TR and LDTR as
 * after reset, IDT limit 0. Segments are flat with selectors BOOT_CS and BOOT_DS. */
typedef struct BootCpu {
    BootMode mode;
    uint64_t rip, rsp, rsi, rax, rbx;
    gpa_t cr3;     /* LONG64 only */
    gpa_t gdt_gpa; /* holds BOOT_CS and BOOT_DS; limit BOOT_GDT_LIMIT */
} BootCpu;

enum {
    BOOT_CS = 0x10,
    BOOT_DS = 0x18,
    BOOT_GDT_LIMIT = 0x1f,
};

enum { BOOT_E820_RAM = 1, BOOT_E820_RESERVED = 2, BOOT_E820_ACPI = 3, BOOT_E820_NVS = 4 };

typedef struct BootE820 {
    uint64_t at, len;
    uint32_t type; /* BOOT_E820_* */
} BootE820;

typedef struct BootLayout {
    uint64_t ram_below_4g; /* bytes of memory from address 0 */
    uint64_t ram_above_4g; /* bytes of memory from 4 GiB */
    gpa_t rsdp_gpa;        /* ACPI's root pointer; 0: none */
    unsigned cpus;
    const BootE820 *reserved; /* more than what boot_e820() gives; borrowed */
    unsigned n_reserved;      /* at most BOOT_MAX_RESERVED; must not overlap memory above 1 MiB */
    uint64_t (*random)(void *opaque); /* NULL: the host's generator */
    void *opaque;
} BootLayout;

enum { BOOT_MAX_RESERVED = 8, BOOT_MAX_E820 = BOOT_MAX_RESERVED + 5 };

/* The low megabyte of a directly booted guest: memory up to here, then EBDA, video, ROM. */
#define BOOT_LOW_RAM_END 0x9fc00u
/* Lodge's own structures for a start lie in [BOOT_LOW_START, BOOT_LOW_END); ACPI and MP tables go
 * elsewhere (EBDA, 0xE0000 and up: reserved in the map). */
#define BOOT_LOW_START 0x8000u
#define BOOT_LOW_END 0x50000u

/* Name and help of the @i'th value of --boot protocol=; returns how many there are. */
unsigned boot_protocol_name(unsigned i, const char **ret_name, const char **ret_help);

/**
 * boot_open() - Open and check the kernel and the initrds
 * Context: main thread; reads headers only.
 * Return:  transfer full; NULL with LODGE_ERROR_CONFIG (no such file, a folder, empty, unknown
 *          protocol, command line too long), LODGE_ERROR_IMAGE (truncated, not a kernel),
 *          LODGE_ERROR_UNSUPPORTED (a kernel that Lodge does not start).
 */
BootImage *boot_open(const BootSpec *spec, GError **error);
/* Add a generated initrd behind the others, before the first boot_load(); @fd is dup'ed. For those
 * that must know boot_kernel_version() to make one. Errors as boot_open(). */
bool boot_add_initrd(BootImage *b, int fd, GError **error);
/* Start unpacking on a thread of its own, while the machine is being built. At most once before
 * each boot_load(); optional. */
void boot_prefetch(BootImage *b);
/**
 * boot_load() - Put everything into guest memory; for the first start and for each reset
 * @mem:     memory laid out as @l says
 * @ret_cpu: how vCPU 0 starts
 * Context: main thread, vCPUs parked. Draws new random addresses.
 * Return:  false with LODGE_ERROR_CONFIG (memory too small: says how much is needed),
 *          LODGE_ERROR_IMAGE (damaged contents), LODGE_ERROR_HOST (a file cannot be read).
 */
bool boot_load(BootImage *b, MemMap *mem, const BootLayout *l, BootCpu *ret_cpu, GError **error);
/* What was opened or loaded: "Linux 6.1.0-13-amd64, unpacked (xz), at 0x3c00000, randomized".
 * Transfer none; valid until the next boot_load(). */
const char *boot_describe(const BootImage *b);
/* The kernel's own version string ("6.1.0-13-amd64"), NULL if it is no bzImage. Transfer none. */
const char *boot_kernel_version(const BootImage *b);
/* All that the image says of its version; NULL: nothing. Transfer none. */
const char *boot_kernel_banner(const BootImage *b);
/* Waits for the cache to be written. NULL is fine. */
void boot_free(BootImage *b);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BootImage, boot_free)

/**
 * boot_e820() - The memory map of a directly booted guest, in address order
 * @ret: BOOT_MAX_E820 entries. Return: entries used.
 */
unsigned boot_e820(const BootLayout *l, BootE820 *ret);

#endif
