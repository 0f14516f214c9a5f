/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integer instructions where modes matter: 16-bit addresses and stacks, segment limits, repeats,
 * decimal arithmetic. What the host can run itself is compared by tests/diff.
 */
#include "interp/system_machine.h"

#include <stdlib.h>

#include "engine/interp/interp_priv.h"

#define G(m, r) ((m)->s.gpr[X86_##r])

/* Steps until rip leaves the instruction at CODE (repeats), at most n times. */
static unsigned run_rep(struct machine *m, const void *code, size_t size, unsigned n)
{
    unsigned steps = 1;
    u64 at;
    run1(m, code, size);
    at = m->s.rip;
    if (at >= size && !x86_protected(&m->s))
        return steps;
    while (steps < n && (m->s.rip == 0 || m->s.rip == CODE)) {
        interp_step(&m->in);
        steps++;
    }
    return steps;
}
#define RUN_REP(m, n, ...)                                                                         \
    run_rep(m, (const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}), n)

/* --- 16-bit */

static void real__addressing_wraps_at_64k(void **state)
{
    (void)state;
    struct machine *m = machine_real();
    m->s.seg[X86_DS].base = DATA;
    m->s.gpr[X86_RBX] = 0xfffe;
    put16(m, DATA + 0x0001, 0x1234);
    RUN(m, 0x8b, 0x47, 0x03); /* mov ax, [bx+3] */
    assert_int_equal((u16)G(m, RAX), 0x1234);
    machine_free(m);
}

static void real__word_at_the_limit_faults(void **state)
{
    (void)state;
    struct machine *m = machine_real();
    put16(m, IVT + 13 * 4, 0x100);
    put16(m, IVT + 13 * 4 + 2, 0);
    m->s.gpr[X86_RBX] = 0xffff;
    RUN(m, 0x8b, 0x07); /* mov ax, [bx] */
    assert_int_equal(m->s.rip, 0x100);
    assert_int_equal(m->s.seg[X86_CS].sel, 0);
    machine_free(m);
}

static void real__pusha_and_popa(void **state)
{
    (void)state;
    struct machine *m = machine_real();
    for (unsigned r = 0; r < 8; r++)
        if (r != X86_RSP)
            m->s.gpr[r] = 0xabcd0000u + 0x1100 * r;
    u32 top = (u32)m->s.seg[X86_SS].base + (u16)G(m, RSP);
    RUN(m, 0x60);
    assert_int_equal(get16(m, top - 2), 0x0000);  /* ax */
    assert_int_equal(get16(m, top - 10), 0x1000); /* sp before */
    assert_int_equal(get16(m, top - 16), 0x7700); /* di */
    for (unsigned r = 0; r < 8; r++)
        if (r != X86_RSP)
            m->s.gpr[r] = 0x55550000u;
    m->s.rip = 0;
    RUN(m, 0x61);
    assert_int_equal(G(m, RDI), 0x55557700u);
    assert_int_equal(G(m, RBX), 0x55553300u);
    assert_int_equal((u16)G(m, RSP), 0x1000);
    machine_free(m);
}

static void real__pusha_wraps_around_the_stack(void **state)
{
    (void)state;
    struct machine *m = machine_real();
    G(m, RSP) = 6;
    G(m, RDI) = 0x7777;
    RUN(m, 0x60);
    assert_int_equal((u16)G(m, RSP), 0xfff6);
    assert_int_equal(get16(m, (u32)m->s.seg[X86_SS].base + 0xfff6), 0x7777);
    machine_free(m);
}

static void real__push_sp_stores_the_old_value(void **state)
{
    (void)state;
    struct machine *m = machine_real();
    RUN(m, 0x54);
    assert_int_equal(get16(m, m->s.seg[X86_SS].base + 0xffe), 0x1000);
    machine_free(m);
}

static void real__loop_uses_the_address_size(void **state)
{
    (void)state;
    struct machine *m = machine_real();
    G(m, RCX) = 0x10000;
    RUN(m, 0xe2, 0x10); /* loop: CX goes 0 -> ffff, taken */
    assert_int_equal(m->s.rip, 0x12);
    assert_int_equal(G(m, RCX), 0x1ffff);
    m->s.rip = 0;
    G(m, RCX) = 0x10001;
    RUN(m, 0x67, 0xe2, 0x10); /* a32 loop: ECX */
    assert_int_equal(m->s.rip, 0x13);
    assert_int_equal(G(m, RCX), 0x10000);
    machine_free(m);
}

