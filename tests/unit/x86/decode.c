/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder's fields, for the encodings the translator and the interpreter rely on. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <Zydis/Zydis.h>
#include <cmocka.h>

#include "x86/insn.h"

static struct x86_insn dec(unsigned mode, const void *bytes, size_t n)
{
    struct x86_insn i;
    assert_int_equal(x86_decode(&i, bytes, n, mode, false), X86_DECODE_OK);
    assert_int_equal(i.length, n);
    return i;
}
#define DEC(mode, ...) dec(mode, (const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}))

static void decode__fills_offsets(void **state)
{
    (void)state;
    /* gs mov rax, [rbx + rcx*4 + 0x11223344] */
    struct x86_insn i = DEC(64, 0x65, 0x48, 0x8b, 0x84, 0x8b, 0x44, 0x33, 0x22, 0x11);
    assert_int_equal(i.rex, 0x48);
    assert_int_equal(i.vex_off, 1);
    assert_int_equal(i.opcode, 0x8b);
    assert_int_equal(i.modrm, 0x84);
    assert_int_equal(i.modrm_off, 3);
    assert_int_equal(i.sib_off, 4);
    assert_int_equal(i.disp_off, 5);
    assert_int_equal(i.disp_size, 4);
    assert_int_equal(i.imm_off, 0);
    assert_int_equal(i.prefixes, X86_PFX_SEG);
    assert_int_equal(i.mem.seg, X86_GS);
    assert_int_equal(i.mem.base, X86_RBX);
    assert_int_equal(i.mem.index, X86_RCX);
    assert_int_equal(i.mem.scale, 4);
    assert_int_equal(i.mem.disp, 0x11223344);
    assert_int_equal(i.mem.size, 64);
    assert_int_equal(i.opsize, 8);
}

static void decode__high_byte_registers(void **state)
{
    (void)state;
    struct x86_insn i = DEC(64, 0x00, 0xe0); /* add al, ah */
    assert_true(i.op[1].high8);
    assert_int_equal(i.op[1].reg, X86_RAX);
    i = DEC(64, 0x40, 0x00, 0xe0); /* add al, spl */
    assert_false(i.op[1].high8);
    assert_int_equal(i.op[1].reg, X86_RSP);
}

static void decode__sign_extends_immediates(void **state)
{
    (void)state;
    assert_int_equal(DEC(64, 0x48, 0x83, 0xc0, 0xff).imm[0], ~(u64)0);
    assert_int_equal((u32)DEC(64, 0xb8, 0xfe, 0xff, 0xff, 0xff).imm[0], 0xfffffffeu);
    assert_int_equal(DEC(64, 0x66, 0xc2, 0x00, 0x80).imm[0], 0x8000); /* ret imm16 */
    struct x86_insn i = DEC(32, 0x9a, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66);
    assert_int_equal(i.op[0].kind, X86_OP_PTR);
    assert_int_equal(i.imm[0], 0x44332211);
    assert_int_equal(i.imm[1], 0x6655);
}

static void decode__rip_relative(void **state)
{
    (void)state;
    struct x86_insn i = DEC(64, 0x48, 0x8b, 0x05, 0xff, 0xff, 0xff, 0xff);
    assert_int_equal(i.mem.base, X86_REG_RIP);
    assert_int_equal(i.mem.disp, -1);
}

static void decode__string_prefixes(void **state)
{
    (void)state;
    struct x86_insn i = DEC(64, 0xf2, 0xa4); /* F2 on MOVS repeats */
    assert_int_equal(i.prefixes, X86_PFX_REP);
    assert_int_equal(i.mem.base, X86_RSI);
    i = DEC(32, 0x2e, 0xf2, 0xa6); /* cs repne cmpsb */
    assert_int_equal(i.prefixes, X86_PFX_REPNE | X86_PFX_SEG);
    assert_int_equal(i.mem.seg, X86_CS);
    assert_int_equal(DEC(64, 0xf3, 0xc3).prefixes, 0); /* rep ret */
    assert_int_equal(DEC(64, 0xf3, 0x90).mnemonic, ZYDIS_MNEMONIC_PAUSE);
    assert_int_equal(DEC(64, 0x3e, 0x8b, 0x03).prefixes, 0); /* no effect in 64-bit mode */
}

static void decode__evex_displacement_is_scaled(void **state)
{
    (void)state;
    /* vmovups zmm0 {k3}, [rax + 1 * 64] */
    struct x86_insn i = DEC(64, 0x62, 0xf1, 0x7c, 0x4b, 0x10, 0x40, 0x01);
    assert_int_equal(i.mem.disp, 64);
    assert_int_equal(i.disp_size, 1);
    assert_int_equal(i.mask, 3);
    assert_int_equal(i.bcast, 0);
    assert_int_equal(i.mem.elem, 32);
    assert_int_equal(i.encoding, X86_ENC_EVEX);
    /* vaddps zmm0, zmm0, dword [rax] {1to16} */
    i = DEC(64, 0x62, 0xf1, 0x7c, 0x58, 0x58, 0x00);
    assert_int_equal(i.bcast, 16);
    assert_int_equal(i.mem.size, 32);
}

