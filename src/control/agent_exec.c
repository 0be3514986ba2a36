/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Running commands in a guest by its agent (QEMU 7.2, qga/qapi-schema.json: guest-exec,
 * guest-exec-status, guest-file-*).
 *
 * guest-exec alone takes its input whole and gives its output at the end, up to a limit. So the
 * agent is given a small script for /bin/sh instead, which runs the command with a folder of its own,
 * from which the output is read while the command runs (guest-file-read), and into which the input
 * goes in files, piece by piece; a line in a named pipe tells a loop of the script that one is whole,
 * and PIECES_AHEAD of them may wait. What is short comes back with the command's end in one answer,
 * and the folder is gone by then.
 *
 * Output goes through named pipes to pumps of the script, one a stream, which cut it into files of
 * 4 MiB at most, out.0, out.1 and so on. Two of them may wait to be read: then a pump waits for our
 * word that the older one was, and the command for its pump, as it would for a slow terminal. So what
 * a guest keeps for us is bounded. Where we are killed by force, or give up, the machine has the
 * agent end the command and all that serves it, and remove the folder (agent_leave_will()).
 * A command is over when it has ended itself: where a child of it keeps the pipe open, the pumps are
 * ended once nothing has come for a second, and what that child says later goes nowhere. A guest that
 * has no mkfifo or dd writes all of it into out.0.
 *
 * The script's standard output begins with "lodge STATUS in" (the output follows, and what went to
 * standard error is the script's) or "lodge STATUS at" (it is in the files, which are removed by
 * us); without such a line the script itself failed, and its standard error says why.
 *
 * The command has a session of its own where the guest has setsid(1), so that all of it can be
 * ended. Between two looks the port is others'.
 */
#include "agent_exec.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lodge/error.h"

#define PIECES_AHEAD 8u
#define ROUND_PIECES 4u /* of an output at a time */
#define WORDS_MAX 131072u /* bytes of a command line */
#define OPEN_SECONDS 10  /* for the script to make its files */
#define STREAM_US 50000  /* from when on output is looked for while the command runs */
#define REST_US 20000    /* pauses from which on others may have the port */
#define PAUSE_MIN_US 2000
#define PAUSE_MAX_US 200000
#define TERM_US 2000000 /* from SIGTERM to SIGKILL */
#define KILL_US 5000000 /* from that to the end of our patience */
#define REFUSED_US 2000000 /* what is refused because the command has ended is known to be so */
#define STATUS_SIGNAL 128
#define SHELL "/bin/sh"

/* What tells one boot of the guest from the next, in $b: numbers of another mean nothing. */
#define BOOT_NAME                                                                                  \
    "b=-; [ ! -r /proc/sys/kernel/random/boot_id ] || read -r b < /proc/sys/kernel/random/boot_id\n"

/* $1 its folder, $2 the user, $3 the folder of the command, $4 whether there is input, $5 how many
 * variables; these; the command. */
