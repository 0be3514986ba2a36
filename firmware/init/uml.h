/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_INIT_UML_H
#define LODGE_INIT_UML_H

/* What an image made for User-Mode Linux finds on this machine: see uml.c and uml_stay.c. */

#include "lib.h"

/* A word of the command line. Return: whether it was one of these. */
int uml_word(const char *word);
/* Whether the command line asked for it. */
int uml_on(void);

/* Before the root is mounted, with /dev, /proc and /sys there and modules loaded. */
void uml_prepare(void);
/* root= in UML's numbers: "98:17" and "6211" are the first partition of the second disk. The name
 * in /dev to @to; 0: @root is nothing of the kind. */
int uml_root_name(const char *root, char *to, usize cap);
/* With the new root at / and our archive gone from sight. */
void uml_finish(void);

/* Names for what there is now: disks, terminals. Cheap where nothing has changed. */
void uml_sync(void);
/* A card that came while the machine runs. */
void uml_expect_eth(const char *name, const char *mac);
void uml_rename_eth(const char *now);
/* A disk that comes with another serial number than ubdN. */
void uml_expect_disk(long n, const char *serial);
/* The port of the management console, opened for reading and writing; negative: none. */
long uml_open_mconsole(void);

/* Stay behind as a process of the guest and keep all of it so. */
void uml_stay(void);

#endif
