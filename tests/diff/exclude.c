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

/*
 * Family 1Ah CPUs give an EVEX instruction whose source is a general register an old RSP when a
 * PUSH, POP, CALL or RET comes right before it.
 */
static bool evex_rsp(const struct x86_insn *in)
{
    if (in->encoding != X86_ENC_EVEX)
        return false;
    for (unsigned i = 0; i < in->nops; i++)
        if (in->op[i].kind == X86_OP_GPR && in->op[i].reg == X86_RSP)
            return true;
    return false;
}

const char *exclude_reason(const struct x86_insn *in)
{
    const char *why = by_extension(in);
    if (why)
        return why;
    if (policy.paravirtual &&
        (in->mnemonic == ZYDIS_MNEMONIC_LAR || in->mnemonic == ZYDIS_MNEMONIC_LSL ||
         in->mnemonic == ZYDIS_MNEMONIC_VERR || in->mnemonic == ZYDIS_MNEMONIC_VERW))
        return "the host's descriptors are not the CPU's";
    if (policy.paravirtual && in->mem.present && (in->mem.seg == X86_FS || in->mem.seg == X86_GS))
        return "the host now and then loses the base";
    if (evex_rsp(in))
        return "the host CPU may read a stale RSP";
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
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
        return "enters the host's kernel or hypervisor";
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
        return "stores FIP and FDP, which the translator does not keep";
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
        for (unsigned i = 0; i < in->length && in->bytes[i] != in->opcode; i++)
            if (in->bytes[i] == 0xf2 || in->bytes[i] == 0xf3)
                return "AMD's CPUs take a repeat prefix for the condition";
        return NULL;
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
        if (in->mode == 32 && in->encoding == X86_ENC_VEX && in->bytes[in->vex_off + 2] & 0x80)
            return "with W set, AMD's CPUs refuse it in 32-bit code and Intel's do not";
        return NULL;
    case ZYDIS_MNEMONIC_INT1:
        return "hypervisors that intercept it report another RIP";
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
        return "Intel and AMD disagree on whether ModRM is fetched";
    default:
        break;
    }
    return NULL;
}

const char *exclude_bytes(const u8 *bytes, unsigned mode)
{
    unsigned i = 0;

    while (i < X86_INSN_MAX &&
           (bytes[i] == 0x66 || bytes[i] == 0x67 || bytes[i] == 0xf0 || bytes[i] == 0xf2 ||
            bytes[i] == 0xf3 || (bytes[i] & 0xe7) == 0x26 || (bytes[i] & 0xfe) == 0x64 ||
            (mode == 64 && (bytes[i] & 0xf0) == 0x40)))
        i++;
    if (i + 1 < X86_INSN_MAX && (bytes[i] == 0xc4 || bytes[i] == 0xc5 || bytes[i] == 0x62) &&
        (mode == 64 || bytes[i + 1] >= 0xc0))
        return "CPUs do not look at all the bits of VEX and EVEX that must be so";
    if (i + 1 < X86_INSN_MAX && bytes[i] == 0x0f) {
        switch (bytes[i + 1]) {
        case 0x20:
        case 0x22:
            return "LOCK MOV CR0 is MOV CR8 on AMD's CPUs";
        case 0x05: /* with prefixes some decoders do not know it */
        case 0x34:
        case 0x01:
        case 0xc7:
        case 0xae:
        case 0xb9: /* UD1 */
        case 0xff: /* UD0 */
            return "may be a system call, or differs between vendors";
        default:
            break;
        }
    }
    return NULL;
}
