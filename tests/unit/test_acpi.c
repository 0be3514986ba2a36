/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ACPI tables: found as a kernel finds them, each field that a kernel acts on, and iasl's view. */
#include <string.h>

#include <glib/gstdio.h>

#include "acpi.h"
#include "acpi_pm.h"
#include "lodge/error.h"
#include "lodge/num.h"
#include "pc_map.h"

#define BASE PC_BIOS_AREA_GPA
#define HDR 36

static const AcpiConfig plain = {.cpus = 2, .ram_below_4g = 256 * MIB,
                                 .pci_hole_base = PC_PCI_HOLE_GPA};

static bool sums_to_zero(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += p[i];
    return !sum;
}

static GByteArray *build(const AcpiConfig *c, gpa_t *ret_rsdp)
{
    GByteArray *blob = g_byte_array_new();
    GError *error = NULL;
    acpi_build(c, BASE, blob, ret_rsdp, &error);
    g_assert_no_error(error);
    return blob;
}

/* A whole PC. */
static const AcpiConfig full = {.cpus = 2, .ram_below_4g = 256 * MIB,
                                .pci_hole_base = PC_PCI_HOLE_GPA, .pvpanic = true, .hpet = true,
                                .i8042 = true, .dma = true, .fdc = true, .floppies = 1,
                                .com_ports = 2, .pci_hotplug = true};

/* @len bytes at guest address @at, which must lie in the blob. */
static const uint8_t *look(const GByteArray *blob, uint64_t at, size_t len)
{
    g_assert_cmphex(at, >=, BASE);
    g_assert_true(range_within(at - BASE, len, blob->len));
    return blob->data + (at - BASE);
}

static const uint8_t *table_at(const GByteArray *blob, uint64_t at, uint32_t *ret_len)
{
    const uint8_t *t = look(blob, at, HDR);
    *ret_len = load_le32(t + 4);
    look(blob, at, *ret_len);
    g_assert_true(sums_to_zero(t, *ret_len));
    return t;
}

/* By the XSDT, the @nth of that name; NULL: not there. Compares the RSDT on the way. */
static const uint8_t *find_nth(const GByteArray *blob, gpa_t rsdp_gpa, const char *sig,
                               unsigned nth, uint32_t *ret_len)
{
    const uint8_t *rsdp = look(blob, rsdp_gpa, HDR), *found = NULL;
    g_assert_cmpmem(rsdp, 8, "RSD PTR ", 8);
    g_assert_cmphex(rsdp_gpa % 16, ==, 0);
    g_assert_true(sums_to_zero(rsdp, 20) && sums_to_zero(rsdp, 36));
    g_assert_cmpuint(rsdp[15], ==, 2);
    uint32_t rlen, xlen, len;
    const uint8_t *rsdt = table_at(blob, load_le32(rsdp + 16), &rlen);
    const uint8_t *xsdt = table_at(blob, load_le64(rsdp + 24), &xlen);
    g_assert_cmpmem(rsdt, 4, "RSDT", 4);
    g_assert_cmpmem(xsdt, 4, "XSDT", 4);
    g_assert_cmpuint((rlen - HDR) / 4, ==, (xlen - HDR) / 8);
    for (uint32_t i = 0; i < (xlen - HDR) / 8; i++) {
        uint64_t at = load_le64(xsdt + HDR + i * 8);
        g_assert_cmphex(at, ==, load_le32(rsdt + HDR + i * 4));
        const uint8_t *t = table_at(blob, at, &len);
        if (!memcmp(t, sig, 4) && !nth--) {
            found = t;
            *ret_len = len;
        }
    }
    return found;
}

static const uint8_t *find(const GByteArray *blob, gpa_t rsdp_gpa, const char *sig,
                           uint32_t *ret_len)
{
    return find_nth(blob, rsdp_gpa, sig, 0, ret_len);
}

