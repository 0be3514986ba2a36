/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "lodge run": what its words compile to, and each wrong word. */
#include <string.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/net.h"

#include "machine.h"
#include "verb_run.h"

static Tree *compile(const char *line, RunOptions *ret, GError **error)
{
    g_auto(GStrv) words = NULL;
    int n = 0;

    g_assert_true(!line[0] || g_shell_parse_argv(line, &n, &words, NULL));
    return run_compile(n, words, ret, error);
}

static Tree *compile_ok(const char *line)
{
    g_autoptr(GError) error = NULL;
    RunOptions o = {0};
    Tree *t = compile(line, &o, &error);

    g_assert_no_error(error);
    run_options_clear(&o);
    return t;
}

static void test_least(void)
{
    g_autoptr(GError) error = NULL;
    RunOptions o = {0};
    g_autoptr(Tree) t = compile("--kernel /k", &o, &error);
    uint64_t n;

    g_assert_no_error(error);
    g_assert_true(g_str_has_prefix(o.name, "vm-"));
    g_assert_false(o.name_given);
    g_assert_cmpstr(tree_str(t, "/", "compatible"), ==, TREE_COMPATIBLE);
    g_assert_true(tree_u64(t, "/memory", "size", &n));
    g_assert_cmpuint(n, ==, 512 << 20);
    g_assert_true(tree_u64(t, "/cpus", "count", &n));
    g_assert_cmpuint(n, ==, 1);
    g_assert_cmpstr(tree_str(t, "/boot", "append"), ==, "console=ttyS0");
    g_assert_cmpstr(tree_str(t, "/backends/chan/con0", "spec"), ==, "stdio");
    g_assert_cmpstr(tree_str(t, "/devices/com1", "chan"), ==, "con0");
    g_assert_cmpstr(tree_str(t, "/backends/net/net0", "driver"), ==, "user");
    g_assert_true(tree_has(t, "/devices/net0", NULL));
    g_assert_true(tree_has(t, "/devices/rng0", NULL));
    g_assert_cmpstr(tree_str(t, "/devices/channels", "port1-name"), ==, "org.qemu.guest_agent.0");
    g_assert_cmpstr(tree_str(t, "/backends/chan/agent", "spec"), ==, "pair");
    g_assert_cmpstr(tree_str(t, "/devices/balloon0", "compatible"), ==, "virtio-balloon-pci");
    g_assert_false(tree_has(t, "/devices/watchdog0", NULL));
    g_assert_null(tree_str(t, "/options", "on-panic"));
    g_assert_true(tree_has(t, "/boot", "cache"));
    run_options_clear(&o);
}

