/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands that press keys and move the pointer.
 *
 * A key's number (KeyValue of QEMU's ui.json) is what XT keyboards send: the code of set 1, with
 * 0x80 added for keys that E0 precedes. Of Linux's codes, those below 0x54 and F11, F12 and the key
 * beside the left shift are the same; the E0 keys are a table.
 */
#include <limits.h>
#include <linux/input-event-codes.h>
#include <string.h>

#include "lodge/error.h"

#include "control_internal.h"

#define KEYS_MAX 16u             /* pressed together */
#define HOLD_MS 100              /* unless said */
#define HOLD_MS_MAX 60000
#define TEXT_BYTES_MAX 65536u
#define RATE 25                  /* keys a second, unless said */
#define RATE_MAX 1000
#define EVENTS_MAX 4096u         /* in one command */

static Input *input_of(Control *c, GError **error)
{
    if (!c->config.input)
        lodge_fail(error, LODGE_ERROR_STATE, "the machine has no keyboard or pointer");
    return c->config.input;
}

/* ---- keys ---- */

/* KEY_* of number @n; 0: none. */
static unsigned key_by_number(int64_t n)
{
    static const struct {
        uint8_t number, code;
    } extended[] = {
        {0x9c, KEY_KPENTER}, {0x9d, KEY_RIGHTCTRL}, {0xb5, KEY_KPSLASH}, {0xb7, KEY_SYSRQ},
        {0xb8, KEY_RIGHTALT}, {0xc6, KEY_PAUSE}, {0xc7, KEY_HOME}, {0xc8, KEY_UP},
        {0xc9, KEY_PAGEUP}, {0xcb, KEY_LEFT}, {0xcd, KEY_RIGHT}, {0xcf, KEY_END}, {0xd0, KEY_DOWN},
        {0xd1, KEY_PAGEDOWN}, {0xd2, KEY_INSERT}, {0xd3, KEY_DELETE}, {0xdb, KEY_LEFTMETA},
        {0xdc, KEY_RIGHTMETA}, {0xdd, KEY_COMPOSE},
    };
    if (n >= 1 && n <= KEY_KPDOT)
        return (unsigned)n;
    if (n == KEY_102ND || n == KEY_F11 || n == KEY_F12)
        return (unsigned)n;
    for (unsigned i = 0; i < G_N_ELEMENTS(extended); i++) {
        if (extended[i].number == n)
            return extended[i].code;
    }
    return 0;
}

/* @value: {type, data}, called @name in errors. */
static bool read_key(Jv value, const char *name, unsigned *ret_code, GError **error)
{
    g_autofree char *data_name = g_strconcat(name, ".data", NULL);
    g_autofree char *type_name = g_strconcat(name, ".type", NULL);
    if (jv_kind(value) != JV_OBJECT)
        return arg_type(error, name, "object");
    Jv type = jv_get(value, "type"), data = jv_get(value, "data");
    if (jv_kind(type) == JV_ABSENT)
        return arg_missing(error, type_name);
    if (jv_kind(type) != JV_STRING)
        return arg_type(error, type_name, "string");
    bool number = !strcmp(jv_text(type), "number");
    if (!number && strcmp(jv_text(type), "qcode"))
        return arg_value(error, "type", jv_text(type));
    g_autoptr(GList) names = jv_names(value);
    for (GList *n = names; n; n = n->next) {
        if (strcmp(n->data, "type") && strcmp(n->data, "data")) {
            g_autofree char *odd = g_strdup_printf("%s.%s", name, (const char *)n->data);
            return arg_unexpected(error, odd);
        }
    }
    if (jv_kind(data) == JV_ABSENT)
        return arg_missing(error, data_name);
    if (jv_kind(data) != (number ? JV_INT : JV_STRING))
        return arg_type(error, data_name, number ? "integer" : "string");
    *ret_code = number ? key_by_number(jv_int(data)) : input_key_by_name(jv_text(data));
    if (*ret_code && *ret_code < 256)
        return true;
    g_autofree char *text =
        number ? g_strdup_printf("%" PRId64, jv_int(data)) : g_strdup(jv_text(data));
    return arg_value(error, "data", text);
}

