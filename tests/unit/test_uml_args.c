/* SPDX-License-Identifier: GPL-2.0-or-later */
/* User-Mode Linux's command line: what each word compiles to, and each wrong word. */
#include <stdio.h>
#include <string.h>

#include <glib/gstdio.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/net.h"

#include "uml_args.h"
#include "uml_compat.h"
#include "uml_words.h"

/* Files whose names begin with "no" are not there, with "ro" may be read, others written. */
static UmlFile look(const char *path)
{
    return g_str_has_prefix(path, "no")   ? UML_FILE_NONE
           : g_str_has_prefix(path, "ro_") ? UML_FILE_READABLE
                                           : UML_FILE_WRITABLE;
}

static const UmlHost linux_host = {.linux_image = true, .look = look, .seed = "host/1000//vm1"};
static const UmlHost other_host = {.linux_image = false, .look = look};

static Tree *compile_for(const UmlHost *host, const char *line, UmlOptions *ret, GError **error)
{
    g_auto(GStrv) words = NULL;
    int n = 0;

    g_assert_true(!line[0] || g_shell_parse_argv(line, &n, &words, NULL));
    return uml_compile(n, words, host, ret, error);
}

static Tree *compile_ok(const char *line)
{
    g_autoptr(GError) error = NULL;
    UmlOptions o = {0};
    Tree *t = compile_for(&linux_host, line, &o, &error);

    g_assert_no_error(error);
    uml_options_clear(&o);
    return t;
}

/* Each property that a device of the tree has is one of its class, and each back end's option is
 * one of its driver. */
static void check_schema(const Tree *t)
{
    g_autoptr(GPtrArray) ids = tree_children(t, "/devices");

    for (unsigned i = 0; i < ids->len; i++) {
        g_autofree char *path = g_strdup_printf("/devices/%s", (char *)g_ptr_array_index(ids, i));
        g_autoptr(GPtrArray) props = tree_props(t, path);
        const DeviceClass *cls = device_class_find(tree_str(t, path, "compatible"));

        g_assert_nonnull(cls);
        for (unsigned k = 0; k < props->len; k++) {
            const char *name = g_ptr_array_index(props, k);
            const PropSpec *p = cls->props;

            while (p && p->name && strcmp(p->name, name))
                p++;
            if ((!p || !p->name) && strcmp(name, "compatible"))
                g_error("%s: no property %s", path, name);
        }
    }
    g_autoptr(GPtrArray) nets = tree_children(t, "/backends/net");
    for (unsigned i = 0; i < nets->len; i++) {
        g_autofree char *path =
            g_strdup_printf("/backends/net/%s", (char *)g_ptr_array_index(nets, i));
        g_autoptr(GPtrArray) props = tree_props(t, path);
        const NetDriver *d = NULL;

        for (unsigned k = 0; net_driver_table[k]; k++) {
            if (!strcmp(net_driver_table[k]->name, tree_str(t, path, "driver")))
                d = net_driver_table[k];
        }
        g_assert_nonnull(d);
        for (unsigned k = 0; k < props->len; k++) {
            const char *name = g_ptr_array_index(props, k);
            const NetOptSpec *s = d->opts;

            while (s && s->name && strcmp(s->name, name))
                s++;
            if ((!s || !s->name) && strcmp(name, "driver"))
                g_error("%s: no option %s", path, name);
        }
    }
}

/* LINE gives PROP of PATH the value (NULL: it is not there). */
typedef struct Row {
    const char *line, *path, *prop, *value;
} Row;

