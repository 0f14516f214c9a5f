/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine: memory, buses, clock, devices and vCPUs, and their life cycle. One lock a VM
 * (vm_lock) guards devices, buses and timers; vCPU threads hold it only inside the accessors below.
 * Lock order: vm_lock, then an engine's own locks are NOT taken inside it (engines call in with
 * none of theirs held, or only ones that are never taken under vm_lock).
 */
#ifndef TRIVISOR_CORE_VM_H
#define TRIVISOR_CORE_VM_H

#include "base/bits.h"
#include "core/bus.h"
#include "core/clock.h"
#include "core/device.h"
#include "core/engine.h"
#include "core/host.h"
#include "core/irq.h"
#include "core/mem.h"

#define VM_VCPUS_MAX 8

/* vcpu->events bits */
#define VCPU_EV_IRQ BIT32(0) /* the local APIC (or PIC) may have something: ask irq->pending */
#define VCPU_EV_NMI BIT32(1)
#define VCPU_EV_INIT BIT32(2)
#define VCPU_EV_SIPI BIT32(3) /* vcpu->sipi_vector */
#define VCPU_EV_STOP BIT32(4) /* leave run: the VM is stopping or pausing */
#define VCPU_EV_WORK BIT32(5) /* engine-private work */
#define VCPU_EV_SMI BIT32(6)
#define VCPU_EV_NMI2 BIT32(7) /* one more NMI: see vcpu_post_nmi */
#define VCPU_EV_NMIS (VCPU_EV_NMI | VCPU_EV_NMI2)

struct vm_debug; /* core/debug.h */

/*
 * A local APIC's registers on their way between the device and an engine with APICs of its own: the
 * register page (SDM 3A table 10-6), of which 32 bits in each 16 bytes are used. In x2APIC mode the
 * ID is as wide as that, and the upper half of the ICR is where it is in xAPIC mode. The current
 * count is the timer's state: 0, with an initial count that is not, is one that is due.
 */
#define APIC_REGS 64

struct vcpu_apic {
    u64 base;         /* IA32_APIC_BASE */
    u64 tsc_deadline; /* IA32_TSC_DEADLINE; 0: disarmed */
    u32 reg[APIC_REGS];
};

/* A vCPU's local interrupt controller, as the engine sees it. Called without the VM lock (they take
 * it). */
struct vcpu_irq_ops {
    /* Vector of the highest deliverable interrupt (priority above PPR; ExtINT counts), or -1. */
    int (*pending)(void *opaque);
    /* INTA: accepts it and returns its vector, or -1 when it is gone. */
    int (*ack)(void *opaque);
    u64 (*get_tpr)(void *opaque); /* CR8: TPR >> 4 */
    void (*set_tpr)(void *opaque, u64 cr8);
    u32 (*apic_id)(void *opaque);
    bool (*enabled)(void *opaque); /* APIC_BASE.EN: CPUID.1.EDX.APIC */
    /* The register page at vcpu->apic_page: off within it. Only for accesses of this vCPU. */
    u32 (*mmio_read)(void *opaque, u32 off, unsigned size);
    void (*mmio_write)(void *opaque, u32 off, unsigned size, u32 val);
    /* INIT reached the vCPU: registers to their values after INIT (SDM 3A 10.4.7.3). */
    void (*init)(void *opaque);
    /* For an engine with local APICs of its own, in which pending and ack are about the 8259 alone.
     * The registers of the device, and taking over the engine's: the clock stands, VM lock held. */
    void (*get_regs)(void *opaque, struct vcpu_apic *to);
    void (*set_regs)(void *opaque, const struct vcpu_apic *from);
    /* The EOI of a vector whose pin the engine knows (engine_apic_ops.pin). */
    void (*eoi)(void *opaque, u8 vector);
};

#define VCPU_NO_APIC_PAGE (~(u64)0)

