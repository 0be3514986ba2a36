/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs of "lodge image" that look: info, check, map, snapshot, compare, bench. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "verb_image.h"

/* ---- info ---- */

static uint64_t allocated_bytes(const BlkFile *f)
{
    struct stat st;

    if (f->block_device || fstat(f->fd, &st) < 0)
        return f->size;
    return (uint64_t)st.st_blocks * 512;
}

static char *date_text(int64_t s)
{
    g_autoptr(GDateTime) d = g_date_time_new_from_unix_utc(s);

    return d ? g_date_time_format(d, "%Y-%m-%dT%H:%M:%SZ") : g_strdup("");
}

static void json_snapshots(JsonOut *j, GPtrArray *list)
{
    json_array(j, "snapshots");
    for (guint i = 0; i < list->len; i++) {
        const BlkSnapshot *s = g_ptr_array_index(list, i);
        json_object(j, NULL);
        json_string(j, "id", s->id);
        json_string(j, "name", s->name);
        json_number(j, "date", s->date_s);
        json_number(j, "size", (int64_t)s->size);
        json_number(j, "vm-bytes", (int64_t)s->vm_bytes);
        json_number(j, "clock-ns", (int64_t)s->clock_ns);
        json_end(j);
    }
    json_end(j);
}

static void print_snapshots(GPtrArray *list)
{
    for (guint i = 0; i < list->len; i++) {
        const BlkSnapshot *s = g_ptr_array_index(list, i);
        g_autofree char *date = date_text(s->date_s);
        printf("%-8s %-24s %s\n", s->id, s->name, date);
    }
}

/* Internal snapshots, NULL where the format has none or they cannot be read. */
static GPtrArray *snapshots_of(BlkNode *n)
{
    return n->drv->snap ? image_snapshots(n, NULL) : NULL;
}

static void info_json(JsonOut *j, BlkNode *n, GPtrArray *facts)
{
    BlkFile *f = blk_file_under(n);
    g_autoptr(GPtrArray) snaps = snapshots_of(n);

    json_string(j, "file", f->path);
    json_string(j, "format", n->drv->name);
    json_number(j, "size", (int64_t)blk_base_info(n, NULL, NULL).size);
    json_number(j, "file-bytes", (int64_t)f->size);
    json_number(j, "allocated-bytes", (int64_t)allocated_bytes(f));
    if (n->ref.path) {
        g_autofree char *full = blk_base_path(f->path, n->ref.path);
        json_string(j, "base", n->ref.path);
        json_string(j, "base-path", full);
        json_string(j, "base-format", n->ref.format);
    }
    json_object(j, "details");
    for (guint i = 0; i < facts->len; i++) {
        const BlkFact *k = g_ptr_array_index(facts, i);
        if (k->text)
            json_string(j, k->key, k->text);
        else
            json_number(j, k->key, (int64_t)k->number);
    }
    json_end(j);
    if (snaps)
        json_snapshots(j, snaps);
}

static void info_text(BlkNode *n, GPtrArray *facts)
{
    BlkFile *f = blk_file_under(n);
    uint64_t size = blk_base_info(n, NULL, NULL).size;
    g_autofree char *nice = image_bytes_text(size), *stored = image_bytes_text(allocated_bytes(f));
    g_autoptr(GPtrArray) snaps = snapshots_of(n);

    printf("file: %s\nformat: %s\nsize: %s (%" PRIu64 " bytes)\nstored: %s\n", f->path,
           n->drv->name, nice, size, stored);
    if (n->ref.path) {
        g_autofree char *full = blk_base_path(f->path, n->ref.path);
        printf("base: %s", n->ref.path);
        if (strcmp(full, n->ref.path) != 0)
            printf(" (%s)", full);
        printf("\n");
        if (n->ref.format)
            printf("base-format: %s\n", n->ref.format);
    }
    for (guint i = 0; i < facts->len; i++) {
        const BlkFact *k = g_ptr_array_index(facts, i);
        if (k->text)
            printf("%s: %s\n", k->key, k->text);
        else
            printf("%s: %" PRIu64 "\n", k->key, k->number);
    }
    if (snaps && snaps->len) {
        printf("snapshots:\n");
        print_snapshots(snaps);
    }
}

static void info_one(JsonOut *j, BlkNode *n)
{
    g_autoptr(GPtrArray) facts = blk_facts_new();

    if (n->drv->describe)
        n->drv->describe(n, facts);
    if (j)
        info_json(j, n, facts);
    else
        info_text(n, facts);
}

