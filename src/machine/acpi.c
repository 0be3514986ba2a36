/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ACPI tables.
 *
 * Specification: ACPI 6.4, chapter 5; the FADT has the form of revision 3 (ACPI 2.0 to 3.0), the
 * MADT of revision 3; WAET: "Windows ACPI Emulated Devices Table", Microsoft 2009; HPET: IA-PC HPET
 * 1.0a, section 3.2.4. The DSDT is compiled from firmware/dsdt.asl and embedded unchanged: what
 * depends on the configuration are integers in the root scope, defined by name in an SSDT.
 *
 * Two halves: the first makes tables as a list of bytes with named references (this field of table
 * A holds the address of table B) and places of checksums. The second are two sinks: one gives the
 * list addresses, for a kernel that is entered directly; the other hands it to firmware as files
 * and instructions (the table loader of QEMU's firmware interface, as SeaBIOS reads it: allocate a
 * file's place, add a file's address to a field, set a checksum).
 *
 * PCI hot-plug is an SSDT of its own, firmware/hotplug.asl.
 *
 * Legacy power management (SMI_CMD) is absent: SCI_EN is always set. No SMM, no sleep but S5, the
 * reset register is port 0xCF9 with value 6.
 *
 * Threads: none of its own; pure functions of AcpiConfig.
 *
 * Invariants:
 * (1) Each table's length field is right when it enters the list; its checksum is set last.
 */
#include "acpi.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "acpi_pm.h"
#include "dsdt_aml.h"
#include "hotplug_aml.h"
#include "pc_map.h"

/* The header that all tables but RSDP and FACS share, ACPI 5.2.6. */
enum {
    HDR_SIGNATURE = 0,
    HDR_LENGTH = 4,
    HDR_REVISION = 8,
    HDR_CHECKSUM = 9,
    HDR_OEM_ID = 10,
    HDR_OEM_TABLE_ID = 16,
    HDR_OEM_REVISION = 24,
    HDR_CREATOR_ID = 28,
    HDR_CREATOR_REVISION = 32,
    HDR_LEN = 36,
};
#define OEM_ID "LODGE "
#define OEM_TABLE_ID "LODGEPC "
#define CREATOR_ID "LDGE"

/* FADT, ACPI 5.2.9. */
enum {
    FADT_FACS = 36,
    FADT_DSDT = 40,
    FADT_PROFILE = 45,
    FADT_SCI_INT = 46,
    FADT_PM1A_EVT = 56,
    FADT_PM1A_CNT = 64,
    FADT_PM_TMR = 76,
    FADT_GPE0 = 80,
    FADT_PM1_EVT_LEN = 88,
    FADT_PM1_CNT_LEN = 89,
    FADT_PM_TMR_LEN = 91,
    FADT_GPE0_LEN = 92,
    FADT_P_LVL2_LAT = 96,
    FADT_P_LVL3_LAT = 98,
    FADT_CENTURY = 108,
    FADT_BOOT_ARCH = 109,
    FADT_FLAGS = 112,
    FADT_RESET_REG = 116,
    FADT_RESET_VALUE = 128,
    FADT_X_DSDT = 140,
    FADT_X_PM1A_EVT = 148,
    FADT_X_PM1A_CNT = 172,
    FADT_X_PM_TMR = 208,
    FADT_X_GPE0 = 220,
    FADT_LEN = 244,
    FADT_REVISION = 3,
};
#define FADT_PROFILE_DESKTOP 1
#define FADT_NO_C2_US 0x0fff /* over 100: no C2 */
#define FADT_NO_C3_US 0x0fff /* over 1000: no C3 */
#define FADT_RTC_CENTURY 0x32
#define FADT_RESET_HARD 0x06
/* IAPC_BOOT_ARCH, 5.2.9.3: no "MSI not supported", no "CMOS RTC absent". */
#define BOOT_ARCH_LEGACY 0x0001
#define BOOT_ARCH_8042 0x0002
#define BOOT_ARCH_NO_VGA 0x0004
/* Flags, 5.2.9: button and sleep bits say "not a fixed feature" when set. */
#define FADT_WBINVD (1u << 0)
#define FADT_PROC_C1 (1u << 2)
#define FADT_SLP_BUTTON (1u << 5)
#define FADT_FIX_RTC (1u << 6)
#define FADT_RESET_REG_SUP (1u << 10)

