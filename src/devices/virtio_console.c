// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtio console: one terminal and named byte channels.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, section 5.3 "Console Device", with
 * VIRTIO_CONSOLE_F_SIZE, MULTIPORT and EMERG_WRITE. Port 0 is the console (hvc0); ports 1 to 15
 * are named and appear in a Linux guest as /dev/virtio-ports/NAME, or as one more terminal (hvcN)
 * where they are marked as one. A driver without MULTIPORT sees port 0 only. Up to max-ports, ports
 * come and go while the machine runs.
 *
 * Threads: all queues belong to one loop thread, which is the channels' too. Output is handed to
 * the channel, which never blocks; input stays with the channel until the guest has buffers, so
 * nothing is kept here. An emergency write runs on the vCPU thread and only hands a byte on.
 *
 * Invariants:
 * (1) What is still to be told to the driver is a bit set for each port (PENDING_*), so it is
 *     bounded however slowly the driver takes it.
 * (2) ConsoleRegs is touched by the loop thread only, or while the device is quiet.
 */
#include "virtio.h"

#include <string.h>

#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>

#include "lodge/chan.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

enum {
    PORTS = 16,
    TERMINALS = 8, /* hvc0 to hvc7 in Linux, whose driver has no more */
    CONSOLE_ENTRIES = 64,
    NAME_MAX_LEN = 64,
    QUEUE_CONTROL_RX = 2,
    QUEUE_CONTROL_TX = 3,
    KICK_BATCH = 4 * CONSOLE_ENTRIES, /* chains a kick handles before others get a turn */
    CLASS_COMMUNICATION_OTHER = 0x078000,
    CONFIG_LEN = sizeof(struct virtio_console_config),
};

#define QUEUES_OF(nports) (2 * (nports) + 2)
_Static_assert(QUEUES_OF(PORTS) <= VIRTIO_QUEUES_MAX, "queues of all ports fit");

/* Messages that a port still owes the driver, in the order in which they are sent. */
enum {
    PENDING_ADD = 1 << 0,
    PENDING_CONSOLE = 1 << 1,
    PENDING_RESIZE = 1 << 2,
    PENDING_NAME = 1 << 3,
    PENDING_OPEN = 1 << 4,
    PENDING_REMOVE = 1 << 5, /* the port is gone already, and its place is free once this is sent */
    PENDING_ALL = (1 << 6) - 1,
};

typedef struct PortRegs {
    uint16_t cols, rows;
    uint8_t pending; /* PENDING_* */
    bool ready;      /* the driver knows the port */
    bool guest_open;
    bool host_open;
} PortRegs;

typedef struct ConsoleRegs {
    PortRegs port[PORTS];
} ConsoleRegs;

typedef struct VirtioConsole VirtioConsole;

typedef struct ConsolePort {
    VirtioConsole *con; /* constant */
    unsigned index;
    /* Properties; changed by adding and removing, by the main thread with the loop held: */
    Chan *chan; /* borrowed from the board; NULL: no such port */
    char *name;
    bool tty; /* a terminal, like port 0 */
} ConsolePort;

typedef struct ConsoleSaved {
    VirtioSaved transport;
    ConsoleRegs regs;
} ConsoleSaved;

struct VirtioConsole {
    VirtioDev v;
    ConsolePort port[PORTS];
    uint32_t max_ports; /* property */
    unsigned nports;    /* highest index that there can be, + 1; constant after realize */
    /* Loop thread only: */
    ConsoleRegs regs;
    struct iovec iov[CONSOLE_ENTRIES];
    MemPin pins[CONSOLE_ENTRIES];
    /* Main thread, quiesced: */
    ConsoleSaved saved;
};

static const VirtioFeature console_features[] = {
    {VIRTIO_CONSOLE_F_SIZE, "size", 0},
    {VIRTIO_CONSOLE_F_MULTIPORT, "multiport", 0},
    {VIRTIO_CONSOLE_F_EMERG_WRITE, "emerg_write", 0},
    {0, NULL, 0},
};

/* 5.3.2: the control queues stand between port 0 and port 1. */
static unsigned rx_queue(unsigned port)
{
    return port ? 2 + 2 * port : 0;
}

