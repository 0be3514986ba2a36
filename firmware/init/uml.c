/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an image made for User-Mode Linux expects, on a machine that has other devices: names.
 *
 * - /dev/ubdX, ubdXP, ubdN, ubd/N, ubd/discN/disc and partP: links to the virtio disk whose serial
 *   number is ubdN, or block nodes where /dev has not the disk's own name. The major number is
 *   virtio's.
 * - /dev/ttyN and ttySN: nodes of the virtio console's terminals (hvcK), whose ports have these
 *   names; port 0 is tty0. Linux numbers terminals in the order in which it meets the ports, each
 *   taking the lowest free number, and says nowhere which is whose: so we count as it does (1).
 * - ethN and vecN: cards get their names in the order of their slots. A name that was given counts
 *   as the user's for udev, which then leaves it.
 * - /lib/modules/VERSION of the kernel that runs, from the archive, where the image has none.
 * - Where the image has systemd or udev, /run is mounted early and holds rules for the names above,
 *   "halt" ends the machine as it ends UML, and hostfs says why it cannot be mounted.
 *
 * Nothing in the image is changed. Words of the command line: lodge.uml=1, lodge.ubdN=SERIAL,
 * lodge.eth=NAME,NAME...
 *
 * Spec: Linux Documentation/ABI/testing/sysfs-*, drivers/tty/hvc (1), admin-guide/devices.txt.
 */
#include "uml.h"

enum {
    DISKS = 16,
    PARTS = 15,
    PORTS = 32,
    HVCS = 8,
    NICS = 32,
    UBD_MAJOR = 98,
    SERIAL_LEN = 24,
    SHORT = 16, /* names of ports, cards and slots */
    SYS_LEN = 64,
    MS_NOSUID = 2,
    MS_NODEV = 4,
    AF_INET = 2,
    SOCK_DGRAM = 2,
    SIOCSIFNAME = 0x8923,
    OPEN_TREE_CLONE = 1,
    MOVE_MOUNT_F_EMPTY_PATH = 4,
    POLL_NS = 2000000,
    PORT_POLLS = 5000, /* 10 s */
};

static struct {
    int on;
    char serial[DISKS][SERIAL_LEN]; /* "" is ubdN */
    char eth[512];
    long modules; /* a mount that is nowhere yet, or negative */
} uml = {.modules = -1};

/* ---- words ---- */

int uml_word(const char *word)
{
    const char *v;
    if (same_text(word, "lodge.uml=1", 0)) {
        uml.on = 1;
    } else if ((v = after(word, "lodge.ubd"))) {
        long n = take_digits(&v);
        if (*v == '=')
            uml_expect_disk(n, v + 1);
    } else if ((v = after(word, "lodge.eth="))) {
        copy_text(uml.eth, sizeof uml.eth, v);
    } else {
        return 0;
    }
    return 1;
}

int uml_on(void)
{
    return uml.on;
}

void uml_expect_disk(long n, const char *serial)
{
    if (n >= 0 && n < DISKS)
        copy_text(uml.serial[n], SERIAL_LEN, serial);
}

