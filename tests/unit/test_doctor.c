/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Doctor's checks against a made-up host, and the probe where there is a /dev/kvm. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "doctor.h"
#include "lodge/clock.h"
#include "lodge/num.h"
#include "probe.h"

#define PROBE_CEILING_NS (NS_PER_SEC / 2)

typedef struct Fake {
    char *dir;
    DoctorHost host;
} Fake;

static void fake_set(Fake *f, const char *path, const char *text)
{
    g_autofree char *full = g_strconcat(f->dir, path, NULL), *up = g_path_get_dirname(full);

    g_assert_cmpint(g_mkdir_with_parents(up, 0700), ==, 0);
    g_assert_true(g_file_set_contents(full, text, -1, NULL));
}

static void fake_up(Fake *f, gconstpointer unused)
{
    f->dir = g_dir_make_tmp("lodge-test-XXXXXX", NULL);
    f->host = (DoctorHost){.root = f->dir, .kvm_fd = -1};
}

static void fake_down(Fake *f, gconstpointer unused)
{
    const char *argv[] = {"rm", "-r", f->dir, NULL};

    if (f->host.kvm_fd >= 0)
        close(f->host.kvm_fd);
    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL,
                               NULL, NULL, NULL));
    g_free(f->dir);
}

static void expect(Fake *f, void (*check)(DoctorHost *, CheckResult *), CheckStatus status,
                   const char *detail, const char *fix)
{
    CheckResult r = {0};

    check(&f->host, &r);
    g_test_message("%s: %s; %s", check_status_name(r.status), r.detail, r.fix ? r.fix : "");
    g_assert_cmpint(r.status, ==, status);
    g_assert_nonnull(strstr(r.detail, detail));
    if (fix)
        g_assert_cmpstr(r.fix, ==, fix);
    check_clear(&r);
}

static void test_kvm(Fake *f, gconstpointer unused)
{
    fake_set(f, "/proc/cpuinfo", "processor : 0\nflags\t\t: fpu svm lm\n");
    expect(f, check_kvm, CHECK_FAIL, "No such file", "sudo modprobe kvm_amd");
    fake_set(f, "/proc/cpuinfo", "processor : 0\nflags\t\t: fpu vmx lm\n");
    expect(f, check_kvm, CHECK_FAIL, "No such file", "sudo modprobe kvm_intel");
    fake_set(f, "/proc/cpuinfo", "processor : 0\nflags\t\t: fpu vmxx\n");
    expect(f, check_kvm, CHECK_FAIL, "No such file",
           "turn on VT-x or AMD-V in the firmware's set-up, or in a virtual machine ask its host "
           "for nested virtualization");
    expect(f, check_kvm_capabilities, CHECK_FAIL, "without /dev/kvm", "see kvm");
    expect(f, check_assist, CHECK_FAIL, "without /dev/kvm", "see kvm");
    fake_set(f, "/dev/kvm", "");
    expect(f, check_kvm, CHECK_FAIL, "API version -1", NULL);
}

static void test_host(Fake *f, gconstpointer unused)
{
    fake_set(f, "/proc/meminfo",
             "MemAvailable:  102400 kB\nHugePages_Free: 3\nHugepagesize: 2048 kB\n");
    expect(f, check_memory, CHECK_WARNING, "100 MiB available", NULL);
    expect(f, check_huge_pages, CHECK_OK, "3 free of 2048 kB", NULL);
    fake_set(f, "/proc/meminfo", "MemAvailable:  2097152 kB\n");
    expect(f, check_memory, CHECK_OK, "2048 MiB", NULL);
    fake_set(f, "/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
    expect(f, check_thp, CHECK_WARNING, "off",
           "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled");
    fake_set(f, "/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    expect(f, check_thp, CHECK_OK, "[madvise]", NULL);
    fake_set(f, "/sys/module/kvm_amd/parameters/nested", "0\n");
    expect(f, check_nested, CHECK_WARNING, "kvm_amd does not", NULL);
    fake_set(f, "/sys/module/kvm_amd/parameters/nested", "1\n");
    expect(f, check_nested, CHECK_OK, "kvm_amd lets", NULL);
    expect(f, check_tun, CHECK_WARNING, "No such file", "sudo modprobe tun");
    expect(f, check_firmware, CHECK_WARNING, "missing: SeaBIOS, its VGA BIOS, iPXE",
           "sudo apt install seabios ipxe-qemu");
}

static void test_table(void)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

    for (const DoctorCheck *c = doctor_checks; c->name; c++) {
        g_assert_true(g_hash_table_add(names, (gpointer)c->name));
        g_assert_nonnull(c->run);
    }
}

static void test_emulated(void)
{
    g_assert_true(probe_is_emulated(&(ProbeRates){.ring0 = 800000, .ring3 = 1600000000}));
    g_assert_false(probe_is_emulated(&(ProbeRates){.ring0 = 800000000, .ring3 = 1600000000}));
    g_assert_true(probe_is_emulated(&(ProbeRates){.ring0 = 0, .ring3 = 100}));
}

static void test_probe(void)
{
    g_autoptr(GError) error = NULL;
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int64_t start = clock_host_ns();
    ProbeRates r = {0};

    if (fd < 0) {
        g_test_skip("/dev/kvm cannot be opened");
        return;
    }
    g_assert_true(probe_rates(fd, &r, &error));
    g_assert_no_error(error);
    g_test_message("ring 0 %" G_GUINT64_FORMAT ", ring 3 %" G_GUINT64_FORMAT " loops a second",
                   r.ring0, r.ring3);
    g_assert_cmpuint(r.ring0, >, 0);
    g_assert_cmpuint(r.ring3, >, 0);
    g_assert_cmpint(clock_host_ns() - start, <, PROBE_CEILING_NS);
    close(fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add("/doctor/kvm", Fake, NULL, fake_up, test_kvm, fake_down);
    g_test_add("/doctor/host", Fake, NULL, fake_up, test_host, fake_down);
    g_test_add_func("/doctor/table", test_table);
    g_test_add_func("/probe/emulated", test_emulated);
    g_test_add_func("/probe/rates", test_probe);
    return g_test_run();
}
