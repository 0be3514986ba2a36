/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CONTROL_INTERNAL_H
#define LODGE_CONTROL_INTERNAL_H

/* Shared by control.c, the commands, and the transports. */

#include "lodge/net.h"

#include "command_table.h"
#include "control.h"
#include "pci.h"

typedef struct KeyQueue KeyQueue;
typedef struct Qmp Qmp;
typedef struct Mconsole Mconsole;
typedef struct GdbServer GdbServer;

struct Control {
    /* Constant: */
    ControlConfig config;
    /* Main thread: */
    Json *json;         /* owned; NULL until somebody says something */
    KeyQueue *keys;     /* owned; what is still to be typed */
    Qmp *qmp;           /* owned; NULL: no socket */
    GdbServer *gdb;     /* owned; NULL: no debugger is let in */
    Mconsole *mconsole; /* borrowed; NULL: none is open */
    GPtrArray *unplugs; /* owned; see unplug.c */
    guint settle;       /* 0: no device that went is to be seen to */
    GPtrArray *resets;  /* ControlReply that wait for the reset they asked for */
    const char *end_reason; /* why the machine is killed, for SHUTDOWN; static */
    unsigned cpu;       /* that the human monitor's line is about */
    unsigned buttons;   /* INPUT_* that commands hold down */
    int abs_x, abs_y;   /* where commands have put the pointer */
};

/* The machine, or NULL with LODGE_ERROR_STATE. */
Machine *control_machine(Control *c, GError **error);
/* Call @fn for each device in its order, with the image that it has, NULL where it has none. False
 * with LODGE_ERROR_STATE: there is no machine. */
typedef void ControlDeviceFn(void *out, Device *d, BlkNode *medium);
bool control_each_device(Control *c, ControlDeviceFn *fn, void *out, GError **error);
/* The library, loaded now if need be; NULL with the error. */
const Json *control_json(Control *c, GError **error);

/* Send what the client at @fd takes at this moment, and forget that. False: it is gone. */
bool control_flush(int fd, GString *unsent);

/* ---- commands_fd.c ---- */

/* A client's descriptors: those that it passed to us and not yet on to a command. */
ControlFds *control_fds_new(void);
void control_fds_free(ControlFds *f); /* closes them; NULL is fine */
/* The descriptor of that name, transfer full; -1 with the error. */
int control_fds_take(ControlFds *f, const char *name, GError **error);
/* Likewise, where it has to be a connected stream socket. */
int control_fds_take_connection(ControlFds *f, const char *name, GError **error);
/* The client passed @fd, which is taken over: it waits to be named. One at a time does. */
void control_fds_received(ControlFds *f, int fd);


/* ---- key_queue.c ---- */

typedef struct KeyStep {
    uint16_t code;
    bool down;
    uint32_t wait_ms; /* after it, before the next */
} KeyStep;

KeyQueue *key_queue_new(void);
void key_queue_free(KeyQueue *q); /* lets go of what it holds down; NULL is fine */
/**
 * key_queue_add() - Press and let go in order, after all that is there already
 * @in:    where to, borrowed until it is done
 * @steps: copied
 * @r:     answered when they are done; NULL: nobody waits
 * Return: false with LODGE_ERROR_BUSY: too much is waiting already.
 */
bool key_queue_add(KeyQueue *q, Input *in, const KeyStep *steps, size_t n, ControlReply *r,
                   GError **error);

/* ---- commands_net.c ---- */

/* The card at @be; NULL: none. *@ret_mac: its property, or NULL. */
Device *control_card_of(Machine *m, const NetBackend *be, const PropSpec **ret_mac);

/* As the commands; @netdev: NULL: the first that has forwards. What add makes is transfer full. */
char *control_hostfwd_add(Control *c, const char *netdev, const char *rule, GError **error);
bool control_hostfwd_remove(Control *c, const char *netdev, const char *rule, GError **error);

/* Pull or plug the cable of the network or card @name. */
bool control_set_link(Control *c, const char *name, bool up, GError **error);

/* ---- commands_guest.c ---- */

/* The machine's balloon, or NULL with the error in QEMU's words. */
Device *control_balloon(Control *c, GError **error);

/* ---- unplug.c ---- */

