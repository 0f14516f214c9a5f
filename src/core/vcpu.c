/* SPDX-License-Identifier: Apache-2.0 */
/* A vCPU's thread: INIT and SIPI, halting, and the accesses it makes of the machine. */
#include "core/vcpu_priv.h"

#include "x86/state.h"

/* Events this file handles; the rest is the engine's. */
#define CORE_EVENTS (VCPU_EV_INIT | VCPU_EV_SIPI | VCPU_EV_STOP)

#define RESET_VECTOR 0xfffffff0u

static u32 take_events(struct vcpu *v, u32 mask)
{
    return __atomic_fetch_and(&v->events, ~mask, __ATOMIC_SEQ_CST) & mask;
}

void vcpu_post(struct vcpu *v, u32 events)
{
    __atomic_fetch_or(&v->events, events, __ATOMIC_SEQ_CST);
    v->vm->engine->kick(v);
    /* Latched: a vCPU about to wait sees it, one that runs finds it set at its next halt. */
    host_event_set(&v->wake);
}

void vcpu_post_nmi(struct vcpu *v)
{
    u32 was = __atomic_fetch_or(&v->events, VCPU_EV_NMI, __ATOMIC_SEQ_CST);

    vcpu_post(v, was & VCPU_EV_NMI ? VCPU_EV_NMI2 : 0);
}

u64 vcpu_tsc_offset(struct vcpu *v)
{
    struct x86_vcpu_state s;

    if (v->tsc_offset)
        return *v->tsc_offset;
    return v->vm->engine->get_state(v, &s) ? 0 : s.tsc_offset;
}

u64 vcpu_tsc(struct vcpu *v)
{
    return v->vm->read_tsc() + vcpu_tsc_offset(v);
}

static void fail(struct vcpu *v, const char *what)
{
    vm_stop(v->vm, VM_CRASH, VM_EXIT_FAILURE, what);
}

/* INIT (SDM 3A 10.4.7.3, table 9-1): the boot processor starts again, others wait for a SIPI. */
static void do_init(struct vcpu *v)
{
    struct x86_vcpu_state s;

    if (v->bsp && !guest_mem_slot(&v->vm->mem, gpa(RESET_VECTOR))) {
        vm_stop(v->vm, VM_RESET, 0, "INIT at the boot processor and no firmware to start");
        return;
    }
    if (v->vm->engine->get_state(v, &s)) {
        fail(v, "INIT: the engine cannot give the state of the vCPU");
        return;
    }
    x86_state_init(&s, v->vm->cpu_model.signature);
    v->wait_sipi = !v->bsp;
    s.activity = v->wait_sipi ? X86_WAIT_SIPI : X86_RUNNING;
    if (v->vm->engine->set_state(v, &s)) {
        fail(v, "INIT: the engine refuses the state after INIT");
        return;
    }
    if (v->irq && v->irq->init)
        v->irq->init(v->irq_opaque);
    __atomic_fetch_and(&v->events, ~(VCPU_EV_NMIS | VCPU_EV_IRQ), __ATOMIC_SEQ_CST);
}

/* SIPI: ignored unless waited for. */
static void do_sipi(struct vcpu *v)
{
    struct x86_vcpu_state s;
    u8 vector = __atomic_load_n(&v->sipi_vector, __ATOMIC_RELAXED);

    if (!v->wait_sipi)
        return;
    if (v->vm->engine->get_state(v, &s)) {
        fail(v, "SIPI: the engine cannot give the state of the vCPU");
        return;
    }
    x86_state_sipi(&s, vector);
    if (v->vm->engine->set_state(v, &s)) {
        fail(v, "SIPI: the engine refuses the state after SIPI");
        return;
    }
    /* What came while it waited was blocked (SDM 3A 9.4.3), not held back. */
    __atomic_fetch_and(&v->events, ~VCPU_EV_NMIS, __ATOMIC_SEQ_CST);
    v->wait_sipi = false;
}

/* A timer that is due may be what the halted guest waits for: no need to wait for the event loop to
 * fire it. */
static void run_due_timers(struct vm *vm)
{
    if (__atomic_load_n(&vm->next_timer, __ATOMIC_RELAXED) > vm_clock_ns(vm))
        return;
    vm_lock(vm);
    vm_timers_run(vm);
    vm_unlock(vm);
}

static void run_once(struct vcpu *v)
{
    struct engine_exit exit = {.kind = ENGINE_EXIT_KICKED};

    v->vm->engine->run(v, &exit);
    switch (exit.kind) {
    case ENGINE_EXIT_HLT:
        run_due_timers(v->vm);
        /* Neither looking for the wakeup before sleeping nor sleeping until the APIC timer's
         * deadline (to spare the event loop's wakeup) paid when measured: the one takes the CPU
         * from who is to wake us, the other programs the host's timer twice as often. */
        host_event_wait(&v->wake, UINT64_MAX);
        break;
    case ENGINE_EXIT_KICKED:
        break;
    case ENGINE_EXIT_SHUTDOWN:
        if (vcpu_debug_dead(v))
            break;
        vm_stop(v->vm, VM_RESET, VM_EXIT_TRIPLE_FAULT, exit.text[0] ? exit.text : "triple fault");
        break;
    case ENGINE_EXIT_UNSUPPORTED:
        if (vcpu_debug_dead(v))
            break;
        fail(v, exit.text[0] ? exit.text : "the engine cannot go on");
        break;
    case ENGINE_EXIT_DEBUG:
        vcpu_debug_stopped(v, &exit.debug);
        break;
    }
}