/* Generic address structure, 5.2.3.2. */
#define GAS_SYSTEM_IO 1

/* MADT, 5.2.12. */
enum {
    MADT_LAPIC = 0,
    MADT_IOAPIC = 1,
    MADT_OVERRIDE = 2,
    MADT_LAPIC_NMI = 4,
    MADT_X2APIC = 9,
    MADT_X2APIC_NMI = 10,
};
#define MADT_REVISION 3
#define MADT_PCAT_COMPAT 1u
#define MADT_ENABLED 1u
#define MADT_LEVEL_HIGH 0x000d
#define MADT_ALL_CPUS 0xff
#define MADT_XAPIC_IDS 255 /* IDs from here on need x2APIC entries */
#define NMI_LINT 1

/* FACS, 5.2.10. */
enum { FACS_LENGTH = 4, FACS_VERSION = 32, FACS_LEN = 64 };

/* RSDP, 5.2.5.3. */
enum {
    RSDP_CHECKSUM = 8,
    RSDP_OEM_ID = 9,
    RSDP_REVISION = 15,
    RSDP_RSDT = 16,
    RSDP_LENGTH = 20,
    RSDP_XSDT = 24,
    RSDP_EXT_CHECKSUM = 32,
    RSDP_V1_LEN = 20,
    RSDP_LEN = 36,
};

#define WAET_RTC_GOOD (1u << 0)
#define WAET_PM_TIMER_GOOD (1u << 1)
#define HPET_BLOCK_ID 0x8086a201u /* 3 comparators, 64 bits, legacy routes */
#define HPET_MIN_TICK 100
#define HPET_ADDRESS 40
#define HPET_SPACE_MEMORY 0

/* AML, chapter 20. */
#define AML_NAME 0x08
#define AML_ROOT '\\'
#define AML_DWORD 0x0c

/* Values of the names in dsdt.asl. */
#define COM1_THERE 0x01
#define FDC_THERE 0x10
#define FDC_DRIVES 0x03

/* Entries of the loader's script: little-endian, the rest of 128 bytes is 0. */
enum { LOADER_ALLOCATE = 1, LOADER_POINTER = 2, LOADER_CHECKSUM = 3 };
enum {
    LOADER_COMMAND = 0,
    LOADER_FILE = 4, /* of ALLOCATE and CHECKSUM; POINTER: which holds the field */
    LOADER_NAME_LEN = 56,
    LOADER_ALIGN = 60,
    LOADER_ZONE = 64,
    LOADER_POINTEE = 60,
    LOADER_POINTER_AT = 116,
    LOADER_POINTER_SIZE = 120,
    LOADER_SUM_AT = 60,
    LOADER_SUM_START = 64,
    LOADER_SUM_LEN = 68,
    LOADER_ENTRY = 128,
};
enum { LOADER_ZONE_HIGH = 1, LOADER_ZONE_BIOS = 2 };
#define RSDP_ALIGN 16 /* where an operating system looks for it, 5.2.5.1 */

#define TABLE_ALIGN 64 /* the FACS wants it; good for all */
#define TABLES_MAX 16
#define REFS_MAX 64
#define SUMS_MAX 20

/* Field @at of table @from, @size bytes, holds the address of table @to. */
typedef struct AcpiRef {
    unsigned from, to, at, size;
} AcpiRef;

/* Byte @at of table @table makes its first @len bytes sum to 0. */
typedef struct AcpiSum {
    unsigned table, at, len;
} AcpiSum;

