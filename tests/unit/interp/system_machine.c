/* SPDX-License-Identifier: Apache-2.0 */
#include "interp/system_machine.h"

#include <stdlib.h>

#include "x86/msr.h"

#define CODE32 0xc09b
#define DATA32 0xc093
#define CODE64 0xa09b
#define DPL3 0x60

static void *walk_ptr(void *opaque, u64 gpa)
{
    struct machine *m = opaque;
    return gpa + 8 <= RAM_SIZE ? m->ram + gpa : NULL;
}

static int translate(void *opaque, u64 gva, unsigned len, unsigned access, struct interp_ref *ref,
                     struct interp_fault *fault)
{
    struct machine *m = opaque;
    struct x86_walk w;
    (void)len;
    *fault = (struct interp_fault){.vector = X86_PF, .has_error = true, .cr2 = gva};
    if (m->bad_page && (gva & PAGE_MASK) == m->bad_page) {
        fault->error = access & X86_ACC_WRITE ? PFEC_W : 0;
        return -1;
    }
    if (!x86_walk(&m->s, &m->walk, gva, access, &w)) {
        fault->error = w.error;
        return -1;
    }
    ref->gpa = w.gpa;
    ref->host = w.gpa + 16 <= RAM_SIZE ? m->ram + w.gpa : NULL;
    return 0;
}

static u64 mmio_read(void *opaque, u64 gpa, unsigned len)
{
    (void)opaque, (void)gpa, (void)len;
    return ~(u64)0;
}

static void mmio_write(void *opaque, u64 gpa, unsigned len, u64 val)
{
    (void)opaque, (void)gpa, (void)len, (void)val;
}

static u32 pio_read(void *opaque, u16 port, unsigned len)
{
    struct machine *m = opaque;
    m->pio_port = port;
    m->pio_size = len;
    m->pio_count++;
    return m->pio_val;
}

static void pio_write(void *opaque, u16 port, unsigned len, u32 val)
{
    struct machine *m = opaque;
    m->pio_port = port;
    m->pio_size = len;
    m->pio_val = val;
    m->pio_count++;
}

static int no_rdmsr(void *opaque, u32 msr, u64 *val)
{
    (void)opaque, (void)val;
    return msr == MSR_APIC_BASE ? 0 : -1;
}

static int no_wrmsr(void *opaque, u32 msr, u64 val)
{
    (void)opaque, (void)val;
    return msr == MSR_APIC_BASE ? 0 : -1;
}

static void cpuid(void *opaque, u32 leaf, u32 subleaf, u32 out[4])
{
    (void)opaque;
    out[0] = leaf;
    out[1] = subleaf;
    out[2] = out[3] = 0xabcd;
}

static u64 get_cr8(void *opaque)
{
    return ((struct machine *)opaque)->cr8;
}

static void set_cr8(void *opaque, u64 val)
{
    ((struct machine *)opaque)->cr8 = val;
}

static void flush(void *opaque, enum interp_flush what, u16 pcid)
{
    struct machine *m = opaque;
    m->flushes++;
    m->flush_kind = what;
    m->flush_pcid = pcid;
}

static void invlpg(void *opaque, u64 gva, u16 pcid)
{
    struct machine *m = opaque;
    (void)gva;
    m->invlpgs++;
    m->flush_pcid = pcid;
}

static void cr3_written(void *opaque, u64 old, bool noflush)
{
    struct machine *m = opaque;
    (void)old;
    m->cr3_writes++;
    m->noflush = noflush;
}

static bool hypercall(void *opaque)
{
    (void)opaque;
    return false;
}

static void nothing(void *opaque)
{
    (void)opaque;
}

static void walk_mem(void *opaque, struct x86_walk_mem *m)
{
    *m = ((struct machine *)opaque)->walk;
}

