/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The family "lodge image": its table, and what its verbs share. */
#include "verb_image.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "registry.h"

#define BAR_WIDTH 30
#define BAR_EVERY_NS (NS_PER_SEC / 10)

#define OPT_FORMAT {"format", 0, "FORMAT", "The image's format, instead of looking at its bytes."}
#define OPT_BASE_FORMAT                                                                           \
    {"base-format", 0, "FORMAT", "The base's format, where the image does not say it (raw)."}
#define OPT_MAKE_OPTION                                                                           \
    {"option", 'o', "KEY=VALUE", "An option of the format; --option help lists them.", NULL,  \
     OPT_REPEAT}
#define OPT_FORCE {"force", 0, NULL, "Replace a file that is there."}

static const OptSpec create_options[] = {
    {"format", 0, "FORMAT",
     "Of the new image (by the end of its name: .qcow2, .vhd, .vdi, .vmdk, .cow; else raw, or with "
     "a base umlcow)."},
    {"base", 0, "FILE", "The new image is an overlay of this one."},
    OPT_BASE_FORMAT,
    {"size", 0, "SIZE", "Of the disk (the base's)."},
    OPT_MAKE_OPTION,
    OPT_FORCE,
    OPT_JSON,
    {NULL},
};

static const VerbExample create_examples[] = {
    {"lodge image create --size 20G disk.img",
     "A raw image; it takes no room until it is written."},
    {"lodge image create --base debian.img web.cow", "An overlay for User-Mode Linux and Lodge."},
    {NULL},
};

static const OptSpec convert_options[] = {
    {"from", 0, "FORMAT", "The source's format, instead of looking at its bytes."},
    {"to", 0, "FORMAT", "The target's format (by the end of its name, else raw)."},
    {"base", 0, "FILE", "The target is an overlay of this, with what differs."},
    OPT_BASE_FORMAT,
    {"compress", 0, NULL, "Store it compressed, where the format can."},
    OPT_MAKE_OPTION,
    {"sync", 0, NULL, "Return when all is on the disk, not only in the host's memory."},
    OPT_FORCE,
    OPT_JSON,
    {NULL},
};

static const VerbExample convert_examples[] = {
    {"lodge image convert web.cow web.img", "An overlay and its base become one raw image."},
    {NULL},
};

static const OptSpec info_options[] = {
    OPT_FORMAT,
    {"chain", 0, NULL, "Also of all images below."},
    OPT_BASE_FORMAT,
    OPT_JSON,
    {NULL},
};

static const OptSpec check_options[] = {
    OPT_FORMAT,
    OPT_BASE_FORMAT,
    {"repair", 0, NULL, "Mend what can be mended."},
    OPT_JSON,
    {NULL},
};

static const OptSpec commit_options[] = {
    OPT_FORMAT,
    OPT_BASE_FORMAT,
    {"keep", 0, NULL, "Leave in the overlay what it had; else it is empty afterwards."},
    OPT_JSON,
    {NULL},
};

static const OptSpec rebase_options[] = {
    OPT_FORMAT,
    {"base", 0, "FILE", "The new base."},
    {"no-base", 0, NULL, "The image stands by itself from now on."},
    {"base-format", 0, "FORMAT", "The new base's format (raw)."},
    {"old-base-format", 0, "FORMAT", "The old base's, where the image does not say it (raw)."},
    {"unsafe", 0, NULL,
     "Only write down the new base: for one that was moved or renamed. With another one, the "
     "disk's contents change."},
    OPT_JSON,
    {NULL},
};

static const VerbExample rebase_examples[] = {
    {"lodge image rebase --unsafe --base /images/debian.img web.cow", "After the base was moved."},
    {NULL},
};

static const OptSpec resize_options[] = {
    OPT_FORMAT,
    OPT_BASE_FORMAT,
    {"shrink", 0, NULL, "Allow a smaller size: what lies behind it is lost."},
    OPT_JSON,
    {NULL},
};

static const OptSpec map_options[] = {
    OPT_FORMAT,
    OPT_BASE_FORMAT,
    OPT_JSON,
    {NULL},
};

