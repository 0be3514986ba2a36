/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The console's escape key. In raw mode every key goes to the guest, Ctrl-C too, so one key is
 * kept for the operator: Ctrl-] (0x1d, telnet's choice), and the key after it says what to do.
 * Any other second key does nothing, so that a slip never reaches the guest in part.
 *
 * Threads: the filter runs on the channel's IoThread, which alone touches `escaped`.
 */
#include "console.h"

#include <stdbool.h>
#include <stdint.h>

#include "lodge/chan.h"

enum { ESCAPE_KEY = 0x1d };

struct Console {
    Chan *chan;            /* borrowed */
    const ConsoleOps *ops; /* borrowed, constant */
    void *opaque;
    bool escaped; /* the escape key came, its second key not yet; IoThread only */
};

static void do_kill(Console *con)
{
    if (con->ops->kill)
        con->ops->kill(con->opaque);
}

static void do_power(Console *con)
{
    if (con->ops->power)
        con->ops->power(con->opaque);
}

static void do_reset(Console *con)
{
    if (con->ops->reset)
        con->ops->reset(con->opaque);
}

static void do_help(Console *con);

static const struct {
    uint8_t key;
    const char *help;
    void (*act)(Console *con); /* NULL: the filter's own business */
} keys[] = {
    {'q', "Ctrl-] q       end the VM at once", do_kill},
    {'p', "Ctrl-] p       press the power button", do_power},
    {'r', "Ctrl-] r       reset", do_reset},
    {'?', "Ctrl-] ?       this list", do_help},
    {ESCAPE_KEY, "Ctrl-] Ctrl-]  send Ctrl-] to the guest", NULL},
};

static void do_help(Console *con)
{
    GString *s = g_string_new("\r\n");

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
        g_string_append_printf(s, "%s\r\n", keys[i].help);
    chan_write(con->chan, s->str, s->len);
    g_string_free(s, TRUE);
}

/* A ChanFilterFn: what is left of the typed bytes is the guest's. */
static size_t console_filter(void *opaque, uint8_t *data, size_t len)
{
    Console *con = opaque;
    size_t kept = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t key = data[i];
        if (!con->escaped) {
            if (key == ESCAPE_KEY)
                con->escaped = true;
            else
                data[kept++] = key;
            continue;
        }
        con->escaped = false;
        if (key == ESCAPE_KEY) {
            data[kept++] = key;
            continue;
        }
        for (size_t k = 0; k < G_N_ELEMENTS(keys); k++) {
            if (keys[k].key == key && keys[k].act)
                keys[k].act(con);
        }
    }
    return kept;
}

Console *console_new(Chan *c, const ConsoleOps *ops, void *opaque)
{
    Console *con = g_new0(Console, 1);

    con->chan = c;
    con->ops = ops;
    con->opaque = opaque;
    chan_set_input_filter(c, console_filter, con);
    return con;
}

void console_free(Console *con)
{
    if (!con)
        return;
    chan_set_input_filter(con->chan, NULL, NULL);
    g_free(con);
}
