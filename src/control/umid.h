/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_UMID_H
#define LODGE_UMID_H

/*
 * The folder by which User-Mode Linux's tools find a machine: UML_DIR/UMID, with its management
 * console and its process's id.
 */

#include <stdbool.h>

#include <glib.h>

#define UMID_MAX 63 /* letters */

typedef struct Umid Umid;

/**
 * umid_claim() - Make the folder
 * @uml_dir: where; NULL: ~/.uml. A leading ~ is the home. Made where it is missing, one level.
 * @umid:    its name; NULL: six random letters
 * A folder whose process is gone is taken over: its files are removed.
 * Return: transfer full; NULL with LODGE_ERROR_CONFIG (no name for a folder), LODGE_ERROR_EXISTS
 *         (that process lives), LODGE_ERROR_HOST.
 */
Umid *umid_claim(const char *uml_dir, const char *umid, GError **error);
/* Remove the folder and the files in it. NULL is fine. */
void umid_release(Umid *u);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Umid, umid_release)
/* UML_DIR/UMID/mconsole; transfer none. */
const char *umid_mconsole(const Umid *u);

#endif
