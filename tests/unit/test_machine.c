/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Machines on the real /dev/kvm, with bare-metal guests: two in one process, requests that meet a
 * pause, a pause between the two accesses of one instruction, a stopped CPU, descriptions that
 * are refused.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/num.h"
#include "machine_internal.h"
#include "pc.h"

#define DEADLINE_S 60
#define GUEST_PASS 33

typedef struct Vm {
    Machine *machine;
    char *log;
    unsigned ended;
    MachineEnd why;
    int status;
    char *report;
} Vm;

static char *dir;

static void on_ended(void *opaque, const MachineResult *r)
{
    Vm *vm = opaque;
    vm->ended++;
    vm->why = r->why;
    vm->status = r->status;
    vm->report = g_strdup(r->report);
}

static Tree *describe(const char *guest, const char *append, uint64_t mib, unsigned cpus)
{
    Tree *t = tree_new();
    g_autofree char *kernel = g_build_filename(GUESTS, guest, NULL);
    tree_set_str(t, "/", "compatible", TREE_COMPATIBLE);
    tree_set_u64(t, "/memory", "size", mib * MIB);
    tree_set_u32(t, "/cpus", "count", cpus);
    tree_set_str(t, "/boot", "kernel", kernel);
    tree_set_str(t, "/boot", "append", append);
    tree_set_bool(t, "/options", "debug-exit", true);
    pc_describe(t);
    return t;
}

static bool cannot_run(void)
{
    if (access("/dev/kvm", R_OK | W_OK) < 0)
        g_test_skip("no usable /dev/kvm");
    else if (access(GUESTS "/hello", R_OK) < 0)
        g_test_skip("built without -Dguests");
    else
        return false;
    return true;
}

static void vm_build(Vm *vm, Tree *t, const char *name)
{
    g_autoptr(GError) error = NULL;
    MachineConfig c = {.name = name, .ended = on_ended, .opaque = vm};
    *vm = (Vm){.log = g_build_filename(dir, name, NULL)};
    g_autofree char *spec = g_strconcat("file:", vm->log, NULL);
    tree_set_str(t, "/backends/chan/con0", "spec", spec);
    tree_set_str(t, "/devices/com1", "compatible", "16550a");
    tree_set_str(t, "/devices/com1", "chan", "con0");
    vm->machine = machine_build(t, &c, &error);
    g_assert_no_error(error);
}

static void vm_start(Vm *vm)
{
    g_autoptr(GError) error = NULL;
    machine_start(vm->machine, &error);
    g_assert_no_error(error);
}

static void vm_free(Vm *vm)
{
    machine_free(g_steal_pointer(&vm->machine));
    g_unlink(vm->log);
    g_free(vm->log);
    g_free(vm->report);
}

static gboolean too_late(gpointer what)
{
    g_error("nothing came of %s within %d s", (const char *)what, DEADLINE_S);
    return G_SOURCE_REMOVE;
}

static void wait_end(Vm *vm, const char *what)
{
    guint timer = g_timeout_add_seconds(DEADLINE_S, too_late, (gpointer)what);
    while (!vm->ended)
        g_main_context_iteration(NULL, TRUE);
    g_source_remove(timer);
}

/* A vCPU has asked the main thread for something; not looked at yet. */
static void wait_request(void)
{
    gint64 deadline = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    while (!g_main_context_pending(NULL)) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_usleep(1000);
    }
}

/* Ends the machine, for its console's file is whole only then. */
static void check_says(Vm *vm, const char *text)
{
    g_autofree char *log = NULL;
    machine_free(g_steal_pointer(&vm->machine));
    g_assert_true(g_file_get_contents(vm->log, &log, NULL, NULL));
    if (!strstr(log, text))
        g_error("'%s' is not in:\n%s", text, log);
}

static void test_two(void)
{
    Vm a, b;
    if (cannot_run())
        return;
    g_autoptr(Tree) ta = describe("smp", "cpus=2", 64, 2);
    g_autoptr(Tree) tb = describe("hello64", "exit=3 only here", 17, 1);
    vm_build(&a, ta, "one");
    vm_build(&b, tb, "two");
    g_assert_cmpuint(machine_board(a.machine)->ram_below_4g, ==, 64 * MIB);
    g_assert_cmpuint(machine_board(b.machine)->ram_below_4g, ==, 17 * MIB);
    g_assert_cmpuint(machine_devices(a.machine)->len, ==, machine_devices(b.machine)->len);
    vm_start(&a);
    vm_start(&b);
    wait_end(&a, "the first machine");
    wait_end(&b, "the second machine");
    g_assert_cmpint(a.why, ==, MACHINE_END_EXIT);
    g_assert_cmpint(a.status, ==, GUEST_PASS);
    g_assert_cmpint(b.why, ==, MACHINE_END_EXIT);
    g_assert_cmpint(b.status, ==, 7);
    g_assert_cmpint(machine_state(a.machine), ==, MACHINE_ENDED);
    vm_free(&a);
    /* The other one outlives it. */
    g_assert_cmpuint(machine_exits(b.machine), >, 0);
    vm_free(&b);
    g_assert_true(a.ended == 1 && b.ended == 1);
}