static const Row rows[] = {
    {"", "/", "compatible", TREE_COMPATIBLE},
    {"", "/boot", "append", "root=98:0 console=hvc0 panic=-1 lodge.uml=1"},
    {"", "/backends/block/disk0", "file", "root_fs"},
    {"", "/devices/disk0", "serial", "ubd0"},
    {"", "/backends/chan/con0", "spec", "stdio"},
    {"", "/devices/consoles", "chan", "con0"},
    {"", "/devices/consoles", "max-ports", "16"},
    {"", "/devices/consoles", "port1-name", "lodge.mconsole"},
    {"", "/devices/com1", "beside", "con0"},
    {"initrd=/i", "/devices/com1", "chan", "con0"},
    {"", "/devices/rng0", "compatible", "virtio-rng-pci"},
    {"", "/devices/net0", "compatible", NULL},
    /* what goes to the guest */
    {"single ubd0=a umid=x foo=1 kernel=/k init=/bin/sh mem=128M", "/boot", "append",
     "single ubd0=a foo=1 init=/bin/sh mem=128M root=98:0 console=hvc0 "
     "panic=-1 lodge.uml=1"},
    {"root=98:17 panic=5 earlycon=x", "/boot", "append",
     "panic=5 earlycon=x root=98:17 console=hvc0 lodge.uml=1"},
    {"root=/dev/ubda1 console=tty0", "/boot", "append",
     "console=tty0 root=/dev/ubda1 console=hvc0 panic=-1 lodge.uml=1"},
    {"console=ttyS0", "/boot", "append",
     "console=ttyS0 root=98:0 panic=-1 lodge.uml=1"},
    {"aio=2.4 mode=tt jail honeypot gdb-pid=3 nosysemu stderr=1 consoleblank=0 ether=1 vector=1",
     "/boot", "append",
     "aio=2.4 mode=tt jail honeypot gdb-pid=3 nosysemu stderr=1 consoleblank=0 ether=1 vector=1 "
     "root=98:0 console=hvc0 panic=-1 lodge.uml=1"},
    {"initrd=/i root=98:18 ubdb=b ubda=", "/boot", "append",
     "initrd=/i ubdb=b ubda= root=/dev/vda2 console=ttyS0 panic=-1"},
    {"initrd=/i root=/dev/ubd1 ubdb=b", "/boot", "append",
     "initrd=/i ubdb=b root=/dev/vdb console=ttyS0 panic=-1"},
    {"initrd=/i root=/dev/ubdb3 ubdb=b", "/boot", "append",
     "initrd=/i ubdb=b root=/dev/vdb3 console=ttyS0 panic=-1"},
    {"initrd=/i root=LABEL=x", "/boot", "append",
     "initrd=/i root=LABEL=x console=ttyS0 panic=-1"},
    {"initrd=/i", "/boot", "initrd", "/i"},
    {"initrd=/i", "/devices/consoles", NULL, NULL},
    /* disks */
    {"ubda=x", "/backends/block/disk0", "file", "x"},
    {"ubd0=x.cow,x", "/backends/block/disk0", "base", "x"},
    {"ubd0=x.cow:x", "/backends/block/disk0", "base", "x"},
    {"ubdb=x,,MY", "/devices/disk1", "serial", "MY"},
    {"ubdb=x,,MY", "/boot", "append",
     "ubdb=x,,MY root=98:0 console=hvc0 panic=-1 lodge.uml=1 "
     "lodge.ubd1=MY"},
    {"ubd1=x", "/backends/block/disk0", "file", "root_fs"},
    {"ubd0d=x", "/backends/block/disk0", "format", "raw"},
    {"ubd0t=x", "/backends/block/disk0", "discard", "ignore"},
    {"ubd0rsc=x", "/backends/block/disk0", "read-only", ""},
    {"ubd0=ro_x", "/backends/block/disk0", "read-only", ""},
    {"ubd0=x", "/backends/block/disk0", "read-only", NULL},
    {"ubd0=x.cow,ro_x", "/backends/block/disk0", "read-only", NULL},
    {"ubd0=nofile", "/backends/block/disk0", NULL, NULL},
    {"ubd0=x.cow,nofile", "/backends/block/disk0", NULL, NULL},
    {"ubd0=nocow,x", "/backends/block/disk0", "base", "x"}, /* is made */
    {"ubd0=no.qcow2,x", "/backends/block/disk0", "format", "umlcow"},
    {"ubd0=x.cow,x", "/backends/block/disk0", "format", NULL},
    {"ubd0=", "/backends/block/disk0", NULL, NULL},
    {"ubd=sync ubd017=x", "/backends/block/disk15", "file", "x"},
    {"ubd0xf=x", "/backends/block/disk15", "file", "x"},
    /* cards */
    {"eth0=daemon,,unix,/s", "/backends/net/net0", "path", "/s"},
    {"eth0=daemon", "/backends/net/net0", "path", "/var/run/uml-utilities/uml_switch.ctl"},
    {"eth3=daemon,10:00:01:02:00:00,,/s", "/devices/net3", "mac", "10:00:01:02:00:00"},
    {"eth0=tuntap,tap0", "/backends/net/net0", "ifname", "tap0"},
    {"eth0=tuntap,tap0,,192.168.0.254", "/backends/net/net0", "address", NULL},
    {"eth0=tuntap,,,192.168.0.254", "/backends/net/net0", "address", "192.168.0.254"},
    {"eth0=mcast", "/backends/net/net0", "group", "239.192.168.1:1102"},
    {"eth0=ucast,,10.0.0.1,1,2", "/backends/net/net0", "remote", "udp:10.0.0.1:2"},
    {"eth0=slirp", "/backends/net/net0", "driver", "user"},
    {"eth0=vde,/d,02:00:00:00:00:01,7", "/backends/net/net0", "port", "7"},
    {"vec0:transport=tap,ifname=tap9,mac=02:00:00:00:00:07,depth=128", "/backends/net/vec0",
     "ifname", "tap9"},
    {"vec0:transport=tap,mac=02:00:00:00:00:07", "/devices/vec0", "mac", "02:00:00:00:00:07"},
    {"vec0:mtu=1400,transport=tap,ifup=/s", "/devices/vec0", "mtu", "1400"},
    {"vec0:transport=fd,fd=7", "/backends/net/vec0", "fd", "7"},
    {"vec0:transport=vde,vnl=vde:///d", "/backends/net/vec0", "dir", "/d"},
    {"vec0:transport=vde,vnl=slirp://", "/backends/net/vec0", "driver", "user"},
    {"vec1:transport=tap eth3=slirp eth0=slirp", "/boot", "append",
     "vec1:transport=tap eth3=slirp eth0=slirp root=98:0 console=hvc0 "
     "panic=-1 lodge.uml=1 lodge.eth=eth0,eth3,vec1"},
    /* consoles */
    {"con0=null", "/backends/chan/con0", "spec", "none"},
    {"con0=none", "/backends/chan/con0", "spec", "none"},
    {"con0=fd:0", "/backends/chan/con0", "spec", "fd:0"},
    {"con0=fd:3,fd:4", "/backends/chan/con0", "spec", "fd:3,fd:4"},
    {"con0=pts,pts", "/backends/chan/con0", "spec", "pty"},
    {"con=null con0=fd:0,fd:1", "/backends/chan/con0", "spec", "stdio"},
    {"con=null con0=fd:0,fd:1", "/backends/chan/con6", "spec", "none"},
    {"con=null con0=fd:0,fd:1", "/devices/consoles", "port1-name", "lodge.mconsole"},
    {"con=pts", "/backends/chan/con0", "spec", "pty"},
    {"con=pts con2=none", "/backends/chan/con2", NULL, NULL},
    {"con=pts con0=null", "/devices/consoles", "port6-name", "tty6"},
    {"con=pts con0=null", "/devices/consoles", "port6-tty", "on"},
    {"con=pts con0=null", "/backends/chan/con7", NULL, NULL},
    {"con1=tty:/dev/ttyUSB0", "/backends/chan/con1", "spec", "tty:/dev/ttyUSB0"},
    {"con1=port:9000", "/backends/chan/con1", "spec", "tcp:0.0.0.0:9000"},
    {"con=port:9000 con0=null", "/backends/chan/con1", "spec", "tcp:0.0.0.0:9000"},
    {"con=port:9000 con0=null", "/backends/chan/con2", NULL, NULL},
    {"con9=pts", "/devices/consoles", "port1-name", "tty9"},
    {"con9=pts", "/devices/consoles", "port1", "con9"},
    {"ssl0=pty ssl3=pts", "/devices/consoles", "port2-name", "ttyS3"},
    {"con1=xterm", "/backends/chan/con1", "spec", "pty"},
    {"ssl=pty", "/backends/chan/ssl0", "spec", "pty"},
    {"ssl=pty", "/backends/chan/ssl1", NULL, NULL},
    {"ssl-non-raw", "/backends/chan/ssl0", NULL, NULL},
};

