/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query-qmp-schema: the commands, what they take, and the events, as QEMU 7.2 describes its own
 * (qapi/introspect.json: an array of SchemaInfo; types that are not built in go by numbers).
 *
 * It is printed from the rows that arguments are checked by, so it says what is taken, and from rows
 * of results and of events' data here. What is left out: results without a row, which are deep, are
 * "any"; elements of arrays in others are "any"; members that stand for others (ARG_OTHERS) are not
 * listed, as the back end or class decides what they are.
 */
#include <string.h>

#include "control_internal.h"

#define NO_MEMBERS "0" /* name of the object type without members */

static const struct {
    const char *name, *json;
} builtins[] = {{"any", "value"}, {"bool", "boolean"}, {"int", "int"}, {"str", "string"}};

/* ---- what is answered and told ---- */

static const char *const states[] = {"running", "paused", "prelaunch", "io-error", "shutdown",
                                     "guest-panicked", "watchdog", NULL};
static const char *const directions[] = {"read", "write", NULL};
static const char *const disk_actions[] = {"ignore", "report", "stop", NULL};
static const char *const panic_actions[] = {"pause", "poweroff", "run", NULL};

static const CommandArg status_result[] = {
    {"status", ARG_STRING, .values = states},
    {"singlestep", ARG_BOOL},
    {"running", ARG_BOOL},
    {NULL},
};
static const CommandArg kvm_result[] = {{"enabled", ARG_BOOL}, {"present", ARG_BOOL}, {NULL}};
static const CommandArg name_result[] = {{"name", ARG_STRING, true}, {NULL}};
static const CommandArg uuid_result[] = {{"UUID", ARG_STRING}, {NULL}};
static const CommandArg balloon_result[] = {{"actual", ARG_INT}, {NULL}};
static const CommandArg memory_result[] = {
    {"base-memory", ARG_INT}, {"plugged-memory", ARG_INT, true}, {NULL}};
static const CommandArg target_result[] = {{"arch", ARG_STRING}, {NULL}};
static const CommandArg current_result[] = {{"wakeup-suspend-support", ARG_BOOL}, {NULL}};
static const CommandArg command_result[] = {{"name", ARG_STRING}, {NULL}};
static const CommandArg chardev_result[] = {
    {"frontend-open", ARG_BOOL}, {"filename", ARG_STRING}, {"label", ARG_STRING}, {NULL}};
static const CommandArg machine_result[] = {
    {"hotpluggable-cpus", ARG_BOOL},
    {"name", ARG_STRING},
    {"numa-mem-supported", ARG_BOOL},
    {"default-cpu-type", ARG_STRING, true},
    {"cpu-max", ARG_INT},
    {"is-default", ARG_BOOL, true},
    {"deprecated", ARG_BOOL},
    {NULL},
};

typedef struct Result {
    const char *command;
    const CommandArg *members;
    bool list; /* of such objects */
} Result;

static const Result results[] = {
    {"query-status", status_result},
    {"query-kvm", kvm_result},
    {"query-name", name_result},
    {"query-uuid", uuid_result},
    {"query-balloon", balloon_result},
    {"query-memory-size-summary", memory_result},
    {"query-target", target_result},
    {"query-current-machine", current_result},
    {"query-commands", command_result, true},
    {"query-chardev", chardev_result, true},
    {"query-machines", machine_result, true},
};

/* Commands that answer an empty object. */
static const char *const silent[] = {
    "qmp_capabilities", "add_client", "balloon", "block-commit", "block-job-cancel",
    "block-job-complete", "block-job-set-speed", "block_resize", "block_set_io_throttle",
    "blockdev-add", "blockdev-change-medium", "blockdev-del", "blockdev-snapshot-sync", "closefd",
    "cont", "device_add", "device_del", "eject", "getfd", "input-send-event", "job-cancel",
    "job-complete", "netdev_add", "netdev_del", "qom-set", "quit", "screendump", "send-key",
    "set-action", "set_link", "stop", "system_powerdown", "system_reset", "watchdog-set-action",
    NULL,
};

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

/* The object type @name, and the enums that it speaks of. */
static void print_object(Schema *s, const char *name, const CommandArg *members)
{
    unsigned next = s->types;

    begin(s, name, "object");
    json_array(s->out, "members");
    for (const CommandArg *a = members; a->name; a++) {
        if (strcmp(a->name, ARG_OTHERS))
            print_member(s, a, &next);
    }
    json_end(s->out);
    json_end(s->out);
    for (const CommandArg *a = members; a->name; a++) {
        if (is_enum(a))
            print_enum(s, a->values);
    }
}

static void print_array(Schema *s, const char *name, const char *element)
{
    begin(s, name, "array");
    json_string(s->out, "element-type", element);
    json_end(s->out);
}

static const Result *result_of(const char *command)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(results); i++) {
        if (!strcmp(results[i].command, command))
            return &results[i];
    }
    return NULL;
}

static void print_command(Schema *s, const Command *cmd)
{
    const Result *result = result_of(cmd->name);
    bool takes = cmd->args && cmd->args->name && strcmp(cmd->args->name, ARG_OTHERS);
    g_autofree char *takes_type = takes ? type_name(s->types++) : NULL;
    g_autofree char *type = result ? type_name(s->types++) : NULL;
    g_autofree char *list = result && result->list ? g_strdup_printf("[%s]", type) : NULL;

    begin(s, cmd->name, "command");
    json_string(s->out, "arg-type", takes ? takes_type : NO_MEMBERS);
    json_string(s->out, "ret-type",
                list     ? list
                : result ? type
                         : g_strv_contains(silent, cmd->name) ? NO_MEMBERS : "any");
    json_bool(s->out, "allow-oob", false);
    json_end(s->out);
    if (takes)
        print_object(s, takes_type, cmd->args);
    if (result)
        print_object(s, type, result->members);
    if (list)
        print_array(s, list, type);
}

static void print_event(Schema *s, ControlEvent what)
{
    const CommandArg *data = event_data[what];
    g_autofree char *type = data ? type_name(s->types++) : NULL;

    begin(s, control_event_names[what], "event");
    json_string(s->out, "arg-type", data ? type : NO_MEMBERS);
    json_end(s->out);
    if (data)
        print_object(s, type, data);
}

COMMAND_FN(cmd_query_schema)
{
    Schema s = {control_return(r), 1};

    json_array(s.out, "return");
    print_command(&s, &command_negotiate);
    for (const Command *cmd = command_table; cmd->name; cmd++)
        print_command(&s, cmd);
    for (unsigned i = 0; i < CONTROL_EVENTS_COUNT; i++)
        print_event(&s, (ControlEvent)i);
    print_object(&s, NO_MEMBERS, &(CommandArg){NULL});
    print_array(&s, "[any]", "any");
    for (unsigned i = 0; i < G_N_ELEMENTS(builtins); i++) {
        begin(&s, builtins[i].name, "builtin");
        json_string(s.out, "json-type", builtins[i].json);
        json_end(s.out);
    }
    json_end(s.out);
    return true;
}
