/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands about networks: what passes them, and ports of the host that lead into the guest. */
#include <arpa/inet.h>
#include <string.h>
#include <unistd.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/net.h"

#include "control_internal.h"
#include "hostfwd.h"

static const PropSpec *prop_of(const Device *d, PropKind kind)
{
    for (const PropSpec *p = d->cls->props; p && p->name; p++) {
        if (p->kind == kind)
            return p;
    }
    return NULL;
}

Device *control_card_of(Machine *m, const NetBackend *be, const PropSpec **ret_mac)
{
    const GPtrArray *devices = machine_devices(m);
    for (unsigned i = 0; i < devices->len; i++) {
        Device *d = g_ptr_array_index(devices, i);
        const PropSpec *p = prop_of(d, PROP_NET);
        if (p && *(NetPort *const *)((const char *)d + p->offset) == be->port) {
            *ret_mac = prop_of(d, PROP_MAC);
            return d;
        }
    }
    return NULL;
}

static void print_card(JsonOut *out, Device *d, const PropSpec *mac)
{
    json_string(out, "device", d->id);
    json_string(out, "model", d->cls->name);
    if (mac) {
        g_autofree char *text = net_mac_text((const uint8_t *)d + mac->offset);
        json_string(out, "mac", text);
    }
}

static void print_counters(JsonOut *out, const NetStats *s)
{
    json_number(out, "rx-frames", (int64_t)s->rx_frames);
    json_number(out, "rx-bytes", (int64_t)s->rx_bytes);
    json_number(out, "rx-dropped", (int64_t)s->rx_dropped);
    json_number(out, "tx-frames", (int64_t)s->tx_frames);
    json_number(out, "tx-bytes", (int64_t)s->tx_bytes);
    json_number(out, "tx-dropped", (int64_t)s->tx_dropped);
}

/* The streams of a back end that has several, each for a pair of the card's queues. */
static void print_queues(JsonOut *out, NetBackend *be)
{
    if (!be->port->next)
        return;
    json_array(out, "queues");
    for (NetPort *p = be->port; p; p = p->next) {
        NetStats s;
        net_stream_stats(p, &s);
        json_object(out, NULL);
        json_bool(out, "used", !net_peer_idle(p));
        print_counters(out, &s);
        json_end(out);
    }
    json_end(out);
}

static void print_seen(JsonOut *out, NetBackend *be)
{
    NetSeen seen[NET_SEEN_MAX];
    unsigned n = net_backend_seen(be, seen, NET_SEEN_MAX);
    json_array(out, "addresses");
    for (unsigned i = 0; i < n; i++) {
        char addr[INET6_ADDRSTRLEN] = "";
        g_autofree char *mac = net_mac_text(seen[i].mac);
        (void)inet_ntop(seen[i].ip6 ? AF_INET6 : AF_INET, seen[i].addr, addr, sizeof addr);
        json_object(out, NULL);
        json_string(out, "address", addr);
        json_string(out, "mac", mac);
        json_string(out, "how", seen[i].how);
        json_end(out);
    }
    json_end(out);
}

static void print_forwards(JsonOut *out, NetBackend *be)
{
    const GArray *all = be->hostfwds ? be->hostfwds(be) : NULL;

    if (!all)
        return;
    json_array(out, "forwards");
    for (unsigned i = 0; i < all->len; i++) {
        const HostFwd *f = &g_array_index(all, HostFwd, i);
        char host[INET_ADDRSTRLEN] = "", guest[INET_ADDRSTRLEN] = "";
        (void)inet_ntop(AF_INET, &f->host_addr, host, sizeof host);
        (void)inet_ntop(AF_INET, &f->guest_addr, guest, sizeof guest);
        json_object(out, NULL);
        json_string(out, "protocol", f->udp ? "udp" : "tcp");
        json_string(out, "host", host);
        json_number(out, "host-port", f->host_port);
        if (f->guest_addr.s_addr)
            json_string(out, "guest", guest);
        json_number(out, "guest-port", f->guest_port);
        json_end(out);
    }
    json_end(out);
}

static void print_filter(JsonOut *out, NetBackend *be)
{
    g_autoptr(NetFilterInfo) f = net_backend_filter_info(be);

    if (!f)
        return;
    json_object(out, "filter");
    json_string(out, "name", f->name);
    json_array(out, "rules");
    for (unsigned i = 0; i < f->rows; i++) {
        const NetFilterRow *row = &f->row[i];
        json_object(out, NULL);
        if (row->line)
            json_number(out, "line", row->line);
        json_string(out, "rule", row->text);
        json_string(out, "action", row->allow ? "allow" : "deny");
        json_number(out, "frames", (int64_t)row->frames);
        json_number(out, "bytes", (int64_t)row->bytes);
        json_end(out);
    }
    json_end(out);
    json_end(out);
}

