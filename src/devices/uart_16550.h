/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_UART_16550_H
#define LODGE_UART_16550_H

#include "lodge/device.h"

/* The line's other end sends a break: Linux takes the next character for SysRq. @d is a 16550a.
 * Main thread. */
void uart_receive_break(Device *d);

#endif
