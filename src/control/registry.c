/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names, folders, locks.
 *
 * A running machine holds a lock on RUN/lodge/NAME/lock; the kernel drops it with the process, so a
 * machine that was killed leaves nothing that hinders the next one of its name. It is a lock of an
 * open file description (fcntl(2), F_OFD_SETLK): others can see that it is held without taking it.
 *
 * Invariant: who has the lock and finds that the path still leads to the locked file owns the
 * folder; a releaser removes the file before it drops the lock.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/error.h"
#include "lodge/run_root.h"

#include "registry.h"

#define NAME_MAX_BYTES 63
#define CLAIM_TRIES 16
#define SHARED_DIR ".unnamed" /* no machine can have that name */
#define SHARED_LOGS 10 /* console logs kept of machines without a name */
#define HOLDER_FDS 1024 /* descriptors looked at for each machine */

struct Registry {
    char *name, *run_root, *run_dir, *lock_path, *pid_path, *status_path; /* owned */
    char *state_dir;                                        /* owned; NULL: nothing lasts */
    char *console_log;                                      /* owned; NULL: none */
    int lock_fd;
    bool folders_ours; /* the folders are there and this user's */
};

bool registry_name_ok(const char *name)
{
    size_t len = strlen(name);
    if (!len || len > NAME_MAX_BYTES || !g_ascii_isalnum(name[0]))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!g_ascii_isalnum(name[i]) && !strchr("._-", name[i]))
            return false;
    }
    return true;
}

/* Whether the folder of running machines and @dir in it are this user's, where they are there: else
 * somebody could have us talk to his own socket. */
static bool are_trusted(const char *root, const char *dir, GError **error)
{
    struct stat st;
    return (lstat(root, &st) < 0 || run_root_check(root, error)) &&
           (lstat(dir, &st) < 0 || run_root_check(dir, error));
}

static long read_pid(const char *path)
{
    g_autofree char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) ? strtol(text, NULL, 10) : 0;
}