static void test_full(void)
{
    g_autoptr(GError) error = NULL;
    RunOptions o = {0};
    g_autoptr(Tree) t = compile(
        "web --kernel k,cache=off --initrd a --initrd b --append 'x y' --disk d.cow,base=b.img,"
        "serial=S1,iops=300,bps=1M,on-error=stop,discard=ignore,detect-zeroes=on,"
        "metadata-cache=4M,base-format=raw --disk e,,f.img,ro,snapshot=on --memory 1G,huge=on,prefault=on --cpus 2 "
        "--net user,restrict=on -p 2222:22 -p 0.0.0.0:53:53/udp --console pty --console file:x "
        "--channel agent=unix:/tmp/a --rng off --uuid 12345678-1234-1234-1234-123456789abc "
        "--debug-exit --no-reboot -d --timeout 1.5 --rtc 86400 --device virtio-rng-pci,id=more "
        "--balloon off --watchdog=pause --on-panic reset",
        &o, &error);
    g_auto(GStrv) list = NULL;
    uint64_t n;

    g_assert_no_error(error);
    g_assert_cmpstr(o.name, ==, "web");
    g_assert_true(o.detach && o.debug_exit);
    g_assert_cmpuint(o.timeout_ns, ==, 1500000000);
    g_assert_cmpuint(tree_strv(t, "/boot", "initrd", &list), ==, 2);
    g_assert_cmpstr(tree_str(t, "/boot", "append"), ==, "x y");
    g_assert_false(tree_has(t, "/boot", "cache"));
    g_assert_cmpstr(tree_str(t, "/backends/block/disk0", "base"), ==, "b.img");
    g_assert_cmpstr(tree_str(t, "/backends/block/disk1", "file"), ==, "e,f.img");
    g_assert_true(tree_has(t, "/backends/block/disk1", "read-only"));
    g_assert_true(tree_has(t, "/backends/block/disk1", "snapshot"));
    g_assert_false(tree_has(t, "/backends/block/disk0", "read-only"));
    g_assert_cmpstr(tree_str(t, "/devices/disk0", "serial"), ==, "S1");
    BlkOptions disk;
    g_assert_true(machine_disk_options(t, "disk0", &disk, NULL));
    g_assert_cmpuint(disk.iops, ==, 300);
    g_assert_cmpuint(disk.bps, ==, 1 << 20);
    g_assert_cmpuint(disk.metadata_cache, ==, 4 << 20);
    g_assert_cmpint(disk.on_error, ==, BLK_ERROR_STOP);
    g_assert_true(disk.discard_ignore && disk.detect_zeroes);
    g_assert_cmpstr(disk.base_format, ==, "raw");
    g_assert_true(machine_disk_options(t, "disk1", &disk, NULL));
    g_assert_cmpuint(disk.iops, ==, 0);
    g_assert_cmpint(disk.on_error, ==, BLK_ERROR_REPORT);
    g_assert_false(disk.discard_ignore || disk.detect_zeroes);
    g_assert_cmpstr(tree_str(t, "/devices/disk0", "drive"), ==, "disk0");
    g_assert_cmpstr(tree_str(t, "/memory", "huge"), ==, "on");
    g_assert_true(tree_has(t, "/memory", "prefault"));
    g_assert_true(tree_u64(t, "/cpus", "count", &n) && n == 2);
    g_assert_cmpstr(tree_str(t, "/backends/net/net0", "restrict"), ==, "on");
    g_strfreev(g_steal_pointer(&list));
    g_assert_cmpuint(tree_strv(t, "/backends/net/net0", "hostfwd", &list), ==, 2);
    g_assert_cmpstr(list[0], ==, "tcp:127.0.0.1:2222-:22");
    g_assert_cmpstr(list[1], ==, "udp:0.0.0.0:53-:53");
    g_assert_cmpstr(tree_str(t, "/devices/com2", "iobase"), ==, "0x2f8");
    g_assert_cmpstr(tree_str(t, "/devices/channels", "port1-name"), ==, "agent");
    g_assert_cmpstr(tree_str(t, "/devices/channels", "port2-name"), ==, "org.qemu.guest_agent.0");
    g_assert_false(tree_has(t, "/devices/rng0", NULL));
    g_assert_false(tree_has(t, "/devices/balloon0", NULL));
    g_assert_cmpstr(tree_str(t, "/devices/watchdog0", "compatible"), ==, "i6300esb");
    g_assert_cmpstr(tree_str(t, "/options", "watchdog-action"), ==, "pause");
    g_assert_cmpstr(tree_str(t, "/options", "on-panic"), ==, "reset");
    g_assert_true(tree_has(t, "/devices/more", NULL));
    g_assert_true(tree_has(t, "/options", "debug-exit") && tree_has(t, "/options", "no-reboot"));
    run_options_clear(&o);
}

static const struct {
    const char *line, *append;
} appends[] = {
    {"--kernel k --disk d", "console=ttyS0 root=/dev/vda rw"},
    {"--kernel k --disk d,ro", "console=ttyS0 root=/dev/vda ro"},
    {"--kernel k --disk d --append quiet", "quiet root=/dev/vda rw"},
    {"--kernel k --disk d --append 'quiet ro'", "quiet ro root=/dev/vda"},
    {"--kernel k --disk d --append 'root=/dev/vda1'", "root=/dev/vda1"},
    {"--kernel k --disk d --initrd i --append quiet", "quiet"},
    {"--kernel k --disk d --append ''", ""},
    {"--kernel k --append quiet", "quiet"},
    {"--kernel k --console none", ""},
};

static void test_append(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(appends); i++) {
        g_autoptr(Tree) t = compile_ok(appends[i].line);

        g_assert_cmpstr(tree_str(t, "/boot", "append"), ==, appends[i].append);
    }
}

