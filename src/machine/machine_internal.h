/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MACHINE_INTERNAL_H
#define LODGE_MACHINE_INTERNAL_H

/* Shared by machine_build.c (from description to machine) and machine.c (its life). */

#include "lodge/block.h"
#include "lodge/chan.h"
#include "lodge/iothread.h"
#include "lodge/net.h"

#include "kvm.h"
#include "machine.h"
#include "pc.h"
#include "vcpu.h"

/* The boot image on its way into guest memory, on a thread of its own: that and KVM's making of a
 * machine take about as long. */
typedef struct Loader {
    GThread *thread; /* NULL: not under way */
    BootCpu cpu;
    GError *error;   /* owned; set where it failed */
} Loader;

#define MACHINE_DISK_LOOPS 7u /* beside the machine's own */

struct Machine {
    /* Constant after machine_build(): */
    MachineConfig config;
    GMainContext *context; /* ref */
    Board board;
    IoThread *io;          /* owned */
    IoThread *disk_io[MACHINE_DISK_LOOPS]; /* owned; made when a disk wants them */
    Kvm *kvm;              /* owned */
    CpuSet *cpus;          /* owned */
    PcBoard pc;
    GPtrArray *devices;    /* owned: Device, in order of making; freed in reverse */
    GHashTable *blks;      /* owned: name -> BlkNode */
    GHashTable *disk_watches; /* owned: name -> who hears of a disk's errors; outlives blks */
    GPtrArray *net_order;  /* owned: NetBackend */
    GHashTable *nets;      /* name -> NetBackend, borrowed from net_order */
    GHashTable *chans;     /* owned: name -> Chan */
    BootImage *boot;       /* owned; NULL: firmware */
    bool no_reboot;
    MachineAction on_panic, watchdog_action; /* main thread */
    unsigned parts;        /* PC_* */
    /* Main thread only: */
    MachineState state;
    Tree *now; /* owned; see machine_now() */
    bool stalled; /* PAUSED with on-error=stop: requests wait, so devices are not at rest */
    const char *paused_by; /* static; see machine_paused_by() */
    bool stuck; /* a device did not come to rest: it may touch its memory at any time */
    MachineResult result;
    MachineTimes times;
    void (*listener)(void *opaque, const MachineNews *news);
    void *listener_opaque;
    void (*debug_listener)(void *opaque, const VcpuDebugStop *stop);
    void *debug_opaque;
    Loader loader;         /* joined by machine_start() or machine_free() */
    /* Guarded by request_lock, written by any thread: */
    LodgeLock request_lock; /* rank QUEUE */
    unsigned requested;     /* bits of BoardRequest and of what vCPUs ask */
    int exit_status;
    uint32_t ejected;       /* PCI slots that the guest let go of, a bit each */
    unsigned stopped_cpu;
    VcpuStopInfo stop_info;
    VcpuDebugStop debug_stop;
    bool balloon_queued;    /* the listener will be told of the balloon */
    int64_t balloon_told_us; /* when it last was */
    uint64_t halt_seen_ns;  /* vCPUs' CPU time at the last machine_is_halted(); main thread */
    bool poll_queued;       /* the main context was told */
    bool closed;            /* ended: requests are dropped */
};

/* Bits of `requested` beyond BoardRequest. */
#define REQUEST_TRIPLE_FAULT (1u << 16)
#define REQUEST_CPU_STOPPED (1u << 17)
#define REQUEST_HOST_RESET (1u << 18)
#define REQUEST_DISK_ERROR (1u << 19)
#define REQUEST_DEBUG (1u << 20)

/* Have the main thread carry out @bits, with the vCPUs stopped until then. Any thread. */
void machine_request(Machine *m, unsigned bits);

/* machine_disks.c: open /backends/block/@id; see blk_hurry() and blk_retry() for the others. */
IoThread *machine_disk_loop(Board *b, unsigned i, GError **error);
bool machine_open_disk(Machine *m, const Tree *t, const char *id, GError **error);
/* Close @n, one of m->blks, and hear of its errors no more. Main thread, nothing uses it. */
void machine_close_disk(Machine *m, const BlkNode *n);
/* Hear of @n's errors. */
void machine_watch_disk(Machine *m, BlkNode *n);
void machine_disks_hurry(Machine *m, bool on);
void machine_disks_retry(Machine *m, bool fail);

/* machine_build.c: open /backends/net/@id. */
bool machine_open_net(Machine *m, const Tree *t, const char *id, GError **error);

/* Put tables and boot image into memory. Any thread; the memory is nobody else's meanwhile. */
bool machine_load(Machine *m, BootCpu *ret_cpu, GError **error);
void machine_loader_start(Machine *m);

/* Bring a machine to rest for something short, whatever its state, and let it go again: nobody is
 * told. On false it goes on as before. */
bool machine_hold(Machine *m, GError **error);
void machine_let_go(Machine *m);

/* Make /devices/@id of @t and put it on the list. vCPUs parked. */
bool machine_build_device(Machine *m, const Tree *t, const char *id, GError **error);
/* Free what is in @slots, a bit each. Main thread. */
void machine_eject(Machine *m, uint32_t slots);

/* machine_guest.c: the balloon has another size; any thread. */
void machine_balloon_changed(Machine *m);

/* Tell the listener. */
void machine_tell(Machine *m, const MachineNews *news);

/* What vCPU threads tell the machine; opaque is the Machine. */
void machine_on_triple_fault(void *opaque, unsigned cpu);
void machine_on_cpu_stopped(void *opaque, unsigned cpu, const VcpuStopInfo *info);
void machine_on_debug(void *opaque, const VcpuDebugStop *stop);
void machine_on_request(Board *b, BoardRequest what, int arg);

#endif
