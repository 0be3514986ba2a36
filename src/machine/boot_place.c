/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Addresses for a directly booted kernel: where it fits, what the command line forbids, and the
 * page tables it starts on.
 *
 * The choice follows arch/x86/boot/compressed/kaslr.c of Linux in effect, not in code: every
 * aligned place inside memory, clear of what must stay, is equally likely. With memmap=exactmap
 * the command line redraws the map, and nothing is randomized physically.
 * Spec: Linux Documentation/admin-guide/kernel-parameters.txt (mem=, memmap=, nokaslr); Intel SDM
 *       volume 3, 4.5 "4-Level Paging".
 */
#include "boot_internal.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

/* Add the places inside one free gap; true when @pick was among them. */
static bool places_in_gap(const BootPlaceQuery *q, uint64_t at, uint64_t end, uint64_t pick,
                          uint64_t *count, uint64_t *ret_at)
{
    at = MAX(at, q->min);
    end = MIN(end, q->max);
    if (at > UINT64_MAX - q->align)
        return false;
    at = align_up(at, q->align);
    if (at >= end || end - at < q->size)
        return false;
    uint64_t n = (end - at - q->size) / q->align + 1;
    bool hit = pick >= *count && pick - *count < n;
    if (hit)
        *ret_at = at + (pick - *count) * q->align;
    *count += n;
    return hit;
}

uint64_t boot_places(const BootPlaceQuery *q, uint64_t pick, uint64_t *ret_at)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < q->n_ram; i++) {
        uint64_t at = q->ram[i].at, end = at + q->ram[i].len;
        while (at < end) {
            /* The avoided range that comes first at or after @at ends this gap. */
            uint64_t gap_end = end, next = end;
            for (unsigned k = 0; k < q->n_avoid; k++) {
                uint64_t a = q->avoid[k].at, a_end;
                if (!u64_add_ok(a, q->avoid[k].len, &a_end))
                    a_end = UINT64_MAX;
                if (a_end <= at || a >= end || a == a_end)
                    continue;
                a = MAX(a, at);
                if (a < gap_end) {
                    gap_end = a;
                    next = a_end;
                } else if (a == gap_end) {
                    next = MAX(next, a_end);
                }
            }
            places_in_gap(q, at, gap_end, pick, &count, ret_at);
            at = MAX(next, gap_end);
        }
    }
    return count;
}

/* A size as Linux' memparse() reads it: any base, then K M G T P E. */
static uint64_t parse_size(const char **text)
{
    char *end;
    uint64_t v = g_ascii_strtoull(*text, &end, 0);
    const char *suffixes = "KMGTPE";
    const char *s = *end ? strchr(suffixes, g_ascii_toupper(*end)) : NULL;
    if (s) {
        unsigned shift = 10 * (unsigned)(s - suffixes + 1);
        v = v > (UINT64_MAX >> shift) ? UINT64_MAX : v << shift;
        end++;
    }
    *text = end;
    return v;
}

static void parse_memmap(const char *value, BootCmdlineMem *ret)
{
    /* Several entries can stand in one option, separated by commas. */
    for (const char *p = value; p && *p; p = strchr(p, ',')) {
        if (*p == ',')
            p++;
        if (g_str_has_prefix(p, "exactmap")) {
            ret->exactmap = true;
            continue;
        }
        const char *start = p;
        uint64_t len = parse_size(&p);
        if (p == start)
            return;
        if (*p == '$' || *p == '#' || *p == '!' || *p == '%') {
            p++;
            uint64_t at = parse_size(&p);
            if (ret->n_avoid < G_N_ELEMENTS(ret->avoid))
                ret->avoid[ret->n_avoid++] = (BootRange){at, len};
            else
                ret->exactmap = true; /* more than we keep: do not move the kernel at all */
        } else if (*p != '@' && len) {
            ret->limit = MIN(ret->limit, len);
        }
    }
}

void boot_parse_cmdline(const char *text, BootCmdlineMem *ret)
{
    *ret = (BootCmdlineMem){.limit = UINT64_MAX};
    g_auto(GStrv) words = g_strsplit_set(text, " \t\n", -1);
    for (char **w = words; *w && strcmp(*w, "--"); w++) {
        const char *value;
        if (!strcmp(*w, "nokaslr")) {
            ret->nokaslr = true;
        } else if (g_str_has_prefix(*w, "mem=")) {
            value = *w + strlen("mem=");
            uint64_t limit = parse_size(&value);
            if (limit)
                ret->limit = MIN(ret->limit, limit);
        } else if (g_str_has_prefix(*w, "memmap=")) {
            parse_memmap(*w + strlen("memmap="), ret);
        }
    }
}

enum {
    PT_ENTRIES = 512,
    PT_PAGE = 4096,
    PT_MAX_PAGES = (BOOT_LOW_END - BOOT_PAGE_TABLES_GPA) / PT_PAGE,
    PTE_PRESENT_WRITE = 0x03,
    PTE_LARGE = 0x80,
};

typedef struct TableBuilder {
    uint64_t page[PT_MAX_PAGES][PT_ENTRIES];
    unsigned used;
} TableBuilder;

/* The table that entry @i of table @t refers to, made when it is not there; NULL: no room. */
static uint64_t *table_next(TableBuilder *b, uint64_t *t, unsigned i)
{
    if (!t[i]) {
        if (b->used >= PT_MAX_PAGES)
            return NULL;
        t[i] = (BOOT_PAGE_TABLES_GPA + (uint64_t)b->used++ * PT_PAGE) | PTE_PRESENT_WRITE;
    }
    return b->page[(align_down(t[i], PT_PAGE) - BOOT_PAGE_TABLES_GPA) / PT_PAGE];
}

static bool table_map(TableBuilder *b, uint64_t at, uint64_t end)
{
    for (at = align_down(at, 2 * MIB); at < end; at += 2 * MIB) {
        uint64_t *pdpt = table_next(b, b->page[0], (at >> 39) % PT_ENTRIES);
        uint64_t *pd = pdpt ? table_next(b, pdpt, (at >> 30) % PT_ENTRIES) : NULL;
        if (!pd)
            return false;
        pd[(at >> 21) % PT_ENTRIES] = at | PTE_PRESENT_WRITE | PTE_LARGE;
    }
    return true;
}

bool boot_write_page_tables(MemMap *mem, gpa_t at, uint64_t len, GError **error)
{
    g_autofree TableBuilder *b = g_new0(TableBuilder, 1);
    b->used = 1;
    if (!table_map(b, 0, 4 * GIB) || !table_map(b, at, at + len))
        return lodge_fail(error, LODGE_ERROR_LIMIT, "kernel: too large for its first page tables");
    if (!mem_write(mem, BOOT_PAGE_TABLES_GPA, b->page, (size_t)b->used * PT_PAGE))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "memory: too small for a kernel");
    return true;
}
