/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CPUID_H
#define LODGE_CPUID_H

#include <stdbool.h>

#include <glib.h>
#include <linux/kvm.h>

typedef struct Kvm Kvm;

typedef struct CpuidPolicy {
    unsigned index, cpus; /* this vCPU of how many */
    bool nested;          /* show VT-x or AMD-V */
} CpuidPolicy;

/**
 * cpuid_build() - The CPUID table of one vCPU: what KVM supports, shaped by the policy table
 * Return: transfer full (g_free), or NULL with LODGE_ERROR_HOST.
 */
struct kvm_cpuid2 *cpuid_build(const Kvm *k, const CpuidPolicy *p, GError **error);

#endif
