/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The least that an OUT can cost: a virtual machine in real mode that writes a port in a loop, and a
 * program that does nothing but KVM_RUN. The same loop under Lodge is tests/guests/exitcost.
 *
 * Prints ns for each exit as JSON. Usage: bare_kvm [COUNT]
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define GUEST_AT 0x1000u
#define MEM_BYTES 0x10000u
#define TSS_AT 0xfffbd000u

static void need(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bare_kvm: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static double now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

int main(int argc, char **argv)
{
    /* mov $0x80,%dx ; 1: out %al,%dx ; jmp 1b */
    static const uint8_t code[] = {0xba, 0x80, 0x00, 0xee, 0xeb, 0xfd};
    long count = argc > 1 ? atol(argv[1]) : 200000;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    need(kvm >= 0, "/dev/kvm");
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    need(vm >= 0, "KVM_CREATE_VM");
    need(ioctl(vm, KVM_SET_TSS_ADDR, (unsigned long)TSS_AT) == 0, "KVM_SET_TSS_ADDR");
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};
    need(ioctl(vm, KVM_ENABLE_CAP, &split) == 0, "KVM_CAP_SPLIT_IRQCHIP");
    uint8_t *mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(mem != MAP_FAILED, "mmap");
    memcpy(mem + GUEST_AT, code, sizeof code);
    struct kvm_userspace_memory_region r = {
        .memory_size = MEM_BYTES, .userspace_addr = (uintptr_t)mem};
    need(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &r) == 0, "KVM_SET_USER_MEMORY_REGION");
    int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    need(cpu >= 0, "KVM_CREATE_VCPU");
    struct kvm_sregs s;
    need(ioctl(cpu, KVM_GET_SREGS, &s) == 0, "KVM_GET_SREGS");
    s.cs.base = s.cs.selector = 0;
    struct kvm_regs regs = {.rip = GUEST_AT, .rflags = 2};
    need(ioctl(cpu, KVM_SET_SREGS, &s) == 0, "KVM_SET_SREGS");
    need(ioctl(cpu, KVM_SET_REGS, &regs) == 0, "KVM_SET_REGS");
    for (long i = 0; i < count / 10; i++)
        need(ioctl(cpu, KVM_RUN, 0) == 0, "KVM_RUN");
    double begin = now_ns();
    for (long i = 0; i < count; i++)
        need(ioctl(cpu, KVM_RUN, 0) == 0, "KVM_RUN");
    printf("{\"exits\": %ld, \"ns_per_exit\": %.1f}\n", count, (now_ns() - begin) / (double)count);
    return 0;
}
