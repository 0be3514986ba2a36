/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_INIT_BLOB_H
#define LODGE_INIT_BLOB_H

/* firmware/init/ as a static x86-64 program, embedded at build time. */
extern const unsigned char init_blob[];
extern const unsigned init_blob_len;

#endif