typedef struct AcpiTables {
    GByteArray *table[TABLES_MAX]; /* owned */
    AcpiRef ref[REFS_MAX];
    AcpiSum sum[SUMS_MAX];
    unsigned n, refs, sums;
} AcpiTables;

static void tables_clear(AcpiTables *t)
{
    for (unsigned i = 0; i < t->n; i++)
        g_byte_array_unref(t->table[i]);
    t->n = 0;
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(AcpiTables, tables_clear)

/* ---- what tables are made of ---- */

static void put8(GByteArray *b, uint8_t v)
{
    g_byte_array_append(b, &v, 1);
}

static void put16(GByteArray *b, uint16_t v)
{
    g_byte_array_append(b, (const uint8_t *)&v, sizeof v);
}

static void put32(GByteArray *b, uint32_t v)
{
    g_byte_array_append(b, (const uint8_t *)&v, sizeof v);
}

static GByteArray *zeros_new(unsigned len)
{
    GByteArray *b = g_byte_array_new();
    g_byte_array_set_size(b, len);
    memset(b->data, 0, len);
    return b;
}

/* A table of @len bytes, zero behind its header. */
static GByteArray *table_new(const char *signature, uint8_t revision, unsigned len)
{
    GByteArray *b = zeros_new(len);
    memcpy(b->data + HDR_SIGNATURE, signature, 4);
    b->data[HDR_REVISION] = revision;
    memcpy(b->data + HDR_OEM_ID, OEM_ID, 6);
    memcpy(b->data + HDR_OEM_TABLE_ID, OEM_TABLE_ID, 8);
    store_le32(b->data + HDR_OEM_REVISION, 1);
    memcpy(b->data + HDR_CREATOR_ID, CREATOR_ID, 4);
    store_le32(b->data + HDR_CREATOR_REVISION, 1);
    return b;
}

/* Takes @b. Return: its index. */
static unsigned tables_add(AcpiTables *t, GByteArray *b)
{
    g_assert(t->n < TABLES_MAX);
    t->table[t->n] = b;
    return t->n++;
}

static void tables_sum(AcpiTables *t, unsigned table, unsigned at, unsigned len)
{
    g_assert(t->sums < SUMS_MAX);
    t->sum[t->sums++] = (AcpiSum){table, at, len};
}

/* As tables_add(), for a table with the common header. Keeps (1). */
static unsigned tables_add_headed(AcpiTables *t, GByteArray *b)
{
    store_le32(b->data + HDR_LENGTH, b->len);
    unsigned i = tables_add(t, b);
    tables_sum(t, i, HDR_CHECKSUM, b->len);
    return i;
}

static void tables_refer(AcpiTables *t, unsigned from, unsigned at, unsigned size, unsigned to)
{
    g_assert(t->refs < REFS_MAX);
    t->ref[t->refs++] = (AcpiRef){from, to, at, size};
}

static void gas_io(uint8_t *at, unsigned bytes, unsigned port)
{
    at[0] = GAS_SYSTEM_IO;
    at[1] = (uint8_t)(bytes * 8);
    at[2] = 0;
    at[3] = 0; /* access size: not said */
    store_le64(at + 4, port);
}

/* ---- the tables ---- */

static GByteArray *facs_new(void)
{
    GByteArray *b = zeros_new(FACS_LEN);
    memcpy(b->data, "FACS", 4);
    store_le32(b->data + FACS_LENGTH, FACS_LEN);
    b->data[FACS_VERSION] = 1;
    return b;
}

static GByteArray *fadt_new(const AcpiConfig *c)
{
    static const struct {
        uint16_t old, x, len_at;
        uint8_t port, len;
    } blocks[] = {
        {FADT_PM1A_EVT, FADT_X_PM1A_EVT, FADT_PM1_EVT_LEN, ACPI_PM1_EVENT, ACPI_PM1_EVENT_LEN},
        {FADT_PM1A_CNT, FADT_X_PM1A_CNT, FADT_PM1_CNT_LEN, ACPI_PM1_CONTROL,
         ACPI_PM1_CONTROL_LEN},
        {FADT_PM_TMR, FADT_X_PM_TMR, FADT_PM_TMR_LEN, ACPI_PM_TIMER, ACPI_PM_TIMER_LEN},
        {FADT_GPE0, FADT_X_GPE0, FADT_GPE0_LEN, ACPI_GPE0, ACPI_GPE0_LEN},
    };
    GByteArray *b = table_new("FACP", FADT_REVISION, FADT_LEN);
    uint8_t *p = b->data;
    p[FADT_PROFILE] = FADT_PROFILE_DESKTOP;
    store_le16(p + FADT_SCI_INT, PC_IRQ_SCI);
    for (unsigned i = 0; i < G_N_ELEMENTS(blocks); i++) {
        unsigned port = PC_PORT_ACPI_PM + blocks[i].port;
        store_le32(p + blocks[i].old, port);
        p[blocks[i].len_at] = blocks[i].len;
        gas_io(p + blocks[i].x, blocks[i].len, port);
    }
    store_le16(p + FADT_P_LVL2_LAT, FADT_NO_C2_US);
    store_le16(p + FADT_P_LVL3_LAT, FADT_NO_C3_US);
    p[FADT_CENTURY] = FADT_RTC_CENTURY;
    store_le16(p + FADT_BOOT_ARCH, BOOT_ARCH_LEGACY | (c->i8042 ? BOOT_ARCH_8042 : 0) |
                                       (c->no_vga ? BOOT_ARCH_NO_VGA : 0));
    store_le32(p + FADT_FLAGS, FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC |
                                   FADT_RESET_REG_SUP);
    gas_io(p + FADT_RESET_REG, 1, PC_PORT_RESET);
    p[FADT_RESET_VALUE] = FADT_RESET_HARD;
    return b;
}

static void madt_override(GByteArray *b, unsigned irq, unsigned gsi, uint16_t flags)
{
    put8(b, MADT_OVERRIDE);
    put8(b, 10);
    put8(b, 0); /* ISA */
    put8(b, (uint8_t)irq);
    put32(b, gsi);
    put16(b, flags);
}

static GByteArray *madt_new(const AcpiConfig *c)
{
    GByteArray *b = table_new("APIC", MADT_REVISION, HDR_LEN);
    put32(b, PC_LAPIC_GPA);
    put32(b, MADT_PCAT_COMPAT);
    for (unsigned i = 0; i < c->cpus && i < MADT_XAPIC_IDS; i++) {
        put8(b, MADT_LAPIC);
        put8(b, 8);
        put8(b, (uint8_t)i); /* processor UID */
        put8(b, (uint8_t)i); /* APIC ID */
        put32(b, MADT_ENABLED);
    }
    for (unsigned i = MADT_XAPIC_IDS; i < c->cpus; i++) {
        put8(b, MADT_X2APIC);
        put8(b, 16);
        put16(b, 0);
        put32(b, i); /* APIC ID */
        put32(b, MADT_ENABLED);
        put32(b, i); /* processor UID */
    }
    put8(b, MADT_IOAPIC);
    put8(b, 12);
    put8(b, 0); /* ID */
    put8(b, 0);
    put32(b, PC_IOAPIC_GPA);
    put32(b, 0); /* first GSI */
    madt_override(b, PC_IRQ_PIT, PC_PIT_IOAPIC_PIN, 0);
    for (unsigned irq = 1; irq < 16; irq++) {
        if (PC_IRQ_TABLE_LEVEL >> irq & 1)
            madt_override(b, irq, irq, MADT_LEVEL_HIGH);
    }
    put8(b, MADT_LAPIC_NMI);
    put8(b, 6);
    put8(b, MADT_ALL_CPUS);
    put16(b, 0);
    put8(b, NMI_LINT);
    if (c->cpus > MADT_XAPIC_IDS) {
        put8(b, MADT_X2APIC_NMI);
        put8(b, 12);
        put16(b, 0);
        put32(b, UINT32_MAX); /* all */
        put8(b, NMI_LINT);
        put8(b, 0);
        put16(b, 0);
    }
    return b;
}

/* Name (\@seg, @v) */
static void aml_name_u32(GByteArray *b, const char *seg, uint32_t v)
{
    put8(b, AML_NAME);
    put8(b, AML_ROOT);
    g_byte_array_append(b, (const uint8_t *)seg, 4);
    put8(b, AML_DWORD);
    put32(b, v);
}

static GByteArray *ssdt_new(const AcpiConfig *c)
{
    GByteArray *b = table_new("SSDT", 1, HDR_LEN);
    aml_name_u32(b, "LGHB", c->pci_hole_base);
    aml_name_u32(b, "LGHL", PC_PCI_HOLE_LIMIT_GPA - 1);
    aml_name_u32(b, "LGPV", c->pvpanic);
    aml_name_u32(b, "LGKB", c->i8042);
    aml_name_u32(b, "LGHP", c->hpet);
    aml_name_u32(b, "LGDM", c->dma);
    aml_name_u32(b, "LGCM", c->com_ports | COM1_THERE);
    aml_name_u32(b, "LGFD", c->fdc ? FDC_THERE | (c->floppies & FDC_DRIVES) : 0);
    return b;
}

static GByteArray *aml_table_new(const uint8_t *aml, unsigned len)
{
    GByteArray *b = g_byte_array_new();
    g_byte_array_append(b, aml, len);
    return b;
}

static GByteArray *waet_new(void)
{
    GByteArray *b = table_new("WAET", 1, HDR_LEN);
    put32(b, WAET_RTC_GOOD | WAET_PM_TIMER_GOOD);
    return b;
}

static GByteArray *hpet_new(void)
{
    GByteArray *b = table_new("HPET", 1, HDR_LEN);
    put32(b, HPET_BLOCK_ID);
    put8(b, HPET_SPACE_MEMORY);
    put8(b, 64); /* register width, bits */
    put16(b, 0);
    g_assert(b->len == HPET_ADDRESS + 4);
    put32(b, PC_HPET_GPA);
    put32(b, 0);
    put8(b, 0); /* number */
    put16(b, HPET_MIN_TICK);
    put8(b, 0);
    return b;
}

/* RSDT or XSDT with @size bytes an entry. */
static unsigned add_root_table(AcpiTables *t, const char *signature, unsigned size,
                               const unsigned *entry, unsigned n)
{
    unsigned root = tables_add_headed(t, table_new(signature, 1, HDR_LEN + n * size));
    for (unsigned i = 0; i < n; i++)
        tables_refer(t, root, HDR_LEN + i * size, size, entry[i]);
    return root;
}

/* All tables and their references; the RSDP comes first. */
static void tables_make(AcpiTables *t, const AcpiConfig *c)
{
    unsigned entry[TABLES_MAX], n = 0;
    GByteArray *rsdp_bytes = zeros_new(RSDP_LEN);
    memcpy(rsdp_bytes->data, "RSD PTR ", 8);
    memcpy(rsdp_bytes->data + RSDP_OEM_ID, OEM_ID, 6);
    rsdp_bytes->data[RSDP_REVISION] = 2;
    store_le32(rsdp_bytes->data + RSDP_LENGTH, RSDP_LEN);
    unsigned rsdp = tables_add(t, rsdp_bytes);
    unsigned facs = tables_add(t, facs_new());
    unsigned dsdt = tables_add_headed(t, aml_table_new(dsdt_aml, sizeof dsdt_aml));

    unsigned fadt = entry[n++] = tables_add_headed(t, fadt_new(c));
    tables_refer(t, fadt, FADT_FACS, 4, facs);
    tables_refer(t, fadt, FADT_DSDT, 4, dsdt);
    tables_refer(t, fadt, FADT_X_DSDT, 8, dsdt);
    entry[n++] = tables_add_headed(t, madt_new(c));
    entry[n++] = tables_add_headed(t, ssdt_new(c));
    if (c->pci_hotplug)
        entry[n++] = tables_add_headed(t, aml_table_new(hotplug_aml, sizeof hotplug_aml));
    entry[n++] = tables_add_headed(t, waet_new());
    if (c->hpet)
        entry[n++] = tables_add_headed(t, hpet_new());
    unsigned rsdt = add_root_table(t, "RSDT", 4, entry, n);
    unsigned xsdt = add_root_table(t, "XSDT", 8, entry, n);

    tables_refer(t, rsdp, RSDP_RSDT, 4, rsdt);
    tables_refer(t, rsdp, RSDP_XSDT, 8, xsdt);
    tables_sum(t, rsdp, RSDP_CHECKSUM, RSDP_V1_LEN);
    tables_sum(t, rsdp, RSDP_EXT_CHECKSUM, RSDP_LEN);
}

/* ---- the sink for direct boot ---- */

static bool tables_place(AcpiTables *t, gpa_t base, GByteArray *ret_blob, GError **error)
{
    gpa_t at[TABLES_MAX], end = base;
    for (unsigned i = 0; i < t->n; i++) {
        at[i] = end;
        end = align_up(end + t->table[i]->len, TABLE_ALIGN);
    }
    if (end > UINT32_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "acpi: tables would end past 4 GiB");
    for (unsigned i = 0; i < t->refs; i++) {
        uint8_t *field = t->table[t->ref[i].from]->data + t->ref[i].at;
        if (t->ref[i].size == 8)
            store_le64(field, at[t->ref[i].to]);
        else
            store_le32(field, (uint32_t)at[t->ref[i].to]);
    }
    for (unsigned i = 0; i < t->sums; i++) {
        uint8_t *data = t->table[t->sum[i].table]->data, sum = 0;
        data[t->sum[i].at] = 0;
        for (unsigned j = 0; j < t->sum[i].len; j++)
            sum += data[j];
        data[t->sum[i].at] = (uint8_t)-sum;
    }
    g_byte_array_set_size(ret_blob, (guint)(end - base));
    memset(ret_blob->data, 0, ret_blob->len);
    for (unsigned i = 0; i < t->n; i++)
        memcpy(ret_blob->data + (at[i] - base), t->table[i]->data, t->table[i]->len);
    return true;
}

static bool check_config(const AcpiConfig *c, GError **error)
{
    if (!c->cpus)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "acpi: a machine has at least one CPU");
    if (c->cpus > ACPI_CPUS_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "acpi: %u CPUs, at most %u", c->cpus,
                          ACPI_CPUS_MAX);
    if (c->pci_hole_base < c->ram_below_4g || c->pci_hole_base >= PC_PCI_HOLE_LIMIT_GPA)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "acpi: PCI hole at 0x%x does not lie between memory and 0x%x",
                          c->pci_hole_base, PC_PCI_HOLE_LIMIT_GPA);
    return true;
}

