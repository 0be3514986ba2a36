/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_TEST_NET_OPTIONS_H
#define LODGE_TEST_NET_OPTIONS_H

#include <glib.h>

/* A back end's options: names and values in turn, then NULL; a name that comes again has several
 * values. Copies all; transfer full. */
GHashTable *options(const char *first, ...) G_GNUC_NULL_TERMINATED;

#endif
