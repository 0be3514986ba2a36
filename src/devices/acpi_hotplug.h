/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_ACPI_HOTPLUG_H
#define LODGE_ACPI_HOTPLUG_H

#include "lodge/device.h"

#define ACPI_HOTPLUG_PORT 0xae00 /* repeated, with slots and event, in firmware/hotplug.asl */
#define ACPI_HOTPLUG_PORTS 16
#define ACPI_HOTPLUG_FIRST_SLOT 3
#define ACPI_HOTPLUG_GPE 1
/* Slots that take and give devices while the machine runs, a bit each. */
#define ACPI_HOTPLUG_SLOTS (UINT32_MAX << ACPI_HOTPLUG_FIRST_SLOT)

/* Whose general-purpose event tells the guest: @pm is the realized "piix4-pm", outlives @d. Main
 * thread, before the machine runs. */
void acpi_hotplug_attach(Device *d, Device *pm);

/**
 * acpi_hotplug_added() - Tell the guest that @slot has a device now
 * @d:    a realized and attached "acpi-hotplug"
 * @slot: ACPI_HOTPLUG_FIRST_SLOT to 31, else ignored
 * Context: main thread, no device's lock held; the device is on its bus already.
 */
void acpi_hotplug_added(Device *d, unsigned slot);

/**
 * acpi_hotplug_request_eject() - Ask the guest to let the device in @slot go
 * Context: as above. The guest's answer, if it gives one, is a BOARD_EJECT request with @slot. It
 *          may come unasked too; a restart of the machine answers all that was asked for.
 */
void acpi_hotplug_request_eject(Device *d, unsigned slot);

/* @slot is empty now: BOARD_EJECT was answered, or there was nothing. Until then the guest's
 * further ejects of it are not heard. Context: as above. */
void acpi_hotplug_removed(Device *d, unsigned slot);

#endif
