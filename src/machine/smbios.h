/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_SMBIOS_H
#define LODGE_SMBIOS_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#define SMBIOS_TEXT_MAX 64 /* bytes of a text */
#define SMBIOS_UUID_LEN 16

/* Texts that an operator may choose: keys of --smbios, and of the description's /smbios. Each row:
 * its name in smbios.c, the key, help, and what it is unless chosen. */
#define SMBIOS_KEYS(X)                                                                             \
    X(MANUFACTURER, "manufacturer", "who made the machine", "Lodge")                               \
    X(PRODUCT, "product", "its name", "PC (i440FX + PIIX)")                                        \
    X(VERSION, "version", "its version", NULL)                                                     \
    X(SERIAL, "serial", "its serial number", NULL)                                                 \
    X(SKU, "sku", "its order number", NULL)                                                        \
    X(FAMILY, "family", "the family it belongs to", NULL)                                          \
    X(ASSET, "asset", "asset tag of board and chassis", NULL)                                      \
    X(BIOS_VENDOR, "bios-vendor", "who made the firmware", "Lodge")                                \
    X(BIOS_VERSION, "bios-version", "the firmware's version", NULL)                                \
    X(BIOS_DATE, "bios-date", "the firmware's date, MM/DD/YYYY", "01/01/2020")                     \
    X(BOARD_MANUFACTURER, "board-manufacturer", "who made the board", "Lodge")                     \
    X(BOARD_PRODUCT, "board-product", "the board's name", NULL)                                    \
    X(BOARD_VERSION, "board-version", "the board's version", NULL)                                 \
    X(BOARD_SERIAL, "board-serial", "the board's serial number", NULL)                             \
    X(CHASSIS_SERIAL, "chassis-serial", "the chassis' serial number", NULL)

typedef struct SmbiosKey {
    const char *name; /* NULL ends the table */
    const char *preset; /* NULL: none */
} SmbiosKey;
extern const SmbiosKey smbios_keys[];

typedef struct SmbiosConfig {
    unsigned sockets, cores;             /* processors, cores in each: 1 to SMBIOS_CPUS_MAX */
    uint64_t ram_below_4g, ram_above_4g; /* bytes */
    const char *uuid;                    /* text form; NULL: none */
    GHashTable *texts;                   /* key -> text; borrowed; NULL: presets only */
} SmbiosConfig;
#define SMBIOS_CPUS_MAX 255

/* Return: false and nothing set: LODGE_ERROR_CONFIG, not a UUID. */
bool smbios_parse_uuid(const char *text, uint8_t ret_uuid[SMBIOS_UUID_LEN], GError **error);

/**
 * smbios_build() - Make the SMBIOS structures and their entry point
 * @ret_anchor: appended to: the entry point; the tables' address is 0, for whoever places them
 * @ret_tables: appended to: the structures
 * Context: any thread; touches nothing else.
 * Return:  false with LODGE_ERROR_CONFIG: unknown key (names all), text too long or not printable,
 *          bad UUID or date; LODGE_ERROR_LIMIT: too many processors.
 */
bool smbios_build(const SmbiosConfig *c, GByteArray *ret_anchor, GByteArray *ret_tables,
                  GError **error);

#endif
