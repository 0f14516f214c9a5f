/* SPDX-License-Identifier: Apache-2.0 */
/* The 32-bit library: traps and descriptors in flat protected mode, and calls into real mode. */
#ifndef GUEST_X32_H
#define GUEST_X32_H

#include "guest.h"

#define SEL_CODE 0x08
#define SEL_DATA 0x10
#define SEL_CODE16 0x18
#define SEL_DATA16 0x20
#define SEL_UCODE 0x2b
#define SEL_UDATA 0x33
#define SEL_TSS 0x38
#define SEL_SPARE 0x40 /* to 0xf8: for tests */

#define USER_EXIT_VECTOR 0x81

/* Registers at a trap, in stack order. From outer rings the processor pushes esp and ss too, from
 * virtual-8086 mode also the four data segments. */
struct regs {
    u32 edi, esi, ebp, unused, ebx, edx, ecx, eax;
    u32 gs, fs, es, ds;
    u32 vector, error;
    u32 eip, cs, eflags;
    u32 esp, ss;
    u32 ves, vds, vfs, vgs;
};

struct trap {
    unsigned vector;
    u32 error, cr2, dr6;
    struct regs regs;
};

struct jmp {
    u32 ebx, esi, edi, ebp, esp, eip, eflags;
};

struct tss32 {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    u32 eax, ecx, edx, ebx, esp, ebp, esi, edi;
    u32 es, cs, ss, ds, fs, gs, ldt;
    u16 trap, iomap;
    u8 redirect[32]; /* VME's interrupt redirection map lies right below the I/O map */
    u8 bitmap[8193];
} __attribute__((packed));

extern u64 gdt[32];
extern struct tss32 tss;

int trap_save(struct jmp *j) __attribute__((returns_twice));
_Noreturn void trap_resume(struct jmp *j);
struct jmp *trap_arm(struct trap *t);
void trap_disarm(void);
/* Runs the block that follows; a trap inside it is recorded in *t and ends it. */
#define TRY(t) for (int try_ = trap_save(trap_arm(t)); !try_; trap_disarm(), try_ = 1)

/* Loads all registers from *r and IRETs (to ring 3 or virtual-8086 mode); *t: the trap that
 * follows. */
void run_until_trap(struct trap *t, const struct regs *r);
_Noreturn void regs_run(const struct regs *r);

typedef bool trap_hook(struct regs *r);
void trap_set_hook(unsigned vector, trap_hook *hook);
/* type: 14 interrupt gate, 15 trap gate, 5 task gate, 6 and 7 their 16-bit kin. */
void idt_set(unsigned vector, u32 entry, unsigned sel, unsigned dpl, unsigned type);
u32 trap_entry(unsigned vector);
void idt_reset(void);
void gdt_set(unsigned sel, u32 base, u32 limit, u8 access, u8 flags);

/* Registers for ring 3 at fn, with the user stack. */
void user_regs(struct regs *r, const void *fn);
extern u8 user_stack[8192];

/* Zeroed pages, free again when the test ends. */
void *pages_alloc(unsigned n, u32 align);

/* Runs a 16-bit function of the .real16 section in real mode; `fn` is linked below 64 KiB. */
void real_call(u32 ip);

static inline void invlpg(u32 va)
{
    __asm__ volatile("invlpg (%0)" ::"r"(va) : "memory");
}

#endif
