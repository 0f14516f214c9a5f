/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter: executes one instruction at a time on a struct x86_vcpu_state, in every mode an
 * x86 PC has. It is the reference the translator is tested against, and finishes what the
 * translator hands back. It knows nothing of TLBs, devices or threads: the engine supplies those
 * through struct interp_ops.
 *
 * Every exception is precise: an instruction that faults has changed nothing but what the SDM says
 * it may (string instructions: completed iterations), and the fault is delivered through the
 * guest's IDT at once.
 */
#ifndef TRIVISOR_ENGINE_INTERP_H
#define TRIVISOR_ENGINE_INTERP_H

#include "x86/cpuid.h"
#include "x86/insn.h"
#include "x86/paging.h"
#include "x86/state.h"

enum interp_result {
    INTERP_OK,  /* one instruction retired, or an event was delivered; state is at a boundary */
    INTERP_HLT, /* HLT retired; state.activity is X86_HALTED */
    INTERP_SHUTDOWN,    /* triple fault; state.activity is X86_SHUTDOWN */
    INTERP_UNSUPPORTED, /* not implemented: interp.why names it; state is unchanged, at the
                           instruction */
};

struct interp_fault {
    u8 vector;
    bool has_error;
    u32 error;
    u64 cr2; /* for X86_PF */
};

/* Where one piece of an access (never crossing a page) goes. */
struct interp_ref {
    void *host; /* RAM: host address; NULL: MMIO (or nothing) at gpa */
    u64 gpa;
};

enum interp_flush {
    INTERP_FLUSH_ALL,       /* every translation, global ones too */
    INTERP_FLUSH_NONGLOBAL, /* non-global translations of every PCID */
    INTERP_FLUSH_PCID,      /* non-global translations of one PCID */
};

struct interp_ops {
    /*
     * Translate [gva, gva + len), which lies within one page, for `access` (enum x86_access |
     * X86_ACC_*), with A/D bits set as the access requires. A write access to a page that holds
     * translated code must have dropped that code on return. Returns 0 with *ref filled, or -1 with
     * *fault (a #PF) filled.
     */
    int (*translate)(void *opaque, u64 gva, unsigned len, unsigned access, struct interp_ref *ref,
                     struct interp_fault *fault);
    /* MMIO: len is 1, 2, 4 or 8. */
    u64 (*mmio_read)(void *opaque, u64 gpa, unsigned len);
    void (*mmio_write)(void *opaque, u64 gpa, unsigned len, u64 val);
    /* Port I/O: len is 1, 2 or 4. */
    u32 (*pio_read)(void *opaque, u16 port, unsigned len);
    void (*pio_write)(void *opaque, u16 port, unsigned len, u32 val);
    /* MSRs that are not in struct x86_vcpu_state. 0, or -1: #GP(0). */
    int (*rdmsr)(void *opaque, u32 msr, u64 *val);
    int (*wrmsr)(void *opaque, u32 msr, u64 val);
    void (*cpuid)(void *opaque, u32 leaf, u32 subleaf, u32 out[4]);
    u64 (*get_cr8)(void *opaque);
    void (*set_cr8)(void *opaque, u64 val);
    /* Translations to forget. pcid is used by INTERP_FLUSH_PCID only. */
    void (*flush)(void *opaque, enum interp_flush what, u16 pcid);
    /* One page: gva's translation in `pcid`, and any global one. */
    void (*invlpg)(void *opaque, u64 gva, u16 pcid);
    /*
     * state.cr3 has been written by MOV CR3 or a task switch (old value given). noflush: bit 63 was
     * set with CR4.PCIDE. The engine switches address space and, unless noflush, forgets the new
     * PCID's non-global translations.
     */
    void (*cr3_written)(void *opaque, u64 old, bool noflush);
    /* VMCALL/VMMCALL: true when handled (registers updated); false: #UD. */
    bool (*hypercall)(void *opaque);
    /* Brings vector and x87 state into state.xsave, which is then the only copy until the engine
     * takes it back on resuming translated code. Called before every use of state.xsave. */
    void (*fpu_sync)(void *opaque);
    /* Locked accesses that cannot be done with one host instruction (page- or MMIO-crossing): other
     * vCPUs are stopped between begin and end. */
    void (*exclusive_begin)(void *opaque);
    void (*exclusive_end)(void *opaque);
    /* A PAUSE or a spin hint was executed; may be NULL. */
    void (*pause)(void *opaque);
    /* Fills *m with how to reach guest-physical memory: MOV CR and task switches load PDPTEs. */
    void (*walk_mem)(void *opaque, struct x86_walk_mem *m);
};

