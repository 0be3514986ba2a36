/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's first program, in the initrd that Lodge makes: loads modules, mounts the root, and
 * hands over to its init. Freestanding (no C library, no other guest program), static.
 *
 * The archive holds /modules/order (one line a module: file, then "?" if it may fail, each after a
 * space) and /fstype (what the host saw on the root disk, may be empty). The command line says the
 * rest, as the kernel itself understands it: root= (a device, MAJ:MIN, UUID=, LABEL=), rootfstype=,
 * rootflags=, ro, rw, init=, rootwait, rootdelay=. Words that the kernel did not know came as our
 * arguments and environment; both go on to the root's init.
 *
 * On failure it says why on the kernel log and ends, which is a kernel panic.
 *
 * Spec: Linux Documentation/filesystems/ramfs-rootfs-initramfs.rst, admin-guide/
 *       kernel-parameters.txt, the x86-64 system call ABI.
 */
#include <asm/unistd.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long usize;

enum {
    O_RDONLY = 0,
    O_WRONLY = 1,
    O_RDWR = 2,
    O_CLOEXEC = 02000000,
    AT_FDCWD = -100,
    MS_RDONLY = 1,
    MS_MOVE = 8192,
    MNT_DETACH = 2,
    S_IFMT = 0170000,
    S_IFBLK = 0060000,
    EEXIST = 17,
    ENOENT = 2,
    TEXT_MAX = 4096,
    NAME_LEN = 128,
    POLL_NS = 2000000,      /* between looks for the root device */
    WAIT_POLLS = 5000,      /* 10 s */
    SECTOR_BUF = 512,
    STAT_MODE_AT = 24,      /* st_mode in struct stat of x86-64 */
    STAT_BYTES = 144,
};

static long sys6(long n, long a, long b, long c, long d, long e)
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

#define SYS(n, a, b, c, d, e) sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

/* The compiler may call these for loops and initialisers. */
void *memset(void *to, int v, usize n);
void *memcpy(void *to, const void *from, usize n);

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

static usize len_of(const char *s)
{
    usize n = 0;
    while (s[n])
        n++;
    return n;
}

/* Whether @s begins with @prefix; the rest after it, or 0. */
static const char *after(const char *s, const char *prefix)
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

static int same_text(const char *a, const char *b, int fold)
{
    for (; *a || *b; a++, b++)
        if (fold ? lower(*a) != lower(*b) : *a != *b)
            return 0;
    return 1;
}

static void copy_text(char *to, usize cap, const char *from)
{
    usize n = len_of(from);
    n = n < cap ? n : cap - 1;
    memcpy(to, from, n);
    to[n] = 0;
}

static int kmsg = 2; /* where messages go */

/* One record on the kernel log: "<level>lodge-init: a b c". */
static void say(char level, const char *a, const char *b, const char *c)
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

static void die(const char *a, const char *b, const char *c) __attribute__((noreturn));
static void die(const char *a, const char *b, const char *c)
{
    say('2', a, b, c);
    for (;;)
        SYS(__NR_exit_group, 1, 0, 0, 0, 0);
}

static const char *number(long v)
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

static long open_at(const char *path, int flags)
{
    return SYS(__NR_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0, 0);
}

/* A whole text file, zero-terminated, cut at @cap. Bytes read, or the negative error. */
static long read_text(const char *path, char *to, usize cap)
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

/* The next piece of *@p up to @sep, zero-terminated in place; 0: no more. */
static char *cut(char **p, char sep)
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

static void pause_ns(long ns)
{
    long ts[2] = {0, ns};
    while (ts[1] >= 1000000000) {
        ts[0]++;
        ts[1] -= 1000000000;
    }
    SYS(__NR_nanosleep, ts, 0, 0, 0, 0);
}

static char module_text[65536];

static void load_modules(void)
{
    char *rest = module_text;
    if (read_text("/modules/order", module_text, sizeof module_text) < 0)
        return;
    for (char *line; (line = cut(&rest, '\n'));) {
        char *flag = line, path[NAME_LEN] = "/modules/";
        char *name = cut(&flag, ' ');
        if (!name)
            continue;
        copy_text(path + 9, sizeof path - 9, name);
        long fd = open_at(path, O_RDONLY);
        long err = fd < 0 ? fd : SYS(__NR_finit_module, fd, "", 0, 0, 0);
        if (fd >= 0)
            SYS(__NR_close, fd, 0, 0, 0, 0);
        if (err && err != -EEXIST && *flag != '?')
            say('3', "cannot load module ", name, number(err));
        SYS(__NR_unlink, path, 0, 0, 0, 0); /* its memory is the guest's again */
    }
}

static struct {
    char root[256], fstype[64], flags[512], init[256];
    int read_only, wait_forever;
    long delay_s;
} opt;

