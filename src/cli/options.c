/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line's grammar: long options "--name VALUE" or "--name=VALUE", single letters for a
 * few ("-p VALUE"), sub-options "key=value" between commas where a literal comma is doubled and
 * the first key may be left out, "--" before a command.
 *
 * Not offered, unlike getopt: abbreviated names and bundled letters. A script that leans on an
 * abbreviation breaks when an option is added.
 */
#include "options.h"

#include <string.h>

#include "lodge/device.h"
#include "lodge/error.h"

#define NEAR_LEN_MAX 40 /* longer words get no suggestion */

static void pair_free(gpointer p)
{
    OptPair *pair = p;

    g_free(pair->key);
    g_free(pair->value);
    g_free(pair);
}

static void value_free(gpointer p)
{
    OptValue *v = p;

    g_free(v->text);
    if (v->pairs)
        g_ptr_array_unref(v->pairs);
    g_free(v);
}

void options_free(Options *o)
{
    if (!o)
        return;
    g_ptr_array_unref(o->given);
    g_ptr_array_unref(o->args);
    g_free(o);
}

/* Distance of two words by insertions, deletions, replacements and swapped neighbours. */
static unsigned word_distance(const char *a, const char *b)
{
    unsigned row[3][NEAR_LEN_MAX + 1];
    size_t la = strlen(a), lb = strlen(b);

    if (la > NEAR_LEN_MAX || lb > NEAR_LEN_MAX)
        return UINT_MAX;
    for (size_t j = 0; j <= lb; j++)
        row[0][j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        unsigned *now = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];

        now[0] = (unsigned)i;
        for (size_t j = 1; j <= lb; j++) {
            unsigned d = up[j - 1] + (a[i - 1] != b[j - 1]);

            d = MIN(d, MIN(up[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d = MIN(d, up2[j - 2] + 1);
            now[j] = d;
        }
    }
    return row[la % 3][lb];
}

const char *name_nearest(const char *name, const char *(*next)(const void *opaque, unsigned i),
                         const void *opaque)
{
    const char *best = NULL, *s;
    /* A third of the word may be wrong; more is another word. */
    unsigned limit = MAX(1, (unsigned)strlen(name) / 3), best_d = limit + 1;

    for (unsigned i = 0; (s = next(opaque, i)); i++) {
        unsigned d = word_distance(name, s);

        if (d < best_d) {
            best_d = d;
            best = s;
        }
    }
    return best;
}

static const char *opt_name_next(const void *opaque, unsigned i)
{
    const OptSpec *t = opaque;

    for (; t->name; t++) {
        if (!(t->flags & OPT_REFUSED) && !i--)
            return t->name;
    }
    return NULL;
}

static const OptSpec *spec_find(const OptSpec *table, const char *name, size_t len)
{
    for (const OptSpec *s = table; s->name; s++) {
        if (strlen(s->name) == len && !memcmp(s->name, name, len))
            return s;
    }
    return NULL;
}

static const SubSpec *sub_find(const SubSpec *subs, const char *key)
{
    for (const SubSpec *s = subs; s->key; s++) {
        if (!strcmp(s->key, key))
            return s;
    }
    return NULL;
}

static char *sub_list(const SubSpec *subs)
{
    GString *out = g_string_new(NULL);

    for (const SubSpec *s = subs; s->key; s++)
        g_string_append_printf(out, "%s%s", out->len ? ", " : "", s->key);
    return g_string_free(out, FALSE);
}

/* Whether @allowed is a list of words ("on|off") rather than a placeholder ("FILE|DIR"). */
static bool is_choice(const char *allowed)
{
    return allowed && strchr(allowed, '|') && g_ascii_islower(allowed[0]);
}

static bool choice_has(const char *allowed, const char *value)
{
    size_t len = strlen(value);

    for (const char *s = allowed; s; s = strchr(s, '|') ? strchr(s, '|') + 1 : NULL) {
        if (strcspn(s, "|") == len && !memcmp(s, value, len))
            return true;
        /* A word in capitals stands for any text. */
        if (g_ascii_isupper(s[0]))
            return true;
    }
    return false;
}

static bool is_key(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!g_ascii_isalnum(s[i]) && s[i] != '-' && s[i] != '_')
            return false;
    }
    return len > 0;
}

