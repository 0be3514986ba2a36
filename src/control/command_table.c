/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Every command of the control socket, and the check of arguments against its row.
 *
 * Names, arguments, results and the words of errors are QEMU's (docs/interop, QAPI schema of 7.2)
 * where a command of QEMU's is meant; Lodge's own start with x-lodge-. What is not in this table is
 * CommandNotFound, and query-commands prints the table: qmp_capabilities alone is the transport's.
 */
#include "command_table.h"

#include <string.h>

#include "lodge/error.h"

#include "command_results.h"

const CommandArg command_strings[] = {{NULL}};

static const char *const picture_formats[] = {"ppm", "png", NULL};
static const char *const read_only_modes[] = {"retain", "read-only", "read-write", NULL};

static const CommandArg hmp_args[] = {
    {"command-line", ARG_STRING, .help = "a line as typed at the human monitor"},
    {"cpu-index", ARG_INT, true, .help = "the CPU that the line is about"},
    {NULL},
};
static const CommandArg screendump_args[] = {
    {"filename", ARG_STRING, .help = "where the picture goes, by the machine's process"},
    {"device", ARG_STRING, true, .help = "the adapter; there is one screen"},
    {"head", ARG_INT, true, .help = "0"},
    {"format", ARG_STRING, true, picture_formats, "ppm unless said"},
    {NULL},
};
static const CommandArg send_key_args[] = {
    {"keys", ARG_ARRAY, .help = "pressed in order, let go in reverse: {type: qcode|number, data}"},
    {"hold-time", ARG_INT, true, .help = "milliseconds, 100 unless said"},
    {NULL},
};
static const CommandArg input_args[] = {
    {"device", ARG_STRING, true, .help = "the screen; there is one"},
    {"head", ARG_INT, true, .help = "0"},
    {"events", ARG_ARRAY, .help = "{type: key|btn|rel|abs, data}"},
    {NULL},
};
static const CommandArg type_args[] = {
    {"text", ARG_STRING, .help = "what is typed on a US keyboard, at most 64 KiB"},
    {"rate", ARG_INT, true, .help = "keys a second, 1 to 1000"},
    {NULL},
};
static const CommandArg medium_args[] = {
    {"device", ARG_STRING, true, .help = "the drive, or"},
    {"id", ARG_STRING, true, .help = "the drive"},
    {"filename", ARG_STRING, .help = "the image"},
    {"format", ARG_STRING, true, .help = "of the image; found out unless said"},
    {"force", ARG_BOOL, true, .help = "even if the guest has locked the drive"},
    {"read-only-mode", ARG_STRING, true, read_only_modes, "retain unless said"},
    {NULL},
};
static const CommandArg eject_args[] = {
    {"device", ARG_STRING, true, .help = "the drive, or"},
    {"id", ARG_STRING, true, .help = "the drive"},
    {"force", ARG_BOOL, true, .help = "even if the guest has locked the drive"},
    {NULL},
};
static const CommandArg fd_args[] = {
    {"fdname", ARG_STRING, .help = "the descriptor's name, of this client"},
    {NULL},
};
static const CommandArg will_args[] = {
    {"fdname", ARG_STRING, .help = "the connection, named by getfd; a byte on it: forget it"},
    {"request", ARG_STRING, .help = "a line for the agent, whose answer nobody hears"},
    {NULL},
};
static const CommandArg add_client_args[] = {
    {"protocol", ARG_STRING, .help = "what it speaks: vnc"},
    {"fdname", ARG_STRING, .help = "its connection, named by getfd"},
    {"skipauth", ARG_BOOL, true, .help = "whether it is asked for no password"},
    {"tls", ARG_BOOL, true, .help = "of no meaning for VNC"},
    {NULL},
};

static const CommandArg console_args[] = {
    {"fdname", ARG_STRING, .help = "the connection, named by getfd"},
    {"write", ARG_BOOL, true, .help = "whether what it says is typed, if nobody else types"},
    {NULL},
};
static const CommandArg console_take_args[] = {
    {"id", ARG_INT, .help = "as x-lodge-console has returned it"},
    {NULL},
};
static const CommandArg device_add_args[] = {
    {"driver", ARG_STRING, .help = "class of the device"},
    {"id", ARG_STRING, true, .help = "its name"},
    {"bus", ARG_STRING, true, .help = "pci.0"},
    {ARG_OTHERS, .help = "properties of the class"},
    {NULL},
};
static const CommandArg device_del_args[] = {
    {"id", ARG_STRING, .help = "the device"},
    {NULL},
};

