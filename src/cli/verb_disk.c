/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge disk": the disks of a running machine. What is done with them is the machine's, asked for
 * by its control socket; a merge is looked at until it is over, and given up by Ctrl-C.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lodge/device.h"
#include "lodge/error.h"

#include "client.h"
#include "definition.h"
#include "registry.h"
#include "verb_image.h"

#define ANSWER_SECONDS 60
#define LOOK_US (G_USEC_PER_SEC / 10)

const OptSpec disk_options_table[] = {
    {"format", 0, "FORMAT",
     "overlay: its format, qcow2 unless said; umlcow, vhd, vdi and vmdk cannot all be merged while "
     "the machine runs."},
    {"existing", 0, NULL, "overlay: FILE is there already, and names the disk's image as its base."},
    {"shrink", 0, NULL, "resize: allow a smaller size: what lies behind it is lost."},
    {"speed", 0, "BYTES", "commit: copy no more than this in a second."},
    OPT_JSON,
    {NULL},
};

typedef struct DiskVerb {
    const Options *o;
    const char *machine;
    Client *c;
    bool json;
} DiskVerb;

static volatile sig_atomic_t interrupted; /* set by a signal, read by the one loop below */

static void on_interrupt(int sig)
{
    interrupted = 1;
}

static int64_t soon(void)
{
    return g_get_monotonic_time() + ANSWER_SECONDS * G_TIME_SPAN_SECOND;
}

static const char *word(const DiskVerb *v, unsigned i)
{
    return i < v->o->args->len ? g_ptr_array_index(v->o->args, i) : NULL;
}

static bool call(DiskVerb *v, JsonOut *request, GError **error)
{
    return client_call(v->c, request, soon(), error).node != NULL;
}

/* ---- the machine's definition ---- */

/* Split at single commas, doubled ones are one of the text; transfer full (char *). */
static GPtrArray *split_value(const char *value)
{
    GPtrArray *parts = g_ptr_array_new_with_free_func(g_free);
    GString *s = g_string_new(NULL);

    for (const char *p = value; *p; p++) {
        if (*p != ',' || p[1] == ',') {
            g_string_append_c(s, *p);
            p += *p == ',';
        } else {
            g_ptr_array_add(parts, g_string_free(s, FALSE));
            s = g_string_new(NULL);
        }
    }
    g_ptr_array_add(parts, g_string_free(s, FALSE));
    return parts;
}

static void append_part(GString *s, const char *part)
{
    if (s->len)
        g_string_append_c(s, ',');
    for (; *part; part++) {
        g_string_append_c(s, *part);
        if (*part == ',')
            g_string_append_c(s, ',');
    }
}

