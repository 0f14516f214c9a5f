/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, buses, timers, streams, MSR ranges and the life of vCPUs. */
#include <errno.h>
#include <string.h>

#include "core/vcpu_priv.h"
#include "fake_host.h"
#include "test.h"

/* --- bus
 * ------------------------------------------------------------------------------------------ */

static struct {
    u64 off[16], val[16];
    unsigned size[16], n;
} seen;

static u64 dev_read(void *dev, u64 off, unsigned size)
{
    u64 v = 0;

    (void)dev;
    seen.off[seen.n] = off;
    seen.size[seen.n++] = size;
    for (unsigned i = 0; i < size; i++)
        v |= (0x10 + off + i) << (8 * i);
    return v;
}

static void dev_write(void *dev, u64 off, unsigned size, u64 val)
{
    (void)dev;
    seen.off[seen.n] = off;
    seen.val[seen.n] = val;
    seen.size[seen.n++] = size;
}

static const struct bus_ops any_ops = {.read = dev_read, .write = dev_write};
static const struct bus_ops byte_ops = {
    .read = dev_read, .write = dev_write, .min_size = 1, .max_size = 1};
static const struct bus_ops dword_ops = {
    .read = dev_read, .write = dev_write, .min_size = 4, .max_size = 4};

static void bus__refuses_overlap(void **state)
{
    struct bus b;

    (void)state;
    bus_init(&b, "test");
    assert_int_equal(bus_add(&b, 0x100, 0x10, &any_ops, NULL, "a"), 0);
    assert_int_equal(bus_add(&b, 0x10f, 1, &any_ops, NULL, "b"), -EEXIST);
    assert_int_equal(bus_add(&b, 0xf8, 9, &any_ops, NULL, "b"), -EEXIST);
    assert_int_equal(bus_add(&b, 0x80, 0x200, &any_ops, NULL, "b"), -EEXIST);
    assert_int_equal(bus_add(&b, 0xf8, 8, &any_ops, NULL, "b"), 0);
    assert_int_equal(bus_add(&b, 0x110, 8, &any_ops, NULL, "c"), 0);
    assert_int_equal(bus_add(&b, 0, 0, &any_ops, NULL, "d"), -EINVAL);
    assert_int_equal(bus_add(&b, ~(u64)0, 2, &any_ops, NULL, "d"), -EINVAL);
    assert_int_equal(bus_remove(&b, 0x101), -ENOENT);
    assert_int_equal(bus_remove(&b, 0x100), 0);
    assert_int_equal(bus_add(&b, 0x10f, 1, &any_ops, NULL, "b"), 0);
    for (unsigned i = 0; i < BUS_REGIONS_MAX; i++)
        bus_add(&b, 0x1000 + 8 * i, 8, &any_ops, NULL, "many");
    assert_int_equal(bus_add(&b, 0x9000, 8, &any_ops, NULL, "one more"), -ENOSPC);
}

static void bus__adapts_sizes(void **state)
{
    struct bus b;

    (void)state;
    bus_init(&b, "test");
    bus_add(&b, 0x0, 8, &byte_ops, NULL, "bytes");
    bus_add(&b, 0x10, 8, &dword_ops, NULL, "dwords");
    memset(&seen, 0, sizeof(seen));
    assert_int_equal(bus_read(&b, 2, 4), 0x15141312);
    assert_int_equal(seen.n, 4);
    assert_int_equal(seen.size[3], 1);

    memset(&seen, 0, sizeof(seen));
    assert_int_equal(bus_read(&b, 0x15, 1), 0x15);
    assert_int_equal(seen.n, 1);
    assert_int_equal(seen.off[0], 4);
    assert_int_equal(seen.size[0], 4);

    /* A byte into a dword register leaves the other three as they read. */
    memset(&seen, 0, sizeof(seen));
    bus_write(&b, 0x11, 1, 0xaa);
    assert_int_equal(seen.n, 2);
    assert_int_equal(seen.val[1], 0x1312aa10);

    memset(&seen, 0, sizeof(seen));
    bus_write(&b, 0x10, 8, 0x1122334455667788);
    assert_int_equal(seen.n, 2);
    assert_int_equal(seen.val[0], 0x55667788);
    assert_int_equal(seen.val[1], 0x11223344);
    assert_int_equal(seen.off[1], 4);
}

static void bus__reads_ones_where_nobody_is(void **state)
{
    struct bus b;

    (void)state;
    bus_init(&b, "test");
    bus_add(&b, 0x10, 2, &byte_ops, NULL, "bytes");
    assert_int_equal(bus_read(&b, 0x0, 4), 0xffffffff);
    assert_int_equal(bus_read(&b, 0x0e, 4), 0x1110ffff);
    assert_int_equal(bus_read(&b, 0x11, 4), 0xffffff11);
    assert_int_equal(bus_read(&b, ~(u64)0, 2), 0xff | 0xff00);
    memset(&seen, 0, sizeof(seen));
    bus_write(&b, 0x0e, 4, 0x44332211);
    assert_int_equal(seen.n, 2);
    assert_int_equal(seen.val[0], 0x33);
}

