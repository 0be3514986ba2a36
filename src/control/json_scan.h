/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_JSON_SCAN_H
#define LODGE_JSON_SCAN_H

/*
 * Cuts a stream of bytes into JSON values and refuses what the parser behind it must not see.
 * Values need nothing between them; a line's end means nothing.
 */

#include <stddef.h>
#include <stdint.h>

#include <glib.h>

#define JSON_SCAN_DEPTH 1024u           /* nesting of one value; QEMU's */
#define JSON_SCAN_BYTES (1024u * 1024u) /* of one value */

typedef struct JsonScan JsonScan;

typedef enum JsonScanResult {
    JSON_SCAN_MORE,  /* all bytes were taken, no value ends in them */
    JSON_SCAN_VALUE, /* one is whole: json_scan_text() is it */
    JSON_SCAN_ERROR, /* json_scan_text() says what is wrong, as QEMU does; what was begun is gone */
    JSON_SCAN_LIMIT, /* the same, and the stream is not worth following any further */
} JsonScanResult;

JsonScan *json_scan_new(void); /* transfer full */
void json_scan_free(JsonScan *s); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JsonScan, json_scan_free)

/**
 * json_scan_feed() - Take bytes up to the end of the next value or the next error
 * @ret_used: how many were taken; hand the rest in again after any answer but MORE
 */
JsonScanResult json_scan_feed(JsonScan *s, const uint8_t *data, size_t len, size_t *ret_used);
/* Transfer none, until the next feed. */
const char *json_scan_text(const JsonScan *s);
/* Bytes held of a value that is not whole. */
size_t json_scan_held(const JsonScan *s);

#endif
