// SPDX-License-Identifier: Apache-2.0
/* Segmentation in 32-bit protected mode: bases, limits, types, privilege, call gates, 16-bit code
 * (SDM 3A chapter 5). */
#include "x32.h"

static u8 buf[8192] ALIGNED(4096);

static void expect(const struct trap *t, int line, unsigned vector, u32 error)
{
    if (t->vector != vector)
        test_failed(line, "vector: got %x, want %x (error %x eip %x)", t->vector, vector, t->error,
                    t->regs.eip);
    else if (t->error != error)
        test_failed(line, "error code: got %x, want %x", t->error, error);
}
#define EXPECT(v, e) expect(&t, __LINE__, v, e)

TEST(seg__bases_add_up)
{
    u32 v;

    buf[0x123] = 0x77;
    gdt_set(SEL_SPARE, (u32)buf + 0x100, 0xfff, 0x93, 4);
    __asm__ volatile("mov %1, %%fs; movzbl %%fs:0x23, %0" : "=r"(v) : "r"(SEL_SPARE));
    CHECK_EQ(v, 0x77);
    /* a base near the top: linear addresses wrap at 4 GiB */
    gdt_set(SEL_SPARE, 0xfffff000, 0xfffff, 0x93, 0xc);
    __asm__ volatile("mov %1, %%gs; movzbl %%gs:(%2), %0"
                     : "=r"(v)
                     : "r"(SEL_SPARE), "r"((u32)buf + 0x123 + 0x1000));
    CHECK_EQ(v, 0x77);
}

TEST(seg__accessed_bit)
{
    gdt_set(SEL_SPARE, 0, 0xfffff, 0x92, 0xc);
    __asm__ volatile("mov %0, %%fs" ::"r"(SEL_SPARE));
    CHECK_EQ(gdt[SEL_SPARE / 8] >> 40 & 0xff, 0x93);
}

TEST_QEMU_DEVIATES(seg__limits, "checks no segment limits")
{
    struct trap t;

    gdt_set(SEL_SPARE, (u32)buf, 0xff, 0x93, 4); /* bytes 0 to 0xff */
    __asm__ volatile("mov %0, %%fs" ::"r"(SEL_SPARE));
    TRY (&t)
        __asm__ volatile("movb %%fs:0xff, %%al; movl %%fs:0xfc, %%eax" ::: "eax");
    EXPECT(V_NONE, 0);
    TRY (&t)
        __asm__ volatile("movb %%fs:0x100, %%al" ::: "eax");
    EXPECT(V_GP, 0);
    TRY (&t)
        __asm__ volatile("movl %%fs:0xfd, %%eax" ::: "eax"); /* the last byte is outside */
    EXPECT(V_GP, 0);
    TRY (&t)
        __asm__ volatile("movl %%eax, %%fs:0xffffffff" ::: "memory");
    EXPECT(V_GP, 0);
    /* page granularity: limit 0 means 4 KiB */
    gdt_set(SEL_SPARE, (u32)buf, 0, 0x93, 0xc);
    __asm__ volatile("mov %0, %%fs" ::"r"(SEL_SPARE));
    TRY (&t)
        __asm__ volatile("movb %%fs:0xfff, %%al" ::: "eax");
    EXPECT(V_NONE, 0);
    TRY (&t)
        __asm__ volatile("movb %%fs:0x1000, %%al" ::: "eax");
    EXPECT(V_GP, 0);
    /* expand-down: valid above the limit */
    gdt_set(SEL_SPARE, (u32)buf, 0xfff, 0x97, 4);
    __asm__ volatile("mov %0, %%fs" ::"r"(SEL_SPARE));
    TRY (&t)
        __asm__ volatile("movb %%fs:0x1000, %%al" ::: "eax");
    EXPECT(V_NONE, 0);
    TRY (&t)
        __asm__ volatile("movb %%fs:0xfff, %%al" ::: "eax");
    EXPECT(V_GP, 0);
    /* expand-down with B clear ends at 64 KiB */
    gdt_set(SEL_SPARE, (u32)buf, 0xfff, 0x97, 0);
    __asm__ volatile("mov %0, %%fs" ::"r"(SEL_SPARE));
    TRY (&t)
        __asm__ volatile("movb %%fs:0x10000, %%al" ::: "eax");
    EXPECT(V_GP, 0);
    __asm__ volatile("mov %0, %%fs" ::"r"(SEL_DATA));
}

