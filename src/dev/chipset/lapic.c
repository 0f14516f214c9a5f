/* SPDX-License-Identifier: Apache-2.0 */
/* The local APIC's registers: MMIO page, x2APIC MSRs, IA32_APIC_BASE (SDM 3A 10.4, 10.12). */
#include "dev/chipset/lapic_priv.h"

/* Version 14H, six LVT rows (SDM 3A 10.4.8). */
#define VERSION (0x14u | (LVT_N - 1) << 16)

/* Writable bits of the LVT rows (SDM 3A figure 10-8). */
const u32 lapic_lvt_writable[LVT_N] = {
    [LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
    [LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

/* Values after RESET and INIT (SDM 3A 10.4.7.1); ID and IA32_APIC_BASE stay. */
static void reset_registers(struct lapic *l)
{
    apic_put(&l->tpr, 0);
    apic_put(&l->ldr, 0);
    apic_put(&l->dfr, ~0u);
    apic_put(&l->svr, 0xff);
    l->esr = 0;
    __atomic_store_n(&l->esr_pending, 0, __ATOMIC_SEQ_CST);
    l->icr = 0;
    for (unsigned i = 0; i < LVT_N; i++)
        apic_put(&l->lvt[i], LVT_MASKED);
    /* Firmware leaves the boot processor in virtual wire mode (MP spec 3.6.2.2); there is none. */
    if (l->v->bsp)
        apic_put(&l->lvt[LVT_LINT0], (u32)DM_EXTINT << 8);
    l->isr_high = -1;
    for (unsigned i = 0; i < 8; i++) {
        l->isr[i] = 0;
        __atomic_store_n(&l->irr[i], 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&l->tmr[i], 0, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&l->ioapic_ext, 0, __ATOMIC_SEQ_CST);
    lapic_timer_reset(l);
}

void lapic_set_base(struct lapic *l, u64 base)
{
    __atomic_store_n(&l->base, base, __ATOMIC_SEQ_CST);
    l->v->apic_page = VCPU_NO_APIC_PAGE;
    if ((base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN && !l->v->vm->engine->apic)
        l->v->apic_page = base & PAGE_MASK;
}

/* --- registers ------------------------------------------------------------------------------- */

static u32 read_register(struct lapic *l, u32 reg)
{
    switch (reg) {
    case APIC_ID:
        return lapic_x2(l) ? l->id : l->id << 24;
    case APIC_VERSION:
        return VERSION;
    case APIC_TPR:
        return l->tpr;
    case APIC_PPR:
        return lapic_ppr(l);
    case APIC_LDR:
        return lapic_x2(l) ? lapic_x2_ldr(l) : l->ldr;
    case APIC_DFR:
        return l->dfr;
    case APIC_SVR:
        return l->svr;
    case APIC_ISR ... APIC_ISR + 7:
        return l->isr[reg - APIC_ISR];
    case APIC_TMR ... APIC_TMR + 7:
        return apic_get(&l->tmr[reg - APIC_TMR]);
    case APIC_IRR ... APIC_IRR + 7:
        return apic_get(&l->irr[reg - APIC_IRR]);
    case APIC_ESR:
        return l->esr;
    case APIC_ICR:
        return (u32)l->icr;
    case APIC_ICR2:
        return (u32)(l->icr >> 32);
    case APIC_LVT_TIMER ... APIC_LVT_ERROR:
        return l->lvt[reg - APIC_LVT_TIMER];
    case APIC_TIMER_INIT:
        return l->timer_init;
    case APIC_TIMER_CURRENT:
        return lapic_timer_current(l);
    case APIC_TIMER_DIVIDE:
        return l->timer_divide;
    default: /* write-only, absent (APR, RRD, CMCI) or reserved */
        return 0;
    }
}

static void write_lvt(struct lapic *l, unsigned row, u32 val)
{
    u32 old = l->lvt[row];

    val &= lapic_lvt_writable[row];
    /* SDM 3A 10.4.7.2: while software-disabled the mask bits cannot be cleared. */
    if (!(l->svr & SVR_ENABLE) && !(row == LVT_LINT0 && LVT_MODE(val) == DM_EXTINT))
        val |= LVT_MASKED;
    if (row == LVT_TIMER && LVT_TIMER_MODE(val) == 3)
        val = (val & ~(3u << 17)) | (old & (3u << 17));
    __atomic_store_n(&l->lvt[row], val, __ATOMIC_SEQ_CST);
    if (row == LVT_TIMER)
        lapic_timer_mode_changed(l, old);
    if (row == LVT_LINT0)
        lapic_recheck(l);
}

static void write_svr(struct lapic *l, u32 val)
{
    u32 old = l->svr;

    apic_put(&l->svr, val & (SVR_FOCUS | SVR_ENABLE | 0xff));
    if ((old & SVR_ENABLE) && !(val & SVR_ENABLE))
        for (unsigned i = 0; i < LVT_N; i++)
            apic_put(&l->lvt[i], l->lvt[i] | LVT_MASKED);
    if (!(old & SVR_ENABLE) && (val & SVR_ENABLE))
        lapic_recheck(l);
}

static void write_register(struct lapic *l, u32 reg, u32 val)
{
    switch (reg) {
    case APIC_TPR:
        apic_put(&l->tpr, val & 0xff);
        lapic_recheck(l);
        break;
    case APIC_EOI:
        lapic_eoi(l);
        break;
    case APIC_LDR:
        apic_put(&l->ldr, val & 0xff000000u);
        break;
    case APIC_DFR:
        apic_put(&l->dfr, val | 0x0fffffffu);
        break;
    case APIC_SVR:
        write_svr(l, val);
        break;
    case APIC_ESR:
        l->esr = __atomic_exchange_n(&l->esr_pending, 0, __ATOMIC_SEQ_CST);
        break;
    case APIC_ICR:
        l->icr = (l->icr & MASK64(63, 32)) | (val & 0x000ccfffu);
        lapic_send_ipi(l, l->icr);
        break;
    case APIC_ICR2:
        l->icr = (u32)l->icr | (u64)(val & 0xff000000u) << 32;
        break;
    case APIC_LVT_TIMER ... APIC_LVT_ERROR:
        write_lvt(l, reg - APIC_LVT_TIMER, val);
        break;
    case APIC_TIMER_INIT:
        lapic_timer_write_init(l, val);
        break;
    case APIC_TIMER_DIVIDE:
        lapic_timer_write_divide(l, val & 0xb);
        break;
    default: /* read-only or reserved; ID is read-only on these processors */
        break;
    }
}

/* --- the page --------------------------------------------------------------------------------- */

/* Registers are 32 bits on 16-byte boundaries; other accesses are undefined (SDM 3A 10.4.1). */
static u32 mmio_read(void *opaque, u32 off, unsigned size)
{
    struct lapic *l = opaque;
    u32 in = off & 15;

    if (in + size > 4)
        return 0;
    return (u32)(read_register(l, off >> 4) >> (8 * in) & size_mask(size));
}

static void mmio_write(void *opaque, u32 off, unsigned size, u32 val)
{
    if ((off & 15) == 0 && size == 4)
        write_register(opaque, off >> 4, val);
}

/* --- MSRs --------------------------------------------------------------------------------------
 */

/* Which registers exist as MSRs (SDM 3A table 10-6): 1 readable, 2 writable. */
static unsigned x2_rights(u32 reg)
{
    switch (reg) {
    case APIC_ID:
    case APIC_VERSION:
    case APIC_PPR:
    case APIC_LDR:
    case APIC_ISR ... APIC_ISR + 7:
    case APIC_TMR ... APIC_TMR + 7:
    case APIC_IRR ... APIC_IRR + 7:
    case APIC_TIMER_CURRENT:
        return 1;
    case APIC_EOI:
    case APIC_SELF_IPI:
        return 2;
    case APIC_TPR:
    case APIC_SVR:
    case APIC_ESR:
    case APIC_ICR:
    case APIC_LVT_TIMER ... APIC_LVT_ERROR:
    case APIC_TIMER_INIT:
    case APIC_TIMER_DIVIDE:
        return 3;
    default:
        return 0;
    }
}

/* Bits that may be set in a write; others are #GP (SDM 3A 10.12.1.2). */
static u64 x2_valid(u32 reg)
{
    switch (reg) {
    case APIC_EOI:
    case APIC_ESR:
        return 0;
    case APIC_TPR:
    case APIC_SELF_IPI:
        return 0xff;
    case APIC_SVR:
        return SVR_FOCUS | SVR_ENABLE | 0xff;
    case APIC_ICR: /* the delivery status bit is gone, but written back by some */
        return MASK64(63, 32) | 0x000cdfffu;
    case APIC_LVT_TIMER ... APIC_LVT_ERROR: /* delivery status and remote IRR are ignored */
        return lapic_lvt_writable[reg - APIC_LVT_TIMER] | BIT32(12) | LVT_REMOTE_IRR;
    case APIC_TIMER_DIVIDE:
        return 0xb;
    default:
        return 0xffffffffu;
    }
}

static int x2_read(void *opaque, struct vcpu *v, u32 msr, u64 *val)
{
    struct lapic *l = v->irq_opaque;
    u32 reg = msr - MSR_X2APIC_BASE;

    (void)opaque;
    if (!lapic_x2(l) || !(x2_rights(reg) & 1))
        return -1;
    *val = reg == APIC_ICR ? l->icr : read_register(l, reg);
    return 0;
}

static int x2_write(void *opaque, struct vcpu *v, u32 msr, u64 val)
{
    struct lapic *l = v->irq_opaque;
    u32 reg = msr - MSR_X2APIC_BASE;

    (void)opaque;
    if (!lapic_x2(l))
        return -1;
    if (reg == APIC_EOI && !val) {
        lapic_eoi(l);
        return 0;
    }
    if (!(x2_rights(reg) & 2) || (val & ~x2_valid(reg)))
        return -1;
    if (reg == APIC_ICR) {
        l->icr = val & ~BIT64(12);
        lapic_send_ipi(l, l->icr);
    } else if (reg == APIC_SELF_IPI) {
        if (val < 16)
            lapic_error(l, ESR_SEND_ILLEGAL);
        else
            lapic_accept(l, DM_FIXED, (u8)val, false);
    } else {
        write_register(l, reg, (u32)val);
    }
    return 0;
}

static const struct msr_ops x2_ops = {.read = x2_read, .write = x2_write};

bool lapic_base_ok(const struct lapic *l, u64 val)
{
    if (val & (MASK64(63, l->set->vm->cpu_model.phys_bits) | MASK64(7, 0) | BIT64(9)))
        return false;
    return (val & (APIC_BASE_EN | APIC_BASE_EXTD)) != APIC_BASE_EXTD; /* no such state */
}

static int base_read(void *opaque, struct vcpu *v, u32 msr, u64 *val)
{
    struct lapic *l = v->irq_opaque;

    (void)opaque;
    (void)msr;
    *val = l->base;
    return 0;
}

/* IA32_APIC_BASE (SDM 3A figure 10-26 and table 10-5: the legal changes of state). */
static int base_write(void *opaque, struct vcpu *v, u32 msr, u64 val)
{
    struct lapic *l = v->irq_opaque;
    u64 was = l->base & (APIC_BASE_EN | APIC_BASE_EXTD);
    u64 will = val & (APIC_BASE_EN | APIC_BASE_EXTD);

    (void)opaque;
    (void)msr;
    if (!lapic_base_ok(l, val))
        return -1;
    if (will == APIC_BASE_EN && was == (APIC_BASE_EN | APIC_BASE_EXTD))
        return -1; /* out of x2APIC mode only through disabled */
    if (will == (APIC_BASE_EN | APIC_BASE_EXTD) && !was)
        return -1; /* into x2APIC mode only from xAPIC mode */
    val = (val & ~APIC_BASE_BSP) | (v->bsp ? APIC_BASE_BSP : 0);
    lapic_set_base(l, val);
    if (was && !will)
        reset_registers(l);
    if (will != was && (will & APIC_BASE_EXTD))
        l->icr &= 0xffffffffu;
    return 0;
}

static const struct msr_ops base_ops = {.read = base_read, .write = base_write};

static int deadline_read(void *opaque, struct vcpu *v, u32 msr, u64 *val)
{
    (void)opaque;
    (void)msr;
    *val = lapic_timer_read_deadline(v->irq_opaque);
    return 0;
}

static int deadline_write(void *opaque, struct vcpu *v, u32 msr, u64 val)
{
    (void)opaque;
    (void)msr;
    lapic_timer_write_deadline(v->irq_opaque, val);
    return 0;
}

static const struct msr_ops deadline_ops = {.read = deadline_read, .write = deadline_write};

/* --- the vCPU's view ---------------------------------------------------------------------------
 */

static u64 get_tpr(void *opaque)
{
    struct lapic *l = opaque;
    return l->tpr >> 4;
}

static void set_tpr(void *opaque, u64 cr8)
{
    write_register(opaque, APIC_TPR, (u32)(cr8 & 0xf) << 4);
}

static u32 apic_id(void *opaque)
{
    struct lapic *l = opaque;
    return l->id;
}

static bool enabled(void *opaque)
{
    struct lapic *l = opaque;
    return (l->base & APIC_BASE_EN) != 0;
}

void lapic_init(void *opaque)
{
    reset_registers(opaque);
}

static const struct vcpu_irq_ops irq_ops = {
    .pending = lapic_pending,
    .ack = lapic_ack,
    .get_tpr = get_tpr,
    .set_tpr = set_tpr,
    .apic_id = apic_id,
    .enabled = enabled,
    .mmio_read = mmio_read,
    .mmio_write = mmio_write,
    .init = lapic_init,
};

/* --- life cycle ---------------------------------------------------------------------------------
 */

static void destroy(struct device *d)
{
    struct lapics *set = container_of(d, struct lapics, dev);

    for (unsigned i = 0; i < set->n; i++) {
        vtimer_cancel(&set->apic[i].timer);
        set->apic[i].v->irq = NULL;
        set->apic[i].v->apic_page = VCPU_NO_APIC_PAGE;
    }
    host_free(set);
}

static const struct device_ops ops = {.name = "lapic",
                                      .save = lapic_save,
                                      .load = lapic_load,
                                      .loaded = lapic_loaded,
                                      .destroy = destroy};

struct device *lapic_create(struct vm *vm)
{
    struct lapics *set = host_zalloc(sizeof(*set));

    if (!set)
        return NULL;
    if (!vm->engine->apic &&
        (vm_add_msr_range(vm, MSR_X2APIC_BASE, MSR_X2APIC_LAST, &x2_ops, set) ||
         vm_add_msr_range(vm, MSR_APIC_BASE, MSR_APIC_BASE, &base_ops, set) ||
         vm_add_msr_range(vm, MSR_TSC_DEADLINE, MSR_TSC_DEADLINE, &deadline_ops, set))) {
        host_free(set);
        return NULL;
    }
    set->dev.ops = &ops;
    set->vm = vm;
    set->n = vm->nvcpus;
    for (unsigned i = 0; i < set->n; i++) {
        struct lapic *l = &set->apic[i];
        l->set = set;
        l->v = vm->vcpu[i];
        l->id = l->v->id;
        lapic_timer_setup(l);
        lapic_set_base(l, LAPIC_DEFAULT_BASE | APIC_BASE_EN | (l->v->bsp ? APIC_BASE_BSP : 0));
        reset_registers(l);
        l->v->irq = vm->engine->apic ? &lapic_engine_ops : &irq_ops;
        l->v->irq_opaque = l;
    }
    vm_add_device(vm, &set->dev);
    return &set->dev;
}

struct msi_sink lapic_msi_sink(struct device *d)
{
    struct lapics *set = container_of(d, struct lapics, dev);

    const struct engine_apic_ops *apic = set->vm->engine->apic;
    struct msi_sink sink = {.send = apic ? lapic_engine_msi : lapic_msi, .opaque = set};

    if (apic)
        sink.announce = lapic_engine_announce;
    if (apic && apic->route) {
        sink.get_irqfd = lapic_engine_get_irqfd;
        sink.put_irqfd = lapic_engine_put_irqfd;
        sink.route = lapic_engine_route;
    }
    return sink;
}

struct irq_line lapic_intr_line(struct device *d, int (*ack)(void *opaque), void *opaque)
{
    struct lapics *set = container_of(d, struct lapics, dev);

    set->ack = ack;
    set->ack_opaque = opaque;
    return (struct irq_line){.set = set->vm->engine->apic ? lapic_engine_intr : lapic_set_intr,
                             .opaque = set};
}

struct irq_line lapic_nmi_line(struct device *d)
{
    struct lapics *set = container_of(d, struct lapics, dev);

    return (struct irq_line){.set = set->vm->engine->apic ? lapic_engine_nmi : lapic_set_nmi,
                             .opaque = set};
}

void lapic_set_eoi(struct device *d, void (*eoi)(void *opaque, u8 vector), void *opaque)
{
    struct lapics *set = container_of(d, struct lapics, dev);

    set->eoi = eoi;
    set->eoi_opaque = opaque;
}
