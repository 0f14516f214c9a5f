// SPDX-License-Identifier: Apache-2.0
/* Traps, descriptor tables and ring 3 in 64-bit mode. */
#include "x64.h"

struct gate {
    u16 lo, sel;
    u8 ist, attr;
    u16 mid;
    u32 hi, reserved;
};

struct desc_ptr {
    u16 limit;
    u64 base;
} __attribute__((packed));

extern char trap_entries[], user_return[], _user[], _user_end[];

struct cpu cpus[MAX_CPUS];
u8 user_stack[MAX_CPUS][USER_STACK_SIZE] USER_DATA ALIGNED(4096);
static struct gate idt[256] ALIGNED(4096);
static trap_hook *hooks[256];

void cpu_start(u32 index);
void trap_dispatch(struct regs *r);
void pages_reset(void);
void smp_idle(struct cpu *c);

struct cpu *cpu_self(void)
{
    u16 tr;
    __asm__ volatile("str %0" : "=r"(tr));
    return &cpus[(tr - SEL_TSS) / 16 % MAX_CPUS];
}

struct jmp *trap_arm(struct trap *t)
{
    struct cpu *c = cpu_self();
    t->vector = V_NONE;
    t->error = t->cr2 = 0;
    c->catching = t;
    return &c->jmp;
}

void trap_disarm(void)
{
    cpu_self()->catching = NULL;
}

void trap_set_hook(unsigned vector, trap_hook *hook)
{
    hooks[vector] = hook;
}

/* Makes *r return 1 from the trap_save that filled *j. */
static void go_back(struct regs *r, const struct jmp *j)
{
    r->rbx = j->rbx;
    r->rbp = j->rbp;
    r->r12 = j->r12;
    r->r13 = j->r13;
    r->r14 = j->r14;
    r->r15 = j->r15;
    r->rsp = j->rsp;
    r->rip = j->rip;
    r->rflags = j->rflags;
    r->cs = SEL_CODE64;
    r->ss = SEL_DATA;
    r->rax = 1;
}

static struct jmp runner_jmp; /* where CPU 0 goes when a test comes to grief */

void trap_dispatch(struct regs *r)
{
    u64 cr2 = READ_CR(2);
    struct cpu *c = cpu_self();
    unsigned v = r->vector & 0xff;

    if (hooks[v] && hooks[v](r))
        return;
    if (c->catching) {
        struct trap *t = c->catching;
        t->vector = v;
        t->error = r->error;
        t->cr2 = cr2;
        t->dr6 = READ_DR(6);
        t->regs = *r;
        c->catching = NULL;
        go_back(r, &c->jmp);
        return;
    }
    test_error("unexpected vector %u error %llx at %llx:%llx cr2 %llx rsp %llx cpu %u", v,
               (unsigned long long)r->error, (unsigned long long)r->cs, (unsigned long long)r->rip,
               (unsigned long long)cr2, (unsigned long long)r->rsp, c->index);
    if (c->index == 0) {
        go_back(r, &runner_jmp);
        return;
    }
    for (;;)
        __asm__ volatile("cli; hlt");
}

uptr trap_entry(unsigned vector)
{
    return (uptr)trap_entries + 16 * vector;
}

void idt_set(unsigned vector, uptr entry, unsigned sel, unsigned ist, unsigned dpl, unsigned type)
{
    struct gate *g = &idt[vector];
    g->lo = (u16)entry;
    g->mid = (u16)(entry >> 16);
    g->hi = (u32)((u64)entry >> 32);
    g->sel = (u16)sel;
    g->ist = (u8)ist;
    g->attr = (u8)(0x80 | dpl << 5 | type);
    g->reserved = 0;
}

void idt_limit(u16 limit)
{
    struct desc_ptr p = {limit, (uptr)idt};
    __asm__ volatile("lidt %0" ::"m"(p));
}

