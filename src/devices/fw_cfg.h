/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FW_CFG_H
#define LODGE_FW_CFG_H

#include "lodge/device.h"

enum {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_FILE_DIR = 0x19,
};

/* Give item @key the @len bytes at @data (copied), replacing what it had. Main thread, before run. */
void fw_cfg_set(FwCfg *f, uint16_t key, const void *data, size_t len);
void fw_cfg_set_u16(FwCfg *f, uint16_t key, uint16_t v);
void fw_cfg_set_u32(FwCfg *f, uint16_t key, uint32_t v);
void fw_cfg_set_u64(FwCfg *f, uint16_t key, uint64_t v);
/* Add a named file (at most 55 bytes of name). LODGE_ERROR_LIMIT past 64 files. */
bool fw_cfg_add_file(FwCfg *f, const char *name, const void *data, size_t len, GError **error);

#endif