static const char *disk_letter(unsigned n)
{
    static char text[2];
    text[0] = (char)('a' + n);
    return text;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int uml_root_name(const char *root, char *to, usize cap)
{
    const char *p = root;
    long major = take_digits(&p), minor;
    if (*p == ':') {
        p++;
        minor = take_digits(&p);
    } else { /* as the kernel takes it: four hexadecimal digits */
        unsigned v = 0;
        for (p = root; hex_digit(*p) >= 0 && p < root + 4; p++)
            v = v << 4 | (unsigned)hex_digit(*p);
        major = p == root + 4 ? (long)(v >> 8) : -1;
        minor = v & 0xff;
    }
    if (*p || major != UBD_MAJOR || minor < 0 || minor >= DISKS * (PARTS + 1))
        return 0;
    long part = minor % (PARTS + 1);
    join(to, cap, "/dev/ubd", disk_letter((unsigned)(minor / (PARTS + 1))),
         part ? number(part) : "");
    return 1;
}

/* ---- nodes ---- */

/* The first line of the file @a@b@c of /sys; whether there is one. */
static int read_sys(const char *a, const char *b, const char *c, char *to, usize cap)
{
    char path[NAME_LEN];
    join(path, sizeof path, a, b, c);
    if (read_text(path, to, cap) <= 0)
        return 0;
    for (char *p = to; *p; p++)
        if (*p == '\n')
            *p = 0;
    return *to != 0;
}

/* "254:17", as sysfs writes device numbers, to what mknod takes. */
static int parse_rdev(const char *text, usize *ret)
{
    long major = take_digits(&text);
    if (*text++ != ':')
        return 0;
    long minor = take_digits(&text);
    if (major < 0 || minor < 0)
        return 0;
    *ret = ((usize)(major & 0xfff) << 8) | (usize)(minor & 0xff) | ((usize)(minor & 0xfff00) << 12);
    return 1;
}

/* Make @path a link to @target, or a node where that leads to something else. */
static void make_node(const char *path, const char *target, u32 type, usize rdev)
{
    usize now = 0;
    if ((mode_of(path, 1, &now) & S_IFMT) == type && now == rdev)
        return;
    SYS(__NR_unlink, path, 0, 0, 0, 0);
    if (target) {
        SYS(__NR_symlink, target, path, 0, 0, 0);
        if ((mode_of(path, 1, &now) & S_IFMT) == type && now == rdev)
            return;
        SYS(__NR_unlink, path, 0, 0, 0, 0);
    }
    SYS(__NR_mknod, path, type | 0600, rdev, 0, 0);
}

static void drop_dangling(const char *path)
{
    if ((mode_of(path, 0, 0) & S_IFMT) == S_IFLNK && !mode_of(path, 1, 0))
        SYS(__NR_unlink, path, 0, 0, 0, 0);
}

/* ---- disks ---- */

enum { NAMES = 4 };

/* Name @i of disk @n, or of its partition @part; 0: there is no such name. */
static int disk_name(unsigned n, unsigned part, unsigned i, char *to, usize cap)
{
    char text[SHORT], base[SHORT];
    copy_text(text, sizeof text, number((long)n));
    copy_text(base, sizeof base, part ? number((long)part) : "");
    switch (i) {
    case 0:
        join(to, cap, "/dev/ubd", disk_letter(n), base);
        return 1;
    case 1:
        join(to, cap, "/dev/ubd/disc", text, part ? "/part" : "/disc");
        join(to, cap, to, base, 0);
        return 1;
    case 2:
        join(to, cap, "/dev/ubd", text, 0);
        return !part;
    default:
        join(to, cap, "/dev/ubd/", text, 0);
        return !part;
    }
}

static struct {
    unsigned n;
    char name[SHORT * 2]; /* the kernel's, as vda */
} disk;

static void name_block(unsigned part, const char *kernel_name, usize rdev)
{
    char path[NAME_LEN], target[NAME_LEN];
    join(target, sizeof target, "/dev/", kernel_name, 0);
    for (unsigned i = 0; i < NAMES; i++)
        if (disk_name(disk.n, part, i, path, sizeof path))
            make_node(path, target, S_IFBLK, rdev);
}

static void see_partition(const char *name)
{
    char path[NAME_LEN], text[SYS_LEN];
    const char *p = text;
    usize rdev;
    if (!after(name, disk.name))
        return;
    join(path, sizeof path, "/sys/block/", disk.name, "/");
    join(path, sizeof path, path, name, "/");
    if (!read_sys(path, "partition", 0, text, sizeof text))
        return;
    long part = take_digits(&p);
    if (part >= 1 && part <= PARTS && read_sys(path, "dev", 0, text, sizeof text) &&
        parse_rdev(text, &rdev))
        name_block((unsigned)part, name, rdev);
}

static void see_disk(const char *name)
{
    char serial[SYS_LEN], text[SYS_LEN], dir[NAME_LEN];
    usize rdev;
    if (len_of(name) >= sizeof disk.name ||
        !read_sys("/sys/block/", name, "/serial", serial, sizeof serial) ||
        !read_sys("/sys/block/", name, "/dev", text, sizeof text) || !parse_rdev(text, &rdev))
        return;
    for (unsigned n = 0; n < DISKS; n++) {
        join(text, sizeof text, "ubd", number((long)n), 0);
        if (!same_text(serial, uml.serial[n][0] ? uml.serial[n] : text, 0))
            continue;
        disk.n = n;
        copy_text(disk.name, sizeof disk.name, name);
        SYS(__NR_mkdir, "/dev/ubd", 0755, 0, 0, 0);
        join(dir, sizeof dir, "/dev/ubd/disc", number((long)n), 0);
        SYS(__NR_mkdir, dir, 0755, 0, 0, 0);
        name_block(0, name, rdev);
        join(dir, sizeof dir, "/sys/block/", name, 0);
        each_name(dir, see_partition);
        return;
    }
}

static void sync_disks(void)
{
    char path[NAME_LEN];
    each_name("/sys/block", see_disk);
    for (unsigned n = 0; n < DISKS; n++)
        for (unsigned part = 0; part <= PARTS; part++)
            for (unsigned i = 0; i < NAMES; i++)
                if (disk_name(n, part, i, path, sizeof path))
                    drop_dangling(path);
}

/* ---- terminals ---- */

static struct {
    int there, hvc; /* hvc: its number + 1, 0: none */
    char name[SHORT];
} port[PORTS];
static unsigned hvc_taken;           /* a bit for each */
static char port_prefix[SHORT];      /* "vport3p": the device's, which has the port below; "": not seen */
#define MCONSOLE_PORT "lodge.mconsole"

/* Linux counts all virtio devices, so the number in a port's name may be any. */
static void see_device(const char *name)
{
    char text[SYS_LEN];
    usize n = 0;
    if (!read_sys("/sys/class/virtio-ports/", name, "/name", text, sizeof text) ||
        !same_text(text, MCONSOLE_PORT, 0) || len_of(name) >= SHORT)
        return;
    for (usize i = 0; name[i]; i++)
        n = name[i] == 'p' ? i + 1 : n; /* behind the last p */
    copy_text(port_prefix, SHORT, name);
    port_prefix[n] = 0;
}

static void see_port(const char *name)
{
    const char *p = after(name, port_prefix);
    long n = p ? take_digits(&p) : -1;
    if (n >= 0 && n < PORTS)
        port[n].there = 1;
}

/* What sysfs and /dev call port @n: static, until the next call. */
static const char *port_name(unsigned n)
{
    static char text[SHORT + SHORT];
    join(text, sizeof text, port_prefix, number((long)n), 0);
    return text;
}

/* A terminal that went: the kernel's own device of that name is there again, if it has one. */
static void forget_port(unsigned n)
{
    char path[NAME_LEN], text[SYS_LEN];
    usize rdev;
    join(path, sizeof path, "/dev/", port[n].name, 0);
    if (port[n].hvc) {
        hvc_taken &= ~(1u << (port[n].hvc - 1));
        if (read_sys("/sys/class/tty/", port[n].name, "/dev", text, sizeof text) &&
            parse_rdev(text, &rdev))
            make_node(path, 0, S_IFCHR, rdev);
        else
            SYS(__NR_unlink, path, 0, 0, 0, 0);
    }
    port[n].hvc = 0;
    port[n].name[0] = 0;
}

/* Name and terminal of a port that is new; 0: it has no name yet. */
static int learn_port(unsigned n)
{
    char text[SYS_LEN];
    if (port[n].name[0])
        return 1;
    if (n == 0)
        copy_text(text, sizeof text, "tty0");
    else if (!read_sys("/sys/class/virtio-ports/", port_name(n), "/name", text, sizeof text))
        return 0;
    copy_text(port[n].name, SHORT, text);
    if (after(text, "tty"))
        for (unsigned h = 0; h < HVCS && !port[n].hvc; h++)
            if (!(hvc_taken & 1u << h)) { /* keeps (1) */
                hvc_taken |= 1u << h;
                port[n].hvc = (int)h + 1;
            }
    return 1;
}

/* How many ports are there with their names, and their terminals where they have one. */
static unsigned sync_ports(void)
{
    char path[NAME_LEN], text[SYS_LEN];
    unsigned known = 0;
    usize rdev;
    for (unsigned n = 0; n < PORTS; n++)
        port[n].there = 0;
    if (!port_prefix[0])
        each_name("/sys/class/virtio-ports", see_device);
    if (port_prefix[0])
        each_name("/sys/class/virtio-ports", see_port);
    for (unsigned n = 0; n < PORTS; n++)
        if (!port[n].there)
            forget_port(n);
    for (unsigned n = 0; n < PORTS; n++) {
        if (!port[n].there)
            continue;
        if (!learn_port(n))
            break; /* keeps (1): those behind it come after it */
        join(path, sizeof path, "/dev/", port[n].name, 0);
        if (!port[n].hvc) {
            known++;
        } else if (read_sys("/sys/class/tty/hvc", number(port[n].hvc - 1), "/dev", text,
                            sizeof text) && parse_rdev(text, &rdev)) {
            make_node(path, 0, S_IFCHR, rdev);
            known++;
        }
    }
    return known;
}

long uml_open_mconsole(void)
{
    char path[NAME_LEN];
    for (unsigned n = 0; n < PORTS; n++) {
        if (!same_text(port[n].name, MCONSOLE_PORT, 0))
            continue;
        join(path, sizeof path, "/dev/", port_name(n), 0);
        return open_at(path, O_RDWR | O_NONBLOCK);
    }
    return -ENODEV;
}

void uml_sync(void)
{
    sync_disks();
    (void)sync_ports();
}

/* ---- network cards ---- */

static struct {
    char slot[SHORT], name[SHORT];
} nic[NICS];
static unsigned nics;

static struct {
    char name[SHORT], mac[24];
} expected[NICS]; /* by number of the order to come; the oldest are forgotten */
static unsigned expected_at;

static void rename_nic(const char *from, const char *to)
{
    char request[40] = "";
    long fd = SYS(__NR_socket, AF_INET, SOCK_DGRAM, 0, 0, 0);
    if (fd < 0)
        return;
    copy_text(request, SHORT, from);
    copy_text(request + SHORT, SHORT, to);
    long err = SYS(__NR_ioctl, fd, SIOCSIFNAME, request, 0, 0);
    if (err)
        say('4', from, " cannot get the name ", to);
    SYS(__NR_close, fd, 0, 0, 0, 0);
}

/* Where /sys/class/net/NAME leads, the slot stands behind the bus: .../pci0000:00/0000:00:05.0 */
static void see_nic(const char *name)
{
    char path[NAME_LEN], to[256] = "", *rest = to, *slot = 0;
    join(path, sizeof path, "/sys/class/net/", name, 0);
    if (nics == NICS || len_of(name) >= SHORT ||
        SYS(__NR_readlink, path, to, sizeof to - 1, 0, 0) <= 0)
        return;
    for (char *piece; (piece = cut(&rest, '/')) && !slot;)
        if (after(piece, "pci"))
            slot = cut(&rest, '/');
    if (!slot)
        return;
    unsigned at = nics++;
    for (; at; at--) { /* put it where it belongs */
        const char *a = nic[at - 1].slot, *b = slot;
        while (*a && *a == *b)
            a++, b++;
        if (*a <= *b)
            break;
        nic[at] = nic[at - 1];
    }
    copy_text(nic[at].slot, SHORT, slot);
    copy_text(nic[at].name, SHORT, name);
}

static void name_nics(void)
{
    char text[sizeof uml.eth], *rest = text, aside[SHORT];
    each_name("/sys/class/net", see_nic);
    /* Out of each other's way first; and only a name that was changed counts as given. */
    for (unsigned i = 0; i < nics && uml.eth[0]; i++) {
        join(aside, sizeof aside, "lodge", number((long)i), 0);
        rename_nic(nic[i].name, aside);
    }
    copy_text(text, sizeof text, uml.eth);
    for (unsigned i = 0; i < nics && uml.eth[0]; i++) {
        const char *name = cut(&rest, ',');
        join(aside, sizeof aside, "lodge", number((long)i), 0);
        rename_nic(aside, name ? name : nic[i].name);
    }
}

void uml_expect_eth(const char *name, const char *mac)
{
    unsigned at = expected_at++ % NICS;
    copy_text(expected[at].name, SHORT, name);
    copy_text(expected[at].mac, sizeof expected[at].mac, mac);
}

void uml_rename_eth(const char *now)
{
    char mac[SYS_LEN];
    if (!read_sys("/sys/class/net/", now, "/address", mac, sizeof mac))
        return;
    for (unsigned i = 0; i < NICS; i++) {
        if (!expected[i].name[0] || !same_text(expected[i].mac, mac, 1))
            continue;
        if (same_text(expected[i].name, now, 0)) { /* twice, so that it counts as given */
            rename_nic(now, "lodge-eth");
            rename_nic("lodge-eth", now);
        } else {
            rename_nic(now, expected[i].name);
        }
        expected[i].name[0] = 0;
        return;
    }
}

/* ---- what the root finds ---- */

static void write_text(const char *path, const char *text)
{
    long fd = SYS(__NR_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644, 0);
    if (fd < 0)
        return;
    SYS(__NR_write, fd, text, len_of(text), 0, 0);
    SYS(__NR_close, fd, 0, 0, 0, 0);
}

static const char net_link[] = "[Match]\nDriver=virtio_net\n\n[Link]\nNamePolicy=keep\n";
static const char halt_unit[] = "[Unit]\nSuccessAction=poweroff-force\n";
static const char hostfs_rule[] =
    "install fs-hostfs /bin/sh -c 'echo \"<4>hostfs: files of the host cannot be mounted yet: "
    "Lodge has no file sharing; attach a disk, or copy over the network\" > /dev/kmsg; exit 1'\n";

static void write_udev_rules(void)
{
    static char rules[DISKS * 320];
    char n[SHORT], serial[SERIAL_LEN];
    rules[0] = 0;
    for (unsigned i = 0; i < DISKS; i++) {
        copy_text(n, sizeof n, number((long)i));
        join(serial, sizeof serial, "ubd", n, 0);
        if (uml.serial[i][0])
            copy_text(serial, sizeof serial, uml.serial[i]);
        const char *parts[] = {
            "SUBSYSTEM==\"block\", ENV{DEVTYPE}==\"disk\", ATTR{serial}==\"", serial,
            "\", SYMLINK+=\"ubd", disk_letter(i), " ubd", n, " ubd/", n, " ubd/disc", n,
            "/disc\"\nSUBSYSTEM==\"block\", ENV{DEVTYPE}==\"partition\", ATTRS{serial}==\"", serial,
            "\", SYMLINK+=\"ubd", disk_letter(i), "%n ubd/disc", n, "/part%n\"\n"};
        for (unsigned k = 0; k < sizeof parts / sizeof *parts; k++)
            join(rules, sizeof rules, rules, parts[k], 0);
    }
    write_text("/run/udev/rules.d/10-lodge-uml.rules", rules);
}

/* The image brings its own /run, empty at each start, if it is one of these. */
static void fill_run(void)
{
    static const char *const signs[] = {"/lib/systemd/systemd", "/usr/lib/systemd/systemd",
                                        "/etc/init.d/mountkernfs.sh"};
    static const char *const dirs[] = {
        "/run/udev", "/run/udev/rules.d", "/run/modprobe.d", "/run/systemd", "/run/systemd/network",
        "/run/systemd/system", "/run/systemd/system/systemd-halt.service.d"};
    int found = 0;
    for (unsigned i = 0; i < sizeof signs / sizeof *signs; i++)
        found |= mode_of(signs[i], 1, 0) != 0;
    if (!found || SYS(__NR_mount, "tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV,
                      (long)"mode=755,size=20%"))
        return;
    for (unsigned i = 0; i < sizeof dirs / sizeof *dirs; i++)
        SYS(__NR_mkdir, dirs[i], 0755, 0, 0, 0);
    write_udev_rules();
    write_text("/run/modprobe.d/lodge-uml.conf", hostfs_rule);
    write_text("/run/systemd/network/10-lodge-uml.link", net_link);
    write_text("/run/systemd/system/systemd-halt.service.d/10-lodge-uml.conf", halt_unit);
    /* The terminal of tty0 is the console's: one login there is enough. */
    if (mode_of("/etc/systemd/system/getty.target.wants/getty@tty0.service", 0, 0))
        SYS(__NR_symlink, "/dev/null", "/run/systemd/system/serial-getty@hvc0.service", 0, 0, 0);
}

/* What every /dev has that is not made by devtmpfs alone. */
static void fill_dev(void)
{
    static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                           {"fd/0", "/dev/stdin"},
                                           {"fd/1", "/dev/stdout"},
                                           {"fd/2", "/dev/stderr"}};
    SYS(__NR_mkdir, "/dev/pts", 0755, 0, 0, 0);
    SYS(__NR_mkdir, "/dev/shm", 01777, 0, 0, 0);
    for (unsigned i = 0; i < sizeof links / sizeof *links; i++)
        SYS(__NR_symlink, links[i][0], links[i][1], 0, 0, 0);
}

