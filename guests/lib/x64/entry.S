/* SPDX-License-Identifier: Apache-2.0 */
/* Trap entries, and the two ways to leave the normal course: trap_save and regs_run. */
    .text
    .code64

    /* 256 entries of 16 bytes; vectors 8, 10-14, 17, 21, 29 and 30 push an error code themselves. */
    .balign 16
    .globl trap_entries
trap_entries:
    .set v, 0
    .rept 256
    .balign 16
    .if !(v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21 || v == 29 || v == 30)
    pushq $0
    .endif
    pushq $v
    jmp trap_common
    .set v, v + 1
    .endr

trap_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    movq %rsp, %rbx
    andq $-16, %rsp
    call trap_dispatch
    movq %rbx, %rsp
    jmp regs_pop

    /* void regs_run(const struct regs *): loads every register and IRETs. The copy keeps what lies below
     * *r alive when the IRET itself faults. */
    .globl regs_run
regs_run:
    .set i, 21
    .rept 22
    pushq i * 8(%rdi)
    .set i, i - 1
    .endr
regs_pop:
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

    /* int trap_save(struct jmp *): returns 0 now, and 1 again when a trap is caught. */
    .globl trap_save
trap_save:
    movq %rbx, 0(%rdi)
    movq %rbp, 8(%rdi)
    movq %r12, 16(%rdi)
    movq %r13, 24(%rdi)
    movq %r14, 32(%rdi)
    movq %r15, 40(%rdi)
    leaq 8(%rsp), %rax
    movq %rax, 48(%rdi)
    movq (%rsp), %rax
    movq %rax, 56(%rdi)
    pushfq
    popq 64(%rdi)
    xorl %eax, %eax
    ret

    /* Where a ring-3 function returns to. */
    .section .user.text, "ax"
    .globl user_return
user_return:
    int $0x81
    .section .note.GNU-stack, "", @progbits
