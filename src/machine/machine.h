/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MACHINE_H
#define LODGE_MACHINE_H

/*
 * A machine and its life. It is built from a description (tree.h) by one function, whoever asks:
 * a command line, a definition file, a snapshot.
 *
 *      machine_build()      machine_start()           machine_pause()
 *   ------------------> BUILT -----------> RUNNING <----------------> PAUSED
 *                                             | the guest, a signal, an error
 *                                             v
 *                                           ENDED     machine_free() from any of them
 *
 * All calls are the main thread's, on the main context that was default at machine_build().
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/block.h"
#include "lodge/device.h"

#include "live.h"
#include "tree.h"
#include "vcpu.h"

struct HostFwd;
typedef struct Machine Machine;

#define MACHINE_CPUS_MAX 255u /* xAPIC identifiers */

typedef enum MachineState {
    MACHINE_BUILT,
    MACHINE_RUNNING,
    MACHINE_PAUSED,
    MACHINE_ENDED,
} MachineState;

typedef enum MachineEnd {
    MACHINE_END_POWER_OFF, /* ACPI S5 */
    MACHINE_END_RESET,     /* the guest restarts and /options/no-reboot says to end then */
    MACHINE_END_EXIT,      /* debug exit; status is the guest's */
    MACHINE_END_PANIC,     /* pvpanic */
    MACHINE_END_WATCHDOG,  /* the guest let its watchdog's time run out */
    MACHINE_END_CPU,       /* a vCPU stopped on what KVM cannot run; report explains */
    MACHINE_END_KILLED,    /* machine_kill() */
    MACHINE_END_ERROR,     /* Lodge failed, for instance to load the kernel again; see report */
} MachineEnd;

/* What becomes of a machine whose guest has died or hangs. */
typedef enum MachineAction {
    MACHINE_ACTION_POWEROFF, /* it ends */
    MACHINE_ACTION_RESET,
    MACHINE_ACTION_PAUSE,
    MACHINE_ACTION_NONE,     /* it is told of, and the guest runs on */
    MACHINE_ACTION_SHUTDOWN, /* the power button is pressed */
} MachineAction;

typedef struct MachineResult {
    MachineEnd why;
    int status;   /* EXIT: 0..255; KILLED: the caller's; RESET: 1 for machine_reset(), else 0 */
    char *report; /* owned by the machine; CPU, ERROR; else NULL */
} MachineResult;

typedef struct MachineConfig {
    const char *name;      /* in messages and lock refusals */
    const char *cache_dir; /* of unpacked kernels; NULL: none */
    /* The machine has ended; the main thread, once. Devices are quiet, vCPUs parked. */
    void (*ended)(void *opaque, const MachineResult *r);
    void *opaque;
    bool paused; /* it starts paused */
} MachineConfig;

/**
 * machine_build() - Build what @t describes; the guest does not run yet
 * @t: borrowed for the call
 * @c: copied; its strings are borrowed and outlive the machine
 * Return: transfer full, or NULL with the error of whatever refused: LODGE_ERROR_CONFIG names the
 *         node, LODGE_ERROR_NO_KVM the host. Nothing is left behind.
 */
Machine *machine_build(const Tree *t, const MachineConfig *c, GError **error);
void machine_free(Machine *m); /* from any state; NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Machine, machine_free)

/* Load the kernel and let the guest run. LODGE_ERROR_CONFIG where memory is too small for it. */
bool machine_start(Machine *m, GError **error);
MachineState machine_state(const Machine *m);
/* Whether it is paused because a disk with on-error=stop failed. */
bool machine_stalled(const Machine *m);
/* Why it is paused, in QMP's words: "guest-panicked", "watchdog"; NULL: somebody said so.
 * Static. */
const char *machine_paused_by(const Machine *m);
/* LODGE_ERROR_BUSY names the device that did not come to rest; the guest then runs on. */
bool machine_pause(Machine *m, GError **error);
void machine_resume(Machine *m);
/* Press the power button: the guest is told by ACPI. */
void machine_power_button(Machine *m);
/* Press the reset button. */
void machine_reset(Machine *m);
/* Pull the plug. */
void machine_kill(Machine *m, int status);