TEST_QEMU_DEVIATES(seg__types, "checks no types on access")
{
    struct trap t;

    gdt_set(SEL_SPARE, 0, 0xfffff, 0x91, 0xc); /* read-only */
    __asm__ volatile("mov %0, %%fs" ::"r"(SEL_SPARE));
    TRY (&t)
        __asm__ volatile("movl %%fs:(%0), %%eax" ::"r"(buf) : "eax");
    EXPECT(V_NONE, 0);
    TRY (&t)
        __asm__ volatile("movl %%eax, %%fs:(%0)" ::"r"(buf) : "memory");
    EXPECT(V_GP, 0);
    TRY (&t)
        __asm__ volatile("movb $1, %%cs:%0" : "=m"(buf[0]));
    EXPECT(V_GP, 0); /* code is never writable */
}

TEST(seg__null_may_be_loaded_but_not_used)
{
    struct trap t;

    TRY (&t)
        __asm__ volatile("mov %0, %%fs; mov %0, %%gs" ::"r"(0));
    EXPECT(V_NONE, 0);
    if (!on_qemu_tcg()) {
        TRY (&t)
            __asm__ volatile("movl %%fs:(%0), %%eax" ::"r"(buf) : "eax");
        EXPECT(V_GP, 0);
    }
    TRY (&t)
        __asm__ volatile("mov %0, %%ss" ::"r"(0));
    EXPECT(V_GP, 0);
}

/* One piece of code, in one block, that is met with all kinds of segments. */
static u32 __attribute__((noinline)) read_fs(u32 off)
{
    u32 v;

    __asm__ volatile("mov %%fs:(%1), %0" : "=r"(v) : "r"(off));
    return v;
}

static void __attribute__((noinline)) change_gs(u32 off, u32 bit)
{
    /* a string's source, a bit string, and a read-modify-write */
    __asm__ volatile("btsl %1, %%gs:4(%0); incl %%gs:(%0)" ::"r"(off), "r"(bit) : "memory", "cc");
}

static void __attribute__((noinline)) copy_gs(u8 *to, u32 off)
{
    __asm__ volatile("gs movsb; mov $3, %%ecx; rep gs movsb"
                     : "+D"(to), "+S"(off)::"ecx", "memory");
}

TEST_QEMU_DEVIATES(seg__the_same_code_with_others, "checks no segment limits")
{
    struct trap t;
    u32 v = 0;
    u8 to[4];

    for (unsigned i = 0; i < 6; i++) {
        *(u32 *)(buf + 0xf0) = 0x11223344;
        *(u32 *)(buf + 0x100) = 0x55667788;
        *(u32 *)(buf + 0x104) = 0;
        /* all 4 GiB, with a base and without */
        gdt_set(SEL_SPARE, (u32)buf, 0xfffff, 0x93, 0xc);
        __asm__ volatile("mov %0, %%fs; mov %1, %%gs" ::"r"(SEL_SPARE), "r"(SEL_DATA));
        CHECK_EQ(read_fs(0x100), 0x55667788);
        change_gs((u32)buf + 0x100, 33);
        CHECK_EQ(*(u32 *)(buf + 0x100), 0x55667789);
        CHECK_EQ(*(u32 *)(buf + 0x108), 2);
        *(u32 *)(buf + 0x108) = 0;
        copy_gs(to, (u32)buf + 0xf0);
        CHECK_EQ(*(u32 *)to, 0x11223344);
        /* a limit */
        gdt_set(SEL_SPARE, (u32)buf, 0xff, 0x93, 4);
        __asm__ volatile("mov %0, %%fs; mov %0, %%gs" ::"r"(SEL_SPARE));
        TRY (&t)
            v = read_fs(0xf0);
        EXPECT(V_NONE, 0);
        CHECK_EQ(v, 0x11223344);
        TRY (&t)
            v = read_fs(0x100);
        EXPECT(V_GP, 0);
        TRY (&t)
            change_gs(0x100, 0);
        EXPECT(V_GP, 0);
        change_gs(0xf0, 0);
        CHECK_EQ(*(u32 *)(buf + 0xf0), 0x11223345);
        CHECK_EQ(*(u32 *)(buf + 0xf4) & 1, 1);
        TRY (&t)
            copy_gs(to, 0xfe); /* the third byte */
        EXPECT(V_GP, 0);
        CHECK_EQ(t.regs.esi, 0x100);
        CHECK_EQ(t.regs.ecx, 2);
        *(u32 *)(buf + 0xf4) = 0;
        /* none */
        __asm__ volatile("mov %0, %%fs; mov %0, %%gs" ::"r"(0));
        TRY (&t)
            v = read_fs((u32)buf + 0x100);
        EXPECT(V_GP, 0);
        TRY (&t)
            change_gs((u32)buf + 0x100, 0);
        EXPECT(V_GP, 0);
        TRY (&t)
            copy_gs(to, (u32)buf);
        EXPECT(V_GP, 0);
        CHECK_EQ(*(u32 *)(buf + 0x100), 0x55667789);
        *(u32 *)(buf + 0x104) = 0;
    }
    __asm__ volatile("mov %0, %%fs; mov %0, %%gs" ::"r"(SEL_DATA));
}