COMMAND_FN(cmd_net)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    const GPtrArray *nets = machine_nets(m);
    JsonOut *out = control_return(r);
    json_array(out, "return");
    for (unsigned i = 0; i < nets->len; i++) {
        NetBackend *be = g_ptr_array_index(nets, i);
        if (!be->port)
            continue;
        NetInfo info;
        const PropSpec *mac = NULL;
        Device *card = control_card_of(m, be, &mac);
        net_backend_info(be, &info);
        json_object(out, NULL);
        json_string(out, "id", be->id);
        json_string(out, "driver", be->driver->name);
        json_string(out, "to", *info.detail ? info.detail : be->driver->name);
        json_bool(out, "link", info.link);
        if (card)
            print_card(out, card, mac);
        NetStats sum;
        net_backend_stats(be, &sum);
        print_counters(out, &sum);
        print_queues(out, be);
        json_array(out, "drops");
        for (unsigned k = 0; k < NET_DROPS_MAX && info.drop[k].reason; k++) {
            json_object(out, NULL);
            json_string(out, "reason", info.drop[k].reason);
            json_number(out, "frames", (int64_t)info.drop[k].frames);
            json_end(out);
        }
        json_end(out);
        print_seen(out, be);
        print_forwards(out, be);
        print_filter(out, be);
        json_end(out);
    }
    json_end(out);
    return true;
}

/* The network of that name; NULL with the error. */
static NetBackend *find_net(Control *c, const char *name, GError **error)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return NULL;
    const GPtrArray *nets = machine_nets(m);
    for (unsigned i = 0; i < nets->len; i++) {
        NetBackend *be = g_ptr_array_index(nets, i);
        if (be->port && !strcmp(be->id, name))
            return be;
    }
    lodge_fail(error, LODGE_ERROR_NOT_FOUND, "Network '%s' not found", name);
    return NULL;
}

COMMAND_FN(cmd_capture)
{
    NetBackend *be = find_net(c, jv_text(jv_get(args, "netdev")), error);
    int fd = control_fds_take(r->fds, jv_text(jv_get(args, "fdname")), be ? error : NULL);
    if (!be) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    return fd >= 0 && net_backend_capture(be, fd, error);
}

COMMAND_FN(cmd_net_filter)
{
    NetBackend *be = find_net(c, jv_text(jv_get(args, "netdev")), error);
    const char *text = jv_text(jv_get(args, "rules")), *name = jv_text(jv_get(args, "name"));

    return be && net_backend_filter(be, name ? name : "rules", text, text ? strlen(text) : 0,
                                    error);
}

/* The network that has forwards: @name, or the first. */
static NetBackend *find_user(Control *c, const char *name, GError **error)
{
    Machine *m = control_machine(c, error);
    NetBackend *be = m && name ? find_net(c, name, error) : NULL;
    if (!m || (name && !be))
        return NULL;
    const GPtrArray *nets = machine_nets(m);
    for (unsigned i = 0; i < nets->len && !be; i++) {
        NetBackend *other = g_ptr_array_index(nets, i);
        if (other->hostfwd_add)
            be = other;
    }
    if (be && be->hostfwd_add)
        return be;
    if (name)
        lodge_fail(error, LODGE_ERROR_CONFIG, "network '%s' is no user network", name);
    else
        lodge_fail(error, LODGE_ERROR_STATE, "the machine has no user network");
    return NULL;
}

char *control_hostfwd_add(Control *c, const char *netdev, const char *rule, GError **error)
{
    NetBackend *be = find_user(c, netdev, error);
    char *made = be ? be->hostfwd_add(be, rule, error) : NULL;
    if (!made)
        return NULL;
    machine_note_forward(c->config.machine, be->id, rule);
    control_tell_status(c);
    return made;
}

bool control_hostfwd_remove(Control *c, const char *netdev, const char *rule, GError **error)
{
    NetBackend *be = find_user(c, netdev, error);
    HostFwd gone;
    if (!be || !be->hostfwd_remove(be, rule, &gone, error))
        return false;
    machine_forget_forward(c->config.machine, be->id, &gone);
    control_tell_status(c);
    return true;
}

bool control_set_link(Control *c, const char *name, bool up, GError **error)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    const GPtrArray *nets = machine_nets(m);
    for (unsigned i = 0; i < nets->len; i++) {
        NetBackend *be = g_ptr_array_index(nets, i);
        const PropSpec *mac;
        Device *card = be->port ? control_card_of(m, be, &mac) : NULL;
        if (!be->port || (strcmp(be->id, name) && (!card || strcmp(card->id, name))))
            continue;
        net_backend_cut(be, !up);
        return true;
    }
    return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "Device '%s' not found", name);
}

COMMAND_FN(cmd_set_link)
{
    return control_set_link(c, jv_text(jv_get(args, "name")), jv_bool(jv_get(args, "up")), error);
}

COMMAND_FN(cmd_hostfwd_add)
{
    g_autofree char *made = control_hostfwd_add(c, jv_text(jv_get(args, "netdev")),
                                                jv_text(jv_get(args, "rule")), error);
    if (!made)
        return false;
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_string(out, "host", made);
    json_end(out);
    return true;
}

COMMAND_FN(cmd_hostfwd_remove)
{
    return control_hostfwd_remove(c, jv_text(jv_get(args, "netdev")),
                                  jv_text(jv_get(args, "rule")), error);
}
