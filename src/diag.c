/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors and messages for people. Every line goes to standard error in one write, so lines of
 * several threads do not mix, and to the VM's log when one is set.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"

#define LINE_MAX_BYTES 2048

static struct {
    gint quiet;
    GMutex mutex; /* guards log */
    LodgeLogFn log;
    void *log_opaque;
} diag;

GQuark lodge_error_quark(void)
{
    return g_quark_from_static_string("lodge-error");
}

bool lodge_fail(GError **error, LodgeError code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (error)
        *error = g_error_new_valist(LODGE_ERROR, (gint)code, fmt, ap);
    va_end(ap);
    return false;
}

bool lodge_fail_errno(GError **error, int errnum, const char *fmt, ...)
{
    if (error) {
        int saved = errno;
        va_list ap;
        va_start(ap, fmt);
        g_autofree char *what = g_strdup_vprintf(fmt, ap);
        va_end(ap);
        g_set_error(error, LODGE_ERROR, LODGE_ERROR_HOST, "%s: %s", what, g_strerror(errnum));
        errno = saved;
    }
    return false;
}

/* Print @prefix and the text as one line with control characters made harmless: parts of a
 * message come from guests and files. */
static void print_line(const char *prefix, const char *fmt, va_list ap)
{
    char line[LINE_MAX_BYTES];
    int n = g_snprintf(line, sizeof line - 2, "lodge: %s", prefix);
    int m = g_vsnprintf(line + n, sizeof line - 1 - (size_t)n, fmt, ap);
    size_t len = MIN((size_t)n + (size_t)MAX(m, 0), sizeof line - 2);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)line[i];
        if ((c < 0x20 && c != '\t' && c != '\n') || c == 0x7f)
            line[i] = '?';
    }
    line[len] = '\0';
    g_mutex_lock(&diag.mutex);
    if (diag.log)
        diag.log(diag.log_opaque, line);
    g_mutex_unlock(&diag.mutex);
    line[len++] = '\n';
    ssize_t done = write(STDERR_FILENO, line, len);
    (void)done; /* nobody is left to tell */
}

void lodge_warn(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_line("", fmt, ap);
    va_end(ap);
}

void lodge_note(const char *fmt, ...)
{
    if (g_atomic_int_get(&diag.quiet))
        return;
    va_list ap;
    va_start(ap, fmt);
    print_line("", fmt, ap);
    va_end(ap);
}

void lodge_set_quiet(bool quiet)
{
    g_atomic_int_set(&diag.quiet, quiet);
}

void lodge_set_log(LodgeLogFn fn, void *opaque)
{
    g_mutex_lock(&diag.mutex);
    diag.log = fn;
    diag.log_opaque = opaque;
    g_mutex_unlock(&diag.mutex);
}

bool lodge_tracing(const char *name)
{
    const char *p = g_getenv("LODGE_TRACE");
    size_t len = strlen(name);
    while (p && *p) {
        size_t n = strcspn(p, ",");
        if ((n == len && !memcmp(p, name, n)) || (n == 3 && !memcmp(p, "all", 3)))
            return true;
        p += n + (p[n] == ',');
    }
    return false;
}

void lodge_trace(const char *name, const char *fmt, ...)
{
    if (!lodge_tracing(name))
        return;
    g_autofree char *prefix = g_strconcat(name, ": ", NULL);
    va_list ap;
    va_start(ap, fmt);
    print_line(prefix, fmt, ap);
    va_end(ap);
}
