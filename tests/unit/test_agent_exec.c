/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands and files through the guest agent of the distribution, where it is installed, in this
 * host's own /bin/sh.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/error.h"

#include "agent_exec.h"
#include "agent_file.h"
#include "agentfix.h"
#include "control.h"
#include "machine_status.h"
#include "ran.h"

#define MEGABYTE (1024u * 1024u)

typedef struct Fixture {
    AgentFix port;
    GPid qemu; /* 0: none */
    char *dir; /* owned */
} Fixture;

/* What the guest of a test is. */
typedef struct Guest {
    const char *shell; /* its /bin/sh, which takes root to have; NULL: this host's */
    bool bare;         /* it has neither mkfifo nor dd */
} Guest;

/* In the agent's process. */
static void be_guest(gpointer opaque)
{
    const char *shell = opaque;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (shell && (unshare(CLONE_NEWNS) < 0 ||
                  mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
                  mount(shell, "/bin/sh", NULL, MS_BIND, NULL) < 0))
        _exit(1);
}

/* A folder with what a guest may be trusted to have; transfer full. */
static char *make_bare_path(const char *dir)
{
    static const char *const programs[] = {"cat", "head", "id", "kill", "ln", "ls", "mkdir", "rm",
                                           "seq", "setsid", "sh", "sleep", "wc"};
    char *bin = g_build_filename(dir, "bin", NULL);
    g_assert_cmpint(g_mkdir(bin, 0755), ==, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(programs); i++) {
        g_autofree char *link = g_build_filename(bin, programs[i], NULL);
        g_autofree char *program = g_find_program_in_path(programs[i]);
        if (program)
            g_assert_cmpint(symlink(program, link), ==, 0);
    }
    return bin;
}

static void set_up_qemu(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    const Guest *guest = data;
    g_autofree char *shell = guest && guest->shell ? g_find_program_in_path(guest->shell) : NULL;
    g_auto(GStrv) env = g_get_environ();
    g_autofree char *program = g_find_program_in_path("qemu-ga");
    if (!program && g_file_test("/usr/sbin/qemu-ga", G_FILE_TEST_IS_EXECUTABLE))
        program = g_strdup("/usr/sbin/qemu-ga");
    if (guest && guest->shell && (!shell || geteuid() != 0))
        g_clear_pointer(&program, g_free);
    f->dir = g_dir_make_tmp("lodge-agent-XXXXXX", &error);
    g_assert_no_error(error);
    g_snprintf(at.sun_path, sizeof at.sun_path, "%s/s", f->dir);
    if (program) {
        const char *argv[] = {program, "-m", "unix-listen", "-p", at.sun_path, "-t", f->dir, NULL};
        if (guest && guest->bare) {
            g_autofree char *bin = make_bare_path(f->dir);
            env = g_environ_setenv(env, "PATH", bin, TRUE);
        }
        g_spawn_async(NULL, (char **)argv, env,
                      G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_STDOUT_TO_DEV_NULL |
                          G_SPAWN_STDERR_TO_DEV_NULL,
                      be_guest, shell, &f->qemu, &error);
        g_assert_no_error(error);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (int64_t until = SECONDS(20); f->qemu && g_get_monotonic_time() < until;) {
        if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0)
            break;
        g_usleep(10000);
    }
    g_setenv("XDG_RUNTIME_DIR", f->dir, TRUE); /* of machines, where a test has one */
    g_setenv("XDG_STATE_HOME", f->dir, TRUE);
    agent_fix_open(&f->port, fd);
}

static void tear_down_qemu(Fixture *f, gconstpointer data)
{
    agent_fix_close(&f->port);
    if (f->qemu) {
        kill(f->qemu, SIGKILL);
        waitpid(f->qemu, NULL, 0);
    }
    g_autofree char *line = g_strdup_printf("rm -rf '%s'", f->dir);
    g_assert_cmpint(system(line), ==, 0);
    g_free(f->dir);
}

static bool no_qemu(const Fixture *f)
{
    if (!f->qemu)
        g_test_skip("there is no qemu-ga, no such shell, or no root to have it");
    return !f->qemu;
}

/* Run a line of shell, or with @c what that says. */
static Ran run(Fixture *f, AgentCommand c, const char *line)
{
    g_autoptr(Agent) a = agent_fix_client(&f->port);

    return ran_line(a, f->dir, c, 60, line);
}

