/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process that stays in the guest of a machine that is run as User-Mode Linux: it hears of
 * devices that come and go and gives them their names, whatever the image has for that, and is the
 * management console's hands in the guest.
 *
 * It looks again for a while after each event, since udev may make a node of its own in between,
 * and when a file system is mounted, since a new /dev hides the names. It ends when the guest's
 * init ends all processes; what it named stays.
 *
 * The port lodge.mconsole has lines, ended by a newline, from the host:
 *   proc ID FILE     the file of /proc; FILE has no ".." in it
 *   stack ID PID     /proc/PID/stack
 *   log TEXT         to the kernel's log
 *   cad .            what the kernel does when Ctrl-Alt-Del is pressed: init is told, or a restart
 *   eth NAME MAC     the card with this address, which comes next, has this name
 *   ubd N SERIAL     likewise for a disk
 * and answers in pieces, each a line "ID STATUS LENGTH" and LENGTH bytes. STATUS: '+' more follow,
 * '.' the last one, 'o' it cannot be opened, 'r' it cannot be read; only '+' has bytes. Before
 * all of that the line "hello 1" says that somebody is here. A line that is too long is left out.
 *
 * Spec: Linux netlink(7), NETLINK_KOBJECT_UEVENT; proc(5) on polling mountinfo.
 */
#include "uml.h"

enum {
    AF_NETLINK = 16,
    SOCK_DGRAM = 2,
    SOCK_CLOEXEC = 02000000,
    NETLINK_KOBJECT_UEVENT = 15,
    SIGINT = 2,
    SIGCHLD = 17,
    REBOOT_MAGIC1 = 0xfee1dead - (1L << 32), /* the kernel takes an int */
    REBOOT_MAGIC2 = 672274793,
    REBOOT_RESTART = 0x1234567,
    PR_SET_NAME = 15,
    POLLIN = 1,
    POLLPRI = 2,
    SOON_MS = 20,
    BATCHES = 20,
    LATER_MS = 400,
    LATER_ROUNDS = 5,
    HUNG_UP_MS = 1000,
    PIECE = 4096,
    TOTAL_MAX = 1 << 20,
    WRITE_WAIT_NS = 1000000,
    WRITE_WAITS = 2000,
    LINE_MAX = 600,
};

typedef struct PollFd {
    int fd;
    short events, revents;
} PollFd;

static long mconsole = -1;

/* ---- the management console ---- */

static int put_all(const char *data, usize len)
{
    for (unsigned waits = 0; len && waits < WRITE_WAITS;) {
        long n = SYS(__NR_write, mconsole, data, len, 0, 0);
        if (n > 0) {
            data += n;
            len -= (usize)n;
        } else {
            waits++;
            pause_ns(WRITE_WAIT_NS);
        }
    }
    return !len;
}

static int answer(const char *id, const char *status, const char *data, usize len)
{
    char head[64];
    join(head, sizeof head, id, status, number((long)len));
    join(head, sizeof head, head, "\n", 0);
    return put_all(head, len_of(head)) && put_all(data, len);
}

static void send_file(const char *id, const char *path)
{
    static char piece[PIECE];
    long fd = open_at(path, O_RDONLY | O_NONBLOCK), n = 0;
    if (fd < 0) {
        (void)answer(id, " o ", 0, 0);
        return;
    }
    for (usize total = 0; total < TOTAL_MAX; total += (usize)n) {
        n = SYS(__NR_read, fd, piece, sizeof piece, 0, 0);
        if (n <= 0 || !answer(id, " + ", piece, (usize)n))
            break;
    }
    (void)answer(id, n < 0 ? " r " : " . ", 0, 0);
    SYS(__NR_close, fd, 0, 0, 0, 0);
}

static int climbs(const char *path)
{
    for (; *path; path++)
        if (path[0] == '.' && path[1] == '.')
            return 1;
    return 0;
}

/* What the kernel does itself where it has a keyboard: a restart, unless init wants to be told. */
static void press_cad(void)
{
    char text[NAME_LEN];
    if (read_text("/proc/sys/kernel/ctrl-alt-del", text, sizeof text) > 0 && text[0] == '0')
        SYS(__NR_kill, 1, SIGINT, 0, 0, 0);
    else
        SYS(__NR_reboot, REBOOT_MAGIC1, REBOOT_MAGIC2, REBOOT_RESTART, 0, 0);
}

