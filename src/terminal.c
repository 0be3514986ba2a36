/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Raw mode of the starting terminal (termios, POSIX.1-2017 chapter 11). Every key goes to the
 * guest: no echo, no line editing, no signal keys, no flow control. Output processing stays as it
 * was, so that Lodge's own lines look right; a guest's CR LF is unharmed by it.
 *
 * The state is the process's, because signal handlers must reach it: this is the one exception to
 * "no file-scope mutable state", with main as its only writer but for the atomic flag.
 *
 * Invariants:
 * (1) saved_mode and raw_mode are written before `applied` is first set.
 * (2) Handlers call async-signal-safe functions only.
 * (3) A terminal that another job owns is left alone.
 */
#include "lodge/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "lodge/error.h"

static struct termios saved_mode, raw_mode;
static int terminal_fd = -1; /* a duplicate of ours, so that restoring outlives the channel */
static bool hooked;
static int applied; /* atomic: raw mode is in force and ours to undo */

/* Signals that end the process by default, and may come while a guest has the terminal. */
static const int fatal_signals[] = {
    SIGHUP, SIGINT,  SIGQUIT, SIGILL,  SIGTRAP, SIGABRT, SIGBUS,  SIGFPE,
    SIGSEGV, SIGTERM, SIGSYS, SIGXCPU, SIGUSR1, SIGUSR2, SIGALRM, SIGPWR,
};

/* tcsetattr() from a background job would stop us; with SIGTTOU blocked it simply works. */
static void set_mode(const struct termios *mode)
{
    sigset_t ttou, old;

    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &ttou, &old);
    (void)tcsetattr(terminal_fd, TCSANOW, mode); /* a terminal that hung up has no mode to keep */
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void terminal_restore(void)
{
    int err = errno;

    if (__atomic_exchange_n(&applied, 0, __ATOMIC_ACQ_REL))
        set_mode(&saved_mode);
    errno = err;
}

static void apply_if_foreground(void)
{
    pid_t owner = tcgetpgrp(terminal_fd);

    if (owner >= 0 && owner != getpgrp()) {
        __atomic_store_n(&applied, 0, __ATOMIC_RELEASE);
        return;
    }
    set_mode(&raw_mode);
    __atomic_store_n(&applied, 1, __ATOMIC_RELEASE);
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

    if (terminal_fd >= 0)
        apply_if_foreground();
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

    if (tcgetattr(fd, &mode) < 0)
        return lodge_fail_errno(error, errno, "cannot read the terminal's settings");
    terminal_restore();
    int copy = dup(fd);
    if (copy < 0)
        return lodge_fail_errno(error, errno, "cannot duplicate the terminal's descriptor");
    if (terminal_fd >= 0)
        close(terminal_fd);
    terminal_fd = copy;
    saved_mode = raw_mode = mode;
    cfmakeraw(&raw_mode);
    raw_mode.c_oflag = saved_mode.c_oflag;
    raw_mode.c_cc[VMIN] = 1;
    raw_mode.c_cc[VTIME] = 0;
    if (!hooked) {
        hooked = true;
        (void)atexit(terminal_restore); /* fails only without memory; signals still restore */
        for (size_t i = 0; i < G_N_ELEMENTS(fatal_signals); i++)
            hook(fatal_signals[i], on_fatal);
        hook(SIGTSTP, on_stop);
        hook(SIGCONT, on_continue);
    }
    apply_if_foreground();
    return true;
}
