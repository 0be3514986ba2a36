/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VNC_INTERNAL_H
#define LODGE_VNC_INTERNAL_H

/* Between the server (vnc.c), a client's thread (vnc_client.c) and the library (vnc_lib.c). */

#include <rfb/rfb.h>
#include <sys/socket.h>

#include "lodge/dynlib.h"
#include "lodge/lock.h"

#include "vnc.h"
#include "vnc_addr.h"

/* Rows of the picture start this far apart whatever its size, so that a client that reads while it
 * changes size reads nonsense, but never beyond it. */
#define VNC_STRIDE DISPLAY_WIDTH_MAX /* pixels */
#define VNC_PICTURE_BYTES ((size_t)VNC_STRIDE * DISPLAY_HEIGHT_MAX * sizeof(uint32_t))

#define VNC_FUNCTIONS(X)                                                                           \
    X(rfbGetScreen)                                                                                \
    X(rfbScreenCleanup)                                                                            \
    X(rfbNewFramebuffer)                                                                           \
    X(rfbSetTranslateFunction)                                                                     \
    X(rfbMarkRectAsModified)                                                                       \
    X(rfbNewClient)                                                                                \
    X(rfbCloseClient)                                                                              \
    X(rfbClientConnectionGone)                                                                     \
    X(rfbProcessClientMessage)                                                                     \
    X(rfbUpdateClient)                                                                             \
    X(rfbReadExact)                                                                                \
    X(rfbWriteExact)                                                                               \
    X(rfbCheckPasswordByList)                                                                      \
    X(rfbRegisterProtocolExtension)                                                                \
    X(rfbLogEnable)                                                                                \
    X(webSocketsHasDataInBuffer)

typedef struct VncLib {
    DynLib *dyn; /* owned */
#define VNC_POINTER(name) __typeof__(name) *name;
    VNC_FUNCTIONS(VNC_POINTER)
#undef VNC_POINTER
    const rfbScreenInfo *blank; /* what every client's screen starts as */
} VncLib;

/* The library, loaded at the first call and kept; NULL with LODGE_ERROR_UNSUPPORTED. Transfer none.
 * @extension: the one that this process registers; borrowed, static. */
const VncLib *vnc_lib_load(rfbProtocolExtension *extension, GError **error);
/* Held around what the library does in the state before authentication ended. */
void vnc_lib_greeting_lock(void);
void vnc_lib_greeting_unlock(void);

/* Parts of the picture that changed; what does not fit joins the last. */
#define VNC_DIRTY_MAX 16
typedef struct VncDirty {
    DisplayRect rect[VNC_DIRTY_MAX];
    unsigned n;
} VncDirty;

void vnc_dirty_add(VncDirty *d, const DisplayRect *r);

typedef struct VncClient VncClient;

typedef struct VncWaiting {
    int fd; /* owned */
    bool trusted;
} VncWaiting;

struct Vnc {
    /* Constant after vnc_open(): */
    const VncLib *lib;
    Display *display; /* borrowed */
    Input *input;     /* borrowed */
    char *name;       /* owned, and so the next three */
    char *address;
    VncAddr addr;
    uint32_t *picture; /* VNC_PICTURE_BYTES; written by the server's thread, read by the clients' */
    int listen_fd; /* -1: it listens nowhere */
    int wake_fd;
    GThread *thread;
    bool abs_told; /* we listen to the router */
    /* The server's thread only: */
    bool looking; /* at the display */
    /* Atomic: */
    bool has_abs;
    bool stop;
    /* Guarded by lock: */
    LodgeLock lock; /* LOCK_RANK_QUEUE */
    VncDirty dirty; /* to be fetched from the display */
    bool resized;
    unsigned width, height; /* of the picture */
    GPtrArray *clients;     /* VncClient; owned; changed by the server's thread only */
    GArray *waiting;        /* VncWaiting: connections from vnc_add_client() */
};

/* Start serving @fd, which is taken over. @trusted: asked for no password. Server's thread. */
bool vnc_client_start(Vnc *vnc, int fd, bool trusted, GError **error);
/* From the server's thread, its lock held: news for a client. NULL @dirty: all, for a new size. */
void vnc_client_post_locked(VncClient *c, const VncDirty *dirty);
void vnc_client_wake(VncClient *c);
/* Hang up; the thread ends soon. */
void vnc_client_stop(VncClient *c);
bool vnc_client_done(VncClient *c);
/* Where it comes from; false: it has gone. Any thread. */
bool vnc_client_address(const VncClient *c, struct sockaddr_storage *ret);
/* Waits for the thread. No lock held. */
void vnc_client_free(VncClient *c);
/* A byte for poll() on an eventfd. */
void vnc_wake(int event_fd);

extern rfbProtocolExtension vnc_extension; /* the library links it into its list */

#endif
