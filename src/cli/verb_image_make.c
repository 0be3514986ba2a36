/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs of "lodge image" that write: create, convert, commit, rebase, resize. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lodge/device.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "verb_image.h"

static void print_made(const Options *o, const char *file, const char *format, uint64_t size)
{
    if (!options_has(o, "json"))
        return;
    g_autoptr(JsonOut) j = image_json();
    json_string(j, "file", file);
    json_string(j, "format", format);
    json_number(j, "size", (int64_t)size);
    fputs(json_text(j), stdout);
}

/* @options: borrowed; NULL: @error is set already. */
static bool fill_make(const Options *o, const char *file, const char *option, GHashTable *options,
                      BlkMake *m, GError **error)
{
    if (!options)
        return false;
    *m = (BlkMake){.file = file, .format = image_new_format(o, option, file),
                   .base = options_text(o, "base"), .base_format = options_text(o, "base-format"),
                   .options = options, .overwrite = options_has(o, "force")};
    return !m->base_format || m->base ||
           lodge_fail(error, LODGE_ERROR_CONFIG, "--base-format: there is no --base");
}

int verb_image_create(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 1, 1, &status);
    BlkMake m = {0};

    if (!o)
        return status;
    const char *file = image_arg(o, 0);
    if (image_list_options(o, image_new_format(o, "format", file)))
        return cli_finish(STATUS_OK);
    if (options_has(o, "size") && image_size(o, "size", &m.size, &error) && !m.size)
        lodge_fail(&error, LODGE_ERROR_CONFIG, "--size: a disk has at least 1 byte");
    uint64_t size = m.size;
    g_autoptr(ImageTool) t = error ? NULL : image_tool_new(1, &error);
    g_autoptr(GHashTable) options = t ? image_create_options(o, &error) : NULL;
    bool ok = fill_make(o, file, "format", options, &m, &error);
    m.size = size;
    if (!ok || !blk_make(&m, t->io, &error))
        return cli_fail(self->name, error, false);
    BlkOptions bo = {.file = file, .format = m.format, .read_only = true, .aio = BLK_AIO_THREADS};
    g_autoptr(BlkNode) n = blk_open_flags(
        NULL, &bo, BLK_OPEN_QUIET | BLK_OPEN_NO_BASE | BLK_OPEN_UNLOCKED, t->io, &error);
    if (!n)
        return cli_fail(self->name, error, false);
    print_made(o, file, n->drv->name, blk_base_info(n, NULL, NULL).size);
    return cli_finish(STATUS_OK);
}

int verb_image_convert(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 2, 2, &status);
    ConvertArgs a = {0};
    CopyResult result;
    ImageBar bar;

    if (!o)
        return status;
    if (image_list_options(o, image_new_format(o, "to", image_arg(o, 1))))
        return cli_finish(STATUS_OK);
    g_autoptr(ImageTool) t = image_tool_new(2, &error);
    g_autoptr(GHashTable) options = t ? image_create_options(o, &error) : NULL;
    bool ok = fill_make(o, image_arg(o, 1), "to", options, &a.to, &error);
    a.from = image_arg(o, 0);
    a.from_format = options_text(o, "from");
    a.compress = options_has(o, "compress");
    a.sync = options_has(o, "sync") || a.to.overwrite; /* the old contents are not to be lost */
    image_bar_init(&bar);
    a.progress = image_bar_progress(&bar);
    ok = ok && image_convert(&a, t->io, t->io2, &result, &error);
    image_bar_end(&bar);
    if (!ok)
        return cli_fail(self->name, error, false);
    if (options_has(o, "json")) {
        g_autoptr(JsonOut) j = image_json();
        json_string(j, "file", a.to.file);
        json_string(j, "format", a.to.format);
        json_number(j, "written", (int64_t)result.written);
        fputs(json_text(j), stdout);
    }
    return cli_finish(STATUS_OK);
}

