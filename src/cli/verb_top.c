/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge top": all running machines, again each second. Plain lines and three control sequences
 * (home, erase to the end of the line, erase below), so any terminal will do.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/terminal.h"

#include "machines.h"
#include "usage.h"

#define ROUND_MS 1000
#define ANSWER_SECONDS 0.5
#define KEY_CTRL_C 3
#define KEY_CTRL_D 4
#define HOME "\033[H"
#define ERASE_LINE "\033[K"
#define ERASE_BELOW "\033[J"

/* One look at a machine, and the one before. */
typedef struct Row {
    char *name; /* owned */
    long pid;
    const char *state; /* static */
    uint64_t memory;   /* bytes: what it was started with */
    Usage now, before;
    bool twice; /* there was one before */
    bool seen;  /* in this round */
} Row;

static void row_free(gpointer opaque)
{
    Row *r = opaque;
    g_free(r->name);
    g_free(r);
}

static Row *row_of(GPtrArray *rows, const char *name, long pid)
{
    for (unsigned i = 0; i < rows->len; i++) {
        Row *r = g_ptr_array_index(rows, i);
        if (!strcmp(r->name, name) && r->pid == pid)
            return r;
    }
    Row *r = g_new0(Row, 1);
    r->name = g_strdup(name);
    r->pid = pid;
    g_ptr_array_add(rows, r);
    return r;
}

static double per_second(const Row *r, uint64_t now, uint64_t before)
{
    int64_t us = r->now.at_us - r->before.at_us;
    return r->twice && us > 0 && now > before ? (double)(now - before) * 1e6 / (double)us : 0;
}

static double percent(const Row *r, double now, double before)
{
    int64_t us = r->now.at_us - r->before.at_us;
    return r->twice && us > 0 && now > before ? (now - before) * 100e6 / (double)us : 0;
}

static gint busiest_first(gconstpointer a, gconstpointer b)
{
    const Row *x = *(Row *const *)a, *y = *(Row *const *)b;
    double dx = percent(x, x->now.cpu_s, x->before.cpu_s);
    double dy = percent(y, y->now.cpu_s, y->before.cpu_s);
    return dx < dy ? 1 : dx > dy ? -1 : strcmp(x->name, y->name);
}

/* Look at all that run; those that have ended are dropped. */
static bool look_at_all(GPtrArray *rows, GError **error)
{
    g_autoptr(GPtrArray) list = registry_list(error);
    if (!list)
        return false;
    for (unsigned i = 0; i < rows->len; i++)
        ((Row *)g_ptr_array_index(rows, i))->seen = false;
    for (unsigned i = 0; i < list->len; i++) {
        const MachineLook *l = g_ptr_array_index(list, i);
        if (!l->running || !l->status)
            continue;
        Row *r = row_of(rows, l->name, l->status->pid);
        r->twice = r->now.at_us != 0;
        r->before = r->now;
        r->state = machine_status_word(l->status->state);
        r->memory = l->status->memory;
        r->seen = true;
        usage_look(r->pid, &r->now);
        (void)usage_ask(r->name, machines_deadline(ANSWER_SECONDS), &r->now, NULL, NULL);
        if (!r->now.told) { /* its counters stand still rather than fall to nothing */
            r->now.received = r->before.received;
            r->now.sent = r->before.sent;
            r->now.exits = r->before.exits;
        }
    }
    for (unsigned i = rows->len; i-- > 0;) {
        if (!((Row *)g_ptr_array_index(rows, i))->seen)
            g_ptr_array_remove_index(rows, i);
    }
    g_ptr_array_sort(rows, busiest_first);
    return true;
}

