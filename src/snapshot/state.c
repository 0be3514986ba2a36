/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Snapshot tables to bytes and back.
 *
 * A record is: name length (1 byte), name, version (2), number of fields (2); each field: name
 * length (1), name, kind (1), element width (4), count (4), then the elements, little-endian; a
 * nested table's elements are records. Load goes by the names in the stream, so fields may be
 * added (with `since`) and the order may change.
 */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"
#include "lodge/state.h"

#define FIELD_COUNT_MAX 65536u
#define FIELD_SIZE_MAX (1u << 20)

static const StateField no_fields[] = {ST_END};
const StateDesc state_none = {.name = "none", .version = 1, .oldest = 1, .fields = no_fields};

static void put_name(GByteArray *out, const char *name)
{
    uint8_t len = (uint8_t)strlen(name);
    g_byte_array_append(out, &len, 1);
    g_byte_array_append(out, (const uint8_t *)name, len);
}

static void put_le(GByteArray *out, uint64_t v, unsigned bytes)
{
    uint8_t b[8];
    store_le64(b, v);
    g_byte_array_append(out, b, bytes);
}

/* @count is of elements; for ST_UINT memory and wire have the same (little-endian) form. */
static void save_fields(const StateDesc *desc, uint8_t *regs, GByteArray *out)
{
    unsigned n = 0;
    for (const StateField *f = desc->fields; f->name; f++)
        n += f->kind != ST_SKIP;
    put_name(out, desc->name);
    put_le(out, desc->version, 2);
    put_le(out, n, 2);
    for (const StateField *f = desc->fields; f->name; f++) {
        if (f->kind == ST_SKIP)
            continue;
        put_name(out, f->name);
        put_le(out, f->kind, 1);
        put_le(out, f->size, 4);
        put_le(out, f->count, 4);
        if (f->kind != ST_SUB) {
            g_byte_array_append(out, regs + f->offset, f->size * f->count);
            continue;
        }
        for (unsigned i = 0; i < f->count; i++)
            save_fields(f->sub, regs + f->offset + (size_t)i * f->size, out);
    }
}

void state_save(const StateDesc *desc, void *obj, GByteArray *out)
{
    if (desc->pre_save)
        desc->pre_save(obj);
    save_fields(desc, (uint8_t *)obj + desc->regs_offset, out);
}

typedef struct Input {
    const uint8_t *data;
    size_t len, at;
} Input;

static bool take(Input *in, void *to, size_t len, GError **error)
{
    if (!range_within(in->at, len, in->len))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "state: ends early at offset %zu", in->at);
    memcpy(to, in->data + in->at, len);
    in->at += len;
    return true;
}

static bool take_le(Input *in, unsigned bytes, uint64_t *ret_value, GError **error)
{
    uint8_t b[8] = {0};
    if (!take(in, b, bytes, error))
        return false;
    *ret_value = load_le64(b);
    return true;
}

static bool take_name(Input *in, char ret_name[256], GError **error)
{
    uint64_t len;
    if (!take_le(in, 1, &len, error) || !take(in, ret_name, len, error))
        return false;
    ret_name[len] = '\0';
    return true;
}

static const StateField *field_find(const StateDesc *desc, const char *name)
{
    for (const StateField *f = desc->fields; f->name; f++) {
        if (f->kind != ST_SKIP && !strcmp(f->name, name))
            return f;
    }
    return NULL;
}

static bool check_uints(const StateDesc *desc, const StateField *f, const uint8_t *at,
                        GError **error)
{
    for (unsigned i = 0; i < f->count; i++) {
        uint8_t b[8] = {0};
        memcpy(b, at + (size_t)i * f->size, f->size);
        uint64_t v = load_le64(b);
        if (v > f->max)
            return lodge_fail(error, LODGE_ERROR_IMAGE,
                              "state: %s.%s: %" PRIu64 " is over %" PRIu64, desc->name, f->name, v,
                              f->max);
    }
    return true;
}