static const struct interp_ops ops = {
    .translate = translate,
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .pio_read = pio_read,
    .pio_write = pio_write,
    .rdmsr = no_rdmsr,
    .wrmsr = no_wrmsr,
    .cpuid = cpuid,
    .get_cr8 = get_cr8,
    .set_cr8 = set_cr8,
    .flush = flush,
    .invlpg = invlpg,
    .cr3_written = cr3_written,
    .hypercall = hypercall,
    .fpu_sync = nothing,
    .exclusive_begin = nothing,
    .exclusive_end = nothing,
    .walk_mem = walk_mem,
};

/* --- memory */

void put(struct machine *m, u32 at, const void *p, size_t n)
{
    memcpy(m->ram + at, p, n);
}

void put16(struct machine *m, u32 at, u16 v)
{
    put(m, at, &v, 2);
}

void put32(struct machine *m, u32 at, u32 v)
{
    put(m, at, &v, 4);
}

void put64(struct machine *m, u32 at, u64 v)
{
    put(m, at, &v, 8);
}

u16 get16(struct machine *m, u64 at)
{
    u16 v;
    memcpy(&v, m->ram + at, 2);
    return v;
}

u32 get32(struct machine *m, u64 at)
{
    u32 v;
    memcpy(&v, m->ram + at, 4);
    return v;
}

u64 get64(struct machine *m, u64 at)
{
    u64 v;
    memcpy(&v, m->ram + at, 8);
    return v;
}

/* --- descriptors */

u64 desc(u32 base, u32 limit, unsigned attr)
{
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)(attr & 0xff) << 40 |
           (u64)(limit >> 16 & 0xf) << 48 | (u64)(attr >> 12 & 0xf) << 52 | (u64)(base >> 24) << 56;
}

u64 gate(u16 sel, u32 off, unsigned type, unsigned dpl)
{
    return (off & 0xffff) | (u64)sel << 16 | (u64)(0x80 | dpl << 5 | type) << 40 |
           (u64)(off >> 16) << 48;
}

void set_idt(struct machine *m, unsigned v, unsigned type, unsigned dpl, unsigned ist)
{
    u64 g = gate(SEL_CODE0, HANDLER + 16 * v, type, dpl) | (u64)ist << 32;
    if (x86_long_mode(&m->s)) {
        put64(m, IDT + 16 * v, g);
        put64(m, IDT + 16 * v + 8, 0);
    } else {
        put64(m, IDT + 8 * v, g);
    }
}

/* --- machines */

static void no_host(u32 leaf, u32 subleaf, u32 out[4])
{
    (void)subleaf;
    memset(out, 0, 16);
    if (leaf == 0 || leaf == 0x80000000u) { /* GenuineIntel */
        out[0] = leaf ? 0x80000008u : 0x1f;
        out[1] = 0x756e6547;
        out[2] = 0x6c65746e;
        out[3] = 0x49656e69;
    } else if (leaf == 7 && !subleaf) {
        out[1] = 1; /* FSGSBASE */
    } else if (leaf == 0x80000001u) {
        out[3] = BIT32(27);
    } else if (leaf == 0x80000008u) {
        out[0] = 40;
    }
}

struct machine *machine_real(void)
{
    struct machine *m = calloc(1, sizeof(*m));
    struct x86_cpu_options opt = {.ncpus = 1, .tsc_khz = 1000000};
    m->ram = calloc(1, RAM_SIZE);
    m->cache = calloc(1, interp_cache_size());
    x86_cpu_model_build(&m->model, no_host, 0, &opt);
    x86_state_reset(&m->s, m->model.signature, 0);
    m->walk = (struct x86_walk_mem){.ptr = walk_ptr, .opaque = m, .phys_bits = 40};
    m->s.seg[X86_CS].base = CODE;
    m->s.seg[X86_CS].sel = CODE >> 4;
    m->s.seg[X86_SS].base = 0x40000;
    m->s.seg[X86_SS].sel = 0x4000;
    m->s.gpr[X86_RSP] = 0x1000;
    m->s.rip = 0;
    interp_init(&m->in, &m->s, &m->model, &ops, m, m->cache, NULL, NULL);
    return m;
}

