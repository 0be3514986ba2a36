/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The console log: a bounded, rotated file, and the tail in memory for the report of a VM that
 * ended badly. The file holds the guest's bytes as they came; the tail is cleaned, since it is
 * shown on the operator's terminal and the guest chose every byte of it (ECMA-48 escape sequences
 * are skipped, control characters other than newline and tab dropped).
 *
 * A write that fails (disk full) stops the file and is said once; the guest goes on.
 * Threads: any; the lock guards everything and is a leaf.
 */
#include "lodge/console_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/lock.h"

enum {
    TAIL_BYTES = 16384, /* some 200 lines of 80 */
    LOG_MODE = 0600,
    LINE_SHOWN_MAX = 400,
    ESC = 0x1b,
    CSI_FINAL_FIRST = 0x40,
    CSI_FINAL_LAST = 0x7e,
    DEL = 0x7f,
    C1_LEAD = 0xc2, /* UTF-8 of U+0080..U+009F */
    C1_END = 0xa0,
};

struct ConsoleLog {
    char *path;       /* owned; NULL: memory only */
    char *old_path;   /* owned */
    size_t max_bytes; /* of one file */
    LodgeLock lock;
    /* guarded by lock */
    int fd; /* owned; -1: no file (any more) */
    size_t written;
    uint64_t total; /* bytes ever appended */
    size_t tail_len;
    bool cut; /* something was before the tail */
    uint8_t tail[2 * TAIL_BYTES]; /* the last bytes; halved when full */
};

static bool start_file(ConsoleLog *log)
{
    if (log->fd >= 0)
        close(log->fd);
    /* No old file is fine; one that cannot be moved is truncated below. */
    (void)rename(log->path, log->old_path);
    log->fd = open(log->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, LOG_MODE);
    log->written = 0;
    return log->fd >= 0;
}

ConsoleLog *console_log_open(const char *path, size_t max_bytes, GError **error)
{
    ConsoleLog *log = g_new0(ConsoleLog, 1);

    lodge_lock_init(&log->lock, LOCK_RANK_DIAG, "console log");
    log->fd = -1;
    log->max_bytes = max_bytes;
    if (!path)
        return log;
    log->path = g_strdup(path);
    log->old_path = g_strdup_printf("%s.1", path);
    if (!start_file(log)) {
        lodge_fail_errno(error, errno, "cannot write the console log '%s'", path);
        console_log_close(log);
        return NULL;
    }
    return log;
}

void console_log_close(ConsoleLog *log)
{
    if (!log)
        return;
    if (log->fd >= 0)
        close(log->fd);
    lodge_lock_clear(&log->lock);
    g_free(log->path);
    g_free(log->old_path);
    g_free(log);
}

static void remember_locked(ConsoleLog *log, const uint8_t *data, size_t len)
{
    lock_assert_held(&log->lock);
    log->total += len;
    if (len > TAIL_BYTES) {
        data += len - TAIL_BYTES;
        len = TAIL_BYTES;
        log->tail_len = 0; /* what is there does not lead up to it */
        log->cut = true;
    }
    if (log->tail_len + len > sizeof log->tail) {
        memmove(log->tail, log->tail + log->tail_len - TAIL_BYTES, TAIL_BYTES);
        log->tail_len = TAIL_BYTES;
        log->cut = true;
    }
    memcpy(log->tail + log->tail_len, data, len);
    log->tail_len += len;
}

/* Return: errno of a failed write, else 0. */
static int store_locked(ConsoleLog *log, const uint8_t *data, size_t len)
{
    lock_assert_held(&log->lock);
    while (len && log->fd >= 0) {
        if (log->written >= log->max_bytes && !start_file(log))
            return errno;
        size_t room = log->max_bytes - log->written;
        ssize_t n = write(log->fd, data, len < room ? len : room);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int err = n < 0 ? errno : ENOSPC;
            close(log->fd);
            log->fd = -1;
            return err;
        }
        data += n;
        len -= (size_t)n;
        log->written += (size_t)n;
    }
    return 0;
}