TEST(seg__loads_are_checked)
{
    struct trap t;

    gdt_set(SEL_SPARE, 0, 0xfffff, 0x13, 0xc);
    gdt_set(SEL_SPARE + 8, 0, 0xfffff, 0x99, 0xc);
    TRY (&t)
        __asm__ volatile("mov %0, %%ds" ::"r"(SEL_SPARE));
    EXPECT(V_NP, SEL_SPARE);
    TRY (&t)
        __asm__ volatile("mov %0, %%ss" ::"r"(SEL_SPARE));
    EXPECT(V_SS, SEL_SPARE);
    TRY (&t)
        __asm__ volatile("mov %0, %%es" ::"r"(SEL_SPARE + 8));
    EXPECT(V_GP, SEL_SPARE + 8);
    TRY (&t)
        __asm__ volatile("push %0; pop %%fs" ::"i"(0x204));
    EXPECT(V_GP, 0x204);
    TRY (&t)
        __asm__ volatile("mov %0, %%ds" ::"r"(SEL_TSS));
    EXPECT(V_GP, SEL_TSS);
}

static u64 ldt[4] ALIGNED(16);

TEST(ldt__selectors)
{
    struct trap t;
    u32 v;

    ldt[1] = 0x00cf93000000ffff;
    gdt_set(SEL_SPARE, (u32)ldt, sizeof(ldt) - 1, 0x82, 0);
    __asm__ volatile("lldt %w0" ::"r"(SEL_SPARE));
    __asm__ volatile("sldt %0" : "=r"(v));
    CHECK_EQ(v & 0xffff, SEL_SPARE);
    buf[5] = 0x42;
    __asm__ volatile("mov %1, %%fs; movzbl %%fs:(%2), %0" : "=r"(v) : "r"(0xc), "r"(buf + 5));
    CHECK_EQ(v, 0x42);
    TRY (&t)
        __asm__ volatile("mov %0, %%fs" ::"r"(0x24)); /* beyond its limit */
    EXPECT(V_GP, 0x24);
    TRY (&t)
        __asm__ volatile("lldt %w0" ::"r"(SEL_DATA));
    EXPECT(V_GP, SEL_DATA);
    TRY (&t)
        __asm__ volatile("ltr %w0" ::"r"(SEL_TSS)); /* busy */
    EXPECT(V_GP, SEL_TSS);
}