void control_unplug_init(Control *c);
void control_unplug_clear(Control *c);
/* Open the back ends in @t and plug in its device @id; all or nothing. See machine_plug(). */
bool control_plug(Machine *m, const Tree *t, const char *id, GError **error);
/**
 * control_unplug() - Ask the guest to let device @id go, and close its back end when it did
 * @done: told that it is gone, or has not gone within @seconds; never from inside this call
 * Return: false and nothing will be told: as machine_unplug(); LODGE_ERROR_BUSY.
 */
bool control_unplug(Control *c, const char *id, unsigned seconds,
                    void (*done)(void *opaque, bool gone), void *opaque, GError **error);
/* Tell nobody by @opaque. */
void control_unplug_forget(Control *c, void *opaque);
/* Device @id is gone. In the middle of a change. */
void control_unplugged(Control *c, const char *id);

/* ---- commands_input.c ---- */

/* Press @codes together for @hold_ms. */
bool control_send_keys(Control *c, const unsigned *codes, unsigned n, int64_t hold_ms,
                       GError **error);

/* ---- commands_screen.c ---- */

/* "info vnc" of the human monitor. */
void control_print_screen(Control *c, GString *out);
bool control_screendump(Control *c, const char *filename, const char *format, GError **error);

/* ---- picture.c ---- */

/* A picture of @d as a file's bytes; transfer full, NULL with the error. */
GBytes *picture_ppm(Display *d, GError **error);
GBytes *picture_png(Display *d, GError **error);

/* ---- commands_query.c ---- */

/* A PCI function as monitors show it. */
typedef struct ControlPciBar {
    unsigned number;
    bool io, prefetch, wide; /* the last two: of memory */
    uint64_t len, at;        /* @at: UINT64_MAX: nowhere */
} ControlPciBar;
typedef struct ControlPci {
    const char *id; /* borrowed from the device */
    unsigned slot, function;
    unsigned class;         /* base class and sub-class */
    const char *class_text; /* NULL: not known */
    uint16_t vendor, device, sub_vendor, sub_device;
    unsigned irq_pin, irq; /* @irq_pin: 1 to 4; 0: none */
    unsigned bars;
    ControlPciBar bar[PCI_BARS];
} ControlPci;
/* Call @fn for each function on @bus. */
typedef void ControlPciFn(void *out, const ControlPci *p);
void control_each_pci(PciBus *bus, ControlPciFn *fn, void *out);

/* ---- hmp_hardware.c: lines of the human monitor ---- */

typedef bool HmpFn(Control *c, char **args, GString *out, GError **error);
HmpFn hmp_info_pci, hmp_info_memory, hmp_info_block_jobs;
/* The registers of @cpu. */
bool hmp_print_registers(Control *c, unsigned cpu, GString *out, GError **error);

/* ---- commands_block.c ---- */

/* Call @fn for each job on a disk, by the disks' names. False with LODGE_ERROR_STATE: there is no
 * machine. */
typedef void ControlJobFn(void *out, const BlkJobInfo *info);
bool control_each_job(Control *c, ControlJobFn *fn, void *out, GError **error);
/* Events of jobs on disks, and of requests that the host failed. */
void control_job_event(Control *c, const BlkJobInfo *info);
void control_disk_error(Control *c, const MachineDiskError *e);

/* ---- gdb.c ---- */

void gdb_server_free(GdbServer *s); /* NULL is fine */
/* What happens to the machine; as machine_listen() tells it. */
void gdb_server_news(GdbServer *s, const MachineNews *news);

/* ---- hmp.c ---- */

/* What the human monitor answers to @line, with CR LF; transfer full. */
char *hmp_run(Control *c, const char *line);

/* ---- qmp.c ---- */

/* Take over @listen_fd, a listening socket; -1: there is none. */
Qmp *qmp_new(Control *c, int listen_fd);
void qmp_free(Qmp *q); /* NULL is fine */
/* To everybody who has negotiated. */
void qmp_event(Qmp *q, const char *line);
/* Greet who is at the other end of @fd, a stream socket that is taken over. @out_fd: the same, or
 * where a stream's answers go, taken over too. */
void qmp_add_client(Qmp *q, int fd, int out_fd);

/* QMP's {"qemu": ..., "package": ...}. */
void qmp_print_version(JsonOut *out, const char *key);

#endif
