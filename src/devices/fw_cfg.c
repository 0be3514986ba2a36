/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The firmware configuration device: keyed byte strings that firmware and test kernels read.
 *
 * Specification: QEMU's docs/specs/fw_cfg, "Selector (Control) Register" and "Data Register". A
 * 16-bit write to port 0x510 selects an item, byte reads of port 0x511 give its bytes one by one;
 * past its end, and for an item that is not there, they give 0. The write channel (bit 14) selects
 * nothing, writes to the data port vanish, and the DMA interface is absent (item 1 reads 1). File
 * directory entries stand in the order in which they were added.
 *
 * Threads: vCPU threads with the device's lock held; items change on the main thread only, under
 * the same lock.
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
#define FW_CFG_ID_TRADITIONAL 1u

typedef struct FwCfgRegs {
    uint32_t key;
    uint32_t offset; /* next byte; stops at the item's end */
} FwCfgRegs;

struct FwCfg {
    Device dev;
    FwCfgRegs regs;
    BusRegion io;
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

static void fw_cfg_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    FwCfg *f = owner;
    if (off != 0 || size != 2)
        return;
    f->regs.key = (uint16_t)val;
    f->regs.offset = 0;
}

static const BusRegionOps fw_cfg_ops = {fw_cfg_read, fw_cfg_write, 1 | 2};

void fw_cfg_set(FwCfg *f, uint16_t key, const void *data, size_t len)
{
    lodge_lock(&f->dev.lock);
    g_hash_table_replace(f->items, GUINT_TO_POINTER((guint)key), g_bytes_new(data, len));
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
    unsigned n = f->directory->len / FW_CFG_ENTRY;
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
        if (!strcmp(other, name))
            return lodge_fail(error, LODGE_ERROR_EXISTS, "fw_cfg: '%s' is there already", name);
    }
    uint16_t key = (uint16_t)(FW_CFG_FILE_FIRST + n);
    uint8_t entry[FW_CFG_ENTRY] = {0};
    store_be32(entry, (uint32_t)len);
    store_be16(entry + FW_CFG_ENTRY_KEY, key);
    memcpy(entry + FW_CFG_ENTRY_NAME, name, strlen(name));
    g_byte_array_append(f->directory, entry, sizeof entry);
    fw_cfg_set(f, key, data, len);
    fw_cfg_publish_directory(f);
    return true;
}

static void fw_cfg_unrealize(Device *dev)
{
    FwCfg *f = (FwCfg *)dev;
    if (f->io.mapped)
        bus_unmap(dev->board->pio, &f->io);
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
    f->items = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)g_bytes_unref);
    f->directory = g_byte_array_new();
    fw_cfg_set(f, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_set_u32(f, FW_CFG_ID, FW_CFG_ID_TRADITIONAL);
    fw_cfg_set_u64(f, FW_CFG_RAM_SIZE, board->ram_below_4g + board->ram_above_4g);
    fw_cfg_set_u16(f, FW_CFG_NB_CPUS, (uint16_t)board->cpus);
    fw_cfg_set_u16(f, FW_CFG_MAX_CPUS, (uint16_t)board->cpus);
    fw_cfg_publish_directory(f);
    if (!bus_map(board->pio, &f->io, PC_PORT_FW_CFG, error)) {
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

static const StateField fw_cfg_fields[] = {
    ST_U(FwCfgRegs, key, UINT16_MAX),
    ST_U(FwCfgRegs, offset, UINT32_MAX),
    ST_END,
};
static const StateDesc fw_cfg_state = {
    .name = "fw-cfg", .version = 1, .oldest = 1, .regs_offset = offsetof(FwCfg, regs),
    .regs_size = sizeof(FwCfgRegs), .fields = fw_cfg_fields};

const DeviceClass fw_cfg_class = {
    .name = "fw-cfg",
    .help = "firmware configuration: memory size, CPU counts and files for firmware",
    .instance_size = sizeof(FwCfg),
    .state = &fw_cfg_state,
    .realize = fw_cfg_realize,
    .reset = fw_cfg_reset,
    .unrealize = fw_cfg_unrealize,
};
