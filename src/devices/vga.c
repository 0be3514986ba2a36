/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VGA with Bochs VBE as a PCI function: "standard VGA", 1234:1111.
 *
 * Spec: IBM VGA technical reference in FreeVGA's numbering ("External Registers", "Sequencer",
 * "Graphics", "CRTC", "Attribute Controller", "Color Registers"); Bochs, "VBE Display HOWTO"; QEMU,
 * docs/specs/standard-vga, for the function's BARs: 0 the video memory, 2 a page of registers
 * (0x400 the ports from 0x3C0, 0x500 the VBE registers, 0x600 the byte order of the frame buffer).
 *
 * Modelled: every register of the five chips, colour and monochrome addresses, text and graphics
 * modes (vga_draw.c, vga_text.c), the CPU's window (vga_mem.c), linear modes (vga_vbe.c). Input
 * status 1 follows the guest's clock and the CRTC's timing; its retrace bit stands until the end of
 * the blanking, so that a slow poll sees it. Left out: the vertical interrupt (its bits are
 * kept, nothing comes), the light pen, registers beyond the chips' last (read as 0), EDID (reads as
 * 0: none), port 0x3C3. The legacy window and ports answer whatever the command register says.
 *
 * The video memory travels as the board's memory; VgaRegs is all the rest.
 *
 * Threads: vCPU threads under the device lock; the refreshing thread, which takes it.
 *
 * Invariants:
 * (1) an index register is compared with its chip's number of registers at each use.
 * (2) whatever is written to change the picture sets touched, palette_stale or font_stale, or
 *     marks a page.
 */
#include "vga.h"

#include "lodge/error.h"

#define VGA_VENDOR 0x1234
#define VGA_DEVICE 0x1111
#define VGA_CLASS 0x030000
#define VGA_REVISION 2
#define VGA_SUBSYSTEM_VENDOR 0x1af4
#define VGA_SUBSYSTEM 0x1100

#define PORT_FIRST 0x3b0
#define PORT_LEN 0x30
#define VBE_PORT_FIRST 0x1ce
#define VBE_PORT_LEN 4

#define BAR_MEMORY 0
#define BAR_REGISTERS 2
#define REGISTERS_LEN 4096
#define REGISTERS_VGA 0x400 /* ports from 0x3C0 */
#define REGISTERS_VGA_LEN 0x20
#define REGISTERS_VGA_PORT 0x3c0
#define REGISTERS_VBE 0x500
#define REGISTERS_VBE_LEN (2 * (VBE_MEMORY_64K + 1))
#define REGISTERS_EXTENDED 0x600 /* length of this area, then the byte order */
#define REGISTERS_EXTENDED_LEN 8
#define REGISTERS_ENDIAN (REGISTERS_EXTENDED + 4)

/* FreeVGA, "Input Status #0" and "#1" */
#define STATUS0_SENSE 0x10 /* a monitor is there */
#define STATUS1_DISPLAY_OFF 0x01
#define STATUS1_RETRACE 0x08

#define DAC_STATE_READING 0x03

static const uint8_t seq_mask[VGA_SEQ_REGS] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};
static const uint8_t gfx_mask[VGA_GFX_REGS] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03,
                                               0x7b, 0x0f, 0x0f, 0xff};
static const uint8_t attr_mask[VGA_ATTR_REGS] = {
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f};

/* ---- CRT controller ---- */

/* FreeVGA, "Vertical Retrace End Register": protect registers 0 to 7, but for a bit of 7. */
static void crtc_write(Vga *v, uint8_t val)
{
    uint8_t index = v->regs.crtc_index;

    if (index >= VGA_CRTC_REGS)
        return;
    if (index <= CRTC_OVERFLOW && (v->regs.crtc[CRTC_VRETRACE_END] & CRTC_PROTECT)) {
        uint8_t open = index == CRTC_OVERFLOW ? 0x10 : 0;
        val = (v->regs.crtc[index] & ~open) | (val & open);
    }
    v->touched |= v->regs.crtc[index] != val;
    v->regs.crtc[index] = val;
}

