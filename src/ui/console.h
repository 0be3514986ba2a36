/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CONSOLE_H
#define LODGE_CONSOLE_H

#include <glib.h>

typedef struct Chan Chan;
typedef struct Console Console;

/* What the escape key can ask for. Context: the channel's IoThread, no lock held: post to main
 * whatever takes time. */
typedef struct ConsoleOps {
    void (*power)(void *opaque); /* press the power button */
    void (*kill)(void *opaque);  /* end the VM at once */
    void (*reset)(void *opaque);
} ConsoleOps;

/* One line for the operator: how to leave. */
#define CONSOLE_HINT "Ctrl-] then q ends the VM, Ctrl-] then ? lists the keys"

/**
 * console_new() - Watch the keys typed on @c's terminal for the escape key
 * @c: borrowed, outlives the console; one that is no terminal never sees an escape key
 * @ops: borrowed, constant; a NULL slot is a key that does nothing
 * Context: main thread. Return: transfer full.
 */
Console *console_new(Chan *c, const ConsoleOps *ops, void *opaque);
void console_free(Console *con); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Console, console_free)

#endif
