/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SMBIOS structures: what firmware tells of the machine's make.
 *
 * Specification: DMTF DSP0134, version 2.8.0: 5.2.1 (the 32-bit entry point), 6.1.2 and 6.1.3
 * (structure header, strings), 7.x for each type. Types 0, 1, 2, 3, 16, 17, 19, 32, 127, and a 4
 * for each processor. The virtual-machine bit of type 0 is set. Not said, because it is not known:
 * speeds, voltages, caches, slots, the processor's ID.
 *
 * Handles are (type << 8) + number.
 *
 * Threads: none of its own; pure functions of SmbiosConfig.
 */
#include "smbios.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#define KEY_ENUM(id, name, help, preset) KEY_##id,
enum { SMBIOS_KEYS(KEY_ENUM) KEYS };

#define KEY_ROW(id, name, help, preset) {name, preset},
const SmbiosKey smbios_keys[] = {SMBIOS_KEYS(KEY_ROW){NULL, NULL}};

enum { HANDLE_CHASSIS = 0x0300, HANDLE_ARRAY = 0x1000 };
#define HANDLE_NONE 0xfffe    /* error information not provided */
#define HANDLE_NO_CACHE 0xffff
#define NO_STRING 0

/* Type 0, 7.1. */
#define BIOS_SEGMENT 0xe800
#define BIOS_ROM_SIZE 3 /* (size in 64 KiB) - 1 */
#define BIOS_PCI (UINT64_C(1) << 7)
#define BIOS_BOOT_CD (UINT64_C(1) << 15)
#define BIOS_BOOT_SELECTABLE (UINT64_C(1) << 16)
#define BIOS_EXT1_ACPI 0x01
#define BIOS_EXT2_VIRTUAL 0x10
#define BIOS_NO_RELEASE 0xff
/* Types 1 to 4, 7.2 to 7.5. */
#define WAKE_POWER_SWITCH 6
#define BOARD_HOSTING 0x01
#define BOARD_MOTHERBOARD 0x0a
#define CHASSIS_OTHER 1
#define STATE_SAFE 3
#define SECURITY_UNKNOWN 2
#define CPU_CENTRAL 3
#define CPU_OTHER 1
#define CPU_ENABLED 0x41 /* socket populated, enabled */
#define CPU_CHAR_UNKNOWN 0x0002
/* Types 16 to 19, 7.17 to 7.20. */
#define ARRAY_ON_BOARD 3
#define ARRAY_SYSTEM_MEMORY 3
#define ARRAY_NO_ECC 3
#define ARRAY_KIB_EXTENDED 0x80000000u
#define MEMORY_WIDTH_UNKNOWN 0xffff
#define MEMORY_MIB_EXTENDED 0x7fff
#define MEMORY_DIMM 9
#define MEMORY_RAM 7
#define MEMORY_DETAIL_OTHER 0x0002

enum { EP_CHECKSUM = 4, EP_MAX_SIZE = 8, EP_DMI = 16, EP_DMI_CHECKSUM = 21, EP_TABLE_LEN = 22,
       EP_COUNT = 28, EP_REVISION = 30, EP_LEN = 31 };
#define EP_MAJOR 2
#define EP_MINOR 8

/* A structure in the making: its formatted part and, behind it, its strings. */
typedef struct Maker {
    GByteArray *out; /* borrowed */
    const char *text[KEYS];
    uint8_t uuid[SMBIOS_UUID_LEN];
    GString *strings; /* owned; of the structure in the making, each with its NUL */
    unsigned string_count, start, count, longest;
} Maker;

static void put8(Maker *m, uint8_t v)
{
    g_byte_array_append(m->out, &v, 1);
}

static void put16(Maker *m, uint16_t v)
{
    g_byte_array_append(m->out, (const uint8_t *)&v, sizeof v);
}

static void put32(Maker *m, uint32_t v)
{
    g_byte_array_append(m->out, (const uint8_t *)&v, sizeof v);
}

static void put64(Maker *m, uint64_t v)
{
    g_byte_array_append(m->out, (const uint8_t *)&v, sizeof v);
}

/* The number of a string, 6.1.3; none for no text. */
static void put_string(Maker *m, const char *text)
{
    if (!text || !*text) {
        put8(m, NO_STRING);
        return;
    }
    g_string_append_len(m->strings, text, (gssize)strlen(text) + 1);
    put8(m, (uint8_t)++m->string_count);
}

