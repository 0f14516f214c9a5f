/* SPDX-License-Identifier: Apache-2.0 */
/* The local APIC beside an engine that has its own: who gets messages, and registers on the way. */
#include <string.h>

#include "core/state.h"
#include "dev/chipset/irqchip.h"
#include "dev/chipset/lapic.h"
#include "fake_host.h"
#include "test.h"

#define VEC 0x41u
#define R_TPR 0x08
#define R_SVR 0x0f
#define R_ISR 0x10
#define R_IRR 0x20
#define R_LVT_TIMER 0x32
#define R_INIT 0x38
#define R_CURRENT 0x39
#define R_DIVIDE 0x3e
#define ONE_SHOT 0u
#define PERIODIC BIT32(17)
#define DEADLINE BIT32(18)
#define BY_1 0xbu

static struct machine *m;
static struct vcpu_apic regs; /* the engine's, of CPU 0 */
static unsigned sent, pins;
static u64 last_addr;
static u32 last_data;

static void msi(struct vm *vm, u64 addr, u32 data)
{
    (void)vm;
    sent++;
    last_addr = addr;
    last_data = data;
}

static void pin(struct vm *vm, unsigned n, u64 addr, u32 data)
{
    (void)vm;
    (void)addr;
    if (n == 20) {
        pins++;
        last_data = data;
    }
}

static int give(struct vm *vm)
{
    vm->vcpu[0]->irq->set_regs(vm->vcpu[0]->irq_opaque, &regs);
    return 0;
}

static int take(struct vm *vm)
{
    vm->vcpu[0]->irq->get_regs(vm->vcpu[0]->irq_opaque, &regs);
    return 0;
}

static const struct engine_apic_ops apic_ops = {.msi = msi, .pin = pin, .give = give, .take = take};

static struct device *start_cpus(unsigned n)
{
    static struct engine_ops engine;
    struct device *d;

    m = machine_new(n);
    engine = fake_engine_ops;
    engine.apic = &apic_ops;
    m->vm.engine = &engine;
    m->vm.apics_in_engine = true;
    d = irqchip_create(&m->vm);
    assert_non_null(d);
    sent = pins = 0;
    memset(&regs, 0, sizeof(regs));
    regs.base = LAPIC_DEFAULT_BASE | BIT64(11) | BIT64(8);
    regs.reg[R_SVR] = 0x1ff;
    regs.reg[R_DIVIDE] = BY_1;
    return d;
}

static struct device *start(void)
{
    return start_cpus(1);
}

static void messages__go_to_whoever_has_the_registers(void **state)
{
    struct device *d;
    struct msi_sink sink;

    (void)state;
    d = start();
    sink = irqchip_msi(d);
    sink.send(sink.opaque, 0xfee00000, VEC);
    assert_int_equal(sent, 1);
    assert_int_equal(last_data, VEC);
    sink.send(sink.opaque, 0xfed00000, VEC); /* no message */
    assert_int_equal(sent, 1);

    regs.reg[R_IRR + 3] = 2;
    regs.reg[R_ISR + 7] = 1;
    vm_pause(&m->vm);
    sink.send(sink.opaque, 0xfee00000, VEC);
    assert_int_equal(sent, 1);
    vm_resume(&m->vm);
    assert_int_equal(regs.reg[R_IRR + VEC / 32], BIT32(VEC % 32));
    assert_int_equal(regs.reg[R_IRR + 3], 2);
    assert_int_equal(regs.reg[R_ISR + 7], 1);
    assert_int_equal(regs.reg[R_SVR], 0x1ff);
    sink.send(sink.opaque, 0xfee00000, VEC);
    assert_int_equal(sent, 2);
    machine_free(m);
}

