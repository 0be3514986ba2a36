/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What firmware finds: the files of fw_cfg, read as firmware reads them, and CMOS. */
#include <string.h>

#include "testboard.h"

#include "firmware.h"
#include "fw_cfg.h"
#include "lodge/error.h"
#include "lodge/num.h"
#include "pc_map.h"

static const FirmwareDevice all[] = {
    {.letter = 'a', .bus = FIRMWARE_FDC, .unit = 0, .floppy_type = 4},
    {.letter = 'c', .bus = FIRMWARE_IDE, .slot = 1, .fn = 1, .unit = 0,
     .cylinders = 16383, .heads = 16, .sectors = 63},
    {.letter = 'c', .bus = FIRMWARE_PCI, .slot = 0x1f},
    {.letter = 'd', .bus = FIRMWARE_IDE, .slot = 1, .fn = 1, .unit = 2},
    {.letter = 'd', .bus = FIRMWARE_IDE, .slot = 1, .fn = 1, .unit = 3},
    {.letter = 'n', .bus = FIRMWARE_PCI, .slot = 3},
};

#define PATH_FLOPPY "/pci@i0cf8/isa@1/fdc@03f0/floppy@0"
#define PATH_IDE "/pci@i0cf8/ide@1,1/drive@0/disk@0"
#define PATH_VIRTIO "/pci@i0cf8/scsi@1f/disk@0,0"
#define PATH_CD "/pci@i0cf8/ide@1,1/drive@1/disk@0"
#define PATH_CD2 "/pci@i0cf8/ide@1,1/drive@1/disk@1"
#define PATH_NET "/pci@i0cf8/ethernet@3/ethernet-phy@0"

static GByteArray *item(TestBoard *tb, uint16_t key, uint32_t len)
{
    GByteArray *b = g_byte_array_new();
    test_out(tb, PC_PORT_FW_CFG, 2, key);
    for (uint32_t i = 0; i < len; i++) {
        uint8_t v = (uint8_t)test_in(tb, PC_PORT_FW_CFG + 1, 1);
        g_byte_array_append(b, &v, 1);
    }
    return b;
}

/* NULL: no such file. */
static GByteArray *file(TestBoard *tb, const char *name)
{
    g_autoptr(GByteArray) count = item(tb, FW_CFG_FILE_DIR, 4);
    uint32_t n = load_be32(count->data);
    g_autoptr(GByteArray) dir = item(tb, FW_CFG_FILE_DIR, 4 + n * 64);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *e = dir->data + 4 + i * 64;
        if (!strcmp((const char *)e + 8, name))
            return item(tb, load_be16(e + 4), load_be32(e));
    }
    return NULL;
}

static AcpiConfig acpi_of(const TestBoard *tb)
{
    return (AcpiConfig){.cpus = tb->board.cpus, .ram_below_4g = tb->board.ram_below_4g,
                        .ram_above_4g = tb->board.ram_above_4g,
                        .pci_hole_base = PC_PCI_HOLE_GPA};
}

static TestBoard *board_new(void)
{
    TestBoard *tb = test_board_new(0);
    tb->board.cpus = 3;
    tb->board.ram_below_4g = 3 * GIB;
    tb->board.ram_above_4g = 2 * GIB;
    test_board_add(tb, "fw-cfg", NULL);
    return tb;
}

static TestBoard *prepared(const Tree *t, const FirmwareDevice *devs, unsigned n)
{
    TestBoard *tb = board_new();
    g_autoptr(GError) error = NULL;
    AcpiConfig acpi = acpi_of(tb);
    firmware_prepare(&tb->board, t, devs, n, &acpi, &error);
    g_assert_no_error(error);
    return tb;
}

/* A machine without a screen: firmware speaks on the first serial port. */
static void test_serial_console(void)
{
    g_autoptr(Tree) t = tree_new();
    g_autoptr(TestBoard) tb = board_new();
    g_autoptr(GError) error = NULL;
    AcpiConfig acpi = acpi_of(tb);
    acpi.no_vga = true;
    firmware_prepare(&tb->board, t, NULL, 0, &acpi, &error);
    g_assert_no_error(error);
    g_autoptr(GByteArray) port = file(tb, "etc/sercon-port");
    g_assert_cmpuint(port->len, ==, 2);
    g_assert_cmphex(load_le16(port->data), ==, 0x3f8);
}

