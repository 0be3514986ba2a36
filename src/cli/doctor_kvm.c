/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks of KVM: the device, its version and capabilities, real hardware assist or not.
 * Spec: KVM API (Documentation/virt/kvm/api.rst), 4.1 (version), 4.4 (capabilities).
 */
#include "doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "lodge/error.h"
#include "probe.h"

/* Whether word @flag stands in the first "flags" line of /proc/cpuinfo. */
static bool cpu_flag(const DoctorHost *h, const char *flag)
{
    g_autofree char *path = doctor_path(h, "/proc/cpuinfo"), *text = NULL;
    g_auto(GStrv) words = NULL;
    char *line, *end;

    if (!g_file_get_contents(path, &text, NULL, NULL) || !(line = strstr(text, "\nflags")))
        return false;
    end = strchr(line + 1, '\n');
    if (end)
        *end = '\0';
    words = g_strsplit_set(line + 1, " \t", -1);
    return g_strv_contains((const char *const *)words, flag);
}

static char *missing_fix(const DoctorHost *h)
{
    if (cpu_flag(h, "vmx"))
        return g_strdup("sudo modprobe kvm_intel");
    if (cpu_flag(h, "svm"))
        return g_strdup("sudo modprobe kvm_amd");
    return g_strdup("turn on VT-x or AMD-V in the firmware's set-up, or in a virtual machine ask "
                    "its host for nested virtualization");
}

static char *access_fix(const char *path)
{
    struct stat st;
    struct group *g = stat(path, &st) ? NULL : getgrgid(st.st_gid);

    /* A device that root alone has lacks its rule; the group is the same on all distributions. */
    if (!g || !st.st_gid || !(st.st_mode & S_IWGRP))
        return g_strdup(
            "sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm && sudo usermod -aG kvm "
            "$USER, then log in again");
    return g_strdup_printf("sudo usermod -aG %s $USER, then log in again", g->gr_name);
}

void check_kvm(DoctorHost *h, CheckResult *ret)
{
    g_autofree char *path = doctor_path(h, "/dev/kvm"), *fix = NULL;
    int version;

    h->kvm_fd = open(path, O_RDWR | O_CLOEXEC);
    if (h->kvm_fd < 0) {
        int err = errno;

        fix = err == ENOENT || err == ENODEV || err == ENXIO ? missing_fix(h)
              : err == EACCES || err == EPERM                ? access_fix(path)
                                              : g_strdup("see dmesg for what holds it");
        check_set(ret, CHECK_FAIL, fix, "/dev/kvm: %s", g_strerror(err));
        return;
    }
    version = ioctl(h->kvm_fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        check_set(ret, CHECK_FAIL, "load the kernel's own kvm module",
                  "/dev/kvm answers API version %d, Lodge needs %d", version, KVM_API_VERSION);
        return;
    }
    check_set(ret, CHECK_OK, NULL, "/dev/kvm can be opened, API version %d", version);
}