typedef enum MachineEvent {
    MACHINE_EVENT_PAUSED,
    MACHINE_EVENT_RESUMED,
    MACHINE_EVENT_POWER_BUTTON, /* was pressed */
    MACHINE_EVENT_GUEST_RESET,  /* the guest starts again, as it asked */
    MACHINE_EVENT_HOST_RESET,   /* the same, as machine_reset() asked */
    MACHINE_EVENT_UNPLUGGED,    /* the guest let go of a device, and it is gone */
    MACHINE_EVENT_DISK_ERROR,   /* the host failed a disk's request; later ones are told of later */
    MACHINE_EVENT_JOB,          /* a merge of disk images is in another state */
    MACHINE_EVENT_BALLOON,      /* the guest has more or less memory; at most once a second */
    MACHINE_EVENT_PANICKED,     /* the guest's kernel died; what becomes of it is told later */
    MACHINE_EVENT_WATCHDOG,     /* the guest let its watchdog's time run out; likewise */
    MACHINE_EVENT_ENDED,        /* before MachineConfig.ended */
} MachineEvent;

typedef struct MachineDiskError {
    const char *disk; /* its node's name */
    BlkOp op;
    int err;
    BlkOnError action; /* what becomes of the request */
} MachineDiskError;

typedef struct MachineNews {
    MachineEvent what;
    const MachineResult *result; /* ENDED; else NULL */
    const char *device;          /* UNPLUGGED: its name; else NULL */
    const MachineDiskError *disk_error; /* DISK_ERROR */
    const BlkJobInfo *job;       /* JOB */
    uint64_t balloon;            /* BALLOON: bytes that the guest has now */
    MachineAction action;        /* PANICKED, WATCHDOG: what is about to happen */
} MachineNews;

/* Be told of what happens to the machine. One listener, NULL takes it away. It is called in the
 * middle of these functions and may not call them. */
void machine_listen(Machine *m, void (*fn)(void *opaque, const MachineNews *news), void *opaque);

/* What /backends/block/@id says, checked; strings are borrowed from @t. */
bool machine_disk_options(const Tree *t, const char *id, BlkOptions *ret, GError **error);

/* Image that @d has as its disk or medium now, transfer none; NULL: none. */
BlkNode *machine_medium(Machine *m, Device *d);
/**
 * machine_change_medium() - Take the medium out of drive @d, and put another in
 * @o:     what to open; NULL: the drive stays empty
 * @force: though the guest has locked the drive
 * The machine stands still meanwhile.
 * Return: false and the old medium is in as before: LODGE_ERROR_UNSUPPORTED (not removable), or the
 *         error of opening the image or of the drive.
 */
bool machine_change_medium(Machine *m, Device *d, const BlkOptions *o, bool force, GError **error);

/* The disk of the device @name, or the one that goes by that name itself; NULL: none. *@ret_device,
 * if asked for: who has it, or NULL. Transfer none. */
BlkNode *machine_disk(Machine *m, const char *name, Device **ret_device);
/* blk_disk_resize(), and the device is told. */
bool machine_resize_disk(Machine *m, BlkNode *disk, uint64_t size, bool shrink, GError **error);
/* blk_set_rates(), and machine_now() tells of it. */
bool machine_limit_disk(Machine *m, BlkNode *disk, uint64_t iops, uint64_t bps, GError **error);
/* blk_commit(); MACHINE_EVENT_JOB tells. @id: NULL: the disk's name. */
bool machine_commit_disk(Machine *m, BlkNode *disk, const char *id, uint64_t speed, GError **error);
/* The job of that name; NULL: none. */
BlkJob *machine_job(Machine *m, const char *id);
/* The disks, in the order of their names; transfer container (BlkNode). */
GPtrArray *machine_disks(Machine *m);

/* The registers of CPU @cpu, and whether it waits for an interrupt; the machine stops for it if it
 * runs. False: no such CPU. */
bool machine_cpu_regs(Machine *m, unsigned cpu, VcpuRegs *ret, bool *ret_halted);

/* Back ends by their name in the description; NULL: none. Transfer none. */
Chan *machine_chan(Machine *m, const char *name);
Board *machine_board(Machine *m);
/* Back ends of networks (NetBackend) in order of making; transfer none. */
const GPtrArray *machine_nets(Machine *m);
/* Devices in order of making; transfer none. */
const GPtrArray *machine_devices(Machine *m);
/* The device of that name; NULL: none. Transfer none. */
Device *machine_device(Machine *m, const char *id);

/**
 * machine_plug() - Add device /devices/@id of @t to a machine that runs, and tell the guest
 * @t: holds the one node; back ends that it names are there already
 * Return: false with LODGE_ERROR_STATE (not running), LODGE_ERROR_EXISTS, LODGE_ERROR_UNSUPPORTED
 *         (no PCI device, no free slots on this board), or what the device refused.
 */