bool acpi_build(const AcpiConfig *c, gpa_t base, GByteArray *ret_blob, gpa_t *ret_rsdp,
                GError **error)
{
    if (!check_config(c, error))
        return false;
    if (base % TABLE_ALIGN || base > UINT32_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "acpi: tables cannot begin at 0x%" G_GINT64_MODIFIER "x", base);
    g_auto(AcpiTables) t = {0};
    tables_make(&t, c);
    if (!tables_place(&t, base, ret_blob, error))
        return false;
    *ret_rsdp = base;
    return true;
}

/* ---- the sink for firmware ---- */

/* Where table @i of the list lies: the root pointer, which comes first, has a file of its own. */
static const char *loader_file(unsigned i)
{
    return i ? ACPI_FILE_TABLES : ACPI_FILE_RSDP;
}

/* A new entry about @file, zeros from there on; valid until the next. */
static uint8_t *loader_entry(GByteArray *script, uint32_t command, const char *file)
{
    guint at = script->len;
    g_byte_array_set_size(script, at + LOADER_ENTRY);
    uint8_t *e = script->data + at;
    memset(e, 0, LOADER_ENTRY);
    store_le32(e + LOADER_COMMAND, command);
    g_strlcpy((char *)e + LOADER_FILE, file, LOADER_NAME_LEN);
    return e;
}