static unsigned tx_queue(unsigned port)
{
    return rx_queue(port) + 1;
}

static bool port_exists(const VirtioConsole *con, unsigned port)
{
    return port < con->nports && (port == 0 || con->port[port].chan);
}

static bool multiport(const VirtioConsole *con)
{
    return virtio_has(&con->v, VIRTIO_CONSOLE_F_MULTIPORT);
}

static VirtChain scratch_chain(VirtioConsole *con)
{
    return (VirtChain){.iov = con->iov, .pins = con->pins, .max = CONSOLE_ENTRIES};
}

/* ---- control messages to the driver ---- */

/* The message of @bit for @port; its length. */
static size_t make_message(const VirtioConsole *con, unsigned port, uint8_t bit, uint8_t *msg)
{
    const PortRegs *r = &con->regs.port[port];
    struct virtio_console_control h = {.id = port, .value = 1};
    size_t len = sizeof h;

    switch (bit) {
    case PENDING_ADD:
        h.event = VIRTIO_CONSOLE_PORT_ADD;
        break;
    case PENDING_REMOVE:
        h.event = VIRTIO_CONSOLE_PORT_REMOVE;
        break;
    case PENDING_CONSOLE:
        h.event = VIRTIO_CONSOLE_CONSOLE_PORT;
        break;
    case PENDING_RESIZE:
        /* 5.3.6.2 lists cols first, but Linux has always read rows first. */
        h.event = VIRTIO_CONSOLE_RESIZE;
        store_le16(msg + len, r->rows);
        store_le16(msg + len + 2, r->cols);
        len += 4;
        break;
    case PENDING_NAME:
        h.event = VIRTIO_CONSOLE_PORT_NAME;
        memcpy(msg + len, con->port[port].name, strlen(con->port[port].name));
        len += strlen(con->port[port].name);
        break;
    default:
        h.event = VIRTIO_CONSOLE_PORT_OPEN;
        h.value = r->host_open;
        break;
    }
    memcpy(msg, &h, sizeof h);
    return len;
}

/* Send what ports owe while the driver has buffers. A pending bit is dropped once it is sent. */
static void send_control(VirtioConsole *con)
{
    VirtQueue *vq = &con->v.q[QUEUE_CONTROL_RX].vq;
    VirtChain c = scratch_chain(con);
    uint8_t msg[sizeof(struct virtio_console_control) + NAME_MAX_LEN];
    bool blocked = false;

    if (!virtio_may_run(&con->v) || !virtqueue_running(vq) || !multiport(con))
        return;
    for (unsigned p = 0; p < con->nports && !blocked; p++) {
        PortRegs *r = &con->regs.port[p];

        while (r->pending && !blocked) {
            uint8_t bit = (uint8_t)(r->pending & -r->pending);
            size_t len = make_message(con, p, bit, msg);

            if (!virtio_pop(&con->v, QUEUE_CONTROL_RX, &c)) {
                /* A kick may have crossed ours: look once more with kicks asked for. */
                blocked = con->v.broken || !virtqueue_notify_on(vq);
                continue;
            }
            len = virtq_to_iov(c.iov + c.readable, c.writable, 0, msg, len);
            virtqueue_push_chain(vq, &c, (uint32_t)len);
            r->pending &= (uint8_t)~bit;
        }
    }
    virtio_publish(&con->v, QUEUE_CONTROL_RX);
}

/* ---- control messages from the driver ---- */

static void port_ready(VirtioConsole *con, unsigned p, bool ok)
{
    PortRegs *r = &con->regs.port[p];

    r->ready = ok;
    if (!ok)
        return;
    if (p == 0 || con->port[p].tty)
        r->pending |= PENDING_CONSOLE | (r->cols ? PENDING_RESIZE : 0);
    if (con->port[p].name)
        r->pending |= PENDING_NAME;
    if (r->host_open)
        r->pending |= PENDING_OPEN;
}

