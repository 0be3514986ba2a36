/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A debugger's connection: the socket, and the machine as gdbstub.c sees it.
 *
 * One debugger at a time; another one is turned away. The machine is paused when the debugger first
 * asks for something of it, and whenever it stops; between them it is an ordinary running machine,
 * which QMP can pause too. Who paused it does not matter to the debugger, and a debugger that
 * believes that the machine runs hears of a pause. When the debugger goes, in whatever way, its
 * breakpoints go, and the machine runs on if it ran when the debugger came.
 *
 * Everything is the main thread's. Input is read while there is room for answers; who does not read
 * them is dropped.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib-unix.h>

#include "lodge/error.h"
#include "lodge/listener.h"

#include "control_internal.h"
#include "endpoint.h"
#include "gdbstub.h"

#define GDB_SOCKET "gdb.sock"
#define READ_BYTES 4096u
#define OUT_PAUSE (64u * 1024u)
#define OUT_MAX (1024u * 1024u)

typedef struct GdbClient {
    GdbServer *server;
    int fd;
    guint in, out; /* 0: not there */
    GString *unsent;
    GdbStub *stub;
    bool ran; /* the machine did, when the debugger came */
    bool dropped;
} GdbClient;

struct GdbServer {
    Control *control;
    Listener *listener;
    Endpoint at;     /* its socket is the listener's */
    GdbClient *client; /* NULL: none */
    guint later;     /* 0: nothing is to be told */
    bool ours;       /* a pause or its end is the debugger's own */
};

static void client_update(GdbClient *cl);

/* ---- the machine, for the stub ---- */

static Machine *machine_of(void *opaque)
{
    return ((GdbClient *)opaque)->server->control->config.machine;
}

static bool target_halt(void *opaque)
{
    GdbServer *s = ((GdbClient *)opaque)->server;
    Machine *m = machine_of(opaque);
    if (machine_state(m) != MACHINE_RUNNING)
        return machine_state(m) == MACHINE_PAUSED;
    s->ours = true;
    bool ok = machine_pause(m, NULL);
    s->ours = false;
    return ok;
}

static void target_run(void *opaque, const bool *held)
{
    Machine *m = machine_of(opaque);
    for (unsigned i = 0; i < cpu_set_count(machine_cpus(m)); i++)
        cpu_set_hold(machine_cpus(m), i, held[i]);
    machine_debug_resume(m);
}

static bool target_debug(void *opaque, unsigned cpu, const VcpuDebug *d)
{
    return vcpu_set_debug(machine_cpus(machine_of(opaque)), cpu, d);
}

static bool target_regs_read(void *opaque, unsigned cpu, VcpuRegs *ret)
{
    return vcpu_regs_read(machine_cpus(machine_of(opaque)), cpu, ret);
}

static bool target_regs_write(void *opaque, unsigned cpu, const VcpuRegs *r)
{
    return vcpu_regs_write(machine_cpus(machine_of(opaque)), cpu, r);
}

static bool target_is_halted(void *opaque, unsigned cpu)
{
    return vcpu_is_halted(machine_cpus(machine_of(opaque)), cpu);
}

static bool target_translate(void *opaque, unsigned cpu, uint64_t gva, gpa_t *ret_gpa)
{
    return vcpu_translate(machine_cpus(machine_of(opaque)), cpu, gva, ret_gpa);
}

static bool target_read(void *opaque, gpa_t from, void *to, size_t len)
{
    return mem_read(machine_board(machine_of(opaque))->mem, from, to, len);
}

static bool target_write(void *opaque, gpa_t to, const void *from, size_t len)
{
    return mem_write(machine_board(machine_of(opaque))->mem, to, from, len);
}

/* The end is for the loop: the stub is in the middle of a packet. */
static gboolean kill_later(gpointer opaque)
{
    GdbServer *s = opaque;
    s->later = 0;
    s->control->end_reason = "host-qmp-quit";
    machine_kill(s->control->config.machine, 0);
    return G_SOURCE_REMOVE;
}

static void target_kill(void *opaque)
{
    GdbServer *s = ((GdbClient *)opaque)->server;
    g_clear_handle_id(&s->later, g_source_remove);
    s->later = g_idle_add(kill_later, s);
}

static char *target_monitor(void *opaque, const char *line)
{
    return hmp_run(((GdbClient *)opaque)->server->control, line);
}

static void target_send(void *opaque, const void *data, size_t len)
{
    GdbClient *cl = opaque;
    if (cl->unsent->len + len > OUT_MAX)
        cl->dropped = true;
    else
        g_string_append_len(cl->unsent, data, (gssize)len);
}

/* Where KVM emulates guest kernel mode, INT3 there ends the machine. */
static bool host_emulates(void)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents("/proc/cpuinfo", &text, NULL, NULL))
        return false;
    const char *flags = strstr(text, "\nflags");
    g_autofree char *line = flags ? g_strndup(flags, strcspn(flags + 1, "\n") + 1) : g_strdup("");
    return !strstr(line, " vmx") && !strstr(line, " svm");
}

/* ---- the client ---- */

static void client_flush(GdbClient *cl)
{
    if (!cl->dropped && !control_flush(cl->fd, cl->unsent))
        cl->dropped = true;
}

static void client_free(GdbClient *cl)
{
    GdbServer *s = cl->server;
    Machine *m = s->control->config.machine;
    bool ended = machine_state(m) == MACHINE_ENDED;
    bool rest = !ended && target_halt(cl);
    g_clear_handle_id(&cl->in, g_source_remove);
    g_clear_handle_id(&cl->out, g_source_remove);
    machine_debug_listen(m, NULL, NULL);
    s->client = NULL;
    if (rest || ended) /* else a device does not come to rest, and nothing can be taken out */
        gdb_stub_free(cl->stub);
    if (rest && cl->ran)
        machine_resume(m);
    close(cl->fd);
    g_string_free(cl->unsent, TRUE);
    g_free(cl);
}