static const char script[] =
    "d=$1 u=$2 c=$3 i=$4 f=\n"
    "shift 4\n"
    "umask 077\n"
    "mkdir \"$d\" || exit\n"
    "umask 022\n"
    ": \"${PATH:=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}\"\n"
    ": \"${HOME:=/root}\"\n"
    "export PATH HOME\n"
    "run='n=$1; shift; while [ \"$n\" -gt 0 ]; do export \"$1\"; shift; n=$((n-1)); done;"
    " exec \"$@\"'\n"
    "no() { echo \"$1\" >&2; rm -rf \"$d\"; exit 1; }\n"
    "cd \"${c:-/}\" || no \"cannot enter $c\"\n"
    "if [ -z \"$u\" ]; then\n"
    "  set -- " SHELL " -c \"$run\" lodge \"$@\"\n"
    "else\n"
    "  id \"$u\" > /dev/null 2>&1 || no \"there is no user $u\"\n"
    "  eval \"HOME=~$u\" USER=\\$u LOGNAME=\\$u; export USER LOGNAME\n"
    "  if command -v runuser > /dev/null; then\n"
    "    set -- runuser -u \"$u\" -- " SHELL " -c \"$run\" lodge \"$@\"\n"
    "  else\n"
    "    set -- su -s " SHELL " -c \"$run\" -- \"$u\" lodge \"$@\"\n"
    "  fi\n"
    "fi\n"
    "! command -v setsid > /dev/null || set -- setsid \"$@\"\n"
    "pump() {\n" /* $1: what comes out of its pipe, in pieces */
    "  exec 8< \"$d/$1\" 9<> \"$d/$1.k\"\n"
    "  n=0\n"
    "  trap 'cat <&8 & kill $k; exit' TERM\n"
    "  while dd bs=65536 count=64 of=\"$d/$1.$n\" <&8 & k=$!; wait $k; [ -s \"$d/$1.$n\" ]; do\n"
    "    n=$((n+1))\n"
    "    [ $n -lt 2 ] || {\n"
    "      : > \"$d/$1.w\"\n"
    "      read -r k <&9\n"
    "      rm -f \"$d/$1.w\" \"$d/$1.$k\"\n"
    "    }\n"
    "  done\n"
    "}\n"
    "settle() {\n" /* ends the pumps where no more comes */
    "  now=$(ls -l \"$d\")\n"
    "  while sleep 1 && [ -d \"$d\" ]; do\n"
    "    was=$now now=$(ls -l \"$d\")\n"
    "    [ \"$now\" != \"$was\" ] || [ -e \"$d/out.w\" ] || [ -e \"$d/err.w\" ] || kill $o $e\n"
    "  done\n"
    "}\n"
    "o= e=\n"
    "if command -v mkfifo > /dev/null && command -v dd > /dev/null; then\n"
    "  mkfifo -m 600 \"$d/out\" \"$d/err\" \"$d/out.k\" \"$d/err.k\" || no 'cannot make a pipe'\n"
    "  pump out > /dev/null 2>&1 & o=$!\n"
    "  pump err > /dev/null 2>&1 & e=$!\n"
    "else\n"
    "  ln -s out.0 \"$d/out\" && ln -s err.0 \"$d/err\" || no 'cannot make a file'\n"
    "fi\n"
    "if [ \"$i\" = 1 ]; then\n"
    "  command -v mkfifo > /dev/null ||\n"
    "    no 'it has no mkfifo, which input needs; give the command none (< /dev/null)'\n"
    "  mkfifo -m 600 \"$d/in\" \"$d/kick\" || no 'cannot make a pipe'\n"
    "  (\n"
    "    exec 9<> \"$d/kick\" > \"$d/in\" 2> /dev/null\n"
    "    while read -r n <&9 && [ \"$n\" != end ]; do\n"
    "      cat \"$d/i.$n\" || exit\n"
    "      rm -f \"$d/i.$n\"\n"
    "    done\n"
    "  ) &\n"
    "  f=$!\n"
    "  \"$@\" < \"$d/in\" > \"$d/out\" 2> \"$d/err\" &\n"
    "else\n"
    "  \"$@\" < /dev/null > \"$d/out\" 2> \"$d/err\" &\n"
    "fi\n"
    "p=$!\n"
    BOOT_NAME
    "echo \"$b\" $p $$ $o $e $f > \"$d/pid\"\n"
    "{ wait $p; } 2> /dev/null; r=$?\n" /* a shell may have its say about signals */
    "[ -z \"$f\" ] || kill $f 2> /dev/null\n"
    "if [ -n \"$o\" ]; then\n"
    "  settle > /dev/null 2>&1 & s=$!\n"
    "  wait $o $e\n"
    "  kill $s\n"
    "fi\n"
    "short() {\n" /* $1: whether all of it is in one small piece */
    "  [ -e \"$d/$1.0\" ] && [ ! -s \"$d/$1.1\" ] && [ $(($(wc -c < \"$d/$1.0\"))) -le 98304 ]\n"
    "}\n"
    "if short out && short err; then\n"
    "  echo \"lodge $r in\"\n"
    "  cat \"$d/out.0\"; cat \"$d/err.0\" >&2\n"
    "  rm -rf \"$d\"\n"
    "else\n"
    "  rm -f \"$d/pid\"\n" /* these numbers may be others' from now on */
    "  echo \"lodge $r at\"\n"
    "fi\n";

