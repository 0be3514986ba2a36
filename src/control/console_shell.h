/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CONSOLE_SHELL_H
#define LODGE_CONSOLE_SHELL_H

/*
 * A shell of the guest behind its console, for a tool that asks something and waits: logs in, has
 * lines of shell run with their answers whole and unmixed, and logs out. Blocking, with deadlines.
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

typedef struct ConsoleShell ConsoleShell;

#define CONSOLE_PIECE 8192u /* bytes of output that one call may have */

typedef struct ConsoleLogin {
    const char *user;     /* NULL: root; copied */
    const char *password; /* NULL: there is none; copied */
    bool any;             /* use a shell where somebody is logged in already, and type to find out */
} ConsoleLogin;

/* Ask for the console: a stream of what was said, and from now on, on which we alone type; transfer
 * full; -1 with the error. */
typedef int (*ConsoleJoinFn)(void *opaque, int64_t deadline, GError **error);

/* @name: of the machine, for messages; copied. Says nothing yet. Transfer full. */
ConsoleShell *console_shell_new(const char *name, const ConsoleLogin *login, ConsoleJoinFn join,
                                void *opaque);
void console_shell_free(ConsoleShell *s); /* logs out; NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ConsoleShell, console_shell_free)
const char *console_shell_name(const ConsoleShell *s);

/**
 * console_shell_reach() - Have a shell there
 * @deadline: g_get_monotonic_time() at which to give up waiting for a login prompt
 * Return: false with LODGE_ERROR_BUSY: no prompt in time, or somebody is logged in;
 *         LODGE_ERROR_CONFIG: user or password is refused; LODGE_ERROR_UNSUPPORTED: the guest lacks
 *         a program; LODGE_ERROR_STATE: the connection ended; or the error of joining.
 */
bool console_shell_reach(ConsoleShell *s, int64_t deadline, GError **error);

/* After console_shell_reach(); errors of these two: LODGE_ERROR_BUSY (it does not answer any more),
 * LODGE_ERROR_STATE, LODGE_ERROR_HOST (what it answers cannot be understood). */
/* Make the file "$d/w" of the guest, whose folder $d is ours, hold @data. */
bool console_shell_put(ConsoleShell *s, const void *data, size_t len, GError **error);
/**
 * console_shell_run() - Run a few lines of shell, in a shell of their own, with $d set
 * @script:     CONSOLE_SCRIPT_MAX bytes at most
 * @ret_out:    transfer full, a zero byte behind it: standard output up to CONSOLE_PIECE and the rest
 *              of a block; standard error where the status is not 0
 */
#define CONSOLE_SCRIPT_MAX 2400u
bool console_shell_run(ConsoleShell *s, const char *script, int *ret_status, GByteArray **ret_out,
                       GError **error);

/* What the last line of a console is, as a login sees it; for tests. */
typedef enum ConsoleSeen { CONSOLE_OTHER, CONSOLE_LOGIN, CONSOLE_PASSWORD, CONSOLE_PROMPT } ConsoleSeen;
ConsoleSeen console_shell_look(const char *data, size_t len);

typedef enum ConsoleFrame { CONSOLE_FRAME_NONE, CONSOLE_FRAME_BAD, CONSOLE_FRAME_GOOD } ConsoleFrame;
/* Take an answer that begins with @head out of what a guest has said, which has no zero bytes; for
 * tests. @data: appended to where it is good; @in loses all up to its end, or where it is bad its
 * head. */
ConsoleFrame console_shell_take(GString *in, const char *head, int *ret_status, GByteArray *data);

#endif
