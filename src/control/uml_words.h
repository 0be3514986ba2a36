/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_UML_WORDS_H
#define LODGE_UML_WORDS_H

/*
 * Devices in the words of User-Mode Linux, for its command line and for its management console:
 * what stands behind "ubd", "eth", and behind the '=' of "con" and "ssl". Pure functions; the texts
 * of problems are UML's where it has one.
 */

#include <stdbool.h>

#include <glib.h>

#include "tree.h"

#define UML_UBD_MAX 15u
#define UML_CON_MAX 15u
#define UML_SSL_MAX 63u
#define UML_ETH_MAX 31u

/* A number as strtoul() with any base reads it, and with @letters a lower-case letter for 0 to 25;
 * *@text goes behind it. False: there is none. */
bool uml_take_number(const char **text, bool letters, unsigned *ret);

typedef struct UmlDisk {
    unsigned n;
    bool read_only, plain, keep; /* flags r, d, t; s and c change nothing here */
    bool is_new; /* the file is to be made over @base, as UML makes it; by the caller */
    char *file, *base, *serial;  /* owned; NULL: not given. No file: no disk */
} UmlDisk;

void uml_disk_clear(UmlDisk *d);
/**
 * uml_disk_parse() - Read UNIT[FLAGS]=FILE[sep FILE[sep SERIAL]]
 * @ret: cleared by the caller with uml_disk_clear(); written on success only
 * Return: NULL, or what is wrong; transfer none.
 */
const char *uml_disk_parse(const char *text, UmlDisk *ret);
/* Put it into @t as back end and device @id; false: not text that a name can have. */
bool uml_disk_put(Tree *t, const char *id, const UmlDisk *d);

typedef struct UmlTransport UmlTransport;

typedef struct UmlNet {
    unsigned n;
    const UmlTransport *transport; /* borrowed, constant */
    GStrv field;                   /* owned; the first is the transport */
} UmlNet;

void uml_net_clear(UmlNet *n);
/* Likewise of N=TRANSPORT[,FIELD]...; what is wrong may be "", UML's answer to a transport that it
 * was built without. */
const char *uml_net_parse(const char *text, UmlNet *ret);
/* Put it into @t as back end and device @id, with the address @mac. */
bool uml_net_put(Tree *t, const char *id, const UmlNet *n, const char *mac);
/* The address that was given; "": none. Transfer none. */
const char *uml_net_mac(const UmlNet *n);
/* Names of the transports, with commas; transfer full. */
char *uml_net_names(void);

/**
 * uml_mac() - A card's address
 * @text: as given; one that a card cannot have counts for none
 * @seed: what tells this machine from others; an address that was not given then is the same at
 *        each start. NULL: it is drawn.
 * Return: transfer full.
 */
char *uml_mac(const char *text, const char *seed, const char *card);

/**
 * uml_channel() - What CHANNEL[,CHANNEL] of a console means to chan_open()
 * @ret_problem: set where NULL is returned; transfer none
 * Return: transfer full; "" for a line that is not there ("none").
 */
char *uml_channel(const char *text, const char **ret_problem);
/* Whether somebody is to open a window on the pseudo-terminal that it then is. */
bool uml_channel_is_window(const char *text);

#endif
