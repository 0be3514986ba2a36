/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What firmware finds on the board besides its chips: the items of fw_cfg, and CMOS.
 *
 * Written for SeaBIOS, from its documentation ("Runtime config") and QEMU's docs/specs/fw_cfg; Ralf
 * Brown's CMOS list for the rest. Files in fw_cfg:
 *   bootorder                 paths of devices in the order of trying; HALT last where the operator
 *                             gave an order, so that nothing else is tried
 *   etc/acpi/rsdp, etc/acpi/tables, etc/table-loader
 *   etc/boot-fail-wait        ms before a restart when nothing boots: never
 *   etc/boot-menu-wait        ms, where the operator asked for a menu and a time
 *   etc/e820                  memory and what is reserved above it
 *   etc/smbios/smbios-anchor, etc/smbios/smbios-tables
 * Not there, and what firmware makes of it: etc/sercon-port and etc/screen-and-debug (no output on
 * a serial port; item 4 turns it on where there is no VGA), etc/extra-pci-roots (one bus),
 * etc/msr_feature_control (nothing to set), etc/system-states (no sleep), genroms/ and vgaroms/
 * (ROMs lie in their devices' BARs), bios-geometry (CMOS tells the translation).
 *
 * SeaBIOS looks for the keyboard, the floppy controller and serial ports in the DSDT only if its
 * small parser finds any device there; the DSDT begins with External declarations, which it does
 * not know, so it probes for them.
 *
 * Threads: main only.
 */
#include "firmware.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "fw_cfg.h"
#include "pc_map.h"
#include "rtc_mc146818.h"
#include "smbios.h"

#define ORDER_PRESET "cadn"
#define FDC_PORT 0x3f0
#define BOOT_MENU_ON 1
#define BOOT_FAIL_HALT UINT32_MAX /* no restart */

/* e820: memory, reserved. */
#define E820_RAM 1
#define E820_RESERVED 2
#define E820_ENTRY 20
#define HIGH_RAM_GPA (4 * GIB)
#define PAGE 4096u
/* KVM's own pages and whatever firmware lies behind them: src/cpu/kvm.c, FIRMWARE_MAX. */
#define RESERVED_TOP_GPA 0xfeffc000u

/* CMOS, Ralf Brown's list. */
enum {
    CMOS_FLOPPIES = 0x10,
    CMOS_DISKS = 0x12,
    CMOS_EQUIPMENT = 0x14,
    CMOS_BASE_KIB = 0x15,
    CMOS_EXTENDED_KIB = 0x17,
    CMOS_DISK_C = 0x19, /* type of the first disk, of the second behind it */
    CMOS_GEOMETRY_C = 0x1b,
    CMOS_SUM_FIRST = 0x10,
    CMOS_SUM_LAST = 0x2d,
    CMOS_SUM = 0x2e, /* high byte first */
    CMOS_EXTENDED_KIB_FOUND = 0x30,
    CMOS_OVER_16M = 0x34, /* in 64 KiB */
    CMOS_BOOT_THIRD = 0x38,
    CMOS_TRANSLATION = 0x39, /* 2 bits a drive */
    CMOS_BOOT_FIRST = 0x3d,
    CMOS_OVER_4G = 0x5b, /* 3 bytes, in 64 KiB */
    CMOS_CPUS = 0x5f,    /* less one */
    CMOS_BYTES = 0x60,
};
#define CMOS_GEOMETRY_LEN 9
#define EQUIPMENT_FLOPPY 0x01
#define EQUIPMENT_FPU 0x02
#define EQUIPMENT_MOUSE 0x04
#define DISK_EXTENDED_TYPE 0xf
#define DISK_USER_TYPE 47
#define DISK_NO_PRECOMPENSATION 0xffff
#define DISK_CONTROL_RETRIES 0xc0
#define DISK_CONTROL_MANY_HEADS 0x08
#define DISK_CYLINDERS_PLAIN 1024 /* up to here CHS is used as it is */
#define TRANSLATION_LBA 1

static const char *boot_order(const Tree *t)
{
    const char *order = tree_str(t, "/boot", "order");
    return order ? order : ORDER_PRESET;
}

/* ---- boot order ---- */

static void append_path(GString *s, const FirmwareDevice *d)
{
    g_string_append(s, "/pci@i0cf8/");
    if (d->bus == FIRMWARE_FDC) {
        g_string_append_printf(s, "isa@%x/fdc@%04x/floppy@%x", PC_SLOT_PIIX, FDC_PORT, d->unit);
        return;
    }
    g_string_append_printf(s, "%s@%x",
                           d->bus == FIRMWARE_IDE ? "ide" : d->letter == 'n' ? "ethernet" : "scsi",
                           d->slot);
    if (d->fn)
        g_string_append_printf(s, ",%x", d->fn);
    if (d->bus == FIRMWARE_IDE)
        g_string_append_printf(s, "/drive@%x/disk@%x", d->unit / 2, d->unit % 2);
    else
        g_string_append(s, d->letter == 'n' ? "/ethernet-phy@0" : "/disk@0,0");
}

static bool add_boot_order(FwCfg *f, const Tree *t, const FirmwareDevice *devs, unsigned n,
                           GError **error)
{
    g_autoptr(GString) list = g_string_new(NULL);
    for (const char *s = boot_order(t); *s; s++) {
        if (!strchr("acdn", *s))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "/boot: order '%s': letters are a, c, d and n", boot_order(t));
        for (unsigned i = 0; i < n; i++) {
            if (devs[i].letter != *s)
                continue;
            append_path(list, &devs[i]);
            g_string_append_c(list, '\n');
        }
    }
    if (tree_has(t, "/boot", "order"))
        g_string_append(list, "HALT\n");
    if (!list->len)
        return true;
    list->str[list->len - 1] = '\0'; /* the last line ends the file */
    return fw_cfg_add_file(f, "bootorder", list->str, list->len, error);
}