/* Whether @path, as seen from @folder, is the file @st. */
static bool names_file(const char *folder, const char *path, const struct stat *st)
{
    g_autofree char *full = g_canonicalize_filename(path, folder);
    struct stat other;

    return stat(full, &other) == 0 && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

/* The value of --disk with another image, NULL where it is about another file; transfer full. */
static char *change_value(const char *value, const char *folder, const struct stat *old,
                          const char *file, const char *format)
{
    static const char *const replaced[] = {"file=", "base=", "format=", "base-format="};
    g_autoptr(GPtrArray) parts = split_value(value);
    g_autofree char *said = g_strdup_printf("format=%s", format);
    g_autoptr(GString) s = g_string_new(NULL);
    bool found = false;

    for (guint i = 0; i < parts->len; i++) {
        const char *part = g_ptr_array_index(parts, i);
        const char *path = g_str_has_prefix(part, "file=")  ? part + 5
                           : i == 0 && !strchr(part, '=') ? part
                                                           : NULL;
        found = found || (path && names_file(folder, path, old));
    }
    if (!found)
        return NULL;
    append_part(s, strchr(file, '=') ? "file=" : "");
    for (const char *p = file; *p; p++)
        g_string_append(s, *p == ',' ? ",," : (char[]){*p, 0});
    for (guint i = 0; i < parts->len; i++) {
        const char *part = g_ptr_array_index(parts, i);
        bool keep = i > 0 || strchr(part, '=');
        for (unsigned k = 0; k < G_N_ELEMENTS(replaced); k++)
            keep = keep && !g_str_has_prefix(part, replaced[k]);
        if (keep)
            append_part(s, part);
    }
    append_part(s, said);
    return g_string_free(g_steal_pointer(&s), FALSE);
}

/* The disk that was in the file @old is in @file from now on: so the machine's definition, where it
 * has one, says. *@ret_done: it was changed. */
static bool change_definition(const char *machine, const char *old, const char *file,
                              const char *format, bool *ret_done, GError **error)
{
    g_autoptr(Definition) d = definition_load(machine, NULL);
    g_autofree char *dir = registry_state_dir(machine);
    struct stat st;

    *ret_done = false;
    if (!d || stat(old, &st) < 0)
        return true;
    for (guint i = 0; i < d->words->len; i++) {
        const char *word = g_ptr_array_index(d->words, i);
        char *value = g_str_has_prefix(word, "--disk=")
                          ? change_value(word + 7, d->folder, &st, file, format) : NULL;
        if (!value)
            continue;
        g_free(g_ptr_array_index(d->words, i));
        g_ptr_array_index(d->words, i) = g_strconcat("--disk=", value, NULL);
        g_free(value);
        *ret_done = true;
    }
    return !*ret_done || definition_save(d, dir, error);
}

/* ---- list ---- */

static void print_chain(Jv image)
{
    for (unsigned depth = 1; jv_kind(image) == JV_OBJECT; depth++) {
        g_autofree char *size = image_bytes_text((uint64_t)jv_int(jv_get(image, "virtual-size")));
        printf("%*s%s (%s, %s)\n", (int)(2 * depth), "", jv_text(jv_get(image, "filename")),
               jv_text(jv_get(image, "format")), size);
        image = jv_get(image, "backing-image");
    }
}

static void print_disk(Jv disk, JsonOut *j)
{
    Jv in = jv_get(disk, "inserted");

    if (j) {
        json_object(j, NULL);
        json_string(j, "device", jv_text(jv_get(disk, "device")));
        if (jv_kind(in) == JV_OBJECT) {
            json_string(j, "disk", jv_text(jv_get(in, "node-name")));
            json_bool(j, "read-only", jv_bool(jv_get(in, "ro")));
            jv_print(jv_get(in, "image"), j, "image");
        }
        json_end(j);
        return;
    }
    printf("%s:%s\n", jv_text(jv_get(disk, "device")),
           jv_kind(in) != JV_OBJECT        ? " empty"
           : jv_bool(jv_get(in, "ro")) ? " read-only"
                                           : "");
    print_chain(jv_get(in, "image"));
}

static bool disk_list(DiskVerb *v, GError **error)
{
    Jv list = client_call(v->c, client_begin("query-block"), soon(), error);

    if (!list.node)
        return false;
    JsonOut *j = v->json ? image_json() : NULL;
    if (j)
        json_array(j, "disks");
    for (size_t i = 0; i < jv_length(list); i++)
        print_disk(jv_at(list, i), j);
    if (j) {
        json_end(j);
        fputs(json_text(j), stdout);
        json_out_free(j);
    }
    return true;
}

/* ---- overlay, resize ---- */

/* As this process sees the path: the machine may stand in another folder. */
static char *full_path(const char *path)
{
    return g_canonicalize_filename(path, NULL);
}

static char *top_file(DiskVerb *v, const char *disk, const char *key, GError **error);

/* The disk is in @now from now on, and was in @old: say so, and have the definition say so. */
static bool tell_change(DiskVerb *v, const char *old, bool merged, GError **error)
{
    const char *disk = word(v, 2);
    g_autofree char *now = top_file(v, disk, "file", error);
    g_autofree char *format = now ? top_file(v, disk, "drv", NULL) : NULL;
    bool defined = false;

    if (!now || !format || !change_definition(v->machine, old, now, format, &defined, error))
        return false;
    if (v->json) {
        g_autoptr(JsonOut) j = image_json();
        json_string(j, "file", now);
        json_string(j, merged ? "merged" : "base", old);
        json_bool(j, "defined", defined);
        fputs(json_text(j), stdout);
        return true;
    }
    if (merged)
        printf("%s: '%s' has everything and is in use; '%s' is empty, remove it\n", disk, now, old);
    else
        printf("%s: '%s' is in use, and '%s' is its base and stays as it is\n", disk, now, old);
    if (defined)
        printf("%s: the definition of machine %s says so\n", disk, v->machine);
    else
        printf("%s: name '%s' at the next start\n", disk, now);
    return true;
}

static bool disk_overlay(DiskVerb *v, GError **error)
{
    g_autofree char *path = full_path(word(v, 3));
    g_autofree char *old = top_file(v, word(v, 2), "file", error);
    const char *format = options_text(v->o, "format");

    if (!old)
        return false;
    JsonOut *j = client_begin("blockdev-snapshot-sync");

    json_string(j, "device", word(v, 2));
    json_string(j, "snapshot-file", path);
    if (format)
        json_string(j, "format", format);
    if (options_has(v->o, "existing"))
        json_string(j, "mode", "existing");
    return call(v, j, error) && tell_change(v, old, false, error);
}

/* The disk's size now; false with the error. */
static bool size_now(DiskVerb *v, const char *disk, int64_t *ret, GError **error)
{
    Jv list = client_call(v->c, client_begin("query-block"), soon(), error);

    if (!list.node)
        return false;
    *ret = 0;
    for (size_t i = 0; i < jv_length(list); i++) {
        Jv in = jv_get(jv_at(list, i), "inserted");
        if (!g_strcmp0(jv_text(jv_get(jv_at(list, i), "device")), disk) ||
            !g_strcmp0(jv_text(jv_get(in, "node-name")), disk))
            *ret = jv_int(jv_get(jv_get(in, "image"), "virtual-size"));
    }
    return true; /* one that is not there is told of by the machine */
}

static bool disk_resize(DiskVerb *v, GError **error)
{
    const char *disk = word(v, 2), *text = word(v, 3);
    uint64_t size;
    int64_t now;

    if (!parse_size(text, &size) || !size || size > INT64_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': is no size; give bytes, or a number with K, M, G or T", text);
    if (!size_now(v, disk, &now, error))
        return false;
    if ((int64_t)size < now && !options_has(v->o, "shrink"))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: has %" G_GINT64_FORMAT " bytes; less would lose the rest: --shrink "
                          "says that it is meant", disk, now);
    JsonOut *j = client_begin("block_resize");
    json_string(j, "device", disk);
    json_number(j, "size", (int64_t)size);
    return call(v, j, error);
}

/* ---- commit ---- */

/* The job of that name: false where there is none, or with the error. */
static bool look(DiskVerb *v, const char *id, bool *ret_ready, int64_t *ret_done, int64_t *ret_len,
                 GError **error)
{
    Jv list = client_call(v->c, client_begin("query-block-jobs"), soon(), error);

    for (size_t i = 0; list.node && i < jv_length(list); i++) {
        Jv job = jv_at(list, i);
        if (g_strcmp0(jv_text(jv_get(job, "device")), id))
            continue;
        *ret_ready = jv_bool(jv_get(job, "ready"));
        *ret_done = jv_int(jv_get(job, "offset"));
        *ret_len = jv_int(jv_get(job, "len"));
        return true;
    }
    return false;
}

static bool tell_job(DiskVerb *v, const char *command, const char *id, GError **error)
{
    JsonOut *j = client_begin(command);

    json_string(j, "device", id);
    return call(v, j, error);
}

/* Watch the job until it is over, and let it finish once it is ready. */
static bool follow(DiskVerb *v, const char *id, GError **error)
{
    g_autoptr(GError) why = NULL;
    bool ready = false, told = false, given_up = false;
    int64_t done, len;
    ImageBar bar;

    image_bar_init(&bar);
    const ImageProgress *progress = image_bar_progress(&bar);
    while (look(v, id, &ready, &done, &len, &why)) {
        const char *say = interrupted && !given_up ? "block-job-cancel"
                          : ready && !told         ? "block-job-complete"
                                                   : NULL;
        if (progress)
            progress->tell(progress->opaque, (uint64_t)done, (uint64_t)len);
        given_up |= interrupted;
        told |= ready;
        /* It may have come to its end by itself: the next look says so. */
        if (!say || !tell_job(v, say, id, NULL))
            g_usleep(LOOK_US);
    }
    image_bar_end(&bar);
    if (why) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    return !given_up || lodge_fail(error, LODGE_ERROR_STATE,
                                   "given up; the overlay stays in use and nothing is lost");
}

/* What is said under @key of the image on top of @disk; transfer full, NULL with the error. */
static char *top_file(DiskVerb *v, const char *disk, const char *key, GError **error)
{
    Jv list = client_call(v->c, client_begin("query-block"), soon(), error);

    for (size_t i = 0; list.node && i < jv_length(list); i++) {
        Jv in = jv_get(jv_at(list, i), "inserted");
        if (!g_strcmp0(jv_text(jv_get(jv_at(list, i), "device")), disk) ||
            !g_strcmp0(jv_text(jv_get(in, "node-name")), disk))
            return g_strdup(jv_text(jv_get(in, key)));
    }
    if (list.node)
        lodge_fail(error, LODGE_ERROR_NOT_FOUND,
                   "%s: machine %s has no such disk; lodge disk %s list shows them", disk,
                   v->machine, v->machine);
    return NULL;
}

static bool disk_commit(DiskVerb *v, GError **error)
{
    const char *disk = word(v, 2), *speed = options_text(v->o, "speed");
    g_autofree char *id = g_strdup_printf("commit-%s", disk);
    g_autoptr(GError) why = NULL;
    uint64_t rate = 0;

    if (speed && (!parse_size(speed, &rate) || rate > INT64_MAX))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--speed: '%s': is no size; give bytes, or a number with K, M or G",
                          speed);
    g_autofree char *top = top_file(v, disk, "file", &why);
    if (!top) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    g_autofree char *base = top_file(v, disk, "backing_file", NULL);
    JsonOut *j = client_begin("block-commit");
    json_string(j, "device", disk);
    json_string(j, "job-id", id);
    if (base)
        json_string(j, "base", base);
    json_number(j, "speed", (int64_t)rate);
    if (!call(v, j, error) || !follow(v, id, error))
        return false;
    g_autofree char *now = top_file(v, disk, "file", error);
    if (!now)
        return false;
    if (!strcmp(now, top))
        return lodge_fail(error, LODGE_ERROR_HOST,
                          "%s: '%s' was not merged and stays in use, nothing is lost; the machine's "
                          "messages say why", disk, top);
    return tell_change(v, top, true, error);
}

