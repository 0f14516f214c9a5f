/* SPDX-License-Identifier: Apache-2.0 */
/* The register table, the target description (GDB manual, appendix G), and registers that are plain
 * fields of the state. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "debug/gdb/regs.h"
#include "x86/paging.h"

/* --- the description ------------------------------------------------------------------------- */

static void xml(struct gdb_regs *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void xml(struct gdb_regs *r, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(r->xml + r->xml_len, sizeof(r->xml) - r->xml_len, fmt, ap);
    va_end(ap);
    /* The table is ours: the unit test sees that all of it fits. */
    if (n > 0 && (size_t)n < sizeof(r->xml) - r->xml_len)
        r->xml_len += (size_t)n;
}

static void add(struct gdb_regs *r, const char *name, enum gdb_reg_kind kind, unsigned index,
                unsigned size, const char *type, const char *group)
{
    struct gdb_reg *reg = &r->reg[r->n];
    unsigned bits = size * 8;

    if (r->n == GDB_REGS_MAX)
        return;
    snprintf(reg->name, sizeof(reg->name), "%s", name);
    reg->kind = (u8)kind;
    reg->index = (u8)index;
    reg->size = (u8)size;
    xml(r, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"", name, bits, type, r->n);
    if (group)
        xml(r, " group=\"%s\"", group);
    xml(r, "/>");
    r->n++;
}

static void add_many(struct gdb_regs *r, const char *fmt, enum gdb_reg_kind kind, unsigned first,
                     unsigned n, unsigned size, const char *type, const char *group)
    __attribute__((format(printf, 2, 0)));

static void add_many(struct gdb_regs *r, const char *fmt, enum gdb_reg_kind kind, unsigned first,
                     unsigned n, unsigned size, const char *type, const char *group)
{
    char name[12];

    for (unsigned i = first; i < first + n; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(name, sizeof(name), fmt, i);
#pragma GCC diagnostic pop
        add(r, name, kind, i, size, type, group);
    }
}

struct bit {
    const char *name;
    unsigned n;
};

static void add_flags(struct gdb_regs *r, const char *id, unsigned size, const struct bit *bit,
                      unsigned n)
{
    xml(r, "<flags id=\"%s\" size=\"%u\">", id, size);
    for (unsigned i = 0; i < n; i++)
        xml(r, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", bit[i].name, bit[i].n, bit[i].n);
    xml(r, "</flags>");
}

static void add_core(struct gdb_regs *r)
{
    static const struct bit flags[] = {{"", 1},     {"CF", 0},  {"PF", 2},  {"AF", 4},  {"ZF", 6},
                                       {"SF", 7},   {"TF", 8},  {"IF", 9},  {"DF", 10}, {"OF", 11},
                                       {"NT", 14},  {"RF", 16}, {"VM", 17}, {"AC", 18}, {"VIF", 19},
                                       {"VIP", 20}, {"ID", 21}};
    /* gdb's orders of general and of segment registers. */
    static const u8 order64[] = {X86_RAX, X86_RBX, X86_RCX, X86_RDX,
                                 X86_RSI, X86_RDI, X86_RBP, X86_RSP};
    static const char *const names64[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"};
    static const char *const names32[] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};
    static const u8 segs[] = {X86_CS, X86_SS, X86_DS, X86_ES, X86_FS, X86_GS};
    static const char *const seg_names[] = {"cs", "ss", "ds", "es", "fs", "gs"};
    static const char *const fpu[] = {"fctrl", "fstat", "ftag",  "fiseg",
                                      "fioff", "foseg", "fooff", "fop"};
    bool wide = r->arch == GDB_X86_64;

    xml(r, "<feature name=\"org.gnu.gdb.i386.core\">");
    add_flags(r, "i386_eflags", 4, flags, ARRAY_SIZE(flags));
    for (unsigned i = 0; i < 8; i++) {
        unsigned reg = wide ? order64[i] : i;
        const char *type = reg == X86_RSP || reg == X86_RBP ? "data_ptr" : wide ? "int64" : "int32";

        add(r, wide ? names64[i] : names32[i], GDB_REG_GPR, reg, wide ? 8 : 4, type, NULL);
    }
    if (wide)
        add_many(r, "r%u", GDB_REG_GPR, 8, 8, 8, "int64", NULL);
    add(r, wide ? "rip" : "eip", GDB_REG_RIP, 0, wide ? 8 : 4, "code_ptr", NULL);
    add(r, "eflags", GDB_REG_FLAGS, 0, 4, "i386_eflags", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(segs); i++)
        add(r, seg_names[i], GDB_REG_SEL, segs[i], 4, "int32", NULL);
    add_many(r, "st%u", GDB_REG_ST, 0, 8, 10, "i387_ext", NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(fpu); i++)
        add(r, fpu[i], GDB_REG_FPU, i, 4, "int", "float");
    xml(r, "</feature>");
}

static void add_vec128(struct gdb_regs *r)
{
    static const struct {
        const char *id, *type, *field;
        unsigned count;
    } v[] = {{"v4f", "ieee_single", "v4_float", 4}, {"v2d", "ieee_double", "v2_double", 2},
             {"v16i8", "int8", "v16_int8", 16},     {"v8i16", "int16", "v8_int16", 8},
             {"v4i32", "int32", "v4_int32", 4},     {"v2i64", "int64", "v2_int64", 2}};

    for (unsigned i = 0; i < ARRAY_SIZE(v); i++)
        xml(r, "<vector id=\"%s\" type=\"%s\" count=\"%u\"/>", v[i].id, v[i].type, v[i].count);
    xml(r, "<union id=\"vec128\">");
    for (unsigned i = 0; i < ARRAY_SIZE(v); i++)
        xml(r, "<field name=\"%s\" type=\"%s\"/>", v[i].field, v[i].id);
    xml(r, "<field name=\"uint128\" type=\"uint128\"/></union>");
}

static void add_vectors(struct gdb_regs *r)
{
    static const struct bit mxcsr[] = {{"IE", 0},  {"DE", 1},  {"ZE", 2},  {"OE", 3}, {"UE", 4},
                                       {"PE", 5},  {"DAZ", 6}, {"IM", 7},  {"DM", 8}, {"ZM", 9},
                                       {"OM", 10}, {"UM", 11}, {"PM", 12}, {"FZ", 15}};
    bool wide = r->arch == GDB_X86_64;
    unsigned n = wide ? 16 : 8;

    xml(r, "<feature name=\"org.gnu.gdb.i386.sse\">");
    add_vec128(r);
    add_flags(r, "i386_mxcsr", 4, mxcsr, ARRAY_SIZE(mxcsr));
    add_many(r, "xmm%u", GDB_REG_XMM, 0, n, 16, "vec128", NULL);
    add(r, "mxcsr", GDB_REG_MXCSR, 0, 4, "i386_mxcsr", "vector");
    xml(r, "</feature>");
    if (!r->xsave_off[2])
        return;
    xml(r, "<feature name=\"org.gnu.gdb.i386.avx\">");
    add_many(r, "ymm%uh", GDB_REG_YMMH, 0, n, 16, "uint128", NULL);
    xml(r, "</feature>");
    if (!r->xsave_off[5] || !r->xsave_off[6] || !r->xsave_off[7])
        return;
    xml(r, "<feature name=\"org.gnu.gdb.i386.avx512\">");
    add_vec128(r);
    xml(r, "<vector id=\"v2ui128\" type=\"uint128\" count=\"2\"/>");
    if (wide) {
        add_many(r, "xmm%u", GDB_REG_XMM, 16, 16, 16, "vec128", NULL);
        add_many(r, "ymm%uh", GDB_REG_YMMH, 16, 16, 16, "uint128", NULL);
    }
    add_many(r, "k%u", GDB_REG_MASK, 0, 8, 8, "uint64", NULL);
    add_many(r, "zmm%uh", GDB_REG_ZMMH, 0, wide ? 32 : 8, 32, "v2ui128", NULL);
    xml(r, "</feature>");
}

static void add_system(struct gdb_regs *r)
{
    static const struct {
        const char *name;
        u8 index;
    } regs[] = {{"k_gs_base", GDB_K_GS_BASE},
                {"cr0", GDB_CR0},
                {"cr2", GDB_CR2},
                {"cr3", GDB_CR3},
                {"cr4", GDB_CR4},
                {"cr8", GDB_CR8},
                {"efer", GDB_EFER},
                {"dr0", GDB_DR0},
                {"dr1", GDB_DR1},
                {"dr2", GDB_DR2},
                {"dr3", GDB_DR3},
                {"dr6", GDB_DR6},
                {"dr7", GDB_DR7},
                {"xcr0", GDB_XCR0},
                {"gdtr_base", GDB_GDTR_BASE},
                {"gdtr_limit", GDB_GDTR_LIMIT},
                {"idtr_base", GDB_IDTR_BASE},
                {"idtr_limit", GDB_IDTR_LIMIT},
                {"ldtr", GDB_LDTR},
                {"tr", GDB_TR},
                {"tr_base", GDB_TR_BASE}};

    if (r->arch == GDB_X86_64)
        xml(r, "<feature name=\"org.gnu.gdb.i386.segments\">");
    else
        xml(r, "<feature name=\"org.trivisor.segments\">");
    add(r, "fs_base", GDB_REG_SYSTEM, GDB_FS_BASE, 8, "int", NULL);
    add(r, "gs_base", GDB_REG_SYSTEM, GDB_GS_BASE, 8, "int", NULL);
    /* Not among gdb's own features: it shows what it does not know as it is. */
    xml(r, "</feature><feature name=\"org.trivisor.system\">");
    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++)
        add(r, regs[i].name, GDB_REG_SYSTEM, regs[i].index, 8, "uint64", "system");
    xml(r, "</feature>");
}

void gdb_regs_init(struct gdb_regs *r, enum gdb_arch arch, const struct x86_cpu_model *m)
{
    memset(r, 0, sizeof(*r));
    r->arch = arch;
    r->mxcsr_mask = m->mxcsr_mask ? m->mxcsr_mask : 0xffbf; /* SDM 1 11.6.6 */
    for (unsigned i = 2; i < ARRAY_SIZE(r->xsave_off); i++)
        for (unsigned k = 0; m->xcr0_valid & BIT64(i) && k < m->n; k++)
            if (m->entry[k].leaf == 0xd && m->entry[k].subleaf == i)
                r->xsave_off[i] = m->entry[k].ebx;
    xml(r,
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
        "<architecture>%s</architecture>",
        arch == GDB_X86_64 ? "i386:x86-64" : "i386");
    add_core(r);
    add_vectors(r);
    add_system(r);
    xml(r, "</target>");
}

/* --- values ---------------------------------------------------------------------------------- */

static u64 get_system(struct vcpu *v, const struct x86_vcpu_state *s, enum gdb_system_reg reg)
{
    switch (reg) {
    case GDB_FS_BASE:
        return s->seg[X86_FS].base;
    case GDB_GS_BASE:
        return s->seg[X86_GS].base;
    case GDB_K_GS_BASE:
        return s->kernel_gs_base;
    case GDB_CR0:
        return s->cr0;
    case GDB_CR2:
        return s->cr2;
    case GDB_CR3:
        return s->cr3;
    case GDB_CR4:
        return s->cr4;
    case GDB_CR8:
        return v->irq ? v->irq->get_tpr(v->irq_opaque) & 15 : 0;
    case GDB_EFER:
        return s->efer;
    case GDB_DR0:
    case GDB_DR1:
    case GDB_DR2:
    case GDB_DR3:
        return s->dr[reg - GDB_DR0];
    case GDB_DR6:
        return s->dr6;
    case GDB_DR7:
        return s->dr7;
    case GDB_XCR0:
        return s->xcr0;
    case GDB_GDTR_BASE:
        return s->gdtr.base;
    case GDB_GDTR_LIMIT:
        return s->gdtr.limit;
    case GDB_IDTR_BASE:
        return s->idtr.base;
    case GDB_IDTR_LIMIT:
        return s->idtr.limit;
    case GDB_LDTR:
        return s->ldtr.sel;
    case GDB_TR:
        return s->tr.sel;
    case GDB_TR_BASE:
        return s->tr.base;
    }
    return 0;
}

static u64 get_plain(struct vcpu *v, const struct x86_vcpu_state *s, const struct gdb_reg *reg)
{
    switch (reg->kind) {
    case GDB_REG_GPR:
        return s->gpr[reg->index];
    case GDB_REG_RIP:
        return s->rip;
    case GDB_REG_FLAGS:
        return s->rflags;
    case GDB_REG_SEL:
        return s->seg[reg->index].sel;
    default:
        return get_system(v, s, reg->index);
    }
}

static bool in_xsave(const struct gdb_reg *reg)
{
    return reg->kind >= GDB_REG_ST && reg->kind <= GDB_REG_MXCSR;
}

void gdb_reg_get(const struct gdb_regs *r, struct vcpu *v, const struct x86_vcpu_state *s,
                 unsigned n, u8 *buf)
{
    const struct gdb_reg *reg = &r->reg[n];
    u64 val;

    if (in_xsave(reg)) {
        gdb_xstate_get(r, s, reg, buf);
        return;
    }
    val = get_plain(v, s, reg);
    memcpy(buf, &val, reg->size);
}

/* Bits a debugger may change: those that do not decide how addresses are made or instructions are
 * decoded. */
#define CR0_CHANGEABLE (CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM)
#define CR4_CHANGEABLE                                                                             \
    (CR4_TSD | CR4_DE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP |     \
     CR4_FSGSBASE | CR4_SMEP | CR4_SMAP)
#define FLAGS_CHANGEABLE                                                                           \
    (RFLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_RF |      \
     RFLAGS_AC | RFLAGS_ID)

/* SDM 3B 17.2: bits that exist. */
#define DR6_CHANGEABLE 0xe00full
#define DR7_CHANGEABLE 0xffff23ffull

static int set_bits(u64 *field, u64 val, u64 changeable)
{
    if ((*field ^ val) & ~changeable)
        return -EINVAL;
    *field = val;
    return 0;
}

static int set_base(u64 *field, const struct x86_vcpu_state *s, u64 val)
{
    if (sign_extend(val, s->cr4 & CR4_LA57 ? 57 : 48) != val)
        return -EINVAL;
    *field = val;
    return 0;
}

static void *walk_ptr(void *opaque, u64 at)
{
    struct vm *vm = opaque;

    return guest_mem_ptr(&vm->mem, gpa(at), 8);
}

static int set_cr3(struct vcpu *v, struct x86_vcpu_state *s, u64 val)
{
    struct x86_walk_mem wm = {
        .ptr = walk_ptr, .opaque = v->vm, .phys_bits = v->vm->cpu_model.phys_bits};
    u64 pdpte[4];

    if (val & MASK64(63, wm.phys_bits ? wm.phys_bits : 52))
        return -EINVAL;
    if (x86_pae_paging(s->cr0, s->cr4, s->efer)) {
        if (!x86_load_pdptes(&wm, val, pdpte))
            return -EINVAL;
        memcpy(s->pdpte, pdpte, sizeof(pdpte));
    }
    s->cr3 = val;
    return 0;
}

static int set_system(struct vcpu *v, struct x86_vcpu_state *s, enum gdb_system_reg reg, u64 val)
{
    const struct x86_cpu_model *m = &v->vm->cpu_model;

    switch (reg) {
    case GDB_FS_BASE:
        return set_base(&s->seg[X86_FS].base, s, val);
    case GDB_GS_BASE:
        return set_base(&s->seg[X86_GS].base, s, val);
    case GDB_K_GS_BASE:
        return set_base(&s->kernel_gs_base, s, val);
    case GDB_CR0:
        return set_bits(&s->cr0, val, CR0_CHANGEABLE);
    case GDB_CR2:
        s->cr2 = val;
        return 0;
    case GDB_CR3:
        return set_cr3(v, s, val);
    case GDB_CR4:
        return set_bits(&s->cr4, val, CR4_CHANGEABLE & m->cr4_valid);
    case GDB_CR8:
        if (!v->irq || val > 15)
            return -EINVAL;
        v->irq->set_tpr(v->irq_opaque, val);
        return 0;
    case GDB_EFER:
        return set_bits(&s->efer, val, (EFER_SCE | EFER_NXE) & m->efer_valid);
    case GDB_DR0:
    case GDB_DR1:
    case GDB_DR2:
    case GDB_DR3:
        s->dr[reg - GDB_DR0] = val;
        return 0;
    case GDB_DR6:
        return set_bits(&s->dr6, val, DR6_CHANGEABLE);
    case GDB_DR7:
        return set_bits(&s->dr7, val, DR7_CHANGEABLE);
    default:
        return -EINVAL;
    }
}

/* Outside protected mode a selector is all there is to a segment. */
static int set_selector(struct x86_vcpu_state *s, unsigned seg, u64 val)
{
    if (x86_protected(s) || val > 0xffff)
        return -EINVAL;
    s->seg[seg].sel = (u16)val;
    s->seg[seg].base = val << 4;
    return 0;
}

int gdb_reg_set(const struct gdb_regs *r, struct vcpu *v, struct x86_vcpu_state *s, unsigned n,
                const u8 *buf)
{
    const struct gdb_reg *reg = &r->reg[n];
    u8 old[GDB_REG_SIZE_MAX];
    u64 val = 0;

    gdb_reg_get(r, v, s, n, old);
    if (!memcmp(old, buf, reg->size))
        return 0;
    if (in_xsave(reg)) {
        gdb_xstate_set(r, s, reg, buf);
        return 0;
    }
    memcpy(&val, buf, reg->size);
    switch (reg->kind) {
    case GDB_REG_GPR:
        s->gpr[reg->index] = val;
        return 0;
    case GDB_REG_RIP:
        s->rip = x86_64bit(s) ? val : (u32)val;
        s->int_shadow = 0;
        if (s->activity == X86_HALTED)
            s->activity = X86_RUNNING;
        return 0;
    case GDB_REG_FLAGS:
        return set_bits(&s->rflags, val, FLAGS_CHANGEABLE);
    case GDB_REG_SEL:
        return set_selector(s, reg->index, val);
    default:
        return set_system(v, s, reg->index, val);
    }
}