static void test_files(void)
{
    g_autoptr(Tree) t = tree_new();
    tree_set_str(t, "/", "uuid", "12345678-9abc-4def-8123-456789abcdef");
    tree_set_str(t, "/smbios", "serial", "S-1234");
    g_autoptr(TestBoard) tb = prepared(t, all, G_N_ELEMENTS(all));
    static const char *const present[] = {
        "bootorder", "etc/acpi/rsdp", "etc/acpi/tables", "etc/table-loader", "etc/boot-fail-wait",
        "etc/e820", "etc/smbios/smbios-anchor", "etc/smbios/smbios-tables",
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(present); i++) {
        g_autoptr(GByteArray) b = file(tb, present[i]);
        if (!b || !b->len)
            g_error("no file %s", present[i]);
    }
    static const char *const absent[] = {
        "etc/boot-menu-wait", "etc/sercon-port", "etc/screen-and-debug", "etc/extra-pci-roots",
        "etc/msr_feature_control", "etc/system-states",
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(absent); i++)
        g_assert_null(file(tb, absent[i]));
    g_autoptr(GByteArray) fail = file(tb, "etc/boot-fail-wait");
    g_assert_cmphex(load_le32(fail->data), ==, UINT32_MAX);
    g_autoptr(GByteArray) e820 = file(tb, "etc/e820");
    static const struct {
        uint64_t at, len;
        uint32_t type;
    } ranges[] = {{0, 3 * GIB, 1}, {4 * GIB, 2 * GIB, 1}, {0xfec00000, 4096, 2},
                  {0xfee00000, 4096, 2}, {0xfeffc000, 0x1004000, 2}};
    g_assert_cmpuint(e820->len, ==, 20 * G_N_ELEMENTS(ranges));
    for (unsigned i = 0; i < G_N_ELEMENTS(ranges); i++) {
        g_assert_cmphex(load_le64(e820->data + 20 * i), ==, ranges[i].at);
        g_assert_cmphex(load_le64(e820->data + 20 * i + 8), ==, ranges[i].len);
        g_assert_cmphex(load_le32(e820->data + 20 * i + 16), ==, ranges[i].type);
    }
    g_autoptr(GByteArray) rsdp = file(tb, "etc/acpi/rsdp");
    g_assert_cmpmem(rsdp->data, 8, "RSD PTR ", 8);
    g_autoptr(GByteArray) loader = file(tb, "etc/table-loader");
    g_assert_cmpuint(loader->len % 128, ==, 0);
    g_autoptr(GByteArray) anchor = file(tb, "etc/smbios/smbios-anchor");
    g_autoptr(GByteArray) smbios = file(tb, "etc/smbios/smbios-tables");
    g_assert_cmpuint(load_le16(anchor->data + 22), ==, smbios->len);
    g_assert_nonnull(memmem(smbios->data, smbios->len, "S-1234", 7));
    g_assert_nonnull(memmem(smbios->data, smbios->len, "\x78\x56\x34\x12\xbc\x9a", 6));
    g_autoptr(GByteArray) uuid = item(tb, FW_CFG_UUID, 16);
    g_assert_cmpmem(uuid->data, 4, "\x12\x34\x56\x78", 4);
    g_autoptr(GByteArray) irq0 = item(tb, FW_CFG_IRQ0_OVERRIDE, 1);
    g_assert_cmphex(irq0->data[0], ==, 1);
    g_autoptr(GByteArray) graphic = item(tb, FW_CFG_NO_GRAPHIC, 2);
    g_assert_cmphex(load_le16(graphic->data), ==, 0);
}

static void test_little_memory(void)
{
    g_autoptr(Tree) t = tree_new();
    g_autoptr(TestBoard) tb = board_new();
    g_autoptr(GError) error = NULL;
    tb->board.ram_below_4g = 64 * MIB;
    tb->board.ram_above_4g = 0;
    AcpiConfig acpi = acpi_of(tb);
    acpi.no_vga = true;
    firmware_prepare(&tb->board, t, NULL, 0, &acpi, &error);
    g_assert_no_error(error);
    g_autoptr(GByteArray) e820 = file(tb, "etc/e820");
    g_assert_cmpuint(e820->len, ==, 20 * 4);
    g_assert_cmphex(load_le64(e820->data + 20), ==, 0xfec00000);
    g_autoptr(GByteArray) graphic = item(tb, FW_CFG_NO_GRAPHIC, 2);
    g_assert_cmphex(load_le16(graphic->data), ==, 1);
}

