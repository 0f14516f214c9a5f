/* SPDX-License-Identifier: Apache-2.0 */
/* Vector and x87 instructions: checks, faults and state images. Results are tests/diff's business.
 */
#include "interp/system_machine.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine/interp/interp_priv.h"

#define G(m, r) ((m)->s.gpr[X86_##r])
#define XMM(m, n) ((m)->s.xsave + 160 + 16 * (n))
#define BV(m) (*(u64 *)(void *)((m)->s.xsave + 512))

static struct interp *running;

static void on_signal(int sig, siginfo_t *si, void *ucv)
{
    ucontext_t *uc = ucv;
    u64 pc = (u64)uc->uc_mcontext.gregs[REG_RIP];
    (void)si;
    if (!interp_native_signal(running, &pc, (int)uc->uc_mcontext.gregs[REG_TRAPNO]))
        signal(sig, SIG_DFL);
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)pc;
}

static u64 host_xcr0(void)
{
    u32 lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo & 0xe7;
}

/* A machine with a native page and every feature; long: 64-bit, else 32-bit protected. */
static struct machine *vector_machine(struct machine *m)
{
    int fd = memfd_create("native", 0);
    /* In every test: cmocka has handlers of its own around each. */
    static const int sigs[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL};
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    for (unsigned i = 0; i < sizeof sigs / sizeof sigs[0]; i++)
        sigaction(sigs[i], &sa, NULL);
    assert_true(fd >= 0 && !ftruncate(fd, 4096));
    m->in.native = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    m->in.native_rx = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    close(fd);
    m->in.features = ~(u64)0;
    m->s.cr0 = (m->s.cr0 | CR0_NE | CR0_MP) & ~(CR0_TS | CR0_EM);
    m->s.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    m->s.xcr0 = host_xcr0();
    memset(m->s.xsave, 0, sizeof m->s.xsave);
    m->s.xsave[24] = 0x80; /* MXCSR 1f80h */
    m->s.xsave[25] = 0x1f;
    running = &m->in;
    static const u8 vectors[] = {X86_UD, X86_NM, X86_GP, X86_PF, X86_MF, X86_XM};
    for (unsigned i = 0; i < sizeof vectors; i++)
        set_idt(m, vectors[i], 14, 0, 0);
    return m;
}

static void vector_free(struct machine *m)
{
    munmap(m->in.native, 4096);
    munmap(m->in.native_rx, 4096);
    machine_free(m);
}

static bool has_avx512(void)
{
    return (host_xcr0() & 0xe6) == 0xe6;
}

static void sse__needs_osfxsr_and_no_ts(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    m->s.cr4 &= ~CR4_OSFXSR;
    RUN(m, 0x0f, 0x57, 0xc0); /* xorps xmm0, xmm0 */
    assert_vector(m, X86_UD);
    m->s.cr4 |= CR4_OSFXSR;
    m->s.cr0 |= CR0_TS;
    m->s.rip = CODE;
    RUN(m, 0x0f, 0x57, 0xc0);
    assert_vector(m, X86_NM);
    m->s.cr0 = (m->s.cr0 & ~CR0_TS) | CR0_EM;
    m->s.rip = CODE;
    RUN(m, 0x0f, 0x57, 0xc0);
    assert_vector(m, X86_UD);
    vector_free(m);
}

static void avx__needs_xcr0(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    m->s.xcr0 = 3;
    RUN(m, 0xc5, 0xf8, 0x57, 0xc0); /* vxorps xmm0, xmm0, xmm0 */
    assert_vector(m, X86_UD);
    vector_free(m);
}

static void sse__misaligned_operand(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    G(m, RBX) = DATA + 8;
    put64(m, DATA + 8, 0x1122334455667788);
    RUN(m, 0x0f, 0x28, 0x03); /* movaps xmm0, [rbx] */
    assert_vector(m, X86_GP);
    m->s.rip = CODE;
    RUN(m, 0x0f, 0x10, 0x03); /* movups */
    assert_int_equal(m->s.rip, CODE + 3);
    assert_int_equal(*(u64 *)(void *)XMM(m, 0), 0x1122334455667788);
    vector_free(m);
}

