/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * User-Mode Linux's command line, compiled to the description that "lodge run" makes too.
 *
 * Spec: Linux 6.1, Documentation/virt/uml/user_mode_linux_howto_v2.rst and arch/um (um_arch.c,
 * mem.c, umid.c, ubd_kern.c, net_kern.c, vector_kern.c, stdio_console.c, ssl.c).
 *
 * A word is UML's where it begins with a key of the table, the first that fits; all words but umid=
 * and kernel= go to the guest, joined by blanks, as scripts in the guest read them there. What UML
 * adds is added (root=98:0, a console), and what Lodge's own part in the guest goes by: lodge.uml,
 * lodge.eth (the names of cards by their slots), lodge.ubdN (a disk's serial number that the user
 * chose). Such words have a dot, so that a kernel does not take them for its init's.
 *
 * What differs, because the guest is a kernel of PCs on hardware:
 * - mem= is a word of that kernel too, and means an address there: with memory above the hole for
 *   PCI it would take away what lies there, so it is not passed on.
 * - With a user's own initrd, or with a kernel that is no bzImage, Lodge's part in the guest is not
 *   there: con0 is the first serial port, and root=98:N is told as /dev/vdX.
 * - Else con0 is the virtio console, on which the kernel repeats what it said before that was
 *   there. The serial port writes to con0 as well, for who wants to see the first moments: as a
 *   boot console (earlycon=uart8250,io,0x3f8), which the kernel gives up when the other is there.
 *   It costs two exits a letter, so it is nobody's default.
 * - A panic has to end the machine: panic=-1 makes the kernel reset it, where nothing else is said.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "pc_map.h"
#include "uml_internal.h"

#define MEMORY_DEFAULT (512 * MIB)
#define MEMORY_MIN MIB
#define MEMORY_MAX (1024 * GIB)
#define PAGE ((uint64_t)4096)
#define UBD_MAJOR 98
#define UBD_MINORS 16u /* of one disk: itself and 15 partitions */
#define APPEND_MAX 2047 /* COMMAND_LINE_SIZE of x86, less its NUL */

void uml_note(Uml *u, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    g_ptr_array_add(u->o.notes, g_strdup_vprintf(format, ap));
    va_end(ap);
}

bool uml_put(Uml *u, const char *path, const char *prop, const char *value, GError **error)
{
    return tree_set_str(u->tree, path, prop, value) ||
           lodge_fail(error, LODGE_ERROR_CONFIG, "\"%s\": too long", value);
}

void uml_options_clear(UmlOptions *o)
{
    g_clear_pointer(&o->umid, g_free);
    g_clear_pointer(&o->uml_dir, g_free);
    g_clear_pointer(&o->notify, g_free);
    g_clear_pointer(&o->notes, g_ptr_array_unref);
    g_clear_pointer(&o->windows, g_ptr_array_unref);
    g_clear_pointer(&o->xterm, g_free);
}

static void uml_clear(Uml *u)
{
    uml_options_clear(&u->o);
    g_clear_pointer(&u->initrd, g_free);
    g_clear_pointer(&u->root, g_free);
    for (unsigned i = 0; i <= UML_UBD_MAX; i++)
        uml_disk_clear(&u->disk[i]);
    uml_clear_nets(u);
    uml_clear_lines(u);
}

/* ---- words ---- */

/* As memparse() reads it: what stands behind the suffix does not count. */
static bool take_mem(Uml *u, const char *rest, GError **error)
{
    static const char suffixes[] = "kmgt";
    char *end;
    guint64 n = g_ascii_isdigit(rest[0]) ? strtoull(rest, &end, 0) : 0;
    const char *suffix = n && *end ? strchr(suffixes, g_ascii_tolower(*end)) : NULL;
    unsigned shift = suffix ? 10 * (unsigned)(suffix - suffixes + 1) : 0;

    if (!n || n > MEMORY_MAX >> shift || (n << shift) < MEMORY_MIN)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "mem=%s: not a size from 1M to 1T; write it like mem=256M", rest);
    u->memory = align_up(n << shift, PAGE);
    return true;
}

