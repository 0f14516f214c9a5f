/* SPDX-License-Identifier: Apache-2.0 */
/* The table of system instructions, and those too small for a file of their own. */
#include "engine/interp/system_priv.h"

static enum interp_result hlt(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    need_cpl0(in);
    in->s->activity = X86_HALTED;
    return INTERP_HLT;
}

/* VMCALL, VMMCALL */
static enum interp_result hypercall(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    if (!in->ops->hypercall(in->opaque))
        interp_raise(in, X86_UD);
    return INTERP_OK;
}

/* Instructions of features that CPUID does not show, and UD itself. */
static enum interp_result hidden(struct interp *in, const struct x86_insn *insn)
{
    (void)insn;
    interp_raise(in, X86_UD);
}

static interp_handler *const table[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    [ZYDIS_MNEMONIC_MOV] = isys_mov,
    [ZYDIS_MNEMONIC_PUSH] = isys_push_seg,
    [ZYDIS_MNEMONIC_POP] = isys_pop_seg,
    [ZYDIS_MNEMONIC_LDS] = isys_lxs,
    [ZYDIS_MNEMONIC_LES] = isys_lxs,
    [ZYDIS_MNEMONIC_LFS] = isys_lxs,
    [ZYDIS_MNEMONIC_LGS] = isys_lxs,
    [ZYDIS_MNEMONIC_LSS] = isys_lxs,
    [ZYDIS_MNEMONIC_JMP] = ifar_branch,
    [ZYDIS_MNEMONIC_CALL] = ifar_branch,
    [ZYDIS_MNEMONIC_RET] = ifar_branch,
    [ZYDIS_MNEMONIC_IRET] = ifar_iret,
    [ZYDIS_MNEMONIC_IRETD] = ifar_iret,
    [ZYDIS_MNEMONIC_IRETQ] = ifar_iret,
    [ZYDIS_MNEMONIC_SYSCALL] = isys_syscall,
    [ZYDIS_MNEMONIC_SYSRET] = isys_sysret,
    [ZYDIS_MNEMONIC_SYSENTER] = isys_sysenter,
    [ZYDIS_MNEMONIC_SYSEXIT] = isys_sysexit,
    [ZYDIS_MNEMONIC_SWAPGS] = isys_swapgs,
    [ZYDIS_MNEMONIC_RDMSR] = isys_rdmsr,
    [ZYDIS_MNEMONIC_WRMSR] = isys_wrmsr,
    [ZYDIS_MNEMONIC_RDTSC] = isys_rdtsc,
    [ZYDIS_MNEMONIC_RDTSCP] = isys_rdtscp,
    [ZYDIS_MNEMONIC_RDPID] = isys_rdpid,
    [ZYDIS_MNEMONIC_RDPMC] = isys_rdpmc,
    [ZYDIS_MNEMONIC_CPUID] = isys_cpuid,
    [ZYDIS_MNEMONIC_XGETBV] = isys_xgetbv,
    [ZYDIS_MNEMONIC_XSETBV] = isys_xsetbv,
    [ZYDIS_MNEMONIC_RDFSBASE] = isys_fsgsbase,
    [ZYDIS_MNEMONIC_RDGSBASE] = isys_fsgsbase,
    [ZYDIS_MNEMONIC_WRFSBASE] = isys_fsgsbase,
    [ZYDIS_MNEMONIC_WRGSBASE] = isys_fsgsbase,
    [ZYDIS_MNEMONIC_CLTS] = isys_clts,
    [ZYDIS_MNEMONIC_LMSW] = isys_lmsw,
    [ZYDIS_MNEMONIC_SMSW] = isys_smsw,
    [ZYDIS_MNEMONIC_INVLPG] = isys_invlpg,
    [ZYDIS_MNEMONIC_INVPCID] = isys_invpcid,
    [ZYDIS_MNEMONIC_INVD] = isys_wbinvd,
    [ZYDIS_MNEMONIC_WBINVD] = isys_wbinvd,
    [ZYDIS_MNEMONIC_LGDT] = isys_load_dt,
    [ZYDIS_MNEMONIC_LIDT] = isys_load_dt,
    [ZYDIS_MNEMONIC_SGDT] = isys_store_dt,
    [ZYDIS_MNEMONIC_SIDT] = isys_store_dt,
    [ZYDIS_MNEMONIC_LLDT] = isys_lldt,
    [ZYDIS_MNEMONIC_LTR] = isys_ltr,
    [ZYDIS_MNEMONIC_SLDT] = isys_sldt,
    [ZYDIS_MNEMONIC_STR] = isys_str,
    [ZYDIS_MNEMONIC_LAR] = isys_lar,
    [ZYDIS_MNEMONIC_LSL] = isys_lsl,
    [ZYDIS_MNEMONIC_VERR] = isys_verr,
    [ZYDIS_MNEMONIC_VERW] = isys_verr,
    [ZYDIS_MNEMONIC_ARPL] = isys_arpl,
    [ZYDIS_MNEMONIC_IN] = isys_in,
    [ZYDIS_MNEMONIC_OUT] = isys_out,
    [ZYDIS_MNEMONIC_INSB] = isys_ins,
    [ZYDIS_MNEMONIC_INSW] = isys_ins,
    [ZYDIS_MNEMONIC_INSD] = isys_ins,
    [ZYDIS_MNEMONIC_OUTSB] = isys_outs,
    [ZYDIS_MNEMONIC_OUTSW] = isys_outs,
    [ZYDIS_MNEMONIC_OUTSD] = isys_outs,
    [ZYDIS_MNEMONIC_CLI] = isys_cli,
    [ZYDIS_MNEMONIC_STI] = isys_sti,
    [ZYDIS_MNEMONIC_PUSHF] = isys_pushf,
    [ZYDIS_MNEMONIC_PUSHFD] = isys_pushf,
    [ZYDIS_MNEMONIC_PUSHFQ] = isys_pushf,
    [ZYDIS_MNEMONIC_POPF] = isys_popf,
    [ZYDIS_MNEMONIC_POPFD] = isys_popf,
    [ZYDIS_MNEMONIC_POPFQ] = isys_popf,
    [ZYDIS_MNEMONIC_CLAC] = isys_clac,
    [ZYDIS_MNEMONIC_STAC] = isys_clac,
    [ZYDIS_MNEMONIC_INT] = isys_int,
    [ZYDIS_MNEMONIC_INT3] = isys_int3,
    [ZYDIS_MNEMONIC_INTO] = isys_into,
    [ZYDIS_MNEMONIC_INT1] = isys_int1,
    [ZYDIS_MNEMONIC_HLT] = hlt,
    [ZYDIS_MNEMONIC_VMCALL] = hypercall,
    [ZYDIS_MNEMONIC_VMMCALL] = hypercall,
    [ZYDIS_MNEMONIC_MONITOR] = hidden,
    [ZYDIS_MNEMONIC_MWAIT] = hidden,
    [ZYDIS_MNEMONIC_MONITORX] = hidden,
    [ZYDIS_MNEMONIC_MWAITX] = hidden,
    [ZYDIS_MNEMONIC_RSM] = hidden,
    [ZYDIS_MNEMONIC_UD0] = hidden,
    [ZYDIS_MNEMONIC_UD1] = hidden,
    [ZYDIS_MNEMONIC_UD2] = hidden,
};

interp_handler *interp_system_handler(u16 mnemonic)
{
    return mnemonic < ARRAY_SIZE(table) ? table[mnemonic] : NULL;
}