/* /tmp is everybody's: where the script has ended, another may have made a folder of that name. */
#define IS_OURS "[ -O \"$1\" ] && [ ! -L \"$1\" ]"
/* A command without a session of its own is one process to us. Neither dash nor busybox takes "--"
 * between a signal and a group. */
#define READ_PIDS                                                                                  \
    BOOT_NAME IS_OURS " && read -r was p others < \"$1/pid\" && [ \"$was\" = \"$b\" ]"
/* $1 the folder, $2 a signal. */
static const char kill_script[] = READ_PIDS " && { kill -$2 -$p 2> /dev/null || kill -$2 $p; }\n";

/* $1 the folder of one who is gone, perhaps before the command has begun. What the agent has open
 * there still would keep its room. */
static const char will_script[] =
    "[ -e \"$1/pid\" ] || sleep 2\n"
    IS_OURS " || exit\n"
    "if " READ_PIDS "; then\n"
    "  kill -KILL $others\n"
    "  to=-$p; kill -TERM $to || { to=$p; kill -TERM $to; }\n"
    "  sleep 2\n"
    "  kill -KILL $to\n"
    "fi\n"
    "for f in \"$1\"/*.[0-9]*; do\n"
    "  [ ! -e \"$f\" ] || : > \"$f\"\n"
    "done\n"
    "rm -rf \"$1\"\n";

typedef struct Stream {
    const char *file; /* in the folder, without its number */
    int to;
    int64_t handle;   /* of the agent: the piece that is read; -1: not open */
    int64_t next;     /* the piece behind it; -1: not there yet */
    int64_t ack;      /* the pipe that tells what was read; -1: not open */
    unsigned piece;
    bool empty;       /* nothing of the piece came yet */
    uint64_t passed;  /* bytes that went to @to */
} Stream;

typedef struct Exec {
    Agent *a;
    const AgentCommand *c;
    char *folder; /* owned */
    int64_t pid, begun, pause_us;
    Stream out, err;
    int64_t kick;    /* handle; -1: not open */
    unsigned pieces; /* of input, so far */
    bool input;      /* there may be more */
    bool active;     /* something moved in this round */
    int64_t ended_at; /* when it was told to end; 0: not */
    int64_t refused_at; /* when its folder was gone; 0: it is there */
    bool killed;
    AgentEnd *end;
} Exec;

/* ---- files of the agent ---- */

static int64_t file_open(Exec *x, const char *file, const char *mode, GError **error)
{
    g_autofree char *path = g_strdup_printf("%s/%s", x->folder, file);
    return agent_file_open(x->a, path, mode, error);
}

static void file_close(Exec *x, int64_t *handle)
{
    if (*handle >= 0)
        (void)agent_file_close(x->a, *handle, NULL); /* of no use any more, whatever it answers */
    *handle = -1;
}

static int64_t piece_open(Exec *x, const Stream *s, unsigned n, GError **error)
{
    g_autofree char *file = g_strdup_printf("%s.%u", s->file, n);
    return file_open(x, file, "r", error);
}

static bool file_flush(Exec *x, int64_t handle, GError **error)
{
    JsonOut *call = agent_begin("guest-file-flush");
    json_number(call, "handle", handle);
    return agent_call(x->a, call, agent_soon(), error).node;
}

/* A line into a named pipe. */
static bool tell_guest(Exec *x, int64_t pipe, const char *word, GError **error)
{
    g_autofree char *line = g_strdup_printf("%s\n", word);
    return agent_file_write(x->a, pipe, line, strlen(line), error) && file_flush(x, pipe, error);
}

/* ---- output ---- */

/* Never blocks while we have the port. Return: false: nobody takes it. */
static bool put(Exec *x, int fd, const uint8_t *data, size_t len)
{
    while (len) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        if (poll(&p, 1, 0) == 0) {
            agent_rest(x->a);
            if (poll(&p, 1, -1) < 0 && x->c->stop && x->c->stop(x->c->opaque))
                return true; /* the rest is of no interest any more */
            continue;
        }
        ssize_t n = write(fd, data, MIN(len, PIPE_BUF)); /* a pipe with POLLOUT has room for that */
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        } else if (errno != EINTR && errno != EAGAIN) {
            return false;
        }
    }
    return true;
}