static const CommandArg plug_args[] = {
    {"tree", ARG_STRING, .help = "a device and its back end, a flat device tree in Base64"},
    {NULL},
};
static const CommandArg unplug_args[] = {
    {"id", ARG_STRING, .help = "the device"},
    {"seconds", ARG_INT, true, .help = "how long the guest is waited for, 10 unless said"},
    {NULL},
};

static const CommandArg netdev_add_args[] = {
    {"type", ARG_STRING, .help = "the back end"},
    {"id", ARG_STRING, .help = "its name"},
    {ARG_OTHERS, .help = "options of the back end; lists where it takes several"},
    {NULL},
};
static const CommandArg netdev_del_args[] = {
    {"id", ARG_STRING, .help = "the network, which no device has"},
    {NULL},
};
static const CommandArg blockdev_add_args[] = {
    {"driver", ARG_STRING, .help = "the format, or file: raw"},
    {"node-name", ARG_STRING, true, .help = "its name"},
    {ARG_OTHERS, .help = "file or filename, read-only, cache, discard, detect-zeroes"},
    {NULL},
};
static const CommandArg blockdev_del_args[] = {
    {"node-name", ARG_STRING, .help = "the image, which no device has"},
    {NULL},
};
static const CommandArg set_link_args[] = {
    {"name", ARG_STRING, .help = "the network, or its card"},
    {"up", ARG_BOOL, .help = "false: as if its cable were out"},
    {NULL},
};
static const CommandArg properties_args[] = {
    {"typename", ARG_STRING, .help = "class of devices"},
    {NULL},
};

static const char *const snapshot_modes[] = {"existing", "absolute-paths", NULL};
static const CommandArg snapshot_args[] = {
    {"device", ARG_STRING, true, .help = "the disk, or"},
    {"node-name", ARG_STRING, true, .help = "the disk"},
    {"snapshot-file", ARG_STRING, .help = "the overlay"},
    {"format", ARG_STRING, true, .help = "of the overlay, qcow2 unless said"},
    {"mode", ARG_STRING, true, snapshot_modes, "absolute-paths, which makes the file, unless said"},
    {NULL},
};
static const CommandArg resize_args[] = {
    {"device", ARG_STRING, true, .help = "the disk, or"},
    {"node-name", ARG_STRING, true, .help = "the disk"},
    {"size", ARG_INT, .help = "bytes"},
    {NULL},
};
/* Of QEMU's rates those for reads and for writes alone are taken as 0. */
static const CommandArg throttle_args[] = {
    {"device", ARG_STRING, true, .help = "the disk, or"},
    {"id", ARG_STRING, true, .help = "the disk"},
    {"bps", ARG_INT, .help = "bytes a second; 0: no limit"},
    {"bps_rd", ARG_INT, .help = "0"},
    {"bps_wr", ARG_INT, .help = "0"},
    {"iops", ARG_INT, .help = "requests a second; 0: no limit"},
    {"iops_rd", ARG_INT, .help = "0"},
    {"iops_wr", ARG_INT, .help = "0"},
    {NULL},
};
static const CommandArg commit_args[] = {
    {"job-id", ARG_STRING, true, .help = "name of the job; the disk's unless said"},
    {"device", ARG_STRING, .help = "the disk"},
    {"base", ARG_STRING, true, .help = "file of the image below the top"},
    {"top", ARG_STRING, true, .help = "file of the image on top"},
    {"speed", ARG_INT, true, .help = "bytes a second; 0: no limit"},
    {NULL},
};
static const CommandArg block_job_args[] = {
    {"device", ARG_STRING, .help = "the job"},
    {NULL},
};
static const CommandArg block_job_cancel_args[] = {
    {"device", ARG_STRING, .help = "the job"},
    {"force", ARG_BOOL, true, .help = "of no meaning: what is copied does no harm"},
    {NULL},
};
static const CommandArg job_speed_args[] = {
    {"device", ARG_STRING, .help = "the job"},
    {"speed", ARG_INT, .help = "bytes a second; 0: no limit"},
    {NULL},
};
static const CommandArg job_args[] = {
    {"id", ARG_STRING, .help = "the job"},
    {NULL},
};
static const CommandArg capture_args[] = {
    {"netdev", ARG_STRING, .help = "the network"},
    {"fdname", ARG_STRING, .help = "where the frames go, named by getfd"},
    {NULL},
};
static const CommandArg net_filter_args[] = {
    {"netdev", ARG_STRING, .help = "the network"},
    {"rules", ARG_STRING, true, .help = "text of the rules; what was in force goes; none: no rules"},
    {"name", ARG_STRING, true, .help = "of the text, for messages"},
    {NULL},
};
static const CommandArg hostfwd_args[] = {
    {"netdev", ARG_STRING, true, .help = "the network; the first that has forwards unless said"},
    {"rule", ARG_STRING, .help = "tcp|udp:[ADDR]:HOSTPORT, to be added with -[GUESTADDR]:GUESTPORT"},
    {NULL},
};

