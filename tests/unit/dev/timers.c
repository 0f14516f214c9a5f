/* SPDX-License-Identifier: Apache-2.0 */
/* 8254, real-time clock, ACPI timer, paravirtual clock. */
#include <string.h>

#include "dev/chipset/acpi_pm.h"
#include "dev/chipset/pit.h"
#include "dev/chipset/pvclock.h"
#include "dev/chipset/rtc.h"
#include "fake_host.h"
#include "test.h"

static struct machine *m;
static struct probe irq;

/* --- 8254
 * ----------------------------------------------------------------------------------------- */

static void pit_start(void)
{
    struct pit_config cfg = {.irq = probe_line(&irq)};

    m = machine_new(1);
    irq = (struct probe){0};
    assert_non_null(pit_create(&m->vm, &cfg));
}

/* Just beyond n ticks. */
static void ticks(u64 n)
{
    fake_advance(clock_scale_up(n, 1000000000, PIT_HZ));
}

static void set(unsigned counter, unsigned mode, u16 count)
{
    outb(m, 0x43, (u8)(counter << 6 | 0x30 | mode << 1));
    outb(m, (u16)(0x40 + counter), (u8)count);
    outb(m, (u16)(0x40 + counter), (u8)(count >> 8));
}

static u16 latched(unsigned counter)
{
    outb(m, 0x43, (u8)(counter << 6));
    u8 low = inb(m, (u16)(0x40 + counter));
    return (u16)(low | inb(m, (u16)(0x40 + counter)) << 8);
}

static u8 status(unsigned counter)
{
    outb(m, 0x43, (u8)(0xe0 | 2u << counter));
    return inb(m, (u16)(0x40 + counter));
}

static void pit__mode0_counts_once(void **state)
{
    (void)state;
    pit_start();
    set(0, 0, 1000);
    assert_false(irq.level);
    ticks(400);
    assert_in_range(latched(0), 598, 601);
    assert_int_equal(status(0) & 0xbf, 0x30);
    ticks(601);
    assert_true(irq.level);
    assert_int_equal(irq.rises, 1);
    assert_int_equal(status(0) & 0x80, 0x80);
    ticks(70000);
    assert_int_equal(irq.rises, 1);
    set(0, 0, 10); /* OUT goes low again */
    assert_false(irq.level);
    ticks(11);
    assert_int_equal(irq.rises, 2);
    machine_free(m);
}

static void pit__mode2_and_3_are_periodic(void **state)
{
    (void)state;
    for (unsigned mode = 2; mode <= 3; mode++) {
        pit_start();
        set(0, mode, 11932); /* 100 Hz */
        irq.rises = 0;
        fake_advance(1000000000);
        assert_in_range(irq.rises, 99, 100);
        assert_in_range(latched(0), 1, 11932);
        /* A new count takes over at the end of the period. */
        outb(m, 0x40, 0x00);
        outb(m, 0x40, 0x00);
        assert_int_equal(status(0) & 0x40, 0x40);
        fake_advance(20000000);
        irq.rises = 0;
        fake_advance(1000000000);
        assert_in_range(irq.rises, 18, 19); /* 18.2 Hz */
        machine_free(m);
    }
}

static void pit__absurd_rate_is_slowed(void **state)
{
    (void)state;
    pit_start();
    outb(m, 0x43, 0x14); /* mode 2, low byte only */
    outb(m, 0x40, 1);
    irq.rises = 0;
    fake_advance(1000000);
    assert_in_range(irq.rises, 10, 60);
    machine_free(m);
}

static void pit__gate_and_speaker_port(void **state)
{
    (void)state;
    pit_start();
    /* As kernels calibrate: counter 2, mode 0, gate on, poll OUT2. */
    outb(m, 0x61, 0);
    set(2, 0, 1000);
    ticks(5000);
    assert_int_equal(inb(m, 0x61) & 0x20, 0); /* held by the gate */
    outb(m, 0x61, 1);
    ticks(990);
    assert_int_equal(inb(m, 0x61) & 0x21, 0x01);
    ticks(11);
    assert_int_equal(inb(m, 0x61) & 0x21, 0x21);
    /* Mode 1: the gate triggers */
    outb(m, 0x61, 0);
    set(2, 1, 100);
    assert_int_equal(inb(m, 0x61) & 0x20, 0x20);
    ticks(500);
    assert_int_equal(inb(m, 0x61) & 0x20, 0x20);
    outb(m, 0x61, 1);
    assert_int_equal(inb(m, 0x61) & 0x20, 0);
    ticks(101);
    assert_int_equal(inb(m, 0x61) & 0x20, 0x20);
    /* The refresh bit toggles */
    unsigned toggles = 0;
    u8 last = inb(m, 0x61) & 0x10;
    for (unsigned i = 0; i < 100; i++) {
        fake_advance(7600);
        u8 now = inb(m, 0x61) & 0x10;
        toggles += now != last;
        last = now;
    }
    assert_in_range(toggles, 45, 55);
    machine_free(m);
}