static void nobody_reads(Exec *x)
{
    if (!x->end->stopped)
        x->end->stopped = SIGPIPE;
}

/* Whether the rest of the output is of no interest: there may be no end to what a guest sends. */
static bool gives_up(Exec *x)
{
    int sig = x->c->stop ? x->c->stop(x->c->opaque) : 0;
    if (sig && !x->end->stopped)
        x->end->stopped = sig;
    x->end->timed_out |= !x->end->stopped && g_get_monotonic_time() >= x->c->deadline;
    return x->end->stopped || x->end->timed_out;
}

/* The piece was read to its end, and another has begun: let the guest remove it. */
static bool piece_done(Exec *x, Stream *s, bool over, GError **error)
{
    g_autofree char *pipe = g_strdup_printf("%s.k", s->file);
    g_autofree char *number = g_strdup_printf("%u", s->piece);

    file_close(x, &s->handle);
    s->handle = s->next;
    s->next = -1;
    s->piece++;
    s->empty = true;
    if (over)
        return true;
    /* Open for both, so that it never waits for the other end. */
    if (s->ack < 0)
        s->ack = file_open(x, pipe, "r+", error);
    return s->ack >= 0 && tell_guest(x, s->ack, number, error);
}

/* Take what is there, ROUND_PIECES at most; where the script is @over, all. */
static bool pull(Exec *x, Stream *s, bool over, GError **error)
{
    for (unsigned i = 0; s->handle >= 0 && (over ? !gives_up(x) : i < ROUND_PIECES); i++) {
        g_autofree uint8_t *data = NULL;
        size_t len;
        if (!agent_file_read(x->a, s->handle, &data, &len, error))
            return false;
        if (!len && s->next >= 0) {
            if (over && s->empty)
                return true; /* none is behind an empty one */
            if (!piece_done(x, s, over, error))
                return false;
            continue;
        }
        if (!len) {
            s->next = piece_open(x, s, s->piece + 1, NULL);
            if (s->next < 0)
                return true;
            continue; /* more may have come to this one meanwhile */
        }
        s->passed += len;
        s->empty = false;
        x->active = true;
        if (!put(x, s->to, data, len)) {
            nobody_reads(x);
            break;
        }
    }
    return true;
}

/* What came with the end, without what we have had already. */
static void put_rest(Exec *x, Stream *s, const uint8_t *data, size_t len)
{
    if (len > s->passed && !x->end->stopped && !put(x, s->to, data + s->passed, len - s->passed))
        nobody_reads(x);
}

/* ---- input ---- */

/* Whether the guest has used up what was sent long enough ago. */
static bool has_room(Exec *x)
{
    if (x->pieces < PIECES_AHEAD)
        return true;
    g_autofree char *oldest = g_strdup_printf("i.%u", x->pieces - PIECES_AHEAD);
    int64_t handle = file_open(x, oldest, "r", NULL);
    bool there = handle >= 0;
    file_close(x, &handle);
    return !there;
}

static bool push_piece(Exec *x, const uint8_t *data, size_t len, GError **error)
{
    g_autofree char *number = g_strdup_printf("%u", x->pieces);
    g_autofree char *file = g_strdup_printf("i.%u", x->pieces);
    int64_t handle = file_open(x, file, "w", error);
    bool ok = handle >= 0 && agent_file_write(x->a, handle, data, len, error);
    file_close(x, &handle);
    x->pieces++;
    return ok && tell_guest(x, x->kick, number, error);
}

static bool push(Exec *x, GError **error)
{
    struct pollfd p = {.fd = x->c->in_fd, .events = POLLIN};
    if (!x->input || x->kick < 0 || poll(&p, 1, 0) <= 0 || !has_room(x))
        return true;
    g_autofree uint8_t *data = g_malloc(AGENT_PIECE);
    ssize_t n = read(x->c->in_fd, data, AGENT_PIECE);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ||
               lodge_fail_errno(error, errno, "standard input");
    x->active = true;
    x->input = n > 0;
    return n > 0 ? push_piece(x, data, (size_t)n, error) : tell_guest(x, x->kick, "end", error);
}

/* ---- the command ---- */