static void test_fadt(void)
{
    gpa_t rsdp;
    uint32_t len, dsdt_len;
    AcpiConfig c = plain;
    g_autoptr(GByteArray) blob = build(&c, &rsdp);
    g_assert_cmphex(rsdp, ==, BASE);
    g_assert_cmpuint(blob->len, <, PC_MPTABLE_GPA - PC_BIOS_AREA_GPA);
    const uint8_t *f = find(blob, rsdp, "FACP", &len);
    g_assert_nonnull(f);
    g_assert_cmpuint(len, ==, 244);
    g_assert_cmpuint(f[8], ==, 3);
    g_assert_cmpuint(load_le16(f + 46), ==, PC_IRQ_SCI);
    g_assert_cmpuint(load_le32(f + 48), ==, 0); /* SMI_CMD */
    g_assert_cmphex(load_le32(f + 56), ==, 0x600);
    g_assert_cmphex(load_le32(f + 64), ==, 0x604);
    g_assert_cmphex(load_le32(f + 76), ==, 0x608);
    g_assert_cmphex(load_le32(f + 80), ==, 0x60c);
    g_assert_cmpuint(f[88], ==, 4);
    g_assert_cmpuint(f[89], ==, 2);
    g_assert_cmpuint(f[91], ==, 4);
    g_assert_cmpuint(f[92], ==, 4);
    g_assert_cmphex(load_le16(f + 109), ==, 0x0001);
    uint32_t flags = load_le32(f + 112);
    g_assert_cmphex(flags & 1u << 4, ==, 0);       /* fixed power button */
    g_assert_cmphex(flags & 1u << 5, !=, 0);       /* no sleep button */
    g_assert_cmphex(flags & 1u << 8, ==, 0);       /* 24-bit timer */
    g_assert_cmphex(flags & 1u << 10, !=, 0);      /* reset register */
    static const uint8_t reset[] = {1, 8, 0, 0, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 6};
    g_assert_cmpmem(f + 116, sizeof reset, reset, sizeof reset);
    static const uint8_t timer[] = {1, 32, 0, 0, 0x08, 0x06, 0, 0, 0, 0, 0, 0};
    g_assert_cmpmem(f + 208, sizeof timer, timer, sizeof timer);
    const uint8_t *facs = look(blob, load_le32(f + 36), 64);
    g_assert_cmpmem(facs, 4, "FACS", 4);
    g_assert_cmphex(load_le32(f + 36) % 64, ==, 0);
    g_assert_cmphex(load_le64(f + 140), ==, load_le32(f + 40));
    g_assert_cmpmem(table_at(blob, load_le32(f + 40), &dsdt_len), 4, "DSDT", 4);

    c.no_vga = true;
    g_autoptr(GByteArray) blind = build(&c, &rsdp);
    g_assert_cmphex(load_le16(find(blind, rsdp, "FACP", &len) + 109), ==, 0x0005);
    c.no_vga = false;
    c.i8042 = true;
    g_autoptr(GByteArray) with = build(&c, &rsdp);
    g_assert_cmphex(load_le16(find(with, rsdp, "FACP", &len) + 109), ==, 0x0003);
    g_assert_null(find(with, rsdp, "HPET", &len));
    c.hpet = true;
    g_autoptr(GByteArray) hpet = build(&c, &rsdp);
    const uint8_t *h = find(hpet, rsdp, "HPET", &len);
    g_assert_nonnull(h);
    g_assert_cmpuint(len, ==, 56);
    g_assert_cmphex(load_le64(h + 44), ==, PC_HPET_GPA);
    g_assert_cmphex(load_le32(find(hpet, rsdp, "WAET", &len) + HDR) & 2, ==, 2);
}

