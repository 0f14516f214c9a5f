// SPDX-License-Identifier: Apache-2.0
/* Hardware task switching (SDM 3A chapter 7) and the legacy paging modes (4.3, 4.4). */
#include "x32.h"

static struct tss32 other ALIGNED(128);
static u8 other_stack[4096] ALIGNED(16);
#define SEL_OTHER SEL_SPARE

extern const char task_entry[];
static volatile u32 task_runs, task_arg, task_flags;
__asm__(".text\n"
        "task_entry:\n"
        "1:  incl task_runs\n"
        "    mov %eax, task_arg\n"
        "    pushfl\n"
        "    popl task_flags\n"
        "    iret\n" /* NT: back to the caller's task */
        "    jmp 1b\n");

static void setup(u32 entry)
{
    memset(&other, 0, offsetof(struct tss32, redirect));
    other.eip = entry;
    other.eflags = 2;
    other.esp = (u32)other_stack + sizeof(other_stack);
    other.cs = SEL_CODE;
    other.ss = other.ds = other.es = other.fs = other.gs = SEL_DATA;
    other.eax = 0x1234;
    other.iomap = 104;
    gdt_set(SEL_OTHER, (u32)&other, 103, 0x89, 0);
    task_runs = 0;
}

static unsigned type_of(unsigned sel)
{
    return (unsigned)(gdt[sel / 8] >> 40 & 0x1f);
}

TEST(task__call_and_iret)
{
    setup((u32)task_entry);
    for (u32 i = 1; i <= 20; i++) {
        u32 ebx = 0x600d0000 + i;
        __asm__ volatile("lcall %1, $0" : "+b"(ebx) : "i"(SEL_OTHER) : "memory", "cc");
        CHECK_EQ(task_runs, i);
        CHECK_EQ(ebx, 0x600d0000 + i); /* our registers came back from our TSS */
        CHECK(READ_CR(0) & CR0_TS);
        __asm__ volatile("clts");
        CHECK_EQ(type_of(SEL_OTHER), 0x09); /* free again */
        CHECK_EQ(type_of(SEL_TSS), 0x0b);   /* ours busy */
    }
    CHECK_EQ(task_arg, 0x1234);
    CHECK_EQ(task_flags & F_NT, F_NT);
    CHECK_EQ(other.link & 0xffff, SEL_TSS);
    CHECK_EQ(other.eax, 0x1234);
    CHECK(other.eip != (u32)task_entry); /* where its IRET left off */
}

extern const char jump_entry[];
__asm__(".text\n"
        "jump_entry:\n"
        "1:  incl task_runs\n"
        "    ljmp $0x38, $0\n"
        "    jmp 1b\n");

TEST(task__jump_there_and_back)
{
    setup((u32)jump_entry);
    for (u32 i = 1; i <= 20; i++) {
        __asm__ volatile("ljmp %0, $0" ::"i"(SEL_OTHER) : "memory", "cc");
        CHECK_EQ(task_runs, i);
        CHECK_EQ(type_of(SEL_OTHER), 0x09);
        CHECK_EQ(type_of(SEL_TSS), 0x0b);
    }
    CHECK_EQ(other.eflags & F_NT, 0);
    __asm__ volatile("clts");
}

TEST(task__through_a_task_gate)
{
    setup((u32)task_entry);
    idt_set(0x41, 0, SEL_OTHER, 0, 5);
    __asm__ volatile("int $0x41" ::: "memory");
    CHECK_EQ(task_runs, 1);
    __asm__ volatile("clts");
    /* and in the GDT */
    gdt[SEL_SPARE / 8 + 1] = (u64)SEL_OTHER << 16 | 0xe5ULL << 40;
    __asm__ volatile("lcall %0, $0" ::"i"(SEL_SPARE + 8) : "memory", "cc");
    CHECK_EQ(task_runs, 2);
    __asm__ volatile("clts");
}

extern const char gp_entry[];
static volatile u32 err_code;
__asm__(".text\n"
        "gp_entry:\n"
        "1:  incl task_runs\n"
        "    popl err_code\n"
        "    movl $gp_after, tss + 0x20\n" /* EIP in the faulting task: behind the fault */
        "    iret\n"
        "    jmp 1b\n");

TEST(task__fault_handler_gets_the_error_code)
{
    setup((u32)gp_entry);
    idt_set(V_GP, 0, SEL_OTHER, 0, 5);
    err_code = 0xffff;
    __asm__ volatile("mov $0x7f8, %%eax; mov %%eax, %%fs; gp_after: nop" ::: "eax", "memory", "cc");
    CHECK_EQ(task_runs, 1);
    CHECK_EQ(err_code, 0x7f8);
    __asm__ volatile("clts");
}

