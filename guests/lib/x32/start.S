/* SPDX-License-Identifier: Apache-2.0 */
/* Entry of a 32-bit guest: flat protected mode without paging; and the way to real mode and back. */
    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 0, -0x1badb002

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long _start

    .text
    .code32
    .globl _start
_start:
    cli
    cld
    movl %eax, boot_magic
    movl %ebx, boot_info
    testl %ebx, %ebx
    jz 1f
    cmpl $0x336ec578, (%ebx) /* struct hvm_start_info */
    jne 1f
    movl 32(%ebx), %eax
    movl %eax, boot_rsdp
1:  movl $_real16_load, %esi
    movl $_real16, %edi
    movl $_real16_end, %ecx
    subl %edi, %ecx
    rep movsb
    movl $boot_stack_top, %esp
    lgdt gdt_desc
    ljmp $0x08, $1f
1:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movl $0x33, %eax /* PE MP ET NE */
    movl %eax, %cr0
    movl $0x600, %eax /* OSFXSR OSXMMEXCPT */
    movl %eax, %cr4
    xorl %ebp, %ebp
    call start32
2:  cli
    hlt
    jmp 2b

    /* void real_call(u16 ip): runs the 16-bit function at 0:ip in real mode; it returns with RET. */
    .globl real_call
real_call:
    pushal
    pushfl
    cli
    movl 40(%esp), %edx
    sidt saved_idt
    movl %esp, saved_esp
    movl %cr0, %eax
    movl %eax, saved_cr0
    ljmp $0x18, $real_enter

real_back32:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movl saved_esp, %esp
    movl saved_cr0, %eax
    movl %eax, %cr0
    lidt saved_idt
    popfl
    popal
    ret

    .section .real16, "ax"
    .code16
real_enter: /* 16-bit protected mode */
    movw $0x20, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw %ax, %fs
    movw %ax, %gs
    movl %cr0, %eax
    andl $0x7ffffffe, %eax
    movl %eax, %cr0
    ljmp $0, $1f
1:  xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    movl $0x1f00, %esp
    lidtl real_idt
    cld
    call *%dx
    /* Also the way out when something went wrong: real_leave may be jumped to with any segments. */
    .globl real_leave
real_leave:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl real_gdt
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $real_back32

    .balign 4
    .globl real_idt
real_idt:
    .word 0x3ff
    .long 0
    .balign 4
real_gdt:
    .word gdt_end - gdt - 1
    .long gdt

    .data
    .balign 8
    .globl boot_magic, boot_info, boot_rsdp
boot_magic: .long 0
boot_info: .long 0
boot_rsdp: .long 0
saved_esp: .long 0
saved_cr0: .long 0
saved_idt: .long 0, 0
gdt_desc:
    .word gdt_end - gdt - 1
    .long gdt

    .balign 16
    .globl gdt
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff /* 08 code, 32-bit */
    .quad 0x00cf93000000ffff /* 10 data */
    .quad 0x00009b000000ffff /* 18 code, 16-bit, 64 KiB */
    .quad 0x000093000000ffff /* 20 data, 64 KiB */
    .quad 0x00cffb000000ffff /* 28 ring-3 code, 32-bit */
    .quad 0x00cff3000000ffff /* 30 ring-3 data */
    .quad 0                  /* 38 TSS */
    .fill 24, 8, 0           /* 40..ff: for the tests */
gdt_end:

    .bss
    .balign 4096
    .space 32768
boot_stack_top:
    .section .note.GNU-stack, "", @progbits
