/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_OPTIONS_H
#define LODGE_OPTIONS_H

/*
 * Tables of options, and the parser over them. Help, man pages and completion are printed from
 * the same tables.
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

/* A sub-option: key=value between commas. */
typedef struct SubSpec {
    const char *key;   /* NULL ends a table; the first row's key may be left out on the line */
    const char *value; /* "FILE", or what is allowed: "on|off"; NULL: the bare word will do (ro) */
    const char *help;
    bool repeat;
} SubSpec;

enum {
    OPT_REPEAT = 1 << 0,  /* may be given several times */
    OPT_OPEN = 1 << 1,    /* keys beyond subs are taken; the verb checks them */
    OPT_MAYBE = 1 << 3,   /* the value may be left out; it stands behind "=" only */
    OPT_RUN = 1 << 4,     /* about one run of a machine, no part of its definition */
    OPT_REFUSED = 1 << 2, /* part of the grammar, not of this version: an error, not in help */
};

typedef struct OptSpec {
    const char *name; /* without dashes; NULL ends a table */
    char letter;      /* -p; 0: none */
    const char *value; /* what stands behind it in help; NULL: a flag */
    const char *help;  /* one line or more; scdoc mark-up is escaped where it is printed */
    const SubSpec *subs; /* NULL: the value is taken as it stands, commas too */
    unsigned flags;
} OptSpec;

typedef struct OptPair {
    char *key, *value; /* owned */
} OptPair;

typedef struct OptValue {
    const OptSpec *spec; /* borrowed from the table */
    char *text;          /* owned; NULL for a flag */
    GPtrArray *pairs;    /* OptPair, owned, in order; NULL without subs */
} OptValue;

typedef struct Options {
    GPtrArray *given; /* OptValue, owned, in the order of the line */
    GPtrArray *args;  /* char *, borrowed from argv: words that are no option */
    char **command;   /* borrowed from argv: what followed "--"; NULL: no "--" */
    int command_len;
} Options;

/**
 * options_parse() - Read a verb's words by its table
 * @table: the verb's options
 * @argc:  count of @argv; @argv: the words behind the verb, borrowed, must outlive the result
 * @max_args: how many words may be no option
 * Return: transfer full, or NULL with LODGE_ERROR_CONFIG that names the word, why, and what to
 *         write instead.
 */
Options *options_parse(const OptSpec *table, int argc, char **argv, unsigned max_args,
                       GError **error);
void options_free(Options *o); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Options, options_free)

/* Whether --help or -h stands where an option may stand; never fails on a wrong line. */
bool options_want_help(const OptSpec *table, int argc, char **argv);
/* Whether flag --@name stands where an option may stand, even on a line that is wrong elsewhere. */
bool options_have_flag(const OptSpec *table, int argc, char **argv, const char *name);

bool options_has(const Options *o, const char *name);
/* Text of an option; NULL: not given. Transfer none. */
const char *options_text(const Options *o, const char *name);
/* The next occurrence of --@name behind @after (NULL: the first); NULL: no more. */
const OptValue *options_next(const Options *o, const char *name, const OptValue *after);
/* Value of sub-option @key (the first such); NULL: not given. Transfer none. */
const char *opt_sub(const OptValue *v, const char *key);
/* Sub-option @key is there and says on. */
bool opt_sub_on(const OptValue *v, const char *key);

/**
 * name_nearest() - Which of some names a mistyped one stands for
 * @name:  what was typed
 * @next:  answers the names one by one, NULL at the end; @i counts from 0
 * Return: transfer none, NULL when none is near.
 */
const char *name_nearest(const char *name, const char *(*next)(const void *opaque, unsigned i),
                         const void *opaque);

#endif