TEST(lar_lsl_verr_verw)
{
    u32 v = 0;
    u8 z;

    gdt_set(SEL_SPARE, 0, 0x12345, 0x91, 0xc);
    __asm__ volatile("lar %2, %0; setz %1" : "+r"(v), "=q"(z) : "r"(SEL_SPARE));
    CHECK(z);
    CHECK_EQ(v & 0x00f0ff00, 0x00c09100);
    __asm__ volatile("lsl %2, %0; setz %1" : "+r"(v), "=q"(z) : "r"(SEL_SPARE));
    CHECK(z);
    CHECK_EQ(v, 0x12345fff);
    __asm__ volatile("verr %w1; setz %0" : "=q"(z) : "r"(SEL_SPARE));
    CHECK(z);
    __asm__ volatile("verw %w1; setz %0" : "=q"(z) : "r"(SEL_SPARE));
    CHECK(!z);
    v = 0x1234;
    __asm__ volatile("lar %2, %0; setz %1" : "+r"(v), "=q"(z) : "r"(0x7f8));
    CHECK(!z);
    CHECK_EQ(v, 0x1234);
    {
        u16 a = 0x10, b = 3;
        __asm__ volatile("arpl %2, %0; setz %1" : "+r"(a), "=q"(z) : "r"(b));
        CHECK(z);
        CHECK_EQ(a, 0x13);
        __asm__ volatile("arpl %2, %0; setz %1" : "+r"(a), "=q"(z) : "r"(b));
        CHECK(!z);
    }
}

/* --- call gates --- */
extern const char gate_target[], user_gate_call[];
static volatile u32 gate_seen[8];
__asm__(".text\n"
        "gate_target:\n" /* 2 parameters above CS:EIP */
        "    mov %cs, gate_seen\n"
        "    movl 8(%esp), %eax\n"
        "    movl %eax, gate_seen + 4\n"
        "    movl 12(%esp), %eax\n"
        "    movl %eax, gate_seen + 8\n"
        "    movl %esp, gate_seen + 12\n"
        "    movl 4(%esp), %eax\n"
        "    movl %eax, gate_seen + 16\n"
        "    lret $8\n"
        ".section .user.text\n"
        "user_gate_call:\n"
        "    push $0x2222\n"
        "    push $0x1111\n"
        "    lcall $0x43, $0\n"
        "    mov %esp, %ebx\n"
        "    int3\n"
        ".text\n");

static void set_gate(unsigned sel, u32 target, u16 code, unsigned params, u8 access)
{
    gdt[sel / 8] = (target & 0xffff) | (u64)code << 16 | (u64)params << 32 | (u64)access << 40 |
                   (u64)(target >> 16) << 48;
}

TEST(gate__from_ring_3_with_parameters)
{
    struct trap t;
    struct regs r;

    set_gate(SEL_SPARE, (u32)gate_target, SEL_CODE, 2, 0xec);
    user_regs(&r, user_gate_call);
    run_until_trap(&t, &r);
    EXPECT(V_BP, 0);
    CHECK_EQ(gate_seen[0] & 0xffff, SEL_CODE);
    CHECK_EQ(gate_seen[1], 0x1111);
    CHECK_EQ(gate_seen[2], 0x2222);
    CHECK_EQ(gate_seen[3], tss.esp0 - 24); /* SS ESP two parameters CS EIP */
    CHECK_EQ(gate_seen[4] & 0xffff, SEL_UCODE);
    CHECK_EQ(t.regs.cs & 0xffff, SEL_UCODE);
    CHECK_EQ(t.regs.ebx, r.esp); /* both stacks lost the parameters */
}

TEST(gate__same_ring)
{
    u32 before, after;

    set_gate(SEL_SPARE, (u32)gate_target, SEL_CODE, 2, 0xec);
    __asm__ volatile("mov %%esp, %0; push $0x44; push $0x33; lcall $0x40, $0; mov %%esp, %1"
                     : "=&r"(before), "=&r"(after)::"eax", "memory");
    CHECK_EQ(gate_seen[1], 0x33); /* nothing is copied on one stack; they are just there */
    CHECK_EQ(gate_seen[2], 0x44);
    CHECK_EQ(before, after);
}

