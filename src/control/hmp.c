/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines of the human monitor, as human-monitor-command carries them: a table of the few that
 * scripts and people send, in QEMU's words; some are commands of command_table[] with the words of
 * the line as arguments. What a line answers ends in CR LF; an error is an answer too.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/chan.h"
#include "lodge/error.h"
#include "lodge/net.h"
#include "lodge/num.h"

#include "block_int.h"
#include "control_internal.h"
#include "live.h"
#include "virtio_balloon.h"

#define BLOCK_DEVICE "block device name"
#define WORDS_MAX 10u /* of a line, its name among them */

typedef struct HmpCommand {
    const char *name;
    const char *first;     /* what the first argument is called; NULL: there is none */
    unsigned min, max;     /* arguments */
    /* Appends the answer; an error becomes one. */
    HmpFn *run;
    /* With @run NULL: the command that it is, and its arguments in the order of the words, commas
     * between them; one that ends in :o is a size, of megabytes where it has no suffix. */
    const char *qmp, *params;
} HmpCommand;

static bool hmp_powerdown(Control *c, char **args, GString *out, GError **error)
{
    Machine *m = control_machine(c, error);
    if (m)
        machine_power_button(m);
    return m != NULL;
}

static bool hmp_reset(Control *c, char **args, GString *out, GError **error)
{
    Machine *m = control_machine(c, error);
    if (m)
        machine_reset(m);
    return m != NULL;
}

static bool hmp_quit(Control *c, char **args, GString *out, GError **error)
{
    return cmd_quit(c, (Jv){NULL, NULL}, NULL, error);
}

static bool hmp_stop(Control *c, char **args, GString *out, GError **error)
{
    return cmd_stop(c, (Jv){NULL, NULL}, NULL, error);
}

static bool hmp_cont(Control *c, char **args, GString *out, GError **error)
{
    return cmd_cont(c, (Jv){NULL, NULL}, NULL, error);
}

static bool hmp_sendkey(Control *c, char **args, GString *out, GError **error)
{
    g_auto(GStrv) names = g_strsplit(args[0], "-", -1);
    g_autoptr(GArray) codes = g_array_new(FALSE, FALSE, sizeof(unsigned));
    long hold = 100;
    if (args[1]) {
        char *end;
        errno = 0;
        hold = strtol(args[1], &end, 0);
        if (*end || errno)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "invalid char '%c' in expression",
                              g_ascii_isprint(*end) ? *end : '?');
    }
    for (char **n = names; *n; n++) {
        unsigned code = input_key_by_name(*n);
        if (!code)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "invalid parameter: %s", *n);
        g_array_append_val(codes, code);
    }
    return control_send_keys(c, (unsigned *)codes->data, codes->len, hold, error);
}

static bool hmp_screendump(Control *c, char **args, GString *out, GError **error)
{
    return control_screendump(c, args[0], "ppm", error);
}

static bool hmp_info_status(Control *c, char **args, GString *out, GError **error)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    MachineState s = machine_state(m);
    g_string_append_printf(out, "VM status: %s\r\n",
                           s == MACHINE_RUNNING  ? "running"
                           : s == MACHINE_PAUSED ? "paused"
                           : s == MACHINE_BUILT  ? "paused (prelaunch)"
                                                 : "paused (shutdown)");
    return true;
}

static bool hmp_info_name(Control *c, char **args, GString *out, GError **error)
{
    if (c->config.name)
        g_string_append_printf(out, "%s\r\n", c->config.name);
    return true;
}

static bool hmp_info_version(Control *c, char **args, GString *out, GError **error)
{
    g_string_append(out, "7.2.0 (lodge " LODGE_VERSION ")\r\n");
    return true;
}

static bool hmp_info_uuid(Control *c, char **args, GString *out, GError **error)
{
    g_string_append_printf(out, "%s\r\n",
                           c->config.uuid ? c->config.uuid
                                          : "00000000-0000-0000-0000-000000000000");
    return true;
}

