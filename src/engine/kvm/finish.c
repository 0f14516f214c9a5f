/* SPDX-License-Identifier: Apache-2.0 */
/* What KVM cannot emulate (vector instructions at devices, rare ones in real mode) the interpreter
 * does, an instruction at a time, on the whole state. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/kvm/kvm_priv.h"

/* Of page-table entries, in which the walk may set A and D. */
static void *op_walk_ptr(void *opaque, u64 addr)
{
    struct kvm_cpu *c = opaque;

    kvm_dirty_mark(c->m, addr, 8);
    return guest_mem_ptr(&c->m->vm->mem, gpa(addr), 8);
}

static void op_walk_mem(void *opaque, struct x86_walk_mem *m)
{
    struct kvm_cpu *c = opaque;
    const struct x86_cpu_model *model = &c->m->vm->cpu_model;

    *m = (struct x86_walk_mem){.ptr = op_walk_ptr,
                               .opaque = c,
                               .phys_bits = model->phys_bits,
                               .no_gbpages = !model->gbpages};
}

/* No translation is kept: every access walks. */
static int op_translate(void *opaque, u64 gva, unsigned len, unsigned access,
                        struct interp_ref *ref, struct interp_fault *fault)
{
    struct kvm_cpu *c = opaque;
    bool write = (access & 3) == X86_ACC_WRITE;
    const struct mem_slot *slot;
    struct x86_walk_mem m;
    struct x86_walk w;

    op_walk_mem(c, &m);
    if (!x86_walk(&c->s, &m, gva, access, &w)) {
        *fault = (struct interp_fault){
            .vector = X86_PF, .has_error = true, .error = w.error, .cr2 = gva};
        return -1;
    }
    slot = guest_mem_slot(&c->m->vm->mem, gpa(w.gpa));
    ref->gpa = w.gpa;
    if (write)
        kvm_dirty_mark(c->m, w.gpa, len);
    ref->host =
        slot && !(write && slot->readonly) ? guest_mem_ptr(&c->m->vm->mem, gpa(w.gpa), len) : NULL;
    return 0;
}

/* The local APIC's page is KVM's, which has no door to it for us. */
static bool is_apic(struct kvm_cpu *c, u64 addr)
{
    bool is = (c->apic_base & (KVM_APIC_BASE_EN | KVM_APIC_BASE_EXTD)) == KVM_APIC_BASE_EN &&
              ((addr ^ c->apic_base) & PAGE_MASK) == 0;

    if (is)
        c->cannot = "an access to the local APIC";
    return is;
}

static u64 op_mmio_read(void *opaque, u64 addr, unsigned len)
{
    struct kvm_cpu *c = opaque;
    const u8 *rom = guest_mem_ptr(&c->m->vm->mem, gpa(addr), len);
    u64 val = 0;

    if (rom) { /* read to be written */
        memcpy(&val, rom, len);
        return val;
    }
    return is_apic(opaque, addr) ? 0 : kvm_mmio_read(opaque, addr, len);
}

static void op_mmio_write(void *opaque, u64 addr, unsigned len, u64 val)
{
    if (!is_apic(opaque, addr))
        kvm_mmio_write(opaque, addr, len, val);
}

static u32 op_pio_read(void *opaque, u16 port, unsigned len)
{
    struct kvm_cpu *c = opaque;

    return vm_pio_read(c->m->vm, port, len);
}

static void op_pio_write(void *opaque, u16 port, unsigned len, u32 val)
{
    struct kvm_cpu *c = opaque;

    vm_pio_write(c->m->vm, port, len, val);
}

static int op_rdmsr(void *opaque, u32 msr, u64 *val)
{
    return kvm_rdmsr(opaque, msr, val);
}

static int op_wrmsr(void *opaque, u32 msr, u64 val)
{
    return kvm_wrmsr(opaque, msr, val);
}

static void op_cpuid(void *opaque, u32 leaf, u32 subleaf, u32 out[4])
{
    struct kvm_cpu *c = opaque;

    x86_cpuid(&c->m->vm->cpu_model, &c->s, c->v->id, (c->apic_base & KVM_APIC_BASE_EN) != 0, leaf,
              subleaf, out);
}

static u64 op_get_cr8(void *opaque)
{
    struct kvm_cpu *c = opaque;

    return c->cr8;
}

static void op_set_cr8(void *opaque, u64 val)
{
    struct kvm_cpu *c = opaque;

    c->cr8 = val & 15;
}

