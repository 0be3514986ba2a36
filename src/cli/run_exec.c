/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Running a machine for a person or a script: its name, its log, the terminal, signals, and the
 * exit status that says how it ended.
 *
 * Signals come through the main loop. On a terminal Ctrl-C goes to the guest, since the terminal
 * is raw; without one, SIGINT and SIGTERM press the power button and a second one pulls the plug.
 * With -d or a command for the guest the process forks before it makes any thread; the parent waits
 * on a pipe until the guest runs, or for the error that the other one prints. Then it leaves, or
 * runs the command (run_command.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib-unix.h>

#include "lodge/block.h"
#include "lodge/chan.h"
#include "lodge/console_log.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/net.h"
#include "lodge/num.h"

#include "agent_port.h"
#include "cli.h"
#include "console.h"
#include "consoles.h"
#include "control.h"
#include "machine.h"
#include "mconsole.h"
#include "notify.h"
#include "registry.h"
#include "uml_compat.h"
#include "verb_run.h"
#include "vm_log.h"
#include "vnc.h"
#include "wait.h"

#define CONSOLE_LOG_BYTES (1 * MIB)
#define TAIL_LINES 100 /* a panic with its call trace, whose first line says why */
#define LOG_TAIL_LINES 30
#define HALT_LOOK_MS 500
#define LAST_SIGNAL_MS 5

typedef struct Run {
    const RunOptions *options; /* borrowed */
    GMainLoop *loop;
    Registry *registry;
    ConsoleLog *log;
    VmLog *vm_log;
    MachineStatus *status_told;
    Notify *notify; /* NULL: no service manager */
    Console *console;
    Consoles *consoles;
    AgentPort *agent; /* NULL: there is no port */
    Machine *machine;
    Control *control;
    Mconsole *mconsole;
    Vnc *vnc;
    unsigned signals; /* SIGINT and SIGTERM so far */
    int killed_by;    /* signal number, or 0 */
    int status_of_signal; /* User-Mode Linux's after a signal, or 0 */
    guint signal_sources[3]; /* 0: not watched */
    guint halt_timer;    /* 0: nobody waits for a halt */
    uint64_t log_seen;
    uint64_t announced;  /* bytes on the console before the guest's first */
    bool timed_out, killed_by_key;
    int status;
} Run;

/* ---- how it ended ---- */

/* What the exit status speaks of: then a failure of ours is STATUS_LODGE. */
static bool status_is_guests(const RunOptions *o)
{
    return o->debug_exit || o->command;
}

static void print_tail(Run *r)
{
    Chan *c = machine_chan(r->machine, "con0");
    if (c && chan_is_terminal(c))
        return; /* the person has just seen it */
    g_autofree char *tail = console_log_tail(r->log, TAIL_LINES);
    if (tail[0])
        fprintf(stderr, "lodge: the last lines of the console:\n%s%s", tail,
                g_str_has_suffix(tail, "\n") ? "" : "\n");
}

/* For lodge log, after what was said on the way. */
static void log_end(Run *r, const MachineResult *result, bool badly)
{
    static const char *const why[] = {
        [MACHINE_END_POWER_OFF] = "powered off", [MACHINE_END_RESET] = "reset",
        [MACHINE_END_EXIT] = "exit by the guest", [MACHINE_END_PANIC] = "panic",
        [MACHINE_END_WATCHDOG] = "watchdog",
        [MACHINE_END_CPU] = "a CPU stopped",      [MACHINE_END_KILLED] = "the plug was pulled",
        [MACHINE_END_ERROR] = "failed",
    };
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *tail = console_log_tail(r->log, LOG_TAIL_LINES);
    g_string_printf(text, "ended: %s, status %d\n", why[result->why], r->status);
    if (badly && result->report)
        g_string_append_printf(text, "%s\n", result->report);
    if (badly && tail[0])
        g_string_append_printf(text, "the last lines of the console:\n%s", tail);
    vm_log_append(r->vm_log, text->str);
}

/* A restart of the guest, and after a panic one too, is the machine's end for us. */
static int uml_reset_status(Run *r, bool by_host)
{
    g_autofree char *tail = console_log_tail(r->log, TAIL_LINES);

    if (!by_host && uml_panicked(tail))
        return RUN_UML_PANIC;
    /* Before its console was there it cannot have meant to; it would only do so again. */
    if (!by_host && console_log_position(r->log) <= r->announced) {
        lodge_warn("uml: %s: the guest's kernel restarted without a word; add "
                   "earlycon=uart8250,io,0x3f8 to see why", r->options->name);
        return RUN_UML_PANIC;
    }
    return r->options->uml->no_reboot ? STATUS_OK : RUN_UML_AGAIN;
}

static void on_ended(void *opaque, const MachineResult *result)
{
    Run *r = opaque;
    const char *name = r->options->name, *verb = r->options->uml ? "uml" : "run";
    bool around = status_is_guests(r->options), badly = true;
    switch (result->why) {
    case MACHINE_END_POWER_OFF:
    case MACHINE_END_RESET:
        r->status = STATUS_OK;
        badly = false;
        break;
    case MACHINE_END_EXIT:
        r->status = result->status;
        badly = false;
        break;
    case MACHINE_END_PANIC:
        lodge_warn("%s: %s: the guest's kernel died (panic)", verb, name);
        r->status = STATUS_PANIC;
        break;
    case MACHINE_END_WATCHDOG:
        lodge_warn("run: %s: the guest hangs (its watchdog's time is over)", name);
        r->status = STATUS_PANIC;
        break;
    case MACHINE_END_CPU:
        lodge_warn("%s: %s: %s", verb, name, result->report);
        r->status = around ? STATUS_LODGE : STATUS_CPU_STOPPED;
        break;
    case MACHINE_END_KILLED:
        if (r->timed_out)
            lodge_warn("%s: %s: not done within its time limit", verb, name);
        r->status = r->timed_out ? STATUS_TIMEOUT : r->killed_by ? STATUS_SIGNAL + r->killed_by
                                                                 : r->status_of_signal;
        badly = r->timed_out;
        break;
    case MACHINE_END_ERROR:
        lodge_warn("%s: %s: %s", verb, name, result->report);
        r->status = around ? STATUS_LODGE : STATUS_FAILURE;
        break;
    }
    if (r->options->uml && result->why == MACHINE_END_RESET)
        r->status = uml_reset_status(r, result->status);
    if (r->options->uml && result->why == MACHINE_END_PANIC)
        r->status = RUN_UML_PANIC;
    log_end(r, result, badly);
    if (badly && !r->options->uml)
        print_tail(r);
    g_main_loop_quit(r->loop);
}

/* ---- what a person does to it ---- */

static gboolean power_on_main(gpointer opaque)
{
    machine_power_button(((Run *)opaque)->machine);
    return G_SOURCE_REMOVE;
}

static gboolean reset_on_main(gpointer opaque)
{
    machine_reset(((Run *)opaque)->machine);
    return G_SOURCE_REMOVE;
}

static gboolean kill_on_main(gpointer opaque)
{
    machine_kill(((Run *)opaque)->machine, 0);
    return G_SOURCE_REMOVE;
}

static void key_power(void *opaque)
{
    g_idle_add(power_on_main, opaque);
}

static void key_reset(void *opaque)
{
    g_idle_add(reset_on_main, opaque);
}

static void key_kill(void *opaque)
{
    g_idle_add(kill_on_main, opaque);
}

static const ConsoleOps console_ops = {.power = key_power, .kill = key_kill, .reset = key_reset};

static gboolean on_signal(Run *r, int sig)
{
    if (r->options->uml) { /* at once, and its folder goes */
        r->status_of_signal = r->status = STATUS_FAILURE; /* though it may have ended just now */
        machine_kill(r->machine, 0);
    } else if (!r->signals++) {
        lodge_note("%s: power button pressed; a second signal pulls the plug", r->options->name);
        notify_stopping(r->notify);
        machine_power_button(r->machine);
    } else {
        r->killed_by = sig;
        machine_kill(r->machine, 0);
    }
    return G_SOURCE_CONTINUE;
}

static gboolean on_sigint(gpointer opaque)
{
    return on_signal(opaque, SIGINT);
}

static gboolean on_sigterm(gpointer opaque)
{
    return on_signal(opaque, SIGTERM);
}

/* The terminal went away: nobody can see or say anything any more. */
static gboolean on_sighup(gpointer opaque)
{
    Run *r = opaque;
    r->killed_by = SIGHUP;
    machine_kill(r->machine, 0);
    return G_SOURCE_CONTINUE;
}

/* A PC's kernel that halts does not switch the machine off; User-Mode Linux ends then. Its words
 * are known, but do not always come: its CPUs stand still in any case. */
static gboolean look_for_halt(gpointer opaque)
{
    Run *r = opaque;
    uint64_t now = console_log_position(r->log);
    g_autofree char *last = now == r->log_seen ? console_log_tail(r->log, 1) : NULL;

    if ((last && uml_halted(last)) || machine_is_halted(r->machine))
        machine_kill(r->machine, 0);
    r->log_seen = now;
    return G_SOURCE_CONTINUE;
}

static gboolean on_timeout(gpointer opaque)
{
    Run *r = opaque;
    r->timed_out = true;
    machine_kill(r->machine, 0);
    return G_SOURCE_REMOVE;
}

/* ---- set-up ---- */

static void report_times(const Run *r, int64_t begin_ns)
{
    MachineTimes t;
    machine_times(r->machine, &t);
    lodge_note("boot: built in %.1f ms, loaded in %.1f ms, vCPUs started in %.1f ms: %s",
               (double)(t.build_ns - begin_ns) / 1e6, (double)(t.load_ns - t.build_ns) / 1e6,
               (double)(t.start_ns - t.load_ns) / 1e6, machine_boot_text(r->machine));
}

/* Context: see blk_set_holder_lookup(). */
static char *find_holder(void *opaque, uint64_t dev, uint64_t ino)
{
    return registry_find_holder(dev, ino);
}

static bool open_vnc(Run *r, const char *spec, GError **error)
{
    Board *b = machine_board(r->machine);
    VncConfig config = {.display = b->display, .input = b->input, .name = r->options->name};
    r->vnc = vnc_open(spec, &config, error);
    return r->vnc != NULL;
}

/* Context: see ControlConfig. Without --display the server is made for the first who comes. */
static bool add_viewer(void *opaque, int fd, bool skip_auth, GError **error)
{
    Run *r = opaque;
    bool ok = machine_board(r->machine)->display ||
              lodge_fail(error, LODGE_ERROR_STATE, "there is no screen; start it with --vga std");
    if (!ok || (!r->vnc && !open_vnc(r, NULL, error))) {
        close(fd);
        return false;
    }
    return vnc_add_client(r->vnc, fd, skip_auth, error);
}

static bool describe_screen(void *opaque, ControlScreen *ret)
{
    Run *r = opaque;
    if (!r->vnc)
        return false;
    ret->address = vnc_describe(r->vnc);
    ret->password = vnc_has_password(r->vnc);
    ret->viewers = vnc_list_clients(r->vnc, ret->viewer, CONTROL_VIEWERS_MAX);
    return true;
}

static bool add_console(void *opaque, int fd, bool write, unsigned *ret_id, bool *ret_writes,
                        GError **error)
{
    return consoles_add(((Run *)opaque)->consoles, fd, write, ret_id, ret_writes, error);
}

static bool take_console(void *opaque, unsigned id, GError **error)
{
    return consoles_take(((Run *)opaque)->consoles, id, error);
}

static bool open_control(Run *r, const Tree *tree, GError **error)
{
    Board *b = machine_board(r->machine);
    Chan *con0 = machine_chan(r->machine, "con0");
    ControlConfig config = {
        .name = r->options->name,
        .uuid = tree_str(tree, "/", "uuid"),
        .machine = r->machine,
        .registry = r->registry,
        .status = r->status_told,
        .display = b->display,
        .input = b->input,
        .console_log = r->log,
        .agent = r->agent,
        .add_viewer = add_viewer,
        .describe_screen = describe_screen,
        .add_console = add_console,
        .take_console = take_console,
        .console_on_terminal = con0 && chan_is_terminal(con0),
        .opaque = r,
        .waits_for_gdb = r->options->gdb_wait,
    };
    r->control = control_open(&config, error);
    if (!r->control || (r->options->gdb && !control_open_gdb(r->control, r->options->gdb, error)))
        return false;
    if (r->options->gdb)
        lodge_note("%s: gdb: target remote %s%s", r->options->name,
                   control_gdb_address(r->control),
                   r->options->gdb_wait ? "; the machine waits for it" : "");
    return true;
}

static bool open_qmp(Run *r, GError **error)
{
    const GPtrArray *list = r->options->qmp;
    for (unsigned i = 0; list && i < list->len; i++) {
        const RunQmp *q = g_ptr_array_index(list, i);
        ControlQmpAt at = {.spec = q->spec, .server = q->server, .wait = q->wait};
        if (!control_open_qmp(r->control, &at, error))
            return false;
    }
    return true;
}

static bool open_mconsole(Run *r, GError **error)
{
    const RunOptions *o = r->options;
    MconsoleConfig config = {
        .path = o->mconsole_path, .uml_dir = o->uml_dir, .umid = o->umid,
        .notify = o->mconsole_notify};
    if (!o->mconsole)
        return true;
    g_autoptr(GError) why = NULL;
    r->mconsole = mconsole_open(r->control, &config, &why);
    if (o->uml && o->umid && g_error_matches(why, LODGE_ERROR, LODGE_ERROR_EXISTS)) {
        lodge_warn("uml: %s; this machine gets a name that nobody has", why->message);
        g_clear_error(&why);
        config.umid = NULL;
        r->mconsole = mconsole_open(r->control, &config, &why);
    }
    if (why)
        g_propagate_error(error, g_steal_pointer(&why));
    else if (!o->uml) /* tools look for this text */
        lodge_note("mconsole (version 2) initialized on %s", mconsole_path(r->mconsole));
    return r->mconsole != NULL;
}

/* A literal comma is doubled, as on the command line. */
static void append_doubled(GString *out, const char *text)
{
    for (; *text; text++)
        g_string_append(out, *text == ',' ? ",," : (char[]){*text, '\0'});
}

static bool open_display(Run *r, GError **error)
{
    g_autoptr(GString) spec = g_string_new(NULL);
    if (!r->options->display)
        return true;
    append_doubled(spec, r->options->display);
    if (r->options->display_password) {
        g_string_append(spec, ",password-file=");
        append_doubled(spec, r->options->display_password);
    }
    if (!open_vnc(r, spec->str, error))
        return false;
    if (!r->options->quiet)
        lodge_note("%s: the screen is at %s", r->options->name, vnc_describe(r->vnc));
    return true;
}

/* What those who list machines are told. */
static MachineStatus *describe(const Tree *t, const char *log)
{
    MachineStatus *s = g_new0(MachineStatus, 1);
    s->pid = (long)getpid();
    s->since = g_get_real_time() / G_USEC_PER_SEC;
    (void)tree_u64(t, "/cpus", "count", &s->cpus); /* the compiler of the line has put them there */
    (void)tree_u64(t, "/memory", "size", &s->memory);
    s->log = g_strdup(log);
    return s;
}

/* A machine that was tried under its name and runs is what the name stands for from now on. */
static void keep_definition(const Run *r)
{
    const RunOptions *o = r->options;
    const char *dir = registry_lasting_dir(r->registry);
    g_autoptr(GError) why = NULL;
    if (o->define && dir && !definition_save(o->define, dir, &why))
        lodge_warn("%s: its definition is not kept: %s", o->name, why->message);
}

/* A person who started it is told what is missing; a script may put a medium in later. */
static void tell_of_no_boot(const RunOptions *o, const Tree *tree)
{
    if (!o->quiet && isatty(STDERR_FILENO) && !run_may_boot(tree))
        lodge_note("%s: only its firmware (SeaBIOS) starts, there is nothing to boot; add --disk "
                   "FILE, --cdrom FILE or --kernel FILE", o->name);
}

static bool set_up(Run *r, const Tree *tree, GError **error)
{
    const RunOptions *o = r->options;
    int64_t begin_ns = clock_host_ns();
    g_autofree char *cache = registry_cache_dir("kernel");
    MachineConfig config = {
        .name = o->name, .cache_dir = cache, .ended = on_ended, .opaque = r,
        .paused = o->gdb_wait};
    r->registry = registry_claim(o->name,
                                 o->ephemeral    ? REGISTRY_NOTHING
                                 : o->name_given ? REGISTRY_LASTING
                                                 : REGISTRY_SHARED,
                                 error);
    if (!r->registry)
        return false;
    r->vm_log = vm_log_new(registry_lasting_dir(r->registry));
    lodge_set_log(vm_log_append, r->vm_log);
    r->notify = notify_new();
    r->status_told = describe(tree, registry_console_log(r->registry));
    blk_set_holder_lookup(find_holder, NULL);
    net_set_owner(o->name);
    r->machine = machine_build(tree, &config, error);
    if (!r->machine)
        return false;
    g_autoptr(GError) why = NULL;
    r->log = console_log_open(registry_console_log(r->registry), CONSOLE_LOG_BYTES, &why);
    if (!r->log) {
        lodge_warn("%s; the console is not logged", why->message);
        r->log = console_log_open(NULL, CONSOLE_LOG_BYTES, error);
        if (!r->log)
            return false;
    }
    Chan *c = machine_chan(r->machine, "con0");
    r->consoles = consoles_new(c, r->log);
    Chan *agent = machine_chan(r->machine, RUN_AGENT_CHAN);
    r->agent = agent ? agent_port_new(chan_take_peer(agent)) : NULL;
    tell_of_no_boot(o, tree);
    if (c && chan_is_terminal(c) && !o->uml) {
        lodge_note("%s: " CONSOLE_HINT, o->name);
        r->console = console_new(c, &console_ops, r);
    }
    if (!open_control(r, tree, error) || !open_qmp(r, error) || !open_mconsole(r, error) ||
        !open_display(r, error))
        return false;
    /* Before the guest's first word; until here a signal ends the process at once. */
    r->signal_sources[0] = g_unix_signal_add(SIGINT, on_sigint, r);
    r->signal_sources[1] = g_unix_signal_add(SIGTERM, on_sigterm, r);
    if (o->detach || o->command || o->uml)
        signal(SIGHUP, SIG_IGN); /* it has no terminal that could go away, or outlives it */
    else
        r->signal_sources[2] = g_unix_signal_add(SIGHUP, on_sighup, r);
    if (o->uml) {
        r->announced = uml_announce(r->machine, mconsole_path(r->mconsole), o->uml);
        r->halt_timer = g_timeout_add(HALT_LOOK_MS, look_for_halt, r);
    }
    if (!machine_start(r->machine, error))
        return false;
    if (machine_board(r->machine)->display && !r->vnc && !o->quiet)
        lodge_note("%s: nobody sees its screen: lodge screen %s prints it, lodge view %s shows it",
                   o->name, o->name, o->name);
    control_tell_status(r->control);
    keep_definition(r);
    vm_log_append(r->vm_log, "started");
    notify_ready(r->notify);
    if (o->trace_boot || o->verbose)
        report_times(r, begin_ns);
    return true;
}

static void tear_down(Run *r)
{
    g_clear_handle_id(&r->halt_timer, g_source_remove);
    for (unsigned i = 0; i < G_N_ELEMENTS(r->signal_sources); i++) {
        if (r->signal_sources[i])
            g_source_remove(r->signal_sources[i]);
    }
    mconsole_close(r->mconsole);
    control_close(r->control);
    agent_port_free(r->agent);
    vnc_close(r->vnc);
    console_free(r->console);
    consoles_stop(r->consoles);
    machine_free(r->machine);
    consoles_free(r->consoles);
    console_log_close(r->log);
    lodge_set_log(NULL, NULL);
    vm_log_free(r->vm_log);
    notify_free(r->notify);
    machine_status_free(r->status_told);
    registry_release(r->registry);
    g_main_loop_unref(r->loop);
}

/* Point the standard streams from @first to @last at nothing. */
static void detach_streams(int first, int last)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = first; null >= 0 && fd <= last; fd++)
        dup2(null, fd);
    if (null > STDERR_FILENO)
        close(null);
}