static bool hmp_info_kvm(Control *c, char **args, GString *out, GError **error)
{
    g_string_append(out, "kvm support: enabled\r\n");
    return true;
}

static bool hmp_info_cpus(Control *c, char **args, GString *out, GError **error)
{
    Machine *m = control_machine(c, error);
    for (unsigned i = 0; m && i < cpu_set_count(machine_cpus(m)); i++)
        g_string_append_printf(out, "%c CPU #%u: thread_id=%ld\r\n", i ? ' ' : '*', i,
                               cpu_set_thread(machine_cpus(m), i));
    return m != NULL;
}

static bool hmp_info_chardev(Control *c, char **args, GString *out, GError **error)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    g_autoptr(GPtrArray) ids = tree_children(machine_now(m), "/backends/chan");
    for (unsigned i = 0; i < ids->len; i++) {
        const char *id = g_ptr_array_index(ids, i);
        Chan *chan = machine_chan(m, id);
        if (chan)
            g_string_append_printf(out, "%s: filename=%s\r\n", id, chan_describe(chan));
    }
    return true;
}

static void print_drive(void *opaque, Device *d, BlkNode *node)
{
    GString *out = opaque;
    if (!node && !d->cls->change_medium)
        return;
    g_string_append_printf(out, "%s%s", out->len ? "\r\n" : "", d->id);
    if (node) {
        BlkNode *image = blk_top(node);
        g_string_append_printf(out, " (%s): %s (%s%s)\r\n", blk_name(node),
                               blk_file_under(image)->path, image->drv->name,
                               image->limits.read_only ? ", read-only" : "");
    } else {
        g_string_append(out, ": [not inserted]\r\n");
    }
    g_string_append_printf(out, "    Attached to:      %s\r\n", d->id);
    if (d->cls->change_medium)
        g_string_append_printf(out, "    Removable device: %slocked, tray closed\r\n",
                               d->cls->medium_locked && d->cls->medium_locked(d) ? "" : "not ");
    if (node && blk_top(node)->base)
        g_string_append_printf(out, "    Backing file:     %s\r\n",
                               blk_file_under(blk_top(node)->base)->path);
}

static bool hmp_info_block(Control *c, char **args, GString *out, GError **error)
{
    return control_each_device(c, print_drive, out, error);
}

static void print_drive_stats(void *opaque, Device *d, BlkNode *node)
{
    GString *out = opaque;
    BlkStats s;
    if (!node)
        return;
    blk_stats(node, &s);
    g_string_append_printf(out,
                           "%s: rd_bytes=%" PRIu64 " wr_bytes=%" PRIu64 " rd_operations=%" PRIu64
                           " wr_operations=%" PRIu64 " flush_operations=%" PRIu64 "\r\n",
                           d->id, s.bytes[BLK_READ], s.bytes[BLK_WRITE] + s.bytes[BLK_ZERO],
                           s.ops[BLK_READ], s.ops[BLK_WRITE] + s.ops[BLK_ZERO], s.ops[BLK_FLUSH]);
}

static bool hmp_info_blockstats(Control *c, char **args, GString *out, GError **error)
{
    return control_each_device(c, print_drive_stats, out, error);
}

static bool hmp_info_network(Control *c, char **args, GString *out, GError **error)
{
    Machine *m = control_machine(c, error);
    const GPtrArray *nets = m ? machine_nets(m) : NULL;
    for (unsigned i = 0; m && i < nets->len; i++) {
        NetBackend *be = g_ptr_array_index(nets, i);
        const PropSpec *mac = NULL;
        Device *card = be->port ? control_card_of(m, be, &mac) : NULL;
        if (!be->port)
            continue;
        if (card) {
            g_autofree char *text = mac ? net_mac_text((const uint8_t *)card + mac->offset) : NULL;
            g_string_append_printf(out, "%s: index=0,type=nic,model=%s,macaddr=%s\r\n \\ ",
                                   card->id, card->cls->name, text ? text : "");
        }
        g_string_append_printf(out, "%s: index=0,type=%s\r\n", be->id, be->driver->name);
    }
    return m != NULL;
}