static void pit__readback_and_bcd(void **state)
{
    (void)state;
    pit_start();
    outb(m, 0x43, 0x31); /* counter 0, mode 0, BCD */
    outb(m, 0x40, 0x00);
    outb(m, 0x40, 0x10);
    ticks(1);
    outb(m, 0x43, 0xc2); /* latch status and count */
    fake_advance(1000000);
    assert_int_equal(inb(m, 0x40) & 0x3f, 0x31);
    u8 low = inb(m, 0x40);
    assert_int_equal(low | inb(m, 0x40) << 8, 0x0999);
    machine_free(m);
}

/* --- real-time clock
 * --------------------------------------------------------------------------------- */

static void rtc_start(u64 start_s)
{
    struct rtc_config cfg = {.irq = probe_line(&irq),
                             .ram_below_4g = 0x20000000,
                             .ram_above_4g = 0x40000000,
                             .fixed_time = true,
                             .start_ns = start_s * 1000000000};

    m = machine_new(1);
    irq = (struct probe){0};
    assert_non_null(rtc_create(&m->vm, &cfg));
}

static u8 cmos(u8 reg)
{
    outb(m, 0x70, reg);
    return inb(m, 0x71);
}

static void set_cmos(u8 reg, u8 val)
{
    outb(m, 0x70, reg);
    outb(m, 0x71, val);
}

static void expect_time(u32 hms, u32 date, u8 weekday)
{
    assert_int_equal(cmos(4) << 16 | cmos(2) << 8 | cmos(0), hms);
    assert_int_equal(cmos(0x32) << 24 | cmos(9) << 16 | cmos(8) << 8 | cmos(7), date);
    assert_int_equal(cmos(6), weekday);
}

static void rtc__tells_the_time(void **state)
{
    (void)state;
    rtc_start(951827696); /* 2000-02-29 12:34:56 UTC, a Tuesday */
    expect_time(0x123456, 0x20000229, 3);
    fake_advance(4000000000);
    expect_time(0x123500, 0x20000229, 3);
    fake_advance(86400ull * 1000000000);
    expect_time(0x123500, 0x20000301, 4);
    set_cmos(11, 0x06); /* binary, 24 hours */
    assert_int_equal(cmos(2), 35);
    set_cmos(11, 0x00); /* BCD, 12 hours */
    set_cmos(4, 0x81);
    assert_int_equal(cmos(4), 0x81);
    set_cmos(11, 0x02);
    assert_int_equal(cmos(4), 0x13);
    assert_int_equal(cmos(13), 0x80);
    assert_int_equal(cmos(0x34) | cmos(0x35) << 8, 0x1f00);
    assert_int_equal(cmos(0x5b) | cmos(0x5c) << 8, 0x4000);
    machine_free(m);
}

static void rtc__is_set(void **state)
{
    (void)state;
    rtc_start(0);
    set_cmos(11, 0x82); /* SET: time stands */
    set_cmos(0, 0x30);
    set_cmos(2, 0x59);
    set_cmos(4, 0x23);
    set_cmos(7, 0x31);
    set_cmos(8, 0x12);
    set_cmos(9, 0x99);
    set_cmos(0x32, 0x20);
    fake_advance(5000000000);
    expect_time(0x235930, 0x20991231, 5);
    set_cmos(11, 0x02);
    fake_advance(30000000000);
    expect_time(0x000000, 0x21000101, 6);
    /* Nonsense must not break anything */
    for (unsigned i = 0; i < 100; i++) {
        set_cmos(0x32, 0xff);
        set_cmos(8, (u8)(i * 37));
        set_cmos(9, 0xff);
        set_cmos(7, 0xff);
        cmos(7);
    }
    machine_free(m);
}

