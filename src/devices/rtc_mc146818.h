/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_RTC_MC146818_H
#define LODGE_RTC_MC146818_H

#include "lodge/device.h"

/**
 * rtc_set_cmos() - Put @value into the battery-backed memory, as firmware set-up would have
 * @d:     a realized "mc146818"
 * @index: 0x0E..0xFF; 0x80 and up is the bank behind ports 0x72/0x73. The clock's own registers
 *         and the century are not memory: such an index is refused by an assertion
 * Context: main thread before the machine runs; takes the device's lock.
 */
void rtc_set_cmos(Device *d, unsigned index, uint8_t value);

#endif