static const OptSpec snapshot_options[] = {
    OPT_FORMAT,
    {"create", 0, "NAME", "Take one."},
    {"apply", 0, "NAME", "Make the disk what it was then. NAME may be an ID."},
    {"delete", 0, "NAME", "Forget one."},
    OPT_JSON,
    {NULL},
};

static const OptSpec compare_options[] = {
    {"format", 0, "FORMAT", "Of the first image, instead of looking at its bytes."},
    {"format2", 0, "FORMAT", "Of the second one."},
    {"strict", 0, NULL, "Images of different sizes differ, even where one has only zeros more."},
    OPT_JSON,
    {NULL},
};

static const OptSpec bench_options[] = {
    OPT_FORMAT,
    OPT_BASE_FORMAT,
    {"write", 0, NULL, "Write zeros instead of reading: the contents are lost."},
    {"depth", 0, "N", "Requests under way, 1 to 256 (32)."},
    {"bytes", 0, "SIZE", "Of a request, up to 64M (4K)."},
    {"count", 0, "N", "Requests (100000)."},
    {"random", 0, NULL, "At random places, the same in each run."},
    {"flush-every", 0, "N", "A flush after so many writes."},
    {"cache", 0, "writeback|none|unsafe", "As for lodge run --disk (writeback)."},
    {"aio", 0, "auto|io_uring|threads|libaio", "As for lodge run --disk (auto)."},
    OPT_JSON,
    {NULL},
};

static const OptSpec serve_options[] = {
    OPT_FORMAT,
    OPT_BASE_FORMAT,
    {"export", 0, "NAME", "The export's name; who asks for none gets it too."},
    {"listen", 0, "ADDR[:PORT]",
     "Serve on TCP, on a number as address (127.0.0.1:10809); port 0: one that is free."},
    {"socket", 0, "PATH", "Serve on a Unix socket instead."},
    {"writable", 0, NULL, "Clients may write; else they can only read."},
    {"read-only", 0, NULL, "Clients can only read, as they do unless said."},
    {"shared", 0, "N", "So many clients at once, 1 to 64 (8); more wait."},
    {"once", 0, NULL, "End when the last client has left."},
    OPT_JSON,
    {NULL},
};

static const VerbExample serve_examples[] = {
    {"lodge image serve web.cow", "Others read nbd://127.0.0.1:10809/."},
    {"lodge image serve --writable --socket /tmp/web.sock --export web web.qcow2",
     "At nbd+unix:///web?socket=/tmp/web.sock, for this user's programs only."},
    {NULL},
};