static void put_key(Maker *m, unsigned key)
{
    put_string(m, m->text[key]);
}

static void begin(Maker *m, uint8_t type, unsigned number)
{
    m->start = m->out->len;
    m->string_count = 0;
    g_string_truncate(m->strings, 0);
    put8(m, type);
    put8(m, 0); /* length, set by end() */
    put16(m, (uint16_t)(type << 8 | number));
}

static void end(Maker *m)
{
    m->out->data[m->start + 1] = (uint8_t)(m->out->len - m->start);
    if (!m->string_count)
        put8(m, 0);
    g_byte_array_append(m->out, (const uint8_t *)m->strings->str, (guint)m->strings->len);
    put8(m, 0);
    m->count++;
    m->longest = MAX(m->longest, m->out->len - m->start);
}

static void make_bios(Maker *m)
{
    begin(m, 0, 0);
    put_key(m, KEY_BIOS_VENDOR);
    put_key(m, KEY_BIOS_VERSION);
    put16(m, BIOS_SEGMENT);
    put_key(m, KEY_BIOS_DATE);
    put8(m, BIOS_ROM_SIZE);
    put64(m, BIOS_PCI | BIOS_BOOT_CD | BIOS_BOOT_SELECTABLE);
    put8(m, BIOS_EXT1_ACPI);
    put8(m, BIOS_EXT2_VIRTUAL);
    for (unsigned i = 0; i < 4; i++) /* of the firmware, of an embedded controller */
        put8(m, BIOS_NO_RELEASE);
    end(m);
}

static void make_system(Maker *m)
{
    begin(m, 1, 0);
    put_key(m, KEY_MANUFACTURER);
    put_key(m, KEY_PRODUCT);
    put_key(m, KEY_VERSION);
    put_key(m, KEY_SERIAL);
    /* The first three fields are little-endian, 7.2.1. */
    static const uint8_t order[SMBIOS_UUID_LEN] = {3, 2, 1, 0, 5, 4, 7, 6,
                                                   8, 9, 10, 11, 12, 13, 14, 15};
    for (unsigned i = 0; i < SMBIOS_UUID_LEN; i++)
        put8(m, m->uuid[order[i]]);
    put8(m, WAKE_POWER_SWITCH);
    put_key(m, KEY_SKU);
    put_key(m, KEY_FAMILY);
    end(m);
}

static void make_board(Maker *m)
{
    begin(m, 2, 0);
    put_key(m, KEY_BOARD_MANUFACTURER);
    put_key(m, KEY_BOARD_PRODUCT);
    put_key(m, KEY_BOARD_VERSION);
    put_key(m, KEY_BOARD_SERIAL);
    put_key(m, KEY_ASSET);
    put8(m, BOARD_HOSTING);
    put8(m, NO_STRING); /* location in the chassis */
    put16(m, HANDLE_CHASSIS);
    put8(m, BOARD_MOTHERBOARD);
    put8(m, 0); /* contained objects */
    end(m);
}

static void make_chassis(Maker *m)
{
    begin(m, 3, 0);
    put_key(m, KEY_MANUFACTURER);
    put8(m, CHASSIS_OTHER);
    put_key(m, KEY_VERSION);
    put_key(m, KEY_CHASSIS_SERIAL);
    put_key(m, KEY_ASSET);
    put8(m, STATE_SAFE); /* boot-up, power supply, thermal */
    put8(m, STATE_SAFE);
    put8(m, STATE_SAFE);
    put8(m, SECURITY_UNKNOWN);
    put32(m, 0); /* OEM */
    put8(m, 0);  /* height */
    put8(m, 0);  /* power cords */
    put8(m, 0);  /* contained elements: count, length of one */
    put8(m, 0);
    put_key(m, KEY_SKU);
    end(m);
}

