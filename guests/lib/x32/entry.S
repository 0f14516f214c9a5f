/* SPDX-License-Identifier: Apache-2.0 */
/* Trap entries of a 32-bit guest. */
    .text
    .code32
    .balign 16
    .globl trap_entries
trap_entries:
    .set v, 0
    .rept 256
    .balign 16
    .if !(v == 8 || (v >= 10 && v <= 14) || v == 17)
    pushl $0
    .endif
    pushl $v
    jmp trap_common
    .set v, v + 1
    .endr

trap_common:
    pushl %ds
    pushl %es
    pushl %fs
    pushl %gs
    pushal
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    cld
    movl %esp, %ebx
    andl $-16, %esp
    subl $12, %esp
    pushl %ebx
    call trap_dispatch
    movl %ebx, %esp
    jmp regs_pop

    /* void regs_run(const struct regs *): loads every register and IRETs, to an outer ring or to
     * virtual-8086 mode (all the words of the frame are there for both). */
    .globl regs_run
regs_run:
    movl 4(%esp), %esi
    subl $92, %esp
    movl %esp, %edi
    movl $23, %ecx
    rep movsl
regs_pop:
    popal
    popl %gs
    popl %fs
    popl %es
    popl %ds
    addl $8, %esp
    iretl

    /* int trap_save(struct jmp *): returns 0 now, and 1 again through trap_resume. */
    .globl trap_save
trap_save:
    movl 4(%esp), %eax
    movl %ebx, 0(%eax)
    movl %esi, 4(%eax)
    movl %edi, 8(%eax)
    movl %ebp, 12(%eax)
    leal 4(%esp), %ecx
    movl %ecx, 16(%eax)
    movl (%esp), %ecx
    movl %ecx, 20(%eax)
    pushfl
    popl 24(%eax)
    xorl %eax, %eax
    ret

    .globl trap_resume
trap_resume:
    movl 4(%esp), %eax
    movl $0x10, %ecx
    movl %ecx, %ds
    movl %ecx, %es
    movl 0(%eax), %ebx
    movl 4(%eax), %esi
    movl 8(%eax), %edi
    movl 12(%eax), %ebp
    movl %ecx, %ss
    movl 16(%eax), %esp
    pushl 24(%eax)
    popfl
    pushl 20(%eax)
    movl $1, %eax
    ret

    .section .user.text, "ax"
    .globl user_return
user_return:
    int $0x81
    .section .note.GNU-stack, "", @progbits
