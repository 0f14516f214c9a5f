/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TRIVISOR_ENGINE_KVM_PRIV_H
#define TRIVISOR_ENGINE_KVM_PRIV_H

#include <linux/kvm.h>
#include <stddef.h>

#include "core/vm.h"
#include "engine/interp/interp.h"

/* Counters of a vCPU (--stats). */
#define KVM_STATS(X)                                                                               \
    X(exits)                                                                                       \
    X(port_io)                                                                                     \
    X(mmio)                                                                                        \
    X(msrs)                                                                                        \
    X(eois)                                                                                        \
    X(windows)                                                                                     \
    X(interrupts)                                                                                  \
    X(interp_steps)

struct kvm_stats {
#define X(name) u64 name;
    KVM_STATS(X)
#undef X
};

#define KVM_HW_MSRS_MAX 16

/* struct kvm_msrs with room for entries. */
struct kvm_msr_values {
    u32 nmsrs, pad;
    struct kvm_msr_entry entry[KVM_HW_MSRS_MAX];
};
_Static_assert(offsetof(struct kvm_msr_values, entry) == offsetof(struct kvm_msrs, entries),
               "not laid out as KVM's");

/* One is a vector of a device: two or three a disk, a network or a shared directory, more with
 * several queues. */
#define KVM_IRQFDS 64

struct kvm_irqfd_slot {
    struct irqfd e;
    bool taken;     /* somebody's */
    bool on;        /* to be live while KVM has the APICs' registers */
    bool routed;    /* has a route ... */
    u32 addr, data; /* ... to this message */
};

struct kvm_machine {
    struct vm *vm;
    int fd;
    u64 run_size;   /* of the area shared with KVM, a vCPU */
    u32 xsave_size; /* of an XSAVE image as KVM moves it, at least X86_XSAVE_SIZE */
    u32 hw_msr[KVM_HW_MSRS_MAX];
    unsigned nhw_msrs; /* MSRs that get_state and set_state move, of those KVM has here */
    unsigned nslots;
    struct {
        u32 addr, data; /* what the I/O APIC's pin sends and wants the EOI of; data 0: nothing */
    } pin[ENGINE_PINS_MAX];
    struct kvm_irqfd_slot irqfd[KVM_IRQFDS]; /* number n has GSI ENGINE_PINS_MAX + n */
    bool routes_stale;                       /* KVM's routes are not those above */
    u64 graced_ns;                           /* when KVM last waited for its readers */
    u64 msi_calls, routings;                 /* for --stats */
    u64 *dirty[MEM_SLOTS_MAX]; /* atomic: pages this process wrote; NULL: not logged */
    struct kvm_cpu *cpu[VM_VCPUS_MAX];
    unsigned ncpus;
};

struct kvm_cpu {
    struct x86_vcpu_state s; /* first: it is aligned */
    struct interp interp;
    struct vcpu *v;
    struct kvm_machine *m;
    int fd;
    struct kvm_run *run;
    u8 *xsave;   /* with xsave_size > X86_XSAVE_SIZE: an image of that size */
    int thread;  /* 0: run was not called yet */
    u32 running; /* atomic: a kick must interrupt the thread */
    /* KVM has to finish the instruction of the last exit before its state may be looked at or an
     * event be injected. */
    bool incomplete;
    bool irq_maybe; /* the 8259 may have something */
    /* Of the local APIC, as current as c->s. */
    u64 apic_base, cr8;
    const char *cannot; /* what the interpreter needed and has not got; NULL: nothing */
    void *interp_cache;
    struct host_code native;
    struct kvm_stats stats;
};

/* ioctl that is tried again when a signal came; -errno. */
int kvm_ioctl(int fd, unsigned long request, void *arg);
int kvm_ioctl_int(int fd, unsigned long request, unsigned long arg);

/* --- cpu.c: what CPU the guest sees --- */

