/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_DEVICE_H
#define LODGE_DEVICE_H

/*
 * The frame that devices stand in. A class is one const row of device_table[]; plain structs, no
 * constructors, no registration at load time. A device reaches the rest of the machine through
 * its Board only, so two machines live in one process and a test makes a board without KVM.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/bus.h"
#include "lodge/clock.h"
#include "lodge/irq.h"
#include "lodge/lock.h"
#include "lodge/mem.h"
#include "lodge/state.h"

typedef struct BlkNode BlkNode;
typedef struct NetPort NetPort;
typedef struct Chan Chan;
typedef struct IoThread IoThread;
typedef struct PciBus PciBus;
typedef struct FwCfg FwCfg;
typedef struct IdeBus IdeBus;
typedef struct Fdc Fdc;
typedef struct IsaDma IsaDma;
typedef struct Display Display;
typedef struct Input Input;

typedef enum ResetKind { RESET_COLD, RESET_WARM, RESET_FUNCTION } ResetKind;

/* What a device asks of its machine; enqueued, done on the main thread. */
typedef enum BoardRequest {
    BOARD_RESET,      /* the guest asked for a restart */
    BOARD_POWER_OFF,  /* ACPI S5 */
    BOARD_SUSPEND,    /* ACPI S3: not offered */
    BOARD_EXIT,       /* debug exit; arg is the process status 0..255 */
    BOARD_PANIC,      /* pvpanic: the guest's kernel died */
    BOARD_CRASH_LOAD, /* pvpanic: the guest boots its crash kernel */
    BOARD_WATCHDOG,   /* a watchdog's time is over */
    BOARD_BALLOON,    /* the guest's balloon has another size; any number of these is one */
    BOARD_EJECT,      /* ACPI hot-plug: the guest let go of PCI slot arg */
} BoardRequest;

/* Services of one machine. Filled by the machine (or a test) before any device; const after. */
typedef struct Board {
    MemMap *mem;
    Bus *pio, *mmio;
    Irq *irq;
    LodgeClock *clock;
    TimerQueue *timers; /* of the machine's first IoThread, or a test's */
    IoThread *io;       /* first IoThread; NULL in tests without threads */
    PciBus *pci;        /* set by the host bridge's realize */
    FwCfg *fw_cfg;      /* set by fw_cfg's realize */
    IdeBus *ide;        /* set by the IDE controller's realize; NULL: none */
    Fdc *fdc;           /* set by the floppy controller's realize; NULL: none */
    IsaDma *dma;        /* set by the 8237 pair's realize; NULL: none */
    Device *i8042;      /* set by the keyboard controller's realize; NULL: none */
    Device *ps2_mouse;  /* set by the PS/2 mouse's realize; NULL: none */
    Display *display;   /* the machine's screen; NULL: none */
    Input *input;       /* keyboards and pointers; NULL: nobody types */
    unsigned cpus;
    uint64_t ram_below_4g, ram_above_4g; /* bytes */
    /* Look up a backend of the description by its name; NULL: none of that name. */
    BlkNode *(*blk)(struct Board *b, const char *name);
    NetPort *(*net)(struct Board *b, const char *name);
    Chan *(*chan)(struct Board *b, const char *name);
    /* Further loop @i, from 0, for queues of disks, shared by all of them; NULL with @error. Main
     * thread. NULL: there are none. */
    IoThread *(*disk_loop)(struct Board *b, unsigned i, GError **error);
    /* Any thread, device locks may be held; returns at once. */
    void (*request)(struct Board *b, BoardRequest what, int arg);
    /* General registers of the vCPU whose access a handler serves: EAX, EBX, ECX, EDX, ESI, EDI.
     * Written, the upper halves become 0; of a read access its result is EAX, whatever stands in
     * @regs. Context: within a bus handler, on the vCPU's thread, device locks may be held.
     * Return: false: not to be had. NULL: a machine whose vCPUs show none. */
    bool (*cpu_regs)(struct Board *b, uint32_t regs[6], bool write);
    /* vCPU thread: ask for new signal of A20 etc. is not modelled: A20 is always open. */
    void *opaque; /* the machine's */
} Board;

typedef enum PropKind {
    PROP_BOOL,   /* bool */
    PROP_U32,    /* uint32_t */
    PROP_U64,    /* uint64_t */
    PROP_STRING, /* char *, owned by the device */
    PROP_MAC,    /* uint8_t[6] */
    PROP_BLK,    /* BlkNode *, borrowed from the board; named in the description */
    PROP_NET,    /* NetPort *, likewise */
    PROP_CHAN,   /* Chan *, likewise */
} PropKind;

