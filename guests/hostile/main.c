// SPDX-License-Identifier: Apache-2.0
/* Requests no sane system makes. Whatever the machine answers, it must answer: no hang, no crash of
 * the monitor, and after each test the processor still works. */
#include "x64.h"

#define VA (TEST_VA + 0xa00000ULL)
#define HOLE 0xd0000000ULL
#define BEYOND 0xf000000000ULL /* far above all memory, below 2^40 */
#define VEC 0x60

static volatile u32 ticks;
static bool on_tick(struct regs *r)
{
    (void)r;
    ticks++;
    apic_eoi();
    return true;
}

static void clock_on(void)
{
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    apic_enable();
    trap_set_hook(VEC, on_tick);
    ticks = 0;
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20000 | VEC);
    apic_write(APIC_TMICT, 2000000);
}

static void clock_off(void)
{
    cli();
    apic_write(APIC_TMICT, 0);
    apic_write(APIC_LVT_TIMER, 0x10000);
}

/* --- repeats without end --- */

static bool leave_rep(struct regs *r)
{
    apic_eoi();
    ticks++;
    /* interrupted in the middle: RIP is the instruction itself, counters tell how far. End it. */
    if (r->rcx > 1000)
        r->rcx = ticks > 3 ? 0 : r->rcx;
    return true;
}

#define ENDLESS(name, insn, ...)                                                                   \
    TEST(name)                                                                                     \
    {                                                                                              \
        u64 n = 1ULL << 40;                                                                        \
        clock_on();                                                                                \
        trap_set_hook(VEC, leave_rep);                                                             \
        sti();                                                                                     \
        __asm__ volatile("cld; " insn : "+c"(n) : __VA_ARGS__ : "rdi", "rsi", "memory", "cc");     \
        clock_off();                                                                               \
        CHECK(ticks > 3);                                                                          \
        CHECK_EQ(n, 0);                                                                            \
    }

ENDLESS(rep__outs_is_interruptible, "mov %1, %%rsi; rep outsb %%ds:(%%rsi), %%dx", "r"(HOLE),
        "d"(0x80))
ENDLESS(rep__ins_to_a_hole_is_interruptible, "mov %1, %%rdi; rep insb %%dx, %%es:(%%rdi)",
        "r"(HOLE), "d"(0x80))

/* A string operation over a page that maps to itself again and again: 512 GiB of virtual addresses
 * on one table. */
static void endless_window(void)
{
    u8 *page = page_alloc();
    u64 *pt = page_alloc(), *pd = page_alloc(), *pdpt = page_alloc();

    for (unsigned i = 0; i < 512; i++) {
        pt[i] = (uptr)page | PTE_P | PTE_W;
        pd[i] = (uptr)pt | PTE_P | PTE_W;
        pdpt[i] = (uptr)pd | PTE_P | PTE_W;
    }
    boot_pml4[1] = (uptr)pdpt | PTE_P | PTE_W;
    flush_tlb();
}

TEST(rep__stos_over_512_gib_is_interruptible)
{
    u64 n = 1ULL << 38, d = TEST_VA;

    endless_window();
    clock_on();
    trap_set_hook(VEC, leave_rep);
    sti();
    __asm__ volatile("cld; rep stosb" : "+c"(n), "+D"(d) : "a"(0) : "memory");
    clock_off();
    CHECK(ticks > 3);
    CHECK_EQ(n, 0);
}

TEST(rep__movs_and_scas_over_512_gib_are_interruptible)
{
    u64 n = 1ULL << 38, d = TEST_VA + (1ULL << 37), s = TEST_VA;

    endless_window();
    clock_on();
    trap_set_hook(VEC, leave_rep);
    sti();
    __asm__ volatile("cld; rep movsb" : "+c"(n), "+D"(d), "+S"(s)::"memory");
    CHECK_EQ(n, 0);
    n = 1ULL << 38;
    d = TEST_VA;
    ticks = 0;
    __asm__ volatile("cld; repe scasb" : "+c"(n), "+D"(d) : "a"(0) : "memory", "cc");
    clock_off();
    CHECK(ticks > 3);
}

