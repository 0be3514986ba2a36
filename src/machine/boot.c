/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starting a guest from a kernel file: opening, choosing the protocol, reading files to memory.
 *
 * A protocol is a row of protocols[]: it says how well the first bytes of the file fit, checks the
 * file once, and fills guest memory for each start. Files are opened once and their descriptors
 * kept, so a reset loads the same kernel even when the file was replaced meanwhile.
 *
 * File contents are untrusted: every offset and length is checked against the size that fstat gave,
 * and files are read, never mapped, so one that shrinks is an error and not a signal.
 *
 * Threads: main only, but for what a protocol's prefetch starts and joins itself.
 * Spec: Linux Documentation/arch/x86/boot.rst; Multiboot 0.6.96; Xen PVH (docs/misc/pvh.pandoc).
 */
#include "boot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "boot_internal.h"

static const BootProtocol *const protocols[] = {
    &boot_proto_linux, &boot_proto_bzimage, &boot_proto_multiboot, &boot_proto_pvh, &boot_proto_elf,
};

static const char auto_name[] = "auto";

unsigned boot_protocol_name(unsigned i, const char **ret_name, const char **ret_help)
{
    const BootProtocol *p = i ? protocols[MIN(i, G_N_ELEMENTS(protocols)) - 1] : NULL;
    *ret_name = p ? p->name : auto_name;
    *ret_help = p ? p->help : "what fits the file best";
    return G_N_ELEMENTS(protocols) + 1;
}

void boot_set_describe(BootImage *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_free(b->describe);
    b->describe = g_strdup_vprintf(fmt, ap);
    va_end(ap);
}

uint64_t boot_random(const BootLayout *l)
{
    if (l->random)
        return l->random(l->opaque);
    uint64_t v = 0;
    /* Short requests to a seeded generator do not fail; early in the host's boot they wait. */
    while (getrandom(&v, sizeof v, 0) < 0 && errno == EINTR)
        continue;
    return v;
}

bool boot_file_read(const BootFile *f, uint64_t off, void *to, uint64_t len, GError **error)
{
    for (uint64_t done = 0; done < len;) {
        ssize_t n = pread(f->fd, (char *)to + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lodge_fail_errno(error, errno, "file '%s': cannot be read", f->path);
        if (n == 0)
            return lodge_fail(error, LODGE_ERROR_IMAGE,
                              "file '%s': ends at offset %" G_GUINT64_FORMAT
                              ", %" G_GUINT64_FORMAT " bytes too early", f->path, off + done,
                              len - done);
        done += (uint64_t)n;
    }
    return true;
}

bool boot_file_load(const BootFile *f, uint64_t off, MemMap *mem, gpa_t to, uint64_t len,
                    GError **error)
{
    while (len) {
        MemPin pin;
        size_t n = mem_pin_some(mem, to, len, true, &pin);
        if (!n)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "file '%s': belongs at 0x%" PRIx64 ", where the guest has no memory",
                              f->path, to);
        bool ok = boot_file_read(f, off, pin.host, n, error);
        mem_unpin(&pin);
        if (!ok)
            return false;
        off += n;
        to += n;
        len -= n;
    }
    return true;
}

bool boot_zero(BootImage *b, MemMap *mem, gpa_t at, uint64_t len)
{
    /* Fresh memory is zero; touching it would make the host allocate it. */
    return !b->loaded || !len || mem_zero(mem, at, len);
}

bool boot_write_gdt(MemMap *mem, bool long_mode)
{
    const uint64_t code32 = 0x00cf9b000000ffff, code64 = 0x00af9b000000ffff;
    const uint64_t data = 0x00cf93000000ffff;
    const uint64_t gdt[] = {0, 0, long_mode ? code64 : code32, data};
    _Static_assert(sizeof gdt == BOOT_GDT_LIMIT + 1, "limit states the table");
    return mem_write(mem, BOOT_GDT_GPA, gdt, sizeof gdt);
}