/* The text up to the next single comma, doubled ones made one; *text moves behind the comma, or
 * to NULL at the end. Transfer full. */
static char *piece_take(const char **text)
{
    GString *out = g_string_new(NULL);
    const char *s = *text;

    for (; *s; s++) {
        if (*s == ',') {
            if (s[1] != ',')
                break;
            s++;
        }
        g_string_append_c(out, *s);
    }
    *text = *s ? s + 1 : NULL;
    return g_string_free(out, FALSE);
}

static bool sub_add(OptValue *v, const char *key, const char *value, GError **error)
{
    const OptSpec *o = v->spec;
    const SubSpec *s = sub_find(o->subs, key);
    OptPair *pair;

    if (!s && !(o->flags & OPT_OPEN)) {
        g_autofree char *list = sub_list(o->subs);

        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--%s: \"%s\": unknown sub-option; valid ones are %s", o->name, key,
                          list);
    }
    if (!value) {
        if (s && s->value)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: %s: needs a value; write %s=%s",
                              o->name, key, key, s->value);
        value = "on";
    }
    if (s && !s->value) {
        bool on;

        if (!parse_bool(value, &on))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: %s: \"%s\" is neither on nor off; write %s or %s=off", o->name,
                              key, value, key, key);
        value = on ? "on" : "off";
    }
    if (s && is_choice(s->value) && !choice_has(s->value, value))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: %s: \"%s\" is not one of %s", o->name,
                          key, value, s->value);
    if (s && !s->repeat && opt_sub(v, key))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: %s: given twice", o->name, key);
    pair = g_new0(OptPair, 1);
    pair->key = g_strdup(key);
    pair->value = g_strdup(value);
    g_ptr_array_add(v->pairs, pair);
    return true;
}

static bool subs_parse(OptValue *v, GError **error)
{
    const char *text = v->text;
    bool first = true;

    v->pairs = g_ptr_array_new_with_free_func(pair_free);
    while (text) {
        g_autofree char *piece = piece_take(&text);
        char *eq = strchr(piece, '=');

        if (!v->text[0])
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: is empty; write --%s %s",
                              v->spec->name, v->spec->name, v->spec->value);
        if (!piece[0])
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: \"%s\": an empty part; a literal comma is doubled",
                              v->spec->name, v->text);
        if (first && (!eq || !is_key(piece, (size_t)(eq - piece)))) {
            /* A path may hold an equals sign; a key never holds what makes a path. */
            if (!sub_add(v, v->spec->subs[0].key, piece, error))
                return false;
        } else if (eq) {
            *eq = '\0';
            if (!sub_add(v, piece, eq + 1, error))
                return false;
        } else if (!sub_add(v, piece, NULL, error)) {
            return false;
        }
        first = false;
    }
    return true;
}

static bool option_add(Options *o, const OptSpec *spec, const char *text, GError **error)
{
    OptValue *v;

    if (spec->flags & OPT_REFUSED)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--%s: not supported by this version; leave it away", spec->name);
    if (!(spec->flags & OPT_REPEAT) && options_has(o, spec->name))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: given twice; give it once", spec->name);
    v = g_new0(OptValue, 1);
    v->spec = spec;
    v->text = g_strdup(text);
    g_ptr_array_add(o->given, v);
    return !spec->subs || !text || subs_parse(v, error);
}

static bool unknown_option(const OptSpec *table, const char *word, size_t len, GError **error)
{
    g_autofree char *name = g_strndup(word, len);
    const char *near = name_nearest(name, opt_name_next, table);

    if (near)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: unknown option; did you mean --%s?",
                          name, near);
    return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: unknown option; see --help", name);
}

/* The option that @word is, and its value where that stands in the same word. */
static const OptSpec *word_spec(const OptSpec *table, const char *word, const char **ret_value)
{
    *ret_value = NULL;
    if (!strncmp(word, "--", 2)) {
        const char *eq = strchr(word, '=');

        if (eq)
            *ret_value = eq + 1;
        return spec_find(table, word + 2, eq ? (size_t)(eq - word - 2) : strlen(word + 2));
    }
    for (const OptSpec *s = table; s->name; s++) {
        if (s->letter && s->letter == word[1]) {
            if (word[2])
                *ret_value = word + 2 + (word[2] == '=');
            return s;
        }
    }
    return NULL;
}