static void sse__store_over_two_pages_is_all_or_nothing(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    BV(m) = 2;
    memset(XMM(m, 1), 0xaa, 16);
    m->bad_page = DATA + 0x1000;
    G(m, RBX) = DATA + 0xff8;
    RUN(m, 0x0f, 0x11, 0x0b); /* movups [rbx], xmm1 */
    assert_vector(m, X86_PF);
    assert_int_equal(m->s.cr2, DATA + 0x1000);
    assert_int_equal(get64(m, DATA + 0xff8), 0);
    vector_free(m);
}

static void sse__general_registers(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    BV(m) = 2;
    *(u64 *)(void *)XMM(m, 9) = 0x123456789abcdef0;
    u64 sp = G(m, RSP);
    RUN(m, 0x66, 0x4c, 0x0f, 0x7e, 0xc8); /* movq rax, xmm9 */
    assert_int_equal(G(m, RAX), 0x123456789abcdef0);
    m->s.rip = CODE;
    G(m, R12) = ~(u64)0;
    RUN(m, 0x66, 0x45, 0x0f, 0x7e, 0xcc); /* movd r12d, xmm9 */
    assert_int_equal(G(m, R12), 0x9abcdef0);
    m->s.rip = CODE;
    RUN(m, 0x66, 0x48, 0x0f, 0x6e, 0xd4); /* movq xmm2, rsp */
    assert_int_equal(*(u64 *)(void *)XMM(m, 2), sp);
    assert_int_equal(G(m, RSP), sp);
    vector_free(m);
}

static void sse__flags_come_back(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    RUN(m, 0x0f, 0x2f, 0xc1); /* comiss xmm0, xmm1: equal */
    assert_int_equal(m->s.rflags & RFLAGS_ARITH, RFLAGS_ZF);
    vector_free(m);
}

static void sse__unmasked_exception(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    m->s.xsave[24] = 0x00; /* unmask division by zero */
    m->s.xsave[25] = 0x1d;
    BV(m) = 2;
    *(float *)(void *)XMM(m, 0) = 1.0f;
    RUN(m, 0xf3, 0x0f, 0x5e, 0xc1); /* divss xmm0, xmm1 */
    assert_vector(m, X86_XM);
    assert_true(m->s.xsave[24] & 4); /* MXCSR.ZE */
    assert_true(*(float *)(void *)XMM(m, 0) == 1.0f);
    m->s.rip = CODE;
    m->s.cr4 &= ~CR4_OSXMMEXCPT;
    RUN(m, 0xf3, 0x0f, 0x5e, 0xc1);
    assert_vector(m, X86_UD);
    vector_free(m);
}

static void ldmxcsr__reserved_bits(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    put32(m, DATA, 0xffffffff);
    G(m, RBX) = DATA;
    RUN(m, 0x0f, 0xae, 0x13);
    assert_vector(m, X86_GP);
    vector_free(m);
}

static void x87__pending_exception_waits(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    put16(m, DATA, 0x037b); /* unmask division by zero */
    G(m, RBX) = DATA;
    RUN(m, 0xd9, 0x2b); /* fldcw [rbx] */
    m->s.rip = CODE;
    RUN(m, 0xd9, 0xe8); /* fld1 */
    m->s.rip = CODE;
    RUN(m, 0xd9, 0xee); /* fldz */
    m->s.rip = CODE;
    RUN(m, 0xde, 0xf9); /* fdivp: records, does not raise */
    assert_int_equal(m->s.rip, CODE + 2);
    m->s.rip = CODE;
    RUN(m, 0xdf, 0xe0); /* fnstsw ax does not wait */
    assert_int_equal(m->s.rip, CODE + 2);
    assert_true(G(m, RAX) & 4);
    m->s.rip = CODE;
    RUN(m, 0x9b); /* fwait does */
    assert_vector(m, X86_MF);
    m->s.rip = CODE;
    RUN(m, 0xdb, 0xe2); /* fnclex */
    m->s.rip = CODE;
    RUN(m, 0x9b);
    assert_int_equal(m->s.rip, CODE + 1);
    vector_free(m);
}

