/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * User-Mode Linux from outside: which kernel, what is said at the start, how it ends.
 *
 * Spec: Linux 6.1, arch/um/os-Linux (main.c, util.c) and drivers (line.c, mconsole_kern.c): UML
 * ends with 0 after a halt, with 1 after SIGINT or SIGTERM, by SIGABRT after a panic, and restarts
 * by executing itself, so that the process keeps its number. A signal to it in between is kept for
 * the next one: what is pending outlives execve().
 *
 * Threads: main; uml_die() and uml_again() when the machine is gone.
 */
#include "uml_compat.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "lodge/chan.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/terminal.h"

#include "boot.h"
#include "uml_words.h"

#define CONFIG_MAX 65536 /* bytes */
#define BZIMAGE_MAGIC_AT 0x202 /* Linux, Documentation/arch/x86/boot.rst */
#define BZIMAGE_MAGIC "HdrS"

/* ---- the kernel ---- */

/* What line @n of the user's configuration says; false with the error. */
static bool config_line(const char *file, unsigned n, const char *line, char **kernel,
                        GError **error)
{
    const char *value = line + strlen("kernel=");

    if (!line[0] || line[0] == '#')
        return true;
    if (!g_str_has_prefix(line, "kernel="))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: line %u: \"%s\": is not known; write kernel=FILE, or # before it",
                          file, n, line);
    if (!g_path_is_absolute(value))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: line %u: kernel=%s: write the whole path, from / on", file, n,
                           value);
    g_free(*kernel);
    *kernel = g_strdup(value);
    return true;
}

/* The kernel of the user's configuration, transfer full; NULL: it names none, or with the error. */
static char *config_kernel(GError **error)
{
    g_autofree char *file = g_build_filename(g_get_user_config_dir(), "lodge", "uml.conf", NULL);
    g_autofree char *text = g_malloc(CONFIG_MAX + 1);
    g_autofree char *kernel = NULL;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t len = fd < 0 ? -1 : read(fd, text, CONFIG_MAX + 1);
    int err = errno;

    if (fd >= 0)
        close(fd);
    if (len < 0) {
        if (err != ENOENT && err != ENOTDIR)
            lodge_fail_errno(error, err, "%s", file);
        return NULL;
    }
    if (len > CONFIG_MAX || memchr(text, '\0', (size_t)len)) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "%s: is no short text; write lines kernel=FILE",
                   file);
        return NULL;
    }
    text[len] = '\0';
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        if (!config_line(file, i + 1, g_strstrip(lines[i]), &kernel, error))
            return NULL;
    }
    return g_steal_pointer(&kernel);
}

char *uml_find_kernel(const char *given, GError **error)
{
    const char *chosen = given && given[0] ? given : g_getenv("LODGE_UML_KERNEL");
    struct utsname host;

    if (chosen && chosen[0])
        return g_strdup(chosen);
    g_autoptr(GError) why = NULL;
    g_autofree char *configured = config_kernel(&why);
    if (why) {
        g_propagate_error(error, g_steal_pointer(&why));
        return NULL;
    }
    if (configured)
        return g_steal_pointer(&configured);
    if (uname(&host) == 0) {
        g_autofree char *running = g_strdup_printf("/boot/vmlinuz-%s", host.release);
        if (access(running, R_OK) == 0)
            return g_steal_pointer(&running);
    }
    g_autoptr(GDir) boot = g_dir_open("/boot", 0, NULL);
    g_autofree char *newest = NULL;
    time_t newest_time = 0;
    for (const char *name; boot && (name = g_dir_read_name(boot));) {
        g_autofree char *path = g_build_filename("/boot", name, NULL);
        struct stat st;

        if (!g_str_has_prefix(name, "vmlinuz") || access(path, R_OK) < 0 || stat(path, &st) < 0 ||
            !S_ISREG(st.st_mode) || (newest && st.st_mtime <= newest_time))
            continue;
        newest_time = st.st_mtime;
        g_free(newest);
        newest = g_steal_pointer(&path);
    }
    if (!newest)
        lodge_fail(error, LODGE_ERROR_NOT_FOUND,
                   "kernel: there is none in /boot that may be read; write kernel=FILE, as a word "
                   "or in ~/.config/lodge/uml.conf, or set LODGE_UML_KERNEL");
    return g_steal_pointer(&newest);
}

