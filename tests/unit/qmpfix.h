/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_QMPFIX_H
#define LODGE_QMPFIX_H

/* A control socket without a machine, with a scripted screen and keyboard, and its clients. */

#include "control.h"

typedef struct QmpFix {
    char *dir, *socket;
    Registry *registry;
    Display *display;
    Input *input;
    Control *control;
    GString *keys; /* what the keyboard was told: "+30 -30 " */
    bool graphics;
    ControlScreen served;
    bool serves;
} QmpFix;

/* A pointer that a test attaches; opaque is the fixture. */
extern const InputOps qmp_fix_tablet;

void qmp_fix_setup(QmpFix *f, gconstpointer unused);
void qmp_fix_teardown(QmpFix *f, gconstpointer unused);

/* A connection that does not block. The main context is served in each of these. */
int qmp_dial(QmpFix *f);
/* One that has negotiated. */
int qmp_talk(QmpFix *f);
void qmp_say(int fd, const char *what);
/* What comes until @lines lines or the end ("<end>") are there; transfer full. */
char *qmp_hear(int fd, unsigned lines);
/* @what is answered by the line @answer. */
void qmp_ask(int fd, const char *what, const char *answer);

#define GENERIC "\"error\": {\"class\": \"GenericError\", \"desc\": \""
#define NOT_FOUND "\"error\": {\"class\": \"CommandNotFound\", \"desc\": \""

#endif