static void parse_cmdline(void)
{
    static char text[TEXT_MAX];
    char *rest = text;
    const char *v;
    opt.read_only = 1;
    read_text("/fstype", opt.fstype, sizeof opt.fstype);
    for (char *p = opt.fstype; *p; p++)
        if (*p == '\n')
            *p = 0;
    if (read_text("/proc/cmdline", text, sizeof text) < 0)
        return;
    for (char *p = text; *p; p++)
        if (*p == '\n' || *p == '\t')
            *p = ' ';
    for (char *word; (word = cut(&rest, ' '));) {
        if (same_text(word, "--", 0))
            break;
        if ((v = after(word, "root=")))
            copy_text(opt.root, sizeof opt.root, v[0] == '"' ? v + 1 : v);
        else if ((v = after(word, "rootfstype=")))
            copy_text(opt.fstype, sizeof opt.fstype, v);
        else if ((v = after(word, "rootflags=")))
            copy_text(opt.flags, sizeof opt.flags, v);
        else if ((v = after(word, "init=")))
            copy_text(opt.init, sizeof opt.init, v);
        else if ((v = after(word, "rootdelay=")))
            for (opt.delay_s = 0; *v >= '0' && *v <= '9' && opt.delay_s < 3600; v++)
                opt.delay_s = opt.delay_s * 10 + *v - '0';
        else if (same_text(word, "ro", 0))
            opt.read_only = 1;
        else if (same_text(word, "rw", 0))
            opt.read_only = 0;
        else if (same_text(word, "rootwait", 0))
            opt.wait_forever = 1;
    }
    if (!opt.root[0])
        copy_text(opt.root, sizeof opt.root, "/dev/vda");
}

static int is_block(const char *path)
{
    char st[STAT_BYTES];
    u32 mode;
    if (SYS(__NR_newfstatat, AT_FDCWD, path, st, 0, 0) < 0)
        return 0;
    memcpy(&mode, st + STAT_MODE_AT, sizeof mode);
    return (mode & S_IFMT) == S_IFBLK;
}

static void uuid_text(const u8 *uuid, char *to)
{
    static const char hex[] = "0123456789abcdef";
    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *to++ = '-';
        *to++ = hex[uuid[i] >> 4];
        *to++ = hex[uuid[i] & 15];
    }
    *to = 0;
}

/* File systems by signature: where it stands, where UUID and label stand. Bytes. */
static const struct {
    u32 magic_at;
    const char *magic;
    u32 uuid_at, label_at, label_len;
} known_fs[] = {
    {1024 + 56, "\123\357", 1024 + 104, 1024 + 120, 16}, /* ext2, ext3, ext4 */
    {0, "XFSB", 32, 108, 12},
    {65536 + 64, "_BHRfS_M", 65536 + 32, 65536 + 299, 255}, /* btrfs */
};

static int read_at(long fd, u32 at, void *to, usize len)
{
    return SYS(__NR_pread64, fd, to, len, at, 0) == (long)len;
}

/* Whether the file system on @path has this UUID or label. */
static int fs_matches(const char *path, const char *uuid, const char *label)
{
    long fd = open_at(path, O_RDONLY);
    int hit = 0;
    if (fd < 0)
        return 0;
    for (unsigned i = 0; i < sizeof known_fs / sizeof *known_fs && !hit; i++) {
        char magic[9] = "", text[257] = "";
        u8 id[16];
        if (!read_at(fd, known_fs[i].magic_at, magic, len_of(known_fs[i].magic)) ||
            !same_text(magic, known_fs[i].magic, 0))
            continue;
        if (uuid && read_at(fd, known_fs[i].uuid_at, id, sizeof id)) {
            uuid_text(id, text);
            hit = same_text(text, uuid, 1);
        } else if (label && read_at(fd, known_fs[i].label_at, text, known_fs[i].label_len)) {
            hit = same_text(text, label, 0);
        }
    }
    SYS(__NR_close, fd, 0, 0, 0, 0);
    return hit;
}

/* Look through /proc/partitions: "major minor #blocks name". */
static int find_by_content(const char *uuid, const char *label, char *ret, usize cap)
{
    static char text[16384];
    char *rest = text;
    if (read_text("/proc/partitions", text, sizeof text) < 0)
        return 0;
    for (char *line; (line = cut(&rest, '\n'));) {
        char *name = line, path[NAME_LEN] = "/dev/";
        for (char *p = line; *p; p++)
            if (*p == ' ')
                name = p + 1;
        copy_text(path + 5, sizeof path - 5, name);
        if (is_block(path) && fs_matches(path, uuid, label)) {
            copy_text(ret, cap, path);
            return 1;
        }
    }
    return 0;
}