void console_log_append(void *opaque, const uint8_t *data, size_t len)
{
    ConsoleLog *log = opaque;

    lodge_lock(&log->lock);
    remember_locked(log, data, len);
    int err = store_locked(log, data, len);
    lodge_unlock(&log->lock);
    if (err)
        lodge_warn("console log '%s' ends here: %s", log->path, g_strerror(err));
}

/* The byte after the escape sequence that starts at @i. */
static size_t skip_escape(const uint8_t *p, size_t i, size_t len)
{
    i++;
    if (i >= len)
        return len;
    if (p[i] == '[') {
        for (i++; i < len && (p[i] < CSI_FINAL_FIRST || p[i] > CSI_FINAL_LAST); i++) {
            if (p[i] == '\n')
                return i; /* broken off: keep the line end */
        }
    } else if (p[i] == ']') { /* up to BEL or ESC backslash */
        for (i++; i < len && p[i] != '\a' && p[i] != '\n' && p[i] != ESC; i++)
            ;
        if (i < len && (p[i] == '\n' || p[i] == ESC))
            return p[i] == ESC && i + 1 < len ? i + 2 : i;
    }
    return i < len ? i + 1 : len;
}

static GString *clean(const uint8_t *p, size_t len)
{
    GString *s = g_string_new(NULL);
    size_t column = 0;

    for (size_t i = 0; i < len;) {
        if (p[i] == ESC) {
            i = skip_escape(p, i, len);
            continue;
        }
        uint8_t b = p[i++];
        if (b == '\n') {
            g_string_append_c(s, '\n');
            column = 0;
        } else if ((b == '\t' || b >= ' ') && b != DEL && column++ < LINE_SHOWN_MAX) {
            g_string_append_c(s, (char)b);
        }
    }
    return s;
}

/* Valid UTF-8 without C1 controls, which come as two bytes of it and can start sequences too. */
static char *make_harmless(const char *text)
{
    char *valid = g_utf8_make_valid(text, -1);

    for (char *c = valid; *c; c++) {
        if ((uint8_t)c[0] == C1_LEAD && (uint8_t)c[1] < C1_END)
            c[0] = c[1] = '?';
    }
    return valid;
}

char *console_log_clean(const void *data, size_t len)
{
    GString *s = clean(data, len);
    char *text = make_harmless(s->str);

    g_string_free(s, TRUE);
    return text;
}

GString *console_log_recent(ConsoleLog *log)
{
    lodge_lock(&log->lock);
    const uint8_t *from = log->tail;
    size_t len = log->tail_len;
    if (log->cut) { /* in the middle of a line, or of an escape sequence */
        const uint8_t *end = memchr(from, '\n', len);
        size_t skip = end ? (size_t)(end - from) + 1 : 0;
        from += skip;
        len -= skip;
    }
    GString *s = g_string_new_len((const char *)from, (gssize)len);
    lodge_unlock(&log->lock);
    return s;
}

char *console_log_tail(ConsoleLog *log, unsigned lines)
{
    lodge_lock(&log->lock);
    GString *s = clean(log->tail, log->tail_len);
    lodge_unlock(&log->lock);

    size_t at = s->len;
    if (at && s->str[at - 1] == '\n')
        at--;
    for (unsigned seen = 0; at; at--) {
        if (s->str[at - 1] == '\n' && ++seen == lines)
            break;
    }
    char *from = make_harmless(lines ? s->str + at : "");
    g_string_free(s, TRUE);
    return from;
}

uint64_t console_log_position(ConsoleLog *log)
{
    lodge_lock(&log->lock);
    uint64_t total = log->total;
    lodge_unlock(&log->lock);
    return total;
}

char *console_log_since(ConsoleLog *log, uint64_t from)
{
    lodge_lock(&log->lock);
    uint64_t behind = log->total > from ? log->total - from : 0;
    size_t len = behind < log->tail_len ? (size_t)behind : log->tail_len;
    GString *s = clean(log->tail + log->tail_len - len, len);
    lodge_unlock(&log->lock);

    char *text = make_harmless(s->str);
    g_string_free(s, TRUE);
    return text;
}