static void add_args(JsonOut *call, const char *text, const char *const *args, bool capture)
{
    json_string(call, "path", SHELL);
    json_array(call, "arg");
    json_string(call, NULL, "-c");
    json_string(call, NULL, text);
    json_string(call, NULL, "lodge");
    for (; args && *args; args++)
        json_string(call, NULL, *args);
    json_end(call);
    json_bool(call, "capture-output", capture);
}

/* Return: its number at the agent, or -1. */
static int64_t start(Agent *a, const char *text, const char *const *args, int64_t deadline,
                     GError **error)
{
    JsonOut *call = agent_begin("guest-exec");
    add_args(call, text, args, true);
    Jv answer = agent_call(a, call, deadline, error);
    return answer.node ? jv_int(jv_get(answer, "pid")) : -1;
}

static Jv look(Agent *a, int64_t pid, int64_t deadline, GError **error)
{
    JsonOut *call = agent_begin("guest-exec-status");
    json_number(call, "pid", pid);
    return agent_call(a, call, deadline, error);
}

static int status_of(Jv answer)
{
    Jv by = jv_get(answer, "signal");
    return by.node ? STATUS_SIGNAL + (int)(jv_int(by) & 0x7f)
                   : (int)(jv_int(jv_get(answer, "exitcode")) & 0xff);
}

void agent_output_clear(AgentOutput *o)
{
    g_clear_pointer(&o->out, g_free);
    g_clear_pointer(&o->err, g_free);
}

static char *text_of(Jv value)
{
    size_t len;
    g_autofree uint8_t *data = agent_take_bytes(value, &len);
    return data ? g_strndup((const char *)data, len) : g_strdup("");
}

static void pause_for(Agent *a, int64_t us, int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (us >= REST_US)
        agent_rest(a);
    (void)poll(&p, 1, (int)(us / 1000)); /* a signal or input only makes it shorter */
}

bool agent_shell(Agent *a, const char *text, const char *const *args, int64_t deadline,
                 AgentOutput *ret, GError **error)
{
    int64_t pid = start(a, text, args, deadline, error), us = PAUSE_MIN_US;
    while (pid >= 0) {
        Jv answer = look(a, pid, deadline, error);
        if (!answer.node)
            return false;
        if (jv_bool(jv_get(answer, "exited"))) {
            ret->status = status_of(answer);
            ret->out = text_of(jv_get(answer, "out-data"));
            ret->err = text_of(jv_get(answer, "err-data"));
            return true;
        }
        if (g_get_monotonic_time() >= deadline)
            return lodge_fail(error, LODGE_ERROR_BUSY, "%s: the guest took too long",
                              agent_name(a));
        pause_for(a, us, -1);
        us = MIN(2 * us, PAUSE_MAX_US);
    }
    return false;
}

bool agent_is_user(const char *name)
{
    for (const char *s = name; *s; s++) {
        if (!g_ascii_isalnum(*s) && !(s > name && strchr("._-", *s)) && *s != '_')
            return false;
    }
    return *name;
}

static bool is_variable(const char *text)
{
    const char *s = text;
    while (g_ascii_isalnum(*s) || *s == '_')
        s++;
    return *s == '=' && s > text && !g_ascii_isdigit(*text);
}

static bool is_text(const char *word, GError **error)
{
    return g_utf8_validate(word, -1, NULL) ||
           lodge_fail(error, LODGE_ERROR_CONFIG,
                      "a word of the command is no UTF-8, which is all that the guest agent takes");
}

bool agent_command_check(const AgentCommand *c, GError **error)
{
    size_t all = 0;
    for (const char *const *e = c->env; e && *e; e++) {
        if (!is_variable(*e))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--env: \"%s\": write NAME=VALUE", *e);
        if (!is_text(*e, error))
            return false;
        all += strlen(*e);
    }
    if (c->cwd && !is_text(c->cwd, error))
        return false;
    if (c->user && !agent_is_user(c->user))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--user: \"%s\": not the name of a user",
                          c->user);
    for (const char *const *w = c->argv; *w; w++) {
        if (!is_text(*w, error))
            return false;
        all += strlen(*w);
    }
    return all <= WORDS_MAX ||
           lodge_fail(error, LODGE_ERROR_CONFIG,
                      "the command has more than %u bytes; give it as standard input", WORDS_MAX);
}