/* root=MAJ:MIN: a node of our own. */
static int make_node(const char *text, char *ret, usize cap)
{
    usize part[2] = {0, 0};
    unsigned i = 0;
    for (; *text; text++) {
        if (*text == ':' && i == 0)
            i = 1;
        else if (*text >= '0' && *text <= '9' && part[i] < 1u << 20)
            part[i] = part[i] * 10 + (usize)(*text - '0');
        else
            return 0;
    }
    usize dev = ((part[0] & 0xfff) << 8) | (part[1] & 0xff) | ((part[1] & 0xfff00) << 12);
    copy_text(ret, cap, "/dev/root");
    SYS(__NR_mknod, ret, S_IFBLK | 0600, dev, 0, 0);
    long fd = open_at(ret, O_RDONLY);
    if (fd >= 0)
        SYS(__NR_close, fd, 0, 0, 0, 0);
    return i == 1 && fd >= 0;
}

static int find_root(char *ret, usize cap)
{
    const char *v;
    if ((v = after(opt.root, "UUID=")))
        return find_by_content(v, 0, ret, cap);
    if ((v = after(opt.root, "LABEL=")))
        return find_by_content(0, v, ret, cap);
    if (opt.root[0] >= '0' && opt.root[0] <= '9')
        return make_node(opt.root, ret, cap);
    copy_text(ret, cap, opt.root);
    return is_block(ret);
}

static long try_mount(const char *dev, const char *fstype)
{
    return SYS(__NR_mount, dev, "/root", fstype, opt.read_only ? MS_RDONLY : 0,
               opt.flags[0] ? opt.flags : 0);
}

/* By the type that is known, else by every one that the kernel has for disks. */
static void mount_root(const char *dev)
{
    static char text[TEXT_MAX];
    char *rest = opt.fstype;
    long err = -ENOENT;
    for (char *type; (type = cut(&rest, ','));)
        if (!(err = try_mount(dev, type)))
            return;
    rest = text;
    read_text("/proc/filesystems", text, sizeof text);
    for (char *line; (line = cut(&rest, '\n'));)
        if (line[0] == '\t' && !(err = try_mount(dev, line + 1)))
            return;
    die("cannot mount the root file system on ", dev, number(err));
}

static const char *const moved[] = {"/dev", "/proc", "/sys"};

static void switch_root(void)
{
    char to[NAME_LEN] = "/root";
    for (unsigned i = 0; i < sizeof moved / sizeof *moved; i++) {
        copy_text(to + 5, sizeof to - 5, moved[i]);
        if (SYS(__NR_mount, moved[i], to, 0, MS_MOVE, 0))
            SYS(__NR_umount2, moved[i], MNT_DETACH, 0, 0, 0);
    }
    SYS(__NR_unlink, "/modules/order", 0, 0, 0, 0);
    SYS(__NR_unlink, "/init", 0, 0, 0, 0);
    if (SYS(__NR_chdir, "/root", 0, 0, 0, 0) || SYS(__NR_mount, ".", "/", 0, MS_MOVE, 0) ||
        SYS(__NR_chroot, ".", 0, 0, 0, 0) || SYS(__NR_chdir, "/", 0, 0, 0, 0))
        die("cannot switch to the root file system", 0, 0);
}

static void run_init(char **argv, char **envp)
{
    static const char *const places[] = {"/sbin/init", "/etc/init", "/bin/init", "/bin/sh"};
    if (opt.init[0]) {
        argv[0] = opt.init;
        long err = SYS(__NR_execve, opt.init, argv, envp, 0, 0);
        die("cannot run ", opt.init, number(err));
    }
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        argv[0] = (char *)places[i];
        SYS(__NR_execve, places[i], argv, envp, 0, 0);
    }
    die("no init found on ", opt.root, "; try init=");
}

static void __attribute__((noreturn, used)) start(long *stack)
{
    char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;
    char dev[256];
    SYS(__NR_mount, "dev", "/dev", "devtmpfs", 0, 0);
    SYS(__NR_mount, "proc", "/proc", "proc", 0, 0);
    SYS(__NR_mount, "sysfs", "/sys", "sysfs", 0, 0);
    long fd = open_at("/dev/kmsg", O_WRONLY);
    if (fd >= 0)
        kmsg = (int)fd;
    load_modules();
    parse_cmdline();
    for (long i = 0; i < opt.delay_s; i++)
        pause_ns(1000000000);
    for (long polls = 0; !find_root(dev, sizeof dev); polls++) {
        if (polls == WAIT_POLLS && !opt.wait_forever)
            die("root device does not appear: ", opt.root, 0);
        pause_ns(POLL_NS);
    }
    mount_root(dev);
    switch_root();
    run_init(argv, envp);
    die("init ended", 0, 0);
}

__asm__(".globl _start\n"
        "_start:\n"
        "\txor %ebp, %ebp\n"
        "\tmov %rsp, %rdi\n"
        "\tand $-16, %rsp\n"
        "\tcall start\n");