/* --- addresses nobody serves --- */

TEST(hole__data)
{
    static const u64 where[] = {HOLE, BEYOND, 0xfed00000, 0xffff0000};

    for (unsigned i = 0; i < ARRAY_SIZE(where); i++) {
        volatile u8 *p;
        map(VA, where[i], PTE_P | PTE_W | PTE_PCD);
        p = (volatile u8 *)VA;
        (void)*p;
        (void)*(volatile u16 *)(p + 1);
        (void)*(volatile u32 *)(p + 3);
        (void)*(volatile u64 *)(p + 7);
        *(volatile u64 *)(p + 9) = 0;
        __asm__ volatile("lock incl (%0)" ::"r"(p) : "memory", "cc");
        __asm__ volatile("xchg %%eax, (%0)" ::"r"(p) : "rax", "memory");
        __asm__ volatile("movups (%0), %%xmm0; movups %%xmm0, (%0)" ::"r"(p) : "memory");
        __asm__ volatile("push (%0); pop (%0)" ::"r"(p) : "memory");
        __asm__ volatile("fldl (%0); fstpl (%0)" ::"r"(p) : "memory");
        __asm__ volatile("fxsave64 (%0)" ::"r"(p) : "memory");
        __asm__ volatile("fninit");
        /* across the border from RAM into the hole */
        map(VA + 0x1000, where[i], PTE_P | PTE_W);
        map(VA, (uptr)page_alloc(), PTE_P | PTE_W);
        *(volatile u64 *)(VA + 0xffc) = 0x1122334455667788;
        CHECK_EQ(*(volatile u32 *)(VA + 0xffc), 0x55667788);
        __asm__ volatile("lock addq $1, (%0)" ::"r"(VA + 0xffd) : "memory", "cc");
    }
}

TEST(hole__stack)
{
    u64 got;

    map(VA, HOLE, PTE_P | PTE_W);
    __asm__ volatile(
        "mov %%rsp, %%rbx; mov %1, %%rsp; push $5; pop %0; call 1f; 1: mov %%rbx, %%rsp"
        : "=r"(got)
        : "r"(VA + 0x800)
        : "rbx", "memory");
}

TEST(hole__code)
{
    struct trap t;

    /* all ones: FF FF is no instruction; or zeroes, which run on until a page fault: both fine */
    if (on_qemu_tcg())
        SKIP("QEMU ends the guest that runs outside RAM");
    map(VA, HOLE, PTE_P | PTE_W);
    TRY (&t)
        ((void (*)(void))VA)();
    CHECK(t.vector == V_UD || t.vector == V_PF || t.vector == V_GP);
    map(VA, 0xfee00000, PTE_P | PTE_W); /* the local APIC's registers as code */
    TRY (&t)
        ((void (*)(void))(VA + 0x100))();
    CHECK(t.vector != V_NONE);
    map(VA, BEYOND, PTE_P | PTE_W);
    TRY (&t)
        ((void (*)(void))VA)();
    CHECK(t.vector != V_NONE);
    /* an instruction that begins in RAM and ends in the hole */
    {
        u8 *p = page_alloc();
        p[4095] = 0xb8;
        map(VA, (uptr)p, PTE_P | PTE_W);
        map(VA + 0x1000, HOLE, PTE_P | PTE_W);
        TRY (&t)
            ((void (*)(void))(VA + 4095))();
        CHECK(t.vector != V_NONE);
    }
}

TEST(hole__page_tables)
{
    struct trap t;
    static const u64 where[] = {HOLE, BEYOND, 0xfee00000, 0xfec00000};

    for (unsigned i = 0; i < ARRAY_SIZE(where); i++)
        for (int level = 2; level <= 4; level++) {
            map(VA, (uptr)page_alloc(), PTE_P | PTE_W);
            *pte_at(VA, level) = where[i] | PTE_P | PTE_W | PTE_U;
            flush_tlb();
            TRY (&t)
                *(volatile u8 *)VA = 1;
            /* whatever the walk read, the machine goes on */
            boot_pml4[1] = 0;
            flush_tlb();
        }
}

