/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The least that an OUT can cost: a virtual machine that writes a port in a loop, and a program that
 * does nothing but KVM_RUN. tests/guests/exitcost runs the same loops under Lodge, and reports as
 * this does: TSC cycles for each OUT, less the loop.
 *
 * Usage: bare_kvm [COUNT]
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
#include <unistd.h>
#include <x86intrin.h>

#define EMPTY_AT 0x1000u
#define OUTS_AT 0x2000u
#define PORT_BEGIN 0x10
#define PORT_END 0x11
#define MEM_BYTES 0x10000u
#define TSS_AT 0xfffbd000u

static void need(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bare_kvm: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static struct kvm_segment flat(unsigned selector, unsigned type)
{
    return (struct kvm_segment){.limit = 0xffffffff, .selector = (uint16_t)selector,
                                .type = (uint8_t)type, .present = 1, .db = 1, .s = 1, .g = 1};
}

/* Run until the guest halts by writing PORT_END; TSC cycles between its two marks. */
static uint64_t run(int cpu, struct kvm_run *r)
{
    uint64_t begin = 0;
    for (;;) {
        need(ioctl(cpu, KVM_RUN, 0) == 0, "KVM_RUN");
        need(r->exit_reason == KVM_EXIT_IO, "exit");
        if (r->io.port == PORT_BEGIN)
            begin = __rdtsc();
        else if (r->io.port == PORT_END)
            return __rdtsc() - begin;
    }
}

int main(int argc, char **argv)
{
    /* mov $PORT_BEGIN,%dx ; out ; mov $0x80,%dx ; 1: dec %ecx ; jnz 1b ; mov $PORT_END,%dx ; out */
    static const uint8_t empty[] = {0x66, 0xba, PORT_BEGIN, 0, 0xee, 0x66, 0xba, 0x80, 0, 0x49, 0x75,
                                    0xfd, 0x66, 0xba, PORT_END, 0, 0xee};
    /* the same with out %al,%dx in the loop */
    static const uint8_t outs[] = {0x66, 0xba, PORT_BEGIN, 0, 0xee, 0x66, 0xba, 0x80, 0, 0xee, 0x49,
                                   0x75, 0xfc, 0x66, 0xba, PORT_END, 0, 0xee};
    unsigned count = argc > 1 ? (unsigned)atol(argv[1]) : 200000;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    need(kvm >= 0, "/dev/kvm");
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    need(vm >= 0, "KVM_CREATE_VM");
    need(ioctl(vm, KVM_SET_TSS_ADDR, (unsigned long)TSS_AT) == 0, "KVM_SET_TSS_ADDR");
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};
    need(ioctl(vm, KVM_ENABLE_CAP, &split) == 0, "KVM_CAP_SPLIT_IRQCHIP");
    uint8_t *mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(mem != MAP_FAILED, "mmap");
    memcpy(mem + EMPTY_AT, empty, sizeof empty);
    memcpy(mem + OUTS_AT, outs, sizeof outs);
    struct kvm_userspace_memory_region r = {
        .memory_size = MEM_BYTES, .userspace_addr = (uintptr_t)mem};
    need(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &r) == 0, "KVM_SET_USER_MEMORY_REGION");
    int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    need(cpu >= 0, "KVM_CREATE_VCPU");
    struct kvm_run *state = mmap(NULL, (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
                                 PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
    need(state != MAP_FAILED, "mmap of the vCPU");
    struct kvm_sregs s;
    need(ioctl(cpu, KVM_GET_SREGS, &s) == 0, "KVM_GET_SREGS");
    s.cs = flat(0x10, 11);
    s.ds = s.es = s.fs = s.gs = s.ss = flat(0x18, 3);
    s.cr0 |= 1;
    need(ioctl(cpu, KVM_SET_SREGS, &s) == 0, "KVM_SET_SREGS");
    uint64_t cycles[2];
    for (int i = 0; i < 2; i++) {
        struct kvm_regs regs = {.rip = i ? OUTS_AT : EMPTY_AT, .rflags = 2, .rcx = count};
        need(ioctl(cpu, KVM_SET_REGS, &regs) == 0, "KVM_SET_REGS");
        cycles[i] = run(cpu, state);
    }
    printf("bare %u outs, %llu cycles each\n", count,
           (unsigned long long)((cycles[1] - cycles[0]) / count));
    return 0;
}
