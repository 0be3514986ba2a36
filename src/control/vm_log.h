/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VM_LOG_H
#define LODGE_VM_LOG_H

/* What Lodge itself has to say of a machine, for later: a bounded file in its lasting folder. */

#include <glib.h>

typedef struct VmLog VmLog;

#define VM_LOG_FILE "machine.log" /* and that with .1 behind it */
#define VM_LOG_BYTES (256u * 1024u)

/* @dir: the lasting folder, NULL: nothing is written. Transfer full; opens nothing yet. */
VmLog *vm_log_new(const char *dir);
void vm_log_free(VmLog *log); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmLog, vm_log_free)
/* Append @text, of one line or more, behind the time; has the shape of a LodgeLogFn. A disk that is
 * full loses it. Any thread. */
void vm_log_append(void *log, const char *text);

#endif