static void test_rows(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        const Row *r = &rows[i];

        if (!r->path)
            continue;
        g_test_message("%s: %s %s", r->line, r->path, r->prop);
        g_autoptr(Tree) t = compile_ok(r->line);
        check_schema(t);
        if (!r->value)
            g_assert_false(tree_has(t, r->path, r->prop));
        else if (!r->value[0])
            g_assert_true(tree_has(t, r->path, r->prop));
        else
            g_assert_cmpstr(tree_str(t, r->path, r->prop), ==, r->value);
    }
}

static void test_memory(void)
{
    static const struct {
        const char *word;
        uint64_t size;
        bool told;
    } sizes[] = {
        {"mem=64M", 64 << 20, true},       {"mem=134217728", 134217728, true},
        {"mem=0x8000000", 134217728, true}, {"mem=262144k", 262144 << 10, true},
        {"mem=100000001", 100003840, true}, {"mem=3G", (uint64_t)3 << 30, true},
        {"mem=4g", (uint64_t)4 << 30, false}, {"mem=64Mx", 64 << 20, true},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autoptr(Tree) t = compile_ok(sizes[i].word);
        uint64_t size;

        g_assert_true(tree_u64(t, "/memory", "size", &size));
        g_assert_cmpuint(size, ==, sizes[i].size);
        /* A PC's kernel takes it for an address. */
        g_assert_true(g_str_has_prefix(tree_str(t, "/boot", "append"), sizes[i].word) ==
                      sizes[i].told);
    }
    g_autoptr(Tree) t = compile_ok("");
    uint64_t size;
    g_assert_true(tree_u64(t, "/memory", "size", &size) && size == 512 << 20);
}