static bool add_menu(FwCfg *f, const Tree *t, GError **error)
{
    uint64_t wait;
    uint32_t fail_wait = BOOT_FAIL_HALT;
    bool menu = tree_has(t, "/boot", "menu");
    fw_cfg_set_u16(f, FW_CFG_BOOT_MENU, menu ? BOOT_MENU_ON : 0);
    if (menu && tree_u64(t, "/boot", "menu-timeout", &wait)) {
        uint16_t ms = (uint16_t)MIN(wait, UINT16_MAX);
        if (!fw_cfg_add_file(f, "etc/boot-menu-wait", &ms, sizeof ms, error))
            return false;
    }
    return fw_cfg_add_file(f, "etc/boot-fail-wait", &fail_wait, sizeof fail_wait, error);
}

/* Without a screen, what firmware and boot loaders write to it goes to the first serial port. */
static bool add_serial_console(FwCfg *f, const AcpiConfig *c, GError **error)
{
    uint16_t port = GUINT16_TO_LE(PC_PORT_COM1);
    return !c->no_vga || fw_cfg_add_file(f, "etc/sercon-port", &port, sizeof port, error);
}

/* ---- tables ---- */

static bool add_bytes(FwCfg *f, const char *name, const GByteArray *b, GError **error)
{
    return fw_cfg_add_file(f, name, b->data, b->len, error);
}

static bool add_acpi(FwCfg *f, const AcpiConfig *c, GError **error)
{
    g_auto(AcpiLoader) l = {0};
    return acpi_build_loader(c, &l, error) && add_bytes(f, ACPI_FILE_TABLES, l.tables, error) &&
           add_bytes(f, ACPI_FILE_RSDP, l.rsdp, error) &&
           add_bytes(f, ACPI_FILE_SCRIPT, l.script, error);
}

