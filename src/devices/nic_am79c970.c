// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * AMD Am79C970A, PCnet-PCI II: Ethernet controller for PCI.
 *
 * Spec: AMD Am79C970A data sheet, order number 19436 ("Register Descriptions": CSR, BCR;
 * "I/O Resources"; "Software Access"). Registers: nic_am79c970_regs.c; descriptors and
 * frames: nic_am79c970_ring.c.
 *
 * Modelled: APROM, word and double-word register maps through I/O and memory BARs, all software
 * styles, initialization block, both rings with chaining, polling, automatic padding and stripping,
 * physical, logical and broadcast matching, loopback, suspend, interrupts and their masks, link
 * state in BCR4 to BCR7.
 *
 * Left out, and what the guest sees: LAPP, Magic Packet, sleep, deferral, collisions and parity
 * (their enables read back, their events never come); the serial EEPROM (BCR19 says that none is
 * there; the APROM holds the address all the same); GPSI and AUI (their selection reads back, the
 * link is that of the wire); big-endian transfers (BSWP reads back). Buffer addresses and counts
 * of the DMA engine (CSR18 to CSR23, CSR40 to CSR45, CSR60 to CSR67, CSR82 to CSR86) are plain
 * storage. The part has no MII: BCR23 and up read 0. Frames of the wire have no FCS: four zero
 * bytes stand for it in the receive buffer; a looped-back frame has the right one. Frames below 60
 * bytes are padded on reception, as a sender on Ethernet would have done; nothing longer than 4091
 * bytes is sent or received, since MCNT has 12 bits.
 *
 * A DMA access outside memory ends as on the part ("Master Abort"): RMABORT in the PCI status,
 * SINT in CSR5, and the chip stops. Without bus master enable an initialization ends in MERR, and
 * rings rest.
 *
 * No receive descriptor: the part would count a missed frame. Here the wire keeps the frame and its
 * sender is slowed down, until the driver writes a register with a descriptor given back, or a poll
 * finds it (every 250 us, rising to 16 ms). So MISS comes from loopback only, and CSR112 reads 0.
 * While the receiver is off frames are lost without a trace, as on the part.
 *
 * Transmit polling: every CSR47 interval, at least 500 us, until the driver first uses TDMD; then
 * it is known to ring and the poll comes every 128 ms, so that an idle card costs nothing to speak
 * of.
 *
 * Threads: registers on vCPU threads, rings on the port's IoThread, both under dev.lock. The
 * handlers take the lock themselves: on a board without threads the rings are served behind the
 * handler, and the wire wants no lock held. TDMD posts one call to the loop; while that is on its
 * way or at work a further one only sets tx_wanted.
 *
 * Invariants:
 * (1) posted says that pcnet_service() is on its way or running: there is one at most.
 * (2) rx_blocked says that the wire holds a frame for us: then a poll is armed, or a pause ends.
 */
#include "nic_am79c970.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"
#include "pci_internal.h"

enum {
    PCNET_VENDOR = 0x1022,
    PCNET_DEVICE = 0x2000,
    PCNET_REVISION = 0x16,
    CLASS_ETHERNET = 0x020000,
    BAR_LEN = 32,
    PIN_INTA = 1,
    PCI_MIN_GNT = 0x3e,
    PCI_MAX_LAT = 0x3f,
    SERVICE_ROUNDS = 16, /* batches, then the loop serves others */
};

#define YIELD_NS (100 * (NS_PER_SEC / 1000000)) /* without a loop, which has others to serve */

static void pcnet_service(void *opaque);

/* ---- the 32 bytes of both BARs ---- */

static uint64_t aprom_read(const Pcnet *n, uint64_t off, unsigned size)
{
    uint64_t val = 0;

    for (unsigned i = 0; i < size; i++)
        val |= (uint64_t)(off + i < PCNET_APROM_LEN ? n->regs.aprom[off + i] : 0xff) << (8 * i);
    return val;
}

/* Which register an access means; false: none in this map, its result is undefined. */
static bool decode(const Pcnet *n, uint64_t off, unsigned size, unsigned *ret_reg)
{
    unsigned width = n->regs.dwio ? 4 : 2;

    off -= PCNET_APROM_LEN;
    *ret_reg = (unsigned)(off / width);
    return size == width && off % width == 0 && *ret_reg <= PCNET_BDP;
}