static void test_options(void)
{
    g_autoptr(GError) error = NULL;
    UmlOptions o = {0};
    g_autoptr(Tree) t = compile_for(
        &linux_host, "umid=a umid=b uml_dir=/u mconsole=notify:/n noreboot ubd0=ro_fs ubd1=nofile",
        &o, &error);

    g_assert_no_error(error);
    g_assert_cmpstr(o.umid, ==, "a"); /* the first wins */
    g_assert_cmpstr(o.uml_dir, ==, "/u");
    g_assert_cmpstr(o.notify, ==, "/n");
    g_assert_true(o.no_reboot);
    g_assert_cmpuint(o.notes->len, ==, 3);
    g_assert_nonnull(strstr(g_ptr_array_index(o.notes, 1), "\"ro_fs\" may not be written"));
    g_assert_nonnull(strstr(g_ptr_array_index(o.notes, 2), "\"nofile\" is not there"));
    g_assert_true(tree_has(t, "/options", "no-reboot"));
    uml_options_clear(&o);
    g_autoptr(Tree) windows =
        compile_for(&linux_host, "xterm=foo,-t,-x con=xterm con0=null con3=pts ssl2=xterm", &o,
                    &error);
    g_assert_no_error(error);
    g_assert_nonnull(windows);
    g_assert_cmpstr(o.xterm, ==, "foo,-t,-x");
    g_ptr_array_add(o.windows, NULL);
    g_autofree char *names = g_strjoinv(" ", (char **)o.windows->pdata);
    g_assert_cmpstr(names, ==, "con1 con2 con4 con5 con6 ssl2");
    uml_options_clear(&o);
    static const struct {
        const char *line;
        UmlAsk ask;
    } asks[] = {
        {"ubd0=x --help --version", UML_ASK_HELP}, {"--version ubd99=x", UML_ASK_VERSION},
        {"--showconfig", UML_ASK_CONFIG}, {"--helpless", UML_ASK_HELP}, {"--other", UML_ASK_RUN},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(asks); i++) {
        g_autoptr(Tree) asked = compile_for(&linux_host, asks[i].line, &o, &error);
        g_assert_no_error(error);
        g_assert_nonnull(asked);
        g_assert_cmpint(o.ask, ==, asks[i].ask);
        uml_options_clear(&o);
    }
}

