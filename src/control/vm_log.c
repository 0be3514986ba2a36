/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log of a machine's life: starts, warnings, and how it ended. It goes on from run to run; a
 * full file becomes the old one, so at most twice the bound is on disk.
 *
 * The file is opened for each entry: entries are rare, and the folder may be renamed meanwhile.
 * Threads: any; what messages come through holds a lock of its own around them.
 */
#include "vm_log.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_MODE 0600

struct VmLog {
    char *path, *old_path; /* owned; NULL: none */
};

VmLog *vm_log_new(const char *dir)
{
    VmLog *log = g_new0(VmLog, 1);
    if (dir) {
        log->path = g_build_filename(dir, VM_LOG_FILE, NULL);
        log->old_path = g_strconcat(log->path, ".1", NULL);
    }
    return log;
}

void vm_log_free(VmLog *log)
{
    if (!log)
        return;
    g_free(log->path);
    g_free(log->old_path);
    g_free(log);
}

static int open_for(const VmLog *log, size_t len)
{
    const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW;
    struct stat st;
    int fd = open(log->path, flags, LOG_MODE);
    if (fd < 0 || fstat(fd, &st) < 0 || (size_t)st.st_size + len <= VM_LOG_BYTES || !st.st_size)
        return fd;
    close(fd);
    (void)rename(log->path, log->old_path); /* where it fails the file grows by one entry */
    return open(log->path, flags, LOG_MODE);
}

void vm_log_append(void *opaque, const char *text)
{
    VmLog *log = opaque;
    if (!log->path)
        return;
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *time = g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
    size_t max = VM_LOG_BYTES / 2, have = strlen(text);
    g_autofree char *entry = g_strdup_printf("%s %.*s%s", time, (int)MIN(have, max), text,
                                             g_str_has_suffix(text, "\n") ? "" : "\n");
    size_t len = strlen(entry);
    int fd = open_for(log, len);
    if (fd < 0)
        return;
    ssize_t n = write(fd, entry, len);
    (void)n; /* there is nobody to tell that cannot see the full disk */
    close(fd);
}