/* Count MADT entries of @type; the last one is given. */
static unsigned madt_count(const uint8_t *m, uint32_t len, uint8_t type, const uint8_t **ret_last)
{
    unsigned n = 0;
    uint32_t at = HDR + 8;
    while (at < len) {
        g_assert_cmpuint(m[at + 1], >=, 2);
        if (m[at] == type) {
            n++;
            *ret_last = m + at;
        }
        at += m[at + 1];
    }
    g_assert_cmpuint(at, ==, len);
    return n;
}

static void test_madt(void)
{
    gpa_t rsdp;
    uint32_t len;
    const uint8_t *e;
    AcpiConfig c = plain;
    g_autoptr(GByteArray) blob = build(&c, &rsdp);
    const uint8_t *m = find(blob, rsdp, "APIC", &len);
    g_assert_nonnull(m);
    g_assert_cmphex(load_le32(m + HDR), ==, PC_LAPIC_GPA);
    g_assert_cmphex(load_le32(m + HDR + 4), ==, 1);
    g_assert_cmpuint(madt_count(m, len, 0, &e), ==, 2);
    g_assert_cmpuint(e[3], ==, 1);
    g_assert_cmpuint(load_le32(e + 4), ==, 1);
    g_assert_cmpuint(madt_count(m, len, 1, &e), ==, 1);
    g_assert_cmphex(load_le32(e + 4), ==, PC_IOAPIC_GPA);
    g_assert_cmpuint(load_le32(e + 8), ==, 0);
    g_assert_cmpuint(madt_count(m, len, 2, &e), ==, 5);
    g_assert_cmpuint(e[3], ==, 11);
    g_assert_cmphex(load_le16(e + 8), ==, 0x0d);
    static const uint8_t timer[] = {2, 10, 0, 0, 2, 0, 0, 0, 0, 0};
    g_assert_nonnull(memmem(m, len, timer, sizeof timer));
    static const uint8_t sci[] = {2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0};
    g_assert_nonnull(memmem(m, len, sci, sizeof sci));
    g_assert_cmpuint(madt_count(m, len, 4, &e), ==, 1);
    g_assert_cmpuint(e[2], ==, 0xff);
    g_assert_cmpuint(e[5], ==, 1);
    c.cpus = 300;
    g_autoptr(GByteArray) many = build(&c, &rsdp);
    m = find(many, rsdp, "APIC", &len);
    g_assert_cmpuint(madt_count(m, len, 0, &e), ==, 255);
    g_assert_cmpuint(e[3], ==, 254);
    g_assert_cmpuint(madt_count(m, len, 9, &e), ==, 45);
    g_assert_cmpuint(load_le32(e + 4), ==, 299);
}

static void test_ssdt(void)
{
    gpa_t rsdp;
    uint32_t len;
    AcpiConfig c = plain;
    c.pci_hole_base = 0xd0000000;
    c.pvpanic = true;
    g_autoptr(GByteArray) blob = build(&c, &rsdp);
    const uint8_t *s = find(blob, rsdp, "SSDT", &len);
    g_assert_nonnull(s);
    static const uint8_t hole[] = {8, '\\', 'L', 'G', 'H', 'B', 0x0c, 0, 0, 0, 0xd0};
    static const uint8_t limit[] = {8, '\\', 'L', 'G', 'H', 'L', 0x0c, 0xff, 0xff, 0xbf, 0xfe};
    static const uint8_t pv[] = {8, '\\', 'L', 'G', 'P', 'V', 0x0c, 1, 0, 0, 0};
    static const uint8_t kb[] = {8, '\\', 'L', 'G', 'K', 'B', 0x0c, 0, 0, 0, 0};
    g_assert_nonnull(memmem(s, len, hole, sizeof hole));
    g_assert_nonnull(memmem(s, len, limit, sizeof limit));
    g_assert_nonnull(memmem(s, len, pv, sizeof pv));
    g_assert_nonnull(memmem(s, len, kb, sizeof kb));
    g_assert_null(find_nth(blob, rsdp, "SSDT", 1, &len));
}

