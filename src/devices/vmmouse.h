/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VMMOUSE_H
#define LODGE_VMMOUSE_H

#include "lodge/device.h"

enum { VMPORT_EAX, VMPORT_EBX, VMPORT_ECX, VMPORT_EDX, VMPORT_ESI, VMPORT_EDI, VMPORT_REGS };

/**
 * vmport_command() - Run the command that a guest put into its registers
 * @d:    a realized "vmmouse"
 * @regs: in and out, in the order of VMPORT_EAX and up
 * Context: vCPU thread, d->lock held.
 */
void vmport_command(Device *d, uint32_t regs[VMPORT_REGS]);

#endif
