/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the interpreter lets the host execute: no encoding may name a register or memory that
 * native.c does not replace, for it would be the host's.
 */
#include <stdio.h>

#include <Zydis/Zydis.h>

#include "encodings.h"
#include "engine/interp/vector.h"
#include "test.h"

static unsigned bad, checked;

static void complain(const struct x86_insn *in, const char *what)
{
    char text[128];

    x86_format(in, 0, text, sizeof(text));
    if (bad++ < 20)
        printf("%s (%u-bit): %s\n", text, in->mode, what);
}

/* MASKMOVQ, MASKMOVDQU: the address in rDI is replaced too. */
static bool address_in_rdi(const struct x86_insn *in)
{
    return in->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || in->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
           in->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

static void one(const u8 *bytes, unsigned mode)
{
    struct x86_insn in;
    unsigned explicit = 0;
    bool string;

    if (x86_decode(&in, bytes, X86_INSN_MAX, mode, false) != X86_DECODE_OK)
        return;
    string = (in.mnemonic == ZYDIS_MNEMONIC_MOVSD || in.mnemonic == ZYDIS_MNEMONIC_CMPSD) &&
             in.opcode_map != 0;
    if ((interp_integer_handler(in.mnemonic) && !string) || interp_system_handler(in.mnemonic) ||
        xsave_handler(in.mnemonic) || !interp_is_vector(&in))
        return;
    checked++;
    if (in.hidden_mem && !address_in_rdi(&in))
        complain(&in, "memory that no operand names");
    for (unsigned i = 0; i < in.nops; i++) {
        const struct x86_op *op = &in.op[i];

        if (op->kind == X86_OP_GPR && !op->implicit && explicit ++)
            complain(&in, "two general registers");
        if (op->kind == X86_OP_GPR && op->implicit && op->reg > X86_RDX)
            complain(&in, "a general register that is not loaded");
        if (op->kind == X86_OP_REL || op->kind == X86_OP_PTR || op->kind == X86_OP_SEG ||
            op->kind == X86_OP_CR || op->kind == X86_OP_DR)
            complain(&in, "a system operand");
    }
    if (in.mem.present && in.mem.size > 512 * 8)
        complain(&in, "an operand larger than the buffer");
}

static void native__names_only_what_is_replaced(void **state)
{
    (void)state;
    each_encoding(one);
    printf("%u encodings\n", checked);
    assert_true(checked > 100000);
    assert_int_equal(bad, 0);
}

static void native__no_lightweight_profiling(void **state)
{
    /* LWPINS edx, ecx, 0; LLWPCB rcx: XOP encodings that Zydis lists with XOP's. */
    static const u8 lwp[][X86_INSN_MAX] = {{0x8f, 0xea, 0x68, 0x12, 0xc1},
                                           {0x8f, 0xe9, 0xf8, 0x12, 0xc1}};
    struct x86_insn in;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(lwp); i++) {
        assert_int_equal(x86_decode(&in, lwp[i], X86_INSN_MAX, 64, false), X86_DECODE_OK);
        assert_false(interp_is_vector(&in));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(native__names_only_what_is_replaced),
        cmocka_unit_test(native__no_lightweight_profiling),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
