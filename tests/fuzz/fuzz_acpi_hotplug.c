/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The hot-plug registers from hostile programs, slots changing beside them. */
#include "bus_fuzz.h"

#include "acpi_hotplug.h"
#include "acpi_pm.h"
#include "pc_map.h"

static const BusFuzzRegion ports[] = {{ACPI_HOTPLUG_PORT, ACPI_HOTPLUG_PORTS},
                                      {PC_PORT_ACPI_PM + ACPI_GPE0, ACPI_GPE0_LEN},
                                      {0}};

static void set_up(TestBoard *tb)
{
    test_board_add(tb, "i440fx", NULL);
    test_board_add(tb, "piix3", NULL);
    Device *pm = test_board_add(tb, "piix4-pm", NULL);
    acpi_hotplug_attach(test_board_add(tb, "acpi-hotplug", NULL), pm);
}

static void event(TestBoard *tb, uint8_t what)
{
    Device *d = g_ptr_array_index(tb->devices, tb->devices->len - 1);
    unsigned slot = what & 0x3f;
    switch (what >> 6) {
    case 0:
        acpi_hotplug_added(d, slot);
        break;
    case 1:
        acpi_hotplug_request_eject(d, slot);
        break;
    default:
        acpi_hotplug_removed(d, slot);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .set_up = set_up, .event = event};

    return bus_fuzz_run(&f, data, len);
}