/* hostfwd_add [NETDEV] RULE, and the same with remove. */
static bool hmp_hostfwd_add(Control *c, char **args, GString *out, GError **error)
{
    g_autofree char *made =
        control_hostfwd_add(c, args[1] ? args[0] : NULL, args[1] ? args[1] : args[0], error);
    return made != NULL;
}

static bool hmp_hostfwd_remove(Control *c, char **args, GString *out, GError **error)
{
    const char *rule = args[1] ? args[1] : args[0];
    g_autoptr(GError) why = NULL;
    bool ok = control_hostfwd_remove(c, args[1] ? args[0] : NULL, rule, &why);
    if (!ok && !g_error_matches(why, LODGE_ERROR, LODGE_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    g_string_append_printf(out, "host forwarding rule for %s %s\r\n", rule,
                           ok ? "removed" : "not found");
    return true;
}

/* Megabytes, as QEMU's monitor has it. */
static bool hmp_balloon(Control *c, char **args, GString *out, GError **error)
{
    Device *d = control_balloon(c, error);
    uint64_t mib;
    if (!d)
        return false;
    if (!parse_u64(args[0], &mib) || !mib || mib > UINT64_MAX / MIB)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "invalid size: %s", args[0]);
    virtio_balloon_set(d, mib * MIB);
    return true;
}

static bool hmp_info_balloon(Control *c, char **args, GString *out, GError **error)
{
    Device *d = control_balloon(c, error);
    BalloonInfo info;
    if (!d)
        return false;
    virtio_balloon_info(d, &info);
    g_string_append_printf(out, "balloon: actual=%" PRIu64 "\r\n", (info.ram - info.lent) / MIB);
    return true;
}

static bool hmp_set_link(Control *c, char **args, GString *out, GError **error)
{
    bool on = args[1] && !strcmp(args[1], "on");
    if (on || (args[1] && !strcmp(args[1], "off")))
        return control_set_link(c, args[0], on, error);
    g_string_append(out, "Expected 'on' or 'off'\r\n"
                         "Try \"help set_link\" for more information\r\n");
    return true;
}

static bool hmp_info_registers(Control *c, char **args, GString *out, GError **error)
{
    Machine *m = control_machine(c, error);
    uint64_t cpu = c->cpu;
    bool all = !g_strcmp0(args[0], "-a"), ok = m != NULL;

    if (args[0] && !all && (!parse_u64(args[0], &cpu) || cpu > UINT_MAX))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "invalid char '%c' in expression",
                          args[0][0]);
    if (!all)
        return ok && hmp_print_registers(c, (unsigned)cpu, out, error);
    for (unsigned i = 0; ok && i < cpu_set_count(machine_cpus(m)); i++)
        ok = hmp_print_registers(c, i, out, error);
    return ok;
}

static bool hmp_info_vnc(Control *c, char **args, GString *out, GError **error)
{
    control_print_screen(c, out);
    return true;
}

static HmpFn hmp_help, hmp_info;

