/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kernel files from hostile bytes: every protocol's header parser with what it loads, and the
 * unpacked kernel's ELF and relocation lists. Whatever is accepted must load or say why not.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "lodge/num.h"

#include "boot.h"
#include "kernel_image.h"
#include "replay.h"

enum { RAM = 32 << 20, INPUT_CAP = 1 << 20 };

static MemMap *make_ram(void)
{
    MemMap *m = mem_map_new();
    g_autoptr(MemBlock) b = mem_block_new("ram", RAM, 0, NULL);
    if (b && mem_map_add(m, b, 0, 0, RAM, NULL))
        b = NULL;
    return m;
}

static void as_file(const uint8_t *data, size_t len)
{
    static const char *const protocols[] = {"auto", "bzimage", "elf", "pvh", "multiboot"};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len) {
        if (fd >= 0)
            close(fd);
        return;
    }
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autoptr(MemMap) m = make_ram();
    for (unsigned i = 0; i < G_N_ELEMENTS(protocols); i++) {
        g_autoptr(GError) error = NULL;
        BootSpec spec = {.kernel = path, .append = "mem=30M", .protocol = protocols[i]};
        g_autoptr(BootImage) b = boot_open(&spec, &error);
        g_assert(b || error);
        BootCpu cpu;
        BootLayout l = {.ram_below_4g = RAM};
        for (unsigned k = 0; b && k < 2; k++) {
            g_clear_error(&error);
            g_assert(boot_load(b, m, &l, &cpu, &error) || error);
        }
    }
    close(fd);
}

static void as_unpacked(const uint8_t *data, size_t len)
{
    UnpackBuf buf = {0};
    g_autoptr(GError) error = NULL;
    if (!unpack(UNPACK_PLAIN, data, len, 0, INPUT_CAP, &buf, &error))
        return;
    g_auto(KernelImage) k = {.fd = -1};
    g_autoptr(MemMap) m = make_ram();
    if (kernel_image_parse(&buf, MIB, &k, &error) && k.span < RAM - 2 * MIB)
        (void)kernel_image_load(&k, m, 2 * MIB, k.has_relocs ? 4 * MIB : 0, true, NULL);
    unpack_buf_clear(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!len || len > INPUT_CAP)
        return 0;
    as_file(data, len);
    as_unpacked(data, len);
    return 0;
}
