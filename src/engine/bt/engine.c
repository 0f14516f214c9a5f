/* SPDX-License-Identifier: Apache-2.0 */
/* The engine seam of bt, and what the interpreter asks of its engine. */
#include "engine/bt/bt_priv.h"

#define ENOMEM_ 12
#define EINVAL_ 22

/* --- the interpreter's surroundings
 * ------------------------------------------------------------------------ */

static void out(struct bt_vcpu *c)
{
    bt_fpu_save(c);
    bt_leave_guest(c);
}

static u64 op_mmio_read(void *opaque, u64 gpa, unsigned len)
{
    struct bt_vcpu *c = opaque;
    u64 v;

    if (c->lockstep && bt_lockstep_mmio(c->lockstep))
        return 0;
    if (vcpu_mmio_is_plain(c->v, gpa, len))
        return vcpu_mmio_read(c->v, gpa, len);
    out(c);
    v = vcpu_mmio_read(c->v, gpa, len);
    bt_enter_guest(c);
    return v;
}

static void op_mmio_write(void *opaque, u64 gpa, unsigned len, u64 val)
{
    struct bt_vcpu *c = opaque;

    if (c->lockstep && bt_lockstep_mmio(c->lockstep))
        return;
    out(c);
    vcpu_mmio_write(c->v, gpa, len, val);
    bt_enter_guest(c);
}

static u32 op_pio_read(void *opaque, u16 port, unsigned len)
{
    struct bt_vcpu *c = opaque;
    u32 v;

    out(c);
    v = vm_pio_read(c->bt->vm, port, len);
    bt_enter_guest(c);
    return v;
}

static void op_pio_write(void *opaque, u16 port, unsigned len, u32 val)
{
    struct bt_vcpu *c = opaque;

    out(c);
    vm_pio_write(c->bt->vm, port, len, val);
    bt_enter_guest(c);
}

static int op_rdmsr(void *opaque, u32 msr, u64 *val)
{
    struct bt_vcpu *c = opaque;
    int r;

    out(c);
    r = vm_rdmsr(c->v, msr, val);
    bt_enter_guest(c);
    return r;
}

static int op_wrmsr(void *opaque, u32 msr, u64 val)
{
    struct bt_vcpu *c = opaque;
    int r;

    out(c);
    r = vm_wrmsr(c->v, msr, val);
    bt_enter_guest(c);
    return r;
}

static void op_cpuid(void *opaque, u32 leaf, u32 subleaf, u32 regs[4])
{
    struct bt_vcpu *c = opaque;
    u32 id = c->v->id;
    bool on = true;

    if (c->v->irq) {
        id = c->v->irq->apic_id(c->v->irq_opaque);
        on = c->v->irq->enabled(c->v->irq_opaque);
    }
    x86_cpuid(&c->bt->vm->cpu_model, &c->env->s, id, on, leaf, subleaf, regs);
}

static u64 op_get_cr8(void *opaque)
{
    struct bt_vcpu *c = opaque;
    u64 v;

    out(c);
    v = c->v->irq ? c->v->irq->get_tpr(c->v->irq_opaque) : 0;
    bt_enter_guest(c);
    return v;
}

static void op_set_cr8(void *opaque, u64 val)
{
    struct bt_vcpu *c = opaque;

    out(c);
    if (c->v->irq)
        c->v->irq->set_tpr(c->v->irq_opaque, val);
    bt_enter_guest(c);
    bt_set_irq_maybe(c->env, true);
}

/* No hypercall is offered: KVM_ENOSYS while the KVM leaves are shown, #UD without them. From user
 * mode KVM_EPERM. */
static bool op_hypercall(void *opaque)
{
    struct bt_vcpu *c = opaque;
    u32 r[4];

    op_cpuid(c, 0x40000000, 0, r);
    if (r[1] != 0x4b4d564b) /* "KVMK" */
        return false;
    c->env->s.gpr[X86_RAX] = c->env->s.cpl ? (u64)-1 : (u64)-1000;
    return true;
}

static void op_fpu_sync(void *opaque)
{
    bt_fpu_save(opaque);
}

static void op_exclusive_begin(void *opaque)
{
    struct bt_vcpu *c = opaque;

    bt_exclusive_begin(c->bt, c);
}

static void op_exclusive_end(void *opaque)
{
    struct bt_vcpu *c = opaque;

    bt_exclusive_end(c->bt, c);
}

static void op_pause(void *opaque)
{
    struct bt_vcpu *c = opaque;

    /* A spinning vCPU gives its core away: the lock's holder may be waiting for one. */
    if (c->bt->nvcpus > 1) {
        bt_leave_guest(c);
        host_yield();
        bt_enter_guest(c);
    }
}

static void *op_walk_ptr(void *opaque, u64 addr)
{
    struct bt_vcpu *c = opaque;

    return guest_mem_ptr(&c->bt->vm->mem, gpa(addr), 8);
}

