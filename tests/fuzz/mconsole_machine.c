/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mconsole_machine.h"

#include <string.h>

#include "lodge/chan.h"
#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"

#include "uart_16550.h"
#include "virtio_balloon.h"

#define RAM ((uint64_t)64 << 20)
#define REFUSED '7' /* the last digit of what a real machine would fail to do */

typedef struct Going {
    char *id; /* owned */
    void (*done)(void *opaque, bool gone);
    void *opaque;
} Going;

struct Machine {
    unsigned features;
    MachineState state;
    Board board;
    LodgeClock *clock;
    IoThread *io;
    GHashTable *devices; /* names, owned, to Device, borrowed */
    GHashTable *chans;   /* names to Chan, both owned */
    GArray *going;
    Device uart, other;
    uint64_t lent;
};

static const DeviceClass uart_class = {.name = "16550a"};
static const DeviceClass other_class = {.name = "fake"};

static void add_chan(Machine *m, const char *name, const char *spec)
{
    g_hash_table_insert(m->chans, g_strdup(name), chan_open(spec, name, m->io, NULL));
}

static void close_chan(gpointer chan)
{
    chan_close(chan);
}

Machine *fake_machine_new(unsigned features)
{
    Machine *m = g_new0(Machine, 1);

    m->features = features;
    m->state = MACHINE_RUNNING;
    m->board.ram_below_4g = RAM;
    m->clock = lodge_clock_new();
    m->io = io_thread_new("io", m->clock, NULL);
    m->uart.cls = &uart_class;
    m->other.cls = &other_class;
    m->devices = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    m->chans = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, close_chan);
    m->going = g_array_new(FALSE, FALSE, sizeof(Going));
    add_chan(m, "con0", "none");
    if (features & FAKE_PORT)
        add_chan(m, "mconsole", "none");
    if (features & FAKE_UART)
        g_hash_table_insert(m->devices, g_strdup("com1"), &m->uart);
    if (features & FAKE_CONSOLES)
        g_hash_table_insert(m->devices, g_strdup("consoles"), &m->other);
    return m;
}

void fake_machine_settle(Machine *m, bool gone)
{
    for (guint i = 0; i < m->going->len; i++) {
        Going *g = &g_array_index(m->going, Going, i);

        if (gone)
            (void)g_hash_table_remove(m->devices, g->id);
        if (g->done)
            g->done(g->opaque, gone);
        g_free(g->id);
    }
    g_array_set_size(m->going, 0);
}

void fake_machine_free(Machine *m)
{
    fake_machine_settle(m, true);
    g_array_free(m->going, TRUE);
    g_hash_table_destroy(m->chans);
    g_hash_table_destroy(m->devices);
    io_thread_free(m->io);
    lodge_clock_free(m->clock);
    g_free(m);
}

/* ---- machine.h ---- */

Device *machine_device(Machine *m, const char *id)
{
    return g_hash_table_lookup(m->devices, id);
}

Chan *machine_chan(Machine *m, const char *name)
{
    return g_hash_table_lookup(m->chans, name);
}

Board *machine_board(Machine *m)
{
    return &m->board;
}

MachineState machine_state(const Machine *m)
{
    return m->state;
}

bool machine_pause(Machine *m, GError **error)
{
    m->state = MACHINE_PAUSED;
    return true;
}

void machine_resume(Machine *m)
{
    m->state = MACHINE_RUNNING;
}

void machine_power_button(Machine *m)
{
}

void machine_reset(Machine *m)
{
    g_assert_cmpint(m->state, ==, MACHINE_RUNNING);
}

void machine_kill(Machine *m, int status)
{
}

const char *machine_boot_text(const Machine *m)
{
    return "a kernel";
}

const char *machine_kernel_banner(const Machine *m)
{
    return m->features & FAKE_BANNER ? "6.1.0-13-amd64 (someone@somewhere) #1 SMP" : NULL;
}

Device *machine_balloon(Machine *m)
{
    return m->features & FAKE_BALLOON ? &m->other : NULL;
}

bool machine_disk_files(Machine *m, const char *id, const char **ret_file, const char **ret_base)
{
    *ret_file = "/a";
    *ret_base = g_str_has_suffix(id, "1") ? "/b" : NULL;
    return !g_str_has_suffix(id, "2");
}

bool machine_plug_port(Machine *m, const char *device, const char *name, const char *chan,
                       const char *spec, GError **error)
{
    if (g_str_has_suffix(chan, (char[]){REFUSED, '\0'}))
        return lodge_fail(error, LODGE_ERROR_HOST, "cannot be opened");
    add_chan(m, chan, !strcmp(spec, "pty") ? "pty" : "none");
    return true;
}

bool machine_unplug_port(Machine *m, const char *device, const char *name, const char *chan)
{
    return g_hash_table_remove(m->chans, chan);
}

/* ---- devices ---- */

void virtio_balloon_info(Device *d, BalloonInfo *ret)
{
    Machine *m = (Machine *)((char *)d - offsetof(Machine, other));

    *ret = (BalloonInfo){.ram = RAM, .lent = m->lent, .wanted = m->lent};
}

void virtio_balloon_set(Device *d, uint64_t bytes)
{
    Machine *m = (Machine *)((char *)d - offsetof(Machine, other));

    g_assert_cmpuint(bytes, <=, RAM);
    m->lent = RAM - bytes;
}

void uart_receive_break(Device *d)
{
    g_assert_true(d->cls == &uart_class);
}

/* ---- control_internal.h ---- */

bool control_send_keys(Control *c, const unsigned *codes, unsigned n, int64_t hold_ms,
                       GError **error)
{
    for (unsigned i = 0; i < n; i++)
        g_assert_cmpuint(codes[i], !=, 0);
    return c->config.input != NULL;
}

bool control_plug(Machine *m, const Tree *t, const char *id, GError **error)
{
    static const LodgeError errors[] = {LODGE_ERROR_CONFIG, LODGE_ERROR_BUSY, LODGE_ERROR_EXISTS,
                                        LODGE_ERROR_HOST, LODGE_ERROR_NOT_FOUND};

    g_assert_null(machine_device(m, id));
    if (g_str_has_suffix(id, (char[]){REFUSED, '\0'}))
        return lodge_fail(error, errors[g_hash_table_size(m->devices) % G_N_ELEMENTS(errors)],
                          "refused\nin two lines");
    g_hash_table_insert(m->devices, g_strdup(id), &m->other);
    return true;
}

bool control_unplug(Control *c, const char *id, unsigned seconds,
                    void (*done)(void *opaque, bool gone), void *opaque, GError **error)
{
    Going g = {g_strdup(id), done, opaque};

    if (c->config.machine->going->len > 4) {
        g_free(g.id);
        return lodge_fail(error, LODGE_ERROR_BUSY, "too many");
    }
    g_array_append_val(c->config.machine->going, g);
    return true;
}

void control_unplug_forget(Control *c, void *opaque)
{
    GArray *going = c->config.machine ? c->config.machine->going : NULL;

    for (guint i = 0; going && i < going->len; i++) {
        Going *g = &g_array_index(going, Going, i);

        if (g->opaque == opaque)
            g->done = NULL;
    }
}
