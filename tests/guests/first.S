/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The shortest guest: its first instruction ends the VM. EAX holds the Multiboot magic 0x2BADB002,
 * so the value is 2 and the status 5; it also serves to time exec to first guest instruction.
 */
        .section .multiboot, "a"
        .align 4
        .long 0x1BADB002, 0, -0x1BADB002
        .text
        .globl _start
_start: outb    %al, $0xf4
0:      hlt
        jmp     0b
        .data                           /* an empty second segment would lie at address 0 */
        .long   0
        .section .note.GNU-stack, "", @progbits
