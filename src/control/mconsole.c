/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The management console of User-Mode Linux, version 2: datagrams, and the commands that need no
 * device.
 *
 * Spec: Linux 6.1, arch/um/drivers/mconsole_kern.h and mconsole_user.c (formats, texts of errors),
 * and what uml_mconsole of uml-utilities 20070815 does. All numbers are the host's own.
 *   request: magic, version, length of the text, text (12 + length bytes, or padded to 524)
 *   answer:  error, whether more follows, length with the NUL, at most 511 bytes and a NUL
 *   notice:  magic, version, kind, length, data
 *
 * What differs, since the console is the host's and not a part of the guest: "version" tells what
 * the kernel's file says; "proc", "stack", "log" and "cad" are done in the guest where somebody is
 * there (mconsole_guest.c), else the first two answer as a kernel without them does, "log" writes
 * to the console's log, and "cad" presses keys where there is a keyboard, else the power button;
 * "sysrq" is a break on the first serial port and what the console says in the next moments. After
 * a wrong version nothing is carried out.
 *
 * A client's address is answered as it came. Nothing waits, and nobody for another: what a client has
 * no room for is sent when it has, for SEND_SECONDS at most, and in its order. An answer more than
 * WAITING_OF_ONE for the same client is dropped, and of more than WAITING_MAX in all the one that got
 * nowhere for the longest time; so one who asks and never reads costs others nothing.
 */
#include <errno.h>
#include <linux/input-event-codes.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib-unix.h>

#include "lodge/chan.h"
#include "lodge/console_log.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "mconsole_internal.h"
#include "uart_16550.h"

#define MAGIC 0xcafebabeu
#define VERSION 2u
#define HEAD 12u       /* bytes before the text, in both directions */
#define DATA_MAX 512u  /* with its NUL */
#define NOTICE_HEAD 16u
#define WAITING_MAX 32u    /* answers without room */
#define WAITING_OF_ONE 4u
#define LISTENING_MAX 32u  /* requests that listen to the console */
#define BATCH 16u      /* requests taken at once */
#define PUMP_MS 5u
#define SEND_SECONDS 5
/* sysrq: what the console says until it is silent this long, and no longer than that. */
#define LISTEN_MS 100u
#define SILENT_ROUNDS 5u
#define ROUNDS_MAX 30u

enum { NOTICE_SOCKET, NOTICE_PANIC };

struct MconsoleReply {
    Mconsole *m;
    struct sockaddr_un to;
    socklen_t to_len;
    bool answered, stream, begun;
    uint32_t err;
    GString *text;
    size_t at;       /* what of it was sent */
    int64_t moved;   /* monotonic: when it was answered, or the last part went */
    int64_t give_up; /* monotonic */
    /* sysrq: */
    guint timer;     /* 0: not listening */
    uint64_t from, seen;
    unsigned silent, rounds;
};

/* ---- answers ---- */

static void reply_free(gpointer opaque)
{
    MconsoleReply *r = opaque;

    g_clear_handle_id(&r->timer, g_source_remove);
    g_string_free(r->text, TRUE);
    g_free(r);
}

static ssize_t send_from(int fd, const MconsoleReply *r, const void *data, size_t len)
{
    ssize_t n;

    do {
        n = sendto(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&r->to,
                   r->to_len);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* What clients have not read counts against the sender's socket: where others have filled that, the
 * datagram comes from one of its own, without a name. A client that is connected takes nothing from
 * that one, and waits. */
static ssize_t send_datagram(const MconsoleReply *r, const void *data, size_t len)
{
    ssize_t n = send_from(r->m->fd, r, data, len);
    int fd = n < 0 && errno == EAGAIN
                 ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;

    if (fd < 0)
        return n;
    n = send_from(fd, r, data, len);
    int err = errno == EPERM ? EAGAIN : errno;
    close(fd);
    errno = err;
    return n;
}

/* Send the next datagram of @r. Return: 1: the last one is out, 0: go on, -1: no room. */
static int send_part(MconsoleReply *r)
{
    uint8_t buf[HEAD + DATA_MAX];
    size_t left = r->text->len - r->at, n = MIN(left, DATA_MAX - 1);
    bool more = left > n || (r->stream && left);
    ssize_t sent;

    store_le32(buf, r->begun ? 0 : r->err);
    store_le32(buf + 4, more);
    store_le32(buf + 8, (uint32_t)n + 1);
    memcpy(buf + HEAD, r->text->str + r->at, n);
    buf[HEAD + n] = '\0';
    sent = send_datagram(r, buf, HEAD + n + 1);
    if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS) &&
        g_get_monotonic_time() < r->give_up)
        return -1;
    r->begun = true;
    r->at += n;
    r->moved = g_get_monotonic_time();
    return sent < 0 || !more; /* who is gone needs no answer */
}