/* For the time that the command takes, where the machine does that. -1: it does not. */
static int leave_will(Exec *x)
{
    const char *args[] = {x->folder, NULL};
    JsonOut *call = agent_begin("guest-exec");
    add_args(call, will_script, args, false);
    return agent_leave_will(x->a, call);
}

static bool begin(Exec *x, GError **error)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new();
    g_autofree char *count = NULL;
    guint n = x->c->env ? g_strv_length((char **)x->c->env) : 0;
    count = g_strdup_printf("%u", n);
    g_ptr_array_add(args, x->folder);
    g_ptr_array_add(args, (gpointer)(x->c->user ? x->c->user : ""));
    g_ptr_array_add(args, (gpointer)(x->c->cwd ? x->c->cwd : ""));
    g_ptr_array_add(args, (gpointer)(x->input ? "1" : "0"));
    g_ptr_array_add(args, count);
    for (guint i = 0; i < n; i++)
        g_ptr_array_add(args, (gpointer)x->c->env[i]);
    for (const char *const *w = x->c->argv; *w; w++)
        g_ptr_array_add(args, (gpointer)*w);
    g_ptr_array_add(args, NULL);
    x->begun = g_get_monotonic_time();
    x->pid = start(x->a, script, (const char *const *)args->pdata, agent_soon(), error);
    return x->pid >= 0;
}