bool boot_too_small(const BootImage *b, const BootLayout *l, uint64_t need, GError **error)
{
    uint64_t have = l->ram_below_4g + l->ram_above_4g;
    if (need > have)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "memory: %" G_GUINT64_FORMAT " MiB is too small for '%s'%s: at least %"
                          G_GUINT64_FORMAT " MiB are needed", have / MIB, b->kernel.path,
                          b->initrds->len ? " and its initrd" : "", (need + MIB - 1) / MIB);
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "memory: '%s'%s: no room in the memory that the kernel can reach",
                      b->kernel.path, b->initrds->len ? " and its initrd" : "");
}

bool boot_load_initrds(BootImage *b, MemMap *mem, gpa_t at, GError **error)
{
    for (unsigned i = 0; i < b->initrds->len; i++) {
        const BootFile *f = &g_array_index(b->initrds, BootFile, i);
        if (!boot_file_load(f, 0, mem, at, f->size, error))
            return false;
        uint64_t padded = align_up(f->size, 4);
        const uint8_t zeros[4] = {0};
        if (padded > f->size && !mem_write(mem, at + f->size, zeros, padded - f->size))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "initrd '%s': no memory for it", f->path);
        at += padded;
    }
    return true;
}

bool boot_write_cmdline(MemMap *mem, const char *text, GError **error)
{
    size_t len = strlen(text) + 1;
    if (len > BOOT_CMDLINE_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "command line: %zu bytes are more than %u", len - 1,
                          BOOT_CMDLINE_MAX - 1);
    if (!mem_write(mem, BOOT_CMDLINE_GPA, text, len))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "memory: too small for a kernel");
    return true;
}

unsigned boot_e820(const BootLayout *l, BootE820 *ret)
{
    enum { LEGACY_VIDEO = 0xa0000, LEGACY_ROM = 0xe0000 };
    unsigned n = 0;
    uint64_t low_end = MIN(l->ram_below_4g, BOOT_LOW_RAM_END);
    ret[n++] = (BootE820){0, low_end, BOOT_E820_RAM};
    if (l->ram_below_4g > low_end)
        ret[n++] = (BootE820){BOOT_LOW_RAM_END, LEGACY_VIDEO - BOOT_LOW_RAM_END,
                              BOOT_E820_RESERVED};
    ret[n++] = (BootE820){LEGACY_ROM, MIB - LEGACY_ROM, BOOT_E820_RESERVED};
    if (l->ram_below_4g > MIB)
        ret[n++] = (BootE820){MIB, l->ram_below_4g - MIB, BOOT_E820_RAM};
    for (unsigned i = 0; i < l->n_reserved && i < BOOT_MAX_RESERVED; i++) {
        unsigned at = n++;
        for (; at > 0 && ret[at - 1].at > l->reserved[i].at; at--)
            ret[at] = ret[at - 1];
        ret[at] = l->reserved[i];
    }
    if (l->ram_above_4g) {
        unsigned at = n++;
        for (; at > 0 && ret[at - 1].at > 4 * GIB; at--)
            ret[at] = ret[at - 1];
        ret[at] = (BootE820){4 * GIB, l->ram_above_4g, BOOT_E820_RAM};
    }
    return n;
}

static void boot_file_clear(gpointer data)
{
    BootFile *f = data;
    if (f->fd >= 0)
        close(f->fd);
    g_free(f->path);
    g_free(f->args);
}

/* @what: "kernel" or "initrd". Takes no ownership of @fd unless it succeeds. */
static bool check_file(const char *what, const char *path, int fd, uint64_t *ret_size,
                       GError **error)
{
    struct stat st;
    if (fstat(fd, &st))
        return lodge_fail_errno(error, errno, "%s '%s': cannot be examined", what, path);
    if (S_ISDIR(st.st_mode))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s '%s': is a folder; name a file", what,
                          path);
    if (!S_ISREG(st.st_mode))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s '%s': is not a regular file", what, path);
    if (st.st_size == 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s '%s': is empty", what, path);
    *ret_size = (uint64_t)st.st_size;
    return true;
}

