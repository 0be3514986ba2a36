/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_KVM_H
#define LODGE_KVM_H

#include <linux/kvm.h>

#include "lodge/device.h"

typedef struct Kvm Kvm;

/**
 * kvm_open() - Open /dev/kvm and make a virtual machine with a split irqchip
 * Context: main thread.
 * Return:  transfer full, or NULL: LODGE_ERROR_NO_KVM says whether the device is missing,
 *          forbidden or too old, and what to do.
 */
Kvm *kvm_open(GError **error);
void kvm_free(Kvm *k); /* after the vCPUs; NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Kvm, kvm_free)

/* Become the listener of the board's memory, and the hooks of its buses and interrupts. The board
 * outlives @k. LODGE_ERROR_HOST. */
bool kvm_attach(Kvm *k, Board *board, GError **error);
/* Let interrupts from the PIC reach @kick(@opaque): the machine kicks vCPU 0. */
void kvm_set_extint_kick(Kvm *k, void (*kick)(void *opaque), void *opaque);

/* The mapping of vCPU 0, kvm_run_size() bytes, in which KVM gathers writes; it outlives the last
 * call of kvm_settle(). NULL: it goes. */
void kvm_set_run_pages(Kvm *k, void *run);
/* Hand writes that KVM has gathered to their regions; cheap when there are none. vCPU threads, no
 * lock held; others call bus_settle(). */
void kvm_settle(Kvm *k);

int kvm_fd(const Kvm *k);    /* of the VM */
int kvm_sys_fd(const Kvm *k); /* of /dev/kvm */
size_t kvm_run_size(const Kvm *k);
/* KVM_CHECK_EXTENSION on the VM; 0: not there. */
int kvm_cap(const Kvm *k, int cap);
unsigned kvm_max_vcpus(const Kvm *k);

/* Bring pending route changes to the kernel; cheap when there are none. vCPU threads, before
 * KVM_RUN. */
void kvm_sync_routes(Kvm *k);
/* Guest clock (kvmclock) round a pause. Main thread, vCPUs parked. */
void kvm_clock_save(Kvm *k);
void kvm_clock_restore(Kvm *k);

#endif
