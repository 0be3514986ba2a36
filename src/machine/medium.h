/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MEDIUM_H
#define LODGE_MEDIUM_H

#include <stdbool.h>

#include <glib.h>

#include "lodge/block.h"

/**
 * medium_check() - Refuse a disc or floppy disk whose file system goes on behind the image's end
 * @kind: DeviceClass.boot of the drive: 'd' and 'a' are looked at, others are not
 * @file: what @node was opened from, for the message
 * Context: main thread; reads @node and waits for it.
 * Return: false with LODGE_ERROR_CONFIG. What cannot be read or is no known file system is left to
 *         the guest.
 */
bool medium_check(char kind, BlkNode *node, const char *file, GError **error);

#endif
