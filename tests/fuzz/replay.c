/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A main() for fuzz entries that are built without libFuzzer: runs each file named, or each file of
 * each folder named, through the entry, and also cut at every byte of its first 64 and with each of
 * its first 512 bits turned over; after --plain only as it is.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <glib.h>

#include "replay.h"

#define CUTS 64u
#define FLIPS 512u

static bool plain;

static unsigned replay_file(const char *path)
{
    g_autofree char *text = NULL;
    gsize len;

    if (!g_file_get_contents(path, &text, &len, NULL))
        return 0;
    LLVMFuzzerTestOneInput((uint8_t *)text, len);
    if (plain)
        return 1;
    for (gsize cut = 0; cut < MIN(len, CUTS); cut++) {
        g_autofree uint8_t *part = g_memdup2(text, cut); /* its end is its allocation's */
        LLVMFuzzerTestOneInput(part, cut);
    }
    for (gsize bit = 0; bit < MIN(len * 8, FLIPS); bit++) {
        text[bit / 8] ^= 1u << (bit % 8);
        LLVMFuzzerTestOneInput((uint8_t *)text, len);
        text[bit / 8] ^= 1u << (bit % 8);
    }
    return 1;
}

static unsigned replay(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;
    unsigned n = 0;

    if (!dir)
        return replay_file(path);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);
        n += replay_file(file);
    }
    g_dir_close(dir);
    return n;
}

int main(int argc, char **argv)
{
    unsigned n = 0;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--plain"))
            plain = true;
        else
            n += replay(argv[i]);
    }
    printf("1..1\n%s 1 - %u corpus files replayed\n", n ? "ok" : "not ok", n);
    return n == 0;
}