#define DISKS_6(n) " --disk " n "a --disk " n "b --disk " n "c --disk " n "d --disk " n "e --disk " n "f"
#define DISKS_24 "--kernel k" DISKS_6("1") DISKS_6("2") DISKS_6("3") DISKS_6("4")

static const struct {
    const char *line, *says;
} wrong[] = {
    {"--firmware --kernel k", "starts from one of them"},
    {"--firmware=", "is empty"},
    {"--initrd i", "needs --kernel"},
    {"--append a", "needs --kernel"},
    {"--boot order=cc", "each once"},
    {"--boot order=x", "each once"},
    {"--boot order=", "each once"},
    {"--boot menu-timeout=65536", "from 0 to 65535"},
    {"--boot menu=perhaps", "not one of on|off"},
    {"--kernel k --boot order=c", "firmware alone"},
    {"--kernel k --smbios serial=1", "firmware alone"},
    {"--cdrom unit=3", "no file"},
    {"--cdrom a --cdrom b --cdrom c --cdrom d --cdrom e", "no free ide drive"},
    {"--floppy a --floppy b --floppy c", "no free fdc drive"},
    {"--floppy a --floppy a", "given twice"},
    {"--cdrom a,color=red", "unknown sub-option"},
    {"--disk a,bus=scsi", "not one of virtio|ide|none"},
    {"--vga cirrus", "write std or none"},
    {"--display gtk", "write none, vnc=:N"},
    {"--vga none --display vnc=:1", "needs a screen"},
    {"--display password-file=x", "nobody can look"},
    {"--net user,model=rtl8139", "not one of"},
    {"--kernel ''", "--kernel: is empty; write --kernel FILE"},
    {"--kernel k,protocol=efi", "not one of auto|linux|bzimage"},
    {"--kernel k --memory 0", "less than the least"},
    {"--kernel k --memory 256", "write M behind it"},
    {"--kernel k --memory 1P", "--memory: \"1P\""},
    {"--kernel k --memory 2T", "more than the limit"},
    {"--kernel k --memory 1048577", "multiple of 4K"},
    {"--kernel k --memory -1", "not a size"},
    {"--kernel k --memory 1G,huge=maybe", "not one of on|thp|off"},
    {"--kernel k --cpus 0", "from 1 to 255"},
    {"--kernel k --cpus 1000", "from 1 to 255"},
    {"--kernel k --cpus two", "from 1 to 255"},
    {"--kernel k --cpus 1,model=z80", "host only"},
    {"--kernel k --disk a --disk a", "given twice"},
    {DISKS_24 " --disk one-more", "--disk: \"one-more\": one more than the limit of 24 disks"},
    {"--kernel k --disk a,base=a", "own base"},
    {"--kernel k --disk a,bsae=b", "valid ones are file, base"},
    {"--kernel k --disk a,format=qcow9", "format=qcow9: not known; it can be qcow2, raw"},
    {"--kernel k --disk a,base=b,base-format=wow", "base-format=wow: not known"},
    {"--kernel k --disk a,iops=0", "iops=0: must be a number above 0"},
    {"--kernel k --disk a,iops=many", "iops=many: must be a number above 0"},
    {"--kernel k --disk a,bps=fast", "bps=fast: must be a size above 0"},
    {"--kernel k --disk a,metadata-cache=x", "metadata-cache=x: must be a size"},
    {"--kernel k --disk a,on-error=panic", "not one of report|ignore|stop"},
    {"--kernel k --disk a,discard=maybe", "not one of unmap|ignore"},
    {"--kernel k --disk a,detect-zeroes=unmap", "not one of on|off"},
    {"--kernel k --disk a,aio=posix", "not one of auto|io_uring|libaio|threads"},
    {"--kernel k --disk a,drive=b", "unknown sub-option"},
    {"--kernel k --net tap9", "unknown back end; this version has"},
    {"--kernel k --net user,hostfwdd=1", "valid ones for user are hostfwd"},
    {"--kernel k --net none --net user", "beside another"},
    {"--kernel k --net none -p 1:1", "needs a user network"},
    {"--kernel k -p 99999:1", "--publish: \"99999:1\""},
    {"--kernel k -p 1:0", "--publish"},
    {"--kernel k -p 1.2.3:1:1", "--publish"},
    {"--kernel k -p 1:1/sctp", "--publish"},
    {"--kernel k --console tty", "write stdio, pty"},
    {"--kernel k --console stdio --console stdio", "there is one terminal"},
    {"--kernel k --console none --console none --console none", "2 serial ports"},
    {"--kernel k -d --console stdio", "detached"},
    {"--kernel k --qmp stdio --qmp stdio --console stdio", "there is one terminal"},
    {"--kernel k --qmp pty", "write unix:PATH"},
    {"--kernel k --wait=log:x", "goes with --detach"},
    {"--kernel k --channel agent", "write NAME=SPEC"},
    {"--kernel k --channel a=none --channel a=none", "given twice"},
    {"--kernel k --device nothing", "no device class"},
    {"--kernel k --device virtio-rng-pci,colour=red", "unknown property"},
    {"--kernel k --device virtio-rng-pci,id=rng0", "is taken"},
    {"--kernel k --rng maybe", "neither on nor off"},
    {"--kernel k --balloon maybe", "--balloon: \"maybe\" is neither on nor off"},
    {"--kernel k --watchdog=bark", "--watchdog: \"bark\": write one of reset, poweroff, shutdown"},
    {"--kernel k --on-panic shutdown", "--on-panic: \"shutdown\": write one of poweroff, reset"},
    {"--kernel k --rtc noon", "utc, localtime"},
    {"--kernel k --uuid x", "not a UUID"},
    {"--kernel k --timeout 0", "above 0"},
    {"--kernel k --timeout x", "above 0"},
    {"--kernel k --timeout nan", "above 0"},
    {"--kernel k --", "no command; write it behind"},
    {"--kernel k -d -- ls", "--detach: stands beside a command for the guest"},
    {"--kernel k --debug-exit -- ls", "--debug-exit: stands beside a command"},
    {"--kernel k --console stdio -- ls", "the command for the guest has it"},
    {"--kernel k --agent off -- ls", "needs its agent's port"},
    {"--kernel k --agent maybe", "--agent: \"maybe\" is neither on nor off"},
    {"--kernel k --agent on --channel org.qemu.guest_agent.0=pty", "a --channel has the name"},
    {"--kernel k --share /tmp", "not supported by this version"},
    {"--kernel k --host", "not supported by this version"},
    {"--kernel k ../x", "a name is"},
    {"--kernel k --trace all", "--trace boot"},
    {"--kernel k --quiet --verbose", "choose one"},
};