static void test_console(void)
{
    Vm vm;
    if (cannot_run())
        return;
    g_autoptr(Tree) t = describe("hello", "one two", 64, 1);
    vm_build(&vm, t, "hello");
    vm_start(&vm);
    wait_end(&vm, "the guest");
    g_assert_cmpint(vm.status, ==, GUEST_PASS);
    check_says(&vm, "one two");
    check_says(&vm, "PASS");
    vm_free(&vm);
}

/* What the guest asked for just before a pause is done after it. */
static void test_request_while_paused(void)
{
    Vm vm;
    g_autoptr(GError) error = NULL;
    if (cannot_run())
        return;
    g_autoptr(Tree) t = describe("hello", "exit=5", 64, 1);
    vm_build(&vm, t, "paused");
    vm_start(&vm);
    wait_request();
    g_assert_true(machine_pause(vm.machine, &error));
    g_assert_no_error(error);
    while (g_main_context_iteration(NULL, FALSE))
        continue;
    g_assert_cmpint(machine_state(vm.machine), ==, MACHINE_PAUSED);
    g_assert_cmpuint(vm.ended, ==, 0);
    g_assert_false(machine_pause(vm.machine, NULL));
    machine_resume(vm.machine);
    wait_end(&vm, "a request that met a pause");
    g_assert_cmpint(vm.why, ==, MACHINE_END_EXIT);
    g_assert_cmpint(vm.status, ==, 11);
    vm_free(&vm);
}

/* Freed with a request queued: nothing of it may run later. */
static void test_free_with_request(void)
{
    Vm vm;
    if (cannot_run())
        return;
    g_autoptr(Tree) t = describe("hello", "exit=5", 64, 1);
    vm_build(&vm, t, "freed");
    vm_start(&vm);
    wait_request();
    vm_free(&vm);
    while (g_main_context_iteration(NULL, FALSE))
        continue;
    g_assert_cmpuint(vm.ended, ==, 1);
    /* And never started, or built and killed. */
    vm_build(&vm, t, "unstarted");
    vm_free(&vm);
    g_assert_cmpuint(vm.ended, ==, 0);
    vm_build(&vm, t, "killed");
    machine_kill(vm.machine, 9);
    machine_kill(vm.machine, 10);
    g_assert_true(vm.ended == 1 && vm.why == MACHINE_END_KILLED && vm.status == 9);
    vm_free(&vm);
}

static void test_pause_within_instruction(gconstpointer guest)
{
    Vm vm;
    unsigned pauses = 0;
    if (cannot_run())
        return;
    g_autoptr(Tree) t = describe(guest, "n=20000", 64, 1);
    vm_build(&vm, t, "rmw");
    vm_start(&vm);
    gint64 deadline = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    while (!vm.ended) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        if (machine_pause(vm.machine, NULL)) {
            machine_resume(vm.machine);
            pauses++;
        }
        g_usleep(200);
        g_main_context_iteration(NULL, FALSE);
    }
    g_test_message("%u pauses", pauses);
    if (vm.status != GUEST_PASS)
        check_says(&vm, "PASS");
    g_assert_cmpint(vm.status, ==, GUEST_PASS);
    g_assert_cmpuint(pauses, >, 10);
    vm_free(&vm);
}

static void test_reset(void)
{
    Vm vm;
    if (cannot_run())
        return;
    g_autoptr(Tree) t = describe("reset", "how=cf9", 64, 1);
    vm_build(&vm, t, "reset");
    vm_start(&vm);
    wait_end(&vm, "a reset");
    g_assert_cmpint(vm.status, ==, GUEST_PASS);
    check_says(&vm, "second boot");
    vm_free(&vm);
    tree_set_bool(t, "/options", "no-reboot", true);
    vm_build(&vm, t, "no-reboot");
    vm_start(&vm);
    wait_end(&vm, "an end at reset");
    g_assert_cmpint(vm.why, ==, MACHINE_END_RESET);
    vm_free(&vm);
}

