/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine seam: everything a machine asks of an engine; nothing else crosses. Errors are -errno.
 * Engines call back into core (vm.h): buses, MSRs, interrupts.
 */
#ifndef TRIVISOR_CORE_ENGINE_H
#define TRIVISOR_CORE_ENGINE_H

#include "core/addr.h"
#include "x86/cpuid.h"
#include "x86/state.h"

struct vm;
struct vcpu;
struct irqfd;

enum engine_exit_kind {
    ENGINE_EXIT_HLT,         /* vCPU is halted: core waits for an event and calls run again */
    ENGINE_EXIT_KICKED,      /* an event flag asked for it (vcpu->events) */
    ENGINE_EXIT_SHUTDOWN,    /* triple fault; text has the reason */
    ENGINE_EXIT_UNSUPPORTED, /* the engine cannot go on; text names the instruction, register or
                                feature */
    ENGINE_EXIT_DEBUG,       /* what the debugger asked for happened; debug says what */
};

/* --- debugging (core/debug.h is its user) --- */

/* Something the debugger waits for; addresses are linear, in whatever address space. */
enum debug_point_kind {
    DEBUG_BREAK,        /* the instruction at the address is about to execute */
    DEBUG_WATCH_WRITE,  /* some byte of the range was written */
    DEBUG_WATCH_READ,   /* read */
    DEBUG_WATCH_ACCESS, /* read or written */
};

struct debug_watch {
    u64 lin, len;
    enum debug_point_kind kind;
};

#define DEBUG_BREAKS_MAX 1024
#define DEBUG_WATCHES_MAX 32

/* All of a VM's points. */
struct debug_points {
    unsigned nbreaks, nwatches;
    u64 breaks[DEBUG_BREAKS_MAX]; /* ascending, no address twice */
    struct debug_watch watch[DEBUG_WATCHES_MAX];
};

enum debug_reason {
    DEBUG_STOP_BREAK, /* at a breakpoint, before the instruction */
    DEBUG_STOP_WATCH, /* after the access; addr and kind are the watchpoint's */
    DEBUG_STOP_STEP,  /* after an instruction, or after an event was delivered */
    DEBUG_STOP_DEAD,  /* the vCPU shut down or the engine cannot go on (core's, not an engine's) */
};

struct debug_stop {
    enum debug_reason reason;
    u64 addr;
    enum debug_point_kind kind;
};

/*
 * What the debugger asks of one vCPU; changed only while that is not in run. With step set, run
 * executes one instruction, or delivers one event, and then more of them while rip is in
 * [lo, hi).
 */
struct debug_step {
    bool step;
    bool no_irq; /* interrupts and NMIs wait meanwhile, unless the vCPU is halted */
    u64 lo, hi;
};

struct engine_exit {
    enum engine_exit_kind kind;
    char text[200];
    struct debug_stop debug;
};

struct engine_probe {
    bool works;
    char why[160]; /* one sentence when it does not */
};

struct engine_options {
    const char *bt_mode; /* interp, soft, lockstep; NULL: default */
    const char *trace;   /* comma-separated list or NULL */
    u64 code_cache;      /* bytes of translated code kept at most; 0: default */
};

/* Pins of an I/O APIC that an engine with local APICs of its own must know. */
#define ENGINE_PINS_MAX 24

/*
 * An engine with local APICs of its own (KVM's, in the host's kernel). Halts, INIT and SIPI, the
 * APIC's timer and interprocessor interrupts are then the engine's: run comes back for none of
 * them, and get_state and set_state carry X86_HALTED and X86_WAIT_SIPI. The 8259, I/O APICs and
 * whoever sends messages stay the board's. While the VM is paused the APIC's device has the
 * registers (vm.h: apics_in_engine, vcpu_irq_ops), and with them what is saved.
 */
