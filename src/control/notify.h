/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NOTIFY_H
#define LODGE_NOTIFY_H

/* Tells the service manager that started us how we are. */

#include <glib.h>

typedef struct Notify Notify;

/* Transfer full; NULL: nobody wants to be told, which is fine for all of these. Main thread. */
Notify *notify_new(void);
void notify_free(Notify *n);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Notify, notify_free)
/* The machine runs; from now on the manager's watchdog is fed while the main loop turns. */
void notify_ready(Notify *n);
void notify_stopping(Notify *n);

#endif