static const HmpCommand commands[] = {
    {"balloon", "target", 1, 1, hmp_balloon},
    {"block_job_cancel", BLOCK_DEVICE, 1, 2, NULL, "block-job-cancel", "device"},
    {"block_job_complete", BLOCK_DEVICE, 1, 1, NULL, "block-job-complete", "device"},
    {"block_job_set_speed", BLOCK_DEVICE, 2, 2, NULL, "block-job-set-speed", "device,speed:o"},
    {"block_resize", BLOCK_DEVICE, 2, 2, NULL, "block_resize", "device,size:o"},
    {"block_set_io_throttle", BLOCK_DEVICE, 7, 7, NULL, "block_set_io_throttle",
     "device,bps,bps_rd,bps_wr,iops,iops_rd,iops_wr"},
    {"c", NULL, 0, 0, hmp_cont},
    {"change", BLOCK_DEVICE, 2, 4, NULL, "blockdev-change-medium",
     "device,filename,format,read-only-mode"},
    {"cont", NULL, 0, 0, hmp_cont},
    {"device_del", "string", 1, 1, NULL, "device_del", "id"},
    {"eject", BLOCK_DEVICE, 1, 2, NULL, "eject", "device"},
    {"help", NULL, 0, 0, hmp_help},
    {"hostfwd_add", "arg1", 1, 2, hmp_hostfwd_add},
    {"hostfwd_remove", "arg1", 1, 2, hmp_hostfwd_remove},
    {"info", NULL, 0, 0, hmp_info},
    {"info balloon", NULL, 0, 0, hmp_info_balloon},
    {"info block", NULL, 0, 0, hmp_info_block},
    {"info block-jobs", NULL, 0, 0, hmp_info_block_jobs},
    {"info blockstats", NULL, 0, 0, hmp_info_blockstats},
    {"info chardev", NULL, 0, 0, hmp_info_chardev},
    {"info cpus", NULL, 0, 0, hmp_info_cpus},
    {"info kvm", NULL, 0, 0, hmp_info_kvm},
    {"info memory_size_summary", NULL, 0, 0, hmp_info_memory},
    {"info name", NULL, 0, 0, hmp_info_name},
    {"info network", NULL, 0, 0, hmp_info_network},
    {"info pci", NULL, 0, 0, hmp_info_pci},
    {"info registers", "vcpu", 0, 1, hmp_info_registers},
    {"info status", NULL, 0, 0, hmp_info_status},
    {"info uuid", NULL, 0, 0, hmp_info_uuid},
    {"info version", NULL, 0, 0, hmp_info_version},
    {"info vnc", NULL, 0, 0, hmp_info_vnc},
    {"netdev_del", "string", 1, 1, NULL, "netdev_del", "id"},
    {"q", NULL, 0, 0, hmp_quit},
    {"quit", NULL, 0, 0, hmp_quit},
    {"s", NULL, 0, 0, hmp_stop},
    {"screendump", "filename", 1, 1, hmp_screendump},
    {"sendkey", "string", 1, 2, hmp_sendkey},
    {"set_link", "name", 1, 2, hmp_set_link},
    {"snapshot_blkdev", BLOCK_DEVICE, 2, 3, NULL, "blockdev-snapshot-sync",
     "device,snapshot-file,format"},
    {"stop", NULL, 0, 0, hmp_stop},
    {"system_powerdown", NULL, 0, 0, hmp_powerdown},
    {"system_reset", NULL, 0, 0, hmp_reset},
    {"watchdog_action", "string", 1, 1, NULL, "watchdog-set-action", "action"},
};

static const HmpCommand *find(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    }
    return NULL;
}

static void list(GString *out, bool info)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (!info || g_str_has_prefix(commands[i].name, "info "))
            g_string_append_printf(out, "%s\r\n", commands[i].name);
    }
}

static bool hmp_help(Control *c, char **args, GString *out, GError **error)
{
    list(out, false);
    return true;
}

static bool hmp_info(Control *c, char **args, GString *out, GError **error)
{
    list(out, true);
    return true;
}

/* The word @word as argument @a of a command; false with QEMU's words. */
static bool put_word(JsonOut *json, const CommandArg *a, bool size, const char *word,
                     GError **error)
{
    uint64_t value;
    bool ok = true;

    if (a->kind == ARG_STRING) {
        json_string(json, a->name, word);
        return true;
    }
    if (size && parse_u64(word, &value)) /* megabytes */
        ok = value <= INT64_MAX / MIB && (value *= MIB, true);
    else
        ok = (size ? parse_size(word, &value) : parse_u64(word, &value)) && value <= INT64_MAX;
    if (ok)
        json_number(json, a->name, (int64_t)value);
    return ok || lodge_fail(error, LODGE_ERROR_CONFIG, "invalid number: %s", word);
}