static bool add_smbios(FwCfg *f, const Board *b, const Tree *t, GError **error)
{
    g_autoptr(GByteArray) anchor = g_byte_array_new(), tables = g_byte_array_new();
    g_autoptr(GHashTable) texts = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GPtrArray) keys = tree_props(t, "/smbios");
    for (unsigned i = 0; i < keys->len; i++) {
        char *key = g_ptr_array_index(keys, i);
        const char *text = tree_str(t, "/smbios", key);
        g_hash_table_insert(texts, key, (char *)(text ? text : ""));
    }
    /* One processor with all cores, as CPUID tells it. */
    SmbiosConfig c = {.sockets = 1, .cores = b->cpus, .ram_below_4g = b->ram_below_4g,
                      .ram_above_4g = b->ram_above_4g, .uuid = tree_str(t, "/", "uuid"),
                      .texts = texts};
    uint8_t uuid[SMBIOS_UUID_LEN];
    if (!smbios_build(&c, anchor, tables, error))
        return false;
    if (c.uuid && smbios_parse_uuid(c.uuid, uuid, NULL))
        fw_cfg_set(f, FW_CFG_UUID, uuid, sizeof uuid);
    return add_bytes(f, "etc/smbios/smbios-anchor", anchor, error) &&
           add_bytes(f, "etc/smbios/smbios-tables", tables, error);
}

static bool add_e820(FwCfg *f, const Board *b, GError **error)
{
    const struct {
        uint64_t at, len;
        uint32_t type;
    } ranges[] = {
        {0, b->ram_below_4g, E820_RAM},
        {HIGH_RAM_GPA, b->ram_above_4g, E820_RAM},
        {PC_IOAPIC_GPA, PAGE, E820_RESERVED},
        {PC_LAPIC_GPA, PAGE, E820_RESERVED},
        {RESERVED_TOP_GPA, HIGH_RAM_GPA - RESERVED_TOP_GPA, E820_RESERVED},
    };
    uint8_t table[G_N_ELEMENTS(ranges) * E820_ENTRY], *p = table;
    for (unsigned i = 0; i < G_N_ELEMENTS(ranges); i++) {
        if (!ranges[i].len)
            continue;
        store_le64(p, ranges[i].at);
        store_le64(p + 8, ranges[i].len);
        store_le32(p + 16, ranges[i].type);
        p += E820_ENTRY;
    }
    return fw_cfg_add_file(f, "etc/e820", table, (size_t)(p - table), error);
}

bool firmware_prepare(Board *b, const Tree *t, const FirmwareDevice *devs, unsigned n,
                      const AcpiConfig *acpi, GError **error)
{
    FwCfg *f = b->fw_cfg;
    fw_cfg_set_u16(f, FW_CFG_NO_GRAPHIC, acpi->no_vga);
    fw_cfg_set_u64(f, FW_CFG_NUMA, 0);
    fw_cfg_set_u32(f, FW_CFG_IRQ0_OVERRIDE, 1);
    return add_boot_order(f, t, devs, n, error) && add_menu(f, t, error) &&
           add_serial_console(f, acpi, error) && add_e820(f, b, error) &&
           add_acpi(f, acpi, error) && add_smbios(f, b, t, error);
}

/* ---- CMOS ---- */

