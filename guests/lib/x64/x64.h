/* SPDX-License-Identifier: Apache-2.0 */
/* The 64-bit library: traps, descriptors, paging, ring 3, local APIC, other processors. */
#ifndef GUEST_X64_H
#define GUEST_X64_H

#include "guest.h"

#define MAX_CPUS 16
#define AP_STACK_SIZE 16384

/* Selectors of the boot GDT; SEL_SPARE to SEL_SPARE + 0xb8 are free for tests. */
#define SEL_CODE64 0x08
#define SEL_DATA 0x10
#define SEL_CODE32 0x18
#define SEL_UCODE32 0x23
#define SEL_UDATA 0x2b
#define SEL_UCODE64 0x33
#define SEL_SPARE 0x40
#define SEL_TSS 0x100

#define USER_EXIT_VECTOR 0x81 /* INT that ends a ring-3 function; its gate has DPL 3 */

/* Registers at a trap, in stack order. */
struct regs {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, error;
    u64 rip, cs, rflags, rsp, ss;
};

/* What a TRY caught; vector is V_NONE when the block ran to its end. */
struct trap {
    unsigned vector;
    u64 error, cr2, dr6;
    struct regs regs;
};

struct jmp {
    u64 rbx, rbp, r12, r13, r14, r15, rsp, rip, rflags;
};

struct tss64 {
    u32 reserved0;
    u64 rsp[3];
    u64 ist[8]; /* ist[1] to ist[7]; ist[0] is reserved */
    u64 reserved1;
    u16 reserved2, iomap;
    u8 bitmap[8193];
} __attribute__((packed));
_Static_assert(offsetof(struct tss64, iomap) == 0x66, "SDM 3A figure 8-11");

struct cpu {
    u32 index, apic_id;
    struct trap *catching;
    struct jmp jmp;
    struct tss64 tss ALIGNED(16);
    u8 trap_stack[8192] ALIGNED(16); /* RSP0 */
    u8 ist_stack[3][4096] ALIGNED(16);
    void (*volatile work)(void *);
    void *volatile arg;
    volatile u32 up;
};

extern struct cpu cpus[MAX_CPUS];
extern u64 gdt[64];
extern u64 boot_pml4[512];
extern volatile u32 cpu_tickets;

/* This CPU, found by its TSS selector: valid whatever GS holds. */
struct cpu *cpu_self(void);

/* --- traps --- */
int trap_save(struct jmp *j) __attribute__((returns_twice));
struct jmp *trap_arm(struct trap *t);
void trap_disarm(void);
/* Runs the block that follows; a trap inside it is recorded in *t and ends it. Do not break or
 * return from the block; variables changed in it must be volatile. */
#define TRY(t) for (int try_ = trap_save(trap_arm(t)); !try_; trap_disarm(), try_ = 1)

/* Loads all registers from *r and IRETs there; ends by the trap that follows, recorded in *t. */
void run_until_trap(struct trap *t, const struct regs *r);
void regs_run(const struct regs *r) __attribute__((noreturn));

/* A hook sees a trap first; true means handled, go on with *r. Hooks are per vector and last until
 * the test ends. */
typedef bool trap_hook(struct regs *r);
void trap_set_hook(unsigned vector, trap_hook *hook);
/* Sets an IDT gate. type: 14 interrupt gate, 15 trap gate. */
void idt_set(unsigned vector, uptr entry, unsigned sel, unsigned ist, unsigned dpl, unsigned type);
/* The library's own entry for a vector, and its usual gate. */
uptr trap_entry(unsigned vector);
void idt_reset(void);
/* Limits the IDT of this CPU (to cause #GP, #DF); idt_reset() restores it. */
void idt_limit(u16 limit);

/* Sets a spare GDT entry: access byte and the four flag bits (G D L AVL) as in the manual. */
void gdt_set(unsigned sel, u32 base, u32 limit, u8 access, u8 flags);