/* Value of the name @seg in the first SSDT. */
static uint32_t value_of(const AcpiConfig *c, const char *seg)
{
    gpa_t rsdp;
    uint32_t len;
    g_autoptr(GByteArray) blob = build(c, &rsdp);
    const uint8_t *s = find(blob, rsdp, "SSDT", &len);
    const uint8_t *at = memmem(s, len, seg, 4);
    g_assert_nonnull(at);
    g_assert_cmphex(at[4], ==, 0x0c);
    return load_le32(at + 5);
}

static void test_whole_pc(void)
{
    AcpiConfig c = full;
    gpa_t rsdp;
    uint32_t len;
    g_assert_cmphex(value_of(&plain, "LGCM"), ==, 1); /* COM1 is always there */
    g_assert_cmphex(value_of(&plain, "LGFD"), ==, 0);
    g_assert_cmphex(value_of(&plain, "LGDM"), ==, 0);
    g_assert_cmphex(value_of(&c, "LGCM"), ==, 3);
    g_assert_cmphex(value_of(&c, "LGFD"), ==, 0x11);
    g_assert_cmphex(value_of(&c, "LGDM"), ==, 1);
    c.floppies = 0xff;
    g_assert_cmphex(value_of(&c, "LGFD"), ==, 0x13);
    c.fdc = false;
    g_assert_cmphex(value_of(&c, "LGFD"), ==, 0);
    g_autoptr(GByteArray) blob = build(&c, &rsdp);
    const uint8_t *s = find_nth(blob, rsdp, "SSDT", 1, &len);
    g_assert_nonnull(s);
    g_assert_cmpmem(s + 16, 7, "LODGEHP", 7);
    static const uint8_t region[] = {1, 0x0b, 0x00, 0xae, 0x0a, 0x0c}; /* I/O, 0xAE00, 12 */
    g_assert_nonnull(memmem(s, len, region, sizeof region));
}

/* ---- the table loader: an interpreter of its script ---- */

#define ENTRY 128
typedef struct Placed {
    const char *name;
    uint8_t *host;
    uint32_t len, gpa;
} Placed;

static Placed *placed(Placed *f, const uint8_t *name)
{
    g_assert_nonnull(memchr(name, 0, 56));
    for (unsigned i = 0; i < 2; i++) {
        if (!strcmp((const char *)name, f[i].name) && f[i].gpa)
            return &f[i];
    }
    g_error("file '%s' is used and not allocated", name);
}

/* Follow the script as firmware does, the tables put @gap bytes behind the root pointer's place. */
static GByteArray *follow(const AcpiLoader *l, uint32_t gap)
{
    GByteArray *blob = g_byte_array_new();
    g_byte_array_set_size(blob, gap + l->tables->len);
    memset(blob->data, 0, blob->len);
    memcpy(blob->data, l->rsdp->data, l->rsdp->len);
    memcpy(blob->data + gap, l->tables->data, l->tables->len);
    Placed files[] = {{ACPI_FILE_RSDP, blob->data, l->rsdp->len, 0},
                      {ACPI_FILE_TABLES, blob->data + gap, l->tables->len, 0}};
    g_assert_cmpuint(l->script->len % ENTRY, ==, 0);
    for (const uint8_t *e = l->script->data; e < l->script->data + l->script->len; e += ENTRY) {
        uint32_t command = load_le32(e), at, start, len;
        if (command == 1) {
            bool rsdp = !strcmp((const char *)e + 4, ACPI_FILE_RSDP);
            g_assert_true(rsdp || !strcmp((const char *)e + 4, ACPI_FILE_TABLES));
            g_assert_cmpuint(load_le32(e + 60), ==, rsdp ? 16 : 64);
            g_assert_cmpuint(e[64], ==, rsdp ? 2 : 1);
            files[rsdp ? 0 : 1].gpa = rsdp ? BASE : BASE + gap;
            continue;
        }
        Placed *to = placed(files, e + 4);
        if (command == 2) {
            Placed *from = placed(files, e + 60);
            at = load_le32(e + 116);
            g_assert_true(e[120] == 4 || e[120] == 8);
            g_assert_true(range_within(at, e[120], to->len));
            uint64_t v = e[120] == 8 ? load_le64(to->host + at) : load_le32(to->host + at);
            g_assert_cmpuint(v, <, from->len);
            if (e[120] == 8)
                store_le64(to->host + at, v + from->gpa);
            else
                store_le32(to->host + at, (uint32_t)v + from->gpa);
        } else {
            g_assert_cmpuint(command, ==, 3);
            at = load_le32(e + 60);
            start = load_le32(e + 64);
            len = load_le32(e + 68);
            g_assert_true(range_within(start, len, to->len) && at >= start && at < start + len);
            g_assert_cmphex(to->host[at], ==, 0); /* counted by some firmware, not by other */
            uint8_t sum = 0;
            for (uint32_t i = 0; i < len; i++)
                sum += to->host[start + i];
            to->host[at] = (uint8_t)(to->host[at] - sum);
        }
    }
    return blob;
}