/* ---- the verb ---- */

static const struct {
    const char *name;
    unsigned words; /* with the machine and its own */
    bool (*run)(DiskVerb *v, GError **error);
    const char *options[3]; /* that only it takes */
} actions[] = {
    {"list", 2, disk_list, {NULL}},
    {"overlay", 4, disk_overlay, {"format", "existing", NULL}},
    {"commit", 3, disk_commit, {"speed", NULL}},
    {"resize", 4, disk_resize, {"shrink", NULL}},
};

static int find_action(const Options *o, GError **error)
{
    const char *name = o->args->len > 1 ? g_ptr_array_index(o->args, 1) : "list";
    int found = -1;

    for (unsigned i = 0; i < G_N_ELEMENTS(actions); i++)
        if (!strcmp(actions[i].name, name))
            found = (int)i;
    if (found < 0)
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "'%s': not known; it can be list, overlay, commit or resize", name);
    else if (o->args->len > 1 && o->args->len != actions[found].words)
        lodge_fail(error, LODGE_ERROR_CONFIG, "%s: takes %u words behind the machine's name%s",
                   name, actions[found].words - 1, "; lodge help disk shows them");
    else
        return found;
    return -1;
}

/* Options of other actions are refused. */
static bool check_options(const Options *o, unsigned which, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(actions); i++)
        for (const char *const *p = actions[i].options; *p; p++)
            if (i != which && options_has(o, *p))
                return lodge_fail(error, LODGE_ERROR_CONFIG,
                                  "--%s: is for %s only; leave it out", *p, actions[i].name);
    return true;
}

int verb_disk(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 4, &error);

    if (!o)
        return cli_fail(self->name, error, false);
    if (!o->args->len) {
        lodge_fail(&error, LODGE_ERROR_CONFIG, "no machine named; say lodge disk NAME");
        cli_fail(self->name, error, false);
        return STATUS_USAGE;
    }
    DiskVerb v = {.o = o, .machine = g_ptr_array_index(o->args, 0),
                  .json = options_has(o, "json")};
    int which = find_action(o, &error);
    if (which < 0 || !check_options(o, (unsigned)which, &error)) {
        cli_fail(self->name, error, false);
        return STATUS_USAGE;
    }
    g_autoptr(Client) c = client_connect(v.machine, soon(), &error);
    v.c = c;
    signal(SIGINT, on_interrupt);
    if (!c || !actions[which].run(&v, &error))
        return cli_fail(self->name, error, false);
    return cli_finish(STATUS_OK);
}
