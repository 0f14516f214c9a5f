/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine the subjects run cases in: 64-bit paging with the user pages where the oracle has
 * them, Linux's user selectors, and an IDT whose 256 entries lead to a HLT each. The place of the
 * HLT tells the vector, the pushed frame tells the rest.
 */
#include <stdio.h>
#include <string.h>

#include "difftest.h"

#define PML4 0x1000u
#define PDPT_LOW 0x2000u
#define PD_LOW 0x3000u
#define PT_CODE 0x4000u
#define PT_DATA 0x5000u
#define PT_STACK 0x6000u
#define PDPT_HIGH 0x7000u
#define PD_HIGH 0x8000u
#define PT_HIGH 0x9000u
#define GDT 0x10000u
#define IDT 0x11000u
#define TSS 0x12000u
#define KSTACK_TOP 0x18000u

#define PTE_P 1u
#define PTE_W 2u
#define PTE_U 4u
#define PTE_AD 0x60u
#define PTE_NX BIT64(63)

static void put64(u8 *ram, u32 at, u64 v)
{
    memcpy(ram + at, &v, 8);
}

static void map_page(u8 *ram, u32 pt, u32 va, u32 gpa, u64 bits)
{
    put64(ram, pt + 8 * (va >> 12 & 511), gpa | bits | PTE_P | PTE_U | PTE_AD);
}

void guest_build(u8 *ram)
{
    const u64 dir = PTE_P | PTE_W | PTE_U | 0x20;

    memset(ram, 0, GUEST_RAM);
    put64(ram, PML4, PDPT_LOW | dir);
    put64(ram, PDPT_LOW, PD_LOW | dir);
    put64(ram, PD_LOW + 8 * (CODE_VA >> 21), PT_CODE | dir);
    put64(ram, PD_LOW + 8 * (DATA_VA >> 21), PT_DATA | dir);
    put64(ram, PD_LOW + 8 * (STACK_VA >> 21), PT_STACK | dir);
    for (u32 i = 0; i < 2; i++)
        map_page(ram, PT_CODE, CODE_VA + i * 0x1000, GUEST_CODE_GPA + i * 0x1000, PTE_W);
    for (u32 i = 0; i < 3; i++)
        map_page(ram, PT_DATA, DATA_VA + i * 0x1000, GUEST_MEM_GPA + MEM_DATA + i * 0x1000,
                 PTE_NX | (i < 2 ? PTE_W : 0));
    map_page(ram, PT_DATA, DATA2_VA, GUEST_MEM_GPA + MEM_DATA2, PTE_NX | PTE_W);
    map_page(ram, PT_STACK, STACK_VA, GUEST_MEM_GPA + MEM_STACK, PTE_NX | PTE_W);

    put64(ram, PML4 + 8 * 511, PDPT_HIGH | dir);
    put64(ram, PDPT_HIGH + 8 * 510, PD_HIGH | dir);
    put64(ram, PD_HIGH, PT_HIGH | dir);
    for (u32 i = 0; i < 512; i++) /* supervisor, identity from GUEST_KERNEL_VA */
        put64(ram, PT_HIGH + 8 * i, (u64)i << 12 | PTE_P | PTE_W | PTE_AD);

    static const u64 gdt[] = {
        0,
        0x00cf9b000000ffff, /* 08 kernel code 32 */
        0x00af9b000000ffff, /* 10 kernel code 64 */
        0x00cf93000000ffff, /* 18 kernel data */
        0x00cffb000000ffff, /* 23 user code 32 */
        0x00cff3000000ffff, /* 2b user data */
        0x00affb000000ffff, /* 33 user code 64 */
        0,
    };
    memcpy(ram + GDT, gdt, sizeof(gdt));
    u64 tss = GUEST_KERNEL_VA + TSS;
    put64(ram, GDT + 0x40,
          0x67 | (tss & 0xffffff) << 16 | (u64)0x8b << 40 | (tss >> 24 & 0xff) << 56);
    put64(ram, GDT + 0x48, tss >> 32);
    u64 rsp0 = GUEST_KERNEL_VA + KSTACK_TOP;
    memcpy(ram + TSS + 4, &rsp0, 8);
    ram[TSS + 0x66] = 0x68; /* no I/O permission bitmap */

    for (u32 v = 0; v < 256; v++) {
        u64 h = GUEST_KERNEL_VA + GUEST_HANDLER + v * 16;
        u64 type = v == X86_BP || v == X86_OF ? 0xee : 0x8e; /* DPL 3, as Linux has it */
        put64(ram, IDT + 16 * v,
              (h & 0xffff) | 0x10u << 16 | type << 40 | (h >> 16 & 0xffff) << 48);
        put64(ram, IDT + 16 * v + 8, h >> 32);
        ram[GUEST_HANDLER + 16 * v] = 0xf4;
    }
    memset(ram + GUEST_CODE_GPA, CODE_FILL, CODE_SIZE);
}