TEST(tables__that_contain_themselves)
{
    struct trap t;

    /* the PML4 as its own page table at every level */
    boot_pml4[1] = (uptr)boot_pml4 | PTE_P | PTE_W;
    flush_tlb();
    TRY (&t)
        (void)*(volatile u64 *)(TEST_VA | 1ULL << 30 | 1ULL << 21 | 1ULL << 12);
    CHECK_EQ(t.vector, V_NONE);
    CHECK_EQ(*(volatile u64 *)(TEST_VA | 1ULL << 30 | 1ULL << 21 | 1ULL << 12 | 8) & PTE_ADDR,
             (uptr)boot_pml4);
    /* and a store through it that takes away the mapping it used */
    TRY (&t)
        *(volatile u64 *)(TEST_VA | 1ULL << 30 | 1ULL << 21 | 1ULL << 12 | 8) = 0;
    CHECK_EQ(boot_pml4[1], 0);
    flush_tlb();
    TRY (&t)
        (void)*(volatile u64 *)(TEST_VA | 1ULL << 30 | 1ULL << 21 | 1ULL << 12);
    CHECK_EQ(t.vector, V_PF);
}

TEST(tables__code_that_rewrites_its_own_mapping)
{
    /* a page of code that stores a new PTE for itself and flushes: it goes on in the other frame */
    u8 *a = page_alloc(), *b = page_alloc();
    u64 rax;

    static const u8 head[] = {0x48, 0x89, 0x37,
                              0x0f, 0x01, 0x3a}; /* mov %rsi,(%rdi); invlpg (%rdx) */
    memcpy(a, head, sizeof(head));
    memcpy(b, head, sizeof(head));
    memcpy(a + 6, (const u8[]){0xb8, 0xa, 0, 0, 0, 0xc3}, 6);
    memcpy(b + 6, (const u8[]){0xb8, 0xb, 0, 0, 0, 0xc3}, 6);
    for (unsigned i = 0; i < 20; i++) {
        map(VA, (uptr)a, PTE_P | PTE_W);
        __asm__ volatile("call *%1"
                         : "=a"(rax)
                         : "r"(VA), "D"(pte_at(VA, 1)), "S"((uptr)b | PTE_P | PTE_W), "d"(VA)
                         : "memory", "cc");
        CHECK_EQ(rax, 0xb);
    }
}

TEST(ldt__in_a_hole_or_nowhere)
{
    struct trap t;

    /* the LDT may lie anywhere: there only our own loads look at it */
    gdt_set(SEL_SPARE, (u32)HOLE, 0xffff, 0x82, 0);
    gdt[SEL_SPARE / 8 + 1] = 0;
    __asm__ volatile("lldt %w0" ::"r"(SEL_SPARE));
    TRY (&t)
        __asm__ volatile("mov %0, %%fs" ::"r"(0x0c));
    TRY (&t)
        __asm__ volatile("mov %0, %%fs" ::"r"(0xfffc));
    TRY (&t)
        __asm__ volatile("lar %0, %%eax; lsl %0, %%eax; verr %w0; verw %w0" ::"r"(0x0c)
                         : "rax", "cc");
    gdt_set(SEL_SPARE, (u32)VA, 0xffff, 0x82, 0);
    gdt[SEL_SPARE / 8 + 1] = VA >> 32;
    __asm__ volatile("lldt %w0" ::"r"(SEL_SPARE));
    TRY (&t)
        __asm__ volatile("mov %0, %%fs" ::"r"(0x0c));
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2, VA + 8);
}

/* --- instructions of other machines --- */

/* None of them is there for a guest, whatever the host has: the kernel of a confidential machine,
 * AMD's MCOMMIT, Knights' multiply-add of four registers and its masks. */