static bool take_umid(Uml *u, const char *rest, GError **error)
{
    if (u->o.umid)
        uml_note(u, "umid=%s: the machine is called \"%s\" already", rest, u->o.umid);
    else
        u->o.umid = g_strdup(rest);
    return true;
}

static bool take_uml_dir(Uml *u, const char *rest, GError **error)
{
    if (!rest[0])
        return lodge_fail(error, LODGE_ERROR_CONFIG, "uml_dir=: is empty; name a folder");
    g_free(u->o.uml_dir);
    u->o.uml_dir = g_strdup(rest);
    return true;
}

static bool take_mconsole(Uml *u, const char *rest, GError **error)
{
    const char *path = g_str_has_prefix(rest, "notify:") ? rest + strlen("notify:") : "";

    if (!path[0])
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "mconsole=%s: write mconsole=notify:PATH, a datagram socket", rest);
    g_free(u->o.notify);
    u->o.notify = g_strdup(path);
    return true;
}

static bool take_ubd(Uml *u, const char *rest, GError **error)
{
    const char *at = rest;
    unsigned n;

    if (rest[0] == '=') {
        if (!strcmp(rest, "=sync"))
            return true; /* a guest's flush reaches the disk anyway */
        return lodge_fail(error, LODGE_ERROR_CONFIG, "ubd%s: write ubd=sync, or ubdN=FILE", rest);
    }
    UmlDisk d = {0};
    const char *problem = uml_disk_parse(rest, &d);
    if (problem)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "ubd%s: %s", rest, problem);
    if (!uml_take_number(&at, true, &n) || u->disk_given[d.n]) {
        uml_disk_clear(&d);
        return lodge_fail(error, LODGE_ERROR_CONFIG, "ubd%s: this disk is given twice", rest);
    }
    u->disk_given[d.n] = true;
    u->disk[d.n] = d;
    return true;
}

static bool take_initrd(Uml *u, const char *rest, GError **error)
{
    if (!rest[0])
        return lodge_fail(error, LODGE_ERROR_CONFIG, "initrd=: is empty; name a file");
    g_free(u->initrd);
    u->initrd = g_strdup(rest);
    return true;
}

static bool take_root(Uml *u, const char *rest, GError **error)
{
    g_free(u->root);
    u->root = g_strdup(rest);
    return true;
}

static bool take_noreboot(Uml *u, const char *rest, GError **error)
{
    u->o.no_reboot = true;
    return true;
}

static bool take_nothing(Uml *u, const char *rest, GError **error)
{
    return true;
}

static bool take_fake_ide(Uml *u, const char *rest, GError **error)
{
    uml_note(u, "fake_ide, udb: there are no such disks; the disks are ubda, ubdb and so on");
    return true;
}

static bool take_xterm(Uml *u, const char *rest, GError **error)
{
    if (!rest[0] || rest[0] == ',')
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "xterm=%s: write xterm=EMULATOR[,TITLE-OPTION[,RUN-OPTION]]", rest);
    g_free(u->o.xterm);
    u->o.xterm = g_strdup(rest);
    return true;
}

static bool take_hostfs_root(Uml *u, const char *rest, GError **error)
{
    if (g_str_has_prefix(rest, "hostfs"))
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "rootfstype=hostfs: folders of the host are not shared by this version; "
                          "make an image of it: ubd0=FILE");
    return true;
}

static bool refuse_clock(Uml *u, const char *rest, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                      "time-travel%s: a machine on hardware runs in real time; leave it away",
                      rest);
}

static bool refuse_iomem(Uml *u, const char *rest, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                      "iomem=%s: files are not shown as memory of devices; leave it away", rest);
}

static bool refuse_dtb(Uml *u, const char *rest, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                      "dtb=%s: a PC's kernel takes no device tree; leave it away", rest);
}

static bool refuse_virtio_uml(Uml *u, const char *rest, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                      "virtio_uml.device=%s: devices in other processes (vhost-user) are not had "
                      "by this version; use ubdN=, ethN=, vecN:", rest);
}

static bool ask_help(Uml *u, const char *rest, GError **error)
{
    u->o.ask = UML_ASK_HELP;
    return true;
}

