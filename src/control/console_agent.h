/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CONSOLE_AGENT_H
#define LODGE_CONSOLE_AGENT_H

/* What a guest agent does, by a shell behind the guest's console: for guests without the agent. */

#include "agent.h"
#include "console_shell.h"

/**
 * console_agent_new() - An Agent whose calls a shell answers
 * @s: taken over, also on failure
 * It knows what agent_exec.c and agent_file.c ask for. It keeps the console between two calls; who
 * is to log in cannot be changed, so an AgentCommand's user is NULL. agent_reach()'s errors are
 * those of console_shell_reach().
 */
Agent *console_agent_new(ConsoleShell *s, GError **error);

#endif
