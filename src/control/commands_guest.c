/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands about the guest's memory, through its balloon, and about what becomes of a guest that
 * died or hangs.
 *
 * Of QEMU's object tree there is what clients read of a balloon: its statistics and how often the
 * guest is asked for them (qom-get, qom-set). x-lodge-stats tells all at once and, if asked to,
 * waits a moment for statistics of now.
 */
#include <string.h>

#include "lodge/error.h"
#include "lodge/net.h"

#include "control_internal.h"
#include "virtio_balloon.h"

#define LOOK_MS 5            /* between two looks whether statistics have come */
#define FRESH_US (300 * 1000) /* how long a guest is waited for */
#define PERIPHERAL "/machine/peripheral/"

Device *control_balloon(Control *c, GError **error)
{
    Machine *m = control_machine(c, error);
    Device *d = m ? machine_balloon(m) : NULL;
    if (m && !d)
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "No balloon device has been activated");
    return d;
}

COMMAND_FN(cmd_balloon)
{
    Device *d = control_balloon(c, error);
    int64_t bytes = jv_int(jv_get(args, "value"));
    if (!d)
        return false;
    if (bytes <= 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "Parameter 'target' expects a size");
    virtio_balloon_set(d, (uint64_t)bytes);
    return true;
}

COMMAND_FN(cmd_query_balloon)
{
    Device *d = control_balloon(c, error);
    BalloonInfo info;
    if (!d)
        return false;
    virtio_balloon_info(d, &info);
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_number(out, "actual", (int64_t)(info.ram - info.lent));
    json_end(out);
    return true;
}

/* ---- x-lodge-stats ---- */

typedef struct Wait {
    Device *d;
    Machine *m;
    ControlReply *reply;
    unsigned seq;
    int64_t until_us;
    guint timer;
} Wait;

/* Those that the guest has sent, under @key; QEMU's form has -1 for the others. */
static void print_stats(JsonOut *out, const char *key, const BalloonInfo *info, bool all)
{
    json_object(out, key);
    for (unsigned i = 0; i < BALLOON_STATS; i++) {
        bool has = info->have & 1u << i;
        if (has || all)
            json_number(out, balloon_stat_names[i], has ? (int64_t)info->stats[i] : -1);
    }
    json_end(out);
}

static void print_balloon(JsonOut *out, Device *d)
{
    BalloonInfo info;
    virtio_balloon_info(d, &info);
    json_object(out, "balloon");
    json_number(out, "ram", (int64_t)info.ram);
    json_number(out, "actual", (int64_t)(info.ram - info.lent));
    json_number(out, "wanted", (int64_t)(info.ram - MIN(info.wanted, info.ram)));
    json_bool(out, "driver", info.driver);
    json_number(out, "inflated", (int64_t)info.inflated);
    json_number(out, "reported", (int64_t)info.reported);
    json_number(out, "stats-at", info.stats_at_s);
    print_stats(out, "stats", &info, false);
    json_end(out);
}

static void print_all(ControlReply *r, Machine *m)
{
    const GPtrArray *nets = machine_nets(m);
    Device *d = machine_balloon(m);
    int64_t received = 0, sent = 0;
    for (unsigned i = 0; i < nets->len; i++) {
        NetStats s;
        net_backend_stats(g_ptr_array_index(nets, i), &s);
        received += (int64_t)s.rx_bytes;
        sent += (int64_t)s.tx_bytes;
    }
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_number(out, "exits", (int64_t)machine_exits(m));
    json_number(out, "rx-bytes", received);
    json_number(out, "tx-bytes", sent);
    if (d)
        print_balloon(out, d);
    json_end(out);
}

static void drop_wait(ControlReply *r)
{
    Wait *w = r->opaque;
    g_source_remove(w->timer);
    g_free(w);
}

static gboolean look(gpointer opaque)
{
    Wait *w = opaque;
    BalloonInfo info;
    bool there = machine_balloon(w->m) == w->d; /* not unplugged meanwhile */
    if (there)
        virtio_balloon_info(w->d, &info);
    if (there && info.stats_seq == w->seq && g_get_monotonic_time() < w->until_us)
        return G_SOURCE_CONTINUE;
    print_all(w->reply, w->m);
    control_reply_done(w->reply, NULL);
    g_free(w);
    return G_SOURCE_REMOVE;
}

