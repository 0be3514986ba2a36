/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_AGENT_PORT_H
#define LODGE_AGENT_PORT_H

/*
 * The machine's side of the guest agent's port: one stream, which clients have in turns. A client
 * owns the port from the byte AGENT_TURN, which it is sent, until it closes its end. What it says
 * and hears in between is not looked at here.
 */

#include <stdbool.h>

#include <glib.h>

#define AGENT_PORT_NAME "org.qemu.guest_agent.0" /* where qemu-ga looks in a guest */
#define AGENT_TURN '\n' /* the first byte that a client gets: the port is its own now */

typedef struct AgentPort AgentPort;

/* @fd: a stream socket that does not block, to the guest's port; taken over. Main thread. */
AgentPort *agent_port_new(int fd);
void agent_port_free(AgentPort *p); /* clients see their connection end; NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(AgentPort, agent_port_free)

/**
 * agent_port_add() - Let the client at the other end of @fd have a turn
 * @p:  NULL: the machine has no such port
 * @fd: a connected stream socket, taken over, also on failure
 * Return: false with LODGE_ERROR_STATE (no port), LODGE_ERROR_LIMIT (too many wait).
 */
bool agent_port_add(AgentPort *p, int fd, GError **error);

#define AGENT_WILL_BYTES_MAX 4096u
/**
 * agent_port_add_will() - Have @request sent to the agent when a client is gone
 * @p:       NULL: the machine has no such port
 * @fd:      a connected stream socket, taken over, also on failure: the client holds the other end,
 *           and is gone when that is closed before a byte came from it
 * @request: to the agent, one line; nobody hears its answer
 * It is sent when the port is nobody's.
 * Return: false with LODGE_ERROR_STATE (no port), LODGE_ERROR_LIMIT (too long, or too many).
 */
bool agent_port_add_will(AgentPort *p, int fd, const char *request, GError **error);

#endif
