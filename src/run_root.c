/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where what runs leaves its sockets and locks. Threads: any. */
#include "lodge/run_root.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"

char *run_root_path(void)
{
    const char *xdg = g_getenv("XDG_RUNTIME_DIR");

    if (xdg && g_path_is_absolute(xdg))
        return g_build_filename(xdg, "lodge", NULL);
    if (geteuid() == 0)
        return g_strdup("/run/lodge");
    return g_strdup_printf("/tmp/lodge-%u", (unsigned)geteuid());
}

bool run_root_check(const char *path, GError **error)
{
    struct stat st;

    if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 0022))
        return lodge_fail(error, LODGE_ERROR_HOST,
                          "%s: is not a folder of this user alone; remove it or set "
                          "XDG_RUNTIME_DIR", path);
    return true;
}

bool run_root_make(const char *path, GError **error)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return lodge_fail_errno(error, errno, "%s: cannot make the folder of running machines",
                                path);
    return run_root_check(path, error);
}