/* Where the beam is. FreeVGA, "Input Status #1 Register". */
static uint8_t beam_status(const Vga *v)
{
    static const uint32_t clocks_hz[2] = {25175000, 28322000};
    const uint8_t *crtc = v->regs.crtc;
    uint8_t overflow = crtc[CRTC_OVERFLOW], clocking = v->regs.seq[SEQ_CLOCKING];
    uint64_t chars = crtc[CRTC_HTOTAL] + 5u;
    uint64_t dots = chars * (clocking & SEQ_CLOCKING_8DOT ? 8 : 9) *
                    (clocking & SEQ_CLOCKING_HALF ? 2 : 1);
    uint64_t lines =
        (crtc[CRTC_VTOTAL] | (overflow & 0x01u) << 8 | (overflow & 0x20u) << 4) + UINT64_C(2);
    uint64_t retrace = crtc[CRTC_VRETRACE] | (overflow & 0x04u) << 6 | (overflow & 0x80u) << 2;
    uint64_t end = crtc[CRTC_VDISPLAY_END] | (overflow & 0x02u) << 7 | (overflow & 0x40u) << 3;
    uint64_t line_ns = dots * NS_PER_SEC / clocks_hz[v->regs.misc >> 2 & 1];

    if (line_ns * lines < 5000000 || line_ns * lines > 50000000) {
        line_ns = 31778; /* not set up: as 640 by 480 at 60 Hz */
        lines = 525;
        retrace = 490;
        end = 479;
    }
    /* Both states of each bit last long enough to be seen, whatever the registers say. */
    retrace = CLAMP(retrace, lines / 2, lines - lines / 32 - 1);
    uint64_t shown_ns = line_ns * MIN(crtc[CRTC_HDISPLAY_END] + 1u, chars) / chars;
    shown_ns = CLAMP(shown_ns, line_ns / 2, line_ns - line_ns / 16);
    uint64_t at_ns = (uint64_t)clock_now_ns(v->pci.dev.board->clock) % (line_ns * lines);
    if (at_ns / line_ns >= retrace)
        return STATUS1_RETRACE | STATUS1_DISPLAY_OFF;
    return at_ns / line_ns > end || at_ns % line_ns >= shown_ns ? STATUS1_DISPLAY_OFF : 0;
}

/* ---- attribute controller ---- */

/* FreeVGA, "Attribute Address Register": index and data take turns. */
static void attr_write(Vga *v, uint8_t val)
{
    uint8_t index = v->regs.attr_index & ~ATTR_INDEX_ON;

    v->regs.attr_data = !v->regs.attr_data;
    if (v->regs.attr_data) {
        v->touched |= (v->regs.attr_index ^ val) & ATTR_INDEX_ON;
        v->regs.attr_index = val & 0x3f;
        return;
    }
    if (index >= VGA_ATTR_REGS)
        return;
    val &= attr_mask[index];
    if (v->regs.attr[index] != val)
        v->touched = v->palette_stale = true;
    v->regs.attr[index] = val;
}

static uint8_t attr_read(const Vga *v)
{
    uint8_t index = v->regs.attr_index & ~ATTR_INDEX_ON;

    return index < VGA_ATTR_REGS ? v->regs.attr[index] : 0;
}

/* ---- DAC ---- */

static void dac_next(Vga *v)
{
    if (++v->regs.dac_part < 3)
        return;
    v->regs.dac_part = 0;
    v->regs.dac_index++; /* wraps at 256 */
}

/* FreeVGA, "DAC Data Register": an entry changes when its third part came. */
static void dac_write(Vga *v, uint8_t val)
{
    uint8_t part = v->regs.dac_part, *entry = v->regs.dac + 3 * v->regs.dac_index;

    if (!(v->regs.vbe[VBE_ENABLE] & VBE_8BIT_DAC))
        val &= 0x3f;
    if (part < sizeof v->regs.dac_buffer) {
        v->regs.dac_buffer[part] = val;
    } else {
        entry[0] = v->regs.dac_buffer[0];
        entry[1] = v->regs.dac_buffer[1];
        entry[2] = val;
        v->palette_stale = true;
    }
    dac_next(v);
}

static uint8_t dac_read(Vga *v)
{
    uint8_t part = v->regs.dac_part;
    uint8_t val = part < 3 ? v->regs.dac[3 * v->regs.dac_index + part] : 0;

    dac_next(v);
    return val;
}

static void dac_seek(Vga *v, uint8_t index, bool reading)
{
    v->regs.dac_index = index;
    v->regs.dac_part = 0;
    v->regs.dac_reading = reading;
}

/* ---- ports ---- */

/* Whether @port is one of the two sets of CRTC addresses, and not the one in use. */
static bool is_elsewhere(const Vga *v, unsigned port)
{
    return v->regs.misc & MISC_COLOR ? port < 0x3c0 : port >= 0x3d0;
}