static const char *const watchdog_actions[] = {"reset", "shutdown", "poweroff",
                                               "pause", "none",     NULL};
static const char *const panic_actions[] = {"pause", "shutdown", "none", NULL};
static const CommandArg balloon_args[] = {
    {"value", ARG_INT, .help = "bytes that the guest is to keep"},
    {NULL},
};
static const CommandArg stats_args[] = {
    {"ask", ARG_BOOL, true, .help = "have the guest send those of its memory first"},
    {NULL},
};
static const CommandArg qom_get_args[] = {
    {"path", ARG_STRING, .help = "/machine/peripheral/ID of a balloon"},
    {"property", ARG_STRING, .help = "guest-stats or guest-stats-polling-interval"},
    {NULL},
};
static const CommandArg qom_set_args[] = {
    {"path", ARG_STRING, .help = "/machine/peripheral/ID of a balloon"},
    {"property", ARG_STRING, .help = "guest-stats-polling-interval"},
    {ARG_OTHERS, .help = "value: seconds, 0: not"},
    {NULL},
};
static const CommandArg watchdog_args[] = {
    {"action", ARG_STRING, .values = watchdog_actions, .help = "what a watchdog's bite does"},
    {NULL},
};
static const CommandArg set_action_args[] = {
    {"panic", ARG_STRING, true, panic_actions, "what is done when the guest's kernel dies"},
    {"watchdog", ARG_STRING, true, watchdog_actions, "what a watchdog's bite does"},
    {NULL},
};

static const CommandArg negotiate_args[] = {
    {"enable", ARG_ARRAY, true, .help = "capabilities; there are none"},
    {NULL},
};
const Command command_negotiate = {"qmp_capabilities", negotiate_args, "leave negotiation", NULL};