static MconsoleReply *reply_at(const Mconsole *m, unsigned i)
{
    return g_ptr_array_index(m->replies, i);
}

/* How many answers to the same client wait before the one at @i. */
static unsigned waiting_before(const Mconsole *m, unsigned i)
{
    const MconsoleReply *r = reply_at(m, i);
    unsigned n = 0;

    for (unsigned k = 0; k < i; k++) {
        const MconsoleReply *other = reply_at(m, k);
        n += other->answered && other->to_len == r->to_len && !memcmp(&other->to, &r->to, r->to_len);
    }
    return n;
}

/* Send what there is room for. Return: how many answers wait for more. */
static unsigned send_all(Mconsole *m)
{
    unsigned waiting = 0;

    for (unsigned i = 0; i < m->replies->len;) {
        MconsoleReply *r = reply_at(m, i);
        int end = r->answered && !waiting_before(m, i) ? 0 : -1;

        while (end == 0)
            end = send_part(r);
        waiting += r->answered && end < 0;
        if (end > 0)
            g_ptr_array_remove_index(m->replies, i); /* frees it */
        else
            i++;
    }
    return waiting;
}

static void drop(Mconsole *m, unsigned i)
{
    if (!m->dropped++)
        lodge_warn("mconsole: a client does not read its answers; some are dropped");
    g_ptr_array_remove_index(m->replies, i); /* frees it */
}

/* The answer that got nowhere for the longest time; those of which nothing has gone come first. */
static unsigned most_stale(const Mconsole *m)
{
    unsigned found = m->replies->len;

    for (unsigned i = 0; i < m->replies->len; i++) {
        const MconsoleReply *r = reply_at(m, i), *f = found < i ? reply_at(m, found) : NULL;

        if (r->answered &&
            (!f || (r->begun == f->begun ? r->moved < f->moved : !r->begun)))
            found = i;
    }
    return found;
}

/* Of @waiting answers keep what may wait: one came since it last held. */
static void drop_excess(Mconsole *m, unsigned waiting)
{
    for (unsigned i = 0; i < m->replies->len; i++) {
        if (reply_at(m, i)->answered && waiting_before(m, i) >= WAITING_OF_ONE) {
            drop(m, i);
            return;
        }
    }
    if (waiting > WAITING_MAX)
        drop(m, most_stale(m));
}

static gboolean pump(gpointer opaque)
{
    Mconsole *m = opaque;

    if (send_all(m))
        return G_SOURCE_CONTINUE;
    m->pump = 0;
    return G_SOURCE_REMOVE;
}

static void finish(MconsoleReply *r, int err, bool stream, const char *data, size_t len)
{
    Mconsole *m = r->m;

    r->answered = true;
    r->stream = stream;
    r->err = (uint32_t)err;
    r->moved = g_get_monotonic_time();
    r->give_up = r->moved + SEND_SECONDS * G_TIME_SPAN_SECOND;
    g_string_truncate(r->text, 0);
    g_string_append_len(r->text, data, (gssize)len);
    if (m->fd < 0 || r->to_len <= offsetof(struct sockaddr_un, sun_path)) {
        (void)g_ptr_array_remove(m->replies, r);
        return;
    }
    unsigned waiting = send_all(m);
    if (waiting)
        drop_excess(m, waiting);
    if (waiting && !m->pump)
        m->pump = g_timeout_add(PUMP_MS, pump, m);
}

