/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's life cycle. */
#include <errno.h>
#include <string.h>

#include "core/vcpu_priv.h"
#include "core/vm.h"

static u64 host_tsc(void)
{
    return __builtin_ia32_rdtsc();
}

void vm_init(struct vm *vm, const struct engine_ops *engine)
{
    bus_init(&vm->pio, "port");
    bus_init(&vm->mmio, "mmio");
    host_mutex_init(&vm->lock);
    vm->engine = engine;
    vm->clock_base = host_monotonic_ns();
    vm->host_deadline = vm->next_timer = UINT64_MAX;
    vm->clock_stopped = VM_CLOCK_RUNS;
    vm->read_tsc = host_tsc;
    vm->apics_in_engine = engine->apic != NULL;
}

int vm_add_vcpu(struct vm *vm, struct vcpu *v)
{
    struct x86_vcpu_state s;
    int err;

    if (vm->nvcpus == VM_VCPUS_MAX)
        return -ENOSPC;
    v->vm = vm;
    v->id = vm->nvcpus;
    v->bsp = v->id == 0;
    v->apic_page = VCPU_NO_APIC_PAGE;
    v->parked = 1;
    err = vm->engine->vcpu_create(v);
    if (err)
        return err;
    if (!v->bsp) {
        err = vm->engine->get_state(v, &s);
        s.activity = X86_WAIT_SIPI;
        if (!err)
            err = vm->engine->set_state(v, &s);
        if (err) {
            vm->engine->vcpu_destroy(v);
            return err;
        }
    }
    vm->vcpu[vm->nvcpus++] = v;
    return 0;
}

/* Whatever ended the VM, the threads must see it. */
static void join_vcpus(struct vm *vm, bool failed)
{
    vm_stop(vm, failed ? VM_CRASH : VM_QUIT, failed ? VM_EXIT_FAILURE : 0,
            failed ? "the host's threads or event loop failed" : NULL);
    __atomic_store_n(&vm->running, 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < vm->nvcpus; i++) {
        if (!vm->vcpu[i]->thread)
            continue;
        host_event_set(&vm->vcpu[i]->wake);
        host_thread_join(vm->vcpu[i]->thread);
        vm->vcpu[i]->thread = NULL;
    }
}

int vm_start(struct vm *vm)
{
    static const char *const names[VM_VCPUS_MAX] = {"vcpu0", "vcpu1", "vcpu2", "vcpu3",
                                                    "vcpu4", "vcpu5", "vcpu6", "vcpu7"};
    int err = 0;

    vm->pio.strict = vm->mmio.strict = vm->strict_io;
    err = host_populator_start();
    for (unsigned i = 0; i < vm->nvcpus && !err; i++)
        err = host_thread_create(&vm->vcpu[i]->thread, names[i], vcpu_thread, vm->vcpu[i]);
    if (err) {
        join_vcpus(vm, true);
        host_populator_stop();
    }
    return err;
}

int vm_run(struct vm *vm)
{
    int err;

    __atomic_store_n(&vm->running, 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < vm->nvcpus; i++)
        host_event_set(&vm->vcpu[i]->wake);
    err = host_loop_run();
    join_vcpus(vm, err != 0);
    host_populator_stop();
    return err;
}

void vm_destroy(struct vm *vm)
{
    host_loop_timer(UINT64_MAX, NULL, NULL);
    while (vm->devices) {
        struct device *d = vm->devices;
        vm->devices = d->next;
        if (d->ops->destroy)
            d->ops->destroy(d);
    }
    while (vm->nvcpus)
        vm->engine->vcpu_destroy(vm->vcpu[--vm->nvcpus]);
    if (vm->engine_vm)
        vm->engine->vm_destroy(vm);
    vm->engine_vm = NULL;
    guest_mem_untrack(&vm->mem);
}

void vm_stop(struct vm *vm, enum vm_stop_reason why, int exit_code, const char *text)
{
    if (__atomic_exchange_n(&vm->stop_claimed, 1, __ATOMIC_ACQ_REL))
        return;
    vm->exit_code = exit_code;
    vm->stop_text[0] = '\0';
    if (text) {
        size_t n = 0;
        while (n < sizeof(vm->stop_text) - 1 && text[n]) {
            vm->stop_text[n] = text[n];
            n++;
        }
        vm->stop_text[n] = '\0';
    }
    __atomic_store_n(&vm->stop_reason, (u32)why, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < vm->nvcpus; i++)
        vcpu_post(vm->vcpu[i], VCPU_EV_STOP);
    host_loop_stop();
}

void vm_lock(struct vm *vm)
{
    host_mutex_lock(&vm->lock);
}

void vm_unlock(struct vm *vm)
{
    host_mutex_unlock(&vm->lock);
}

int vm_dma_read(struct vm *vm, gpa_t a, void *buf, u64 len)
{
    return guest_mem_read(&vm->mem, a, buf, len);
}

int vm_dma_write(struct vm *vm, gpa_t a, const void *buf, u64 len)
{
    int err = guest_mem_write(&vm->mem, a, buf, len);

    if (!err)
        vm_dma_written(vm, a, len);
    return err;
}

void vm_dma_written(struct vm *vm, gpa_t a, u64 len)
{
    if (len && vm->engine->memory_written)
        vm->engine->memory_written(vm, a, len);
}

void vm_add_device(struct vm *vm, struct device *d)
{
    unsigned instance = 0;

    for (const struct device *o = vm->devices; o; o = o->next)
        if (o->ops == d->ops)
            instance++;
    d->instance = instance;
    d->next = vm->devices;
    vm->devices = d;
}

void vm_remove_device(struct vm *vm, struct device *d)
{
    struct device **at = &vm->devices;

    while (*at != d)
        at = &(*at)->next;
    *at = d->next;
    d->ops->destroy(d);
}
