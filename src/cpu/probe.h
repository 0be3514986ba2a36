/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_PROBE_H
#define LODGE_PROBE_H

/* What a host's KVM can do, found out in a machine that is thrown away. */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

/* Iterations of a two-instruction loop in a second. */
typedef struct ProbeRates {
    uint64_t ring0, ring3;
} ProbeRates;

/* Ring 0 slower than ring 3 by more than this: the host emulates guest kernel mode. Measuring
 * noise and real hardware stay within a factor of 2. */
#define PROBE_EMULATED_FACTOR 20

/**
 * probe_rates() - Measure the same loop in ring 0 and in ring 3
 * @kvm_fd: of /dev/kvm, borrowed
 * Context: any thread; uses SIGRTMIN on it meanwhile. Takes at most a quarter of a second: a timer
 *          ends each loop, finished or not. Makes a machine with 24 KiB and one vCPU, and frees it.
 * Return: false: LODGE_ERROR_HOST (an ioctl failed; names it), LODGE_ERROR_UNSUPPORTED (the CPU
 *         stopped; says how).
 */
bool probe_rates(int kvm_fd, ProbeRates *ret_rates, GError **error);
/* Whether the rates mean that ring 0 is emulated. */
bool probe_is_emulated(const ProbeRates *r);

#endif