TEST(task__errors)
{
    struct trap t;

    setup((u32)task_entry);
    gdt_set(SEL_OTHER, (u32)&other, 0x66, 0x89, 0); /* limit below 67h */
    TRY (&t)
        __asm__ volatile("lcall %0, $0" ::"i"(SEL_OTHER) : "memory", "cc");
    CHECK_EQ(t.vector, V_TS);
    CHECK_EQ(t.error, SEL_OTHER);
    gdt_set(SEL_OTHER, (u32)&other, 103, 0x09, 0); /* not present */
    TRY (&t)
        __asm__ volatile("lcall %0, $0" ::"i"(SEL_OTHER) : "memory", "cc");
    CHECK_EQ(t.vector, V_NP);
    CHECK_EQ(t.error, SEL_OTHER);
    gdt_set(SEL_OTHER, (u32)&other, 103, 0x8b, 0); /* busy */
    TRY (&t)
        __asm__ volatile("lcall %0, $0" ::"i"(SEL_OTHER) : "memory", "cc");
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.error, SEL_OTHER);
}

TEST_QEMU_DEVIATES(task__debug_trap_on_switch, "knows no T bit in a TSS")
{
    struct trap t;

    setup((u32)task_entry);
    other.trap = 1;
    TRY (&t)
        __asm__ volatile("lcall %0, $0" ::"i"(SEL_OTHER) : "memory", "cc");
    CHECK_EQ(t.vector, V_DB);
    CHECK(t.dr6 & 0x8000); /* BT */
    CHECK_EQ(task_runs, 0);
    __asm__ volatile("clts");
}

/* --- paging without PAE --- */
static u32 *dir;

static void identity(bool pse)
{
    dir = pages_alloc(1, 4096);
    for (u32 i = 0; i < 1024; i++) {
        if (pse) {
            dir[i] = i << 22 | 0x83;
        } else if (i < 16) { /* 64 MiB in 4 KiB pages */
            u32 *pt = pages_alloc(1, 4096);
            for (u32 k = 0; k < 1024; k++)
                pt[k] = i << 22 | k << 12 | 3;
            dir[i] = (u32)pt | 3;
        }
    }
}

static void pg_on(u32 cr3, u32 cr4)
{
    WRITE_CR(4, READ_CR(4) | cr4);
    WRITE_CR(3, cr3);
    WRITE_CR(0, READ_CR(0) | CR0_PG | CR0_WP);
    __asm__ volatile("jmp 1f; 1:");
}

TEST(paging32__four_kib_pages)
{
    struct trap t;
    u32 *pt, *frame;

    identity(false);
    pt = pages_alloc(1, 4096);
    frame = pages_alloc(1, 4096);
    dir[512] = (u32)pt | 7;
    pt[5] = (u32)frame | 3;
    pg_on((u32)dir, 0);
    *(volatile u32 *)0x80005010 = 0xabcd;
    CHECK_EQ(frame[4], 0xabcd);
    CHECK_EQ(pt[5] & 0x60, 0x60);
    CHECK_EQ(dir[512] & 0x20, 0x20);
    TRY (&t)
        (void)*(volatile u32 *)0x80006000;
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.cr2, 0x80006000);
    pt[5] = (u32)frame | 1;
    invlpg(0x80005000);
    TRY (&t)
        *(volatile u32 *)0x80005000 = 1;
    CHECK_EQ(t.error, PF_P | PF_W);
    /* PS in a directory entry means nothing without CR4.PSE */
    dir[513] = (u32)pt | 0x87;
    pt[5] = (u32)frame | 3;
    invlpg(0x80405000);
    CHECK_EQ(*(volatile u32 *)0x80405010, 0xabcd);
}

TEST(paging32__four_mib_pages)
{
    u8 *big;
    struct trap t;

    if (!cpu_has(1, 0, 3, 3))
        SKIP("no PSE");
    identity(true);
    big = pages_alloc(1024, 0x400000);
    big[0x123456] = 0x5a;
    dir[512] = (u32)big | 0x83;
    pg_on((u32)dir, CR4_PSE);
    CHECK_EQ(*(volatile u8 *)0x80123456, 0x5a);
    CHECK_EQ(dir[512] & 0x60, 0x20);
    *(volatile u8 *)0x80000000 = 1;
    CHECK_EQ(dir[512] & 0x60, 0x60);
    dir[512] |= 1U << 21; /* reserved */
    invlpg(0x80000000);
    TRY (&t)
        (void)*(volatile u8 *)0x80000000;
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error & ~PF_P, PF_RSVD); /* QEMU leaves P clear */
}