static void flat(struct x86_seg *seg, u16 sel, u16 attr)
{
    *seg = (struct x86_seg){.limit = 0xffffffff, .sel = sel, .attr = attr};
}

static void common_tables(struct machine *m, unsigned code0)
{
    put64(m, GDT + 0x08, desc(0, 0xfffff, code0));
    put64(m, GDT + 0x10, desc(0, 0xfffff, DATA32));
    put64(m, GDT + 0x18, desc(0, 0xfffff, code0 | DPL3));
    put64(m, GDT + 0x20, desc(0, 0xfffff, DATA32 | DPL3));
    put64(m, GDT + 0x28, desc(TSS, 0x67, 0x89));
    put64(m, GDT + 0x38, desc(CODE, 0xffff, 0x9b));
    put64(m, GDT + 0x40, desc(0, 0xffff, 0x93 | DPL3));
    put64(m, GDT + 0x48, desc(TSS_B, 0x67, 0x89));
    put64(m, GDT + 0x60, desc(0, 0xfffff, CODE32 | DPL3));
    m->s.gdtr = (struct x86_dtr){.base = GDT, .limit = 0xff};
    m->s.idtr = (struct x86_dtr){.base = IDT, .limit = 0xfff};
    m->s.tr = (struct x86_seg){.base = TSS, .limit = 0x67, .sel = SEL_TSS, .attr = 0x8b};
    m->s.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP;
    for (unsigned i = 0; i < X86_NSEG; i++)
        flat(&m->s.seg[i], SEL_DATA0, DATA32);
    flat(&m->s.seg[X86_CS], SEL_CODE0, (u16)code0);
    m->s.gpr[X86_RSP] = STACK0 - 0x100;
    m->s.rip = CODE;
}

struct machine *machine_prot32(void)
{
    struct machine *m = machine_real();
    common_tables(m, CODE32);
    put32(m, TSS + 4, STACK0);
    put16(m, TSS + 8, SEL_DATA0);
    put16(m, TSS + 0x66, 0x68);
    for (unsigned v = 0; v < 256; v++)
        set_idt(m, v, 14, 0, 0);
    return m;
}

struct machine *machine_long(void)
{
    struct machine *m = machine_real();
    common_tables(m, CODE64);
    put64(m, TSS + 4, STACK0);
    put64(m, TSS + 0x24, IST1);
    put16(m, TSS + 0x66, 0x68);
    put64(m, TABLES, (TABLES + 0x1000) | 7);
    put64(m, TABLES + 0x1000, (TABLES + 0x2000) | 7);
    put64(m, TABLES + 0x2000, 0 | 0x87);
    put64(m, TABLES + 0x2008, 0x200000 | 0x87);
    m->s.cr0 |= CR0_PG;
    m->s.cr4 = CR4_PAE;
    m->s.cr3 = TABLES;
    m->s.efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
    for (unsigned v = 0; v < 256; v++)
        set_idt(m, v, 14, 0, 0);
    return m;
}

void machine_ring3(struct machine *m)
{
    bool lma = x86_long_mode(&m->s);
    for (unsigned i = 0; i < X86_NSEG; i++)
        flat(&m->s.seg[i], SEL_DATA3, DATA32 | DPL3);
    flat(&m->s.seg[X86_CS], SEL_CODE3, (lma ? CODE64 : CODE32) | DPL3);
    m->s.cpl = 3;
    m->s.gpr[X86_RSP] = STACK3;
    m->s.rflags |= RFLAGS_IF;
}

void machine_free(struct machine *m)
{
    free(m->cache);
    free(m->ram);
    free(m);
}

enum interp_result run1(struct machine *m, const void *code, size_t n)
{
    put(m, (u32)(m->s.seg[X86_CS].base + m->s.rip), code, n);
    return interp_step(&m->in);
}
