/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_GDB_REGS_H
#define LODGE_GDB_REGS_H

#include "vcpu.h"

/* The registers as GDB knows them: its numbers, its bytes, its target description. */

#define GDB_REG_BYTES 16u /* of the longest */
#define GDB_REGS_BYTES 1024u /* of all, at most */

unsigned gdb_reg_count(bool long_mode);
/* Bytes of register @n; 0: no such register. */
unsigned gdb_reg_size(bool long_mode, unsigned n);
/* Little-endian bytes of register @n, gdb_reg_size() of them. */
void gdb_reg_get(const VcpuRegs *r, bool long_mode, unsigned n, uint8_t *to);
void gdb_reg_set(VcpuRegs *r, bool long_mode, unsigned n, const uint8_t *from);
/* target.xml; transfer full. */
char *gdb_regs_xml(bool long_mode);
/* Whether @r is in long mode, 64-bit or compatible. */
bool gdb_regs_long_mode(const VcpuRegs *r);

#endif
