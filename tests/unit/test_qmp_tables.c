/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the control socket says of itself: the schema against the rows that it is made from, who
 * looks at the screen, and lines of the human monitor that are commands.
 */
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "command_table.h"
#include "json_in.h"

#include "qmpfix.h"

/* ---- the schema ---- */

/* The entry of @schema of that name; absent: there is none. */
static Jv entry(Jv schema, const char *name)
{
    for (size_t i = 0; i < jv_length(schema); i++) {
        Jv e = jv_at(schema, i);
        if (!strcmp(jv_text(jv_get(e, "name")), name))
            return e;
    }
    return (Jv){NULL, NULL};
}

static void check_member(Jv schema, Jv member, const CommandArg *a)
{
    static const char *const types[] = {
        [ARG_STRING] = "str", [ARG_BOOL] = "bool", [ARG_INT] = "int", [ARG_ARRAY] = "[any]"};
    const char *type = jv_text(jv_get(member, "type"));
    g_assert_cmpstr(jv_text(jv_get(member, "name")), ==, a->name);
    g_assert_cmpint(jv_kind(jv_get(member, "default")), ==, a->optional ? JV_NULL : JV_ABSENT);
    if (!a->values) {
        g_assert_cmpstr(type, ==, types[a->kind]);
        return;
    }
    Jv e = entry(schema, type), members = jv_get(e, "members");
    g_assert_cmpstr(jv_text(jv_get(e, "meta-type")), ==, "enum");
    g_assert_cmpuint(jv_length(members), ==, g_strv_length((char **)a->values));
    for (size_t i = 0; a->values[i]; i++) {
        g_assert_cmpstr(jv_text(jv_get(jv_at(members, i), "name")), ==, a->values[i]);
        g_assert_cmpstr(jv_text(jv_at(jv_get(e, "values"), i)), ==, a->values[i]);
    }
}

static void check_command(Jv schema, const Command *cmd)
{
    Jv e = entry(schema, cmd->name);
    g_assert_cmpstr(jv_text(jv_get(e, "meta-type")), ==, "command");
    Jv type = entry(schema, jv_text(jv_get(e, "arg-type")));
    g_assert_cmpstr(jv_text(jv_get(type, "meta-type")), ==, "object");
    Jv members = jv_get(type, "members");
    size_t n = 0;
    for (const CommandArg *a = cmd->args; a && a->name; a++) {
        if (strcmp(a->name, ARG_OTHERS))
            check_member(schema, jv_at(members, n++), a);
    }
    g_assert_cmpuint(jv_length(members), ==, n);
}

/* Every command with its arguments, every event; each name once, each type that is spoken of. */
static void test_schema(QmpFix *f, gconstpointer unused)
{
    int fd = qmp_talk(f);
    g_autoptr(GError) error = NULL;
    g_autoptr(Json) json = json_load(&error);
    g_assert_no_error(error);
    qmp_say(fd, "{\"execute\": \"query-qmp-schema\"}");
    g_autofree char *got = qmp_hear(fd, 1);
    g_auto(Jv) root = jv_parse(json, got, &error);
    g_assert_no_error(error);
    Jv schema = jv_get(root, "return");
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    unsigned commands = 0, events = 0;
    for (size_t i = 0; i < jv_length(schema); i++) {
        static const char *const others[] = {"arg-type", "ret-type", "element-type"};
        Jv e = jv_at(schema, i);
        const char *kind = jv_text(jv_get(e, "meta-type"));
        g_assert_true(g_hash_table_add(names, (char *)jv_text(jv_get(e, "name"))));
        commands += !strcmp(kind, "command");
        events += !strcmp(kind, "event");
        for (unsigned k = 0; k < G_N_ELEMENTS(others); k++) {
            const char *type = jv_text(jv_get(e, others[k]));
            g_assert_true(!type || entry(schema, type).node);
        }
    }
    check_command(schema, &command_negotiate);
    unsigned rows = 1;
    for (const Command *cmd = command_table; cmd->name; cmd++, rows++)
        check_command(schema, cmd);
    g_assert_cmpuint(commands, ==, rows);
    g_assert_cmpuint(events, ==, CONTROL_EVENTS_COUNT);
    for (unsigned i = 0; i < CONTROL_EVENTS_COUNT; i++)
        g_assert_true(entry(schema, control_event_names[i]).node);
    Jv nothing = entry(schema, jv_text(jv_get(entry(schema, "stop"), "ret-type")));
    g_assert_cmpuint(jv_length(jv_get(nothing, "members")), ==, 0);
    g_assert_cmpstr(jv_text(jv_get(entry(schema, "qom-get"), "ret-type")), ==, "any");
    g_assert_cmpstr(jv_text(jv_get(entry(schema, "human-monitor-command"), "ret-type")), ==, "str");
    Jv chain = entry(schema, jv_text(jv_get(entry(schema, "query-pci"), "ret-type")));
    g_assert_cmpstr(jv_text(jv_get(chain, "meta-type")), ==, "array");
    Jv status = entry(schema, jv_text(jv_get(entry(schema, "query-status"), "ret-type")));
    g_assert_cmpuint(jv_length(jv_get(status, "members")), ==, 3);
    Jv failed = entry(schema, jv_text(jv_get(entry(schema, "BLOCK_IO_ERROR"), "arg-type")));
    g_assert_cmpuint(jv_length(jv_get(failed, "members")), ==, 6);
    close(fd);
}

