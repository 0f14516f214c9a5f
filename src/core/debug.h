/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A debugger's hold on a machine, whatever the engine: break- and watchpoints, stepping, which
 * vCPUs run, and being told when something happened. All-stop: when one vCPU meets what was asked
 * for, the VM is paused (vm_pause) before the debugger hears of it. All calls on the event loop's
 * thread (before vm_run: the one that will call it), VM lock not held.
 */
#ifndef TRIVISOR_CORE_DEBUG_H
#define TRIVISOR_CORE_DEBUG_H

#include "core/vm.h"

struct vm_debugger {
    /* v met what v->stop says; the VM is paused. Others may have met something too: they tell
     * after the next vm_debug_go. */
    void (*stopped)(void *opaque, struct vcpu *v);
    void *opaque;
};

/* Attaches the one debugger and pauses the VM. 0; -EBUSY: there is one; -ENOTSUP: the engine cannot
 * be debugged; -ENOMEM. *d is copied. */
int vm_debug_attach(struct vm *vm, const struct vm_debugger *d);
/* Takes away all points, steps and holds, and lets the VM run. */
void vm_debug_detach(struct vm *vm);

/* The VM runs as far as the debugger is concerned. */
bool vm_debug_running(const struct vm *vm);
/* Pauses a running VM; `stopped` is not called. */
void vm_debug_interrupt(struct vm *vm);

/*
 * Points, while stopped; in force from the next vm_debug_go on. len is of watchpoints. 0; -EEXIST,
 * -ENOENT; -ENOSPC; -EINVAL: an empty or wrapping range.
 */
int vm_debug_insert(struct vm *vm, enum debug_point_kind kind, u64 lin, u64 len);
int vm_debug_remove(struct vm *vm, enum debug_point_kind kind, u64 lin, u64 len);

/* What a vCPU is to do from the next vm_debug_go on. */
enum debug_action { DEBUG_HOLD, DEBUG_RUN, DEBUG_STEP };

struct debug_order {
    enum debug_action action;
    struct debug_step step; /* with DEBUG_STEP; `step` in it is set here */
};

/*
 * Lets a stopped VM go on; order[i] is for vCPU i. When a vCPU has
 * met something it could not tell yet, nothing runs and `stopped` is called at once. -errno: the
 * engine refuses the points; nothing runs.
 */
int vm_debug_go(struct vm *vm, const struct debug_order *order);

#endif
