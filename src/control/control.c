/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The context of control: what commands work on, and how news of the machine become events.
 *
 * The socket lies in the machine's running folder, which is this user's alone, with mode 0600. It
 * is bound through the folder's descriptor, so that no path is too long for a socket's address. One
 * that a killed machine left is ours to take away: the folder's lock is held.
 *
 * Events and their order are QEMU's: STOP and RESUME before the answer to the command that caused
 * them; a panic first says GUEST_PANICKED, then SHUTDOWN. The power button that a person presses at
 * the console tells POWERDOWN like the one of a command.
 */
#include "control.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"

#include "control_internal.h"
#include "hostfwd.h"
#include "mconsole_internal.h"

#define BACKLOG 128

Machine *control_machine(Control *c, GError **error)
{
    if (!c->config.machine)
        lodge_fail(error, LODGE_ERROR_STATE, "there is no machine");
    return c->config.machine;
}

const Json *control_json(Control *c, GError **error)
{
    if (!c->json)
        c->json = json_load(error);
    return c->json;
}

bool control_each_device(Control *c, ControlDeviceFn *fn, void *out, GError **error)
{
    Machine *m = control_machine(c, error);
    const GPtrArray *devices = m ? machine_devices(m) : NULL;
    for (unsigned i = 0; m && i < devices->len; i++) {
        Device *d = g_ptr_array_index(devices, i);
        fn(out, d, machine_medium(m, d));
    }
    return m != NULL;
}

/* ---- events ---- */

const char *const control_event_names[] = {
#define CONTROL_EVENT_NAME(name) [EVENT_##name] = #name,
    CONTROL_EVENTS(CONTROL_EVENT_NAME)
#undef CONTROL_EVENT_NAME
};

JsonOut *control_event_begin(ControlEvent what)
{
    JsonOut *out = json_out_new_line();
    gint64 now = g_get_real_time(); /* microseconds */
    json_object(out, NULL);
    json_object(out, "timestamp");
    json_number(out, "seconds", now / G_USEC_PER_SEC);
    json_number(out, "microseconds", now % G_USEC_PER_SEC);
    json_end(out);
    json_string(out, "event", control_event_names[what]);
    return out;
}

void control_event_send(Control *c, JsonOut *event)
{
    if (c->qmp)
        qmp_event(c->qmp, json_text(event));
    json_out_free(event);
}

void control_event(Control *c, ControlEvent what)
{
    control_event_send(c, control_event_begin(what));
}

static void cause_event(Control *c, ControlEvent what, bool guest, const char *reason)
{
    JsonOut *e = control_event_begin(what);
    json_object(e, "data");
    json_bool(e, "guest", guest);
    json_string(e, "reason", reason);
    control_event_send(c, e);
}

/* GuestPanicAction of QEMU's run-state.json: there, too, a guest that is reset runs on. */
static void panic_event(Control *c, MachineAction a)
{
    JsonOut *e = control_event_begin(EVENT_GUEST_PANICKED);
    json_object(e, "data");
    json_string(e, "action", a == MACHINE_ACTION_POWEROFF || a == MACHINE_ACTION_PAUSE
                                 ? machine_action_name(a) : "run");
    control_event_send(c, e);
}

static void watchdog_event(Control *c, MachineAction a)
{
    JsonOut *e = control_event_begin(EVENT_WATCHDOG);
    json_object(e, "data");
    json_string(e, "action", machine_action_name(a));
    control_event_send(c, e);
}

static void balloon_event(Control *c, uint64_t bytes)
{
    JsonOut *e = control_event_begin(EVENT_BALLOON_CHANGE);
    json_object(e, "data");
    json_number(e, "actual", (int64_t)bytes);
    control_event_send(c, e);
}

static void deleted_event(Control *c, const char *id)
{
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s", id);
    JsonOut *e = control_event_begin(EVENT_DEVICE_DELETED);
    json_object(e, "data");
    json_string(e, "device", id);
    json_string(e, "path", path);
    control_event_send(c, e);
}

static void end_event(Control *c, const MachineResult *r)
{
    switch (r->why) {
    case MACHINE_END_POWER_OFF:
    case MACHINE_END_EXIT:
        cause_event(c, EVENT_SHUTDOWN, true, "guest-shutdown");
        break;
    case MACHINE_END_RESET:
        cause_event(c, EVENT_SHUTDOWN, true, "guest-reset");
        break;
    case MACHINE_END_WATCHDOG:
        cause_event(c, EVENT_SHUTDOWN, true, "guest-shutdown");
        break;
    case MACHINE_END_PANIC:
        cause_event(c, EVENT_SHUTDOWN, true, "guest-panic");
        break;
    case MACHINE_END_CPU:
    case MACHINE_END_ERROR:
        cause_event(c, EVENT_SHUTDOWN, false, "host-error");
        break;
    case MACHINE_END_KILLED:
        cause_event(c, EVENT_SHUTDOWN, false, c->end_reason);
        break;
    }
}

/* Whoever asked for a reset hears that it was done, or that nothing more will come. */
static void answer_resets(Control *c)
{
    while (c->resets->len)
        control_reply_done(g_ptr_array_steal_index(c->resets, 0), NULL);
}