TEST(gate__privilege)
{
    struct trap t;
    struct regs r;

    set_gate(SEL_SPARE, (u32)gate_target, SEL_CODE, 2, 0x8c); /* DPL 0 */
    user_regs(&r, user_gate_call);
    run_until_trap(&t, &r);
    EXPECT(V_GP, SEL_SPARE);
    set_gate(SEL_SPARE, (u32)gate_target, SEL_CODE, 2, 0x6c); /* not present */
    run_until_trap(&t, &r);
    EXPECT(V_NP, SEL_SPARE);
    set_gate(SEL_SPARE, (u32)gate_target, SEL_DATA, 2, 0xec); /* leads to data */
    run_until_trap(&t, &r);
    EXPECT(V_GP, SEL_DATA);
    /* to ring 1 with a wrong inner stack: #TS names it (ring 0's stack has to be there for the #TS)
     */
    gdt_set(SEL_SPARE + 8, 0, 0xfffff, 0xbb, 0xc);
    set_gate(SEL_SPARE, (u32)gate_target, SEL_SPARE + 8, 2, 0xec);
    tss.ss1 = SEL_UDATA;
    tss.esp1 = (u32)buf + 4096;
    run_until_trap(&t, &r);
    EXPECT(V_TS, SEL_UDATA & ~3U);
}

TEST(conforming__code_keeps_the_ring)
{
    struct trap t;
    struct regs r;
    static const u8 text[] = {0x9a, 0, 0, 0, 0, 0x48, 0x00, 0xcc}; /* lcall $0x48, $0; int3 */
    static const u8 inner[] = {0x8c, 0xcb, 0xcb};                  /* mov %cs, %ebx; lret */

    memcpy(buf, text, sizeof(text));
    memcpy(buf + 256, inner, sizeof(inner));
    gdt_set(SEL_SPARE + 8, (u32)buf + 256, 0xfff, 0x9f, 4);
    user_regs(&r, buf);
    run_until_trap(&t, &r);
    EXPECT(V_BP, 0);
    CHECK_EQ(t.regs.ebx & 0xffff, SEL_SPARE + 11); /* CPL 3 */
    CHECK_EQ(t.regs.cs & 0xffff, SEL_UCODE);
}

TEST(ret__to_outer_ring_drops_inner_segments)
{
    struct trap t;
    struct regs r;

    memset(buf, 0xcc, 16);
    user_regs(&r, buf);
    r.fs = SEL_DATA;  /* DPL 0 */
    r.gs = SEL_UDATA; /* DPL 3 */
    r.es = 3;         /* null, with an RPL */
    run_until_trap(&t, &r);
    EXPECT(V_BP, 0);
    CHECK_EQ(t.regs.es & 0xffff, 0);
    CHECK_EQ(t.regs.fs & 0xffff, 0);
    CHECK_EQ(t.regs.gs & 0xffff, SEL_UDATA);
}

/* --- 16-bit code and stacks in protected mode --- */
extern const char code16[];
__asm__(".section .rodata\n.code16\n"
        "code16:\n"
        "    movw $0x1234, %ax\n"
        "    movl $0x56789abc, %ebx\n"
        "    movw $2, %si\n"
        "    movw $0xffff, %bp\n"
        "    leaw (%bp,%si), %cx\n"
        "    movzwl %cx, %ecx\n"
        "    pushw %ax\n"
        "    popw %dx\n"
        "    lretl\n"
        ".code32\n.text\n");

TEST(code16__called_from_32_bit_code)
{
    u32 a = 0xffff0000, b, c, d = 0;
    static struct {
        u32 off;
        u16 sel;
    } __attribute__((packed)) far = {0, SEL_SPARE};

    gdt_set(SEL_SPARE, (u32)code16, 0xffff, 0x9b, 0);
    __asm__ volatile("push %%ebp; lcall *%4; pop %%ebp"
                     : "+a"(a), "=b"(b), "=c"(c), "+d"(d)
                     : "m"(far)
                     : "esi", "memory");
    CHECK_EQ(a, 0xffff1234);
    CHECK_EQ(b, 0x56789abc);
    CHECK_EQ(c, 1);
    CHECK_EQ(d, 0x1234);
}