void mconsole_answer(MconsoleReply *r, int err, const char *text)
{
    finish(r, err, false, text, strlen(text));
}

void mconsole_stream(MconsoleReply *r, const char *text)
{
    finish(r, 0, true, text, strlen(text));
}

void mconsole_stream_bytes(MconsoleReply *r, const char *data, size_t len)
{
    finish(r, 0, true, data, len);
}

/* ---- notices ---- */

static void notify(Mconsole *m, uint32_t kind, const char *text)
{
    uint8_t buf[NOTICE_HEAD + DATA_MAX];
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    uint32_t len = (uint32_t)MIN(strlen(text) + 1, (size_t)DATA_MAX);

    if (!m->notify)
        return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    g_strlcpy(to.sun_path, m->notify, sizeof to.sun_path);
    store_le32(buf, MAGIC);
    store_le32(buf + 4, VERSION);
    store_le32(buf + 8, kind);
    store_le32(buf + 12, len);
    memcpy(buf + NOTICE_HEAD, text, len);
    if (fd < 0 || sendto(fd, buf, NOTICE_HEAD + len, MSG_NOSIGNAL, (const struct sockaddr *)&to,
                         sizeof to) < 0)
        lodge_warn("mconsole: notify:%s: %s", m->notify, g_strerror(errno));
    if (fd >= 0)
        close(fd);
}

void mconsole_news(Mconsole *m, const MachineNews *news)
{
    if (news->what == MACHINE_EVENT_GUEST_RESET || news->what == MACHINE_EVENT_HOST_RESET)
        mconsole_guest_restarted(m->guest);
    /* With panic=-1 a kernel has the machine reset. */
    bool maybe = news->what == MACHINE_EVENT_ENDED && news->result->why == MACHINE_END_RESET &&
                 !news->result->status;
    if (news->what == MACHINE_EVENT_PANICKED || maybe) {
        ConsoleLog *log = m->control->config.console_log;
        g_autofree char *tail = log ? console_log_tail(log, 100) : g_strdup("");
        const char *mark = "Kernel panic - not syncing: ";
        char *at = strstr(tail, mark);

        if (at) {
            at += strlen(mark);
            at[strcspn(at, "\n")] = '\0';
        }
        if (at || !maybe)
            notify(m, NOTICE_PANIC, at ? at : "the guest's kernel died");
    }
}

/* ---- commands ---- */

static Machine *machine_of(Mconsole *m, MconsoleReply *r)
{
    if (!m->control->config.machine)
        mconsole_answer(r, 1, "there is no machine");
    return m->control->config.machine;
}

static void do_version(Mconsole *m, const char *args, MconsoleReply *r)
{
    const char *banner =
        m->control->config.machine ? machine_kernel_banner(m->control->config.machine) : NULL;
    const char *builder = banner ? strchr(banner, ' ') : NULL;
    const char *build = builder ? strstr(builder, ") #") : NULL;
    g_autofree char *text = NULL;

    if (banner)
        text = g_strdup_printf("Linux (none) %.*s %s x86_64", (int)strcspn(banner, " "), banner,
                               build ? build + 2 : "unknown");
    else
        text = g_strdup_printf("Lodge %s " LODGE_VERSION " %s x86_64",
                               m->control->config.name ? m->control->config.name : "(none)",
                               m->control->config.machine
                                   ? machine_boot_text(m->control->config.machine)
                                   : "unknown");
    mconsole_answer(r, 0, text);
}

static const char help_text[] =
    "Commands: \n"
    "    version - tell which kernel the machine was started with \n"
    "    help - print this text \n"
    "    halt - end the machine at once, without a shutdown \n"
    "    reboot - reset the machine at once, without a shutdown \n"
    "    config <dev>=<config> - add a disk (ubd<n>) or a network card (eth<n>); \n"
    "        the configuration is written as on UML's command line \n"
    "    config <dev> - tell how a device is configured \n"
    "    remove <dev> - ask the guest to let go of a device, and remove it \n"
    "    sysrq <letter> - do what the SysRq key does with that letter \n"
    "    cad - press Ctrl-Alt-Del, or the power button where there is no keyboard \n"
    "    stop - pause the machine until a 'go' \n"
    "    go - let it go on after a 'stop' \n"
    "    log <string> - write a string to the console's log \n"
    "    proc <file> - the contents of a file of the guest's /proc \n"
    "    stack <pid> - the kernel's stack of a process of the guest \n";

