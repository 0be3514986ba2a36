/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query-qmp-schema: the commands, what they take, and the events, as QEMU 7.2 describes its own
 * (qapi/introspect.json: an array of SchemaInfo; types that are not built in go by numbers).
 *
 * It is printed from the rows of the commands, which arguments are checked by, so it says what is
 * taken, and from rows of events' data here. What is left out: elements of arrays in arguments are
 * "any"; members that stand for others (ARG_OTHERS) are not listed, as the back end or class decides
 * what they are.
 */
#include <string.h>

#include "command_results.h"
#include "control_internal.h"

static const struct {
    const char *name, *json;
} builtins[] = {{"any", "value"}, {"bool", "boolean"}, {"int", "int"}, {"str", "string"}};

/* ---- what events tell ---- */

static const char *const directions[] = {"read", "write", NULL};
static const char *const disk_actions[] = {"ignore", "report", "stop", NULL};
static const char *const panic_actions[] = {"pause", "poweroff", "run", NULL};

static const CommandArg cause_data[] = {{"guest", ARG_BOOL}, {"reason", ARG_STRING}, {NULL}};
#define JOB_MEMBERS                                                                                \
    {"device", ARG_STRING}, {"len", ARG_INT}, {"offset", ARG_INT}, {"speed", ARG_INT},             \
        {"type", ARG_STRING}
static const CommandArg job_data[] = {JOB_MEMBERS, {NULL}};
static const CommandArg job_end_data[] = {JOB_MEMBERS, {"error", ARG_STRING, true}, {NULL}};
static const CommandArg job_error_data[] = {
    {"device", ARG_STRING},
    {"operation", ARG_STRING, .values = directions},
    {"action", ARG_STRING, .values = disk_actions},
    {NULL},
};
static const CommandArg disk_error_data[] = {
    {"device", ARG_STRING},
    {"node-name", ARG_STRING, true},
    {"operation", ARG_STRING, .values = directions},
    {"action", ARG_STRING, .values = disk_actions},
    {"nospace", ARG_BOOL, true},
    {"reason", ARG_STRING},
    {NULL},
};
static const CommandArg deleted_data[] = {
    {"device", ARG_STRING, true}, {"path", ARG_STRING}, {NULL}};
static const CommandArg tray_data[] = {
    {"device", ARG_STRING}, {"id", ARG_STRING}, {"tray-open", ARG_BOOL}, {NULL}};
static const CommandArg panic_data[] = {
    {"action", ARG_STRING, .values = panic_actions}, {NULL}};
static const CommandArg job_status_data[] = {{"status", ARG_STRING}, {"id", ARG_STRING}, {NULL}};
static const CommandArg watchdog_data[] = {{"action", ARG_STRING}, {NULL}};

/* NULL: the event has no data. */
static const CommandArg *const event_data[CONTROL_EVENTS_COUNT] = {
    [EVENT_BALLOON_CHANGE] = balloon_result,
    [EVENT_BLOCK_IO_ERROR] = disk_error_data,
    [EVENT_BLOCK_JOB_CANCELLED] = job_data,
    [EVENT_BLOCK_JOB_COMPLETED] = job_end_data,
    [EVENT_BLOCK_JOB_ERROR] = job_error_data,
    [EVENT_BLOCK_JOB_READY] = job_data,
    [EVENT_DEVICE_DELETED] = deleted_data,
    [EVENT_DEVICE_TRAY_MOVED] = tray_data,
    [EVENT_GUEST_PANICKED] = panic_data,
    [EVENT_JOB_STATUS_CHANGE] = job_status_data,
    [EVENT_RESET] = cause_data,
    [EVENT_SHUTDOWN] = cause_data,
    [EVENT_WATCHDOG] = watchdog_data,
};

/* ---- entries ---- */

/* A type that is not built in. Its name is the number of its place, an array's "[ELEMENT]". */
typedef struct Type {
    const void *table;   /* of members, or of an enum's values */
    const char *element; /* of an array, owned; else NULL */
    bool is_enum;
} Type;

typedef struct Schema {
    JsonOut *out;
    GArray *types; /* Type: what was spoken of, each once */
} Schema;

static void type_clear(void *t)
{
    g_free((char *)((Type *)t)->element);
}

/* The place of a type; it is told of once those who speak of it have been. */
static unsigned type_place(Schema *s, Type t)
{
    for (unsigned i = 0; i < s->types->len; i++) {
        const Type *known = &g_array_index(s->types, Type, i);
        if (known->table == t.table && !g_strcmp0(known->element, t.element)) {
            type_clear(&t);
            return i;
        }
    }
    g_array_append_val(s->types, t);
    return s->types->len - 1;
}