/* KVM's own TLBs follow from the state it is given back. */
static void op_flush(void *opaque, enum interp_flush what, u16 pcid)
{
    (void)opaque;
    (void)what;
    (void)pcid;
}

static void op_invlpg(void *opaque, u64 gva, u16 pcid)
{
    (void)opaque;
    (void)gva;
    (void)pcid;
}

static void op_cr3_written(void *opaque, u64 old, bool noflush)
{
    (void)opaque;
    (void)old;
    (void)noflush;
}

/* KVM answers them all. */
static bool op_hypercall(void *opaque)
{
    (void)opaque;
    return false;
}

static void op_fpu_sync(void *opaque)
{
    (void)opaque; /* the state holds it already */
}

static void op_exclusive_begin(void *opaque)
{
    struct kvm_cpu *c = opaque;

    if (c->m->ncpus > 1)
        c->cannot = "a locked access across a page, beside other vCPUs";
}

static void op_exclusive_end(void *opaque)
{
    (void)opaque;
}

static const struct interp_ops interp_ops = {
    .translate = op_translate,
    .mmio_read = op_mmio_read,
    .mmio_write = op_mmio_write,
    .pio_read = op_pio_read,
    .pio_write = op_pio_write,
    .rdmsr = op_rdmsr,
    .wrmsr = op_wrmsr,
    .cpuid = op_cpuid,
    .get_cr8 = op_get_cr8,
    .set_cr8 = op_set_cr8,
    .flush = op_flush,
    .invlpg = op_invlpg,
    .cr3_written = op_cr3_written,
    .hypercall = op_hypercall,
    .fpu_sync = op_fpu_sync,
    .exclusive_begin = op_exclusive_begin,
    .exclusive_end = op_exclusive_end,
    .walk_mem = op_walk_mem,
};

int kvm_interp_create(struct kvm_cpu *c)
{
    int err = host_code_alloc(&c->native, PAGE_SIZE);

    c->interp_cache = host_zalloc(interp_cache_size());
    if (err || !c->interp_cache)
        return -ENOMEM;
    interp_init(&c->interp, &c->s, &c->m->vm->cpu_model, &interp_ops, c, c->interp_cache,
                c->native.rw, c->native.rx);
    return 0;
}

void kvm_interp_destroy(struct kvm_cpu *c)
{
    if (c->native.rw)
        host_code_free(&c->native);
    if (c->interp_cache)
        host_free(c->interp_cache);
}

/* The bytes KVM stopped at, as text; empty: it does not know. */
static void bytes_text(const struct kvm_run *run, char *out, size_t size)
{
    bool known =
        run->emulation_failure.ndata >= 3 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
    unsigned n = known ? run->emulation_failure.insn_size : 0;
    size_t at = 0;

    out[0] = 0;
    for (unsigned i = 0; i < n && i < X86_INSN_MAX && at + 4 < size; i++)
        at += (size_t)snprintf(out + at, size - at, " %02x", run->emulation_failure.insn_bytes[i]);
}

bool kvm_interp_one(struct kvm_cpu *c, struct engine_exit *exit)
{
    enum interp_result r;
    char bytes[64];
    const char *why = c->interp.why;
    u64 rip;
    int err = kvm_fetch_state(c);

    bytes_text(c->run, bytes, sizeof(bytes));
    rip = c->s.rip;
    c->stats.interp_steps++;
    c->cannot = NULL;
    /* With an event that is still to be delivered KVM stops at that, not at the instruction
     * (vmx_emulation_required_with_pending_exception). */
    r = err                           ? INTERP_UNSUPPORTED
        : c->s.ev_kind != X86_EV_NONE ? interp_event_again(&c->interp)
                                      : interp_step(&c->interp);
    if (!err && !c->cannot && r != INTERP_UNSUPPORTED) {
        if (r == INTERP_SHUTDOWN) {
            exit->kind = ENGINE_EXIT_SHUTDOWN;
            snprintf(exit->text, sizeof(exit->text), "%s", c->interp.why);
            return false;
        }
        err = kvm_put_back(c);
        if (!err)
            return true; /* a halt is seen by the caller */
    }
    exit->kind = ENGINE_EXIT_UNSUPPORTED;
    snprintf(exit->text, sizeof(exit->text),
             "engine kvm: KVM cannot emulate the instruction at rip %#llx%s%s: %.80s",
             (unsigned long long)rip, bytes[0] ? ":" : "", bytes,
             err         ? strerror(-err)
             : c->cannot ? c->cannot
                         : why);
    return false;
}