TEST(stack16__sp_wraps_and_keeps_the_upper_half)
{
    u32 got[3];

    /* SS with B clear: PUSH uses SP. Interrupts are off and nothing faults meanwhile. */
    gdt_set(SEL_SPARE, (u32)buf, 0xffff, 0x93, 0);
    buf[0xfe] = 0;
    __asm__ volatile(
        "mov %%esp, %%esi; mov %%ss, %%edi; mov %3, %%ss; mov $0x12340100, %%esp\n"
        "push $0x11223344\n"
        "mov %%esp, %%eax; popw %%cx; mov %%esp, %%edx\n"
        "mov %%edi, %%ss; mov %%esi, %%esp; mov %%eax, %0; mov %%ecx, %1; mov %%edx, %2"
        : "=m"(got[0]), "=m"(got[1]), "=m"(got[2])
        : "r"(SEL_SPARE)
        : "eax", "ecx", "edx", "esi", "edi", "memory");
    CHECK_EQ(got[0], 0x123400fc);
    CHECK_EQ(got[1] & 0xffff, 0x3344);
    CHECK_EQ(got[2], 0x123400fe);
    CHECK_EQ(*(u32 *)(buf + 0xfc), 0x11223344);
}

TEST(int__through_a_16_bit_gate)
{
    extern const char gate16[];
    u32 before, after;

    __asm__(".section .rodata\ngate16: .byte 0x66, 0xcf\n.text"); /* iretw */
    idt_set(0x41, (u32)gate16 & 0xffff, SEL_SPARE, 0, 6);
    gdt_set(SEL_SPARE, (u32)gate16 & 0xffff0000, 0xffff, 0x9b, 4);
    gdt_set(SEL_SPARE + 8, (u32)buf, 0xffff, 0x9b, 0);
    /* the saved IP has 16 bits, so the INT must lie in a 16-bit segment: buf holds it */
    memcpy(buf, (const u8[]){0xcd, 0x41, 0x66, 0xcb}, 4); /* int $0x41; lretl */
    {
        static struct {
            u32 off;
            u16 sel;
        } __attribute__((packed)) far = {0, SEL_SPARE + 8};
        __asm__ volatile("mov %%esp, %0; lcall *%2; mov %%esp, %1"
                         : "=&r"(before), "=&r"(after)
                         : "m"(far)
                         : "memory", "cc");
    }
    CHECK_EQ(before, after);
}

TEST(enter__nesting)
{
    u32 esp, ebp, top;

    __asm__ volatile("mov %%ebp, %%esi; mov %%esp, %2; mov %%esp, %%ebp\n"
                     "enter $8, $3\n"
                     "mov %%esp, %0; mov %%ebp, %1; mov %%esi, %%ebp; mov %2, %%esp"
                     : "=&a"(esp), "=&c"(ebp), "=&d"(top)::"esi", "memory");
    CHECK_EQ(top - ebp, 4);
    CHECK_EQ(ebp - esp, 12 + 8); /* three frame pointers and the locals */
}

extern const char land[];
__asm__(".text\nland: int3\nleave_ring_0: sysexit\n");

TEST(sysenter__and_sysexit)
{
    struct trap t;
    struct regs r;

    if (!cpu_has(1, 0, 3, 11))
        SKIP("no SYSENTER");
    wrmsr(0x174, SEL_CODE);
    wrmsr(0x175, (u32)buf + 4096);
    wrmsr(0x176, (u32)land);
    memcpy(buf, (const u8[]){0x0f, 0x34}, 2);
    user_regs(&r, buf);
    run_until_trap(&t, &r);
    EXPECT(V_BP, 0);
    CHECK_EQ(t.regs.cs & 0xffff, SEL_CODE);
    CHECK_EQ(t.regs.eip, (u32)land + 1);
    CHECK_EQ(t.regs.esp, (u32)buf + 4096);
    /* SYSEXIT to SYSENTER_CS + 16 and + 24: base 0x18 makes 0x28 and 0x30 */
    wrmsr(0x174, 0x18);
    memset(buf, 0xcc, 4);
    TRY (&t)
        __asm__ volatile("mov %0, %%edx; mov %1, %%ecx; jmp leave_ring_0" ::"r"(buf),
                         "r"(user_stack + 4096)
                         : "ecx", "edx");
    EXPECT(V_BP, 0);
    CHECK_EQ(t.regs.cs & 0xffff, SEL_UCODE);
    CHECK_EQ(t.regs.ss & 0xffff, SEL_UDATA);
    CHECK_EQ(t.regs.esp, (u32)user_stack + 4096);
}
