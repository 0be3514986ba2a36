/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_INITRD_H
#define LODGE_INITRD_H

/* The initrd that Lodge makes where a root disk is given without one. */

#include <stdbool.h>
#include <stddef.h>

#include <glib.h>

typedef struct InitrdPlan {
    const char *kernel;      /* path of the kernel file: modules are looked for beside it too */
    const char *version;     /* boot_kernel_version() */
    const char *modules_dir; /* folder with modules.dep; NULL: look for it */
    const char *const *modules; /* wanted, NULL-terminated; '-' and '_' are equal; a leading '?'
                                   marks one that the guest can do without */
    const char *fstype; /* of the root, see initrd_detect_fs(); NULL: the guest tries */
    /* Of a machine that is run as User-Mode Linux; else false, NULL, 0: */
    bool keep_modules;        /* the root gets to see them as its /lib/modules/VERSION ... */
    const char *const *extra; /* ... and these, which are not loaded; like @modules */
    unsigned ports;           /* of the virtio console; the guest waits until it sees them */
} InitrdPlan;

enum { INITRD_FS_HEAD = 69632 }; /* bytes of a file system that initrd_detect_fs() wants */

/**
 * initrd_make() - Make an initrd that loads modules, mounts the root and runs its init
 * Context: main thread.
 * Return:  descriptor of a memory file for BootSpec.initrd_fd, owned by the caller; or -1 with
 *          LODGE_ERROR_NOT_FOUND (no modules for this kernel; says where it looked),
 *          LODGE_ERROR_CONFIG (named modules are missing), LODGE_ERROR_IMAGE (a module is
 *          damaged), LODGE_ERROR_UNSUPPORTED (its decompressor is missing), LODGE_ERROR_HOST.
 */
int initrd_make(const InitrdPlan *plan, GError **error);

/* Name of the file system that begins with these bytes, as Linux calls it and its module is
 * called; NULL: not known. Static. */
const char *initrd_detect_fs(const void *head, size_t len);

#endif