/* Takes out of *model what KVM (sys: /dev/kvm) cannot give. */
int kvm_restrict_model(struct x86_cpu_model *model, int sys);
/* Tells KVM's vCPU what CPUID returns. */
int kvm_set_cpuid(struct kvm_cpu *c);
/* All MSRs but those of the hardware are to come here. */
int kvm_set_msr_filter(struct kvm_machine *m);
/* Is it one of the hardware's or of the local APIC's, which the guest reaches through KVM alone? */
bool kvm_is_hw_msr(u32 msr);
/* Finds out which of them exist here. c: any vCPU. */
int kvm_find_hw_msrs(struct kvm_machine *m, struct kvm_cpu *c);
/* RDMSR and WRMSR of the MSRs that are ours: *s is their storage, current or not in all else.
 * 0 or -1: #GP(0). */
int kvm_rdmsr(struct kvm_cpu *c, u32 msr, u64 *val);
int kvm_wrmsr(struct kvm_cpu *c, u32 msr, u64 val);

/* --- state.c: between c->s and KVM; 0 or -errno --- */

int kvm_fetch_state(struct kvm_cpu *c);
/* Only the special registers, and cr8 and apic_base. */
int kvm_fetch_sregs(struct kvm_cpu *c);
int kvm_put_state(struct kvm_cpu *c);
/* A state that was fetched and has done something since: NMIs to come are as KVM has them, for
 * another vCPU may have sent one meanwhile. */
int kvm_put_back(struct kvm_cpu *c);
int kvm_put_tsc_offset(struct kvm_cpu *c);
/* The next thing the vCPU does is to take interrupt `vector` of the 8259, halted or not. It can:
 * kvm_run says so (ready_for_interrupt_injection). */
int kvm_put_extint(struct kvm_cpu *c, u8 vector);

/* --- dirty.c: engine.h, dirty_log and dirty_collect --- */

int kvm_dirty_log(struct vm *vm, bool on);
int kvm_dirty_collect(struct vm *vm, unsigned slot, u64 *bitmap);
/* This process wrote to [a, a+len). Any thread. */
void kvm_dirty_mark(struct kvm_machine *m, u64 a, u64 len);
void kvm_dirty_free(struct kvm_machine *m);
/* engine.c: tells KVM of a slot, with further flags. */
int kvm_put_slot(struct kvm_machine *m, unsigned slot, u32 flags);

/* --- apic.c --- */

extern const struct engine_apic_ops kvm_apic_ops;
/* Whether the NMI line is let through. */
bool kvm_lint1_is_nmi(struct kvm_cpu *c);
#define KVM_APIC_BASE_EN BIT64(11)
#define KVM_APIC_BASE_EXTD BIT64(10)

/* --- routes.c: as the functions of struct engine_apic_ops; VM lock held --- */

void kvm_pin(struct vm *vm, unsigned n, u64 addr, u32 data);
struct irqfd *kvm_get_irqfd(struct vm *vm);
void kvm_put_irqfd(struct vm *vm, struct irqfd *e);
void kvm_route(struct vm *vm, struct irqfd *e, bool on, u64 addr, u32 data);
/* With vm_create, before the process is confined: makes the eventfds. 0 or -errno. */
int kvm_irqfds_create(struct kvm_machine *m);
void kvm_irqfds_destroy(struct kvm_machine *m);
/* None is live any more, and what they have sent is in the APICs; or those are again that are to
 * be. */
void kvm_irqfds_stop(struct kvm_machine *m);
void kvm_irqfds_start(struct kvm_machine *m);

/* --- run.c --- */

void kvm_engine_run(struct vcpu *v, struct engine_exit *exit);
/* Handler of host_vcpu_attach. */
bool kvm_signal(void *opaque, struct host_signal *sig);
/* An access to no RAM; len: any up to 8. ROM swallows writes. */
u64 kvm_mmio_read(struct kvm_cpu *c, u64 gpa, unsigned len);
void kvm_mmio_write(struct kvm_cpu *c, u64 gpa, unsigned len, u64 val);

/* --- finish.c: the interpreter beside KVM --- */

/* For vcpu_create: memory and the page for native code. 0 or -errno. */
int kvm_interp_create(struct kvm_cpu *c);
void kvm_interp_destroy(struct kvm_cpu *c);
/* Interprets the instruction KVM stopped at. true: go on; false: *exit says why not. */
bool kvm_interp_one(struct kvm_cpu *c, struct engine_exit *exit);

static inline u64 kvm_host_tsc(void)
{
    u32 lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (u64)hi << 32 | lo;
}

#endif
