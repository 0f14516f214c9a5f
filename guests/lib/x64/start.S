/* SPDX-License-Identifier: Apache-2.0 */
/* Entry of a 64-bit guest, and of its other processors.
 *
 * The image carries a Multiboot 1 header and a PVH note; both enter _start in 32-bit protected mode
 * with paging off, and both hand EBX to an information block. The boot page tables map the first
 * 4 GiB one to one in 2 MiB pages, the last of them (devices) uncached.
 */
#define CR0_INIT 0x80010033 /* PG WP NE ET MP PE */
#define CR4_INIT 0x620      /* OSXMMEXCPT OSFXSR PAE */
#define EFER_INIT 0x901     /* NXE LME SCE */

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
1:  /* the part of the image that is linked below 64 KiB */
    movl $_real16_load, %esi
    movl $_real16, %edi
    movl $_real16_end, %ecx
    subl %edi, %ecx
    rep movsb
    movl $boot_stack_top, %esp
    xorl %edi, %edi /* CPU index 0 */

    /* EDI: index of this CPU, ESP: its stack */
    .globl enter_long
enter_long:
    lgdt gdt_desc
    movl $CR4_INIT, %eax
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $EFER_INIT, %eax
    wrmsr
    movl $CR0_INIT, %eax
    movl %eax, %cr0
    ljmp $0x08, $1f
    .code64
1:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    lldt %ax
    movl %esp, %esp
    movl %edi, %edi
    xorl %ebp, %ebp
    call cpu_start
2:  cli
    hlt
    jmp 2b

    /* Other processors begin here, in real mode at the page that SIPI names. They take a ticket, which
     * is their index, and enter_long. */
    .section .real16, "ax"
    .code16
    .balign 4096
    .globl ap_start16
ap_start16:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl ap_gdt_desc
    movl %cr0, %eax
    andl $0x9fffffff, %eax /* caches on: CD and NW are set after INIT */
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $ap_start32
    .balign 8
ap_gdt_desc:
    .word gdt_end - gdt - 1
    .long gdt

    .text
    .code32
ap_start32:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $1, %edi
    lock xaddl %edi, cpu_tickets
    cmpl $16, %edi /* MAX_CPUS */
    jae 1f
    movl %edi, %eax
    shll $14, %eax /* AP_STACK_SIZE */
    leal ap_stacks + 16384(%eax), %esp
    jmp enter_long
1:  cli
    hlt
    jmp 1b

    .data
    .balign 8
    .globl boot_magic, boot_info, boot_rsdp, cpu_tickets
boot_magic: .long 0
boot_info: .long 0
boot_rsdp: .long 0
cpu_tickets: .long 1
gdt_desc:
    .word gdt_end - gdt - 1
    .long gdt, 0

    .balign 16
    .globl gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* 08 code, 64-bit */
    .quad 0x00cf93000000ffff /* 10 data */
    .quad 0x00cf9b000000ffff /* 18 code, 32-bit */
    .quad 0x00cffb000000ffff /* 20 ring-3 code, 32-bit: SYSRET's base */
    .quad 0x00cff3000000ffff /* 28 ring-3 data */
    .quad 0x00affb000000ffff /* 30 ring-3 code, 64-bit */
    .quad 0
    .fill 24, 8, 0           /* 40..ff: for the tests */
    .fill 32, 8, 0           /* 100: TSS descriptors, 16 bytes a CPU */
gdt_end:

    .balign 4096
    .globl boot_pml4
boot_pml4:
    .quad boot_pdpt + 7
    .fill 511, 8, 0
boot_pdpt:
    .quad boot_pd + 7, boot_pd + 0x1007, boot_pd + 0x2007, boot_pd + 0x3007
    .fill 508, 8, 0
boot_pd:
    .set i, 0
    .rept 1536
    .quad (i << 21) | 0x83
    .set i, i + 1
    .endr
    .rept 512
    .quad (i << 21) | 0x9b
    .set i, i + 1
    .endr

    .bss
    .balign 4096
    .space 65536
boot_stack_top:
    .globl ap_stacks
ap_stacks:
    .space 16 * 16384
    .section .note.GNU-stack, "", @progbits