static void expect_order(const char *order, const FirmwareDevice *devs, unsigned n,
                         const char *lines)
{
    g_autoptr(Tree) t = tree_new();
    if (order)
        tree_set_str(t, "/boot", "order", order);
    g_autoptr(TestBoard) tb = prepared(t, devs, n);
    g_autoptr(GByteArray) b = file(tb, "bootorder");
    if (!lines) {
        g_assert_null(b);
        return;
    }
    g_assert_nonnull(b);
    g_assert_cmpuint(b->data[b->len - 1], ==, 0);
    g_assert_cmpuint(strlen((const char *)b->data) + 1, ==, b->len);
    g_assert_cmpstr((const char *)b->data, ==, lines);
}

static void test_boot_order(void)
{
    expect_order(NULL, all, G_N_ELEMENTS(all),
                 PATH_IDE "\n" PATH_VIRTIO "\n" PATH_FLOPPY "\n" PATH_CD "\n" PATH_CD2
                          "\n" PATH_NET);
    expect_order("dcn", all, G_N_ELEMENTS(all),
                 PATH_CD "\n" PATH_CD2 "\n" PATH_IDE "\n" PATH_VIRTIO "\n" PATH_NET "\nHALT");
    expect_order("n", all, 5, "HALT"); /* there is no card: nothing else is tried */
    expect_order(NULL, NULL, 0, NULL);
    g_autoptr(Tree) t = tree_new();
    g_autoptr(TestBoard) tb = board_new();
    g_autoptr(GError) error = NULL;
    AcpiConfig acpi = acpi_of(tb);
    tree_set_str(t, "/boot", "order", "cx");
    g_assert_false(firmware_prepare(&tb->board, t, all, 1, &acpi, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_assert_nonnull(strstr(error->message, "'cx'"));
}

static void test_menu(void)
{
    g_autoptr(Tree) t = tree_new();
    tree_set_u32(t, "/boot", "menu-timeout", 5000);
    g_autoptr(TestBoard) off = prepared(t, all, 1);
    g_autoptr(GByteArray) flag = item(off, FW_CFG_BOOT_MENU, 2);
    g_assert_cmphex(load_le16(flag->data), ==, 0);
    g_assert_null(file(off, "etc/boot-menu-wait"));
    tree_set_bool(t, "/boot", "menu", true);
    g_autoptr(TestBoard) on = prepared(t, all, 1);
    g_autoptr(GByteArray) set = item(on, FW_CFG_BOOT_MENU, 2);
    g_assert_cmphex(load_le16(set->data), ==, 1);
    g_autoptr(GByteArray) wait = file(on, "etc/boot-menu-wait");
    g_assert_cmpuint(wait->len, ==, 2);
    g_assert_cmpuint(load_le16(wait->data), ==, 5000);
}

static void test_refusals(void)
{
    g_autoptr(Tree) t = tree_new();
    g_autoptr(TestBoard) tb = board_new();
    g_autoptr(GError) error = NULL;
    AcpiConfig acpi = acpi_of(tb);
    tree_set_str(t, "/smbios", "colour", "blue");
    g_assert_false(firmware_prepare(&tb->board, t, all, 1, &acpi, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_assert_nonnull(strstr(error->message, "colour"));
}

/* ---- CMOS ---- */

static uint8_t cmos(TestBoard *tb, uint8_t index)
{
    test_out(tb, PC_PORT_RTC, 1, index);
    return (uint8_t)test_in(tb, PC_PORT_RTC + 1, 1);
}

static uint16_t cmos16(TestBoard *tb, uint8_t index)
{
    return (uint16_t)(cmos(tb, index) | cmos(tb, index + 1) << 8);
}

static TestBoard *with_cmos(const char *order, const FirmwareDevice *devs, unsigned n)
{
    TestBoard *tb = board_new();
    g_autoptr(Tree) t = tree_new();
    if (order)
        tree_set_str(t, "/boot", "order", order);
    firmware_cmos(test_board_add(tb, "mc146818", NULL), &tb->board, t, devs, n);
    unsigned sum = 0;
    for (uint8_t i = 0x10; i <= 0x2d; i++)
        sum += cmos(tb, i);
    g_assert_cmphex(cmos(tb, 0x2e) << 8 | cmos(tb, 0x2f), ==, sum);
    return tb;
}

static void test_cmos_memory(void)
{
    g_autoptr(TestBoard) tb = with_cmos(NULL, NULL, 0);
    g_assert_cmpuint(cmos16(tb, 0x15), ==, 640);
    g_assert_cmpuint(cmos16(tb, 0x17), ==, 65535);
    g_assert_cmpuint(cmos16(tb, 0x30), ==, 65535);
    g_assert_cmpuint(cmos16(tb, 0x34), ==, (3 * GIB - 16 * MIB) / (64 * KIB));
    g_assert_cmpuint(cmos16(tb, 0x5b) | cmos(tb, 0x5d) << 16, ==, 2 * GIB / (64 * KIB));
    g_assert_cmpuint(cmos(tb, 0x5f), ==, 2);
    g_assert_cmphex(cmos(tb, 0x14), ==, 0x06); /* FPU, mouse, VGA, no floppy */
    g_assert_cmphex(cmos(tb, 0x10), ==, 0);
    g_assert_cmphex(cmos(tb, 0x12), ==, 0);
    g_assert_cmphex(cmos(tb, 0x32), ==, 0x20); /* the clock's century */
}

static void test_cmos_drives(void)
{
    static const FirmwareDevice two[] = {
        {.letter = 'a', .bus = FIRMWARE_FDC, .unit = 0, .floppy_type = 4},
        {.letter = 'a', .bus = FIRMWARE_FDC, .unit = 1, .floppy_type = 2},
        {.letter = 'c', .bus = FIRMWARE_IDE, .unit = 1, .cylinders = 1024, .heads = 4,
         .sectors = 17},
        {.letter = 'c', .bus = FIRMWARE_IDE, .unit = 3, .cylinders = 1025, .heads = 16,
         .sectors = 63},
        {.letter = 'c', .bus = FIRMWARE_IDE, .unit = 16, .cylinders = 2000, .heads = 9,
         .sectors = 9},
        {.letter = 'a', .bus = FIRMWARE_FDC, .unit = 2, .floppy_type = 4},
    };
    g_autoptr(TestBoard) tb = with_cmos(NULL, all, G_N_ELEMENTS(all));
    g_assert_cmphex(cmos(tb, 0x10), ==, 0x40);
    g_assert_cmphex(cmos(tb, 0x14), ==, 0x07);
    g_assert_cmphex(cmos(tb, 0x12), ==, 0xf0);
    g_assert_cmphex(cmos(tb, 0x19), ==, 47);
    g_assert_cmphex(cmos(tb, 0x1a), ==, 0);
    static const uint8_t c[] = {0xff, 0x3f, 16, 0xff, 0xff, 0xc8, 0xff, 0x3f, 63};
    for (uint8_t i = 0; i < sizeof c; i++)
        g_assert_cmphex(cmos(tb, 0x1b + i), ==, c[i]);
    g_assert_cmphex(cmos(tb, 0x24), ==, 0);
    g_assert_cmphex(cmos(tb, 0x39), ==, 0x01); /* the first disk by LBA */
    g_autoptr(TestBoard) other = with_cmos(NULL, two, G_N_ELEMENTS(two));
    g_assert_cmphex(cmos(other, 0x10), ==, 0x42);
    g_assert_cmphex(cmos(other, 0x14), ==, 0x47);
    g_assert_cmphex(cmos(other, 0x12), ==, 0x0f);
    g_assert_cmphex(cmos(other, 0x1a), ==, 47);
    g_assert_cmphex(cmos16(other, 0x24), ==, 1024);
    g_assert_cmphex(cmos(other, 0x29), ==, 0xc0);
    g_assert_cmphex(cmos(other, 0x2c), ==, 17);
    g_assert_cmphex(cmos(other, 0x39), ==, 0x40);
}

static void test_cmos_boot(void)
{
    g_autoptr(TestBoard) preset = with_cmos(NULL, NULL, 0);
    g_assert_cmphex(cmos(preset, 0x3d), ==, 0x12); /* disk, floppy */
    g_assert_cmphex(cmos(preset, 0x38), ==, 0x30); /* CD-ROM */
    g_autoptr(TestBoard) net = with_cmos("n", NULL, 0);
    g_assert_cmphex(cmos(net, 0x3d), ==, 0x04);
    g_assert_cmphex(cmos(net, 0x38), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/firmware/files", test_files);
    g_test_add_func("/firmware/serial-console", test_serial_console);
    g_test_add_func("/firmware/little-memory", test_little_memory);
    g_test_add_func("/firmware/boot-order", test_boot_order);
    g_test_add_func("/firmware/menu", test_menu);
    g_test_add_func("/firmware/refusals", test_refusals);
    g_test_add_func("/firmware/cmos-memory", test_cmos_memory);
    g_test_add_func("/firmware/cmos-drives", test_cmos_drives);
    g_test_add_func("/firmware/cmos-boot", test_cmos_boot);
    return g_test_run();
}