const Command command_table[] = {
    {"add_client", add_client_args, "serve the screen to a connection that was passed",
     cmd_add_client},
    {"balloon", balloon_args, "have the guest keep so much of its memory and lend the rest",
     cmd_balloon},
    {"block-commit", commit_args, "merge the image on top of a disk into the one below",
     cmd_block_commit},
    {"block-job-cancel", block_job_cancel_args, "give up a job", cmd_block_job_cancel},
    {"block-job-complete", block_job_args, "let a job that is ready finish",
     cmd_block_job_complete},
    {"block-job-set-speed", job_speed_args, "limit a job", cmd_block_job_speed},
    {"block_resize", resize_args, "give a disk another size", cmd_block_resize},
    {"block_set_io_throttle", throttle_args, "limit what a disk does in a second",
     cmd_block_throttle},
    {"blockdev-add", blockdev_add_args, "open a disk image", cmd_blockdev_add},
    {"blockdev-change-medium", medium_args, "put another medium into a drive", cmd_change_medium},
    {"blockdev-del", blockdev_del_args, "close a disk image", cmd_blockdev_del},
    {"blockdev-snapshot-sync", snapshot_args, "put an overlay on a disk", cmd_snapshot_sync},
    {"closefd", fd_args, "close a descriptor that was passed", cmd_closefd},
    {"cont", NULL, "let a paused machine run", cmd_cont},
    {"device-list-properties", properties_args, "list the properties of a class of devices",
     cmd_device_properties, RESULT_LIST(property_result)},
    {"device_add", device_add_args, "plug in a PCI device", cmd_device_add},
    {"device_del", device_del_args, "ask the guest to let go of a device", cmd_device_del},
    {"eject", eject_args, "take the medium out of a drive", cmd_eject},
    {"getfd", fd_args, "name the descriptor that came with it (SCM_RIGHTS)", cmd_getfd},
    {"human-monitor-command", hmp_args, "a line of the human monitor", cmd_human_monitor,
     &result_string},
    {"input-send-event", input_args, "move the pointer, press keys and buttons", cmd_input_event},
    {"job-cancel", job_args, "give up a job", cmd_job_cancel},
    {"job-complete", job_args, "let a job that is ready finish", cmd_job_complete},
    {"netdev_add", netdev_add_args, "open a network", cmd_netdev_add},
    {"netdev_del", netdev_del_args, "close a network", cmd_netdev_del},
    {"qom-get", qom_get_args, "a property of a balloon", cmd_qom_get, &result_any},
    {"qom-set", qom_set_args, "set a property of a balloon", cmd_qom_set},
    {"query-balloon", NULL, "memory that the guest has now", cmd_query_balloon,
     RESULT_OBJECT(balloon_result)},
    {"query-block", NULL, "list drives and their media", cmd_query_block,
     RESULT_LIST(block_result)},
    {"query-block-jobs", NULL, "list jobs on disks", cmd_query_block_jobs,
     RESULT_LIST(block_job_result)},
    {"query-blockstats", NULL, "what disks have read and written", cmd_query_blockstats,
     RESULT_LIST(blockstats_result)},
    {"query-chardev", NULL, "list consoles and channels", cmd_query_chardev,
     RESULT_LIST(chardev_result)},
    {"query-commands", NULL, "list the commands", cmd_query_commands, RESULT_LIST(command_result)},
    {"query-cpus-fast", NULL, "list CPUs and their threads", cmd_query_cpus,
     RESULT_LIST(cpu_result)},
    {"query-current-machine", NULL, "what the machine can do", cmd_query_current_machine,
     RESULT_OBJECT(current_machine_result)},
    {"query-jobs", NULL, "list jobs", cmd_query_jobs, RESULT_LIST(job_result)},
    {"query-kvm", NULL, "whether KVM is used", cmd_query_kvm, RESULT_OBJECT(kvm_result)},
    {"query-machines", NULL, "list kinds of machines", cmd_query_machines,
     RESULT_LIST(machine_result)},
    {"query-memory-size-summary", NULL, "how much memory there is", cmd_query_memory,
     RESULT_OBJECT(memory_result)},
    {"query-name", NULL, "name of the machine", cmd_query_name, RESULT_OBJECT(name_result)},
    {"query-named-block-nodes", NULL, "list the images of all disks", cmd_query_nodes,
     RESULT_LIST(node_result)},
    {"query-pci", NULL, "list PCI devices", cmd_query_pci, RESULT_LIST(pci_result)},
    {"query-qmp-schema", NULL, "list commands with what they take, and events", cmd_query_schema,
     RESULT_LIST(schema_result)},
    {"query-status", NULL, "whether the machine runs", cmd_query_status,
     RESULT_OBJECT(status_result)},
    {"query-target", NULL, "the guest's architecture", cmd_query_target,
     RESULT_OBJECT(target_result)},
    {"query-uuid", NULL, "UUID of the machine", cmd_query_uuid, RESULT_OBJECT(uuid_result)},
    {"query-version", NULL, "version of the protocol, and of Lodge", cmd_query_version,
     RESULT_OBJECT(version_result)},
    {"query-vnc", NULL, "who looks at the screen", cmd_query_vnc, RESULT_OBJECT(vnc_result)},
    {"query-vnc-servers", NULL, "where the screen is served", cmd_query_vnc_servers,
     RESULT_LIST(vnc_server_result)},
    {"quit", NULL, "pull the plug", cmd_quit},
    {"screendump", screendump_args, "write a picture of the screen to a file", cmd_screendump},
    {"send-key", send_key_args, "press keys together", cmd_send_key},
    {"set-action", set_action_args, "what becomes of a guest that died or hangs",
     cmd_set_action},
    {"set_link", set_link_args, "pull the cable of a card, or put it in", cmd_set_link},
    {"stop", NULL, "pause the machine", cmd_stop},
    {"system_powerdown", NULL, "press the power button", cmd_powerdown},
    {"system_reset", NULL, "press the reset button", cmd_reset},
    {"watchdog-set-action", watchdog_args, "what a watchdog's bite does", cmd_watchdog_action},
    {"x-lodge-agent", fd_args, "have a turn at the guest agent's port, from a newline on",
     cmd_agent},
    {"x-lodge-agent-will", will_args, "send the guest agent a request when a connection has ended "
     "without a word", cmd_agent_will},
    {"x-lodge-capture", capture_args, "write a network's frames as pcap until nobody reads",
     cmd_capture},
    {"x-lodge-console", console_args, "serve the first serial port to a connection that was passed",
     cmd_console, RESULT_OBJECT(console_result)},
    {"x-lodge-console-take", console_take_args, "have that one type, and no other",
     cmd_console_take},
    {"x-lodge-description", NULL, "what the machine has now, as a flat device tree in Base64",
     cmd_description, RESULT_OBJECT(description_result)},
    {"x-lodge-devices", NULL, "list devices with their properties", cmd_devices,
     RESULT_LIST(device_result)},
    {"x-lodge-gdb", NULL, "let a debugger in, and tell where", cmd_gdb, RESULT_OBJECT(gdb_result)},
    {"x-lodge-hostfwd-add", hostfwd_args, "lead a port of the host into the guest",
     cmd_hostfwd_add, RESULT_OBJECT(hostfwd_result)},
    {"x-lodge-hostfwd-remove", hostfwd_args, "let go of a port of the host", cmd_hostfwd_remove},
    {"x-lodge-net", NULL, "list networks with their counters and addresses", cmd_net,
     RESULT_LIST(net_result)},
    {"x-lodge-net-filter", net_filter_args, "change the rules about what passes a network",
     cmd_net_filter},
    {"x-lodge-plug", plug_args, "plug in a PCI device together with its back end", cmd_plug},
    {"x-lodge-screen-text", NULL, "the text screen as text", cmd_screen_text,
     RESULT_OBJECT(screen_text_result)},
    {"x-lodge-stats", stats_args, "exits, bytes on networks, the balloon, what the guest tells of its "
     "memory", cmd_stats, RESULT_OBJECT(stats_result)},
    {"x-lodge-type", type_args, "type a text; answers when it is typed", cmd_type},
    {"x-lodge-unplug", unplug_args, "answer when a device and its back end are gone", cmd_unplug},
    {NULL},
};

