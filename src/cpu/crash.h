/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CRASH_H
#define LODGE_CRASH_H

#include "vcpu.h"

/**
 * crash_report() - Explain a stopped vCPU: registers, the code at RIP, what KVM said, what it means
 * Context: main thread, vCPUs parked. Loads libcapstone for the disassembly, and only here.
 * Return:  transfer full: lines, each ended by a newline.
 */
char *crash_report(CpuSet *s, unsigned cpu, const VcpuStopInfo *info, MemMap *mem);

#endif
