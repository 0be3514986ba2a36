/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CONSOLE_LOG_H
#define LODGE_CONSOLE_LOG_H

#include <stddef.h>
#include <stdint.h>

#include <glib.h>

/*
 * What a guest wrote to its console, in a file of bounded size and its last lines in memory. When
 * the file is full it becomes PATH.1 and a new one begins, so at most twice the bound is on disk.
 */
typedef struct ConsoleLog ConsoleLog;

/* Starts PATH afresh; one that is there becomes PATH.1. @max_bytes: of one file, >= 4096.
 * @path NULL: memory only. Return: transfer full, or NULL with LODGE_ERROR_HOST. */
ConsoleLog *console_log_open(const char *path, size_t max_bytes, GError **error);
void console_log_close(ConsoleLog *log); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ConsoleLog, console_log_close)
/* Any thread, no device lock needed; has the shape of a ChanTapFn. */
void console_log_append(void *log, const uint8_t *data, size_t len);
/* What came last, as it came, from the beginning of a line; transfer full. Any thread. */
GString *console_log_recent(ConsoleLog *log);
/* Any bytes of a console, fit for a terminal in the same way as a tail; transfer full. */
char *console_log_clean(const void *data, size_t len);
/* The last @lines lines, fit for a terminal: no escape sequences or control characters. Transfer
 * full, "" if there was no output. Any thread. */
char *console_log_tail(ConsoleLog *log, unsigned lines);
/* Bytes that were appended so far. Any thread. */
uint64_t console_log_position(ConsoleLog *log);
/* What was appended from position @from on, as far as it is still kept (16 KiB at least), cleaned
 * as the tail is. Transfer full. Any thread. */
char *console_log_since(ConsoleLog *log, uint64_t from);

#endif