struct vcpu {
    struct vm *vm;
    unsigned id;
    u32 events; /* VCPU_EV_*, atomic */
    u8 sipi_vector;
    const struct vcpu_irq_ops *irq;
    void *irq_opaque;
    void *engine_vcpu;
    struct host_thread *thread;
    struct host_event wake; /* what a halted vCPU waits on */
    bool bsp;
    bool wait_sipi; /* its thread's only: INIT came, no SIPI yet */
    /* Guest-physical page of this vCPU's xAPIC registers, or VCPU_NO_APIC_PAGE. Its thread's only.
     */
    u64 apic_page;
    /* Where the engine keeps guest TSC - host TSC (set by vcpu_create; read by the vCPU's thread).
     * NULL: core asks get_state. */
    const u64 *tsc_offset;
    u32 parked; /* atomic: its thread is in no engine and no device, and waits */
    /* The debugger's, see core/debug.h; changed by the event loop while parked. */
    u32 held;                /* atomic: stay parked although the VM runs */
    struct debug_step debug; /* read by the engine */
    struct debug_stop stop;  /* valid with stopped */
    u32 stopped;             /* atomic: `stop` happened and was not told yet */
    bool dead_told;          /* its thread's only: DEBUG_STOP_DEAD was reported */
};

enum vm_stop_reason { VM_RUNNING, VM_POWEROFF, VM_RESET, VM_TEST_EXIT, VM_CRASH, VM_QUIT };

/* MSRs that belong to devices or to policy (x2APIC, pvclock, ...). 0, or -1: #GP. VM lock NOT held.
 */
struct msr_ops {
    int (*read)(void *opaque, struct vcpu *v, u32 msr, u64 *val);
    int (*write)(void *opaque, struct vcpu *v, u32 msr, u64 val);
};

#define VM_MSR_RANGES_MAX 16

struct vm {
    struct guest_mem mem;
    struct bus pio, mmio;
    struct host_mutex lock;
    struct x86_cpu_model cpu_model;
    const struct engine_ops *engine;
    void *engine_vm;
    struct vcpu *vcpu[VM_VCPUS_MAX];
    unsigned nvcpus;
    struct device *devices;
    struct vtimer *timer_heap[VTIMERS_MAX];
    unsigned ntimers;
    u64 clock_base;    /* atomic: host monotonic ns at clock 0, moved on by the time paused */
    u64 clock_stopped; /* atomic: the clock while it stands, VM_CLOCK_RUNS while it does not */
    u32 stop_reason;   /* enum vm_stop_reason, atomic: the first one wins */
    int exit_code;
    char stop_text[256];
    struct {
        u32 first, last;
        const struct msr_ops *ops;
        void *opaque;
    } msr_range[VM_MSR_RANGES_MAX];
    unsigned nmsr_ranges;
    bool strict_io, strict_msr;
    u32 running;              /* atomic: vm_run was called */
    u32 stop_claimed;         /* atomic: somebody is filling in the reason */
    u64 next_timer;           /* atomic: clock ns of the first timer, or UINT64_MAX */
    u64 host_deadline;        /* clock ns the host's timer is armed for; VM lock */
    u64 (*read_tsc)(void);    /* the host's TSC; tests put theirs here */
    u32 pauses;               /* atomic: calls of vm_pause without their vm_resume */
    struct host_event parked; /* a vCPU parked: what vm_pause waits on */
    u64 tsc_stopped;          /* host TSC when the clock stopped */
    /* Host TSC ticks the guests' TSCs have stood still for: what vcpu_tsc_offset has lost since the
     * VM began. */
    u64 tsc_lost;
    /* The engine has the local APICs' registers, not the devices: it has APICs of its own, and the
     * VM is not paused. VM lock. */
    bool apics_in_engine;
    struct vm_debug *debug; /* NULL: no debugger */
};

#define VM_CLOCK_RUNS UINT64_MAX

/* Life cycle. *vm is zeroed storage of the caller's. After vm_init the caller builds cpu_model,
 * adds RAM and calls engine->vm_create, then adds vCPUs and devices. */
void vm_init(struct vm *vm, const struct engine_ops *engine);
int vm_add_vcpu(struct vm *vm,
                struct vcpu *v); /* after cpu_model is built; v zeroed, caller's storage */
/* Starts a thread a vCPU; they wait for vm_run. 0 or -errno. */
int vm_start(struct vm *vm);
/* Lets the vCPUs of a started VM run, and the event loop until the VM stops; joins the threads. 0
 * or -errno. */
