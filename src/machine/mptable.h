/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MPTABLE_H
#define LODGE_MPTABLE_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/mem.h"

#define MPTABLE_CPUS_MAX 254 /* 8-bit APIC IDs; 255 means all */

/**
 * mptable_build() - Make the MP floating pointer and, behind it, the configuration table
 * @cpus: APIC IDs 0 to @cpus - 1; the first one boots
 * @at:   where the bytes will lie: a multiple of 16, below 1 MiB
 * @ret:  appended to (empty on entry)
 * Context: any thread. Return: false where this many CPUs, or @at, cannot be told in such a table;
 *          a kernel without ACPI then runs on one CPU.
 */
bool mptable_build(unsigned cpus, gpa_t at, GByteArray *ret);

#endif