const Command *command_find(const char *name)
{
    for (const Command *cmd = command_table; cmd->name; cmd++) {
        if (!strcmp(cmd->name, name))
            return cmd;
    }
    return NULL;
}

bool arg_missing(GError **error, const char *name)
{
    return lodge_fail(error, LODGE_ERROR_CONFIG, "Parameter '%s' is missing", name);
}

bool arg_unexpected(GError **error, const char *name)
{
    return lodge_fail(error, LODGE_ERROR_CONFIG, "Parameter '%s' is unexpected", name);
}

bool arg_type(GError **error, const char *name, const char *expected)
{
    return lodge_fail(error, LODGE_ERROR_CONFIG, "Invalid parameter type for '%s', expected: %s",
                      name, expected);
}

bool arg_value(GError **error, const char *name, const char *value)
{
    return lodge_fail(error, LODGE_ERROR_CONFIG, "Parameter '%s' does not accept value '%s'", name,
                      value);
}

static bool check_value(const CommandArg *a, Jv v, GError **error)
{
    static const struct {
        JvKind kind;
        const char *text;
    } kinds[] = {
        [ARG_STRING] = {JV_STRING, "string"},
        [ARG_BOOL] = {JV_BOOL, "boolean"},
        [ARG_INT] = {JV_INT, "integer"},
        [ARG_ARRAY] = {JV_ARRAY, "array"},
        [ARG_OBJECT] = {JV_OBJECT, "object"},
    };
    if (jv_kind(v) != kinds[a->kind].kind)
        return arg_type(error, a->name, kinds[a->kind].text);
    if (a->values && !g_strv_contains(a->values, jv_text(v)))
        return arg_value(error, a->name, jv_text(v));
    return true;
}

bool command_check(const Command *cmd, Jv args, GError **error)
{
    static const CommandArg none = {NULL};
    const CommandArg *table = cmd->args ? cmd->args : &none;
    for (const CommandArg *a = table; a->name; a++) {
        Jv v = jv_get(args, a->name);
        if (!strcmp(a->name, ARG_OTHERS))
            continue;
        if (jv_kind(v) == JV_ABSENT) {
            if (!a->optional)
                return arg_missing(error, a->name);
        } else if (!check_value(a, v, error)) {
            return false;
        }
    }
    g_autoptr(GList) names = jv_names(args);
    for (GList *n = names; n; n = n->next) {
        const CommandArg *a = table;
        while (a->name && strcmp(a->name, n->data) && strcmp(a->name, ARG_OTHERS))
            a++;
        if (!a->name)
            return arg_unexpected(error, n->data);
    }
    return true;
}

G_DEFINE_QUARK(lodge-control-not-active, control_not_active)

const char *command_error_class(const GError *error)
{
    if (error->domain == control_not_active_quark())
        return "DeviceNotActive";
    return g_error_matches(error, LODGE_ERROR, LODGE_ERROR_NOT_FOUND) ? "DeviceNotFound"
                                                                       : "GenericError";
}

JsonOut *control_return(ControlReply *r)
{
    r->returned = true;
    return r->out;
}

void control_reply_later(ControlReply *r, void (*cancel)(ControlReply *r), void *opaque)
{
    r->later = true;
    r->cancel = cancel;
    r->opaque = opaque;
}

void control_reply_done(ControlReply *r, const GError *error)
{
    r->send(r, error);
}