/* Take the lock; EAGAIN in errno when another has it, or when the folder went away. */
static int try_lock(const char *path)
{
    struct stat mine, now;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -1;
    if (fcntl(fd, F_OFD_SETLK, &(struct flock){.l_type = F_WRLCK}) < 0) {
        int err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    if (fstat(fd, &mine) < 0 || stat(path, &now) < 0 || mine.st_ino != now.st_ino) {
        close(fd);
        errno = EAGAIN;
        return -1;
    }
    return fd;
}

static bool lock_name(Registry *r, GError **error)
{
    for (unsigned i = 0; i < CLAIM_TRIES; i++) {
        if (!run_root_make(r->run_root, error) || !run_root_make(r->run_dir, error))
            return false;
        r->folders_ours = true;
        r->lock_fd = try_lock(r->lock_path);
        if (r->lock_fd >= 0)
            return true;
        if (errno == EAGAIN) {
            struct stat st;
            long pid = read_pid(r->pid_path);
            if (pid > 0)
                return lodge_fail(error, LODGE_ERROR_EXISTS,
                                  "%s: a machine of that name is running (pid %ld); choose another "
                                  "name", r->name, pid);
            if (stat(r->lock_path, &st) == 0)
                return lodge_fail(error, LODGE_ERROR_EXISTS,
                                  "%s: a machine of that name is starting; choose another name",
                                  r->name);
        } else if (errno != ENOENT) {
            break;
        }
    }
    return lodge_fail_errno(error, errno, "%s: cannot lock the name", r->lock_path);
}

/* Keep the newest SHARED_LOGS files of @dir. */
static void prune_logs(const char *dir)
{
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    for (;;) {
        unsigned n = 0;
        g_autofree char *oldest = NULL;
        gint64 oldest_time = G_MAXINT64;
        const char *name;
        if (d)
            g_dir_rewind(d);
        while (d && (name = g_dir_read_name(d))) {
            g_autofree char *path = g_build_filename(dir, name, NULL);
            GStatBuf st;
            if (g_stat(path, &st) < 0)
                continue;
            n++;
            if (st.st_mtime < oldest_time) {
                oldest_time = st.st_mtime;
                g_free(oldest);
                oldest = g_steal_pointer(&path);
            }
        }
        if (n <= SHARED_LOGS || !oldest || g_unlink(oldest) < 0)
            return;
    }
}

/* $XDG_STATE_HOME/lodge/@sub, or without @sub the folder of them all; transfer full. */
static char *state_dir(const char *sub)
{
    const char *xdg = g_getenv("XDG_STATE_HOME");
    g_autofree char *base = xdg && g_path_is_absolute(xdg)
                                ? g_strdup(xdg)
                                : g_build_filename(g_get_home_dir(), ".local", "state", NULL);
    return g_build_filename(base, "lodge", sub, NULL);
}

/* Where the console log goes; a home that cannot be written is no reason not to run. */
#define NEXT ".new" /* a text on its way to the place of the one before */

static void remove_text(const char *path)
{
    g_autofree char *next = g_strconcat(path, NEXT, NULL);

    (void)unlink(path);
    (void)unlink(next); /* of one that was killed just then */
}

static void find_log(Registry *r, RegistryKeep keep)
{
    if (keep == REGISTRY_NOTHING)
        return;
    bool lasting = keep == REGISTRY_LASTING;
    g_autofree char *dir = state_dir(lasting ? r->name : SHARED_DIR);
    if (g_mkdir_with_parents(dir, 0700) < 0)
        return;
    if (!lasting)
        prune_logs(dir);
    r->console_log = registry_log_path(r->name, lasting);
    if (lasting)
        r->state_dir = g_steal_pointer(&dir);
}

char *registry_state_dir(const char *name)
{
    return state_dir(name);
}

char *registry_log_path(const char *name, bool lasting)
{
    g_autofree char *dir = state_dir(lasting ? name : SHARED_DIR);
    g_autofree char *file =
        lasting ? g_strdup("console.log") : g_strdup_printf("console-%s.log", name);
    return g_build_filename(dir, file, NULL);
}

bool registry_check_name(const char *name, GError **error)
{
    return registry_name_ok(name) ||
           lodge_fail(error, LODGE_ERROR_CONFIG,
                      "'%s': not a name for a machine; use up to 63 letters, digits, '.', '_' and "
                      "'-', a letter or digit first", name);
}

Registry *registry_claim(const char *name, RegistryKeep keep, GError **error)
{
    if (!registry_check_name(name, error))
        return NULL;
    Registry *r = g_new0(Registry, 1);
    r->lock_fd = -1;
    r->name = g_strdup(name);
    r->run_root = run_root_path();
    r->run_dir = g_build_filename(r->run_root, name, NULL);
    r->lock_path = g_build_filename(r->run_dir, "lock", NULL);
    r->pid_path = g_build_filename(r->run_dir, "pid", NULL);
    r->status_path = g_build_filename(r->run_dir, STATUS_FILE, NULL);
    if (!lock_name(r, error) || !registry_set_pid(r, error)) {
        registry_release(r);
        return NULL;
    }
    remove_text(r->status_path); /* of one that was killed */
    find_log(r, keep);
    return r;
}

/* Readers see the old text or the new one. */
static bool replace_text(const char *path, const char *text, GError **error)
{
    g_autofree char *next = g_strconcat(path, NEXT, NULL);
    size_t len = strlen(text);
    int fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return lodge_fail_errno(error, errno, "%s: cannot write", next);
    ssize_t n = write(fd, text, len);
    int err = n < 0 ? errno : (size_t)n < len ? ENOSPC : 0;
    close(fd);
    if (!err && rename(next, path) < 0)
        err = errno;
    if (!err)
        return true;
    (void)unlink(next);
    return lodge_fail_errno(error, err, "%s: cannot write", path);
}

bool registry_set_pid(Registry *r, GError **error)
{
    g_autofree char *text = g_strdup_printf("%d\n", (int)getpid());
    return replace_text(r->pid_path, text, error);
}

void registry_release(Registry *r)
{
    if (!r)
        return;
    if (r->lock_fd >= 0) {
        remove_text(r->pid_path);
        remove_text(r->status_path);
        (void)unlink(r->lock_path);
        close(r->lock_fd);
    }
    if (r->folders_ours) {
        (void)rmdir(r->run_dir);  /* fails where another machine of that name runs */
        (void)rmdir(r->run_root); /* fails while another machine runs */
    }
    g_free(r->name);
    g_free(r->run_root);
    g_free(r->run_dir);
    g_free(r->lock_path);
    g_free(r->pid_path);
    g_free(r->status_path);
    g_free(r->state_dir);
    g_free(r->console_log);
    g_free(r);
}

bool registry_not_found(const char *name, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_NOT_FOUND,
                      "%s: no machine of that name; lodge list shows them", name);
}

bool registry_not_running(const char *name, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_STATE, "%s: is not running; lodge run %s starts it", name,
                      name);
}

char *registry_locate(const char *name, GError **error)
{
    if (!registry_check_name(name, error))
        return NULL;
    g_autofree char *root = run_root_path(), *lasting = state_dir(name);
    g_autofree char *dir = g_build_filename(root, name, NULL);
    struct stat st;
    if (!are_trusted(root, dir, error))
        return NULL;
    if (lstat(dir, &st) == 0)
        return g_steal_pointer(&dir);
    if (g_file_test(lasting, G_FILE_TEST_IS_DIR))
        (void)registry_not_running(name, error);
    else
        (void)registry_not_found(name, error);
    return NULL;
}

