/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FW_CFG_H
#define LODGE_FW_CFG_H

#include "lodge/device.h"
#include "pc_map.h"

#define FW_CFG_PORT_DMA (PC_PORT_FW_CFG + 4)

enum {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NO_GRAPHIC = 0x04, /* 1: nobody sees a screen, firmware may talk to the serial port */
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_NUMA = 0x0d,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_IRQ0_OVERRIDE = 0x8002, /* 1: IRQ 0 is IOAPIC pin 2 */
};

/* Give item @key the @len bytes at @data (copied), replacing what it had. Main thread, before
 * run. */
void fw_cfg_set(FwCfg *f, uint16_t key, const void *data, size_t len);
void fw_cfg_set_u16(FwCfg *f, uint16_t key, uint16_t v);
void fw_cfg_set_u32(FwCfg *f, uint16_t key, uint32_t v);
void fw_cfg_set_u64(FwCfg *f, uint16_t key, uint64_t v);
/* Add a named file (at most 55 bytes of name). LODGE_ERROR_LIMIT past 64 files. */
bool fw_cfg_add_file(FwCfg *f, const char *name, const void *data, size_t len, GError **error);

#endif
