/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the local APIC. Who writes what: IRR, TMR, pending errors and the ExtINT latch are set by
 * anybody with atomics; the timer is guarded by the VM lock; everything else is written by the
 * vCPU's own thread and read by others with relaxed atomics.
 */
#ifndef TRIVISOR_DEV_CHIPSET_LAPIC_PRIV_H
#define TRIVISOR_DEV_CHIPSET_LAPIC_PRIV_H

#include "dev/chipset/lapic.h"

/* Register offsets / 16 (SDM 3A table 10-6); also x2APIC MSR - 800H. */
enum {
    APIC_ID = 0x02,
    APIC_VERSION = 0x03,
    APIC_TPR = 0x08,
    APIC_APR = 0x09,
    APIC_PPR = 0x0a,
    APIC_EOI = 0x0b,
    APIC_RRD = 0x0c,
    APIC_LDR = 0x0d,
    APIC_DFR = 0x0e,
    APIC_SVR = 0x0f,
    APIC_ISR = 0x10,
    APIC_TMR = 0x18,
    APIC_IRR = 0x20,
    APIC_ESR = 0x28,
    APIC_ICR = 0x30,
    APIC_ICR2 = 0x31,
    APIC_LVT_TIMER = 0x32,
    APIC_LVT_ERROR = 0x37,
    APIC_TIMER_INIT = 0x38,
    APIC_TIMER_CURRENT = 0x39,
    APIC_TIMER_DIVIDE = 0x3e,
    APIC_SELF_IPI = 0x3f,
};

/* Rows of lvt[] in register order. */
enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_N };

#define LVT_MASKED BIT32(16)
#define LVT_LEVEL BIT32(15)
#define LVT_REMOTE_IRR BIT32(14)
#define LVT_ACTIVE_LOW BIT32(13)
#define LVT_MODE(lvt) ((lvt) >> 8 & 7)
#define LVT_TIMER_MODE(lvt) ((lvt) >> 17 & 3)
enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };

/* Delivery modes (SDM 3A 10.6.1). */
enum { DM_FIXED, DM_LOWEST, DM_SMI, DM_RESERVED, DM_NMI, DM_INIT, DM_SIPI, DM_EXTINT };

/* What pending returns for an interrupt of the 8259, whose vector INTA tells. */
#define PENDING_EXTINT 256

#define SVR_ENABLE BIT32(8)
#define SVR_FOCUS BIT32(9)

#define ESR_SEND_ILLEGAL BIT32(5)
#define ESR_RECV_ILLEGAL BIT32(6)
#define ESR_REGISTER_ILLEGAL BIT32(7)

#define APIC_BASE_BSP BIT64(8)
#define APIC_BASE_EXTD BIT64(10)
#define APIC_BASE_EN BIT64(11)

struct lapics;

struct lapic {
    struct lapics *set;
    struct vcpu *v;
    u64 base; /* IA32_APIC_BASE */
    u32 id;
    u32 tpr, ldr, dfr, svr, esr;
    u32 esr_pending; /* errors since the last write to ESR */
    u32 lvt[LVT_N];
    u64 icr;
    int isr_high; /* highest vector in service, or -1 */
    u32 isr[8], irr[8], tmr[8];
    u32 irr_any;    /* clear: irr is empty */
    u32 ioapic_ext; /* an ExtINT message came: the 8259 is to be asked */
    /* Timer; VM lock. */
    struct vtimer timer;
    u32 timer_init, timer_divide;
    u64 timer_period; /* ns of a full count */
    u64 tsc_deadline; /* guest TSC; 0: disarmed */
} __attribute__((aligned(64)));

struct lapics {
    struct device dev;
    struct vm *vm;
    u32 intr_level, nmi_level;
    int (*ack)(void *opaque);
    void *ack_opaque;
    void (*eoi)(void *opaque, u8 vector);
    void *eoi_opaque;
    u32 lowest_next; /* round robin of lowest-priority delivery */
    unsigned n;
    struct lapic apic[VM_VCPUS_MAX];
};

