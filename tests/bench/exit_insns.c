/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How many instructions a thread executes in user space between two of its system calls: for a vCPU
 * thread in a guest's loop of OUTs, what Lodge adds to each exit beyond a bare KVM_RUN loop.
 *
 * Steps the thread singly by ptrace. Usage: exit_insns TID [ROUNDS]; needs the right to trace it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#define SYSCALL_BYTES 0x050fu /* the instruction, as two bytes in memory */

static void need(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "exit_insns: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void resume(pid_t tid, int how)
{
    int status;
    need(ptrace(how, tid, 0, 0) == 0, "ptrace");
    need(waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status), "wait");
}

static int at_syscall(pid_t tid)
{
    struct user_regs_struct r;
    need(ptrace(PTRACE_GETREGS, tid, 0, &r) == 0, "registers");
    return ((unsigned long)ptrace(PTRACE_PEEKTEXT, tid, (void *)r.rip, 0) & 0xffff) ==
           SYSCALL_BYTES;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: exit_insns TID [ROUNDS]\n");
        return 2;
    }
    pid_t tid = atoi(argv[1]);
    int rounds = argc > 2 ? atoi(argv[2]) : 9, status;
    need(ptrace(PTRACE_ATTACH, tid, 0, 0) == 0, "attach");
    need(waitpid(tid, &status, __WALL) == tid, "wait");
    for (int i = 0; i < rounds; i++) {
        resume(tid, PTRACE_SYSCALL); /* at an entry or an exit: step until one is due again */
        while (at_syscall(tid))
            resume(tid, PTRACE_SINGLESTEP);
        int n = 0;
        for (; n < 1000000 && !at_syscall(tid); n++)
            resume(tid, PTRACE_SINGLESTEP);
        printf("%d\n", n + 1);
    }
    ptrace(PTRACE_DETACH, tid, 0, 0);
    return 0;
}
