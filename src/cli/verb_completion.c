/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "lodge completion bash": a script made from the tables, so it knows what this version knows. */
#include <stdio.h>
#include <string.h>

#include "lodge/device.h"
#include "lodge/error.h"

#include "cli.h"

/* Whether the option's value begins with a file's name. */
static bool takes_file(const OptSpec *o)
{
    return o->value && (g_str_has_prefix(o->value, "FILE") || g_str_has_prefix(o->value, "DIR"));
}

/* The words that an option's value is one of; NULL: something else. Transfer full. */
static char *choices(const OptSpec *o)
{
    char *list;

    if (!o->value || !strchr(o->value, '|') || !g_ascii_islower(o->value[0]))
        return NULL;
    list = g_strdup(o->value);
    for (char *s = list; *s; s++) {
        if (*s == '|')
            *s = ' ';
    }
    return list;
}

static void print_options(const Verb *v);

/* A family's second word is one of its verbs; what follows belongs to that. */
static void print_family(const Verb *family)
{
    printf("        %s)\n            files=1\n            case ${COMP_WORDS[2]} in\n",
           family->name);
    for (const Verb *v = family->verbs; v->name; v++)
        print_options(v);
    printf("            esac\n            [ -z \"$words\" ] || files=\n"
           "            [ \"$COMP_CWORD\" -ne 2 ] || { files=; words=\"");
    for (const Verb *v = family->verbs; v->name; v++)
        printf("%s%s", v == family->verbs ? "" : " ", verb_word(v));
    printf("\"; }\n            case $cur in -*) files= ;; esac ;;\n");
}

static void print_options(const Verb *v)
{
    if (v->verbs) {
        print_family(v);
        return;
    }
    printf("        %s)\n            opts=\"--help", verb_word(v));
    for (const OptSpec *o = v->opts; o->name; o++) {
        if (!(o->flags & OPT_REFUSED))
            printf(" --%s", o->name);
    }
    printf("\"\n            case $prev in\n");
    for (const OptSpec *o = v->opts; o->name; o++) {
        g_autofree char *words = choices(o);

        if (o->flags & (OPT_REFUSED | OPT_MAYBE) || !o->value)
            continue;
        if (!strcmp(o->name, "device"))
            printf("                --device) words=$devices ;;\n");
        else if (takes_file(o))
            printf("                --%s) files=1 ;;\n", o->name);
        else if (words && !strpbrk(words, "[]"))
            printf("                --%s) words=\"%s\" ;;\n", o->name, words);
        else
            printf("                --%s) return ;;\n", o->name);
    }
    printf("            esac ;;\n");
}

/* Verbs whose words are names of machines: "a|b|c". */
static void print_name_verbs(void)
{
    const char *join = "";

    for (const Verb *v = verb_table; v->name; v++) {
        const char *name = strstr(v->synopsis, "NAME");

        if (!name || v->verbs || (name != v->synopsis && !strchr(" [", name[-1])) ||
            !strcmp(v->name, "devices"))
            continue;
        printf("%s%s", join, v->name);
        join = "|";
    }
}

static void print_bash(void)
{
    printf("# bash completion for lodge, printed by: lodge completion bash\n"
           "_lodge()\n{\n"
           "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    local opts= words= files= verbs=\"");
    for (const Verb *v = verb_table; v->name; v++)
        printf("%s%s", v == verb_table ? "" : " ", v->name);
    printf("\" devices=\"");
    for (const DeviceClass *const *c = device_table; *c; c++) {
        if ((*c)->bus)
            printf("%s ", (*c)->name);
    }
    printf("\"\n    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
           "        COMPREPLY=($(compgen -W \"$verbs --help --version\" -- \"$cur\"))\n"
           "        return\n    fi\n"
           "    case ${COMP_WORDS[1]} in\n");
    for (const Verb *v = verb_table; v->name; v++)
        print_options(v);
    printf("    esac\n"
           "    case ${COMP_WORDS[1]} in\n"
           "        ");
    print_name_verbs();
    printf(")\n            [ -n \"$words$files\" ] || words=$(lodge list -q 2>/dev/null) ;;\n"
           "        help) [ -n \"$words\" ] || words=$verbs ;;\n"
           "        completion) words=bash ;;\n"
           "        devices) words=$devices ;;\n"
           "    esac\n"
           "    if [ -n \"$files\" ]; then\n"
           "        compopt -o filenames\n"
           "        COMPREPLY=($(compgen -f -- \"$cur\"))\n"
           "    else\n"
           "        case $cur in -*) words=$opts ;; esac\n"
           "        COMPREPLY=($(compgen -W \"${words:-$opts}\" -- \"$cur\"))\n"
           "    fi\n"
           "}\n"
           "complete -F _lodge lodge\n");
}

int verb_completion(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    const char *shell = o && o->args->len ? g_ptr_array_index(o->args, 0) : NULL;

    if (o && g_strcmp0(shell, "bash"))
        lodge_fail(&error, LODGE_ERROR_CONFIG, "\"%s\": not a shell that is known; write bash",
                   shell ? shell : "");
    if (error)
        return cli_fail(self->name, error, false);
    print_bash();
    return cli_finish(STATUS_OK);
}