static void test_wrong(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GError) error = NULL;
        RunOptions o = {0};
        g_autoptr(Tree) t = compile(wrong[i].line, &o, &error);

        if (t || !strstr(error->message, wrong[i].says))
            g_error("\"%s\": \"%s\" lacks \"%s\"", wrong[i].line, t ? "(taken)" : error->message,
                    wrong[i].says);
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_assert_null(o.name);
    }
}

/* The refusals of the table are kept out of help by the same flag. */
/* Without a kernel it is a PC; drives take their customary places. */
static char *mac_in(const char *line, const char *card)
{
    g_autoptr(Tree) t = compile_ok(line);
    g_autofree char *path = g_strdup_printf("/devices/%s", card);

    return g_strdup(tree_str(t, path, "mac"));
}

/* The same at each start, another one for each machine and card. */
static void test_macs(void)
{
    g_autofree char *web = mac_in("web --kernel k", "net0");
    g_autofree char *again = mac_in("web --kernel other --memory 1G --net user,model=pcnet", "net0");
    g_autofree char *second = mac_in("web --kernel k --net user --net user", "net1");
    g_autofree char *db = mac_in("db --kernel k", "net0");
    g_autofree char *given = mac_in("web --kernel k --net user,mac=02:00:00:00:00:01", "net0");
    g_autofree char *none = mac_in("--kernel k", "net0"), *next = mac_in("--kernel k", "net0");

    g_assert_cmpstr(web, ==, "52:54:00:4b:5e:57"); /* of SHA-256("web") = 4b5e57... */
    g_assert_cmpstr(again, ==, web);
    g_assert_cmpstr(second, ==, "52:54:00:4b:5e:58");
    g_assert_cmpstr(db, !=, web);
    g_assert_cmpstr(given, ==, "02:00:00:00:00:01");
    g_assert_true(g_str_has_prefix(none, "52:54:00:"));
    g_assert_cmpstr(none, !=, next);
}

