/* SPDX-License-Identifier: Apache-2.0 */
/* The state of one block's translation, shared by translate.c and the gen_*.c files. */
#ifndef TRIVISOR_ENGINE_BT_GEN_H
#define TRIVISOR_ENGINE_BT_GEN_H

#include "engine/bt/bt_priv.h"
#include "engine/bt/emit.h"

/* Host registers, by number. */
enum {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R9,
    H_R10,
    H_R11,
    H_R12,
    H_R13,
    H_R14,
    H_R15
};

enum kind {
    KIND_GENERIC,
    KIND_SKIP,
    KIND_LEA,
    KIND_FLOW,
    KIND_SYS,
    KIND_BITS,
    KIND_SITE,
    KIND_STRING, /* repeated */
    KIND_STRING_ONCE
};

/* A guest instruction of the block to be. */
struct item {
    struct x86_insn insn;
    u64 va;
    u8 kind;         /* enum kind */
    bool last;       /* nothing after it belongs to this block */
    bool keep_flags; /* flags before it are needed by it or later */
    /* Stack groups (group.c). */
    bool in_group;            /* r8 holds the stack's addend: not to be used */
    bool grouped;             /* its stack access needs no check of its own */
    bool check;               /* the group's check comes before it */
    bool check_write;         /* some access of the group writes */
    s32 check_lo, check_size; /* range checked, from RSP there */
};

#define GEN_COLD_MAX (BT_BLOCK_INSNS * 2)

/* How an access's address is found, so that a miss can find it again. */
enum gen_access {
    EA_OPERAND /* insn->mem */,
    EA_PUSH,
    EA_POP,
    EA_FRAME /* [rbp] */,
    EA_BITS /* a word of insn->mem's bit string */,
    EA_RDI /* MOVS's destination */
};

/* A soft-TLB miss to be written out after the hot code. */
struct gen_cold {
    u8 *ja;   /* displacement of the jump here */
    s32 lo;   /* stack: start of the range, from RSP */
    u8 *back; /* where the hit path goes on */
    u32 arg;  /* for bt_help_access: size | write << 8 | index << 16 */
    const struct item *item;
    u8 ea;                       /* enum gen_access */
    bool stack;                  /* the check of a stack group */
    bool park_mem;               /* parked: rax is in env->park */
    bool shadow;                 /* of a stack check: in an interrupt shadow */
    struct bt_interp_site *site; /* not NULL: a call of the interpreter instead */
    bool parked;                 /* flags are in rax, rax in r8 */
};

struct gen {
    struct emit e;
    struct bt_vcpu *c;
    struct bt_vm *bt;
    struct bt_block *b;
    u8 *entry; /* writable view of b->entry */
    const struct x86_insn *insn;
    u64 va;                  /* of insn */
    u64 next;                /* of the instruction after */
    unsigned index;          /* of insn in the block */
    unsigned word;           /* bytes of a stack slot: 8, or 4 in flat 32-bit code */
    bool keep_flags;         /* the flags before insn are still needed */
    const struct item *item; /* insn's */
    bool ended;              /* insn has ended the block */
    bool shadow_next;        /* the next instruction is in an interrupt shadow */
    struct bt_map *map;      /* of insn */
    struct gen_cold cold[GEN_COLD_MAX];
    unsigned ncold;
    struct bt_reloc reloc[BT_RELOCS_MAX];
    unsigned nrelocs; /* more than there is room for: it cannot be cloned */
};

static inline u16 gen_off(const struct gen *g)
{
    return (u16)(g->e.p - g->entry);
}

/* Marks the next host instruction as the one that commits. */
static inline void gen_commit(struct gen *g)
{
    g->map->commit = gen_off(g);
}

/* Guest registers that live in memory. */
static inline bool gen_in_memory(unsigned reg)
{
    return reg >= X86_R8 && reg <= X86_R11;
}

/* The host register of a guest register that is not in memory. */
static inline unsigned gen_host(unsigned reg)
{
    return reg == X86_RSP ? H_R9 : reg;
}