static void real__jump_past_the_limit_faults(void **state)
{
    (void)state;
    struct machine *m = machine_real();
    put16(m, IVT + 13 * 4, 0x100);
    m->s.seg[X86_CS].limit = 0xffff;
    RUN(m, 0x66, 0xe9, 0x00, 0x00, 0x01, 0x00); /* jmp near +0x10000 */
    assert_int_equal(m->s.rip, 0x100);
    machine_free(m);
}

static void real__enter_nests(void **state)
{
    (void)state;
    struct machine *m = machine_real();
    u32 ss = (u32)m->s.seg[X86_SS].base;
    G(m, RBP) = 0x2000;
    put16(m, ss + 0x1ffe, 0xaaaa);
    put16(m, ss + 0x1ffc, 0xbbbb);
    RUN(m, 0xc8, 0x08, 0x00, 0x03); /* enter 8, 3 */
    assert_int_equal((u16)G(m, RBP), 0xffe);
    assert_int_equal(get16(m, ss + 0xffe), 0x2000);
    assert_int_equal(get16(m, ss + 0xffc), 0xaaaa);
    assert_int_equal(get16(m, ss + 0xffa), 0xbbbb);
    assert_int_equal(get16(m, ss + 0xff8), 0xffe);
    assert_int_equal((u16)G(m, RSP), 0xff8 - 8);
    m->s.rip = 0;
    RUN(m, 0xc9); /* leave */
    assert_int_equal((u16)G(m, RSP), 0x1000);
    assert_int_equal((u16)G(m, RBP), 0x2000);
    machine_free(m);
}

static void real__movs_overrides_the_source_only(void **state)
{
    (void)state;
    struct machine *m = machine_real();
    m->s.seg[X86_ES].base = DATA;
    m->s.seg[X86_DS].base = 0x60000;
    m->s.seg[X86_FS].base = 0x70000;
    put32(m, 0x70000, 0x44332211);
    put32(m, 0x60000, 0x88888888);
    G(m, RSI) = G(m, RDI) = 0;
    G(m, RCX) = 4;
    RUN_REP(m, 10, 0x64, 0xf3, 0xa4);
    assert_int_equal(get32(m, DATA), 0x44332211);
    assert_int_equal((u16)G(m, RSI), 4);
    assert_int_equal((u16)G(m, RCX), 0);
    machine_free(m);
}

static void real__rep_stos_wraps(void **state)
{
    (void)state;
    struct machine *m = machine_real();
    m->s.seg[X86_ES].base = DATA;
    G(m, RDI) = 0xfffe;
    G(m, RCX) = 3;
    G(m, RAX) = 0x5a;
    RUN_REP(m, 10, 0xf3, 0xaa);
    assert_int_equal(m->ram[DATA + 0xfffe], 0x5a);
    assert_int_equal(m->ram[DATA + 0xffff], 0x5a);
    assert_int_equal(m->ram[DATA], 0x5a);
    assert_int_equal((u16)G(m, RDI), 1);
    machine_free(m);
}

/* --- 32-bit protected */

static void prot__expand_down_segment(void **state)
{
    (void)state;
    struct machine *m = machine_prot32();
    set_idt(m, X86_GP, 14, 0, 0);
    m->s.seg[X86_DS].attr |= X86_SEG_DC;
    m->s.seg[X86_DS].limit = DATA - 1;
    G(m, RBX) = DATA;
    put32(m, DATA, 42);
    RUN(m, 0x8b, 0x03); /* mov eax, [ebx]: just above the limit */
    assert_int_equal(G(m, RAX), 42);
    m->s.rip = CODE;
    G(m, RBX) = DATA - 1;
    RUN(m, 0x8b, 0x03);
    assert_vector(m, X86_GP);
    machine_free(m);
}

static void prot__write_to_code_segment_faults(void **state)
{
    (void)state;
    struct machine *m = machine_prot32();
    set_idt(m, X86_GP, 14, 0, 0);
    G(m, RBX) = DATA;
    RUN(m, 0x2e, 0xc7, 0x03, 1, 0, 0, 0); /* mov dword cs:[ebx], 1 */
    assert_vector(m, X86_GP);
    assert_int_equal(get32(m, DATA), 0);
    machine_free(m);
}