typedef struct PropSpec {
    const char *name; /* NULL ends a table */
    const char *help;
    PropKind kind;
    uint32_t offset;   /* in the instance */
    uint64_t min, max; /* numbers: inclusive; STRING: max is the length's ceiling, bytes */
    const char *preset; /* default in text form; NULL: required for BLK/NET, else zero;
                         * "": an optional BLK/NET/CHAN, none */
} PropSpec;

typedef struct DeviceClass {
    const char *name; /* stable: config, QMP, snapshots */
    const char *bus;  /* "isa" | "pci" | "ide" | "fdc" | NULL (board only) */
    const char *help; /* one line: part and what it is for */
    char boot; /* firmware may boot from it: 'a' floppy, 'c' disk, 'd' CD-ROM, 'n' network; or 0 */
    size_t instance_size; /* bytes; a Device is the first member */
    const PropSpec *props; /* NULL: none */
    const StateDesc *state; /* never NULL: &state_none says so out loud */
    /* Main thread, vCPUs parked (briefly, on hot-plug). On false it has undone everything. */
    bool (*realize)(Device *d, GError **error);
    /* d->lock held; idempotent; may not fail or allocate. NULL: nothing to reset. */
    void (*reset)(Device *d, ResetKind kind);
    /* Start no new host I/O; then device_quiesced(d) from any thread. NULL: always quiet. */
    void (*quiesce)(Device *d);
    /* May start host I/O again. Main thread. NULL with quiesce NULL. */
    void (*resume)(Device *d);
    /* Main thread, after quiesce; accepts a half-realized device. */
    void (*unrealize)(Device *d);
    /* Removable media: put @medium (borrowed until the next change; NULL: none) in, once what is
     * in flight on the old one is done; the guest sees a change. Main thread, no lock held, the
     * device quiesced. @force: though the guest has locked the drive; else that is
     * LODGE_ERROR_STATE, and the guest hears that somebody wants the medium. NULL: the medium is
     * fixed. */
    bool (*change_medium)(Device *d, BlkNode *medium, bool force, GError **error);
    /* Whether the guest has locked the medium in. Main thread. NULL: it cannot. */
    bool (*medium_locked)(Device *d);
    /* The image has another size (blk_limits()): tell the guest. Main thread, the machine may run.
     * NULL: the guest learns of it at its next start. */
    void (*medium_resized)(Device *d);
} DeviceClass;

extern const DeviceClass *const device_table[]; /* src/devices/device_table.c, NULL-terminated */

struct Device {
    /* Constant after realize: */
    const DeviceClass *cls;
    char *id; /* owned; unique in the machine */
    Board *board; /* borrowed, outlives us */
    bool realized;
    /* Guards the model's registers: */
    LodgeLock lock; /* LOCK_RANK_DEVICE */
    /* Atomic: */
    unsigned faults; /* guest_fault() calls */
    void (*quiesced)(Device *d, void *opaque); /* set by device_quiesce() */
    void *quiesced_opaque;
};

const DeviceClass *device_class_find(const char *name);

/**
 * device_new() - Make an instance with its properties at their defaults, not realized
 * @id: copied; NULL: the class name
 * Context: main thread. Return: transfer full.
 */
Device *device_new(const DeviceClass *cls, const char *id, Board *board);
/* Unrealizes if need be. NULL is fine. Main thread, quiesced. */
void device_free(Device *d);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Device, device_free)

/**
 * device_set() - Set property @name from text
 * @value: as on the command line: numbers decimal, 0x or with K M G T; bool on|off; a back end's
 *         name
 * Return: false with LODGE_ERROR_CONFIG names device, property and what is allowed.
 */
bool device_set(Device *d, const char *name, const char *value, GError **error);
/* Realize, then a cold reset. On false the device can only be freed. */
bool device_realize(Device *d, GError **error);
/* Takes the lock around the class's reset. */
void device_reset(Device *d, ResetKind kind);
/* Ask for quiet; @done may come from any thread, perhaps before this returns. */
void device_quiesce(Device *d, void (*done)(Device *d, void *opaque), void *opaque);
void device_quiesced(Device *d);
void device_resume(Device *d);

/**
 * guest_fault() - Note that the guest did what a driver should not
 * Counted for each device, its text rate-limited to the log; never fatal. After it the device goes
 * to the state that its specification gives (error bit, needs-reset, master abort).
 * Context: any thread, device lock may be held.
 */
void guest_fault(Device *d, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* Parse "on|off|yes|no|true|false|1|0", and sizes with K M G T; false: not one. */
bool parse_bool(const char *text, bool *ret_value);
bool parse_u64(const char *text, uint64_t *ret_value); /* decimal or 0x, no suffix */
bool parse_size(const char *text, uint64_t *ret_bytes);
bool parse_mac(const char *text, uint8_t ret_mac[6]);

#endif
