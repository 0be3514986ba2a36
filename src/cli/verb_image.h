/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VERB_IMAGE_H
#define LODGE_VERB_IMAGE_H

/* What the verbs of "lodge image" share. */

#include "lodge/clock.h"
#include "lodge/iothread.h"
#include "lodge/json_out.h"

#include "cli.h"
#include "image_ops.h"

/* Loops for the images of one verb; declare it before the nodes, so that it goes after them. */
typedef struct ImageTool {
    LodgeClock *clock;
    IoThread *io, *io2; /* owned; two, so that a copy reads and writes at the same time */
} ImageTool;

/* Transfer full, NULL with an error. @loops: 1 or 2. */
ImageTool *image_tool_new(unsigned loops, GError **error);
void image_tool_free(ImageTool *t);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImageTool, image_tool_free)

/* Parse a verb's line and want @min to @max words that are no options. NULL: told already, and
 * *ret_status is the exit status. */
Options *image_options(const Verb *self, int argc, char **argv, unsigned min, unsigned max,
                       int *ret_status);
const char *image_arg(const Options *o, unsigned i);

/* Open an argument as the options --format and --base-format say. @aio: threads are made faster. */
BlkNode *image_open(const Options *o, const char *path, bool read_only, unsigned flags,
                    BlkAio aio, IoThread *io, GError **error);

/* --format and its like: NULL or a known format. */
bool image_check_format(const Options *o, const char *option, GError **error);
/* --size and its like; *ret is left alone where it is not given. */
bool image_size(const Options *o, const char *option, uint64_t *ret, GError **error);
/* --option KEY=VALUE...: char * -> char *, transfer full; NULL with an error. */
GHashTable *image_create_options(const Options *o, GError **error);
/* Whether --option help is given: prints what @format has. */
bool image_list_options(const Options *o, const char *format);
/* The format for a new file @path: --@option, or by the end of its name; transfer none. */
const char *image_new_format(const Options *o, const char *option, const char *path);

/* A bar on standard error, where that is a terminal. */
typedef struct ImageBar {
    bool on;
    int64_t start_ns, told_ns;
    ImageProgress progress; /* NULL tell where there is none */
} ImageBar;
void image_bar_init(ImageBar *b);
const ImageProgress *image_bar_progress(ImageBar *b);
void image_bar_end(ImageBar *b);

/* "1.5 GiB"; transfer full. */
char *image_bytes_text(uint64_t bytes);
/* Print {"schema": 1, ...} that the caller filled, or nothing with NULL. */
JsonOut *image_json(void);

int verb_image_create(const Verb *self, int argc, char **argv);
int verb_image_convert(const Verb *self, int argc, char **argv);
int verb_image_info(const Verb *self, int argc, char **argv);
int verb_image_check(const Verb *self, int argc, char **argv);
int verb_image_commit(const Verb *self, int argc, char **argv);
int verb_image_rebase(const Verb *self, int argc, char **argv);
int verb_image_resize(const Verb *self, int argc, char **argv);
int verb_image_map(const Verb *self, int argc, char **argv);
int verb_image_snapshot(const Verb *self, int argc, char **argv);
int verb_image_compare(const Verb *self, int argc, char **argv);
int verb_image_bench(const Verb *self, int argc, char **argv);
int verb_image_serve(const Verb *self, int argc, char **argv);

#endif
