/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's first program, in the initrd that Lodge makes: loads modules, mounts the root, and
 * hands over to its init. Freestanding (no C library, no other guest program), static.
 *
 * The archive holds /modules/order (one line a module: file, then "?" if it may fail, each after a
 * space; a file with its whole path stays, the others are removed) and /fstype (what the host saw
 * on the root disk, may be empty). The command line says the
 * rest, as the kernel itself understands it: root= (a device, MAJ:MIN, UUID=, LABEL=), rootfstype=,
 * rootflags=, ro, rw, init=, rootwait, rootdelay=. Words that the kernel did not know came as our
 * arguments and environment; both go on to the root's init.
 *
 * On failure it says why on the kernel log and ends, which is a kernel panic.
 *
 * Spec: Linux Documentation/filesystems/ramfs-rootfs-initramfs.rst, admin-guide/
 *       kernel-parameters.txt, the x86-64 system call ABI.
 */
#include "lib.h"
#include "uml.h"

enum {
    MS_RDONLY = 1,
    MS_MOVE = 8192,
    MNT_DETACH = 2,
    POLL_NS = 2000000, /* between looks for the root device */
    WAIT_POLLS = 5000, /* 10 s */
    UML_WAIT_POLLS = 1000, /* its disks are there from the start */
    CONSOLE_POLLS = 1000,
};

static char module_text[65536];

static void load_modules(void)
{
    char *rest = module_text;
    if (read_text("/modules/order", module_text, sizeof module_text) < 0)
        return;
    for (char *line; (line = cut(&rest, '\n'));) {
        char *flag = line, path[2 * NAME_LEN];
        char *name = cut(&flag, ' ');
        if (!name)
            continue;
        join(path, sizeof path, name[0] == '/' ? "" : "/modules/", name, 0);
        long fd = open_at(path, O_RDONLY);
        long err = fd < 0 ? fd : SYS(__NR_finit_module, fd, "", 0, 0, 0);
        if (fd >= 0)
            SYS(__NR_close, fd, 0, 0, 0, 0);
        if (err && err != -EEXIST && *flag != '?')
            say('3', "cannot load module ", name, number(err));
        if (name[0] != '/')
            SYS(__NR_unlink, path, 0, 0, 0, 0); /* its memory is the guest's again */
    }
}

static struct {
    char root[256], fstype[64], flags[512], init[256];
    int read_only, wait_forever, hvc;
    long delay_s;
} opt;

static void parse_cmdline(void)
{
    static char text[TEXT_MAX];
    char *rest = text, name[NAME_LEN];
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
        else if (after(word, "console="))
            opt.hvc = after(word, "console=hvc") != 0;
        else if (uml_word(word))
            continue;
        else if (same_text(word, "ro", 0))
            opt.read_only = 1;
        else if (same_text(word, "rw", 0))
            opt.read_only = 0;
        else if (same_text(word, "rootwait", 0))
            opt.wait_forever = 1;
    }
    if (!opt.root[0])
        copy_text(opt.root, sizeof opt.root, "/dev/vda");
    if (uml_on() && uml_root_name(opt.root, name, sizeof name))
        copy_text(opt.root, sizeof opt.root, name);
}

/* The console may be a terminal whose driver came with the modules: we have to open it. */
static void open_console(void)
{
    char text[NAME_LEN];
    long fd = -ENOENT;
    for (unsigned polls = 0; polls < CONSOLE_POLLS; polls++) {
        const char *p = text;
        read_text("/sys/class/tty/console/active", text, sizeof text);
        while (*p && !after(p, "hvc"))
            p++;
        if (*p)
            break;
        pause_ns(POLL_NS);
    }
    fd = SYS(__NR_openat, AT_FDCWD, "/dev/console", O_RDWR, 0, 0);
    for (int to = 0; fd >= 0 && to < 3; to++)
        if (fd != to)
            SYS(__NR_dup2, fd, to, 0, 0, 0);
    if (fd > 2)
        SYS(__NR_close, fd, 0, 0, 0, 0);
}

static int is_block(const char *path)
{
    return (mode_of(path, 1, 0) & S_IFMT) == S_IFBLK;
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
    log_open();
    load_modules();
    parse_cmdline();
    if (opt.hvc)
        open_console();
    if (uml_on())
        uml_prepare();
    if (same_text(opt.fstype, "hostfs", 0))
        die("a root on hostfs: Lodge has no file sharing yet; give an image as ubd0", 0, 0);
    for (long i = 0; i < opt.delay_s; i++)
        pause_ns(1000000000);
    for (long polls = 0; !find_root(dev, sizeof dev); polls++) {
        if (polls == (uml_on() ? UML_WAIT_POLLS : WAIT_POLLS) && !opt.wait_forever)
            die(uml_on() ? "VFS: Unable to mount root fs on " : "root device does not appear: ",
                opt.root, uml_on() ? ": there is no such disk" : 0);
        pause_ns(POLL_NS);
    }
    mount_root(dev);
    switch_root();
    if (uml_on()) {
        uml_finish();
        uml_stay();
    }
    run_init(argv, envp);
    die("init ended", 0, 0);
}

__asm__(".globl _start\n"
        "_start:\n"
        "\txor %ebp, %ebp\n"
        "\tmov %rsp, %rdi\n"
        "\tand $-16, %rsp\n"
        "\tcall start\n");