void idt_reset(void)
{
    for (unsigned v = 0; v < 256; v++)
        idt_set(v, trap_entry(v), SEL_CODE64, v == V_DF ? 1 : v == V_NMI ? 2 : 0, 0, 14);
    idt_set(V_BP, trap_entry(V_BP), SEL_CODE64, 0, 3, 14);
    idt_set(V_OF, trap_entry(V_OF), SEL_CODE64, 0, 3, 14);
    idt_set(USER_EXIT_VECTOR, trap_entry(USER_EXIT_VECTOR), SEL_CODE64, 0, 3, 14);
    idt_limit(sizeof(idt) - 1);
}

void gdt_set(unsigned sel, u32 base, u32 limit, u8 access, u8 flags)
{
    gdt[sel / 8] = (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
                   (u64)(limit >> 16 & 15) << 48 | (u64)(flags & 15) << 52 |
                   (u64)(base >> 24) << 56;
}

static void cpu_tables(struct cpu *c)
{
    unsigned sel = SEL_TSS + 16 * c->index;

    memset(&c->tss, 0, 104);
    c->tss.rsp[0] = (uptr)c->trap_stack + sizeof(c->trap_stack);
    for (unsigned i = 0; i < 3; i++)
        c->tss.ist[1 + i] = (uptr)c->ist_stack[i] + sizeof(c->ist_stack[i]);
    c->tss.iomap = 104;
    memset(c->tss.bitmap, 0xff, sizeof(c->tss.bitmap));
    gdt_set(sel, (u32)(uptr)&c->tss, 103, 0x89, 0);
    gdt[sel / 8 + 1] = 0;
    __asm__ volatile("ltr %w0" ::"r"(sel));
    idt_limit(sizeof(idt) - 1);
}

void cpu_start(u32 index)
{
    struct cpu *c = &cpus[index];

    c->index = index;
    if (index == 0)
        idt_reset();
    cpu_tables(c);
    if (index == 0) {
        for (uptr p = (uptr)_user; p < (uptr)_user_end; p += 4096)
            *pte_at(p, 1) |= PTE_U;
        flush_tlb();
        guest_main();
    }
    smp_idle(c);
}

/* Everything a test may have bent goes back to how it was at the start. */
static void reset_machine(void)
{
    cli();
    for (unsigned v = 0; v < 256; v++)
        hooks[v] = NULL;
    WRITE_DR(7, 0x400);
    WRITE_DR(6, 0xffff0ff0);
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss" ::"r"(SEL_DATA));
    __asm__ volatile("mov %0, %%fs; mov %0, %%gs; lldt %w0" ::"r"(0));
    __asm__ volatile("pushq $2; popfq" ::: "cc");
    WRITE_CR(0, 0x80010033);
    boot_pml4[1] = 0;
    WRITE_CR(3, (uptr)boot_pml4);
    WRITE_CR(4, CR4_OSXMMEXCPT | CR4_OSFXSR | CR4_PAE);
    __asm__ volatile("fninit");
    wrmsr(MSR_EFER, EFER_LME | EFER_NXE | EFER_SCE);
    for (unsigned s = SEL_SPARE; s < SEL_TSS; s += 8)
        gdt[s / 8] = 0;
    trap_disarm();
    idt_reset();
    cpu_tables(cpu_self());
    pages_reset();
}

void arch_run_test(const struct test *t)
{
    reset_machine();
    if (trap_save(&runner_jmp) == 0)
        t->fn();
    reset_machine();
}

void run_until_trap(struct trap *t, const struct regs *r)
{
    TRY (t)
        regs_run(r);
}

void user_regs(struct regs *r, void *fn, u64 a, u64 b)
{
    u64 *sp = (u64 *)(user_stack[cpu_self()->index] + USER_STACK_SIZE - 64);

    memset(r, 0, sizeof(*r));
    *--sp = (uptr)user_return;
    r->rip = (uptr)fn;
    r->cs = SEL_UCODE64;
    r->ss = SEL_UDATA;
    r->rsp = (uptr)sp;
    r->rflags = 2;
    r->rdi = a;
    r->rsi = b;
}

void user_call(struct trap *t, void *fn, u64 a, u64 b)
{
    struct regs r;

    user_regs(&r, fn, a, b);
    run_until_trap(t, &r);
}