static void make_cpu(Maker *m, unsigned n, unsigned cores)
{
    g_autofree char *socket = g_strdup_printf("CPU %u", n);
    begin(m, 4, n);
    put_string(m, socket);
    put8(m, CPU_CENTRAL);
    put8(m, CPU_OTHER); /* family */
    put_key(m, KEY_MANUFACTURER);
    put64(m, 0);        /* ID */
    put8(m, NO_STRING); /* version */
    put8(m, 0);         /* voltage */
    put16(m, 0);        /* clock, maximum and current speed: unknown */
    put16(m, 0);
    put16(m, 0);
    put8(m, CPU_ENABLED);
    put8(m, CPU_OTHER); /* upgrade */
    for (unsigned i = 0; i < 3; i++)
        put16(m, HANDLE_NO_CACHE);
    put8(m, NO_STRING); /* serial, asset, part */
    put8(m, NO_STRING);
    put8(m, NO_STRING);
    put8(m, (uint8_t)cores); /* there, enabled, threads */
    put8(m, (uint8_t)cores);
    put8(m, (uint8_t)cores);
    put16(m, CPU_CHAR_UNKNOWN);
    put16(m, CPU_OTHER);
    end(m);
}

static void make_memory(Maker *m, uint64_t bytes)
{
    uint64_t kib = bytes / KIB, mib = bytes / MIB;
    bool extended = kib >= ARRAY_KIB_EXTENDED;
    begin(m, 16, 0);
    put8(m, ARRAY_ON_BOARD);
    put8(m, ARRAY_SYSTEM_MEMORY);
    put8(m, ARRAY_NO_ECC);
    put32(m, extended ? ARRAY_KIB_EXTENDED : (uint32_t)kib);
    put16(m, HANDLE_NONE);
    put16(m, 1); /* devices */
    put64(m, extended ? bytes : 0);
    end(m);

    extended = mib >= MEMORY_MIB_EXTENDED;
    begin(m, 17, 0);
    put16(m, HANDLE_ARRAY);
    put16(m, HANDLE_NONE);
    put16(m, MEMORY_WIDTH_UNKNOWN);
    put16(m, MEMORY_WIDTH_UNKNOWN);
    put16(m, extended ? MEMORY_MIB_EXTENDED : (uint16_t)mib);
    put8(m, MEMORY_DIMM);
    put8(m, 0); /* set */
    put_string(m, "DIMM 0");
    put8(m, NO_STRING); /* bank */
    put8(m, MEMORY_RAM);
    put16(m, MEMORY_DETAIL_OTHER);
    put16(m, 0); /* speed */
    put_key(m, KEY_MANUFACTURER);
    put8(m, NO_STRING); /* serial, asset, part */
    put8(m, NO_STRING);
    put8(m, NO_STRING);
    put8(m, 0); /* rank */
    put32(m, extended ? (uint32_t)mib : 0);
    for (unsigned i = 0; i < 4; i++) /* configured speed, voltages */
        put16(m, 0);
    end(m);
}

/* Where the memory lies, @bytes from @at on. */
static void make_range(Maker *m, unsigned number, uint64_t at, uint64_t bytes)
{
    if (!bytes)
        return;
    begin(m, 19, number);
    put32(m, (uint32_t)(at / KIB));
    put32(m, (uint32_t)((at + bytes) / KIB - 1));
    put16(m, HANDLE_ARRAY);
    put8(m, 1);  /* devices */
    put64(m, 0); /* used past 4 TiB only */
    put64(m, 0);
    end(m);
}

static void make_last(Maker *m)
{
    begin(m, 32, 0);
    for (unsigned i = 0; i < 7; i++) /* 6 reserved, status: no errors */
        put8(m, 0);
    end(m);
    begin(m, 127, 0);
    end(m);
}

static uint8_t negative_sum(const uint8_t *p, unsigned len)
{
    uint8_t sum = 0;
    for (unsigned i = 0; i < len; i++)
        sum += p[i];
    return (uint8_t)-sum;
}

/* 5.2.1. */
static void make_entry_point(const Maker *m, GByteArray *out)
{
    uint8_t e[EP_LEN] = {'_', 'S', 'M', '_', 0, EP_LEN, EP_MAJOR, EP_MINOR};
    store_le16(e + EP_MAX_SIZE, (uint16_t)m->longest);
    memcpy(e + EP_DMI, "_DMI_", 5);
    store_le16(e + EP_TABLE_LEN, (uint16_t)m->out->len);
    store_le16(e + EP_COUNT, (uint16_t)m->count);
    e[EP_REVISION] = EP_MAJOR << 4 | EP_MINOR;
    e[EP_DMI_CHECKSUM] = negative_sum(e + EP_DMI, EP_LEN - EP_DMI);
    e[EP_CHECKSUM] = negative_sum(e, EP_LEN);
    g_byte_array_append(out, e, sizeof e);
}