static const struct {
    unsigned cap;
    const char *name;
    const char *lost; /* what is worse without it; NULL: nothing runs without it */
} capabilities[] = {
    {KVM_CAP_USER_MEMORY, "USER_MEMORY", NULL},
    {KVM_CAP_SPLIT_IRQCHIP, "SPLIT_IRQCHIP", NULL},
    {KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT", NULL},
    {KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI", NULL},
    {KVM_CAP_IOEVENTFD, "IOEVENTFD", "device queues cost an exit to user space"},
    {KVM_CAP_IRQFD, "IRQFD", "interrupts cost a system call more"},
    {KVM_CAP_TSC_DEADLINE_TIMER, "TSC_DEADLINE_TIMER", "guests calibrate their timer at start"},
    {KVM_CAP_ADJUST_CLOCK, "ADJUST_CLOCK", "guests' clocks jump over a pause"},
    {KVM_CAP_KVMCLOCK_CTRL, "KVMCLOCK_CTRL", "guests report soft lock-ups after a pause"},
    {KVM_CAP_READONLY_MEM, "READONLY_MEM", "guests can write to ROM"},
    {KVM_CAP_X2APIC_API, "X2APIC_API", "guests with over 255 CPUs"},
    {KVM_CAP_MAX_VCPUS, "MAX_VCPUS", "how many CPUs a guest may have is a guess"},
};

void check_kvm_capabilities(DoctorHost *h, CheckResult *ret)
{
    g_autoptr(GString) fatal = g_string_new(NULL), lost = g_string_new(NULL);
    int cpus;

    if (h->kvm_fd < 0) {
        check_set(ret, CHECK_FAIL, "see kvm", "cannot be asked without /dev/kvm");
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++) {
        if (ioctl(h->kvm_fd, KVM_CHECK_EXTENSION, capabilities[i].cap) > 0)
            continue;
        if (!capabilities[i].lost)
            g_string_append_printf(fatal, "%s%s", fatal->len ? ", " : "", capabilities[i].name);
        else
            g_string_append_printf(lost, "%s%s (%s)", lost->len ? ", " : "", capabilities[i].name,
                                   capabilities[i].lost);
    }
    cpus = ioctl(h->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (fatal->len)
        check_set(ret, CHECK_FAIL, "run Linux 4.14 or later", "missing: %s", fatal->str);
    else if (lost->len)
        check_set(ret, CHECK_WARNING, "run a newer kernel", "missing: %s", lost->str);
    else
        check_set(ret, CHECK_OK, NULL, "all %zu that Lodge uses, up to %d CPUs a machine",
                  G_N_ELEMENTS(capabilities), cpus);
}

void check_assist(DoctorHost *h, CheckResult *ret)
{
    g_autoptr(GError) error = NULL;
    const char *flag = cpu_flag(h, "vmx")   ? "VT-x"
                       : cpu_flag(h, "svm") ? "AMD-V"
                                            : "no VT-x, no AMD-V";
    ProbeRates r;

    if (h->kvm_fd < 0) {
        check_set(ret, CHECK_FAIL, "see kvm",
                  "cannot be measured without /dev/kvm; the CPU says %s", flag);
        return;
    }
    if (!probe_rates(h->kvm_fd, &r, &error)) {
        check_set(ret, CHECK_FAIL, "see dmesg", "%s; the CPU says %s", error->message, flag);
        return;
    }
    if (probe_is_emulated(&r)) {
        check_set(ret, CHECK_WARNING,
                  "bare-metal test guests run; for stock kernels use tests/amdv or another host",
                  "guest kernel mode is emulated, %" G_GUINT64_FORMAT
                  " times slower than user mode; the CPU says %s",
                  r.ring3 / MAX(r.ring0, 1), flag);
        return;
    }
    check_set(ret, CHECK_OK, NULL,
              "guest kernel mode runs on the CPU (%" G_GUINT64_FORMAT " million loops a second in "
              "ring 0, %" G_GUINT64_FORMAT " in ring 3); the CPU says %s",
              r.ring0 / 1000000, r.ring3 / 1000000, flag);
}

void check_nested(DoctorHost *h, CheckResult *ret)
{
    static const char *const modules[] = {"kvm_intel", "kvm_amd"};

    for (size_t i = 0; i < G_N_ELEMENTS(modules); i++) {
        g_autofree char *path = g_strdup_printf("/sys/module/%s/parameters/nested", modules[i]);
        g_autofree char *text = doctor_read(h, path);
        g_autofree char *fix = NULL;

        if (!text)
            continue;
        if (text[0] == 'Y' || text[0] == '1') {
            check_set(ret, CHECK_OK, NULL, "%s lets guests run guests", modules[i]);
            return;
        }
        fix = g_strdup_printf("echo options %s nested=1 | sudo tee /etc/modprobe.d/%s.conf, then "
                              "load the module again",
                              modules[i], modules[i]);
        check_set(ret, CHECK_WARNING, fix, "%s does not let guests run guests", modules[i]);
        return;
    }
    check_set(ret, CHECK_OK, NULL,
              "neither kvm_intel nor kvm_amd tells; guests cannot count on it");
}
