/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A console log is a file that becomes PATH.1 when it is full, and a new one begins. A reader holds
 * the file that it reads; when another has its name and nothing is left in the old one, it goes on
 * with that. The old one gets nothing more once the new one is there, so it is read once more then.
 */
#include "log_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"

#define CHUNK 16384

struct LogReader {
    char *path; /* owned */
    int fd;
    bool left; /* another file has the name */
};

static int open_file(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* Of a machine that does not run: its own, or that among those of machines without a name. */
static char *old_path(const char *name)
{
    g_autofree char *path = registry_log_path(name, true);
    return g_file_test(path, G_FILE_TEST_EXISTS) ? g_steal_pointer(&path)
                                                 : registry_log_path(name, false);
}

LogReader *log_reader_open(const MachineLook *l, GError **error)
{
    g_autoptr(LogReader) r = g_new0(LogReader, 1);
    r->fd = -1;
    r->path = l->running ? g_strdup(l->status->log) : old_path(l->name);
    if (r->path)
        r->fd = open_file(r->path);
    if (r->fd >= 0)
        return g_steal_pointer(&r);
    if (!r->path || errno == ENOENT)
        lodge_fail(error, LODGE_ERROR_NOT_FOUND, "%s: has no console log", l->name);
    else
        lodge_fail_errno(error, errno, "%s: cannot read its console log '%s'", l->name, r->path);
    return NULL;
}

void log_reader_free(LogReader *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        close(r->fd);
    g_free(r->path);
    g_free(r);
}

static bool name_moved(const LogReader *r)
{
    struct stat mine, now;
    return fstat(r->fd, &mine) == 0 && stat(r->path, &now) == 0 &&
           (mine.st_ino != now.st_ino || mine.st_dev != now.st_dev);
}

bool log_reader_take(LogReader *r, GString *out)
{
    char chunk[CHUNK];
    for (;;) {
        ssize_t n = read(r->fd, chunk, sizeof chunk);
        if (n > 0) {
            g_string_append_len(out, chunk, n);
            return true;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (!r->left) {
            r->left = name_moved(r);
            if (!r->left)
                return false;
            continue;
        }
        int fd = open_file(r->path);
        if (fd < 0)
            return false;
        close(r->fd);
        r->fd = fd;
        r->left = false;
    }
}
