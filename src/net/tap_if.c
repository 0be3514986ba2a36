/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Taps of the host (Linux, Documentation/networking/tuntap.rst and linux/if_tun.h). No state. */
#include "tap_if.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/if_tun.h>
#include <linux/sockios.h>

#include "lodge/error.h"

#define TUN_PATH "/dev/net/tun"
#define NEXT_FREE "tap%d"
#define TAP_FLAGS (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)

static struct ifreq request(const char *name, short flags)
{
    struct ifreq r = {.ifr_flags = flags};

    g_strlcpy(r.ifr_name, name, sizeof r.ifr_name);
    return r;
}

bool tap_if_name_check(const char *name, GError **error)
{
    if (*name && strlen(name) < IFNAMSIZ && !strpbrk(name, "/:% \t"))
        return true;
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "tap \"%s\": no name for an interface; it has 1 to %d characters, none of "
                      "them / : %% or a blank",
                      name, IFNAMSIZ - 1);
}

/* Whether it is a tap that has several queues where we want one, or the other way round. */
static bool is_other_kind(const char *name, unsigned queues)
{
    struct ifreq r = request(name, (short)(TAP_FLAGS | (queues > 1 ? 0 : IFF_MULTI_QUEUE)));
    int fd = open(TUN_PATH, O_RDWR | O_CLOEXEC);
    bool is = fd >= 0 && (ioctl(fd, TUNSETIFF, &r) == 0 || errno == EBUSY);

    if (fd >= 0)
        close(fd);
    return is;
}

static void refuse(const char *name, unsigned queues, int err, GError **error)
{
    const char *many = queues > 1 ? " multi_queue" : "";
    bool other = err == EINVAL && is_other_kind(name, queues);

    if (!strcmp(name, NEXT_FREE))
        name = "tap0";
    if (err == EPERM || err == EACCES)
        lodge_fail(error, LODGE_ERROR_HOST,
                   "tap \"%s\": no right to it; make one of your own: sudo ip tuntap add %s mode "
                   "tap%s user $USER && sudo ip link set %s up",
                   name, name, many, name);
    else if (err == EBUSY)
        lodge_fail(error, LODGE_ERROR_BUSY, "tap \"%s\": another program has it; take another one",
                   name);
    else if (other && *many)
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "tap \"%s\": is there and has one queue; leave out queues, or make it again: "
                   "sudo ip link delete %s && sudo ip tuntap add %s mode tap multi_queue user "
                   "$USER && sudo ip link set %s up",
                   name, name, name, name);
    else if (other)
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "tap \"%s\": is there and is no tap of one queue; take another name%s", name,
                   queues ? ", or queues=2" : "");
    else if (err == EINVAL)
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "tap \"%s\": is there and is no tap; take another name", name);
    else
        lodge_fail_errno(error, err, "tap \"%s\": cannot attach", name);
}

int tap_if_open(const char *name, unsigned queues, char ret_name[IFNAMSIZ], GError **error)
{
    struct ifreq r = request(name, (short)(TAP_FLAGS | (queues > 1 ? IFF_MULTI_QUEUE : 0)));

    if (strcmp(name, NEXT_FREE) && !tap_if_name_check(name, error))
        return -1;
    int fd = open(TUN_PATH, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
        lodge_fail(error, LODGE_ERROR_HOST,
                   "tap: this host has no " TUN_PATH "; load it: sudo modprobe tun");
    else if (fd < 0)
        lodge_fail_errno(error, errno, "tap: cannot open " TUN_PATH);
    if (fd < 0)
        return -1;
    if (ioctl(fd, TUNSETIFF, &r) < 0) {
        refuse(name, queues, errno, error);
        close(fd);
        return -1;
    }
    g_strlcpy(ret_name, r.ifr_name, IFNAMSIZ);
    return fd;
}

int tap_if_socket(void)
{
    return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

bool tap_if_up(const char *name)
{
    struct ifreq r = request(name, 0);
    int s = tap_if_socket();
    bool up = true;

    if (s >= 0 && ioctl(s, SIOCGIFFLAGS, &r) == 0 && !(r.ifr_flags & IFF_UP)) {
        r.ifr_flags |= IFF_UP;
        up = ioctl(s, SIOCSIFFLAGS, &r) == 0;
    }
    if (s >= 0)
        close(s);
    return up;
}
