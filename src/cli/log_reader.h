/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_LOG_READER_H
#define LODGE_LOG_READER_H

/* Reads a console log that grows, through its rotations. */

#include <stdbool.h>

#include <glib.h>

#include "registry.h"

typedef struct LogReader LogReader;

/* The log of @l, from its start on. Transfer full; NULL with LODGE_ERROR_NOT_FOUND: it has none. */
LogReader *log_reader_open(const MachineLook *l, GError **error);
void log_reader_free(LogReader *r); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(LogReader, log_reader_free)
/* Append some of what is there now to @out. Return: false: there is nothing new. */
bool log_reader_take(LogReader *r, GString *out);

#endif