static char release[65];

static void read_release(void)
{
    static char uts[6 * 65];
    if (!SYS(__NR_uname, uts, 0, 0, 0, 0))
        copy_text(release, sizeof release, uts + 2 * 65);
}

void uml_prepare(void)
{
    char text[SHORT];
    const char *p = text;
    long ports = read_text("/ports", text, sizeof text) > 0 ? take_digits(&p) : 0;
    for (unsigned polls = 0; (long)sync_ports() < ports && polls < PORT_POLLS; polls++)
        pause_ns(POLL_NS);
    name_nics();
    fill_dev();
    uml_sync();
    uml.modules = SYS(__NR_open_tree, AT_FDCWD, "/lib/modules", OPEN_TREE_CLONE | O_CLOEXEC, 0, 0);
}

void uml_finish(void)
{
    char path[NAME_LEN];
    read_release();
    join(path, sizeof path, "/lib/modules/", release, 0);
    if (uml.modules >= 0 && !mode_of(path, 1, 0) &&
        SYS(__NR_move_mount, uml.modules, "", AT_FDCWD, "/lib/modules", MOVE_MOUNT_F_EMPTY_PATH))
        say('5', "the image has no folder /lib/modules: no modules for this kernel", 0, 0);
    if (uml.modules >= 0)
        SYS(__NR_close, uml.modules, 0, 0, 0, 0);
    fill_run();
}