static void test_exec(Fixture *f, gconstpointer data)
{
    static const struct {
        const char *line, *out, *err;
        int status;
    } cases[] = {
        {"echo out; echo err >&2; exit 7", "out\n", "err\n", 7},
        {"printf 'a\\0b\\n' | od -An -c | tr -d ' '", "a\\0b\\n\n", "", 0},
        {"kill -9 $$", "", "", 137},
        {"kill -TERM $$", "", "", 143},
        {"cat; echo end", "end\n", "", 0},
        {"pwd", "/\n", "", 0},
        {"sleep 0.3; echo late; sleep 0.3; echo later", "late\nlater\n", "", 0},
        {"sleep 100 & echo gone", "gone\n", "", 0},
    };
    if (no_qemu(f))
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(Ran) r = run(f, (AgentCommand){0}, cases[i].line);
        g_assert_no_error(r.error);
        g_assert_cmpstr(r.out, ==, cases[i].out);
        g_assert_cmpstr(r.err, ==, cases[i].err);
        g_assert_cmpint(r.end.status, ==, cases[i].status);
    }
}

static void test_exec_words(Fixture *f, gconstpointer data)
{
    const char *missing[] = {"/no/such/program", NULL}, *plain[] = {"/dev/null", NULL};
    const char *words[] = {"printf", "%s|", "a b", "", "$HOME", "'\"\\", "\xc3\xa4", "--", NULL};
    const char *env[] = {"ONE=1 2", "TWO=$x'\"", NULL};
    if (no_qemu(f))
        return;
    g_auto(Ran) r127 = run(f, (AgentCommand){.argv = missing}, NULL);
    g_assert_cmpint(r127.end.status, ==, 127);
    g_auto(Ran) r126 = run(f, (AgentCommand){.argv = plain}, NULL);
    g_assert_cmpint(r126.end.status, ==, 126);
    g_auto(Ran) quoted = run(f, (AgentCommand){.argv = words}, NULL);
    g_assert_cmpstr(quoted.out, ==, "a b||$HOME|'\"\\|\xc3\xa4|--|");
    g_auto(Ran) with = run(f, (AgentCommand){.env = env, .cwd = "/usr"}, "echo \"$ONE,$TWO,$PWD\"");
    g_assert_cmpstr(with.out, ==, "1 2,$x'\",/usr\n");
    g_auto(Ran) nowhere = run(f, (AgentCommand){.cwd = "/no/such"}, "true");
    g_assert_error(nowhere.error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_assert_nonnull(strstr(nowhere.error->message, "/no/such"));
    g_auto(Ran) nobody = run(f, (AgentCommand){.user = "nosuchuser"}, "true");
    g_assert_nonnull(nobody.error);
    g_assert_nonnull(strstr(nobody.error->message, "there is no user nosuchuser"));
    if (geteuid() == 0) {
        g_auto(Ran) other = run(f, (AgentCommand){.user = "nobody"}, "echo $(id -un) $USER");
        g_assert_cmpstr(other.out, ==, "nobody nobody\n");
    }
}

typedef struct Feed {
    int fd;
    size_t bytes;
} Feed;

static gpointer feed(gpointer opaque)
{
    Feed *feed = opaque;
    for (size_t n = 0; n < feed->bytes; n++) {
        char line[8];
        g_snprintf(line, sizeof line, "%07zu", n / 8);
        if (write(feed->fd, line + n % 8, 1) != 1)
            break;
    }
    close(feed->fd);
    return NULL;
}

/* More of everything than one answer, or all that may wait, holds. */
static void test_exec_streams(Fixture *f, gconstpointer data)
{
    int pipe_fds[2];
    if (no_qemu(f))
        return;
    g_auto(Ran) much = run(f, (AgentCommand){0}, "head -c 3000000 /dev/zero; echo x >&2; exit 3");
    g_assert_no_error(much.error);
    g_assert_cmpuint(much.out_len, ==, 3000000);
    g_assert_cmpstr(much.err, ==, "x\n");
    g_assert_cmpint(much.end.status, ==, 3);

    g_assert_cmpint(pipe2(pipe_fds, O_CLOEXEC), ==, 0);
    Feed lines = {pipe_fds[1], 40000};
    GThread *t = g_thread_new("feed", feed, &lines);
    g_auto(Ran) back = run(f, (AgentCommand){.in_fd = pipe_fds[0]}, "tr 0 0; echo end >&2");
    g_thread_join(t);
    close(pipe_fds[0]);
    g_assert_no_error(back.error);
    g_assert_cmpuint(back.out_len, ==, 40000);
    g_assert_cmpstr(back.err, ==, "end\n");

    g_autofree char *big = g_build_filename(f->dir, "big", NULL);
    int fd = open(big, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_cmpint(ftruncate(fd, 4 * MEGABYTE), ==, 0);
    g_auto(Ran) counted = run(f, (AgentCommand){.in_fd = fd}, "sleep 0.2; wc -c");
    g_assert_cmpstr(g_strstrip(counted.out), ==, "4194304");
    lseek(fd, 0, SEEK_SET);
    g_auto(Ran) unread = run(f, (AgentCommand){.in_fd = fd}, "head -c 1 | od -An -tx1");
    close(fd);
    g_assert_no_error(unread.error);
    g_assert_cmpstr(g_strstrip(unread.out), ==, "00");
}

#define NUMBERS 3000000u
#define NUMBERS_OF_A_PIECE 40000u /* 229 kB, or 56 pages: a piece has 64 reads at most */
#define PIECE_BYTES (4u * MEGABYTE)

/* Whether process @pid of the guest, which is this host's, is more than a word in its parent's
 * ears. */
static bool runs(int pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", pid), *stat = NULL;
    char state;

    return g_file_get_contents(path, &stat, NULL, NULL) &&
           sscanf(stat, "%*d (%*[^)]) %c", &state) == 1 && state != 'Z';
}

static bool is_there(const char *path)
{
    return g_file_test(path, G_FILE_TEST_EXISTS);
}

static void await_removal(const char *path)
{
    for (gint64 end = SECONDS(30); is_there(path); g_usleep(10000))
        g_assert_cmpint(g_get_monotonic_time(), <, end);
}

static void await_end(int pid)
{
    for (gint64 end = SECONDS(30); runs(pid); g_usleep(10000))
        g_assert_cmpint(g_get_monotonic_time(), <, end);
}

/* A line that tells into @file the pipe of its output and its parent, the script, and then goes
 * on; transfer full. */
static char *telling(const char *file, const char *line)
{
    return g_strdup_printf("exec 5>&1; echo $(readlink /proc/self/fd/5) $PPID > '%s'; %s", file,
                           line);
}

/* The folder of the command that has told into @file; transfer full. */
static char *await_told(const char *file, int *ret_script)
{
    for (gint64 end = SECONDS(30);; g_usleep(10000)) {
        g_autofree char *told = NULL;
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        if (!g_file_get_contents(file, &told, NULL, NULL) || !strchr(told, '\n'))
            continue;
        g_auto(GStrv) words = g_strsplit(told, " ", 2);
        *ret_script = atoi(words[1]);
        return g_path_get_dirname(words[0]);
    }
}

/* The same, once the command's pump waits for a reader. */
static char *await_backlog(const char *file, int *ret_script)
{
    char *dir = await_told(file, ret_script);
    g_autofree char *waits = g_build_filename(dir, "out.w", NULL);

    for (gint64 end = SECONDS(30); !is_there(waits); g_usleep(10000))
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    return dir;
}

/* Who reads a command's output at another time than it comes. */
typedef struct Reader {
    int fd;
    const char *told; /* see telling() */
    size_t held;      /* bytes of the backlog that the first look found */
    GChecksum *heard;
} Reader;

static bool read_some(Reader *r)
{
    uint8_t data[65536];
    ssize_t n = read(r->fd, data, sizeof data);

    g_checksum_update(r->heard, data, MAX(n, 0));
    return n > 0;
}

/* Only while the pump waits for that, or the script is gone that runs the pump. */
static gpointer read_slowly(gpointer opaque)
{
    Reader *r = opaque;
    int script = 0;
    g_autofree char *dir = await_backlog(r->told, &script);
    g_autofree char *waits = g_build_filename(dir, "out.w", NULL);

    for (unsigned i = 0; i < 4; i++) {
        g_autofree char *piece = g_strdup_printf("%s/out.%u", dir, i);
        struct stat st;
        r->held += stat(piece, &st) == 0 ? (size_t)st.st_size : 0;
    }
    do {
        for (gint64 end = SECONDS(30); runs(script) && !is_there(waits); g_usleep(1000))
            g_assert_cmpint(g_get_monotonic_time(), <, end);
    } while (read_some(r));
    return NULL;
}

/* Only behind the script's end. */
static gpointer read_late(gpointer opaque)
{
    Reader *r = opaque;
    int script = 0;

    g_free(await_told(r->told, &script));
    await_end(script);
    while (read_some(r))
        continue;
    return NULL;
}

/* Run what prints the numbers up to @last, and hear all of them by @reader. Return: Reader.held. */
static size_t hear_numbers(Fixture *f, unsigned last, GThreadFunc reader)
{
    int pipe_fds[2];
    g_autofree char *told = g_build_filename(f->dir, "told", NULL);
    g_autofree char *numbers = g_strdup_printf("seq %u", last), *line = telling(told, numbers);
    g_autoptr(GChecksum) heard = g_checksum_new(G_CHECKSUM_MD5);
    g_autoptr(GChecksum) said = g_checksum_new(G_CHECKSUM_MD5);
    g_assert_cmpint(pipe2(pipe_fds, O_CLOEXEC), ==, 0);
    Reader r = {.fd = pipe_fds[0], .told = told, .heard = heard};
    GThread *t = g_thread_new("reader", reader, &r);
    g_auto(Ran) ran = run(f, (AgentCommand){.out_fd = pipe_fds[1]}, line);
    g_thread_join(t);
    close(pipe_fds[0]);
    g_assert_no_error(ran.error);
    g_assert_cmpint(ran.end.status, ==, 0);
    for (unsigned i = 1; i <= last; i++) {
        char number[16];
        g_checksum_update(said, (guchar *)number, g_snprintf(number, sizeof number, "%u\n", i));
    }
    g_assert_cmpstr(g_checksum_get_string(heard), ==, g_checksum_get_string(said));
    return r.held;
}

/* A command waits for its reader, and the guest keeps two pieces for that one, not all. */
static void test_exec_backlog(Fixture *f, gconstpointer data)
{
    if (no_qemu(f))
        return;
    size_t held = hear_numbers(f, NUMBERS, read_slowly);
    g_assert_cmpuint(held, >, 0);
    g_assert_cmpuint(held, <=, 2 * PIECE_BYTES);
}

/* What is in the last piece is kept though the script has ended that made it. */
static void test_exec_late(Fixture *f, gconstpointer data)
{
    if (no_qemu(f))
        return;
    hear_numbers(f, NUMBERS_OF_A_PIECE, read_late);
}

/* ---- a client that is killed ---- */

typedef struct Client {
    Fixture *f;
    const char *line;
    int out_fd;
    bool ok;
} Client;

static gpointer exec_client(gpointer opaque)
{
    Client *c = opaque;
    g_auto(Ran) r = run(c->f, (AgentCommand){.out_fd = c->out_fd}, c->line);

    c->ok = !r.error;
    return NULL;
}

/* The machine sees a client's end, here that of its will's connection, while the command stands
 * there with a backlog: all of it goes, and its folder. */
static void test_exec_vanishes(Fixture *f, gconstpointer data)
{
    int pipe_fds[2], script = 0;
    if (no_qemu(f))
        return;
    g_autofree char *told = g_build_filename(f->dir, "told", NULL);
    g_autofree char *child_file = g_build_filename(f->dir, "child", NULL), *child = NULL;
    g_autofree char *deaf = g_strdup_printf(
        "trap '' TERM; sleep 1000 & echo $! > '%s'; cat /dev/zero", child_file);
    g_autofree char *line = telling(told, deaf);
    g_assert_cmpint(pipe2(pipe_fds, O_CLOEXEC), ==, 0);
    Client c = {f, line, pipe_fds[1], false};
    GThread *t = g_thread_new("client", exec_client, &c);
    g_autofree char *dir = await_backlog(told, &script);
    g_assert_true(runs(script));
    g_assert_cmpint(shutdown(f->port.will, SHUT_RDWR), ==, 0);
    await_end(script);
    await_removal(dir);
    g_assert_true(g_file_get_contents(child_file, &child, NULL, NULL));
    await_end(atoi(child));
    close(pipe_fds[0]);
    g_thread_join(t);
    g_assert_false(c.ok); /* it is told so, if it is still there */
}

/* A machine of which there is nothing but its control socket and its agent. */
typedef struct Host {
    AgentPort *port; /* borrowed */
    Registry *registry;
    Control *control;
} Host;

static void open_host(void *opaque)
{
    Host *h = opaque;
    g_autoptr(GError) error = NULL;
    MachineStatus s = {.state = MACHINE_STATUS_RUNNING, .pid = getpid()};
    h->registry = registry_claim("vm", REGISTRY_NOTHING, &error);
    g_assert_no_error(error);
    registry_set_status(h->registry, &s, &error);
    g_assert_no_error(error);
    ControlConfig c = {.name = "vm", .registry = h->registry, .agent = h->port};
    h->control = control_open(&c, &error);
    g_assert_no_error(error);
}

static void close_host(void *opaque)
{
    Host *h = opaque;
    control_close(h->control);
    registry_release(h->registry);
}

/* The same by the program: one that is ended by SIGKILL, and one that ends. */
static void test_exec_program(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    Host host = {.port = f->port.port};
    int script = 0, out = -1, status = 0;
    GPid pid;
    if (no_qemu(f))
        return;
    agent_fix_call(&f->port, open_host, &host);
    g_autofree char *told = g_build_filename(f->dir, "told", NULL), *said = NULL;
    g_autofree char *line = telling(told, "cat /dev/zero");
    const char *argv[] = {LODGE, "exec", "vm", "--", "sh", "-c", line, NULL};
    g_spawn_async_with_pipes(NULL, (char **)argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL,
                             &pid, NULL, &out, NULL, &error);
    g_assert_no_error(error);
    g_autofree char *dir = await_backlog(told, &script);
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    close(out);
    await_end(script);
    await_removal(dir);
    argv[6] = "echo x; exit 3";
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &said, NULL, &status,
                 &error);
    g_assert_no_error(error);
    g_assert_cmpstr(said, ==, "x\n");
    g_assert_cmpint(WEXITSTATUS(status), ==, 3);
    agent_fix_call(&f->port, close_host, &host);
}

/* One that has heard the end leaves nothing to be done. */
static void test_exec_will_void(Fixture *f, gconstpointer data)
{
    if (no_qemu(f))
        return;
    g_auto(Ran) r = run(f, (AgentCommand){0}, "echo x");
    g_assert_no_error(r.error);
    g_assert_cmpint(fcntl(f->port.will, F_GETFD), ==, -1);
}

/* ---- guests with little ---- */

static void test_exec_bare(Fixture *f, gconstpointer data)
{
    if (no_qemu(f))
        return;
    g_auto(Ran) said = run(f, (AgentCommand){0}, "echo out; echo err >&2; exit 7");
    g_assert_no_error(said.error);
    g_assert_cmpstr(said.out, ==, "out\n");
    g_assert_cmpstr(said.err, ==, "err\n");
    g_assert_cmpint(said.end.status, ==, 7);
    g_auto(Ran) much = run(f, (AgentCommand){0}, "seq 1000000; echo end >&2");
    g_assert_no_error(much.error);
    g_assert_cmpuint(much.out_len, ==, 6888896);
    g_assert_true(g_str_has_suffix(much.out, "\n999999\n1000000\n"));
    g_assert_cmpstr(much.err, ==, "end\n");
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    g_auto(Ran) fed = run(f, (AgentCommand){.in_fd = fd}, "head -c 1");
    close(fd);
    g_assert_error(fed.error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_assert_cmpstr(fed.error->message, ==,
                    "vm: cannot run a command in the guest: it has no mkfifo, which input needs; "
                    "give the command none (< /dev/null)");
}

/* A child that outlives its command does not hold it up, and may go on speaking. */
static void test_exec_leaves(Fixture *f, gconstpointer data)
{
    if (no_qemu(f))
        return;
    g_autofree char *file = g_build_filename(f->dir, "alive", NULL);
    g_autofree char *line = g_strdup_printf("d=$(dirname $(readlink /proc/self/fd/2)); "
                                            "(while [ -d $d ]; do sleep 0.1; done; echo x; echo y; "
                                            ": > '%s') & echo gone", file);
    g_auto(Ran) r = run(f, (AgentCommand){0}, line);
    g_assert_no_error(r.error);
    g_assert_cmpstr(r.out, ==, "gone\n");
    for (gint64 end = SECONDS(20); !g_file_test(file, G_FILE_TEST_EXISTS); g_usleep(10000))
        g_assert_cmpint(g_get_monotonic_time(), <, end);
}

static int stop_soon(void *opaque)
{
    int64_t *at = opaque;
    return g_get_monotonic_time() > *at ? SIGINT : 0;
}

static void test_exec_ends(Fixture *f, gconstpointer data)
{
    int64_t soon = g_get_monotonic_time() + 300000;
    int pipe_fds[2];
    if (no_qemu(f))
        return;
    g_auto(Ran) late = run(f, (AgentCommand){.deadline = g_get_monotonic_time() + 300000},
                           "echo begun; sleep 100; echo no");
    g_assert_no_error(late.error);
    g_assert_true(late.end.timed_out);
    g_assert_cmpstr(late.out, ==, "begun\n");
    g_auto(Ran) deaf = run(f, (AgentCommand){.deadline = g_get_monotonic_time() + 300000},
                           "trap '' TERM; while :; do sleep 0.1; done");
    g_assert_no_error(deaf.error);
    g_assert_cmpint(deaf.end.status, ==, 137);
    soon = g_get_monotonic_time() + 300000;
    g_auto(Ran) stopped = run(f, (AgentCommand){.stop = stop_soon, .opaque = &soon}, "sleep 100");
    g_assert_no_error(stopped.error);
    g_assert_cmpint(stopped.end.stopped, ==, SIGINT);
    g_assert_cmpint(pipe2(pipe_fds, O_CLOEXEC), ==, 0);
    close(pipe_fds[0]);
    g_auto(Ran) unheard = run(f, (AgentCommand){.out_fd = pipe_fds[1]}, "yes");
    g_assert_no_error(unheard.error);
    g_assert_cmpint(unheard.end.stopped, ==, SIGPIPE);
    /* With its children. */
    g_auto(Ran) parent = run(f, (AgentCommand){.deadline = g_get_monotonic_time() + 300000},
                             "sleep 100 & echo $!; wait");
    g_assert_true(parent.end.timed_out);
    int child = atoi(parent.out);
    g_assert_cmpint(child, >, 0);
    await_end(child);
}

static gpointer exec_other(gpointer opaque)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Agent) a = agent_fix_client(&((Fixture *)opaque)->port);
    const char *argv[] = {"sh", "-c", "sleep 0.2; exit 5", NULL};
    AgentCommand c = {.argv = argv, .in_fd = -1, .out_fd = 1, .err_fd = 2, .deadline = SECONDS(60)};
    AgentEnd end;
    agent_exec(a, &c, &end, &error);
    g_assert_no_error(error);
    g_assert_cmpint(end.status, ==, 5);
    return NULL;
}