static bool load_fields(const StateDesc *desc, uint8_t *regs, Input *in, unsigned *ret_version,
                        GError **error)
{
    char name[256];
    uint64_t version, n;
    if (!take_name(in, name, error) || !take_le(in, 2, &version, error) ||
        !take_le(in, 2, &n, error))
        return false;
    if (strcmp(name, desc->name))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "state: '%s' where '%s' should be", name,
                          desc->name);
    if (version < desc->oldest || version > desc->version)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "state: %s: version %" PRIu64 ", this program takes %u to %u", desc->name,
                          version, desc->oldest, desc->version);
    unsigned expected = 0, seen = 0, rows = 0;
    for (const StateField *f = desc->fields; f->name; f++, rows++)
        expected += f->kind != ST_SKIP && f->since <= version;
    g_autofree bool *had = g_new0(bool, rows + 1);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t kind, size, count;
        if (!take_name(in, name, error) || !take_le(in, 1, &kind, error) ||
            !take_le(in, 4, &size, error) || !take_le(in, 4, &count, error))
            return false;
        const StateField *f = field_find(desc, name);
        if (!f)
            return lodge_fail(error, LODGE_ERROR_IMAGE, "state: %s: no field '%s'", desc->name,
                              name);
        if (kind != f->kind || size != f->size || count != f->count)
            return lodge_fail(error, LODGE_ERROR_IMAGE, "state: %s.%s: another shape", desc->name,
                              name);
        if (had[f - desc->fields])
            return lodge_fail(error, LODGE_ERROR_IMAGE, "state: %s.%s: is there twice", desc->name,
                              name);
        had[f - desc->fields] = true;
        seen += f->since <= version;
        uint8_t *at = regs + f->offset;
        if (f->kind == ST_SUB) {
            for (unsigned k = 0; k < f->count; k++) {
                if (!load_fields(f->sub, at + (size_t)k * f->size, in, NULL, error))
                    return false;
            }
            continue;
        }
        /* Check a copy first: a bool or an index must never hold a refused value. */
        g_autofree uint8_t *copy = g_malloc((size_t)f->size * f->count);
        if (!take(in, copy, (size_t)f->size * f->count, error))
            return false;
        StateField bounded = *f;
        if (f->kind == ST_BOOL)
            bounded.max = 1;
        if (f->kind != ST_BYTES && !check_uints(desc, &bounded, copy, error))
            return false;
        memcpy(at, copy, (size_t)f->size * f->count);
    }
    if (seen < expected)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "state: %s: %u of %u fields are missing",
                          desc->name, expected - seen, expected);
    if (ret_version)
        *ret_version = (unsigned)version;
    return true;
}

bool state_load(const StateDesc *desc, void *obj, const uint8_t *data, size_t len,
                size_t *ret_used, GError **error)
{
    Input in = {data, len, 0};
    unsigned version = 0;
    if (!load_fields(desc, (uint8_t *)obj + desc->regs_offset, &in, &version, error))
        return false;
    if (desc->post_load && !desc->post_load(obj, version, error))
        return false;
    *ret_used = in.at;
    return true;
}

static bool check_shape(const StateDesc *desc, const StateField *f, GError **error)
{
    static const char *const no[] = {"a bad width", "an unknown size"};
    if (f->kind == ST_UINT && !(f->size && f->size <= 8 && is_power_of_two(f->size)))
        return lodge_fail(error, LODGE_ERROR_STATE, "state: %s.%s: %s", desc->name, f->name, no[0]);
    if (!f->size || f->size > FIELD_SIZE_MAX || !f->count ||
        (f->kind != ST_BYTES && f->count > FIELD_COUNT_MAX) || strlen(f->name) > 255)
        return lodge_fail(error, LODGE_ERROR_STATE, "state: %s.%s: %s", desc->name, f->name, no[1]);
    if (f->kind == ST_SKIP && !f->why)
        return lodge_fail(error, LODGE_ERROR_STATE, "state: %s.%s: skipped without a reason",
                          desc->name, f->name);
    if (f->kind == ST_SUB && (!f->sub || f->sub->regs_size != f->size))
        return lodge_fail(error, LODGE_ERROR_STATE, "state: %s.%s: its table is for another size",
                          desc->name, f->name);
    return true;
}

bool state_check(const StateDesc *desc, GError **error)
{
    g_autofree uint8_t *seen = g_malloc0(desc->regs_size + 1);
    for (const StateField *f = desc->fields; f->name; f++) {
        if (!check_shape(desc, f, error) || (f->kind == ST_SUB && !state_check(f->sub, error)))
            return false;
        for (uint64_t i = 0; i < (uint64_t)f->size * f->count; i++) {
            uint64_t at = f->offset + i;
            if (at >= desc->regs_size || seen[at]++)
                return lodge_fail(error, LODGE_ERROR_STATE, "state: %s.%s: byte %" PRIu64 " %s",
                                  desc->name, f->name, at,
                                  at >= desc->regs_size ? "lies outside" : "is covered twice");
        }
    }
    for (unsigned i = 0; i < desc->regs_size; i++) {
        if (!seen[i])
            return lodge_fail(error, LODGE_ERROR_STATE, "state: %s: byte %u is not covered",
                              desc->name, i);
    }
    return true;
}