static void rtc__interrupts(void **state)
{
    (void)state;
    rtc_start(951827696);
    set_cmos(10, 0x26); /* 1024 Hz */
    set_cmos(11, 0x42);
    for (unsigned i = 0; i < 100; i++) {
        fake_advance(976600);
        assert_true(irq.level);
        assert_int_equal(cmos(12), 0xc0);
    }
    assert_false(irq.level);
    set_cmos(11, 0x02);
    cmos(12);

    /* Update-ended, once a second */
    set_cmos(11, 0x12);
    irq.rises = 0;
    for (unsigned i = 0; i < 3; i++) {
        fake_advance(1000000000);
        assert_int_equal(cmos(12) & 0x90, 0x90);
    }
    assert_int_equal(irq.rises, 3);

    /* Alarm at a second of any hour and minute */
    set_cmos(11, 0x02);
    cmos(12);
    set_cmos(1, (u8)((cmos(0) & 0xf0) == 0x50 ? 0x05 : 0x55));
    set_cmos(3, 0xff);
    set_cmos(5, 0xc0);
    set_cmos(11, 0x22);
    irq.rises = 0;
    fake_advance(60000000000);
    assert_int_equal(irq.rises, 1);
    assert_int_equal(cmos(12) & 0xa0, 0xa0);

    /* Polled, without any interrupt */
    set_cmos(11, 0x02);
    cmos(12);
    assert_int_equal(cmos(12) & 0x10, 0);
    fake_advance(1000000000);
    assert_int_equal(cmos(12) & 0x50, 0x50);
    assert_int_equal(cmos(12) & 0x50, 0);
    machine_free(m);
}

static void rtc__shows_update_in_progress(void **state)
{
    (void)state;
    rtc_start(1000);
    assert_int_equal(cmos(10) & 0x80, 0);
    fake_advance(999900000);
    assert_int_equal(cmos(10) & 0x80, 0x80);
    fake_advance(100000);
    assert_int_equal(cmos(10) & 0x80, 0);
    machine_free(m);
}

/* --- ACPI
 * --------------------------------------------------------------------------------------------------
 */

static void acpi__timer_and_events(void **state)
{
    struct acpi_pm_config cfg = {.base = 0x600, .sci = probe_line(&irq)};
    struct device *d;
    u32 t0, t1;

    (void)state;
    m = machine_new(1);
    irq = (struct probe){0};
    d = acpi_pm_create(&m->vm, &cfg);
    assert_non_null(d);
    t0 = vm_pio_read(&m->vm, 0x608, 4);
    fake_advance(1000000000);
    t1 = vm_pio_read(&m->vm, 0x608, 4);
    assert_in_range(t1 - t0, 3579544, 3579546);
    assert_int_equal(vm_pio_read(&m->vm, 0x608, 2), t1 & 0xffff);
    assert_int_equal(vm_pio_read(&m->vm, 0x604, 2), 1); /* SCI_EN */

    assert_false(acpi_pm_power_button(d)); /* nobody listens */
    assert_false(irq.level);
    vm_pio_write(&m->vm, 0x600, 2, 0x0100);
    vm_pio_write(&m->vm, 0x602, 2, 0x0100);
    assert_false(irq.level);
    assert_true(acpi_pm_power_button(d));
    assert_true(irq.level);
    assert_int_equal(vm_pio_read(&m->vm, 0x600, 2), 0x0100);
    vm_pio_write(&m->vm, 0x600, 1, 0xff); /* the other byte stays */
    assert_true(irq.level);
    vm_pio_write(&m->vm, 0x601, 1, 0x01);
    assert_false(irq.level);

    vm_pio_write(&m->vm, 0x602, 2, 0x0001);
    fake_advance(1300000000000ull); /* more than two halves of 2^32 ticks */
    assert_true(irq.level);
    assert_int_equal(vm_pio_read(&m->vm, 0x600, 2) & 1, 1);
    vm_pio_write(&m->vm, 0x600, 2, 1);
    assert_false(irq.level);

    vm_pio_write(&m->vm, 0x604, 2, 3 << 10 | 0x2000); /* some other state */
    assert_int_equal(m->vm.stop_reason, VM_RUNNING);
    vm_pio_write(&m->vm, 0x604, 2, ACPI_S5_SLP_TYP << 10);
    assert_int_equal(m->vm.stop_reason, VM_RUNNING);
    vm_pio_write(&m->vm, 0x604, 2, ACPI_S5_SLP_TYP << 10 | 0x2000);
    assert_int_equal(m->vm.stop_reason, VM_POWEROFF);
    machine_free(m);
}