static void do_help(Mconsole *m, const char *args, MconsoleReply *r)
{
    mconsole_answer(r, 0, help_text);
}

static void do_halt(Mconsole *m, const char *args, MconsoleReply *r)
{
    Machine *machine = machine_of(m, r);

    if (!machine)
        return;
    mconsole_answer(r, 0, "");
    m->control->end_reason = "host-qmp-quit";
    machine_kill(machine, 0);
}

static void do_reboot(Mconsole *m, const char *args, MconsoleReply *r)
{
    Machine *machine = machine_of(m, r);

    if (!machine)
        return;
    mconsole_answer(r, 0, "");
    if (machine_state(machine) == MACHINE_PAUSED)
        machine_resume(machine);
    machine_reset(machine);
}

static void do_cad(Mconsole *m, const char *args, MconsoleReply *r)
{
    static const unsigned keys[] = {KEY_LEFTCTRL, KEY_LEFTALT, KEY_DELETE};
    Machine *machine = machine_of(m, r);

    if (!machine)
        return;
    mconsole_answer(r, 0, "");
    if (mconsole_guest_cad(m->guest))
        return;
    if (!m->control->config.input ||
        !control_send_keys(m->control, keys, G_N_ELEMENTS(keys), 100, NULL))
        machine_power_button(machine);
}

static void do_stop(Mconsole *m, const char *args, MconsoleReply *r)
{
    g_autoptr(GError) error = NULL;
    Machine *machine = machine_of(m, r);

    if (!machine)
        return;
    if (machine_state(machine) == MACHINE_PAUSED)
        mconsole_answer(r, 1, "Already stopped");
    else if (machine_pause(machine, &error))
        mconsole_answer(r, 0, "stopped");
    else
        mconsole_answer(r, 1, error->message);
}

static void do_go(Mconsole *m, const char *args, MconsoleReply *r)
{
    Machine *machine = machine_of(m, r);

    if (!machine)
        return;
    if (machine_state(machine) != MACHINE_PAUSED) {
        mconsole_answer(r, 1, "Not stopped");
        return;
    }
    machine_resume(machine);
    mconsole_answer(r, 0, "");
}

static void do_log(Mconsole *m, const char *args, MconsoleReply *r)
{
    if (!mconsole_guest_log(m->guest, args) && m->control->config.console_log)
        console_log_append(m->control->config.console_log, (const uint8_t *)args, strlen(args));
    mconsole_answer(r, 0, "");
}

static void do_proc(Mconsole *m, const char *args, MconsoleReply *r)
{
    mconsole_guest_proc(m->guest, args, r);
}

static void do_stack(Mconsole *m, const char *args, MconsoleReply *r)
{
    mconsole_guest_stack(m->guest, args, r);
}

/* ---- sysrq ---- */

/* By a break on the first serial port, else by the keyboard; false: there is neither. */
static bool press_sysrq(Mconsole *m, char letter)
{
    const ControlConfig *config = &m->control->config;
    Device *port = config->machine ? machine_device(config->machine, "com1") : NULL;
    Chan *line = port ? machine_chan(config->machine, "con0") : NULL;
    bool shift;
    unsigned keys[3] = {KEY_LEFTALT, KEY_SYSRQ, input_key_by_char((uint8_t)letter, &shift)};

    /* A virtio console has no breaks: there Ctrl-O says that the next letter is SysRq's. */
    if (line && machine_device(config->machine, "consoles")) {
        char keys_of_hvc[] = {0x0f, letter};
        chan_inject(line, keys_of_hvc, sizeof keys_of_hvc);
        return true;
    }
    if (line && !strcmp(port->cls->name, "16550a")) {
        uart_receive_break(port);
        chan_inject(line, &letter, 1);
        return true;
    }
    return config->input && keys[2] &&
           control_send_keys(m->control, keys, G_N_ELEMENTS(keys), 100, NULL);
}