static bool must_park(struct vcpu *v)
{
    return __atomic_load_n(&v->vm->pauses, __ATOMIC_SEQ_CST) ||
           __atomic_load_n(&v->held, __ATOMIC_SEQ_CST);
}

static void set_parked(struct vcpu *v)
{
    __atomic_store_n(&v->parked, 1, __ATOMIC_SEQ_CST);
    host_event_set(&v->vm->parked);
}

/*
 * Waits until there is neither a pause nor a hold, or the VM stops. vm_pause counts first and looks
 * at `parked` then, this thread the other way round: one of them sees the other.
 */
static void park(struct vcpu *v)
{
    for (;;) {
        __atomic_store_n(&v->parked, 0, __ATOMIC_SEQ_CST);
        if (!must_park(v))
            return;
        set_parked(v);
        while (must_park(v) && vm_is_running(v->vm))
            host_event_wait(&v->wake, UINT64_MAX);
        if (!vm_is_running(v->vm))
            return;
    }
}

void vcpu_thread(void *opaque)
{
    struct vcpu *v = opaque;
    struct x86_vcpu_state s;

    while (!__atomic_load_n(&v->vm->running, __ATOMIC_ACQUIRE))
        host_event_wait(&v->wake, UINT64_MAX);
    park(v); /* parked since it was created; a paused VM's state may still be changed */
    if (v->vm->engine->get_state(v, &s)) {
        fail(v, "the engine cannot give the state of the vCPU");
        set_parked(v);
        return;
    }
    v->wait_sipi = s.activity == X86_WAIT_SIPI && !v->vm->engine->apic;
    while (vm_is_running(v->vm)) {
        u32 ev;

        if (must_park(v)) {
            park(v);
            continue;
        }
        ev = take_events(v, CORE_EVENTS);
        if (ev & VCPU_EV_INIT)
            do_init(v);
        if (ev & VCPU_EV_SIPI)
            do_sipi(v);
        if (ev)
            continue; /* the VM may be stopping now */
        if (v->wait_sipi)
            host_event_wait(&v->wake, UINT64_MAX);
        else
            run_once(v);
    }
    set_parked(v); /* for ever */
}

u64 vm_mmio_read(struct vm *vm, u64 a, unsigned size)
{
    u64 val;

    vm_lock(vm);
    val = bus_read(&vm->mmio, a, size);
    vm_unlock(vm);
    return val;
}

void vm_mmio_write(struct vm *vm, u64 a, unsigned size, u64 val)
{
    vm_lock(vm);
    bus_write(&vm->mmio, a, size, val);
    vm_unlock(vm);
}

/* An access wholly in the vCPU's APIC page; 8-byte ones are two. */
static bool apic_access(const struct vcpu *v, u64 a, unsigned size)
{
    return (a & PAGE_MASK) == v->apic_page && (a & ~PAGE_MASK) + size <= PAGE_SIZE;
}

bool vcpu_mmio_is_plain(const struct vcpu *v, u64 a, unsigned size)
{
    /* The timer's current count (SDM 3A table 10-1) wants the time. */
    return (a & PAGE_MASK) == v->apic_page && size == 4 && !(a & 3) && (a & ~PAGE_MASK) != 0x390;
}

u64 vcpu_mmio_read(struct vcpu *v, u64 a, unsigned size)
{
    u32 off = (u32)(a & ~PAGE_MASK);

    if (!apic_access(v, a, size))
        return vm_mmio_read(v->vm, a, size);
    if (size == 8)
        return v->irq->mmio_read(v->irq_opaque, off, 4) |
               (u64)v->irq->mmio_read(v->irq_opaque, off + 4, 4) << 32;
    return v->irq->mmio_read(v->irq_opaque, off, size);
}

void vcpu_mmio_write(struct vcpu *v, u64 a, unsigned size, u64 val)
{
    u32 off = (u32)(a & ~PAGE_MASK);

    if (!apic_access(v, a, size)) {
        vm_mmio_write(v->vm, a, size, val);
        return;
    }
    v->irq->mmio_write(v->irq_opaque, off, size == 8 ? 4 : size, (u32)val);
    if (size == 8)
        v->irq->mmio_write(v->irq_opaque, off + 4, 4, (u32)(val >> 32));
}

u32 vm_pio_read(struct vm *vm, u16 port, unsigned size)
{
    u32 val;

    vm_lock(vm);
    val = (u32)bus_read(&vm->pio, port, size);
    vm_unlock(vm);
    return val;
}

void vm_pio_write(struct vm *vm, u16 port, unsigned size, u32 val)
{
    vm_lock(vm);
    bus_write(&vm->pio, port, size, val);
    vm_unlock(vm);
}