/* --- paravirtual clock
 * --------------------------------------------------------------------------------------- */

static u64 load(u64 at, unsigned size)
{
    u64 v = 0;
    memcpy(&v, m->ram + at, size);
    return v;
}

static u64 guest_time(u64 at, u64 tsc)
{
    u64 delta = tsc - load(at + 8, 8);
    s8 shift = (s8)load(at + 28, 1);

    delta = shift < 0 ? delta >> -shift : delta << shift;
    return load(at + 16, 8) + (u64)((unsigned __int128)delta * (u32)load(at + 24, 4) >> 32);
}

static void pvclock__agrees_with_the_clock(void **state)
{
    static const u32 khz[] = {2000000, 1000000, 999999, 4999999, 350000, 2596120};

    (void)state;
    for (unsigned k = 0; k < ARRAY_SIZE(khz); k++) {
        u64 val, t, tsc;

        m = machine_new(2);
        m->vm.cpu_model.tsc_khz = khz[k];
        assert_non_null(pvclock_create(&m->vm));
        m->cpu[1].s.tsc_offset += 0x123456789; /* the guest moved one TSC */
        fake_advance(1234567);
        assert_int_equal(vm_wrmsr(&m->cpu[0].v, 0x4b564d01, 0x5001), 0);
        fake_advance(7654321);
        assert_int_equal(vm_wrmsr(&m->cpu[1].v, 0x4b564d01, 0x5041), 0);
        assert_int_equal(vm_rdmsr(&m->cpu[1].v, 0x12, &val), 0);
        assert_int_equal(val, 0x5041);
        assert_int_equal(load(0x5000, 4), 2);
        assert_int_equal(load(0x501d, 1), 1);
        tsc = vcpu_tsc(&m->cpu[0].v) + khz[k] * 3600000ull; /* an hour later */
        t = guest_time(0x5000, tsc);
        assert_int_equal(t, guest_time(0x5040, tsc + 0x123456789));
        if (khz[k] == FAKE_TSC_KHZ)
            assert_in_range(t, vm_clock_ns(&m->vm) + 3600000000000ull - 5000,
                            vm_clock_ns(&m->vm) + 3600000000000ull + 5000);
        machine_free(m);
    }
}

static void pvclock__refuses_what_is_no_memory(void **state)
{
    u64 val;

    (void)state;
    m = machine_new(1);
    assert_non_null(pvclock_create(&m->vm));
    assert_int_equal(vm_wrmsr(&m->cpu[0].v, 0x4b564d01, FAKE_RAM_SIZE + 1), -1);
    assert_int_equal(vm_wrmsr(&m->cpu[0].v, 0x4b564d01, FAKE_RAM_SIZE - 16 + 1), -1);
    assert_int_equal(vm_wrmsr(&m->cpu[0].v, 0x4b564d01, 0x1003), -1);
    assert_int_equal(vm_wrmsr(&m->cpu[0].v, 0x4b564d00, ~(u64)3), -1);
    assert_int_equal(vm_rdmsr(&m->cpu[0].v, 0x4b564d01, &val), 0);
    assert_int_equal(val, 0);
    assert_int_equal(vm_wrmsr(&m->cpu[0].v, 0x11, 0x1000), 0);
    assert_int_equal(load(0x1000, 4), 2);
    assert_int_equal(load(0x1004, 4), 1700000005);
    assert_int_equal(vm_wrmsr(&m->cpu[0].v, 0x12, 0), 0); /* off */
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pit__mode0_counts_once),
        cmocka_unit_test(pit__mode2_and_3_are_periodic),
        cmocka_unit_test(pit__absurd_rate_is_slowed),
        cmocka_unit_test(pit__gate_and_speaker_port),
        cmocka_unit_test(pit__readback_and_bcd),
        cmocka_unit_test(rtc__tells_the_time),
        cmocka_unit_test(rtc__is_set),
        cmocka_unit_test(rtc__interrupts),
        cmocka_unit_test(rtc__shows_update_in_progress),
        cmocka_unit_test(acpi__timer_and_events),
        cmocka_unit_test(pvclock__agrees_with_the_clock),
        cmocka_unit_test(pvclock__refuses_what_is_no_memory),
    };
    return cmocka_run_group_tests_name("dev-timers", tests, NULL, NULL);
}