/* Open the files of the folder, where the script has made them. */
static bool open_files(Exec *x, GError **error)
{
    g_autoptr(GError) why = NULL;
    if (x->out.handle < 0)
        x->out.handle = piece_open(x, &x->out, 0, &why);
    if (x->out.handle >= 0 && x->err.handle < 0)
        x->err.handle = piece_open(x, &x->err, 0, &why);
    /* Open for both, so that it does not wait for the script to open its end. */
    if (x->err.handle >= 0 && x->input && x->kick < 0)
        x->kick = file_open(x, "kick", "r+", &why);
    if (!why || g_get_monotonic_time() - x->begun < OPEN_SECONDS * G_TIME_SPAN_SECOND)
        return true;
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

static void send_signal(Exec *x, int sig)
{
    g_autofree char *number = g_strdup_printf("%d", sig);
    const char *args[] = {x->folder, number, NULL};
    g_auto(AgentOutput) out = {0};
    (void)agent_shell(x->a, kill_script, args, agent_soon(), &out, NULL); /* may have ended */
}

/* End it, where it is to end. Return: false: it does not. */
static bool perhaps_end(Exec *x, GError **error)
{
    int64_t now = g_get_monotonic_time();
    int sig = x->c->stop ? x->c->stop(x->c->opaque) : 0;
    if (sig && !x->end->stopped)
        x->end->stopped = sig;
    if (!x->ended_at && (x->end->stopped || now >= x->c->deadline)) {
        x->end->timed_out = !x->end->stopped;
        x->ended_at = now;
        send_signal(x, SIGTERM);
        x->pause_us = PAUSE_MIN_US;
    } else if (x->ended_at && !x->killed && now - x->ended_at > TERM_US) {
        x->killed = true;
        send_signal(x, SIGKILL);
    }
    return !x->killed || now - x->ended_at < TERM_US + KILL_US ||
           lodge_fail(error, LODGE_ERROR_BUSY, "%s: the command in the guest does not end",
                      agent_name(x->a));
}

/* The script has ended. */
static bool conclude(Exec *x, Jv answer, GError **error)
{
    size_t out_len, err_len;
    g_autofree uint8_t *out = agent_take_bytes(jv_get(answer, "out-data"), &out_len);
    g_autofree uint8_t *err = agent_take_bytes(jv_get(answer, "err-data"), &err_len);
    const uint8_t *line = out_len ? memchr(out, '\n', out_len) : NULL;
    int status, used = 0, here = status_of(answer);
    g_autofree char *head = line ? g_strndup((char *)out, (gsize)(line - out)) : NULL;

    if (head)
        (void)sscanf(head, "lodge %3d %n", &status, &used);
    if (!used) {
        g_autofree char *said = text_of(jv_get(answer, "err-data"));
        char *why = g_strstrip(said), *end = strchr(why, '\n');
        if (end)
            *end = '\0';
        return lodge_fail(error, LODGE_ERROR_HOST, "%s: cannot run a command in the guest: %s",
                          agent_name(x->a), *why ? why : here > STATUS_SIGNAL ? "it was killed"
                                                                            : "its shell failed");
    }
    x->end->status = status & 0xff;
    if (!strcmp(head + used, "in")) {
        size_t skip = (size_t)(line - out) + 1;
        put_rest(x, &x->out, out + skip, out_len - skip);
        put_rest(x, &x->err, err, err_len);
        return true;
    }
    const char *args[] = {x->folder, NULL};
    g_auto(AgentOutput) gone = {0};
    x->begun = 0; /* the files are there now or never */
    bool ok = open_files(x, error) && pull(x, &x->out, true, error) &&
              pull(x, &x->err, true, error);
    (void)agent_shell(x->a, "rm -rf \"$1\"", args, agent_soon(), &gone, NULL); /* we have all */
    return ok;
}

static bool follow(Exec *x, GError **error)
{
    g_autoptr(GError) refused = NULL;
    for (;;) {
        int64_t now = g_get_monotonic_time();
        bool stream = !x->refused_at && (x->input || now - x->begun >= STREAM_US);
        x->active = false;
        if (!perhaps_end(x, error))
            return false;
        g_autoptr(GError) why = NULL;
        bool ok = !stream || (open_files(x, &why) && push(x, &why) &&
                              pull(x, &x->out, false, &why) && pull(x, &x->err, false, &why));
        /* What is refused may be so because it is just ending, and its folder is gone. */
        if (!ok && !refused && g_error_matches(why, LODGE_ERROR, LODGE_ERROR_HOST)) {
            x->refused_at = now;
            refused = g_steal_pointer(&why);
        }
        if (why) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        Jv answer = look(x->a, x->pid, agent_soon(), refused ? NULL : error);
        if (answer.node && jv_bool(jv_get(answer, "exited")))
            return conclude(x, answer, error);
        if (refused && (!answer.node || now - x->refused_at >= REFUSED_US)) {
            g_propagate_error(error, g_steal_pointer(&refused));
            return false;
        }
        if (!answer.node)
            return false;
        x->pause_us = x->active ? PAUSE_MIN_US : MIN(2 * x->pause_us, PAUSE_MAX_US);
        int64_t left = MAX(x->c->deadline - g_get_monotonic_time(), PAUSE_MIN_US);
        pause_for(x->a, MIN(x->pause_us, left),
                  x->input && !refused && x->pieces < PIECES_AHEAD ? x->c->in_fd : -1);
    }
}

static Stream stream_to(const char *file, int to)
{
    return (Stream){.file = file, .to = to, .handle = -1, .next = -1, .ack = -1, .empty = true};
}

static void stream_close(Exec *x, Stream *s)
{
    file_close(x, &s->handle);
    file_close(x, &s->next);
    file_close(x, &s->ack);
}

bool agent_exec(Agent *a, const AgentCommand *c, AgentEnd *ret, GError **error)
{
    *ret = (AgentEnd){0};
    Exec x = {
        .a = a,
        .c = c,
        .folder = g_strdup_printf("/tmp/.lodge-%08x%08x%08x", g_random_int(), g_random_int(),
                                  g_random_int()),
        .pause_us = PAUSE_MIN_US,
        .out = stream_to("out", c->out_fd),
        .err = stream_to("err", c->err_fd),
        .kick = -1,
        .input = c->in_fd >= 0,
        .end = ret,
    };
    int will = -1;
    bool ok = agent_command_check(c, error) && agent_reach(a, agent_soon(), error);
    if (ok) {
        will = leave_will(&x);
        ok = begin(&x, error) && follow(&x, error);
    }
    if (ok) {
        agent_void_will(will);
        stream_close(&x, &x.out);
        stream_close(&x, &x.err);
        file_close(&x, &x.kick);
    }
    agent_rest(a);
    if (!ok && will >= 0)
        close(will); /* it is carried out */
    g_free(x.folder);
    return ok;
}
