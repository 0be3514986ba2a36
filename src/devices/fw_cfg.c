/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The firmware configuration device: keyed byte strings that firmware and test kernels read.
 *
 * Specification: QEMU's docs/specs/fw_cfg, "Selector (Control) Register", "Data Register" and
 * "Guest-side DMA Interface". A 16-bit write to port 0x510 selects an item, byte reads of port
 * 0x511 give its bytes one by one; past its end, and for an item that is not there, they give 0.
 * The write channel (bit 14) selects nothing and writes to the data port vanish: no item of ours
 * is for the guest to write. File directory entries are sorted by name.
 *
 * DMA: ports 0x514 and 0x518 take the two halves of a descriptor's address, big-endian; the second
 * starts it. The descriptor is copied once and what it says is done before the write returns; its
 * control word is written back last, whatever the transfer did to that place. Bytes go to memory
 * only, never to a device: a range that is not all memory sets the error bit. Writing an item is
 * an error. The specification fills with zeros what lies past the item's end, however long; here
 * at most 16 MiB of that in one descriptor, so that no guest keeps a vCPU in the device for long;
 * more is an error after the item's own bytes. What may be copied before is bounded by the items.
 *
 * Threads: vCPU threads with the device's lock held; items change on the main thread only, under
 * the same lock.
 *
 * Invariants:
 * (1) regs.offset is at most the length of the selected item: it stops there, and selecting an item
 *     or replacing the selected one sets it to 0.
 */
#include "fw_cfg.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "pc_map.h"

#define FW_CFG_FILES 64
#define FW_CFG_FILE_FIRST 0x20 /* key of the first file */
#define FW_CFG_NAME_LEN 56     /* with its NUL */
#define FW_CFG_ENTRY 64        /* bytes of a directory entry */
#define FW_CFG_ENTRY_KEY 4
#define FW_CFG_ENTRY_NAME 8
#define FW_CFG_PORTS 2
#define FW_CFG_DATA 1 /* offset of the data port */
#define FW_CFG_ID_TRADITIONAL (1u << 0)
#define FW_CFG_ID_DMA (1u << 1)

/* The DMA interface. */
#define DMA_PORTS 8
#define DMA_HIGH 0  /* offsets in the region */
#define DMA_LOW 4
#define DMA_SIGNATURE "QEMU CFG" /* what the address reads as */
#define DMA_ERROR (1u << 0)
#define DMA_READ (1u << 1)
#define DMA_SKIP (1u << 2)
#define DMA_SELECT (1u << 3)
#define DMA_WRITE (1u << 4)
#define DMA_KEY_SHIFT 16
enum { DMA_CONTROL = 0, DMA_LENGTH = 4, DMA_ADDRESS = 8, DMA_DESCRIPTOR = 16 };
#define DMA_ZERO_MAX (16 * MIB) /* bytes past an item's end in one descriptor */

typedef struct FwCfgRegs {
    uint32_t key;
    uint32_t offset;   /* next byte; keeps (1) */
    uint32_t dma_high; /* upper half of the descriptor's address */
} FwCfgRegs;

struct FwCfg {
    Device dev;
    FwCfgRegs regs;
    BusRegion io, dma;
    GHashTable *items;     /* owned; key -> GBytes */
    GByteArray *directory; /* owned; entries without the count */
};

static GBytes *fw_cfg_selected(const FwCfg *f)
{
    return g_hash_table_lookup(f->items, GUINT_TO_POINTER(f->regs.key));
}

static uint64_t fw_cfg_read(void *owner, uint64_t off, unsigned size)
{
    FwCfg *f = owner;
    if (off != FW_CFG_DATA)
        return UINT64_MAX;
    size_t len = 0;
    GBytes *item = fw_cfg_selected(f);
    const uint8_t *data = item ? g_bytes_get_data(item, &len) : NULL;
    return f->regs.offset < len ? data[f->regs.offset++] : 0;
}

static void fw_cfg_select(FwCfg *f, uint16_t key)
{
    f->regs.key = key;
    f->regs.offset = 0;
}

static void fw_cfg_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    if (off == 0 && size == 2)
        fw_cfg_select(owner, (uint16_t)val);
}

static const BusSpan selector[] = {{0, 2}, {0}};
static const BusRegionOps fw_cfg_ops = {fw_cfg_read, fw_cfg_write, 1 | 2, selector};

/* ---- DMA ---- */

/* Bytes of the selected item from the offset on, at most @len; moves the offset past them. */
static size_t dma_take(FwCfg *f, uint32_t len, const uint8_t **ret_data)
{
    size_t item_len = 0;
    GBytes *item = fw_cfg_selected(f);
    const uint8_t *data = item ? g_bytes_get_data(item, &item_len) : NULL;
    size_t n = f->regs.offset < item_len ? MIN(len, item_len - f->regs.offset) : 0;
    *ret_data = n ? data + f->regs.offset : NULL;
    f->regs.offset += (uint32_t)n;
    return n;
}