static gboolean listen_to_console(gpointer opaque)
{
    MconsoleReply *r = opaque;
    ConsoleLog *log = r->m->control->config.console_log;
    uint64_t now = console_log_position(log);

    r->silent = now == r->seen ? r->silent + 1 : 0;
    r->seen = now;
    if (r->silent < SILENT_ROUNDS && ++r->rounds < ROUNDS_MAX)
        return G_SOURCE_CONTINUE;
    r->timer = 0;
    g_autofree char *text = console_log_since(log, r->from);
    mconsole_stream(r, text);
    return G_SOURCE_REMOVE;
}

static unsigned count_listening(const Mconsole *m)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->replies->len; i++)
        n += reply_at(m, i)->timer != 0;
    return n;
}

static void do_sysrq(Mconsole *m, const char *args, MconsoleReply *r)
{
    ConsoleLog *log = m->control->config.console_log;
    char letter = g_ascii_isgraph(args[0]) ? args[0] : 'h';

    if (log)
        r->from = r->seen = console_log_position(log);
    if (count_listening(m) >= LISTENING_MAX) {
        mconsole_answer(r, 1, "Too many requests listen to the console; try again later");
    } else if (!press_sysrq(m, letter)) {
        mconsole_answer(r, 1, "Sysrq not compiled in");
    } else if (letter == 'b' || letter == 'o' || !log) { /* nothing may come after it */
        mconsole_answer(r, 0, "");
    } else {
        r->timer = g_timeout_add(LISTEN_MS, listen_to_console, r);
    }
}

/* ---- requests ---- */

static const struct {
    const char *name;
    void (*run)(Mconsole *m, const char *args, MconsoleReply *r);
} commands[] = { /* the first whose name begins the text: UML's order */
    {"version", do_version}, {"halt", do_halt},   {"reboot", do_reboot},
    {"config", mconsole_config}, {"remove", mconsole_remove}, {"sysrq", do_sysrq},
    {"help", do_help},       {"cad", do_cad},     {"stop", do_stop},
    {"go", do_go},           {"log", do_log},     {"proc", do_proc},
    {"stack", do_stack},
};

static void run_command(Mconsole *m, const char *text, MconsoleReply *r)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (g_str_has_prefix(text, commands[i].name)) {
            text += strlen(commands[i].name);
            while (g_ascii_isspace(*text))
                text++;
            commands[i].run(m, text, r);
            return;
        }
    }
    mconsole_answer(r, 1, "Unknown command");
}

void mconsole_datagram(Mconsole *m, const uint8_t *data, size_t len,
                       const struct sockaddr_un *from, socklen_t from_len)
{
    static const char old[] = "ERR Version 0 mconsole clients are not supported by this driver";
    char text[DATA_MAX];

    if (len < 4 || load_le32(data) != MAGIC) {
        if (m->fd >= 0 && from_len > offsetof(struct sockaddr_un, sun_path))
            (void)sendto(m->fd, old, sizeof old, MSG_DONTWAIT | MSG_NOSIGNAL,
                         (const struct sockaddr *)from, from_len);
        return;
    }
    MconsoleReply *r = g_new0(MconsoleReply, 1);
    r->m = m;
    r->to_len = MIN(from_len, (socklen_t)sizeof r->to);
    memcpy(&r->to, from, r->to_len);
    r->text = g_string_new(NULL);
    g_ptr_array_add(m->replies, r);
    uint32_t said = len >= HEAD ? load_le32(data + 8) : 0;
    if (said >= DATA_MAX) {
        mconsole_answer(r, 1, "Request too large");
    } else if (len < HEAD || load_le32(data + 4) != VERSION) {
        mconsole_answer(r, 1, "This driver only supports version 2 clients");
    } else {
        size_t n = MIN((size_t)said, len - HEAD);

        memcpy(text, data + HEAD, n);
        text[n] = '\0';
        run_command(m, text, r);
    }
}