/* End of a handler: have the rings served if it asked for that. Keeps (1). */
static void unlock_and_kick(Pcnet *n)
{
    bool kick = (n->tx_wanted || n->rx_wanted) && !n->posted && !n->quiet && !n->dead;
    IoThread *io = n->port.io;

    if (kick)
        n->posted = true;
    lodge_unlock(&n->pci.dev.lock);
    if (kick && io)
        io_thread_post(io, pcnet_service, n);
    else if (kick)
        pcnet_service(n);
}

static uint64_t pcnet_read(void *owner, uint64_t off, unsigned size)
{
    Pcnet *n = owner;
    uint64_t val = UINT64_MAX;
    unsigned reg;

    lodge_lock(&n->pci.dev.lock);
    if (off < PCNET_APROM_LEN)
        val = aprom_read(n, off, size);
    else if (decode(n, off, size, &reg))
        val = pcnet_reg_read_locked(n, reg);
    unlock_and_kick(n);
    return val;
}

static void pcnet_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Pcnet *n = owner;
    unsigned reg;

    lodge_lock(&n->pci.dev.lock);
    if (off < PCNET_APROM_LEN) {
        for (unsigned i = 0; i < size && off + i < PCNET_APROM_LEN; i++) {
            if (n->regs.bcr[BCR_MISC] & PCNET_BCR2_APROMWE)
                n->regs.aprom[off + i] = (uint8_t)(val >> (8 * i));
        }
    } else {
        /* "I/O Resources": a double word written to RDP changes the map, until H_RESET. */
        if (off == PCNET_APROM_LEN && size == 4)
            n->regs.dwio = 1;
        if (decode(n, off, size, &reg))
            pcnet_reg_write_locked(n, reg, (uint16_t)val);
    }
    unlock_and_kick(n);
}

/* RAP in word and in double-word mode; in between lie registers that a write does nothing to, and
 * BDP, whose registers show with the next access. */
static const BusSpan address_ports[] = {{0x12, 6}, {0}};
static const BusRegionOps pcnet_ops = {pcnet_read, pcnet_write, 1 | 2 | 4, address_ports};

/* ---- serving the rings ---- */

/* IoThread, or the caller's thread on a board without one; no lock held. */
static void pcnet_service(void *opaque)
{
    Pcnet *n = opaque;
    IoThread *io = n->port.io;
    unsigned rounds = 0;

    lodge_lock(&n->pci.dev.lock);
    while (!n->quiet && !n->dead && (n->tx_wanted || n->rx_wanted)) {
        if (rounds++ == SERVICE_ROUNDS) {
            if (io) {
                lodge_unlock(&n->pci.dev.lock);
                io_thread_post(io, pcnet_service, n);
                return;
            }
            timer_arm(n->poll, clock_now_ns(n->pci.dev.board->clock) + YIELD_NS);
            break;
        }
        if (n->rx_wanted) {
            n->rx_wanted = n->rx_blocked = false;
            lodge_unlock(&n->pci.dev.lock);
            net_rx_ready(&n->port);
            lodge_lock(&n->pci.dev.lock);
        }
        if (n->tx_wanted) {
            n->tx_wanted = false;
            if (pcnet_tx_round_locked(n))
                n->tx_wanted = true;
        }
    }
    n->posted = false;
    lodge_unlock(&n->pci.dev.lock);
}

/* On the IoThread with the lock held; drops it. Serves at once unless that is under way. */
static void serve_and_unlock(Pcnet *n)
{
    bool serve = (n->tx_wanted || n->rx_wanted) && !n->posted && !n->quiet && !n->dead;

    if (serve)
        n->posted = true;
    lodge_unlock(&n->pci.dev.lock);
    if (serve)
        pcnet_service(n);
}

static void pcnet_poll(void *opaque)
{
    Pcnet *n = opaque;

    lodge_lock(&n->pci.dev.lock);
    if (pcnet_polls_tx(n) && !n->tx_waiting)
        n->tx_wanted = true;
    if (n->rx_blocked) {
        if (pcnet_rx_owned_locked(n))
            n->rx_wanted = true;
        else if (n->backoff < PCNET_BACKOFF_MAX)
            n->backoff++;
    }
    pcnet_arm_poll_locked(n);
    serve_and_unlock(n);
}

/* ---- port ---- */

static bool pcnet_deliver(NetPort *port, const NetFrame *f)
{
    Pcnet *n = port->opaque;
    PcnetRxResult result;

    lodge_lock(&n->pci.dev.lock);
    result = pcnet_rx_locked(n, f);
    if (result == PCNET_RX_DONE)
        n->backoff = 0;
    if (result == PCNET_RX_FULL) {
        n->rx_blocked = true;
        pcnet_arm_poll_locked(n);
    }
    lodge_unlock(&n->pci.dev.lock);
    return result != PCNET_RX_FULL;
}

