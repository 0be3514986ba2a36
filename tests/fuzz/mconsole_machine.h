/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MCONSOLE_MACHINE_H
#define LODGE_MCONSOLE_MACHINE_H

/*
 * What the management console sees of a machine, without one: devices are names in a list, lines
 * are channels that lead nowhere, and what is asked of a real machine may fail. It stands in for
 * machine.h and what is next to it, so no part of those can be linked beside it.
 */

#include "control_internal.h"

enum {
    FAKE_CONSOLES = 1, /* the virtio console of a machine run as User-Mode Linux */
    FAKE_UART = 2,
    FAKE_BALLOON = 4,
    FAKE_BANNER = 8,   /* its kernel says who it is */
    FAKE_KEYS = 16,
    FAKE_PORT = 32,    /* the port that a guest's helper speaks on */
};

Machine *fake_machine_new(unsigned features);
void fake_machine_free(Machine *m);
/* The devices that are to go: they do, or the time is up. */
void fake_machine_settle(Machine *m, bool gone);

#endif