/* A kernel that is no Linux has con0 on the serial port, and nobody of ours in it. */
static void test_other_kernel(void)
{
    g_autoptr(GError) error = NULL;
    UmlOptions o = {0};
    g_autoptr(Tree) t = compile_for(&other_host, "con1=pts eth0=slirp foo", &o, &error);

    g_assert_no_error(error);
    check_schema(t);
    g_assert_false(tree_has(t, "/devices/consoles", NULL));
    g_assert_cmpstr(tree_str(t, "/devices/ports", "port1-name"), ==, "tty1");
    g_assert_cmpstr(tree_str(t, "/devices/com1", "chan"), ==, "con0");
    g_assert_cmpstr(tree_str(t, "/boot", "append"), ==,
                    "con1=pts eth0=slirp foo root=/dev/vda console=ttyS0 panic=-1");
    uml_options_clear(&o);
}

static void test_mac(void)
{
    g_autofree char *given = uml_mac("02:Ff:0:1:2:3", "s", "eth0");
    g_autofree char *a = uml_mac("", "s", "eth0"), *b = uml_mac("", "s", "eth0");
    g_autofree char *c = uml_mac("", "s", "eth1"), *d = uml_mac("", "t", "eth0");
    g_autofree char *drawn = uml_mac("01:00:00:00:00:00", NULL, "eth0"); /* a group's */
    g_autofree char *zero = uml_mac("00:00:00:00:00:00", "s", "eth0");
    g_autofree char *more = uml_mac("02:00:00:00:00:00:00", "s", "eth0");

    g_assert_cmpstr(given, ==, "02:ff:00:01:02:03");
    g_assert_cmpstr(a, ==, b);
    g_assert_cmpstr(a, !=, c);
    g_assert_cmpstr(a, !=, d);
    g_assert_cmpstr(a, ==, zero);
    g_assert_cmpstr(a, ==, more);
    const char *all[] = {a, c, d, drawn};
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
        g_assert_cmpuint(g_ascii_strtoull(all[i], NULL, 16) & 3, ==, 2);
    /* Cards of one machine, and of two, differ; of one machine's next start they do not. */
    g_autoptr(Tree) t = compile_ok("eth0=slirp eth1=slirp");
    g_autoptr(Tree) u = compile_ok("eth0=slirp");
    g_assert_cmpstr(tree_str(t, "/devices/net0", "mac"), !=, tree_str(t, "/devices/net1", "mac"));
    g_assert_cmpstr(tree_str(t, "/devices/net0", "mac"), ==, tree_str(u, "/devices/net0", "mac"));
}

