/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CONTROL_H
#define LODGE_CONTROL_H

/*
 * What is done to a running machine from outside: the commands of one table, whoever carries them.
 * All of it is the main thread's, on the default main context.
 */

#include <sys/socket.h>

#include <glib.h>

#include "lodge/console_log.h"
#include "lodge/display.h"
#include "lodge/input.h"
#include "lodge/json_out.h"

#include "agent_port.h"
#include "machine.h"
#include "registry.h"

typedef struct Control Control;

#define CONTROL_VIEWERS_MAX 32

/* A screen that is served, and to whom. */
typedef struct ControlScreen {
    const char *address; /* "127.0.0.1:5901", "[::1]:5900", "unix:PATH"; NULL: it listens nowhere */
    bool password;
    unsigned viewers;
    struct sockaddr_storage viewer[CONTROL_VIEWERS_MAX];
} ControlScreen;

#define CONTROL_SOCKET "qmp.sock" /* in the machine's running folder */

/* All borrowed, and outliving the Control; NULL where there is none: commands that need it fail. */
typedef struct ControlConfig {
    const char *name;
    const char *uuid;   /* NULL: none was asked for */
    Machine *machine;
    Registry *registry; /* where the socket goes; NULL: no socket */
    /* What those who look are told, state and forwards filled in; NULL: nothing. */
    const MachineStatus *status;
    Display *display;
    Input *input;
    ConsoleLog *console_log;
    AgentPort *agent;
    /* Show the screen to the VNC client at the other end of @fd, a stream socket that is taken
     * over, also on failure. @skip_auth: it is asked for no password. */
    bool (*add_viewer)(void *opaque, int fd, bool skip_auth, GError **error);
    /* False: no screen is served. */
    bool (*describe_screen)(void *opaque, ControlScreen *ret);
    /* Serve the first serial port to @fd, which is taken over, also on failure; see consoles.h. */
    bool (*add_console)(void *opaque, int fd, bool write, unsigned *ret_id, bool *ret_writes,
                        GError **error);
    bool (*take_console)(void *opaque, unsigned id, GError **error);
    bool console_on_terminal; /* somebody may type there who is no client */
    void *opaque; /* of these */
    bool waits_for_gdb; /* the machine starts paused, until its debugger lets it go on */
} ControlConfig;

/**
 * control_open() - Answer those who want something of the machine
 * Return: transfer full, or NULL with LODGE_ERROR_HOST: the socket cannot be made.
 */
Control *control_open(const ControlConfig *config, GError **error);
/* Before the machine is freed. What was said is sent as far as it goes without waiting; keys that
 * are down are let go. NULL is fine. */
void control_close(Control *c);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Control, control_close)

typedef struct ControlQmpAt {
    const char *spec;  /* stdio, tcp:[ADDR:]PORT or unix:PATH */
    bool server, wait; /* listen there, rather than connect; and wait for the first client */
} ControlQmpAt;

/* Serve clients at @at too. LODGE_ERROR_CONFIG, LODGE_ERROR_EXISTS, LODGE_ERROR_HOST. */
bool control_open_qmp(Control *c, const ControlQmpAt *at, GError **error);

/* Tell those who look how the machine is now; pauses and resumes are told without it. */
void control_tell_status(Control *c);

/* Every event of ours, under its name in QMP. */
#define CONTROL_EVENTS(X)                                                                     \
    X(BALLOON_CHANGE)                                                                         \
    X(BLOCK_IO_ERROR)                                                                         \
    X(BLOCK_JOB_CANCELLED)                                                                    \
    X(BLOCK_JOB_COMPLETED)                                                                    \
    X(BLOCK_JOB_ERROR)                                                                        \
    X(BLOCK_JOB_READY)                                                                        \
    X(DEVICE_DELETED)                                                                         \
    X(DEVICE_TRAY_MOVED)                                                                      \
    X(GUEST_PANICKED)                                                                         \
    X(JOB_STATUS_CHANGE)                                                                      \
    X(POWERDOWN)                                                                              \
    X(RESET)                                                                                  \
    X(RESUME)                                                                                 \
    X(SHUTDOWN)                                                                               \
    X(STOP)                                                                                   \
    X(WATCHDOG)
typedef enum ControlEvent {
#define CONTROL_EVENT_ENUM(name) EVENT_##name,
    CONTROL_EVENTS(CONTROL_EVENT_ENUM)
#undef CONTROL_EVENT_ENUM
    CONTROL_EVENTS_COUNT,
} ControlEvent;
extern const char *const control_event_names[];

/**
 * control_event_begin() - Start an event: an open object, into which the caller may put "data"
 * Return: transfer full, for control_event_send().
 */
JsonOut *control_event_begin(ControlEvent what);
/* Tell everybody who listens; frees @event. */
void control_event_send(Control *c, JsonOut *event);
/* An event without data. */
void control_event(Control *c, ControlEvent what);
/**
 * control_open_gdb() - Let a debugger in
 * @spec: tcp:[ADDR:]PORT (127.0.0.1), unix:PATH; NULL: a socket in the machine's running folder
 * One server a machine, one debugger at a time. Return: false with LODGE_ERROR_CONFIG (no such
 * address), LODGE_ERROR_EXISTS (there is one already; something is at the path),
 * LODGE_ERROR_HOST.
 */
bool control_open_gdb(Control *c, const char *spec, GError **error);
/* What GDB's "target remote" takes; NULL: no debugger is let in. Transfer none. */
const char *control_gdb_address(const Control *c);

#endif