/* ---- what the operator chose ---- */

bool smbios_parse_uuid(const char *text, uint8_t ret_uuid[SMBIOS_UUID_LEN], GError **error)
{
    if (!g_uuid_string_is_valid(text))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "uuid: '%s': must be like 12345678-9abc-4def-8123-456789abcdef", text);
    for (unsigned i = 0; i < SMBIOS_UUID_LEN; i++) {
        text += *text == '-';
        ret_uuid[i] =
            (uint8_t)(g_ascii_xdigit_value(text[0]) << 4 | g_ascii_xdigit_value(text[1]));
        text += 2;
    }
    return true;
}

static bool unknown_key(const char *key, GError **error)
{
    g_autoptr(GString) all = g_string_new(NULL);
    for (unsigned i = 0; i < KEYS; i++)
        g_string_append_printf(all, "%s%s", i ? ", " : "", smbios_keys[i].name);
    return lodge_fail(error, LODGE_ERROR_CONFIG, "smbios: no key '%s'; there are %s", key,
                      all->str);
}

/* MM/DD/YYYY, 7.1. */
static bool is_date(const char *text)
{
    static const char form[] = "00/00/0000";
    if (strlen(text) != sizeof form - 1)
        return false;
    for (unsigned i = 0; form[i]; i++) {
        if (form[i] == '0' ? !g_ascii_isdigit(text[i]) : text[i] != form[i])
            return false;
    }
    return true;
}

static bool check_text(unsigned key, const char *text, GError **error)
{
    const char *name = smbios_keys[key].name;
    if (strlen(text) > SMBIOS_TEXT_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "smbios: %s: over %u bytes long", name,
                          SMBIOS_TEXT_MAX);
    for (const char *s = text; *s; s++) {
        if (!g_ascii_isprint(*s))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "smbios: %s: only printable ASCII is allowed", name);
    }
    if (key == KEY_BIOS_DATE && !is_date(text))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "smbios: %s: '%s': must be MM/DD/YYYY", name,
                          text);
    return true;
}

static bool read_texts(Maker *m, GHashTable *texts, GError **error)
{
    GHashTableIter it;
    gpointer name, text;
    for (unsigned i = 0; i < KEYS; i++)
        m->text[i] = smbios_keys[i].preset;
    if (!texts)
        return true;
    g_hash_table_iter_init(&it, texts);
    while (g_hash_table_iter_next(&it, &name, &text)) {
        unsigned key = 0;
        while (key < KEYS && strcmp(smbios_keys[key].name, name))
            key++;
        if (key == KEYS)
            return unknown_key(name, error);
        if (!check_text(key, text, error))
            return false;
        m->text[key] = text;
    }
    return true;
}

bool smbios_build(const SmbiosConfig *c, GByteArray *ret_anchor, GByteArray *ret_tables,
                  GError **error)
{
    Maker m = {.out = ret_tables};
    if (c->sockets < 1 || c->sockets > SMBIOS_CPUS_MAX || c->cores < 1 ||
        c->cores > SMBIOS_CPUS_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT,
                          "smbios: %u processors of %u cores: each must be 1 to %u", c->sockets,
                          c->cores, SMBIOS_CPUS_MAX);
    if (!read_texts(&m, c->texts, error) ||
        (c->uuid && !smbios_parse_uuid(c->uuid, m.uuid, error)))
        return false;
    g_autoptr(GString) strings = g_string_new(NULL);
    m.strings = strings;
    make_bios(&m);
    make_system(&m);
    make_board(&m);
    make_chassis(&m);
    for (unsigned i = 0; i < c->sockets; i++)
        make_cpu(&m, i, c->cores);
    make_memory(&m, c->ram_below_4g + c->ram_above_4g);
    make_range(&m, 0, 0, c->ram_below_4g);
    make_range(&m, 1, 4 * GIB, c->ram_above_4g);
    make_last(&m);
    g_assert(ret_tables->len <= UINT16_MAX); /* texts and sockets are bounded */
    make_entry_point(&m, ret_anchor);
    return true;
}