static const struct {
    const char *line, *what;
} wrong[] = {
    {"mem=", "mem=: not a size from 1M to 1T"},
    {"mem=x", "not a size"},
    {"mem=0", "not a size"},
    {"mem=1k", "not a size"},
    {"mem=2T", "not a size"},
    {"mem=99999999999999999999G", "not a size"},
    {"uml_dir=", "uml_dir=: is empty"},
    {"mconsole=x", "write mconsole=notify:PATH"},
    {"mconsole=notify:", "write mconsole=notify:PATH"},
    {"initrd=", "initrd=: is empty"},
    {"ubd16=x", "Device number out of range"},
    {"ubdz=x", "Device number out of range"},
    {"ubd=x", "write ubd=sync"},
    {"ubd_=x", "Couldn't parse device number"},
    {"ubd0x=x", "Expected '='"},
    {"ubd0", "Expected '='"},
    {"ubd0rsrsrsr=x", "Expected '='"},
    {"ubd0d=a,b", "Can't specify both"},
    {"ubd0=a ubda=b", "ubda=b: this disk is given twice"},
    {"eth0", "write ethN=TRANSPORT"},
    {"eth0=pcap,eth0", "this version has tuntap, daemon"},
    {"eth32=slirp", "device number out of range"},
    {"eth0=slirp eth0=slirp", "this card is given twice"},
    {"vec0:ifname=x", "no transport"},
    {"vec0:transport=raw,ifname=eth0", "transport=raw: this version has"},
    {"vec0:transport=gre", "this version has"},
    {"vec0:transport=fd", "no descriptor"},
    {"vec0:transport=tap,x", "\"x\": write KEY=VALUE"},
    {"vec0:transport=vde,vnl=vxvde://1", "vde://DIR"},
    {"vec32:transport=tap", "there are vec0 to vec31"},
    {"vec0:transport=tap vec0:transport=tap", "this card is given twice"},
    {"con1=bad", "con1=bad: failed to parse channel pair"},
    {"con1=fd:", "failed to parse"},
    {"con1=fd:x", "failed to parse"},
    {"con1=fd:0,fd:x", "two kinds"},
    {"con1=null,pts", "two kinds"},
    {"con1=tty:", "failed to parse"},
    {"con1=port:", "failed to parse"},
    {"con1=port:70000", "failed to parse"},
    {"con1=port:1x", "failed to parse"},
    {"xterm=", "write xterm=EMULATOR"},
    {"con16=null", "there are con0 to con15"},
    {"ssl64=null", "there are ssl0 to ssl63"},
    {"con1=port:9000 con2=port:9000", "con2: con1 has that channel"},
    {"con1=fd:0,fd:1 con0=fd:0,fd:1", "con1: con0 has that channel"},
    {"con3=fd:5 ssl1=fd:5", "ssl1: con3 has that channel"},
    {"con=pts con0=null con7=pts con8=pts", "con8: one more than the limit of 7"},
    {"rootfstype=hostfs rootflags=/", "folders of the host are not shared"},
    {"time-travel", "runs in real time"},
    {"time-travel=inf-cpu", "runs in real time"},
    {"iomem=a,b", "not shown as memory"},
    {"dtb=x", "takes no device tree"},
    {"virtio_uml.device=/s:1", "are not had by this version"},
};

static void test_wrong(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GError) error = NULL;
        UmlOptions o = {0};

        g_test_message("%s", wrong[i].line);
        g_assert_null(compile_for(&linux_host, wrong[i].line, &o, &error));
        g_assert_nonnull(error);
        g_assert_cmpint(error->domain, ==, LODGE_ERROR);
        if (!strstr(error->message, wrong[i].what))
            g_error("%s: '%s' has no '%s'", wrong[i].line, error->message, wrong[i].what);
    }
    g_autoptr(GString) line = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    UmlOptions o = {0};
    for (unsigned i = 0; i < 300; i++)
        g_string_append(line, "wordword ");
    g_assert_null(compile_for(&linux_host, line->str, &o, &error));
    g_assert_nonnull(strstr(error->message, "its limit is 2047"));
}

static void test_help(void)
{
    UmlHelp h;
    unsigned n = 0;

    while (uml_help(n, &h)) {
        g_assert_true(h.form && h.help);
        n++;
    }
    g_assert_cmpuint(n, >, 10);
}

/* The kernel of the user's configuration: behind the word and the environment, before the host's. */
static void test_config(void)
{
    static const struct {
        const char *text, *kernel, *error;
    } cases[] = {
        {"kernel=/conf\n", "/conf", NULL},
        {"# kernel=/no\n\n  kernel=/a b \nkernel=/last", "/last", NULL},
        {"kernel=relative\n", NULL, "uml.conf: line 1: kernel=relative: write the whole path"},
        {"#\nkernel /x\n", NULL, "uml.conf: line 2: \"kernel /x\": is not known; write kernel=FILE"},
    };
    g_autofree char *dir = g_dir_make_tmp("lodge-test-XXXXXX", NULL);
    g_autofree char *sub = g_build_filename(dir, "lodge", NULL);
    g_autofree char *file = g_build_filename(sub, "uml.conf", NULL);
    g_autofree char *big = g_strnfill(70000, '#');

    g_setenv("XDG_CONFIG_HOME", dir, TRUE);
    g_unsetenv("LODGE_UML_KERNEL");
    g_assert_cmpstr(g_get_user_config_dir(), ==, dir);
    g_assert_cmpint(g_mkdir(sub, 0700), ==, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_true(g_file_set_contents(file, cases[i].text, -1, NULL));
        g_autofree char *found = uml_find_kernel("", &error), *given = uml_find_kernel("/w", NULL);
        g_assert_cmpstr(found, ==, cases[i].kernel);
        g_assert_cmpstr(given, ==, "/w");
        if (cases[i].error) {
            g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
            g_assert_nonnull(strstr(error->message, cases[i].error));
        }
    }
    g_autoptr(GError) large = NULL, folder = NULL;
    g_assert_true(g_file_set_contents(file, big, -1, NULL));
    g_assert_null(uml_find_kernel(NULL, &large));
    g_assert_nonnull(strstr(large->message, "is no short text"));
    g_assert_cmpint(remove(file), ==, 0);
    g_assert_cmpint(g_mkdir(file, 0700), ==, 0);
    g_assert_null(uml_find_kernel(NULL, &folder));
    g_assert_error(folder, LODGE_ERROR, LODGE_ERROR_HOST);
    g_assert_cmpint(remove(file), ==, 0);
    g_autofree char *host = uml_find_kernel(NULL, NULL); /* no file: as if it were empty */
    g_assert_true(!host || g_str_has_prefix(host, "/boot/"));
    g_assert_cmpint(remove(sub), ==, 0);
    g_assert_cmpint(remove(dir), ==, 0);
}

