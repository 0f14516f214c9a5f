/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copied instructions, judged by the host CPU. Every encoding that the translator would copy is
 * translated as it is inside a stack group, where the operand's address is given ([r9 + r8]), and
 * run: with the operand against the end and the start of a page between forbidden ones, read-only
 * unless the decoder calls it written, and with every other register pointing nowhere. An access
 * that the decoder did not tell of, of its place, size or direction, is a fault. What the engine
 * keeps in registers, and its window, must come out as they went in.
 *
 * Instructions that this CPU does not have say nothing; they are counted.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <Zydis/Zydis.h>

#include "encodings.h"
#include "engine/bt/gen.h"
#include "test.h"

/* --- running code --- */

/* Registers in, and out. */
struct regs {
    u64 gpr[16], rflags;
};

struct regs run_regs;
u64 run_stack, run_target;
void run_enter(void);
void run_leave(void);

#define EACH_REG(op)                                                                               \
    op("rax", 0) op("rcx", 8) op("rdx", 16) op("rbx", 24) op("rbp", 40) op("rsi", 48)              \
        op("rdi", 56) op("r8", 64) op("r9", 72) op("r10", 80) op("r11", 88) op("r12", 96)          \
            op("r13", 104) op("r14", 112) op("r15", 120)
#define LOAD(reg, off) "movq run_regs+" #off "(%rip), %" reg "\n"
#define STORE(reg, off) "movq %" reg ", run_regs+" #off "(%rip)\n"

__asm__(".text\n"
        "run_enter:\n"
        "pushq %rbx\npushq %rbp\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp, run_stack(%rip)\n"
        "pushq run_regs+128(%rip)\npopfq\n"
        "movq run_regs+32(%rip), %rsp\n" EACH_REG(
            LOAD) "jmpq *run_target(%rip)\n"
                  "run_leave:\n" EACH_REG(
                      STORE) "movq %rsp, run_regs+32(%rip)\n"
                             "movq run_stack(%rip), %rsp\n"
                             "pushfq\npopq run_regs+128(%rip)\n"
                             "cld\n"
                             "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbp\npopq %rbx\n"
                             "ret\n");

static volatile int got_signal, got_trap;
static void *volatile got_addr;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    got_signal = sig;
    got_trap = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
    got_addr = info->si_addr;
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)run_leave;
}

/* --- memory --- */

static u8 *code;            /* writable and executable: the CPU sees its own writes */
static u8 *window;          /* a page; rsp points to its start */
static u8 *page_w, *page_r; /* a page twice: writable, and read-only */

/* A page with forbidden ones on both sides. */
static u8 *island(int fd, int prot)
{
    u8 *p = mmap(NULL, 3 * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(p != MAP_FAILED);
    assert_true(mmap(p + PAGE_SIZE, PAGE_SIZE, prot, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED);
    return p + PAGE_SIZE;
}

static void set_up(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    struct sigaction sa = {.sa_sigaction = on_fault};
    static u8 stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
    int fd = memfd_create("operand", 0), fd2 = memfd_create("window", 0);

    assert_int_equal(ftruncate(fd, PAGE_SIZE) | ftruncate(fd2, PAGE_SIZE), 0);
    page_w = island(fd, PROT_READ | PROT_WRITE);
    page_r = island(fd, PROT_READ);
    window = island(fd2, PROT_READ | PROT_WRITE);
    code = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0);
    assert_true(code != MAP_FAILED);
    assert_int_equal(sigaltstack(&ss, NULL), 0);
    sa.sa_flags = (int)(SA_SIGINFO | SA_ONSTACK | SA_NODEFER);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &sa, NULL);
}

static void default_fpu(void)
{
    u32 mxcsr = 0x1f80;

    __asm__ volatile("fninit; ldmxcsr %0" : : "m"(mxcsr));
}

/* --- one instruction --- */

static u8 seen[ZYDIS_MNEMONIC_MAX_VALUE + 1], ran[ZYDIS_MNEMONIC_MAX_VALUE + 1];
static unsigned long nrun, nmissing;
static unsigned failures;

static void complain(const struct x86_insn *in, const char *what)
{
    char text[128];

    if (failures++ > 40)
        return;
    x86_format(in, 0, text, sizeof(text));
    printf("%s (%u-bit): %s; bytes", text, in->mode, what);
    for (unsigned i = 0; i < in->length; i++)
        printf(" %02x", in->bytes[i]);
    printf("; signal %d, trap %d, address %p\n", got_signal, got_trap, got_addr);
}