static bool is_option(const char *word)
{
    return word[0] == '-' && word[1];
}

Options *options_parse(const OptSpec *table, int argc, char **argv, unsigned max_args,
                       GError **error)
{
    g_autoptr(Options) o = g_new0(Options, 1);

    o->given = g_ptr_array_new_with_free_func(value_free);
    o->args = g_ptr_array_new();
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i], *value;
        const OptSpec *spec;

        if (!strcmp(word, "--")) {
            o->command = argv + i + 1;
            o->command_len = argc - i - 1;
            break;
        }
        if (!is_option(word)) {
            if (o->args->len >= max_args) {
                lodge_fail(error, LODGE_ERROR_CONFIG,
                           max_args ? "\"%s\": one word too many; options begin with --"
                                    : "\"%s\": takes options only",
                           word);
                return NULL;
            }
            g_ptr_array_add(o->args, argv[i]);
            continue;
        }
        spec = word_spec(table, word, &value);
        if (!spec && word[1] != '-') {
            lodge_fail(error, LODGE_ERROR_CONFIG, "%s: unknown option; see --help", word);
            return NULL;
        }
        if (!spec) {
            unknown_option(table, word + 2, strcspn(word + 2, "="), error);
            return NULL;
        }
        if (!spec->value && value) {
            lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: takes no value, but has \"%s\"",
                       spec->name, value);
            return NULL;
        }
        /* What is refused is refused without a look at its value. */
        if (spec->value && !value && !(spec->flags & (OPT_REFUSED | OPT_MAYBE))) {
            if (i + 1 >= argc) {
                lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: needs a value; write --%s %s",
                           spec->name, spec->name, spec->value);
                return NULL;
            }
            value = argv[++i];
        }
        if (!option_add(o, spec, value, error))
            return NULL;
    }
    return g_steal_pointer(&o);
}

bool options_have_flag(const OptSpec *table, int argc, char **argv, const char *name)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++) {
        const OptSpec *spec;
        const char *value;

        if (!is_option(argv[i]))
            continue;
        if (!strncmp(argv[i], "--", 2) && !strcmp(argv[i] + 2, name))
            return true;
        spec = word_spec(table, argv[i], &value);
        if (spec && spec->value && !value && !(spec->flags & OPT_MAYBE))
            i++;
    }
    return false;
}

bool options_want_help(const OptSpec *table, int argc, char **argv)
{
    if (options_have_flag(table, argc, argv, "help"))
        return true;
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++) {
        const OptSpec *spec;
        const char *value;

        if (!strcmp(argv[i], "-h"))
            return true;
        spec = is_option(argv[i]) ? word_spec(table, argv[i], &value) : NULL;
        if (spec && spec->value && !value && !(spec->flags & OPT_MAYBE))
            i++;
    }
    return false;
}

const OptValue *options_next(const Options *o, const char *name, const OptValue *after)
{
    bool past = !after;

    for (guint i = 0; i < o->given->len; i++) {
        const OptValue *v = g_ptr_array_index(o->given, i);

        if (past && !strcmp(v->spec->name, name))
            return v;
        past = past || v == after;
    }
    return NULL;
}

bool options_has(const Options *o, const char *name)
{
    return options_next(o, name, NULL) != NULL;
}

const char *options_text(const Options *o, const char *name)
{
    const OptValue *v = options_next(o, name, NULL);

    return v ? v->text : NULL;
}

const char *opt_sub(const OptValue *v, const char *key)
{
    for (guint i = 0; v->pairs && i < v->pairs->len; i++) {
        const OptPair *p = g_ptr_array_index(v->pairs, i);

        if (!strcmp(p->key, key))
            return p->value;
    }
    return NULL;
}

bool opt_sub_on(const OptValue *v, const char *key)
{
    const char *text = opt_sub(v, key);
    bool on;

    return text && parse_bool(text, &on) && on;
}