static void test_compat(void)
{
    char *words[] = {(char *)"kernel=/a", (char *)"umid=x", (char *)"kernel=/b", (char *)"kernelx"};
    g_autoptr(GError) error = NULL;
    g_autofree char *dir = g_dir_make_tmp("lodge-test-XXXXXX", NULL);
    g_autofree char *image = g_build_filename(dir, "bz", NULL);
    char head[1024] = {0};

    g_assert_cmpstr(uml_word(4, words, "kernel", true), ==, "/b");
    g_assert_cmpstr(uml_word(4, words, "kernel", false), ==, "/a");
    g_assert_null(uml_word(4, words, "mem", false));
    g_autofree char *given = uml_find_kernel("/given", &error);
    g_assert_cmpstr(given, ==, "/given");
    g_setenv("LODGE_UML_KERNEL", "/env", TRUE);
    g_autofree char *env = uml_find_kernel(NULL, &error);
    g_unsetenv("LODGE_UML_KERNEL");
    g_assert_cmpstr(env, ==, "/env");
    g_assert_false(uml_kernel_is_linux(image));
    g_assert_true(g_file_set_contents(image, head, sizeof head, NULL));
    g_assert_false(uml_kernel_is_linux(image));
    memcpy(head + 0x202, "HdrS", 4);
    g_assert_true(g_file_set_contents(image, head, sizeof head, NULL));
    g_assert_true(uml_kernel_is_linux(image));
    g_assert_cmpint(uml_look(image), ==, UML_FILE_WRITABLE);
    g_assert_cmpint(uml_look(dir), ==, UML_FILE_READABLE);
    g_assert_cmpint(remove(image), ==, 0);
    g_assert_cmpint(uml_look(image), ==, UML_FILE_NONE);
    g_assert_cmpint(remove(dir), ==, 0);
    g_assert_true(uml_panicked("[ 1.0] Kernel panic - not syncing: VFS"));
    g_assert_false(uml_panicked("reboot: Restarting system"));
    g_assert_true(uml_halted("[    3.141592] reboot: System halted\n"));
    g_assert_true(uml_halted("reboot: System halted"));
    g_assert_true(uml_halted("[    3.141592] reboot: System halted\r\n"));
    g_assert_false(uml_halted("$ echo reboot: System halted"));
    g_assert_false(uml_halted("[    3.141592] reboot: System halted soon"));
    g_assert_false(uml_halted("[    3.141592] reboot: Power down"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/uml-args/rows", test_rows);
    g_test_add_func("/uml-args/memory", test_memory);
    g_test_add_func("/uml-args/options", test_options);
    g_test_add_func("/uml-args/other-kernel", test_other_kernel);
    g_test_add_func("/uml-args/mac", test_mac);
    g_test_add_func("/uml-args/wrong", test_wrong);
    g_test_add_func("/uml-args/help", test_help);
    g_test_add_func("/uml-args/compat", test_compat);
    g_test_add_func("/uml-args/config", test_config);
    return g_test_run();
}
