/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_AGENT_FILE_H
#define LODGE_AGENT_FILE_H

/* Single files into and out of a guest, by its agent. */

#include "agent.h"

typedef struct AgentCopy {
    /* How far it is; @all: 0 where nobody knows. NULL: nobody wants to know. */
    void (*tell)(void *opaque, uint64_t done, uint64_t all);
    /* Whether to give up. NULL: never. */
    int (*stop)(void *opaque);
    void *opaque;
} AgentCopy;

/**
 * agent_put_file() - Write a file in the guest
 * @fd:   read from where it stands to its end
 * @path: absolute; a folder: the file is put there
 * @name: in that case
 * @mode: its permissions
 * The file is whole when it gets its name. What is there and is no file, a device, is written to.
 * Return: false with LODGE_ERROR_HOST (the guest refuses, or it was stopped), or the errors of
 *         agent_reach().
 */
bool agent_put_file(Agent *a, int fd, const char *path, const char *name, unsigned mode,
                    const AgentCopy *c, GError **error);
/* Read the guest's file @path into @fd; blocks of zeros become holes where @fd has none. Errors as
 * above. */
bool agent_get_file(Agent *a, const char *path, int fd, unsigned *ret_mode, const AgentCopy *c,
                    GError **error);

#endif