static void x87__instruction_pointer_is_the_guests(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    G(m, RBX) = DATA;
    RUN(m, 0xdd, 0x03); /* fld qword [rbx] */
    u64 fip = *(u64 *)(void *)(m->s.xsave + 8), fdp = *(u64 *)(void *)(m->s.xsave + 16);
    assert_true(fip == CODE || fip == 0);
    assert_true(fdp == DATA || fdp == 0);
    vector_free(m);
}

static void fxsave__outside_64_bit_mode_has_eight_registers(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_prot32());
    BV(m) = 3;
    memset(XMM(m, 0), 0x11, 256);
    memset(m->ram + DATA, 0x77, 512);
    G(m, RBX) = DATA;
    RUN(m, 0x0f, 0xae, 0x03);
    assert_int_equal(m->ram[DATA + 160], 0x11);
    assert_int_equal(m->ram[DATA + 160 + 127], 0x11);
    assert_int_equal(m->ram[DATA + 160 + 128], 0x77);
    assert_int_equal(m->ram[DATA + 511], 0x77);
    /* and back: registers 8 to 15 stay */
    memset(m->ram + DATA + 160, 0x22, 256);
    m->s.rip = CODE;
    RUN(m, 0x0f, 0xae, 0x0b);
    assert_int_equal(XMM(m, 7)[0], 0x22);
    assert_int_equal(XMM(m, 8)[0], 0x11);
    vector_free(m);
}

static void xsave__and_back(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    BV(m) = 2;
    memset(XMM(m, 3), 0x33, 16);
    G(m, RBX) = DATA;
    G(m, RAX) = 3;
    G(m, RDX) = 0;
    RUN(m, 0x0f, 0xae, 0x23); /* xsave [rbx] */
    assert_int_equal(get64(m, DATA + 512), 2);
    memset(XMM(m, 3), 0x44, 16);
    m->s.rip = CODE;
    RUN(m, 0x0f, 0xae, 0x2b); /* xrstor [rbx] */
    assert_int_equal(XMM(m, 3)[5], 0x33);
    put64(m, DATA + 520, 1); /* XCOMP_BV in the standard format */
    m->s.rip = CODE;
    RUN(m, 0x0f, 0xae, 0x2b);
    assert_vector(m, X86_GP);
    m->s.rip = CODE;
    G(m, RBX) = DATA + 32;
    RUN(m, 0x0f, 0xae, 0x2b);
    assert_vector(m, X86_GP);
    vector_free(m);
}

static void xsavec__compacts(void **state)
{
    (void)state;
    if (!has_avx512())
        skip();
    struct machine *m = vector_machine(machine_long());
    static const u8 value[8] = {0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a};
    G(m, RCX) = 0x5a5a5a5a5a5a5a5a;
    RUN(m, 0xc4, 0xe1, 0xfb, 0x92, 0xc9); /* kmovq k1, rcx */
    G(m, RBX) = DATA;
    G(m, RAX) = 0x20; /* opmasks only */
    G(m, RDX) = 0;
    m->s.rip = CODE;
    RUN(m, 0x0f, 0xc7, 0x23); /* xsavec [rbx] */
    assert_int_equal(get64(m, DATA + 520), BIT64(63) | 0x20);
    assert_memory_equal(m->ram + DATA + 576 + 8, value, 8);
    m->s.rip = CODE;
    RUN(m, 0xc5, 0xf4, 0x47, 0xc9); /* kxorw k1, k1, k1 */
    m->s.rip = CODE;
    RUN(m, 0x0f, 0xae, 0x2b); /* xrstor [rbx] */
    m->s.rip = CODE;
    RUN(m, 0xc4, 0xe1, 0xfb, 0x93, 0xd1); /* kmovq rdx, k1 */
    assert_int_equal(G(m, RDX), 0x5a5a5a5a5a5a5a5a);
    vector_free(m);
}