/* --- memory
 * ------------------------------------------------------------------------------------------ */

static void mem__stays_inside(void **state)
{
    static u8 a[2 * 4096], b[4096], rom[4096], buf[3 * 4096];
    struct guest_mem m = {.n = 0};

    (void)state;
    assert_int_equal(guest_mem_add(&m, gpa(0x1000), sizeof(a), a, false), 0);
    assert_int_equal(guest_mem_add(&m, gpa(0x2000), 4096, b, false), -EINVAL);
    assert_int_equal(guest_mem_add(&m, gpa(0x3100), 4096, b, false), -EINVAL);
    assert_int_equal(guest_mem_add(&m, gpa(~(u64)0xfff), 8192, b, false), -EINVAL);
    assert_int_equal(guest_mem_add(&m, gpa(0x3000), 4096, b, false), 0);
    assert_int_equal(guest_mem_add(&m, gpa(0x4000), 4096, rom, true), 0);
    assert_null(guest_mem_slot(&m, gpa(0xfff)));
    assert_null(guest_mem_slot(&m, gpa(0x5000)));
    assert_ptr_equal(guest_mem_ptr(&m, gpa(0x2fff), 1), &a[8191]);
    assert_null(guest_mem_ptr(&m, gpa(0x2fff), 2));
    assert_null(guest_mem_ptr(&m, gpa(0x2fff), ~(u64)0));

    memset(buf, 0x5a, sizeof(buf));
    assert_int_equal(guest_mem_write(&m, gpa(0x1000), buf, 3 * 4096), 0);
    assert_int_equal(b[4095], 0x5a);
    assert_int_equal(guest_mem_write(&m, gpa(0x3fff), buf, 2), -EFAULT); /* into ROM */
    assert_int_equal(guest_mem_write(&m, gpa(0xfff), buf, 2), -EFAULT);
    assert_int_equal(guest_mem_read(&m, gpa(0x3000), buf, 2 * 4096), 0);
    assert_int_equal(guest_mem_read(&m, gpa(0x4fff), buf, 2), -EFAULT);
    assert_int_equal(guest_mem_read(&m, gpa(~(u64)0), buf, 2), -EFAULT);
}

/* --- streams
 * ------------------------------------------------------------------------------------------- */

static void stream__is_bounded(void **state)
{
    u8 buf[8];
    struct stream s;

    (void)state;
    stream_init(&s, buf, sizeof(buf));
    stream_put_u32(&s, 0x11223344);
    stream_put_u16(&s, 0x5566);
    assert_int_equal(buf[0], 0x44);
    stream_put_u32(&s, 1);
    assert_int_equal(s.error, -ENOSPC);
    assert_int_equal(s.pos, 6);
    stream_put_u8(&s, 1); /* sticky */
    assert_int_equal(s.pos, 6);
    stream_init(&s, buf, 6);
    assert_int_equal(stream_get_u32(&s), 0x11223344);
    assert_int_equal(stream_get_u64(&s), 0);
    assert_int_equal(s.error, -EINVAL);
    assert_int_equal(stream_get_u8(&s), 0);
}

/* --- timers
 * ---------------------------------------------------------------------------------------------- */

static u64 fired_at[64];
static unsigned nfired;

static void note(void *opaque)
{
    (void)opaque;
    fired_at[nfired++] = fake_now();
}

static void timer__fire_in_order(void **state)
{
    struct machine *m = machine_new(1);
    struct vtimer t[40];
    u64 start = fake_now();

    (void)state;
    nfired = 0;
    for (unsigned i = 0; i < 40; i++) {
        vtimer_init(&t[i], &m->vm, note, NULL);
        vtimer_set(&t[i], 1000 + (i * 7919) % 997);
    }
    vtimer_cancel(&t[3]);
    vtimer_cancel(&t[39]);
    vtimer_set(&t[5], 10);   /* earlier */
    vtimer_set(&t[6], 5000); /* later */
    vtimer_set(&t[39], 2500);
    vtimer_cancel(&t[3]); /* twice is harmless */
    assert_int_equal(m->vm.next_timer, vm_timers_next(&m->vm));
    fake_advance(4000);
    assert_int_equal(nfired, 38);
    assert_int_equal(m->vm.next_timer, vm_timers_next(&m->vm));
    for (unsigned i = 1; i < nfired; i++)
        assert_true(fired_at[i] >= fired_at[i - 1]);
    assert_int_equal(fired_at[0], start + 10);
    assert_int_equal(fired_at[37], start + 2500);
    assert_true(t[6].armed);
    fake_advance(1000);
    assert_int_equal(fired_at[38], start + 5000);
    assert_int_equal(vm_timers_next(&m->vm), UINT64_MAX);
    assert_int_equal(m->vm.next_timer, UINT64_MAX);
    machine_free(m);
}