/* Only where KVM emulates ring 0 does the CPU stop on this; elsewhere the guest passes. */
static void test_crash(void)
{
    Vm vm;
    if (cannot_run())
        return;
    g_autoptr(Tree) t = describe("fault", "how=int3", 64, 1);
    vm_build(&vm, t, "fault");
    vm_start(&vm);
    wait_end(&vm, "a CPU that cannot go on");
    if (vm.why == MACHINE_END_CPU) {
        static const char *const parts[] = {"vCPU 0 stopped", "rip 0", "bytes at rip: cc",
                                            "KVM said: internal error", "what it means: "};
        for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++) {
            if (!strstr(vm.report, parts[i]))
                g_error("'%s' is not in:\n%s", parts[i], vm.report);
        }
        g_assert_true(strstr(vm.report, ": int3") || strstr(vm.report, "install libcapstone"));
    } else {
        g_assert_cmpint(vm.why, ==, MACHINE_END_EXIT);
        g_test_skip("this host's KVM runs guest kernel mode itself");
    }
    vm_free(&vm);
}

static void test_refused(void)
{
    static const struct {
        const char *path, *prop, *value, *says;
    } bad[] = {
        {"/", "compatible", "lodge,machine-9", "lodge,machine-1"},
        {"/cpus", "model", "z80", "/cpus"},
        {"/memory", "huge", "maybe", "/memory"},
        {"/boot", "kernel", "/nonexistent/kernel", "/nonexistent/kernel"},
        {"/devices/x", "compatible", "no-such-class", "/devices/x"},
        {"/devices/x", "compatible", "mc146818", "/devices/x"}, /* on the board only */
        {"/backends/block/d", "cache", "sometimes", "cache=sometimes"},
        {"/backends/block/d", "format", "raw", "no file"},
        {"/backends/chan/con1", "spec", "carrier-pigeon", "carrier-pigeon"},
    };
    if (cannot_run())
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(Tree) t = describe("hello", "", 64, 1);
        g_autoptr(GError) error = NULL;
        MachineConfig c = {.name = "refused"};
        tree_set_str(t, bad[i].path, bad[i].prop, bad[i].value);
        g_assert_null(machine_build(t, &c, &error));
        g_assert_nonnull(error);
        if (!strstr(error->message, bad[i].says))
            g_error("'%s' lacks '%s'", error->message, bad[i].says);
    }
    static const struct {
        uint64_t memory;
        unsigned cpus;
    } sizes[] = {{0, 1}, {4095, 1}, {64 * MIB + 1, 1}, {UINT64_MAX, 1}, {64 * MIB, 0},
                 {64 * MIB, 256}};
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autoptr(Tree) t = describe("hello", "", 64, 1);
        g_autoptr(GError) error = NULL;
        MachineConfig c = {.name = "refused"};
        tree_set_u64(t, "/memory", "size", sizes[i].memory);
        tree_set_u32(t, "/cpus", "count", sizes[i].cpus);
        g_assert_null(machine_build(t, &c, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    }
}

/* ---- disks that fail ---- */

#define FAIL_SECTORS 64u
#define FAIL_FROM 32u /* sectors from here on cannot be written */

static struct rlimit old_limit;

static void writes_fail(bool on)
{
    struct rlimit low;
    signal(SIGXFSZ, SIG_IGN);
    if (on) {
        g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &old_limit), ==, 0);
        low = old_limit;
        low.rlim_cur = FAIL_FROM * 512;
        g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &low), ==, 0);
    } else {
        g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &old_limit), ==, 0);
    }
}

static void build_disk_vm(Vm *vm, const char *append, const char *on_error, const char *image)
{
    g_autoptr(Tree) t = describe("disk", append, 64, 1);
    g_autofree char *zeros = g_malloc0(FAIL_SECTORS * 512);
    g_assert_true(g_file_set_contents(image, zeros, FAIL_SECTORS * 512, NULL));
    tree_set_str(t, "/backends/block/disk0", "file", image);
    tree_set_str(t, "/backends/block/disk0", "format", "raw");
    tree_set_str(t, "/backends/block/disk0", "aio", "threads");
    tree_set_str(t, "/backends/block/disk0", "on-error", on_error);
    tree_set_str(t, "/devices/disk0", "compatible", "ide-hd");
    tree_set_str(t, "/devices/disk0", "drive", "disk0");
    tree_set_str(t, "/devices/disk0", "unit", "0");
    vm_build(vm, t, "disk");
}

static void wait_paused(Vm *vm)
{
    guint timer = g_timeout_add_seconds(DEADLINE_S, too_late, (gpointer) "a pause");
    while (machine_state(vm->machine) != MACHINE_PAUSED) {
        g_assert_cmpuint(vm->ended, ==, 0);
        g_main_context_iteration(NULL, TRUE);
    }
    g_source_remove(timer);
}

typedef struct Heard {
    unsigned errors, pauses;
    MachineDiskError last;
} Heard;

