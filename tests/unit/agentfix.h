/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_AGENTFIX_H
#define LODGE_AGENTFIX_H

#include "agent.h"
#include "agent_port.h"

#define SECONDS(n) (g_get_monotonic_time() + (n) * G_TIME_SPAN_SECOND)

/* A port of the guest agent with its loop, and clients. */
typedef struct AgentFix {
    GThread *loop_thread;
    GMainLoop *loop;
    AgentPort *port;  /* the loop's thread */
    int will; /* the client's end of the last one that was left; the client's */
} AgentFix;

/* @fd: the machine's end of the port, taken over. */
void agent_fix_open(AgentFix *f, int fd);
/* Free the port while the loop goes on, and have another one. */
void agent_fix_free_port(AgentFix *f);
void agent_fix_add_port(AgentFix *f, int fd);
void agent_fix_close(AgentFix *f);
/* Call @fn where the port lives, and come back when it has. */
void agent_fix_call(AgentFix *f, void (*fn)(void *opaque), void *opaque);
/* A connection to the port, as AgentJoin has it; @opaque: the AgentFix. */
int agent_fix_join(void *opaque, int64_t deadline, GError **error);
/* As AgentWillFn has it, with the error; @opaque: the AgentFix. */
int agent_fix_add_will(void *opaque, const char *request, GError **error);
/* A client of it, which leaves wills; transfer full. */
Agent *agent_fix_client(AgentFix *f);

#endif