/* A far CALL, JMP or RET: one that loads CS. */
static inline bool gen_is_far(const struct x86_insn *in)
{
    unsigned ext = (in->modrm >> 3) & 7;

    if (in->op[0].kind == X86_OP_PTR ||
        (in->opcode_map == 0 && (in->opcode == 0xca || in->opcode == 0xcb)))
        return true;
    return in->opcode_map == 0 && in->opcode == 0xff && in->has_modrm && (ext == 3 || ext == 5);
}

/* What depends on the block's address is written through these, which note it for clones (clone.c).
 */
void gen_reloc(struct gen *g, const u8 *at, enum bt_reloc_kind kind, unsigned link);
/* mov reg, guest address */
void gen_mov_va(struct gen *g, unsigned reg, u64 va);
/* mov reg, address of a link or an interpreter site */
void gen_mov_record(struct gen *g, unsigned reg, const void *record, enum bt_reloc_kind kind,
                    unsigned link);
void gen_jmp_stub(struct gen *g, const u8 *stub);
void gen_call_stub(struct gen *g, const u8 *stub);

/* --- gen_mem.c
 * ---------------------------------------------------------------------------------------------- */
/* Linear address of insn->mem into dst (r10 or another host register); uses r10, r11; flags
 * untouched. */
void gen_ea(struct gen *g, unsigned dst, bool with_segment);
/* r10 = host address of an access of g->insn; uses r11 and, with keep_flags outside groups, r8. */
void gen_probe(struct gen *g, enum gen_access ea, unsigned size, bool write);
/* The check of the stack group that begins at g->item; r8 = addend. */
void gen_stack_check(struct gen *g);
/* op reg, [r9 + r8 + disp] for a move of the stack's width with a one-byte opcode. */
void gen_stack_op(struct gen *g, unsigned opcode, unsigned reg, s32 disp);
void gen_cold_paths(struct gen *g);

/* --- group.c --- */
void gen_find_groups(struct item *items, unsigned n);

/* --- copy.c --- */
/* May it be copied into host code, its operands replaced? */
bool gen_may_copy(const struct x86_insn *in);

/* --- gen_op.c
 * -----------------------------------------------------------------------------------------------
 */
/* Can gen_generic do it? (In a stack group it can if group.c lets it in.) */
bool gen_generic_fits(const struct x86_insn *in);
/* An instruction copied with its operands replaced. false: cannot; nothing emitted. */
bool gen_generic(struct gen *g);
void gen_lea(struct gen *g);
/* mov dst(host 64-bit), guest reg, wherever that lives. */
void gen_get(struct gen *g, unsigned dst, unsigned reg);

/* --- gen_bits.c --- */
/* Is it a bit instruction on a string of bits in memory? */
bool gen_bits_fits(const struct x86_insn *in);
void gen_bits(struct gen *g);
/* r10 += offset of the word that holds the bit; uses r11. */
void gen_bits_offset(struct gen *g);

/* --- gen_flow.c
 * --------------------------------------------------------------------------------------------- */
/* Is it a stack operation or branch done here? */
bool gen_flow_handles(const struct x86_insn *in);
bool gen_flow(struct gen *g);
/* Ends the block with a jump to a guest address known now. */
void gen_goto(struct gen *g, u64 target);
/* Records the jump whose displacement is at rel32 as the block's next link. */
struct bt_link *gen_add_link(struct gen *g, u64 target, const u8 *rel32);
/* Pads so that the rel32 that follows n opcode bytes can be patched while other vCPUs run. */
void gen_align_rel32(struct gen *g, unsigned n);
/* A jump through the branch-target table. */
void gen_branch_far_page(struct gen *g, u64 target);

/* --- gen_string.c --- */
/* Is it a string instruction, not repeated, that is done in place? */
bool gen_string_fits(const struct x86_insn *in);
void gen_string(struct gen *g);

/* --- gen_sys.c --- */
/* Is it a system instruction done in place in this mode? */
bool gen_sys_inline(const struct x86_insn *in, u32 mode);
/* last: of its block. false: not possible here, nothing emitted. */
bool gen_sys(struct gen *g, bool last);

/* --- translate.c
 * -------------------------------------------------------------------------------------------- */
/* A call of the interpreter (or the string helper) for insn. false: out of memory. */
bool gen_site(struct gen *g, const u8 *stub);
/* The record of such a call; NULL: out of memory. */
struct bt_interp_site *gen_new_site(struct gen *g);

#endif
