/* SPDX-License-Identifier: Apache-2.0 */
/* Pausing: clock, timers, TSCs, vCPU threads; and the debugger's hold on a machine. */
#include <errno.h>
#include <string.h>

#include "core/debug.h"
#include "core/vcpu_priv.h"
#include "fake_host.h"
#include "test.h"

static struct machine *mach;

/* --- pausing ---------------------------------------------------------------------------------- */

static unsigned fired;

static void on_timer(void *opaque)
{
    (void)opaque;
    fired++;
}

static u64 guest_tsc(unsigned cpu)
{
    return mach->vm.read_tsc() + mach->cpu[cpu].s.tsc_offset;
}

static void pause__stops_clock_timers_and_tsc(void **state)
{
    struct vtimer t;
    u64 ns, tsc0, tsc1;

    (void)state;
    mach = machine_new(2);
    fired = 0;
    vtimer_init(&t, &mach->vm, on_timer, NULL);
    fake_advance(500);
    vm_lock(&mach->vm);
    vtimer_set(&t, vm_clock_ns(&mach->vm) + 1000);
    vm_unlock(&mach->vm);
    fake_advance(400);
    ns = vm_clock_ns(&mach->vm);
    tsc0 = guest_tsc(0);
    tsc1 = guest_tsc(1);

    vm_pause(&mach->vm);
    fake_advance(1000000);
    assert_int_equal(vm_clock_ns(&mach->vm), ns);
    assert_int_equal(fired, 0);
    vm_pause(&mach->vm);
    vm_resume(&mach->vm);
    assert_int_equal(vm_clock_ns(&mach->vm), ns);
    /* Armed while the clock stands. */
    vm_lock(&mach->vm);
    vtimer_set(&t, ns + 500);
    vm_unlock(&mach->vm);
    fake_advance(1000000);
    assert_int_equal(fired, 0);
    vm_resume(&mach->vm);

    assert_int_equal(vm_clock_ns(&mach->vm), ns);
    assert_int_equal(guest_tsc(0), tsc0);
    assert_int_equal(guest_tsc(1), tsc1);
    assert_int_equal(mach->vm.tsc_lost, 2000000ull * FAKE_TSC_KHZ / 1000000);
    fake_advance(499);
    assert_int_equal(fired, 0);
    fake_advance(1);
    assert_int_equal(fired, 1);
    machine_free(mach);
}

static unsigned step, runs;

static void run_counting(struct vcpu *v, struct engine_exit *exit)
{
    runs++;
    if (runs == 2)
        vm_stop(v->vm, VM_POWEROFF, 0, NULL);
    exit->kind = ENGINE_EXIT_HLT;
}

/* The event loop, while the vCPU's thread waits. */
static void resume_at_third(void)
{
    switch (step++) {
    case 0:
        assert_int_equal(runs, 0);
        assert_int_equal(mach->cpu[0].v.parked, 1);
        vcpu_post(&mach->cpu[0].v, VCPU_EV_IRQ); /* wakes, but does not run */
        break;
    case 1:
        assert_int_equal(runs, 0);
        vm_resume(&mach->vm);
        break;
    case 2: /* halted */
        assert_int_equal(runs, 1);
        assert_int_equal(mach->cpu[0].v.parked, 0);
        vcpu_post(&mach->cpu[0].v, VCPU_EV_IRQ);
        break;
    default:
        fail();
    }
}

static void pause__holds_threads_from_the_start(void **state)
{
    (void)state;
    mach = machine_new(1);
    mach->vm.running = 1;
    step = runs = 0;
    fake_run = run_counting;
    fake_block = resume_at_third;
    vm_pause(&mach->vm);
    vcpu_thread(&mach->cpu[0].v);
    assert_int_equal(step, 3);
    assert_int_equal(mach->cpu[0].v.parked, 1);
    machine_free(mach);
}

static void stop_paused(void)
{
    vm_stop(&mach->vm, VM_QUIT, 3, NULL);
}

static void pause__does_not_outlast_the_vm(void **state)
{
    (void)state;
    mach = machine_new(1);
    mach->vm.running = 1;
    fake_run = run_counting;
    fake_block = stop_paused;
    runs = 0;
    vm_pause(&mach->vm);
    vcpu_thread(&mach->cpu[0].v);
    assert_int_equal(runs, 0);
    vm_pause(&mach->vm); /* nobody is left to wait for */
    machine_free(mach);
}

/* --- the debugger ----------------------------------------------------------------------------- */

static struct vcpu *told;
static unsigned ntold;

static void on_stopped(void *opaque, struct vcpu *v)
{
    assert_ptr_equal(opaque, mach);
    assert_true(mach->vm.pauses > 0);
    told = v;
    ntold++;
}