bool uml_kernel_is_linux(const char *path)
{
    char magic[sizeof BZIMAGE_MAGIC - 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool is = fd >= 0 &&
              pread(fd, magic, sizeof magic, BZIMAGE_MAGIC_AT) == (ssize_t)sizeof magic &&
              !memcmp(magic, BZIMAGE_MAGIC, sizeof magic);

    if (fd >= 0)
        close(fd);
    return is;
}

UmlFile uml_look(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    UmlFile answer = fd >= 0 ? UML_FILE_WRITABLE : UML_FILE_NONE;

    if (fd < 0)
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return UML_FILE_NONE;
    close(fd);
    return answer == UML_FILE_NONE ? UML_FILE_READABLE : answer;
}

char *uml_seed(const char *uml_dir, const char *umid)
{
    return g_strdup_printf("%s/%u/%s/%s", g_get_host_name(), (unsigned)getuid(),
                           uml_dir ? uml_dir : "", umid);
}

/* What the file says of its version; transfer full. */
static char *kernel_version(const char *kernel, GError **error)
{
    BootSpec spec = {.kernel = kernel};
    g_autoptr(BootImage) image = boot_open(&spec, error);

    if (!image)
        return NULL;
    if (!boot_kernel_version(image)) {
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "kernel \"%s\": is no bzImage, and does not say "
                   "its version", kernel);
        return NULL;
    }
    return g_strdup(boot_kernel_version(image));
}

bool uml_print_version(const char *kernel, GError **error)
{
    g_autofree char *version = kernel_version(kernel, error);

    if (version)
        printf("%s\n", version);
    return version != NULL;
}

bool uml_print_config(const char *kernel, GError **error)
{
    g_autofree char *version = kernel_version(kernel, error);
    g_autofree char *dir = g_path_get_dirname(kernel), *text = NULL;
    g_autofree char *path = version ? g_strdup_printf("%s/config-%s", dir, version) : NULL;
    g_autoptr(GError) why = NULL;

    if (!version)
        return false;
    if (!g_file_get_contents(path, &text, NULL, &why))
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "--showconfig: %s", why->message);
    fputs(text, stdout);
    return true;
}

/* ---- what is said ---- */

static void announce_line(Machine *m, GString *out, const char *kind, unsigned n, const char *what)
{
    g_autofree char *name = g_strdup_printf("%s%u", kind, n);
    Chan *c = machine_chan(m, name);

    if (c && g_str_has_prefix(chan_describe(c), "pty "))
        g_string_append_printf(out, "%s %u assigned device '%s'\r\n", what, n,
                               chan_describe(c) + strlen("pty "));
}

/* A terminal emulator on line @name: what runs in it passes bytes on until the line is gone. */
static void open_window(Machine *m, const char *name, const UmlOptions *o)
{
    static const char relay[] = "stty raw -echo; exec 3<&0; cat <&3 >\"$0\" & cat \"$0\"; kill $!";
    g_auto(GStrv) said = g_strsplit(o->xterm ? o->xterm : "xterm,-T,-e", ",", 3);
    unsigned words = g_strv_length(said);
    bool con = g_str_has_prefix(name, "con");
    g_autofree char *title = g_strdup_printf("%s #%s (%s)", con ? "Virtual Console" : "Serial Line",
                                             name + strlen("con"), o->umid ? o->umid : "linux");
    const char *line = chan_describe(machine_chan(m, name)) + strlen("pty ");
    const char *argv[] = {said[0],
                          words > 1 && said[1][0] ? said[1] : "-T",
                          title,
                          words > 2 && said[2][0] ? said[2] : "-e",
                          "/bin/sh",
                          "-c",
                          relay,
                          line,
                          NULL};
    g_autoptr(GError) error = NULL;

    if (!o->xterm && !g_getenv("DISPLAY") && !g_getenv("WAYLAND_DISPLAY"))
        lodge_warn("uml: %s: no window: there is no display; the line is %s", name, line);
    else if (!g_spawn_async(NULL, (char **)argv, NULL,
                       G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL |
                           G_SPAWN_STDERR_TO_DEV_NULL,
                       NULL, NULL, NULL, &error))
        lodge_warn("uml: %s: no window: %s; the line is %s", name, error->message, line);
}