static void decode__addresses_not_accessed(void **state)
{
    (void)state;
    assert_true(DEC(64, 0x8d, 0x04, 0x18).mem.agen);  /* lea */
    assert_true(DEC(64, 0x0f, 0x1f, 0x00).mem.agen);  /* nop */
    assert_true(DEC(64, 0x0f, 0x18, 0x00).mem.agen);  /* prefetch */
    assert_false(DEC(64, 0x0f, 0xae, 0x38).mem.agen); /* clflush */
    assert_false(DEC(64, 0xff, 0x30).mem.agen);       /* push [rax] */
    assert_false(DEC(64, 0x50).mem.present);          /* push rax */
    assert_false(DEC(64, 0xc9).mem.present);          /* leave */
}

static void decode__hidden_extensions_are_nops(void **state)
{
    (void)state;
    assert_int_equal(DEC(64, 0xf3, 0x0f, 0x1e, 0xfa).mnemonic, ZYDIS_MNEMONIC_NOP); /* endbr64 */
    assert_int_equal(DEC(64, 0x0f, 0x1c, 0x00).mnemonic, ZYDIS_MNEMONIC_NOP);       /* cldemote */
    assert_int_equal(DEC(64, 0x66, 0x0f, 0x1a, 0xc1).mnemonic, ZYDIS_MNEMONIC_NOP); /* bndmov */
}

static enum x86_decode_result try(const char *bytes, size_t n, unsigned mode, bool real)
{
    struct x86_insn i;
    return x86_decode(&i, (const u8 *)bytes, n, mode, real);
}

static void decode__results(void **state)
{
    static const char longest[] =
        "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90";
    (void)state;
    assert_int_equal(try(longest + 1, 15, 64, false), X86_DECODE_OK);
    assert_int_equal(try(longest, 16, 64, false), X86_DECODE_TOOLONG);
    assert_int_equal(try(longest, 15, 64, false), X86_DECODE_TOOLONG);
    assert_int_equal(try("\x48\x8b", 2, 64, false), X86_DECODE_MORE);
    assert_int_equal(try("\x48", 0, 64, false), X86_DECODE_MORE);
    assert_int_equal(try("\x06\x90\x90", 3, 64, false), X86_DECODE_INVALID);
    assert_int_equal(try("\xf0\x89\xc0", 3, 64, false), X86_DECODE_INVALID); /* lock mov */
    /* No VEX in real mode: LES with a register. */
    assert_int_equal(try("\xc4\xe1\x78\x58\xc0", 5, 16, true), X86_DECODE_INVALID);
}

/* Another vCPU changes the bytes all the time: what the fields say must be what bytes[] holds. */
static u8 changing[16] = {0x0f, 0x05};
static int done;

static void *change(void *arg)
{
    while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
        *(volatile u8 *)&changing[0] = 0xb8; /* mov eax, imm32 */
        *(volatile u8 *)&changing[0] = 0x0f; /* syscall */
    }
    return arg;
}

static void decode__reads_memory_once(void **state)
{
    pthread_t t;
    unsigned wrong = 0;

    (void)state;
    assert_int_equal(pthread_create(&t, NULL, change, NULL), 0);
    for (unsigned i = 0; i < 300000; i++) {
        struct x86_insn in;

        if (x86_decode(&in, changing, sizeof changing, 64, false) != X86_DECODE_OK)
            continue;
        wrong += in.bytes[0] != (in.mnemonic == ZYDIS_MNEMONIC_MOV ? 0xb8 : 0x0f);
    }
    __atomic_store_n(&done, 1, __ATOMIC_RELAXED);
    pthread_join(t, NULL);
    assert_int_equal(wrong, 0);
}

static void format__text(void **state)
{
    char buf[64], tiny[4];
    (void)state;
    struct x86_insn i = DEC(64, 0x48, 0x01, 0xd8);
    x86_format(&i, 0x1000, buf, sizeof buf);
    assert_string_equal(buf, "add rax, rbx");
    memset(tiny, 'x', sizeof tiny);
    x86_format(&i, 0x1000, tiny, sizeof tiny);
    assert_non_null(memchr(tiny, 0, sizeof tiny));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode__fills_offsets),
        cmocka_unit_test(decode__high_byte_registers),
        cmocka_unit_test(decode__sign_extends_immediates),
        cmocka_unit_test(decode__rip_relative),
        cmocka_unit_test(decode__string_prefixes),
        cmocka_unit_test(decode__evex_displacement_is_scaled),
        cmocka_unit_test(decode__addresses_not_accessed),
        cmocka_unit_test(decode__hidden_extensions_are_nops),
        cmocka_unit_test(decode__results),
        cmocka_unit_test(decode__reads_memory_once),
        cmocka_unit_test(format__text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