#define apic_get(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define apic_put(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)

static inline bool lapic_x2(const struct lapic *l)
{
    return (apic_get(&l->base) & APIC_BASE_EXTD) != 0;
}

/* The logical id in x2APIC mode (SDM 3A 10.12.10.2). */
static inline u32 lapic_x2_ldr(const struct lapic *l)
{
    return (l->id >> 4) << 16 | BIT32(l->id & 15);
}

/* --- lapic.c */

/* Writable bits of the LVT rows (SDM 3A figure 10-8). */
extern const u32 lapic_lvt_writable[LVT_N];
/* INIT reached the vCPU. */
void lapic_init(void *l);
/* IA32_APIC_BASE, from which follows where the register page is. */
void lapic_set_base(struct lapic *l, u64 base);
/* Is it a value that IA32_APIC_BASE can have, BSP aside? */
bool lapic_base_ok(const struct lapic *l, u64 val);

/* --- lapic_state.c: device.h */

int lapic_save(const struct device *d, struct stream *out, const char **why);
int lapic_load(struct device *d, struct stream *in);
void lapic_loaded(struct device *d);

/* --- lapic_engine.c: as the functions named so below, for an engine with APICs of its own */

extern const struct vcpu_irq_ops lapic_engine_ops;
void lapic_engine_msi(void *set, u64 addr, u32 data);
void lapic_engine_announce(void *set, unsigned pin, u64 addr, u32 data);
struct irqfd *lapic_engine_get_irqfd(void *set);
void lapic_engine_put_irqfd(void *set, struct irqfd *e);
void lapic_engine_route(void *set, struct irqfd *e, bool on, u64 addr, u32 data);
void lapic_engine_intr(void *set, unsigned n, bool level);
void lapic_engine_nmi(void *set, unsigned n, bool level);

/* --- lapic_irq.c */

/* Hands a message to one APIC; any thread. */
void lapic_accept(struct lapic *l, unsigned mode, u8 vector, bool level);
/* Delivers what an LVT row asks for. */
void lapic_lvt_fire(struct lapic *l, unsigned row);
void lapic_error(struct lapic *l, u32 esr_bit);
/* Sends the message in an ICR value. */
void lapic_send_ipi(struct lapic *l, u64 icr);
/* A message from a device. */
void lapic_msi(void *set, u64 addr, u32 data);
int lapic_pending(void *l);
int lapic_ack(void *l);
void lapic_eoi(struct lapic *l);
u8 lapic_ppr(const struct lapic *l);
/* Highest vector in an ISR, IRR or TMR; -1: none. */
int lapic_highest_bit(const u32 *reg);
/* Posts VCPU_EV_IRQ to the own vCPU when something has become deliverable. */
void lapic_recheck(struct lapic *l);
void lapic_set_intr(void *set, unsigned n, bool level);
void lapic_set_nmi(void *set, unsigned n, bool level);

/* --- lapic_timer.c: on the vCPU's thread, without the VM lock */

void lapic_timer_setup(struct lapic *l);
/* The period that follows from initial count and divider. */
void lapic_timer_set_period(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
void lapic_timer_write_init(struct lapic *l, u32 val);
void lapic_timer_write_divide(struct lapic *l, u32 val);
/* After the timer's LVT changed from old. */
void lapic_timer_mode_changed(struct lapic *l, u32 old);
u32 lapic_timer_current(struct lapic *l);
u64 lapic_timer_read_deadline(struct lapic *l);
void lapic_timer_write_deadline(struct lapic *l, u64 val);
/* Nanoseconds of one count. */
u64 lapic_timer_count_ns(const struct lapic *l);
/* Arms for l->tsc_deadline, the guest's TSC being tsc. VM lock held. */
void lapic_timer_arm_deadline(struct lapic *l, u64 tsc);

#endif
