/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_TEST_RAN_H
#define LODGE_TEST_RAN_H

/* A line of shell that a guest runs, and all that it said. */

#include <fcntl.h>
#include <unistd.h>

#include <glib.h>

#include "agent_exec.h"

typedef struct Ran {
    AgentEnd end;
    char *out, *err; /* owned */
    gsize out_len;
    GError *error;
} Ran;

static void ran_clear(Ran *r)
{
    g_free(r->out);
    g_free(r->err);
    g_clear_error(&r->error);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Ran, ran_clear)

/**
 * ran_line() - Run @line, or what @c says, to its end
 * @c:   what is zero is the usual: no input, streams into files of @dir, an end after @seconds
 * Return: owned; of a stream that @c sends elsewhere, nothing.
 */
static inline Ran ran_line(Agent *a, const char *dir, AgentCommand c, int64_t seconds,
                           const char *line)
{
    Ran r = {0};
    const char *argv[] = {"sh", "-c", line, NULL};
    g_autofree char *out = g_build_filename(dir, "out", NULL);
    g_autofree char *err = g_build_filename(dir, "err", NULL);
    if (!c.argv)
        c.argv = argv;
    if (!c.in_fd)
        c.in_fd = -1;
    bool ours = !c.out_fd;
    if (ours)
        c.out_fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    c.err_fd = open(err, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (!c.deadline)
        c.deadline = g_get_monotonic_time() + seconds * G_TIME_SPAN_SECOND;
    agent_exec(a, &c, &r.end, &r.error);
    close(c.out_fd);
    close(c.err_fd);
    if (ours)
        g_assert_true(g_file_get_contents(out, &r.out, &r.out_len, NULL));
    else
        r.out = g_strdup("");
    g_assert_true(g_file_get_contents(err, &r.err, NULL, NULL));
    return r;
}

#endif