static void attach(void)
{
    struct vm_debugger d = {.stopped = on_stopped, .opaque = mach};

    told = NULL;
    ntold = 0;
    assert_int_equal(vm_debug_attach(&mach->vm, &d), 0);
    assert_int_equal(vm_debug_attach(&mach->vm, &d), -EBUSY);
}

static void debug__points(void **state)
{
    struct debug_order order[1] = {{.action = DEBUG_RUN}};
    struct vm *vm;

    (void)state;
    mach = machine_new(1);
    vm = &mach->vm;
    attach();
    assert_int_equal(vm_debug_insert(vm, DEBUG_BREAK, 300, 0), 0);
    assert_int_equal(vm_debug_insert(vm, DEBUG_BREAK, 100, 0), 0);
    assert_int_equal(vm_debug_insert(vm, DEBUG_BREAK, 200, 0), 0);
    assert_int_equal(vm_debug_insert(vm, DEBUG_BREAK, 200, 0), -EEXIST);
    assert_int_equal(vm_debug_remove(vm, DEBUG_BREAK, 250, 0), -ENOENT);
    assert_int_equal(vm_debug_insert(vm, DEBUG_WATCH_WRITE, 0x1000, 8), 0);
    assert_int_equal(vm_debug_insert(vm, DEBUG_WATCH_WRITE, 0x1000, 8), -EEXIST);
    assert_int_equal(vm_debug_insert(vm, DEBUG_WATCH_READ, 0x1000, 8), 0);
    assert_int_equal(vm_debug_insert(vm, DEBUG_WATCH_READ, 0x1000, 0), -EINVAL);
    assert_int_equal(vm_debug_insert(vm, DEBUG_WATCH_READ, ~(u64)0, 2), -EINVAL);
    assert_int_equal(vm_debug_insert(vm, DEBUG_WATCH_READ, ~(u64)0, 1), 0);
    assert_int_equal(mach->debug_sets, 0); /* nothing until it goes on */
    assert_int_equal(vm_debug_go(vm, order), 0);
    assert_int_equal(mach->debug_sets, 1);
    assert_int_equal(mach->points.nbreaks, 3);
    assert_int_equal(mach->points.breaks[0], 100);
    assert_int_equal(mach->points.breaks[1], 200);
    assert_int_equal(mach->points.breaks[2], 300);
    assert_int_equal(mach->points.nwatches, 3);

    vm_debug_interrupt(vm);
    assert_int_equal(vm_debug_go(vm, order), 0);
    assert_int_equal(mach->debug_sets, 1); /* no change, no call */
    vm_debug_interrupt(vm);
    assert_int_equal(vm_debug_remove(vm, DEBUG_BREAK, 100, 0), 0);
    for (unsigned i = 2; i < DEBUG_BREAKS_MAX; i++)
        assert_int_equal(vm_debug_insert(vm, DEBUG_BREAK, 1000 + i, 0), 0);
    assert_int_equal(vm_debug_insert(vm, DEBUG_BREAK, 1, 0), -ENOSPC);
    for (unsigned i = 3; i < DEBUG_WATCHES_MAX; i++)
        assert_int_equal(vm_debug_insert(vm, DEBUG_WATCH_ACCESS, i, 1), 0);
    assert_int_equal(vm_debug_insert(vm, DEBUG_WATCH_ACCESS, 1, 1), -ENOSPC);

    vm_debug_detach(vm);
    assert_int_equal(mach->points.nbreaks, 0);
    assert_int_equal(mach->points.nwatches, 0);
    assert_int_equal(vm->pauses, 0);
    machine_free(mach);
}

/* What the engine does, call by call of run. */
static void run_events(struct vcpu *v, struct engine_exit *exit)
{
    exit->kind = ENGINE_EXIT_DEBUG;
    switch (runs++) {
    case 0:
        assert_false(v->debug.step);
        exit->debug = (struct debug_stop){.reason = DEBUG_STOP_BREAK, .addr = 0x1234};
        break;
    case 1:
        assert_true(v->debug.step);
        assert_true(v->debug.no_irq);
        assert_int_equal(v->debug.hi, 99);
        exit->debug = (struct debug_stop){.reason = DEBUG_STOP_STEP};
        break;
    default:
        assert_false(v->debug.step);
        exit->kind = ENGINE_EXIT_SHUTDOWN;
        exit->text[0] = 0;
        break;
    }
}

