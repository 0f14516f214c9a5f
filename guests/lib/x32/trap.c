// SPDX-License-Identifier: Apache-2.0
/* Traps and descriptors of a 32-bit guest. */
#include "x32.h"

#define POOL_START 0x800000U
#define POOL_END 0x2800000U

struct gate {
    u16 lo, sel;
    u8 zero, attr;
    u16 hi;
};

extern char trap_entries[], user_return[];

struct tss32 tss ALIGNED(128);
u8 user_stack[8192] ALIGNED(4096);
static u8 trap_stack[8192] ALIGNED(16);
static struct gate idt[256] ALIGNED(8);
static trap_hook *hooks[256];
static struct trap *catching;
static struct jmp catch_jmp, runner_jmp;
static u32 pool_next = POOL_START;

void start32(void);
void trap_dispatch(struct regs *r);

struct jmp *trap_arm(struct trap *t)
{
    t->vector = V_NONE;
    t->error = t->cr2 = 0;
    catching = t;
    return &catch_jmp;
}

void trap_disarm(void)
{
    catching = NULL;
}

void trap_set_hook(unsigned vector, trap_hook *hook)
{
    hooks[vector] = hook;
}

void trap_dispatch(struct regs *r)
{
    u32 cr2 = READ_CR(2);
    unsigned v = r->vector & 0xff;

    if (hooks[v] && hooks[v](r))
        return;
    if (catching) {
        struct trap *t = catching;
        t->vector = v;
        t->error = r->error;
        t->cr2 = cr2;
        t->dr6 = READ_DR(6);
        memset(&t->regs, 0, sizeof(t->regs));
        if (r->eflags & F_VM) {
            t->regs = *r;
        } else if (r->cs & 3) {
            memcpy(&t->regs, r, offsetof(struct regs, ves));
        } else {
            memcpy(&t->regs, r, offsetof(struct regs, esp));
            t->regs.esp = (u32)r + offsetof(struct regs, esp);
            t->regs.ss = SEL_DATA;
        }
        catching = NULL;
        trap_resume(&catch_jmp);
    }
    test_error("unexpected vector %u error %x at %x:%x cr2 %x flags %x", v, r->error, r->cs, r->eip,
               cr2, r->eflags);
    trap_resume(&runner_jmp);
}

u32 trap_entry(unsigned vector)
{
    return (u32)trap_entries + 16 * vector;
}

void idt_set(unsigned vector, u32 entry, unsigned sel, unsigned dpl, unsigned type)
{
    struct gate *g = &idt[vector];
    g->lo = (u16)entry;
    g->hi = (u16)(entry >> 16);
    g->sel = (u16)sel;
    g->zero = 0;
    g->attr = (u8)(0x80 | dpl << 5 | type);
}

void idt_reset(void)
{
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) p = {sizeof(idt) - 1, (u32)idt};

    for (unsigned v = 0; v < 256; v++)
        idt_set(v, trap_entry(v), SEL_CODE, v == V_BP || v == V_OF || v == USER_EXIT_VECTOR ? 3 : 0,
                14);
    __asm__ volatile("lidt %0" ::"m"(p));
}

void gdt_set(unsigned sel, u32 base, u32 limit, u8 access, u8 flags)
{
    gdt[sel / 8] = (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
                   (u64)(limit >> 16 & 15) << 48 | (u64)(flags & 15) << 52 |
                   (u64)(base >> 24) << 56;
}

void *pages_alloc(unsigned n, u32 align)
{
    u32 p = (pool_next + align - 1) & ~(align - 1);

    if (p + n * 4096 > POOL_END) {
        test_error("out of pages");
        guest_exit(1);
    }
    pool_next = p + n * 4096;
    memset((void *)p, 0, n * 4096);
    return (void *)p;
}

static void reset_machine(void)
{
    cli();
    __asm__ volatile("pushl $2; popfl" ::: "cc");
    WRITE_CR(0, 0x33);
    WRITE_CR(4, CR4_OSFXSR | CR4_OSXMMEXCPT);
    WRITE_CR(3, 0);
    for (unsigned v = 0; v < 256; v++)
        hooks[v] = NULL;
    WRITE_DR(7, 0x400);
    WRITE_DR(6, 0xffff0ff0);
    __asm__ volatile(
        "mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %0, %%fs; mov %0, %%gs" ::"r"(SEL_DATA));
    __asm__ volatile("lldt %w0" ::"r"(0));
    __asm__ volatile("fninit");
    for (unsigned s = SEL_SPARE; s < 0x100; s += 8)
        gdt[s / 8] = 0;
    trap_disarm();
    idt_reset();
    memset(&tss, 0, offsetof(struct tss32, redirect));
    memset(tss.redirect, 0xff, sizeof(tss.redirect) + sizeof(tss.bitmap));
    tss.esp0 = (u32)trap_stack + sizeof(trap_stack);
    tss.ss0 = SEL_DATA;
    tss.iomap = offsetof(struct tss32, bitmap);
    gdt_set(SEL_TSS, (u32)&tss, sizeof(tss) - 1, 0x89, 0);
    __asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
    pool_next = POOL_START;
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

void user_regs(struct regs *r, const void *fn)
{
    u32 *sp = (u32 *)(user_stack + sizeof(user_stack) - 64);

    memset(r, 0, sizeof(*r));
    *--sp = (u32)user_return;
    r->eip = (u32)fn;
    r->cs = SEL_UCODE;
    r->ss = r->ds = r->es = r->fs = r->gs = SEL_UDATA;
    r->esp = (u32)sp;
    r->eflags = 2;
}

void start32(void)
{
    guest_main();
}
