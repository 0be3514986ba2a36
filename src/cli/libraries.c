/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What libraries Lodge is linked with and which it loads at first use. */
#include "libraries.h"

#include <dlfcn.h>
#include <unistd.h>

#include <glib.h>
#include <libslirp.h>

const OptionalLibrary optional_libraries[] = {
    {"lzma", "liblzma.so.5", "liblzma5", "kernels and modules packed with XZ"},
    {"zstd", "libzstd.so.1", "libzstd1", "kernels and modules packed with Zstandard"},
    {"lz4", "liblz4.so.1", "liblz4-1", "kernels packed with LZ4"},
    {"zlib", "libz.so.1", "zlib1g", "kernels and modules packed with gzip"},
    {"bzip2", "libbz2.so.1.0", "libbz2-1.0", "kernels packed with bzip2"},
    {"capstone", "libcapstone.so.4", "libcapstone4",
     "disassembly of what a stopped CPU could not run"},
    {"json-glib", "libjson-glib-1.0.so.0", "libjson-glib-1.0-0",
     "the control socket of a machine, and the verbs that use it"},
    {"libnbd", "libnbd.so.0", "libnbd0", "network block devices: disks and images at nbd://"},
    {"libpng", "libpng16.so.16", "libpng16-16", "pictures of the screen"},
    {"libvncserver", "libvncserver.so.1", "libvncserver1", "screens for VNC viewers"},
    {NULL},
};

/* Where distributions have libraries for x86-64: a look there costs a thousandth of loading one
 * with all that it needs. */
static const char *const library_dirs[] = {"/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"};

bool library_there(const OptionalLibrary *l)
{
    for (size_t i = 0; i < G_N_ELEMENTS(library_dirs); i++) {
        g_autofree char *path = g_build_filename(library_dirs[i], l->soname, NULL);

        if (access(path, R_OK) == 0)
            return true;
    }
    void *handle = dlopen(l->soname, RTLD_LAZY | RTLD_LOCAL);

    if (!handle)
        return false;
    dlclose(handle);
    return true;
}

static char *glib_text(void)
{
    return g_strdup_printf("%u.%u.%u", glib_major_version, glib_minor_version, glib_micro_version);
}

static char *slirp_text(void)
{
    return g_strdup(slirp_version_string());
}

const LinkedLibrary linked_libraries[] = {
    {"glib",
     G_STRINGIFY(GLIB_MAJOR_VERSION) "." G_STRINGIFY(GLIB_MINOR_VERSION) "." G_STRINGIFY(
         GLIB_MICRO_VERSION),
     glib_text},
    {"libslirp", SLIRP_VERSION_STRING, slirp_text},
    {"libfdt", NULL, NULL},
    {"liburing", NULL, NULL},
    {NULL},
};