static void debugger_at_work(void)
{
    struct debug_order order[2] = {{.action = DEBUG_RUN}, {.action = DEBUG_HOLD}};

    fake_settle();
    assert_int_equal(ntold, step + 1);
    assert_ptr_equal(told, &mach->cpu[0].v);
    assert_false(vm_debug_running(&mach->vm));
    switch (step++) {
    case 0:
        assert_int_equal(told->stop.reason, DEBUG_STOP_BREAK);
        assert_int_equal(told->stop.addr, 0x1234);
        order[0] = (struct debug_order){DEBUG_STEP, {.no_irq = true, .hi = 99}};
        break;
    case 1:
        assert_int_equal(told->stop.reason, DEBUG_STOP_STEP);
        break;
    case 2: /* the next shutdown is the end */
        assert_int_equal(told->stop.reason, DEBUG_STOP_DEAD);
        break;
    default:
        fail();
    }
    assert_int_equal(vm_debug_go(&mach->vm, order), 0);
    assert_int_equal(mach->cpu[1].v.held, 1);
    assert_int_equal(mach->cpu[0].v.held, 0);
}

static void debug__stops_and_goes_on(void **state)
{
    struct debug_order order[2] = {{.action = DEBUG_RUN}, {.action = DEBUG_HOLD}};

    (void)state;
    mach = machine_new(2);
    mach->vm.running = 1;
    step = runs = 0;
    attach();
    vm_debug_go(&mach->vm, order);
    fake_run = run_events;
    fake_block = debugger_at_work;
    vcpu_thread(&mach->cpu[0].v);
    assert_int_equal(step, 3);
    assert_int_equal(runs, 4);
    assert_int_equal(mach->vm.stop_reason, VM_RESET);
    vm_debug_detach(&mach->vm);
    machine_free(mach);
}

/* Two vCPUs meet something at once: each is told, and one only while it still matters. */
static void debug__tells_one_at_a_time(void **state)
{
    struct debug_order order[2] = {{.action = DEBUG_RUN}, {.action = DEBUG_RUN}};
    struct debug_stop hit = {.reason = DEBUG_STOP_BREAK, .addr = 5};
    struct debug_stop watch = {
        .reason = DEBUG_STOP_WATCH, .addr = 0x1000, .kind = DEBUG_WATCH_WRITE};
    struct vm *vm;

    (void)state;
    mach = machine_new(2);
    vm = &mach->vm;
    attach();
    vm_debug_insert(vm, DEBUG_BREAK, 5, 0);
    vm_debug_insert(vm, DEBUG_WATCH_WRITE, 0x1000, 4);
    vm_debug_go(vm, order);
    vcpu_debug_stopped(&mach->cpu[0].v, &hit);
    vcpu_debug_stopped(&mach->cpu[1].v, &watch);
    assert_int_equal(ntold, 0);
    fake_settle();
    assert_int_equal(ntold, 1);
    assert_ptr_equal(told, &mach->cpu[0].v);
    vm_debug_go(vm, order); /* the watchpoint's turn; nothing runs */
    assert_int_equal(ntold, 2);
    assert_ptr_equal(told, &mach->cpu[1].v);
    assert_true(vm->pauses > 0);
    vm_debug_go(vm, order);
    assert_int_equal(ntold, 2);
    assert_int_equal(vm->pauses, 0);

    /* Breakpoints nobody was told of happen again, or are gone. */
    vcpu_debug_stopped(&mach->cpu[0].v, &watch);
    vcpu_debug_stopped(&mach->cpu[1].v, &hit);
    fake_settle();
    assert_int_equal(ntold, 3);
    vm_debug_go(vm, order);
    assert_int_equal(ntold, 3);
    assert_int_equal(vm->pauses, 0);

    /* An interrupt that comes first does not lose the watchpoint, but its removal does. */
    vcpu_debug_stopped(&mach->cpu[0].v, &watch);
    vm_debug_interrupt(vm);
    fake_settle();
    assert_int_equal(ntold, 3);
    vm_debug_go(vm, order);
    assert_int_equal(ntold, 4);
    vm_debug_go(vm, order);
    vcpu_debug_stopped(&mach->cpu[0].v, &watch);
    vm_debug_interrupt(vm);
    vm_debug_remove(vm, DEBUG_WATCH_WRITE, 0x1000, 4);
    vm_debug_go(vm, order);
    assert_int_equal(ntold, 4);
    assert_int_equal(vm->pauses, 0);

    vcpu_debug_stopped(&mach->cpu[0].v, &watch);
    vm_debug_detach(vm);
    fake_settle();
    assert_int_equal(ntold, 4);
    assert_int_equal(mach->cpu[0].v.held, 0);
    machine_free(mach);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pause__stops_clock_timers_and_tsc),
        cmocka_unit_test(pause__holds_threads_from_the_start),
        cmocka_unit_test(pause__does_not_outlast_the_vm),
        cmocka_unit_test(debug__points),
        cmocka_unit_test(debug__stops_and_goes_on),
        cmocka_unit_test(debug__tells_one_at_a_time),
    };
    return cmocka_run_group_tests_name("core-pause", tests, NULL, NULL);
}
