/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Raw mode of the starting terminal, and of others that a guest's consoles have (termios,
 * POSIX.1-2017 chapter 11). Every key goes to the guest: no echo, no line editing, no signal keys,
 * no flow control. Output processing stays as it was, so that Lodge's own lines look right; a
 * guest's CR LF is unharmed by it.
 *
 * The state is the process's, because signal handlers must reach it: this is the one exception to
 * "no file-scope mutable state", with main as its only writer but for the atomic flag.
 *
 * Invariants:
 * (1) A row is written before `applied` of it is first set, and before `rows` counts it.
 * (2) Handlers call async-signal-safe functions only.
 * (3) A terminal that another job owns is left alone.
 */
#include "lodge/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "lodge/error.h"

enum { TERMINALS_MAX = 16 };

typedef struct Row {
    struct termios saved, raw;
    dev_t device; /* which terminal it is */
    int fd;       /* a duplicate of ours, so that restoring outlives the channel */
    int applied;  /* atomic: raw mode is in force and ours to undo */
} Row;

static Row row[TERMINALS_MAX];
static unsigned rows; /* atomic */
static bool hooked;

/* Signals that end the process by default, and may come while a guest has the terminal. */
static const int fatal_signals[] = {
    SIGHUP, SIGINT,  SIGQUIT, SIGILL,  SIGTRAP, SIGABRT, SIGBUS,  SIGFPE,
    SIGSEGV, SIGTERM, SIGSYS, SIGXCPU, SIGUSR1, SIGUSR2, SIGALRM, SIGPWR,
};

/* tcsetattr() from a background job would stop us; with SIGTTOU blocked it simply works. */
static void set_mode(int fd, const struct termios *mode)
{
    sigset_t ttou, old;

    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &ttou, &old);
    (void)tcsetattr(fd, TCSANOW, mode); /* a terminal that hung up has no mode to keep */
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void restore(Row *r)
{
    if (__atomic_exchange_n(&r->applied, 0, __ATOMIC_ACQ_REL))
        set_mode(r->fd, &r->saved);
}

void terminal_restore(void)
{
    int err = errno;

    for (unsigned i = 0; i < __atomic_load_n(&rows, __ATOMIC_ACQUIRE); i++)
        restore(&row[i]);
    errno = err;
}

static void apply_if_foreground(Row *r)
{
    pid_t owner = tcgetpgrp(r->fd);

    if (owner >= 0 && owner != getpgrp()) {
        __atomic_store_n(&r->applied, 0, __ATOMIC_RELEASE);
        return;
    }
    set_mode(r->fd, &r->raw);
    __atomic_store_n(&r->applied, 1, __ATOMIC_RELEASE);
}

static void on_fatal(int sig)
{
    terminal_restore();
    (void)signal(sig, SIG_DFL);
    (void)raise(sig); /* blocked until we return, then it ends the process as it meant to */
}

static void on_stop(int sig)
{
    int err = errno;

    terminal_restore();
    (void)raise(SIGSTOP);
    errno = err;
}

static void on_continue(int sig)
{
    int err = errno;

    for (unsigned i = 0; i < __atomic_load_n(&rows, __ATOMIC_ACQUIRE); i++)
        apply_if_foreground(&row[i]);
    errno = err;
}

static void hook(int sig, void (*handler)(int))
{
    struct sigaction old, act = {.sa_handler = handler, .sa_flags = SA_RESTART};

    sigfillset(&act.sa_mask);
    if (!sigaction(sig, NULL, &old) && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
        (void)sigaction(sig, &act, NULL);
}

bool terminal_raw(int fd, GError **error)
{
    struct termios mode;
    struct stat st;
    unsigned at = 0;

    if (tcgetattr(fd, &mode) < 0 || fstat(fd, &st) < 0)
        return lodge_fail_errno(error, errno, "cannot read the terminal's settings");
    while (at < rows && row[at].device != st.st_rdev)
        at++;
    if (at == TERMINALS_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "more than %d terminals", TERMINALS_MAX);
    Row *r = &row[at];
    if (at < rows && __atomic_load_n(&r->applied, __ATOMIC_ACQUIRE)) {
        restore(r); /* what it is put back to is what it was before us */
        (void)tcgetattr(fd, &mode);
    }
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return lodge_fail_errno(error, errno, "cannot duplicate the terminal's descriptor");
    if (at < rows)
        close(r->fd);
    r->fd = copy;
    r->device = st.st_rdev;
    r->saved = r->raw = mode;
    cfmakeraw(&r->raw);
    r->raw.c_oflag = r->saved.c_oflag;
    r->raw.c_cc[VMIN] = 1;
    r->raw.c_cc[VTIME] = 0;
    if (at == rows)
        __atomic_store_n(&rows, at + 1, __ATOMIC_RELEASE);
    if (!hooked) {
        hooked = true;
        (void)atexit(terminal_restore); /* fails only without memory; signals still restore */
        for (size_t i = 0; i < G_N_ELEMENTS(fatal_signals); i++)
            hook(fatal_signals[i], on_fatal);
        hook(SIGTSTP, on_stop);
        hook(SIGCONT, on_continue);
    }
    apply_if_foreground(r);
    return true;
}
