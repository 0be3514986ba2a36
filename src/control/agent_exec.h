/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_AGENT_EXEC_H
#define LODGE_AGENT_EXEC_H

/* Commands in the guest, by its agent and its /bin/sh. */

#include "agent.h"

typedef struct AgentCommand {
    const char *const *argv;        /* NULL ends it; never empty */
    const char *user, *cwd;   /* NULL: the agent's */
    const char *const *env;   /* KEY=VALUE; NULL ends it; NULL: none */
    int in_fd;                /* read to its end; -1: the command reads nothing */
    int out_fd, err_fd;       /* written as the output comes */
    int64_t deadline;         /* g_get_monotonic_time() at which it is ended */
    /* The signal that is to end it, 0: none yet; it is looked at often. NULL: there is none. */
    int (*stop)(void *opaque);
    void *opaque;
} AgentCommand;

typedef struct AgentEnd {
    int status;     /* as a shell has it: 126, 127, 128 + signal */
    bool timed_out; /* it was ended at the deadline */
    int stopped;    /* it was ended by stop(), or by SIGPIPE: nobody takes its output; else 0 */
} AgentEnd;

bool agent_is_user(const char *name); /* the name of one, without meaning to a shell */
/* Whether agent_exec() can take @c. Return: false with LODGE_ERROR_CONFIG: a word is no UTF-8, all
 * of them are too long, a variable or the user's name is none. */
bool agent_command_check(const AgentCommand *c, GError **error);
/**
 * agent_exec() - Run a command in the guest to its end
 * Return: false with an error where it was not run, or nobody knows how it ended: LODGE_ERROR_BUSY
 *         (no agent answers), LODGE_ERROR_STATE (the connection ended), LODGE_ERROR_HOST.
 */
bool agent_exec(Agent *a, const AgentCommand *c, AgentEnd *ret, GError **error);

typedef struct AgentOutput {
    int status;        /* as AgentEnd has it */
    char *out, *err;   /* owned, NUL-terminated; never NULL */
} AgentOutput;
void agent_output_clear(AgentOutput *o);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(AgentOutput, agent_output_clear)
/* Run a few lines of shell with @args (NULL ends them) as $1 and so on, and take the little that
 * they print. Errors as of agent_exec(). */
bool agent_shell(Agent *a, const char *script, const char *const *args, int64_t deadline,
                 AgentOutput *ret, GError **error);

#endif
