/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What drivers tell about an image: findings of a check, facts, snapshots. Bounded, so that a
 * hostile image fills no memory. */
#include "block_int.h"

BlkReport *blk_report_new(void)
{
    BlkReport *r = g_new0(BlkReport, 1);

    r->lines = g_ptr_array_new_with_free_func(g_free);
    return r;
}

void blk_report_free(BlkReport *r)
{
    if (!r)
        return;
    g_ptr_array_unref(r->lines);
    g_free(r);
}

void blk_report_add(BlkReport *r, BlkFinding kind, bool fixed, const char *fmt, ...)
{
    va_list ap;

    if (kind == BLK_FIND_ERROR) {
        r->errors++;
        r->errors_fixed += fixed;
    } else {
        r->leaks++;
        r->leaks_fixed += fixed;
    }
    if (r->lines->len >= BLK_REPORT_LINES)
        return;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_ptr_array_add(r->lines, g_strdup_printf("%s: %s%s", kind == BLK_FIND_ERROR ? "error" : "leak",
                                              text, fixed ? " (mended)" : ""));
}

static void fact_free(void *opaque)
{
    BlkFact *f = opaque;

    g_free(f->text);
    g_free(f);
}

GPtrArray *blk_facts_new(void)
{
    return g_ptr_array_new_with_free_func(fact_free);
}

void blk_fact_text(GPtrArray *facts, const char *key, const char *text)
{
    BlkFact *f = g_new0(BlkFact, 1);

    f->key = key;
    f->text = g_strdup(text);
    g_ptr_array_add(facts, f);
}

void blk_fact_number(GPtrArray *facts, const char *key, uint64_t number)
{
    BlkFact *f = g_new0(BlkFact, 1);

    f->key = key;
    f->number = number;
    g_ptr_array_add(facts, f);
}

static void snapshot_free(void *opaque)
{
    BlkSnapshot *s = opaque;

    g_free(s->id);
    g_free(s->name);
    g_free(s);
}

GPtrArray *blk_snapshots_new(void)
{
    return g_ptr_array_new_with_free_func(snapshot_free);
}
