/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a device: made with defaults, properties set from text, realized, reset, quiesced,
 * freed. Classes come from the caller; this file knows none.
 */
#include <stdarg.h>
#include <string.h>

#include "lodge/device.h"
#include "lodge/diag.h"
#include "lodge/error.h"

#define FAULTS_LOGGED 8 /* texts a device may log; all are counted */

Device *device_new(const DeviceClass *cls, const char *id, Board *board)
{
    g_assert(cls->instance_size >= sizeof(Device) && cls->state);
    Device *d = g_malloc0(cls->instance_size);
    d->cls = cls;
    d->id = g_strdup(id ? id : cls->name);
    d->board = board;
    lodge_lock_init(&d->lock, LOCK_RANK_DEVICE, cls->name);
    for (const PropSpec *p = cls->props; p && p->name; p++) {
        if (p->preset) {
            bool ok = device_set(d, p->name, p->preset, NULL);
            g_assert(ok); /* a default that its own table refuses is our bug */
        }
    }
    return d;
}

void device_free(Device *d)
{
    if (!d)
        return;
    if (d->cls->unrealize)
        d->cls->unrealize(d);
    for (const PropSpec *p = d->cls->props; p && p->name; p++) {
        if (p->kind == PROP_STRING)
            g_free(*(char **)((uint8_t *)d + p->offset));
    }
    lodge_lock_clear(&d->lock);
    g_free(d->id);
    g_free(d);
}

static const PropSpec *prop_find(const DeviceClass *cls, const char *name)
{
    for (const PropSpec *p = cls->props; p && p->name; p++) {
        if (!strcmp(p->name, name))
            return p;
    }
    return NULL;
}

static bool set_number(Device *d, const PropSpec *p, const char *value, GError **error)
{
    uint64_t v, max = p->max ? p->max : p->kind == PROP_U32 ? UINT32_MAX : UINT64_MAX;
    if (!parse_size(value, &v) || v < p->min || v > max)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: %s=%s: must be a number from %" PRIu64 " to %" PRIu64, d->id,
                          p->name, value, p->min, max);
    if (p->kind == PROP_U32)
        *(uint32_t *)((uint8_t *)d + p->offset) = (uint32_t)v;
    else
        *(uint64_t *)((uint8_t *)d + p->offset) = v;
    return true;
}

static bool set_backend(Device *d, const PropSpec *p, const char *value, GError **error)
{
    Board *b = d->board;
    void *found = NULL;
    if (!*value && p->preset) { /* optional: none */
        *(void **)((uint8_t *)d + p->offset) = NULL;
        return true;
    }
    if (p->kind == PROP_BLK)
        found = b->blk ? b->blk(b, value) : NULL;
    else if (p->kind == PROP_NET)
        found = b->net ? b->net(b, value) : NULL;
    else
        found = b->chan ? b->chan(b, value) : NULL;
    if (!found)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: %s=%s: no such back end", d->id, p->name,
                          value);
    *(void **)((uint8_t *)d + p->offset) = found;
    return true;
}

bool device_set(Device *d, const char *name, const char *value, GError **error)
{
    const PropSpec *p = prop_find(d->cls, name);
    if (!p) {
        g_autoptr(GString) known = g_string_new(NULL);
        for (const PropSpec *q = d->cls->props; q && q->name; q++)
            g_string_append_printf(known, "%s%s", known->len ? ", " : "", q->name);
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: no property '%s'; %s has %s", d->id, name,
                          d->cls->name, known->len ? known->str : "none");
    }
    uint8_t *field = (uint8_t *)d + p->offset;
    switch (p->kind) {
    case PROP_BOOL:
        if (!parse_bool(value, (bool *)field))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: %s=%s: must be on or off", d->id,
                              name, value);
        return true;
    case PROP_U32:
    case PROP_U64:
        return set_number(d, p, value, error);
    case PROP_STRING:
        if (p->max && strlen(value) > p->max)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: %s: longer than %" PRIu64 " bytes",
                              d->id, name, p->max);
        g_free(*(char **)field);
        *(char **)field = g_strdup(value);
        return true;
    case PROP_MAC:
        if (!parse_mac(value, field))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "%s: %s=%s: must be six hexadecimal bytes, like 52:54:00:12:34:56",
                              d->id, name, value);
        return true;
    case PROP_BLK:
    case PROP_NET:
    case PROP_CHAN:
        return set_backend(d, p, value, error);
    }
    return true;
}

bool device_realize(Device *d, GError **error)
{
    g_assert(!d->realized);
    if (d->cls->realize && !d->cls->realize(d, error))
        return false;
    d->realized = true;
    device_reset(d, RESET_COLD);
    return true;
}

void device_reset(Device *d, ResetKind kind)
{
    if (!d->cls->reset)
        return;
    lodge_lock(&d->lock);
    d->cls->reset(d, kind);
    lodge_unlock(&d->lock);
}

void device_quiesce(Device *d, void (*done)(Device *d, void *opaque), void *opaque)
{
    d->quiesced = done;
    d->quiesced_opaque = opaque;
    if (d->cls->quiesce)
        d->cls->quiesce(d);
    else
        device_quiesced(d);
}

void device_quiesced(Device *d)
{
    if (d->quiesced)
        d->quiesced(d, d->quiesced_opaque);
}

void device_resume(Device *d)
{
    if (d->cls->resume)
        d->cls->resume(d);
}

void guest_fault(Device *d, const char *fmt, ...)
{
    if (__atomic_fetch_add(&d->faults, 1, __ATOMIC_RELAXED) >= FAULTS_LOGGED)
        return;
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    lodge_trace("guest", "%s: %s", d->id, text);
}
