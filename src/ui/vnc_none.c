/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The VNC server of a build without libvncserver: it says so. */
#include <unistd.h>

#include "lodge/error.h"

#include "vnc.h"

static bool refuse(GError **error)
{
    return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                      "vnc: this build is without it; install libvncserver-dev and build again");
}

Vnc *vnc_open(const char *spec, const VncConfig *config, GError **error)
{
    (void)refuse(error);
    return NULL;
}

void vnc_close(Vnc *vnc)
{
}

const char *vnc_describe(const Vnc *vnc)
{
    return "";
}

bool vnc_has_password(const Vnc *vnc)
{
    return false;
}

unsigned vnc_list_clients(Vnc *vnc, struct sockaddr_storage *ret, unsigned max)
{
    return 0;
}

bool vnc_add_client(Vnc *vnc, int fd, bool skip_auth, GError **error)
{
    close(fd);
    return refuse(error);
}