/* Return: whether all @len bytes came to @at. Past the top of the address space is no memory. */
static bool dma_read_item(FwCfg *f, gpa_t at, uint32_t len)
{
    MemMap *mem = f->dev.board->mem;
    const uint8_t *data;
    size_t n = dma_take(f, len, &data);
    if (n && !mem_write(mem, at, data, n))
        return false;
    uint32_t rest = len - (uint32_t)n;
    if (rest > DMA_ZERO_MAX)
        return false;
    return !rest || mem_zero(mem, at + n, rest);
}

static bool dma_act(FwCfg *f, uint32_t control, uint32_t len, gpa_t at)
{
    const uint8_t *skipped;
    if (control & DMA_SELECT)
        fw_cfg_select(f, (uint16_t)(control >> DMA_KEY_SHIFT));
    if (control & DMA_READ)
        return dma_read_item(f, at, len);
    if (control & DMA_WRITE)
        return false;
    if (control & DMA_SKIP)
        dma_take(f, len, &skipped);
    return true;
}

static void dma_start(FwCfg *f, gpa_t descriptor)
{
    MemMap *mem = f->dev.board->mem;
    uint8_t d[DMA_DESCRIPTOR], result[4];
    /* Nobody can be told: the error bit has no place. */
    if (!mem_read(mem, descriptor, d, sizeof d)) {
        guest_fault(&f->dev, "DMA descriptor at 0x%" PRIx64 " is not in memory", descriptor);
        return;
    }
    bool ok = dma_act(f, load_be32(d + DMA_CONTROL), load_be32(d + DMA_LENGTH),
                      load_be64(d + DMA_ADDRESS));
    if (!ok)
        guest_fault(&f->dev, "DMA of item 0x%x failed", f->regs.key);
    store_be32(result, ok ? 0 : DMA_ERROR);
    if (!mem_write(mem, descriptor + DMA_CONTROL, result, sizeof result))
        guest_fault(&f->dev, "DMA descriptor at 0x%" PRIx64 " is read-only", descriptor);
}

static uint64_t dma_read(void *owner, uint64_t off, unsigned size)
{
    uint64_t v;
    memcpy(&v, DMA_SIGNATURE, sizeof v);
    return v >> (8 * off);
}

static void dma_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    FwCfg *f = owner;
    uint32_t half = __builtin_bswap32((uint32_t)val);
    if (size != 4)
        return;
    if (off == DMA_HIGH) {
        f->regs.dma_high = half;
    } else if (off == DMA_LOW) {
        gpa_t descriptor = (uint64_t)f->regs.dma_high << 32 | half;
        f->regs.dma_high = 0;
        dma_start(f, descriptor);
    }
}

static const BusRegionOps dma_ops = {dma_read, dma_write, 1 | 2 | 4};

/* ---- items ---- */

void fw_cfg_set(FwCfg *f, uint16_t key, const void *data, size_t len)
{
    lodge_lock(&f->dev.lock);
    g_hash_table_replace(f->items, GUINT_TO_POINTER((guint)key), g_bytes_new(data, len));
    if (f->regs.key == key)
        f->regs.offset = 0;
    lodge_unlock(&f->dev.lock);
}

void fw_cfg_set_u16(FwCfg *f, uint16_t key, uint16_t v)
{
    fw_cfg_set(f, key, &v, sizeof v);
}

void fw_cfg_set_u32(FwCfg *f, uint16_t key, uint32_t v)
{
    fw_cfg_set(f, key, &v, sizeof v);
}

void fw_cfg_set_u64(FwCfg *f, uint16_t key, uint64_t v)
{
    fw_cfg_set(f, key, &v, sizeof v);
}

/* The directory as the guest reads it: a big-endian count before the entries. */
static void fw_cfg_publish_directory(FwCfg *f)
{
    g_autoptr(GByteArray) whole = g_byte_array_new();
    uint8_t count[4];
    store_be32(count, f->directory->len / FW_CFG_ENTRY);
    g_byte_array_append(whole, count, sizeof count);
    g_byte_array_append(whole, f->directory->data, f->directory->len);
    fw_cfg_set(f, FW_CFG_FILE_DIR, whole->data, whole->len);
}