static uint8_t port_read(Vga *v, unsigned port)
{
    VgaRegs *r = &v->regs;

    if (is_elsewhere(v, port))
        return UINT8_MAX;
    switch (port) {
    case 0x3c0:
        return r->attr_index;
    case 0x3c1:
        return attr_read(v);
    case 0x3c2:
        return STATUS0_SENSE;
    case 0x3c4:
        return r->seq_index;
    case 0x3c5:
        return r->seq_index < VGA_SEQ_REGS ? r->seq[r->seq_index] : 0;
    case 0x3c6:
        return r->dac_mask;
    case 0x3c7:
        return r->dac_reading ? DAC_STATE_READING : 0;
    case 0x3c8:
        return r->dac_index;
    case 0x3c9:
        return dac_read(v);
    case 0x3ca:
        return r->feature;
    case 0x3cc:
        return r->misc;
    case 0x3ce:
        return r->gfx_index;
    case 0x3cf:
        return r->gfx_index < VGA_GFX_REGS ? r->gfx[r->gfx_index] : 0;
    case 0x3b4:
    case 0x3d4:
        return r->crtc_index;
    case 0x3b5:
    case 0x3d5:
        return r->crtc_index < VGA_CRTC_REGS ? r->crtc[r->crtc_index] : 0;
    case 0x3ba:
    case 0x3da:
        r->attr_data = false;
        return beam_status(v);
    default:
        return UINT8_MAX;
    }
}

static void seq_write(Vga *v, uint8_t val)
{
    uint8_t index = v->regs.seq_index;

    if (index >= VGA_SEQ_REGS)
        return;
    val &= seq_mask[index];
    v->touched |= (index == SEQ_CLOCKING || index == SEQ_FONTS) && v->regs.seq[index] != val;
    v->regs.seq[index] = val;
}

static void gfx_write(Vga *v, uint8_t val)
{
    uint8_t index = v->regs.gfx_index;

    if (index >= VGA_GFX_REGS)
        return;
    val &= gfx_mask[index];
    v->touched |= (index == GFX_MODE || index == GFX_MISC) && v->regs.gfx[index] != val;
    v->regs.gfx[index] = val;
}

static void port_write(Vga *v, unsigned port, uint8_t val)
{
    VgaRegs *r = &v->regs;

    if (is_elsewhere(v, port))
        return;
    switch (port) {
    case 0x3c0:
        attr_write(v, val);
        break;
    case 0x3c2:
        r->misc = val;
        break;
    case 0x3c4:
        r->seq_index = val & 0x07;
        break;
    case 0x3c5:
        seq_write(v, val);
        break;
    case 0x3c6:
        v->palette_stale |= r->dac_mask != val;
        r->dac_mask = val;
        break;
    case 0x3c7:
        dac_seek(v, val, true);
        break;
    case 0x3c8:
        dac_seek(v, val, false);
        break;
    case 0x3c9:
        dac_write(v, val);
        break;
    case 0x3ce:
        r->gfx_index = val & 0x0f;
        break;
    case 0x3cf:
        gfx_write(v, val);
        break;
    case 0x3b4:
    case 0x3d4:
        r->crtc_index = val & 0x3f;
        break;
    case 0x3b5:
    case 0x3d5:
        crtc_write(v, val);
        break;
    case 0x3ba:
    case 0x3da:
        r->feature = val & 0x03;
        break;
    default: /* read-only, or nobody's */
        break;
    }
}

static uint64_t ports_read(void *owner, uint64_t off, unsigned size)
{
    return port_read(owner, PORT_FIRST + (unsigned)off);
}

static void ports_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    port_write(owner, PORT_FIRST + (unsigned)off, val);
}

/* Index at 0x1CE; data at 0x1CF, and at 0x1D0 for those that need it aligned. */
static uint64_t vbe_ports_read(void *owner, uint64_t off, unsigned size)
{
    Vga *v = owner;

    return off ? vga_vbe_read(v) : v->regs.vbe_index;
}

static void vbe_ports_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Vga *v = owner;

    if (off)
        vga_vbe_write(v, val);
    else
        v->regs.vbe_index = val;
}

static const BusSpan everywhere[] = {BUS_SPAN_ALL, {0}};
static const BusRegionOps legacy_ops = {vga_mem_read, vga_mem_write, 1 | 2 | 4 | 8, everywhere};
static const BusRegionOps ports_ops = {ports_read, ports_write, 1, everywhere};
static const BusRegionOps vbe_ports_ops = {vbe_ports_read, vbe_ports_write, 2, everywhere};

/* ---- BAR 2 ---- */

static bool is_vbe_word(uint64_t off, unsigned size)
{
    return size == 2 && off >= REGISTERS_VBE && off < REGISTERS_VBE + REGISTERS_VBE_LEN &&
           !(off & 1);
}

static bool is_vga_port(uint64_t off)
{
    return off >= REGISTERS_VGA && off < REGISTERS_VGA + REGISTERS_VGA_LEN;
}

