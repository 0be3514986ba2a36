/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MEDIUM_H
#define LODGE_MEDIUM_H

/*
 * What happens to the files of an image is recorded, or made to fail, and put together again as a
 * disk could hold it after its power was cut.
 */

#include "block_int.h"

#define MEDIUM_FILES 3u

typedef struct Medium Medium;

typedef struct MediumFile {
    Medium *medium;
    unsigned index;
    char *path;   /* owned */
    GBytes *start; /* owned; the bytes at first */
    BlkTap tap;
} MediumFile;

struct Medium {
    GMutex mutex;
    GArray *entries; /* private; how many there are: medium_now() */
    MediumFile files[MEDIUM_FILES];
    unsigned n_files;
    uint64_t count;  /* operations so far, of those that can fail */
    /* Operations that fail with fail_err; fail_for 0: none. */
    uint64_t fail_from, fail_for;
    int fail_err;
    bool reads_too;  /* reads can fail as well */
    uint64_t whole_at, whole_len; /* of each file: what a host writes together, or not at all */
    uint64_t failed; /* operations that did */
};

Medium *medium_new(void);
void medium_free(Medium *m);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Medium, medium_free)
/* Take in the file at @path, as it is now. Its tap, to be given to who opens it. */
const BlkTap *medium_add(Medium *m, const char *path);
/* Length of the record, the measure of its time. */
uint64_t medium_now(Medium *m);
/* The bytes of file @index as they could be after a cut at @at; the same @rand gives the same. */
GByteArray *medium_cut(Medium *m, unsigned index, uint64_t at, GRand *rand);
/* Write @bytes as the whole of the file at @path, with holes for zeros. */
void medium_store(const char *path, const GByteArray *bytes);

/* The number in the variable @name of the environment, else @otherwise. */
uint64_t fault_number(const char *name, uint64_t otherwise);
/* FAULT_SEED or a new one, which is printed. */
guint32 fault_seed(void);

#endif