static void op_walk_mem(void *opaque, struct x86_walk_mem *m)
{
    struct bt_vcpu *c = opaque;

    *m = (struct x86_walk_mem){
        .ptr = op_walk_ptr, .opaque = c, .phys_bits = c->bt->vm->cpu_model.phys_bits};
}

const struct interp_ops bt_interp_ops = {
    .translate = bt_translate,
    .mmio_read = op_mmio_read,
    .mmio_write = op_mmio_write,
    .pio_read = op_pio_read,
    .pio_write = op_pio_write,
    .rdmsr = op_rdmsr,
    .wrmsr = op_wrmsr,
    .cpuid = op_cpuid,
    .get_cr8 = op_get_cr8,
    .set_cr8 = op_set_cr8,
    .flush = bt_flush,
    .invlpg = bt_invlpg,
    .cr3_written = bt_cr3_written,
    .hypercall = op_hypercall,
    .fpu_sync = op_fpu_sync,
    .exclusive_begin = op_exclusive_begin,
    .exclusive_end = op_exclusive_end,
    .pause = op_pause,
    .walk_mem = op_walk_mem,
};

/* --- engine_ops
 * ---------------------------------------------------------------------------------------------- */

static void set_text(char *dst, size_t size, const char *text)
{
    size_t n = 0;

    while (text[n] && n + 1 < size)
        n++;
    memcpy(dst, text, n);
    dst[n] = 0;
}

void bt_host_cpuid(u32 leaf, u32 subleaf, u32 r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(subleaf));
}

static void bt_probe(struct engine_probe *p)
{
    u32 r[4];

    memset(p, 0, sizeof(*p));
    bt_host_cpuid(0, 0, r);
    if (r[0] < 13) {
        set_text(p->why, sizeof(p->why), "the host CPU has no XSAVE");
        return;
    }
    bt_host_cpuid(1, 0, r);
    if (!(r[2] & BIT32(27))) {
        set_text(p->why, sizeof(p->why), "the host CPU or kernel has no XSAVE");
        return;
    }
    bt_host_cpuid(7, 0, r);
    if (!(r[1] & BIT32(8))) {
        set_text(p->why, sizeof(p->why),
                 "the host CPU has no BMI2 (PEXT), which translated branches use");
        return;
    }
    p->works = true;
}

