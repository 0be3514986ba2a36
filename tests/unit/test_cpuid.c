/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a vCPU's CPUID says: the policy's bits, and one topology in every leaf that tells it. */
#include <string.h>
#include <sys/ioctl.h>

#include "cpuid.h"
#include "kvm.h"
#include "lodge/error.h"

static Kvm *kvm; /* NULL: none here */

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *c, uint32_t function,
                                           uint32_t index)
{
    for (unsigned i = 0; i < c->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &c->entries[i];
        if (e->function == function &&
            (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == index))
            return e;
    }
    return NULL;
}

static struct kvm_cpuid2 *build(unsigned index, unsigned cpus, bool nested)
{
    CpuidPolicy p = {.index = index, .cpus = cpus, .nested = nested};
    g_autoptr(GError) error = NULL;
    struct kvm_cpuid2 *c = cpuid_build(kvm, &p, &error);
    g_assert_no_error(error);
    return c;
}

static bool no_kvm(void)
{
    if (!kvm)
        g_test_skip("no usable /dev/kvm");
    return !kvm;
}

static void test_policy(void)
{
    if (no_kvm())
        return;
    g_autofree struct kvm_cpuid2 *c = build(0, 1, false), *nested = build(0, 1, true);
    const struct kvm_cpuid_entry2 *one = leaf(c, 1, 0), *amd = leaf(c, 0x80000001, 0);
    g_assert_true(one->ecx & 1u << 31); /* hypervisor */
    g_assert_true(one->ecx & 1u << 21); /* x2APIC */
    g_assert_cmpuint(one->ecx >> 24 & 1, ==, kvm_cap(kvm, KVM_CAP_TSC_DEADLINE_TIMER) > 0);
    g_assert_cmpuint(one->ecx & (1u << 3 | 1u << 5), ==, 0); /* MONITOR, VMX */
    g_assert_true(!amd || !(amd->ecx & (1u << 2 | 1u << 22))); /* SVM, TOPOEXT */
    g_assert_true(!leaf(c, 6, 0) || leaf(c, 6, 0)->eax & 1u << 2); /* ARAT */
    g_assert_null(leaf(c, 0xa, 0));
    g_assert_nonnull(leaf(c, 0x40000000, 0));
    /* Nested shows what the host supports, and only that. */
    g_autofree struct kvm_cpuid2 *raw = g_malloc0(sizeof *raw + 256 * sizeof raw->entries[0]);
    raw->nent = 256;
    g_assert_cmpint(ioctl(kvm_sys_fd(kvm), KVM_GET_SUPPORTED_CPUID, raw), ==, 0);
    g_assert_cmpuint(leaf(nested, 1, 0)->ecx & 1u << 5, ==, leaf(raw, 1, 0)->ecx & 1u << 5);
}

static unsigned log2_up(unsigned n)
{
    return n < 2 ? 0 : 1 + log2_up((n + 1) / 2);
}

static void check_topology(unsigned index, unsigned cpus)
{
    g_autofree struct kvm_cpuid2 *c = build(index, cpus, false);
    const struct kvm_cpuid_entry2 *e = leaf(c, 1, 0);
    g_assert_cmpuint(e->ebx >> 24, ==, index);
    g_assert_cmpuint(e->ebx >> 16 & 0xff, ==, cpus);
    g_assert_cmpuint(e->edx >> 28 & 1, ==, cpus > 1);
    g_assert_null(leaf(c, 0x1f, 0));
    if (leaf(c, 0, 0)->eax >= 0xb) {
        const struct kvm_cpuid_entry2 *smt = leaf(c, 0xb, 0), *core = leaf(c, 0xb, 1);
        const struct kvm_cpuid_entry2 *end = leaf(c, 0xb, 2);
        g_assert_cmphex(smt->ecx, ==, 0x100);
        g_assert_cmpuint(smt->eax, ==, 0);
        g_assert_cmpuint(smt->ebx, ==, 1);
        g_assert_cmphex(core->ecx, ==, 0x201);
        g_assert_cmpuint(core->eax, ==, log2_up(cpus));
        g_assert_cmpuint(core->ebx, ==, cpus);
        g_assert_cmphex(end->ecx, ==, 2);
        g_assert_cmpuint(end->ebx, ==, 0);
        g_assert_true(smt->edx == index && core->edx == index && end->edx == index);
    }
    for (unsigned i = 0; (e = leaf(c, 4, i)) && e->eax & 0x1f; i++) {
        unsigned level = e->eax >> 5 & 7, sharing = (e->eax >> 14 & 0xfff) + 1;
        g_assert_cmpuint(sharing, ==, level >= 3 ? 1u << log2_up(cpus) : 1);
        g_assert_cmpuint(e->eax >> 26, ==, (1u << log2_up(cpus)) - 1);
    }
    if ((e = leaf(c, 0x80000008, 0))) {
        g_assert_cmpuint(e->ecx & 0xff, ==, cpus - 1);
        g_assert_cmpuint(e->ecx >> 12 & 0xf, ==, log2_up(cpus));
    }
}

static void test_topology(void)
{
    static const unsigned counts[] = {1, 2, 3, 8};
    if (no_kvm())
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(counts); i++) {
        for (unsigned cpu = 0; cpu < counts[i]; cpu++)
            check_topology(cpu, counts[i]);
    }
}

static void test_brand(void)
{
    char host[48], seen[48];
    if (no_kvm())
        return;
    g_autofree struct kvm_cpuid2 *c = build(0, 1, false);
    for (unsigned i = 0; i < 3; i++) {
        const struct kvm_cpuid_entry2 *e = leaf(c, 0x80000002 + i, 0);
        g_assert_nonnull(e);
        uint32_t r[4] = {0x80000002 + i, 0, 0, 0};
        __asm__ volatile("cpuid" : "+a"(r[0]), "=b"(r[1]), "+c"(r[2]), "=d"(r[3]));
        memcpy(&seen[16 * i], &e->eax, 16);
        memcpy(&host[16 * i], r, 16);
    }
    g_assert_cmpmem(seen, sizeof seen, host, sizeof host);
    g_assert_true(g_ascii_isalnum(seen[0]) || seen[0] == ' ');
}

/* No leaf is there twice: the guest would see whichever KVM finds first. */
static void test_unique(void)
{
    if (no_kvm())
        return;
    g_autofree struct kvm_cpuid2 *c = build(1, 2, false);
    for (unsigned i = 0; i < c->nent; i++)
        g_assert_true(leaf(c, c->entries[i].function, c->entries[i].index) == &c->entries[i]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    kvm = kvm_open(NULL);
    g_test_add_func("/cpuid/policy", test_policy);
    g_test_add_func("/cpuid/topology", test_topology);
    g_test_add_func("/cpuid/brand", test_brand);
    g_test_add_func("/cpuid/unique", test_unique);
    int status = g_test_run();
    kvm_free(kvm);
    return status;
}