bool machine_plug(Machine *m, const Tree *t, const char *id, GError **error);
/**
 * machine_add_backends() - Open what stands under /backends/block and /backends/net of @t
 *
 * For devices that come later; see machine_plug(). All or nothing.
 * Return: false with LODGE_ERROR_STATE (not running), LODGE_ERROR_EXISTS (one of that name is
 *         there), or the error of opening.
 */
bool machine_add_backends(Machine *m, const Tree *t, GError **error);
/* Close disk image or network @id, where no device has it. Not from a listener.
 * LODGE_ERROR_NOT_FOUND; LODGE_ERROR_BUSY names the device. */
bool machine_drop_disk(Machine *m, const char *id, GError **error);
bool machine_drop_net(Machine *m, const char *id, GError **error);
/**
 * machine_now() - What the machine has at this moment, as a description
 *
 * Options, back ends and devices only: as built, with those that came later and without those that
 * went. Media of drives and images put on top of disks are as they were at the start.
 * Return: transfer none, until the machine changes.
 */
const Tree *machine_now(const Machine *m);
/* A port of the host that leads into the guest by way of network @id came; @rule: as the back end's
 * option hostfwd has it. */
void machine_note_forward(Machine *m, const char *id, const char *rule);
/* One went. */
void machine_forget_forward(Machine *m, const char *id, const struct HostFwd *gone);

/* Files of disk image @id and, where it is an overlay, of its base (NULL: none), borrowed; false:
 * no such image. */
bool machine_disk_files(Machine *m, const char *id, const char **ret_file, const char **ret_base);
/* What the guest's kernel says it is: "6.1.0-13-amd64 (debian-kernel@...) #1 SMP ..."; NULL: not
 * known. Transfer none. */
const char *machine_kernel_banner(const Machine *m);

/* A terminal more, @name, on the virtio console @device, with a new channel @chan. Main thread.
 * False: LODGE_ERROR_EXISTS, LODGE_ERROR_NOT_FOUND, LODGE_ERROR_LIMIT, or what chan_open() says. */
bool machine_plug_port(Machine *m, const char *device, const char *name, const char *chan,
                       const char *spec, GError **error);
/* It goes at once, its channel too. False: there is none, or it is not one of @device's ports. */
bool machine_unplug_port(Machine *m, const char *device, const char *name, const char *chan);
/* Ask the guest to let device @id go; MACHINE_EVENT_UNPLUGGED tells when it did.
 * LODGE_ERROR_NOT_FOUND, LODGE_ERROR_UNSUPPORTED. */
bool machine_unplug(Machine *m, const char *id, GError **error);

/**
 * machine_is_halted() - Whether the guest can do nothing any more
 * All its vCPUs stand in HLT with interrupts off, as a kernel leaves them that halts and does not
 * switch the power off. To be asked now and then: it is seen at the second time at the earliest,
 * and costs a look at the threads' clocks while the guest does something.
 * Context: main thread.
 */
bool machine_is_halted(Machine *m);

/* For the debugger. Its vCPUs, to be looked at and changed while the machine is paused: */
CpuSet *machine_cpus(Machine *m);
/* Be told when a vCPU stopped for its debugger; the machine is paused by then. NULL takes it away.
 * Main thread, not in the middle of another function. */
void machine_debug_listen(Machine *m, void (*fn)(void *opaque, const VcpuDebugStop *stop),
                          void *opaque);
/* As machine_resume(), but vCPUs that are held (cpu_set_hold()) stay so. */
void machine_debug_resume(Machine *m);

/* The balloon; NULL: none. Transfer none. See virtio_balloon.h. */
Device *machine_balloon(Machine *m);

/* Words of /options/on-panic and /options/watchdog-action. */
const char *machine_action_name(MachineAction a);
bool machine_action_parse(const char *text, MachineAction *ret);
/* What is done from now on when the guest's kernel dies (not SHUTDOWN), or its watchdog bites. */
void machine_set_on_panic(Machine *m, MachineAction a);
void machine_set_watchdog_action(Machine *m, MachineAction a);

typedef struct MachineTimes {
    int64_t build_ns, load_ns, start_ns; /* CLOCK_MONOTONIC at the end of each step; 0: not yet */
} MachineTimes;
void machine_times(const Machine *m, MachineTimes *ret_times);
/* What was loaded, for people; transfer none. */
const char *machine_boot_text(const Machine *m);
uint64_t machine_exits(const Machine *m);

/* Put what a description leaves open, and the board's own chips under /board, into @t: the whole
 * machine, as --dry-run prints it. */
bool machine_resolve(Tree *t, GError **error);

#endif