TEST(paging32__wraps_at_4_gib)
{
    struct trap t;
    volatile u32 got = 0;
    u32 *pt, *hi, *lo;

    identity(false);
    pt = pages_alloc(1, 4096);
    hi = pages_alloc(1, 4096);
    dir[1023] = (u32)pt | 3;
    pt[1023] = (u32)hi | 3;
    pg_on((u32)dir, 0);
    lo = (u32 *)0; /* linear 0 is identity mapped low memory */
    {
        u32 keep = *(volatile u32 *)lo;
        *(volatile u32 *)lo = 0x44332211;
        ((volatile u8 *)hi)[4095] = 0xee;
        /* an access over the top wraps or faults, as the processor likes (SDM 3A 5.3) */
        TRY (&t)
            got = *(volatile u32 *)0xffffffff;
        CHECK(t.vector == V_GP || (t.vector == V_NONE && (got == 0x332211ee || on_qemu_tcg())));
        *(volatile u32 *)lo = keep;
    }
}

static u64 *pdpt;
static void pae_identity(void)
{
    pdpt = pages_alloc(1, 4096);
    for (u32 i = 0; i < 4; i++) {
        u64 *pd = pages_alloc(1, 4096);
        for (u32 k = 0; k < 512; k++)
            pd[k] = (u64)(i << 30 | k << 21) | 0x83;
        pdpt[i] = (u32)pd | 1;
    }
}

TEST(pae__translations_and_nx)
{
    struct trap t;
    u64 *pd, *pt;
    u8 *frame;

    if (!cpu_has(1, 0, 3, 6))
        SKIP("no PAE");
    pae_identity();
    pd = (u64 *)(u32)(pdpt[2] & ~0xfffULL);
    pt = pages_alloc(1, 4096);
    frame = pages_alloc(1, 4096);
    frame[0] = 0xc3;
    pd[0] = (u32)pt | 3;
    pt[7] = (u32)frame | 3;
    pg_on((u32)pdpt, CR4_PAE);
    CHECK_EQ(*(volatile u8 *)0x80007000, 0xc3);
    *(volatile u8 *)0x80007001 = 1;
    CHECK_EQ(pt[7] & 0x60, 0x60);
    ((void (*)(void))0x80007000)();
    if (cpu_has(0x80000001, 0, 3, 20)) {
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
        pt[7] |= PTE_NX;
        invlpg(0x80007000);
        TRY (&t)
            ((void (*)(void))0x80007000)();
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.error, PF_P | PF_I);
        pt[7] &= ~PTE_NX;
        invlpg(0x80007000);
    }
    TRY (&t)
        (void)*(volatile u8 *)0x80008000;
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2, 0x80008000);
}

TEST_QEMU_DEVIATES(pae__pdptes_are_loaded_with_cr3, "reads them anew on each walk, and checks none")
{
    struct trap t;

    if (!cpu_has(1, 0, 3, 6))
        SKIP("no PAE");
    pae_identity();
    pg_on((u32)pdpt, CR4_PAE);
    CHECK_EQ(pdpt[2] & 0x20, 0); /* no accessed bit here */
    pdpt[2] = 0;
    invlpg(0x80000000);
    TRY (&t)
        (void)*(volatile u8 *)0x80000000; /* still the registers' (SDM 3A 4.4.1) */
    CHECK_EQ(t.vector, V_NONE);
    WRITE_CR(3, (u32)pdpt);
    TRY (&t)
        (void)*(volatile u8 *)0x80000000;
    CHECK_EQ(t.vector, V_PF);
    pdpt[2] = 1 | 2; /* bit 1 is reserved: MOV to CR3 refuses it */
    TRY (&t)
        WRITE_CR(3, (u32)pdpt);
    CHECK_EQ(t.vector, V_GP);
    pdpt[2] = 0;
    WRITE_CR(3, (u32)pdpt);
}

TEST(paging__on_and_off_again)
{
    identity(false);
    for (unsigned i = 0; i < 50; i++) {
        pg_on((u32)dir, 0);
        CHECK(READ_CR(0) & CR0_PG);
        WRITE_CR(0, READ_CR(0) & ~(uptr)CR0_PG);
    }
}

/* CR3 changes with the task when paging is on. */
TEST(task__switches_cr3)
{
    u32 *dir2;

    identity(false);
    dir2 = pages_alloc(1, 4096);
    memcpy(dir2, dir, 4096);
    setup((u32)task_entry);
    other.cr3 = (u32)dir2;
    tss.cr3 = (u32)dir;
    pg_on((u32)dir, 0);
    __asm__ volatile("lcall %0, $0" ::"i"(SEL_OTHER) : "memory", "cc");
    CHECK_EQ(task_runs, 1);
    CHECK_EQ(READ_CR(3), (u32)dir);
    __asm__ volatile("clts");
}
