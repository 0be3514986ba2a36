/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a client of the control socket may send, through the scanner, the parser and the commands, of
 * a control without a machine and a screen but with a keyboard. The first byte says whether the
 * client negotiates first, and in what pieces the rest arrives.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "control_internal.h"
#include "replay.h"

#define BYTES_MAX 16384u

static void drain(int fd)
{
    char buf[65536];

    while (recv(fd, buf, sizeof buf, MSG_DONTWAIT) > 0) {
    }
}

static void run(int fd, const uint8_t *data, size_t size, size_t step)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = send(fd, data + at, MIN(step, size - at), MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n > 0)
            at += (size_t)n;
        while (g_main_context_iteration(NULL, FALSE))
            drain(fd);
        if (n < 0)
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char hello[] = "{\"execute\":\"qmp_capabilities\"}";
    g_autoptr(Input) in = input_new();
    ControlConfig config = {.name = "vm", .input = in};
    Control *c = control_open(&config, NULL);
    int ends[2];

    g_assert_true(c && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends));
    c->qmp = qmp_new(c, -1);
    qmp_add_client(c->qmp, ends[0], ends[0]);
    if (size && !(data[0] & 1))
        run(ends[1], (const uint8_t *)hello, sizeof hello - 1, sizeof hello);
    if (size > 1)
        run(ends[1], data + 1, MIN(size - 1, BYTES_MAX), data[0] & 2 ? 1 + data[0] / 4 : SIZE_MAX);
    close(ends[1]);
    while (g_main_context_iteration(NULL, FALSE)) {
    }
    control_close(c);
    return 0;
}
