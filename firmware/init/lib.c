/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System calls, text and the kernel log, for a program without a C library.
 *
 * Spec: the x86-64 system call ABI; Linux's struct stat and linux_dirent64.
 */
#include "lib.h"

enum {
    AT_SYMLINK_NOFOLLOW = 0x100,
    STAT_MODE_AT = 24, /* st_mode in struct stat of x86-64 */
    STAT_RDEV_AT = 40,
    STAT_BYTES = 144,
    DIRENT_LEN_AT = 16, /* d_reclen in struct linux_dirent64 */
    DIRENT_NAME_AT = 19,
    DIGITS_MAX = 6,
};

long sys6(long n, long a, long b, long c, long d, long e)
{
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return ret;
}

void *memset(void *to, int v, usize n)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(v) : "memory");
    return start;
}

void *memcpy(void *to, const void *from, usize n)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}

usize len_of(const char *s)
{
    usize n = 0;
    while (s[n])
        n++;
    return n;
}

const char *after(const char *s, const char *prefix)
{
    while (*prefix)
        if (*s++ != *prefix++)
            return 0;
    return s;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

int same_text(const char *a, const char *b, int fold)
{
    for (; *a || *b; a++, b++)
        if (fold ? lower(*a) != lower(*b) : *a != *b)
            return 0;
    return 1;
}

void copy_text(char *to, usize cap, const char *from)
{
    usize n = len_of(from);
    n = n < cap ? n : cap - 1;
    memcpy(to, from, n);
    to[n] = 0;
}

static int kmsg = 2; /* where messages go */

void say(char level, const char *a, const char *b, const char *c)
{
    static char line[512];
    const char *parts[] = {"lodge-init: ", a, b, c, "\n"};
    usize at = 0;
    line[at++] = '<';
    line[at++] = level;
    line[at++] = '>';
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++)
        for (const char *p = parts[i]; p && *p && at < sizeof line; p++)
            line[at++] = *p;
    SYS(__NR_write, kmsg, line, at, 0, 0);
}

void die(const char *a, const char *b, const char *c)
{
    say('2', a, b, c);
    for (;;)
        SYS(__NR_exit_group, 1, 0, 0, 0, 0);
}

const char *number(long v)
{
    static char text[24];
    char *p = text + sizeof text - 1;
    usize n = (usize)(v < 0 ? -v : v);
    *p = 0;
    do
        *--p = (char)('0' + n % 10);
    while (n /= 10);
    return p;
}

long open_at(const char *path, int flags)
{
    return SYS(__NR_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0, 0);
}

long read_text(const char *path, char *to, usize cap)
{
    long fd = open_at(path, O_RDONLY), done = 0, n = 0;
    to[0] = 0;
    if (fd < 0)
        return fd;
    while ((usize)done < cap - 1 &&
           (n = SYS(__NR_read, fd, to + done, cap - 1 - (usize)done, 0, 0)) > 0)
        done += n;
    SYS(__NR_close, fd, 0, 0, 0, 0);
    to[done] = 0;
    return n < 0 ? n : done;
}

char *cut(char **p, char sep)
{
    char *start = *p;
    if (!start || !*start)
        return 0;
    char *end = start;
    while (*end && *end != sep)
        end++;
    *p = *end ? end + 1 : end;
    *end = 0;
    return start;
}

void pause_ns(long ns)
{
    long ts[2] = {0, ns};
    while (ts[1] >= 1000000000) {
        ts[0]++;
        ts[1] -= 1000000000;
    }
    SYS(__NR_nanosleep, ts, 0, 0, 0, 0);
}

void join(char *to, usize cap, const char *a, const char *b, const char *c)
{
    const char *parts[] = {a, b, c};
    usize at = 0;
    for (unsigned i = 0; i < 3; i++)
        for (const char *p = parts[i]; p && *p && at + 1 < cap; p++)
            to[at++] = *p;
    to[at] = 0;
}

long take_digits(const char **text)
{
    long n = 0;
    unsigned digits = 0;
    for (; **text >= '0' && **text <= '9'; (*text)++, digits++)
        n = digits < DIGITS_MAX ? n * 10 + **text - '0' : n;
    return digits && digits <= DIGITS_MAX ? n : -1;
}

u32 mode_of(const char *path, int follow, usize *ret_rdev)
{
    char st[STAT_BYTES];
    u32 mode;
    if (SYS(__NR_newfstatat, AT_FDCWD, path, st, follow ? 0 : AT_SYMLINK_NOFOLLOW, 0) < 0)
        return 0;
    memcpy(&mode, st + STAT_MODE_AT, sizeof mode);
    if (ret_rdev)
        memcpy(ret_rdev, st + STAT_RDEV_AT, sizeof *ret_rdev);
    return mode;
}

void each_name(const char *path, void (*fn)(const char *name))
{
    char buf[TEXT_MAX];
    long fd = open_at(path, O_RDONLY | O_DIRECTORY), n;
    if (fd < 0)
        return;
    while ((n = SYS(__NR_getdents64, fd, buf, sizeof buf, 0, 0)) > 0) {
        for (long at = 0; at < n;) {
            const char *name = buf + at + DIRENT_NAME_AT;
            u16 len;
            memcpy(&len, buf + at + DIRENT_LEN_AT, sizeof len);
            if (!same_text(name, ".", 0) && !same_text(name, "..", 0))
                fn(name);
            at += len;
        }
    }
    SYS(__NR_close, fd, 0, 0, 0, 0);
}

void log_open(void)
{
    long fd = open_at("/dev/kmsg", O_WRONLY);
    if (fd < 0)
        return;
    if (fd < 3) { /* there was no console: 0 to 2 are for one that comes */
        long high = SYS(__NR_fcntl, fd, F_DUPFD_CLOEXEC, 3, 0, 0);
        SYS(__NR_close, fd, 0, 0, 0, 0);
        fd = high;
    }
    if (fd >= 0)
        kmsg = (int)fd;
}