static struct vtimer again;

static void rearm_past(void *opaque)
{
    (void)opaque;
    nfired++;
    if (nfired < 1000)
        vtimer_set(&again, 0);
}

static void timer__past_deadline_is_bounded(void **state)
{
    struct machine *m = machine_new(1);

    (void)state;
    nfired = 0;
    fake_advance(1000);
    vtimer_init(&again, &m->vm, rearm_past, NULL);
    vtimer_set(&again, 0);
    vm_lock(&m->vm);
    vm_timers_run(&m->vm);
    vm_unlock(&m->vm);
    assert_in_range(nfired, 1, VTIMERS_MAX);
    machine_free(m);
}

static void clock__scales_without_overflow(void **state)
{
    (void)state;
    assert_true(clock_scale(1000000000ull, 1193182, 1000000000) == 1193182);
    assert_true(clock_scale(1000000000ull * 86400 * 365 * 10, 3579545, 1000000000) ==
                3579545ull * 86400 * 365 * 10);
    assert_true(clock_scale_up(1, 1000000000, 1193182) == 839);
}

/* --- MSR ranges
 * ------------------------------------------------------------------------------------------ */

static int msr_read(void *opaque, struct vcpu *v, u32 msr, u64 *val)
{
    (void)opaque;
    (void)v;
    *val = msr;
    return 0;
}

static int msr_write(void *opaque, struct vcpu *v, u32 msr, u64 val)
{
    (void)opaque;
    (void)v;
    (void)msr;
    return val ? 0 : -1;
}

static void msr__ranges(void **state)
{
    static const struct msr_ops ops = {.read = msr_read, .write = msr_write};
    struct machine *m = machine_new(1);
    u64 val;

    (void)state;
    assert_int_equal(vm_add_msr_range(&m->vm, 0x100, 0x10f, &ops, NULL), 0);
    assert_int_equal(vm_add_msr_range(&m->vm, 0x10f, 0x110, &ops, NULL), -EEXIST);
    assert_int_equal(vm_add_msr_range(&m->vm, 0xc0000000, 0xffffffff, &ops, NULL), 0);
    assert_int_equal(vm_rdmsr(&m->cpu[0].v, 0x10f, &val), 0);
    assert_int_equal(val, 0x10f);
    assert_int_equal(vm_rdmsr(&m->cpu[0].v, 0x110, &val), -1);
    assert_int_equal(vm_rdmsr(&m->cpu[0].v, 0xff, &val), -1);
    assert_int_equal(vm_wrmsr(&m->cpu[0].v, 0xffffffff, 1), 0);
    assert_int_equal(vm_wrmsr(&m->cpu[0].v, 0x100, 0), -1);
    machine_free(m);
}

/* --- life cycle
 * ------------------------------------------------------------------------------------------- */

static struct machine *mach;
static unsigned step;

/* The boot processor starts the other with INIT and SIPI, which then ends it all. */
static void run_ap(struct vcpu *v, struct engine_exit *exit)
{
    struct x86_vcpu_state *s = &mach->cpu[1].s;

    assert_int_equal(v->id, 1);
    assert_int_equal(s->seg[X86_CS].sel, 0x9a00);
    assert_int_equal(s->seg[X86_CS].base, 0x9a000);
    assert_int_equal(s->rip, 0);
    assert_int_equal(s->activity, X86_RUNNING);
    assert_false(s->cr0 & CR0_PE);
    step++;
    exit->kind = ENGINE_EXIT_SHUTDOWN;
    memcpy(exit->text, "the end", 8);
}

static void wake_ap(void)
{
    struct vcpu *v = &mach->cpu[1].v;

    step++;
    if (step == 1) {
        assert_int_equal(mach->cpu[1].s.activity, X86_WAIT_SIPI);
        mach->cpu[1].s.cr0 |= CR0_PE;
        vcpu_post(v, VCPU_EV_INIT);
    } else if (step == 2) {
        assert_true(v->wait_sipi);
        v->sipi_vector = 0x9a;
        vcpu_post(v, VCPU_EV_SIPI);
    } else {
        fail();
    }
}

/* A vCPU's thread in a VM that runs. */
static void run_thread(struct vcpu *v)
{
    mach->vm.running = 1;
    vcpu_thread(v);
}

static void vcpu__starts_by_init_and_sipi(void **state)
{
    (void)state;
    mach = machine_new(2);
    step = 0;
    fake_run = run_ap;
    fake_block = wake_ap;
    run_thread(&mach->cpu[1].v);
    assert_int_equal(step, 3);
    assert_int_equal(mach->vm.stop_reason, VM_RESET);
    assert_string_equal(mach->vm.stop_text, "the end");
    machine_free(mach);
}

