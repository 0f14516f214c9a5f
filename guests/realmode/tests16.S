/* SPDX-License-Identifier: Apache-2.0 */
/* The 16-bit halves of the real-mode tests. Each is a near function called with DS=ES=SS=0 that leaves
 * what it saw in out[]; main.c judges. */
    .section .real16, "ax"
    .code16

    .balign 4
    .globl out, in
out: .fill 32, 4, 0
in: .fill 8, 4, 0

    /* sets vector \v to handler \h */
    .macro IVT v, h
    movw $\h, 4 * \v
    movw $0, 4 * \v + 2
    .endm
    .macro FN name
    .globl \name
\name:
    .endm

/* --- addresses --- */
FN t_segments
    movw $0x1234, %ax
    movw %ax, %es
    movl %es:0x10, %eax
    movl %eax, out
    movw $0x2000, %ax
    movw %ax, %fs
    movb $0x5a, %fs:0x8000
    movw $0x2800, %ax
    movw %ax, %gs
    movb %gs:0, %al
    movb %al, out + 4
    movw %gs, %ax
    movw %ax, out + 8
    ret

FN t_wrap /* 16-bit effective addresses wrap at 64 KiB */
    movw $0x2000, %ax
    movw %ax, %es
    movb $0x11, %es:1
    movw $0xffff, %bx
    movw $2, %si
    movb %es:(%bx,%si), %al
    movb %al, out
    movw $0xfff0, %bp
    movb %es:0x11(%bp), %al
    movb %al, out + 1
    movl $0x12340001, %ebx /* upper halves do not count */
    movb %es:(%bx), %al
    movb %al, out + 2
    leaw 2(%bx,%si), %ax
    movw %ax, out + 4
    movw $0xffff, %bx
    movl $-1, %ecx
    leal (%bx,%si), %ecx /* 16-bit address, 32-bit result */
    movl %ecx, out + 8
    ret

FN t_string_wrap
    movw $0x3000, %ax
    movw %ax, %es
    movw $0xfff0, %di
    movl $0xabcd0020, %ecx
    movb $0x77, %al
    rep stosb
    movw %di, out
    movl %ecx, out + 4
    movb %es:0xf, %al
    movb %al, out + 8
    movb %es:0xffff, %al
    movb %al, out + 9
    ret

FN t_a20 /* FFFF:0010 is 0x100000 when A20 is open */
    movw $0xffff, %ax
    movw %ax, %es
    movl %es:0x10, %eax
    movl %eax, out
    movl 0, %eax
    movl %eax, out + 4
    ret

/* --- interrupts --- */
FN t_int_iret
    IVT 0x60, 1f
    movw %sp, out
    pushf
    popw out + 4
    stc
    sti
    int $0x60
2:  pushf
    popw out + 6
    cli
    movw %sp, out + 2
    movw $2b, out + 20
    ret
1:  pushf
    popw out + 8 /* flags inside: IF and TF clear */
    movw %sp, %bp
    movw (%bp), %ax
    movw %ax, out + 10 /* IP */
    movw 2(%bp), %ax
    movw %ax, out + 12 /* CS */
    movw 4(%bp), %ax
    movw %ax, out + 14 /* FLAGS */
    movw %sp, out + 16
    iret

FN t_bios_calls
    movl $0xffffffff, %eax
    int $0x12
    movl %eax, out
    clc
    movw $0xeeee, %ax /* no such function */
    int $0x15
    movw %ax, out + 4
    pushf
    popw out + 6
    movw 0x413, %ax
    movw %ax, out + 8
    ret

/* Faults: the saved IP is the instruction's own. out: vector, ip, expected ip, sp difference. */
    .macro CATCH v
    IVT \v, caught
    movw $\v, out
    movw $0, out + 2
    movw %sp, catch_sp
    .endm
