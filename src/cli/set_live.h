/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_SET_LIVE_H
#define LODGE_SET_LIVE_H

#include <glib.h>

#include "tree.h"

/**
 * set_live() - Do on a running machine what its new definition says, as far as that goes
 * @name: of a machine that runs
 * @options: names (char *) of the options that are to have their effect, each once
 * @wanted: what the definition compiles to
 * @folder: where its relative paths are looked up
 * Says on standard output of each option what is done now, and what comes with the next start.
 */
void set_live(const char *name, const GPtrArray *options, const Tree *wanted, const char *folder);

#endif