static void obey(char *line)
{
    char *rest = line, path[LINE_MAX + NAME_LEN];
    const char *text;
    if ((text = after(line, "log "))) {
        say('4', text, 0, 0);
        return;
    }
    const char *word = cut(&rest, ' '), *first = cut(&rest, ' ');
    if (!word || !first)
        return;
    if (same_text(word, "proc", 0)) {
        join(path, sizeof path, "/proc/", climbs(rest) ? "" : rest, 0);
        send_file(first, climbs(rest) ? "" : path);
    } else if (same_text(word, "stack", 0)) {
        join(path, sizeof path, "/proc/", climbs(rest) ? "0" : rest, "/stack");
        send_file(first, path);
    } else if (same_text(word, "cad", 0)) {
        press_cad();
    } else if (same_text(word, "eth", 0)) {
        uml_expect_eth(first, rest);
    } else if (same_text(word, "ubd", 0)) {
        uml_expect_disk(take_digits(&first), rest);
    }
}

/* Return: whether the other end is there. */
static int read_mconsole(void)
{
    static char line[LINE_MAX], data[512];
    static usize at;
    long n = SYS(__NR_read, mconsole, data, sizeof data, 0, 0);
    for (long i = 0; i < n; i++) {
        if (data[i] != '\n') {
            if (at < sizeof line)
                line[at++] = data[i];
            continue;
        }
        if (at < sizeof line) {
            line[at] = 0;
            obey(line);
        }
        at = 0;
    }
    return n > 0 || n == -EAGAIN;
}

/* ---- events ---- */

static long open_events(void)
{
    struct {
        u16 family, pad;
        u32 pid, groups;
    } at = {AF_NETLINK, 0, 0, 1};
    long fd = SYS(__NR_socket, AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | O_NONBLOCK,
                  NETLINK_KOBJECT_UEVENT, 0, 0);
    if (fd >= 0 && SYS(__NR_bind, fd, &at, sizeof at, 0, 0))
        return -1;
    return fd;
}

/* One event, "ACTION@PATH" and then NAME=VALUE, each with its zero. Whether names may change. */
static int take_event(const char *text, long n)
{
    const char *subsystem = "", *interface = 0, *v;
    for (const char *p = text; p < text + n; p += len_of(p) + 1) {
        if ((v = after(p, "SUBSYSTEM=")))
            subsystem = v;
        else if ((v = after(p, "INTERFACE=")))
            interface = v;
    }
    if (same_text(subsystem, "net", 0) && interface && after(text, "add@"))
        uml_rename_eth(interface);
    return same_text(subsystem, "block", 0) || same_text(subsystem, "virtio-ports", 0) ||
           same_text(subsystem, "tty", 0);
}

static int take_events(long fd)
{
    static char text[8192];
    int change = 0;
    long n;
    while ((n = SYS(__NR_read, fd, text, sizeof text - 1, 0, 0)) > 0) {
        text[n] = 0;
        change |= take_event(text, n);
    }
    return change || n != -EAGAIN; /* some were lost: look at everything */
}

static void watch(long events)
{
    PollFd p[] = {{(int)events, POLLIN, 0},
                  {(int)open_at("/proc/self/mountinfo", O_RDONLY), POLLPRI, 0},
                  {(int)mconsole, POLLIN, 0}};
    unsigned later = LATER_ROUNDS, batches = 0;
    for (;;) {
        long n = SYS(__NR_poll, p, sizeof p / sizeof *p, batches ? SOON_MS : later ? LATER_MS : -1,
                     0, 0);
        if (n < 0)
            continue;
        if ((p[0].revents && take_events(events)) || p[1].revents)
            batches++;
        /* Events come in crowds: look when it is quiet, or when it was not for long. */
        if (batches > BATCHES || n == 0) {
            later = batches ? LATER_ROUNDS : later - 1;
            batches = 0;
            uml_sync();
        }
        if (p[2].revents && !(p[2].revents & POLLIN && read_mconsole()))
            pause_ns(HUNG_UP_MS * 1000000L); /* nobody listens on the host */
    }
}

void uml_stay(void)
{
    long events = open_events(); /* before we look for the last time: nothing is missed */
    mconsole = uml_open_mconsole();
    long pid = SYS(__NR_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid < 0)
        say('4', "no process for devices that come later: ", number(pid), 0);
    if (pid) {
        if (events >= 0)
            SYS(__NR_close, events, 0, 0, 0, 0);
        if (mconsole >= 0)
            SYS(__NR_close, mconsole, 0, 0, 0, 0);
        return;
    }
    SYS(__NR_setsid, 0, 0, 0, 0, 0);
    SYS(__NR_prctl, PR_SET_NAME, "lodge-uml", 0, 0, 0);
    for (int fd = 0; fd < 3; fd++)
        SYS(__NR_close, fd, 0, 0, 0, 0);
    if (mconsole >= 0)
        (void)put_all("hello 1\n", 8);
    uml_sync();
    watch(events);
}
