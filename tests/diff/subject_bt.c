/* SPDX-License-Identifier: Apache-2.0 */
/* A whole VM on the engine seam as a subject: engine bt in one of its modes, one vCPU, no devices.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/vm.h"
#include "difftest.h"
#include "engine/bt/bt.h"
#include "host/init.h"

#define HANG_SECONDS 4

static struct vm *vm;
static struct vcpu *vcpu;
static struct host_ram ram;
static struct x86_vcpu_state *state;
static u64 running; /* number of the run in progress, 0: none; watched */

static int irq_none(void *opaque)
{
    (void)opaque;
    return -1;
}

static u64 irq_get_tpr(void *opaque)
{
    (void)opaque;
    return 0;
}

static void irq_set_tpr(void *opaque, u64 cr8)
{
    (void)opaque;
    (void)cr8;
}

static u32 irq_apic_id(void *opaque)
{
    (void)opaque;
    return 0;
}

static bool irq_enabled(void *opaque)
{
    (void)opaque;
    return true;
}

static const struct vcpu_irq_ops irq_ops = {.pending = irq_none,
                                            .ack = irq_none,
                                            .get_tpr = irq_get_tpr,
                                            .set_tpr = irq_set_tpr,
                                            .apic_id = irq_apic_id,
                                            .enabled = irq_enabled};

static void host_cpuid(u32 leaf, u32 subleaf, u32 out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(subleaf));
}

/* A case the host finishes in microseconds: an engine that is still at it is stopped, one that does
 * not stop is reported by name. */
static void *watchdog(void *arg)
{
    u64 seen = 0;
    unsigned same = 0;

    (void)arg;
    for (;;) {
        u64 now;
        sleep(1);
        now = __atomic_load_n(&running, __ATOMIC_RELAXED);
        same = now && now == seen ? same + 1 : 0;
        seen = now;
        if (same == HANG_SECONDS)
            vcpu_post(vcpu, VCPU_EV_STOP);
        if (same == 2 * HANG_SECONDS) {
            printf("difftest: the engine neither ends the case nor answers a kick:\n");
            print_current();
            fflush(stdout);
            _exit(1);
        }
    }
    return NULL;
}

static bool bt_start(const char *mode)
{
    struct x86_cpu_options cpu = {.ncpus = 1, .tsc_khz = 1000000};
    struct engine_options eo = {.bt_mode = mode};
    const struct engine_ops *ops = &bt_engine_ops;
    pthread_t thread;
    int err;

    host_init(LOG_WARN);
    vm = aligned_alloc(64, (sizeof(*vm) + 63) & ~63ul);
    vcpu = aligned_alloc(64, (sizeof(*vcpu) + 63) & ~63ul);
    state = aligned_alloc(64, sizeof(*state));
    if (!vm || !vcpu || !state || host_ram_alloc(&ram, GUEST_RAM)) {
        fprintf(stderr, "difftest: no memory for the guest\n");
        return false;
    }
    memset(vm, 0, sizeof(*vm));
    memset(vcpu, 0, sizeof(*vcpu));
    vm_init(vm, ops);
    x86_cpu_model_build(&vm->cpu_model, host_cpuid, xl.xcr0, &cpu);
    guest_build(ram.ptr);
    vcpu->irq = &irq_ops;
    vcpu->apic_page = VCPU_NO_APIC_PAGE;
    if ((err = guest_mem_add(&vm->mem, gpa(0), GUEST_RAM, ram.ptr, false)) ||
        (err = ops->vm_create(vm, &eo)) || (err = ops->memory_changed(vm)) ||
        (err = vm_add_vcpu(vm, vcpu))) {
        fprintf(stderr, "difftest: engine %s, mode %s: %s\n", ops->name, mode, strerror(-err));
        return false;
    }
    pthread_create(&thread, NULL, watchdog, NULL);
    return true;
}

static void bt_run_case(const struct diff_case *c, struct diff_result *r)
{
    static u64 number;
    struct engine_exit e = {.kind = ENGINE_EXIT_KICKED};

    guest_load(ram.ptr, c);
    vm_lock(vm);
    vm->engine->memory_written(vm, gpa(GUEST_CODE_GPA), CODE_SIZE);
    vm_unlock(vm);
    guest_state(state, c);
    if (vm->engine->set_state(vcpu, state)) {
        r->outcome = OUT_FAIL;
        snprintf(r->text, sizeof(r->text), "set_state refused the state");
        return;
    }
    __atomic_store_n(&running, ++number, __ATOMIC_RELAXED);
    vm->engine->run(vcpu, &e);
    __atomic_store_n(&running, 0, __ATOMIC_RELAXED);
    if (e.kind == ENGINE_EXIT_KICKED) {
        __atomic_and_fetch(&vcpu->events, ~VCPU_EV_STOP, __ATOMIC_SEQ_CST);
        r->outcome = OUT_TIMEOUT;
        return;
    }
    if (e.kind != ENGINE_EXIT_HLT) {
        r->outcome = OUT_FAIL;
        snprintf(r->text, sizeof(r->text), "engine exit %u: %.150s", e.kind, e.text);
        return;
    }
    if (vm->engine->get_state(vcpu, state)) {
        r->outcome = OUT_FAIL;
        snprintf(r->text, sizeof(r->text), "get_state failed");
        return;
    }
    guest_result(ram.ptr, state, r);
}

static void bt_stop(void)
{
}

const struct subject subject_bt = {"bt", bt_start, bt_run_case, bt_stop};
