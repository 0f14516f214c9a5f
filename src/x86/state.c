/* SPDX-License-Identifier: Apache-2.0 */
/* Register values after RESET and INIT (SDM 3A table 9-1). */
#include <string.h>

#include "x86/state.h"

#include "x86/msr.h"

#define ATTR_CODE (X86_SEG_P | X86_SEG_S | X86_SEG_CODE | X86_SEG_RW | X86_SEG_ACCESSED)
#define ATTR_DATA (X86_SEG_P | X86_SEG_S | X86_SEG_RW | X86_SEG_ACCESSED)
#define ATTR_LDT (X86_SEG_P | 2)
#define ATTR_TSS_BUSY (X86_SEG_P | 11)

/* Offsets in the legacy region and the header of an XSAVE image (SDM 1 13.4). */
#define XSAVE_FCW 0
#define XSAVE_FTW 4
#define XSAVE_MXCSR 24
#define XSAVE_BV 512

/* What RESET and INIT have in common. */
static void common(struct x86_vcpu_state *s, u32 cpuid_1_eax)
{
    memset(s->gpr, 0, sizeof(s->gpr));
    s->gpr[X86_RDX] = cpuid_1_eax;
    s->rip = 0xfff0;
    s->rflags = RFLAGS_FIXED;
    for (unsigned i = 0; i < X86_NSEG; i++)
        s->seg[i] = (struct x86_seg){.limit = 0xffff, .attr = ATTR_DATA};
    s->seg[X86_CS] =
        (struct x86_seg){.base = 0xffff0000, .limit = 0xffff, .sel = 0xf000, .attr = ATTR_CODE};
    s->ldtr = (struct x86_seg){.limit = 0xffff, .attr = ATTR_LDT};
    s->tr = (struct x86_seg){.limit = 0xffff, .attr = ATTR_TSS_BUSY};
    s->gdtr = (struct x86_dtr){.limit = 0xffff};
    s->idtr = (struct x86_dtr){.limit = 0xffff};
    s->cr2 = s->cr3 = s->cr4 = 0;
    s->efer = 0;
    memset(s->pdpte, 0, sizeof(s->pdpte));
    memset(s->dr, 0, sizeof(s->dr));
    s->dr6 = DR6_INIT;
    s->dr7 = DR7_INIT;
    s->cpl = 0;
    s->activity = X86_RUNNING;
    s->int_shadow = 0;
    s->nmi_blocked = s->nmi_pending = s->db_pending = 0;
    s->ev_kind = X86_EV_NONE;
}

void x86_state_reset(struct x86_vcpu_state *s, u32 cpuid_1_eax, u64 host_tsc)
{
    memset(s, 0, sizeof(*s));
    common(s, cpuid_1_eax);
    s->cr0 = CR0_CD | CR0_NW | CR0_ET;
    s->xcr0 = 1;
    s->tsc_offset = 0 - host_tsc;
    x86_msr_reset(s);

    /* x87: FCW 0040H, every register +0.0 with a valid tag; MXCSR 1F80H. */
    s->xsave[XSAVE_FCW] = 0x40;
    s->xsave[XSAVE_FTW] = 0xff;
    s->xsave[XSAVE_MXCSR] = 0x80;
    s->xsave[XSAVE_MXCSR + 1] = 0x1f;
    s->xsave[XSAVE_BV] = 3; /* x87 and SSE are present in the image */
}

void x86_state_sipi(struct x86_vcpu_state *s, u8 vector)
{
    s->seg[X86_CS].sel = (u16)(vector << 8);
    s->seg[X86_CS].base = (u32)vector << 12;
    s->rip = 0;
    s->activity = X86_RUNNING;
}

void x86_state_init(struct x86_vcpu_state *s, u32 cpuid_1_eax)
{
    u64 keep = s->cr0 & (CR0_CD | CR0_NW);
    common(s, cpuid_1_eax);
    s->cr0 = keep | CR0_ET;
}
