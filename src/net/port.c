/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Host ends by name: finds the row of net_driver_table[], checks that every option is one of the
 * row's or of those that all have, and comes as often as it may, and opens it. What an option's
 * text means is the driver's business, but for the common ones: a capture (watch.c), rules
 * (filter.h) and a cable of lesser quality (shape.c) in front of the driver's port. Threads: main,
 * unless net.h says any.
 */
#include "lodge/net.h"

#include <string.h>
#include <unistd.h>

#include "lodge/error.h"
#include "filter.h"
#include "opts.h"
#include "pcap.h"
#include "shape.h"
#include "watch.h"
#include "wire.h"

#define PCAP_LIMIT_PRESET (UINT64_C(256) << 20)

const NetOptSpec net_common_opts[] = {
    {"filter", "file with rules about what may pass, see docs/networks.md"},
    {"rate", "bits a second each way, like 10M"},
    {"delay", "time that each frame takes each way, like 20ms"},
    {"loss", "frames lost each way, like 1.5%"},
    {"seed", "number that decides which frames are lost (drawn)"},
    {"pcap", "file for a capture of all frames, which tcpdump and wireshark read"},
    {"pcap-limit", "size at which that file becomes FILE.1 and a new one is begun (256M)"},
    {NULL},
};

static const NetDriver *driver_find(const char *name)
{
    for (const NetDriver *const *d = net_driver_table; *d; d++) {
        if (!strcmp((*d)->name, name))
            return *d;
    }
    return NULL;
}

static char *driver_names(void)
{
    GString *s = g_string_new(NULL);

    for (const NetDriver *const *d = net_driver_table; *d; d++)
        g_string_append_printf(s, "%s%s", s->len ? ", " : "", (*d)->name);
    return g_string_free(s, FALSE);
}

static char *option_names(const NetDriver *driver)
{
    GString *s = g_string_new(NULL);

    for (const NetOptSpec *o = driver->opts; o->name; o++)
        g_string_append_printf(s, "%s%s", s->len ? ", " : "", o->name);
    for (const NetOptSpec *o = net_common_opts; s->len && o->name; o++)
        g_string_append_printf(s, ", %s", o->name);
    return g_string_free(s, FALSE);
}

static const NetOptSpec *option_in(const NetOptSpec *table, const char *name)
{
    for (const NetOptSpec *o = table; o->name; o++) {
        if (!strcmp(o->name, name))
            return o;
    }
    return NULL;
}

/* Where there are no options of its own there is no port either. */
static const NetOptSpec *option_find(const NetDriver *driver, const char *name)
{
    const NetOptSpec *o = option_in(driver->opts, name);

    return o || !driver->opts->name ? o : option_in(net_common_opts, name);
}

static char owner[64];

void net_set_owner(const char *name)
{
    g_strlcpy(owner, name, sizeof owner);
}

char *net_owner_text(const char *id)
{
    return *owner ? g_strdup_printf("%s %s", owner, id)
                  : g_strdup_printf("pid %d %s", (int)getpid(), id);
}

static bool options_check(const NetDriver *driver, const char *id, GHashTable *opts,
                          GError **error)
{
    GHashTableIter it;
    gpointer key, value;

    g_hash_table_iter_init(&it, opts);
    while (g_hash_table_iter_next(&it, &key, &value)) {
        const NetOptSpec *o = option_find(driver, key);
        if (!o && !strcmp(key, "queues"))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "net '%s': '%s' has one pair of queues; a tap has several", id,
                              driver->name);
        if (!o) {
            g_autofree char *names = option_names(driver);
            return lodge_fail(error, LODGE_ERROR_CONFIG, "net '%s': '%s' has no option '%s'; %s%s",
                              id, driver->name, (const char *)key,
                              *names ? "it takes " : "it takes none", names);
        }
        if (((GPtrArray *)value)->len > 1 && !o->repeat)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "net '%s': option '%s' is given twice",
                              id, o->name);
    }
    return true;
}

typedef struct Common {
    ShapeOptions shape;
    const char *pcap, *filter; /* borrowed */
    uint64_t pcap_limit;
} Common;