static void control_message(VirtioConsole *con, const struct virtio_console_control *h)
{
    if (h->event == VIRTIO_CONSOLE_DEVICE_READY) {
        for (unsigned p = 0; h->value && p < con->nports; p++) {
            if (port_exists(con, p))
                con->regs.port[p].pending |= PENDING_ADD;
        }
        return;
    }
    if (!port_exists(con, h->id)) {
        guest_fault(&con->v.pci.dev, "message %u for port %u, which is not there", h->event, h->id);
        return;
    }
    switch (h->event) {
    case VIRTIO_CONSOLE_PORT_READY:
        port_ready(con, h->id, h->value);
        break;
    case VIRTIO_CONSOLE_PORT_OPEN:
        con->regs.port[h->id].guest_open = h->value;
        if (h->value && con->port[h->id].chan)
            chan_want(con->port[h->id].chan);
        break;
    default:
        guest_fault(&con->v.pci.dev, "control message of unknown kind %u", h->event);
        break;
    }
}

static void receive_control(VirtioConsole *con, const VirtChain *c)
{
    struct virtio_console_control h;

    if (virtq_from_iov(c->iov, c->readable, 0, &h, sizeof h) == sizeof h)
        control_message(con, &h);
    else
        guest_fault(&con->v.pci.dev, "control message cut short");
}

/* ---- data ---- */

static void receive_data(VirtioConsole *con, unsigned port, const VirtChain *c)
{
    for (unsigned i = 0; con->port[port].chan && i < c->readable; i++)
        chan_write(con->port[port].chan, c->iov[i].iov_base, c->iov[i].iov_len);
}

/* Take what the driver sends on queue @qi. */
static void drain_queue(VirtioConsole *con, unsigned qi, int port)
{
    VirtQueue *vq = &con->v.q[qi].vq;
    VirtChain c = scratch_chain(con);
    unsigned n = 0;

    do {
        virtqueue_notify_off(vq);
        for (; n < KICK_BATCH && virtio_pop(&con->v, qi, &c); n++) {
            if (port < 0)
                receive_control(con, &c);
            else
                receive_data(con, (unsigned)port, &c);
            virtqueue_push_chain(vq, &c, 0);
        }
    } while (n < KICK_BATCH && !con->v.broken && virtqueue_notify_on(vq));
    if (n == KICK_BATCH)
        virtio_kick_again(&con->v, qi);
    virtio_publish(&con->v, qi);
}

/* Bytes from the host, see ChanOps. The rest waits in the channel. */
static size_t port_input(void *opaque, const uint8_t *data, size_t len)
{
    ConsolePort *port = opaque;
    VirtioConsole *con = port->con;
    unsigned qi = rx_queue(port->index);
    VirtQueue *vq = &con->v.q[qi].vq;
    VirtChain c = scratch_chain(con);
    size_t done = 0;

    if (!virtio_may_run(&con->v) || !virtqueue_running(vq) ||
        (multiport(con) && !con->regs.port[port->index].guest_open))
        return 0;
    virtqueue_notify_off(vq);
    while (done < len) {
        size_t n;

        if (!virtio_pop(&con->v, qi, &c)) {
            if (con->v.broken || !virtqueue_notify_on(vq))
                break;
            continue;
        }
        n = virtq_to_iov(c.iov + c.readable, c.writable, 0, data + done, len - done);
        virtqueue_push_chain(vq, &c, (uint32_t)n);
        if (!n) {
            virtio_break(&con->v, "receive buffer without room");
            break;
        }
        done += n;
    }
    virtio_publish(&con->v, qi);
    return done;
}

static void port_connected(void *opaque, bool up)
{
    ConsolePort *port = opaque;
    PortRegs *r = &port->con->regs.port[port->index];

    if (r->host_open == up)
        return;
    r->host_open = up;
    if (r->ready)
        r->pending |= PENDING_OPEN;
    send_control(port->con);
}

static const ChanOps port_chan_ops = {.input = port_input, .connected = port_connected};

/* ---- virtio ---- */