/* A signal that came when the machine had ended still counts. */
static void take_last_signals(void)
{
    uml_signals_hold();
    for (unsigned i = 0; i < LAST_SIGNAL_MS; i++) {
        while (g_main_context_iteration(NULL, FALSE))
            ;
        g_usleep(1000); /* GLib tells of it from another thread */
    }
}

/* Build, run to the end. @ready_fd: told with a byte once the guest runs; -1: nobody waits. */
static int run_here(Tree *tree, const RunOptions *o, int ready_fd)
{
    g_autoptr(GError) error = NULL;
    Run r = {.options = o, .loop = g_main_loop_new(NULL, FALSE)};
    signal(SIGPIPE, SIG_IGN);
    if (!set_up(&r, tree, &error)) {
        /* In the log, too. */
        r.status = cli_fail(o->uml ? "uml" : "run", error, status_is_guests(o));
        tear_down(&r);
        return r.status;
    }
    guint timer = o->timeout_ns ? g_timeout_add((guint)MIN(o->timeout_ns / 1000000, G_MAXUINT),
                                                on_timeout, &r)
                                : 0;
    if (ready_fd >= 0) {
        if (o->detach)
            detach_streams(STDERR_FILENO, STDERR_FILENO);
        ssize_t n = write(ready_fd, "+", 1);
        (void)n; /* the parent may have been killed; the machine lives on */
        close(ready_fd);
    }
    if (machine_state(r.machine) != MACHINE_ENDED)
        g_main_loop_run(r.loop);
    if (timer && !r.timed_out)
        g_source_remove(timer);
    if (o->uml)
        take_last_signals();
    tear_down(&r);
    return r.status;
}