static void prot__stack_fault_is_ss(void **state)
{
    (void)state;
    struct machine *m = machine_prot32();
    set_idt(m, X86_SS_FAULT, 14, 0, 0);
    m->s.seg[X86_SS].limit = 0x1000000;
    G(m, RBP) = 0x2000000;
    RUN(m, 0x8b, 0x45, 0x00); /* mov eax, [ebp] */
    assert_vector(m, X86_SS_FAULT);
    machine_free(m);
}

static void prot__pop_mem_uses_the_new_esp(void **state)
{
    (void)state;
    struct machine *m = machine_prot32();
    u32 sp = (u32)G(m, RSP) - 4;
    G(m, RSP) = sp;
    put32(m, sp, 0xdeadbeef);
    RUN(m, 0x8f, 0x04, 0x24); /* pop [esp] */
    assert_int_equal(get32(m, sp + 4), 0xdeadbeef);
    assert_int_equal(G(m, RSP), sp + 4);
    machine_free(m);
}

static void prot__faulting_pop_keeps_esp(void **state)
{
    (void)state;
    struct machine *m = machine_prot32();
    set_idt(m, X86_PF, 14, 0, 0);
    u32 sp = (u32)G(m, RSP) - 4;
    G(m, RSP) = sp;
    m->bad_page = DATA;
    G(m, RBX) = DATA;
    RUN(m, 0x8f, 0x03); /* pop [ebx] */
    assert_vector(m, X86_PF);
    assert_int_equal(m->s.cr2, DATA);
    /* error, eip, cs, eflags were pushed below the unchanged ESP */
    assert_int_equal(G(m, RSP), sp - 16);
    machine_free(m);
}

static void prot__decimal_adjust(void **state)
{
    (void)state;
    struct machine *m = machine_prot32();
    G(m, RAX) = 0x9b;
    m->s.rflags = 2;
    RUN(m, 0x27); /* daa: 9b -> 01 with carry */
    assert_int_equal((u8)G(m, RAX), 0x01);
    assert_int_equal(m->s.rflags & (RFLAGS_CF | RFLAGS_AF), RFLAGS_CF | RFLAGS_AF);
    m->s.rip = CODE;
    G(m, RAX) = 0x0207;
    RUN(m, 0xd5, 0x0a); /* aad */
    assert_int_equal((u16)G(m, RAX), 27);
    m->s.rip = CODE;
    RUN(m, 0xd4, 0x0a); /* aam */
    assert_int_equal((u16)G(m, RAX), 0x0207);
    machine_free(m);
}

static void prot__bound(void **state)
{
    (void)state;
    struct machine *m = machine_prot32();
    set_idt(m, X86_BR, 14, 0, 0);
    put32(m, DATA, (u32)-5);
    put32(m, DATA + 4, 7);
    G(m, RBX) = DATA;
    G(m, RAX) = (u32)-5;
    RUN(m, 0x62, 0x03);
    assert_int_equal(m->s.rip, CODE + 2);
    m->s.rip = CODE;
    G(m, RAX) = 8;
    RUN(m, 0x62, 0x03);
    assert_vector(m, X86_BR);
    machine_free(m);
}

static void prot__rep_faults_in_the_middle(void **state)
{
    (void)state;
    struct machine *m = machine_prot32();
    set_idt(m, X86_PF, 14, 0, 0);
    m->bad_page = DATA + 0x1000;
    G(m, RDI) = DATA + 0xff0;
    G(m, RCX) = 64;
    G(m, RAX) = 0x11;
    RUN_REP(m, 100, 0xf3, 0xaa);
    assert_vector(m, X86_PF);
    assert_int_equal(G(m, RDI), DATA + 0x1000);
    assert_int_equal(G(m, RCX), 48);
    assert_int_equal(m->s.cr2, DATA + 0x1000);
    assert_int_equal(m->ram[DATA + 0xfff], 0x11);
    machine_free(m);
}

/* --- 64-bit */