/* As gen_item does it inside a group. false: that would call the interpreter. */
static bool translate(const struct x86_insn *in, bool mem)
{
    struct item item = {
        .insn = *in, .kind = KIND_GENERIC, .in_group = true, .grouped = mem, .keep_flags = true};
    struct bt_map map = {0};
    struct gen g = {.e = {.p = code, .end = code + PAGE_SIZE},
                    .entry = code,
                    .insn = &item.insn,
                    .item = &item,
                    .word = in->mode / 8,
                    .map = &map};
    u64 leave = (u64)(uintptr_t)run_leave;

    if (!gen_generic(&g))
        return false;
    EMIT(&g.e, 0xff, 0x25, 0, 0, 0, 0); /* jmp [rip] */
    memcpy(g.e.p, &leave, 8);
    return true;
}

#define NOWHERE 0x5a5a000000000000ull /* not canonical */
#define FLAGS 0x202u

static bool named_written(const struct x86_insn *in, unsigned reg)
{
    for (unsigned i = 0; i < in->nops; i++)
        if (in->op[i].kind == X86_OP_GPR && in->op[i].reg == reg && in->op[i].write)
            return true;
    return false;
}

static void execute(const struct x86_insn *in, u64 operand)
{
    static const u8 fixed[] = {H_RBX, H_RBP, H_RSI, H_RDI, H_R12, H_R13, H_R14, H_R15};
    struct regs before;

    for (unsigned i = 0; i < 16; i++)
        run_regs.gpr[i] = NOWHERE + 16 * i;
    run_regs.gpr[H_RSP] = (u64)(uintptr_t)window;
    run_regs.gpr[H_R9] = operand;
    run_regs.gpr[H_R8] = 0;
    run_regs.rflags = FLAGS;
    before = run_regs;
    memset(window, 0x77, PAGE_SIZE);
    run_target = (u64)(uintptr_t)code;
    got_signal = 0;
    run_enter();
    default_fpu();
    nrun++;
    if (got_signal == SIGILL) {
        nmissing++;
        return;
    }
    if (got_signal && got_signal != SIGFPE)
        complain(in, "it accesses what it does not name");
    if (!got_signal)
        ran[in->mnemonic] = 1;
    if (run_regs.gpr[H_RSP] != before.gpr[H_RSP] || run_regs.gpr[H_R8] != 0)
        complain(in, "the window or the group's addend changed");
    if (run_regs.gpr[H_R9] != operand && !named_written(in, X86_RSP))
        complain(in, "RSP changed");
    for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
        if (run_regs.gpr[fixed[i]] != before.gpr[fixed[i]] && !named_written(in, fixed[i]))
            complain(in, "a register that it does not name changed");
    if ((run_regs.rflags & ~(u64)RFLAGS_ARITH) != FLAGS)
        complain(in, "a flag changed that is not arithmetic");
    for (unsigned i = 0; i < PAGE_SIZE; i++)
        if (window[i] != 0x77 && !(i >= 8 * X86_R8 && i < 8 * (X86_R11 + 1))) {
            complain(in, "the window's memory changed");
            break;
        }
}

static void one(const u8 *bytes, unsigned mode)
{
    struct x86_insn in;
    bool mem, write = false;

    if (x86_decode(&in, bytes, X86_INSN_MAX, mode, false) != X86_DECODE_OK || !gen_may_copy(&in) ||
        !gen_generic_fits(&in))
        return;
    mem = in.mem.present && !in.mem.agen;
    if (mem && !(in.has_modrm && in.modrm < 0xc0))
        return; /* MOV with an absolute address becomes MOV [r10] */
    if (in.mem.present && in.mem.agen)
        return; /* no access: not copied (translate.c) */
    if (!translate(&in, mem))
        return;
    seen[in.mnemonic] = 1;
    for (unsigned i = 0; i < in.nops; i++)
        write |= in.op[i].kind == X86_OP_MEM && in.op[i].write;
    if (mem) {
        u8 *page = write ? page_w : page_r;

        memset(page_w, 0, PAGE_SIZE);
        execute(&in, (u64)(uintptr_t)page + PAGE_SIZE - in.mem.size / 8);
        memset(page_w, 0, PAGE_SIZE);
        execute(&in, (u64)(uintptr_t)page);
    } else {
        execute(&in, NOWHERE);
    }
}