bool control_send_keys(Control *c, const unsigned *codes, unsigned n, int64_t hold_ms,
                       GError **error)
{
    Input *in = input_of(c, error);
    KeyStep steps[2 * KEYS_MAX];
    unsigned at = 0;
    if (!in)
        return false;
    if (n > KEYS_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "more than %u keys at once", KEYS_MAX);
    for (unsigned i = 0; i < n; i++)
        steps[at++] = (KeyStep){(uint16_t)codes[i], true,
                                i + 1 == n ? (uint32_t)CLAMP(hold_ms, 1, HOLD_MS_MAX) : 0};
    for (unsigned i = n; i-- > 0;)
        steps[at++] = (KeyStep){(uint16_t)codes[i], false, i ? 0 : 1000 / RATE};
    return key_queue_add(c->keys, in, steps, at, NULL, error);
}

COMMAND_FN(cmd_send_key)
{
    Jv keys = jv_get(args, "keys"), hold = jv_get(args, "hold-time");
    unsigned codes[KEYS_MAX], n = 0;
    if (jv_length(keys) > KEYS_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "more than %u keys at once", KEYS_MAX);
    for (; n < jv_length(keys); n++) {
        g_autofree char *name = g_strdup_printf("keys[%u]", n);
        if (!read_key(jv_at(keys, n), name, &codes[n], error))
            return false;
    }
    return control_send_keys(c, codes, n, jv_kind(hold) == JV_INT ? jv_int(hold) : HOLD_MS, error);
}

/* ---- texts ---- */

/* The steps that type @text; NULL with the error, before anything is typed. */
static GArray *steps_of(const char *text, int64_t rate, GError **error)
{
    g_autoptr(GArray) steps = g_array_new(FALSE, FALSE, sizeof(KeyStep));
    uint32_t down_ms = (uint32_t)MAX(500 / rate, 1), up_ms = (uint32_t)MAX(500 / rate, 1);
    for (const char *p = text; *p; p = g_utf8_next_char(p)) {
        bool shift;
        gunichar ch = g_utf8_get_char(p);
        unsigned code = input_key_by_char(ch, &shift);
        if (!code) {
            g_autofree char *shown = g_unichar_isprint(ch)
                                         ? g_strndup(p, (gsize)(g_utf8_next_char(p) - p))
                                         : g_strdup("");
            lodge_fail(error, LODGE_ERROR_CONFIG,
                       "character '%s' (U+%04X) is not on the keyboard; nothing was typed", shown,
                       ch);
            return NULL;
        }
        KeyStep s[4];
        unsigned n = 0;
        if (shift)
            s[n++] = (KeyStep){KEY_LEFTSHIFT, true, 0};
        s[n++] = (KeyStep){(uint16_t)code, true, down_ms};
        s[n++] = (KeyStep){(uint16_t)code, false, shift ? 0 : up_ms};
        if (shift)
            s[n++] = (KeyStep){KEY_LEFTSHIFT, false, up_ms};
        g_array_append_vals(steps, s, n);
    }
    return g_steal_pointer(&steps);
}

COMMAND_FN(cmd_type)
{
    const char *text = jv_text(jv_get(args, "text"));
    Jv rate = jv_get(args, "rate");
    int64_t hz = jv_kind(rate) == JV_INT ? jv_int(rate) : RATE;
    if (strlen(text) > TEXT_BYTES_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "the text has more than %u bytes",
                          TEXT_BYTES_MAX);
    if (hz < 1 || hz > RATE_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "rate %" PRId64 ": must be 1 to %d keys a second", hz, RATE_MAX);
    g_autoptr(GArray) steps = steps_of(text, hz, error);
    Input *in = steps ? input_of(c, error) : NULL;
    return in &&
           key_queue_add(c->keys, in, (KeyStep *)steps->data, steps->len, r, error);
}

/* ---- events as they are ---- */

typedef struct InputEvent {
    enum { EVENT_KEY, EVENT_BUTTON, EVENT_REL, EVENT_ABS } kind;
    unsigned code;   /* KEY_*, or an INPUT_* bit; 0: a wheel's step, in value */
    bool down, y;
    int value;
} InputEvent;

static bool read_button(Jv data, InputEvent *e, GError **error)
{
    static const struct {
        const char *name;
        unsigned bit;
        int wheel;
    } buttons[] = {
        {"left", INPUT_LEFT, 0}, {"middle", INPUT_MIDDLE, 0}, {"right", INPUT_RIGHT, 0},
        {"side", INPUT_SIDE, 0}, {"extra", INPUT_EXTRA, 0},   {"wheel-up", 0, -1},
        {"wheel-down", 0, 1},
    };
    const char *name = jv_text(jv_get(data, "button"));
    if (!name)
        return arg_type(error, "button", "string");
    for (unsigned i = 0; i < G_N_ELEMENTS(buttons); i++) {
        if (!strcmp(buttons[i].name, name)) {
            e->code = buttons[i].bit;
            e->value = buttons[i].wheel;
            return true;
        }
    }
    return arg_value(error, "button", name);
}

