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

enum engine_exit_kind {
    ENGINE_EXIT_HLT,         /* vCPU is halted: core waits for an event and calls run again */
    ENGINE_EXIT_KICKED,      /* an event flag asked for it (vcpu->events) */
    ENGINE_EXIT_SHUTDOWN,    /* triple fault; text has the reason */
    ENGINE_EXIT_UNSUPPORTED, /* the engine cannot go on; text names the instruction, register or
                                feature */
    ENGINE_EXIT_DEBUG,
};

struct engine_exit {
    enum engine_exit_kind kind;
    char text[200];
};

struct engine_probe {
    bool works;
    char why[160];  /* one sentence when it does not */
    unsigned speed; /* relative speed class, higher is faster; measured */
};

struct engine_options {
    const char *bt_mode; /* interp, soft, lockstep; NULL: default */
    const char *trace;   /* comma-separated list or NULL */
};

struct engine_ops {
    const char *name;
    void (*probe)(struct engine_probe *p);
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
    /* Counters as text lines "name value"; may be NULL. */
    void (*stats)(struct vm *vm, void (*line)(void *opaque, const char *name, u64 value),
                  void *opaque);
};

#endif
