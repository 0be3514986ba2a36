/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The other side of a switch's own control socket, and where that is: RUN/.switch/NAME in the
 * folder of running machines, with a lock beside it for as long as the switch runs. Names of
 * machines start with a letter or digit, so the folder's cannot be one.
 *
 * Threads: any.
 */
#include "switch_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/run_root.h"
#include "link_ring.h"

enum { CLAIM_TRIES = 16, BACKLOG = 64 };

/* Words that one may take for what "lodge switch" does, and what to write instead. */
static const struct {
    const char *word, *hint;
} no_names[] = {
    {"ports", "lodge switch NAME ports lists what is plugged in"},
    {"macs", "lodge switch NAME macs lists the addresses that it knows"},
    {"stats", "lodge switch NAME stats has its counters"},
    {"plug", "lodge switch NAME plug tap:NAME plugs in"},
    {"unplug", "lodge switch NAME unplug PORT unplugs"},
    {"show", "lodge switch NAME stats shows one, lodge switch lists all"},
    {"list", "lodge switch lists those that run"},
    {"ls", "lodge switch lists those that run"},
    {"help", "lodge help switch tells more"},
};

static bool name_is_formed(const char *name)
{
    size_t len = strlen(name);
    bool ok = len && len <= SW_NAME_MAX && g_ascii_isalnum(name[0]);

    for (size_t i = 0; i < len && ok; i++)
        ok = g_ascii_isalnum(name[i]) || strchr("._-", name[i]);
    return ok;
}

bool sw_name_check(const char *name, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(no_names); i++) {
        if (!strcmp(name, no_names[i].word))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': not a name for a switch; %s", name,
                              no_names[i].hint);
    }
    return name_is_formed(name) ||
           lodge_fail(error, LODGE_ERROR_CONFIG,
                      "'%s': not a name for a switch; use up to %d letters, digits, '.', '_' and "
                      "'-', a letter or digit first", name, SW_NAME_MAX);
}

char *sw_folder(void)
{
    g_autofree char *root = run_root_path();

    return g_build_filename(root, ".switch", NULL);
}

char *sw_socket_path(const char *name)
{
    g_autofree char *folder = sw_folder();

    return g_build_filename(folder, name, NULL);
}

char *sw_lock_path(const char *name)
{
    g_autofree char *folder = sw_folder(), *file = g_strdup_printf(".%s.lock", name);

    return g_build_filename(folder, file, NULL);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

GPtrArray *sw_names(void)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *folder = sw_folder();
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL); /* none: no switch has run */
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        if (sw_name_check(name, NULL))
            g_ptr_array_add(names, g_strdup(name));
    }
    g_ptr_array_sort(names, by_name);
    return names;
}

int sw_dial(const char *name, GError **error)
{
    g_autofree char *path = NULL;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd, err;

    if (!sw_name_check(name, error))
        return -1;
    path = sw_socket_path(name);
    if (g_strlcpy(a.sun_path, path, sizeof a.sun_path) >= sizeof a.sun_path) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "%s: too long for a socket's path", path);
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        lodge_fail_errno(error, errno, "a socket");
        return -1;
    }
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
        return fd;
    err = errno;
    close(fd);
    if (err == ENOENT || err == ECONNREFUSED)
        lodge_fail(error, LODGE_ERROR_NOT_FOUND,
                   "%s: no switch of that name runs; lodge switch %s runs one", name, name);
    else
        lodge_fail_errno(error, err, "switch %s", name);
    return -1;
}

/* ---- the name ---- */

static bool lock_name(SwName *n, GError **error)
{
    g_autofree char *path = sw_lock_path(n->name);
    struct stat mine, now;
    char pid[16] = "";

    /* Who has the lock and finds that the path still leads to it owns the name; a releaser removes
     * the file before it drops the lock. */
    for (unsigned i = 0; i < CLAIM_TRIES; i++) {
        n->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (n->lock_fd < 0)
            return lodge_fail_errno(error, errno, "%s: cannot lock the name", path);
        if (flock(n->lock_fd, LOCK_EX | LOCK_NB) < 0) {
            ssize_t len = pread(n->lock_fd, pid, sizeof pid - 1, 0);
            if (len > 0)
                g_strchomp(pid);
            return lodge_fail(error, LODGE_ERROR_EXISTS, "%s: a switch of that name runs (pid %s)",
                              n->name, *pid ? pid : "?");
        }
        if (fstat(n->lock_fd, &mine) == 0 && stat(path, &now) == 0 && mine.st_ino == now.st_ino)
            return true;
        close(n->lock_fd);
        n->lock_fd = -1;
    }
    return lodge_fail(error, LODGE_ERROR_HOST, "%s: cannot lock the name", path);
}