const Verb image_verbs[] = {
    {"image create", "[OPTION]... FILE", "make an image",
     "Makes FILE. Without a base it reads as zeros and needs a size; with one it reads as the "
     "base.",
     create_options, create_examples, NULL, verb_image_create},
    {"image convert", "[OPTION]... SRC DST", "copy an image into another format",
     "Copies the disk that SRC and its bases make up. What reads as zeros takes no room in DST.",
     convert_options, convert_examples, NULL, verb_image_convert},
    {"image info", "[OPTION]... FILE", "tell what an image is",
     "Also while a machine uses it; what it tells may then be out of date.", info_options, NULL,
     NULL, verb_image_info},
    {"image check", "[--repair] [OPTION]... FILE", "look for damage in an image",
     "Reads all of the image's tables. A leak is room that nothing uses: a waste, but no "
     "damage.\n\n"
     "The status is 0 where nothing is wrong, or all of it was mended; 1 where errors or leaks are "
     "left (--json counts them, each by itself); 2 or more where that was not to be found out, as "
     "in a raw image, which has no tables.",
     check_options, NULL, NULL, verb_image_check},
    {"image commit", "[--keep] [OPTION]... FILE", "write an overlay into its base",
     "Afterwards the base has what the overlay FILE had. Other overlays of the same base are "
     "broken by that; those of User-Mode Linux are refused from then on, as the base's time tells, "
     "while FILE's header follows.",
     commit_options, NULL, NULL, verb_image_commit},
    {"image rebase", "[OPTION]... FILE", "give an overlay another base",
     "The disk reads as before: what the new base has otherwise is copied into FILE first. With "
     "--unsafe the new base need not be there yet, and is only warned of.",
     rebase_options, rebase_examples, NULL, verb_image_rebase},
    {"image resize", "[--shrink] [OPTION]... FILE [+]SIZE", "change a disk's size",
     "With a plus sign, by so much. What is new reads as zeros; the guest's partitions and file "
     "systems are not changed. The status is 0 only where the disk has that size now.",
     resize_options, NULL, NULL, verb_image_resize},
    {"image map", "[OPTION]... FILE", "show where a disk's bytes are stored",
     "One line a stretch: where it begins on the disk, its length, what it is (data, zero, none), "
     "how deep in the chain of bases the image is that has it, and where in which file.",
     map_options, NULL, NULL, verb_image_map},
    {"image snapshot", "[--create NAME|--apply NAME|--delete NAME] [OPTION]... FILE",
     "work with snapshots inside an image",
     "Without an option, lists them. Formats without snapshots have overlays: lodge image create "
     "--base.",
     snapshot_options, NULL, NULL, verb_image_snapshot},
    {"image compare", "[OPTION]... FILE1 FILE2", "say whether two disks have the same contents",
     "The status is 0 where they have, 1 where they differ, 2 or more where that was not to be "
     "found out, as an image cannot be opened or read.",
     compare_options, NULL, NULL, verb_image_compare},
    {"image bench", "[OPTION]... FILE", "measure how fast an image is",
     "Reads or writes FILE as a machine's disk would, and tells requests and bytes a second.",
     bench_options, NULL, NULL, verb_image_bench},
    {"image serve", "[OPTION]... FILE", "offer a disk to other programs over NBD",
     "Serves the disk that FILE and its bases make up, whatever their format, as a network block "
     "device, and prints its address when clients may come: for qemu-img, nbd-client, nbdcopy, "
     "nbdkit, or --disk of lodge run. It runs until Ctrl-C or SIGTERM, or with --once until the "
     "last client has left; then all that was written is on the disk. FILE is locked meanwhile as "
     "a machine would lock it.\n\n"
     "There is no password and no encryption: who can connect can read the disk, and with "
     "--writable change it. A socket of --socket can be opened by its owner only. Started by "
     "systemd, or another program that passes a listening socket that way (LISTEN_FDS), it serves "
     "on that, and prints nothing.",
     serve_options, serve_examples, NULL, verb_image_serve},
    {NULL},
};

/* ---- loops ---- */

/* Context: see blk_set_holder_lookup(). */
static char *find_holder(void *opaque, uint64_t dev, uint64_t ino)
{
    return registry_find_holder(dev, ino);
}

ImageTool *image_tool_new(unsigned loops, GError **error)
{
    g_autoptr(ImageTool) t = g_new0(ImageTool, 1);

    blk_set_holder_lookup(find_holder, NULL);
    t->clock = lodge_clock_new();
    t->io = io_thread_new("lodge-image", t->clock, error);
    if (!t->io)
        return NULL;
    if (loops > 1 && !(t->io2 = io_thread_new("lodge-image2", t->clock, error)))
        return NULL;
    return g_steal_pointer(&t);
}

void image_tool_free(ImageTool *t)
{
    if (!t)
        return;
    io_thread_free(t->io2);
    io_thread_free(t->io);
    lodge_clock_free(t->clock);
    g_free(t);
}

/* ---- lines ---- */

Options *image_options(const Verb *self, int argc, char **argv, unsigned min, unsigned max,
                       int *ret_status)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, max, &error);
    static const char *const formats[] = {"format", "format2", "from", "to", "base-format",
                                          "old-base-format"};

    for (unsigned i = 0; o && !error && i < G_N_ELEMENTS(formats); i++)
        image_check_format(o, formats[i], &error);
    if (o && !error && o->args->len < min)
        lodge_fail(&error, LODGE_ERROR_CONFIG, "no %s; see lodge %s --help",
                   min == 2 ? o->args->len ? "second file" : "files" : "file", self->name);
    if (error) {
        *ret_status = cli_fail(self->name, error, false);
        return NULL;
    }
    return g_steal_pointer(&o);
}

const char *image_arg(const Options *o, unsigned i)
{
    return g_ptr_array_index(o->args, i);
}

bool image_check_format(const Options *o, const char *option, GError **error)
{
    const char *format = options_text(o, option);

    if (!format || blk_driver_find(format))
        return true;
    g_autofree char *names = blk_driver_names();
    return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: \"%s\": not known; it can be %s", option,
                      format, names);
}

