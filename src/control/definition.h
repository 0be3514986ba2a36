/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_DEFINITION_H
#define LODGE_DEFINITION_H

/*
 * The definition of a named machine: the options that it is started with, and the folder where
 * their relative paths are looked up. It lasts in the machine's folder.
 */

#include <stdbool.h>
#include <stddef.h>

#include <glib.h>

#define DEFINITION_BYTES_MAX 65536u

typedef struct Definition {
    char *folder;     /* owned, absolute */
    GPtrArray *words; /* char *, owned: "--NAME" or "--NAME=VALUE" */
} Definition;

Definition *definition_new(const char *folder); /* transfer full */
void definition_free(Definition *d);            /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Definition, definition_free)
/* @value: NULL: none. */
void definition_add(Definition *d, const char *option, const char *value);
/* Take away every --@option; whether there was one. */
bool definition_remove(Definition *d, const char *option);

/* The file's text; transfer full. */
char *definition_format(const Definition *d);
/**
 * definition_parse() - Read a definition
 * @text: NUL-terminated, any bytes
 * Return: transfer full, or NULL: LODGE_ERROR_UNSUPPORTED (of a newer version),
 *         LODGE_ERROR_IMAGE (names the line), LODGE_ERROR_LIMIT.
 */
Definition *definition_parse(const char *text, GError **error);

/* LODGE_ERROR_NOT_FOUND: machine @name is not defined. Return: false. */
bool definition_not_found(const char *name, GError **error);
/* Of machine @name. LODGE_ERROR_NOT_FOUND: there is none. */
Definition *definition_load(const char *name, GError **error);
/* Replace that in @dir, the machine's lasting folder, as a whole: a reader, a crash and a full disk
 * find the old one or the new one. LODGE_ERROR_HOST. */
bool definition_save(const Definition *d, const char *dir, GError **error);

#endif
