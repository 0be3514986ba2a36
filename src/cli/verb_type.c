/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge type": text and keys for a running machine's keyboard. Everything is checked here before
 * the machine is asked, so that a wrong word types nothing.
 */
#include <stdio.h>
#include <string.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/input.h"
#include "lodge/json_out.h"

#include "cli.h"
#include "client.h"

#define TYPE_SECONDS 30          /* beyond the time that the typing takes */
#define RATE 25                  /* keys a second */
#define RATE_MAX 1000
#define TEXT_BYTES_MAX 65536u    /* as the machine has it */
#define KEYS_MAX 16u
#define HOLD_MS 100

const OptSpec type_options_table[] = {
    {"keys", 0, "KEY[-KEY]...",
     "Press keys together, by the names that QMP has: ctrl-alt-delete (or -del), alt-f2, ret, esc. "
     "Typed after the text, in the order of the line.",
     NULL, OPT_REPEAT},
    {"enter", 0, NULL, "Press Enter at the end."},
    {"rate", 0, "KEYS",
     "How many keys a second the text is typed at: 1 to 1000, 25 unless said. A guest that reads "
     "slowly loses keys when they come too fast."},
    OPT_JSON,
    {NULL},
};

/* @text with its escapes resolved, appended to @out. */
static bool unescape(const char *text, GString *out, GError **error)
{
    for (const char *p = text; *p; p++) {
        if (*p != '\\') {
            g_string_append_c(out, *p);
            continue;
        }
        switch (*++p) {
        case 'n':
            g_string_append_c(out, '\n');
            break;
        case 't':
            g_string_append_c(out, '\t');
            break;
        case '\\':
            g_string_append_c(out, '\\');
            break;
        default:
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "\"%s\": a backslash stands before n, t or another one; write \\\\ "
                              "for one", text);
        }
    }
    return true;
}

static bool check_text(const GString *text, GError **error)
{
    if (!g_utf8_validate_len(text->str, text->len, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "the text is not UTF-8");
    if (text->len > TEXT_BYTES_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT,
                          "the text has %" G_GSIZE_FORMAT " bytes, more than %u; type it in parts",
                          text->len, TEXT_BYTES_MAX);
    for (const char *p = text->str; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);
        bool shift;
        if (input_key_by_char(c, &shift))
            continue;
        g_autofree char *shown =
            g_strndup(p, (gsize)(g_unichar_isprint(c) ? g_utf8_next_char(p) - p : 0));
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "character '%s' (U+%04X) is not on the keyboard; nothing was typed",
                          shown, c);
    }
    return true;
}

/* Keys pressed together, by their names for QMP. */
static bool check_keys(const char *keys, GPtrArray *ret_names, GError **error)
{
    g_auto(GStrv) words = g_strsplit(keys, "-", -1);
    for (char **w = words; *w; w++) {
        const char *name = !strcmp(*w, "del") ? "delete" : !strcmp(*w, "enter") ? "ret" : *w;
        if (!input_key_by_name(name))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--keys %s: no key \"%s\"; names are like ctrl, alt, delete, ret, "
                              "f1, a", keys, *w);
        g_ptr_array_add(ret_names, g_strdup(name));
    }
    if (!ret_names->len || ret_names->len > KEYS_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--keys %s: give 1 to %u keys", keys,
                          KEYS_MAX);
    return true;
}

static int64_t soon(void)
{
    return g_get_monotonic_time() + TYPE_SECONDS * G_TIME_SPAN_SECOND;
}

static bool press(Client *c, const GPtrArray *names, GError **error)
{
    JsonOut *call = client_begin("send-key");
    json_array(call, "keys");
    for (unsigned i = 0; i < names->len; i++) {
        json_object(call, NULL);
        json_string(call, "type", "qcode");
        json_string(call, "data", g_ptr_array_index(names, i));
        json_end(call);
    }
    json_end(call);
    json_number(call, "hold-time", HOLD_MS);
    return client_call(c, call, soon(), error).node != NULL;
}

/* Answered when it is typed, and all that was asked for before. */
static bool type_text(Client *c, const char *text, uint64_t rate, GError **error)
{
    int64_t seconds = (int64_t)(strlen(text) / rate) + TYPE_SECONDS;
    JsonOut *call = client_begin("x-lodge-type");
    json_string(call, "text", text);
    json_number(call, "rate", (int64_t)rate);
    /* A key has two waits, each a whole number of milliseconds, on a host that may be busy. */
    return client_call(c, call, g_get_monotonic_time() + 3 * seconds * G_TIME_SPAN_SECOND, error)
               .node != NULL;
}

typedef struct Typing {
    GString *text;
    GPtrArray *keys; /* GPtrArray of names, one for each --keys */
    uint64_t rate;
    bool enter;
} Typing;

static void typing_clear(Typing *t)
{
    g_string_free(t->text, TRUE);
    g_ptr_array_free(t->keys, TRUE);
}

static bool read_line(const Options *o, Typing *t, GError **error)
{
    const char *rate = options_text(o, "rate");
    if (!o->args->len)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "no machine; give its NAME");
    for (unsigned i = 1; i < o->args->len; i++) {
        if (i > 1)
            g_string_append_c(t->text, ' ');
        if (!unescape(g_ptr_array_index(o->args, i), t->text, error))
            return false;
    }
    for (const OptValue *v = NULL; (v = options_next(o, "keys", v));) {
        GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
        g_ptr_array_add(t->keys, names);
        if (!check_keys(v->text, names, error))
            return false;
    }
    t->enter = options_has(o, "enter");
    t->rate = RATE;
    if (rate && (!parse_u64(rate, &t->rate) || t->rate < 1 || t->rate > RATE_MAX))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--rate %s: must be 1 to %d keys a second",
                          rate, RATE_MAX);
    if (!t->text->len && !t->keys->len && !t->enter)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "nothing to type; give a TEXT, --keys or --enter");
    return check_text(t->text, error);
}

static bool type_all(const char *name, const Typing *t, GError **error)
{
    g_autoptr(Client) c = client_connect(name, soon(), error);
    if (!c || (t->text->len && !type_text(c, t->text->str, t->rate, error)))
        return false;
    for (unsigned i = 0; i < t->keys->len; i++) {
        if (!press(c, g_ptr_array_index(t->keys, i), error))
            return false;
    }
    /* With nothing in it: waits until those keys are let go. */
    return type_text(c, t->enter ? "\n" : "", t->rate, error);
}

int verb_type(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, G_MAXUINT, &error);
    if (!o)
        return cli_fail(self->name, error, false);
    Typing t = {.text = g_string_new(NULL),
                .keys = g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref)};
    bool ok = read_line(o, &t, &error) && type_all(g_ptr_array_index(o->args, 0), &t, &error);
    if (ok && options_has(o, "json")) {
        g_autoptr(JsonOut) out = json_out_new();
        json_object(out, NULL);
        json_number(out, "schema", 1);
        json_string(out, "name", g_ptr_array_index(o->args, 0));
        json_number(out, "characters", g_utf8_strlen(t.text->str, -1));
        fputs(json_text(out), stdout);
    }
    typing_clear(&t);
    return ok ? cli_finish(STATUS_OK) : cli_fail(self->name, error, false);
}