static bool read_move(Jv data, InputEvent *e, GError **error)
{
    const char *axis = jv_text(jv_get(data, "axis"));
    Jv value = jv_get(data, "value");
    if (!axis)
        return arg_type(error, "axis", "string");
    if (strcmp(axis, "x") && strcmp(axis, "y"))
        return arg_value(error, "axis", axis);
    if (jv_kind(value) != JV_INT)
        return arg_type(error, "value", "integer");
    e->y = *axis == 'y';
    e->value = (int)CLAMP(jv_int(value), -0x8000, 0xffff);
    return true;
}

static bool read_event(Jv v, unsigned i, InputEvent *e, GError **error)
{
    static const char *const kinds[] = {"key", "btn", "rel", "abs"};
    g_autofree char *name = g_strdup_printf("events[%u]", i);
    const char *type = jv_text(jv_get(v, "type"));
    Jv data = jv_get(v, "data");
    unsigned k = 0;
    if (jv_kind(v) != JV_OBJECT || jv_kind(data) != JV_OBJECT || !type)
        return arg_type(error, name, "object");
    while (k < G_N_ELEMENTS(kinds) && strcmp(kinds[k], type))
        k++;
    if (k == G_N_ELEMENTS(kinds))
        return arg_value(error, "type", type);
    *e = (InputEvent){.kind = k, .down = jv_bool(jv_get(data, "down"))};
    if (k <= EVENT_BUTTON && jv_kind(jv_get(data, "down")) != JV_BOOL)
        return arg_type(error, "down", "boolean");
    g_autofree char *key_name = g_strconcat(name, ".data.key", NULL);
    return k == EVENT_KEY      ? read_key(jv_get(data, "key"), key_name, &e->code, error)
           : k == EVENT_BUTTON ? read_button(data, e, error)
                               : read_move(data, e, error);
}

/* Pointers take all of a movement at once: neighbours of one kind go together. */
typedef struct Pointer {
    int dx, dy, dz;
    bool rel, abs, changed;
} Pointer;

static void move(Control *c, Pointer *p)
{
    if (p->rel || (!p->abs && p->changed && !input_has_abs(c->config.input)))
        input_rel(c->config.input, p->dx, p->dy, p->abs ? 0 : p->dz, c->buttons);
    if (p->abs || (!p->rel && p->changed && input_has_abs(c->config.input)))
        input_abs(c->config.input, (unsigned)c->abs_x, (unsigned)c->abs_y, p->dz, c->buttons);
    *p = (Pointer){0};
}

static void play(Control *c, const InputEvent *e, Pointer *p)
{
    switch (e->kind) {
    case EVENT_KEY:
        move(c, p);
        input_key(c->config.input, e->code, e->down);
        break;
    case EVENT_BUTTON:
        p->changed = true;
        if (!e->code)
            p->dz += e->down ? e->value : 0;
        else if (e->down)
            c->buttons |= e->code;
        else
            c->buttons &= ~e->code;
        move(c, p); /* a press and its release are two things */
        break;
    case EVENT_REL:
        p->rel = true;
        if (e->y)
            p->dy += e->value;
        else
            p->dx += e->value;
        break;
    case EVENT_ABS:
        p->abs = true;
        /* QEMU's axes end at 0x7fff (INPUT_EVENT_ABS_MAX), ours at INPUT_ABS_MAX. */
        *(e->y ? &c->abs_y : &c->abs_x) =
            (int)((int64_t)CLAMP(e->value, 0, 0x7fff) * INPUT_ABS_MAX / 0x7fff);
        break;
    }
}

COMMAND_FN(cmd_input_event)
{
    Jv events = jv_get(args, "events");
    size_t n = jv_length(events);
    if (n > EVENTS_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "more than %u events at once", EVENTS_MAX);
    g_autofree InputEvent *list = g_new0(InputEvent, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (!read_event(jv_at(events, i), (unsigned)i, &list[i], error))
            return false;
    }
    if (!input_of(c, error))
        return false;
    Pointer p = {0};
    for (size_t i = 0; i < n; i++)
        play(c, &list[i], &p);
    move(c, &p);
    return true;
}