/* Placed alike, firmware's tables are byte for byte those of a boot without it; placed elsewhere,
 * they still hang together. */
static void test_loader(void)
{
    const AcpiConfig *const configs[] = {&plain, &full};
    for (unsigned i = 0; i < G_N_ELEMENTS(configs); i++) {
        g_auto(AcpiLoader) l = {0};
        g_autoptr(GError) error = NULL;
        gpa_t rsdp;
        uint32_t len;
        acpi_build_loader(configs[i], &l, &error);
        g_assert_no_error(error);
        g_autoptr(GByteArray) direct = build(configs[i], &rsdp), same = follow(&l, 64),
                              apart = follow(&l, 0x7040);
        g_assert_cmpmem(same->data, same->len, direct->data, direct->len);
        g_assert_nonnull(find(apart, BASE, "APIC", &len));
        const uint8_t *f = find(apart, BASE, "FACP", &len);
        g_assert_nonnull(f);
        g_assert_cmphex(load_le32(f + 40), >=, BASE + 0x7040);
        g_assert_cmpmem(table_at(apart, load_le32(f + 40), &len), 4, "DSDT", 4);
        g_assert_cmpmem(look(apart, load_le32(f + 36), 64), 4, "FACS", 4);
    }
    g_auto(AcpiLoader) none = {0};
    g_autoptr(GError) error = NULL;
    AcpiConfig bad = plain;
    bad.cpus = 0;
    g_assert_false(acpi_build_loader(&bad, &none, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
}

static void test_refusals(void)
{
    static const struct {
        AcpiConfig c;
        gpa_t base;
        int code;
    } cases[] = {
        {{.cpus = 0, .pci_hole_base = PC_PCI_HOLE_GPA}, BASE, LODGE_ERROR_CONFIG},
        {{.cpus = 1025, .pci_hole_base = PC_PCI_HOLE_GPA}, BASE, LODGE_ERROR_LIMIT},
        {{.cpus = 1, .ram_below_4g = 0xc0001000, .pci_hole_base = PC_PCI_HOLE_GPA}, BASE,
         LODGE_ERROR_CONFIG},
        {{.cpus = 1, .pci_hole_base = PC_IOAPIC_GPA}, BASE, LODGE_ERROR_CONFIG},
        {{.cpus = 1, .pci_hole_base = PC_PCI_HOLE_GPA}, BASE + 8, LODGE_ERROR_CONFIG},
        {{.cpus = 1, .pci_hole_base = PC_PCI_HOLE_GPA}, 0xffffffc0, LODGE_ERROR_LIMIT},
        {{.cpus = 1, .pci_hole_base = PC_PCI_HOLE_GPA}, 4 * GIB, LODGE_ERROR_CONFIG},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) blob = g_byte_array_new();
        g_autoptr(GError) error = NULL;
        gpa_t rsdp;
        g_assert_false(acpi_build(&cases[i].c, cases[i].base, blob, &rsdp, &error));
        g_assert_error(error, LODGE_ERROR, cases[i].code);
        g_assert_cmpuint(blob->len, ==, 0);
    }
}

static char *disassemble(const char *dir, const char *name, const uint8_t *data, uint32_t len,
                         const char *external)
{
    g_autofree char *base = g_strdup_printf("%s.aml", name);
    g_autofree char *path = g_build_filename(dir, base, NULL);
    g_autofree char *dsl_name = g_strdup_printf("%s.dsl", name);
    g_autofree char *dsl = g_build_filename(dir, dsl_name, NULL);
    g_autofree char *out = NULL, *text = NULL;
    GError *error = NULL;
    int status;
    const char *argv[] = {"iasl", "-d", path, NULL, NULL, NULL};
    if (external) {
        argv[1] = "-e";
        argv[2] = external;
        argv[3] = "-d";
        argv[4] = path;
    }
    g_file_set_contents(path, (const char *)data, len, &error);
    g_assert_no_error(error);
    g_spawn_sync(dir, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL,
                 NULL, &out, NULL, &status, &error);
    g_assert_no_error(error);
    g_assert_true(g_spawn_check_wait_status(status, NULL));
    g_file_get_contents(dsl, &text, NULL, &error);
    g_assert_no_error(error);
    g_unlink(dsl);
    return g_steal_pointer(&text);
}

/* Each table passes iasl's disassembler, which says what it does not understand in its output. */
static void test_iasl(void)
{
    g_autofree char *iasl = g_find_program_in_path("iasl");
    if (!iasl) {
        g_test_skip("iasl is not installed");
        return;
    }
    g_autofree char *dir = g_dir_make_tmp("lodge-acpi-XXXXXX", NULL);
    g_assert_nonnull(dir);
    gpa_t rsdp;
    g_autoptr(GByteArray) blob = build(&full, &rsdp);
    static const char *const names[] = {"SSDT", "SSD2", "FACP", "APIC", "WAET", "HPET", "DSDT"};
    uint32_t len;
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        const uint8_t *t;
        g_autofree char *ssdt = NULL;
        if (!strcmp(names[i], "DSDT")) {
            t = table_at(blob, load_le32(find(blob, rsdp, "FACP", &len) + 40), &len);
            ssdt = g_build_filename(dir, "SSDT.aml", NULL);
        } else if (!strcmp(names[i], "SSD2")) {
            t = find_nth(blob, rsdp, "SSDT", 1, &len);
        } else {
            t = find(blob, rsdp, names[i], &len);
        }
        g_autofree char *text = disassemble(dir, names[i], t, len, ssdt);
        g_test_message("%s: %u bytes", names[i], len);
        static const char *const bad[] = {"Invalid", "invalid", "Incorrect checksum", "Unknown",
                                          "ACPI Error", "could not", "missing"};
        for (unsigned j = 0; j < G_N_ELEMENTS(bad); j++) {
            if (strstr(text, bad[j]))
                g_error("%s: iasl says '%s' in:\n%s", names[i], bad[j], text);
        }
        if (!strcmp(names[i], "DSDT")) {
            g_assert_nonnull(strstr(text, "_S5"));
            g_assert_nonnull(strstr(text, "PNP0A03"));
            g_assert_nonnull(strstr(text, "QEMU0001"));
            g_assert_nonnull(strstr(text, "PNP0303"));
            g_assert_nonnull(strstr(text, "PNP0F13"));
            g_assert_nonnull(strstr(text, "PNP0700"));
        }
        if (!strcmp(names[i], "SSDT"))
            g_assert_nonnull(strstr(text, "Name (\\LGHB, 0xC0000000)"));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *base = g_strdup_printf("%s.aml", names[i]);
        g_autofree char *path = g_build_filename(dir, base, NULL);
        g_unlink(path);
    }
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

/* Run @commands on a machine with the tables in @paths; what acpiexec says. */
static char *execute(const char *program, const char *commands, const char *const paths[3])
{
    const char *argv[] = {program, "-b", commands, paths[0], paths[1], paths[2], NULL};
    g_autofree char *out = NULL;
    g_autoptr(GError) error = NULL;
    int status;
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &out, NULL,
                 &status, &error);
    g_assert_no_error(error);
    if (strstr(out, "Error"))
        g_error("acpiexec, '%s':\n%s", commands, out);
    return g_steal_pointer(&out);
}