static void print_copied(const Options *o, const char *file, const CopyResult *r)
{
    if (!options_has(o, "json"))
        return;
    g_autoptr(JsonOut) j = image_json();
    json_string(j, "file", file);
    json_number(j, "written", (int64_t)r->written);
    json_number(j, "zeroed", (int64_t)r->zeroed);
    fputs(json_text(j), stdout);
}

int verb_image_commit(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 1, 1, &status);
    CopyResult result = {0};
    ImageBar bar;

    if (!o)
        return status;
    const char *file = image_arg(o, 0);
    g_autoptr(ImageTool) t = image_tool_new(1, &error);
    g_autoptr(BlkNode) n =
        t ? image_open(o, file, false, BLK_OPEN_BASE_RW, BLK_AIO_AUTO, t->io, &error) : NULL;
    image_bar_init(&bar);
    bool ok = n && image_commit(n, options_has(o, "keep"), image_bar_progress(&bar), &result,
                                &error);
    image_bar_end(&bar);
    if (!ok)
        return cli_fail(self->name, error, false);
    print_copied(o, file, &result);
    return cli_finish(STATUS_OK);
}

/* A base that is not there is often a slip: a relative one is looked up from here. */
static void warn_of_base(const RebaseArgs *a)
{
    struct stat st;

    if (!blk_is_remote(a->base) && stat(a->base, &st) < 0)
        lodge_warn("image rebase: base '%s': %s; '%s' records it all the same, and can be opened "
                   "when it is there",
                   a->base, g_strerror(errno), a->file);
}

int verb_image_rebase(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 1, 1, &status);
    CopyResult result = {0};
    ImageBar bar;

    if (!o)
        return status;
    RebaseArgs a = {.file = image_arg(o, 0), .format = options_text(o, "format"),
                    .base = options_text(o, "base"), .base_format = options_text(o, "base-format"),
                    .old_base_format = options_text(o, "old-base-format"),
                    .unsafe = options_has(o, "unsafe")};
    if (!a.base == !options_has(o, "no-base"))
        lodge_fail(&error, LODGE_ERROR_CONFIG, "give either --base FILE or --no-base");
    else if (a.base && !*a.base)
        lodge_fail(&error, LODGE_ERROR_CONFIG, "--base: is empty; name a file");
    g_autoptr(ImageTool) t = error ? NULL : image_tool_new(1, &error);
    image_bar_init(&bar);
    a.progress = image_bar_progress(&bar);
    bool ok = t && image_rebase(&a, t->io, &result, &error);
    image_bar_end(&bar);
    if (!ok)
        return cli_fail(self->name, error, false);
    if (a.unsafe && a.base)
        warn_of_base(&a);
    print_copied(o, a.file, &result);
    return cli_finish(STATUS_OK);
}

int verb_image_resize(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 1, 2, &status);
    uint64_t size = 0;

    if (!o)
        return status;
    const char *file = image_arg(o, 0), *text = o->args->len > 1 ? image_arg(o, 1) : "";
    bool more = text[0] == '+';
    if (!parse_size(text + more, &size))
        lodge_fail(&error, LODGE_ERROR_CONFIG, "\"%s\": no size; write for instance 20G or +1G",
                   text);
    g_autoptr(ImageTool) t = error ? NULL : image_tool_new(1, &error);
    g_autoptr(BlkNode) n = t ? image_open(o, file, false, 0, BLK_AIO_THREADS, t->io, &error) : NULL;
    if (n && more && !u64_add_ok(size, blk_base_info(n, NULL, NULL).size, &size))
        lodge_fail(&error, LODGE_ERROR_LIMIT, "\"%s\": is too much", text);
    bool ok = n && !error && image_resize(n, size, options_has(o, "shrink"), &error);
    int err = ok ? blk_flush(n) : 0;
    if (err)
        ok = lodge_fail_errno(&error, err, "'%s': cannot write", file);
    if (!ok)
        return cli_fail(self->name, error, false);
    print_made(o, file, n->drv->name, blk_base_info(n, NULL, NULL).size);
    return cli_finish(STATUS_OK);
}