static char *line_of(const Row *r)
{
    const Usage *n = &r->now, *b = &r->before;
    g_autofree char *resident = machines_size(n->resident);
    g_autofree char *guest = machines_size(n->guest ? n->guest : r->memory);
    g_autofree char *read = machines_size((uint64_t)per_second(r, n->read, b->read));
    g_autofree char *written = machines_size((uint64_t)per_second(r, n->written, b->written));
    g_autofree char *received = machines_size((uint64_t)per_second(r, n->received, b->received));
    g_autofree char *sent = machines_size((uint64_t)per_second(r, n->sent, b->sent));
    return g_strdup_printf("%-16s %-8s %5.0f%% %5.0f%% %8s %8s %8s %8s %8s %8s %8.0f", r->name,
                           r->state, percent(r, n->cpu_s, b->cpu_s),
                           percent(r, n->vcpu_s, b->vcpu_s), resident, guest, read, written,
                           received, sent, per_second(r, n->exits, b->exits));
}

static char *head_line(void)
{
    return g_strdup_printf("%-16s %-8s %6s %6s %8s %8s %8s %8s %8s %8s %8s", "NAME", "STATE", "CPU",
                           "VCPUS", "MEMORY", "GUEST", "READ/s", "WRITE/s", "RECV/s", "SENT/s",
                           "EXITS/s");
}

static void print_table(const GPtrArray *rows)
{
    g_autofree char *head = head_line();
    puts(head);
    for (unsigned i = 0; i < rows->len; i++) {
        g_autofree char *line = line_of(g_ptr_array_index(rows, i));
        puts(line);
    }
}

/* ---- on a terminal ---- */

static void add_line(GString *out, const char *line, unsigned columns)
{
    g_string_append_len(out, line, (gssize)MIN(strlen(line), columns));
    g_string_append(out, ERASE_LINE "\n");
}

static void draw(const GPtrArray *rows)
{
    struct winsize size = {0};
    g_autoptr(GString) out = g_string_new(HOME);
    g_autofree char *head = head_line();
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col || !size.ws_row)
        size = (struct winsize){.ws_row = 24, .ws_col = 80};
    unsigned room = size.ws_row > 3 ? size.ws_row - 3u : 1; /* head, end, and where the cursor is */
    unsigned n = MIN(rows->len, room);
    g_autofree char *end =
        rows->len > n ? g_strdup_printf("%u more; q ends", rows->len - n) : g_strdup("q ends");
    add_line(out, head, size.ws_col);
    for (unsigned i = 0; i < n; i++) {
        g_autofree char *line = line_of(g_ptr_array_index(rows, i));
        add_line(out, line, size.ws_col);
    }
    add_line(out, end, size.ws_col);
    g_string_append(out, ERASE_BELOW);
    fputs(out->str, stdout);
    fflush(stdout);
}

/* Wait for a second or a key. Return: false: it is time to end. */
static bool next_round(void)
{
    int64_t until = g_get_monotonic_time() + (int64_t)ROUND_MS * 1000;
    int64_t left;
    while ((left = until - g_get_monotonic_time()) > 0) {
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        char key;
        int r = poll(&p, 1, (int)(left / 1000 + 1));
        if (r < 0 && errno != EINTR)
            return false;
        if (r <= 0)
            continue;
        if (read(STDIN_FILENO, &key, 1) != 1)
            return false;
        if (key == 'q' || key == 'Q' || key == KEY_CTRL_C || key == KEY_CTRL_D)
            return false;
    }
    return true;
}

int verb_top(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 0, &error);
    g_autoptr(GPtrArray) rows = g_ptr_array_new_with_free_func(row_free);
    if (!o || !look_at_all(rows, &error))
        return cli_fail(self->name, error, false);
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        if (rows->len)
            g_usleep((gulong)ROUND_MS * 1000);
        if (!look_at_all(rows, &error))
            return cli_fail(self->name, error, false);
        print_table(rows);
        return cli_finish(STATUS_OK);
    }
    if (!terminal_raw(STDIN_FILENO, &error))
        return cli_fail(self->name, error, false);
    fputs(HOME ERASE_BELOW, stdout);
    do {
        draw(rows);
    } while (next_round() && !ferror(stdout) && look_at_all(rows, &error));
    terminal_restore();
    return error ? cli_fail(self->name, error, false) : cli_finish(STATUS_OK);
}