/* As MachineStatus has them. */
static GStrv list_forwards(Machine *m)
{
    const GPtrArray *nets = machine_nets(m);
    GPtrArray *list = g_ptr_array_new();
    for (unsigned i = 0; i < nets->len; i++) {
        NetBackend *be = g_ptr_array_index(nets, i);
        const GArray *all = be->hostfwds ? be->hostfwds(be) : NULL;
        for (unsigned k = 0; all && k < all->len; k++) {
            const HostFwd *f = &g_array_index(all, HostFwd, k);
            char addr[INET_ADDRSTRLEN] = "";
            (void)inet_ntop(AF_INET, &f->host_addr, addr, sizeof addr);
            g_ptr_array_add(list, g_strdup_printf("%s:%u->%u/%s", addr, f->host_port,
                                                  f->guest_port, f->udp ? "udp" : "tcp"));
        }
    }
    g_ptr_array_add(list, NULL);
    return (GStrv)g_ptr_array_free(list, FALSE);
}

void control_tell_status(Control *c)
{
    static const MachineStatusState states[] = {
        [MACHINE_BUILT] = MACHINE_STATUS_STARTING,
        [MACHINE_RUNNING] = MACHINE_STATUS_RUNNING,
        [MACHINE_PAUSED] = MACHINE_STATUS_PAUSED,
        [MACHINE_ENDED] = MACHINE_STATUS_RUNNING, /* until its name is given back */
    };
    if (!c->config.status || !c->config.registry || !c->config.machine)
        return;
    MachineStatus s = *c->config.status;
    s.state = machine_stalled(c->config.machine) ? MACHINE_STATUS_IO_ERROR
                                                 : states[machine_state(c->config.machine)];
    g_auto(GStrv) forwards = list_forwards(c->config.machine);
    g_autoptr(GError) error = NULL;
    s.forwards = forwards;
    if (!registry_set_status(c->config.registry, &s, &error))
        lodge_warn("%s; lodge list shows an old state", error->message);
}

/* Context: see machine_listen(). */
static void on_machine(void *opaque, const MachineNews *news)
{
    Control *c = opaque;
    if (c->mconsole)
        mconsole_news(c->mconsole, news);
    if (c->gdb)
        gdb_server_news(c->gdb, news);
    switch (news->what) {
    case MACHINE_EVENT_PAUSED:
        control_tell_status(c);
        control_event(c, EVENT_STOP);
        break;
    case MACHINE_EVENT_RESUMED:
        control_tell_status(c);
        control_event(c, EVENT_RESUME);
        break;
    case MACHINE_EVENT_POWER_BUTTON:
        control_event(c, EVENT_POWERDOWN);
        break;
    case MACHINE_EVENT_GUEST_RESET:
        cause_event(c, EVENT_RESET, true, "guest-reset");
        answer_resets(c); /* it has answered those too */
        break;
    case MACHINE_EVENT_HOST_RESET:
        cause_event(c, EVENT_RESET, false, "host-qmp-system-reset");
        answer_resets(c);
        break;
    case MACHINE_EVENT_UNPLUGGED:
        control_unplugged(c, news->device);
        deleted_event(c, news->device);
        break;
    case MACHINE_EVENT_DISK_ERROR:
        control_disk_error(c, news->disk_error);
        break;
    case MACHINE_EVENT_JOB:
        control_job_event(c, news->job);
        break;
    case MACHINE_EVENT_BALLOON:
        balloon_event(c, news->balloon);
        break;
    case MACHINE_EVENT_PANICKED:
        panic_event(c, news->action);
        break;
    case MACHINE_EVENT_WATCHDOG:
        watchdog_event(c, news->action);
        break;
    case MACHINE_EVENT_ENDED:
        end_event(c, news->result);
        answer_resets(c);
        break;
    }
}

/* ---- the socket ---- */

static int listen_at(const char *dir, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd = dir_fd < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool ok = fd >= 0;
    if (ok) {
        g_snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/" CONTROL_SOCKET,
                   dir_fd);
        ok = (unlinkat(dir_fd, CONTROL_SOCKET, 0) == 0 || errno == ENOENT) &&
             fchmod(fd, 0600) == 0 && /* the file gets the mode of its socket */
             bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, BACKLOG) == 0;
    }
    if (!ok) {
        lodge_fail_errno(error, errno, "%s/" CONTROL_SOCKET ": cannot make the control socket",
                         dir);
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    if (dir_fd >= 0)
        close(dir_fd);
    return fd;
}

/* ---- life ---- */

Control *control_open(const ControlConfig *config, GError **error)
{
    g_autoptr(Control) c = g_new0(Control, 1);
    c->config = *config;
    c->keys = key_queue_new();
    c->resets = g_ptr_array_new();
    control_unplug_init(c);
    c->end_reason = "host-signal";
    if (config->registry) {
        int fd = listen_at(registry_run_dir(config->registry), error);
        if (fd < 0)
            return NULL;
        c->qmp = qmp_new(c, fd);
    }
    if (config->machine)
        machine_listen(config->machine, on_machine, c);
    return g_steal_pointer(&c);
}

void control_close(Control *c)
{
    if (!c)
        return;
    if (c->config.machine)
        machine_listen(c->config.machine, NULL, NULL);
    if (c->qmp && c->config.registry) {
        g_autofree char *path =
            g_build_filename(registry_run_dir(c->config.registry), CONTROL_SOCKET, NULL);
        (void)unlink(path);
    }
    gdb_server_free(c->gdb);
    qmp_free(c->qmp);
    key_queue_free(c->keys);
    g_ptr_array_free(c->resets, TRUE);
    control_unplug_clear(c);
    json_unload(c->json);
    g_free(c);
}

bool control_flush(int fd, GString *unsent)
{
    while (unsent->len) {
        ssize_t n = send(fd, unsent->str, unsent->len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            g_string_erase(unsent, 0, n);
        else if (n == 0 || errno != EINTR)
            return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    }
    return true;
}
