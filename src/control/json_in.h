/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_JSON_IN_H
#define LODGE_JSON_IN_H

/*
 * Reading JSON through json-glib, which is loaded when the first text comes in: a machine that
 * nobody talks to does not pay for it. Text must have come through json_scan first.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/json_out.h"

typedef struct Json Json; /* the library, loaded */

typedef enum JvKind {
    JV_ABSENT,
    JV_NULL,
    JV_BOOL,
    JV_INT,
    JV_DOUBLE,
    JV_STRING,
    JV_ARRAY,
    JV_OBJECT,
} JvKind;

/* A value inside a parsed text, valid as long as its root is. */
typedef struct Jv {
    const Json *json; /* borrowed */
    void *node;       /* NULL: absent */
} Jv;

/* Transfer full; NULL with LODGE_ERROR_UNSUPPORTED that names the package to install. */
Json *json_load(GError **error);
void json_unload(Json *j); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Json, json_unload)

/* Transfer full (jv_free()); node NULL with LODGE_ERROR_CONFIG: not JSON. */
Jv jv_parse(const Json *j, const char *text, GError **error);
void jv_free(Jv v); /* roots only; absent is fine */
void jv_clear(Jv *v); /* free and make absent */
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Jv, jv_clear)

JvKind jv_kind(Jv v);
/* Member of an object; absent where there is none, or @v is no object. */
Jv jv_get(Jv v, const char *name);
size_t jv_length(Jv v); /* of an array; else 0 */
Jv jv_at(Jv v, size_t i);
/* Names of an object's members in order (char *, borrowed from it); free with g_list_free(). */
GList *jv_names(Jv v);
const char *jv_text(Jv v); /* of a string, transfer none; else NULL */
int64_t jv_int(Jv v);      /* of a number, cut to a whole one; else 0 */
bool jv_bool(Jv v);        /* of a bool; else false */
/* Write @v out again. */
void jv_print(Jv v, JsonOut *out, const char *key);

#endif
