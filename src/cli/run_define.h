/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_RUN_DEFINE_H
#define LODGE_RUN_DEFINE_H

#include "definition.h"
#include "options.h"
#include "tree.h"
#include "verb_run.h"

/* What a line of options defines, with the current folder; transfer full, NULL with
 * LODGE_ERROR_HOST. */
Definition *define_from(const Options *o, GError **error);
/* Compile @d as machine @name; see run_compile(). */
Tree *define_compile(const char *name, const Definition *d, RunOptions *ret, GError **error);

/* Keep @d as the definition of @name, whether that runs or not. */
bool define_store(const char *name, const Definition *d, GError **error);

/**
 * run_resolve() - Turn a command line into a machine description, through definitions
 * @argc, @argv: as for run_compile()
 * A NAME without options for the machine stands for its definition; this process then goes to the
 * folder of that. @ret: also says what is to be kept once the machine runs.
 * Return: as run_compile(); LODGE_ERROR_NOT_FOUND: there is no such definition.
 */
Tree *run_resolve(int argc, char **argv, RunOptions *ret, GError **error);

#endif