static gboolean on_io(int fd, GIOCondition condition, gpointer opaque)
{
    GdbClient *cl = opaque;
    uint8_t buf[READ_BYTES];
    cl->in = 0;
    if (cl->unsent->len < OUT_PAUSE) {
        ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        if (n > 0)
            gdb_stub_input(cl->stub, buf, (size_t)n);
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            cl->dropped = true;
    } else if (condition & (G_IO_HUP | G_IO_ERR)) {
        cl->dropped = true;
    }
    client_update(cl);
    return G_SOURCE_REMOVE;
}

static gboolean on_room(int fd, GIOCondition condition, gpointer opaque)
{
    GdbClient *cl = opaque;
    cl->out = 0;
    client_update(cl);
    return G_SOURCE_REMOVE;
}

/* Send, and wait for what comes; frees a client that is done. */
static void client_update(GdbClient *cl)
{
    client_flush(cl);
    g_clear_handle_id(&cl->in, g_source_remove);
    g_clear_handle_id(&cl->out, g_source_remove);
    if (cl->dropped || (gdb_stub_detached(cl->stub) && !cl->unsent->len)) {
        client_free(cl);
        return;
    }
    bool room = cl->unsent->len < OUT_PAUSE;
    cl->in = g_unix_fd_add(cl->fd, (room ? G_IO_IN : 0) | G_IO_HUP | G_IO_ERR, on_io, cl);
    if (cl->unsent->len)
        cl->out = g_unix_fd_add(cl->fd, G_IO_OUT, on_room, cl);
}

static void on_stopped(void *opaque, const VcpuDebugStop *stop)
{
    GdbClient *cl = opaque;
    gdb_stub_stopped(cl->stub, stop);
    client_update(cl);
}

static void on_connect(int fd, void *opaque)
{
    GdbServer *s = opaque;
    Machine *m = s->control->config.machine;
    if (s->client || machine_state(m) == MACHINE_ENDED) {
        close(fd);
        return;
    }
    GdbClient *cl = g_new0(GdbClient, 1);
    GdbTarget t = {
        .cpus = cpu_set_count(machine_cpus(m)),
        .no_int3 = host_emulates(),
        .halt = target_halt,
        .run = target_run,
        .debug = target_debug,
        .regs_read = target_regs_read,
        .regs_write = target_regs_write,
        .is_halted = target_is_halted,
        .translate = target_translate,
        .mem_read = target_read,
        .mem_write = target_write,
        .kill = target_kill,
        .monitor = target_monitor,
        .send = target_send,
        .opaque = cl,
    };
    cl->server = s;
    cl->fd = fd;
    cl->unsent = g_string_new(NULL);
    /* One that waits for a debugger (--gdb ...,wait=on) goes on when that has gone. */
    cl->ran = machine_state(m) == MACHINE_RUNNING || s->control->config.waits_for_gdb;
    cl->stub = gdb_stub_new(&t);
    s->client = cl;
    machine_debug_listen(m, on_stopped, cl);
    client_update(cl);
}

/* ---- news ---- */

static gboolean tell_later(gpointer opaque)
{
    GdbServer *s = opaque;
    GdbClient *cl = s->client;
    s->later = 0;
    if (!cl)
        return G_SOURCE_REMOVE;
    if (machine_state(s->control->config.machine) == MACHINE_PAUSED)
        gdb_stub_paused(cl->stub); /* unless a breakpoint was told meanwhile */
    client_update(cl);
    return G_SOURCE_REMOVE;
}

void gdb_server_news(GdbServer *s, const MachineNews *news)
{
    if (!s->client)
        return;
    if (news->what == MACHINE_EVENT_PAUSED && !s->ours && !s->later) {
        s->later = g_idle_add(tell_later, s);
    } else if (news->what == MACHINE_EVENT_ENDED) {
        gdb_stub_ended(s->client->stub);
        client_flush(s->client);
    }
}

/* ---- the server ---- */

bool control_open_gdb(Control *c, const char *spec, GError **error)
{
    g_autofree char *own = NULL;
    if (c->gdb)
        return lodge_fail(error, LODGE_ERROR_EXISTS, "gdb: is let in at %s already",
                          c->gdb->at.address);
    if (!control_machine(c, error))
        return false;
    if (!spec && !c->config.registry)
        return lodge_fail(error, LODGE_ERROR_STATE, "gdb: the machine has no folder for a socket");
    if (!spec)
        spec = own = g_strdup_printf("unix:%s/" GDB_SOCKET, registry_run_dir(c->config.registry));
    g_autofree GdbServer *s = g_new0(GdbServer, 1);
    if (!endpoint_listen("gdb", spec, &s->at, error))
        return false;
    s->control = c;
    s->listener = listener_new(s->at.fd, on_connect, s);
    s->at.fd = -1;
    c->gdb = g_steal_pointer(&s);
    return true;
}

const char *control_gdb_address(const Control *c)
{
    return c->gdb ? c->gdb->at.address : NULL;
}

void gdb_server_free(GdbServer *s)
{
    if (!s)
        return;
    listener_free(s->listener);
    if (s->client)
        client_free(s->client);
    g_clear_handle_id(&s->later, g_source_remove);
    endpoint_clear(&s->at);
    s->control->gdb = NULL;
    g_free(s);
}

COMMAND_FN(cmd_gdb)
{
    if (!c->gdb && !control_open_gdb(c, NULL, error))
        return false;
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_string(out, "address", c->gdb->at.address);
    json_end(out);
    return true;
}