static bool ask_version(Uml *u, const char *rest, GError **error)
{
    u->o.ask = UML_ASK_VERSION;
    return true;
}

static bool ask_config(Uml *u, const char *rest, GError **error)
{
    u->o.ask = UML_ASK_CONFIG;
    return true;
}

enum { OURS = 1 }; /* not for the guest as it stands */

/* The first key that a word begins with takes it. */
static const struct Word {
    const char *key;
    bool (*take)(Uml *u, const char *rest, GError **error);
    unsigned flags;
    const char *form, *help; /* NULL: not in the help */
} words[] = {
    {"mem=", take_mem, 0, "mem=SIZE", "memory: a number with K, M or G (512M)"},
    {"umid=", take_umid, OURS, "umid=NAME", "the machine's name for uml_mconsole"},
    {"uml_dir=", take_uml_dir, 0, "uml_dir=DIR", "the folder of machines' folders (~/.uml)"},
    {"mconsole=", take_mconsole, 0, "mconsole=notify:PATH",
     "a datagram socket that is told when the management console is there, and of a panic"},
    {"kernel=", take_nothing, OURS, "kernel=FILE",
     "the guest's kernel ($LODGE_UML_KERNEL, else that of uml.conf, else the host's own)"},
    {"initrd=", take_initrd, 0, "initrd=FILE", "an initial RAM disk, instead of Lodge's own"},
    {"root=", take_root, OURS, "root=DEVICE", "the root: /dev/ubda, /dev/ubd0, 98:0 (98:0)"},
    {"ubd", take_ubd, 0, "ubd<n>[rscdt]=FILE[,BASE[,SERIAL]]",
     "disk n (0 to 15, or a letter): an image, or a copy-on-write file and what it is over; the "
     "first is root_fs where it is not given"},
    {"udb", take_fake_ide, 0, NULL, NULL},
    {"fake_ide", take_fake_ide, 0, NULL, NULL},
    {"eth", uml_take_eth, 0, "eth<n>=TRANSPORT[,FIELD]...",
     "a network card: tuntap,TAP,MAC,ADDRESS; daemon,MAC,unix,SOCKET; vde,DIR,MAC,PORT; "
     "mcast,MAC,GROUP,PORT,TTL; ucast,MAC,HOST,PORT,PORT; slirp,MAC"},
    {"vec", uml_take_vec, 0, "vec<n>:KEY=VALUE[,KEY=VALUE]...",
     "a network card: transport=tap or fd, ifname=, fd=, mac=, ifup="},
    {"con", uml_take_con, 0, "con[<n>]=CHANNEL",
     "console n, or all that are not named: null, none, fd:N, fd:N,fd:M, pts, pty, tty:PATH, "
     "port:N, xterm"},
    {"ssl-non-raw", take_nothing, 0, NULL, NULL},
    {"ssl", uml_take_ssl, 0, "ssl[<n>]=CHANNEL", "serial line n, likewise"},
    {"xterm=", take_xterm, 0, "xterm=EMULATOR[,TITLE-OPTION[,RUN-OPTION]]",
     "the terminal emulator of windows (xterm,-T,-e)"},
    {"noreboot", take_noreboot, 0, "noreboot", "end where the guest restarts"},
    {"hostfs=", take_nothing, 0, NULL, NULL},
    {"rootfstype=", take_hostfs_root, 0, NULL, NULL},
    {"time-travel", refuse_clock, 0, NULL, NULL},
    {"iomem=", refuse_iomem, 0, NULL, NULL},
    {"dtb=", refuse_dtb, 0, NULL, NULL},
    {"virtio_uml.device=", refuse_virtio_uml, 0, NULL, NULL},
    {"--help", ask_help, OURS, "--help", "this text"},
    {"--version", ask_version, OURS, "--version", "the kernel's version"},
    {"--showconfig", ask_config, OURS, "--showconfig", "the kernel's configuration"},
};