static void seg(struct x86_seg *s, u16 sel, u16 attr)
{
    s->sel = sel;
    s->base = 0;
    s->limit = sel & ~3 ? 0xffffffff : 0;
    s->attr = sel & ~3 ? attr : 0; /* a null selector: unusable */
}

#define ATTR_DATA3 (X86_SEG_G | X86_SEG_DB | X86_SEG_P | X86_SEG_DPL | X86_SEG_S | 3u)
#define ATTR_CODE3 (X86_SEG_G | X86_SEG_P | X86_SEG_DPL | X86_SEG_S | 0xbu)

void guest_state(struct x86_vcpu_state *s, const struct diff_case *c)
{
    memset(s, 0, sizeof(*s));
    memcpy(s->gpr, c->init.gpr, sizeof(s->gpr));
    s->rip = c->init.rip;
    s->rflags = c->init.rflags;
    seg(&s->seg[X86_CS], c->init.sel[X86_CS],
        ATTR_CODE3 | (c->mode == 64 ? X86_SEG_L : X86_SEG_DB));
    for (unsigned i = 0; i < X86_NSEG; i++)
        if (i != X86_CS)
            seg(&s->seg[i], c->init.sel[i], ATTR_DATA3);
    s->seg[X86_FS].base = c->init.fs_base;
    s->seg[X86_GS].base = c->init.gs_base;
    s->tr.sel = 0x40;
    s->tr.base = GUEST_KERNEL_VA + TSS;
    s->tr.limit = 0x67;
    s->tr.attr = X86_SEG_P | 0xb;
    s->gdtr.base = GUEST_KERNEL_VA + GDT;
    s->gdtr.limit = 0x7f; /* as long as Linux's */
    s->idtr.base = GUEST_KERNEL_VA + IDT;
    s->idtr.limit = 0xfff;
    s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    s->cr3 = PML4;
    s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE | CR4_OSXSAVE | CR4_PGE;
    s->xcr0 = xl.xcr0;
    s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    s->dr6 = DR6_INIT;
    s->dr7 = DR7_INIT;
    s->pat = 0x0007040600070406;
    s->cpl = 3;
    memcpy(s->xsave, c->init.xsave, sizeof(s->xsave));
}

void guest_load(u8 *ram, const struct diff_case *c)
{
    memset(ram + GUEST_CODE_GPA, CODE_FILL, CODE_SIZE);
    memcpy(ram + GUEST_CODE_GPA + c->code_off, c->code, c->code_len);
    memcpy(ram + GUEST_MEM_GPA, mem_image[c->image], MEM_SIZE);
    for (unsigned i = 0; i < c->npokes; i++)
        memcpy(ram + GUEST_MEM_GPA + c->poke[i].off, &c->poke[i].val, 8);
}

bool guest_result(const u8 *ram, const struct x86_vcpu_state *s, struct diff_result *r)
{
    u64 at = s->rip - 1 - (GUEST_KERNEL_VA + GUEST_HANDLER), frame = s->gpr[X86_RSP];
    u64 f[6];

    if (at >= 256 * 16 || at % 16 || frame - GUEST_KERNEL_VA >= KSTACK_TOP) {
        snprintf(r->text, sizeof(r->text), "vCPU is not in an exception handler: rip %#llx",
                 (unsigned long long)s->rip);
        r->outcome = OUT_FAIL;
        return false;
    }
    memcpy(f, ram + (frame - GUEST_KERNEL_VA), sizeof(f));
    r->outcome = OUT_FAULT;
    r->text[0] = 0;
    r->vector = (u32)(at / 16);
    r->error = 0;
    r->cr2 = s->cr2;
    const u64 *p = f;
    if (KSTACK_TOP - (frame - GUEST_KERNEL_VA) == 48)
        r->error = (u32)*p++;
    memcpy(r->regs.gpr, s->gpr, sizeof(s->gpr));
    r->regs.rip = p[0];
    r->regs.rflags = p[2];
    r->regs.gpr[X86_RSP] = p[3];
    for (unsigned i = 0; i < X86_NSEG; i++)
        r->regs.sel[i] = s->seg[i].sel;
    r->regs.sel[X86_CS] = (u16)p[1];
    r->regs.sel[X86_SS] = (u16)p[4];
    r->regs.fs_base = s->seg[X86_FS].base;
    r->regs.gs_base = s->seg[X86_GS].base;
    memcpy(r->regs.xsave, s->xsave, sizeof(r->regs.xsave));
    memcpy(r->mem, ram + GUEST_MEM_GPA, MEM_SIZE);
    return true;
}