static void pcnet_writable(NetPort *port)
{
    Pcnet *n = port->opaque;

    lodge_lock(&n->pci.dev.lock);
    if (n->tx_waiting) {
        n->tx_waiting = false;
        n->tx_wanted = true;
        pcnet_arm_poll_locked(n);
    }
    serve_and_unlock(n);
}

static void pcnet_link(NetPort *port, bool up)
{
    Pcnet *n = port->opaque;

    lodge_lock(&n->pci.dev.lock);
    n->link_up = up;
    lodge_unlock(&n->pci.dev.lock);
}

static const NetPortOps pcnet_port_ops = {
    .deliver = pcnet_deliver,
    .writable = pcnet_writable,
    .link = pcnet_link,
};

/* ---- device ---- */

/* Bus master enable was set: what waited for the bus goes on. */
static void pcnet_cfg_written(PciDev *d, unsigned off, unsigned len)
{
    Pcnet *n = (Pcnet *)d;

    if (off <= PCI_COMMAND && off + len > PCI_COMMAND)
        pcnet_arm_poll_locked(n);
}

static void quiet_on_loop(void *opaque)
{
    Pcnet *n = opaque;

    lodge_lock(&n->pci.dev.lock);
    n->quiet = true;
    lodge_unlock(&n->pci.dev.lock);
    device_quiesced(&n->pci.dev);
}

static void resume_on_loop(void *opaque)
{
    Pcnet *n = opaque;

    lodge_lock(&n->pci.dev.lock);
    n->quiet = false;
    n->tx_wanted = !n->tx_waiting;
    n->rx_wanted |= n->rx_blocked;
    pcnet_arm_poll_locked(n);
    serve_and_unlock(n);
}

static void on_loop(Pcnet *n, IoCallFn fn)
{
    if (n->port.io)
        io_thread_post(n->port.io, fn, n);
    else
        fn(n);
}

static void pcnet_quiesce(Device *d)
{
    on_loop((Pcnet *)d, quiet_on_loop);
}

static void pcnet_resume(Device *d)
{
    on_loop((Pcnet *)d, resume_on_loop);
}

static void pcnet_reset(Device *d, ResetKind kind)
{
    Pcnet *n = (Pcnet *)d;

    n->intx = false;
    pci_reset(&n->pci);
    pcnet_hard_reset_locked(n);
    n->backoff = 0;
    if (n->rx_blocked && !n->quiet) /* the poll finds the receiver off and has the wire drop it */
        timer_arm(n->poll, clock_now_ns(d->board->clock));
}

static void visit(void *opaque)
{
}

static void pcnet_unrealize(Device *d)
{
    Pcnet *n = (Pcnet *)d;

    lodge_lock(&d->lock);
    n->dead = true;
    lodge_unlock(&d->lock);
    if (n->joined)
        net_part(&n->port);
    n->joined = false;
    if (n->poll)
        timer_free(n->poll);
    n->poll = NULL;
    if (n->port.io) /* what was posted before has run then */
        io_thread_call(n->port.io, visit, NULL);
    pci_unrealize(&n->pci);
    g_clear_pointer(&n->tx, g_free);
}

static bool pcnet_realize(Device *d, GError **error)
{
    Pcnet *n = (Pcnet *)d;
    PciDev *p = &n->pci;

    if (!n->netdev)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: needs netdev=NAME", d->id);
    if (n->netdev->next)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: this card has one pair of queues; leave out queues, or take "
                          "model=virtio",
                          d->id);
    if (!net_mac_check(n->mac, d->id, error))
        return false;
    n->link_up = true;
    n->tx = g_new0(PcnetTx, 1);
    n->port = (NetPort){.ops = &pcnet_port_ops, .name = d->id, .opaque = n,
                        .io = net_card_loop(n->netdev, d->board->io)};
    memcpy(n->port.mac, n->mac, sizeof n->port.mac);
    n->poll = timer_new(n->port.io ? io_thread_timers(n->port.io) : d->board->timers, pcnet_poll,
                        n);
    if (!pci_realize(p, -1, 0, PCNET_VENDOR, PCNET_DEVICE, CLASS_ETHERNET, PCNET_REVISION,
                     PIN_INTA, error)) {
        pcnet_unrealize(d);
        return false;
    }
    p->cfg_reset[PCI_MIN_GNT] = 0x06; /* BCR22 */
    p->cfg_reset[PCI_MAX_LAT] = 0xff;
    p->cfg_w1c[PCI_STATUS + 1] |= PCNET_STATUS_RMABORT;
    p->cfg_written = pcnet_cfg_written;
    pci_add_bar(p, 0, PCI_BAR_IO, BAR_LEN, "pcnet", &pcnet_ops, n, NULL);
    pci_add_bar(p, 1, PCI_BAR_MMIO, BAR_LEN, "pcnet", &pcnet_ops, n, NULL);
    n->joined = (!n->netboot || pci_add_rom(p, n->romfile, error)) &&
                net_join(&n->port, n->netdev, error);
    if (!n->joined)
        pcnet_unrealize(d);
    return n->joined;
}

