/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FDC_82077_H
#define LODGE_FDC_82077_H

#include "lodge/device.h"

enum { FDC_DRIVES = 2 }; /* on the cable */

/**
 * fdc_cmos_drives() - What firmware set-up would have put into CMOS byte 0x10
 * Return: drive 0 in the upper half, drive 1 in the lower: 0 none, 1 360K, 2 1.2M, 4 1.44M,
 *         5 2.88M.
 * Context: main thread, drives realized.
 */
uint8_t fdc_cmos_drives(Fdc *f);

#endif