static void long__idiv_limits(void **state)
{
    (void)state;
    struct machine *m = machine_long();
    set_idt(m, X86_DE, 14, 0, 0);
    G(m, RAX) = (u64)1 << 63;
    G(m, RDX) = ~(u64)0;
    G(m, RBX) = ~(u64)0;
    RUN(m, 0x48, 0xf7, 0xfb); /* idiv rbx: -2^63 / -1 */
    assert_vector(m, X86_DE);
    m->s.rip = CODE;
    G(m, RBX) = 1;
    RUN(m, 0x48, 0xf7, 0xfb); /* -2^63 / 1 fits */
    assert_int_equal(m->s.rip, CODE + 3);
    assert_int_equal(G(m, RAX), (u64)1 << 63);
    assert_int_equal(G(m, RDX), 0);
    m->s.rip = CODE;
    G(m, RBX) = 0;
    RUN(m, 0xf6, 0xf3); /* div bl */
    assert_vector(m, X86_DE);
    machine_free(m);
}

static void long__locked_access_over_two_pages(void **state)
{
    (void)state;
    struct machine *m = machine_long();
    G(m, RBX) = DATA + 0xffd;
    put64(m, DATA + 0xffd, 0x1111);
    G(m, RAX) = 1;
    RUN(m, 0xf0, 0x48, 0x0f, 0xc1, 0x03); /* lock xadd [rbx], rax */
    assert_int_equal(get64(m, DATA + 0xffd), 0x1112);
    assert_int_equal(G(m, RAX), 0x1111);
    machine_free(m);
}

static void long__second_page_faults_before_anything(void **state)
{
    (void)state;
    struct machine *m = machine_long();
    set_idt(m, X86_PF, 14, 0, 0);
    m->bad_page = DATA + 0x1000;
    put32(m, DATA + 0xffc, 0x12345678);
    G(m, RBX) = DATA + 0xffc;
    G(m, RAX) = ~(u64)0;
    RUN(m, 0x48, 0x89, 0x03); /* mov [rbx], rax */
    assert_vector(m, X86_PF);
    assert_int_equal(m->s.cr2, DATA + 0x1000);
    assert_int_equal(get32(m, DATA + 0xffc), 0x12345678);
    machine_free(m);
}

static void long__failed_cmpxchg_loads_the_accumulator(void **state)
{
    (void)state;
    struct machine *m = machine_long();
    G(m, RBX) = 0xffffffff00000001u;
    G(m, RAX) = 0xffffffff00000002u;
    RUN(m, 0x0f, 0xb1, 0xcb); /* cmpxchg ebx, ecx */
    assert_int_equal((u32)G(m, RBX), 1);
    assert_int_equal(G(m, RAX), 1);
    assert_false(m->s.rflags & RFLAGS_ZF);
    machine_free(m);
}

static void long__bit_string_addressing(void **state)
{
    (void)state;
    struct machine *m = machine_long();
    G(m, RBX) = DATA + 64;
    G(m, RCX) = (u64)-70;
    put64(m, DATA + 48, (u64)1 << 58);
    RUN(m, 0x48, 0x0f, 0xb3, 0x0b); /* btr [rbx], rcx */
    assert_true(m->s.rflags & RFLAGS_CF);
    assert_int_equal(get64(m, DATA + 48), 0);
    machine_free(m);
}

static void long__alignment_check(void **state)
{
    (void)state;
    struct machine *m = machine_long();
    set_idt(m, X86_AC_FAULT, 14, 0, 0);
    machine_ring3(m);
    m->s.cr0 |= CR0_AM;
    m->s.rflags |= RFLAGS_AC;
    G(m, RBX) = DATA + 2;
    RUN(m, 0x66, 0x8b, 0x03); /* mov ax, [rbx] */
    assert_int_equal(m->s.rip, CODE + 3);
    m->s.rip = CODE;
    RUN(m, 0x8b, 0x03); /* mov eax, [rbx] */
    assert_vector(m, X86_AC_FAULT);
    machine_free(m);
}

static void long__hidden_extensions_are_undefined(void **state)
{
    (void)state;
    struct machine *m = machine_long();
    set_idt(m, X86_UD, 14, 0, 0);
    m->in.features &= ~X86F_POPCNT;
    RUN(m, 0xf3, 0x48, 0x0f, 0xb8, 0xc3);
    assert_vector(m, X86_UD);
    m->s.rip = CODE;
    m->in.features |= X86F_POPCNT;
    G(m, RBX) = 0xff;
    RUN(m, 0xf3, 0x48, 0x0f, 0xb8, 0xc3);
    assert_int_equal(G(m, RAX), 8);
    machine_free(m);
}