static void levels__are_announced(void **state)
{
    struct irq_line l;

    (void)state;
    l = irqchip_gsi_line(start(), 20);
    vm_mmio_write(&m->vm, 0xfec00000, 4, 0x10 + 2 * 20);
    vm_mmio_write(&m->vm, 0xfec00010, 4, VEC); /* edge */
    assert_int_equal(last_data, 0);
    vm_mmio_write(&m->vm, 0xfec00010, 4, VEC | BIT32(15));
    assert_int_equal(last_data & 0xff, VEC);
    vm_mmio_write(&m->vm, 0xfec00010, 4,
                  VEC | BIT32(15) | BIT32(16)); /* masked: an EOI may be due */
    assert_int_equal(last_data & 0xff, VEC);
    vm_mmio_write(&m->vm, 0xfec00010, 4, VEC | BIT32(15));
    vm_lock(&m->vm);
    irq_set(&l, true);
    vm_unlock(&m->vm);
    assert_int_equal(sent, 1);
    m->vm.vcpu[0]->irq->eoi(m->vm.vcpu[0]->irq_opaque, VEC); /* still asserted */
    assert_int_equal(sent, 2);
    vm_lock(&m->vm);
    irq_set(&l, false);
    vm_unlock(&m->vm);
    m->vm.vcpu[0]->irq->eoi(m->vm.vcpu[0]->irq_opaque, VEC);
    assert_int_equal(sent, 2);
    machine_free(m);
}

/* A pause in which ns go by. */
static void pause_for(u64 ns)
{
    vm_pause(&m->vm);
    fake_advance(ns);
    vm_resume(&m->vm);
}

static void counts__stand_still(void **state)
{
    (void)state;
    start();
    regs.reg[R_LVT_TIMER] = PERIODIC | VEC;
    regs.reg[R_INIT] = 5000;
    regs.reg[R_CURRENT] = 1234;
    pause_for(1000000);
    assert_int_equal(regs.reg[R_INIT], 5000);
    assert_int_equal(regs.reg[R_CURRENT], 1234);
    regs.reg[R_LVT_TIMER] = ONE_SHOT | VEC;
    pause_for(1000000);
    assert_int_equal(regs.reg[R_CURRENT], 1234);
    assert_int_equal(regs.reg[R_IRR + VEC / 32], 0);
    machine_free(m);
}

/* What stands at 0 is due, unless its interrupt is there. */
static void counts__at_their_end(void **state)
{
    (void)state;
    start();
    regs.reg[R_LVT_TIMER] = ONE_SHOT | VEC;
    regs.reg[R_INIT] = 5000;
    pause_for(1000);
    assert_int_equal(regs.reg[R_INIT], 5000);
    assert_int_equal(regs.reg[R_CURRENT], 0);
    regs.reg[R_IRR + VEC / 32] = BIT32(VEC % 32);
    pause_for(1000);
    assert_int_equal(regs.reg[R_INIT], 0);
    regs.reg[R_LVT_TIMER] = PERIODIC | VEC;
    regs.reg[R_INIT] = 5000;
    regs.reg[R_CURRENT] = 0;
    pause_for(1000);
    assert_int_equal(regs.reg[R_INIT], 5000);
    assert_int_equal(regs.reg[R_CURRENT], 1);
    machine_free(m);
}

/* KVM's register takes any value for the BSP flag, and a saved APIC's says who it is. */
static void boot_processor__stays(void **state)
{
    static u8 buf[4096];
    const char *why = NULL;
    struct stream s;
    struct device *d;

    (void)state;
    start();
    regs.base &= ~BIT64(8);
    vm_pause(&m->vm);
    for (d = m->vm.devices; strcmp(d->ops->name, "lapic"); d = d->next)
        continue;
    vm_lock(&m->vm);
    stream_init(&s, buf, sizeof(buf));
    assert_int_equal(d->ops->save(d, &s, &why), 0);
    stream_init(&s, buf, s.pos);
    assert_int_equal(d->ops->load(d, &s), 0);
    vm_unlock(&m->vm);
    vm_resume(&m->vm);
    assert_int_equal(regs.base, LAPIC_DEFAULT_BASE | BIT64(11) | BIT64(8));
    machine_free(m);
}

static void deadline__is_the_guests_time(void **state)
{
    u64 tsc;

    (void)state;
    start();
    tsc = vcpu_tsc(m->vm.vcpu[0]);
    regs.reg[R_LVT_TIMER] = DEADLINE | VEC;
    regs.tsc_deadline = tsc + 1000;
    pause_for(1000000);
    assert_int_equal(regs.tsc_deadline, tsc + 1000);
    assert_int_equal(vcpu_tsc(m->vm.vcpu[0]), tsc);
    regs.tsc_deadline = 0;
    pause_for(1000);
    assert_int_equal(regs.tsc_deadline, 0);
    machine_free(m);
}

