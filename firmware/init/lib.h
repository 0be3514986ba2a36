/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_INIT_LIB_H
#define LODGE_INIT_LIB_H

/* What the guest's first program has instead of a C library. */

#include <asm/unistd.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long usize;

enum {
    O_RDONLY = 0,
    O_WRONLY = 1,
    O_RDWR = 2,
    O_CREAT = 0100,
    O_NONBLOCK = 04000,
    O_DIRECTORY = 0200000,
    O_CLOEXEC = 02000000,
    F_DUPFD_CLOEXEC = 1030,
    AT_FDCWD = -100,
    S_IFMT = 0170000,
    S_IFBLK = 0060000,
    S_IFCHR = 0020000,
    S_IFLNK = 0120000,
    EAGAIN = 11,
    ENOENT = 2,
    EEXIST = 17,
    ENODEV = 19,
    TEXT_MAX = 4096,
    NAME_LEN = 128,
};

/* A system call: its result, or the negative error. */
long sys6(long n, long a, long b, long c, long d, long e);
#define SYS(n, a, b, c, d, e) sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

/* The compiler may call these for loops and initialisers. */
void *memset(void *to, int v, usize n);
void *memcpy(void *to, const void *from, usize n);

usize len_of(const char *s);
/* Whether @s begins with @prefix; the rest after it, or 0. */
const char *after(const char *s, const char *prefix);
int same_text(const char *a, const char *b, int fold);
void copy_text(char *to, usize cap, const char *from); /* cut at @cap */
/* @a, @b and @c in a row, cut at @cap; 0 for none. */
void join(char *to, usize cap, const char *a, const char *b, const char *c);
const char *number(long v); /* as text; static, until the next call */
/* The digits at *@text, which is moved behind them; -1: there are none, or more than 6. */
long take_digits(const char **text);
/* The next piece of *@p up to @sep, zero-terminated in place; 0: no more. */
char *cut(char **p, char sep);

long open_at(const char *path, int flags);
/* A whole text file, zero-terminated, cut at @cap. Bytes read, or the negative error. */
long read_text(const char *path, char *to, usize cap);
/* Type and device number of what is at @path, links followed or not; 0: nothing is. */
u32 mode_of(const char *path, int follow, usize *ret_rdev);
void pause_ns(long ns);
/* Call @fn for each name in the folder @path, "." and ".." left out. */
void each_name(const char *path, void (*fn)(const char *name));

/* One record on the kernel log: "<level>lodge-init: a b c". */
void say(char level, const char *a, const char *b, const char *c);
void log_open(void);
/* The same, and the end, which is a kernel panic. */
void die(const char *a, const char *b, const char *c) __attribute__((noreturn));

#endif
