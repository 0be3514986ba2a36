/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_GUEST_WAY_H
#define LODGE_GUEST_WAY_H

/* Which way a verb reaches into a guest: by its agent, or by a login on its console. */

#include <stdbool.h>

#include <glib.h>

#include "agent.h"
#include "options.h"

#define OPT_VIA(flags) \
    {"via", 0, "auto|agent|console", \
     "By the QEMU guest agent, or by a login on the guest's console; by the agent where one " \
     "answers, else by the console, where it shows a login prompt (auto). With console, a shell " \
     "where somebody is logged in already is used, too.", \
     NULL, flags}
#define OPT_PASSWORD_FILE(flags) \
    {"password-file", 0, "FILE", \
     "The first line is the password for a login on the console; without it, there is none.", \
     NULL, flags}

typedef struct GuestWay {
    bool agent, console;  /* which may be tried */
    char *user, *password; /* owned; NULL: not said */
    bool by_console;      /* how the guest was reached at last */
    const char *name;     /* of that machine; borrowed */
} GuestWay;

void guest_way_clear(GuestWay *w);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(GuestWay, guest_way_clear)
/* From --via, --user and --password-file. @ret is zeros before, and to be cleared in any case.
 * LODGE_ERROR_CONFIG. */
bool guest_way_read(const Options *o, GuestWay *ret, GError **error);

/**
 * guest_reach_by() - Have something in the running machine @name that does what an agent does
 * @name, @w: outlive what is returned
 * @deadline: to give up at
 * @stop:     whether to give up at once, with LODGE_ERROR_BUSY; NULL: never
 * Return: transfer full, it answers; NULL with LODGE_ERROR_BUSY (nobody in time),
 *         LODGE_ERROR_CONFIG (the login is refused), or other errors of agent_reach() and
 *         console_shell_reach().
 */
Agent *guest_reach_by(const char *name, GuestWay *w, int64_t deadline, bool (*stop)(void *opaque),
                      void *opaque, GError **error);
/* Whom an AgentCommand's user is to be, now that the guest is reached; NULL: who we are there. */
const char *guest_way_user(const GuestWay *w);

#endif