static uint64_t registers_read(void *owner, uint64_t off, unsigned size)
{
    Vga *v = owner;
    uint64_t val = 0;

    if (is_vbe_word(off, size)) {
        uint16_t index = v->regs.vbe_index;
        v->regs.vbe_index = (off - REGISTERS_VBE) / 2;
        val = vga_vbe_read(v);
        v->regs.vbe_index = index;
        return val;
    }
    if (size == 4 && off == REGISTERS_EXTENDED)
        return REGISTERS_EXTENDED_LEN;
    if (size == 4 && off == REGISTERS_ENDIAN)
        return v->regs.endian;
    for (unsigned i = 0; i < size; i++) {
        if (is_vga_port(off + i))
            val |= (uint64_t)port_read(v, REGISTERS_VGA_PORT + (unsigned)(off + i) -
                                              REGISTERS_VGA) << 8 * i;
    }
    return val;
}

static void registers_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Vga *v = owner;

    if (is_vbe_word(off, size)) {
        uint16_t index = v->regs.vbe_index;
        v->regs.vbe_index = (off - REGISTERS_VBE) / 2;
        vga_vbe_write(v, val);
        v->regs.vbe_index = index;
        return;
    }
    if (size == 4 && off == REGISTERS_ENDIAN) {
        if (val == VGA_LITTLE_ENDIAN || val == VGA_BIG_ENDIAN)
            v->regs.endian = val;
        v->touched = true;
        return;
    }
    for (unsigned i = 0; i < size; i++) {
        if (is_vga_port(off + i))
            port_write(v, REGISTERS_VGA_PORT + (unsigned)(off + i) - REGISTERS_VGA, val >> 8 * i);
    }
}

static const BusRegionOps registers_ops = {
    .read = registers_read, .write = registers_write, .sizes = 1 | 2 | 4};

/* ---- the device ---- */

static const DisplaySource vga_source = {.refresh = vga_refresh, .text = vga_text};

static void draw_anew(Vga *v)
{
    v->touched = v->palette_stale = v->font_stale = true;
    v->view.kind = VGA_NOTHING;
}

static void vga_reset(Device *d, ResetKind kind)
{
    Vga *v = (Vga *)d;

    pci_reset(&v->pci);
    memset(&v->regs, 0, sizeof v->regs);
    v->regs.endian = VGA_LITTLE_ENDIAN;
    v->regs.dac_mask = UINT8_MAX;
    vga_vbe_reset(v);
    draw_anew(v);
}

static void vga_unrealize(Device *d)
{
    Vga *v = (Vga *)d;

    if (d->board->display)
        display_set_source(d->board->display, NULL, NULL);
    if (v->legacy.mapped)
        bus_unmap(d->board->mmio, &v->legacy);
    if (v->ports.mapped)
        bus_unmap(d->board->pio, &v->ports);
    if (v->vbe_ports.mapped)
        bus_unmap(d->board->pio, &v->vbe_ports);
    pci_unrealize(&v->pci);
    v->block = NULL;
    v->mem = NULL;
    g_clear_pointer(&v->cells, g_free);
    v->cells_len = 0;
}

static void make_spread(Vga *v)
{
    for (unsigned byte = 0; byte < G_N_ELEMENTS(v->spread); byte++) {
        v->spread[byte] = 0;
        for (unsigned i = 0; i < 8; i++)
            v->spread[byte] |= (byte >> (7 - i) & 1u) << 4 * i;
    }
}

static bool add_functions(Vga *v, GError **error)
{
    Device *d = &v->pci.dev;
    g_autofree char *name = g_strdup_printf("%s.vram", d->id);

    if (!pci_realize(&v->pci, -1, 0, VGA_VENDOR, VGA_DEVICE, VGA_CLASS, VGA_REVISION, 0, error))
        return false;
    pci_set_subsystem(&v->pci, VGA_SUBSYSTEM_VENDOR, VGA_SUBSYSTEM);
    v->block = mem_block_new(name, v->mem_len, MEM_DIRTY_LOG, error);
    if (!v->block)
        return false;
    v->mem = mem_block_host(v->block);
    pci_add_ram_bar(&v->pci, BAR_MEMORY, v->block);
    pci_add_bar(&v->pci, BAR_REGISTERS, PCI_BAR_MMIO, REGISTERS_LEN, "vga-registers",
                &registers_ops, v, &d->lock);
    return pci_add_rom(&v->pci, v->romfile, error);
}

