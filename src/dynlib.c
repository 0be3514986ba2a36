/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Optional libraries, by GModule at first use.
 *
 * A VM needs a decompressor for some tens of milliseconds of its life, and one that boots from the
 * cache needs none; a screen for viewers is asked for by few. What is not linked costs no start-up
 * time and no memory, and what was loaded is
 * unloaded after use (dynlib_keep() is for what cannot be). Callers with few calls declare
 * the prototypes themselves: a soname stands for a frozen ABI, so a build needs no headers.
 */
#include "lodge/dynlib.h"

#include <string.h>

#include <gmodule.h>

#include "lodge/error.h"

struct DynLib {
    GModule *module; /* owned */
    char *soname;    /* owned */
};

DynLib *dynlib_open(const char *soname, const char *package, GError **error)
{
    GModule *module = g_module_open(soname, G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
    if (!module) {
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                   "library %s: cannot be loaded; install the package %s", soname, package);
        return NULL;
    }
    DynLib *lib = g_new0(DynLib, 1);
    lib->module = module;
    lib->soname = g_strdup(soname);
    return lib;
}

void *dynlib_sym(DynLib *lib, const char *symbol, GError **error)
{
    void *address = NULL;
    if (!g_module_symbol(lib->module, symbol, &address) || !address) {
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "library %s: has no function %s", lib->soname,
                   symbol);
        return NULL;
    }
    return address;
}

bool dynlib_syms(DynLib *lib, const DynSym *table, size_t n, void *object, GError **error)
{
    for (size_t i = 0; i < n; i++) {
        void *address = dynlib_sym(lib, table[i].symbol, error);
        if (!address)
            return false;
        memcpy((char *)object + table[i].offset, &address, sizeof address);
    }
    return true;
}

void dynlib_close(DynLib *lib)
{
    if (!lib)
        return;
    g_module_close(lib->module);
    g_free(lib->soname);
    g_free(lib);
}

void dynlib_keep(DynLib *lib)
{
    g_module_make_resident(lib->module);
    dynlib_close(lib);
}
