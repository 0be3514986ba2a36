/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_UML_ARGS_H
#define LODGE_UML_ARGS_H

/* User-Mode Linux's command line, compiled to a machine description. */

#include <stdbool.h>

#include <glib.h>

#include "tree.h"

typedef enum UmlFile { UML_FILE_NONE, UML_FILE_READABLE, UML_FILE_WRITABLE } UmlFile;

/* What the words mean depends on, besides themselves. */
typedef struct UmlHost {
    bool linux_image;                 /* the kernel is a bzImage, so it gets Lodge's initrd */
    UmlFile (*look)(const char *path); /* what this user may do with a disk's file */
    const char *seed;                 /* see uml_mac(); NULL: addresses of cards are drawn */
} UmlHost;

typedef enum UmlAsk { UML_ASK_RUN, UML_ASK_HELP, UML_ASK_VERSION, UML_ASK_CONFIG } UmlAsk;

/* What of the line is no part of the machine. */
typedef struct UmlOptions {
    UmlAsk ask;                    /* the first that was asked */
    char *umid, *uml_dir, *notify; /* owned; NULL: not given */
    bool no_reboot;                /* end where the guest restarts */
    GPtrArray *notes;              /* owned (char *): what a user should know, a line each */
    GPtrArray *windows;            /* owned (char *): lines that have a window, "con1" */
    char *xterm;                   /* owned; EMULATOR[,TITLE-OPTION[,RUN-OPTION]]; NULL: not so */
} UmlOptions;

void uml_options_clear(UmlOptions *o);

/* A kind of words, for help; NULL form ends the list. */
typedef struct UmlHelp {
    const char *form, *help;
} UmlHelp;
/* The @i'th; false: there are no more. */
bool uml_help(unsigned i, UmlHelp *ret);

/**
 * uml_compile() - Turn the words into a description without /boot/kernel
 * @argv: @argc words behind the program's name
 * @ret:  cleared by the caller with uml_options_clear(); written on success only
 * Context: main thread. Opens nothing, and looks at files through @host only.
 * Return: transfer full, with an ask other than UML_ASK_RUN an empty tree; NULL with
 *         LODGE_ERROR_CONFIG or LODGE_ERROR_UNSUPPORTED: WHICH: WHY; what to do.
 */
Tree *uml_compile(int argc, char **argv, const UmlHost *host, UmlOptions *ret, GError **error);

/* VALUE of the last (@last) or first word KEY=VALUE; NULL: there is none. Transfer none. */
const char *uml_word(int argc, char **argv, const char *key, bool last);

#endif
