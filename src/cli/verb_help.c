/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Help on the terminal and man pages in scdoc's format, both printed from verb_table[].
 *
 * scdoc (5) gives _ * # \ ~ [ ] and leading tabs, dashes and dots a meaning; text from the tables
 * is escaped on the way out, so tables hold plain text.
 */
#include <stdio.h>
#include <string.h>

#include "lodge/error.h"

#include "cli.h"

#define HELP_WIDTH 80
#define HELP_INDENT 6

const OptSpec help_options_table[] = {
    {"man", 0, NULL, "Print the man page's source for scdoc."},
    {NULL},
};

/* ---- terminal ---- */

/* Print @text wrapped to the width, each line behind @indent blanks. */
static void print_wrapped(const char *text, int indent)
{
    g_auto(GStrv) words = g_strsplit(text, " ", -1);
    int at = 0;

    for (char **w = words; *w; w++) {
        int len = (int)g_utf8_strlen(*w, -1);

        if (!at) {
            printf("%*s%s", indent, "", *w);
            at = indent + len;
        } else if (at + 1 + len > HELP_WIDTH) {
            printf("\n%*s%s", indent, "", *w);
            at = indent + len;
        } else {
            printf(" %s", *w);
            at += 1 + len;
        }
    }
    printf("\n");
}

static void print_paragraphs(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, "\n\n", -1);

    for (char **p = parts; *p; p++) {
        printf("\n");
        print_wrapped(*p, 0);
    }
}

static bool is_listed(const OptSpec *o)
{
    return !(o->flags & OPT_REFUSED);
}

static void print_option(const OptSpec *o)
{
    printf("  ");
    if (o->letter)
        printf("-%c, ", o->letter);
    const char *join = !o->value ? "" : o->flags & OPT_MAYBE ? "[=" : " ";
    printf("--%s%s%s%s\n", o->name, join, o->value ? o->value : "", join[0] == '[' ? "]" : "");
    print_wrapped(o->help, HELP_INDENT);
    for (const SubSpec *s = o->subs; s && s->key; s++) {
        g_autofree char *line = s->value ? g_strdup_printf("%s=%s: %s", s->key, s->value, s->help)
                                         : g_strdup_printf("%s: %s", s->key, s->help);

        print_wrapped(line, HELP_INDENT + 2);
    }
}

static void print_verbs(const Verb *rows)
{
    for (const Verb *v = rows; v->name; v++)
        printf("  %-12s %s\n", verb_word(v), v->help);
}

static void print_all(void)
{
    printf("Usage: lodge VERB [OPTION]...\n"
           "Virtual machines on Linux, from the command line.\n\n");
    print_verbs(verb_table);
    printf("\nlodge help VERB tells more. A first machine:\n"
           "  lodge run --kernel /boot/vmlinuz-$(uname -r) --disk root.img\n");
}

void help_print(const Verb *v)
{
    if (!v) {
        print_all();
        return;
    }
    printf("Usage: lodge %s %s\n", v->name, v->synopsis);
    printf("%c%s.\n", g_ascii_toupper(v->help[0]), v->help + 1);
    print_paragraphs(v->text);
    if (v->verbs) {
        printf("\nVerbs:\n");
        print_verbs(v->verbs);
        printf("\nlodge %s VERB --help tells more.\n", v->name);
    }
    if (v->opts->name)
        printf("\nOptions:\n");
    for (const OptSpec *o = v->opts; o->name; o++) {
        if (is_listed(o))
            print_option(o);
    }
    const char *form, *help;
    for (unsigned i = 0; v->word && v->word(i, &form, &help); i++) {
        printf("%s  %s\n", i ? "" : "\nWords:\n", form);
        print_wrapped(help, HELP_INDENT);
    }
    for (const VerbExample *e = v->examples; e && e->line; e++) {
        printf("%s  %s\n", e == v->examples ? "\nExamples:\n" : "", e->line);
        print_wrapped(e->text, HELP_INDENT);
    }
    if (!strcmp(v->name, "run")) {
        printf("\nExit status:\n");
        for (const StatusText *s = cli_status_texts; s->text; s++)
            printf("  %-6s %s\n", s->label, s->text);
    }
}

/* ---- scdoc ---- */

static void man_text(const char *text)
{
    for (const char *s = text; *s; s++) {
        /* A dash begins a list only where a line begins. */
        if (strchr("_*#\\~[]<>`|", *s) || (*s == '-' && s == text))
            putchar('\\');
        putchar(*s);
    }
}

static void man_bold(const char *text)
{
    putchar('*');
    man_text(text);
    putchar('*');
}