static void maskmov__masked_lanes_do_not_fault(void **state)
{
    (void)state;
    if (!(host_xcr0() & 4))
        skip();
    struct machine *m = vector_machine(machine_long());
    BV(m) = 2;
    ((u32 *)(void *)XMM(m, 1))[0] = 0x80000000;
    ((u32 *)(void *)XMM(m, 1))[1] = 0x80000000;
    put64(m, DATA + 0xff8, 0x1111111122222222);
    m->bad_page = DATA + 0x1000;
    G(m, RBX) = DATA + 0xff8;
    RUN(m, 0xc4, 0xe2, 0x71, 0x2c, 0x03); /* vmaskmovps xmm0, xmm1, [rbx] */
    assert_int_equal(m->s.rip, CODE + 5);
    assert_int_equal(*(u64 *)(void *)XMM(m, 0), 0x1111111122222222);
    ((u32 *)(void *)XMM(m, 1))[2] = 0x80000000;
    m->s.rip = CODE;
    RUN(m, 0xc4, 0xe2, 0x71, 0x2c, 0x03);
    assert_vector(m, X86_PF);
    assert_int_equal(m->s.cr2, DATA + 0x1000);
    vector_free(m);
}

static void gather__keeps_the_lanes_done(void **state)
{
    (void)state;
    if (!(host_xcr0() & 4))
        skip();
    struct machine *m = vector_machine(machine_long());
    BV(m) = 2;
    u32 *index = (u32 *)(void *)XMM(m, 2), *mask = (u32 *)(void *)XMM(m, 1);
    u32 *dst = (u32 *)(void *)XMM(m, 0);
    for (unsigned i = 0; i < 4; i++) {
        mask[i] = 0x80000000;
        dst[i] = 0xee;
    }
    index[0] = 0;
    index[1] = 0x10;
    index[2] = 0x1000;
    index[3] = 0x20;
    put32(m, DATA, 1);
    put32(m, DATA + 0x10, 2);
    m->bad_page = DATA + 0x1000;
    G(m, RBX) = DATA;
    RUN(m, 0xc4, 0xe2, 0x71, 0x90, 0x04, 0x13); /* vpgatherdd xmm0, [rbx + xmm2], xmm1 */
    assert_vector(m, X86_PF);
    assert_int_equal(dst[0], 1);
    assert_int_equal(dst[1], 2);
    assert_int_equal(dst[2], 0xee);
    assert_int_equal(mask[0], 0);
    assert_int_equal(mask[1], 0);
    assert_int_equal(mask[2], 0x80000000);
    vector_free(m);
}

static void native__without_a_page_is_unsupported(void **state)
{
    (void)state;
    struct machine *m = vector_machine(machine_long());
    void *page = m->in.native;
    m->in.native = NULL;
    assert_int_equal(RUN(m, 0x0f, 0x57, 0xc0), INTERP_UNSUPPORTED);
    assert_int_equal(m->s.rip, CODE);
    assert_non_null(strstr(m->in.why, "xorps"));
    m->in.native = page;
    vector_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sse__needs_osfxsr_and_no_ts),
        cmocka_unit_test(avx__needs_xcr0),
        cmocka_unit_test(sse__misaligned_operand),
        cmocka_unit_test(sse__store_over_two_pages_is_all_or_nothing),
        cmocka_unit_test(sse__general_registers),
        cmocka_unit_test(sse__flags_come_back),
        cmocka_unit_test(sse__unmasked_exception),
        cmocka_unit_test(ldmxcsr__reserved_bits),
        cmocka_unit_test(x87__pending_exception_waits),
        cmocka_unit_test(x87__instruction_pointer_is_the_guests),
        cmocka_unit_test(fxsave__outside_64_bit_mode_has_eight_registers),
        cmocka_unit_test(xsave__and_back),
        cmocka_unit_test(xsavec__compacts),
        cmocka_unit_test(maskmov__masked_lanes_do_not_fault),
        cmocka_unit_test(gather__keeps_the_lanes_done),
        cmocka_unit_test(native__without_a_page_is_unsupported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