static void test_exec_many(Fixture *f, gconstpointer data)
{
    GThread *threads[6];
    if (no_qemu(f))
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new("client", exec_other, f);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
        g_thread_join(threads[i]);
}

typedef struct Told {
    uint64_t done, all;
    int stop_after; /* calls; 0: never */
} Told;

static void tell(void *opaque, uint64_t done, uint64_t all)
{
    Told *t = opaque;
    t->done = done;
    t->all = all;
}

static int stop_copy(void *opaque)
{
    Told *t = opaque;
    return t->stop_after && !--t->stop_after ? SIGINT : 0;
}

/* @name of the folder of the test, open as a file with @data. */
static int file_with(Fixture *f, const char *name, const void *data, size_t len)
{
    g_autofree char *path = g_build_filename(f->dir, name, NULL);
    g_assert_true(g_file_set_contents(path, data, (gssize)len, NULL));
    return open(path, O_RDWR | O_CLOEXEC);
}

static void test_files(Fixture *f, gconstpointer data)
{
    static const size_t sizes[] = {0, 1, AGENT_PIECE - 1, AGENT_PIECE, AGENT_PIECE + 1,
                                   3 * AGENT_PIECE};
    g_autoptr(GError) error = NULL;
    unsigned mode = 0;
    if (no_qemu(f))
        return;
    g_autoptr(Agent) a = agent_fix_client(&f->port);
    g_autofree char *to = g_build_filename(f->dir, "to", NULL), *dir_to = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autofree uint8_t *bytes = g_malloc0(sizes[i] + 1), *got = NULL;
        for (size_t n = 0; n < sizes[i]; n++) /* the second piece is a hole */
            bytes[n] = n / AGENT_PIECE == 1 ? 0 : (uint8_t)(n * 7 + n / 251);
        Told told = {0};
        AgentCopy c = {.tell = tell, .stop = stop_copy, .opaque = &told};
        struct stat st;
        int from = file_with(f, "from", bytes, sizes[i]), back = file_with(f, "back", "", 0);
        agent_put_file(a, from, to, "x", 0750, &c, &error);
        g_assert_no_error(error);
        g_assert_cmpuint(told.done, ==, sizes[i]);
        g_assert_cmpint(stat(to, &st), ==, 0);
        g_assert_cmpuint(st.st_mode & 07777, ==, 0750);
        agent_get_file(a, to, back, &mode, &c, &error);
        g_assert_no_error(error);
        g_assert_cmpuint(mode, ==, 0750);
        g_assert_cmpint(fstat(back, &st), ==, 0);
        g_assert_cmpuint((size_t)st.st_size, ==, sizes[i]);
        got = g_malloc0(sizes[i] + 1);
        g_assert_cmpint(pread(back, got, sizes[i], 0), ==, (ssize_t)sizes[i]);
        g_assert_cmpmem(got, sizes[i], bytes, sizes[i]);
        close(from);
        close(back);
    }
    /* A folder takes it under its name. */
    AgentCopy plain = {0};
    int from = file_with(f, "from", "text", 4);
    agent_put_file(a, from, f->dir, "named $x", 0600, &plain, &error);
    g_assert_no_error(error);
    dir_to = g_build_filename(f->dir, "named $x", NULL);
    g_assert_true(g_file_test(dir_to, G_FILE_TEST_IS_REGULAR));
    /* A device is written to, not replaced. */
    lseek(from, 0, SEEK_SET);
    agent_put_file(a, from, "/dev/null", "x", 0600, &plain, &error);
    g_assert_no_error(error);
    g_assert_false(g_file_test("/dev/null", G_FILE_TEST_IS_REGULAR));
    close(from);
}

