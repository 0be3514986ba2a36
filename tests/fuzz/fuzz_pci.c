/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Host bridge with shadowed ROM, ISA bridge and power management, and functions with a BAR of each
 * kind (frame buffer, registers, ports, MSI-X, expansion ROM), from hostile programs by ports,
 * memory and configuration. BARs move over each other, over the shadow and over memory.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bus_fuzz.h"

#include "acpi_pm.h"
#include "i440fx.h"
#include "lodge/net.h"
#include "lodge/num.h"
#include "pc_map.h"
#include "pci.h"

enum {
    RAM_BYTES = I440FX_SHADOW_GPA, /* what is above is the bridge's to show */
    ROM_BYTES = 128 << 10,
    VGA_SLOT = 3,
    NIC_SLOT,
    MSIX_SLOT,
    BARS_GPA = 0xe0000000,
    BARS_LIMIT_GPA = 0xf0000000,
    BARS_GPA_REGISTERS = BARS_GPA + (8 << 20), /* after the frame buffer */
    NIC_PORTS = 0xc000,
};

static const BusFuzzRegion ports[] = {
    {PC_PORT_PCI_WINDOW, 8}, {PC_PORT_ACPI_PM, ACPI_PM_PORTS}, {NIC_PORTS, 32}, {0x92, 1}, {0}};
static const BusFuzzRegion mmio[] = {
    {I440FX_SHADOW_GPA, 8}, {I440FX_SHADOW_GPA + 0x3ffc, 8}, {0xefffc, 8}, {0xffff8, 8},
    {BARS_GPA_REGISTERS + 0x500, 4}, {BARS_GPA_REGISTERS + 0x1000, 0x40},
    {BARS_GPA_REGISTERS + 0x2000, 0x40}, {BARS_GPA_REGISTERS + 0x2800, 8},
    {BARS_GPA_REGISTERS + 0x3000, 0x40}, {BARS_GPA_REGISTERS + 0x5000, 0x40}, {0}};
static const uint8_t devfns[] = {
    PC_SLOT_HOST << 3, PC_SLOT_PIIX << 3, PC_SLOT_PIIX << 3 | PC_FN_PM, VGA_SLOT << 3,
    NIC_SLOT << 3, MSIX_SLOT << 3, 0xf8, 0xff};
static const NetPortOps peer_ops = {0};
static NetPort peer;
static Device *pm;

/* A name under which firmware_read() finds an expansion ROM. */
static const char *rom_file(void)
{
    static char path[32];
    static const uint8_t rom[5000] = {
        0x55, 0xaa, 9, [0x18] = 0x1c, [0x1c] = 'P', 'C', 'I', 'R'};

    if (!*path) {
        int fd = memfd_create("rom", 0);
        ssize_t n = write(fd, rom, sizeof rom);
        g_assert_cmpint(n, ==, sizeof rom);
        g_snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    return path;
}

static void set_up(TestBoard *tb)
{
    GError *error = NULL;
    g_autofree char *vga = g_strdup_printf("vgamem=8M,romfile=%s", rom_file());
    MemBlock *ram = mem_block_new("shadow", 1 << 20, 0, &error);
    g_assert_no_error(error);
    MemBlock *rom = mem_block_new("bios", ROM_BYTES, MEM_READ_ONLY, &error);
    g_assert_no_error(error);

    mem_map_own(tb->board.mem, ram);
    mem_map_own(tb->board.mem, rom);
    peer = (NetPort){.ops = &peer_ops, .name = "wire"};
    test_board_backend(tb, "wire", &peer);
    Device *host = test_board_add(tb, "i440fx", NULL);
    i440fx_set_shadow(host, ram, rom, &error);
    g_assert_no_error(error);
    test_board_add(tb, "piix3", NULL);
    pm = test_board_add(tb, "piix4-pm", NULL);
    test_board_add(tb, "port92", NULL);
    test_board_add(tb, "vga", vga);
    test_board_add(tb, "ne2k_pci", "netdev=wire");
    test_board_add(tb, "virtio-rng-pci", NULL);
    pci_assign(tb->board.pci, BARS_GPA, BARS_LIMIT_GPA);
}

/* As firmware does it: all segments alike. */
static void shadow(TestBoard *tb, uint8_t bits)
{
    for (unsigned i = 0; i < 7; i++)
        test_cfg_write(tb, PC_SLOT_HOST << 3, (uint8_t)(0x59 + i), 1, bits << 4 | (i ? bits : 0));
}

static void event(TestBoard *tb, uint8_t what)
{
    PciDev *d = pci_bus_find(tb->board.pci, what & 1 ? NIC_SLOT << 3 : MSIX_SLOT << 3);

    switch (what >> 6) {
    case 0:
        acpi_pm_power_button(pm);
        break;
    case 1:
        pci_msix_raise(d, what >> 1 & 3);
        break;
    case 2:
        if (what & 2) {
            pci_assign(tb->board.pci, BARS_GPA, BARS_LIMIT_GPA);
        } else {
            lodge_lock(&d->dev.lock);
            pci_set_intx(d, what & 4);
            lodge_unlock(&d->dev.lock);
        }
        break;
    default:
        if (what & 0x20)
            shadow(tb, what & 3);
        else
            acpi_pm_gpe_raise(pm, what & 0x1f);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ram = RAM_BYTES, .ports = ports, .mmio = mmio, .devfns = devfns,
                              .set_up = set_up, .event = event};

    return bus_fuzz_run(&f, data, len);
}