int verb_image_info(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 1, 1, &status);

    if (!o)
        return status;
    bool chain = options_has(o, "chain");
    unsigned flags = BLK_OPEN_UNLOCKED | (chain ? 0 : BLK_OPEN_NO_BASE);
    g_autoptr(ImageTool) t = image_tool_new(1, &error);
    g_autoptr(BlkNode) n =
        t ? image_open(o, image_arg(o, 0), true, flags, BLK_AIO_THREADS, t->io, &error) : NULL;
    if (!n)
        return cli_fail(self->name, error, false);
    g_autoptr(JsonOut) j = options_has(o, "json") ? image_json() : NULL;
    info_one(j, n);
    if (j && chain)
        json_array(j, "chain");
    for (BlkNode *b = n->base; b; b = b->base) {
        if (j)
            json_object(j, NULL);
        else
            printf("\n");
        info_one(j, b);
        if (j)
            json_end(j);
    }
    if (j)
        fputs(json_text(j), stdout);
    return cli_finish(STATUS_OK);
}

/* ---- statuses of check and compare: 0 yes, 1 no, more: that was not found out ---- */

static int answer_fail(const Verb *self, const GError *error)
{
    int status = cli_fail(self->name, error, false);

    return status == STATUS_FAILURE ? STATUS_USAGE : status;
}

static int answer(bool yes)
{
    if (cli_finish(STATUS_OK) != STATUS_OK)
        return STATUS_USAGE;
    return yes ? STATUS_OK : STATUS_FAILURE;
}

/* ---- check ---- */

static void check_json(const char *file, const BlkNode *n, const BlkReport *r)
{
    g_autoptr(JsonOut) j = image_json();

    json_string(j, "file", file);
    json_string(j, "format", n->drv->name);
    json_number(j, "errors", (int64_t)r->errors);
    json_number(j, "leaks", (int64_t)r->leaks);
    json_number(j, "errors-fixed", (int64_t)r->errors_fixed);
    json_number(j, "leaks-fixed", (int64_t)r->leaks_fixed);
    json_number(j, "total", (int64_t)r->total);
    json_number(j, "allocated", (int64_t)r->allocated);
    json_number(j, "compressed", (int64_t)r->compressed);
    json_number(j, "fragmented", (int64_t)r->fragmented);
    json_number(j, "end", (int64_t)r->end);
    json_array(j, "findings");
    for (guint i = 0; i < r->lines->len; i++)
        json_string(j, NULL, g_ptr_array_index(r->lines, i));
    json_end(j);
    fputs(json_text(j), stdout);
}

static void check_text(const char *file, const BlkReport *r)
{
    uint64_t found = r->errors + r->leaks;

    for (guint i = 0; i < r->lines->len; i++)
        printf("%s\n", (char *)g_ptr_array_index(r->lines, i));
    if (found > r->lines->len)
        printf("and %" PRIu64 " more\n", found - r->lines->len);
    printf("%s: %" PRIu64 " errors (%" PRIu64 " mended), %" PRIu64 " leaks (%" PRIu64 " mended), "
           "%" PRIu64 " of %" PRIu64 " units in use\n",
           file, r->errors, r->errors_fixed, r->leaks, r->leaks_fixed, r->allocated, r->total);
}

int verb_image_check(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 1, 1, &status);

    if (!o)
        return status;
    const char *file = image_arg(o, 0);
    bool repair = options_has(o, "repair");
    g_autoptr(ImageTool) t = image_tool_new(1, &error);
    g_autoptr(BlkNode) n = t ? image_open(o, file, !repair, BLK_OPEN_CHECK | BLK_OPEN_NO_BASE,
                                          BLK_AIO_THREADS, t->io, &error)
                             : NULL;
    g_autoptr(BlkReport) r = blk_report_new();
    bool ok = n && image_check(n, repair, r, &error);
    int err = ok && repair ? blk_flush(n) : 0;
    if (err)
        ok = lodge_fail_errno(&error, err, "'%s': cannot write", file);
    if (!ok)
        return answer_fail(self, error);
    if (options_has(o, "json"))
        check_json(file, n, r);
    else
        check_text(file, r);
    return answer(r->errors == r->errors_fixed && r->leaks == r->leaks_fixed);
}

/* ---- map ---- */

static void map_line(JsonOut *j, const MapEntry *e)
{
    bool placed = e->data && e->file_offset != BLK_NO_OFFSET;

    if (!j) {
        printf("%#14" PRIx64 " %#12" PRIx64 " %s %u", e->offset, e->len,
               e->data ? e->zero ? "zero" : "data" : e->zero ? "none" : "data", e->depth);
        if (placed)
            printf(" %#" PRIx64 " %s", e->file_offset, e->file);
        printf("\n");
        return;
    }
    json_object(j, NULL);
    json_number(j, "start", (int64_t)e->offset);
    json_number(j, "length", (int64_t)e->len);
    json_number(j, "depth", e->depth);
    json_bool(j, "data", e->data && !e->zero);
    json_bool(j, "zero", e->zero);
    if (placed) {
        json_number(j, "offset", (int64_t)e->file_offset);
        json_string(j, "file", e->file);
    }
    json_end(j);
}