static void loader_allocate(GByteArray *script, const char *file, uint32_t align, uint8_t zone)
{
    uint8_t *e = loader_entry(script, LOADER_ALLOCATE, file);
    store_le32(e + LOADER_ALIGN, align);
    e[LOADER_ZONE] = zone;
}

static void tables_script(const AcpiTables *t, AcpiLoader *l)
{
    uint32_t at[TABLES_MAX] = {0}, end = 0;
    for (unsigned i = 1; i < t->n; i++) {
        at[i] = end;
        end = (uint32_t)align_up(end + t->table[i]->len, TABLE_ALIGN);
    }
    g_byte_array_append(l->rsdp, t->table[0]->data, t->table[0]->len);
    g_byte_array_set_size(l->tables, end);
    memset(l->tables->data, 0, end);
    for (unsigned i = 1; i < t->n; i++)
        memcpy(l->tables->data + at[i], t->table[i]->data, t->table[i]->len);

    loader_allocate(l->script, ACPI_FILE_RSDP, RSDP_ALIGN, LOADER_ZONE_BIOS);
    loader_allocate(l->script, ACPI_FILE_TABLES, TABLE_ALIGN, LOADER_ZONE_HIGH);
    for (unsigned i = 0; i < t->refs; i++) {
        const AcpiRef *r = &t->ref[i];
        GByteArray *holder = r->from ? l->tables : l->rsdp;
        uint32_t field = at[r->from] + r->at;
        store_le32(holder->data + field, at[r->to]); /* the upper half, if any, is 0 */
        uint8_t *e = loader_entry(l->script, LOADER_POINTER, loader_file(r->from));
        g_strlcpy((char *)e + LOADER_POINTEE, loader_file(r->to), LOADER_NAME_LEN);
        store_le32(e + LOADER_POINTER_AT, field);
        e[LOADER_POINTER_SIZE] = (uint8_t)r->size;
    }
    for (unsigned i = 0; i < t->sums; i++) {
        const AcpiSum *s = &t->sum[i];
        uint32_t start = at[s->table];
        (s->table ? l->tables : l->rsdp)->data[start + s->at] = 0;
        uint8_t *e = loader_entry(l->script, LOADER_CHECKSUM, loader_file(s->table));
        store_le32(e + LOADER_SUM_AT, start + s->at);
        store_le32(e + LOADER_SUM_START, start);
        store_le32(e + LOADER_SUM_LEN, s->len);
    }
}

void acpi_loader_clear(AcpiLoader *l)
{
    g_clear_pointer(&l->tables, g_byte_array_unref);
    g_clear_pointer(&l->rsdp, g_byte_array_unref);
    g_clear_pointer(&l->script, g_byte_array_unref);
}

bool acpi_build_loader(const AcpiConfig *c, AcpiLoader *ret_loader, GError **error)
{
    if (!check_config(c, error))
        return false;
    g_auto(AcpiTables) t = {0};
    tables_make(&t, c);
    *ret_loader = (AcpiLoader){g_byte_array_new(), g_byte_array_new(), g_byte_array_new()};
    tables_script(&t, ret_loader);
    return true;
}