static bool pcnet_post_load(void *obj, unsigned version, GError **error)
{
    Pcnet *n = obj;
    PcnetRegs *r = &n->regs;
    uint16_t status = r->csr[CSR_STATUS], style = r->bcr[BCR_STYLE];
    bool ok;

    if ((status & (CSR0_ERR | CSR0_INTR | CSR0_TDMD)) ||
        ((status & CSR0_STOP) && (status & ~CSR0_STOP & 0xff & ~CSR0_IENA)) ||
        (style & PCNET_BCR20_SSIZE32) != (pcnet_ssize32(n) ? PCNET_BCR20_SSIZE32 : 0))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: its registers contradict each other",
                          n->pci.dev.id);
    lodge_lock(&n->pci.dev.lock);
    n->intx = r->csr[CSR_STATUS] & CSR0_IENA; /* whatever it was: the next line drives the pin */
    n->generation++;
    ok = pci_post_load(&n->pci, error);
    if (ok) {
        n->intx = n->pci.regs.cfg[PCI_STATUS] & PCI_STATUS_INTX;
        pcnet_update_irq_locked(n);
    }
    lodge_unlock(&n->pci.dev.lock);
    return ok;
}

static const StateField regs_fields[] = {
    ST_U_ARRAY(PcnetRegs, csr, UINT16_MAX),
    ST_U_ARRAY(PcnetRegs, bcr, UINT16_MAX),
    ST_RAW(PcnetRegs, aprom),
    ST_U(PcnetRegs, rap, PCNET_RAP_MASK),
    ST_U(PcnetRegs, dwio, 1),
    ST_SKIPPED(PcnetRegs, unused, "only fills up the struct"),
    ST_END,
};
static const StateDesc regs_state = {.name = "pcnet", .version = 1, .oldest = 1,
                                     .regs_size = sizeof(PcnetRegs), .fields = regs_fields};
_Static_assert(offsetof(Pcnet, regs) == offsetof(PciDev, regs) + sizeof(PciRegs),
               "one range for the state");
static const StateField pcnet_fields[] = {
    {"pci", ST_SUB, 1, 0, sizeof(PciRegs), 1, 0, &pci_state, NULL},
    {"pcnet", ST_SUB, 1, sizeof(PciRegs), sizeof(PcnetRegs), 1, 0, &regs_state, NULL},
    ST_END,
};
static const StateDesc pcnet_state = {
    .name = "pcnet",
    .version = 1,
    .oldest = 1,
    .regs_offset = offsetof(Pcnet, pci.regs),
    .regs_size = sizeof(PciRegs) + sizeof(PcnetRegs),
    .fields = pcnet_fields,
    .pre_save = pci_pre_save,
    .post_load = pcnet_post_load,
};

static const PropSpec pcnet_props[] = {
    {"netdev", "network that it is on", PROP_NET, offsetof(Pcnet, netdev), 0, 0, NULL},
    {"mac", "hardware address", PROP_MAC, offsetof(Pcnet, mac), 0, 0, "52:54:00:12:34:56"},
    PCI_NETBOOT_PROPS(Pcnet, "pxe-pcnet.rom"),
    {0},
};

const DeviceClass pcnet_class = {
    .name = "pcnet",
    .bus = "pci",
    .help = "AMD Am79C970A (PCnet-PCI II) network card",
    .boot = 'n',
    .instance_size = sizeof(Pcnet),
    .props = pcnet_props,
    .state = &pcnet_state,
    .realize = pcnet_realize,
    .reset = pcnet_reset,
    .quiesce = pcnet_quiesce,
    .resume = pcnet_resume,
    .unrealize = pcnet_unrealize,
};
