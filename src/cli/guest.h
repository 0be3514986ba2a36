/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_GUEST_H
#define LODGE_GUEST_H

/* What the verbs share that reach into a guest by its agent. */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "agent.h"
#include "agent_exec.h"

#define GUEST_REACH_SECONDS 15 /* for the agent of a machine that runs to answer */

/* The agent of the running machine @name, which outlives it; transfer full, NULL with the error.
 * Nothing was said to it yet. */
Agent *guest_agent(const char *name, GError **error);
/* Wait until it answers. Return: false: not before @deadline, or the machine is not there. */
bool guest_reach(Agent *a, int64_t deadline, GError **error);
/* Whether machine @name is paused: then that is the error, LODGE_ERROR_BUSY. */
bool guest_paused(const char *name, GError **error);
/* Run @c there: 0 to 255, the process's exit status by the rules of exec; errors are told.
 * @what: the verb. */
int guest_run(Agent *a, const AgentCommand *c, const char *what);
/* Tell why the guest of machine @name cannot be reached, or not any more; the status for that. */
int guest_fail(const char *name, const GError *why, int64_t deadline, const char *what);
/* SIGINT, SIGTERM and SIGHUP are noted from here on, and SIGPIPE is ignored. */
void guest_catch_signals(void);
/* The signal that came first; 0: none. An AgentCommand's stop(). */
int guest_signal(void *opaque);
/* Standard input as a command's: -1 where there is nothing to read. */
int guest_input(void);

#endif
