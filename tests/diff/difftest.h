/* SPDX-License-Identifier: Apache-2.0 */
/*
 * difftest: random instructions run natively on the host CPU (the oracle) and by an engine (a
 * subject) from the same state; the outcomes must be equal bit by bit. This header is the one
 * vocabulary of the program's files.
 */
#ifndef TRIVISOR_DIFFTEST_H
#define TRIVISOR_DIFFTEST_H

#include "x86/insn.h"
#include "x86/state.h"

/* --- the world a case runs in: user pages at fixed addresses, the same for oracle and subjects ---
 */

#define CODE_VA 0x10000000u /* two executable and writable pages, then nothing */
#define CODE_SIZE 0x2000u
#define DATA_VA 0x20000000u /* two writable pages, one read-only page, then nothing */
#define DATA_RO_VA (DATA_VA + 0x2000u)
#define DATA_END (DATA_VA + 0x3000u)
#define DATA2_VA 0x20008000u /* one writable page, nothing around it */
#define STACK_VA 0x30000000u /* one writable page, nothing around it */
#define STACK_SIZE 0x1000u
#define STACK_TOP (STACK_VA + 0xc00u)

/* Data, second data and stack pages, in this order, are one array for set-up and comparison. */
#define MEM_DATA 0x0u
#define MEM_DATA2 0x3000u
#define MEM_STACK 0x4000u
#define MEM_SIZE 0x5000u
#define MEM_IMAGES 16

extern u8 mem_image[MEM_IMAGES][MEM_SIZE]; /* what cases start from; filled once, never changed */
void mem_images_init(void);
/* Guest-virtual address of mem[off], and the other way round (-1: not in the array). */
u32 mem_va(unsigned off);
int mem_off(u64 va);

/* Byte that fills the code pages around a case: INT3 ends every case. */
#define CODE_FILL 0xccu
#define CODE_MAX 512u

#define USER_CS64 0x33
#define USER_CS32 0x23
#define USER_DS 0x2b

struct diff_regs {
    u64 gpr[16];
    u64 rip, rflags, fs_base, gs_base;
    u16 sel[X86_NSEG];
    u8 xsave[X86_XSAVE_SIZE] __attribute__((aligned(64))); /* standard format */
};

#define POKES_MAX 6

/* One case, as oracle and subjects take it. */
struct diff_case {
    struct diff_regs init;
    u64 seed;
    u8 code[CODE_MAX];
    u32 code_off, code_len; /* place in the code pages */
    u8 image;               /* mem_image */
    u8 mode;                /* 64 or 32 */
    u8 npokes;
    u8 stream; /* 1: a stream, 0: one form */
    struct {
        u32 off; /* into the memory array */
        u64 val;
    } poke[POKES_MAX];
};

enum outcome {
    OUT_FAULT,   /* an exception ended it: vector, error, cr2 */
    OUT_SYSCALL, /* native: a system call was tried; not comparable */
    OUT_TIMEOUT,
    OUT_DIED, /* the oracle's process died of it */
    OUT_FAIL, /* subject: text tells */
};

struct diff_result {
    u32 outcome; /* enum outcome */
    u32 vector, error;
    u64 cr2;
    struct diff_regs regs;
    char text[200];
    u8 mem[MEM_SIZE];
};

/* --- random numbers (rng.c) ----------------------------------------------------------------------
 */
struct rng {
    u64 s;
};
u64 rnd(struct rng *r);
unsigned rnd_below(struct rng *r, unsigned n); /* 0..n-1 */
bool rnd_percent(struct rng *r, unsigned pct);
u64 rnd_value(struct rng *r); /* interesting 64-bit values: limits, small, pointers, noise */
u64 rnd_mix(u64 a, u64 b);

/* --- the host's XSAVE layout (xstate.c)
 * ----------------------------------------------------------- */
struct xstate_layout {
    u64 xcr0;
    u32 size;
    u32 ymm, opmask, zmm_hi, zmm_16; /* offsets in the standard format, 0: not there */
};
extern struct xstate_layout xl;
void xstate_init(void);
void xstate_random(struct rng *r, u8 *image);
/* Vector register n (0..31) of an image as 64 bytes; components in their initial state read as 0.
 */
void xstate_get_vec(const u8 *image, unsigned n, u8 out[64]);
void xstate_set_vec(u8 *image, unsigned n, const u8 in[64]);
u64 xstate_get_k(const u8 *image, unsigned n);
/* x87 control, status, abridged tag word and MXCSR. */
struct x87_env {
    u16 fcw, fsw;
    u8 ftw;
    u32 mxcsr;
};
struct x87_env xstate_env(const u8 *image);
void xstate_get_st(const u8 *image, unsigned n, u8 out[10]);
unsigned xstate_nvec(void); /* 16 or 32 */

/* --- oracle (oracle.c)
 * ---------------------------------------------------------------------------- */
#define BATCH_MAX 128
/* Starts the native process; false with a message when this host cannot run it. */
bool oracle_start(void);
void oracle_stop(void);
/* Runs n cases (n <= BATCH_MAX). The arrays are shared with the oracle: fill oracle_cases() first.
 */
