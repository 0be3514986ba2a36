/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libvncserver, loaded when the first server opens.
 *
 * The library has state of the whole process: a list of protocol extensions, a list of security
 * types that each greeting edits without a lock, and a mutex that each new screen initialises
 * again. So it is loaded once and stays, one screen is made by it and copied for each client, and
 * greetings take turns. That is why this file has variables.
 */
#include "lodge/dynlib.h"
#include "lodge/error.h"

#include "vnc_internal.h"

#define VNC_SONAME "libvncserver.so.1"
#define VNC_PACKAGE "libvncserver1"
#define VNC_DEPTH 8, 3, 4 /* bits a sample, samples, bytes a pixel */
#define VNC_BLANK 640, 480

static GMutex load_lock, greeting_lock;
static VncLib library;

static bool load(VncLib *lib, rfbProtocolExtension *extension, GError **error)
{
    DynLib *dyn = dynlib_open(VNC_SONAME, VNC_PACKAGE, error);

    if (!dyn)
        return false;
#define VNC_LOAD(name)                                                                             \
    lib->name = (__typeof__(lib->name))dynlib_sym(dyn, #name, error);                              \
    if (!lib->name) {                                                                              \
        dynlib_close(dyn);                                                                         \
        return false;                                                                              \
    }
    VNC_FUNCTIONS(VNC_LOAD)
#undef VNC_LOAD
    lib->rfbLogEnable(FALSE);
    rfbScreenInfo *blank = lib->rfbGetScreen(NULL, NULL, VNC_BLANK, VNC_DEPTH);
    if (!blank) {
        dynlib_close(dyn);
        return lodge_fail(error, LODGE_ERROR_HOST, "%s: cannot make a screen", VNC_SONAME);
    }
    lib->rfbRegisterProtocolExtension(extension);
    lib->blank = blank; /* with this the library is never unloaded: its lists point to us */
    return true;
}

const VncLib *vnc_lib_load(rfbProtocolExtension *extension, GError **error)
{
    VncLib fresh = {0};

    g_mutex_lock(&load_lock);
    if (!library.blank && load(&fresh, extension, error))
        library = fresh;
    g_mutex_unlock(&load_lock);
    return library.blank ? &library : NULL;
}

void vnc_lib_greeting_lock(void)
{
    g_mutex_lock(&greeting_lock);
}

void vnc_lib_greeting_unlock(void)
{
    g_mutex_unlock(&greeting_lock);
}