static void put_le(uint8_t *at, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

static void cmos_memory(uint8_t *cmos, const Board *b)
{
    uint64_t low = b->ram_below_4g;
    uint64_t extended = MIN(low > MIB ? (low - MIB) / KIB : 0, UINT16_MAX);
    put_le(cmos + CMOS_BASE_KIB, 640, 2);
    put_le(cmos + CMOS_EXTENDED_KIB, extended, 2);
    put_le(cmos + CMOS_EXTENDED_KIB_FOUND, extended, 2);
    put_le(cmos + CMOS_OVER_16M, low > 16 * MIB ? (low - 16 * MIB) / (64 * KIB) : 0, 2);
    put_le(cmos + CMOS_OVER_4G, b->ram_above_4g / (64 * KIB), 3);
    cmos[CMOS_CPUS] = (uint8_t)(b->cpus - 1);
}

static void cmos_floppy(uint8_t *cmos, const FirmwareDevice *d)
{
    if (d->unit > 1 || !d->floppy_type)
        return;
    cmos[CMOS_FLOPPIES] |= (uint8_t)((d->floppy_type & 0xf) << (d->unit ? 0 : 4));
    bool second = cmos[CMOS_EQUIPMENT] & EQUIPMENT_FLOPPY;
    cmos[CMOS_EQUIPMENT] |= (uint8_t)(EQUIPMENT_FLOPPY | (second ? 1u << 6 : 0));
}

/* Translation of each IDE disk; type and geometry of the two that AT BIOSes knew. */
static void cmos_disk(uint8_t *cmos, const FirmwareDevice *d)
{
    if (d->unit > 3 || !d->cylinders || !d->heads || !d->sectors)
        return;
    if (d->cylinders > DISK_CYLINDERS_PLAIN)
        cmos[CMOS_TRANSLATION] |= (uint8_t)(TRANSLATION_LBA << (2 * d->unit));
    if (d->unit > 1)
        return;
    uint16_t cylinders = (uint16_t)MIN(d->cylinders, UINT16_MAX);
    uint8_t *g = cmos + CMOS_GEOMETRY_C + d->unit * CMOS_GEOMETRY_LEN;
    cmos[CMOS_DISKS] |= (uint8_t)(DISK_EXTENDED_TYPE << (d->unit ? 0 : 4));
    cmos[CMOS_DISK_C + d->unit] = DISK_USER_TYPE;
    store_le16(g, cylinders);
    g[2] = (uint8_t)d->heads;
    store_le16(g + 3, DISK_NO_PRECOMPENSATION);
    g[5] = (uint8_t)(DISK_CONTROL_RETRIES | (d->heads > 8 ? DISK_CONTROL_MANY_HEADS : 0));
    store_le16(g + 6, cylinders); /* where heads are parked */
    g[8] = (uint8_t)d->sectors;
}

/* As SeaBIOS reads it where it has no bootorder: four bits a kind, the first lowest. */
static void cmos_boot_order(uint8_t *cmos, const char *order)
{
    uint32_t kinds = 0;
    for (unsigned i = 0; i < 3 && order[i]; i++) {
        static const char letters[] = "acdn"; /* from 1 on */
        const char *kind = strchr(letters, order[i]);
        kinds |= (kind ? (uint32_t)(kind - letters + 1) : 0) << (4 * i);
    }
    cmos[CMOS_BOOT_FIRST] = (uint8_t)kinds;
    cmos[CMOS_BOOT_THIRD] = (uint8_t)(kinds >> 8 << 4);
}

void firmware_cmos(Device *rtc, const Board *b, const Tree *t, const FirmwareDevice *devs,
                   unsigned n)
{
    uint8_t cmos[CMOS_BYTES] = {[CMOS_EQUIPMENT] = EQUIPMENT_FPU | EQUIPMENT_MOUSE};
    static const struct {
        uint8_t first, last;
    } ours[] = {{CMOS_SUM_FIRST, CMOS_SUM + 1}, {CMOS_EXTENDED_KIB_FOUND, 0x31},
                {CMOS_OVER_16M, 0x35}, {CMOS_BOOT_THIRD, CMOS_TRANSLATION},
                {CMOS_BOOT_FIRST, CMOS_BOOT_FIRST}, {CMOS_OVER_4G, CMOS_CPUS}};
    cmos_memory(cmos, b);
    for (unsigned i = 0; i < n; i++) {
        if (devs[i].bus == FIRMWARE_FDC)
            cmos_floppy(cmos, &devs[i]);
        else if (devs[i].bus == FIRMWARE_IDE && devs[i].letter == 'c')
            cmos_disk(cmos, &devs[i]);
    }
    cmos_boot_order(cmos, boot_order(t));
    unsigned sum = 0;
    for (unsigned i = CMOS_SUM_FIRST; i <= CMOS_SUM_LAST; i++)
        sum += cmos[i];
    store_be16(cmos + CMOS_SUM, (uint16_t)sum);
    for (unsigned k = 0; k < G_N_ELEMENTS(ours); k++) {
        for (unsigned i = ours[k].first; i <= ours[k].last; i++)
            rtc_set_cmos(rtc, i, cmos[i]);
    }
}
