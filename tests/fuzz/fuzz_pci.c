/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Host bridge, ISA bridge and power management from hostile programs, by ports and configuration. */
#include "bus_fuzz.h"

#include "acpi_pm.h"
#include "pc_map.h"
static const BusFuzzRegion ports[] = {
    {PC_PORT_PCI_WINDOW, 8}, {PC_PORT_ACPI_PM, ACPI_PM_PORTS}, {0}};
static const uint8_t devfns[] = {
    PC_SLOT_HOST << 3, PC_SLOT_PIIX << 3, PC_SLOT_PIIX << 3 | PC_FN_PM, 0xf8, 0xff};
static Device *pm;

static void set_up(TestBoard *tb)
{
    test_board_add(tb, "i440fx", NULL);
    test_board_add(tb, "piix3", NULL);
    pm = test_board_add(tb, "piix4-pm", NULL);
}

static void event(TestBoard *tb, uint8_t what)
{
    if (what & 0x80)
        acpi_pm_gpe_raise(pm, what & 0x7f);
    else
        acpi_pm_power_button(pm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .devfns = devfns, .set_up = set_up, .event = event};

    return bus_fuzz_run(&f, data, len);
}
