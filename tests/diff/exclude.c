/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is not tested against the host, and why. Everything else the decoder knows is.
 */
#include <Zydis/Zydis.h>

#include "difftest.h"

static const char *by_extension(const struct x86_insn *in)
{
    switch (in->isa_ext) {
    case ZYDIS_ISA_EXT_RDRAND:
    case ZYDIS_ISA_EXT_RDSEED:
    case ZYDIS_ISA_EXT_RDPID:
    case ZYDIS_ISA_EXT_RDTSCP:
    case ZYDIS_ISA_EXT_RDPRU:
        return "result differs from run to run";
    case ZYDIS_ISA_EXT_AMX_BF16:
    case ZYDIS_ISA_EXT_AMX_INT8:
    case ZYDIS_ISA_EXT_AMX_TILE:
    case ZYDIS_ISA_EXT_CET:
    case ZYDIS_ISA_EXT_MPX:
    case ZYDIS_ISA_EXT_RTM:
    case ZYDIS_ISA_EXT_TSX_LDTRK:
    case ZYDIS_ISA_EXT_WAITPKG:
    case ZYDIS_ISA_EXT_UINTR:
    case ZYDIS_ISA_EXT_KEYLOCKER:
    case ZYDIS_ISA_EXT_KEYLOCKER_WIDE:
    case ZYDIS_ISA_EXT_PKU:
    case ZYDIS_ISA_EXT_HRESET:
    case ZYDIS_ISA_EXT_SERIALIZE:
    case ZYDIS_ISA_EXT_ENQCMD:
    case ZYDIS_ISA_EXT_MOVDIR:
    case ZYDIS_ISA_EXT_MCOMMIT:
    case ZYDIS_ISA_EXT_CLZERO:
    case ZYDIS_ISA_EXT_PT:
    case ZYDIS_ISA_EXT_MONITOR:
    case ZYDIS_ISA_EXT_MONITORX:
    case ZYDIS_ISA_EXT_CLDEMOTE:
    case ZYDIS_ISA_EXT_SGX:
    case ZYDIS_ISA_EXT_SGX_ENCLV:
    case ZYDIS_ISA_EXT_PADLOCK:
    case ZYDIS_ISA_EXT_PCONFIG:
        return "not shown to guests";
    case ZYDIS_ISA_EXT_VTX:
    case ZYDIS_ISA_EXT_SVM:
    case ZYDIS_ISA_EXT_SMX:
    case ZYDIS_ISA_EXT_TDX:
    case ZYDIS_ISA_EXT_VMFUNC:
    case ZYDIS_ISA_EXT_SNP:
    case ZYDIS_ISA_EXT_AMD_INVLPGB:
        return "virtualization: the host under us may take it";
    case ZYDIS_ISA_EXT_KNC:
    case ZYDIS_ISA_EXT_KNCE:
    case ZYDIS_ISA_EXT_KNCV:
        return "no such CPU";
    case ZYDIS_ISA_EXT_XSAVE:
    case ZYDIS_ISA_EXT_XSAVEC:
    case ZYDIS_ISA_EXT_XSAVEOPT:
    case ZYDIS_ISA_EXT_XSAVES:
        return "image holds FIP, FDP, XINUSE and host-chosen bytes; XGETBV is trapped on some "
               "hosts";
    default:
        return NULL;
    }
}

const char *exclude_reason(const struct x86_insn *in)
{
    const char *why = by_extension(in);
    if (why)
        return why;
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_CPUID:
        return "result differs from run to run";
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW:
        return "UMIP: Linux emulates it";
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        return "looks at the host's descriptor tables";
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
        return "enters the host's kernel or hypervisor";
    case ZYDIS_MNEMONIC_INT1:
        return "Linux reports #DB as a debugger event";
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
        return "stores FIP and FDP, which the translator does not keep";
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
        return "Intel and AMD disagree on whether ModRM is fetched";
    default:
        break;
    }
    for (unsigned i = 0; i < in->nops; i++) {
        if (in->op[i].kind == X86_OP_SEG)
            return "looks at the host's descriptor tables";
        if (in->op[i].kind == X86_OP_PTR)
            return "far branch";
    }
    if ((in->mnemonic == ZYDIS_MNEMONIC_JMP || in->mnemonic == ZYDIS_MNEMONIC_CALL) &&
        in->opcode == 0xff && ((in->modrm >> 3 & 7) == 3 || (in->modrm >> 3 & 7) == 5))
        return "far branch";
    if (in->mnemonic == ZYDIS_MNEMONIC_RET && (in->opcode == 0xca || in->opcode == 0xcb))
        return "far branch";
    return NULL;
}