struct engine_apic_ops {
    /* A message FEExxxxxH. VM lock held. */
    void (*msi)(struct vm *vm, u64 addr, u32 data);
    /* What pin of the I/O APIC sends from now on when its input is asserted; data 0: nothing whose
     * EOI (vcpu_irq_ops.eoi) it wants to hear of. VM lock held. */
    void (*pin)(struct vm *vm, unsigned pin, u64 addr, u32 data);
    /* As in struct msi_sink (core/irq.h); with the registers, in `give`, all of them cease to be
     * live, and those with a message are it again after `take`. NULL: there are none. */
    struct irqfd *(*get_irqfd)(struct vm *vm);
    void (*put_irqfd)(struct vm *vm, struct irqfd *e);
    void (*route)(struct vm *vm, struct irqfd *e, bool on, u64 addr, u32 data);
    /* All vCPUs are parked and the clock stands: the registers and the timers go to the devices; or
     * come from there, just before the vCPUs go on. VM lock held. 0 or -errno. */
    int (*give)(struct vm *vm);
    int (*take)(struct vm *vm);
};

struct engine_ops {
    const char *name;
    void (*probe)(struct engine_probe *p);
    /* Takes out of *m, which x86_cpu_model_build made, what this engine cannot give on this host;
     * vm_create does so with the VM's. NULL: it gives all of it. 0 or -errno. */
    int (*restrict_model)(struct x86_cpu_model *m);
    int (*vm_create)(struct vm *vm, const struct engine_options *opt); /* sets vm->engine_vm */
    void (*vm_destroy)(struct vm *vm);
    /* RAM slots changed (vm->mem): called once after the board has added them, before vCPUs run. */
    int (*memory_changed)(struct vm *vm);
    int (*vcpu_create)(struct vcpu *v); /* on the creating thread; state is RESET's */
    void (*vcpu_destroy)(struct vcpu *v);
    /* Runs v on the calling thread (always the same) until something core must handle. */
    void (*run)(struct vcpu *v, struct engine_exit *exit);
    /* Makes a running vCPU look at vcpu->events soon; any thread; no lock needed. Cheap when it is
     * not running. */
    void (*kick)(struct vcpu *v);
    /* While the vCPU is not in run. A field the engine cannot hold is -EINVAL, not silently lost.
     */
    int (*get_state)(struct vcpu *v, struct x86_vcpu_state *s);
    int (*set_state)(struct vcpu *v, const struct x86_vcpu_state *s);
    /* Guest memory [a, a+len) was written from outside a vCPU (DMA, loader): drop derived state. VM
     * lock held. */
    void (*memory_written)(struct vm *vm, gpa_t a, u64 len);
    /*
     * Which pages of RAM were written, by vCPUs or as memory_written told. dirty_log begins or ends
     * keeping it, before the process is confined or while it is not: none is dirty then.
     * dirty_collect sets *bitmap, a bit a page of the slot in whole u64s, to those written since
     * the last call. VM lock held; what is written meanwhile is in this answer or the next one.
     * NULL: the engine keeps no such log.
     */
    int (*dirty_log)(struct vm *vm, bool on);
    int (*dirty_collect)(struct vm *vm, unsigned slot, u64 *bitmap);
    /* The points at which run gives ENGINE_EXIT_DEBUG from now on; *p is copied. The guest can see
     * none of it: its memory and debug registers stay its own. No vCPU is in run. NULL: this engine
     * cannot be debugged (vcpu->debug is not looked at either). */
    int (*set_debug)(struct vm *vm, const struct debug_points *p);
    /* Adds to guest TSC - host TSC of a vCPU that is not in run. */
    void (*add_tsc_offset)(struct vcpu *v, u64 delta);
    /*
     * on: from now on a guest's store at a, of any size, adds 1 to the eventfd instead of going to
     * the bus, and the vCPU goes on; off: it goes to the bus again. The descriptor may be closed
     * when no vCPU runs any more. VM lock held. NULL: the engine has no doorbells. 0 or -errno.
     */
    int (*doorbell)(struct vm *vm, gpa_t a, int eventfd, bool on);
    /* NULL: the vCPUs have the board's local APICs. */
    const struct engine_apic_ops *apic;
    /* Counters as text lines "name value"; may be NULL. */
    void (*stats)(struct vm *vm, void (*line)(void *opaque, const char *name, u64 value),
                  void *opaque);
};

#endif
