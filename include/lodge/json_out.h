/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_JSON_OUT_H
#define LODGE_JSON_OUT_H

/*
 * A writer of JSON text (RFC 8259). Calls nest as the text does; a key is NULL inside an array
 * and for the outermost value.
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

typedef struct JsonOut JsonOut;

JsonOut *json_out_new(void);      /* indented, for files and people; transfer full */
/* On one line and in ASCII, as QMP has it: ", " and ": " between, all else as \uXXXX. */
JsonOut *json_out_new_line(void); /* transfer full */
void json_out_free(JsonOut *j); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JsonOut, json_out_free)
void json_object(JsonOut *j, const char *key); /* until json_end() */
void json_array(JsonOut *j, const char *key);
void json_end(JsonOut *j); /* the innermost that is open; none: our own mistake (g_assert) */
/* NULL gives null; bytes that are no UTF-8 become U+FFFD. */
void json_string(JsonOut *j, const char *key, const char *value);
void json_number(JsonOut *j, const char *key, int64_t value);
void json_double(JsonOut *j, const char *key, double value); /* not finite: null */
void json_null(JsonOut *j, const char *key);
void json_bool(JsonOut *j, const char *key, bool value);
/* Text with a newline (on one line: CR LF) at its end, all nesting closed; transfer none, until @j
 * is freed. */
const char *json_text(JsonOut *j);
/* Whether a string was no UTF-8, so that a reader would get another one. */
bool json_is_lossy(const JsonOut *j);

#endif
