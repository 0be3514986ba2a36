/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FIRMWARE_PATH_H
#define LODGE_FIRMWARE_PATH_H

/* Firmware images and option ROMs, which distributions install in folders of their own. */

#include <stddef.h>

#include <glib.h>

#define FIRMWARE_MAX (16u << 20) /* bytes: the most that a file may have */
#define FIRMWARE_BIOS "bios-256k.bin"
#define FIRMWARE_VGA "vgabios-stdvga.bin"

/**
 * firmware_find() - Where the firmware file @name is
 * @name: with a '/' it is a path and taken as it stands; else it is looked for where distributions
 *        install firmware, then in the working directory
 * Context: any thread. Opens nothing.
 * Return:  its path, transfer full, or NULL: LODGE_ERROR_CONFIG names the file and, where it is
 *          known, the package that has it.
 */
char *firmware_find(const char *name, GError **error);

/**
 * firmware_read() - Read the whole of firmware file @name
 * @name: as for firmware_find()
 * @unit: its size must be a multiple of this, bytes; 1: any size
 * Context: any thread; reads from a disk.
 * Return:  transfer full, 1 to FIRMWARE_MAX bytes, or NULL: LODGE_ERROR_CONFIG (not there, not a
 *          regular file, empty, too large, no multiple of @unit), LODGE_ERROR_HOST (cannot be
 *          read).
 */
GBytes *firmware_read(const char *name, size_t unit, GError **error);

#endif
