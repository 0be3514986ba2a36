/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files that get their name when they are whole: without a name (O_TMPFILE and linkat) where the
 * file system has that, else under a temporary one beside the final one. A process that dies in
 * between leaves nothing, or one hidden file that says whose it was.
 *
 * Spec: open(2) "O_TMPFILE", linkat(2), rename(2).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block_int.h"

#define IMAGE_MODE 0644
#define NAME_TRIES 16u

static bool no_tmpfile(int err)
{
    return err == EOPNOTSUPP || err == EISDIR || err == EINVAL || err == ENOENT;
}

/* A name beside @path that nobody uses; transfer full. */
static char *temp_name(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);
    g_autofree char *base = g_path_get_basename(path);

    return g_strdup_printf("%s/.%.200s.%08x", dir, base, g_random_int());
}

BlkNewFile *blk_new_file(const char *path, const char *what, GError **error)
{
    g_autoptr(BlkNewFile) f = g_new0(BlkNewFile, 1);
    g_autofree char *dir = g_path_get_dirname(path);

    if (blk_is_remote(path)) {
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                   "'%s': is on a server, where no image can be made; lodge image convert --force "
                   "writes into one that is there", path);
        return NULL;
    }
    f->path = g_strdup(path);
    f->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, IMAGE_MODE);
    for (unsigned i = 0; f->fd < 0 && no_tmpfile(errno) && i < NAME_TRIES; i++) {
        g_autofree char *temp = temp_name(path);
        f->fd = open(temp, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, IMAGE_MODE);
        if (f->fd >= 0)
            f->temp = g_steal_pointer(&temp);
        else if (errno != EEXIST)
            break;
        else
            errno = EINVAL; /* another name */
    }
    if (f->fd < 0) {
        lodge_fail_errno(error, errno, "'%s': cannot make the %s in '%s'", path, what, dir);
        return NULL;
    }
    return g_steal_pointer(&f);
}

BlkNewFile *blk_new_file_extra(const BlkCreate *c, const char *path, GError **error)
{
    BlkNewFile *f = blk_new_file(path, "image", error);

    if (f)
        g_ptr_array_add(c->extra, f);
    return f;
}

bool blk_new_file_write(BlkNewFile *f, const void *buf, size_t len, uint64_t offset, GError **error)
{
    size_t done = 0;

    while (done < len) {
        ssize_t r = pwrite(f->fd, (const uint8_t *)buf + done, len - done, offset + done);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return lodge_fail_errno(error, r < 0 ? errno : ENOSPC, "'%s': cannot write", f->path);
        done += r;
    }
    return true;
}

bool blk_new_file_size(BlkNewFile *f, uint64_t size, GError **error)
{
    if (ftruncate(f->fd, size) < 0)
        return lodge_fail_errno(error, errno, "'%s': cannot give it its size", f->path);
    return true;
}

/* Return: 0 or errno. */
static int give_name(BlkNewFile *f, const char *path)
{
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", f->fd);

    if (!f->temp)
        return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
    return renameat2(AT_FDCWD, f->temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0 ? 0 : errno;
}

/* As give_name(), where renameat2() is not to be had. */
static int give_name_plainly(BlkNewFile *f)
{
    if (link(f->temp, f->path) < 0)
        return errno;
    (void)unlink(f->temp); /* a second name does no harm */
    return 0;
}

static int replace(BlkNewFile *f)
{
    if (!f->temp) {
        g_autofree char *temp = temp_name(f->path);
        int err = give_name(f, temp);
        if (err)
            return err;
        f->temp = g_steal_pointer(&temp);
    }
    return rename(f->temp, f->path) == 0 ? 0 : errno;
}

int blk_new_file_publish(BlkNewFile *f, bool overwrite)
{
    int err = f->lazy || fdatasync(f->fd) == 0 ? 0 : errno;

    if (!err)
        err = overwrite ? replace(f) : give_name(f, f->path);
    if (err == EINVAL && f->temp && !overwrite)
        err = give_name_plainly(f);
    if (!err)
        g_clear_pointer(&f->temp, g_free);
    return err;
}

void blk_new_file_free(BlkNewFile *f)
{
    if (!f)
        return;
    if (f->temp)
        (void)unlink(f->temp); /* it was nothing */
    if (f->fd >= 0)
        close(f->fd);
    g_free(f->temp);
    g_free(f->path);
    g_free(f);
}
