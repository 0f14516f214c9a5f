/* SPDX-License-Identifier: Apache-2.0 */
/* Pausing and resuming a machine. */
#include "base/check.h"
#include "core/vcpu_priv.h"

static void wait_parked(struct vm *vm)
{
    for (unsigned i = 0; i < vm->nvcpus; i++)
        while (!__atomic_load_n(&vm->vcpu[i]->parked, __ATOMIC_SEQ_CST))
            host_event_wait(&vm->parked, UINT64_MAX);
}

/* To the engine or from it. */
static void move_apics(struct vm *vm, bool to)
{
    const struct engine_apic_ops *apic = vm->engine->apic;
    int err;

    vm_lock(vm);
    err = to ? apic->take(vm) : apic->give(vm);
    vm->apics_in_engine = to;
    vm_unlock(vm);
    if (err)
        vm_stop(vm, VM_CRASH, VM_EXIT_FAILURE, "pausing: the engine fails at the local APICs");
}

void vm_pause(struct vm *vm)
{
    if (__atomic_fetch_add(&vm->pauses, 1, __ATOMIC_SEQ_CST))
        return;
    for (unsigned i = 0; i < vm->nvcpus; i++)
        if (!__atomic_load_n(&vm->vcpu[i]->parked, __ATOMIC_SEQ_CST))
            vcpu_post(vm->vcpu[i], VCPU_EV_STOP);
    wait_parked(vm);
    vm_clock_stop(vm);
    if (vm->engine->apic)
        move_apics(vm, false);
}

static void move_tsc(struct vcpu *v, u64 delta)
{
    const struct engine_ops *e = v->vm->engine;
    struct x86_vcpu_state s;

    if (e->add_tsc_offset) {
        e->add_tsc_offset(v, delta);
        return;
    }
    if (e->get_state(v, &s))
        return;
    s.tsc_offset += delta;
    e->set_state(v, &s);
}

void vm_resume(struct vm *vm)
{
    u64 lost;

    CHECK(vm->pauses);
    if (vm->pauses > 1) {
        __atomic_fetch_sub(&vm->pauses, 1, __ATOMIC_SEQ_CST);
        return;
    }
    lost = vm_clock_start(vm);
    for (unsigned i = 0; i < vm->nvcpus; i++)
        move_tsc(vm->vcpu[i], -lost);
    if (vm->engine->apic)
        move_apics(vm, true);
    __atomic_store_n(&vm->pauses, 0, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < vm->nvcpus; i++)
        host_event_set(&vm->vcpu[i]->wake);
}
