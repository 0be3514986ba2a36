/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_STATE_H
#define LODGE_STATE_H

/*
 * Snapshot tables. A device keeps what the guest can see in one plain FooRegs struct (no
 * pointers, no host handles). Its table covers every byte of that struct, or lists ST_SKIP with
 * a reason; a unit test walks device_table[] to prove it. On the wire: name, width,
 * little-endian value. Save and load run on main with vCPUs parked and devices quiesced.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

typedef struct StateDesc StateDesc;

typedef enum StateKind { ST_UINT, ST_BOOL, ST_BYTES, ST_SUB, ST_SKIP } StateKind;

typedef struct StateField {
    const char *name; /* NULL ends the table */
    StateKind kind;
    uint16_t since;  /* first version of the table that has it */
    uint32_t offset; /* bytes from the start of Regs */
    uint32_t size;   /* bytes of one element */
    uint32_t count;  /* elements */
    uint64_t max;    /* ST_UINT: load refuses more, so that every index is bounded in the table */
    const StateDesc *sub;
    const char *why; /* ST_SKIP: why derived state need not travel */
} StateField;

struct StateDesc {
    const char *name;
    uint16_t version, oldest;        /* what save writes; the oldest that load takes */
    uint32_t regs_offset, regs_size; /* where Regs lies in the instance, bytes */
    const StateField *fields;
    void (*pre_save)(void *obj);     /* obj: the instance */
    /* Cross-field checks, rebuild what is derived, re-arm timers. */
    bool (*post_load)(void *obj, unsigned version, GError **error);
};

extern const StateDesc state_none; /* "nothing that the guest sees", said out loud */

#define ST_FIELD_SIZE(type, field) sizeof(((type *)0)->field)
#define ST_U(type, field, maxval)                                                                  \
    {#field, ST_UINT, 1, offsetof(type, field), ST_FIELD_SIZE(type, field), 1, (maxval), NULL, NULL}
#define ST_U_ARRAY(type, field, maxval)                                                            \
    {#field, ST_UINT, 1, offsetof(type, field), ST_FIELD_SIZE(type, field[0]),                     \
     ST_FIELD_SIZE(type, field) / ST_FIELD_SIZE(type, field[0]), (maxval), NULL, NULL}
#define ST_B(type, field)                                                                          \
    {#field, ST_BOOL, 1, offsetof(type, field), ST_FIELD_SIZE(type, field), 1, 1, NULL, NULL}
#define ST_RAW(type, field)                                                                        \
    {#field, ST_BYTES, 1, offsetof(type, field), 1, ST_FIELD_SIZE(type, field), 0, NULL, NULL}
#define ST_SUBS(type, field, n, desc)                                                              \
    {#field, ST_SUB, 1, offsetof(type, field), ST_FIELD_SIZE(type, field) / (n), (n), 0, (desc), NULL}
#define ST_SKIPPED(type, field, reason)                                                            \
    {#field, ST_SKIP, 1, offsetof(type, field), ST_FIELD_SIZE(type, field), 1, 0, NULL, (reason)}
#define ST_END {NULL, ST_SKIP, 0, 0, 0, 0, 0, NULL, NULL}

/* Append @obj's state to @out. Context: see above. */
void state_save(const StateDesc *desc, void *obj, GByteArray *out);
/* Take @obj's state from @data; false with LODGE_ERROR_IMAGE names the field. On false the object
 * must be reset before use. @ret_used: bytes taken. */
bool state_load(const StateDesc *desc, void *obj, const uint8_t *data, size_t len,
                size_t *ret_used, GError **error);
/* Whether the fields cover each byte of Regs once (padding counts as uncovered: there must be
 * none); false names the first byte that is not. */
bool state_check(const StateDesc *desc, GError **error);

#endif