/* ---- who looks at the screen ---- */

#define HMP(line)                                                                                  \
    "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"" line "\"}}"

static void test_viewers(QmpFix *f, gconstpointer unused)
{
    int fd = qmp_talk(f);
    const struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(4242),
                                      .sin_addr.s_addr = htonl(0x0a000203)};
    qmp_ask(fd, "{\"execute\": \"query-vnc\"}", "{\"return\": {\"enabled\": false}}");
    qmp_ask(fd, "{\"execute\": \"query-vnc-servers\"}", "{\"return\": []}");
    qmp_ask(fd, HMP("info vnc"), "{\"return\": \"None\\r\\n\"}");
    f->serves = true;
    f->served.viewer[0].ss_family = AF_UNIX;
    f->served.viewers = 1; /* of "lodge view": there is no address */
    qmp_ask(fd, "{\"execute\": \"query-vnc\"}",
        "{\"return\": {\"enabled\": false, \"clients\": [{\"host\": \"\", \"family\": \"unix\", "
        "\"service\": \"\", \"websocket\": false}]}}");
    f->served.address = "[::1]:5901";
    f->served.password = true;
    memcpy(&f->served.viewer[0], &there, sizeof there);
    qmp_ask(fd, "{\"execute\": \"query-vnc\"}",
        "{\"return\": {\"enabled\": true, \"auth\": \"vnc\", \"host\": \"::1\", "
        "\"family\": \"ipv6\", \"service\": \"5901\", \"clients\": [{\"host\": \"10.0.2.3\", \"family\": \"ipv4\", "
        "\"service\": \"4242\", \"websocket\": false}]}}");
    qmp_ask(fd, HMP("info vnc"),
        "{\"return\": \"default:\\r\\n  Server: ::1:5901 (ipv6)\\r\\n"
        "    Auth: vnc (Sub: none)\\r\\n  Client: 10.0.2.3:4242 (ipv4)\\r\\n\"}");
    f->served.address = "unix:/run/a:b";
    f->served.password = false;
    f->served.viewers = 0;
    qmp_ask(fd, "{\"execute\": \"query-vnc-servers\"}",
        "{\"return\": [{\"auth\": \"none\", \"clients\": [], \"server\": [{\"auth\": \"none\", "
        "\"host\": \"\", \"family\": \"unix\", \"service\": \"/run/a:b\", \"websocket\": false}], "
        "\"id\": \"default\"}]}");
    close(fd);
}

/* Lines that are commands: their words become arguments, which the command's row checks. */
static void test_forwarded(QmpFix *f, gconstpointer unused)
{
    static const char *const lines[][2] = {
        {HMP("block_resize d 1"), "Error: there is no machine"},
        {HMP("block_resize d 1G"), "Error: there is no machine"},
        {HMP("block_resize d x"), "invalid number: x"},
        {HMP("block_resize d 99999999999999999"), "invalid number: 99999999999999999"},
        {HMP("block_set_io_throttle d 1 2 3 4 5 6"), "Error: there is no machine"},
        {HMP("block_set_io_throttle d 1 2 3 4 5 1M"), "invalid number: 1M"},
        {HMP("block_job_cancel -f d"), "Error: there is no machine"},
        {HMP("block_job_complete d"), "Error: there is no machine"},
        {HMP("block_job_set_speed d 2"), "Error: there is no machine"},
        {HMP("change d /x raw nowise"),
         "Error: Parameter 'read-only-mode' does not accept value 'nowise'"},
        {HMP("eject -f d"), "Error: there is no machine"},
        {HMP("eject d e"), "invalid word: e"},
        {HMP("device_del -f"), "Error: Parameter 'id' is missing"},
        {HMP("netdev_del n"), "Error: there is no machine"},
        {HMP("snapshot_blkdev d /x qcow2"), "Error: there is no machine"},
        {HMP("watchdog_action nowise"),
         "Error: Parameter 'action' does not accept value 'nowise'"},
        {HMP("info pci"), "Error: there is no machine"},
        {HMP("info registers"), "Error: there is no machine"},
        {HMP("info registers x"), "invalid char 'x' in expression"},
        {HMP("info memory_size_summary"), "Error: there is no machine"},
        {HMP("info block-jobs"), "Error: there is no machine"},
    };
    int fd = qmp_talk(f);
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autofree char *answer = g_strdup_printf("{\"return\": \"%s\\r\\n\"}", lines[i][1]);
        qmp_ask(fd, lines[i][0], answer);
    }
    qmp_ask(fd, HMP("info status x"),
        "{\"return\": \"status: extraneous characters at the end of line\\r\\nTry \\\"help info "
        "status\\\" for more information\\r\\n\"}");
    close(fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn)                                                                              \
    g_test_add("/qmp-tables/" name, QmpFix, NULL, qmp_fix_setup, fn, qmp_fix_teardown)
    ADD("schema", test_schema);
    ADD("viewers", test_viewers);
    ADD("forwarded", test_forwarded);
    return g_test_run();
}