static void copy__touches_nothing_but_its_operands(void **state)
{
    unsigned unseen = 0, nran = 0;
    struct x86_insn in = {.mode = 64};

    (void)state;
    set_up();
    each_encoding(one);
    for (unsigned m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        in.mnemonic = (u16)m;
        nran += ran[m];
        if (gen_may_copy(&in) && !seen[m]) {
            printf("%s: no encoding tried\n", ZydisMnemonicGetString((ZydisMnemonic)m));
            unseen++;
        }
    }
    printf("%lu encodings run, of which %lu are none of this CPU's; %u mnemonics\n", nrun, nmissing,
           nran);
    assert_int_equal(failures, 0);
    assert_int_equal(unseen, 0);
}

/* --- the table --- */

static void copy__table_is_as_reviewed(void **state)
{
    /* A newer decoder, or a new row, must be looked at before this number changes. */
    static const unsigned reviewed = 1191;
    struct x86_insn in = {.mode = 64};
    unsigned n = 0;

    (void)state;
    for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        in.mnemonic = (u16)m;
        n += gen_may_copy(&in);
    }
    assert_int_equal(n, reviewed);
}

static void copy__leaves_out_what_reaches_beyond(void **state)
{
    static const u16 never[] = {
        /* memory that no operand names */
        ZYDIS_MNEMONIC_MASKMOVQ, ZYDIS_MNEMONIC_MASKMOVDQU, ZYDIS_MNEMONIC_VMASKMOVDQU,
        ZYDIS_MNEMONIC_XLAT, ZYDIS_MNEMONIC_MOVSB, ZYDIS_MNEMONIC_STOSQ, ZYDIS_MNEMONIC_LODSB,
        ZYDIS_MNEMONIC_SCASB, ZYDIS_MNEMONIC_CMPSB, ZYDIS_MNEMONIC_INSB, ZYDIS_MNEMONIC_OUTSB,
        ZYDIS_MNEMONIC_PUSH, ZYDIS_MNEMONIC_POP, ZYDIS_MNEMONIC_PUSHA, ZYDIS_MNEMONIC_POPA,
        ZYDIS_MNEMONIC_PUSHF, ZYDIS_MNEMONIC_POPF, ZYDIS_MNEMONIC_ENTER, ZYDIS_MNEMONIC_LEAVE,
        ZYDIS_MNEMONIC_CALL, ZYDIS_MNEMONIC_RET, ZYDIS_MNEMONIC_JMP, ZYDIS_MNEMONIC_MONITOR,
        ZYDIS_MNEMONIC_MONITORX, ZYDIS_MNEMONIC_UMONITOR, ZYDIS_MNEMONIC_CLZERO,
        ZYDIS_MNEMONIC_MOVDIR64B, ZYDIS_MNEMONIC_MOVDIRI, ZYDIS_MNEMONIC_ENQCMD,
        ZYDIS_MNEMONIC_ENQCMDS, ZYDIS_MNEMONIC_CLFLUSH, ZYDIS_MNEMONIC_CLDEMOTE,
        ZYDIS_MNEMONIC_LOADIWKEY, ZYDIS_MNEMONIC_AESENCWIDE128KL, ZYDIS_MNEMONIC_AESDEC256KL,
        /* faults suppressed, several accesses */
        ZYDIS_MNEMONIC_VMASKMOVPS, ZYDIS_MNEMONIC_VPMASKMOVQ, ZYDIS_MNEMONIC_VGATHERDPS,
        ZYDIS_MNEMONIC_VPGATHERQQ, ZYDIS_MNEMONIC_VPSCATTERDD, ZYDIS_MNEMONIC_VPCOMPRESSB,
        ZYDIS_MNEMONIC_VEXPANDPS, ZYDIS_MNEMONIC_VGATHERPF0DPS, ZYDIS_MNEMONIC_BOUND,
        /* more state than a register, or pointers of the host in it */
        ZYDIS_MNEMONIC_FXSAVE, ZYDIS_MNEMONIC_FXRSTOR, ZYDIS_MNEMONIC_XSAVE, ZYDIS_MNEMONIC_XSAVES,
        ZYDIS_MNEMONIC_XRSTOR, ZYDIS_MNEMONIC_XRSTORS, ZYDIS_MNEMONIC_FNSAVE, ZYDIS_MNEMONIC_FRSTOR,
        ZYDIS_MNEMONIC_FNSTENV, ZYDIS_MNEMONIC_FLDENV, ZYDIS_MNEMONIC_LDTILECFG,
        ZYDIS_MNEMONIC_TILELOADD,
        /* the host's own state */
        ZYDIS_MNEMONIC_RDSSPD, ZYDIS_MNEMONIC_RDSSPQ, ZYDIS_MNEMONIC_INCSSPD, ZYDIS_MNEMONIC_WRUSSQ,
        ZYDIS_MNEMONIC_WRSSD, ZYDIS_MNEMONIC_SETSSBSY, ZYDIS_MNEMONIC_ENDBR64,
        ZYDIS_MNEMONIC_WRFSBASE, ZYDIS_MNEMONIC_WRGSBASE, ZYDIS_MNEMONIC_RDFSBASE,
        ZYDIS_MNEMONIC_RDGSBASE, ZYDIS_MNEMONIC_RDPID, ZYDIS_MNEMONIC_RDTSC, ZYDIS_MNEMONIC_RDTSCP,
        ZYDIS_MNEMONIC_RDPMC, ZYDIS_MNEMONIC_RDPRU, ZYDIS_MNEMONIC_RDPKRU, ZYDIS_MNEMONIC_WRPKRU,
        ZYDIS_MNEMONIC_XGETBV, ZYDIS_MNEMONIC_CPUID, ZYDIS_MNEMONIC_RDRAND,
        ZYDIS_MNEMONIC_SERIALIZE, ZYDIS_MNEMONIC_TPAUSE, ZYDIS_MNEMONIC_UMWAIT,
        ZYDIS_MNEMONIC_HRESET, ZYDIS_MNEMONIC_SENDUIPI, ZYDIS_MNEMONIC_UIRET, ZYDIS_MNEMONIC_STUI,
        ZYDIS_MNEMONIC_CLUI, ZYDIS_MNEMONIC_TESTUI, ZYDIS_MNEMONIC_PTWRITE, ZYDIS_MNEMONIC_LLWPCB,
        ZYDIS_MNEMONIC_SLWPCB, ZYDIS_MNEMONIC_LWPINS, ZYDIS_MNEMONIC_LWPVAL, ZYDIS_MNEMONIC_STD,
        ZYDIS_MNEMONIC_STI, ZYDIS_MNEMONIC_SYSCALL, ZYDIS_MNEMONIC_SYSENTER, ZYDIS_MNEMONIC_INT,
        ZYDIS_MNEMONIC_INT3, ZYDIS_MNEMONIC_INTO, ZYDIS_MNEMONIC_IRETQ, ZYDIS_MNEMONIC_XBEGIN,
        ZYDIS_MNEMONIC_XABORT, ZYDIS_MNEMONIC_ENCLU, ZYDIS_MNEMONIC_TDCALL, ZYDIS_MNEMONIC_SEAMCALL,
        ZYDIS_MNEMONIC_VMCALL, ZYDIS_MNEMONIC_VMMCALL, ZYDIS_MNEMONIC_VMFUNC,
        ZYDIS_MNEMONIC_INVPCID, ZYDIS_MNEMONIC_MCOMMIT, ZYDIS_MNEMONIC_LDS, ZYDIS_MNEMONIC_LFS,
        ZYDIS_MNEMONIC_BNDLDX, ZYDIS_MNEMONIC_BNDSTX, ZYDIS_MNEMONIC_SGDT, ZYDIS_MNEMONIC_SIDT,
        ZYDIS_MNEMONIC_SLDT, ZYDIS_MNEMONIC_STR, ZYDIS_MNEMONIC_SMSW, ZYDIS_MNEMONIC_LAR,
        ZYDIS_MNEMONIC_LSL, ZYDIS_MNEMONIC_VERR};
    struct x86_insn in = {.mode = 64};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(never); i++) {
        in.mnemonic = never[i];
        if (gen_may_copy(&in))
            fail_msg("%s", ZydisMnemonicGetString((ZydisMnemonic)never[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copy__touches_nothing_but_its_operands),
        cmocka_unit_test(copy__table_is_as_reviewed),
        cmocka_unit_test(copy__leaves_out_what_reaches_beyond),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
