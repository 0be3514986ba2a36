/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_REPLAY_H
#define LODGE_REPLAY_H

#include <stddef.h>
#include <stdint.h>

/* A fuzz entry: libFuzzer calls it, or replay.c with the files of a corpus. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#endif
