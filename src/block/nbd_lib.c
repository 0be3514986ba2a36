/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libnbd, loaded at first use; who uses it has a table of its functions. It stays: it keeps the
 * text of a thread's last error in thread-local storage, whose destructor must still be there when
 * that thread ends.
 */
#include "nbd_lib.h"

#include "lodge/dynlib.h"

static const DynSym wanted[] = {
#define F(type, name, args) {"nbd_" #name, offsetof(NbdLib, name)},
    NBD_LIB_FUNCTIONS(F)
#undef F
};

NbdLib *nbd_lib_new(GError **error)
{
    DynLib *so = dynlib_open(NBD_LIB_SONAME, NBD_LIB_PACKAGE, error);
    NbdLib *lib;

    if (!so)
        return NULL;
    lib = g_new0(NbdLib, 1);
    lib->refs = 1;
    if (!dynlib_syms(so, wanted, G_N_ELEMENTS(wanted), lib, error)) {
        g_free(lib);
        dynlib_close(so);
        return NULL;
    }
    dynlib_keep(so);
    return lib;
}

NbdLib *nbd_lib_ref(NbdLib *lib)
{
    g_atomic_int_inc(&lib->refs);
    return lib;
}

void nbd_lib_unref(NbdLib *lib)
{
    if (lib && g_atomic_int_dec_and_test(&lib->refs))
        g_free(lib);
}
