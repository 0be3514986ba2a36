/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_PS2_MOUSE_H
#define LODGE_PS2_MOUSE_H

#include "lodge/device.h"

/**
 * ps2_mouse_signal() - Send a packet that says nothing, for the interrupt that it makes
 * @d: a realized "ps2-mouse"
 * Context: any thread, no lock held.
 */
void ps2_mouse_signal(Device *d);

#endif