static bool text_is(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static int bt_vm_create(struct vm *vm, const struct engine_options *opt)
{
    struct bt_vm *bt = host_zalloc(sizeof(*bt));
    struct engine_probe p;
    int err;

    bt_probe(&p);
    if (!p.works) {
        log_error("engine bt: %s", p.why);
        return -EINVAL_;
    }
    if (!bt)
        return -ENOMEM_;
    bt->vm = vm;
    host_mutex_init(&bt->lock);
    host_mutex_init(&bt->excl_lock);
    if (opt && opt->bt_mode && text_is(opt->bt_mode, "interp"))
        bt->interp_only = true;
    if (opt && opt->bt_mode && text_is(opt->bt_mode, "lockstep"))
        bt->lockstep = true;
    err = bt_cache_init(bt, opt ? opt->code_cache : 0);
    if (err) {
        bt_cache_destroy(bt);
        host_free(bt);
        return err;
    }
    vm->engine_vm = bt;
    return 0;
}

static void bt_vm_destroy(struct vm *vm)
{
    struct bt_vm *bt = vm->engine_vm;

    if (bt->debug)
        host_free(bt->debug);
    bt_cache_destroy(bt);
    host_free(bt);
    vm->engine_vm = NULL;
}

static int bt_memory_changed(struct vm *vm)
{
    struct bt_vm *bt = vm->engine_vm;

    for (unsigned i = 0; i < vm->mem.n; i++)
        if (!bt->pages[i]) {
            bt->pages[i] =
                host_zalloc((vm->mem.slot[i].size >> PAGE_SHIFT) * sizeof(struct bt_page *));
            bt->wrote[i] = host_zalloc(vm->mem.slot[i].size >> PAGE_SHIFT);
            if (!bt->pages[i] || !bt->wrote[i])
                return -ENOMEM_;
        }
    return 0;
}

static void bt_vcpu_destroy(struct vcpu *v)
{
    struct bt_vcpu *c = v->engine_vcpu;

    if (!c)
        return;
    if (c->windows)
        host_windows_free(c->windows, BT_NCLASS * BT_SLOTS, BT_WINDOW_STRIDE);
    if (c->native.rw)
        host_code_free(&c->native);
    if (c->interp_cache)
        host_free(c->interp_cache);
    if (c->lockstep)
        host_free(c->lockstep);
    host_free(c);
    v->engine_vcpu = NULL;
}

static int bt_vcpu_create(struct vcpu *v)
{
    struct bt_vm *bt = v->vm->engine_vm;
    struct bt_vcpu *c = host_zalloc(sizeof(*c));

    if (!c)
        return -ENOMEM_;
    if (bt->lockstep && bt->nvcpus) {
        log_error("engine bt: lockstep mode takes one vCPU");
        host_free(c);
        return -EINVAL_;
    }
    v->engine_vcpu = c;
    bt->fpu_mask = v->vm->cpu_model.xcr0_valid | 3;
    c->v = v;
    c->bt = bt;
    c->windows = host_windows_alloc(BT_NCLASS * BT_SLOTS, BT_WINDOW_STRIDE, BT_PRE, BT_ENV_SIZE);
    c->interp_cache = host_zalloc(interp_cache_size());
    if (bt->lockstep)
        c->lockstep = bt_lockstep_create(v->vm->cpu_model.xcr0_valid);
    if (!c->windows || !c->interp_cache || (bt->lockstep && !c->lockstep) ||
        host_code_alloc(&c->native, PAGE_SIZE)) {
        bt_vcpu_destroy(v);
        return -ENOMEM_;
    }
    c->env = bt_window_env(c, 0, 0);
    c->env->self = (u64)(uintptr_t)c;
    v->tsc_offset = &c->env->s.tsc_offset;
    c->env->ibl_mask = (u64)(BT_IBL_SIZE - 1) << BT_IBL_SHIFT;
    c->env->arith_mask = (u32)RFLAGS_ARITH;
    c->env->df_mask = (u32)RFLAGS_DF;
    c->env->step[0] = 1;
    c->env->step[1] = (u64)-1;
    c->env->bits63 = 63;
    c->env->bits31 = 31;
    bt_set_irq_maybe(c->env, true);
    c->env->keep_if = 0xfd;
    c->env->keep_ac = 0xfb;
    c->env->keep_df = 0xfb;
    bt_tlb_init(c);
    interp_init(&c->interp, &c->env->s, &v->vm->cpu_model, &bt_interp_ops, c, c->interp_cache,
                c->native.rw, c->native.rx);
    bt->vcpu[bt->nvcpus++] = c;
    return 0;
}

static void bt_engine_kick(struct vcpu *v)
{
    if (v->engine_vcpu)
        bt_kick(v->engine_vcpu);
}

static int bt_get_state(struct vcpu *v, struct x86_vcpu_state *s)
{
    struct bt_vcpu *c = v->engine_vcpu;

    memcpy(s, &c->env->s, sizeof(*s));
    return 0;
}

static int bt_set_state(struct vcpu *v, const struct x86_vcpu_state *s)
{
    struct bt_vcpu *c = v->engine_vcpu;

    memcpy(&c->env->s, s, sizeof(*s));
    c->env->fpu_live = 0;
    bt_flush(c, INTERP_FLUSH_ALL, 0);
    for (unsigned i = 0; i < BT_SLOTS; i++)
        c->slot_tag[i].valid = false;
    bt_cr3_written(c, 0, false);
    bt_set_irq_maybe(c->env, true);
    bt_update_mode(c);
    return 0;
}

static void bt_add_tsc_offset(struct vcpu *v, u64 delta)
{
    struct bt_vcpu *c = v->engine_vcpu;

    c->env->s.tsc_offset += delta;
}

static void bt_memory_written(struct vm *vm, gpa_t a, u64 len)
{
    struct bt_vm *bt = vm->engine_vm;
    bool any;

    /* A translator raises its flag before it reads the bytes; they are written before we look. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    any = __atomic_load_n(&bt->first_translations, __ATOMIC_SEQ_CST) != 0;
    for (u64 p = a.v & PAGE_MASK; p < a.v + len && !any; p += PAGE_SIZE)
        any = bt_code_may_overlap(bt, p, PAGE_SIZE);
    if (!any)
        return;
    bt_exclusive_begin(bt, NULL);
    bt_cache_invalidate(bt, NULL, a.v, len);
    bt_exclusive_end(bt, NULL);
}

static void bt_stats(struct vm *vm, void (*line)(void *opaque, const char *name, u64 value),
                     void *opaque)
{
    struct bt_vm *bt = vm->engine_vm;
    struct bt_stats sum = {0};

    for (unsigned i = 0; i < bt->nvcpus; i++) {
        const struct bt_stats *s = &bt->vcpu[i]->stats;

        /* Its thread may be counting. */
#define X(name, text) sum.name += __atomic_load_n(&s->name, __ATOMIC_RELAXED);
        BT_STATS(X)
#undef X
    }
#define X(name, text) line(opaque, #name, sum.name);
    BT_STATS(X)
#undef X
}

const struct engine_ops bt_engine_ops = {
    .name = "bt",
    .probe = bt_probe,
    .vm_create = bt_vm_create,
    .vm_destroy = bt_vm_destroy,
    .memory_changed = bt_memory_changed,
    .vcpu_create = bt_vcpu_create,
    .vcpu_destroy = bt_vcpu_destroy,
    .run = bt_run,
    .kick = bt_engine_kick,
    .get_state = bt_get_state,
    .set_state = bt_set_state,
    .memory_written = bt_memory_written,
    .set_debug = bt_set_debug,
    .add_tsc_offset = bt_add_tsc_offset,
    .stats = bt_stats,
};