static void man_option(const OptSpec *o)
{
    if (o->letter)
        printf("*-%c*, ", o->letter);
    printf("*--%s*", o->name);
    if (o->value) {
        bool maybe = o->flags & OPT_MAYBE;

        man_text(maybe ? "[=" : " ");
        man_text(o->value);
        man_text(maybe ? "]" : "");
    }
    printf("\n\t");
    man_text(o->help);
    printf("\n\n");
    for (const SubSpec *s = o->subs; s && s->key; s++) {
        printf("\t- ");
        man_bold(s->key);
        if (s->value) {
            putchar('=');
            man_text(s->value);
        }
        printf(": ");
        man_text(s->help);
        printf("\n");
    }
    if (o->subs)
        printf("\n");
}

static void man_statuses(void)
{
    printf("# EXIT STATUS\n\n");
    for (const StatusText *s = cli_status_texts; s->text; s++) {
        man_bold(s->label);
        printf("\n\t");
        man_text(s->text);
        printf("\n\n");
    }
}

static void man_options(const Verb *v)
{
    for (const OptSpec *o = v->opts; o->name; o++) {
        if (is_listed(o))
            man_option(o);
    }
}

static void man_examples(const Verb *v)
{
    for (const VerbExample *e = v->examples; e && e->line; e++) {
        man_text(e->text);
        printf("\n\n```\n%s\n```\n\n", e->line);
    }
}

/* A family's page has a section for each of its verbs. */
static void man_rows(const Verb *family)
{
    for (const Verb *v = family->verbs; v->name; v++) {
        printf("# LODGE ");
        for (const char *s = v->name; *s; s++)
            putchar(g_ascii_toupper(*s));
        printf("\n\n*lodge %s* ", v->name);
        man_text(v->synopsis);
        printf("\n\n");
        man_text(v->text);
        printf("\n\n");
        man_options(v);
        man_examples(v);
    }
}

static void man_verb(const Verb *v)
{
    printf("lodge-%s(1)\n\n# NAME\n\nlodge-%s - ", v->name, v->name);
    man_text(v->help);
    printf("\n\n# SYNOPSIS\n\n*lodge %s* ", v->name);
    man_text(v->synopsis);
    printf("\n\n# DESCRIPTION\n\n");
    man_text(v->text);
    printf("\n\n");
    if (v->opts->name)
        printf("# OPTIONS\n\n");
    man_options(v);
    const char *form, *help;
    for (unsigned i = 0; v->word && v->word(i, &form, &help); i++) {
        printf("%s", i ? "" : "# WORDS\n\n");
        man_bold(form);
        printf("\n\t");
        man_text(help);
        printf("\n\n");
    }
    if (v->verbs)
        man_rows(v);
    if (v->examples)
        printf("# EXAMPLES\n\n");
    man_examples(v);
    man_statuses();
    printf("# SEE ALSO\n\n*lodge*(1)\n");
}

static void man_all(void)
{
    printf("lodge(1)\n\n# NAME\n\nlodge - virtual machines from the command line\n\n"
           "# SYNOPSIS\n\n*lodge* VERB \\[OPTION\\]...\n\n# DESCRIPTION\n\n"
           "Lodge runs virtual machines on Linux hosts by KVM: one process a machine, no daemon, "
           "no root. Data go to standard output, everything else to standard error. Colour is used "
           "on a terminal only, and not where NO\\_COLOR is set.\n\n# VERBS\n\n");
    for (const Verb *v = verb_table; v->name; v++) {
        printf("*lodge %s* ", v->name);
        man_text(v->synopsis);
        printf("\n\t");
        man_text(v->help);
        printf("\n\n");
    }
    man_statuses();
    printf("# FILES\n\n_/dev/kvm_\n\tThe host's virtualization. *lodge doctor* says whether it can "
           "be used.\n\n_$XDG_CACHE_HOME/lodge_\n\tUnpacked kernels; may be removed at any "
           "time.\n\n# SEE ALSO\n\n");
    for (const Verb *v = verb_table; v->name; v++)
        printf("%s*lodge-%s*(1)", v == verb_table ? "" : ", ", v->name);
    printf("\n");
}

int verb_help(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 2, &error);
    const Verb *v = NULL;

    for (guint i = 0; o && i < o->args->len && !error; i++) {
        const char *name = g_ptr_array_index(o->args, i);
        const Verb *family = v;

        v = family && !family->verbs ? NULL : verb_find(family, name);
        if (!v) {
            const char *near = family && !family->verbs ? NULL : verb_nearest(family, name);

            lodge_fail(&error, LODGE_ERROR_CONFIG, "\"%s\": no such verb; %s%s%s", name,
                       near ? "did you mean " : "lodge help lists them", near ? near : "",
                       near ? "?" : "");
        }
    }
    if (error)
        return cli_fail(self->name, error, false);
    if (!options_has(o, "man"))
        help_print(v);
    else if (v)
        man_verb(v);
    else
        man_all();
    return cli_finish(STATUS_OK);
}