static void console_kick(VirtioDev *vd, unsigned qi)
{
    VirtioConsole *con = (VirtioConsole *)vd;
    unsigned port = qi < QUEUE_CONTROL_RX ? 0 : qi / 2 - 1;

    if (qi == QUEUE_CONTROL_TX && multiport(con))
        drain_queue(con, qi, -1);
    if (qi == QUEUE_CONTROL_RX || qi == QUEUE_CONTROL_TX) {
        send_control(con);
        return;
    }
    if (port >= con->nports)
        return;
    /* What is sent to a port that went is taken too: drivers wait for it. */
    if (qi == tx_queue(port))
        drain_queue(con, qi, (int)port);
    else if (con->port[port].chan)
        chan_want(con->port[port].chan);
}

static void console_stopped(VirtioDev *vd)
{
    VirtioConsole *con = (VirtioConsole *)vd;

    for (unsigned p = 0; p < PORTS; p++) {
        PortRegs *r = &con->regs.port[p];

        r->pending = 0;
        r->ready = r->guest_open = false;
    }
}

/* 5.3.4: emergency write, before or without any queue. */
static void console_config_written(VirtioDev *vd, unsigned off, unsigned len, uint32_t val)
{
    VirtioConsole *con = (VirtioConsole *)vd;
    uint8_t byte = (uint8_t)val;

    if (off == offsetof(struct virtio_console_config, emerg_wr) && con->port[0].chan)
        chan_write(con->port[0].chan, &byte, 1);
}

static const VirtioClass console_virtio = {
    .name = "virtio-console",
    .type = VIRTIO_ID_CONSOLE,
    .class_code = CLASS_COMMUNICATION_OTHER,
    .features = console_features,
    .kick = console_kick,
    .stopped = console_stopped,
    .config_written = console_config_written,
};

typedef struct Resize {
    VirtioConsole *con;
    unsigned port;
    uint16_t cols, rows;
} Resize;

static void resize_on_loop(void *opaque)
{
    Resize *z = opaque;
    PortRegs *r = &z->con->regs.port[z->port];

    r->cols = z->cols;
    r->rows = z->rows;
    if (r->ready) {
        r->pending |= PENDING_RESIZE;
        send_control(z->con);
    }
}

/**
 * virtio_console_resize() - Tell the guest the size of a port's terminal
 * @d:    device of class virtio-console-pci
 * @port: 0 for the console, or another terminal
 * Context: main thread, no lock held; waits for the loop.
 */
void virtio_console_resize(Device *d, unsigned port, uint16_t cols, uint16_t rows)
{
    VirtioConsole *con = (VirtioConsole *)d;
    Resize z = {con, port, cols, rows};
    uint8_t size[2 * sizeof(uint16_t)];

    if (!port_exists(con, port))
        return;
    if (con->v.io)
        io_thread_call(con->v.io, resize_on_loop, &z);
    else
        resize_on_loop(&z);
    if (port == 0) {
        store_le16(size + offsetof(struct virtio_console_config, cols), cols);
        store_le16(size + offsetof(struct virtio_console_config, rows), rows);
        virtio_config_set(&con->v, 0, size, sizeof size);
    }
}

/* ---- ports that come and go ---- */

typedef struct PortChange {
    VirtioConsole *con;
    unsigned port;
    Chan *chan;
    char *name; /* given to the port, or taken from it */
    bool tty;
} PortChange;

static void add_on_loop(void *opaque)
{
    PortChange *x = opaque;
    ConsolePort *port = &x->con->port[x->port];
    PortRegs *r = &x->con->regs.port[x->port];

    port->con = x->con;
    port->index = x->port;
    port->chan = x->chan;
    port->name = x->name;
    port->tty = x->tty;
    /* A driver that has not begun hears of all ports when it does. */
    *r = (PortRegs){.pending = x->con->regs.port[0].ready ? PENDING_ADD : 0};
    send_control(x->con);
}

static void remove_on_loop(void *opaque)
{
    PortChange *x = opaque;
    ConsolePort *port = &x->con->port[x->port];
    PortRegs *r = &x->con->regs.port[x->port];
    /* A driver that was not told of it need not be told that it is gone. */
    bool known = x->con->regs.port[0].ready && !(r->pending & PENDING_ADD);

    x->name = port->name;
    port->chan = NULL;
    port->name = NULL;
    port->tty = false;
    *r = (PortRegs){.pending = known ? PENDING_REMOVE : 0};
    send_control(x->con);
}