static bool common_parse(GHashTable *opts, Common *c, GError **error)
{
    const uint64_t drawn = (uint64_t)g_random_int() << 32 | g_random_int();

    c->filter = net_opt(opts, "filter");
    c->pcap = net_opt(opts, "pcap");
    c->pcap_limit = PCAP_LIMIT_PRESET;
    return net_opt_rate(opts, "rate", &c->shape.rate, error) &&
           net_opt_time(opts, "delay", &c->shape.delay_ns, error) &&
           net_opt_share(opts, "loss", &c->shape.loss, error) &&
           net_opt_number(opts, "seed", 0, UINT64_MAX, drawn, &c->shape.seed, error) &&
           net_opt_size(opts, "pcap-limit", PCAP_LIMIT_MIN, &c->pcap_limit, error);
}

static bool filter_from_file(NetBackend *be, const char *path, GError **error)
{
    size_t len;
    g_autofree char *text = net_filter_read(path, &len, error);

    return text && net_backend_filter(be, path, text, len, error);
}

/* What stands between the driver's port and the card. */
static bool common_apply(NetBackend *be, const Common *c, LodgeClock *clock, GError **error)
{
    be->watch = net_watch_new();
    unsigned streams = 0;
    if (c->shape.rate || c->shape.delay_ns || c->shape.loss) {
        NetPort *last = NULL;
        for (NetPort *p = be->port; p; p = p->next, streams++) {
            be->shape[streams] = net_shape_new(p, be->shape[0], clock, &c->shape, error);
            if (!be->shape[streams])
                return false;
            NetPort *front = net_shape_port(be->shape[streams]);
            if (last)
                last->next = front;
            last = front;
        }
        be->port = net_shape_port(be->shape[0]);
    }
    streams = 0;
    for (NetPort *p = be->port; p; p = p->next)
        streams++;
    be->gate = net_gate_new(streams);
    for (NetPort *p = be->port; p; p = p->next) {
        p->watch = be->watch;
        p->gate = be->gate;
    }
    if (c->filter && !filter_from_file(be, c->filter, error))
        return g_prefix_error(error, "filter: "), false;
    return !c->pcap || net_watch_to_file(be->watch, c->pcap, c->pcap_limit, error);
}

/**
 * net_backend_open() - Open a host end by its driver's name
 * @driver: "user", ...; @id: names it in messages, copied by the driver where it needs it
 * @opts:   name -> GPtrArray of strings, or NULL for none; borrowed for the call
 * @clock:  guest clock for what has timers; borrowed, outlives the back end
 * Context: main thread.
 * Return:  transfer full, or NULL: LODGE_ERROR_CONFIG (unknown driver or option, ill-formed
 *          value), LODGE_ERROR_BUSY (a host port is taken), LODGE_ERROR_HOST.
 */
NetBackend *net_backend_open(const char *driver, const char *id, GHashTable *opts,
                             LodgeClock *clock, GError **error)
{
    const NetDriver *d = driver_find(driver);
    g_autoptr(GHashTable) none = NULL;

    if (!d) {
        g_autofree char *names = driver_names();
        lodge_fail(error, LODGE_ERROR_CONFIG, "net '%s': unknown kind '%s'; there are %s", id,
                   driver, names);
        return NULL;
    }
    if (!opts)
        opts = none = g_hash_table_new(g_str_hash, g_str_equal);
    Common c = {0};
    if (!options_check(d, id, opts, error))
        return NULL;
    if (!common_parse(opts, &c, error)) {
        g_prefix_error(error, "net '%s': ", id);
        return NULL;
    }
    NetBackend *be = d->open(id, opts, clock, error);
    if (!be) {
        g_prefix_error(error, "net '%s': ", id);
        return NULL;
    }
    be->id = g_strdup(id);
    if (!be->port || common_apply(be, &c, clock, error))
        return be;
    g_prefix_error(error, "net '%s': ", id);
    net_backend_close(be);
    return NULL;
}

void net_backend_close(NetBackend *be)
{
    if (!be)
        return;
    NetWatch *watch = be->watch;
    NetGate *gate = be->gate;
    char *id = be->id;
    for (NetPort *p = be->port; p; p = p->next)
        net_part(p);
    for (unsigned i = NET_STREAMS_MAX; i-- > 0;) /* the first one has what all share */
        net_shape_free(be->shape[i]);
    be->close(be);
    net_watch_free(watch); /* no wire is left that tells it */
    net_gate_free(gate);
    g_free(id);
}