const char *registry_run_dir(const Registry *r)
{
    return r->run_dir;
}

const char *registry_console_log(const Registry *r)
{
    return r->console_log;
}

const char *registry_lasting_dir(const Registry *r)
{
    return r->state_dir;
}

bool registry_set_status(Registry *r, const MachineStatus *s, GError **error)
{
    g_autofree char *text = machine_status_format(s);
    return replace_text(r->status_path, text, error);
}

/* ---- looking at others ---- */

/* Whether a process holds the lock of running folder @dir. */
static bool lock_is_held(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "lock", NULL);
    struct flock lock = {.l_type = F_WRLCK};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    bool held = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return held;
}

void machine_look_free(MachineLook *l)
{
    if (!l)
        return;
    machine_status_free(l->status);
    g_free(l->name);
    g_free(l);
}

/* What is known of @name; NULL: nothing. */
static MachineLook *look_at(const char *root, const char *name)
{
    g_autoptr(MachineLook) l = g_new0(MachineLook, 1);
    g_autofree char *run = g_build_filename(root, name, NULL), *state = state_dir(name);
    g_autofree char *definition = g_build_filename(state, DEFINITION_FILE, NULL);
    g_autofree char *status = g_build_filename(run, STATUS_FILE, NULL), *text = NULL;
    l->name = g_strdup(name);
    l->defined = g_file_test(definition, G_FILE_TEST_IS_REGULAR);
    l->running = lock_is_held(run);
    if (!l->running)
        return l->defined ? g_steal_pointer(&l) : NULL;
    if (g_file_get_contents(status, &text, NULL, NULL))
        l->status = machine_status_parse(text);
    if (!l->status) {
        g_autofree char *pid = g_build_filename(run, "pid", NULL);
        l->status = g_new0(MachineStatus, 1);
        l->status->state = MACHINE_STATUS_STARTING;
        l->status->pid = read_pid(pid);
    }
    return g_steal_pointer(&l);
}

MachineLook *registry_look(const char *name, GError **error)
{
    if (!registry_check_name(name, error))
        return NULL;
    g_autofree char *root = run_root_path();
    g_autofree char *dir = g_build_filename(root, name, NULL), *lasting = state_dir(name);
    if (!are_trusted(root, dir, error))
        return NULL;
    MachineLook *l = look_at(root, name);
    g_autofree char *log = registry_log_path(name, false);
    if (!l && (g_file_test(lasting, G_FILE_TEST_IS_DIR) || g_file_test(log, G_FILE_TEST_EXISTS))) {
        /* logs, and no definition */
        l = g_new0(MachineLook, 1);
        l->name = g_strdup(name);
    }
    if (!l)
        (void)registry_not_found(name, error);
    return l;
}

static void add_names(GHashTable *names, const char *dir)
{
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    const char *name;
    while (d && (name = g_dir_read_name(d))) {
        if (registry_name_ok(name))
            g_hash_table_add(names, g_strdup(name));
    }
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    const MachineLook *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

GPtrArray *registry_list(GError **error)
{
    g_autofree char *root = run_root_path(), *states = state_dir(NULL);
    g_autoptr(GHashTable) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)machine_look_free);
    GHashTableIter it;
    gpointer name;
    struct stat st;
    if (lstat(root, &st) == 0) {
        if (!run_root_check(root, error))
            return NULL;
        add_names(names, root);
    }
    add_names(names, states);
    g_hash_table_iter_init(&it, names);
    while (g_hash_table_iter_next(&it, &name, NULL)) {
        MachineLook *l = look_at(root, name);
        if (l)
            g_ptr_array_add(list, l);
    }
    g_ptr_array_sort(list, by_name);
    return g_steal_pointer(&list);
}

/* Whether process @pid has the file open. */
static bool process_has(long pid, dev_t dev, ino_t ino)
{
    g_autofree char *dir = g_strdup_printf("/proc/%ld/fd", pid);
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    const char *name;
    for (unsigned i = 0; d && i < HOLDER_FDS && (name = g_dir_read_name(d)); i++) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        struct stat st;
        if (stat(path, &st) == 0 && st.st_dev == dev && st.st_ino == ino)
            return true;
    }
    return false;
}

char *registry_find_holder(dev_t dev, ino_t ino)
{
    g_autofree char *root = run_root_path();
    g_autoptr(GDir) d = g_dir_open(root, 0, NULL);
    const char *name;
    while (d && (name = g_dir_read_name(d))) {
        g_autofree char *pid_path = g_build_filename(root, name, "pid", NULL);
        long pid = read_pid(pid_path);
        if (pid > 0 && pid != getpid() && process_has(pid, dev, ino))
            return g_strdup(name);
    }
    return NULL;
}

char *registry_cache_dir(const char *sub)
{
    return g_build_filename(g_get_user_cache_dir(), "lodge", sub, NULL);
}
