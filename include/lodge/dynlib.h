/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_DYNLIB_H
#define LODGE_DYNLIB_H

#include <stdbool.h>

#include <glib.h>

typedef struct DynLib DynLib; /* a shared library loaded for a while */

/**
 * dynlib_open() - Load a shared library that Lodge does without until now
 * @soname:  exact name with its ABI number, "libzstd.so.1"
 * @package: the Debian and Ubuntu package that brings it, for the message
 * Context: any thread. Return: transfer full; NULL with LODGE_ERROR_UNSUPPORTED that names the
 *          package to install.
 */
DynLib *dynlib_open(const char *soname, const char *package, GError **error);
/* Address of @symbol, or NULL with LODGE_ERROR_UNSUPPORTED. Valid until dynlib_close(). */
void *dynlib_sym(DynLib *lib, const char *symbol, GError **error);

/* A function of a library, and where its address goes in an object. */
typedef struct DynSym {
    const char *symbol;
    size_t offset;
} DynSym;

/* The addresses of all @n of @table into @object; false with LODGE_ERROR_UNSUPPORTED at the first
 * one that is missing. */
bool dynlib_syms(DynLib *lib, const DynSym *table, size_t n, void *object, GError **error);
/* Unload it: a VM keeps no library that it used only to start. NULL is fine. */
void dynlib_close(DynLib *lib);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(DynLib, dynlib_close)
/* Frees @lib but leaves the library loaded for good: one that registers types of GObject cannot be
 * unloaded. */
void dynlib_keep(DynLib *lib);

#endif