void net_backend_info(NetBackend *be, NetInfo *ret_info)
{
    static const char *const reasons[NET_LOSSES] = {
        [NET_LOSS_DOWN] = "the link was down",
        [NET_LOSS_HEADER] = "of a wrong length or header",
        [NET_LOSS_FULL] = "the guest does not read",
    };
    uint64_t thrown[NET_LOSSES] = {0};
    unsigned n = 0;

    *ret_info = (NetInfo){.link = true};
    if (be->info)
        be->info(be, ret_info);
    ret_info->link = ret_info->link && !(be->port && be->port->cut);
    while (n < NET_DROPS_MAX - 1 && ret_info->drop[n].reason)
        n++;
    for (NetPort *p = be->port; p; p = p->next) {
        uint64_t of_stream[NET_LOSSES];
        net_losses(p, of_stream);
        for (unsigned i = 0; i < NET_LOSSES; i++)
            thrown[i] += of_stream[i];
    }
    for (unsigned i = 0; i < NET_LOSSES && n < NET_DROPS_MAX; i++) {
        if (thrown[i]) {
            ret_info->drop[n].reason = reasons[i];
            ret_info->drop[n++].frames = thrown[i];
        }
    }
    uint64_t lost = 0;
    for (unsigned i = 0; i < NET_STREAMS_MAX && be->shape[i]; i++)
        lost += net_shape_lost(be->shape[i]);
    if (lost && n < NET_DROPS_MAX) {
        ret_info->drop[n].reason = "lost on purpose";
        ret_info->drop[n++].frames = lost;
    }
    uint64_t refused = be->gate ? net_gate_refused(be->gate) : 0;
    if (refused && n < NET_DROPS_MAX) {
        ret_info->drop[n].reason = "refused by the filter";
        ret_info->drop[n].frames = refused;
    }
}

void net_stream_stats(NetPort *stream, NetStats *ret_stats)
{
    NetStats s;

    /* The wire counts as its end sees it: what the host sends the guest receives. */
    net_stats(stream, &s);
    *ret_stats = (NetStats){.rx_frames = s.tx_frames, .rx_bytes = s.tx_bytes,
                            .rx_dropped = s.tx_dropped, .tx_frames = s.rx_frames,
                            .tx_bytes = s.rx_bytes, .tx_dropped = s.rx_dropped};
}

void net_backend_stats(NetBackend *be, NetStats *ret_stats)
{
    NetStats sum = {0};

    for (NetPort *p = be->port; p; p = p->next) {
        NetStats s;
        net_stream_stats(p, &s);
        sum.rx_frames += s.rx_frames;
        sum.rx_bytes += s.rx_bytes;
        sum.rx_dropped += s.rx_dropped;
        sum.tx_frames += s.tx_frames;
        sum.tx_bytes += s.tx_bytes;
        sum.tx_dropped += s.tx_dropped;
    }
    *ret_stats = sum;
}

void net_backend_cut(NetBackend *be, bool cut)
{
    for (NetPort *p = be->port; p; p = p->next)
        net_cut(p, cut);
}

unsigned net_backend_seen(NetBackend *be, NetSeen *ret_seen, unsigned max)
{
    return be->watch ? net_watch_seen(be->watch, ret_seen, max) : 0;
}

bool net_backend_capture(NetBackend *be, int fd, GError **error)
{
    return net_watch_to_fd(be->watch, fd, error);
}

/**
 * net_backend_filter() - Have rules decide what passes
 * @name: of the text, in messages and lists; @text: NULL: no rules
 * Context: main thread. Return: false: the text is wrong, and what was in force still is.
 */
bool net_backend_filter(NetBackend *be, const char *name, const char *text, size_t len,
                        GError **error)
{
    FilterProgram *p = text ? filter_compile(name, text, len, error) : NULL;

    if (text && !p)
        return false;
    FilterProgram *old = net_gate_swap(be->gate, p);
    for (NetPort *stream = be->port; old && stream; stream = stream->next)
        net_settle(stream);
    filter_program_free(old);
    return true;
}

NetFilterInfo *net_backend_filter_info(NetBackend *be)
{
    return be->gate ? net_gate_info(be->gate) : NULL;
}