/* ACPICA runs what the tables offer. */
static void test_acpiexec(void)
{
    g_autofree char *program = g_find_program_in_path("acpiexec");
    if (!program) {
        g_test_skip("acpiexec is not installed");
        return;
    }
    static const struct {
        const char *object, *value;
    } cases[] = {
        {"\\_SB.PCI0.ISA.KBD._STA", "= 000000000000000F"},
        {"\\_SB.PCI0.ISA.MOU._STA", "= 000000000000000F"},
        {"\\_SB.PCI0.ISA.COM2._STA", "= 000000000000000F"},
        {"\\_SB.PCI0.ISA.COM3._STA", "= 0000000000000000"},
        {"\\_SB.PCI0.ISA.DMAC._STA", "= 000000000000000F"},
        {"\\_SB.PCI0.ISA.FDC0._STA", "= 000000000000000F"},
        {"\\_SB.PCI0.ISA.FDC0._FDE", "0000: 01 00 00 00 00 00 00 00"},
        {"\\_SB.PCI0._CRS", "02 00 87 17 00 00 0C 01 00 00 00 00 00 00 00 C0"},
        {"\\_SB.PCI0.PTEL 0x80000000 1", "on [S1F_]"},
        {"\\_SB.PCI0.PTEL 0x00000008 3", "Value 0x03 (Eject Request)"},
        {"\\_GPE._E01", "No object was returned"},
        {"\\_SB.PCI0.S1F._EJ0 1", "No object was returned"},
    };
    g_autofree char *dir = g_dir_make_tmp("lodge-acpi-XXXXXX", NULL);
    g_autofree char *dsdt = g_build_filename(dir, "dsdt.aml", NULL),
                    *ssdt = g_build_filename(dir, "ssdt.aml", NULL),
                    *hotplug = g_build_filename(dir, "hotplug.aml", NULL);
    const char *const paths[] = {dsdt, ssdt, hotplug};
    gpa_t rsdp;
    uint32_t len;
    g_autoptr(GByteArray) blob = build(&full, &rsdp);
    for (unsigned i = 0; i < 3; i++) {
        const uint8_t *t = i ? find_nth(blob, rsdp, "SSDT", i - 1, &len)
                             : table_at(blob, load_le32(find(blob, rsdp, "FACP", &len) + 40), &len);
        g_assert_true(g_file_set_contents(paths[i], (const char *)t, len, NULL));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *command = g_strdup_printf("evaluate %s", cases[i].object);
        g_autofree char *out = execute(program, command, paths);
        if (!strstr(out, cases[i].value))
            g_error("%s is not '%s':\n%s", cases[i].object, cases[i].value, out);
    }
    for (unsigned i = 0; i < 3; i++)
        g_unlink(paths[i]);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/acpi/fadt", test_fadt);
    g_test_add_func("/acpi/madt", test_madt);
    g_test_add_func("/acpi/ssdt", test_ssdt);
    g_test_add_func("/acpi/whole-pc", test_whole_pc);
    g_test_add_func("/acpi/loader", test_loader);
    g_test_add_func("/acpi/refusals", test_refusals);
    g_test_add_func("/acpi/iasl", test_iasl);
    g_test_add_func("/acpi/acpiexec", test_acpiexec);
    return g_test_run();
}