struct diff_case *oracle_cases(void);
struct diff_result *oracle_results(void);
void oracle_run(unsigned n);

/* --- forms (forms.c, exclude.c)
 * ------------------------------------------------------------------- */
struct form {
    u16 mnemonic;
    u8 mode; /* 64 or 32 */
    u8 enc;  /* enum x86_encoding */
    u8 map, pp, opcode, w, l, evex_b;
    u8 has_modrm, modreg;
    u8 reg_mask, rm_mask; /* values of modrm.reg and modrm.rm that give this form */
    u8 need_mask;         /* EVEX.aaa must not be 0 */
    u8 category, isa_ext;
    u32 sig;
};
extern struct form *forms;
extern unsigned nforms;
/* Makes forms[] those of a code size (64 or 32), finding them at the first call. */
void forms_select(unsigned mode);
/* Why an instruction is not generated at all, or NULL. */
const char *exclude_reason(const struct x86_insn *insn);
/* The same for 15 bytes the decoder refuses. */
const char *exclude_bytes(const u8 *bytes, unsigned mode);

/* --- encoding (encode.c)
 * -------------------------------------------------------------------------- */
struct enc_fields {
    u8 reg, vvvv;          /* 0..31 */
    u8 rm;                 /* register operand, 0..31, when form.modreg */
    u8 mod;                /* 0..2 for memory */
    u8 base, index, scale; /* 4-bit numbers; index 4: none; scale 0..3 */
    u8 use_sib, rip;       /* rip: RIP-relative (mod 0, rm 5) */
    u8 aaa, z, rex_force;
    u8 pfx_seg, pfx_67, pfx_lock, pfx_rep, pfx_66; /* raw prefix bytes or 0 */
    u8 v5;                                         /* EVEX: VSIB index bit 4 */
    u8 vex2;     /* use the two-byte VEX form when it can express the fields */
    u8 tail[15]; /* bytes after modrm/sib: displacement and immediates */
};
/* Bytes of a form with these fields, always 15 + some: the decoder tells how many count. */
unsigned encode(const struct form *f, const struct enc_fields *e, u8 out[32]);

/* --- generator (gen_form.c, gen_stream.c)
 * ---------------------------------------------------------- */
void gen_state(struct rng *r, struct diff_case *c); /* random registers, flags, vector state */
/* One random instance of a form; false when none was found (form excluded at every try). */
bool gen_form_case(u64 seed, const struct form *f, struct diff_case *c);

struct item { /* an instruction of a stream */
    u8 bytes[15];
    u8 len;
    s8 rel_off; /* offset of a relative displacement to fix up, or -1 */
    u8 rel_size;
    u8 dropped;
    u8 victim;     /* its bytes 2 to 5 may be overwritten */
    u8 target_off; /* added to the target's address: a store into its immediate */
    u16 target;    /* item number the displacement leads to (nitems: the end) */
};
#define ITEMS_MAX 48
struct insn_stream {
    unsigned n;
    u32 code_off;
    struct item item[ITEMS_MAX];
};
void gen_stream_case(u64 seed, unsigned mode, struct diff_case *c, struct insn_stream *s);
/* Lays the items out as the case's code; false when it does not fit. */
bool stream_assemble(const struct insn_stream *s, struct diff_case *c);

/* --- subjects
 * ------------------------------------------------------------------------------------- */
struct subject {
    const char *name;
    bool (*start)(const char *mode); /* false: message printed */
    void (*run)(const struct diff_case *c, struct diff_result *r);
    void (*stop)(void);
};
extern const struct subject subject_interp, subject_bt;

/* The guest machine the subjects share (guest.c): page tables, descriptor tables, handlers. */
#define GUEST_RAM 0x200000u
#define GUEST_CODE_GPA 0x20000u
#define GUEST_MEM_GPA 0x22000u
#define GUEST_KERNEL_VA 0xffffffff80000000u
#define GUEST_HANDLER 0x13000u
void guest_build(u8 *ram);
/* Architectural state at the start of a case; s keeps nothing of before. */
void guest_state(struct x86_vcpu_state *s, const struct diff_case *c);
void guest_load(u8 *ram, const struct diff_case *c); /* code and memory of the case */
/* Reads the outcome after the handler's HLT; false (text filled) when the vCPU is not there. */
bool guest_result(const u8 *ram, const struct x86_vcpu_state *s, struct diff_result *r);

/* --- comparison and report (compare.c, report.c)
 * ---------------------------------------------------- */
/* host_facts.c */
bool host_is_faithful(void);

struct compare_policy {
    bool paravirtual; /* the host's kernel stands in for the CPU: what it changes is not compared */
    bool fault_flags; /* compare arithmetic flags at faults */
    bool rf;          /* compare RF */
};
extern struct compare_policy policy;
/* True when equal. out (may be NULL): the differing fields as text, several lines. */
extern const char *const gpr_name[16];
bool compare(const struct diff_case *c, const struct diff_result *native,
             const struct diff_result *subj, char *out, size_t size);
/* The recipe of the case the subject is at (main.c). */
void print_current(void);
void report_case(const struct diff_case *c); /* disassembly and initial state */

#endif