struct interp_cache; /* private: decoded instructions */

struct interp {
    struct x86_vcpu_state *s;
    const struct x86_cpu_model *model;
    const struct interp_ops *ops;
    void *opaque;
    struct interp_cache *cache; /* from interp_cache memory given at init */
    char why[160];              /* text for INTERP_UNSUPPORTED and INTERP_SHUTDOWN */
    u64 retired;                /* instructions retired, for statistics */
    /* Private scratch of the interpreter. */
    u64 next_rip;     /* where the instruction in progress continues */
    u8 new_shadow;    /* interrupt shadow the instruction in progress leaves behind */
    bool suppress_tf; /* no single-step trap after this instruction (MOV SS, event delivery) */
    u32 ext;          /* 1 while delivering an event: the EXT bit of error codes */
    struct interp_fault fault;
    void *fault_jmp[5];
    u8 bounce[4096] __attribute__((aligned(64)));
    void *native; /* RWX-free scratch code page pair, see interp_init */
    void *native_rx;
    bool watched;     /* the engine's: one iteration of a string instruction at a time */
    u64 features;     /* X86F_* of interp_priv.h: extensions shown to the guest */
    bool ferr_logged; /* said once that FERR# goes nowhere */
    u16 native_fault; /* 1 + host trap number of the native instruction, 0: none */
};

/* Bytes interp_init needs for the decode cache. */
size_t interp_cache_size(void);

/*
 * Prepares *in. cache: zeroed memory of interp_cache_size() bytes. native/native_rx: the writable
 * and the executable view of one 4 KiB page private to this vCPU, used to run vector and x87
 * instructions on the host. Everything stays owned by the caller.
 */
void interp_init(struct interp *in, struct x86_vcpu_state *s, const struct x86_cpu_model *model,
                 const struct interp_ops *ops, void *opaque, void *cache, void *native,
                 void *native_rx);

/*
 * One instruction at state.rip: pending #DB trap, instruction breakpoints, fetch, decode, execute,
 * single-step. Exceptions are delivered through the IDT (that counts as the step). Clears the
 * interrupt shadow unless the instruction sets it. Does not look at external interrupts.
 */
enum interp_result interp_step(struct interp *in);

/* As interp_step for an instruction at state.rip already fetched and decoded by the caller (no
 * fetch checks). */
enum interp_result interp_exec(struct interp *in, const struct x86_insn *insn);

/* Delivers a fault-class exception with state at the faulting instruction. */
enum interp_result interp_exception(struct interp *in, const struct interp_fault *fault);

/* Delivers an external interrupt or (vector X86_NMI, nmi set) an NMI. Wakes from HLT. */
enum interp_result interp_interrupt(struct interp *in, u8 vector, bool nmi);

/*
 * Delivers the event of s->ev_*, whose delivery another engine had begun. One of an instruction
 * (INT n, INT3, INTO: s->rip is at it) is raised again by the instruction.
 */
enum interp_result interp_event_again(struct interp *in);

/*
 * Host signal while running an instruction on the native page: true when *pc was there and has been
 * redirected so that the interpreter raises `vector` in the guest. Async-signal-safe.
 */
bool interp_native_signal(struct interp *in, u64 *pc, int host_trapno);

#endif