/* An error is told before what it causes. */
static void hear(void *opaque, const MachineNews *news)
{
    Heard *h = opaque;
    if (news->what == MACHINE_EVENT_DISK_ERROR) {
        h->errors++;
        h->last = *news->disk_error;
        g_assert_cmpstr(h->last.disk, ==, "disk0");
    } else if (news->what == MACHINE_EVENT_PAUSED) {
        h->pauses++;
        g_assert_cmpuint(h->errors, >=, h->pauses);
    }
}

/* The machine stands still where the host fails a write; going on loses nothing, however often. */
static void test_disk_stop(void)
{
    Vm vm;
    g_autoptr(GError) error = NULL;
    if (cannot_run())
        return;
    g_autofree char *image = g_build_filename(dir, "fail.img", NULL);
    build_disk_vm(&vm, "n=64", "stop", image);
    Heard heard = {0};
    machine_listen(vm.machine, hear, &heard);
    writes_fail(true);
    vm_start(&vm);
    wait_paused(&vm);
    g_assert_true(machine_stalled(vm.machine));
    g_assert_cmpuint(heard.errors, ==, 1);
    g_assert_cmpint(heard.last.op, ==, BLK_WRITE);
    g_assert_cmpint(heard.last.err, ==, EFBIG);
    g_assert_cmpint(heard.last.action, ==, BLK_ERROR_STOP);
    g_assert_false(machine_pause(vm.machine, NULL));
    g_assert_false(machine_hold(vm.machine, &error)); /* as it is not at rest */
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_STATE);
    g_clear_error(&error);
    machine_resume(vm.machine); /* fails again */
    wait_paused(&vm);
    g_assert_cmpuint(heard.errors, ==, 2);
    writes_fail(false);
    machine_resume(vm.machine);
    g_assert_false(machine_stalled(vm.machine));
    wait_end(&vm, "the guest behind a failed write");
    g_assert_cmpint(vm.why, ==, MACHINE_END_EXIT);
    g_assert_cmpint(vm.status, ==, GUEST_PASS);
    machine_listen(vm.machine, NULL, NULL);
    vm_free(&vm);
    g_unlink(image);
}

/* The plug is pulled while it stands still, or it is reset when it goes on. */
static void test_disk_stop_end(void)
{
    Vm vm;
    if (cannot_run())
        return;
    g_autofree char *image = g_build_filename(dir, "fail.img", NULL);
    for (unsigned reset = 0; reset < 2; reset++) {
        build_disk_vm(&vm, "n=64", "stop", image);
        writes_fail(true);
        vm_start(&vm);
        wait_paused(&vm);
        gint64 from = g_get_monotonic_time();
        if (reset) {
            machine_reset(vm.machine);
            machine_resume(vm.machine);
            wait_paused(&vm); /* at the same write, in its second life */
        }
        machine_kill(vm.machine, 3);
        writes_fail(false);
        g_assert_cmpint(vm.status, ==, 3);
        vm_free(&vm);
        g_assert_cmpint(g_get_monotonic_time() - from, <, 20 * G_TIME_SPAN_SECOND);
    }
    g_unlink(image);
}

static void test_disk_report(void)
{
    Vm vm;
    if (cannot_run())
        return;
    g_autofree char *image = g_build_filename(dir, "fail.img", NULL);
    build_disk_vm(&vm, "n=64 fails=32", "report", image);
    Heard heard = {0};
    machine_listen(vm.machine, hear, &heard);
    writes_fail(true);
    vm_start(&vm);
    wait_end(&vm, "the guest that sees errors");
    writes_fail(false);
    machine_listen(vm.machine, NULL, NULL);
    g_assert_cmpint(heard.last.action, ==, BLK_ERROR_REPORT);
    g_assert_cmpuint(heard.errors, >=, 1);
    g_assert_cmpint(vm.status, ==, GUEST_PASS);
    vm_free(&vm);
    g_unlink(image);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("lodge-test-XXXXXX", NULL);
    g_test_add_func("/machine/two", test_two);
    g_test_add_func("/machine/console", test_console);
    g_test_add_func("/machine/request-while-paused", test_request_while_paused);
    g_test_add_func("/machine/free-with-request", test_free_with_request);
    g_test_add_data_func("/machine/pause-within-instruction", "rmw", test_pause_within_instruction);
    g_test_add_data_func("/machine/pause-within-instruction64", "rmw64",
                         test_pause_within_instruction);
    g_test_add_func("/machine/reset", test_reset);
    g_test_add_func("/machine/crash", test_crash);
    g_test_add_func("/machine/refused", test_refused);
    g_test_add_func("/machine/disk-stop", test_disk_stop);
    g_test_add_func("/machine/disk-stop-end", test_disk_stop_end);
    g_test_add_func("/machine/disk-report", test_disk_report);
    int status = g_test_run();
    g_rmdir(dir);
    g_free(dir);
    return status;
}
