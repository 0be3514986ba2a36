/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libnbd, loaded at first use. It stays: it keeps the text of a thread's last error in thread-local
 * storage, whose destructor must still be there when that thread ends.
 */
#include "nbd_lib.h"

#include "lodge/dynlib.h"

static const DynSym wanted[] = {
#define F(type, name, args) {"nbd_" #name, offsetof(NbdLib, name)},
    NBD_LIB_FUNCTIONS(F)
#undef F
};

const NbdLib *nbd_lib(GError **error)
{
    static const NbdLib *loaded; /* main thread only; the library itself is one a process */
    NbdLib *lib;
    DynLib *so;

    if (loaded)
        return loaded;
    so = dynlib_open(NBD_LIB_SONAME, NBD_LIB_PACKAGE, error);
    if (!so)
        return NULL;
    lib = g_new0(NbdLib, 1);
    if (!dynlib_syms(so, wanted, G_N_ELEMENTS(wanted), lib, error)) {
        g_free(lib);
        dynlib_close(so);
        return NULL;
    }
    dynlib_keep(so);
    loaded = lib;
    return lib;
}