/* --- ring 3 --- */
#define USER_STACK_SIZE 8192
extern u8 user_stack[MAX_CPUS][USER_STACK_SIZE];
/* Calls a USER_TEXT function in ring 3; *t tells how it ended: USER_EXIT_VECTOR with RAX after a
 * plain return, else the exception. */
void user_call(struct trap *t, void *fn, u64 a, u64 b);
/* Registers for a 64-bit ring-3 start at fn with the user stack, interrupts off. */
void user_regs(struct regs *r, void *fn, u64 a, u64 b);

/* --- paging --- */
#define TEST_VA 0x8000000000ULL /* PML4 slot 1: empty when a test begins */
/* A zeroed page, free again when the test ends. */
void *page_alloc(void);
/* n contiguous pages at a multiple of align bytes. */
void *pages_alloc(unsigned n, u64 align);
/* The entry for va at a level (1 PTE, 2 PDE, 3 PDPTE, 4 PML4E) under CR3; makes missing tables
 * (P W U) and splits large pages on the way down. */
u64 *pte_at(u64 va, int level);
/* Maps one page of the level's size; flags are PTE bits without the address. */
void map_level(u64 va, u64 pa, u64 flags, int level);
void map(u64 va, u64 pa, u64 flags);
void unmap(u64 va);
void invlpg(u64 va);
static inline void flush_tlb(void)
{
    WRITE_CR(3, READ_CR(3));
}

/* --- local APIC --- */
#define APIC_ID 0x20
#define APIC_VERSION 0x30
#define APIC_TPR 0x80
#define APIC_PPR 0xa0
#define APIC_EOI 0xb0
#define APIC_LDR 0xd0
#define APIC_DFR 0xe0
#define APIC_SVR 0xf0
#define APIC_ISR 0x100
#define APIC_IRR 0x200
#define APIC_ESR 0x280
#define APIC_ICR 0x300
#define APIC_LVT_TIMER 0x320
#define APIC_LVT_LINT0 0x350
#define APIC_LVT_LINT1 0x360
#define APIC_TMICT 0x380
#define APIC_TMCCT 0x390
#define APIC_TDCR 0x3e0
/* Turns the local APIC on (spurious vector 0xff). */
void apic_enable(void);
/* Goes to x2APIC mode; false if the CPU has none. There is no way back but through disabling. */
bool apic_x2(void);
bool apic_is_x2(void);
u32 apic_read(u32 reg);
void apic_write(u32 reg, u32 v);
u32 apic_my_id(void);
/* Writes the ICR and waits for delivery. */
void apic_ipi(u32 dest, u32 low);
void apic_eoi(void);

/* --- time: only for patience, never a measure --- */
#define TSC_MS 3000000ULL /* about a millisecond on any CPU of today */
void delay(u64 tsc_ticks);
/* Waits until the expression holds; false after about `ms` milliseconds. */
#define WAIT_FOR(cond, ms)                                                                         \
    ({                                                                                             \
        u64 end_ = rdtsc() + (ms)*TSC_MS;                                                          \
        bool ok_;                                                                                  \
        while (!(ok_ = (cond)) && rdtsc() < end_)                                                  \
            pause();                                                                               \
        ok_;                                                                                       \
    })

/* --- other processors --- */
/* Starts all (once) and returns how many CPUs run, this one included. */
unsigned smp_start(void);
/* Has cpu run fn(arg); smp_wait waits for it (false: it did not come back). */
void smp_run(unsigned cpu, void (*fn)(void *), void *arg);
bool smp_wait(unsigned cpu);
/* fn(arg) on all CPUs at once, this one included. */
void smp_run_all(void (*fn)(void *), void *arg);

/* --- ACPI and PCI, as far as tests need --- */
/* The RSDP, or NULL. */
const u8 *acpi_rsdp(void);
/* The first table with this signature, or NULL. */
const u8 *acpi_find(const char *sig);
u32 pci_read(unsigned bus, unsigned dev, unsigned fn, unsigned reg);

#endif