caught:
    movw %sp, %bp
    movw (%bp), %ax
    movw %ax, %cs:out + 2
    movw %cs:catch_sp, %ax
    subw %sp, %ax
    movw %ax, %cs:out + 6
    xorw %ax, %ax
    movw %ax, %ss
    movw %cs:catch_sp, %sp
    movw %ax, %ds
    movw %ax, %es
    ret /* from the test function itself */
catch_sp: .word 0

FN t_div
    CATCH 0
    movw $1f, out + 4
    xorw %cx, %cx
1:  divw %cx
    ret
FN t_ud
    CATCH 6
    movw $1f, out + 4
1:  ud2
    ret
FN t_bound
    CATCH 5
    movw $1f, out + 4
    movl $0x00050002, in
    movw $6, %ax
1:  boundw %ax, in
    ret
FN t_into
    CATCH 4
    movw $1f, out + 4
    movb $0x7f, %al
    addb $1, %al
    into
1:  ret
FN t_int3
    CATCH 3
    movw $1f, out + 4
    int3
1:  ret
FN t_gp_word_at_ffff /* a word at offset FFFF is beyond the limit */
    CATCH 13
    movw $1f, out + 4
    movw $0xffff, %bx
1:  movw (%bx), %ax
    ret
FN t_gp_offset_10000
    CATCH 13
    movw $1f, out + 4
    movl $0x10000, %ebx
1:  movb (%ebx), %al
    ret
FN t_ss_word_at_ffff
    CATCH 12
    movw $1f, out + 4
    movw $0xffff, %bp
1:  movw (%bp), %ax
    ret
FN t_lldt_ud /* protected-mode instructions do not exist here */
    CATCH 6
    movw $1f, out + 4
1:  lldt %ax
    ret
FN t_gp_lock_is_ud
    CATCH 6
    movw $1f, out + 4
1:  .byte 0xf0, 0x90
    ret

FN t_trap_flag /* three instructions under TF */
    IVT 1, 1f
    movw $0, out
    pushf
    popw %ax
    orw $0x100, %ax
    pushw %ax
    popf
    nop
    nop
    pushw %ax
    popw %bx
    andw $0xfeff, %ax
    pushw %ax
    popf
    ret
1:  incw out
    iret

/* --- stack --- */
FN t_push_sp
    movw %sp, %bx
    pushw %sp
    popw %ax
    subw %bx, %ax
    movw %ax, out
    pushw $-2
    popl out + 4 - 2 /* SP moves by 4 */
    movw %sp, %ax
    subw %bx, %ax
    movw %ax, out + 8
    subw $2, %sp
    movw $0x1111, %ax
    movw $0x2222, %cx
    movw %sp, %dx
    pushaw
    movw %sp, %bp
    movw 6(%bp), %si /* SP's slot */
    subw %dx, %si
    movw %si, out + 12
    xorw %ax, %ax
    popaw
    movw %ax, out + 14
    pushl $0x12345678
    popw out + 16
    popw out + 18
    movw %bx, %sp
    ret

FN t_sp_wrap
    movw %sp, %bx
    movw %ss, %cx
    movw $0x3000, %ax
    movw %ax, %ss
    movl $0, %esp
    pushw $0x4321
    movw %sp, %dx
    movw %ss:0xfffe, %ax
    popw %si
    movw %sp, %di
    movw %cx, %ss
    movzwl %bx, %esp
    movw %dx, out
    movw %ax, out + 2
    movw %si, out + 4
    movw %di, out + 6
    ret

FN t_enter_leave
    movw %sp, %bx
    movw $0xbeef, %bp
    enter $0x20, $0
    movw %bx, %ax
    subw %bp, %ax
    movw %ax, out
    movw %bp, %ax
    subw %sp, %ax
    movw %ax, out + 2
    leave
    movw %bp, out + 4
    subw %sp, %bx
    movw %bx, out + 6
    ret