bool uml_help(unsigned i, UmlHelp *ret)
{
    for (unsigned k = 0; k < G_N_ELEMENTS(words); k++) {
        if (!words[k].form || i-- > 0)
            continue;
        *ret = (UmlHelp){words[k].form, words[k].help};
        return true;
    }
    return false;
}

const char *uml_word(int argc, char **argv, const char *key, bool last)
{
    const char *found = NULL;

    for (int i = 0; i < argc && (last || !found); i++) {
        if (g_str_has_prefix(argv[i], key) && argv[i][strlen(key)] == '=')
            found = argv[i] + strlen(key) + 1;
    }
    return found;
}

/* Whether @line has the word @name, or @name=... */
static bool line_has(const char *line, const char *name)
{
    size_t len = strlen(name);

    for (const char *s = line; *s; s += strcspn(s, " ")) {
        s += strspn(s, " ");
        if (!strncmp(s, name, len) && (!s[len] || s[len] == ' ' || s[len] == '='))
            return true;
    }
    return false;
}

static void append_word(GString *line, const char *word)
{
    g_string_append_printf(line, "%s%s", line->len ? " " : "", word);
}

static bool take_word(Uml *u, const char *word, GString *line, GError **error)
{
    unsigned flags = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        if (!g_str_has_prefix(word, words[i].key))
            continue;
        if (!words[i].take(u, word + strlen(words[i].key), error))
            return false;
        flags = words[i].flags;
        if (words[i].take == take_mem && u->memory > PC_PCI_HOLE_GPA)
            flags |= OURS; /* see above */
        break;
    }
    if (!(flags & OURS))
        append_word(line, word);
    return true;
}

/* ---- the machine ---- */

/* Whether the disk has a file, or one can be made. */
static bool look_at_disk(Uml *u, UmlDisk *d)
{
    UmlFile file = u->host->look(d->file);
    UmlFile base = d->base ? u->host->look(d->base) : file;

    if (base == UML_FILE_NONE) {
        uml_note(u, "ubd%u: \"%s\" is not there or cannot be read; there is no such disk", d->n,
                 d->base ? d->base : d->file);
        return false;
    }
    d->is_new = d->base && file == UML_FILE_NONE;
    if (file == UML_FILE_READABLE && !d->read_only) {
        uml_note(u, "ubd%u: \"%s\" may not be written; the disk is read-only", d->n, d->file);
        d->read_only = true;
    }
    return true;
}

static bool put_disks(Uml *u, GError **error)
{
    if (!u->disk_given[0]) {
        u->disk[0].file = g_strdup("root_fs");
        /* One who brings an initrd may do without. */
        if (u->initrd && u->host->look("root_fs") == UML_FILE_NONE)
            uml_disk_clear(&u->disk[0]);
    }
    for (unsigned i = 0; i <= UML_UBD_MAX; i++) {
        UmlDisk *d = &u->disk[i];
        g_autofree char *id = g_strdup_printf("disk%u", i);

        d->n = i;
        if (!d->file)
            continue;
        if (!look_at_disk(u, d))
            uml_disk_clear(d);
        else if (!uml_disk_put(u->tree, id, d))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "ubd%u: not text that a name can have", i);
    }
    return true;
}

/* 98:N, or UML's names of disks and partitions, as "/dev/vdX[P]"; transfer full, NULL: another. */
static char *root_as_virtio(const char *root)
{
    unsigned minor, major;
    char more, *end;

    if (sscanf(root, "%u:%u%c", &major, &minor, &more) == 2 && major == UBD_MAJOR &&
        minor <= UBD_MINORS * (UML_UBD_MAX + 1)) {
        unsigned part = minor % UBD_MINORS;
        char *disk = g_strdup_printf("/dev/vd%c", 'a' + (int)(minor / UBD_MINORS));
        if (!part)
            return disk;
        char *with = g_strdup_printf("%s%u", disk, part);
        g_free(disk);
        return with;
    }
    if (!g_str_has_prefix(root, "/dev/ubd"))
        return NULL;
    root += strlen("/dev/ubd");
    if (g_ascii_islower(root[0]))
        return g_strdup_printf("/dev/vd%s", root);
    unsigned long n = g_ascii_isdigit(root[0]) ? strtoul(root, &end, 10) : G_MAXULONG;
    return n <= UML_UBD_MAX && !*end ? g_strdup_printf("/dev/vd%c", 'a' + (int)n) : NULL;
}