/* In the process that was told to: until the machine in the other one has said it. */
static int wait_until_up(const RunOptions *o)
{
    g_autoptr(GError) error = NULL;
    return wait_for_line(o->name, o->wait, &error) ? STATUS_OK : cli_fail("run", error, false);
}

/* In a process of its own, to which this one then speaks, or which it leaves. */
static int run_forked(Tree *tree, const RunOptions *o)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) {
        g_autoptr(GError) error = NULL;
        lodge_fail_errno(&error, errno, "%s: cannot make a process", o->name);
        return cli_fail("run", error, status_is_guests(o));
    }
    pid_t pid = fork();
    if (pid < 0) {
        g_autoptr(GError) error = NULL;
        lodge_fail_errno(&error, errno, "%s: cannot make a process", o->name);
        return cli_fail("run", error, status_is_guests(o));
    }
    if (pid == 0) {
        close(ready[0]);
        setsid();
        if (o->command) /* nobody else would end it */
            prctl(PR_SET_PDEATHSIG, run_command_keeps(tree) ? SIGTERM : SIGKILL);
        detach_streams(STDIN_FILENO, STDOUT_FILENO); /* errors still go to the terminal */
        _exit(run_here(tree, o, ready[1]));
    }
    close(ready[1]);
    char byte;
    ssize_t n;
    do {
        n = read(ready[0], &byte, 1);
    } while (n < 0 && errno == EINTR);
    close(ready[0]);
    if (n == 1)
        return o->command ? run_command(tree, o, pid) : o->wait ? wait_until_up(o) : STATUS_OK;
    /* It failed, and has said why. */
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNAL + WTERMSIG(status);
}

int run_execute(Tree *tree, const RunOptions *o)
{
    return o->detach || o->command ? run_forked(tree, o) : run_here(tree, o, -1);
}