/* Whether @b goes on where @a ends, in every respect. */
static bool map_joins(const MapEntry *a, const MapEntry *b)
{
    return a->depth == b->depth && a->data == b->data && a->zero == b->zero &&
           (a->file_offset == BLK_NO_OFFSET ? b->file_offset == BLK_NO_OFFSET
                                            : b->file_offset == a->file_offset + a->len);
}

static bool map_all(BlkNode *n, JsonOut *j, GError **error)
{
    MapEntry open = {0};

    for (uint64_t at = 0; at < n->limits.size;) {
        MapEntry e;
        int err = image_map(n, at, n->limits.size - at, &e);
        if (err)
            return lodge_fail_errno(error, err, "'%s': cannot map at %" PRIu64,
                                    blk_file_under(n)->path, at);
        at += e.len;
        if (open.len && map_joins(&open, &e)) {
            open.len += e.len;
            continue;
        }
        if (open.len)
            map_line(j, &open);
        open = e;
    }
    if (open.len)
        map_line(j, &open);
    return true;
}

int verb_image_map(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 1, 1, &status);

    if (!o)
        return status;
    g_autoptr(ImageTool) t = image_tool_new(1, &error);
    g_autoptr(BlkNode) n =
        t ? image_open(o, image_arg(o, 0), true, 0, BLK_AIO_AUTO, t->io, &error) : NULL;
    g_autoptr(JsonOut) j = options_has(o, "json") ? image_json() : NULL;
    if (j)
        json_array(j, "map");
    if (!n || !map_all(n, j, &error))
        return cli_fail(self->name, error, false);
    if (j)
        fputs(json_text(j), stdout);
    return cli_finish(STATUS_OK);
}

/* ---- snapshot ---- */

int verb_image_snapshot(const Verb *self, int argc, char **argv)
{
    static const char *const verbs[] = {"create", "apply", "delete"};
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 1, 1, &status);
    const char *verb = NULL, *which = NULL;

    if (!o)
        return status;
    for (unsigned i = 0; i < G_N_ELEMENTS(verbs); i++) {
        const char *name = options_text(o, verbs[i]);
        if (name && verb)
            lodge_fail(error ? NULL : &error, LODGE_ERROR_CONFIG,
                       "--%s: beside --%s; do one thing at a time", verbs[i], verb);
        if (name) {
            verb = verbs[i];
            which = name;
        }
    }
    if (!error && which && !*which)
        lodge_fail(&error, LODGE_ERROR_CONFIG, "--%s: is empty; give a name", verb);
    const char *file = image_arg(o, 0);
    g_autoptr(ImageTool) t = error ? NULL : image_tool_new(1, &error);
    unsigned flags = verb ? 0 : BLK_OPEN_NO_BASE;
    g_autoptr(BlkNode) n =
        t ? image_open(o, file, !verb, flags, BLK_AIO_THREADS, t->io, &error) : NULL;
    bool ok = n && (!verb || image_snapshot(n, verb, which, &error));
    int err = ok && verb ? blk_flush(n) : 0;
    if (err)
        ok = lodge_fail_errno(&error, err, "'%s': cannot write", file);
    g_autoptr(GPtrArray) list = ok ? image_snapshots(n, &error) : NULL;
    if (!list)
        return cli_fail(self->name, error, false);
    if (options_has(o, "json")) {
        g_autoptr(JsonOut) j = image_json();
        json_string(j, "file", file);
        json_snapshots(j, list);
        fputs(json_text(j), stdout);
    } else if (!verb) {
        print_snapshots(list);
    }
    return cli_finish(STATUS_OK);
}

/* ---- compare ---- */

int verb_image_compare(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 2, 2, &status);
    uint64_t offset = 0;
    bool same = false;
    ImageBar bar;

    if (!o)
        return status;
    BlkOptions first = {.file = image_arg(o, 0), .format = options_text(o, "format"),
                        .read_only = true};
    BlkOptions second = {.file = image_arg(o, 1), .format = options_text(o, "format2"),
                         .read_only = true};
    g_autoptr(ImageTool) t = image_tool_new(2, &error);
    g_autoptr(BlkNode) a =
        t ? blk_open_flags(NULL, &first, BLK_OPEN_QUIET, t->io, &error) : NULL;
    g_autoptr(BlkNode) b =
        a ? blk_open_flags(NULL, &second, BLK_OPEN_QUIET, t->io2, &error) : NULL;
    if (!b)
        return answer_fail(self, error);
    bool sizes = a->limits.size == b->limits.size;
    image_bar_init(&bar);
    bool ok = image_compare(a, b, image_bar_progress(&bar), &same, &offset, &error);
    image_bar_end(&bar);
    if (!ok)
        return answer_fail(self, error);
    if (options_has(o, "json")) {
        g_autoptr(JsonOut) j = image_json();
        json_bool(j, "same", same);
        json_bool(j, "same-size", sizes);
        if (!same)
            json_number(j, "offset", (int64_t)offset);
        fputs(json_text(j), stdout);
    } else if (!same) {
        printf("differ at offset %" PRIu64 "\n", offset);
    } else {
        printf("the same%s\n", sizes ? "" : ", but for zeros at the end of the longer one");
    }
    return answer(same && (sizes || !options_has(o, "strict")));
}