/* Disks are vda, vdb and so on in the order in which they are there: N may have moved. */
static char *root_word(Uml *u)
{
    const char *root = u->root ? u->root : "98:0";
    g_autofree char *other = u->consoles ? NULL : root_as_virtio(root);
    unsigned at = 0;

    if (other && other[7] >= 'a' && other[7] <= 'a' + (int)UML_UBD_MAX) {
        for (unsigned i = 0; i < (unsigned)(other[7] - 'a'); i++)
            at += u->disk[i].file != NULL;
        other[7] = (char)('a' + (int)at);
    }
    return g_strdup_printf("root=%s", other ? other : root);
}

static bool put_boot(Uml *u, GString *line, const char *cards, GError **error)
{
    g_autofree char *root = root_word(u);
    bool console = strstr(line->str, "console=hvc") || strstr(line->str, "console=ttyS");
    bool panic = line_has(line->str, "panic");

    append_word(line, root);
    if (!console) /* behind others: /dev/console is the last one */
        append_word(line, u->consoles ? "console=hvc0" : "console=ttyS0");
    if (!panic)
        append_word(line, "panic=-1");
    if (u->consoles) {
        append_word(line, "lodge.uml=1");
        if (cards[0])
            g_string_append_printf(line, " lodge.eth=%s", cards);
        for (unsigned i = 0; i <= UML_UBD_MAX; i++) {
            if (u->disk[i].file && u->disk[i].serial)
                g_string_append_printf(line, " lodge.ubd%u=%s", i, u->disk[i].serial);
        }
    }
    if (line->len > APPEND_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "the guest's command line has %" G_GSIZE_FORMAT " letters; its limit is "
                          "%d; leave some words away", line->len, APPEND_MAX);
    if (u->initrd && !tree_add_str(u->tree, "/boot", "initrd", u->initrd))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "initrd=%s: too long", u->initrd);
    tree_set_bool(u->tree, "/boot", "cache", true);
    return uml_put(u, "/boot", "append", line->str, error) &&
           uml_put(u, "/boot", "protocol", "auto", error);
}

static bool put_machine(Uml *u, GString *line, GError **error)
{
    g_autofree char *cards = NULL;

    tree_set_str(u->tree, "/", "compatible", TREE_COMPATIBLE);
    tree_set_u64(u->tree, "/memory", "size", u->memory);
    tree_set_u32(u->tree, "/cpus", "count", 1);
    tree_set_str(u->tree, "/cpus", "model", "host");
    tree_set_str(u->tree, "/rtc", "base", "utc");
    tree_set_bool(u->tree, "/options", "no-reboot", true); /* another start is another process */
    if (!put_disks(u, error))
        return false;
    u->consoles = u->host->linux_image && !u->initrd;
    if (!uml_put_nets(u, &cards, error) || !uml_put_lines(u, error) ||
        !put_boot(u, line, cards, error))
        return false;
    return uml_put(u, "/devices/rng0", "compatible", "virtio-rng-pci", error);
}

Tree *uml_compile(int argc, char **argv, const UmlHost *host, UmlOptions *ret, GError **error)
{
    g_autoptr(Tree) t = tree_new();
    g_autoptr(GString) line = g_string_new(NULL);
    Uml u = {.host = host, .tree = t, .memory = MEMORY_DEFAULT};
    bool ok = true;

    u.o.notes = g_ptr_array_new_with_free_func(g_free);
    u.o.windows = g_ptr_array_new_with_free_func(g_free);
    for (int i = 0; i < argc && ok && u.o.ask == UML_ASK_RUN; i++)
        ok = take_word(&u, argv[i], line, error);
    if (ok && u.o.ask == UML_ASK_RUN)
        ok = put_machine(&u, line, error);
    if (ok) {
        *ret = u.o;
        u.o = (UmlOptions){0};
    }
    uml_clear(&u);
    return ok ? g_steal_pointer(&t) : NULL;
}