bool fw_cfg_add_file(FwCfg *f, const char *name, const void *data, size_t len, GError **error)
{
    unsigned n = f->directory->len / FW_CFG_ENTRY, at = n;
    if (n >= FW_CFG_FILES)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "fw_cfg: '%s' would be one file over %u", name,
                          FW_CFG_FILES);
    if (!*name || strlen(name) >= FW_CFG_NAME_LEN)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "fw_cfg: name '%s' is not 1 to %u bytes long",
                          name, FW_CFG_NAME_LEN - 1);
    if (len > UINT32_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "fw_cfg: '%s' is over 4 GiB", name);
    for (unsigned i = 0; i < n; i++) {
        const char *other =
            (const char *)f->directory->data + i * FW_CFG_ENTRY + FW_CFG_ENTRY_NAME;
        int order = strcmp(other, name);
        if (!order)
            return lodge_fail(error, LODGE_ERROR_EXISTS, "fw_cfg: '%s' is there already", name);
        if (order > 0 && i < at)
            at = i;
    }
    uint16_t key = (uint16_t)(FW_CFG_FILE_FIRST + n);
    uint8_t entry[FW_CFG_ENTRY] = {0};
    store_be32(entry, (uint32_t)len);
    store_be16(entry + FW_CFG_ENTRY_KEY, key);
    memcpy(entry + FW_CFG_ENTRY_NAME, name, strlen(name));
    g_byte_array_append(f->directory, entry, sizeof entry);
    uint8_t *place = f->directory->data + at * FW_CFG_ENTRY;
    memmove(place + FW_CFG_ENTRY, place, (n - at) * FW_CFG_ENTRY);
    memcpy(place, entry, sizeof entry);
    fw_cfg_set(f, key, data, len);
    fw_cfg_publish_directory(f);
    return true;
}

static void fw_cfg_unrealize(Device *dev)
{
    FwCfg *f = (FwCfg *)dev;
    if (f->io.mapped)
        bus_unmap(dev->board->pio, &f->io);
    if (f->dma.mapped)
        bus_unmap(dev->board->pio, &f->dma);
    g_clear_pointer(&f->items, g_hash_table_unref);
    g_clear_pointer(&f->directory, g_byte_array_unref);
    if (dev->board->fw_cfg == f)
        dev->board->fw_cfg = NULL;
}

static bool fw_cfg_realize(Device *dev, GError **error)
{
    FwCfg *f = (FwCfg *)dev;
    Board *board = dev->board;
    f->io = (BusRegion){.name = "fw-cfg", .len = FW_CFG_PORTS, .ops = &fw_cfg_ops, .owner = f,
                        .lock = &dev->lock};
    f->dma = (BusRegion){.name = "fw-cfg-dma", .len = DMA_PORTS, .ops = &dma_ops, .owner = f,
                         .lock = &dev->lock};
    f->items = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)g_bytes_unref);
    f->directory = g_byte_array_new();
    fw_cfg_set(f, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_set_u32(f, FW_CFG_ID, FW_CFG_ID_TRADITIONAL | FW_CFG_ID_DMA);
    fw_cfg_set_u64(f, FW_CFG_RAM_SIZE, board->ram_below_4g + board->ram_above_4g);
    fw_cfg_set_u16(f, FW_CFG_NB_CPUS, (uint16_t)board->cpus);
    fw_cfg_set_u16(f, FW_CFG_MAX_CPUS, (uint16_t)board->cpus);
    fw_cfg_publish_directory(f);
    if (!bus_map(board->pio, &f->io, PC_PORT_FW_CFG, error) ||
        !bus_map(board->pio, &f->dma, FW_CFG_PORT_DMA, error)) {
        fw_cfg_unrealize(dev);
        return false;
    }
    board->fw_cfg = f;
    return true;
}

static void fw_cfg_reset(Device *dev, ResetKind kind)
{
    FwCfg *f = (FwCfg *)dev;
    f->regs = (FwCfgRegs){0};
}

static bool fw_cfg_post_load(void *obj, unsigned version, GError **error)
{
    FwCfg *f = obj;
    GBytes *item = fw_cfg_selected(f);
    size_t len = item ? g_bytes_get_size(item) : 0;
    if (f->regs.offset > len)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: byte %u of item 0x%x, which has %zu",
                          f->dev.id, f->regs.offset, f->regs.key, len);
    return true;
}

static const StateField fw_cfg_fields[] = {
    ST_U(FwCfgRegs, key, UINT16_MAX),
    ST_U(FwCfgRegs, offset, UINT32_MAX),
    ST_U(FwCfgRegs, dma_high, UINT32_MAX),
    ST_END,
};
static const StateDesc fw_cfg_state = {
    .name = "fw-cfg", .version = 1, .oldest = 1, .regs_offset = offsetof(FwCfg, regs),
    .regs_size = sizeof(FwCfgRegs), .fields = fw_cfg_fields,
    .post_load = fw_cfg_post_load};

const DeviceClass fw_cfg_class = {
    .name = "fw-cfg",
    .help = "firmware configuration: memory size, CPU counts and files for firmware",
    .instance_size = sizeof(FwCfg),
    .state = &fw_cfg_state,
    .realize = fw_cfg_realize,
    .reset = fw_cfg_reset,
    .unrealize = fw_cfg_unrealize,
};