static bool vga_realize(Device *d, GError **error)
{
    Vga *v = (Vga *)d;

    if (!is_power_of_two(v->mem_len))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: vgamem must be a power of two", d->id);
    make_spread(v);
    v->legacy = (BusRegion){.name = "vga-memory", .len = PC_VGA_LEN, .ops = &legacy_ops,
                            .owner = v, .lock = &d->lock};
    v->ports = (BusRegion){.name = "vga", .len = PORT_LEN, .ops = &ports_ops, .owner = v,
                           .lock = &d->lock};
    v->vbe_ports = (BusRegion){.name = "vga-vbe", .len = VBE_PORT_LEN, .ops = &vbe_ports_ops,
                               .owner = v, .lock = &d->lock};
    if (!add_functions(v, error) ||
        !bus_map(d->board->mmio, &v->legacy, PC_VGA_GPA, error) ||
        !bus_map(d->board->pio, &v->ports, PORT_FIRST, error) ||
        !bus_map(d->board->pio, &v->vbe_ports, VBE_PORT_FIRST, error)) {
        vga_unrealize(d);
        return false;
    }
    if (d->board->display)
        display_set_source(d->board->display, &vga_source, v);
    return true;
}

/* ---- state ---- */

static bool vga_post_load(void *obj, unsigned version, GError **error)
{
    Vga *v = obj;

    if (!vga_vbe_is_sound(v))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: no VBE mode: %u by %u, %u bits",
                          v->pci.dev.id, v->regs.vbe[VBE_XRES], v->regs.vbe[VBE_YRES],
                          v->regs.vbe[VBE_BPP]);
    lodge_lock(&v->pci.dev.lock);
    draw_anew(v);
    bool ok = pci_post_load(&v->pci, error);
    lodge_unlock(&v->pci.dev.lock);
    return ok;
}

#define AT(field) (offsetof(VgaRegs, field) + sizeof(PciRegs))
#define VGA_U(field, max)                                                                          \
    {#field, ST_UINT, 1, AT(field), ST_FIELD_SIZE(VgaRegs, field), 1, (max), NULL, NULL}
#define VGA_RAW(field)                                                                             \
    {#field, ST_BYTES, 1, AT(field), 1, ST_FIELD_SIZE(VgaRegs, field), 0, NULL, NULL}
static const StateField vga_fields[] = {
    {"pci", ST_SUB, 1, 0, sizeof(PciRegs), 1, 0, &pci_state, NULL},
    VGA_U(endian, UINT32_MAX),
    VGA_U(latch, UINT32_MAX),
    VGA_U(vbe_index, UINT16_MAX),
    {"vbe", ST_UINT, 1, AT(vbe), sizeof(uint16_t), VBE_REGS, UINT16_MAX, NULL, NULL},
    VGA_U(misc, UINT8_MAX),
    VGA_U(feature, 0x03),
    VGA_U(seq_index, 0x07),
    VGA_RAW(seq),
    VGA_U(gfx_index, 0x0f),
    VGA_RAW(gfx),
    VGA_U(crtc_index, 0x3f),
    VGA_RAW(crtc),
    VGA_U(attr_index, 0x3f),
    VGA_RAW(attr),
    VGA_U(attr_data, 1),
    VGA_U(dac_mask, UINT8_MAX),
    VGA_U(dac_reading, 1),
    VGA_U(dac_index, UINT8_MAX),
    VGA_U(dac_part, 2),
    VGA_RAW(dac_buffer),
    VGA_RAW(dac),
    VGA_U(reserved, 0),
    ST_END,
};
static const StateDesc vga_state = {
    .name = "vga", .version = 1, .oldest = 1, .regs_offset = offsetof(Vga, pci.regs),
    .regs_size = sizeof(PciRegs) + sizeof(VgaRegs), .fields = vga_fields,
    .pre_save = pci_pre_save, .post_load = vga_post_load};
_Static_assert(offsetof(Vga, regs) == offsetof(Vga, pci.regs) + sizeof(PciRegs),
               "one range of state");

static const PropSpec vga_props[] = {
    {"vgamem", "video memory, a power of two", PROP_U64, offsetof(Vga, mem_len), VGA_MEM_MIN,
     VGA_MEM_MAX, "16M"},
    {"romfile", "video BIOS, a file's name or path; empty: none", PROP_STRING,
     offsetof(Vga, romfile), 0, 4096, "vgabios-stdvga.bin"},
    {0},
};

const DeviceClass vga_class = {
    .name = "vga",
    .bus = "pci",
    .help = "VGA with Bochs VBE and a linear frame buffer (QEMU's standard VGA)",
    .instance_size = sizeof(Vga),
    .props = vga_props,
    .state = &vga_state,
    .realize = vga_realize,
    .reset = vga_reset,
    .unrealize = vga_unrealize,
};
