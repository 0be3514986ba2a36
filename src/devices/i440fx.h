/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_I440FX_H
#define LODGE_I440FX_H

#include "lodge/device.h"

#define I440FX_SHADOW_GPA 0xc0000u
#define I440FX_SHADOW_LEN 0x40000u

/**
 * i440fx_set_shadow() - Let the PAM registers steer 0xC0000-0xFFFFF from now on
 * @d:   a realized "i440fx"
 * @ram: the block whose first MiB is the guest's; borrowed from the map
 * @rom: the firmware, whose last bytes show below 1 MiB; borrowed from the map
 * Context: main thread, vCPUs parked; the area shows nothing yet.
 * Return:  false with LODGE_ERROR_CONFIG where other memory lies there.
 */
bool i440fx_set_shadow(Device *d, MemBlock *ram, MemBlock *rom, GError **error);

#endif