TEST(strangers__are_undefined)
{
    static const u8 code[][6] = {
        {0x66, 0x0f, 0x01, 0xcc},             /* tdcall */
        {0x66, 0x0f, 0x01, 0xcd},             /* seamret */
        {0x66, 0x0f, 0x01, 0xce},             /* seamops */
        {0x66, 0x0f, 0x01, 0xcf},             /* seamcall */
        {0xf3, 0x0f, 0x01, 0xfa},             /* mcommit */
        {0x62, 0xf2, 0x7f, 0x48, 0x9a, 0x00}, /* v4fmaddps */
        {0xc4, 0xe1, 0x78, 0x41, 0xc0},       /* kand of Knights Corner */
        {0xc4, 0xe1, 0x7b, 0xbb, 0xc0},       /* tzcnti */
        {0xc4, 0xe2, 0x79, 0xe0, 0x01},       /* cmpoxadd */
        {0xd5, 0x00, 0x01, 0xc0},             /* REX2 of APX */
    };
    u8 *p = page_alloc();

    map(VA, (uptr)p, PTE_P | PTE_W);
    for (unsigned i = 0; i < ARRAY_SIZE(code); i++) {
        struct trap t;

        memset(p, 0xc3, 16);
        memcpy(p, code[i], sizeof(code[i]));
        for (unsigned n = sizeof(code[i]); n-- > 4 && !p[n];)
            p[n] = 0xc3;
        TRY (&t)
            __asm__ volatile("call *%0" ::"r"(VA), "a"(VA), "c"(VA)
                             : "rdx", "r8", "r9", "r10", "r11", "memory", "cc");
        CHECK_EQ(t.vector, V_UD);
    }
}

/* --- soup --- */

/* Random bytes as code in ring 3: any exception will do, only not silence. A timer ends loops. */
static bool end_user(struct regs *r)
{
    apic_eoi();
    ticks++;
    if (r->cs & 3) {
        r->rip = 1ULL << 46; /* leads to a page fault that the TRY sees */
        return true;
    }
    return true;
}

static u64 seed = 0x123456789;
static u32 rnd(void)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (u32)(seed >> 32);
}

USER_DATA static u8 soup[4096] ALIGNED(4096);

/* A SYSCALL in the soup arrives here, on a stack of its making: the INT3 takes a good one. */
extern const char soup_syscall[];
__asm__(".text\nsoup_syscall: int3\n");

static void soup_doors(void)
{
    wrmsr(MSR_STAR, (u64)0x23 << 48 | (u64)SEL_CODE64 << 32);
    wrmsr(MSR_LSTAR, (uptr)soup_syscall);
    wrmsr(MSR_CSTAR, (uptr)soup_syscall);
    wrmsr(MSR_SFMASK, 0x3f7fd7);
    wrmsr(0x174, 0);
    idt_set(V_BP, trap_entry(V_BP), SEL_CODE64, 3, 3, 14);
}

static void soup_run(u16 cs)
{
    soup_doors();
    clock_on();
    trap_set_hook(VEC, end_user);
    for (unsigned i = 0; i < 2000; i++) {
        struct trap t;
        struct regs r;

        for (unsigned k = 0; k < 64; k += 4)
            *(u32 *)(soup + k) = rnd();
        memset(soup + 64, 0xcc, 16);
        user_regs(&r, soup, rnd(), rnd());
        r.cs = cs;
        r.rax = rnd();
        r.rcx = rnd() & 0xff;
        r.rdx = rnd();
        r.rbx = (uptr)soup + (rnd() & 0xff);
        r.rbp = (uptr)soup + (rnd() & 0xff);
        r.r8 = (uptr)soup + 0x800;
        r.rflags = 2 | F_IF | (rnd() & (F_CF | F_ZF | F_SF | F_OF));
        run_until_trap(&t, &r);
        __asm__ volatile("mov %0, %%ds; mov %0, %%es" ::"r"(SEL_DATA));
        __asm__ volatile("fninit");
    }
    clock_off();
}

TEST(soup__of_64_bit_code_in_ring_3)
{
    soup_run(SEL_UCODE64);
}

TEST(soup__of_32_bit_code_in_ring_3)
{
    soup_run(SEL_UCODE32);
}