static void run_halting(struct vcpu *v, struct engine_exit *exit)
{
    step++;
    if (step == 2) /* an event between the last look at events and the wait is not lost */
        vcpu_post(v, VCPU_EV_IRQ);
    if (step == 4)
        vm_stop(v->vm, VM_POWEROFF, 7, "off");
    exit->kind = ENGINE_EXIT_HLT;
}

static void wake_bsp(void)
{
    vcpu_post(&mach->cpu[0].v, VCPU_EV_IRQ);
}

static void vcpu__halts_until_an_event(void **state)
{
    (void)state;
    mach = machine_new(1);
    step = 0;
    fake_run = run_halting;
    fake_block = wake_bsp;
    run_thread(&mach->cpu[0].v);
    assert_int_equal(step, 4);
    assert_int_equal(mach->vm.stop_reason, VM_POWEROFF);
    vm_stop(&mach->vm, VM_CRASH, 9, "too late");
    assert_int_equal(mach->vm.exit_code, 7);
    assert_string_equal(mach->vm.stop_text, "off");
    assert_int_equal(fake_loop_stops, 1);
    machine_free(mach);
}

static void run_init(struct vcpu *v, struct engine_exit *exit)
{
    if (step++)
        fail();
    vcpu_post(v, VCPU_EV_INIT);
    exit->kind = ENGINE_EXIT_KICKED;
}

static void vcpu__init_of_bsp_without_firmware_resets(void **state)
{
    (void)state;
    mach = machine_new(1);
    step = 0;
    fake_run = run_init;
    run_thread(&mach->cpu[0].v);
    assert_int_equal(mach->vm.stop_reason, VM_RESET);
    machine_free(mach);
}

static void run_unsupported(struct vcpu *v, struct engine_exit *exit)
{
    (void)v;
    exit->kind = ENGINE_EXIT_UNSUPPORTED;
    memset(exit->text, 'x', sizeof(exit->text) - 1);
    exit->text[sizeof(exit->text) - 1] = '\0';
}

static void vm__reports_what_an_engine_cannot(void **state)
{
    (void)state;
    mach = machine_new(1);
    fake_run = run_unsupported;
    assert_int_equal(vm_start(&mach->vm), 0);
    assert_int_equal(vm_run(&mach->vm), 0);
    assert_int_equal(mach->vm.stop_reason, VM_CRASH);
    assert_int_equal(mach->vm.exit_code, 125);
    assert_int_equal(strlen(mach->vm.stop_text), 199);
    machine_free(mach);
}

static void run_never(struct vcpu *v, struct engine_exit *exit)
{
    (void)v;
    (void)exit;
    fail();
}

static void vm__stopped_before_it_runs_never_does(void **state)
{
    (void)state;
    mach = machine_new(1);
    fake_run = run_never;
    assert_int_equal(vm_start(&mach->vm), 0);
    vm_stop(&mach->vm, VM_CRASH, 9, "no");
    assert_int_equal(vm_run(&mach->vm), 0);
    assert_int_equal(mach->vm.exit_code, 9);
    machine_free(mach);
}

static void vm__dma_tells_the_engine(void **state)
{
    struct machine *m = machine_new(1);

    (void)state;
    assert_int_equal(vm_dma_write(&m->vm, gpa(0x1234), "abc", 3), 0);
    assert_int_equal(m->written_gpa, 0x1234);
    assert_int_equal(m->written_len, 3);
    assert_int_equal(vm_dma_write(&m->vm, gpa(FAKE_RAM_SIZE - 1), "abc", 3), -EFAULT);
    assert_int_equal(m->written_gpa, 0x1234);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bus__refuses_overlap),
        cmocka_unit_test(bus__adapts_sizes),
        cmocka_unit_test(bus__reads_ones_where_nobody_is),
        cmocka_unit_test(mem__stays_inside),
        cmocka_unit_test(stream__is_bounded),
        cmocka_unit_test(timer__fire_in_order),
        cmocka_unit_test(timer__past_deadline_is_bounded),
        cmocka_unit_test(clock__scales_without_overflow),
        cmocka_unit_test(msr__ranges),
        cmocka_unit_test(vcpu__starts_by_init_and_sipi),
        cmocka_unit_test(vcpu__halts_until_an_event),
        cmocka_unit_test(vcpu__init_of_bsp_without_firmware_resets),
        cmocka_unit_test(vm__reports_what_an_engine_cannot),
        cmocka_unit_test(vm__stopped_before_it_runs_never_does),
        cmocka_unit_test(vm__dma_tells_the_engine),
    };
    return cmocka_run_group_tests_name("core", tests, NULL, NULL);
}
