/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query-qmp-schema: the commands, what they take, and the events, as QEMU 7.2 describes its own
 * (qapi/introspect.json: an array of SchemaInfo; types that are not built in go by numbers).
 *
 * It is printed from the rows that arguments are checked by, so it says what is taken. What is left
 * out: results and the data of events have no tables, so a result is "any" and an event's data is
 * an object of which no member is listed; elements of arrays are "any"; members that stand for
 * others (ARG_OTHERS) are not listed, as the back end or class decides what they are.
 */
#include <string.h>

#include "control_internal.h"

#define NO_MEMBERS "0" /* name of the object type without members */

static const struct {
    const char *name, *json;
} builtins[] = {{"any", "value"}, {"bool", "boolean"}, {"int", "int"}, {"str", "string"}};

typedef struct Schema {
    JsonOut *out;
    unsigned types; /* names of types that were given so far: 0 to types - 1 */
} Schema;

/* An entry, open, of that name. */
static void begin(Schema *s, const char *name, const char *kind)
{
    json_object(s->out, NULL);
    json_string(s->out, "name", name);
    json_string(s->out, "meta-type", kind);
}

static char *type_name(unsigned n)
{
    return g_strdup_printf("%u", n);
}

static bool is_enum(const CommandArg *a)
{
    return a->kind == ARG_STRING && a->values;
}

/* One member of the type that is open. *@next_type: name of the type that comes next. */
static void print_member(Schema *s, const CommandArg *a, unsigned *next_type)
{
    static const char *const kinds[] = {
        [ARG_STRING] = "str", [ARG_BOOL] = "bool", [ARG_INT] = "int", [ARG_ARRAY] = "[any]"};
    g_autofree char *own = is_enum(a) ? type_name((*next_type)++) : NULL;

    json_object(s->out, NULL);
    json_string(s->out, "name", a->name);
    if (a->optional)
        json_null(s->out, "default");
    json_string(s->out, "type", own ? own : kinds[a->kind]);
    json_end(s->out);
}

static void print_enum(Schema *s, const char *const *values)
{
    g_autofree char *name = type_name(s->types++);

    begin(s, name, "enum");
    json_array(s->out, "members");
    for (const char *const *v = values; *v; v++) {
        json_object(s->out, NULL);
        json_string(s->out, "name", *v);
        json_end(s->out);
    }
    json_end(s->out);
    json_array(s->out, "values");
    for (const char *const *v = values; *v; v++)
        json_string(s->out, NULL, *v);
    json_end(s->out);
    json_end(s->out);
}

static void print_command(Schema *s, const Command *cmd)
{
    bool takes = cmd->args && cmd->args->name && strcmp(cmd->args->name, ARG_OTHERS);
    g_autofree char *type = takes ? type_name(s->types++) : g_strdup(NO_MEMBERS);

    begin(s, cmd->name, "command");
    json_string(s->out, "arg-type", type);
    json_string(s->out, "ret-type", "any");
    json_bool(s->out, "allow-oob", false);
    json_end(s->out);
    if (!takes)
        return;
    unsigned next = s->types;
    begin(s, type, "object");
    json_array(s->out, "members");
    for (const CommandArg *a = cmd->args; a->name; a++) {
        if (strcmp(a->name, ARG_OTHERS))
            print_member(s, a, &next);
    }
    json_end(s->out);
    json_end(s->out);
    for (const CommandArg *a = cmd->args; a->name; a++) {
        if (is_enum(a))
            print_enum(s, a->values);
    }
}

COMMAND_FN(cmd_query_schema)
{
    Schema s = {control_return(r), 1};

    json_array(s.out, "return");
    print_command(&s, &command_negotiate);
    for (const Command *cmd = command_table; cmd->name; cmd++)
        print_command(&s, cmd);
    for (unsigned i = 0; i < CONTROL_EVENTS_COUNT; i++) {
        begin(&s, control_event_names[i], "event");
        json_string(s.out, "arg-type", NO_MEMBERS);
        json_end(s.out);
    }
    begin(&s, NO_MEMBERS, "object");
    json_array(s.out, "members");
    json_end(s.out);
    json_end(s.out);
    begin(&s, "[any]", "array");
    json_string(s.out, "element-type", "any");
    json_end(s.out);
    for (unsigned i = 0; i < G_N_ELEMENTS(builtins); i++) {
        begin(&s, builtins[i].name, "builtin");
        json_string(s.out, "json-type", builtins[i].json);
        json_end(s.out);
    }
    json_end(s.out);
    return true;
}