TEST(soup__of_16_bit_code_in_ring_3)
{
    gdt_set(SEL_SPARE, (u32)(uptr)soup & ~0xffffU, 0xffff, 0xfb, 0);
    soup_doors();
    clock_on();
    trap_set_hook(VEC, end_user);
    for (unsigned i = 0; i < 1000; i++) {
        struct trap t;
        struct regs r;
        for (unsigned k = 0; k < 64; k += 4)
            *(u32 *)(soup + k) = rnd();
        memset(soup + 64, 0xcc, 16);
        user_regs(&r, (void *)((uptr)soup & 0xffff), 0, 0);
        r.cs = SEL_SPARE | 3;
        r.rflags = 2 | F_IF;
        run_until_trap(&t, &r);
        __asm__ volatile("mov %0, %%ds; mov %0, %%es" ::"r"(SEL_DATA));
    }
    clock_off();
}

/* --- sweeps --- */

static bool port_to_avoid(unsigned p)
{
    return (p >= 0xf4 && p <= 0xf7) || /* exit */
           (p >= 0xf1 && p < 0xf4) ||  /* a wide access would reach it */
           p == 0x64 || (p >= 0x61 && p < 0x64) || p == 0x92 ||
           (p >= 0x8f && p < 0x92) ||    /* reset by i8042, port 92 */
           (p >= 0xcf6 && p <= 0xcf9) || /* PCI reset */
           (p >= 0xb0 && p <= 0xb3) ||   /* SMI */
           (p >= 0x3f5 && p <= 0x3ff) || /* the console */
           (p >= 0x5fd && p <= 0x607) || (p >= 0xafe0 && p <= 0xafff) ||
           (p >= 0xb000 && p <= 0xb0ff) || /* ACPI sleep */
           (p >= 0x502 && p <= 0x51b);     /* pvpanic and fw_cfg */
}

TEST(sweep__read_all_ports)
{
    for (unsigned p = 0; p < 0x10000; p++) {
        if (port_to_avoid(p))
            continue;
        (void)inb((u16)p);
        (void)inw((u16)p);
        (void)inl((u16)p);
    }
    (void)inw(0xffff); /* over the end of the space */
    (void)inl(0xfffd);
}

TEST(sweep__write_all_ports)
{
    for (unsigned p = 0; p < 0x10000; p++) {
        if (port_to_avoid(p) || p < 0x100) /* below: the chipset, tried by itself */
            continue;
        outb((u16)p, 0);
        outl((u16)p, 0xffffffff);
        outw((u16)p, 0xa5a5);
    }
    outl(0xffff, 0);
}

TEST(sweep__write_chipset_ports)
{
    static const u8 values[] = {0x00, 0xff, 0x11, 0x34, 0xb6, 0x0b, 0x20, 0x68, 0xa5};

    for (unsigned i = 0; i < ARRAY_SIZE(values); i++)
        for (unsigned p = 0; p < 0x100; p++) {
            if (port_to_avoid(p) || p == 0x60)
                continue;
            outb((u16)p, values[i]);
            (void)inb((u16)p);
        }
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    outb(0x43, 0x30);
    outb(0x40, 0);
    outb(0x40, 0);
}

static void sweep_mmio(u64 base, u64 len, u64 avoid)
{
    for (u64 off = 0; off < len; off += 4) {
        struct trap t;
        TRY (&t) {
            (void)*(volatile u32 *)(base + off);
            (void)*(volatile u8 *)(base + off + 1);
            (void)*(volatile u16 *)(base + off + 2);
            (void)*(volatile u64 *)(base + off);
            if (off != avoid) {
                *(volatile u8 *)(base + off + 3) = 0xff;
                *(volatile u16 *)(base + off + 1) = 0xffff;
            }
        }
    }
}

