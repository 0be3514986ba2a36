/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_ACPI_PM_H
#define LODGE_ACPI_PM_H

#include "lodge/device.h"

/* Offsets of the register blocks from PC_PORT_ACPI_PM, for the FADT too. */
enum {
    ACPI_PM1_EVENT = 0x00,   /* status 2, enable 2 */
    ACPI_PM1_CONTROL = 0x04, /* 2 */
    ACPI_PM_TIMER = 0x08,    /* 4 */
    ACPI_GPE0 = 0x0c,        /* status 2, enable 2 */
    ACPI_PM_PORTS = 0x40,
};
enum {
    ACPI_PM1_EVENT_LEN = 4,
    ACPI_PM1_CONTROL_LEN = 2,
    ACPI_PM_TIMER_LEN = 4,
    ACPI_GPE0_LEN = 4,
};
#define ACPI_PM_TIMER_HZ 3579545
#define ACPI_PM_GPES 16
#define ACPI_PM_SLP_TYP_S5 0 /* repeated by \_S5 in firmware/dsdt.asl */

/**
 * acpi_pm_power_button() - Press the fixed power button
 * @dev: an "piix4-pm"
 * Context: any thread without a device's lock. The guest hears of it if it enabled the event.
 */
void acpi_pm_power_button(Device *dev);

/* Raise general-purpose event @gpe (< ACPI_PM_GPES, else ignored). Context: as above. */
void acpi_pm_gpe_raise(Device *dev, unsigned gpe);

#endif