static void change_port(PortChange *x, void (*fn)(void *opaque))
{
    if (x->con->v.io)
        io_thread_call(x->con->v.io, fn, x);
    else
        fn(x);
}

bool virtio_console_add_port(Device *d, const char *name, bool tty, Chan *chan, GError **error)
{
    VirtioConsole *con = (VirtioConsole *)d;
    unsigned terminals = 1;

    for (unsigned p = 1; p < con->nports; p++)
        terminals += con->port[p].tty;
    if (tty && terminals >= TERMINALS)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "%s: has %d terminals, and Linux knows no more",
                          d->id, TERMINALS);
    for (unsigned p = 1; p < con->nports; p++) {
        PortChange x = {.con = con, .port = p, .chan = chan, .tty = tty};

        if (con->port[p].chan || con->regs.port[p].pending)
            continue;
        x.name = g_strdup(name);
        change_port(&x, add_on_loop);
        chan_attach(chan, &port_chan_ops, &con->port[p]);
        return true;
    }
    return lodge_fail(error, LODGE_ERROR_LIMIT, "%s: has no port left of %u", d->id, con->nports);
}

bool virtio_console_remove_port(Device *d, const char *name)
{
    VirtioConsole *con = (VirtioConsole *)d;

    for (unsigned p = 1; p < con->nports; p++) {
        PortChange x = {.con = con, .port = p};

        if (!con->port[p].chan || g_strcmp0(con->port[p].name, name))
            continue;
        chan_attach(con->port[p].chan, NULL, NULL);
        change_port(&x, remove_on_loop);
        g_free(x.name);
        return true;
    }
    return false;
}

/* ---- device ---- */

static bool check_ports(VirtioConsole *con, GError **error)
{
    con->nports = 1;
    for (unsigned p = 1; p < PORTS; p++) {
        ConsolePort *port = &con->port[p];

        if (port->name && !port->chan)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: port%u-name without port%u",
                              con->v.pci.dev.id, p, p);
        if (port->tty && !port->chan)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: port%u-tty without port%u",
                              con->v.pci.dev.id, p, p);
        if (port->name && !*port->name)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: port%u-name is empty",
                              con->v.pci.dev.id, p);
        if (port->chan)
            con->nports = p + 1;
    }
    con->nports = MAX(con->nports, con->max_ports);
    return true;
}

static bool console_realize(Device *d, GError **error)
{
    VirtioConsole *con = (VirtioConsole *)d;
    uint64_t f = VIRTIO_BIT(VIRTIO_CONSOLE_F_SIZE) | VIRTIO_BIT(VIRTIO_CONSOLE_F_MULTIPORT) |
                 VIRTIO_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE);
    struct virtio_console_config c = {0};

    if (!check_ports(con, error))
        return false;
    c.max_nr_ports = con->nports;
    memcpy(con->v.config, &c, CONFIG_LEN);
    if (!virtio_realize(&con->v, &console_virtio, d->board->io, f, QUEUES_OF(con->nports),
                        CONSOLE_ENTRIES, CONFIG_LEN, error))
        return false;
    con->regs.port[0].host_open = true;
    for (unsigned p = 0; p < con->nports; p++) {
        con->port[p].con = con;
        con->port[p].index = p;
        if (con->port[p].chan)
            chan_attach(con->port[p].chan, &port_chan_ops, &con->port[p]);
    }
    return true;
}

static void console_unrealize(Device *d)
{
    VirtioConsole *con = (VirtioConsole *)d;

    for (unsigned p = 0; p < con->nports; p++) {
        if (con->port[p].con && con->port[p].chan)
            chan_attach(con->port[p].chan, NULL, NULL);
        con->port[p].con = NULL;
    }
    virtio_unrealize(&con->v);
}

static void console_pre_save(void *obj)
{
    VirtioConsole *con = obj;

    virtio_pre_save(&con->v, &con->saved.transport);
    con->saved.regs = con->regs;
}