static char *object_name(Schema *s, const CommandArg *members)
{
    return g_strdup_printf("%u", type_place(s, (Type){.table = members}));
}

static char *array_name(Schema *s, const CommandArg *of)
{
    char *element = !of                     ? g_strdup("any")
                    : of == command_strings ? g_strdup("str")
                                            : object_name(s, of);
    char *name = g_strdup_printf("[%s]", element);

    (void)type_place(s, (Type){.element = element});
    return name;
}

/* The name of what a row describes; transfer full. */
static char *type_name(Schema *s, const CommandArg *a)
{
    static const char *const kinds[] = {
        [ARG_STRING] = "str", [ARG_BOOL] = "bool", [ARG_INT] = "int", [ARG_ANY] = "any"};

    if (a->kind == ARG_OBJECT)
        return object_name(s, a->of);
    if (a->kind == ARG_ARRAY)
        return array_name(s, a->of);
    if (a->kind == ARG_STRING && a->values)
        return g_strdup_printf("%u", type_place(s, (Type){.table = a->values, .is_enum = true}));
    return g_strdup(kinds[a->kind]);
}

/* An entry, open, of that name. */
static void begin(Schema *s, const char *name, const char *kind)
{
    json_object(s->out, NULL);
    json_string(s->out, "name", name);
    json_string(s->out, "meta-type", kind);
}

static void print_enum(Schema *s, const char *const *values)
{
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
}

static void print_members(Schema *s, const CommandArg *members)
{
    json_array(s->out, "members");
    for (const CommandArg *a = members; a->name; a++) {
        if (!strcmp(a->name, ARG_OTHERS))
            continue;
        g_autofree char *type = type_name(s, a);
        json_object(s->out, NULL);
        json_string(s->out, "name", a->name);
        if (a->optional)
            json_null(s->out, "default");
        json_string(s->out, "type", type);
        json_end(s->out);
    }
    json_end(s->out);
}

static void print_type(Schema *s, unsigned place)
{
    const Type t = g_array_index(s->types, Type, place); /* more may come meanwhile */
    g_autofree char *name = t.element ? g_strdup_printf("[%s]", t.element)
                                      : g_strdup_printf("%u", place);

    begin(s, name, t.element ? "array" : t.is_enum ? "enum" : "object");
    if (t.element)
        json_string(s->out, "element-type", t.element);
    else if (t.is_enum)
        print_enum(s, t.table);
    else
        print_members(s, t.table);
    json_end(s->out);
}

static const CommandArg no_members[] = {{NULL}};

/* The members that @table says, ARG_OTHERS aside; NULL: there is no table. */
static char *members_name(Schema *s, const CommandArg *table)
{
    bool any = table && table->name && strcmp(table->name, ARG_OTHERS);

    return object_name(s, any ? table : no_members);
}

static void print_command(Schema *s, const Command *cmd)
{
    g_autofree char *takes = members_name(s, cmd->args);
    g_autofree char *answers = cmd->result ? type_name(s, cmd->result) : members_name(s, NULL);

    begin(s, cmd->name, "command");
    json_string(s->out, "arg-type", takes);
    json_string(s->out, "ret-type", answers);
    json_bool(s->out, "allow-oob", false);
    json_end(s->out);
}

static void print_event(Schema *s, ControlEvent what)
{
    g_autofree char *data = members_name(s, event_data[what]);

    begin(s, control_event_names[what], "event");
    json_string(s->out, "arg-type", data);
    json_end(s->out);
}

COMMAND_FN(cmd_query_schema)
{
    g_autoptr(GArray) types = g_array_new(FALSE, FALSE, sizeof(Type));
    Schema s = {control_return(r), types};

    g_array_set_clear_func(types, type_clear);
    json_array(s.out, "return");
    print_command(&s, &command_negotiate);
    for (const Command *cmd = command_table; cmd->name; cmd++)
        print_command(&s, cmd);
    for (unsigned i = 0; i < CONTROL_EVENTS_COUNT; i++)
        print_event(&s, (ControlEvent)i);
    for (unsigned i = 0; i < types->len; i++)
        print_type(&s, i);
    for (unsigned i = 0; i < G_N_ELEMENTS(builtins); i++) {
        begin(&s, builtins[i].name, "builtin");
        json_string(s.out, "json-type", builtins[i].json);
        json_end(s.out);
    }
    json_end(s.out);
    return true;
}