/* ---- bench ---- */

static bool bench_number(const Options *o, const char *option, uint64_t max, uint64_t *ret,
                         GError **error)
{
    const char *text = options_text(o, option);
    uint64_t v;

    if (!text)
        return true;
    if (!parse_u64(text, &v) || !v || v > max)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: \"%s\": must be 1 to %" PRIu64, option,
                          text, max);
    *ret = v;
    return true;
}

/* The place of --@option's text among @words; 0 where it is not given. */
static bool bench_choice(const Options *o, const char *option, const char *const *words,
                         unsigned *ret, GError **error)
{
    const char *text = options_text(o, option);

    *ret = 0;
    for (unsigned i = 0; text && words[i]; i++) {
        if (!strcmp(words[i], text)) {
            *ret = i;
            return true;
        }
    }
    if (!text)
        return true;
    g_autofree char *all = g_strjoinv(", ", (char **)words);
    return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: \"%s\": not known; it can be %s", option,
                      text, all);
}

static void bench_print(const Options *o, BlkNode *n, const BenchArgs *a, const BenchResult *r)
{
    double s = (double)MAX(r->ns, 1) / NS_PER_SEC;

    if (options_has(o, "json")) {
        g_autoptr(JsonOut) j = image_json();
        json_string(j, "file", image_arg(o, 0));
        json_string(j, "format", n->drv->name);
        json_string(j, "engine", blk_engine(n));
        json_string(j, "op", a->op == BLK_READ ? "read" : "write");
        json_number(j, "bytes", a->bytes);
        json_number(j, "depth", a->depth);
        json_number(j, "count", (int64_t)r->count);
        json_number(j, "ns", r->ns);
        json_double(j, "requests-per-second", (double)r->count / s);
        json_double(j, "bytes-per-second", (double)r->bytes / s);
        fputs(json_text(j), stdout);
        return;
    }
    printf("%s, %s, %s of %u bytes, depth %u: %.0f requests/s, %.1f MiB/s\n", n->drv->name,
           blk_engine(n), a->op == BLK_READ ? "reads" : "writes", a->bytes, a->depth,
           (double)r->count / s, (double)r->bytes / s / (double)MIB);
}

int verb_image_bench(const Verb *self, int argc, char **argv)
{
    static const char *const caches[] = {"writeback", "none", "unsafe", NULL};
    static const char *const aios[] = {"auto", "io_uring", "threads", "libaio", NULL};
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 1, 1, &status);
    uint64_t depth = 32, bytes = 4096, count = 100000, every = 0;
    unsigned cache = 0, aio = 0;
    BenchResult result;

    if (!o)
        return status;
    bool ok = bench_number(o, "depth", BENCH_DEPTH_MAX, &depth, &error) &&
              image_size(o, "bytes", &bytes, &error) &&
              bench_number(o, "count", UINT32_MAX, &count, &error) &&
              bench_number(o, "flush-every", UINT32_MAX, &every, &error) &&
              bench_choice(o, "cache", caches, &cache, &error) &&
              bench_choice(o, "aio", aios, &aio, &error);
    if (ok && bytes > 64 * MIB)
        ok = lodge_fail(&error, LODGE_ERROR_LIMIT, "--bytes: over 64M");
    bool write = options_has(o, "write");
    BlkOptions bo = {.file = image_arg(o, 0), .format = options_text(o, "format"),
                     .base_format = options_text(o, "base-format"), .read_only = !write,
                     .cache = (BlkCache)cache, .aio = (BlkAio)aio};
    g_autoptr(ImageTool) t = ok ? image_tool_new(1, &error) : NULL;
    g_autoptr(BlkNode) n = t ? blk_open_flags(NULL, &bo, BLK_OPEN_QUIET, t->io, &error) : NULL;
    BenchArgs a = {.op = write ? BLK_WRITE : BLK_READ, .depth = (unsigned)depth,
                   .bytes = (uint32_t)bytes, .random = options_has(o, "random"), .count = count,
                   .flush_every = write ? (unsigned)every : 0};
    if (!n || !image_bench(n, &a, &result, &error))
        return cli_fail(self->name, error, false);
    bench_print(o, n, &a, &result);
    return cli_finish(STATUS_OK);
}