static bool listen_name(SwName *n, GError **error)
{
    g_autofree char *path = sw_socket_path(n->name);
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (g_strlcpy(a.sun_path, path, sizeof a.sun_path) >= sizeof a.sun_path)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: too long for a socket's path", path);
    n->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    (void)unlink(path); /* of one that was killed: the lock is ours */
    if (n->listen_fd < 0 || bind(n->listen_fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        listen(n->listen_fd, BACKLOG) < 0)
        return lodge_fail_errno(error, errno, "%s: cannot listen", path);
    return true;
}

SwName *sw_name_claim(const char *name, GError **error)
{
    g_autofree char *root = run_root_path(), *folder = sw_folder();

    if (!sw_name_check(name, error) || !run_root_make(root, error) ||
        !run_root_make(folder, error))
        return NULL;
    SwName *n = g_new0(SwName, 1);
    n->name = g_strdup(name);
    n->lock_fd = n->listen_fd = -1;
    if (!lock_name(n, error)) {
        if (n->lock_fd >= 0)
            close(n->lock_fd);
        g_free(n->name);
        g_free(n);
        return NULL;
    }
    if (sw_name_set_pid(n, error) && listen_name(n, error))
        return n;
    sw_name_release(n);
    return NULL;
}

bool sw_name_set_pid(SwName *n, GError **error)
{
    g_autofree char *text = g_strdup_printf("%d\n", (int)getpid());

    return (ftruncate(n->lock_fd, 0) == 0 &&
            pwrite(n->lock_fd, text, strlen(text), 0) == (ssize_t)strlen(text)) ||
           lodge_fail_errno(error, errno, "%s: cannot write the lock", n->name);
}

void sw_name_release(SwName *n)
{
    if (!n)
        return;
    g_autofree char *root = run_root_path(), *folder = sw_folder();
    g_autofree char *path = sw_socket_path(n->name), *lock = sw_lock_path(n->name);
    (void)unlink(path); /* likewise below: somebody may have tidied up */
    (void)unlink(lock);
    close(n->lock_fd);
    if (n->listen_fd >= 0)
        close(n->listen_fd);
    (void)rmdir(folder); /* fails while another switch runs */
    (void)rmdir(root);   /* fails while a machine runs */
    g_free(n->name);
    g_free(n);
}

/* A loop has all signals blocked, and the switch that it makes again is to hear SIGTERM. Runs
 * between fork and exec. */
static void hear_signals(void *unused)
{
    sigset_t none;

    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* What another "lodge switch" has said, without what it began the line with. */
static const char *without_prefix(char *said)
{
    static const char *const begin[] = {"lodge: ", "switch: "};
    const char *text = g_strchomp(said);

    for (unsigned i = 0; i < G_N_ELEMENTS(begin); i++)
        text += g_str_has_prefix(text, begin[i]) ? strlen(begin[i]) : 0;
    return text;
}

bool sw_spawn(const char *name, SwMake make, bool wait, GError **error)
{
    static const char *const option[] = {
        [SW_MAKE_PLAIN] = NULL, [SW_MAKE_INTERNAL] = "--internal", [SW_MAKE_HOST_ONLY] = "--tap",
    };
    const char *words[] = {"/proc/self/exe", "lodge", "switch", name, "--detach", "--until-unused",
                           option[make], make == SW_MAKE_HOST_ONLY ? name : NULL, NULL};
    char **argv = (char **)words; /* GLib only reads it */
    const GSpawnFlags flags = G_SPAWN_FILE_AND_ARGV_ZERO | G_SPAWN_STDOUT_TO_DEV_NULL;
    g_autofree char *said = NULL;
    g_autoptr(GError) why = NULL;
    int status = 0;
    bool ok;

    if (wait)
        ok = g_spawn_sync(NULL, argv, NULL, flags, hear_signals, NULL, NULL, &said, &status, &why);
    else
        ok = g_spawn_async(NULL, argv, NULL, flags | G_SPAWN_STDERR_TO_DEV_NULL, hear_signals, NULL,
                           NULL, &why);
    if (!ok)
        return lodge_fail(error, LODGE_ERROR_HOST, "switch %s: %s", name, why->message);
    if (!status && said && *said)
        lodge_warn("switch %s: %s", name, without_prefix(said));
    if (!status)
        return true;
    return lodge_fail(error, LODGE_ERROR_HOST, "switch %s: cannot be started: %s", name,
                      said && *said ? without_prefix(said) : "no reason was given");
}

/* ---- talk ---- */

SwHello sw_hello(SwOp op, const char *who)
{
    SwHello h = {.magic = SW_HELLO_MAGIC, .version = SW_HELLO_VERSION, .op = (uint16_t)op};

    g_strlcpy(h.name, who, sizeof h.name);
    return h;
}

bool sw_send_hello(int fd, const SwHello *h, const int *fds, unsigned nfds, GError **error)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE((SW_ATTACH_FDS + 1) * sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)h, sizeof *h};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (nfds) {
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
    }
    return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof *h ||
           lodge_fail_errno(error, errno, "the switch takes no request");
}

