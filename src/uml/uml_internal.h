/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_UML_INTERNAL_H
#define LODGE_UML_INTERNAL_H

/* Between uml_args.c (the line), uml_lines.c (consoles) and uml_nets.c (cards). */

#include "uml_args.h"
#include "uml_words.h"

#define UML_VEC_MAX 31u

typedef struct UmlVec {
    unsigned n;
    char *options; /* owned; KEY=VALUE,... */
} UmlVec;

typedef struct Uml {
    const UmlHost *host; /* borrowed */
    Tree *tree;          /* borrowed from the compiler of the line */
    UmlOptions o;
    uint64_t memory;
    char *initrd, *root; /* owned; NULL: not given */
    bool disk_given[UML_UBD_MAX + 1];
    UmlDisk disk[UML_UBD_MAX + 1]; /* no file: none */
    bool net_given[UML_ETH_MAX + 1];
    UmlNet net[UML_ETH_MAX + 1];
    char *vec[UML_VEC_MAX + 1];    /* owned; NULL: none */
    char *con[UML_CON_MAX + 1], *ssl[UML_SSL_MAX + 1]; /* owned, channels as given; NULL: not */
    char *all_con, *all_ssl;       /* owned; of those that are not named */
    bool consoles;                 /* the kernel's console is port 0 of the virtio console */
} Uml;

/* Say something of @text on the console. */
void uml_note(Uml *u, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* tree_set_str(), told as an error. */
bool uml_put(Uml *u, const char *path, const char *prop, const char *value, GError **error);

/* ---- uml_lines.c; @rest is what stands behind the key ---- */
bool uml_take_con(Uml *u, const char *rest, GError **error);
bool uml_take_ssl(Uml *u, const char *rest, GError **error);
bool uml_put_lines(Uml *u, GError **error);
void uml_clear_lines(Uml *u);

/* ---- uml_nets.c ---- */
bool uml_take_eth(Uml *u, const char *rest, GError **error);
bool uml_take_vec(Uml *u, const char *rest, GError **error);
/* @ret_names: the cards in order of their slots, with commas; transfer full, "": none. */
bool uml_put_nets(Uml *u, char **ret_names, GError **error);
void uml_clear_nets(Uml *u);

#endif