TEST(sweep__local_apic)
{
    apic_enable();
    sweep_mmio(0xfee00000, 0x1000, 0x300); /* not the ICR: it might shoot us */
    for (u32 off = 0; off < 0x400; off += 0x10) {
        if (off == 0x300)
            continue;
        *(volatile u32 *)(0xfee00000UL + off) = 0xffffffff;
        *(volatile u32 *)(0xfee00000UL + off) = 0;
    }
    for (u32 off = 0x320; off <= 0x370; off += 0x10)
        *(volatile u32 *)(0xfee00000UL + off) = 0x10000;
    apic_write(APIC_DFR, 0xffffffff);
    apic_enable();
    CHECK_EQ(apic_read(APIC_SVR), 0x1ff);
}

TEST(sweep__ioapic)
{
    sweep_mmio(0xfec00000, 0x100, ~0ULL);
    for (u32 i = 0; i < 256; i++) {
        *(volatile u32 *)0xfec00000UL = i;
        (void)*(volatile u32 *)0xfec00010UL;
        *(volatile u32 *)0xfec00010UL = 0xffffffff;
        *(volatile u32 *)0xfec00000UL = i;
        *(volatile u32 *)0xfec00010UL = i & 1 ? 0 : 0x10000;
    }
}

TEST(sweep__pci_configuration)
{
    if (on_qemu_tcg())
        SKIP("QEMU's chipset may be switched off this way");
    for (unsigned d = 0; d < 32; d++)
        for (unsigned reg = 0; reg < 0x100; reg += 4) {
            u32 old = pci_read(0, d, 0, reg);
            outl(0xcf8, 0x80000000 | d << 11 | reg);
            outl(0xcfc, 0xffffffff);
            (void)inl(0xcfc);
            outw(0xcfe, 0x5a5a);
            outb(0xcfd, 0xa5);
            outl(0xcfc, old);
        }
    CHECK(pci_read(0, 0, 0, 0) != 0xffffffff);
}

static void try_msr(u32 m)
{
    struct trap t;
    volatile u64 v = 0;

    TRY (&t)
        v = rdmsr(m);
    if (t.vector != V_NONE && t.vector != V_GP)
        test_failed(__LINE__, "rdmsr %x: vector %x", m, t.vector);
    if (t.vector == V_NONE && m != 0x1b && m != 0x830 && m != 0x83f && m != 0x10 && m != 0x3b &&
        (m < 0x4b564d00 || m > 0x4b564dff) && m != 0x11 && m != 0x12 && m != 0x79) {
        TRY (&t)
            wrmsr(m, v);
        if (t.vector != V_NONE && t.vector != V_GP)
            test_failed(__LINE__, "wrmsr %x: vector %x", m, t.vector);
    }
}

TEST(sweep__msrs)
{
    for (u32 m = 0; m < 0x2000; m++)
        try_msr(m);
    for (u32 m = 0; m < 0x400; m++) {
        try_msr(0xc0000000 + m);
        try_msr(0xc0010000 + m);
        try_msr(0x40000000 + m);
        try_msr(0x4b564d00 + (m & 0xff));
    }
    try_msr(0xffffffff);
    CHECK_EQ(rdmsr(MSR_EFER), EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE);
}

TEST(sweep__paravirtual_addresses_that_are_nowhere)
{
    struct trap t;
    static const u64 where[] = {HOLE | 1, BEYOND | 1, 0xfee00001, ~0ULL, 0x8000000000000001ULL};
    static const u32 regs[] = {0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03,
                               0x4b564d04, 0x11,       0x12};

    for (unsigned i = 0; i < ARRAY_SIZE(where); i++)
        for (unsigned k = 0; k < ARRAY_SIZE(regs); k++) {
            TRY (&t)
                wrmsr(regs[k], where[i]);
            delay(10000);
            TRY (&t)
                wrmsr(regs[k], 0);
        }
}

TEST(sweep__cpuid)
{
    u32 r[4];

    for (u32 l = 0; l < 0x40; l++)
        for (u32 s = 0; s < 0x40; s++) {
            cpuid(l, s, r);
            cpuid(0x80000000 + l, s, r);
            cpuid(0x40000000 + l, s, r);
        }
    cpuid(0xffffffff, 0xffffffff, r);
    cpuid(0x7fffffff, 0, r);
}
