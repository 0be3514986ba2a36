/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest's agent may answer. The first byte says what is asked of it: a command, a file out of
 * the guest, one into it. After that, what it says in each turn at the port, up to a zero byte. Unless
 * the first byte has its highest bit, the synchronisation of a turn has gone well before.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/error.h"

#include "agent_exec.h"
#include "agent_file.h"
#include "agent_port.h"
#include "replay.h"

#define BYTES_MAX 16384u
#define TURNS_MAX 4u
#define SEED 7
#define SECONDS 2

typedef struct Script {
    const uint8_t *at;
    size_t left;
    unsigned turns;
    int64_t number; /* of the last synchronisation */
    bool synced;
    int guest[TURNS_MAX]; /* owned; the guest's ends */
} Script;

static int join(void *opaque, int64_t deadline, GError **error)
{
    Script *s = opaque;
    const uint8_t *end = s->left ? memchr(s->at, 0, s->left) : NULL;
    size_t len = end ? (size_t)(end - s->at) : s->left;
    char head[64] = {AGENT_TURN, 0};
    int pair[2];

    if (s->turns == TURNS_MAX || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        lodge_fail(error, LODGE_ERROR_STATE, "no more turns");
        return -1;
    }
    s->guest[s->turns++] = pair[1];
    s->number++;
    if (s->synced)
        g_snprintf(head + 1, sizeof head - 1, "\xff{\"return\": %" PRIi64 "}\n", s->number);
    g_assert_cmpint(send(pair[1], head, strlen(head), MSG_DONTWAIT), >, 0);
    if (len)
        g_assert_cmpint(send(pair[1], s->at, len, MSG_DONTWAIT), ==, (ssize_t)len);
    shutdown(pair[1], SHUT_WR);
    s->at += len + (end ? 1 : 0);
    s->left -= len + (end ? 1 : 0);
    return pair[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const words[] = {"true", NULL};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), from = open("/dev/null", O_RDONLY | O_CLOEXEC);
    Script s = {.at = data + 1, .left = size ? MIN(size - 1, BYTES_MAX) : 0,
                .synced = size && !(data[0] & 0x80)};
    AgentCommand c = {.argv = words, .in_fd = size && data[0] & 0x40 ? from : -1, .out_fd = null,
                      .err_fd = null,
                      .deadline = g_get_monotonic_time() + SECONDS * G_TIME_SPAN_SECOND};
    AgentCopy copy = {0};
    AgentEnd end;
    unsigned mode;

    g_random_set_seed(SEED); /* so that the agent's numbers are known */
    s.number = g_random_int_range(1, AGENT_NUMBERS);
    g_random_set_seed(SEED);
    Agent *a = agent_new("vm", join, NULL, &s, NULL);
    g_assert_nonnull(a);
    switch (size ? data[0] & 3 : 0) {
    case 0:
    case 1:
        agent_exec(a, &c, &end, NULL);
        break;
    case 2:
        agent_get_file(a, "/x", null, &mode, &copy, NULL);
        break;
    default:
        agent_put_file(a, from, "/x", "x", 0600, &copy, NULL);
    }
    agent_free(a);
    while (s.turns)
        close(s.guest[--s.turns]);
    close(from);
    close(null);
    return 0;
}