static void test_file_faults(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = g_malloc0(4 * AGENT_PIECE);
    AgentCopy plain = {0};
    unsigned mode;
    if (no_qemu(f))
        return;
    memset(bytes, 'x', 4 * AGENT_PIECE);
    g_autoptr(Agent) a = agent_fix_client(&f->port);
    g_autofree char *to = g_build_filename(f->dir, "to", NULL);
    int from = file_with(f, "from", bytes, 4 * AGENT_PIECE), back = file_with(f, "back", "", 0);
    const struct {
        const char *path, *text;
    } cases[] = {{"/no/such/file", "vm: "}, {f->dir, "is a folder; copy it with -r"}};
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(agent_get_file(a, cases[i].path, back, &mode, &plain, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
        g_assert_nonnull(strstr(error->message, cases[i].text));
    }
    g_autoptr(GError) nowhere = NULL, stopped = NULL;
    g_assert_false(agent_put_file(a, from, "/no/such/file", "x", 0600, &plain, &nowhere));
    g_assert_error(nowhere, LODGE_ERROR, LODGE_ERROR_HOST);
    /* One that is stopped leaves what was there, and nothing beside it. */
    g_assert_true(g_file_set_contents(to, "old", 3, NULL));
    Told told = {.stop_after = 2};
    AgentCopy c = {.stop = stop_copy, .opaque = &told};
    g_assert_false(agent_put_file(a, from, to, "x", 0600, &c, &stopped));
    g_assert_nonnull(strstr(stopped->message, "stopped"));
    g_autofree char *now = NULL;
    g_assert_true(g_file_get_contents(to, &now, NULL, NULL));
    g_assert_cmpstr(now, ==, "old");
    g_autoptr(GDir) dir = g_dir_open(f->dir, 0, NULL);
    for (const char *name; (name = g_dir_read_name(dir));)
        g_assert_null(strstr(name, ".lodge-"));
    close(from);
    close(back);
}

/* ---- an agent that plays ---- */

/* A command whose folder goes before its end is told. */
typedef struct Going {
    unsigned looks, ends_at; /* guest-exec-status, which says at this one that it has ended */
    unsigned opened;
} Going;

static bool going_reach(void *opaque, int64_t deadline, GError **error)
{
    return true;
}

/* A piece of output behind the first. */
static bool is_later_piece(const char *path)
{
    return g_regex_match_simple("/(out|err)\\.[1-9]", path, 0, 0);
}

static char *going_call(void *opaque, Jv request, GError **error)
{
    Going *g = opaque;
    const char *name = jv_text(jv_get(request, "execute"));
    Jv path = jv_get(jv_get(request, "arguments"), "path");
    if (!strcmp(name, "guest-exec"))
        return g_strdup("{\"return\": {\"pid\": 1}}");
    if (!strcmp(name, "guest-file-open") &&
        (strstr(jv_text(path), "/i.") || is_later_piece(jv_text(path)))) {
        lodge_fail(error, LODGE_ERROR_HOST, "it is gone");
        return NULL;
    }
    if (!strcmp(name, "guest-file-open"))
        return g_strdup_printf("{\"return\": %u}", ++g->opened);
    if (!strcmp(name, "guest-file-read"))
        return g_strdup("{\"return\": {\"count\": 0, \"buf-b64\": \"\", \"eof\": true}}");
    if (strcmp(name, "guest-exec-status"))
        return g_strdup("{\"return\": {}}");
    bool end = ++g->looks >= g->ends_at;
    g_autofree char *out = g_base64_encode((const guchar *)"lodge 7 in\nend\n", 15);
    return end ? g_strdup_printf("{\"return\": {\"exited\": true, \"exitcode\": 0, "
                                 "\"out-data\": \"%s\"}}", out)
               : g_strdup("{\"return\": {\"exited\": false}}");
}

static void going_free(void *opaque)
{
}

static const AgentOther going_agent = {going_reach, going_call, going_free};

/* What it is fed is refused, since it is ending: its end is waited for, but not for ever. */
static void test_going(void)
{
    static const unsigned ends[] = {1, 4, 100000};
    for (unsigned i = 0; i < G_N_ELEMENTS(ends); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *dir = g_dir_make_tmp("lodge-agent-XXXXXX", NULL);
        g_autofree char *line = g_strdup_printf("rm -r '%s'", dir);
        Going g = {.ends_at = ends[i]};
        g_autoptr(Agent) a = agent_new_other("vm", &going_agent, &g, &error);
        g_assert_no_error(error);
        int in = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        g_auto(Ran) r = ran_line(a, dir, (AgentCommand){.in_fd = in}, 60, "x");
        if (i < 2) {
            g_assert_no_error(r.error);
            g_assert_cmpint(r.end.status, ==, 7);
            g_assert_cmpstr(r.out, ==, "end\n");
        } else {
            g_assert_error(r.error, LODGE_ERROR, LODGE_ERROR_HOST);
            g_assert_cmpstr(r.error->message, ==, "it is gone");
        }
        g_assert_cmpuint(g.looks, <, 2000); /* it does not ask without a pause */
        close(in);
        g_assert_cmpint(system(line), ==, 0);
    }
}

/* An end that is played: what was read before it, and the answer that tells it. */
typedef struct End {
    const char *files[2]; /* what output and error have, read once */
    const char *said;     /* of the script */
    unsigned sig;         /* that ended the script; 0: none */
    unsigned looks, opened, removed;
    bool endless; /* there is always another piece, of nothing */
} End;

static char *end_call(void *opaque, Jv request, GError **error)
{
    End *e = opaque;
    const char *name = jv_text(jv_get(request, "execute"));
    Jv args = jv_get(request, "arguments");
    if (!strcmp(name, "guest-exec")) {
        const char *script = jv_text(jv_at(jv_get(args, "arg"), 1));
        e->removed += !strcmp(script, "rm -rf \"$1\"");
        return g_strdup("{\"return\": {\"pid\": 1}}");
    }
    if (!strcmp(name, "guest-file-open") && !e->endless &&
        is_later_piece(jv_text(jv_get(args, "path")))) {
        lodge_fail(error, LODGE_ERROR_HOST, "there is none");
        return NULL;
    }
    if (!strcmp(name, "guest-file-open"))
        return g_strdup_printf("{\"return\": %u}", e->opened++);
    if (!strcmp(name, "guest-file-read")) {
        const char **file = &e->files[jv_int(jv_get(args, "handle")) & 1];
        const char *text = *file ? *file : "";
        g_autofree char *data = g_base64_encode((const guchar *)text, strlen(text));
        *file = NULL;
        return g_strdup_printf("{\"return\": {\"count\": %zu, \"buf-b64\": \"%s\"}}",
                               strlen(text), data);
    }
    if (strcmp(name, "guest-exec-status"))
        return g_strdup("{\"return\": {}}");
    if (!e->removed && e->looks++ * 10 < 100) /* it is looked into its files meanwhile */
        return g_strdup("{\"return\": {\"exited\": false}}");
    g_autofree char *out = g_base64_encode((const guchar *)e->said, strlen(e->said));
    if (e->sig)
        return g_strdup_printf("{\"return\": {\"exited\": true, \"signal\": %u}}", e->sig);
    return g_strdup_printf("{\"return\": {\"exited\": true, \"exitcode\": 0, "
                           "\"out-data\": \"%s\"}}", out);
}

static const AgentOther end_agent = {going_reach, end_call, going_free};

/* What was had already is not had again with the end; what is in files is fetched from both, and
 * they are removed; a script that was killed is told of. */
static void test_ends_played(void)
{
    static const struct {
        End end;
        const char *out, *err, *error;
        unsigned removed;
    } cases[] = {
        {{.files = {"en"}, .said = "lodge 7 in\nend\n"}, "end\n", "", NULL, 0},
        {{.files = {"o", "e"}, .said = "lodge 7 at\n", .looks = 100}, "o", "e", NULL, 1},
        {{.files = {"o", "e"}, .said = "lodge 7 at\n", .looks = 100, .endless = true}, "o", "e", NULL, 1},
        {{.said = "", .sig = SIGKILL}, "", "", "it was killed", 0},
        {{.said = "what"}, "", "", "its shell failed", 0},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *dir = g_dir_make_tmp("lodge-agent-XXXXXX", NULL);
        g_autofree char *line = g_strdup_printf("rm -r '%s'", dir);
        End e = cases[i].end;
        g_autoptr(Agent) a = agent_new_other("vm", &end_agent, &e, &error);
        g_assert_no_error(error);
        g_auto(Ran) r = ran_line(a, dir, (AgentCommand){0}, 60, "x");
        g_assert_cmpstr(r.out, ==, cases[i].out);
        g_assert_cmpstr(r.err, ==, cases[i].err);
        g_assert_cmpuint(e.removed, ==, cases[i].removed);
        if (cases[i].error)
            g_assert_nonnull(strstr(r.error->message, cases[i].error));
        else
            g_assert_cmpint(r.end.status, ==, 7);
        g_assert_cmpint(system(line), ==, 0);
    }
}

#define TEST_IN(name, guest, fn) \
    g_test_add("/agent-exec/" name, Fixture, guest, set_up_qemu, fn, tear_down_qemu)
#define TEST(name, fn) TEST_IN(name, NULL, fn)

static const Guest busybox = {"busybox", false}, bare = {NULL, true};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    TEST("exec", test_exec);
    TEST("words", test_exec_words);
    TEST("streams", test_exec_streams);
    TEST("backlog", test_exec_backlog);
    TEST("late", test_exec_late);
    TEST("leaves", test_exec_leaves);
    TEST("vanishes", test_exec_vanishes);
    TEST("program", test_exec_program);
    TEST("will-void", test_exec_will_void);
    TEST_IN("bare", &bare, test_exec_bare);
    TEST_IN("busybox/exec", &busybox, test_exec);
    TEST_IN("busybox/backlog", &busybox, test_exec_backlog);
    TEST_IN("busybox/late", &busybox, test_exec_late);
    TEST_IN("busybox/vanishes", &busybox, test_exec_vanishes);
    TEST("ends", test_exec_ends);
    TEST("many", test_exec_many);
    TEST("files", test_files);
    TEST("file-faults", test_file_faults);
    g_test_add_func("/agent-exec/going", test_going);
    g_test_add_func("/agent-exec/ends-played", test_ends_played);
    return g_test_run();
}
