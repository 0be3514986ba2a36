/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every device class that a description can name; a new device adds its line here. */
#include <string.h>

#include "lodge/device.h"

#define DEVICE_CLASSES(X)                                                                          \
    X(acpi_hotplug_class)                                                                         \
    X(acpi_pm_class)                                                                              \
    X(debug_exit_class)                                                                           \
    X(dma_i8237_class)                                                                            \
    X(fdc_82077_class)                                                                            \
    X(floppy_class)                                                                               \
    X(fw_cfg_class)                                                                               \
    X(i440fx_class)                                                                               \
    X(i6300esb_class)                                                                             \
    X(ide_cd_class)                                                                               \
    X(ide_hd_class)                                                                               \
    X(ioapic_82093_class)                                                                         \
    X(kbd_i8042_class)                                                                            \
    X(ne2k_isa_class)                                                                             \
    X(ne2k_pci_class)                                                                             \
    X(pcnet_class)                                                                                \
    X(pic_i8259_class)                                                                            \
    X(piix3_class)                                                                                \
    X(piix3_ide_class)                                                                            \
    X(pit_i8254_class)                                                                            \
    X(port92_class)                                                                               \
    X(ps2_kbd_class)                                                                              \
    X(ps2_mouse_class)                                                                            \
    X(pvpanic_class)                                                                              \
    X(rtc_mc146818_class)                                                                         \
    X(uart_16550_class)                                                                           \
    X(vga_class)                                                                                  \
    X(virtio_balloon_pci_class)                                                                   \
    X(virtio_blk_pci_class)                                                                       \
    X(virtio_console_pci_class)                                                                   \
    X(virtio_net_pci_class)                                                                       \
    X(virtio_rng_pci_class)                                                                       \
    X(vmmouse_class)

#define DECLARE(cls) extern const DeviceClass cls;
#define ROW(cls) &cls,

DEVICE_CLASSES(DECLARE)

const DeviceClass *const device_table[] = {DEVICE_CLASSES(ROW) NULL};

const DeviceClass *device_class_find(const char *name)
{
    for (const DeviceClass *const *c = device_table; *c; c++) {
        if (!strcmp((*c)->name, name))
            return *c;
    }
    return NULL;
}