COMMAND_FN(cmd_stats)
{
    Machine *m = control_machine(c, error);
    Device *d = m ? machine_balloon(m) : NULL;
    BalloonInfo info;
    if (!m)
        return false;
    if (d)
        virtio_balloon_info(d, &info);
    if (!d || !jv_bool(jv_get(args, "ask")) || machine_state(m) != MACHINE_RUNNING ||
        !virtio_balloon_ask(d)) {
        print_all(r, m);
        return true;
    }
    Wait *w = g_new0(Wait, 1);
    *w = (Wait){d, m, r, info.stats_seq, g_get_monotonic_time() + FRESH_US, 0};
    w->timer = g_timeout_add(LOOK_MS, look, w);
    control_reply_later(r, drop_wait, w);
    return true;
}

/* ---- qom-get, qom-set ---- */

/* The balloon at @path, which may be an id alone. */
static Device *balloon_at(Control *c, const char *path, GError **error)
{
    Machine *m = control_machine(c, error);
    const char *id = g_str_has_prefix(path, PERIPHERAL) ? path + strlen(PERIPHERAL) : path;
    Device *d = m ? machine_device(m, id) : NULL;
    if (!d && m)
        lodge_fail(error, LODGE_ERROR_NOT_FOUND, "Device '%s' not found", path);
    return d;
}

static bool no_property(const Device *d, const char *name, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_CONFIG, "Property '%s.%s' not found", d->cls->name, name);
}

COMMAND_FN(cmd_qom_get)
{
    const char *name = jv_text(jv_get(args, "property"));
    Device *d = balloon_at(c, jv_text(jv_get(args, "path")), error);
    if (!d)
        return false;
    if (is_virtio_balloon(d) && !strcmp(name, "guest-stats-polling-interval")) {
        json_number(control_return(r), "return", virtio_balloon_polled(d));
        return true;
    }
    if (!is_virtio_balloon(d) || strcmp(name, "guest-stats"))
        return no_property(d, name, error);
    BalloonInfo info;
    virtio_balloon_info(d, &info);
    JsonOut *out = control_return(r);
    json_object(out, "return");
    print_stats(out, "stats", &info, true);
    json_number(out, "last-update", info.stats_at_s);
    json_end(out);
    return true;
}

COMMAND_FN(cmd_qom_set)
{
    const char *name = jv_text(jv_get(args, "property"));
    Device *d = balloon_at(c, jv_text(jv_get(args, "path")), error);
    Jv value = jv_get(args, "value");
    if (!d)
        return false;
    if (!is_virtio_balloon(d) || strcmp(name, "guest-stats-polling-interval"))
        return no_property(d, name, error);
    if (jv_kind(value) == JV_ABSENT)
        return arg_missing(error, "value");
    if (jv_kind(value) != JV_INT)
        return arg_type(error, name, "integer");
    if (jv_int(value) < 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "timer value must be greater than zero");
    if (jv_int(value) > UINT32_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "timer value is too big");
    virtio_balloon_poll(d, (uint32_t)jv_int(value));
    return true;
}

/* ---- what becomes of the guest ---- */

/* @name is one of QEMU's words, checked by the table. */
static MachineAction action_of(const char *name)
{
    MachineAction a = MACHINE_ACTION_POWEROFF;
    (void)machine_action_parse(name, &a);
    return a;
}

COMMAND_FN(cmd_watchdog_action)
{
    Machine *m = control_machine(c, error);
    if (m)
        machine_set_watchdog_action(m, action_of(jv_text(jv_get(args, "action"))));
    return m != NULL;
}

COMMAND_FN(cmd_set_action)
{
    Machine *m = control_machine(c, error);
    const char *panic = jv_text(jv_get(args, "panic"));
    const char *watchdog = jv_text(jv_get(args, "watchdog"));
    if (!m)
        return false;
    if (panic) /* QEMU's shutdown is an end */
        machine_set_on_panic(m, strcmp(panic, "shutdown") ? action_of(panic)
                                                          : MACHINE_ACTION_POWEROFF);
    if (watchdog)
        machine_set_watchdog_action(m, action_of(watchdog));
    return true;
}
