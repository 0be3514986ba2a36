/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Entry of a test guest: Multiboot 1 hands over a 32-bit flat CPU with paging off. A 64-bit
 * guest is the same file with an identity map of the first 4 GiB and long mode switched on here.
 * Only instructions that KVM's instruction emulator knows are used: on hosts without hardware
 * assist it runs all of ring 0.
 */
#define CODE32 0x08
#define DATA   0x10
#define CODE64 0x18
#define TSS    0x30

#ifdef __x86_64__
#define CODE CODE64
#else
#define CODE CODE32
#endif

        .section .multiboot, "a"
        .align 4
        .long 0x1BADB002, 0x00000003, -(0x1BADB002 + 0x00000003)

        .text
        .code32
        .globl _start
_start:
        cli
        mov     %eax, mb_magic
        mov     %ebx, mb_info_addr
        mov     $stack_top, %esp
        lgdt    gdt_pointer
        ljmp    $CODE32, $1f
1:      call    load_data_segments
#ifdef __x86_64__
        /* One table of each kind; the page directories map 2 MiB pages, open to ring 3 */
        movl    $pdpt + 7, pml4
        mov     $4, %ecx
        mov     $pdpt, %edi
        mov     $page_dirs + 7, %eax
2:      mov     %eax, (%edi)
        add     $0x1000, %eax
        add     $8, %edi
        dec     %ecx
        jnz     2b
        mov     $2048, %ecx
        mov     $page_dirs, %edi
        mov     $0x87, %eax
3:      mov     %eax, (%edi)
        add     $0x200000, %eax
        add     $8, %edi
        dec     %ecx
        jnz     3b
        call    enter_long_mode
        ljmp    $CODE64, $4f
        .code64
4:      xor     %ebp, %ebp
        call    lib_start
#else
        xor     %ebp, %ebp
        call    lib_start
#endif
0:      hlt
        jmp     0b

        .code32
load_data_segments:
        mov     $DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %fs
        mov     %eax, %gs
        mov     %eax, %ss
        ret

#ifdef __x86_64__
enter_long_mode:
        mov     %cr4, %eax
        or      $0x20, %eax             /* PAE */
        mov     %eax, %cr4
        mov     $pml4, %eax
        mov     %eax, %cr3
        mov     $0xC0000080, %ecx       /* EFER.LME */
        rdmsr
        or      $0x100, %eax
        wrmsr
        mov     %cr0, %eax
        or      $0x80000000, %eax
        mov     %eax, %cr0
        ret
#endif

/* ---- interrupts: 256 stubs of 16 bytes; each leaves an error code and its number ---- */
#ifdef __x86_64__
        .code64
#endif
        .globl  isr_stubs
        .align  16
isr_stubs:
vector = 0
        .rept 256
        .align 16
        .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
        .else
        push    $0
        .endif
        push    $vector
        jmp     isr_common
vector = vector + 1
        .endr

isr_common:
#ifdef __x86_64__
        push %rax; push %rcx; push %rdx; push %rbx; push %rbp; push %rsi; push %rdi
        push %r8; push %r9; push %r10; push %r11; push %r12; push %r13; push %r14; push %r15
        mov     %rsp, %rdi
        mov     %rsp, %rbx              /* kept across the call, so that the stack can be aligned */
        and     $-16, %rsp
        call    isr_dispatch
        mov     %rbx, %rsp
        pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8
        pop %rdi; pop %rsi; pop %rbp; pop %rbx; pop %rdx; pop %rcx; pop %rax
        add     $16, %rsp
        iretq
#else
        pusha
        push    %esp
        call    isr_dispatch
        add     $4, %esp
        testl   $3, 44(%esp)
        jnz     1f
        /* KVM's emulator has no 32-bit IRET: a far return that drops the flags does the same.
           STI holds interrupts back until that is done. */
        popa
        add     $8, %esp
        btl     $9, 8(%esp)
        pushl   8(%esp)
        jc      2f
        popf
        lret    $4
