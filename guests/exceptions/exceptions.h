/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of this guest share. */
#ifndef EXCEPTIONS_H
#define EXCEPTIONS_H

#include "x64.h"

extern u64 fault_at;   /* address of the instruction that is to fault, or of the one after */
extern u64 scratch[4]; /* for code and data of ring 3 */

/* Checks vector and error code. */
void expect(const struct trap *t, int line, unsigned vector, u64 error);
/* The error code that names an IDT gate. */
u64 idt_error(unsigned vector);

/* Notes the address of label 771, which the asm places. Clobbers RAX. */
#define NOTE "lea 771f(%%rip), %%rax; mov %%rax, %[at]; "
#define NOTED [at] "=m"(fault_at)

/* A snippet is a USER_TEXT function that faults; it runs in both rings. */
#define SNIPPET(id, text)                                                                          \
    USER_TEXT static void id(void)                                                                 \
    {                                                                                              \
        __asm__ volatile(NOTE text : NOTED::"rax", "rcx", "rdx", "memory", "cc");                  \
    }

#endif