static void long__instruction_over_a_page_end(void **state)
{
    (void)state;
    struct machine *m = machine_long();
    static const u8 mov[] = {0xb8, 0x44, 0x33, 0x22, 0x11};
    set_idt(m, X86_PF, 14, 0, 0);
    put(m, CODE + 0xffd, mov, sizeof mov);
    m->s.rip = CODE + 0xffd;
    assert_int_equal(interp_step(&m->in), INTERP_OK);
    assert_int_equal(G(m, RAX), 0x11223344);
    m->bad_page = CODE + 0x1000;
    m->s.rip = CODE + 0xffd;
    interp_step(&m->in);
    assert_vector(m, X86_PF);
    assert_int_equal(m->s.cr2, CODE + 0x1000);
    /* The last whole instruction of the page does not touch the next. */
    m->ram[CODE + 0xfff] = 0x90;
    m->s.rip = CODE + 0xfff;
    interp_step(&m->in);
    assert_int_equal(m->s.rip, CODE + 0x1000);
    machine_free(m);
}

static void long__code_that_changes_is_decoded_again(void **state)
{
    (void)state;
    struct machine *m = machine_long();
    RUN(m, 0xb0, 0x01);
    assert_int_equal((u8)G(m, RAX), 1);
    m->s.rip = CODE;
    RUN(m, 0xb0, 0x02);
    assert_int_equal((u8)G(m, RAX), 2);
    m->s.rip = CODE;
    RUN(m, 0xb1, 0x03);
    assert_int_equal((u8)G(m, RCX), 3);
    machine_free(m);
}

static void long__single_step_traps_after_each_iteration(void **state)
{
    (void)state;
    struct machine *m = machine_long();
    set_idt(m, X86_DB, 14, 0, 0);
    m->s.rflags |= RFLAGS_TF;
    G(m, RCX) = 2;
    G(m, RDI) = DATA;
    RUN(m, 0xf3, 0xaa);
    assert_vector(m, X86_DB);
    assert_int_equal(G(m, RCX), 1);
    assert_true(m->s.dr6 & DR6_BS);
    machine_free(m);
}

static void long__non_canonical_jump_faults_at_the_branch(void **state)
{
    (void)state;
    struct machine *m = machine_long();
    set_idt(m, X86_GP, 14, 0, 0);
    G(m, RAX) = (u64)1 << 47;
    u64 sp = G(m, RSP);
    RUN(m, 0xff, 0xe0); /* jmp rax */
    assert_vector(m, X86_GP);
    assert_int_equal(get64(m, ((sp & ~15ul) - 40)), CODE);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real__addressing_wraps_at_64k),
        cmocka_unit_test(real__word_at_the_limit_faults),
        cmocka_unit_test(real__pusha_and_popa),
        cmocka_unit_test(real__pusha_wraps_around_the_stack),
        cmocka_unit_test(real__push_sp_stores_the_old_value),
        cmocka_unit_test(real__loop_uses_the_address_size),
        cmocka_unit_test(real__jump_past_the_limit_faults),
        cmocka_unit_test(real__enter_nests),
        cmocka_unit_test(real__movs_overrides_the_source_only),
        cmocka_unit_test(real__rep_stos_wraps),
        cmocka_unit_test(prot__expand_down_segment),
        cmocka_unit_test(prot__write_to_code_segment_faults),
        cmocka_unit_test(prot__stack_fault_is_ss),
        cmocka_unit_test(prot__pop_mem_uses_the_new_esp),
        cmocka_unit_test(prot__faulting_pop_keeps_esp),
        cmocka_unit_test(prot__decimal_adjust),
        cmocka_unit_test(prot__bound),
        cmocka_unit_test(prot__rep_faults_in_the_middle),
        cmocka_unit_test(long__idiv_limits),
        cmocka_unit_test(long__locked_access_over_two_pages),
        cmocka_unit_test(long__second_page_faults_before_anything),
        cmocka_unit_test(long__failed_cmpxchg_loads_the_accumulator),
        cmocka_unit_test(long__bit_string_addressing),
        cmocka_unit_test(long__alignment_check),
        cmocka_unit_test(long__hidden_extensions_are_undefined),
        cmocka_unit_test(long__instruction_over_a_page_end),
        cmocka_unit_test(long__code_that_changes_is_decoded_again),
        cmocka_unit_test(long__single_step_traps_after_each_iteration),
        cmocka_unit_test(long__non_canonical_jump_faults_at_the_branch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