FN t_far_calls
    movw %sp, %bx
    pushw $0xaaaa
    pushw $0xbbbb
    lcall $0x10, $(1f - 0x100) /* another segment, the same place */
    movw %cs, out + 2
    subw %sp, %bx
    movw %bx, out + 4
    ret
1:  movw %cs, out
    lret $4

FN t_loads_of_far_pointers
    movl $0x12345678, in
    lesw in, %di
    movw %es, out
    movw %di, out + 2
    lfsw in, %si
    movw %fs, out + 4
    ret

/* --- instructions --- */
FN t_bcd
    movb $0x38, %al
    addb $0x45, %al
    daa
    movb %al, out
    movb $0x12, %al
    subb $0x25, %al
    das
    movb %al, out + 1
    movw $0x0039, %ax
    addb $0x05, %al
    aaa
    movw %ax, out + 2
    movw $63, %ax
    aam
    movw %ax, out + 4
    aad
    movw %ax, out + 6
    movw $0x0103, %ax
    subb $5, %al
    aas
    movw %ax, out + 8
    ret

FN t_loops
    movl $0x10003, %ecx
    xorw %ax, %ax
1:  incw %ax
    loop 1b /* CX: 3 times */
    movw %ax, out
    movl %ecx, out + 4
    movl $0x10000, %ecx
    jcxz 2f
    movw $1, out + 8
    ret
2:  movw $2, out + 8
    jecxz 3f
    movw $3, out + 10
3:  ret

FN t_operand_sizes
    movl $0x12345678, %eax
    movw $0x9abc, %ax
    movl %eax, out
    imull $3, %eax, %ebx
    movl %ebx, out + 4
    movl $0x80000000, %eax
    cltd
    movl %edx, out + 8
    movw $0x8000, %ax
    cwtd
    movw %dx, out + 12
    leal 4(%eax,%eax,4), %ecx
    movl $0x1000, %eax
    leal 4(%eax,%eax,4), %ecx
    movl %ecx, out + 16
    ret

FN t_flags
    pushf
    popw %ax
    orw $0xf000, %ax
    pushw %ax
    popf
    pushf
    popw out
    andw $0x0fff, %ax
    pushw %ax
    popf
    pushf
    popw out + 2
    smsww %ax
    movw %ax, out + 4
    movl %cr0, %eax
    movl %eax, out + 8
    ret

/* --- modes --- */
FN t_unreal
    cli
    lgdtl 8f
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    jmp 1f
1:  movw $0x10, %bx
    movw %bx, %ds
    movw %bx, %es
    andl $0xfffffffe, %eax
    movl %eax, %cr0
    ljmp $0, $2f
2:  xorw %ax, %ax
    movw %ax, %ds /* the limit stays */
    movw %ax, %es
    movl in, %ebx /* an address above 1 MiB */
    movl (%ebx), %eax
    movl %eax, out
    movl $0x600df00d, 4(%ebx)
    movl %ebx, %edi
    addl $8, %edi
    movl $2, %ecx
    movl $0x01020304, %eax
    addr32 rep stosl
    /* and back to 64 KiB for the tests after this one */
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    jmp 3f
3:  movw $0x20, %bx
    movw %bx, %ds
    movw %bx, %es
    andl $0xfffffffe, %eax
    movl %eax, %cr0
    ljmp $0, $4f
4:  xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    ret
    .balign 4
8:  .word 0x27
    .long gdt

FN t_lmsw /* sets PE, cannot clear it */
    cli
    lgdtl 8b
    smsww %ax
    orw $1, %ax
    lmsw %ax
    jmp 1f
1:  movw $0x20, %bx
    movw %bx, %ds
    andw $0xfffe, %ax
    lmsw %ax
    smsww %ax
    movw %ax, out
    movl %cr0, %eax
    andl $0xfffffffe, %eax
    movl %eax, %cr0
    ljmp $0, $2f
2:  xorw %ax, %ax
    movw %ax, %ds
    ret

