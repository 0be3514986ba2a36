/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every device class that a description can name; a new device adds its two lines here. */
#include <string.h>

#include "lodge/device.h"

extern const DeviceClass acpi_pm_class;
extern const DeviceClass debug_exit_class;
extern const DeviceClass fw_cfg_class;
extern const DeviceClass i440fx_class;
extern const DeviceClass ioapic_82093_class;
extern const DeviceClass kbd_i8042_class;
extern const DeviceClass pic_i8259_class;
extern const DeviceClass piix3_class;
extern const DeviceClass pit_i8254_class;
extern const DeviceClass port92_class;
extern const DeviceClass pvpanic_class;
extern const DeviceClass rtc_mc146818_class;
extern const DeviceClass uart_16550_class;
extern const DeviceClass virtio_blk_pci_class;
extern const DeviceClass virtio_console_pci_class;
extern const DeviceClass virtio_net_pci_class;
extern const DeviceClass virtio_rng_pci_class;

const DeviceClass *const device_table[] = {
    &acpi_pm_class,
    &debug_exit_class,
    &fw_cfg_class,
    &i440fx_class,
    &ioapic_82093_class,
    &kbd_i8042_class,
    &pic_i8259_class,
    &piix3_class,
    &pit_i8254_class,
    &port92_class,
    &pvpanic_class,
    &rtc_mc146818_class,
    &uart_16550_class,
    &virtio_blk_pci_class,
    &virtio_console_pci_class,
    &virtio_net_pci_class,
    &virtio_rng_pci_class,
    NULL,
};

const DeviceClass *device_class_find(const char *name)
{
    for (const DeviceClass *const *c = device_table; *c; c++) {
        if (!strcmp((*c)->name, name))
            return *c;
    }
    return NULL;
}