size_t uml_announce(Machine *m, const char *mconsole, const UmlOptions *o)
{
    g_autoptr(GString) out = g_string_new(NULL);
    Chan *con0 = machine_chan(m, "con0");

    for (unsigned i = 0; i < o->notes->len; i++)
        g_string_append_printf(out, "%s\r\n", (const char *)g_ptr_array_index(o->notes, i));
    if (mconsole)
        g_string_append_printf(out, "mconsole (version 2) initialized on %s\r\n", mconsole);
    for (unsigned i = 0; i <= UML_CON_MAX; i++)
        announce_line(m, out, "con", i, "Virtual console");
    for (unsigned i = 0; i <= UML_SSL_MAX; i++)
        announce_line(m, out, "ssl", i, "Serial line");
    if (con0)
        chan_write(con0, out->str, out->len);
    if (!con0 || strcmp(chan_describe(con0), "stdio")) {
        fputs(out->str, stdout);
        fflush(stdout);
    }
    for (unsigned i = 0; i < o->windows->len; i++)
        open_window(m, g_ptr_array_index(o->windows, i), o);
    return con0 ? out->len : 0;
}

/* ---- the end ---- */

static void on_early_signal(int sig)
{
    terminal_restore();
    _exit(1);
}

static void set_mask(int how)
{
    sigset_t both;

    sigemptyset(&both);
    sigaddset(&both, SIGINT);
    sigaddset(&both, SIGTERM);
    (void)pthread_sigmask(how, &both, NULL); /* fails for another @how only */
}

void uml_signals_early(void)
{
    signal(SIGINT, on_early_signal);
    signal(SIGTERM, on_early_signal);
    set_mask(SIG_UNBLOCK);
}

void uml_signals_hold(void)
{
    set_mask(SIG_BLOCK);
}

bool uml_panicked(const char *text)
{
    return strstr(text, "Kernel panic - not syncing") != NULL;
}

bool uml_halted(const char *line)
{
    static const char text[] = "reboot: System halted";
    const char *at = strstr(line, text);

    /* From the kernel, at most with its time in front. */
    if (!at || (at != line && (line[0] != '[' || at[-1] != ' ' || at[-2] != ']')))
        return false;
    at += sizeof text - 1;
    at += strspn(at, "\r"); /* as a terminal's lines end */
    return !*at || *at == '\n';
}

void uml_die(void)
{
    struct rlimit none = {0};

    (void)fflush(NULL);
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0); /* a program that takes cores does not look at the limit */
    signal(SIGABRT, SIG_DFL);
    (void)raise(SIGABRT);
    _exit(128 + SIGABRT); /* it was blocked */
}

void uml_again(GError **error)
{
    g_autofree char *words = NULL;
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    gsize len = 0;

    if (!g_file_get_contents("/proc/self/cmdline", &words, &len, error))
        return;
    for (char *word = words; word < words + len; word += strlen(word) + 1)
        g_ptr_array_add(argv, word);
    g_ptr_array_add(argv, NULL);
    (void)fflush(NULL);
    signal(SIGHUP, SIG_DFL);
    execv("/proc/self/exe", (char **)argv->pdata);
    lodge_fail_errno(error, errno, "the machine cannot be started again");
}
