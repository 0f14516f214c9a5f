/* SPDX-License-Identifier: Apache-2.0 */
/* Snippets for virtual-8086 mode; each runs at 0:label with DS=ES=0 and ends by a trap. */
    .section .real16, "ax"
    .code16
    .macro FN name
    .globl \name
\name:
    .endm
    .balign 4
    .globl vout
vout: .fill 16, 4, 0

FN v_plain
    movw $0x1234, %ax
    movw %ax, %es
    movl %es:0x20, %ebx
    movw $0xffff, %bx
    movw $3, %si
    leaw (%bx,%si), %cx
    movw %cs, %dx
    int3
FN v_int
    int $0x55
    nop
FN v_cli
    cli
    nop
    int3
FN v_sti
    sti
    nop
    int3
FN v_pushf
    pushf
    popw %ax
    int3
FN v_popf
    pushw $0x0246
    popf
    pushf
    popw %ax
    int3
FN v_popf_noif
    pushw $0x0002
    popf
    pushf
    popw %ax
    int3
FN v_iret
    pushw $0x0203
    pushw $0
    pushw $1f
    iret
1:  pushf
    popw %ax
    int3
FN v_hlt
    hlt
FN v_mov_cr
    movl %cr0, %eax
FN v_lgdt
    lgdtl vout
FN v_sldt
    sldt %ax
FN v_in
    inb $0x80, %al
    int3
FN v_div
    xorw %cx, %cx
    divw %cx
FN v_far
    lcall $0x10, $(1f - 0x100)
    int3
1:  movw %cs, %bx
    lret
FN v_top
    movw $0xffff, %ax
    movw %ax, %es
    movl %es:0x10, %ebx
    int3
FN v_limit
    movw $0xffff, %bx
    movw (%bx), %ax
    int3
FN v_softint
    int $0x60
    pushf
    popw %cx
    int3
FN v_handler60
    pushf
    popw %bx
    movw $0x6060, %ax
    iret
FN v_loop
    movl $100000, %ecx
    xorl %eax, %eax
1:  addl $3, %eax
    addr32 loop 1b
    int3
FN v_icebp
    .byte 0xf1
    nop
FN v_pm_load
    movw $0xb000, %ax
    movw %ax, %ds
    movw %ax, %fs
    movw %fs, %bx
    xorw %ax, %ax
    movw %ax, %ds
    int3
    .section .note.GNU-stack, "", @progbits
