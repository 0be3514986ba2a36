/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks of the host beside KVM: taps, memory, disk, firmware files, libraries. */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lodge/device.h"
#include "lodge/num.h"

#include "libraries.h"
#include "options.h"

#define MEMORY_LOW (512 * MIB) /* less than one machine of default size */
#define DISK_LOW GIB

void check_tun(DoctorHost *h, CheckResult *ret)
{
    g_autofree char *path = doctor_path(h, "/dev/net/tun");
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd >= 0) {
        close(fd);
        check_set(ret, CHECK_OK, NULL, "/dev/net/tun can be opened");
    } else if (errno == EACCES || errno == EPERM) {
        check_set(ret, CHECK_WARNING, "sudo chmod 666 /dev/net/tun",
                  "/dev/net/tun: %s; user networks work, taps do not", g_strerror(errno));
    } else {
        check_set(ret, CHECK_WARNING, "sudo modprobe tun",
                  "/dev/net/tun: %s; user networks work, taps do not", g_strerror(errno));
    }
}

/* A number of /proc/meminfo as it stands there (kB, or pages); false: no such line. */
static bool meminfo(const DoctorHost *h, const char *key, uint64_t *ret_value)
{
    g_autofree char *path = doctor_path(h, "/proc/meminfo"), *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return false;
    lines = g_strsplit(text, "\n", -1);
    for (char **l = lines; *l; l++) {
        size_t len = strlen(key);

        if (!strncmp(*l, key, len) && (*l)[len] == ':') {
            *ret_value = g_ascii_strtoull(*l + len + 1, NULL, 10);
            return true;
        }
    }
    return false;
}

void check_huge_pages(DoctorHost *h, CheckResult *ret)
{
    uint64_t free_pages = 0, size_kb = 0;

    if (!meminfo(h, "HugePages_Free", &free_pages) || !meminfo(h, "Hugepagesize", &size_kb))
        check_set(ret, CHECK_WARNING, "run a kernel with CONFIG_HUGETLBFS",
                  "the kernel has none; --memory huge=on does not work");
    else if (!free_pages)
        check_set(ret, CHECK_OK, NULL,
                  "none reserved; --memory SIZE,huge=on needs them: sudo sysctl vm.nr_hugepages=N");
    else
        check_set(ret, CHECK_OK, NULL,
                  "%" G_GUINT64_FORMAT " free of %" G_GUINT64_FORMAT " kB each", free_pages,
                  size_kb);
}

void check_thp(DoctorHost *h, CheckResult *ret)
{
    g_autofree char *text = doctor_read(h, "/sys/kernel/mm/transparent_hugepage/enabled");

    if (!text)
        check_set(ret, CHECK_WARNING, "run a kernel with CONFIG_TRANSPARENT_HUGEPAGE",
                  "the kernel has no transparent huge pages; guests are slower");
    else if (strstr(text, "[never]"))
        check_set(ret, CHECK_WARNING,
                  "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
                  "transparent huge pages are off; guests are slower");
    else
        check_set(ret, CHECK_OK, NULL, "%s", text);
}

void check_memory(DoctorHost *h, CheckResult *ret)
{
    uint64_t kb = 0;

    if (!meminfo(h, "MemAvailable", &kb))
        check_set(ret, CHECK_WARNING, NULL, "/proc/meminfo does not say what is available");
    else if (kb * KIB < MEMORY_LOW)
        check_set(ret, CHECK_WARNING, "end what is not needed, or give guests less by --memory",
                  "%" G_GUINT64_FORMAT " MiB available, a machine of default size takes 512",
                  kb / KIB);
    else
        check_set(ret, CHECK_OK, NULL, "%" G_GUINT64_FORMAT " MiB available", kb / KIB);
}

/* Free bytes of the file system that @path is or will be on. */
static bool disk_free(const char *path, uint64_t *ret_bytes)
{
    g_autofree char *at = g_strdup(path);
    struct statvfs v;

    /* Up to the first folder that exists; the root does. */
    while (statvfs(at, &v) < 0) {
        g_autofree char *up = g_path_get_dirname(at);

        if (errno != ENOENT || !strcmp(up, at))
            return false;
        g_free(at);
        at = g_steal_pointer(&up);
    }
    *ret_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    return true;
}

