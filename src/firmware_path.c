/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finding and reading firmware files. The folders are those of Debian, Fedora, Arch and openSUSE;
 * the first that has the name wins, and the working directory comes last, so that a file left
 * lying there cannot stand in for the firmware of the distribution.
 *
 * Threads: any; no state.
 */
#include "lodge/firmware_path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

static const char *const firmware_dirs[] = {
    "/usr/share/seabios",      "/usr/share/qemu",           "/usr/share/qemu-firmware",
    "/usr/lib/ipxe/qemu",      "/usr/lib/ipxe",             "/usr/share/ipxe/qemu",
    "/usr/share/ipxe",         "/usr/lib/u-boot/qemu-x86",  "/usr/lib/u-boot/qemu-x86_64",
    "/usr/local/share/seabios", "/usr/local/share/qemu",
};

/* Debian's packages, by how their files' names begin. */
static const struct {
    const char *prefix, *package;
} packages[] = {
    {"bios", "seabios"}, {"vgabios", "seabios"}, {"pxe-", "ipxe-qemu"},
    {"efi-", "ipxe-qemu"}, {"u-boot", "u-boot-qemu"},
};

static const char *package_of(const char *name)
{
    const char *base = strrchr(name, '/');
    base = base ? base + 1 : name;
    for (unsigned i = 0; i < G_N_ELEMENTS(packages); i++) {
        if (g_str_has_prefix(base, packages[i].prefix))
            return packages[i].package;
    }
    return NULL;
}

static bool fail_absent(const char *name, GError **error)
{
    const char *package = package_of(name);
    if (package)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "firmware '%s': no such file; Debian's package %s has it", name, package);
    return lodge_fail(error, LODGE_ERROR_CONFIG, "firmware '%s': no such file; check the path",
                      name);
}

char *firmware_find(const char *name, GError **error)
{
    if (!*name) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "firmware: no file is named");
        return NULL;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(firmware_dirs) && !strchr(name, '/'); i++) {
        g_autofree char *path = g_build_filename(firmware_dirs[i], name, NULL);
        if (g_file_test(path, G_FILE_TEST_EXISTS))
            return g_steal_pointer(&path);
    }
    if (g_file_test(name, G_FILE_TEST_EXISTS))
        return g_strdup(name);
    fail_absent(name, error);
    return NULL;
}

/* What of @st makes @path no firmware. */
static bool check_file(const char *path, const struct stat *st, size_t unit, GError **error)
{
    if (S_ISDIR(st->st_mode))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "firmware '%s': is a directory; name a file in it", path);
    if (!S_ISREG(st->st_mode))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "firmware '%s': not a regular file; name a ROM image", path);
    if (!st->st_size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "firmware '%s': is empty; fetch or copy it again", path);
    if ((uint64_t)st->st_size > FIRMWARE_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "firmware '%s': %" PRIu64 " bytes, at most %u MiB; is it a ROM image?",
                          path, (uint64_t)st->st_size, FIRMWARE_MAX >> 20);
    if ((uint64_t)st->st_size % unit)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "firmware '%s': %" PRIu64 " bytes, not a multiple of %zu KiB; "
                          "it is cut off or no ROM image",
                          path, (uint64_t)st->st_size, unit / (size_t)KIB);
    return true;
}

static GBytes *read_all(int fd, const char *path, size_t len, GError **error)
{
    g_autofree uint8_t *data = g_try_malloc(len);
    size_t done = 0;
    if (!data) {
        lodge_fail(error, LODGE_ERROR_HOST, "firmware '%s': no memory for %zu bytes", path, len);
        return NULL;
    }
    while (done < len) {
        ssize_t n = read(fd, data + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            lodge_fail_errno(error, errno, "firmware '%s'", path);
            return NULL;
        }
        if (!n) {
            lodge_fail(error, LODGE_ERROR_CONFIG, "firmware '%s': ends after %zu of %zu bytes",
                       path, done, len);
            return NULL;
        }
        done += (size_t)n;
    }
    return g_bytes_new_take(g_steal_pointer(&data), len);
}

GBytes *firmware_read(const char *name, size_t unit, GError **error)
{
    struct stat st;
    g_autofree char *path = firmware_find(name, error);
    if (!path)
        return NULL;
    /* Not to hang on a FIFO. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        lodge_fail_errno(error, errno, "firmware '%s'", path);
        return NULL;
    }
    GBytes *bytes = NULL;
    if (fstat(fd, &st))
        lodge_fail_errno(error, errno, "firmware '%s'", path);
    else if (check_file(path, &st, unit, error))
        bytes = read_all(fd, path, (size_t)st.st_size, error);
    close(fd);
    return bytes;
}