static gboolean on_request(int fd, GIOCondition condition, gpointer opaque)
{
    Mconsole *m = opaque;
    uint8_t data[HEAD + DATA_MAX];

    for (unsigned i = 0; i < BATCH; i++) {
        struct sockaddr_un from;
        socklen_t from_len = sizeof from;
        ssize_t n = recvfrom(fd, data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from,
                             &from_len);

        if (n < 0)
            break;
        mconsole_datagram(m, data, (size_t)n, &from, from_len);
    }
    return G_SOURCE_CONTINUE;
}

/* ---- life ---- */

/* Whether a socket at @path is one that a machine left: nobody answers there. */
static bool left_over(const struct sockaddr_un *at)
{
    struct stat st;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool dead = lstat(at->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) && fd >= 0 &&
                connect(fd, (const struct sockaddr *)at, sizeof *at) < 0 && errno == ECONNREFUSED;

    if (fd >= 0)
        close(fd);
    return dead;
}

static bool bind_socket(Mconsole *m, const char *path, GError **error)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof at.sun_path)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "mconsole '%s': too long for a socket; the limit is %zu letters", path,
                          sizeof at.sun_path - 1);
    g_strlcpy(at.sun_path, path, sizeof at.sun_path);
    m->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (m->fd < 0 || fchmod(m->fd, 0600) < 0) /* the file gets the mode of its socket */
        return lodge_fail_errno(error, errno, "mconsole '%s': cannot make the socket", path);
    int err = bind(m->fd, (struct sockaddr *)&at, sizeof at) < 0 ? errno : 0;
    if (err == EADDRINUSE && left_over(&at))
        err = unlink(path) < 0 || bind(m->fd, (struct sockaddr *)&at, sizeof at) < 0 ? errno : 0;
    if (err == EADDRINUSE)
        return lodge_fail(error, LODGE_ERROR_EXISTS,
                          "mconsole '%s': is there already; remove it or choose another path",
                          path);
    if (err)
        return lodge_fail_errno(error, err, "mconsole '%s': cannot make the socket", path);
    m->path = g_strdup(path);
    return true;
}

void mconsole_init(Mconsole *m, Control *c)
{
    m->control = c;
    m->fd = -1;
    m->replies = g_ptr_array_new_with_free_func(reply_free);
    c->mconsole = m;
    Chan *port = c->config.machine ? machine_chan(c->config.machine, "mconsole") : NULL;
    if (port)
        m->guest = mconsole_guest_new(port);
}

Mconsole *mconsole_open(Control *c, const MconsoleConfig *config, GError **error)
{
    g_autoptr(Mconsole) m = g_new0(Mconsole, 1);

    mconsole_init(m, c);
    if (config->notify && strlen(config->notify) >= sizeof((struct sockaddr_un *)0)->sun_path) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "mconsole: notify '%s': too long for a socket",
                   config->notify);
        return NULL;
    }
    m->notify = g_strdup(config->notify);
    if (!config->path) {
        m->umid = umid_claim(config->uml_dir, config->umid, error);
        if (!m->umid)
            return NULL;
    }
    if (!bind_socket(m, config->path ? config->path : umid_mconsole(m->umid), error))
        return NULL;
    m->source = g_unix_fd_add(m->fd, G_IO_IN, on_request, m);
    notify(m, NOTICE_SOCKET, m->path);
    return g_steal_pointer(&m);
}

void mconsole_close(Mconsole *m)
{
    if (!m)
        return;
    if (m->control->mconsole == m)
        m->control->mconsole = NULL;
    mconsole_guest_free(m->guest);
    if (m->fd >= 0)
        (void)send_all(m);
    g_clear_handle_id(&m->source, g_source_remove);
    g_clear_handle_id(&m->pump, g_source_remove);
    for (unsigned i = 0; i < m->replies->len; i++)
        control_unplug_forget(m->control, g_ptr_array_index(m->replies, i));
    g_ptr_array_free(m->replies, TRUE);
    if (m->fd >= 0)
        close(m->fd);
    if (m->path)
        (void)unlink(m->path);
    umid_release(m->umid);
    g_free(m->path);
    g_free(m->notify);
    g_free(m);
}

const char *mconsole_path(const Mconsole *m)
{
    return m->path;
}
