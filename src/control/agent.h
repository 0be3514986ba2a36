/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_AGENT_H
#define LODGE_AGENT_H

/*
 * A client of the QEMU guest agent, for a tool that asks something and waits. Blocking, with
 * deadlines; no main loop.
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "json_in.h"

typedef struct Agent Agent;

#define AGENT_NUMBERS 0x3fffffff /* its synchronisations have random numbers below that, and on */
#define AGENT_PIECE 262144u /* bytes of a file at a time; as base64 less than JSON_SCAN_BYTES */

/* Ask for a turn at the port: the descriptor of a stream on which AGENT_TURN comes first, transfer
 * full; -1 with the error. */
typedef int (*AgentJoinFn)(void *opaque, int64_t deadline, GError **error);

/* Have @request sent to the agent once the descriptor that is returned, transfer full, is closed
 * before a byte was written there; -1: nobody does that. */
typedef int (*AgentWillFn)(void *opaque, const char *request);

/**
 * agent_new() - Speak with the guest agent of a machine
 * @name: of the machine, for messages; copied
 * @join: called for each turn
 * @will: NULL: nobody carries one out
 * Return: transfer full; NULL with LODGE_ERROR_UNSUPPORTED: the JSON library is missing.
 */
Agent *agent_new(const char *name, AgentJoinFn join, AgentWillFn will, void *opaque,
                 GError **error);

/* Somebody else who does what an agent does, for agent_new_other(). */
typedef struct AgentOther {
    bool (*reach)(void *opaque, int64_t deadline, GError **error);
    /* The answer to a request as JSON text with "return" in it, transfer full; NULL with the
     * error. */
    char *(*call)(void *opaque, Jv request, GError **error);
    void (*free)(void *opaque);
} AgentOther;
/* As agent_new(); @opaque is taken over, also on failure. */
Agent *agent_new_other(const char *name, const AgentOther *other, void *opaque, GError **error);
void agent_free(Agent *a); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Agent, agent_free)
const char *agent_name(const Agent *a);

/**
 * agent_reach() - Have the port, with an agent that listens behind it
 * Where we do not have it, waits for our turn and synchronises: what was said before is forgotten.
 * @deadline: g_get_monotonic_time() at which to give up
 * Return: false with LODGE_ERROR_BUSY: no turn, or no answer in time; LODGE_ERROR_STATE: the
 *         connection ended; or the error of joining.
 */
bool agent_reach(Agent *a, int64_t deadline, GError **error);
/* Whether the port was ours in the last agent_reach(), so that it was the agent that did not
 * answer. */
bool agent_had_turn(const Agent *a);
/* Let others have the port until our next call. */
void agent_rest(Agent *a);

/* Start a command: transfer full, a writer inside its "arguments", for agent_call(). */
JsonOut *agent_begin(const char *command);
/**
 * agent_call() - Reach the agent, send a command and wait for its answer
 * @request: from agent_begin(), taken over
 * Return: what stands under "return", valid until the next call; node NULL with the errors of
 *         agent_reach(), or LODGE_ERROR_HOST: the agent refuses, or its answer is none.
 */
Jv agent_call(Agent *a, JsonOut *request, int64_t deadline, GError **error);

/* Leave a request (see agent_begin(); taken over) for the agent, if we are killed before
 * agent_void_will(). Return: the descriptor that holds it, owned; -1: it cannot be left. */
int agent_leave_will(Agent *a, JsonOut *request);
void agent_void_will(int will); /* closes it; -1 is fine */

/* A deadline for a call that an agent answers at once. */
int64_t agent_soon(void);

/* Files of the guest, by handles of the agent; agent_soon() is the deadline of each. */
int64_t agent_file_open(Agent *a, const char *path, const char *mode, GError **error); /* or -1 */
/* What the guest could not write before is an error now. */
bool agent_file_close(Agent *a, int64_t handle, GError **error);
bool agent_file_write(Agent *a, int64_t handle, const void *data, size_t len, GError **error);
/* The next AGENT_PIECE at most; @ret_data: transfer full, NULL with a length of 0 at the end. */
bool agent_file_read(Agent *a, int64_t handle, uint8_t **ret_data, size_t *ret_len, GError **error);

/* Bytes that an answer holds as base64: transfer full, NULL: there are none. */
uint8_t *agent_take_bytes(Jv text, size_t *ret_len);

#endif