static void test_firmware(void)
{
    g_autoptr(Tree) t = compile_ok("old --cdrom g.iso --disk d.img,bus=ide --disk e.img --floppy f.img,ro "
                                 "--net user,model=pcnet --net user --boot order=dcn,menu=on "
                                 "--smbios serial=7");
    g_assert_cmpstr(tree_str(t, "/boot", "firmware"), ==, "bios-256k.bin");
    g_assert_cmpstr(tree_str(t, "/boot", "order"), ==, "dcn");
    g_assert_true(tree_has(t, "/boot", "menu"));
    g_assert_cmpstr(tree_str(t, "/devices/cd0", "compatible"), ==, "ide-cd");
    g_assert_cmpstr(tree_str(t, "/devices/cd0", "unit"), ==, "2");
    g_assert_true(tree_has(t, "/backends/block/cd0", "read-only"));
    g_assert_cmpstr(tree_str(t, "/devices/disk0", "compatible"), ==, "ide-hd");
    g_assert_cmpstr(tree_str(t, "/devices/disk0", "unit"), ==, "0");
    g_assert_cmpstr(tree_str(t, "/devices/disk1", "compatible"), ==, "virtio-blk-pci");
    g_assert_cmpstr(tree_str(t, "/devices/floppy0", "unit"), ==, "0");
    g_assert_true(tree_has(t, "/backends/block/floppy0", "read-only"));
    g_assert_cmpstr(tree_str(t, "/devices/net0", "compatible"), ==, "pcnet");
    g_assert_cmpstr(tree_str(t, "/devices/net0", "netboot"), ==, "on");
    g_assert_cmpstr(tree_str(t, "/devices/net0", "mac"), !=, tree_str(t, "/devices/net1", "mac"));
    g_assert_cmpstr(tree_str(t, "/devices/vga", "compatible"), ==, "vga");
    g_assert_cmpstr(tree_str(t, "/smbios", "serial"), ==, "7");

    g_autoptr(Tree) bare = compile_ok("--vga none --cdrom none");
    g_assert_false(tree_has(bare, "/devices/vga", NULL));
    g_assert_false(tree_has(bare, "/backends/block/cd0", NULL));
    g_assert_cmpstr(tree_str(bare, "/devices/cd0", "compatible"), ==, "ide-cd");
    g_assert_cmpstr(tree_str(bare, "/devices/net0", "netboot"), ==, "on");

    g_autoptr(Tree) seen = compile_ok("--kernel k --display vnc=:1");
    g_assert_true(tree_has(seen, "/devices/vga", NULL));
    g_assert_false(tree_has(seen, "/devices/net0", "netboot"));
}

static void test_refused(void)
{
    for (const OptSpec *s = run_options_table; s->name; s++)
        g_assert_true((s->flags & OPT_REFUSED) || s->help[0]);
}

/* Of what may start, each alone is enough. */
static void test_may_boot(void)
{
    static const struct {
        const char *line;
        bool may;
    } cases[] = {
        {"", false},
        {"--net none", false},
        {"--net user,restrict=on --cdrom none --floppy none --boot order=dc", false},
        {"--firmware", false},
        {"--kernel k", true},
        {"--disk d", true},
        {"--cdrom c", true},
        {"--floppy f", true},
        {"--disk d,bus=none", true},
        {"--firmware=own", true},
        {"--boot order=cn", true},
        {"--net user,tftp=/srv,bootfile=pxe", true},
        {"--net tap=tap0", true},
        {"--net user --net switch=lab", true},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(Tree) t = compile_ok(cases[i].line);
        g_test_message("%s", cases[i].line);
        g_assert_true(run_may_boot(t) == cases[i].may);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/run/least", test_least);
    g_test_add_func("/run/full", test_full);
    g_test_add_func("/run/firmware", test_firmware);
    g_test_add_func("/run/may-boot", test_may_boot);
    g_test_add_func("/run/macs", test_macs);
    g_test_add_func("/run/append", test_append);
    g_test_add_func("/run/wrong", test_wrong);
    g_test_add_func("/run/refused", test_refused);
    return g_test_run();
}
