/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who may have an image open with whom, and what the refusal says. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "blockfix.h"

static void test_raw(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 64 * KIB, 1);
    BlkOptions rw = {.file = path}, ro = {.file = path, .read_only = true};
    BlkOptions snap = {.file = path, .snapshot = true};
    g_autoptr(BlkNode) n = block_fix_open(f, &rw);

    block_fix_refused(f, &rw, LODGE_ERROR_BUSY, "in use by this VM itself");
    block_fix_refused(f, &ro, LODGE_ERROR_BUSY, "in use by");
    blk_close(g_steal_pointer(&n));
    n = block_fix_open(f, &ro);
    BlkNode *second = block_fix_open(f, &ro), *third = block_fix_open(f, &snap);
    block_fix_refused(f, &rw, LODGE_ERROR_BUSY, "in use by");
    blk_close(second);
    blk_close(third);
}

/* The lock ends with the node, whoever still has the open file: the kernel's side of io_uring does. */
static void test_given_back(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 64 * KIB, 1);
    BlkOptions rw = {.file = path};
    g_autoptr(BlkNode) n = block_fix_open(f, &rw);
    struct stat st, other;
    int kept = -1;

    g_assert_cmpint(stat(path, &st), ==, 0);
    for (int fd = 3; fd < 256 && kept < 0; fd++)
        if (fstat(fd, &other) == 0 && other.st_ino == st.st_ino && other.st_dev == st.st_dev)
            kept = dup(fd);
    g_assert_cmpint(kept, >=, 0);
    blk_close(g_steal_pointer(&n));
    n = block_fix_open(f, &rw);
    close(kept);
}

static void test_overlay(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = block_fix_image(f, "base.img", 64 * KIB, 1);
    g_autofree char *cow1 = block_fix_path(f, "1.cow"), *cow2 = block_fix_path(f, "2.cow");
    BlkOptions one = {.file = cow1, .base = base}, two = {.file = cow2, .base = base};
    BlkOptions direct = {.file = base}, reader = {.file = base, .read_only = true};
    g_autoptr(BlkNode) a = block_fix_open(f, &one);
    g_autoptr(BlkNode) b = block_fix_open(f, &two);
    g_autoptr(BlkNode) r = block_fix_open(f, &reader);

    block_fix_refused(f, &one, LODGE_ERROR_BUSY, "1.cow");
    block_fix_refused(f, &direct, LODGE_ERROR_BUSY, "base.img");
    blk_close(g_steal_pointer(&a));
    blk_close(g_steal_pointer(&b));
    blk_close(g_steal_pointer(&r));
    a = block_fix_open(f, &direct);
    block_fix_refused(f, &one, LODGE_ERROR_BUSY, "base.img");
}

static char *lookup(void *opaque, uint64_t dev, uint64_t ino)
{
    const struct stat *st = opaque;

    return st->st_dev == dev && st->st_ino == ino ? g_strdup("alpha") : NULL;
}

static void test_names(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 64 * KIB, 1);
    g_autofree char *other = block_fix_image(f, "b.img", 64 * KIB, 1);
    BlkOptions rw = {.file = path, .holder = "beta"}, rw2 = {.file = other};
    BlkNode *n = block_fix_open(f, &rw), *m = block_fix_open(f, &rw2);
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    blk_set_holder_lookup(lookup, &st);
    block_fix_refused(f, &rw, LODGE_ERROR_BUSY, "in use by VM 'alpha'");
    rw.holder = "alpha";
    block_fix_refused(f, &rw, LODGE_ERROR_BUSY, "in use by this VM itself");
    block_fix_refused(f, &rw2, LODGE_ERROR_BUSY, "in use by this VM itself");
    blk_set_holder_lookup(NULL, NULL);
    blk_close(n);
    blk_close(m);
}

/* A process of its own that has @path locked until it is killed; POSIX or OFD. */
static pid_t hold(const char *path, bool posix)
{
    int ready[2];
    char c;

    g_assert_cmpint(pipe(ready), ==, 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = open(path, O_RDWR);
        c = fcntl(fd, posix ? F_SETLK : F_OFD_SETLK, &l) == 0 ? 'y' : 'n';
        if (write(ready[1], &c, 1) == 1)
            pause();
        _exit(0);
    }
    g_assert_cmpint(read(ready[0], &c, 1), ==, 1);
    g_assert_cmpint(c, ==, 'y');
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void test_other_process(gconstpointer posix)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 64 * KIB, 1);
    pid_t pid = hold(path, posix != NULL);
    g_autofree char *who = g_strdup_printf("(process %d)", (int)pid);

    block_fix_refused(f, &(BlkOptions){.file = path}, LODGE_ERROR_BUSY, who);
    block_fix_refused(f, &(BlkOptions){.file = path}, LODGE_ERROR_BUSY, "test_image_lock");
    block_fix_refused(f, &(BlkOptions){.file = path, .read_only = true}, LODGE_ERROR_BUSY, who);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    blk_close(block_fix_open(f, &(BlkOptions){.file = path}));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/image-lock/raw", test_raw);
    g_test_add_func("/image-lock/given-back", test_given_back);
    g_test_add_func("/image-lock/overlay", test_overlay);
    g_test_add_func("/image-lock/names", test_names);
    g_test_add_data_func("/image-lock/posix", "posix", test_other_process);
    g_test_add_data_func("/image-lock/ofd", NULL, test_other_process);
    return g_test_run();
}