int vm_run(struct vm *vm);
void vm_destroy(struct vm *vm); /* devices, vCPUs, engine */

/* Asks the VM to stop; any thread. text may be NULL. The first call wins. */
void vm_stop(struct vm *vm, enum vm_stop_reason why, int exit_code, const char *text);

/* Nobody has asked it to stop. */
static inline bool vm_is_running(const struct vm *vm)
{
    return __atomic_load_n(&vm->stop_reason, __ATOMIC_ACQUIRE) == VM_RUNNING;
}

/*
 * Pausing: every vCPU's thread is out of its engine and out of devices and stays so, the clock and
 * with it the timers stand still, and so do the guests' TSCs. Calls nest; vm_run may begin paused.
 * The event loop's thread only, VM lock not held (before vm_run: the thread that will call it).
 * While paused, get_state and set_state may be called from there. What the loop itself does goes
 * on: input from outside still reaches devices, and requests in flight at backends complete; who
 * wants those at rest (a snapshot) drains them first.
 */
void vm_pause(struct vm *vm);
void vm_resume(struct vm *vm);

void vm_lock(struct vm *vm);
void vm_unlock(struct vm *vm);

/* Accesses of a vCPU; they take the VM lock. */
u64 vm_mmio_read(struct vm *vm, u64 gpa, unsigned size);
void vm_mmio_write(struct vm *vm, u64 gpa, unsigned size, u64 val);
/* As these, but the vCPU's own APIC page is seen first. Engines use these. */
u64 vcpu_mmio_read(struct vcpu *v, u64 gpa, unsigned size);
/* Is a read of it a look at a register of the vCPU's own APIC, without locks and calls of the host?
 */
bool vcpu_mmio_is_plain(const struct vcpu *v, u64 gpa, unsigned size);
void vcpu_mmio_write(struct vcpu *v, u64 gpa, unsigned size, u64 val);
u32 vm_pio_read(struct vm *vm, u16 port, unsigned size);
void vm_pio_write(struct vm *vm, u16 port, unsigned size, u32 val);
int vm_rdmsr(struct vcpu *v, u32 msr, u64 *val);
int vm_wrmsr(struct vcpu *v, u32 msr, u64 val);
int vm_add_msr_range(struct vm *vm, u32 first, u32 last, const struct msr_ops *ops, void *opaque);

/* Devices' DMA; VM lock held. -EFAULT when it leaves RAM. Tells the engine about writes. */
int vm_dma_read(struct vm *vm, gpa_t a, void *buf, u64 len);
int vm_dma_write(struct vm *vm, gpa_t a, const void *buf, u64 len);
/* A device wrote to [a, a+len) of RAM by other means: what was derived from it is dropped. */
void vm_dma_written(struct vm *vm, gpa_t a, u64 len);

/* Adds d to the VM's list (owned from then on). The event loop's thread, or before vCPUs run. */
void vm_add_device(struct vm *vm, struct device *d);
/* Takes it off the list and destroys it, after device_ops.unplug. The event loop's thread, VM lock
 * not held. */
void vm_remove_device(struct vm *vm, struct device *d);

/* Sets event bits (atomic or) and kicks or wakes the vCPU; any thread, VM lock optional. */
void vcpu_post(struct vcpu *v, u32 events);
/*
 * An NMI, likewise. Two that are sent to a vCPU whose thread looks at neither are two: a processor
 * takes the first at once and keeps the second until that one's handler ends (SDM 3A 6.7.1).
 */
void vcpu_post_nmi(struct vcpu *v);
/* NMIs in a set of events. */
static inline unsigned vcpu_nmis(u32 events)
{
    return !!(events & VCPU_EV_NMI) + !!(events & VCPU_EV_NMI2);
}

/* The guest's TSC on this vCPU, now. On the vCPU's thread, or before vCPUs run. */
u64 vcpu_tsc(struct vcpu *v);
/* Guest TSC - host TSC, likewise. */
u64 vcpu_tsc_offset(struct vcpu *v);

#endif