bool image_size(const Options *o, const char *option, uint64_t *ret, GError **error)
{
    const char *text = options_text(o, option);

    return !text || parse_size(text, ret) ||
           lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: \"%s\": no size; write for instance 20G",
                      option, text);
}

GHashTable *image_create_options(const Options *o, GError **error)
{
    g_autoptr(GHashTable) table = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);

    for (const OptValue *v = NULL; (v = options_next(o, "option", v));) {
        const char *eq = strchr(v->text, '=');
        if (!eq || eq == v->text) {
            lodge_fail(error, LODGE_ERROR_CONFIG, "--option: \"%s\": write KEY=VALUE", v->text);
            return NULL;
        }
        g_hash_table_insert(table, g_strndup(v->text, eq - v->text), g_strdup(eq + 1));
    }
    return g_steal_pointer(&table);
}

bool image_list_options(const Options *o, const char *format)
{
    const BlkDriver *drv = blk_driver_find(format);
    const OptValue *v = options_next(o, "option", NULL);

    if (!v || strcmp(v->text, "help") != 0 || !drv)
        return false;
    for (const BlkCreateOpt *c = drv->create_opts; c && c->key; c++)
        printf("%s=%s: %s\n", c->key, c->value, c->help);
    return true;
}

const char *image_new_format(const Options *o, const char *option, const char *path)
{
    const char *said = options_text(o, option);

    return said ? said : blk_format_by_name(path, options_text(o, "base"));
}

BlkNode *image_open(const Options *o, const char *path, bool read_only, unsigned flags,
                    BlkAio aio, IoThread *io, GError **error)
{
    BlkOptions bo = {.file = path, .format = options_text(o, "format"),
                     .base_format = options_text(o, "base-format"), .read_only = read_only,
                     .aio = aio};

    return blk_open_flags(NULL, &bo, flags | BLK_OPEN_QUIET, io, error);
}

/* ---- what is printed ---- */

char *image_bytes_text(uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned u = 0;
    double v = (double)bytes;

    for (; v >= 1024 && u + 1 < G_N_ELEMENTS(units); u++)
        v /= 1024;
    return v == (double)(uint64_t)v ? g_strdup_printf("%.0f %s", v, units[u])
                                    : g_strdup_printf("%.2f %s", v, units[u]);
}

JsonOut *image_json(void)
{
    JsonOut *j = json_out_new();

    json_object(j, NULL);
    json_number(j, "schema", 1);
    return j;
}

static void bar_tell(void *opaque, uint64_t done, uint64_t total)
{
    ImageBar *b = opaque;
    int64_t now = clock_host_ns();

    if (!total || now - b->told_ns < BAR_EVERY_NS)
        return;
    b->told_ns = now;
    double part = (double)done / (double)total, s = (double)(now - b->start_ns) / NS_PER_SEC;
    double rate = s > 0 ? (double)done / s : 0;
    uint64_t left = rate > 0 ? (uint64_t)((double)(total - done) / rate) : 0;
    char bar[BAR_WIDTH + 1];
    int full = (int)(part * BAR_WIDTH);
    memset(bar, ' ', BAR_WIDTH);
    memset(bar, '#', MIN(full, BAR_WIDTH));
    bar[BAR_WIDTH] = 0;
    fprintf(stderr, "\r[%s] %3d%% %7.0f MiB/s %3" PRIu64 ":%02" PRIu64 " left ", bar,
            (int)(part * 100), rate / (double)MIB, left / 60, left % 60);
    fflush(stderr);
}

void image_bar_init(ImageBar *b)
{
    const char *term = g_getenv("TERM");

    *b = (ImageBar){.on = isatty(STDERR_FILENO) && g_strcmp0(term, "dumb") != 0};
    b->start_ns = b->told_ns = clock_host_ns();
    b->progress = (ImageProgress){.tell = bar_tell, .opaque = b};
}

const ImageProgress *image_bar_progress(ImageBar *b)
{
    return b->on ? &b->progress : NULL;
}

void image_bar_end(ImageBar *b)
{
    if (b->on && b->told_ns != b->start_ns)
        fprintf(stderr, "\r%*s\r", BAR_WIDTH + 40, "");
}
