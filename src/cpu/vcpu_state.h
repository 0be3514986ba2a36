/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VCPU_STATE_H
#define LODGE_VCPU_STATE_H

#include "vcpu.h"

/* A vCPU's registers right after KVM_CREATE_VCPU: what a reset goes back to. */
typedef struct VcpuInitial VcpuInitial;

/* Transfer full, or NULL with LODGE_ERROR_HOST. */
VcpuInitial *vcpu_initial_read(Kvm *k, int fd, GError **error);
void vcpu_initial_free(VcpuInitial *v);
/* @bsp: runs; the others wait for SIPI. */
bool vcpu_initial_write(int fd, const VcpuInitial *v, bool bsp, GError **error);
/* Put the vCPU at @e. LODGE_ERROR_HOST. */
bool vcpu_enter(int fd, const VcpuEntry *e, GError **error);

#endif