/* The descriptors that came with @m; those that are too many are closed. */
static unsigned take_fds(struct msghdr *m, int *fds)
{
    unsigned n = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (n < SW_ATTACH_FDS)
                fds[n++] = fd;
            else
                close(fd);
        }
    }
    return n;
}

static bool read_welcome(int fd, SwWelcome *w, int fds[SW_ATTACH_FDS], unsigned *ret_nfds,
                         GError **error)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(SW_ATTACH_FDS * sizeof(int))];
    } control;
    struct iovec iov = {w, sizeof *w};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    *ret_nfds = n > 0 ? take_fds(&m, fds) : 0;
    if (n == 0)
        return lodge_fail(error, LODGE_ERROR_HOST, "the switch hung up");
    if (n < 0)
        return lodge_fail_errno(error, errno, "the switch does not answer");
    if (!sw_welcome_ok(w, (size_t)n))
        return lodge_fail(error, LODGE_ERROR_HOST,
                          "the switch speaks another version; end it and start it again");
    if (w->status)
        return lodge_fail(error, w->status <= 1 + LODGE_ERROR_NO_KVM
                                     ? (LodgeError)(w->status - 1) : LODGE_ERROR_HOST,
                          "%s", w->text);
    return true;
}

bool sw_recv_welcome(int fd, SwWelcome *ret_welcome, int fds[SW_ATTACH_FDS], unsigned *ret_nfds,
                     int wait_ms, GError **error)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    unsigned n = 0;
    bool ok = false;

    *ret_nfds = 0;
    if (wait_ms && poll(&p, 1, wait_ms) == 0)
        return lodge_fail(error, LODGE_ERROR_HOST, "the switch does not answer within %d s",
                          wait_ms / 1000);
    ok = read_welcome(fd, ret_welcome, fds, &n, error);
    if (ok && n && n != SW_ATTACH_FDS)
        ok = lodge_fail(error, LODGE_ERROR_HOST, "the switch sent %u descriptors", n);
    if (ok)
        *ret_nfds = n;
    for (unsigned i = 0; i < n && !ok; i++)
        close(fds[i]);
    return ok;
}

void *sw_link_map(int fd, GError **error)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
    int got = fcntl(fd, F_GET_SEALS);
    struct stat st;
    void *memory;

    /* Memory that could shrink would be a way to kill who has it mapped. */
    if (fstat(fd, &st) < 0 || st.st_size != LINK_BYTES || got < 0 ||
        (got & seals) != seals) {
        lodge_fail(error, LODGE_ERROR_HOST, "the memory of the link is not sealed, or not %d bytes",
                   (int)LINK_BYTES);
        return NULL;
    }
    memory = mmap(NULL, LINK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory != MAP_FAILED)
        return memory;
    lodge_fail_errno(error, errno, "cannot map the memory of the link");
    return NULL;
}