/* @words as the arguments of the command that @h is; transfer full, NULL with the error. */
static JsonOut *forward_args(const HmpCommand *h, const Command *cmd, char **words, GError **error)
{
    g_autoptr(JsonOut) json = json_out_new_line();
    g_auto(GStrv) params = g_strsplit(h->params, ",", -1);
    char **p = params;
    bool ok = true;

    json_object(json, NULL);
    for (; ok && *words; words++) {
        if (!strcmp(*words, "-f")) {
            json_bool(json, "force", true);
            continue;
        }
        bool size = *p && g_str_has_suffix(*p, ":o");
        const CommandArg *a = cmd->args;
        if (size)
            (*p)[strlen(*p) - 2] = '\0';
        while (*p && strcmp(a->name, *p))
            a++;
        ok = *p ? put_word(json, a, size, *words, error)
                : lodge_fail(error, LODGE_ERROR_CONFIG, "invalid word: %s", *words);
        p += ok;
    }
    json_end(json);
    return ok ? g_steal_pointer(&json) : NULL;
}

static bool forward(Control *c, const HmpCommand *h, char **words, GError **error)
{
    const Command *cmd = command_find(h->qmp);
    const Json *json = control_json(c, error);
    g_autoptr(JsonOut) text = json ? forward_args(h, cmd, words, error) : NULL;
    g_auto(Jv) args = text ? jv_parse(json, json_text(text), error) : (Jv){NULL, NULL};
    g_autoptr(JsonOut) answer = json_out_new_line();
    ControlReply r = {.out = answer};

    json_object(answer, NULL);
    return args.node && command_check(cmd, args, error) && cmd->run(c, args, &r, error);
}

char *hmp_run(Control *c, const char *line)
{
    g_autoptr(GString) out = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) split = g_strsplit_set(line, " \t\r\n", -1);
    char *words[WORDS_MAX + 1] = {NULL}; /* without the empty ones */
    unsigned n = 0;
    for (char **w = split; *w && n < WORDS_MAX; w++) {
        if (**w)
            words[n++] = *w;
    }
    if (!n)
        return g_strdup("");
    bool info = n > 1 && !strcmp(words[0], "info");
    g_autofree char *name =
        info ? g_strdup_printf("info %s", words[1]) : g_strdup(words[0]);
    const HmpCommand *cmd = find(name);
    char **args = words + 1 + info;
    const char *word = words[info]; /* what messages call it */
    n -= 1 + info;
    if (!cmd)
        g_string_append_printf(out, "unknown command: '%s'\r\n", name);
    else if (n < cmd->min)
        g_string_append_printf(out, "%s: %s expected\r\n", word, cmd->first);
    else if (n > cmd->max)
        g_string_append_printf(out, "%s: extraneous characters at the end of line\r\n", word);
    else if (cmd->run ? !cmd->run(c, args, out, &error) : !forward(c, cmd, args, &error))
        g_string_append_printf(out, "%s%s\r\n",
                               strncmp(error->message, "invalid", 7) ? "Error: " : "",
                               error->message);
    if (cmd && (n < cmd->min || n > cmd->max))
        g_string_append_printf(out, "Try \"help %s\" for more information\r\n", name);
    return g_strdup(out->str);
}

COMMAND_FN(cmd_human_monitor)
{
    Jv cpu = jv_get(args, "cpu-index");
    if (jv_kind(cpu) == JV_INT && c->config.machine &&
        (jv_int(cpu) < 0 || jv_int(cpu) >= machine_board(c->config.machine)->cpus))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "Parameter 'cpu-index' expects a CPU number");
    c->cpu = (unsigned)jv_int(cpu);
    g_autofree char *answer = hmp_run(c, jv_text(jv_get(args, "command-line")));
    json_string(control_return(r), "return", answer);
    return true;
}