FN t_far_jump_after_pe /* protected mode 16 -> 32 -> 16 -> real, by far jumps */
    cli
    lgdtl 8b
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmp $0x08, $1f
    .code32
1:  movl $0x10, %eax
    movl %eax, %ds
    movl $0x11223344, %eax
    movl %eax, out
    movl %esp, out + 4
    ljmp $0x18, $2f
    .code16
2:  movw $0x20, %ax
    movw %ax, %ds
    movl %cr0, %eax
    andl $0xfffffffe, %eax
    movl %eax, %cr0
    ljmp $0, $3f
3:  xorw %ax, %ax
    movw %ax, %ds
    movl $0x55667788, out + 8
    ret

/* straight to long mode, some 64-bit work, and back. in: CR3 */
FN t_long_mode
    cli
    lgdtl lm_gdt_desc
    movl %cr4, %eax
    movl %eax, %esi
    orl $0x20, %eax
    movl %eax, %cr4
    movl in, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    movl %eax, %edi
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax
    movl %eax, %cr0
    ljmpl $0x08, $1f
    .code64
1:  movabsq $0x123456789abcdef0, %rax
    movq %rax, out(%rip)
    movq $-1, %r15
    shrq $4, %r15
    movq %r15, out + 8(%rip)
    movl $0xc0000080, %ecx
    rdmsr
    movl %eax, out + 16(%rip)
    ljmp *2f(%rip)
2:  .long 3f
    .word 0x10
    .code16
3:  movw $0x18, %ax /* compatibility mode, 16-bit */
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl %cr0, %eax
    andl $0x7fffffff, %eax /* PG off: long mode is left */
    movl %eax, %cr0
    movl $0xc0000080, %ecx
    rdmsr
    movl %eax, out + 20
    movl %edi, %eax
    wrmsr
    movl %esi, %cr4
    movl %cr0, %eax
    andl $0xfffffffe, %eax
    movl %eax, %cr0
    ljmp $0, $4f
4:  xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x600d, out + 24
    ret
    .balign 8
lm_gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* 08 64-bit code */
    .quad 0x00009b000000ffff /* 10 16-bit code */
    .quad 0x000093000000ffff /* 18 16-bit data */
lm_gdt_desc:
    .word 31
    .long lm_gdt

/* --- a clock interrupt through the IVT --- */
FN t_pit_irq
    IVT 8, 1f
    movw $0, out
    movb $0x11, %al /* both PICs: ICW1; base 8 and 70h; cascade; 8086 mode */
    outb %al, $0x20
    outb %al, $0xa0
    movb $8, %al
    outb %al, $0x21
    movb $0x70, %al
    outb %al, $0xa1
    movb $4, %al
    outb %al, $0x21
    movb $2, %al
    outb %al, $0xa1
    movb $1, %al
    outb %al, $0x21
    outb %al, $0xa1
    movb $0xfe, %al /* IRQ 0 alone */
    outb %al, $0x21
    movb $0xff, %al
    outb %al, $0xa1
    movb $0x34, %al /* PIT channel 0, mode 2, about 1 kHz */
    outb %al, $0x43
    movb $0xa9, %al
    outb %al, $0x40
    movb $4, %al
    outb %al, $0x40
2:  sti
    hlt
    cli
    cmpw $5, out
    jb 2b
    movb $0xff, %al
    outb %al, $0x21
    ret
1:  incw %cs:out
    pushw %ax
    movb $0x20, %al
    outb %al, $0x20
    popw %ax
    iret

FN t_lidt /* the vector table moved away from 0 */
    lidtl 8f
    movw $1f, 0x7000 + 4 * 0x61
    movw $0, 0x7000 + 4 * 0x61 + 2
    int $0x61
    lidtl real_idt
    ret
1:  movw $0x1d7, out
    iret
8:  .word 0x3ff
    .long 0x7000
    .section .note.GNU-stack, "", @progbits