static bool console_post_load(void *obj, unsigned version, GError **error)
{
    VirtioConsole *con = obj;
    ConsoleRegs regs = con->saved.regs;

    for (unsigned p = 0; p < PORTS; p++) {
        if (!port_exists(con, p) &&
            ((regs.port[p].pending & ~PENDING_REMOVE) || regs.port[p].ready))
            return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: state of port %u, which is not there",
                              con->v.pci.dev.id, p);
        if (!con->port[p].name)
            regs.port[p].pending &= (uint8_t)~PENDING_NAME;
        /* Who is connected is the new host's affair; the driver hears of a change. */
        if (regs.port[p].host_open != con->regs.port[p].host_open && regs.port[p].ready)
            regs.port[p].pending |= PENDING_OPEN;
        regs.port[p].host_open = con->regs.port[p].host_open;
    }
    if (!virtio_post_load(&con->v, &con->saved.transport, error))
        return false;
    con->regs = regs;
    return true;
}

static const StateField port_fields[] = {
    ST_U(PortRegs, cols, UINT16_MAX),
    ST_U(PortRegs, rows, UINT16_MAX),
    ST_U(PortRegs, pending, PENDING_ALL),
    ST_B(PortRegs, ready),
    ST_B(PortRegs, guest_open),
    ST_B(PortRegs, host_open),
    ST_END,
};
static const StateDesc port_state = {.name = "port", .version = 1, .oldest = 1,
                                     .regs_size = sizeof(PortRegs), .fields = port_fields};
static const StateField regs_fields[] = {
    ST_SUBS(ConsoleRegs, port, PORTS, &port_state),
    ST_END,
};
static const StateDesc regs_state = {.name = "console", .version = 1, .oldest = 1,
                                     .regs_size = sizeof(ConsoleRegs), .fields = regs_fields};
static const StateField console_fields[] = {
    ST_SUBS(ConsoleSaved, transport, 1, &virtio_saved_state),
    ST_SUBS(ConsoleSaved, regs, 1, &regs_state),
    ST_END,
};
static const StateDesc console_state = {
    .name = "virtio-console-pci",
    .version = 1,
    .oldest = 1,
    .regs_offset = offsetof(VirtioConsole, saved),
    .regs_size = sizeof(ConsoleSaved),
    .fields = console_fields,
    .pre_save = console_pre_save,
    .post_load = console_post_load,
};

#define PORT_PROPS(n)                                                                              \
    {"port" #n, "channel of named port " #n, PROP_CHAN, offsetof(VirtioConsole, port[n].chan), 0,  \
     0, NULL},                                                                                     \
    {"port" #n "-name", "name of port " #n " in the guest", PROP_STRING,                           \
     offsetof(VirtioConsole, port[n].name), 0, NAME_MAX_LEN, NULL},                                \
    {"port" #n "-tty", "port " #n " is a terminal", PROP_BOOL,                                     \
     offsetof(VirtioConsole, port[n].tty), 0, 0, NULL}

static const PropSpec console_props[] = {
    {"chan", "channel of the console (hvc0)", PROP_CHAN, offsetof(VirtioConsole, port[0].chan), 0,
     0, NULL},
    {"max-ports", "how many ports there can be, those added later included", PROP_U32,
     offsetof(VirtioConsole, max_ports), 1, PORTS, "1"},
    PORT_PROPS(1),
    PORT_PROPS(2),
    PORT_PROPS(3),
    PORT_PROPS(4),
    PORT_PROPS(5),
    PORT_PROPS(6),
    PORT_PROPS(7),
    PORT_PROPS(8),
    PORT_PROPS(9),
    PORT_PROPS(10),
    PORT_PROPS(11),
    PORT_PROPS(12),
    PORT_PROPS(13),
    PORT_PROPS(14),
    PORT_PROPS(15),
    {0},
};

const DeviceClass virtio_console_pci_class = {
    .name = "virtio-console-pci",
    .bus = "pci",
    .help = "virtio 1.0 console with named ports",
    .instance_size = sizeof(VirtioConsole),
    .props = console_props,
    .state = &console_state,
    .realize = console_realize,
    .reset = virtio_reset,
    .quiesce = virtio_quiesce,
    .resume = virtio_resume,
    .unrealize = console_unrealize,
};