void check_disk(DoctorHost *h, CheckResult *ret)
{
    const char *const dirs[] = {g_get_user_cache_dir(), g_get_user_data_dir(), g_get_tmp_dir()};
    const char *lowest = NULL;
    uint64_t least = UINT64_MAX;

    for (size_t i = 0; i < G_N_ELEMENTS(dirs); i++) {
        uint64_t bytes;

        if (disk_free(dirs[i], &bytes) && bytes < least) {
            least = bytes;
            lowest = dirs[i];
        }
    }
    if (!lowest)
        check_set(ret, CHECK_WARNING, NULL, "no file system tells what is free");
    else if (least < DISK_LOW)
        check_set(ret, CHECK_WARNING, "make room there",
                  "%" G_GUINT64_FORMAT " MiB free for %s; overlays and unpacked kernels grow there",
                  least / MIB, lowest);
    else
        check_set(ret, CHECK_OK, NULL, "at least %" G_GUINT64_FORMAT " MiB free for %s",
                  least / MIB, lowest);
}

void check_firmware(DoctorHost *h, CheckResult *ret)
{
    static const struct {
        const char *path, *name, *package;
    } files[] = {
        {"/usr/share/seabios/bios-256k.bin", "SeaBIOS", "seabios"},
        {"/usr/share/seabios/vgabios-stdvga.bin", "its VGA BIOS", "seabios"},
        {"/usr/lib/ipxe/virtio-net.rom", "iPXE", "ipxe-qemu"},
    };
    g_autoptr(GString) missing = g_string_new(NULL), fix = g_string_new("sudo apt install");

    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *path = doctor_path(h, files[i].path);
        g_autofree char *qemu =
            g_strdup_printf("/usr/lib/ipxe/qemu/efi-%s", strrchr(files[i].path, '/') + 1);
        g_autofree char *other = doctor_path(h, qemu);

        if (!access(path, R_OK) || !access(other, R_OK))
            continue;
        g_string_append_printf(missing, "%s%s", missing->len ? ", " : "", files[i].name);
        if (!strstr(fix->str, files[i].package))
            g_string_append_printf(fix, " %s", files[i].package);
    }
    if (missing->len)
        check_set(ret, CHECK_WARNING, fix->str, "missing: %s; kernels given by --kernel need none",
                  missing->str);
    else
        check_set(ret, CHECK_OK, NULL, "SeaBIOS, its VGA BIOS and iPXE are there");
}

void check_libraries(DoctorHost *h, CheckResult *ret)
{
    g_autoptr(GString) missing = g_string_new(NULL), fix = g_string_new("sudo apt install");
    g_autoptr(GString) found = g_string_new(NULL);

    for (const OptionalLibrary *l = optional_libraries; l->name; l++) {
        if (library_there(l)) {
            g_string_append_printf(found, "%s%s", found->len ? ", " : "", l->name);
            continue;
        }
        g_string_append_printf(missing, "%s%s (%s)", missing->len ? ", " : "", l->name, l->use);
        g_string_append_printf(fix, " %s", l->package);
    }
    if (missing->len)
        check_set(ret, CHECK_WARNING, fix->str, "missing: %s", missing->str);
    else
        check_set(ret, CHECK_OK, NULL, "%s can be loaded", found->str);
}

void check_io_uring(DoctorHost *h, CheckResult *ret)
{
    struct io_uring_params p = {0};
    int fd = (int)syscall(SYS_io_uring_setup, 1, &p);

    if (fd >= 0) {
        close(fd);
        check_set(ret, CHECK_OK, NULL, "disks use io_uring (features 0x%x)", p.features);
    } else if (errno == EPERM) {
        check_set(ret, CHECK_WARNING, "sudo sysctl kernel.io_uring_disabled=0",
                  "io_uring is forbidden; disks use threads");
    } else {
        check_set(ret, CHECK_WARNING, "run Linux 5.6 or later", "io_uring: %s; disks use threads",
                  g_strerror(errno));
    }
}