/* The device has the timer while the machine is paused: as it would go on with another engine. */
static void device__has_the_timer(void **state)
{
    (void)state;
    start();
    regs.reg[R_LVT_TIMER] = DEADLINE | VEC;
    vm_pause(&m->vm);
    assert_int_equal(vm_timers_next(&m->vm), UINT64_MAX);
    vm_resume(&m->vm);
    regs.tsc_deadline = vcpu_tsc(m->vm.vcpu[0]) + 1000 * (FAKE_TSC_KHZ / 1000000);
    vm_pause(&m->vm);
    assert_int_equal(vm_timers_next(&m->vm), vm_clock_ns(&m->vm) + 1000);
    vm_resume(&m->vm);
    assert_int_equal(vm_timers_next(&m->vm), UINT64_MAX);
    machine_free(m);
}

/* CPU 1's state and what was sent to it, saved under an engine without APICs and loaded here. */
static void moved_here(struct x86_vcpu_state *s, u32 events)
{
    static u8 buf[16384];
    struct vcpu *v = m->vm.vcpu[1];
    struct stream out, in;

    v->events = events;
    v->sipi_vector = 0x9a;
    stream_init(&out, buf, sizeof(buf));
    vcpu_save(v, &m->cpu[1].s, &out);
    assert_int_equal(out.error, 0);
    stream_init(&in, buf, out.pos);
    v->events = 0;
    assert_int_equal(vcpu_load(v, s, &in), 0);
}

/* Nobody would take it from the events: such an engine starts its vCPUs itself. */
static void events__arrive(void **state)
{
    struct x86_vcpu_state s;
    struct vcpu_apic a;

    (void)state;
    start_cpus(2);
    m->vm.cpu_model.phys_bits = 39;
    m->vm.cpu_model.lin_bits = 48;
    m->vm.cpu_model.mxcsr_mask = 0xffff;
    x86_state_reset(&m->cpu[1].s, 0, 0);
    vm_pause(&m->vm);
    a = regs;
    a.base &= ~(u64)BIT64(8);
    m->vm.vcpu[1]->irq->set_regs(m->vm.vcpu[1]->irq_opaque, &a);
    m->cpu[1].s.rip = 0x1234;
    m->cpu[1].s.cr0 |= CR0_PE;
    moved_here(&s, VCPU_EV_NMI);
    assert_int_equal(m->vm.vcpu[1]->events, VCPU_EV_IRQ);
    assert_int_equal(s.nmi_pending, 1);
    assert_int_equal(s.rip, 0x1234);

    moved_here(&s, VCPU_EV_NMIS);
    assert_int_equal(m->vm.vcpu[1]->events, VCPU_EV_IRQ);
    assert_int_equal(s.nmi_pending, 2);

    moved_here(&s, VCPU_EV_INIT | VCPU_EV_NMIS);
    assert_int_equal(m->vm.vcpu[1]->events, VCPU_EV_IRQ);
    assert_int_equal(s.activity, X86_WAIT_SIPI);
    assert_int_equal(s.nmi_pending, 0);
    assert_false(s.cr0 & CR0_PE);
    m->vm.vcpu[1]->irq->get_regs(m->vm.vcpu[1]->irq_opaque, &a);
    assert_int_equal(a.reg[R_SVR], 0xff);

    m->cpu[1].s = s;
    moved_here(&s, VCPU_EV_SIPI);
    assert_int_equal(s.activity, X86_RUNNING);
    assert_int_equal(s.seg[X86_CS].base, 0x9a000);
    assert_int_equal(s.rip, 0);
    m->cpu[1].s = s;
    m->cpu[1].s.rip = 0x77;
    moved_here(&s, VCPU_EV_SIPI); /* it waits for none */
    assert_int_equal(s.rip, 0x77);
    assert_int_equal(m->vm.vcpu[1]->events, VCPU_EV_IRQ);
    moved_here(&s, VCPU_EV_INIT | VCPU_EV_SIPI);
    assert_int_equal(s.activity, X86_RUNNING);
    assert_int_equal(s.rip, 0);
    vm_resume(&m->vm);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages__go_to_whoever_has_the_registers),
        cmocka_unit_test(levels__are_announced),
        cmocka_unit_test(counts__stand_still),
        cmocka_unit_test(counts__at_their_end),
        cmocka_unit_test(boot_processor__stays),
        cmocka_unit_test(deadline__is_the_guests_time),
        cmocka_unit_test(device__has_the_timer),
        cmocka_unit_test(events__arrive),
    };
    return cmocka_run_group_tests_name("dev-lapic-engine", tests, NULL, NULL);
}