static bool open_file(const char *what, const char *path, BootFile *ret, GError **error)
{
    /* Without O_NONBLOCK a FIFO would hang the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        int code = errno;
        if (code == EACCES && !strcmp(what, "kernel"))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "%s '%s': permission denied; copy it to where you can read it", what,
                              path);
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s '%s': %s; check the path", what, path,
                          g_strerror(code));
    }
    uint64_t size;
    if (!check_file(what, path, fd, &size, error)) {
        close(fd);
        return false;
    }
    *ret = (BootFile){.path = g_strdup(path), .fd = fd, .size = size};
    return true;
}

static bool add_initrd(BootImage *b, BootFile *f, GError **error)
{
    g_array_append_val(b->initrds, *f);
    if (!u64_add_ok(b->initrd_bytes, align_up(f->size, 4), &b->initrd_bytes) ||
        b->initrd_bytes > UINT32_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "initrd '%s': initrds of 4 GiB and more cannot be handed over", f->path);
    return true;
}

/* An initrd may carry arguments after its path, as Multiboot modules have them; a file whose name
 * has that space in it wins. */
static bool open_initrd(BootImage *b, const char *text, GError **error)
{
    BootFile f;
    const char *space = strchr(text, ' ');
    if (space && access(text, F_OK)) {
        g_autofree char *path = g_strndup(text, (gsize)(space - text));
        if (!open_file("initrd", path, &f, error))
            return false;
        f.args = g_strdup(space + 1);
    } else if (!open_file("initrd", text, &f, error)) {
        return false;
    }
    return add_initrd(b, &f, error);
}

bool boot_add_initrd(BootImage *b, int given, GError **error)
{
    int fd = fcntl(given, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return lodge_fail_errno(error, errno, "initrd: the generated one cannot be kept open");
    BootFile f = {.path = g_strdup("(generated)"), .fd = fd};
    if (!check_file("initrd", f.path, fd, &f.size, error)) {
        boot_file_clear(&f);
        return false;
    }
    return add_initrd(b, &f, error);
}

/* For the message about a file that is no kernel. */
static const char *guess_contents(const BootImage *b)
{
    static const struct {
        unsigned at;
        const char *magic, *what;
    } known[] = {
        {0, "070701", "an initrd (cpio archive)"}, {0, "070702", "an initrd (cpio archive)"},
        {0, "\037\213", "gzip-compressed data"},   {0, "\3757zXZ", "xz-compressed data"},
        {0, "\050\265\057\375", "zstd-compressed data"}, {0, "QFI\373", "a qcow2 disk image"},
        {0, "OOOM", "a UML COW disk"},             {0, "MZ", "an EFI program"},
        {0, "#!", "a script"},                     {0, "PK", "a zip archive"},
        {0, "!<arch>", "an archive or a package"}, {510, "\125\252", "a disk image"},
        {1080, "\123\357", "an ext file system"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(known); i++)
        if (b->head_len >= known[i].at + strlen(known[i].magic) &&
            !memcmp(b->head + known[i].at, known[i].magic, strlen(known[i].magic)))
            return known[i].what;
    return NULL;
}

static bool choose_protocol(BootImage *b, const char *wanted, GError **error)
{
    if (wanted && strcmp(wanted, auto_name)) {
        for (unsigned i = 0; i < G_N_ELEMENTS(protocols); i++) {
            if (strcmp(wanted, protocols[i]->name))
                continue;
            if (protocols[i]->probe(b) == BOOT_MATCH_NO)
                return lodge_fail(error, LODGE_ERROR_IMAGE,
                                  "kernel '%s': cannot be started by protocol '%s' (%s)",
                                  b->kernel.path, wanted, protocols[i]->help);
            b->protocol = protocols[i];
            return true;
        }
        g_autoptr(GString) names = g_string_new(auto_name);
        for (unsigned i = 0; i < G_N_ELEMENTS(protocols); i++)
            g_string_append_printf(names, ", %s", protocols[i]->name);
        return lodge_fail(error, LODGE_ERROR_CONFIG, "boot protocol '%s': unknown; known: %s",
                          wanted, names->str);
    }
    BootMatch best = BOOT_MATCH_NO;
    for (unsigned i = 0; i < G_N_ELEMENTS(protocols); i++) {
        BootMatch match = protocols[i]->probe(b);
        if (match > best) {
            best = match;
            b->protocol = protocols[i];
        }
    }
    if (best != BOOT_MATCH_NO)
        return true;
    const char *guess = guess_contents(b);
    return lodge_fail(error, LODGE_ERROR_IMAGE,
                      "kernel '%s': is not a kernel (neither bzImage, x86 ELF, nor Multiboot)%s%s",
                      b->kernel.path, guess ? "; it looks like " : "", guess ? guess : "");
}

BootImage *boot_open(const BootSpec *spec, GError **error)
{
    g_autoptr(BootImage) b = g_new0(BootImage, 1);
    b->kernel.fd = -1;
    b->initrds = g_array_new(FALSE, FALSE, sizeof(BootFile));
    g_array_set_clear_func(b->initrds, boot_file_clear);
    b->append = g_strdup(spec->append ? spec->append : "");
    b->cache_dir = g_strdup(spec->cache_dir);
    b->kaslr_off = spec->kaslr_off;
    if (!open_file("kernel", spec->kernel, &b->kernel, error))
        return NULL;
    b->head_len = MIN(b->kernel.size, BOOT_HEAD_MAX);
    b->head = g_malloc0(BOOT_HEAD_MAX);
    if (!boot_file_read(&b->kernel, 0, b->head, b->head_len, error))
        return NULL;
    if (!choose_protocol(b, spec->protocol, error))
        return NULL;
    for (const char *const *i = spec->initrds; i && *i; i++)
        if (!open_initrd(b, *i, error))
            return NULL;
    if (spec->initrd_fd > 0 && !boot_add_initrd(b, spec->initrd_fd, error))
        return NULL;
    if (strlen(b->append) >= BOOT_CMDLINE_MAX) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "command line: %zu bytes are more than %u",
                   strlen(b->append), BOOT_CMDLINE_MAX - 1);
        return NULL;
    }
    boot_set_describe(b, "%s: %s", b->protocol->name, b->protocol->help);
    if (!b->protocol->open(b, error))
        return NULL;
    return g_steal_pointer(&b);
}

void boot_prefetch(BootImage *b)
{
    if (b->protocol->prefetch)
        b->protocol->prefetch(b);
}

bool boot_load(BootImage *b, MemMap *mem, const BootLayout *l, BootCpu *ret_cpu, GError **error)
{
    if (l->ram_below_4g < BOOT_LOW_RAM_END)
        return boot_too_small(b, l, MIB, error);
    BootCpu cpu = {0};
    bool ok = b->protocol->load(b, mem, l, &cpu, error);
    b->loaded = true;
    if (ok)
        *ret_cpu = cpu;
    return ok;
}

const char *boot_describe(const BootImage *b)
{
    return b->describe;
}

const char *boot_kernel_version(const BootImage *b)
{
    return b->version;
}

const char *boot_kernel_banner(const BootImage *b)
{
    return b->banner;
}

void boot_free(BootImage *b)
{
    if (!b)
        return;
    if (b->protocol)
        b->protocol->close(b);
    boot_file_clear(&b->kernel);
    if (b->initrds)
        g_array_free(b->initrds, TRUE);
    g_free(b->head);
    g_free(b->append);
    g_free(b->cache_dir);
    g_free(b->version);
    g_free(b->banner);
    g_free(b->describe);
    g_free(b);
}