2:      andl    $~0x200, (%esp)
        popf
        sti
        lret    $4
        /* To ring 3: SYSEXIT takes two registers, so what must be restored goes by way of the
           user's stack: ECX, EDX, flags, address. */
1:      mov     52(%esp), %eax
        sub     $16, %eax
        mov     24(%esp), %ecx
        mov     %ecx, (%eax)
        mov     20(%esp), %ecx
        mov     %ecx, 4(%eax)
        mov     48(%esp), %ecx
        mov     %ecx, 8(%eax)
        mov     40(%esp), %ecx
        mov     %ecx, 12(%eax)
        mov     %eax, 12(%esp)          /* POPA skips this slot */
        popa
        mov     -20(%esp), %ecx
        mov     $sysexit_landing, %edx
        sysexit
sysexit_landing:
        pop     %ecx
        pop     %edx
        popf
        ret
#endif

/* ring3_enter(fn, stack): never comes back; IOPL 3, interrupts as they are */
        .globl  ring3_enter
ring3_enter:
#ifdef __x86_64__
        mov     $TSS, %eax
        ltr     %ax
        push    $0x2b
        push    %rsi
        pushf
        orq     $0x3000, (%rsp)
        push    $0x23
        push    %rdi
        iretq
#else
        mov     4(%esp), %ecx
        mov     8(%esp), %edx
        mov     $TSS, %eax
        ltr     %ax
        mov     $0x2b, %eax
        mov     %eax, %ds
        mov     %eax, %es
        push    %ecx                    /* the same instruction as the way back: 0x20 is code, 0x28 data */
        push    %edx
        mov     $0x174, %ecx            /* SYSENTER_CS */
        mov     $0x10, %eax
        xor     %edx, %edx
        wrmsr
        pushf
        orl     $0x3000, (%esp)
        popf
        pop     %ecx
        pop     %edx
        sysexit
#endif

/* ---- how another CPU starts: copied to 0x8000, entered in real mode with CS = 0x800 ---- */
        .code16
        .globl  ap_trampoline, ap_trampoline_end
ap_trampoline:
        cli
        mov     %cs, %ax
        mov     %ax, %ds
        lgdtl   ap_gdt_pointer - ap_trampoline
        mov     %cr0, %eax
        or      $1, %eax
        mov     %eax, %cr0
        ljmpl   $CODE32, $ap_start32
        .align 4
ap_gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt
ap_trampoline_end:

        .code32
ap_start32:
        mov     $DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $1, %esi
        lock xadd %esi, ap_index        /* 1 is the first; the boot CPU is 0 */
        mov     %esi, %eax
        shl     $12, %eax
        lea     ap_stacks(%eax), %esp   /* stack i ends where i + 1 begins; numbers start at 1 */
#ifdef __x86_64__
        push    %esi
        call    enter_long_mode
        pop     %esi
        ljmp    $CODE64, $1f
        .code64
1:      mov     %esi, %edi
        call    ap_main
#else
        push    %esi
        call    ap_main
#endif
2:      cli
        hlt
        jmp     2b

        .data
        .align  16
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      /* 08 code, 32-bit */
        .quad   0x00cf93000000ffff      /* 10 data */
        .quad   0x00af9b000000ffff      /* 18 code, 64-bit */
#ifdef __x86_64__
        .quad   0x00affb000000ffff      /* 20 user code */
#else
        .quad   0x00cffb000000ffff
#endif
        .quad   0x00cff3000000ffff      /* 28 user data */
        .globl  gdt_tss
gdt_tss: .quad  0, 0                    /* 30, filled by lib_start */
gdt_end:
gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt, 0
        .globl  ap_index
ap_index: .long 1

        .bss
        .align  4096
#ifdef __x86_64__
        .globl  pml4, pdpt, page_dirs
pml4:   .skip   4096
pdpt:   .skip   4096
page_dirs: .skip 4 * 4096
#endif
        .globl  ap_stacks
ap_stacks: .skip 65 * 4096
        .skip   16384
stack_top:
        .globl  mb_magic, mb_info_addr
mb_magic: .skip 4
mb_info_addr: .skip 4
        .section .note.GNU-stack, "", @progbits
